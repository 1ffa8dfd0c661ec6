"""The servers of the leak check: one of each kind, in one process with the clients."""

from __future__ import annotations

import asyncio
import contextlib
import http
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import websock
import websock.sync.server

LOOPBACK = "127.0.0.1"

# Seconds for an opening handshake that is not meant to end.
SOON = 0.01


async def serve_coroutine(ws: websock.ServerConnection) -> None:
    """Send back, or do what a message asks for."""
    async for message in ws:
        match message:
            case "raise":
                raise RuntimeError("a handler that fails")
            case "abort":
                ws.transport.abort()
            case "stream":
                await ws.send(count_to(20))
            case "half":
                await ws.send(fail_at(3))
            case "text":
                await ws.send(b"\xff", text=True)
            case "large":
                await ws.send("." * 2000)
            case _:
                await ws.send(message)


async def count_to(end: int) -> AsyncIterator[str]:
    """A message in fragments."""
    for number in range(end):
        yield f"{number} "


async def fail_at(end: int) -> AsyncIterator[str]:
    """A message that never ends as one."""
    async for text in count_to(end):
        yield text
    raise RuntimeError("a message that fails")


class Echo(websock.Listener):
    """Send back, or raise where a message or the path asks for it."""

    def on_open(self, ws: Any) -> None:
        if ws.request.path == "/open":
            raise RuntimeError("on_open")

    def on_message(self, ws: Any, message: Any) -> None:
        if message == "raise":
            raise RuntimeError("on_message")
        ws.send_nowait(message)

    def on_ping(self, ws: Any, data: bytes) -> None:
        if data == b"raise":
            raise RuntimeError("on_ping")

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        if reason == "raise":
            raise RuntimeError("on_close")


def serve_thread(ws: websock.sync.server.ServerConnection) -> None:
    """Send back, in a thread of its own."""
    for message in ws:
        if message == "raise":
            raise RuntimeError("a handler that fails")
        ws.send(message)


def check_request(
    ws: websock.ServerConnection, request: websock.Request
) -> websock.Response | None:
    """Refuse, or fail, where the path asks for it."""
    if request.path == "/refuse":
        return ws.respond(http.HTTPStatus.FORBIDDEN, "no\n")
    if request.path == "/raise":
        raise RuntimeError("process_request")
    return None


async def stay_silent(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Take everything, answer nothing."""
    while await reader.read(1 << 16):
        pass
    writer.close()


@dataclass(frozen=True)
class Places:
    """Where the servers are."""

    servers: list[Any]
    threads: websock.sync.server.Server
    context: ssl.SSLContext | None
    port: int
    listener: int
    sync: int
    hasty: int
    hasty_sync: int
    silent: int
    tls: int = 0

    def url(self, path: str = "") -> str:
        """Return the URL of the server with coroutines."""
        return f"ws://{LOOPBACK}:{self.port}{path}"

    async def are_empty(self) -> None:
        """Wait until no server holds a connection."""
        while any(  # noqa: ASYNC110 - nothing tells when the last one goes
            server.all_connections for server in self.servers
        ):
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def open_places(certificate: tuple[str, str] | None) -> AsyncIterator[Places]:
    """Start one server of each kind.

    Args:
        certificate: Paths of a certificate and its key; without, there is no TLS.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Any, **extra: Any) -> Any:
            server = websock.serve(handler, LOOPBACK, 0, close_timeout=1, **extra)
            return await stack.enter_async_context(server)

        echo = await start(serve_coroutine, process_request=check_request)
        listener = await start(Echo)
        hasty = await start(serve_coroutine, open_timeout=SOON)
        sync = stack.enter_context(_in_thread(10.0))
        hasty_sync = stack.enter_context(_in_thread(SOON))
        silent = await asyncio.start_server(stay_silent, LOOPBACK, 0)
        await stack.enter_async_context(silent)
        servers = [echo, listener, hasty, sync, hasty_sync]
        tls = context = None
        if certificate is not None:
            mine = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            mine.load_cert_chain(*certificate)
            context = ssl.create_default_context(cafile=certificate[0])
            context.check_hostname = False
            tls = await start(serve_coroutine, ssl=mine)
            servers.append(tls)
        yield Places(
            servers,
            sync,
            context,
            *map(_port, (echo, listener, sync, hasty, hasty_sync, silent)),
            tls=0 if tls is None else _port(tls),
        )


@contextlib.contextmanager
def _in_thread(open_timeout: float) -> Any:
    with websock.sync.server.serve(
        serve_thread, LOOPBACK, 0, open_timeout=open_timeout
    ) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


def _port(server: Any) -> int:
    sockets = [server.socket] if hasattr(server, "socket") else server.sockets
    port: int = sockets[0].getsockname()[1]
    return port


Round = Callable[[Places], Awaitable[None]]
