"""Sockets instead of transports.

A :class:`SocketTransport` looks like a transport on a connection that owns its socket;
:func:`take_socket` gives such a connection the socket of a transport that exists.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .base import ConnectionBase

__all__ = ["SocketTransport", "take_socket"]

# Those that add nothing to what the socket does, and close it without more ado.
PLAIN_TRANSPORTS = frozenset(
    (
        ("asyncio.selector_events", "_SelectorSocketTransport"),
        ("uvloop.loop", "TCPTransport"),
        ("uvloop.loop", "UnixTransport"),
    )
)

Bytes: TypeAlias = "bytes | bytearray | memoryview[Any]"


class SocketTransport(asyncio.Transport):
    """The part of a transport that programs reach for."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ConnectionBase) -> None:
        self._connection = connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``socket``, ``sockname`` or ``peername``; else ``default``."""
        connection = self._connection
        if name == "socket":
            return connection.sock
        if name == "sockname":
            return connection.local_address
        if name == "peername":
            return connection.remote_address
        return default

    def is_closing(self) -> bool:
        """Whether the connection is closed, or is being closed."""
        return self._connection.is_lost or self._connection.is_closing

    def close(self) -> None:
        """Close the socket, without a closing handshake; what is unsent is sent."""
        self._connection.close_stream()

    def abort(self) -> None:
        """Close the socket at once; what is unsent is dropped."""
        self._connection.abort_stream()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are unsent."""
        return int(self._connection.buffered_amount)

    def can_write_eof(self) -> bool:
        """Whether one direction can be ended alone."""
        return True

    def write_eof(self) -> None:
        """End the outgoing direction after what is unsent."""
        self._connection.end_writing()

    def write(self, data: Bytes) -> None:
        """Write bytes as they are: not a message, so rarely what is wanted."""
        self._connection.write_bytes(bytes(data))

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Write several pieces of bytes."""
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        """Deliver and read nothing until ``resume_reading()``."""
        self._connection.hold_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading()``."""
        self._connection.release_reading()

    def is_reading(self) -> bool:
        """Whether input is read, and not held back."""
        return not self.is_closing() and not self._connection.is_held

    def get_protocol(self) -> Any:
        """Return the connection."""
        return self._connection


def take_socket(transport: Any) -> socket.socket | None:
    """Return the socket that a transport works on, as one of its own.

    The transport reads nothing more.  It is the caller's to abort; until then it must
    not be written to.

    Returns:
        ``None``, and nothing has changed, when the transport is more than a socket, as
        with TLS, or is unknown, is closing, or has something unsent.
    """
    kind = type(transport)
    if (
        (kind.__module__, kind.__qualname__) not in PLAIN_TRANSPORTS
        or transport.is_closing()
        or transport.get_write_buffer_size()
    ):
        return None
    sock = transport.get_extra_info("socket")
    try:
        # A number of its own, since the transport closes its.
        own = socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto)
    except OSError:
        return None  # there are too many open files: go on as it is
    own.setblocking(False)
    transport.pause_reading()
    return own
