"""Names of topics, patterns of them, and which patterns a topic matches.

A topic is made of segments between dots.  In a pattern the segment ``*`` stands for one
segment, and ``**`` for any number of them, none included.  :class:`PatternTree` walks
all patterns at once, one segment of the topic after the other: a pattern never makes it
go back, whatever a client has chosen.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = [
    "MAX_LENGTH",
    "MAX_SEGMENTS",
    "PatternTree",
    "check_pattern",
    "check_topic",
    "is_pattern",
    "matches",
]

MAX_LENGTH = 255
"""Bytes in UTF-8 of a topic or of a pattern."""
MAX_SEGMENTS = 16

T = TypeVar("T")


def is_pattern(name: str) -> bool:
    """Whether a name that was checked stands for more than one topic."""
    return "*" in name


def check_topic(topic: str, max_length: int = MAX_LENGTH) -> None:
    """Check the name of a topic.

    Args:
        topic: Name.
        max_length: Bytes that it may have.

    Raises:
        TypeError: When it is no text.
        ValueError: When it breaks a rule.
    """
    for segment in _segments("topic", topic, max_length):
        if "*" in segment:
            raise ValueError(f"topic {topic!r} has '*', which is for patterns")


def check_pattern(pattern: str, max_length: int = MAX_LENGTH) -> None:
    """Check a pattern, which may be the name of one topic.

    Args:
        pattern: Pattern.
        max_length: Bytes that it may have.

    Raises:
        TypeError: When it is no text.
        ValueError: When it breaks a rule.
    """
    before = ""
    for segment in _segments("pattern", pattern, max_length):
        if "*" in segment and segment not in ("*", "**"):
            raise ValueError(
                f"pattern {pattern!r} has {segment!r}: '*' and '**' are whole segments"
            )
        if segment == before == "**":
            raise ValueError(f"pattern {pattern!r} has '**' twice in a row")
        before = segment


def _segments(kind: str, name: str, max_length: int) -> list[str]:
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be str, not {type(name).__name__}")
    if not name:
        raise ValueError(f"{kind} is empty")
    # A text has as many bytes as characters, or more: do not encode what is too long.
    size = len(name) if len(name) > max_length else len(name.encode("utf-8", "replace"))
    if size > max_length:
        raise ValueError(f"{kind} is too long: {size} bytes, limit {max_length}")
    segments = name.split(".")
    if len(segments) > MAX_SEGMENTS:
        raise ValueError(
            f"{kind} has too many segments: {len(segments)}, limit {MAX_SEGMENTS}"
        )
    if "" in segments:
        raise ValueError(f"{kind} {name!r} has an empty segment")
    # Spaces end it in envelopes, and the rest has a meaning for brokers.
    if ">" in name or " " in name or not name.isprintable():
        raise ValueError(
            f"{kind} {name!r} has a character that is not allowed: "
            "spaces, '>', and what cannot be printed"
        )
    return segments


class _Node(Generic[T]):
    """What patterns with the same beginning share."""

    __slots__ = ("branches", "deep", "entry", "is_deep", "star")

    def __init__(self, is_deep: bool = False) -> None:
        self.branches: dict[str, _Node[T]] = {}
        self.star: _Node[T] | None = None  # after "*"
        self.deep: _Node[T] | None = None  # after "**"
        self.is_deep = is_deep  # it is after "**" itself
        self.entry: T | None = None  # of the pattern that ends here

    def is_bare(self) -> bool:
        return (
            self.entry is None
            and not self.branches
            and self.star is None
            and self.deep is None
        )


class PatternTree(Generic[T]):
    """Patterns, each with something that belongs to it.

    The patterns were checked.  Memory: a node for each segment that no other pattern
    begins with.
    """

    __slots__ = ("_root", "size")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self.size = 0

    def add(self, pattern: str, entry: T) -> None:
        """Add a pattern that is not there."""
        node = self._root
        for segment in pattern.split("."):
            if segment == "**":
                if node.deep is None:
                    node.deep = _Node(is_deep=True)
                node = node.deep
            elif segment == "*":
                if node.star is None:
                    node.star = _Node()
                node = node.star
            else:
                following = node.branches.get(segment)
                if following is None:
                    following = node.branches[segment] = _Node()
                node = following
        node.entry = entry
        self.size += 1

    def remove(self, pattern: str) -> None:
        """Remove a pattern that is there, and what nothing else needs."""
        node = self._root
        path = []
        segments = pattern.split(".")
        for segment in segments:
            path.append(node)
            following = {"**": node.deep, "*": node.star}.get(
                segment, node.branches.get(segment)
            )
            assert following is not None
            node = following
        node.entry = None
        self.size -= 1
        for parent, segment in zip(reversed(path), reversed(segments), strict=True):
            if not node.is_bare():
                break
            if segment == "**":
                parent.deep = None
            elif segment == "*":
                parent.star = None
            else:
                del parent.branches[segment]
            node = parent

    def match(self, topic: str) -> list[T]:
        """Return what belongs to the patterns that a topic matches."""
        # A dict, for its order: a node is reached in several ways, and counts once.
        states: dict[_Node[T], None] = {}
        _enter(self._root, states)
        for segment in topic.split("."):
            reached: dict[_Node[T], None] = {}
            for node in states:
                if node.is_deep:
                    reached[node] = None
                following = node.branches.get(segment)
                if following is not None:
                    _enter(following, reached)
                if node.star is not None:
                    _enter(node.star, reached)
            if not reached:
                return []
            states = reached
        return [node.entry for node in states if node.entry is not None]


def _enter(node: _Node[T], states: dict[_Node[T], None]) -> None:
    """Add a node, and those that ``**`` reaches with no segment."""
    following: _Node[T] | None = node
    while following is not None:
        states[following] = None
        following = following.deep


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic matches a pattern; both were checked.

    For many topics, a :class:`PatternTree` with one pattern is made once.
    """
    if not is_pattern(pattern):
        return pattern == topic
    tree: PatternTree[bool] = PatternTree()
    tree.add(pattern, True)
    return bool(tree.match(topic))
