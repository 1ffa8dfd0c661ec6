"""aiohttp with and without its speed-up: nobody can tell them apart."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import base64
import contextlib
import hashlib
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import aiohttp.client_proto
import aiohttp.client_ws
import aiohttp.web_protocol
import aiohttp.web_ws
import pytest
from aiohttp import WSMsgType, web
from helpers import request
from host_patches import (
    DEFLATE,
    GENERATED,
    KEY,
    MESSAGES,
    any_frames,
    frame,
    parts,
    patched,
    same,
    serving_a_client,
    shown,
    unmasked,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import TLS, tls_fixture

import websock
from websock import BACKEND, speedups
from websock.speedups import _aiohttp_writer
from websock.speedups._aiohttp import PATCH
from websock.speedups._aiohttp_writer import AT_MOST, LARGE, PATIENCE, Joined

TIMEOUT = 60  # seconds
LIMIT = 100_000
contexts = tls_fixture()
CLOSE = frame(0x88, b"\x03\xe8done", KEY)

Handler = Callable[[web.Request, web.WebSocketResponse, list[Any]], Awaitable[None]]


def seen(message: Any) -> Any:
    """Return what is to be compared of a message."""
    return (type(message), message[0], shown(message[1]), shown(message[2]))


def with_and_without(once: Callable[[], Any]) -> Any:
    """Run something without the patch and with it; return what both gave."""
    want = once()
    with patched(PATCH):
        assert once() == want
    return want


# -- servers -----------------------------------------------------------------------


async def echo(request: web.Request, ws: web.WebSocketResponse, notes: Any) -> None:
    """Echo, and do what messages ask for."""
    async for message in ws:
        notes.append(seen(message))
        if message.type is WSMsgType.TEXT:
            if message.data == "raise":
                raise LookupError("a mistake of the program")
            if message.data == "close":
                await ws.close(code=3001, message=b"bye")
            elif message.data == "transport":
                await ws.send_str("before the end")
                assert request.transport is not None
                request.transport.close()
            elif message.data == "slow":
                await asyncio.sleep(0)
                await ws.send_str(message.data)
            elif message.data == "ping":
                await ws.send_str("before")
                await ws.ping(b"ping")
                await ws.send_str("after")
            elif message.data == "leave":
                return
            else:
                await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)


@contextlib.asynccontextmanager
async def serving(
    notes: list[Any], handler: Handler = echo, context: Any = None, **options: Any
) -> Any:
    """Serve; give the port, and an event for the end of a connection."""
    over = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(max_msg_size=LIMIT, **options)
        await ws.prepare(request)
        try:
            await handler(request, ws, notes)
        except Exception as exc:
            notes.append((type(exc), str(exc)))
            raise
        finally:
            notes.append(("end", ws.closed, ws.close_code, shown(ws.exception())))
            over.set()
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield runner.addresses[0][1], over
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def opened(port: int, *lines: str, first: bytes = b"") -> Any:
    """Open a connection to a server; give its streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(*lines) + first)
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.contextmanager
def counted_bytes(kind: Any) -> Any:
    """Count what protocols of a class are given to parse."""
    data_received, counts = kind.data_received, [0]

    def counting(self: Any, data: bytes) -> None:
        counts[0] += len(data)
        data_received(self, data)

    kind.data_received = counting
    try:
        yield counts
    finally:
        kind.data_received = data_received


def converse(
    pieces: list[bytes],
    lines: Sequence[str] = (),
    between: Callable[[], Any] | None = None,
    may_stick: bool = False,
    **options: Any,
) -> Any:
    """Send bytes to a server; return what it saw, what came, whether it was reset.

    Args:
        pieces: The bytes; they end with a close frame.
        lines: Further header lines of the request.
        between: Called after each piece.
        may_stick: Whether the close frame may be in the payload of a frame.
        **options: Options of the server.
    """
    notes: list[Any] = []
    received = b""
    reset = False

    async def main(counts: list[int]) -> None:
        async with (
            asyncio.timeout(TIMEOUT),
            serving(notes, timeout=TIMEOUT, **options) as (port, over),
            opened(port, *lines) as (reader, writer),
        ):
            receiving = asyncio.ensure_future(receive(reader))
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                    if between is not None:
                        between()
            except ConnectionError:
                pass
            total = len(request(*lines)) + sum(map(len, pieces))
            turns, size = 0, -1
            while may_stick and not receiving.done() and turns < 50:
                await asyncio.sleep(0)
                turns = turns + 1 if counts[0] == total and size == len(received) else 0
                size = len(received)
            if turns == 50:
                writer.write_eof()
            await receiving
            writer.close()
            await over.wait()

    async def receive(reader: asyncio.StreamReader) -> None:
        nonlocal received, reset
        try:
            while data := await reader.read(65536):
                received += data
        except ConnectionError:
            reset = True

    with counted_bytes(aiohttp.web_protocol.RequestHandler) as counts:
        asyncio.run(main(counts))
    return notes, received, reset


@st.composite
def commands(draw: Any) -> list[bytes]:
    """Messages that a program answers in many ways, in pieces."""
    stream = b""
    for _ in range(draw(st.integers(1, 6))):
        word = draw(st.sampled_from(["a", "naïve ☃", "slow", "ping", "x" * 70_000]))
        stream += frame(0x81, word.encode(), KEY)
    last = draw(st.sampled_from(["raise", "close", "transport", "leave", "a"]))
    stream += frame(0x81, last.encode(), KEY)
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=4))
    at = [0, *sorted(cuts), len(stream)]
    return [stream[at[i] : at[i + 1]] for i in range(len(at) - 1)] + [CLOSE]


@settings(GENERATED, max_examples=40)
@given(parts(any_frames(is_masked=True)))
def test_conversations(pieces: list[bytes]) -> None:
    pieces = [*pieces, CLOSE]
    want = converse(pieces, may_stick=True)
    with patched(PATCH):
        assert same(converse(pieces, may_stick=True), want)


@settings(GENERATED, max_examples=30)
@given(commands())
def test_programs(pieces: list[bytes]) -> None:
    want = converse(pieces)
    with patched(PATCH):
        assert same(converse(pieces), want)


@settings(GENERATED, max_examples=20)
@given(commands())
def test_a_patch_that_comes_and_goes(pieces: list[bytes]) -> None:
    want = converse(pieces)
    with contextlib.ExitStack() as stack:
        inside = False

        def change() -> None:
            nonlocal inside
            if inside:
                stack.close()
            else:
                stack.enter_context(patched(PATCH))
            inside = not inside

        assert same(converse(pieces, between=change), want)


@pytest.mark.parametrize("takeover", [True, False])
def test_compression(takeover: bool) -> None:
    compress = zlib.compressobj(wbits=-15)

    def compressed(data: bytes) -> bytes:
        flushed = compress.compress(data) + compress.flush(zlib.Z_SYNC_FLUSH)
        return flushed[:-4]

    long = compressed(b"some more " * 8000)
    pieces = [
        b"".join(frame(0xC1, compressed(b"text %d" % i), KEY) for i in range(20)),
        frame(0x41, long[:10], KEY)
        + frame(0x89, b"", KEY)
        + frame(0x80, long[10:], KEY),
        frame(0xC2, compressed(bytes(50_000)), KEY),
        frame(0x81, b"plain", KEY),
        frame(0xC1, compressed(b"x" * (LIMIT + 1)), KEY),
    ]
    lines = [DEFLATE]
    if not takeover:
        lines = [DEFLATE + "; server_no_context_takeover"]
    want = converse(pieces, lines)
    assert len(want[0]) == 25
    with patched(PATCH):
        assert same(converse(pieces, lines), want)


def test_text_that_is_not_decoded() -> None:
    # Such a text is bytes, and the program sends bytes as it gets them.
    pieces = [frame(0x82, "☃".encode(), KEY), frame(0x81, "☃".encode(), KEY), CLOSE]

    async def answer(request: Any, ws: Any, notes: Any) -> None:
        async for message in ws:
            notes.append(seen(message))
            await ws.send_bytes(message.data)

    def once() -> Any:
        return converse(pieces, handler=answer, decode_text=False)

    assert with_and_without(once)[2] is False


@pytest.mark.parametrize("at", [1, 2, 5, 8])
def test_a_connection_that_is_cut(at: int) -> None:
    def once() -> list[Any]:
        notes: list[Any] = []

        async def main() -> None:
            async with asyncio.timeout(TIMEOUT), serving(notes) as (port, over):
                async with opened(port) as (reader, writer):
                    writer.write(frame(0x81, b"one", KEY))
                    await reader.readexactly(5)
                    writer.write(frame(0x81, b"three", KEY)[:at])
                await over.wait()

        asyncio.run(main())
        return notes

    want = with_and_without(once)
    assert want[-1][0] == "end"


def test_all_that_sends() -> None:
    """Every type that can be sent, and cannot, and what is written for it."""
    things: list[Any] = [
        "text", "naïve ☃", "", "\ud800", b"bytes", b"", bytearray(b"array"),
        memoryview(b"view"), "x" * 126, bytes(65_536), "x" * 65_536, bytes(LARGE),
        bytes(LARGE + 1), 5, None, type("Text", (str,), {})("a"),
    ]  # fmt: skip

    async def send(request: Any, ws: Any, notes: Any) -> None:
        for thing in things:
            for name in ("send_str", "send_bytes"):
                for compress in ({}, {"compress": None}, {"compress": 15}):
                    try:
                        notes.append(await getattr(ws, name)(thing, **compress))
                    except Exception as exc:
                        notes.append((type(exc), str(exc)))
        await ws.send_json({"a": [1]})
        await ws.send_frame(b"frame", WSMsgType.TEXT)
        await ws.pong(b"pong")
        notes.append(await ws.close(code=3000, message=b"enough"))
        for late in ("send_str", "ping"):
            try:
                await getattr(ws, late)("late")
            except Exception as exc:
                notes.append((type(exc), str(exc)))

    def once() -> Any:
        return converse([CLOSE], handler=send)

    notes, received, _ = with_and_without(once)
    frames = unmasked(received)
    assert (0x81, "naïve ☃".encode()) in frames
    assert any("surrogates" in str(note) for note in notes)
    assert frames[-1][0] == 0x88


# -- joined writes -----------------------------------------------------------------


@contextlib.contextmanager
def counted_writes() -> Any:
    """Count what asyncio's transports are given to write."""
    kind = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    write, writes = kind.write, []

    def counting(self: Any, data: Any) -> None:
        writes.append(bytes(data))
        write(self, data)

    kind.write = counting
    try:
        yield writes
    finally:
        kind.write = write


def burst(handler: Handler, count: int = 50) -> tuple[list[Any], list[Any], bytes]:
    """Send messages in one write to a server that reads them in one.

    Returns:
        What its handler noted, its writes of frames, and what came back.
    """
    notes: list[Any] = []
    came = b""

    async def main() -> list[bytes]:
        nonlocal came
        wire = b"".join(frame(0x81, b"%03d" % i, KEY) for i in range(count))
        async with (
            asyncio.timeout(TIMEOUT),
            serving(notes, handler) as (port, over),
        ):
            with counted_writes() as writes:
                # What comes with the request is parsed when the handler has answered.
                async with opened(port, first=wire) as (reader, writer):
                    while data := await reader.read(65536):
                        came += data
                        if came.endswith(b"049") or b"\x88" in came:
                            writer.write(CLOSE)
                    await over.wait()
                return [one for one in writes if one[:1] == b"\x81"]

    writes = asyncio.run(main())
    return notes, writes, came


def test_answers_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aiohttp_writer, "PATIENCE", TIMEOUT)
    notes, writes, came = burst(echo)
    assert len(writes) == 50
    with patched(PATCH):
        ours = burst(echo)
    assert ours[0] == notes
    assert ours[2] == came
    assert len(ours[1]) <= 3


def test_the_last_answer_waits_for_nothing() -> None:
    """A program that goes on to other things has its answers sent."""

    async def wait(request: Any, ws: Any, notes: Any) -> None:
        await ws.send_str((await ws.receive()).data)
        assert type(ws._writer.transport) is kind
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert type(ws._writer.transport) is not Joined
        notes.append(request.transport.get_write_buffer_size())
        await ws.send_str("049")
        async for _ in ws:
            pass

    kind: Any = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    want = burst(wait)
    assert unmasked(want[2])[:2] == [(0x81, b"000"), (0x81, b"049")]
    kind = Joined
    with patched(PATCH):
        ours = burst(wait)
    assert ours[0] == want[0]
    assert ours[2] == want[2]


@pytest.mark.parametrize("way", ["close", "abort", "write", "raise", "cancel", "leave"])
def test_what_is_sent_before_the_end_is_sent(way: str) -> None:
    async def end(request: Any, ws: Any, notes: Any) -> None:
        for _ in range(3):
            await ws.send_str((await ws.receive()).data)
        transport = request.transport
        notes.append(transport.get_extra_info("sockname") is None)
        if way == "raise":
            raise LookupError("a mistake of the program")
        if way == "cancel":
            raise asyncio.CancelledError
        if way == "close":
            transport.close()
        elif way == "abort":
            transport.abort()
        elif way == "write":
            transport.write(b"\x81\x02ab")
            await ws.send_str("c")
            await ws.close()

    def once() -> Any:
        notes, _, came = burst(end, count=5)
        return notes, unmasked(came)

    _, frames = with_and_without(once)
    assert frames[:3] == [(0x81, b"000"), (0x81, b"001"), (0x81, b"002")]


class Transport:
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.calls.append("close")


class Loop:
    """Calls nothing, and keeps what it was to call."""

    def __init__(self) -> None:
        self.soon: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)


class Writer:
    """What has the transport: the writer, and its protocol."""

    def __init__(self) -> None:
        self.transport: Any = Transport()
        self.protocol = type("Protocol", (), {"transport": self.transport})()


class TestJoined:
    def test_the_rest_comes_after(self) -> None:
        writer, loop = Writer(), Loop()
        transport = writer.transport
        joined = Joined(writer, loop)
        assert writer.transport is joined
        assert writer.protocol.transport is joined
        joined._since += TIMEOUT
        joined.write(b"a")
        joined.write(b"b")
        assert transport.calls == []
        writer.transport.close()
        assert transport.calls == [b"ab", "close"]
        joined.write(b"c")
        transport.closing = True
        [end] = loop.soon
        end()
        end()
        assert writer.transport is transport
        assert writer.protocol.transport is transport
        assert transport.calls == [b"ab", "close"]

    def test_it_is_like_the_transport(self) -> None:
        writer = Writer()
        transport = writer.transport
        joined = Joined(writer, Loop())
        assert isinstance(joined, Transport)
        assert joined == transport
        assert transport == joined
        assert joined == Joined(writer, Loop())
        assert joined != Transport()
        assert hash(joined) == hash(transport)
        assert {transport: 1}[joined] == 1
        with pytest.raises(TypeError, match="cannot be changed"):
            joined.__class__ = Writer

    def test_not_too_many_bytes(self) -> None:
        writer = Writer()
        transport = writer.transport
        joined = Joined(writer, Loop())
        joined._since += TIMEOUT
        for _ in range(AT_MOST // LARGE + 1):
            joined.write(bytes(LARGE))
        assert transport.calls == [bytes(AT_MOST + LARGE)]
        joined.write(b"small")
        joined.write(bytes(LARGE + 1))
        assert transport.calls[1:] == [b"small", bytes(LARGE + 1)]

    def test_not_too_long(self) -> None:
        writer = Writer()
        transport = writer.transport
        joined = Joined(writer, Loop())
        joined._since += TIMEOUT
        joined.write(b"a")
        joined._since -= TIMEOUT + 2 * PATIENCE
        joined.write(b"b")
        assert transport.calls == [b"ab"]

    def test_a_connection_that_was_lost_meanwhile(self) -> None:
        writer = Writer()
        transport = writer.transport
        joined = Joined(writer, Loop())
        writer.protocol.transport = None
        joined.end()
        assert writer.protocol.transport is None
        assert writer.transport is transport


# -- receiving ---------------------------------------------------------------------


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """Return what is awaited, or how it failed."""
    try:
        result = await awaitable
    except (Exception, asyncio.CancelledError) as exc:
        return type(exc), str(exc)
    return seen(result) if isinstance(result, tuple) else shown(result)


async def trials(ws: Any, notes: list[Any], say: Callable[[str], Any]) -> None:
    """Receive in all ways, on either side; ``say()`` has the peer send a text."""
    waiting = asyncio.ensure_future(outcome(ws.receive()))
    await asyncio.sleep(0)
    notes.append(await outcome(ws.receive()))
    notes.append(await outcome(anext(ws)))
    await say("first")
    notes.append(await waiting)
    waiting = asyncio.ensure_future(ws.receive())
    await asyncio.sleep(0)
    waiting.cancel("enough")
    notes.append(await outcome(waiting))
    notes.append((ws.closed, ws.close_code, ws._waiting))
    notes.append(await outcome(ws.receive(timeout=0.001)))
    await say("text")
    notes.append(await outcome(ws.receive_bytes()))
    await say("text")
    notes.append(await outcome(ws.receive_str()))
    await say("[1]")
    notes.append(await outcome(ws.receive_json()))
    # Closed by another task while one waits.
    waiting = asyncio.ensure_future(outcome(anext(ws)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(outcome(ws.close(code=3003, message=b"bye")))
    notes.append(await waiting)
    notes.append(await closing)
    notes.append((ws.closed, ws.close_code, shown(ws.exception())))
    for _ in range(2):
        notes.append(await outcome(ws.receive()))
    notes.append(await outcome(anext(ws)))


def test_receiving_on_a_server() -> None:
    async def handle(request: Any, ws: Any, notes: Any) -> None:
        async def say(text: str) -> None:
            await ws.send_str(text)

        await trials(ws, notes, say)

    def once() -> list[Any]:
        notes: list[Any] = []

        async def main() -> None:
            async with asyncio.timeout(TIMEOUT), serving(notes, handle) as (port, over):
                async with websock.connect(f"ws://127.0.0.1:{port}") as ws:
                    with contextlib.suppress(websock.ConnectionClosedError):
                        async for message in ws:
                            await ws.send(message)
                await over.wait()

        asyncio.run(main())
        return notes

    notes = with_and_without(once)
    assert notes[0] == (RuntimeError, "Concurrent call to receive() is not allowed")
    assert (asyncio.CancelledError, "enough") in notes


@pytest.mark.parametrize("iterate", [True, False])
def test_a_wait_that_is_thrown_away(iterate: bool) -> None:
    async def handle(request: Any, ws: Any, notes: Any) -> None:
        thrown = anext(ws) if iterate else ws.receive()
        # What anext() gives may be a wrapper without send().
        thrown = thrown.__await__()
        thrown.send(None)
        thrown.close()
        notes.append((ws.closed, ws.close_code, ws._waiting))
        notes.append(await outcome(ws.receive()))
        notes.append((ws.closed, ws.close_code, shown(ws.exception())))

    def once() -> Any:
        return burst(handle, count=0)

    with_and_without(once)


def test_receiving_in_a_client() -> None:
    def once() -> list[Any]:
        notes: list[Any] = []

        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async def main() -> None:
            async with (
                asyncio.timeout(TIMEOUT),
                websock.serve(handler, "127.0.0.1", 0) as server,
                aiohttp.ClientSession() as session,
                session.ws_connect(url_of(server)) as ws,
            ):

                async def say(text: str) -> None:
                    await ws.send_str(text)

                await trials(ws, notes, say)

        asyncio.run(main())
        return notes

    notes = with_and_without(once)
    assert notes[0] == (RuntimeError, "Concurrent call to receive() is not allowed")


def url_of(server: Any) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("autoping", [True, False])
@pytest.mark.parametrize("autoclose", [True, False])
@pytest.mark.parametrize("iterate", [True, False])
def test_control_frames(autoping: bool, autoclose: bool, iterate: bool) -> None:
    async def handle(request: Any, ws: Any, notes: Any) -> None:
        for _ in range(6):
            if iterate:
                notes.append(await outcome(anext(ws)))
            else:
                notes.append(await outcome(ws.receive()))

    pieces = [
        frame(0x89, b"ping", KEY) + frame(0x81, b"a", KEY),
        frame(0x8A, b"pong", KEY) + frame(0x82, b"b", KEY) + CLOSE,
    ]

    def once() -> Any:
        notes, received, _ = converse(
            pieces, handler=handle, autoping=autoping, autoclose=autoclose
        )
        return notes, unmasked(received)

    _, frames = with_and_without(once)
    assert ((0x8A, b"ping") in frames) is autoping


def test_classes_of_programs() -> None:
    """One with a ``receive()`` of its own has it called."""

    async def main() -> None:
        class Loud(aiohttp.ClientWebSocketResponse):
            async def receive(self, timeout: float | None = None) -> Any:
                message = await super().receive(timeout)
                return message._replace(data=f"{message.data}!")

        async def handler(ws: Any) -> None:
            await ws.send("a")
            await ws.send("b")

        async with (
            asyncio.timeout(TIMEOUT),
            websock.serve(handler, "127.0.0.1", 0) as server,
            aiohttp.ClientSession(ws_response_class=Loud) as session,
            session.ws_connect(url_of(server)) as ws,
        ):
            assert [message.data async for message in ws] == ["a!", "b!"]

    with patched(PATCH):
        asyncio.run(main())


def test_heartbeats() -> None:
    """A peer that does not answer pings is given up as ever."""

    async def handle(request: Any, ws: Any, notes: Any) -> None:
        notes.append(await outcome(anext(ws)))
        notes.append(await outcome(ws.receive()))

    def once() -> Any:
        notes: list[Any] = []

        async def main() -> bytes:
            async with (
                asyncio.timeout(TIMEOUT),
                serving(notes, handle, heartbeat=0.05) as (port, over),
                opened(port) as (reader, _),
            ):
                received: bytes = await reader.read()
                await over.wait()
                return received

        return asyncio.run(main()), notes

    assert with_and_without(once)[0] == b"\x89\x00"


# -- flow --------------------------------------------------------------------------


def test_a_peer_that_does_not_read() -> None:
    """What is sent waits, and goes on in order."""
    data = bytes(range(256)) * 32  # 8 KiB

    async def once() -> None:
        sent = 0
        stuck = asyncio.Event()

        async def handle(request: Any, ws: Any, notes: Any) -> None:
            nonlocal sent
            await ws.receive()
            for _ in range(4000):
                sending = asyncio.ensure_future(ws.send_bytes(data))
                done, _ = await asyncio.wait([sending], timeout=0.2)
                if not done:
                    stuck.set()
                await sending
                sent += 1
            await ws.close()

        async with (
            asyncio.timeout(TIMEOUT),
            serving([], handle) as (port, _),
            opened(port) as (reader, writer),
        ):
            # The second one waits to be received all the time.
            writer.write(2 * frame(0x81, b"go", KEY))
            await stuck.wait()
            assert sent < 4000
            head = b"\x82\x7e" + len(data).to_bytes(2, "big")
            for _ in range(4000):
                assert await reader.readexactly(len(head) + len(data)) == head + data
            writer.write(CLOSE)
            assert (await reader.read())[:1] == b"\x88"

    asyncio.run(once())
    with patched(PATCH):
        asyncio.run(once())


def test_a_program_that_does_not_receive() -> None:
    """Reading stops, and goes on in order."""
    message = bytes(50_000)
    count = 400

    async def once() -> None:
        may = asyncio.Event()
        found: list[Any] = []

        async def handle(request: Any, ws: Any, notes: Any) -> None:
            await may.wait()
            found.append(request.protocol._reading_paused)
            async for one in ws:
                found.append(one.data == message)
                await ws.send_bytes(b"x")

        async with (
            asyncio.timeout(TIMEOUT),
            serving([], handle) as (port, _),
            opened(port) as (reader, writer),
        ):
            for _ in range(count):
                writer.write(frame(0x82, message, bytes(4)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await writer.drain()
            may.set()
            await writer.drain()
            writer.write(CLOSE)
            assert unmasked(await reader.read())[:count] == count * [(0x82, b"x")]
        assert found == [True] * (count + 1)

    asyncio.run(once())
    with patched(PATCH):
        asyncio.run(once())


# -- clients -----------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("compress", [0, 15])
def test_a_client(tls: bool, compress: int, contexts: TLS) -> None:
    """aiohttp's client against this library's server: messages, and how it ends."""

    async def main() -> list[Any]:
        notes: list[Any] = []
        async with (
            serving_a_client(notes, contexts.server if tls else None) as url,
            aiohttp.ClientSession() as session,
        ):
            ws = await session.ws_connect(url, ssl=contexts.client, compress=compress)
            for message in MESSAGES:
                if isinstance(message, bytes):
                    await ws.send_bytes(message)
                else:
                    await ws.send_str(message)
                notes.append(seen(await ws.receive()))
            for i in range(30):
                await ws.send_str(f"many {i}")
            await ws.send_str("end")
            notes.append([seen(message) async for message in ws])
            notes.append((ws.closed, ws.close_code, shown(ws.exception())))
            notes.append(await outcome(ws.send_str("late")))
            notes.append(await outcome(ws.receive()))
        return notes

    want = with_and_without(lambda: asyncio.run(main()))
    assert want[-3][:2] == (True, 3002)


@settings(GENERATED, max_examples=30)
@given(parts(any_frames(is_masked=False)))
def test_servers_that_a_client_meets(pieces: list[bytes]) -> None:
    async def main(counts: list[int]) -> Any:
        notes: list[Any] = []
        gone = asyncio.Event()
        total = 0

        async def serve(reader: Any, writer: Any) -> None:
            nonlocal total
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(
                line.split(b": ")[1]
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"sec-websocket-key")
            )
            magic = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key + magic).digest())
            answer = (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            things = [answer, *pieces, frame(0x88, b"\x03\xe8done", None)]
            total = sum(map(len, things))
            with contextlib.suppress(ConnectionError):
                for thing in things:
                    writer.write(thing)
                    await writer.drain()
                while await reader.read(65536):
                    pass
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            gone.set()

        async def receive(ws: Any) -> Any:
            """Receive, unless all that was sent, or all that is read, makes no message."""
            receiving = asyncio.ensure_future(ws.receive())
            turns, idle, before = 0, 0, -1
            while not receiving.done() and turns < 10 and idle < 5000:
                await asyncio.sleep(0)
                turns = turns + 1 if counts[0] == total else 0
                # A client that has stopped reading gets nothing more.
                idle = idle + 1 if counts[0] == before else 0
                before = counts[0]
            receiving.cancel()
            return await receiving

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with asyncio.timeout(TIMEOUT), server:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(url_of(server), max_msg_size=LIMIT) as ws,
            ):
                try:
                    while not ws.closed:
                        message = await receive(ws)
                        notes.append(seen(message))
                        if message.type is WSMsgType.TEXT:
                            await ws.send_str(message.data)
                except (Exception, asyncio.CancelledError) as exc:
                    notes.append((type(exc), str(exc)))
                notes.append((ws.closed, ws.close_code, shown(ws.exception())))
                if not ws.closed:
                    # The close frame may be in a payload: nothing else would come.
                    ws._writer.transport.abort()
            await gone.wait()
        return notes

    def once() -> Any:
        with counted_bytes(aiohttp.client_proto.ResponseHandler) as counts:
            return asyncio.run(main(counts))

    with_and_without(once)


def test_masks_are_new_for_each_frame() -> None:
    class Protocol:
        transport = None
        _paused = False

    kind: Any
    with patched(PATCH):
        kind = aiohttp.client.WebSocketWriter  # type: ignore[attr-defined]
    made = kind(Protocol(), Transport(), use_mask=True)
    frames = {made._websock_message("text") for _ in range(50)}
    assert len(frames) == 50
    assert {tuple(unmasked(one)) for one in frames} == {((0x81, b"text"),)}

    # A program with random numbers of its own gets masks from them.
    def masked() -> Any:
        transport = Transport()
        writer = kind(Protocol(), transport, use_mask=True, random=random.Random(1))
        assert writer._websock_message is None
        asyncio.run(writer.send_frame(b"text", WSMsgType.TEXT))
        return transport.calls

    assert masked() == masked()


# -- installing --------------------------------------------------------------------


def attributes() -> list[dict[str, Any]]:
    owners: tuple[Any, ...] = (
        aiohttp.client,
        aiohttp.web_ws,
        aiohttp.client_ws,
        aiohttp.ClientWebSocketResponse,
        web.WebSocketResponse,
    )
    return [dict(vars(owner)) for owner in owners]


def test_all_is_put_back() -> None:
    before = attributes()
    with patched(PATCH):
        inside = attributes()
        assert inside != before
        with patched(PATCH):
            pass
        assert attributes() == inside
    assert attributes() == before


def test_threads_that_install_at_once() -> None:
    before = attributes()
    failed: list[Any] = []

    def work() -> None:
        try:
            for _ in range(5):
                speedups.install("aiohttp")
                speedups.uninstall("aiohttp")
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    speedups.install("aiohttp")
    try:
        speedups.install("aiohttp")
        [found] = [one for one in speedups.status() if one.name == "aiohttp"]
        assert found.state == ("patched" if BACKEND == "c" else "useless")
        assert (attributes() != before) is (BACKEND == "c")
    finally:
        speedups.uninstall("aiohttp")
    assert attributes() == before


CLIENT = """
import sys
from websock.speedups._registry import HOSTS, Registry

registry = Registry(HOSTS, backend="c")
registry.install("aiohttp")
from aiohttp import client
from aiohttp._websocket.writer import WebSocketWriter

print([s.state for s in registry.status() if s.name == "aiohttp"])
print("aiohttp.web_ws" in sys.modules, client.WebSocketWriter is WebSocketWriter)
from aiohttp import web_ws

print(web_ws.WebSocketWriter is client.WebSocketWriter is not WebSocketWriter)
registry.uninstall()
print(web_ws.WebSocketWriter is client.WebSocketWriter is WebSocketWriter)
"""


def test_clients_do_without_servers() -> None:
    """``import aiohttp`` imports nothing of servers; those gain when they come."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["['patched']", "False False", "True", "True"]
