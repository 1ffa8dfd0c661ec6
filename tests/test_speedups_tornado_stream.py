"""Tornado's sockets with and without its speed-up: how waits, writes and ends go."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
from helpers import request
from host_patches import KEY, patched
from tornado.iostream import IOStream

from websock._kernels import apply_mask, build_header
from websock.speedups._tornado import PATCH

TIMEOUT = 60  # seconds
count: contextvars.ContextVar[int] = contextvars.ContextVar("count", default=0)


class Notes(logging.Handler):
    """What happened, in order, with what was logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen: list[Any] = []
        self.over = asyncio.Event()
        self.go_on = asyncio.Event()
        self.handlers: list[Any] = []
        self.more: Callable[[], Any] = list

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.levelname, str(record.msg)))


class Short(socket.socket):
    """A socket that takes little at once."""

    def send(self, data: Any, flags: int = 0) -> int:
        return super().send(data[:999], flags)


class Handler(tornado.websocket.WebSocketHandler):
    """Does what messages say."""

    def initialize(self, notes: Notes) -> None:
        self.notes = notes
        notes.handlers.append(self)

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self.kept = self.stream()

    def log_exception(self, *exc_info: Any) -> None:
        self.notes.seen.append(("logged", exc_info[0], str(exc_info[1])))

    def on_message(self, message: str | bytes) -> Any:
        count.set(count.get() + 1)
        task = asyncio.current_task()
        facts = (message[:20], count.get(), task is not None)
        self.notes.seen.append(facts)
        if message == "drop":
            self.stream().close()
        elif message == "raise":
            raise LookupError("a mistake of the program")
        elif message == "lost":
            poll = select.poll()
            poll.register(self.stream().socket, select.POLLERR | select.POLLHUP)
            assert poll.poll(TIMEOUT * 1000)
            return self.answer("to nobody")
        elif message == "more":
            # It has arrived when the next frame is asked for.
            self.notes.more()
            poll = select.poll()
            poll.register(self.stream().socket, select.POLLIN)
            assert poll.poll(TIMEOUT * 1000)
        elif message == "wait":
            return self.wait()
        elif message == "short":
            return self.short()
        elif message == "flood":
            return self.flood()
        else:
            return self.answer(message)
        return None

    def stream(self) -> Any:
        return self.ws_connection.stream  # type: ignore[union-attr]

    async def answer(self, message: str | bytes) -> None:
        try:
            await self.write_message(message, binary=isinstance(message, bytes))
        except tornado.websocket.WebSocketClosedError:
            self.notes.seen.append("closed")

    async def wait(self) -> None:
        self.notes.seen.append("begins")
        await self.write_message("waits")
        await self.notes.go_on.wait()
        self.notes.seen.append("ends")

    async def flood(self) -> None:
        stream = self.stream()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for number in range(300):
            self.write_message(bytes([number % 256]) * 16_000, binary=True)
        self.notes.seen.append(("writing", stream.writing()))
        await self.write_message("all")
        self.notes.seen.append(stream._total_write_index)
        self.notes.seen.append(stream._total_write_done_index)

    async def short(self) -> None:
        stream = self.stream()
        stream.socket = Short(fileno=stream.socket.detach())
        stream.socket.setblocking(False)
        await self.write_message(bytes(range(250)) * 40, binary=True)
        self.notes.seen.append(stream._total_write_index)
        self.notes.seen.append(stream._total_write_done_index)

    def on_pong(self, data: bytes) -> None:
        self.notes.seen.append(("pong", data))

    def on_close(self) -> None:
        self.notes.seen.append(("end", self.close_code, self.close_reason))
        self.notes.seen.append(repr(self.kept.error))
        self.notes.seen.append(changed(self.kept))
        self.notes.over.set()


class Client:
    """A raw peer."""

    def __init__(self, reader: Any, writer: Any, notes: Notes) -> None:
        self.reader, self.writer, self.notes = reader, writer, notes

    def send(self, payload: bytes, opcode: int = 1, fin: bool = True) -> None:
        self.writer.write(frame(payload, opcode, fin))

    async def echo(self, payload: bytes) -> None:
        self.send(payload)
        await self.expect(build_header(1, len(payload)) + payload)

    async def expect(self, data: bytes) -> None:
        assert await self.reader.readexactly(len(data)) == data

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def other(self) -> None:
        """Have the server do something else, after what it has to do."""
        port = self.writer.get_extra_info("peername")[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()
        await writer.wait_closed()

    async def rest(self) -> bytes:
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                received += data
        return received


def frame(payload: bytes, opcode: int = 1, fin: bool = True) -> bytes:
    header = build_header(opcode, len(payload), fin=fin, mask=KEY)
    return header + apply_mask(payload, KEY)


def changed(stream: Any) -> set[str]:
    """What a stream has in place of its class's methods."""
    return {name for name in vars(stream) if hasattr(IOStream, name)}


Story = Callable[[Client], Awaitable[Any]]


def run(story: Story, buffer: int | None = None, **settings: Any) -> list[Any]:
    """Run a client against a server; return what both saw."""

    async def main() -> list[Any]:
        notes = Notes()
        log = logging.getLogger("tornado.general")
        log.addHandler(notes)
        app = tornado.web.Application(
            [("/", Handler, {"notes": notes})], log_function=lambda _: None, **settings
        )
        server = tornado.httpserver.HTTPServer(app, max_buffer_size=buffer)
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        try:
            async with asyncio.timeout(TIMEOUT):
                port = sockets[0].getsockname()[1]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request())
                await reader.readuntil(b"\r\n\r\n")
                found = await story(Client(reader, writer, notes))
                writer.close()
                await notes.over.wait()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        finally:
            log.removeHandler(notes)
            server.stop()
            await server.close_all_connections()
        return [*notes.seen, found]

    return asyncio.run(main())


async def dropped(client: Client) -> bytes:
    await client.echo(b"one")
    client.writer.write(frame(b"drop") + frame(b"never seen"))
    return await client.rest()


async def mistaken(client: Client) -> bytes:
    await client.echo(b"one")
    client.writer.write(frame(b"raise") + frame(b"never seen"))
    return await client.rest()


async def closed_elsewhere(client: Client) -> bytes:
    await client.echo(b"one")
    await client.other()
    client.notes.handlers[0].stream().close()
    return await client.rest()


async def closing_elsewhere(client: Client) -> bytes:
    await client.echo(b"one")
    await client.other()
    client.notes.handlers[0].close(3000, "over")
    client.send(b"\x0b\xb8", opcode=8)
    return await client.rest()


async def vanishing(client: Client) -> None:
    await client.echo(b"one")
    client.reset()


async def vanishing_in_a_frame(client: Client) -> None:
    await client.echo(b"one")
    client.writer.write(frame(b"three")[:7])


async def vanishing_while_busy(client: Client) -> None:
    client.send(b"wait")
    await client.expect(b"\x81\x05waits")
    client.reset()
    client.notes.go_on.set()


async def lost(client: Client) -> None:
    await client.echo(b"one")
    client.send(b"lost")
    client.reset()


async def half_closed(client: Client) -> bytes:
    await client.echo(b"one")
    client.send(b"two")
    client.writer.write_eof()
    await client.expect(b"\x81\x03two")
    return await client.rest()


async def held_back(client: Client) -> list[Any]:
    """What comes while a handler works is handled when it is done."""
    client.send(b"wait")
    await client.expect(b"\x81\x05waits")
    for payload in (b"a", b"b"):
        client.send(payload)
        await client.writer.drain()
    await client.other()
    before = list(client.notes.seen)
    client.notes.go_on.set()
    await client.expect(b"\x81\x01a\x81\x01b")
    return before


async def all_kinds(client: Client) -> None:
    """Everything that is not a whole frame, between frames that are."""
    for size in (0, 1, 125, 126, 4000):
        await client.echo(b"x" * size)
        client.send(b"ping", opcode=9)
        await client.expect(b"\x8a\x04ping")
        client.send(b"pong", opcode=10)
        client.send(b"a", fin=False)
        client.send(b"b", opcode=0)
        await client.expect(b"\x81\x02ab")
    for at in range(1, 9):
        whole = frame(b"pi")
        client.writer.write(whole[:at])
        await client.writer.drain()
        client.writer.write(whole[at:] + frame(b"next"))
        await client.expect(b"\x81\x02pi\x81\x04next")
    client.send(b"x" * 70_000)
    await client.expect(build_header(1, 70_000) + b"x" * 70_000)
    await client.echo(b"end")


async def flooded(client: Client) -> bytes:
    """More than the socket takes: what is left waits, in order."""
    await client.echo(b"one")
    client.send(b"flood")
    for number in range(300):
        await client.expect(build_header(2, 16_000) + bytes([number % 256]) * 16_000)
    await client.expect(b"\x81\x03all")
    client.send(b"\x03\xe8", opcode=8)
    return await client.rest()


async def at_once(client: Client) -> bytes:
    """What is on the socket already when the server looks for its next frame."""
    await client.echo(b"one")
    whole = frame(b"whole")
    for data in (whole, whole * 2, whole[:1], whole[:5], frame(b"x" * 300)[:200]):
        client.notes.more = lambda data=data: client.writer.write(data)
        client.send(b"more")
        await client.other()
        if data == whole * 2:
            await client.expect(b"\x81\x05whole")
        if data[1] == 0x85 if len(data) > 1 else True:
            client.writer.write(whole[len(data) :])
            await client.expect(b"\x81\x05whole")
        else:
            client.writer.write(frame(b"x" * 300)[200:])
            await client.expect(build_header(1, 300) + b"x" * 300)
    client.notes.more = client.writer.write_eof
    client.send(b"more")
    return await client.rest()


async def taken_in_parts(client: Client) -> bytes:
    await client.echo(b"one")
    client.send(b"short")
    await client.expect(build_header(2, 10_000) + bytes(range(250)) * 40)
    await client.echo(b"two")
    client.send(b"\x03\xe8", opcode=8)
    return await client.rest()


POLL = pytest.mark.skipif(
    not hasattr(select, "poll"), reason="select.poll() is not everywhere"
)
STORIES = [
    dropped,
    mistaken,
    closed_elsewhere,
    closing_elsewhere,
    vanishing,
    vanishing_in_a_frame,
    vanishing_while_busy,
    pytest.param(lost, marks=POLL),
    pytest.param(at_once, marks=POLL),
    half_closed,
    held_back,
    all_kinds,
    flooded,
    taken_in_parts,
]


@pytest.mark.parametrize("story", STORIES)
def test_stories(story: Story) -> None:
    want = run(story)
    assert any(type(note) is tuple and note[0] == "end" for note in want)
    with patched(PATCH):
        assert run(story) == want


def test_a_flood_has_to_wait() -> None:
    with patched(PATCH):
        assert ("writing", True) in run(flooded)


@pytest.mark.parametrize("size", [100, 20_001, 200_000])
def test_a_buffer_that_is_limited(size: int) -> None:
    async def story(client: Client) -> bytes:
        await client.echo(b"one")
        client.send(b"x" * size)
        client.send(b"\x03\xe8", opcode=8)
        received = await client.rest()
        # A reset loses what was on its way.
        return received if size < 50_000 else b""

    want = run(story, buffer=40_000)
    with patched(PATCH):
        assert run(story, buffer=40_000) == want


@pytest.mark.parametrize("size", [10, 100, 70_000])
def test_a_message_that_is_too_big(size: int) -> None:
    async def story(client: Client) -> None:
        await client.echo(b"one")
        client.send(b"x" * size)
        if size > 10:
            await client.expect(b"\x88\x11\x03\xf1message too big")

    want = run(story, websocket_max_message_size=10)
    with patched(PATCH):
        assert run(story, websocket_max_message_size=10) == want


def test_pings_that_nobody_answers() -> None:
    async def story(client: Client) -> bytes:
        await client.expect(b"\x89\x00")
        await client.expect(b"\x88\x10\x03\xe8ping timed out")
        client.send(b"\x03\xe8", opcode=8)
        return await client.rest()

    options = {"websocket_ping_interval": 0.2, "websocket_ping_timeout": 0.1}
    want = run(story, **options)
    with patched(PATCH):
        assert run(story, **options) == want


def test_small_frames_need_no_read_of_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = 0
    read_bytes = IOStream.read_bytes

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return read_bytes(self, *args, **kwargs)

    async def story(client: Client) -> None:
        nonlocal reads
        await client.echo(b"one")
        reads = 0
        for _ in range(50):
            await client.echo(b"some text")

    monkeypatch.setattr(IOStream, "read_bytes", counted)
    run(story)
    assert reads >= 50
    with patched(PATCH):
        run(story)
    # The end of the connection is read by the stream.
    assert reads <= 10


def test_a_connection_outlives_the_patch() -> None:
    async def story(client: Client) -> None:
        with patched(PATCH):
            await client.echo(b"one")
            await waiting(client)
        await client.echo(b"two")
        await client.echo(b"three")
        assert changed(client.notes.handlers[0].stream()) == set()

    async def waiting(client: Client) -> None:
        """Have the server wait for a frame in the patch's way."""
        stream = client.notes.handlers[0].stream()
        async with asyncio.timeout(TIMEOUT):
            while "_handle_read" not in vars(stream):  # noqa: ASYNC110  # a test's wait
                await asyncio.sleep(0)

    run(story)


def test_a_connection_of_before_the_patch() -> None:
    async def story(client: Client) -> None:
        await client.echo(b"one")
        with patched(PATCH):
            await client.echo(b"two")
            await client.echo(b"three")
        await client.echo(b"four")

    assert len(run(story)) == 8
