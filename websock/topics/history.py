"""The last messages of each topic, numbered, so that a client sees what it has missed.

Each topic counts its messages from 1.  The number alone would lie after a restart, when
it begins again: an *epoch* goes with it, which no other count of the same topic has.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..prepared import PreparedMessage
from .pattern import PatternTree, is_pattern

__all__ = ["History", "Kept", "Position", "Since", "envelope", "positions"]

MAX_TOPICS = 10_000
"""Topics that are counted; of others the count, and what is kept, begins anew."""


class Position(NamedTuple):
    """Where a message stands in its topic; as text, ``epoch:number``.

    Attributes:
        epoch: Which count it is.
        number: Number in it, from 1.
    """

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a position from text, which may come from a client.

        Raises:
            ValueError: When it is none.
        """
        epoch, colon, number = text.rpartition(":")
        if not (
            colon
            and epoch
            and len(text) <= 64
            and number.isascii()
            and number.isdecimal()
        ):
            raise ValueError("position is not of the form epoch:number")
        return cls(epoch, int(number))


Since = Position | str | Mapping[str, Position | str]
"""Where to go on: one position, or one for each topic."""


def positions(pattern: str, since: Since | None) -> dict[str, Position]:
    """Return the positions that a client has reached, by topic.

    Args:
        pattern: What it subscribes to.
        since: One position, or one for each topic.

    Raises:
        ValueError: When there is one position for a pattern of many topics, or one is
            malformed.
    """
    if since is None:
        return {}
    if isinstance(since, (str, Position)):
        if is_pattern(pattern):
            raise ValueError(
                f"since must be a position for each topic: {pattern!r} is a pattern"
            )
        since = {pattern: since}
    return {
        topic: place if isinstance(place, Position) else Position.parse(place)
        for topic, place in since.items()
    }


class Kept(NamedTuple):
    """A message that is kept."""

    topic: str
    position: Position
    message: PreparedMessage


def envelope(
    topic: str, position: Position, message: PreparedMessage
) -> PreparedMessage:
    """Return a message with a first line that says what it is: topic and position."""
    line = f"{topic} {position}\n".encode()
    return PreparedMessage(message.opcode, line + message.payload, message.compress)


class _Log:
    """The messages of one topic."""

    __slots__ = ("epoch", "kept", "number")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.number = 0
        self.kept: deque[tuple[int, int, PreparedMessage]] | None = None


class History:
    """The last messages of each topic, in memory.

    Args:
        length: Messages to keep of each topic.
        max_bytes: Bytes of payload to keep of all topics together.
        max_topics: Topics to count.
    """

    def __init__(
        self, length: int, max_bytes: int, max_topics: int = MAX_TOPICS
    ) -> None:
        self.length = length
        self.max_bytes = max_bytes
        self.max_topics = max_topics
        self.size = 0
        self._epoch = os.urandom(6).hex()
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._epochs = 0
        self._stamp = 0  # of messages, over all topics

    def add(self, topic: str, message: PreparedMessage) -> Position:
        """Number a message, and keep it if messages are kept."""
        place = self.count(topic)
        if self.length:
            self.keep(topic, message, self.length)
        return place

    def count(self, topic: str) -> Position:
        """Number a message."""
        log = self._logs.get(topic)
        if log is None:
            log = self._begin(topic)
        else:
            self._logs.move_to_end(topic)
        log.number += 1
        return Position(log.epoch, log.number)

    def reached(self, topic: str) -> Position | None:
        """Return the position of the last message of a topic, if it is counted."""
        log = self._logs.get(topic)
        return None if log is None else Position(log.epoch, log.number)

    def _begin(self, topic: str) -> _Log:
        if len(self._logs) >= self.max_topics:
            _, oldest = self._logs.popitem(last=False)
            while oldest.kept:
                self._drop(oldest)
        self._epochs += 1
        log = self._logs[topic] = _Log(f"{self._epoch}-{self._epochs:x}")
        return log

    def keep(self, topic: str, message: PreparedMessage, length: int) -> None:
        """Keep the message of a topic that was counted last.

        Args:
            topic: Topic.
            message: Message.
            length: Messages of this topic to keep.
        """
        log = self._logs[topic]
        if log.kept is None:
            log.kept = deque()
        self._stamp += 1
        log.kept.append((log.number, self._stamp, message))
        self.size += len(message.payload)
        while len(log.kept) > length:
            self._drop(log)
        if self.size > self.max_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Drop messages until they fit: of the topics that were quiet longest."""
        for log in self._logs.values():
            while log.kept:
                self._drop(log)
                if self.size <= self.max_bytes:
                    return

    def _drop(self, log: _Log) -> None:
        assert log.kept is not None
        _, _, message = log.kept.popleft()
        self.size -= len(message.payload)

    def read(
        self, pattern: str, last: int | None, since: Mapping[str, Position]
    ) -> list[Kept]:
        """Return kept messages of the topics that match, in the order they came.

        Args:
            pattern: Pattern of the topics.
            last: How many of each topic at most; ``None`` for all.
            since: Positions that have been reached, after which to begin.
        """
        found: list[tuple[int, Kept]] = []
        for topic, log in self._logs_of(pattern):
            if not log.kept:
                continue
            reached = since.get(topic)
            after = reached.number if reached and reached.epoch == log.epoch else 0
            first = log.number - last if last is not None and reached is None else 0
            for number, stamp, message in log.kept:
                if number > after and number > first:
                    place = Position(log.epoch, number)
                    found.append((stamp, Kept(topic, place, message)))
        found.sort(key=lambda item: item[0])
        return [kept for _, kept in found]

    def _logs_of(self, pattern: str) -> Iterator[tuple[str, _Log]]:
        if not is_pattern(pattern):
            log = self._logs.get(pattern)
            if log is not None:
                yield pattern, log
            return
        yield from ((topic, self._logs[topic]) for topic in select(pattern, self._logs))


def select(pattern: str, topics: Iterable[str]) -> list[str]:
    """Return the topics that match a pattern."""
    if not is_pattern(pattern):
        return [topic for topic in topics if topic == pattern]
    tree: PatternTree[bool] = PatternTree()
    tree.add(pattern, True)
    return [topic for topic in topics if tree.match(topic)]
