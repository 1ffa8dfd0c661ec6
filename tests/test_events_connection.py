"""Connections of ``WebSocketServer``: their events, sending, flow, and the end."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, raw
from scripted import LOOPBACK, Run, loop_fixture
from wire import MASK, frame

import websock
from websock.events import WebSocketConnection, WebSocketServer
from websock.frames import Frame, Opcode

run = loop_fixture()

CONT = 0
EVENTS = ("message", "frame", "close", "error", "ping", "pong", "drain")


class Log:
    """Writes down the events of the connections that a server accepts."""

    def __init__(self, server: WebSocketServer) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.queue: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.accepted: asyncio.Queue[WebSocketConnection] = asyncio.Queue()
        server.on("request", self.accept)

    def accept(self, request: Any) -> None:
        connection = request.accept()
        for name in EVENTS:
            connection.on(name, self.adder(name))
        self.accepted.put_nowait(connection)

    def adder(self, name: str) -> Callable[..., None]:
        def add(*args: Any) -> None:
            self.events.append((name, *args))
            self.queue.put_nowait((name, *args))

        return add

    async def next(self) -> tuple[Any, ...]:
        return await self.queue.get()

    async def until(self, name: str) -> tuple[Any, ...]:
        while (event := await self.queue.get())[0] != name:
            pass
        return event


def make(**options: Any) -> tuple[WebSocketServer, Log]:
    server = WebSocketServer(LOOPBACK, 0, **options)
    return server, Log(server)


def masked(opcode: int, payload: bytes = b"", **kwargs: Any) -> bytes:
    return frame(opcode, payload, mask=MASK, **kwargs)


async def leave(client: Raw) -> None:
    """End the connection once the server has ended it: it waits for that."""
    await client.ended()
    client.writer.close()


# -- what is told ----------------------------------------------------------------------


def test_messages_pings_and_the_end(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            await client.send(
                masked(TEXT, "é".encode()),
                masked(BINARY, b"\0"),
                masked(PING, b"p"),
                masked(PONG, b"q"),
                masked(CLOSE, b"\x0f\xa0bye"),
            )
            assert await client.frame() == (PONG, b"p")
            assert await client.frame() == (CLOSE, b"\x0f\xa0bye")
            await leave(client)
            assert await log.until("close") == ("close", 4000, "bye")
            assert log.events == [
                ("message", "é"),
                ("message", b"\0"),
                ("ping", b"p"),
                ("pong", b"q"),
                ("close", 4000, "bye"),
            ]
            assert not connection.connected
            assert connection.close_reason_code == 4000
            assert connection.close_description == "bye"
            assert server.connections == set()

    run(main())


def test_a_message_in_fragments(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            pieces = ["é".encode()[:1], "é".encode()[1:], b"x" * 70_000]
            await client.send(masked(TEXT, pieces[0], fin=False))
            await client.send(masked(CONT, pieces[1], fin=False), masked(PING))
            assert await log.next() == ("ping", b"")
            await client.send(masked(CONT, pieces[2]))
            assert await log.next() == ("message", "é" + "x" * 70_000)

    run(main())


@pytest.mark.parametrize(
    ("ending", "code", "kind"),
    [
        ("empty close frame", 1005, None),
        ("eof", 1006, None),
        ("reset", 1006, ConnectionResetError),
        ("bad frame", 1006, websock.exceptions.ProtocolError),
        ("bad text", 1006, websock.exceptions.InvalidText),
    ],
)
def test_how_it_ends(run: Run, ending: str, code: int, kind: Any) -> None:
    async def main() -> None:
        server, log = make()
        told: asyncio.Queue[Any] = asyncio.Queue()
        server.on("close", lambda *args: told.put_nowait(args))
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            if ending == "empty close frame":
                await client.send(masked(CLOSE))
            elif ending == "eof":
                client.writer.write_eof()
            elif ending == "reset":
                client.reset()
            elif ending == "bad frame":
                await client.send(masked(3))
            else:
                await client.send(masked(TEXT, b"\xff"))
            if ending == "empty close frame" or ending.startswith("bad"):
                await leave(client)
            event = await log.until("close")
            assert event == ("close", code, "")
            assert await told.get() == (connection, code, "")
            errors = [args[0] for name, *args in log.events if name == "error"]
            if kind is None:
                assert errors == []
            else:
                assert isinstance(errors[0], kind)
                assert len(errors) == 1
            assert log.events[-1] == event

    run(main())


def test_an_end_that_nobody_waits_for_is_no_error(run: Run) -> None:
    async def main() -> None:
        server, log = make(close_timeout=0.05)
        async with server, raw(server) as client:
            await client.open()
            await client.send(masked(CLOSE, b"\x03\xe8"))
            # The client keeps its end open, so the server drops the connection.
            assert await log.next() == ("close", 1000, "")

    run(main())


def test_callbacks_that_fail_are_told_and_change_nothing(run: Run) -> None:
    async def main() -> None:
        seen: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()

            async def fail_later(message: Any) -> None:
                raise KeyError

            for name in EVENTS:
                if name != "message":
                    connection.on(name, lambda *args: 1 / 0)
            connection.on("message", fail_later)
            connection.on("message", connection.send)
            await client.send(masked(PING), masked(PONG))
            assert await client.frame() == (PONG, b"")
            await client.echoed("still here")
            await client.send(masked(CLOSE))
            await leave(client)
            await log.until("close")
        kinds = [type(context["exception"]) for context in seen]
        # ping, pong, and close; the coroutine in between or later
        assert sorted(kind.__name__ for kind in kinds) == [
            "KeyError",
            *["ZeroDivisionError"] * 3,
        ]
        assert all(context["source"] is connection for context in seen)

    run(main())


def test_sending_after_the_end_in_a_callback_is_no_mistake(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            connection.on("close", lambda code, reason: connection.send("late"))
            await client.send(masked(CLOSE))
            await leave(client)
            await log.until("close")
            with pytest.raises(websock.ConnectionClosed):
                connection.send("late")
            with pytest.raises(websock.ConnectionClosed):
                connection.ping()

    run(main())  # which fails when the loop is told of an exception


# -- sending ---------------------------------------------------------------------------


def test_what_is_sent(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            assert connection.send("é") is True
            assert connection.send(bytearray(b"b")) is True
            connection.send_utf8("t")
            connection.send_utf8("é".encode())
            connection.send_bytes(memoryview(b"m"))
            connection.ping()
            connection.ping("p")
            connection.pong(b"q")
            got = [await client.frame() for _ in range(8)]
            assert got == [
                (TEXT, "é".encode()),
                (BINARY, b"b"),
                (TEXT, b"t"),
                (TEXT, "é".encode()),
                (BINARY, b"m"),
                (PING, b""),
                (PING, b"p"),
                (PONG, b"q"),
            ]
            with pytest.raises(TypeError, match=r"^data must be bytes-like, not str"):
                connection.send_bytes("x")  # type: ignore[arg-type]
            for wrong in (b"\xc3", bytearray(b"\xff"), memoryview(b"\xed\xa0\x80")):
                with pytest.raises(UnicodeDecodeError):
                    connection.send_utf8(wrong)
            with pytest.raises(TypeError):
                connection.send(1)  # type: ignore[arg-type]
            with pytest.raises(websock.exceptions.ProtocolError):
                connection.ping(bytes(126))
            await client.send(masked(PONG, b"p"))
            assert await log.next() == ("pong", b"p")

    run(main())


def test_drain(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            assert connection.buffered_amount == 0
            count = 0
            while connection.send(bytes(100_000)):
                count += 1
            assert connection.buffered_amount > 0
            assert log.events == []
            for _ in range(count + 1):
                assert await client.frame() == (BINARY, bytes(100_000))
            assert await log.next() == ("drain",)
            assert connection.buffered_amount == 0
            assert connection.send(b"x") is True

    run(main())


# -- flow ------------------------------------------------------------------------------


@pytest.mark.parametrize("assemble", [True, False])
def test_pause_and_resume(run: Run, assemble: bool) -> None:
    async def main() -> None:
        server, log = make(assemble_fragments=assemble)
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            name = "message" if assemble else "frame"

            def pause(item: Any) -> None:
                connection.off(name, pause)
                connection.pause()
                connection.pause()

            connection.on(name, pause)
            # More than buffers of the system take: the client has to wait.
            data = bytes(100_000)
            sending = asyncio.create_task(client.send(*[masked(BINARY, data)] * 200))
            first = await log.next()
            done, _ = await asyncio.wait([sending], timeout=0.2)
            assert not done
            assert log.events == [first]
            connection.resume()
            connection.resume()
            await sending
            while len(log.events) < 200:
                await log.next()
            got = [event[1] if assemble else event[1].data for event in log.events]
            assert got == [data] * 200

    run(main())


def test_a_paused_connection_is_told_of_its_end(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            assert repr(connection).startswith(
                "<WebSocketConnection open ('127.0.0.1', "
            )
            connection.pause()
            connection.drop(4000, "enough")
            assert await log.next() == ("close", 4000, "enough")
            connection.resume()

    run(main())


@pytest.mark.parametrize("assemble", [True, False])
@pytest.mark.parametrize("how", ["close", "close_all_connections", "shut_down"])
def test_closing_ends_a_pause(run: Run, how: str, assemble: bool) -> None:
    """Or the peer's close frame would be read when the time for it is over."""

    async def main() -> None:
        server, log = make(assemble_fragments=assemble, close_timeout=None)
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            connection.pause()
            await client.message("before")
            closing = getattr(connection if how == "close" else server, how)
            result = closing(4000, "enough")
            end = asyncio.create_task(client.closing())
            if result is not None:
                await result
            assert await end == (4000, "enough")
            assert (await log.next())[0] == ("message" if assemble else "frame")
            assert await log.next() == ("close", 4000, "enough")

    run(main())


def test_a_pause_longer_than_pings_may_take(run: Run) -> None:
    async def main() -> None:
        server, log = make(ping_interval=0.2, ping_timeout=0.5)
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            connection.pause()
            opcode, payload = await client.frame()
            assert opcode == PING
            await client.send(masked(PONG, payload))
            await asyncio.sleep(1.2)
            assert log.events == []
            assert connection.connected
            connection.resume()
            assert await log.next() == ("pong", payload)
            # And from now on pongs are awaited as ever.
            assert (await client.frame())[0] == PING
            assert await client.closing() == (1011, "keepalive ping timeout")
            assert (await log.until("close"))[1] in (1006, 1011)

    run(main())


def test_a_pause_where_pongs_are_not_awaited(run: Run) -> None:
    async def main() -> None:
        server, log = make(ping_interval=0.05, ping_timeout=None)
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            connection.pause()
            for _ in range(3):
                assert (await client.frame())[0] == PING
            connection.resume()
            assert (await client.frame())[0] == PING
            await client.message("still here")
            assert await log.next() == ("message", "still here")

    run(main())


# -- the end ---------------------------------------------------------------------------


def test_close(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            with pytest.raises(ValueError):
                connection.close(1005)
            with pytest.raises(ValueError):
                connection.close(1000, "x" * 124)
            assert connection.connected
            connection.close(3001, "bye")
            connection.close(3002)
            assert not connection.connected
            assert connection.close_reason_code is None
            assert await client.closing() == (3001, "bye")
            assert await log.next() == ("close", 3001, "bye")
            assert connection.close_reason_code == 3001

    run(main())


def test_drop(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            with pytest.raises(ValueError):
                connection.drop(1006)
            connection.drop(4001, "out")
            # The close frame, and the end, without an answer.
            assert await client.frame() == (CLOSE, b"\x0f\xa1out")
            assert await client.ended() == b""
            assert await log.next() == ("close", 4001, "out")
            assert connection.close_reason_code == 4001
            assert connection.close_description == "out"
            connection.drop(4002)
            assert connection.close_reason_code == 4001
            assert [event[0] for event in log.events] == ["close"]

    run(main())


def test_drop_without_a_close_frame(run: Run) -> None:
    async def main() -> None:
        server, log = make()
        async with server, raw(server) as client:
            await client.open()
            connection = await log.accepted.get()
            connection.drop(skip_close_frame=True)
            assert await client.ended() == b""
            assert await log.next() == ("close", 1002, "")

    run(main())


# -- frames ----------------------------------------------------------------------------


def test_frames(run: Run) -> None:
    async def main() -> None:
        server, log = make(assemble_fragments=False)
        async with server, raw(server) as client:
            await client.open()
            await client.send(
                masked(TEXT, "é".encode()[:1], fin=False),
                masked(CONT, b"", fin=False),
                masked(PING, b"p"),
                masked(CONT, "é".encode()[1:]),
                masked(BINARY, b"\0"),
                masked(TEXT),
                masked(CLOSE, b"\x03\xe8"),
            )
            await leave(client)
            assert await log.until("close") == ("close", 1000, "")
            frames = [event[1] for event in log.events if event[0] == "frame"]
            assert frames == [
                Frame(Opcode.TEXT, "é".encode()[:1], False),
                Frame(Opcode.CONT, b"", False),
                Frame(Opcode.CONT, "é".encode()[1:], True),
                Frame(Opcode.BINARY, b"\0", True),
                Frame(Opcode.TEXT, b"", True),
            ]
            assert ("ping", b"p") in log.events
            assert log.events[-1][0] == "close"
            assert "message" not in [event[0] for event in log.events]

    run(main())


def test_compressed_frames(run: Run) -> None:
    async def main() -> None:
        server, log = make(assemble_fragments=False)
        async with server, raw(server) as client:
            await client.open(
                "Sec-WebSocket-Extensions: permessage-deflate; "
                "client_no_context_takeover; server_no_context_takeover"
            )
            connection = await log.accepted.get()
            compressor = zlib.compressobj(wbits=-15)
            data = compressor.compress(b"hello") + compressor.flush(zlib.Z_SYNC_FLUSH)
            data = data.removesuffix(b"\0\0\xff\xff")
            await client.send(
                masked(TEXT, data[:3], fin=False, rsv=0x40), masked(CONT, data[3:])
            )
            frames = [(await log.next())[1] for _ in range(2)]
            assert [f.opcode for f in frames] == [Opcode.TEXT, Opcode.CONT]
            assert [f.fin for f in frames] == [False, True]
            assert b"".join(f.data for f in frames) == b"hello"
            connection.send("hello " * 100)
            first, n = await client.reader.readexactly(2)
            assert first == 0xC1  # compressed
            answer = await client.reader.readexactly(n)
            decompressor = zlib.decompressobj(wbits=-15)
            text = decompressor.decompress(answer + b"\0\0\xff\xff")
            assert text == b"hello " * 100

    run(main())


@pytest.mark.parametrize("bad", [masked(CONT), masked(TEXT, b"\xff")])
def test_frames_are_checked(run: Run, bad: bytes) -> None:
    async def main() -> None:
        server, log = make(assemble_fragments=False)
        async with server, raw(server) as client:
            await client.open()
            await client.send(masked(TEXT, b"x"), bad)
            await leave(client)
            assert await log.until("close") == ("close", 1006, "")
            names = [event[0] for event in log.events]
            assert names == ["frame", "error", "close"]

    run(main())


def test_limits_hold_for_frames(run: Run) -> None:
    async def main() -> None:
        server, log = make(assemble_fragments=False, max_size=10)
        async with server, raw(server) as client:
            await client.open()
            await client.send(masked(BINARY, bytes(6), fin=False))
            await client.send(masked(CONT, bytes(6)))
            opcode, payload = await client.frame()
            assert (opcode, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
            await leave(client)
            await log.until("close")

    run(main())
