"""Topics over NATS: subjects for what is live; each process keeps what it has seen.

NATS does not number messages, so each process numbers those that it sends, for each
topic: others see by that what did not arrive.  What is kept is kept by each process by
itself, with numbers of its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.errors import MaxPayloadError, NoServersError

from .broker import BrokerBackend, Outgoing, encode
from .errors import BrokerError
from .gaps import MAX_TRACKED

__all__ = ["NatsBackend", "make", "subjects_of"]


def subjects_of(pattern: str) -> list[str]:
    """Return NATS's subjects for a pattern; they match as much, or more."""
    segments = pattern.split(".")
    if "**" not in segments:
        return [pattern]
    # ">" stands for one segment or more, and only at the end.
    place = segments.index("**")
    begin = segments[:place]
    found = [".".join([*begin, ">"])]
    if begin and place == len(segments) - 1:
        found.append(".".join(begin))
    return found


class _Counts:
    """The numbers of the messages that this process sends, by topic."""

    def __init__(self, max_topics: int = MAX_TRACKED) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()
        self._max_topics = max_topics
        self._floor = 0  # above what any topic had that was forgotten

    def next(self, topic: str) -> int:
        number = self._last.get(topic, self._floor) + 1
        self._last[topic] = number
        self._last.move_to_end(topic)
        if len(self._last) > self._max_topics:
            _, last = self._last.popitem(last=False)
            self._floor = max(self._floor, last)
        return number


class _Client(Client):
    """A client that says nothing without TLS, if it is to have it.

    The one of the library does what the server wants, or who is in between. It gets to
    know who we are only when it is about to say so.

    Args:
        is_secure: Whether there has to be TLS.
        credentials: What it says of us.
    """

    def __init__(self, is_secure: bool, credentials: Mapping[str, str]) -> None:
        super().__init__()
        self.is_secure = is_secure
        self.credentials = credentials

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """What it writes to; ``None`` if this version has it elsewhere."""
        transport = getattr(self, "_transport", None)
        return getattr(transport, "_io_writer", None)

    def _connect_command(self) -> bytes:
        if self.is_secure:
            writer = self.writer
            if writer is None or writer.get_extra_info("sslcontext") is None:
                raise BrokerError("it does not speak TLS, as its URL says")
        self.options.update(self.credentials)
        return super()._connect_command()


class NatsBackend(BrokerBackend):
    """Carries messages over NATS.

    Args:
        url: ``nats://``, or ``tls://``.
        **options: As for :class:`BrokerBackend`.
    """

    keeps = False
    one_source = False
    secure_scheme = "tls"

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._client: Any = None
        self._ended: asyncio.Future[None] | None = None
        self._errors: deque[Exception] = deque()
        self._subscriptions: dict[str, Any] = {}  # by subject
        self._counts = _Counts()
        # Outside of what any pattern matches.
        self._mine = f"{self.prefix}-self.{self.origin}"
        self._trips: deque[asyncio.Future[None]] = deque()
        self._credentials = _credentials(url)

    def _subject(self, topic: str) -> str:
        return f"{self.prefix}.{topic}"

    async def connect(self) -> None:
        """Connect."""
        ended = self._ended = asyncio.get_running_loop().create_future()
        self._subscriptions = {}

        async def on_end() -> None:
            if not ended.done():
                ended.set_result(None)

        async def on_error(exc: Exception) -> None:
            # Reconnecting is what is done here; what it says is said with its end.
            errors.append(exc)

        errors: deque[Exception] = deque(maxlen=1)
        self._errors = errors
        self._client = _Client(self.is_secure, self._credentials)
        try:
            await self._client.connect(
                servers=[self.address],
                tls=self.ssl,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # 0 would be for ever
                reconnect_time_wait=0,
                connect_timeout=max(1, round(self.timeout)),
                closed_cb=on_end,
                disconnected_cb=on_end,
                error_cb=on_error,
                pending_size=self.max_pending_bytes,
            )
        except NoServersError as exc:
            raise errors[-1] if errors else exc from None
        self.connected(self._client.writer)
        # It leaves a task behind that fails with the connection; that is known here.
        flusher = getattr(self._client, "_flusher_task", None)
        if flusher is not None:
            flusher.add_done_callback(_see)
        self._trips.clear()
        await self._client.subscribe(self._mine, cb=self._on_trip)

    async def disconnect(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is None:
            return
        # After a failed handshake of TLS it would wait for ever for what has ended.
        limit = None if client.is_connected else 0.2
        async with asyncio.timeout(limit):
            await client.close()

    async def listen(self) -> None:
        """Wait for the end: messages come by callbacks."""
        assert self._ended is not None
        await self._ended
        if self._errors:
            raise self._errors[-1]

    async def _round_trip(self) -> None:
        """Wait until the broker has seen to all that it was told.

        The client's ``flush()`` would not do: its ping overtakes what waits in the
        client.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._trips.append(waiter)
        await self._client.publish(self._mine, b"")
        await waiter

    async def _on_trip(self, message: Any) -> None:
        waiter = self._trips.popleft()
        if not waiter.done():
            waiter.set_result(None)

    async def probe(self) -> None:
        """Have a message of our own come back."""
        await self._round_trip()

    async def send(self, batch: list[Outgoing]) -> None:
        """Publish."""
        for item in batch:
            number = self._counts.next(item.topic)
            data = f"{self.origin} {number} ".encode() + encode(self.origin, item)
            try:
                await self._client.publish(self._subject(item.topic), data)
            except MaxPayloadError as exc:
                self.refused(item, exc)

    async def _on_message(self, message: Any) -> None:
        self.received(message.subject[len(self.prefix) + 1 :], message.data)

    async def listen_to(self, patterns: list[str]) -> None:
        """Subscribe, and wait until it is so."""
        for pattern in patterns:
            for subject in subjects_of(pattern):
                if subject not in self._subscriptions:
                    self._subscriptions[subject] = await self._client.subscribe(
                        self._subject(subject), cb=self._on_message
                    )
        await self._round_trip()

    async def ignore(self, patterns: list[str]) -> None:
        """Unsubscribe."""
        needed = {
            subject for pattern in self._patterns for subject in subjects_of(pattern)
        }
        for pattern in patterns:
            for subject in subjects_of(pattern):
                if subject not in needed and subject in self._subscriptions:
                    await self._subscriptions.pop(subject).unsubscribe()


def _credentials(url: str) -> dict[str, str]:
    """Return what of a URL says who we are; a name alone is a token."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    if parts.password is None:
        return {"token": unquote(parts.username)}
    return {"user": unquote(parts.username), "password": unquote(parts.password)}


def _see(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def make(url: str, **options: Any) -> NatsBackend:
    """Make the backend of ``nats://`` and ``tls://``."""
    return NatsBackend(url, **options)
