"""From a URI to a connection that can begin its handshake: sockets, TLS, proxies."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..proxy import Proxy, get_proxy, parse_proxy, prepare_connect_request
from .loops import can_own_sockets
from .options import TCP_OPTIONS, tls_arguments
from .sockets import connect_tcp, connect_unix, set_nodelay
from .tls import create_tls_connection, start_tls
from .tunnels import connect_http, connect_https, connect_socks

if TYPE_CHECKING:
    from ..uri import WebSocketURI
    from .connection import Connection

__all__ = ["open_connection"]

C = TypeVar("C", bound="Connection")


async def open_connection(
    uri: WebSocketURI,
    factory: Callable[[WebSocketURI], C],
    proxy: str | Literal[True] | None,
    options: Mapping[str, Any],
    user_agent_header: str | None,
) -> C:
    """Connect to a server, directly or through a proxy.

    Args:
        uri: URI of the server.
        factory: Makes the connection, once there is something to run it on.
        proxy: URL of a proxy; ``True`` looks for one, ``None`` uses none.
        options: The options of ``connect()`` about sockets and TLS, checked.
        user_agent_header: Value of ``User-Agent`` for proxies.

    Returns:
        The connection, begun; its handshake is not.

    Raises:
        OSError: When that fails.
        ProxyError: When the proxy does not do its part.
    """
    loop = asyncio.get_running_loop()
    if options.get("sock") is not None:
        sock, address = take_socket(options["sock"])
    elif options.get("unix"):
        sock, address = await connect_unix(loop, options["path"]), None
    else:
        tcp = {name: options[name] for name in TCP_OPTIONS & options.keys()}
        # What "host" and "port" change is where TCP goes to, not what is asked for.
        target = dataclasses.replace(
            uri, host=tcp.pop("host", uri.host), port=tcp.pop("port", uri.port)
        )
        through = find_proxy(proxy, target)
        if through is None:
            sock, address = await connect_tcp(loop, target.host, target.port, **tcp)
        elif through.scheme.startswith("socks"):
            sock = await connect_socks(through, target, tcp.get("local_addr"))
            address = None
        else:
            request = prepare_connect_request(through, target, user_agent_header)
            if through.scheme == "https":
                tls = tls_arguments(options, "proxy_", through.host)
                transport = await connect_https(loop, through, request, tls, **tcp)
                return await begin_inside(loop, transport, uri, factory, options)
            sock = await connect_http(loop, through, request, **tcp)
            address = None
    return await begin(loop, sock, address, uri, factory, options)


def take_socket(sock: socket.socket) -> tuple[socket.socket, Any]:
    """Take over a socket from the caller; return it and the peer's address.

    Raises:
        OSError: When it is not connected.
        ValueError: When it is closed.
    """
    if sock.fileno() < 0:
        raise ValueError("sock is closed: a socket serves for one connection")
    try:
        address = sock.getpeername()
        sock.setblocking(False)
        set_nodelay(sock)
    except BaseException:
        sock.close()
        raise
    return sock, address


def find_proxy(proxy: str | Literal[True] | None, uri: WebSocketURI) -> Proxy | None:
    """Return the proxy to use for a URI.

    Raises:
        InvalidProxy: When that is not the URL of a proxy.
    """
    if proxy is True:
        proxy = get_proxy(uri)
    return None if proxy is None else parse_proxy(proxy)


async def begin(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    address: Any,
    uri: WebSocketURI,
    factory: Callable[[WebSocketURI], C],
    options: Mapping[str, Any],
) -> C:
    """Make the connection on a socket, which is the connection's from here on."""
    made: list[C] = []

    def make() -> C:
        made.append(factory(uri))
        return made[0]

    try:
        if not uri.secure and can_own_sockets(loop):
            connection = make()
            connection.start(sock, address)
            return connection
        tls = tls_arguments(options, "", uri.host) if uri.secure else {}
        await create_tls_connection(loop, make, sock, **tls)
        return made[0]
    except BaseException:
        if not made:
            sock.close()
        elif made[0].io is not None:
            made[0].abort_stream()
        # Else the loop closes the socket: its transport has begun, and failed.
        raise


async def begin_inside(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    uri: WebSocketURI,
    factory: Callable[[WebSocketURI], C],
    options: Mapping[str, Any],
) -> C:
    """Make the connection on a transport to a proxy."""
    try:
        connection = factory(uri)
        inner = transport
        if uri.secure:
            tls = tls_arguments(options, "", uri.host)
            inner = await start_tls(loop, transport, connection, tls.pop("ssl"), **tls)
        else:
            transport.set_protocol(connection)
        connection.connection_made(inner)
    except BaseException:
        transport.abort()
        raise
    return connection
