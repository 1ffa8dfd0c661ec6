"""A connection as a stream of bytes: what carries TCP through a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from ..exceptions import ConnectionClosed
from ..frames import CloseCode

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["open_stream"]

Bytes: TypeAlias = "bytes | bytearray | memoryview[Any]"


def open_stream(
    ws: Connection, *, limit: int = 2**16
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make a pair of asyncio streams from a connection.

    ::

        reader, writer = websock.open_stream(ws)
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        await writer.drain()
        page = await reader.read()

    Binary messages are the pieces of the stream; where they begin and end means
    nothing.  Back-pressure works both ways: ``drain()`` waits while the peer does not
    read, and the connection is not read while more than twice ``limit`` bytes wait in
    the reader.  A text message fails the connection with code 1003.  There is no
    half-closing: ``close()`` closes the connection, with code 1000, after what was
    written.

    Args:
        ws: An open connection; nobody else may receive from it.
        limit: As for ``asyncio.open_connection()``.
    """
    reader = asyncio.StreamReader(limit=limit, loop=ws.loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=ws.loop)
    transport = StreamTransport(ws, protocol)
    protocol.connection_made(transport)
    transport.start()
    writer = asyncio.StreamWriter(transport, protocol, reader, ws.loop)
    return reader, writer


class StreamTransport(asyncio.Transport):
    """What the streams take for a TCP transport.

    Args:
        ws: The connection.
        protocol: The protocol of the streams.
    """

    def __init__(self, ws: Connection, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self._ws = ws
        self._protocol = protocol
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False
        self._closed = False  # by the program

    def start(self) -> None:
        """Begin to receive."""
        self._run(self._receive())

    def _run(self, coroutine: Any) -> None:
        task = self._ws.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self) -> None:
        exc: Exception | None = None
        try:
            async for message in self._ws:
                if isinstance(message, str):
                    self._ws.fail(
                        CloseCode.UNSUPPORTED_DATA, "text in a stream of bytes"
                    )
                    continue
                if self._closed:
                    continue  # nobody reads it, and it must not pile up
                self._protocol.data_received(message)
                await self._may_read.wait()
        except ConnectionClosed as closed:
            # What reads from streams expects an OSError.
            exc = ConnectionResetError(str(closed))
            # Without its traceback, which refers to this object: in a cycle, the future
            # of wait_closed() could go before the protocol that looks at it, and
            # asyncio would complain about an exception that nobody has to see.
            exc.__cause__ = closed.with_traceback(None)
        if exc is None:
            self._protocol.eof_received()
        self._protocol.connection_lost(exc)

    async def _resume_writing(self) -> None:
        try:
            await self._ws.drain()
        except ConnectionClosed:
            return  # connection_lost() wakes who waits
        self._paused = False
        self._protocol.resume_writing()

    # -- asyncio.Transport -----------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``websocket``, the connection, or what its transport knows."""
        if name == "websocket":
            return self._ws
        return self._ws.transport.get_extra_info(name, default)

    def write(self, data: Bytes) -> None:
        """Send bytes as a message."""
        if not data or not self._ws.is_open:
            return
        self._ws.send_nowait(data)
        if self._ws.write_paused and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
            self._run(self._resume_writing())

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Send several pieces as one message."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return ``False``: a WebSocket has no half that can be closed alone."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are unsent."""
        return int(self._ws.buffered_amount)

    def pause_reading(self) -> None:
        """Receive nothing more, for now."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Undo ``pause_reading()``."""
        self._may_read.set()

    def is_reading(self) -> bool:
        """Whether messages are received."""
        return self._may_read.is_set()

    def is_closing(self) -> bool:
        """Whether the connection is closed, or is being closed."""
        return not self._ws.is_open

    def close(self) -> None:
        """Close the connection after what was written."""
        self._closed = True
        self._may_read.set()
        self._ws.close_nowait()

    def abort(self) -> None:
        """Drop the connection."""
        self._closed = True
        self._may_read.set()
        self._ws.transport.abort()
