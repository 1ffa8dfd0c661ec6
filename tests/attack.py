"""Hostile peers on plain sockets, and what they attack: each API, as server and client.

A :class:`Victim` runs in a thread of its own and echoes messages. ``victim.attack()``
gives a :class:`Raw` socket whose handshake is done. When the block ends, the four things
that an attack must not get are checked: a quiet end on the wire is up to the test
(``ends()``), the log has at most one line about it, without a traceback and without what
the peer sent; memory and time have bounds, if the test gives some; and another connection
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import request
from linked import apply
from scripted import accept_key
from wire import MASK, frame

from websock.asyncio.client import connect
from websock.asyncio.resilient import resilient
from websock.asyncio.server import serve
from websock.asyncio.web_stream import WebSocketStream
from websock.events import WebSocket, WebSocketServer
from websock.exceptions import ConnectionClosed
from websock.listener import Listener
from websock.speedups._websockets_engine import make_serve
from websock.sync.client import connect as sync_connect
from websock.sync.server import serve as sync_serve

LOOPBACK = "127.0.0.1"
PATIENCE = 30.0  # seconds for what takes milliseconds on a machine with time
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

# Part of what attackers send; it must never be in a log.
SECRET = b"c0ffee-of-the-peer"

SERVERS = ["coroutine", "listener", "events", "sync", "uvicorn", "engine"]
CLIENTS = [
    "client",
    "client-listener",
    "client-events",
    "client-sync",
    "client-stream",
    "client-resilient",
]
# Those that are attacked each time; the others with --every-api.
CORE = ("coroutine", "sync", "client")
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

# Lines that every connection has.
USUAL = (
    "connection open",
    "connection closed",
    "[accepted]",
    "connection rejected",
    "connecting again in 3600.0 seconds: ",
)
UVICORN_ON_TEXT = "Invalid UTF-8 sequence received from client."


class Echo(Listener):
    """Sends back what comes."""

    def on_message(self, ws: Any, message: Any) -> None:
        ws.send_nowait(message)


async def echo(ws: Any) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await ws.send(await ws.recv())


def engine() -> Any:
    """Return what serves in place of websockets with ``engine=True``."""
    # Not imported above: it is not installed everywhere.
    import websockets.asyncio.server

    return make_serve(websockets.asyncio.server)


def sync_echo(ws: Any) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            ws.send(ws.recv())


async def asgi_echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        with contextlib.suppress(OSError):  # uvicorn's for a peer that is gone
            await send({**event, "type": "websocket.send"})


class Maker:
    """Builds frames as one side has to."""

    def __init__(self, masks: bool) -> None:
        self.masks = masks

    def frame(self, opcode: int, payload: bytes = b"", **kwargs: Any) -> bytes:
        """Build a frame: masked from a client, unless ``mask`` says something else."""
        kwargs.setdefault("mask", MASK if self.masks else None)
        return frame(opcode, payload, **kwargs)


class Raw(Maker):
    """A connection of a peer that sends whatever it wants."""

    def __init__(self, sock: socket.socket, masks: bool) -> None:
        super().__init__(masks)
        sock.settimeout(PATIENCE)
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = b""
        # uvicorn's reasons are those of its own engine; its own tests compare them.
        self.has_other_words = False

    def send(self, *pieces: bytes) -> None:
        """Send all, or as much as the other end takes before it closes."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.sock.sendall(piece)

    def _read(self, n: int) -> bytes:
        while len(self.buffer) < n:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        data, end_, self.buffer = self.buffer.partition(end)
        return data + end_

    def read(self) -> tuple[int, bytes]:
        """Receive a frame."""
        first, second = self._read(2)
        n = second & 0x7F
        if n == 126:
            n = int.from_bytes(self._read(2), "big")
        elif n == 127:
            n = int.from_bytes(self._read(8), "big")
        mask = self._read(4) if second & 0x80 else b""
        assert bool(mask) is not self.masks
        payload = self._read(n)
        if mask:
            payload = apply(mask, payload)
        assert first & 0xB0 == 0x80, first
        if first & 0x40:
            payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        return first & 0x0F, payload

    def echoed(self, text: bytes = b"still there") -> None:
        """Have a message sent back."""
        self.send(self.frame(TEXT, text))
        while (got := self.read())[0] >= CLOSE:
            assert got[0] != CLOSE, got
        assert got == (TEXT, text)

    def echoed_ping(self) -> None:
        """Have a ping answered: what was sent before it was taken."""
        self.send(self.frame(PING, b"all taken"))
        assert self.read() == (PONG, b"all taken")

    def closing(self) -> tuple[int, str]:
        """Receive up to a close frame; return its code and reason."""
        while (got := self.read())[0] != CLOSE:
            pass
        return int.from_bytes(got[1][:2], "big"), got[1][2:].decode()

    def ends(self, code: int, reason: str | None = None) -> str:
        """See a close frame, and the end of the stream: ``"FIN"`` or ``"RST"``."""
        got = self.closing()
        assert got[0] == code, got
        assert reason is None or self.has_other_words or got[1] == reason
        if not self.masks:
            self.end()  # the server ends TCP first (RFC 6455, 7.1.1)
        return self.gone()

    def gone(self) -> str:
        """See the end of the stream."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            return "RST"
        return "FIN"

    def end(self) -> None:
        """Send FIN."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()


class Victim:
    """A program that is attacked, in a thread of its own."""

    def __init__(self, api: str, options: dict[str, Any]) -> None:
        self.api = api
        self.is_server = api in SERVERS
        self.options = options
        self.port = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.unseen: list[Any] = []
        # uvicorn closes its sockets at once, whatever is unread in them.
        self.endings = ("FIN", "RST") if api == "uvicorn" else ("FIN",)
        # With short timeouts, nobody sees to the good connection between two tests.
        self.good_stays = options.get("ping_timeout", 20) >= 20
        self._ready = threading.Event()
        self._listening: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._stop: Callable[[], Any]
        self._start(self._sync if api == "sync" else self._asyncio)
        assert self._ready.wait(PATIENCE)
        if not self.is_server:
            self._listening = socket.create_server((LOOPBACK, 0))
            self._listening.settimeout(PATIENCE)
            self.port = self._listening.getsockname()[1]
        self.good = self.connect()
        self.good.echoed()

    def _start(self, function: Any, *args: Any) -> None:
        thread = threading.Thread(target=function, args=args)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        self.good.sock.close()
        self._stop()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self._listening is not None:
            self._listening.close()
        assert not self.unseen, self.unseen

    # -- what runs in the thread -------------------------------------------------------

    def _sync(self) -> None:
        with sync_serve(sync_echo, LOOPBACK, 0, **self.options) as server:
            self.port = server.socket.getsockname()[1]
            self._stop = server.shutdown
            self._ready.set()
            server.serve_forever()

    def _asyncio(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.unseen.append(context))
        stop = asyncio.Event()
        loop = self.loop
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        async with contextlib.AsyncExitStack() as stack:
            if self.api == "uvicorn":
                # Not imported above: it is not installed everywhere.
                from uvicorn_server import serving

                options = {f"ws_{k}": v for k, v in self.options.items()}
                options = {k: v for k, v in options.items() if k in ("ws_max_size",)}
                app = serving(asgi_echo, "websock", **options)
                self.port = (await stack.enter_async_context(app)).port
            elif self.api == "events":
                events = WebSocketServer(LOOPBACK, 0, auto_accept=True, **self.options)
                events.on("connect", lambda c: c.on("message", c.send))
                await stack.enter_async_context(events)
                self.port = events.port or 0
            elif self.is_server:
                handler: Any = Echo if self.api == "listener" else echo
                serves = engine() if self.api == "engine" else serve
                server = serves(handler, LOOPBACK, 0, **self.options)
                listening = await stack.enter_async_context(server)
                self.server = listening
                self.port = listening.sockets[0].getsockname()[1]
            self._ready.set()
            await stop.wait()

    async def _client(self) -> None:
        uri = f"ws://{LOOPBACK}:{self.port}/"
        if self.api == "client-events":
            ended = asyncio.Event()
            ws = WebSocket(uri, **self.options)
            ws.onmessage = lambda event: ws.send(event.data)
            ws.onclose = lambda event: ended.set()
            await ended.wait()
        elif self.api == "client-listener":
            async with connect(uri, listener=Echo, **self.options) as connection:
                await connection.wait_closed()
        elif self.api == "client-stream":
            stream = WebSocketStream(uri, **self.options)
            opened = await stream.opened
            with contextlib.suppress(ConnectionClosed):
                async for message in opened.readable:
                    await opened.writable.write(message)
        elif self.api == "client-resilient":
            ended = asyncio.Event()
            async with resilient(
                uri,
                confirm=False,
                on_lost=lambda *_: None,
                on_disconnect=lambda _: ended.set(),
                # The test accepts no connection but those that it asks for.
                reconnect_delays=lambda: itertools.repeat(3600.0),
                **self.options,
            ) as feed:
                echoing = asyncio.create_task(echo(feed))
                await ended.wait()
                echoing.cancel()
        else:
            async with connect(uri, **self.options) as connection:
                await echo(connection)

    def _sync_client(self) -> None:
        uri = f"ws://{LOOPBACK}:{self.port}/"
        with sync_connect(uri, **self.options) as connection:
            sync_echo(connection)

    # -- what tests use ----------------------------------------------------------------

    def connect(self, *lines: str) -> Raw:
        """Open a connection with it; ``lines`` are headers."""
        if self.is_server:
            peer = Raw(socket.create_connection((LOOPBACK, self.port)), True)
            peer.send(request(*lines))
            head = peer.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            peer.has_other_words = self.api == "uvicorn"
            return peer
        assert self._listening is not None
        if self.api == "client-sync":
            self._start(self._sync_client)
        else:
            assert self.loop is not None
            asyncio.run_coroutine_threadsafe(self._client(), self.loop)
        peer = Raw(self._listening.accept()[0], False)
        head = peer.until(b"\r\n\r\n").decode("latin-1")
        key = head.lower().split("sec-websocket-key: ")[1].split("\r\n")[0]
        begin = head.lower().index("sec-websocket-key: ") + 19
        key = head[begin : begin + len(key)]
        answer = (
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(key)}",
            *lines,
        )
        peer.send("\r\n".join((*answer, "", "")).encode())
        return peer

    @contextlib.contextmanager
    def attack(
        self,
        *lines: str,
        memory: int | None = None,
        seconds: float = PATIENCE,
        expected: str | None = None,
    ) -> Iterator[Raw]:
        """Attack on a connection; check what must hold whatever happens on it.

        Args:
            lines: Headers of the handshake.
            memory: Bytes that may be allocated meanwhile, at most.
            seconds: How long it may take, at most.
            expected: What a line of the log above INFO must begin with, if there is one.
        """
        records, root = Records(), logging.getLogger()
        level = root.level
        root.setLevel(logging.INFO)
        root.addHandler(records)
        peer = self.connect(*lines)
        if not self.good_stays:
            self.good.sock.close()
        began = time.monotonic()
        try:
            with bounded(memory) if memory else contextlib.nullcontext():
                yield peer
            assert time.monotonic() - began < seconds
            if not self.good_stays:
                self.good = self.connect()
            self.good.echoed()
        finally:
            peer.sock.close()
            root.removeHandler(records)
            root.setLevel(level)
        records.check(expected)


class Records(logging.Handler):
    """What was logged at INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def check(self, expected: str | None) -> None:
        lines = []
        for record in self.records:
            text = record.getMessage()
            assert record.exc_info is None, text
            assert SECRET.decode() not in text
            assert "\n" not in text
            if any(usual in text for usual in USUAL):
                assert record.levelno == logging.INFO
            elif record.name == "uvicorn.error" and text == UVICORN_ON_TEXT:
                continue  # an error, and said of every such peer: as its own engine
            else:
                lines.append((record.levelno, text))
        assert len(lines) <= 1, lines
        if expected is None:
            assert all(level == logging.INFO for level, _ in lines), lines
        else:
            assert [text.startswith(expected) for _, text in lines] == [True], lines


@contextlib.contextmanager
def bounded(memory: int) -> Iterator[None]:
    """Check that little memory is taken; what the test itself builds counts too."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < memory, f"{peak} bytes"


def victim_fixture(*apis: str, core: tuple[str, ...] = CORE, **options: Any) -> Any:
    """Make a fixture: a victim for each API, for all tests of a module."""

    marked = [
        pytest.param(api, marks=() if api in core else pytest.mark.every_api)
        for api in apis
    ]

    @pytest.fixture(scope="module", params=marked)
    def victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
        if request.param in ("uvicorn", "engine"):
            pytest.importorskip(
                "uvicorn" if request.param == "uvicorn" else "websockets"
            )
        made = Victim(request.param, options)
        try:
            yield made
        finally:
            made.close()

    return victim


@functools.cache
def deflated(data: bytes, window: int = 12, level: int = 9) -> bytes:
    """Compress a message as the RFC wants it."""
    encoder = zlib.compressobj(level, wbits=-window)
    return (encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]
