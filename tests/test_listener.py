"""The callback API, on a server and on a client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from scripted import LOOPBACK, Run, loop_fixture
from wire import MASK, frame

import websock
from websock.exceptions import ConcurrencyError, ConnectionClosed
from websock.listener import check_listener

run = loop_fixture()

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Recorder(websock.Listener):
    """Writes down what happens; ``closed`` is set at the end."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.closed = asyncio.Event()
        self.ws: Any = None

    def on_open(self, ws: Any) -> None:
        self.ws = ws
        self.calls.append(("open",))

    def on_message(self, ws: Any, message: Any) -> None:
        assert ws is self.ws
        self.calls.append(("message", message))

    def on_ping(self, ws: Any, data: bytes) -> None:
        self.calls.append(("ping", data))

    def on_pong(self, ws: Any, data: bytes) -> None:
        self.calls.append(("pong", data))

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.calls.append(("close", code, reason))
        self.closed.set()


async def raw(server: websock.Server, data: bytes) -> Any:
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(REQUEST + data)
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def url_of(server: websock.Server) -> str:
    return f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/"


def test_order_of_calls(run: Run) -> None:
    async def main() -> None:
        listener = Recorder()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            data = frame(1, "é".encode(), mask=MASK) + frame(9, b"p", mask=MASK)
            data += frame(2, b"b", mask=MASK) + frame(10, b"q", mask=MASK)
            data += frame(1, b"a", fin=False, mask=MASK) + frame(0, b"b", mask=MASK)
            data += frame(8, b"\x0b\xb8bye", mask=MASK)
            reader, writer = await raw(server, data)
            assert await reader.read() == frame(10, b"p") + frame(8, b"\x0b\xb8bye")
            writer.close()
            await listener.closed.wait()
        assert listener.calls == [
            ("open",),
            ("message", "é"),
            ("ping", b"p"),
            ("message", b"b"),
            ("pong", b"q"),
            ("message", "ab"),
            ("close", 3000, "bye"),
        ]

    run(main())


def test_client(run: Run) -> None:
    async def main() -> None:
        theirs, ours = Recorder(), Recorder()
        async with websock.serve(theirs, LOOPBACK, 0) as server:
            ws = await websock.connect(url_of(server), listener=ours, proxy=None)
            assert ws is ours.ws
            assert ws.listener is ours
            ws.send_nowait("hello")
            with pytest.raises(ConcurrencyError):
                await ws.recv()
            ws.close_nowait(1000, "done")
            await ours.closed.wait()
            await theirs.closed.wait()
            with pytest.raises(ConnectionClosed):
                ws.send_nowait("late")
        assert ours.calls == [("open",), ("close", 1000, "done")]
        assert theirs.calls == [
            ("open",),
            ("message", "hello"),
            ("close", 1000, "done"),
        ]

    run(main())


@pytest.mark.parametrize(("ending", "code"), [("eof", 1006), ("reset", 1006)])
def test_close_without_a_close_frame(run: Run, ending: str, code: int) -> None:
    async def main() -> None:
        listener = Recorder()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            _, writer = await raw(server, b"")
            if ending == "reset":
                writer.transport.abort()
            writer.close()
            await listener.closed.wait()
        assert listener.calls == [("open",), ("close", code, "")]

    run(main())


def test_nothing_is_told_of_a_handshake_that_failed(run: Run) -> None:
    async def main() -> None:
        ours = Recorder()

        def refuse(ws: Any, request: Any) -> Any:
            return ws.respond(403, "no\n")

        async with websock.serve(Recorder, LOOPBACK, 0, process_request=refuse) as s:
            with pytest.raises(websock.InvalidStatus):
                await websock.connect(url_of(s), listener=ours, proxy=None)
        assert ours.calls == []

    run(main())


def test_pausing_in_the_middle_of_a_read(run: Run) -> None:
    class Pausing(Recorder):
        def on_message(self, ws: Any, message: Any) -> None:
            super().on_message(ws, message)
            if message == "2":
                ws.pause_reading()

    async def main() -> None:
        listener = Pausing()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            data = [frame(1, str(n).encode(), mask=MASK) for n in range(6)]
            reader, writer = await raw(server, b"".join(data))
            writer.write(frame(8, b"\x03\xe8", mask=MASK))
            await writer.drain()
            for _ in range(50):
                await asyncio.sleep(0)
            assert listener.calls[1:] == [("message", str(n)) for n in range(3)]
            listener.ws.resume_reading()
            assert await reader.read() == frame(8, b"\x03\xe8")
            writer.close()
            await listener.closed.wait()
        expected = [("message", str(n)) for n in range(6)]
        assert listener.calls[1:] == [*expected, ("close", 1000, "")]

    run(main())


def test_writing_to_a_peer_that_does_not_read(run: Run) -> None:
    class Echo(Recorder):
        def on_message(self, ws: Any, message: Any) -> None:
            ws.send_nowait(message)

        def on_pause_writing(self, ws: Any) -> None:
            self.calls.append(("pause",))

        def on_resume_writing(self, ws: Any) -> None:
            self.calls.append(("resume",))

    async def main() -> None:
        listener = Echo()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            reader, writer = await raw(server, b"")
            sent = 0
            message = frame(2, bytes(60_000), mask=MASK)
            while ("pause",) not in listener.calls:
                writer.write(message)
                sent += 1
                await asyncio.sleep(0)
            # What it answers does not pile up: reading has stopped.
            for _ in range(100):
                writer.write(message)
                sent += 1
                await asyncio.sleep(0)
            assert listener.ws.buffered_amount < 1_000_000
            answer = frame(2, bytes(60_000))
            for _ in range(sent):
                assert await reader.readexactly(len(answer)) == answer
            assert listener.calls[:3] == [("open",), ("pause",), ("resume",)]
            writer.close()
            await listener.closed.wait()

    run(main())


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_ping", "on_pong"])
def test_methods_that_fail(
    run: Run, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any, ws: Any, *args: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        kind = type("Failing", (Recorder,), {name: fail})
        listener = kind()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            data = frame(1, b"x", mask=MASK) + frame(9, b"", mask=MASK)
            reader, writer = await raw(server, data + frame(10, b"", mask=MASK))
            answer = await reader.read()
            assert frame(8, b"\x03\xf3") in answer
            writer.close()
            await listener.closed.wait()

    run(main())
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == "listener failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_on_error(run: Run) -> None:
    class Careful(Recorder):
        def on_message(self, ws: Any, message: Any) -> None:
            super().on_message(ws, 1 / int(message))

        def on_error(self, ws: Any, exc: Exception) -> None:
            self.calls.append(("error", type(exc)))

    async def main() -> None:
        listener = Careful()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            async with websock.connect(url_of(server), proxy=None) as ws:
                for message in ("1", "0", "2"):
                    await ws.send(message)
            await listener.closed.wait()
        assert listener.calls[1:4] == [
            ("message", 1.0),
            ("error", ZeroDivisionError),
            ("message", 0.5),
        ]

    run(main())


def test_on_close_that_fails(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def on_close(self, ws: Any, code: int, reason: str) -> None:
            super().on_close(ws, code, reason)
            raise ZeroDivisionError

    async def main() -> None:
        listener = Failing()
        async with websock.serve(listener, LOOPBACK, 0) as server:
            await (await websock.connect(url_of(server), proxy=None)).close()
            await listener.closed.wait()

    run(main())
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == "listener failed in on_close"


def test_wrong_listeners() -> None:
    class Later(websock.Listener):
        async def on_message(self, ws: Any, message: Any) -> None: ...  # type: ignore[override]

    for listener in (Later, Later()):
        with pytest.raises(TypeError, match=r"^Later.on_message is a coroutine"):
            check_listener(listener)
    with pytest.raises(TypeError, match=r"^listener has no method on_open"):
        check_listener(object())
