"""Connections in memory: real handshakes and frames, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..asyncio.client import ClientConnection, connect
from ..asyncio.server import Server, ServerConnection, serve

__all__ = ["Faults", "MemoryPair", "MemoryServer", "memory_pair", "memory_server"]

Bytes: TypeAlias = "bytes | bytearray | memoryview[Any]"

HIGH, LOW = 65536, 16384  # bytes on their way at which a writer is paused, and goes on


@dataclass
class Faults:
    """What goes wrong on the way in one direction; change it at any time.

    Attributes:
        split: Deliver at most so many bytes at once; ``None`` for all.
        delay: Seconds from sending to delivery.
        drop: Whether bytes vanish, as if a cable were cut: nobody is told.
        corrupt: Called with what is delivered, returns what arrives instead.
        reset_after: Bytes after which the connection is reset; ``None`` for never.
    """

    split: int | None = None
    delay: float = 0.0
    drop: bool = False
    corrupt: Callable[[bytes], bytes] | None = None
    reset_after: int | None = None


class Pipe:
    """One direction of a connection.

    Args:
        writer: Transport that is written to.
        faults: What goes wrong.
    """

    def __init__(self, writer: MemoryTransport, faults: Faults) -> None:
        self.writer = writer
        self.reader: MemoryTransport
        self.faults = faults
        self.size = 0  # bytes on their way
        self._loop = writer.loop
        self._data: deque[bytes | None] = deque()  # None: the end
        self._delivered = 0
        self._scheduled = False

    def push(self, data: bytes | None) -> None:
        """Take bytes, or the end, on their way."""
        if self.faults.drop:
            return
        if self.faults.delay:
            self._loop.call_later(self.faults.delay, self._arrived, data)
        else:
            self._arrived(data)
        self.size += len(data or b"")

    def _arrived(self, data: bytes | None) -> None:
        self._data.append(data)
        self.schedule()

    def schedule(self) -> None:
        """Deliver what has arrived, in the next turn of the loop."""
        if self._data and not self._scheduled and not self.reader.is_paused:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        reader, faults = self.reader, self.faults
        if reader.is_over or reader.is_paused or not self._data:
            return
        data = self._data.popleft()
        if data is None:
            reader.ended()
            return
        if faults.split is not None and len(data) > faults.split:
            self._data.appendleft(data[faults.split :])
            data = data[: faults.split]
        if faults.reset_after is not None:
            room = faults.reset_after - self._delivered
            if len(data) >= room:
                reader.deliver(data[: max(room, 0)])
                self.writer.reset()
                return
        self._delivered += len(data)
        self.size -= len(data)
        reader.deliver(data if faults.corrupt is None else faults.corrupt(data))
        self.writer.check_low()
        self.schedule()


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory.

    Args:
        loop: The event loop.
        faults: What goes wrong with what is written here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, faults: Faults) -> None:
        super().__init__()
        self.loop = loop
        self.protocol: Any = None
        self.is_paused = False
        self.is_over = False  # connection_lost() was called, or is about to be
        self.outgoing = Pipe(self, faults)
        self.incoming: Pipe
        self._closing = False
        self._wrote_eof = False
        self._writing_paused = False
        self._limits = HIGH, LOW

    # -- for pipes -------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        """Give bytes to the protocol."""
        if data:
            self.protocol.data_received(data)

    def ended(self) -> None:
        """Tell the protocol that the peer has ended its direction."""
        if not self.protocol.eof_received():
            self.close()

    def check_low(self) -> None:
        """Let the protocol write again, when enough was delivered."""
        if self._writing_paused and self.outgoing.size <= self._limits[1]:
            self._writing_paused = False
            self.protocol.resume_writing()
        if self._closing and not self.outgoing.size:
            self._lose(None)

    def reset(self) -> None:
        """End both directions at once, with an error on both sides."""
        exc = ConnectionResetError("connection reset in memory")
        peer = self.outgoing.reader
        self._lose(exc)
        peer._lose(exc)

    def _lose(self, exc: Exception | None) -> None:
        if not self.is_over:
            self.is_over = self._closing = True
            self.loop.call_soon(self.protocol.connection_lost, exc)

    # -- asyncio.Transport -----------------------------------------------------------

    def write(self, data: Bytes) -> None:
        """Send bytes."""
        if self._closing or self._wrote_eof or not data:
            return
        self.outgoing.push(bytes(data))
        if self.outgoing.size > self._limits[0] and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Send several pieces of bytes."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return ``True``."""
        return True

    def write_eof(self) -> None:
        """End this direction."""
        if not self._wrote_eof:
            self._wrote_eof = True
            self.outgoing.push(None)

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the bytes at which the protocol is to pause, and may go on."""
        high = HIGH if high is None else high
        self._limits = high, high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are on their way."""
        return self.outgoing.size

    def pause_reading(self) -> None:
        """Deliver nothing until ``resume_reading()``."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Undo ``pause_reading()``."""
        self.is_paused = False
        self.incoming.schedule()

    def is_closing(self) -> bool:
        """Whether it is closed, or is being closed."""
        return self._closing

    def close(self) -> None:
        """End it when everything is delivered."""
        if not self._closing:
            self.write_eof()
            self._closing = True
            if not self.outgoing.size or self.outgoing.faults.drop:
                self._lose(None)

    def abort(self) -> None:
        """End it at once; the peer sees a reset."""
        if not self.is_over:
            self._lose(None)
            if not self.outgoing.faults.drop:
                self.outgoing.reader._lose(
                    ConnectionResetError("connection reset in memory")
                )

    def get_protocol(self) -> Any:
        """Return the protocol."""
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``default``: there is no socket."""
        return default


@dataclass
class MemoryPair:
    """Both ends of a connection; iterating gives the client and the server.

    Attributes:
        client: The client's end.
        server: The server's end.
        to_server: What goes wrong on the way to the server.
        to_client: What goes wrong on the way to the client.
    """

    client: ClientConnection
    server: ServerConnection
    to_server: Faults = field(default_factory=Faults)
    to_client: Faults = field(default_factory=Faults)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.client, self.server))

    def reset(self) -> None:
        """End the connection at once, as a reset does."""
        self.client.transport.reset()


class _Nowhere:
    """Stands for the listening sockets of a server in memory."""

    sockets: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self._is_open = True

    def is_serving(self) -> bool:
        return self._is_open

    async def start(self, server: Server) -> None:
        pass

    def close(self) -> None:
        self._is_open = False

    async def wait_closed(self) -> None:
        pass


class MemoryServer:
    """A server that is reached without sockets; :func:`memory_server` makes it.

    Attributes:
        server: The server.
    """

    def __init__(self, serving: serve) -> None:
        self.server, self._factory = serving.make_server(_Nowhere())

    async def connect(
        self,
        uri: str = "ws://memory/",
        *,
        to_server: Faults | None = None,
        to_client: Faults | None = None,
        **kwargs: Any,
    ) -> MemoryPair:
        """Connect to the server.

        Args:
            uri: URI; its path and host are what the server sees.
            to_server: What goes wrong on the way to the server.
            to_client: What goes wrong on the way to the client.
            **kwargs: As for :func:`~websock.connect`; those that are about the network
                have no effect.

        Raises:
            ConnectionRefusedError: When the server is closed.
            InvalidHandshake: When the server refuses.
        """
        if not self.server.is_serving():
            raise ConnectionRefusedError("the server in memory is closed")
        loop = asyncio.get_running_loop()
        connector = connect(uri, **kwargs)
        client = connector.factory(connector.ws_uri)
        server = self._factory(self.server)
        to_server, to_client = to_server or Faults(), to_client or Faults()
        ours, theirs = (
            MemoryTransport(loop, to_server),
            MemoryTransport(loop, to_client),
        )
        ours.protocol, theirs.protocol = client, server
        ours.outgoing.reader, theirs.outgoing.reader = theirs, ours
        ours.incoming, theirs.incoming = theirs.outgoing, ours.outgoing
        server.connection_made(theirs)
        client.connection_made(ours)
        try:
            async with asyncio.timeout(connector.open_timeout):
                await client.handshake(
                    connector.additional_headers, connector.user_agent_header
                )
        except BaseException:
            client.transport.abort()
            raise
        return MemoryPair(client, server, to_server, to_client)

    async def __aenter__(self) -> MemoryServer:
        await self.server.topics.start()
        self.server.has_topics = True
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.server.close()
        await self.server.wait_closed()


def memory_server(handler: Any, **kwargs: Any) -> MemoryServer:
    """Make a server that is reached without sockets; use it with ``async with``.

    ::

        async with memory_server(handler) as server:
            client, _ = await server.connect("ws://example.com/path")
            await client.send("hello")

    Args:
        handler: As for :func:`~websock.serve`.
        **kwargs: As for ``serve()``.  Topics are those of this server alone if
            ``topics`` does not say more, also in a worker of a hub.

    Raises:
        BrokerError: When it is entered and the broker of ``topics`` cannot be reached.
    """
    topics = kwargs.pop("topics", None) or "memory://"
    # The port is for nobody: nothing listens.
    return MemoryServer(serve(handler, port=0, topics=topics, **kwargs))


@contextlib.asynccontextmanager
async def memory_pair(
    *,
    server_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> AsyncIterator[MemoryPair]:
    """Make both ends of a connection without sockets.

    ::

        async with memory_pair() as (client, server):
            await client.send("hello")
            assert await server.recv() == "hello"

    Args:
        server_options: Arguments of :func:`~websock.serve`.
        **kwargs: As for :meth:`MemoryServer.connect`.
    """

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    async with memory_server(handler, **(server_options or {})) as server:
        pair = await server.connect(**kwargs)
        try:
            yield pair
        finally:
            # However broken it is, it ends here.
            for faults in (pair.to_client, pair.to_server):
                faults.drop = False
            await pair.client.close()
