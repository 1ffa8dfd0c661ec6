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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import redis.asyncio
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from .broker import BrokerBackend, Outgoing, decode, encode
from .errors import BrokerError
from .history import Kept, Position, select
from .pattern import is_pattern

__all__ = ["RedisBackend", "glob_of", "make"]

MAX_TOPICS = 10_000  # of which kept messages are read for one pattern
MAX_HEADS = 10_000  # commands that are remembered

T = TypeVar("T")

# Keys: count, stream, set of topics; then channel, topic, messages to keep, seconds to
# keep them, and the message.  It tells by its epoch that the count is new; what is kept
# of the one before goes with it.
SCRIPT = """
local function time()
  local now = redis.call('TIME')
  return string.format('%.0f', now[1] * 1000000 + now[2])
end
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = time()
  redis.call('HSET', KEYS[1], 'e', epoch)
  redis.call('DEL', KEYS[2])
end
local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
local head = epoch .. ' ' .. string.format('%.0f', number) .. ' '
redis.call('EXPIRE', KEYS[1], ARGV[4])
if tonumber(ARGV[3]) > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], string.format('%.0f-0', number),
    't', time(), 'm', head .. ARGV[5])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  redis.call('SADD', KEYS[3], ARGV[2])
end
redis.call('PUBLISH', ARGV[1], head .. ARGV[5])
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
        self._receiving: Any = None
        self._sending: _Line | None = None
        self._reading: _Line | None = None
        self._script = b""
        self._heads: dict[tuple[str, int], bytes] = {}
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._pings: deque[asyncio.Future[None]] = deque()

    # -- names -------------------------------------------------------------------------

    def _name(self, kind: str, topic: str = "") -> str:
        return f"{self.prefix}:{kind}:{topic}"

    # -- the connection ----------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, twice: what receives messages can do nothing else.

        A third connection is made when what is kept is read: what is published must
        not wait for that.  None has a client of the library around it: with one, a
        message costs more than twice as much.
        """
        options: dict[str, Any] = {
            # Old versions of the client would take anybody's certificate.
            **({"ssl_check_hostname": True} if self.is_secure else {}),
            "socket_connect_timeout": self.timeout,
            **parse_url(self.url),
            "protocol": 2,
            "decode_responses": False,
            "socket_timeout": None,  # how long to wait is decided here
            "retry": Retry(NoBackoff(), 0),  # and so is reconnecting
            "redis_connect_func": self._on_connect,
        }
        if self.ssl is not None:
            options |= {"connection_class": _SecureConnection, "context": self.ssl}
        pool = redis.asyncio.ConnectionPool(**options)
        self._receiving, self._sending, self._reading = (
            pool.make_connection(),  # type: ignore[no-untyped-call]
            _Line(pool.make_connection()),  # type: ignore[no-untyped-call]
            _Line(pool.make_connection()),  # type: ignore[no-untyped-call]
        )
        [self._script] = await self._sending.ask(("SCRIPT", "LOAD", SCRIPT))
        self._heads.clear()
        await self._receiving.connect()
        # Without any subscription nothing can be received.
        await self._tell("SUBSCRIBE", self._name("self", self.origin))

    async def _on_connect(self, connection: Any) -> None:
        self.connected(getattr(connection, "_writer", None))
        await connection.on_connect()

    async def disconnect(self) -> None:
        """Close all connections."""
        waiting, self._waiting = self._waiting, {}
        for waiter in (*waiting.values(), *self._pings):
            if not waiter.done():
                waiter.set_exception(BrokerError("the connection has ended"))
                waiter.exception()  # nobody may be waiting
        self._pings.clear()
        receiving, self._receiving = self._receiving, None
        lines = (self._sending, self._reading)
        self._sending = self._reading = None
        if receiving is not None:
            await receiving.disconnect(nowait=True)
        for line in lines:
            if line is not None:
                await line.close()

    async def _tell(self, *words: str) -> None:
        """Send a command that is answered among the messages."""
        await _there(self._receiving).send_command(*words, check_health=False)

    async def listen(self) -> None:
        """Receive."""
        read = self._receiving.read_response
        start = len(self._name("c"))
        while True:
            kind, *words = await read()
            if kind in (b"message", b"pmessage"):
                *_, channel, data = words
                self.received(channel.decode("utf-8", "replace")[start:], data)
            elif kind == b"pong":
                if self._pings:
                    _wake(self._pings.popleft())
            elif kind in (b"subscribe", b"psubscribe"):
                self._answered(words[0])

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
        """Ask both connections for an answer; give up a third that nobody uses."""
        await _there(self._sending).ask(("PING",))
        await _there(self._reading).rest()
        await self._round_trip()

    async def _round_trip(self) -> None:
        """Wait until everything has arrived that was published before."""
        waiter = asyncio.get_running_loop().create_future()
        self._pings.append(waiter)
        await self._tell("PING")
        await waiter

    # -- messages ----------------------------------------------------------------------

    async def send(self, batch: list[Outgoing]) -> None:
        """Have messages numbered, kept and published, in one round trip."""
        parts = []
        for item in batch:
            size = len(item.message.payload)
            keep = self.hub.history if size <= self.hub.max_bytes else 0
            data = encode(self.origin, item)
            parts.append(
                b"%b$%d\r\n%b\r\n" % (self._head(item.topic, keep), len(data), data)
            )
        results = await _there(self._sending).send(parts, len(batch))
        for item, result in zip(batch, results, strict=True):
            if isinstance(result, NoScriptError):
                raise result  # it was restarted, or told to forget: begin again
            if isinstance(result, Exception):
                self.refused(item, result)

    def _head(self, topic: str, keep: int) -> bytes:
        """Return the command that publishes to a topic, without its last word."""
        head = self._heads.get((topic, keep))
        if head is None:
            keys = [self._name(kind, topic) for kind in "ns"] + [self._name("topics")]
            channel = self._name("c", topic)
            words = (self._script, 3, *keys, channel, topic, keep, self.expire, b"")
            head = _there(self._sending).pack("EVALSHA", *words)
            head = head.removesuffix(b"$0\r\n\r\n")
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[topic, keep] = head
        return head

    async def listen_to(self, patterns: list[str]) -> None:
        """Subscribe, and wait for the answers."""
        names = [p for p in patterns if not is_pattern(p)]
        globs = [p for p in patterns if is_pattern(p)]
        waiters = []
        if names:
            channels = [self._name("c", name) for name in names]
            waiters += [self._expect(channel.encode()) for channel in channels]
            await self._tell("SUBSCRIBE", *channels)
        if globs:
            channels = [self._name("c", glob_of(glob)) for glob in globs]
            waiters += [self._expect(channel.encode()) for channel in channels]
            await self._tell("PSUBSCRIBE", *channels)
        for waiter in waiters:
            await waiter

    async def ignore(self, patterns: list[str]) -> None:
        """Unsubscribe."""
        names = [self._name("c", p) for p in patterns if not is_pattern(p)]
        globs = {self._name("c", glob_of(p)) for p in patterns if is_pattern(p)}
        # Different patterns of ours can be the same one of theirs.
        globs -= {self._name("c", glob_of(p)) for p in self._patterns if is_pattern(p)}
        if names:
            await self._tell("UNSUBSCRIBE", *names)
        if globs:
            await self._tell("PUNSUBSCRIBE", *globs)

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
        found = await self._look(
            ("HMGET", self._name("n", t), "e", "n") for t in topics
        )
        return {
            topic: Position(epoch.decode(), int(number)) if epoch and number else None
            for topic, (epoch, number) in zip(topics, found, strict=True)
        }

    async def _look(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Return what commands find."""
        return await _there(self._reading).ask(*commands)

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
        command = ("SSCAN", self._name("topics"))
        options = ("MATCH", glob_of(pattern), "COUNT", 1000)
        cursor = b"0"
        while len(found) < MAX_TOPICS:
            [(cursor, names)] = await self._look([(*command, cursor, *options)])
            found += [name.decode("utf-8", "replace") for name in names]
            if cursor == b"0":
                break
        del found[MAX_TOPICS:]
        return select(pattern, found)

    async def _read(
        self, topics: list[str], last: int | None, since: Mapping[str, Position]
    ) -> list[_Stored]:
        """Return what is kept of some topics: when it came, what it is, and as sent."""
        returned = [topic for topic in topics if topic in since]
        counts = await self._counts(returned) if returned else {}
        commands: list[tuple[Any, ...]] = []
        for topic in topics:
            stream = self._name("s", topic)
            count, reached = counts.get(topic), since.get(topic)
            if reached is not None:
                is_same = count is not None and count.epoch == reached.epoch
                after = f"({reached.number}-0" if is_same else "-"
                commands.append(("XRANGE", stream, after, "+"))
            else:
                limit = () if last is None else ("COUNT", last)
                commands.append(("XREVRANGE", stream, "+", "-", *limit))
        found: list[_Stored] = []
        gone = []
        for topic, entries in zip(topics, await self._look(commands), strict=True):
            if not entries and topic not in since:
                gone.append(topic)
            mine = [_stored(topic, fields) for _, fields in entries]
            found += mine if topic in since else reversed(mine)
        if gone and last != 0:
            await self._forget(gone)
        return found

    async def _forget(self, topics: list[str]) -> None:
        """Take topics off the list whose messages have expired."""
        found = await self._look(("EXISTS", self._name("s", topic)) for topic in topics)
        names = [
            topic for topic, number in zip(topics, found, strict=True) if not number
        ]
        if names:
            await self._look([("SREM", self._name("topics"), *names)])


class _Line:
    """A connection that is asked by one after the other, and made when it is needed.

    Who is interrupted takes it along: his answers would be taken for those of others.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    def pack(self, *words: object) -> bytes:
        """Return a command as it is sent."""
        return b"".join(self._connection.pack_command(*words))

    async def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Return what is answered to commands.

        Raises:
            ResponseError: When that is an error.
        """
        if not commands:
            return []
        packed = self._connection.pack_commands(commands)
        found = await self.send(packed, len(commands))
        for answer in found:
            if isinstance(answer, ResponseError):
                raise answer
        return found

    async def send(self, packed: list[bytes], count: int) -> list[Any]:
        """Return what is answered to as many commands, errors as exceptions."""
        connection = self._connection
        found = []
        async with self._turn:
            await connection.send_packed_command(packed, check_health=False)
            for _ in range(count):
                try:
                    found.append(await connection.read_response())
                except ResponseError as exc:
                    found.append(exc)
        return found

    async def rest(self) -> None:
        """Give the connection up, if nobody waits for an answer."""
        if not self._turn.locked():
            await self.close()

    async def close(self) -> None:
        """Give the connection up."""
        await self._connection.disconnect(nowait=True)


class _SecureConnection(SSLConnection):
    """A connection with a context of the program's own."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


def _there(connection: T | None) -> T:
    if connection is None:
        raise BrokerError("it is away")
    return connection


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Stored(NamedTuple):
    """An entry of a stream."""

    time: int
    kept: Kept
    data: bytes


def _stored(topic: str, fields: Sequence[bytes]) -> _Stored:
    _, time, _, data = fields  # in the order of the script
    incoming = decode(data)
    place = Position(incoming.source, incoming.number)
    return _Stored(int(time), Kept(topic, place, incoming.message), data)


def make(url: str, **options: Any) -> RedisBackend:
    """Make the backend of ``redis://`` and ``rediss://``."""
    return RedisBackend(url, **options)
