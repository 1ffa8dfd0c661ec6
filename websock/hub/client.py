"""A connection to a hub, as a worker has it.

What the hub sends comes in one order: messages, answers, and what was lost.  The
callbacks are called while it is read, so they see that order too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ..asyncio.client import ClientConnection, connect
from ..listener import Listener
from ..topics.history import Position
from ..typing import Data
from .address import USER, Address
from .server import wire_logger
from .wire import COUNT, Kind, lines_of, pack, places_of, unpack

__all__ = ["Answer", "HubClient"]

WRITE_LIMIT = 1024 * 1024  # bytes unsent at which drain() waits

Answer = tuple[list[tuple[str, bytes]], dict[str, Position]]
"""Messages that are kept, with their channels; the last positions of channels."""


class HubClient(Listener):
    """A connection to a hub.

    Args:
        address: Where the hub is.
        on_publish: Called with the channel and what was published.
        on_miss: Called when messages did not fit: with their number, the first of each
            channel, and whether there are more channels.
    """

    def __init__(
        self,
        address: Address,
        on_publish: Callable[[str, bytes], object],
        on_miss: Callable[[int, dict[str, Position], bool], object],
    ) -> None:
        self.address = address
        self.on_publish = on_publish
        self.on_miss = on_miss
        self.max_size = 0
        self._ws: ClientConnection | None = None
        self._opened: asyncio.Future[None]
        self._tokens = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._answers: dict[str, Answer] = {}
        self._kept: list[tuple[str, bytes]] | None = None  # while they come

    # -- beginning and ending ----------------------------------------------------------

    async def open(self) -> None:
        """Connect, and wait until the hub has said what may be said.

        Raises:
            ConnectionError: When the connection ends at once.
            OSError: When there is no hub.
            WebSocketException: When it does not let us in.
        """
        address = self.address
        where: dict[str, Any] = {"unix": True, "path": address.path}
        if address.path is None:
            where = {"host": address.host, "port": address.port}
        self._opened = asyncio.get_running_loop().create_future()
        self._ws = await connect(
            f"ws://{USER}:{quote(address.secret, safe='')}@localhost/",
            **where,
            listener=self,
            compression=None,
            proxy=None,
            user_agent_header=None,
            open_timeout=None,  # who opens it has a time for all of it
            ping_interval=None,
            close_timeout=1,
            max_size=None,
            write_limit=WRITE_LIMIT,
            logger=wire_logger,
        )
        await self._opened

    async def close(self) -> None:
        """Send what is unsent, and end the connection."""
        if self._ws is not None:
            await self._ws.close()

    @property
    def transport(self) -> asyncio.WriteTransport:
        """What the connection writes to."""
        transport: asyncio.WriteTransport = self._connection.transport
        return transport

    async def wait_closed(self) -> None:
        """Wait for the end of the connection."""
        await self._connection.wait_closed()

    @property
    def _connection(self) -> ClientConnection:
        if self._ws is None:
            raise ConnectionError("not connected to the hub")
        return self._ws

    # -- what to say -------------------------------------------------------------------

    def publish(self, channel: str, length: int, data: bytes) -> None:
        """Publish, without waiting; see ``drain()``.

        Args:
            channel: Name of the channel.
            length: Messages of the channel to keep; 0 does not keep this one.
            data: What to publish.

        Raises:
            ConnectionClosed: When the connection is closed.
            ValueError: When the name is too long.
        """
        self._send(Kind.PUBLISH, channel, COUNT.pack(length), data)

    def subscribe(self, pattern: str) -> None:
        """Subscribe to a pattern of channels, without waiting; see ``sync()``.

        Raises:
            ConnectionClosed: When the connection is closed.
            ValueError: When the pattern is too long.
        """
        self._send(Kind.SUBSCRIBE, pattern)

    def leave(self, pattern: str) -> None:
        """Undo ``subscribe()``.

        Raises:
            ConnectionClosed: When the connection is closed.
            ValueError: When the pattern is too long.
        """
        self._send(Kind.LEAVE, pattern)

    def _send(self, kind: int, channel: str = "", *payload: bytes) -> None:
        self._connection.send_nowait(pack(kind, channel.encode(), *payload))

    async def drain(self) -> None:
        """Wait while too much is unsent.

        Raises:
            ConnectionClosed: When the connection is closed.
        """
        await self._connection.drain()

    async def sync(self) -> None:
        """Wait until the hub has done all that it was told, and what it sent is here.

        Raises:
            ConnectionError: When the connection ends.
        """
        token, waiter = self._ask()
        self._send(Kind.SYNC, "", token.encode())
        await self._answer_to(token, waiter)

    async def read(
        self, pattern: str, last: int | None, since: Mapping[str, Position]
    ) -> Answer:
        """Ask for messages that are kept.

        Args:
            pattern: Pattern of their channels; ``""`` for those of ``since``.
            last: How many of each channel at most; ``None`` for all.
            since: Positions that have been reached, after which to begin.

        Raises:
            ConnectionError: When the connection ends.
        """
        token, waiter = self._ask()
        first = f"{token} {'-' if last is None else last}"
        self._send(Kind.READ, pattern, lines_of(first, since.items()))
        try:
            await self._answer_to(token, waiter)
            return self._answers[token]
        finally:
            self._answers.pop(token, None)

    def _ask(self) -> tuple[str, asyncio.Future[None]]:
        token = str(next(self._tokens))
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[token] = waiter
        return token, waiter

    async def _answer_to(self, token: str, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter
        finally:
            self._waiting.pop(token, None)

    # -- what is said ------------------------------------------------------------------

    def on_message(self, ws: Any, message: Data) -> None:
        """Take what the hub sends."""
        assert isinstance(message, bytes)
        kind, channel, payload = unpack(message)
        if kind == Kind.MESSAGE:
            if self._kept is None:
                self.on_publish(channel.decode(), payload)
            else:
                self._kept.append((channel.decode(), payload))
        elif kind == Kind.SYNC:
            self._wake(payload.decode())
        elif kind == Kind.KEPT:
            self._kept = []
        elif kind == Kind.END:
            token, places = places_of(payload)
            kept, self._kept = self._kept or [], None
            if token in self._waiting:
                self._answers[token] = kept, places
            self._wake(token)
        elif kind == Kind.LOST:
            first, places = places_of(payload)
            count, _, more = first.partition(" ")
            self.on_miss(int(count), places, bool(more))
        elif kind == Kind.HELLO:
            self.max_size = int(payload)
            if not self._opened.done():
                self._opened.set_result(None)

    def _wake(self, token: str) -> None:
        waiter = self._waiting.get(token)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        """Let nobody wait any more."""
        for waiter in (self._opened, *self._waiting.values()):
            if not waiter.done():
                waiter.set_exception(ConnectionError("the hub ended the connection"))
                waiter.exception()  # nobody may be waiting
