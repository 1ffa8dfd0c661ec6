"""Taking connections over from HTTP servers that run on asyncio.

The transport stays, and gets another protocol: the connection.  Whatever the former
protocol has read behind the request must come along; it is told when the connection is
lost, so that its own bookkeeping comes to an end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ..frames import CloseCode
from ..http11 import Request

if TYPE_CHECKING:
    from .incoming import IncomingConnection
    from .server import WebSocketServer

__all__ = [
    "Detach",
    "attach",
    "hand_over",
    "is_upgrade",
    "take_buffered",
    "tell_eof",
    "until_lost",
]

Detach: TypeAlias = Callable[[], None]
"""Undoes ``attach()``."""

_CHUNK = 65536

_asks_upgrade = re.compile(
    rb"\A[Gg][Ee][Tt] .*\nupgrade:[ \t]*websocket[ \t]*\r?\n", re.I | re.S
).search


def is_upgrade(request: bytes | Request | Mapping[str, str]) -> bool:
    """Tell whether a request asks for a WebSocket.

    It may still be a bad one, which then gets the answer that says so.

    Args:
        request: The head of the request, the request, or its headers, as a mapping
            that finds names in any case.
    """
    if isinstance(request, (bytes, bytearray)):
        return _asks_upgrade(request) is not None
    if isinstance(request, Request):
        values = request.headers.get_all("Upgrade")
        return request.method == "GET" and [v.lower() for v in values] == ["websocket"]
    return request.get("Upgrade", "").lower() == "websocket"


def attach(server: WebSocketServer, http_server: Any) -> Detach:
    """Have an HTTP server hand over requests for WebSockets.

    Args:
        server: Server that takes them.
        http_server: Something of ``aiohttp.web``.

    Returns:
        A function that undoes it.

    Raises:
        InvalidStateError: When the application runs already.
        TypeError: When the HTTP server is of no known kind.
    """
    # Whoever has an object of aiohttp has imported it.
    if any(
        kind.__module__.partition(".")[0] == "aiohttp"
        for kind in type(http_server).__mro__
    ):
        from . import aiohttp_host

        return aiohttp_host.attach(server, http_server)
    raise TypeError(
        f"cannot attach to {type(http_server).__name__}: expected something of "
        "aiohttp.web; for other HTTP servers there is handle_upgrade()"
    )


def hand_over(
    connection: IncomingConnection, transport: Any, data: bytes, kept: Any
) -> None:
    """Give a transport to a connection.

    Args:
        connection: The connection.
        transport: The transport.
        data: The request, and what was read behind it.
        kept: An object to hold on to until the connection is lost.
    """
    connection.former = transport.get_protocol()
    connection.kept = kept
    transport.set_protocol(connection)
    if not transport.is_reading():
        transport.resume_reading()  # it was full of what is handed over now
    connection.connection_made(transport)
    connection.data_received(data)


def take_buffered(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Take out of a stream what it has read already.

    Returns:
        The bytes, and whether the peer has ended its stream.

    Raises:
        RuntimeError: When somebody else is reading.
    """
    pieces: list[bytes] = []
    while True:
        # A step at a time: one that has nothing to return is left before it waits.
        reading = reader.read(_CHUNK)
        try:
            reading.send(None)
        except StopIteration as done:
            if not done.value:
                return b"".join(pieces), True
            pieces.append(done.value)
        else:
            reading.close()
            return b"".join(pieces), False


def tell_eof(connection: IncomingConnection) -> None:
    """Tell a connection that the peer had ended its stream before."""
    if not connection.eof_received() and connection.io is not None:
        connection.io.close()


async def until_lost(connection: IncomingConnection) -> None:
    """Wait until a connection is lost; close it when the wait is cancelled."""
    try:
        await connection.wait_closed()
    except asyncio.CancelledError:
        connection.close_nowait(CloseCode.GOING_AWAY)
        raise
