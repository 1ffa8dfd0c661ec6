"""Who has subscribed to what, and the delivery of what is published.

:class:`Topics` belongs to one event loop.  Subscribers with the same pattern are a
group, which gives the broadcast of the core a tuple that is made once; a frame is built
once for each message, and leaves at the end of the loop's turn together with what else
is published in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from .._stream import publish
from ..asyncio.connection import Connection
from ..prepared import PreparedMessage, prepare
from ..typing import DataLike, LoggerLike
from .backend import Backend, Hub, default_backend, make_backend
from .errors import BrokerError, TopicLimitError
from .gaps import Gap
from .history import History, Kept, Position, Since, envelope, positions
from .memory import MemoryBackend
from .pattern import MAX_LENGTH, PatternTree, check_pattern, check_topic, is_pattern

if TYPE_CHECKING:
    from ..asyncio.incoming import ServerConnection

__all__ = ["Subscription", "Topics"]

MAX_ROUTES = 4096  # topics whose groups are remembered
MAX_HELD = 1000  # messages that wait until kept ones have come


class Subscription:
    """That a connection has subscribed to a pattern.

    Awaiting it waits until messages come for sure, and those that are kept were sent:
    with a broker that takes a moment, in memory none.

    Attributes:
        ws: Connection.
        pattern: Pattern.
        numbered: Whether its messages say topic and position.
    """

    __slots__ = ("_joining", "held", "numbered", "pattern", "ws")

    def __init__(self, ws: ServerConnection, pattern: str, numbered: bool) -> None:
        self.ws = ws
        self.pattern = pattern
        self.numbered = numbered
        # Messages that came before those that are kept, while these are fetched.
        self.held: deque[tuple[Kept, str | None]] | None = None
        self._joining: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Subscription {self.pattern!r} of {self.ws!r}>"

    def __await__(self) -> Generator[Any, None, Subscription]:
        if self._joining is not None:
            yield from asyncio.wait([self._joining]).__await__()
        return self


class _Group:
    """The subscriptions to one pattern."""

    __slots__ = ("_numbered", "_plain", "members", "pattern", "waiting")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.members: dict[ServerConnection, Subscription] = {}
        self.waiting = 0  # for kept messages
        self._plain: tuple[ServerConnection, ...] | None = None
        self._numbered: tuple[ServerConnection, ...] = ()

    def changed(self) -> None:
        self._plain = None

    def receivers(self) -> tuple[tuple[ServerConnection, ...], ...]:
        """Return who gets messages as they are, and who with an envelope."""
        if self._plain is None:
            ready = [s for s in self.members.values() if s.held is None]
            self._plain = tuple(s.ws for s in ready if not s.numbered)
            self._numbered = tuple(s.ws for s in ready if s.numbered)
        return self._plain, self._numbered


class Topics:
    """The topics of one process: subscribe, publish, who is there, what was said.

    Give it to ``serve(topics=...)``, to several servers if you like; they start and
    stop it.

    Args:
        backend: URL of what carries messages between processes: ``"memory://"`` for
            nothing, ``"local://"`` for the hub of this machine's workers,
            ``"redis://..."``, ``"nats://..."``; or a :class:`Backend`.  By default it
            is the hub in a process that has one, by the environment variable
            ``WEBSOCK_HUB``, and else nothing.
        history: Messages of each topic to keep for those who come late.
        history_bytes: Bytes of messages to keep of all topics together, and with a
            broker of a message above which it is not kept.
        max_subscriptions: Subscriptions of a connection at most.
        max_topics: Different topics that can be subscribed to at once in this process.
        max_patterns: Different patterns with ``*`` or ``**`` likewise: each of them
            makes publishing slower.
        max_length: Bytes in UTF-8 of a topic or a pattern at most.
        on_gap: Called with a :class:`Gap` when messages did not arrive from the broker.
        logger: Logger; by default ``websock.topics``.
        **options: Options of the backend.

    Raises:
        BrokerError: When a package that the backend needs is not installed.
        TypeError: When an argument is of a wrong type.
        ValueError: When an argument has a wrong value.
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        history: int = 0,
        history_bytes: int = 16 * 1024 * 1024,
        max_subscriptions: int = 100,
        max_topics: int = 100_000,
        max_patterns: int = 10_000,
        max_length: int = MAX_LENGTH,
        on_gap: Callable[[Gap], object] | None = None,
        logger: LoggerLike | None = None,
        **options: Any,
    ) -> None:
        for name, value, least in (
            ("history", history, 0),
            ("history_bytes", history_bytes, 0),
            ("max_subscriptions", max_subscriptions, 1),
            ("max_topics", max_topics, 1),
            ("max_patterns", max_patterns, 0),
            ("max_length", max_length, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if backend is None:
            backend = default_backend(**options)
        elif isinstance(backend, str):
            backend = make_backend(backend, **options)
        elif not isinstance(backend, Backend):
            raise TypeError(
                f"backend must be a URL or a Backend, not {type(backend).__name__}"
            )
        elif options:
            raise TypeError("options are for a backend that is given by its URL")
        self.backend = backend
        self.max_subscriptions = max_subscriptions
        self.max_topics = max_topics
        self.max_patterns = max_patterns
        self.max_length = max_length
        self.on_gap = on_gap
        self.logger: LoggerLike = logger or logging.getLogger("websock.topics")
        self._hub = Hub(
            self._deliver,
            lambda topic: bool(self._groups_of(topic)),
            self._lost,
            history,
            history_bytes,
            self.logger,
        )
        # What the backend keeps need not be kept here too.
        self._history = History(0 if backend.keeps else history, history_bytes)
        self._exact: dict[str, _Group] = {}
        self._patterns: dict[str, _Group] = {}
        self._tree: PatternTree[_Group] = PatternTree()
        self._routes: dict[str, list[_Group]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._users = 0
        self._started: asyncio.Task[None] | None = None

    # -- beginning and ending ----------------------------------------------------------

    async def start(self) -> None:
        """Begin, in the running loop; servers do it.

        Raises:
            BrokerError: When the broker cannot be reached.
            RuntimeError: When it was started in another loop.
        """
        loop = asyncio.get_running_loop()
        if self._bind(loop):
            self._started = loop.create_task(self.backend.start(self._hub))
        self._users += 1
        started = self._started
        assert started is not None
        try:
            # Another server may be waiting for the same.
            await asyncio.shield(started)
        except BaseException:
            self._users -= 1
            if not self._users:
                started.cancel()
                self._loop = None
            raise

    def start_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin in a loop, as far as there is nothing to wait for."""
        if isinstance(self.backend, MemoryBackend) and self._bind(loop):
            self.backend.begin(self._hub)

    def _bind(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._loop is not None and self._users:
            if self._loop is not loop:
                raise RuntimeError("topics were started in another event loop")
            return False
        self._loop = loop
        self._thread = get_ident()
        return True

    async def stop(self) -> None:
        """End, once as many have called it as have called ``start()``."""
        if not self._users:
            return
        self._users -= 1
        if not self._users:
            await self.backend.stop()

    # -- subscribing -------------------------------------------------------------------

    def subscribe(
        self,
        ws: ServerConnection,
        pattern: str,
        *,
        numbered: bool = False,
        last: int | None = None,
        since: Since | None = None,
    ) -> Subscription:
        """Have a connection get what is published; see ``ServerConnection.subscribe``.

        Raises:
            ConnectionClosed: When the connection is closed.
            RuntimeError: When it is not open yet, or this is another thread.
            TopicLimitError: When there are too many subscriptions.
            TypeError: When it is something else than a connection.
            ValueError: When the pattern breaks a rule, or ``last`` or ``since`` is
                malformed.
        """
        loop = self._check_thread("subscribe")
        if not isinstance(ws, Connection):
            raise TypeError(f"not a connection: {type(ws).__name__}")
        check_pattern(pattern, self.max_length)
        reached = positions(pattern, since)
        if last is not None and last < 0:
            raise ValueError(f"last must not be negative: {last}")
        if not ws.is_open:
            if not ws.was_opened:
                raise RuntimeError("cannot subscribe: the connection is not open yet")
            raise ws.closed_error()
        mine = ws.subscriptions
        if mine is None:
            mine = ws.subscriptions = {}
        if pattern not in mine and len(mine) >= self.max_subscriptions:
            raise TopicLimitError(
                f"too many subscriptions: {len(mine) + 1}, "
                f"limit {self.max_subscriptions} for a connection"
            )
        group = self._group(pattern)
        if pattern in mine:
            self._end_join(mine[pattern], group)
        subscription = Subscription(ws, pattern, numbered)
        mine[pattern] = group.members[ws] = subscription
        wants_kept = bool(last) or since is not None
        if not isinstance(self.backend, MemoryBackend):
            if wants_kept and self.backend.keeps:
                subscription.held = deque(maxlen=MAX_HELD)
                group.waiting += 1
            subscription._joining = loop.create_task(
                self._join(subscription, group, last, reached)
            )
        group.changed()
        if wants_kept and not self.backend.keeps:
            self._send_kept(subscription, self._history.read(pattern, last, reached))
        return subscription

    def unsubscribe(self, ws: ServerConnection, pattern: str) -> bool:
        """Undo ``subscribe()``; return whether there was something to undo.

        Raises:
            RuntimeError: When this is another thread.
        """
        self._check_thread("unsubscribe")
        if not ws.subscriptions or pattern not in ws.subscriptions:
            return False
        self._leave(ws.subscriptions.pop(pattern))
        return True

    def forget(self, ws: ServerConnection) -> None:
        """Take a connection out, which has ended."""
        mine, ws.subscriptions = ws.subscriptions, None
        for subscription in (mine or {}).values():
            self._leave(subscription)

    def _leave(self, subscription: Subscription) -> None:
        pattern = subscription.pattern
        groups = self._patterns if is_pattern(pattern) else self._exact
        group = groups[pattern]
        self._end_join(subscription, group)
        del group.members[subscription.ws]
        group.changed()
        if not group.members:
            del groups[pattern]
            if groups is self._patterns:
                self._tree.remove(pattern)
            self._routes.clear()
            self.backend.unsubscribe(pattern)

    def _end_join(self, subscription: Subscription, group: _Group) -> None:
        """What is kept is not wanted any more."""
        if subscription._joining is not None:
            subscription._joining.cancel()
        if subscription.held is not None:
            subscription.held = None
            group.waiting -= 1

    def _group(self, pattern: str) -> _Group:
        """Return the subscriptions to a pattern; make a group for it if need be."""
        groups, limit, kind = self._exact, self.max_topics, "topics"
        if is_pattern(pattern):
            groups, limit, kind = self._patterns, self.max_patterns, "patterns"
        group = groups.get(pattern)
        if group is None:
            if len(groups) >= limit:
                raise TopicLimitError(
                    f"too many {kind} subscribed to: {len(groups) + 1}, limit {limit}"
                )
            group = groups[pattern] = _Group(pattern)
            if groups is self._patterns:
                self._tree.add(pattern, group)
            self._routes.clear()
            self.backend.subscribe(pattern)
        return group

    async def _join(
        self,
        subscription: Subscription,
        group: _Group,
        last: int | None,
        reached: dict[str, Position],
    ) -> None:
        """Wait for the broker, and send what it has kept before what came since."""
        pattern = subscription.pattern
        kept: list[Kept] = []
        try:
            await self.backend.confirm(pattern)
            if subscription.held is not None:
                kept = await self.backend.kept(pattern, last, reached)
        except BrokerError as exc:
            self.logger.warning("kept messages of %r are not there: %s", pattern, exc)
        except Exception:
            self.logger.exception("kept messages of %r are not there", pattern)
        held, subscription.held = subscription.held, None
        if held is not None:
            group.waiting -= 1
            group.changed()
        if held is None or not subscription.ws.is_open:
            return
        self._send_kept(subscription, kept)
        sent = {item.topic: item.position for item in kept}
        since = []
        for item, key in held:
            before = sent.get(item.topic)
            if (
                before is None
                or before.epoch != item.position.epoch
                or item.position.number > before.number
            ):
                since.append((item, key))
        self._send_to_one(subscription, since)

    def _send_kept(self, subscription: Subscription, kept: list[Kept]) -> None:
        self._send_to_one(subscription, [(item, None) for item in kept])

    def _send_to_one(
        self,
        subscription: Subscription,
        items: Iterable[tuple[Kept, str | None]],
    ) -> None:
        to = (subscription.ws,)
        for item, key in items:
            message = envelope(*item) if subscription.numbered else item.message
            publish(to, message, key or item.topic)

    # -- publishing --------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        message: PreparedMessage | DataLike,
        *,
        key: str | None = None,
        text: bool | None = None,
    ) -> Position | None:
        """Send a message to all who have subscribed to a topic; see ``Server.publish``.

        Raises:
            RuntimeError: When no server has started the topics, or the loop is closed.
            TypeError: When the message is neither ``str`` nor bytes-like.
            ValueError: When the topic breaks a rule.
        """
        if topic not in self._routes:
            check_topic(topic, self.max_length)
        if not isinstance(message, PreparedMessage):
            message = prepare(message, text=text)
        elif text is not None:
            raise TypeError("text is chosen in prepare(), not when it is published")
        loop = self._loop
        if loop is None:
            raise RuntimeError("cannot publish: no server has started these topics")
        if get_ident() != self._thread:
            loop.call_soon_threadsafe(self.backend.publish, topic, message, key)
            return None
        return self.backend.publish(topic, message, key)

    def subscribers(self, topic: str) -> set[ServerConnection]:
        """Return the open connections of this process that have subscribed to a topic.

        Raises:
            ValueError: When the topic breaks a rule.
        """
        check_topic(topic, self.max_length)
        return {
            ws for group in self._groups_of(topic) for ws in group.members if ws.is_open
        }

    def history(self, topic: str, last: int | None = None) -> list[Kept]:
        """Return messages of a topic that are kept in this process, oldest first.

        Args:
            topic: Topic, or a pattern.
            last: How many of each topic at most.

        Raises:
            ValueError: When the topic breaks a rule.
        """
        check_pattern(topic, self.max_length)
        return self._history.read(topic, last, {})

    def _check_thread(self, name: str) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError(f"cannot {name}: no server has started these topics")
        if get_ident() != self._thread:
            raise RuntimeError(
                f"cannot {name} in another thread than that of the event loop"
            )
        return self._loop

    def _groups_of(self, topic: str) -> list[_Group]:
        groups = self._routes.get(topic)
        if groups is None:
            exact = self._exact.get(topic)
            groups = [] if exact is None else [exact]
            if self._patterns:
                groups += self._tree.match(topic)
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            self._routes[topic] = groups
        return groups

    def _deliver(
        self,
        topic: str,
        message: PreparedMessage,
        key: str | None = None,
        position: Position | None = None,
    ) -> Position:
        """Send a message to the subscribers of this process."""
        if position is None:
            position = self._history.add(topic, message)
        groups = self._groups_of(topic)
        if not groups:
            return position
        key = key or topic
        if len(groups) == 1:
            plain, numbered = groups[0].receivers()
        else:
            plain, numbered = _merge(groups)
        if plain:
            publish(plain, message, key)
        if numbered:
            publish(numbered, envelope(topic, position, message), key)
        for group in groups:
            if group.waiting:
                for subscription in group.members.values():
                    if subscription.held is not None:
                        item = Kept(topic, position, message)
                        subscription.held.append((item, key))
        return position

    def _lost(self, gap: Gap) -> None:
        if self.on_gap is not None:
            try:
                self.on_gap(gap)
            except Exception:
                self.logger.exception("on_gap failed")


def _merge(groups: list[_Group]) -> tuple[tuple[ServerConnection, ...], ...]:
    """Return who gets a message, once each, though several patterns match."""
    plain: dict[ServerConnection, None] = {}
    numbered: dict[ServerConnection, None] = {}
    for group in groups:
        some, others = group.receivers()
        plain.update(dict.fromkeys(some))
        numbered.update(dict.fromkeys(others))
    # Who has asked for numbers with one pattern gets them.
    return tuple(ws for ws in plain if ws not in numbered), tuple(numbered)
