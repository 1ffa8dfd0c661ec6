"""Topics over Redis: channels for what is live, streams for what is kept.

A script numbers a message, keeps it and publishes it, in one step of the server: so
numbers, order and history are the same for all processes.  A topic's count and what is
kept of it expire together, a day after the last message; the next count has another
epoch, which is the server's time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import redis.asyncio
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from .broker import BrokerBackend, Outgoing, decode, encode
from .errors import BrokerError
from .history import Kept, Position, select
from .pattern import is_pattern

__all__ = ["RedisBackend", "glob_of", "make"]

MAX_TOPICS = 10_000  # of which kept messages are read for one pattern

# Keys: count, stream, set of topics; then the channel.  It tells by its epoch that the
# count is new; what is kept of the one before goes with it.
SCRIPT = """
local now = redis.call('TIME')
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = string.format('%.0f', now[1] * 1000000 + now[2])
  redis.call('HSET', KEYS[1], 'e', epoch)
  redis.call('DEL', KEYS[2])
end
local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
local head = epoch .. ' ' .. string.format('%.0f', number) .. ' '
redis.call('EXPIRE', KEYS[1], ARGV[4])
if tonumber(ARGV[3]) > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], string.format('%.0f-0', number),
    't', string.format('%.0f', now[1] * 1000000 + now[2]), 'm', head .. ARGV[2])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  redis.call('SADD', KEYS[3], ARGV[5])
end
redis.call('PUBLISH', ARGV[1], head .. ARGV[2])
return number
"""


def glob_of(pattern: str) -> str:
    """Return Redis's pattern for a pattern; it matches as much, or more."""
    found = ""
    for segment in pattern.split("."):
        if segment == "**":
            # With no segment the dot is missing too.
            found = found.removesuffix(".").removesuffix("*") + "*"
        elif segment == "*":
            found += "*."
        else:
            escaped = "".join(f"\\{c}" if c in "?[]^\\-" else c for c in segment)
            dot = "." if found.endswith("*") and found != "*" else ""
            found += f"{dot}{escaped}."
    return found.removesuffix(".")


class RedisBackend(BrokerBackend):
    """Carries messages over Redis.

    Args:
        url: ``redis://``, or ``rediss://`` for TLS.
        expire: Seconds after the last message of a topic in which it is forgotten.
        **options: As for :class:`BrokerBackend`.
    """

    keeps = True
    one_source = True
    secure_scheme = "rediss"

    def __init__(self, url: str, *, expire: int = 86_400, **options: Any) -> None:
        super().__init__(url, **options)
        if expire < 1:
            raise ValueError(f"expire must be at least 1, not {expire}")
        self.expire = expire
        self._client: Any = None
        self._pubsub: Any = None
        self._script = ""
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._pings: deque[asyncio.Future[None]] = deque()

    # -- names -------------------------------------------------------------------------

    def _name(self, kind: str, topic: str = "") -> str:
        return f"{self.prefix}:{kind}:{topic}"

    # -- the connection ----------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, twice: what receives messages can do nothing else."""
        # Old versions of the client would take anybody's certificate.
        secure = {"ssl_check_hostname": True} if self.is_secure else {}
        pool = redis.asyncio.ConnectionPool.from_url(
            self.url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # reconnecting is what is done here
            socket_connect_timeout=self.timeout,
            socket_timeout=None,  # how long to wait is decided here, too
            decode_responses=False,
            redis_connect_func=self._on_connect,
            **secure,
        )
        if self.ssl is not None:
            pool.connection_class = _SecureConnection
            pool.connection_kwargs["context"] = self.ssl
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._script = await self._client.script_load(SCRIPT)
        self._pubsub = self._client.pubsub()
        # Without any subscription nothing can be received.
        await self._pubsub.subscribe(self._name("self", self.origin))

    async def _on_connect(self, connection: Any) -> None:
        self.connected(getattr(connection, "_writer", None))
        await connection.on_connect()

    async def disconnect(self) -> None:
        """Close both connections."""
        waiting, self._waiting = self._waiting, {}
        for waiter in (*waiting.values(), *self._pings):
            if not waiter.done():
                waiter.set_exception(BrokerError("the connection has ended"))
                waiter.exception()  # nobody may be waiting
        self._pings.clear()
        pubsub, self._pubsub = self._pubsub, None
        client, self._client = self._client, None
        if pubsub is not None:
            await pubsub.aclose()
        if client is not None:
            await client.aclose()

    async def listen(self) -> None:
        """Receive."""
        pubsub = self._pubsub
        start = len(self._name("c"))
        while True:
            message = await pubsub.get_message(
                ignore_subscribe_messages=False, timeout=None
            )
            if message is None:
                continue
            kind = message["type"]
            if kind in ("message", "pmessage"):
                name = message["channel"].decode("utf-8", "replace")
                self.received(name[start:], message["data"])
            elif kind == "pong":
                if self._pings:
                    _wake(self._pings.popleft())
            elif kind in ("subscribe", "psubscribe"):
                self._answered(message["channel"])

    def _answered(self, what: bytes) -> None:
        waiter = self._waiting.pop(what, None)
        if waiter is not None:
            _wake(waiter)

    def _expect(self, what: bytes) -> asyncio.Future[None]:
        waiter = self._waiting.get(what)
        if waiter is None or waiter.done():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[what] = waiter
        return waiter

    async def probe(self) -> None:
        """Ask both connections for an answer."""
        await self._client.ping()
        await self._round_trip()

    async def _round_trip(self) -> None:
        """Wait until everything has arrived that was published before."""
        waiter = asyncio.get_running_loop().create_future()
        self._pings.append(waiter)
        await self._pubsub.ping()
        await waiter

    # -- messages ----------------------------------------------------------------------

    async def send(self, batch: list[Outgoing]) -> None:
        """Have messages numbered, kept and published, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        topics = self._name("topics")
        for item in batch:
            topic = item.topic
            size = len(item.message.payload)
            keep = self.hub.history if size <= self.hub.max_bytes else 0
            pipeline.evalsha(
                self._script,
                3,
                self._name("n", topic),
                self._name("s", topic),
                topics,
                self._name("c", topic),
                encode(self.origin, item),
                keep,
                self.expire,
                topic,
            )
        results = await pipeline.execute(raise_on_error=False)
        for item, result in zip(batch, results, strict=True):
            if isinstance(result, NoScriptError):
                raise result  # it was restarted, or told to forget: begin again
            if isinstance(result, Exception):
                self.refused(item, result)

    async def listen_to(self, patterns: list[str]) -> None:
        """Subscribe, and wait for the answers."""
        names = [p for p in patterns if not is_pattern(p)]
        globs = [p for p in patterns if is_pattern(p)]
        waiters = []
        if names:
            channels = [self._name("c", name) for name in names]
            waiters += [self._expect(channel.encode()) for channel in channels]
            await self._pubsub.subscribe(*channels)
        if globs:
            channels = [self._name("c", glob_of(glob)) for glob in globs]
            waiters += [self._expect(channel.encode()) for channel in channels]
            await self._pubsub.psubscribe(*channels)
        for waiter in waiters:
            await waiter

    async def ignore(self, patterns: list[str]) -> None:
        """Unsubscribe."""
        names = [self._name("c", p) for p in patterns if not is_pattern(p)]
        globs = {self._name("c", glob_of(p)) for p in patterns if is_pattern(p)}
        # Different patterns of ours can be the same one of theirs.
        globs -= {self._name("c", glob_of(p)) for p in self._patterns if is_pattern(p)}
        if names:
            await self._pubsub.unsubscribe(*names)
        if globs:
            await self._pubsub.punsubscribe(*globs)

    # -- what is kept ------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Find out by the counts what was missed; take what is kept of it."""
        reached = {
            topic: place
            for topic, place in self.numbers.tracked().items()
            if self.hub.wanted(topic)
        }
        if not reached:
            return
        kept = []
        if self.hub.history:
            kept = await self._read(list(reached), None, reached)
        for _, item, data in kept:
            # Numbers that are missing in front of it are told there.
            self._take(item.topic, decode(data))
        self.compare(await self._counts(list(reached)))

    async def _counts(self, topics: list[str]) -> dict[str, Position | None]:
        pipeline = self._client.pipeline(transaction=False)
        for topic in topics:
            pipeline.hmget(self._name("n", topic), "e", "n")
        return {
            topic: Position(epoch.decode(), int(number)) if epoch and number else None
            for topic, (epoch, number) in zip(
                topics, await pipeline.execute(), strict=True
            )
        }

    async def kept(
        self, pattern: str, last: int | None, since: Mapping[str, Position]
    ) -> list[Kept]:
        """Read what is kept; see :class:`Backend`."""
        if not self.is_connected:
            raise BrokerError(f"the broker at {self.address} is away")
        try:
            async with asyncio.timeout(self.timeout):
                topics = await self._topics(pattern)
                found = await self._read(topics, last, since)
                # Live messages that are older than these are on their way still.
                await self._round_trip()
        except (RedisError, OSError, TimeoutError) as exc:
            raise BrokerError(self.describe(exc)) from None
        found.sort(key=lambda item: item[0])
        return [kept for _, kept, _ in found]

    async def _topics(self, pattern: str) -> list[str]:
        if not is_pattern(pattern):
            return [pattern]
        found: list[str] = []
        async for name in self._client.sscan_iter(
            self._name("topics"), match=glob_of(pattern), count=1000
        ):
            found.append(name.decode("utf-8", "replace"))
            if len(found) >= MAX_TOPICS:
                break
        return select(pattern, found)

    async def _read(
        self, topics: list[str], last: int | None, since: Mapping[str, Position]
    ) -> list[_Stored]:
        """Return what is kept of some topics: when it came, what it is, and as sent."""
        returned = [topic for topic in topics if topic in since]
        counts = await self._counts(returned) if returned else {}
        pipeline = self._client.pipeline(transaction=False)
        for topic in topics:
            stream = self._name("s", topic)
            count, reached = counts.get(topic), since.get(topic)
            if reached is not None:
                is_same = count is not None and count.epoch == reached.epoch
                after = f"({reached.number}-0" if is_same else "-"
                pipeline.xrange(stream, after, "+")
            else:
                pipeline.xrevrange(stream, "+", "-", count=last)
        found: list[_Stored] = []
        gone = []
        for topic, entries in zip(topics, await pipeline.execute(), strict=True):
            if not entries and topic not in since:
                gone.append(topic)
            mine = [_stored(topic, fields) for _, fields in entries]
            found += mine if topic in since else reversed(mine)
        if gone and last != 0:
            await self._forget(gone)
        return found

    async def _forget(self, topics: list[str]) -> None:
        """Take topics off the list whose messages have expired."""
        pipeline = self._client.pipeline(transaction=False)
        for topic in topics:
            pipeline.exists(self._name("s", topic))
        found = zip(topics, await pipeline.execute(), strict=True)
        names = [topic for topic, is_there in found if not is_there]
        if names:
            await self._client.srem(self._name("topics"), *names)


class _SecureConnection(SSLConnection):
    """A connection with a context of the program's own."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Stored(NamedTuple):
    """An entry of a stream."""

    time: int
    kept: Kept
    data: bytes


def _stored(topic: str, fields: Mapping[bytes, bytes]) -> _Stored:
    data = fields[b"m"]
    incoming = decode(data)
    place = Position(incoming.source, incoming.number)
    return _Stored(int(fields[b"t"]), Kept(topic, place, incoming.message), data)


def make(url: str, **options: Any) -> RedisBackend:
    """Make the backend of ``redis://`` and ``rediss://``."""
    return RedisBackend(url, **options)
