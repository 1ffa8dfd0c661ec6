"""Names of topics, and which patterns they match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websock.topics.gaps import Gap, Numbers
from websock.topics.pattern import (
    MAX_SEGMENTS,
    PatternTree,
    check_pattern,
    check_topic,
    matches,
)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a", "a", "b a.a aa"),
        ("a.b", "a.b", "a a.b.c a.c b.a"),
        ("a.*", "a.b a.c", "a a.b.c b.a"),
        ("*", "a b", "a.b"),
        ("*.*", "a.b", "a a.b.c"),
        ("*.b", "a.b b.b", "b a.a.b"),
        ("a.**", "a a.b a.b.c", "b b.a ab"),
        ("**", "a a.b a.b.c", ""),
        ("**.b", "b a.b a.a.b", "a b.a"),
        ("a.**.b", "a.b a.x.b a.x.y.b a.b.b", "a b a.b.c"),
        ("**.b.**", "b a.b b.a a.b.c", "a a.c"),
        ("a.**.*", "a.b a.b.c", "a b.c"),
        ("*.**.*", "a.b a.b.c", "a"),
        ("**.*.**", "a a.b a.b.c", ""),
    ],
)
def test_examples(pattern: str, yes: str, no: str) -> None:
    check_pattern(pattern)
    assert [topic for topic in yes.split() if not matches(pattern, topic)] == []
    assert [topic for topic in no.split() if matches(pattern, topic)] == []


def by_the_rules(pattern: list[str], topic: list[str]) -> bool:
    """Match as the documentation says it, however long it takes."""
    if not pattern:
        return not topic
    first, *rest = pattern
    if first == "**":
        return any(by_the_rules(rest, topic[n:]) for n in range(len(topic) + 1))
    if not topic or first not in ("*", topic[0]):
        return False
    return by_the_rules(rest, topic[1:])


TOPICS = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(".".join)
PATTERNS = (
    st.lists(st.sampled_from(["a", "b", "c", "*", "**"]), min_size=1, max_size=6)
    .map(".".join)
    .filter(lambda pattern: "**.**" not in pattern)
)


@given(
    st.lists(PATTERNS, max_size=12, unique=True),
    st.lists(TOPICS, max_size=8),
    st.data(),
)
def test_tree_does_what_the_rules_say(
    patterns: list[str], topics: list[str], data: st.DataObject
) -> None:
    tree: PatternTree[str] = PatternTree()
    for pattern in patterns:
        check_pattern(pattern)
        tree.add(pattern, pattern)
    there = set(patterns)
    while True:
        assert tree.size == len(there)
        for topic in topics:
            found = tree.match(topic)
            expected = [
                p for p in there if by_the_rules(p.split("."), topic.split("."))
            ]
            assert sorted(found) == sorted(expected)
        if not there:
            break
        gone = data.draw(st.sampled_from(sorted(there)))
        there.remove(gone)
        tree.remove(gone)
    assert tree._root.is_bare()


def test_a_pattern_cannot_be_made_slow() -> None:
    """It is walked once, however often ``**`` may begin."""
    pattern = ".".join(["**", "a"] * (MAX_SEGMENTS // 2))
    topic = ".".join(["a"] * (MAX_SEGMENTS - 1) + ["b"])
    tree: PatternTree[int] = PatternTree()
    tree.add(pattern, 1)
    reached = []
    branches = tree._root

    class Counted(dict):  # type: ignore[type-arg]
        def get(self, key: str, default: object = None) -> object:
            reached.append(key)
            return super().get(key, default)

    node = branches
    while node is not None:
        node.branches = Counted(node.branches)
        node = node.deep or next(iter(node.branches.values()), None)
    assert tree.match(topic) == []
    # Each node at most once for each segment.
    assert len(reached) <= (MAX_SEGMENTS + 1) * MAX_SEGMENTS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "is empty"),
        ("a..b", "has an empty segment"),
        (".a", "has an empty segment"),
        ("a.", "has an empty segment"),
        ("a b", "a character that is not allowed"),
        ("a\nb", "a character that is not allowed"),
        ("a\x00", "a character that is not allowed"),
        ("a.>", "a character that is not allowed"),
        ("\ud800", "a character that is not allowed"),
        ("x" * 256, "is too long: 256 bytes, limit 255"),
        ("é" * 200, "is too long: 400 bytes, limit 255"),
        (".".join("a" * 17), "has too many segments: 17, limit 16"),
    ],
)
def test_wrong_names(name: str, text: str) -> None:
    for check in (check_topic, check_pattern):
        with pytest.raises(ValueError, match=text):
            check(name)


def test_wrong_patterns() -> None:
    for pattern in ("a*", "*a.b", "a.***", "a.b*c"):
        with pytest.raises(ValueError, match="are whole segments"):
            check_pattern(pattern)
        with pytest.raises(ValueError, match="which is for patterns"):
            check_topic(pattern)
    with pytest.raises(ValueError, match="twice in a row"):
        check_pattern("a.**.**")
    for check in (check_topic, check_pattern):
        with pytest.raises(TypeError, match="must be str, not bytes"):
            check(b"a")  # type: ignore[arg-type]


def test_right_names() -> None:
    for name in ("a", "prices.eur", "räume.7", "a-b_c:d/e", "x" * 255, "価格.円"):
        check_topic(name)
        check_pattern(name)


# -- numbers of a broker ---------------------------------------------------------------


def test_numbers_of_one_source() -> None:
    numbers = Numbers(one_source=True)
    assert numbers.note("a", "x", 7) is None  # nobody knows what was before
    assert numbers.note("a", "x", 8) is None
    assert numbers.note("a", "x", 8) is False
    assert numbers.note("a", "x", 3) is False
    assert numbers.note("b", "x", 1) is None
    gap = numbers.note("a", "x", 12)
    assert gap == Gap("a", "x", 9, 11)
    assert (gap.count, str(gap)) == (3, "a: 9 to 11 of x")
    gap = numbers.note("a", "y", 1)
    assert gap == Gap("a", "x", 13, None)
    assert (gap.count, str(gap)) == (None, "a: 13 to an unknown number of x")
    assert numbers.note("a", "y", 2) is None
    assert {t: str(p) for t, p in numbers.tracked().items()} == {"a": "y:2", "b": "x:1"}
    numbers.forget("a", lambda topic: False)
    assert numbers.note("a", "y", 9) is None
    numbers.forget("*", lambda topic: topic == "a")
    assert list(numbers.tracked()) == ["a"]
    numbers.forget("a", lambda topic: True)
    numbers.forget("*", lambda topic: False)
    assert numbers.tracked() == {}


def test_numbers_of_several_sources() -> None:
    numbers = Numbers(one_source=False, max_tracked=2)
    assert numbers.note("a", "x", 1) is None
    assert numbers.note("a", "y", 5) is None
    assert numbers.note("a", "x", 2) is None
    assert numbers.note("a", "y", 7) == Gap("a", "y", 6, 6)
    assert numbers.note("a", "x", 2) is False
    assert numbers.note("b", "x", 4) is None  # forgets what was quiet longest
    assert numbers.note("a", "y", 9) == Gap("a", "y", 8, 8)
    assert numbers.note("a", "x", 9) is None
    numbers.forget("b", lambda topic: False)
    numbers.forget("**", lambda topic: False)
    assert numbers.tracked() == {}
