"""What a broker's numbers show: messages that came twice, and messages that did not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .history import Position, select
from .pattern import is_pattern

__all__ = ["Gap", "Numbers"]

MAX_TRACKED = 65_536
"""Topics, or topics of one sender, whose last number is remembered."""


@dataclass(frozen=True)
class Gap:
    """Messages of a topic that did not arrive here.

    Attributes:
        topic: Topic.
        source: Whose numbers they are: the broker's epoch, or a process.
        first: Number of the first that is missing.
        last: Number of the last; ``None`` when the count began anew meanwhile, and
            nobody knows.
    """

    topic: str
    source: str
    first: int
    last: int | None

    @property
    def count(self) -> int | None:
        """How many are missing, if that is known."""
        return None if self.last is None else self.last - self.first + 1

    def __str__(self) -> str:
        until = "an unknown number" if self.last is None else self.last
        return f"{self.topic}: {self.first} to {until} of {self.source}"


class Numbers:
    """The last number of each topic, or of each topic and sender.

    Args:
        one_source: Whether a topic has one count at a time, so that another one is the
            end of the one before.
    """

    def __init__(self, one_source: bool, max_tracked: int = MAX_TRACKED) -> None:
        self.one_source = one_source
        self.max_tracked = max_tracked
        self._last: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()

    def note(self, topic: str, source: str, number: int) -> Gap | bool | None:
        """Take note of a message.

        Returns:
            ``False`` when it came before; the gap in front of it, if there is one.
        """
        key = (topic, "" if self.one_source else source)
        before = self._last.get(key)
        if before is not None and before[0] == source and number <= before[1]:
            return False
        self._last[key] = (source, number)
        self._last.move_to_end(key)
        if before is None:
            if len(self._last) > self.max_tracked:
                self._last.popitem(last=False)
            return None
        if before[0] != source:
            return Gap(topic, before[0], before[1] + 1, None)
        if number > before[1] + 1:
            return Gap(topic, source, before[1] + 1, number - 1)
        return None

    def reached(self, topic: str) -> Position | None:
        """Return the last position of a topic; with one source each."""
        last = self._last.get((topic, ""))
        return None if last is None else Position(*last)

    def tracked(self) -> dict[str, Position]:
        """Return the last position of each topic; with one source each."""
        return {topic: Position(*last) for (topic, _), last in self._last.items()}

    def forget(self, pattern: str, wanted: Callable[[str], bool]) -> None:
        """Forget the topics of a pattern that are not listened to any more.

        Args:
            pattern: Pattern that was given up.
            wanted: Tells whether a topic is listened to for another reason.
        """
        if not is_pattern(pattern) and self.one_source:
            if not wanted(pattern):
                self._last.pop((pattern, ""), None)
            return
        topics = select(pattern, {topic for topic, _ in self._last})
        gone = {topic for topic in topics if not wanted(topic)}
        for key in [key for key in self._last if key[0] in gone]:
            del self._last[key]
