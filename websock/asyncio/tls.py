"""TLS transports: aiofastnet's where it is installed, else those of the loop.

aiofastnet has OpenSSL work on its own buffers, where asyncio and uvloop copy through
memory objects of the ``ssl`` module. It offers the loop's functions with the same
arguments, and its transports are asyncio's transports. Its sockets need a loop that
tells when they are readable.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .._optional import use_optional
from .loops import can_own_sockets

#: What is called of aiofastnet.
AIOFASTNET_NAMES = (
    "Transport", "connect_accepted_socket", "create_connection", "create_server",
    "create_unix_connection", "create_unix_server", "start_tls",
)  # fmt: skip

if TYPE_CHECKING:
    aiofastnet: Any
else:
    aiofastnet = use_optional("aiofastnet", AIOFASTNET_NAMES)

__all__ = ["accept_tls", "create_tls_connection", "create_tls_server", "start_tls"]

# What asyncio does with the outer one of two TLS transports when the inner one fails
# ended, up to 3.11.7 and 3.12.1, in a TypeError that took the place of the reason.
_CANNOT_FORCE_CLOSE = sys.version_info < (3, 12, 2)

Factory = Callable[[], asyncio.BaseProtocol]


def _is_faster(loop: asyncio.AbstractEventLoop, context: object) -> bool:
    """Whether aiofastnet makes a connection's or a server's transports."""
    return aiofastnet is not None and context is not None and can_own_sockets(loop)


async def accept_tls(
    loop: asyncio.AbstractEventLoop, factory: Factory, sock: socket.socket, **tls: Any
) -> None:
    """Begin TLS, as a server, on a socket that was accepted.

    Args:
        loop: The event loop.
        factory: Makes the protocol.
        sock: The socket, which is the transport's from here on.
        **tls: The arguments of ``loop.connect_accepted_socket()`` about TLS.
    """
    if _is_faster(loop, tls.get("ssl")):
        await aiofastnet.connect_accepted_socket(loop, factory, sock, **tls)
    else:
        await loop.connect_accepted_socket(factory, sock, **tls)


async def create_tls_connection(
    loop: asyncio.AbstractEventLoop, factory: Factory, sock: socket.socket, **tls: Any
) -> None:
    """Begin TLS, as a client, on a connected socket; or only a transport, without.

    Args:
        loop: The event loop.
        factory: Makes the protocol.
        sock: The socket, which is the transport's from here on.
        **tls: The arguments of ``loop.create_connection()`` about TLS.
    """
    is_unix = sock.family == getattr(socket, "AF_UNIX", None)
    name = "create_unix_connection" if is_unix else "create_connection"
    if _is_faster(loop, tls.get("ssl")):
        await getattr(aiofastnet, name)(loop, factory, sock=sock, **tls)
    else:
        await getattr(loop, name)(factory, sock=sock, **tls)


async def create_tls_server(
    loop: asyncio.AbstractEventLoop,
    factory: Factory,
    sock: socket.socket,
    **options: Any,
) -> asyncio.Server:
    """Listen on a bound socket; each connection begins with TLS, or with nothing.

    Args:
        loop: The event loop.
        factory: Makes a protocol for each connection.
        sock: The socket.
        **options: Other arguments of ``loop.create_server()``.
    """
    is_unix = sock.family == getattr(socket, "AF_UNIX", None)
    name = "create_unix_server" if is_unix else "create_server"
    if _is_faster(loop, options.get("ssl")):
        server = await getattr(aiofastnet, name)(loop, factory, sock=sock, **options)
    else:
        server = await getattr(loop, name)(factory, sock=sock, **options)
    return cast(asyncio.Server, server)


async def start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    **tls: Any,
) -> asyncio.Transport:
    """Begin TLS, as a client, inside a transport.

    Args:
        loop: The event loop.
        transport: The transport, which the new one writes to.
        protocol: What the new transport talks to.
        context: Settings of TLS.
        **tls: Other arguments of ``loop.start_tls()``.
    """
    if aiofastnet is not None and isinstance(transport, aiofastnet.Transport):
        started = await aiofastnet.start_tls(loop, transport, protocol, context, **tls)
    else:
        if _CANNOT_FORCE_CLOSE and type(transport).__module__ == "asyncio.sslproto":
            setattr(  # noqa: B010  # transports have no such attribute to mypy
                transport, "_force_close", lambda exc: transport.abort()
            )
        started = await loop.start_tls(transport, protocol, context, **tls)
    return cast(asyncio.Transport, started)
