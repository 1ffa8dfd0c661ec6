"""A connection of ours, and a peer that does on the wire exactly what a test says.

The opening handshake has tests of its own; here connections are open from the start:
on their own socket, on a transport, or on TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from logging import ERROR
from typing import Any, NamedTuple

import pytest
from scripted import LOOPBACK, TLS, run_on
from wire import MASK, frame

from websock.asyncio.connection import Connection
from websock.datastructures import Headers
from websock.http11 import Response
from websock.protocol import Protocol, Side

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "KINDS",
    "PING",
    "PONG",
    "TEXT",
    "Link",
    "Linked",
    "Peer",
    "Received",
    "close_payload",
    "link_fixture",
    "loop_factory",
    "on_link",
    "quiet_fixture",
    "settle",
    "socket_pair",
]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KINDS = ("socket", "transport", "tls", "fast-tls")


class Received(NamedTuple):
    """A frame that the peer received."""

    opcode: int
    payload: bytes
    fin: bool


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def socket_pair(buffer_size: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Connect two TCP sockets, with small buffers if a size is given."""
    with socket.create_server((LOOPBACK, 0)) as server:
        if buffer_size is not None:
            # Windows are agreed upon when a connection begins.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        ours = socket.socket()
        if buffer_size is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        ours.connect(server.getsockname())
        theirs, _ = server.accept()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer_size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
    return ours, theirs


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a loop: ``None`` for asyncio's own."""
    if name == "asyncio":
        return None
    if sys.platform == "win32" or find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@functools.cache
def freeze() -> None:
    """Have the collector, which runs after each test, pass over what is there now."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy
        gc.freeze()


async def settle(turns: int = 20) -> None:
    """Let everything happen that can happen without anybody doing anything more."""
    for _ in range(turns):
        await asyncio.sleep(0)


def apply(mask: bytes, data: bytes) -> bytes:
    """Mask or unmask, quickly."""
    n = len(data)
    key = (mask * (n // 4 + 1))[:n]
    number = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
    return number.to_bytes(n, "big")


class Peer:
    """The other end, frame by frame."""

    def __init__(self, masks: bool) -> None:
        self.masks = masks
        self.sock: socket.socket
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.buffer = bytearray()

    # Bytes.

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self.streams is None:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        else:
            self.streams[1].write(data)
            await self.streams[1].drain()

    async def read(self) -> bytes:
        """Receive some bytes; none at the end."""
        if self.streams is None:
            return await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        return await self.streams[0].read(65536)

    async def ended(self) -> bytes:
        """Receive until the connection ends; return what came."""
        data, self.buffer = self.buffer, bytearray()
        try:
            while piece := await self.read():
                data += piece
        except (ConnectionError, ssl.SSLError):
            pass
        return bytes(data)

    def half_close(self) -> None:
        """End what this side sends."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self.streams is None:
            self.sock.close()
        else:
            self.streams[1].close()

    def reset(self) -> None:
        """Drop the connection with a RST."""
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        if self.streams is None:
            self.sock.close()
        else:
            self.streams[1].transport.abort()

    # Frames.

    def frame(
        self, opcode: int, payload: bytes | str = b"", *, fin: bool = True, rsv: int = 0
    ) -> bytes:
        """Build a frame, as this side has to."""
        data = payload.encode() if isinstance(payload, str) else payload
        if not self.masks:
            return frame(opcode, data, fin=fin, rsv=rsv)
        head = frame(opcode, b"", fin=fin, rsv=rsv, mask=MASK, length=len(data))
        return head + apply(MASK, data)

    async def send(
        self, opcode: int, payload: bytes | str = b"", *, fin: bool = True
    ) -> None:
        await self.write(self.frame(opcode, payload, fin=fin))

    async def close_frame(self, code: int = 1000, reason: str = "") -> None:
        await self.send(CLOSE, close_payload(code, reason))

    async def _take(self, n: int) -> bytes:
        while len(self.buffer) < n:
            data = await self.read()
            if not data:
                raise EOFError(f"connection ended, after {self.buffer!r}")
            self.buffer += data
        taken = bytes(self.buffer[:n])
        del self.buffer[:n]
        return taken

    async def recv(self) -> Received:
        """Receive a frame."""
        first, second = await self._take(2)
        assert not first & 0x70, "no extension was negotiated"
        assert bool(second & 0x80) is not self.masks, "only clients mask"
        n = second & 0x7F
        if n == 126:
            n = int.from_bytes(await self._take(2), "big")
        elif n == 127:
            n = int.from_bytes(await self._take(8), "big")
        mask = await self._take(4) if second & 0x80 else b""
        payload = await self._take(n)
        if mask:
            payload = apply(mask, payload)
        return Received(first & 0x0F, payload, bool(first & 0x80))

    async def answer_close(self) -> bytes:
        """Receive until a close frame, answer it, and end; return its payload."""
        while (received := await self.recv()).opcode != CLOSE:
            pass
        await self.send(CLOSE, received.payload)
        self.close()
        return received.payload


class Linked(NamedTuple):
    """A connection and its peer."""

    ws: Connection
    peer: Peer


@dataclass
class Link:
    """Makes connections: on which loop, which side, and on what."""

    side: Side
    kind: str
    tls: TLS | None
    loop: str
    _open: list[Linked] = field(default_factory=list)

    @property
    def is_server(self) -> bool:
        return self.side is Side.SERVER

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine; what it leaks or lets fail unseen is an error."""
        freeze()
        return run_on(loop_factory(self.loop), coroutine)

    async def make(
        self,
        *,
        buffer_size: int | None = None,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        connection_class: type[Connection] = Connection,
        **options: Any,
    ) -> Linked:
        """Make an open connection and its peer; without pings unless asked for."""
        options.setdefault("ping_interval", None)
        protocol = Protocol(self.side, max_size=max_size)
        ws = connection_class(protocol, **options)
        peer = Peer(masks=self.is_server)
        ours, peer.sock = socket_pair(buffer_size)
        loop = asyncio.get_running_loop()
        if self.kind == "socket":
            ws.start(ours)
        elif self.kind == "transport":
            await loop.create_connection(lambda: ws, sock=ours)
        else:
            assert self.tls is not None
            theirs = asyncio.create_task(self._their_tls(peer))
            if self.is_server:
                contexts: dict[str, Any] = {"ssl": self.tls.server}
                name = "connect_accepted_socket"
            else:
                contexts = {"ssl": self.tls.client, "server_hostname": LOOPBACK}
                name = "create_connection"
            if self.kind == "fast-tls":
                begin = functools.partial(
                    getattr(import_module("aiofastnet"), name), loop
                )
            else:
                begin = getattr(loop, name)
            await begin(lambda: ws, sock=ours, **contexts)
            peer.streams = await theirs
        linked = Linked(ws, peer)
        self._open.append(linked)
        ws.response = Response(101, "Switching Protocols", Headers())
        ws.handshake_done()
        return linked

    async def _their_tls(
        self, peer: Peer
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self.tls is not None
        if not self.is_server:
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, peer.sock, ssl=self.tls.server
            )
            return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        return await asyncio.open_connection(
            sock=peer.sock, ssl=self.tls.client, server_hostname=LOOPBACK
        )

    async def finish(self) -> None:
        """Drop what is left."""
        for ws, peer in self._open:
            if not ws.is_lost:
                ws.transport.abort()
            await ws.wait_closed()
            peer.close()
            if peer.streams is not None:
                with contextlib.suppress(OSError):
                    await peer.streams[1].wait_closed()
        self._open.clear()

    def forget(self) -> None:
        """Do not hold on to connections: the test has dropped them."""
        for _, peer in self._open:
            peer.close()
        self._open.clear()

    @contextlib.asynccontextmanager
    async def __call__(self, **options: Any) -> AsyncIterator[Linked]:
        """Make a connection; drop it at the end, if it is not closed by then."""
        try:
            yield await self.make(**options)
        finally:
            await self.finish()


LOOPS = ["asyncio", "uvloop"]
SIDES = [Side.CLIENT, Side.SERVER]


def link_fixture(*kinds: str) -> Any:
    """Make a fixture: a :class:`Link` for each loop, side and kind."""
    kinds = kinds or KINDS
    cases = [
        pytest.param((loop, side, kind), id=f"{loop}-{side.name.lower()}-{kind}")
        for loop in LOOPS
        for side in SIDES
        for kind in kinds
    ]

    @pytest.fixture(params=cases)
    def link(request: pytest.FixtureRequest) -> Link:
        loop, side, kind = request.param
        loop_factory(loop)  # a test that is skipped later leaves its coroutine behind
        if kind == "fast-tls" and find_spec("aiofastnet") is None:
            pytest.skip("aiofastnet is not installed")
        tls = request.getfixturevalue("tls") if "tls" in kind else None
        return Link(side, kind, tls, loop)

    return link


def quiet_fixture() -> Any:
    """Make a fixture: a test fails if an error is logged that it does not expect.

    What a peer does wrong is no error of this side; a test that expects one clears
    ``caplog``.
    """

    @pytest.fixture(autouse=True)
    def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        yield
        for phase in ("setup", "call"):
            errors = [r for r in caplog.get_records(phase) if r.levelno >= ERROR]
            assert not errors, [record.getMessage() for record in errors]

    return quiet


AsyncTest = Callable[..., Coroutine[Any, Any, None]]


def on_link(test: AsyncTest) -> Callable[..., None]:
    """Make a test of a coroutine function that takes a :class:`Link`."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        (link,) = (value for value in fixtures.values() if isinstance(value, Link))
        link.run(test(**fixtures))

    return run
