"""``WebSocket``, the browser's client, against servers on real sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import weakref
from typing import Any

import pytest
from scripted import (
    LOOPBACK,
    Peer,
    Run,
    loop_fixture,
    read_frame,
    refuse,
    say_bye,
    scripted,
    tls_fixture,
)
from wire import frame

import websock
from websock.events import (
    CloseEvent,
    DOMSyntaxError,
    InvalidAccessError,
    InvalidStateError,
    MessageEvent,
    WebSocket,
)

run = loop_fixture()
tls = tls_fixture()


class Echo(websock.Listener):
    """Sends every message back."""

    def on_message(self, ws: Any, message: Any) -> None:
        ws.send_nowait(message)


def url_of(server: websock.Server) -> str:
    return f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"


class Log:
    """Writes down the events of a WebSocket."""

    def __init__(self, ws: WebSocket) -> None:
        self.events: list[Any] = []
        self.states: list[int] = []
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        for name in ("open", "message", "error", "close"):
            ws.addEventListener(name, self.add)

    def add(self, event: Any) -> None:
        self.events.append(event)
        self.states.append(event.target.readyState)
        if event.type == "message":
            self.messages.put_nowait(event.data)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


# -- opening ---------------------------------------------------------------------------


def test_constants() -> None:
    names = ("CONNECTING", "OPEN", "CLOSING", "CLOSED")
    assert [getattr(WebSocket, name) for name in names] == [0, 1, 2, 3]


def test_from_beginning_to_end(run: Run) -> None:
    async def main() -> None:
        def select(ws: Any, offered: Any) -> Any:
            return "chat"

        async with websock.serve(Echo, LOOPBACK, 0, select_subprotocol=select) as s:
            ws = WebSocket(url_of(s), ["other", "chat"])
            log = Log(ws)
            assert ws.readyState == ws.CONNECTING == 0
            assert (ws.url, ws.protocol, ws.extensions) == (url_of(s) + "/", "", "")
            assert (ws.bufferedAmount, ws.binaryType) == (0, "bytes")
            assert repr(ws) == f"<WebSocket connecting {ws.url}>"
            assert await ws.opened is ws
            assert await ws.opened is ws
            assert ws.readyState == ws.OPEN
            assert ws.protocol == "chat"
            assert ws.extensions.startswith("permessage-deflate")
            ws.send("é")
            ws.send(b"\0\1")
            assert await log.messages.get() == "é"
            assert await log.messages.get() == b"\0\1"
            ws.close(3000, "bye")
            assert ws.readyState == ws.CLOSING
            event = await ws.closed
            assert await ws.closed is event
            assert ws.readyState == ws.CLOSED
            assert (event.code, event.reason, event.wasClean) == (3000, "bye", True)
            assert log.types == ["open", "message", "message", "close"]
            assert log.states == [1, 1, 1, 3]
            assert log.events[1].origin == url_of(s)
            assert log.events[-1] is event
            assert await ws.opened is ws  # it was

    run(main())


def test_on_attributes(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            calls: list[str] = []
            done = asyncio.Event()

            def on_open(event: Any) -> None:
                calls.append(event.type)
                event.target.send("x")

            async def on_message(event: MessageEvent) -> None:
                await asyncio.sleep(0)
                calls.append(event.data)
                ws.close()

            def on_close(event: CloseEvent) -> None:
                calls.append(event.type)
                done.set()

            ws.onopen, ws.onmessage, ws.onclose = on_open, on_message, on_close
            assert ws.onerror is None
            await done.wait()
            assert calls == ["open", "x", "close"]

    run(main())


@pytest.mark.parametrize(
    ("url", "protocols"),
    [("/", []), ("ws://x/#a", []), ("ws://x", ["a", "a"]), ("ws://x", "a b")],
)
def test_wrong_arguments_are_syntax_errors(url: str, protocols: Any) -> None:
    # Before anything else: there is no loop here.
    with pytest.raises(DOMSyntaxError) as info:
        WebSocket(url, protocols)
    assert info.value.name == "SyntaxError"


def test_without_a_loop() -> None:
    with pytest.raises(RuntimeError):
        WebSocket(f"ws://{LOOPBACK}/")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"listener": None}, TypeError),
        ({"nonsense": 1}, TypeError),
        ({"compression": "x"}, ValueError),
    ],
)
def test_wrong_options(run: Run, options: Any, error: Any) -> None:
    async def main() -> None:
        with pytest.raises(error):
            WebSocket(f"ws://{LOOPBACK}/", **options)

    run(main())


def test_options_of_connect(run: Run) -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            headers = ws.request.headers
            await ws.send(headers["Origin"] + headers["X-A"] + ws.request.path)

        async with websock.serve(handler, LOOPBACK, 0) as server:
            ws = WebSocket(
                url_of(server) + "/a b?c",
                origin="http://o",
                additional_headers={"X-A": "1"},
                compression=None,
            )
            log = Log(ws)
            assert await log.messages.get() == "http://o1/a%20b?c"
            assert ws.extensions == ""
            assert (await ws.closed).wasClean

    run(main())


def test_tls(run: Run, tls: Any) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0, ssl=tls.server) as server:
            url = url_of(server).replace("ws:", "https:")
            ws = WebSocket(url, ssl=tls.client)
            log = Log(ws)
            assert ws.url.startswith("wss://")
            await ws.opened
            ws.send("x" * 300_000)
            assert ws.bufferedAmount == 300_000
            assert len(await log.messages.get()) == 300_000
            assert ws.bufferedAmount == 0
            ws.close()
            assert (await ws.closed).code == 1005

    run(main())


# -- failing ---------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        port: int = sock.getsockname()[1]
        return port


def test_nobody_listens(run: Run) -> None:
    async def main() -> None:
        ws = WebSocket(f"ws://{LOOPBACK}:{closed_port()}")
        log = Log(ws)
        with pytest.raises(ConnectionRefusedError):
            await ws.opened
        event = await ws.closed
        assert (event.code, event.reason, event.wasClean) == (1006, "", False)
        assert log.types == ["error", "close"]
        assert isinstance(log.events[0].error, ConnectionRefusedError)
        assert log.events[0].message == str(log.events[0].error)
        assert log.states == [3, 3]
        with pytest.raises(ConnectionRefusedError):
            await ws.opened

    run(main())


@pytest.mark.parametrize(
    "script",
    [
        refuse("403 Forbidden"),
        # Browsers do not follow it, and so it is not followed.
        refuse("302 Found", f"Location: ws://{LOOPBACK}/"),
    ],
)
def test_a_server_that_refuses(run: Run, script: Any) -> None:
    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            log = Log(ws)
            with pytest.raises(websock.InvalidStatus):
                await ws.opened
            assert (await ws.closed).code == 1006
            assert log.types == ["error", "close"]

    run(main())


def test_a_server_that_says_nothing(run: Run) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.ended()

    async def main() -> None:
        async with scripted(silent) as server:
            ws = WebSocket(server.uri, open_timeout=0.5)
            log = Log(ws)
            assert (await ws.closed).code == 1006
            assert isinstance(log.events[0].error, TimeoutError)

    run(main())


@pytest.mark.parametrize("when", ["at once", "later"])
def test_close_while_connecting(run: Run, when: str) -> None:
    asked = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        asked.set()
        assert await peer.ended() == b""

    async def main() -> None:
        async with scripted(silent) as server:
            ws = WebSocket(server.uri)
            log = Log(ws)
            with pytest.raises(InvalidStateError, match=r"not open yet$"):
                ws.send("x")
            if when == "later":
                await asked.wait()
            opened = ws.opened
            ws.close(1000, "no")
            ws.close()
            assert ws.readyState == ws.CLOSING
            assert log.types == []
            event = await ws.closed
            assert (event.code, event.wasClean) == (1006, False)
            assert log.types == ["error", "close"]
            with pytest.raises(websock.ConnectionClosed):
                await opened
            if when == "at once":
                async with asyncio.timeout(10):
                    _, writer = await asyncio.open_connection(LOOPBACK, server.port)
                    writer.write(b"GET / HTTP/1.1\r\n\r\n")
                    writer.close()
                    await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("ending", ["eof", "reset", "bad frame"])
def test_an_unclean_end(run: Run, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(1, b"x")))
        if ending == "bad frame":
            await peer.send(frame(3))
            await say_bye(peer)
            await peer.send(frame(8, b"\x03\xea"))  # which is too late to matter
        elif ending == "reset":
            await peer.reader.readexactly(1)
            peer.reset()

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            log = Log(ws)
            await ws.opened
            ws.send("y")
            event = await ws.closed
            assert (event.code, event.reason, event.wasClean) == (1006, "", False)
            assert log.types == ["open", "message", "error", "close"]
            assert isinstance(log.events[2].error, websock.ConnectionClosed)

    run(main())


# -- closing ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 999, 1001, 1005, 1006, 2999, 5000, -1])
def test_close_codes_that_are_refused(run: Run, code: int) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            await ws.opened
            with pytest.raises(InvalidAccessError) as info:
                ws.close(code)
            assert info.value.name == "InvalidAccessError"
            assert str(code) in str(info.value)
            assert ws.readyState == ws.OPEN
            ws.close()
            await ws.closed

    run(main())


def test_close_reasons(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            await ws.opened
            with pytest.raises(DOMSyntaxError, match=r"124 bytes, limit 123$"):
                ws.close(1000, "é" * 62)
            with pytest.raises(TypeError):
                ws.close("1000")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                ws.close(1000, b"x")  # type: ignore[arg-type]
            ws.close(reason="\ud800" + "é" * 60)  # a reason needs a code
            event = await ws.closed
            assert (event.code, event.reason) == (1000, "\ufffd" + "é" * 60)
            ws.close()
            with pytest.raises(InvalidAccessError):
                ws.close(1)

    run(main())


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(b"", 1005, ""), (b"\x03\xf3", 1011, ""), (b"\x0f\xa0no", 4000, "no")],
)
def test_the_server_closes(run: Run, payload: bytes, code: int, reason: str) -> None:
    answers = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(8, payload)))
        peer.writer.write_eof()
        answers.append(await peer.ended())

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            log = Log(ws)
            event = await ws.closed
            assert (event.code, event.reason, event.wasClean) == (code, reason, True)
            assert log.types == ["open", "close"]
        assert len(answers[0]) == 6 + len(payload)

    run(main())


def test_the_server_has_begun_to_close(run: Run) -> None:
    """It is ``CLOSING`` from then on, and nothing is sent any more."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(8, b"\x03\xe8")))
        assert (await read_frame(peer.reader))[0] == 8
        answered.set()
        await go.wait()

    answered, go = asyncio.Event(), asyncio.Event()

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            await answered.wait()
            assert ws.readyState == ws.CLOSING
            ws.send("late")
            ws.close(3000, "mine")
            assert ws.bufferedAmount == 4
            go.set()
            assert (await ws.closed).code == 1000
            assert ws.readyState == ws.CLOSED
            assert ws.bufferedAmount == 4

    run(main())


def test_messages_after_close_are_not_told(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(1, b"1") + frame(1, b"2")))
        await peer.send(frame(1, b"3") + frame(8, b"\x03\xe8"))
        await say_bye(peer)

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            log = Log(ws)
            ws.onmessage = lambda event: ws.close(1000)
            assert (await ws.closed).wasClean
            assert log.types == ["open", "message", "close"]

    run(main())


# -- sending ---------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_buffered_amount(run: Run, compression: Any) -> None:
    """A peer that does not read, and then does."""
    go = asyncio.Event()

    async def handler(ws: Any) -> None:
        ws.pause_reading()
        await go.wait()
        ws.resume_reading()
        async for _ in ws:
            pass

    async def main() -> None:
        async with websock.serve(
            handler, LOOPBACK, 0, compression=compression, max_size=None
        ) as server:
            ws = WebSocket(url_of(server))
            await ws.opened
            ws.send("é")
            ws.send(b"123")
            ws.send(memoryview(b"12345678").cast("I"))
            assert ws.bufferedAmount == 13  # until the loop's next turn
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert ws.bufferedAmount == 0
            noise = os.urandom(500_000)
            sent = 0
            before = 0
            while before < 2_000_000:
                ws.send(noise)
                sent += len(noise)
                assert ws.bufferedAmount == before + len(noise)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                before = ws.bufferedAmount
                assert 0 <= before <= sent
            go.set()
            while ws.bufferedAmount:
                assert ws.bufferedAmount <= before
                before = ws.bufferedAmount
                await asyncio.sleep(0.001)
            ws.close()
            ws.send("abc")
            assert ws.bufferedAmount == 3
            await ws.closed
            ws.send("é")
            assert ws.bufferedAmount == 5

    run(main())


def test_control_frames_are_not_counted(run: Run) -> None:
    """Pings and the close frame go out behind messages, and are none."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept())
        await stop.wait()
        peer.reset()

    stop = asyncio.Event()

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(
                server.uri, compression=None, ping_interval=0.2, ping_timeout=None
            )
            await ws.opened
            assert ws._ws is not None
            ws.send(bytes(2**26))  # more than systems take
            amount = 0
            while amount != ws.bufferedAmount:
                amount = ws.bufferedAmount
                await asyncio.sleep(0.3)
            assert 0 < amount < 2**26
            ws.send(b"123")
            amount += 3
            assert ws.bufferedAmount == amount
            size = ws._ws.control_size
            await asyncio.sleep(1)
            assert ws._ws.control_size > size  # pings, of ten bytes each
            assert ws.bufferedAmount == amount
            ws.send("é")
            amount += 2
            ws.close(1000, "enough")
            assert ws.bufferedAmount == amount
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert ws.bufferedAmount == amount
            ws.send("é")
            amount += 2
            assert ws.bufferedAmount == amount
            stop.set()
            assert (await ws.closed).code == 1006
            assert ws.bufferedAmount == amount

    run(main())


def test_callbacks_set_after_opened(run: Run) -> None:
    """Messages that come with the opening handshake wait for those who await it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(1, b"hello") + frame(8, b"\x03\xe8bye")))
        await say_bye(peer)

    async def plainly(ws: WebSocket) -> None:
        assert await ws.opened is ws

    async def bounded(ws: WebSocket) -> None:
        assert await asyncio.wait_for(ws.opened, 30) is ws

    async def main() -> None:
        async with scripted(script) as server:
            for wait in (plainly, bounded):
                ws = WebSocket(server.uri)
                await wait(ws)
                log = Log(ws)
                event = await ws.closed
                assert (event.code, event.reason, event.wasClean) == (1000, "bye", True)
                assert log.types == ["message", "close"]
                assert log.messages.get_nowait() == "hello"

    run(main())


def test_what_was_never_sent_stays_counted(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept())
        await stop.wait()
        peer.reset()

    stop = asyncio.Event()

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            await ws.opened
            sent = 0
            while ws.bufferedAmount < 1_000_000:
                ws.send(bytes(300_000))
                sent += 300_000
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            stop.set()
            assert (await ws.closed).code == 1006
            amount = ws.bufferedAmount
            assert 900_000 <= amount <= sent
            ws.send(b"x")
            assert ws.bufferedAmount == amount + 1

    run(main())


def test_what_is_sent(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            log = Log(ws)
            await ws.opened
            for wrong in (None, 1, ["x"], object()):
                with pytest.raises(TypeError, match=r"^data must be str or bytes-like"):
                    ws.send(wrong)  # type: ignore[arg-type]
            ws.send("")
            ws.send(bytearray(b"a"))
            ws.send(memoryview(b"b"))
            ws.send("lone \ud800")
            ws.send("x" * 100_000)
            got = [await log.messages.get() for _ in range(5)]
            assert got == ["", b"a", b"b", "lone \ufffd", "x" * 100_000]
            ws.close()
            await ws.closed

    run(main())


def test_binary_type(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            log = Log(ws)
            await ws.opened
            kinds = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}
            for name, kind in kinds.items():
                ws.binaryType = name  # type: ignore[assignment]
                assert ws.binaryType == name
                ws.send(b"data")
                ws.send("text")
                data = await log.messages.get()
                assert type(data) is kind
                assert data == b"data"
                assert await log.messages.get() == "text"
            with pytest.raises(ValueError, match=r"^binaryType is 'blob', expected"):
                ws.binaryType = "blob"  # type: ignore[assignment]
            assert ws.binaryType == "memoryview"
            ws.close()
            await ws.closed

    run(main())


def test_a_message_in_fragments_is_one_event(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(1, b"a", fin=False)))
        await peer.send(frame(9) + frame(0, b"b", fin=False))
        await peer.send(frame(0, b"c") + frame(8, b"\x03\xe8"))
        await say_bye(peer)

    async def main() -> None:
        async with scripted(script) as server:
            ws = WebSocket(server.uri)
            log = Log(ws)
            await ws.closed
            assert log.types == ["open", "message", "close"]
            assert log.events[1].data == "abc"

    run(main())


# -- callbacks -------------------------------------------------------------------------


def test_callbacks_that_fail(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            log = Log(ws)

            async def fails_later(event: Any) -> None:
                raise KeyError

            ws.onopen = lambda event: 1 / 0
            ws.onmessage = fails_later
            ws.onclose = lambda event: 1 / 0
            await ws.opened
            ws.send("a")
            await log.messages.get()
            ws.send("b")  # it is open as before
            await log.messages.get()
            ws.close(1000)
            assert (await ws.closed).code == 1000
        kinds = [type(context["exception"]) for context in seen]
        assert kinds == [ZeroDivisionError, KeyError, KeyError, ZeroDivisionError]
        assert all(context["source"] is ws for context in seen)

    run(main())


def test_waiting_may_be_cancelled(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            first = asyncio.ensure_future(asyncio.wait_for(ws.opened, None))
            await asyncio.sleep(0)
            first.cancel()
            assert await ws.opened is ws
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.closed, 0.01)
            ws.close()
            assert (await ws.closed).wasClean

    run(main())


def test_it_is_freed_when_it_is_over(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0) as server:
            ws = WebSocket(url_of(server))
            await ws.opened
            ws.close()
            await ws.closed
            alive = weakref.ref(ws)
            del ws
            await asyncio.sleep(0)
            gc.collect()
            assert alive() is None

    run(main())
