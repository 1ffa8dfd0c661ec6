"""Tunnels through proxies: sockets, or a transport, that end at the server."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

from ..exceptions import (
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    ProxyError,
    SecurityError,
)
from ..http11 import ResponseReader
from ..proxy import make_socks
from .sockets import connect_tcp

if TYPE_CHECKING:
    from ..proxy import Proxy
    from ..uri import WebSocketURI

__all__ = ["connect_http", "connect_https", "connect_socks"]

# In case that there is no timeout for opening the connection.
SOCKS_TIMEOUT = 60


async def connect_http(
    loop: asyncio.AbstractEventLoop, proxy: Proxy, request: bytes, **options: Any
) -> socket.socket:
    """Make a tunnel through an HTTP proxy.

    Args:
        loop: The running event loop.
        proxy: The proxy.
        request: The request for the tunnel.
        **options: For ``connect_tcp()``.

    Raises:
        OSError: When the proxy cannot be connected to.
        ProxyError: When it does not make the tunnel.
    """
    sock, _ = await connect_tcp(loop, proxy.host, proxy.port, **options)
    try:
        await loop.sock_sendall(sock, request)
        answer = Answer()
        while not answer.feed(await loop.sock_recv(sock, 65536)):
            pass
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_https(
    loop: asyncio.AbstractEventLoop,
    proxy: Proxy,
    request: bytes,
    tls: dict[str, Any],
    **options: Any,
) -> asyncio.Transport:
    """Make a tunnel through an HTTP proxy that is spoken to in TLS.

    Args:
        loop: The running event loop.
        proxy: The proxy.
        request: The request for the tunnel.
        tls: Arguments of ``create_connection()`` about TLS to the proxy.
        **options: For ``connect_tcp()``.

    Returns:
        The transport to the proxy; its protocol must be replaced.

    Raises:
        OSError: When the proxy cannot be connected to.
        ProxyError: When it does not make the tunnel.
    """
    sock, _ = await connect_tcp(loop, proxy.host, proxy.port, **options)
    tunnels: list[Tunnel] = []

    def factory() -> Tunnel:
        tunnels.append(Tunnel(loop, request))
        return tunnels[0]

    try:
        await loop.create_connection(factory, sock=sock, **tls)
        tunnel = tunnels[0]
        await tunnel.ready
        assert tunnel.transport is not None
        return tunnel.transport
    except BaseException:
        if not tunnels:
            sock.close()
        elif tunnels[0].transport is not None:
            tunnels[0].transport.abort()
        raise


class Answer:
    """The proxy's answer to the request for a tunnel."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = ResponseReader(proxy=True)

    def feed(self, data: bytes) -> bool:
        """Take what the proxy sent; nothing means that the connection has ended.

        Returns:
            Whether the tunnel is ready.

        Raises:
            ProxyError: When it will not be.
        """
        reader = self._reader
        try:
            response = reader.feed(data) if data else reader.feed_eof()
            if response is None:
                if data:
                    return False
                raise EOFError("connection closed before the end of the response")
        except (EOFError, InvalidMessage, SecurityError) as exc:
            raise InvalidProxyMessage(
                "did not receive a valid HTTP response from the proxy"
            ) from exc
        if not 200 <= response.status_code < 300:
            raise InvalidProxyStatus(response)
        if reader.leftover:
            # A server says nothing before it is asked: this is not from the server.
            raise InvalidProxyMessage("proxy sent something after its response")
        return True


class Tunnel(asyncio.Protocol):
    """Asks for a tunnel on a transport, and reads the answer.

    Attributes:
        ready: A future that is done when the tunnel is there.
        transport: The transport; ``None`` while TLS is negotiated.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ready.add_done_callback(_retrieve_exception)
        self.transport: asyncio.Transport | None = None
        self._request = request
        self._answer = Answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # uvloop's are not derived from it.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        self._feed(data)

    def eof_received(self) -> None:
        """The proxy has closed the connection."""
        self._feed(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.ready.done():
            return
        if exc is None:
            self._feed(b"")
        else:
            self.ready.set_exception(exc)

    def _feed(self, data: bytes) -> None:
        if self.ready.done():
            # Nothing may come before the protocol is replaced: see Answer.feed().
            assert self.transport is not None
            self.transport.abort()
            return
        try:
            if self._answer.feed(data):
                self.ready.set_result(None)
        except ProxyError as exc:
            self.ready.set_exception(exc)


def _retrieve_exception(ready: asyncio.Future[None]) -> None:
    # Nobody waits any more when connecting was cancelled.
    if not ready.cancelled():
        ready.exception()


async def connect_socks(
    proxy: Proxy, uri: WebSocketURI, local_addr: tuple[str, int] | None = None
) -> socket.socket:
    """Make a tunnel through a SOCKS proxy.

    Args:
        proxy: The proxy.
        uri: Where the tunnel shall end.
        local_addr: Host and port to connect from.

    Raises:
        ImportError: When python-socks is not installed.
        OSError: When the proxy cannot be connected to.
        ProxyError: When it does not make the tunnel.
    """
    socks = make_socks(proxy, "python_socks.async_.asyncio")
    try:
        sock: socket.socket = await socks.connect(
            uri.host, uri.port, timeout=SOCKS_TIMEOUT, local_addr=local_addr
        )
    except OSError:
        raise
    except Exception as exc:
        raise ProxyError(f"failed to connect through the SOCKS proxy: {exc}") from exc
    return sock
