"""What backends with a broker have in common: one connection, and what to do without.

While the broker is there, a message goes to it and comes back, also to the process that
published it: so all processes see the messages of a topic in the same order.  While it
is away, messages go to the subscribers of this process at once, and to nobody else;
what was under way when it went is delivered here then.  Nothing is sent later: messages
are about now.

A derived class knows the broker's client library.  It owns no queue: what waits to be
sent is here, and it has a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl as ssl_module
import struct
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import ClassVar, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from ..constants import OP_BINARY, OP_TEXT
from ..log_limit import LogLimit
from ..prepared import PreparedMessage
from .backend import Backend, Hub
from .errors import BrokerError
from .gaps import Gap, Numbers
from .history import Position

__all__ = ["BrokerBackend", "Outgoing", "decode", "encode"]

FIRST_DELAY = 0.05  # seconds before the first attempt to connect again
MAX_DELAY = 10.0
MAX_BATCH = 256  # messages that are sent in one step
MAX_TOLD = 10_000
_LINGER = "HH" if sys.platform == "win32" else "ii"


class Outgoing(NamedTuple):
    """A message on its way to the broker."""

    id: int
    topic: str
    message: PreparedMessage
    key: str | None


class Incoming(NamedTuple):
    """A message from the broker."""

    source: str
    number: int
    origin: str
    id: int
    message: PreparedMessage
    key: str | None


def encode(origin: str, outgoing: Outgoing) -> bytes:
    """Return what goes over the wire, apart from the number in front of it."""
    message = outgoing.message
    kind = "t" if message.opcode == OP_TEXT else "b"
    if not message.compress:
        kind += "n"
    key = "-" if outgoing.key is None else "=" + quote(outgoing.key, safe="")
    return f"{origin} {outgoing.id} {kind} {key}\n".encode() + message.payload


def decode(data: bytes) -> Incoming:
    """Take apart what came over the wire.

    Raises:
        ValueError: When something else has written it.
    """
    line, newline, payload = data.partition(b"\n")
    words = line.decode("ascii").split(" ")
    if not newline or len(words) != 6 or words[4] not in ("t", "b", "tn", "bn"):
        raise ValueError("not a message of ours")
    source, number, origin, name, kind, key = words
    opcode = OP_TEXT if kind[0] == "t" else OP_BINARY
    if opcode == OP_TEXT:
        payload.decode()  # the frame's receiver would fail the connection
    return Incoming(
        source,
        int(number),
        origin,
        int(name),
        PreparedMessage(opcode, payload, "n" not in kind),
        unquote(key[1:]) if key[0] == "=" else None,
    )


class BrokerBackend(Backend):
    """Carries messages over a broker, and goes on within this process without it.

    Args:
        url: URL of the broker.
        timeout: Seconds in which the broker has to answer, or it is taken to be away.
        prefix: What its names begin with, so that several programs can share it.
        max_pending: Messages that may wait to be sent; when there are more, the broker
            is taken to be away.
        max_pending_bytes: Bytes of payload in them.
        ssl: How to speak TLS, where the scheme says so; by default as
            ``ssl.create_default_context()`` does.

    Attributes:
        address: The URL without what must stay secret.
        is_connected: Whether the broker is there.
        unsent: Messages of this process that only its own subscribers got.
    """

    one_source: ClassVar[bool]
    """Whether the broker numbers messages, and not each sender its own."""

    secure_scheme: ClassVar[str]
    """The scheme of URLs that means TLS."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        prefix: str = "websock",
        max_pending: int = 100_000,
        max_pending_bytes: int = 64 * 1024 * 1024,
        ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0, not {timeout}")
        if not prefix or not prefix.isidentifier():
            raise ValueError(f"prefix must be letters, digits and '_', not {prefix!r}")
        self.url = url
        self.timeout = timeout
        self.prefix = prefix
        self.max_pending = max_pending
        self.max_pending_bytes = max_pending_bytes
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            raise ValueError("the URL of the broker has a wrong port") from None
        if not parts.hostname and not parts.path:
            raise ValueError("the URL of the broker has no host")
        host = parts.hostname or ""
        if ":" in host:
            host = f"[{host}]"
        self.address = f"{parts.scheme}://{host}{port}{parts.path}"
        self.is_secure = parts.scheme == self.secure_scheme
        if ssl is not None and not self.is_secure:
            raise ValueError(
                f"ssl is for {self.secure_scheme}://, but the broker is {self.address}"
            )
        self.ssl = ssl
        self._secrets = _secrets(url)
        self.is_connected = False
        self.unsent = 0
        self._unsent_before = 0  # when it went away
        self.origin = os.urandom(8).hex()
        self.hub: Hub
        self._log: LogLimit
        self.numbers = Numbers(self.one_source)
        self._ids = 0
        self._outgoing: deque[Outgoing] = deque()
        self._outgoing_size = 0
        # What was sent for subscribers here, and has not come back yet.
        self._in_flight: OrderedDict[int, Outgoing] = OrderedDict()
        self._told: OrderedDict[int, None] = OrderedDict()  # delivered without
        self._patterns: dict[str, asyncio.Future[None]] = {}
        self._changes: dict[str, bool] = {}
        self._work = asyncio.Event()
        self._sent = asyncio.Event()  # nothing waits
        self._failed: asyncio.Future[None] | None = None
        self._holding: list[tuple[str, Incoming]] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._lines: list[asyncio.WriteTransport] = []

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else "not connected"
        return f"<{type(self).__name__} {self.address}, {state}>"

    # -- what derived classes do -------------------------------------------------------

    async def connect(self) -> None:
        """Connect to the broker."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """Give the connection up, whatever state it is in."""
        raise NotImplementedError

    async def listen(self) -> None:
        """Receive, and hand over what comes by ``received()``, until it fails."""
        raise NotImplementedError

    async def probe(self) -> None:
        """Find out whether the broker still answers."""
        raise NotImplementedError

    async def send(self, batch: list[Outgoing]) -> None:
        """Send messages; call ``refused()`` for those that the broker does not take."""
        raise NotImplementedError

    async def listen_to(self, patterns: list[str]) -> None:
        """Subscribe, and wait until it is so."""
        raise NotImplementedError

    async def ignore(self, patterns: list[str]) -> None:
        """Undo ``listen_to()``."""
        raise NotImplementedError

    async def catch_up(self) -> None:
        """Find out what was missed; messages that come meanwhile are held."""

    def connected(self, writer: asyncio.StreamWriter | None) -> None:
        """Take note of a connection: derived classes tell of each that they make.

        What waits in it must not be sent when it is given up: with a link that is dead
        for a while the system would do so, minutes later.

        Args:
            writer: Its writer; ``None`` where the client library does not show it.
        """
        if writer is not None:
            self._lines = [line for line in self._lines if not _is_over(line)]
            self._lines.append(writer.transport)
            _linger(writer.transport, False)

    # -- beginning and ending ----------------------------------------------------------

    async def start(self, hub: Hub) -> None:
        """Connect; see :class:`Backend`."""
        self.hub = hub
        self._log = LogLimit(hub.logger, about="topics")
        self._work, self._sent = asyncio.Event(), asyncio.Event()
        self._sent.set()
        try:
            async with asyncio.timeout(self.timeout):
                await self._open()
        except BaseException as exc:
            await self._close()
            if isinstance(exc, Exception):
                # Without its cause, whose text may have more than it should.
                raise BrokerError(
                    f"cannot reach the broker at {self.address}: {self.describe(exc)}"
                ) from None
            raise
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Send what waits, and end; see :class:`Backend`."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(min(self.timeout, 1.0)):
                await self._sent.wait()
        except TimeoutError:
            pass
        await _end(self._task, 1.0)  # which ends others meanwhile
        self._task = None
        await self._close()
        self._be_away()
        self._in_flight.clear()

    async def _open(self) -> None:
        """Connect, subscribe to all, and be there."""
        await self.connect()
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        self._holding = []
        self._listening = loop.create_task(self.listen())
        self._changes.clear()
        opening = loop.create_task(self._prepare())
        try:
            await asyncio.wait(
                [opening, self._listening], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await _end(opening)
        if opening.cancelled():
            self._listening.result()
            raise BrokerError("it ended the connection")
        opening.result()
        self.is_connected = True
        held, self._holding = self._holding, None
        for topic, incoming in held:
            self._take(topic, incoming)
        if self._changes or self._outgoing:
            self._work.set()

    async def _prepare(self) -> None:
        patterns = list(self._patterns)
        if patterns:
            await self.listen_to(patterns)
        for pattern in patterns:
            self._confirmed(pattern)
        await self.catch_up()

    async def _close(self, *, is_lost: bool = False) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            if is_lost:
                line.abort()
            else:
                _linger(line, True)
        if self._listening is not None:
            await _end(self._listening)
            self._listening = None
        try:
            async with asyncio.timeout(self.timeout):
                await self.disconnect()
        except Exception:
            pass  # it is gone one way or the other
        # With TLS it may wait for an answer yet, and the client library may have made
        # another one meanwhile.
        for line in (*lines, *self._lines):
            line.abort()
        self._lines.clear()

    async def _run(self) -> None:
        """Hold the connection; make it again when it is lost."""
        while True:
            reason = await self._hold()
            away_since = monotonic()
            self._be_away()
            self.hub.logger.warning(
                "lost the broker at %s: %s; topics go on within this process",
                self.address,
                self.describe(reason),
            )
            await self._close(is_lost=True)
            for delay in _delays():
                await asyncio.sleep(delay)
                try:
                    async with asyncio.timeout(self.timeout):
                        await self._open()
                    break
                except Exception as exc:
                    self.hub.logger.debug(
                        "the broker at %s is still away: %s",
                        self.address,
                        self.describe(exc),
                    )
                    await self._close(is_lost=True)
            self.hub.logger.warning(
                "the broker at %s is back after %.1f s; "
                "%d messages reached this process only",
                self.address,
                monotonic() - away_since,
                self.unsent - self._unsent_before,
            )

    async def _hold(self) -> BaseException:
        """Work until something fails; return what."""
        assert self._listening is not None
        assert self._failed is not None
        loop = asyncio.get_running_loop()
        mine = [loop.create_task(self._write()), loop.create_task(self._watch())]
        waits: list[asyncio.Future[None]] = [self._listening, self._failed, *mine]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in mine:
                await _end(task)
        for item in done:
            exc = item.exception() if not item.cancelled() else None
            if exc is not None:
                return exc
        return BrokerError("it ended the connection")

    def _be_away(self) -> None:
        """Deliver here what is under way: it may never come back."""
        if self.is_connected:
            self._unsent_before = self.unsent
        self.is_connected = False
        self._changes.clear()
        self._holding = None
        for pattern in self._patterns:
            self._confirmed(pattern)
        under_way = [*self._in_flight.values(), *self._outgoing]
        for id in self._in_flight:
            self._told[id] = None
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        self.unsent += len(self._outgoing)
        self._in_flight.clear()
        self._outgoing.clear()
        self._outgoing_size = 0
        self._sent.set()
        for item in under_way:
            self.hub.deliver(item.topic, item.message, item.key)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.timeout / 2)
            async with asyncio.timeout(self.timeout):
                await self.probe()

    def describe(self, exc: BaseException) -> str:
        """Say what went wrong, without what must stay secret."""
        if isinstance(exc, TimeoutError) and not str(exc):
            return f"no answer within {self.timeout:g} s"
        refused = _certificate_error(exc)
        if refused is not None:
            text = f"its certificate is refused: {refused.verify_message}"
        elif str(exc):
            text = f"{type(exc).__name__}: {exc}"
        else:
            text = type(exc).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    # -- publishing --------------------------------------------------------------------

    def publish(
        self, topic: str, message: PreparedMessage, key: str | None
    ) -> Position | None:
        """Send a message; see :class:`Backend`."""
        if self.is_connected:
            size = self._outgoing_size + len(message.payload)
            if (
                len(self._outgoing) < self.max_pending
                and size <= self.max_pending_bytes
            ):
                self._ids += 1
                self._outgoing.append(Outgoing(self._ids, topic, message, key))
                self._outgoing_size = size
                self._work.set()
                self._sent.clear()
                return None
            self._fail(
                BrokerError(
                    f"too much waits to be sent: {len(self._outgoing)} messages, "
                    f"{self._outgoing_size} bytes"
                )
            )
        self.unsent += 1
        return self.hub.deliver(topic, message, key)

    def _fail(self, exc: Exception) -> None:
        """Be away from now on."""
        self._be_away()
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(exc)

    def _be_late(self) -> None:
        self._fail(TimeoutError())

    def refused(self, outgoing: Outgoing, exc: BaseException) -> None:
        """The broker does not take a message: deliver it here."""
        self._in_flight.pop(outgoing.id, None)
        self.unsent += 1
        if self._log.allows():
            self.hub.logger.error(
                "the broker at %s refused a message of %d bytes: %s",
                self.address,
                len(outgoing.message.payload),
                self.describe(exc),
            )
        self.hub.deliver(outgoing.topic, outgoing.message, outgoing.key)

    async def _write(self) -> None:
        """Tell the broker what changes and what is published, in that order."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            while self._changes or self._outgoing:
                # A third of what asyncio.timeout() costs, and it may be every message.
                limit = loop.call_later(self.timeout, self._be_late)
                try:
                    if self._changes:
                        await self._tell_changes()
                    else:
                        await self.send(self._take_batch())
                finally:
                    limit.cancel()
            self._sent.set()

    async def _tell_changes(self) -> None:
        changes, self._changes = self._changes, {}
        wanted = [pattern for pattern, is_wanted in changes.items() if is_wanted]
        others = [pattern for pattern, is_wanted in changes.items() if not is_wanted]
        if others:
            await self.ignore(others)
        if wanted:
            await self.listen_to(wanted)
        for pattern in wanted:
            self._confirmed(pattern)

    def _take_batch(self) -> list[Outgoing]:
        batch: list[Outgoing] = []
        while self._outgoing and len(batch) < MAX_BATCH:
            item = self._outgoing.popleft()
            self._outgoing_size -= len(item.message.payload)
            batch.append(item)
            if self.hub.wanted(item.topic):
                self._in_flight[item.id] = item
        return batch

    # -- receiving ---------------------------------------------------------------------

    def received(self, topic: str, data: bytes) -> None:
        """Take a message from the broker."""
        try:
            incoming = decode(data)
        except (ValueError, IndexError):
            if self._log.allows():
                self.hub.logger.warning(
                    "ignored %d bytes from the broker at %s: not a message of ours",
                    len(data),
                    self.address,
                )
            return
        if self._holding is not None:
            self._holding.append((topic, incoming))
            return
        try:
            self._take(topic, incoming)
        except Exception:
            # Client libraries would drop it in silence, or the connection.
            self.hub.logger.exception("cannot deliver a message of %r", topic)

    def _take(self, topic: str, incoming: Incoming) -> None:
        if not self.hub.wanted(topic):
            return  # its name is only like those that were asked for
        gap = self.numbers.note(topic, incoming.source, incoming.number)
        if gap is False:
            return  # it came by another pattern
        # What this process has sent itself was delivered here when it was lost.
        if isinstance(gap, Gap) and incoming.source != self.origin:
            self.tell(gap)
        message, key = incoming.message, incoming.key
        if incoming.origin == self.origin:
            if incoming.id in self._told:
                return
            mine = self._in_flight.pop(incoming.id, None)
            if mine is not None:
                message = mine.message  # its frame may have been built already
        place = Position(incoming.source, incoming.number) if self.keeps else None
        self.hub.deliver(topic, message, key, place)

    def tell(self, gap: Gap) -> None:
        """Tell the program that messages did not arrive."""
        if self._log.allows():
            self.hub.logger.warning("messages did not arrive here: %s", gap)
        self.hub.lost(gap)

    def compare(self, counts: Mapping[str, Position | None]) -> None:
        """Tell what is missing up to the last positions, by the broker's count."""
        for topic, count in counts.items():
            before = self.numbers.reached(topic)
            if count is None or before is None:
                continue
            if before.epoch == count.epoch and before.number >= count.number:
                continue
            self.numbers.note(topic, *count)
            if before.epoch == count.epoch:
                self.tell(Gap(topic, count.epoch, before.number + 1, count.number))
            else:
                self.tell(Gap(topic, before.epoch, before.number + 1, None))

    # -- subscribing -------------------------------------------------------------------

    def subscribe(self, pattern: str) -> None:
        """Subscribe; see :class:`Backend`."""
        self._patterns[pattern] = asyncio.get_running_loop().create_future()
        if self.is_connected or self._holding is not None:
            self._change(pattern, True)
        else:
            self._confirmed(pattern)  # nothing comes anyway

    def unsubscribe(self, pattern: str) -> None:
        """Unsubscribe; see :class:`Backend`."""
        self._confirmed(pattern)
        del self._patterns[pattern]
        if self.is_connected or self._holding is not None:
            self._change(pattern, False)
        self.numbers.forget(pattern, self.hub.wanted)
        for id, item in list(self._in_flight.items()):
            if not self.hub.wanted(item.topic):
                del self._in_flight[id]

    def _change(self, pattern: str, is_wanted: bool) -> None:
        # Out and in again in one step is told as such: it may be new to the broker.
        self._changes.pop(pattern, None)
        self._changes[pattern] = is_wanted
        self._work.set()

    def _confirmed(self, pattern: str) -> None:
        waiter = self._patterns.get(pattern)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def confirm(self, pattern: str) -> None:
        """Wait until the broker knows; see :class:`Backend`."""
        waiter = self._patterns.get(pattern)
        if waiter is not None:
            await asyncio.shield(waiter)


async def _end(task: asyncio.Task[None], every: float = 0.05) -> None:
    """Cancel a task, as often as it takes: client libraries catch too much."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=every)
    if not task.cancelled():
        task.exception()  # is seen to elsewhere, or is of no interest any more


def _delays() -> Iterator[float]:
    """Yield seconds between attempts, for ever: differently in each process."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1)
        delay = min(delay * 2, MAX_DELAY)


def _is_over(line: asyncio.WriteTransport) -> bool:
    sock = line.get_extra_info("socket")
    return sock is None or sock.fileno() < 0


def _linger(line: asyncio.WriteTransport, is_sent: bool) -> None:
    """Say whether what waits in a connection is still sent when it is closed."""
    sock = line.get_extra_info("socket")
    option = struct.pack(_LINGER, 0 if is_sent else 1, 0)
    if sock is None:
        return  # it is closed already
    with contextlib.suppress(OSError):  # likewise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


def _certificate_error(
    exc: BaseException | None,
) -> ssl_module.SSLCertVerificationError | None:
    """Return what an exception comes from, if that is a certificate."""
    while exc is not None and not isinstance(exc, ssl_module.SSLCertVerificationError):
        exc = exc.__cause__ or exc.__context__
    return exc


def _secrets(url: str) -> list[str]:
    """Return what of a URL must not be shown, the longest first."""
    parts = urlsplit(url)
    found: set[str] = set()
    user, at, _ = parts.netloc.rpartition("@")
    if at:
        found.update(_forms((user, *user.split(":", 1))))
    for pair in parts.query.split("&"):
        found.update(_forms(pair.split("=", 1)[1:]))
    found.add(url)
    return sorted((text for text in found if text), key=len, reverse=True)


def _forms(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        yield from (text, unquote(text))
