"""Servers that do what a test says, loops to run on, and a certificate.

The servers are made of asyncio streams, without the library that is tested.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest
import trustme

DEADLINE = 30  # seconds until a test is taken to hang
LOOPBACK = "127.0.0.1"

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def loop_fixture() -> Any:
    """Make a fixture: a function that runs a coroutine, on each loop in turn."""

    @pytest.fixture(params=["asyncio", "uvloop"])
    def run(request: pytest.FixtureRequest) -> Run:
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
        if request.param == "uvloop":
            if sys.platform == "win32" or find_spec("uvloop") is None:
                pytest.skip("uvloop is not installed")
            import uvloop

            factory = uvloop.new_event_loop
        return lambda coroutine: run_on(factory, coroutine)

    return run


def run_on(
    factory: Callable[[], asyncio.AbstractEventLoop] | None,
    coroutine: Coroutine[Any, Any, Any],
) -> Any:
    """Run a coroutine, not for ever; what it leaks or lets fail unseen is an error."""
    unseen: list[Any] = []

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncio's servers say this, in debug mode, of clients that give up.
        if context["message"].startswith("Error on transport creation"):
            return
        # And aiofastnet's always, with the class for an exception.
        if (
            context["message"] == "SSL handshake failed"
            and context["exception"] is ConnectionResetError
        ):
            return
        unseen.append(context)

    async def bounded() -> Any:
        asyncio.get_running_loop().set_exception_handler(handler)
        async with asyncio.timeout(DEADLINE):
            result = await coroutine
        left = [task for task in asyncio.all_tasks() if task.get_name() == "scripted"]
        assert not left, left
        return result

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(bounded())
    gc.collect()  # unclosed sockets and transports warn now, in the test that left them
    assert not unseen, unseen
    return result


def tls_fixture() -> Any:
    """Make a fixture: TLS contexts for a server and for its clients."""

    @pytest.fixture(scope="session")
    def tls() -> TLS:
        authority = trustme.CA()
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(LOOPBACK, "localhost").configure_cert(server)
        client = ssl.create_default_context()
        authority.configure_trust(client)
        return TLS(server, client)

    return tls


@dataclass(frozen=True)
class TLS:
    """Contexts of both sides."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def accept_key(key: str) -> str:
    """Answer a key (RFC 6455, 4.2.2)."""
    text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


class Peer:
    """A connection, from the end of a scripted server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.line = ""
        self.headers: list[tuple[str, str]] = []

    async def request(self) -> str:
        """Read the head of a request; return its first line."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.line, *lines = (
            head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        )
        self.headers = [(n, v) for n, _, v in (line.partition(": ") for line in lines)]
        return self.line

    def all(self, name: str) -> list[str]:
        """Return the values of a header of the request."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def accept(self, *headers: str, rest: bytes = b"") -> bytes:
        """Build the response that accepts the request, and what follows it."""
        lines = (
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(self.all('Sec-WebSocket-Key')[0])}",
            *headers,
        )
        return "\r\n".join((*lines, "", "")).encode() + rest

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> bytes:
        """Read until the client is gone; return what it sent."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def reset(self) -> None:
        """Drop the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: 0 seconds
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[Any]]


@dataclass
class Scripted:
    """A scripted server that runs."""

    port: int
    secure: bool = False
    peers: list[Peer] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{LOOPBACK}:{self.port}/"


@contextlib.asynccontextmanager
async def scripted(
    *scripts: Script, tls: ssl.SSLContext | None = None, path: str | None = None
) -> AsyncIterator[Scripted]:
    """Run a server; each connection gets the next script, and then the last again.

    What a script raises is raised at the end, once all scripts are over.
    """
    tasks: list[asyncio.Task[None]] = []
    server = Scripted(0, tls is not None)

    async def serve(script: Script, peer: Peer) -> None:
        try:
            await script(peer)
        finally:
            peer.writer.close()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        script = scripts[min(len(tasks), len(scripts) - 1)]
        server.peers.append(peer)
        tasks.append(asyncio.create_task(serve(script, peer), name="scripted"))

    if path is None:
        listening = await asyncio.start_server(connected, LOOPBACK, 0, ssl=tls)
        server.port = listening.sockets[0].getsockname()[1]
    else:
        listening = await asyncio.start_unix_server(connected, path, ssl=tls)
    try:
        yield server
        await asyncio.gather(*tasks)
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()


async def echo(peer: Peer) -> None:
    """Accept, send each message back as it is, and answer the close frame."""
    await peer.request()
    await peer.send(peer.accept())
    while True:
        opcode, payload = await read_frame(peer.reader)
        await peer.send(bytes((0x80 | opcode, len(payload))) + payload)
        if opcode == 8:
            return


async def say_bye(peer: Peer) -> None:
    """Wait for the client's close frame; a server then ends the connection."""
    while (await read_frame(peer.reader))[0] != 8:
        pass


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a short masked frame."""
    first, second = await reader.readexactly(2)
    assert first & 0x80
    assert 0x80 <= second < 0x80 + 126
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(second - 0x80)
    return first & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def refuse(status: str, *headers: str, body: bytes = b"") -> Script:
    """Make a script that answers the request with a plain response."""

    async def script(peer: Peer) -> None:
        await peer.request()
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
        await peer.send("\r\n".join((*lines, "", "")).encode() + body)
        await peer.ended()

    return script
