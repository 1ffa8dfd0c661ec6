"""What looks like a transport on a connection that owns its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .base import ConnectionBase

__all__ = ["SocketTransport"]

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

    def get_protocol(self) -> Any:
        """Return the connection."""
        return self._connection
