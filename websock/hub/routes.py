"""Who has subscribed to which channels, and so where a message goes.

A channel's name is the prefix of a program and a topic, with a dot between: programs,
or parts of one, that have different prefixes share a hub and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..topics.pattern import PatternTree, is_pattern
from .wire import MAX_CHANNEL

__all__ = ["Routes", "check_name"]

MAX_ROUTES = 65_536  # channels whose receivers are remembered

T = TypeVar("T")


def check_name(name: str, check: Callable[[str, int], None]) -> None:
    """Check the name of a channel.

    Args:
        name: Name.
        check: ``check_topic``, or ``check_pattern``, for what follows the prefix.

    Raises:
        ValueError: When it breaks a rule.
    """
    prefix, _, topic = name.partition(".")
    if not prefix.isidentifier():
        raise ValueError("name of a channel has no prefix")
    check(topic, MAX_CHANNEL)


class Routes(Generic[T]):
    """Receivers by channel."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[T, None]] = {}
        self._patterns: dict[str, dict[T, None]] = {}
        self._tree: PatternTree[dict[T, None]] = PatternTree()
        self._found: dict[str, tuple[T, ...]] = {}

    def add(self, pattern: str, receiver: T) -> None:
        """Have a receiver get what matches a pattern, once."""
        groups = self._patterns if is_pattern(pattern) else self._exact
        group = groups.get(pattern)
        if group is None:
            group = groups[pattern] = {}
            if groups is self._patterns:
                self._tree.add(pattern, group)
        group[receiver] = None
        self._found.clear()

    def remove(self, pattern: str, receiver: T) -> None:
        """Undo ``add()``."""
        groups = self._patterns if is_pattern(pattern) else self._exact
        group = groups[pattern]
        del group[receiver]
        if not group:
            del groups[pattern]
            if groups is self._patterns:
                self._tree.remove(pattern)
        self._found.clear()

    def of(self, channel: str) -> tuple[T, ...] | None:
        """Return who gets what is published to a channel, if that is known already."""
        return self._found.get(channel)

    def find(self, channel: str) -> tuple[T, ...]:
        """Find out who gets what is published to a channel."""
        found = dict(self._exact.get(channel, {}))
        if self._patterns:
            for group in self._tree.match(channel):
                found.update(group)
        if len(self._found) >= MAX_ROUTES:
            self._found.clear()
        receivers = self._found[channel] = tuple(found)
        return receivers
