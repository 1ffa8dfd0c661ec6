"""Topics over the hub of this machine: for the workers of a program, without a broker.

The hub numbers and keeps messages, as Redis does: numbers, order and history are the
same for all workers.  It does not know who publishes; that a message of our own did not
come back, because the hub could not wait for this worker, shows here.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ..hub.address import Address
from ..hub.client import HubClient
from ..hub.wire import MAX_CHANNEL, MAX_HEAD
from .backend import Hub, hub_address
from .broker import BrokerBackend, Outgoing, decode, encode
from .errors import BrokerError
from .history import Kept, Position

__all__ = ["LocalBackend", "make"]

MAX_REQUEST = 512 * 1024  # bytes of positions in one request
MAX_REPAIRS = 3  # in a row, while more is lost


class _Names(threading.local):
    """The prefixes in use in a thread: of each event loop, that is."""

    def __init__(self) -> None:
        self.taken: set[int] = set()


_names = _Names()


class LocalBackend(BrokerBackend):
    """Carries messages over a hub.

    Args:
        url: ``local://`` for the hub that the environment names, or its address.
        prefix: What the names of channels begin with: topics that have the same belong
            together.  ``None`` numbers the topics that are started in an event loop:
            the first of each process belong together, and the second, and so on.
        **options: As for :class:`BrokerBackend`.
    """

    keeps = True
    one_source = True
    secure_scheme = ""  # there is no TLS within a machine

    def __init__(
        self, url: str, *, prefix: str | None = "websock", **options: Any
    ) -> None:
        super().__init__(
            "local://localhost", prefix="_" if prefix is None else prefix, **options
        )
        self.url = self.address = "local://"
        self._hub_address: Address | None = None
        if url != "local://":
            self._use(Address.parse(url))
        self._has_prefix = prefix is not None
        self._name: int | None = None  # that is taken
        self._client: HubClient | None = None
        self._repairing: asyncio.Task[None] | None = None
        self._behind: set[str] = set()  # topics of which something was missed
        self._is_behind = False  # in these, or in any
        self._last_sent = 0
        self.missed = 0

    def _use(self, address: Address) -> None:
        # Where it is nobody has to know, and errors of the system say it.
        hidden = [address.url, address.secret, quote(address.secret, safe="")]
        if address.path is None:
            hidden += [
                f"{address.host}:{address.port}",
                str((address.host, address.port)),
            ]
        else:
            hidden += [repr(address.path), address.path]
        self._secrets = [text for text in hidden if text]
        self._hub_address = address

    # -- beginning and ending ----------------------------------------------------------

    async def start(self, hub: Hub) -> None:
        """Connect; see :class:`Backend`."""
        if self._hub_address is None:
            url = hub_address()
            if url is None:
                raise BrokerError(
                    "local:// is for a process with a hub: WEBSOCK_HUB is not set"
                )
            try:
                self._use(Address.parse(url))
            except ValueError as exc:
                raise BrokerError(f"WEBSOCK_HUB is wrong: {exc}") from None
        if not self._has_prefix and self._name is None:
            # They are started in the same order in all workers.
            self._name = next(n for n in itertools.count(1) if n not in _names.taken)
            _names.taken.add(self._name)
            self.prefix = f"_{self._name}"
        try:
            await super().start(hub)
        except BaseException:
            self._give_back_name()
            raise

    async def stop(self) -> None:
        """End; see :class:`Backend`."""
        await super().stop()
        self._give_back_name()

    def _give_back_name(self) -> None:
        if self._name is not None:
            _names.taken.discard(self._name)
            self._name = None

    async def connect(self) -> None:
        """Connect to the hub."""
        assert self._hub_address is not None
        self._client = HubClient(self._hub_address, self._on_publish, self._on_miss)
        await self._client.open()
        # What waits in it is not sent later, when the hub is taken to be away.
        self._lines.append(self._client.transport)

    async def disconnect(self) -> None:
        """Close the connection."""
        repairing, self._repairing = self._repairing, None
        if repairing is not None:
            repairing.cancel()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def _connection(self) -> HubClient:
        if self._client is None:
            raise BrokerError("it is away")
        return self._client

    async def listen(self) -> None:
        """Wait for the end: messages come by callbacks."""
        await self._connection.wait_closed()

    async def probe(self) -> None:
        """Ask for an answer."""
        await self._connection.sync()

    # -- messages ----------------------------------------------------------------------

    def _channel(self, topic: str) -> str:
        return f"{self.prefix}.{topic}"

    def _topic(self, channel: str) -> str:
        return channel[len(self.prefix) + 1 :]

    def _fits(self, topic: str) -> bool:
        """Whether the hub takes a name; longer ones are for this process only."""
        return len(self._channel(topic).encode()) <= MAX_CHANNEL

    async def send(self, batch: list[Outgoing]) -> None:
        """Publish."""
        client = self._connection
        for item in batch:
            # All of them in one step: what is before _last_sent was told the hub.
            self._last_sent = item.id
            size = len(item.message.payload)
            data = encode(self.origin, item)
            if size > client.max_size:
                self.refused(
                    item,
                    BrokerError(
                        f"message is too big: {size} bytes, limit {client.max_size}"
                    ),
                )
            elif not self._fits(item.topic) or len(data) - size > MAX_HEAD:
                self.refused(item, BrokerError("its names are too long"))
            else:
                keep = self.hub.history if size <= self.hub.max_bytes else 0
                client.publish(self._channel(item.topic), keep, data)
        await client.drain()

    def _on_publish(self, channel: str, data: bytes) -> None:
        self.received(self._topic(channel), data)

    async def listen_to(self, patterns: list[str]) -> None:
        """Subscribe, and wait until it is so."""
        client = self._connection
        for pattern in filter(self._fits, patterns):
            client.subscribe(self._channel(pattern))
        await client.sync()

    async def ignore(self, patterns: list[str]) -> None:
        """Unsubscribe."""
        for pattern in filter(self._fits, patterns):
            self._connection.leave(self._channel(pattern))

    # -- what is kept, and what is missed ----------------------------------------------

    async def kept(
        self, pattern: str, last: int | None, since: Mapping[str, Position]
    ) -> list[Kept]:
        """Read what is kept; see :class:`Backend`."""
        if not self.is_connected:
            raise BrokerError(f"the broker at {self.address} is away")
        if not self._fits(pattern):
            return []
        places = {
            self._channel(topic): place
            for topic, place in since.items()
            if self._fits(topic)
        }
        try:
            async with asyncio.timeout(self.timeout):
                found, _ = await self._connection.read(
                    self._channel(pattern), last, places
                )
        except (OSError, TimeoutError) as exc:
            raise BrokerError(self.describe(exc)) from None
        kept = []
        for channel, data in found:
            incoming = decode(data)
            place = Position(incoming.source, incoming.number)
            kept.append(Kept(self._topic(channel), place, incoming.message))
        return kept

    async def catch_up(self) -> None:
        """Find out what was missed while the hub was away."""
        self._take_behind()
        await self._catch_up(self.numbers.tracked())

    async def _catch_up(self, places: Mapping[str, Position]) -> None:
        last = None if self.hub.history else 0
        wanted = {
            self._channel(topic): place
            for topic, place in places.items()
            if self._fits(topic) and self.hub.wanted(topic)
        }
        for part in _parts(wanted):
            found, counts = await self._connection.read("", last, part)
            for channel, data in found:
                # Numbers that are missing in front of it are told there.
                self._take(self._topic(channel), decode(data))
            self.compare({self._topic(name): count for name, count in counts.items()})

    def _on_miss(self, count: int, first: dict[str, Position], has_more: bool) -> None:
        """The hub had more for this process than it could wait with."""
        self.missed += count
        if self._log.allows():
            self.hub.logger.warning(
                "this process was too slow for the hub, and has missed %d messages",
                count,
            )
        for channel, place in first.items():
            topic = self._topic(channel)
            if self.numbers.reached(topic) is None and self.hub.wanted(topic):
                # It is the first of its topic: the gap begins with it.
                self.numbers.note(topic, place.epoch, place.number - 1)
            self._behind.add(topic)
        if has_more:
            self._behind.clear()
        self._is_behind = True
        if not self.is_connected:
            return  # it is catching up anyway, and the rest shows by the numbers
        if self._holding is None:
            self._holding = []
        if self._repairing is None:
            self._repairing = asyncio.get_running_loop().create_task(self._repair())

    async def _repair(self) -> None:
        """Get what was missed, while what comes now is held."""
        try:
            for _ in range(MAX_REPAIRS):
                places = self._take_behind()
                sent = self._last_sent
                async with asyncio.timeout(self.timeout):
                    await self._connection.sync()
                    await self._catch_up(places)
                self._deliver_missed(sent)
                if not self._is_behind:
                    break
            # If there is more still, its numbers tell: holding on would take memory.
            self._take_behind()
            held, self._holding = self._holding or [], None
            for topic, incoming in held:
                self._take(topic, incoming)
        except Exception as exc:
            self._fail(exc)
        finally:
            if self._repairing is asyncio.current_task():
                self._repairing = None

    def _take_behind(self) -> dict[str, Position]:
        """Return what to ask for: topics of which something was missed."""
        topics, self._behind, self._is_behind = self._behind, set(), False
        places = self.numbers.tracked()
        if topics:
            places = {t: places[t] for t in topics if t in places}
        return places

    def _deliver_missed(self, sent: int) -> None:
        """Deliver what this process has published and the hub did not give back.

        Args:
            sent: The last message that was sent before the hub was asked.
        """
        held = {
            incoming.id
            for _, incoming in self._holding or ()
            if incoming.origin == self.origin
        }
        for id in [id for id in self._in_flight if id <= sent and id not in held]:
            item = self._in_flight.pop(id)
            self.hub.deliver(item.topic, item.message, item.key)


def _parts(places: Mapping[str, Position]) -> Iterator[dict[str, Position]]:
    """Cut a request into such that the hub takes."""
    part: dict[str, Position] = {}
    size = 0
    for channel, place in places.items():
        size += len(channel.encode()) + 70
        if part and size > MAX_REQUEST:
            yield part
            part, size = {}, len(channel.encode()) + 70
        part[channel] = place
    if part:
        yield part


def make(url: str, **options: Any) -> LocalBackend:
    """Make the backend of ``local://``."""
    return LocalBackend(url, **options)
