"""Topics over brokers, as far as it is quick; the rest is run by ``make brokers``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from brokers.running import (
    KINDS,
    Broker,
    broker_fixture,
    go,
    missing,
    several,
    with_nats,
    with_redis,
)  # fmt: skip
from hypothesis import given
from hypothesis import strategies as st
from scripted import LOOPBACK
from subscribers import handler

import websock
from websock.topics import BrokerError, Topics
from websock.topics.pattern import matches

broker = broker_fixture()


def test_across_servers(broker: Broker) -> None:
    async def main() -> None:
        async with several(broker, 3) as ((one, a), (two, b), (three, c)):
            assert await a.ask("prices.eur") == "ok"
            assert await b.ask("prices.*") == "ok"
            assert await c.ask("**") == "ok"
            assert one.publish("prices.eur", "1.08") is None
            assert await a.get() == "1.08"
            assert await b.get() == await c.get() == "1.08"
            three.publish("prices.usd", b"\x00\xff")
            assert await b.get() == await c.get() == b"\x00\xff"
            two.publish("prices", websock.prepare("x" * 300_000))
            assert await c.get() == "x" * 300_000
            # Whoever leaves is taken out at the broker too.
            assert await a.ask("-prices.eur") == "True"
            one.publish("prices.eur", "1.09")
            assert await b.get() == await c.get() == "1.09"
            assert await a.ask("prices.eur") == "ok"
            two.publish("prices.eur", "1.10")
            assert await a.get() == "1.10"
            assert one.subscribers("prices.eur")
            assert not one.subscribers("prices.usd")

    go(main())


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_listens(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        dead = Broker(kind, tmp_path)
        url = f"{kind}://ann:secret7@{LOOPBACK}:{dead.port}"
        sockets: list[Any] = []
        with pytest.raises(BrokerError) as caught:
            async with websock.serve(handler, LOOPBACK, 0, topics=url) as server:
                sockets.append(server)
        address = f"{kind}://{LOOPBACK}:{dead.port}"
        text = str(caught.value)
        assert text.startswith(f"cannot reach the broker at {address}: ")
        assert re.search("refused|Connect call failed", text), text
        assert "secret7" not in text
        assert caught.value.__cause__ is None
        assert sockets == []

    go(main())


def test_wrong_urls_and_options() -> None:
    for kind in ("redis", "nats"):
        if missing(kind):
            continue
        for url, options, text in (
            (f"{kind}://ann:secret7@h:port", {}, "has a wrong port"),
            (f"{kind}://", {}, "has no host"),
            (f"{kind}://h", {"timeout": 0}, "timeout must be above 0, not 0"),
            (
                f"{kind}://h",
                {"prefix": "a b"},
                "prefix must be letters, digits and '_'",
            ),
        ):
            with pytest.raises(ValueError, match=text) as caught:
                Topics(url, **options)
            assert "secret7" not in str(caught.value)
        with pytest.raises(TypeError, match="unknown"):
            Topics(f"{kind}://h", unknown=1)
        backend: Any = Topics(f"{kind}://ann:secret7@[::1]:99/3?x=secret8").backend
        assert backend.address == f"{kind}://[::1]:99/3"


@pytest.mark.parametrize(("scheme", "name"), [("redis", "redis"), ("tls", "nats")])
def test_package_that_is_missing(scheme: str, name: str) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "from websock.topics import BrokerError, Topics\n"
        "try:\n"
        f"    Topics('{scheme}://ann:secret7@h')\n"
        "except BrokerError as exc:\n"
        "    print(exc)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(
        f"topics with {scheme} need a package: pip install websock-fast[{name}] ("
    ), done
    assert "secret7" not in done.stdout


def test_delays_between_attempts() -> None:
    """They double up to ten seconds, and those of two processes differ."""
    from websock.topics.broker import _delays

    few = [list(islice(_delays(), 20)) for _ in range(2)]
    for delays in few:
        for number, delay in enumerate(delays):
            longest = min(0.05 * 2**number, 10)
            assert longest / 2 <= delay <= longest
    assert few[0] != few[1]


@with_nats
def test_counts_for_nats() -> None:
    from websock.topics.nats import _Counts

    counts = _Counts(max_topics=2)
    assert [counts.next("a") for _ in range(3)] == [1, 2, 3]
    assert counts.next("b") == 1
    assert counts.next("c") == 1  # a was quiet longest
    assert counts.next("a") == 4  # never a number that was there before
    assert counts.next("c") == 2


# -- names for brokers -----------------------------------------------------------------

SEGMENTS = st.sampled_from(["a", "b", "ab", "a[b]", "?", "x^-\\"])
TOPICS = st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join)
PATTERNS = (
    st.lists(st.one_of(SEGMENTS, st.sampled_from(["*", "**"])), min_size=1, max_size=5)
    .map(".".join)
    .filter(lambda pattern: "**.**" not in pattern)
)


def glob_matches(glob: str, text: str) -> bool:
    """Match as Redis does, as far as its patterns have no sets and no ``?``."""
    wanted = ""
    letters = iter(glob)
    for letter in letters:
        if letter == "\\":
            wanted += re.escape(next(letters))
        else:
            assert letter not in "?["
            wanted += ".*" if letter == "*" else re.escape(letter)
    return re.fullmatch(wanted, text) is not None


@with_redis
@given(PATTERNS, TOPICS)
def test_globs_match_as_much_or_more(pattern: str, topic: str) -> None:
    from websock.topics.redis import glob_of

    if matches(pattern, topic):
        assert glob_matches(glob_of(pattern), topic)


@with_redis
@pytest.mark.parametrize(
    ("pattern", "glob"),
    [
        ("a.b", "a.b"), ("a.*", "a.*"), ("a.**", "a*"), ("**", "*"), ("**.b", "*b"),
        ("a.**.b", "a*.b"), ("a.*.**", "a.*"), ("a[x].*", "a\\[x\\].*"),
    ],
)  # fmt: skip
def test_globs(pattern: str, glob: str) -> None:
    from websock.topics.redis import glob_of

    assert glob_of(pattern) == glob


def subject_matches(subject: str, topic: str) -> bool:
    """Match as NATS does."""
    parts, segments = subject.split("."), topic.split(".")
    if parts[-1] == ">":
        parts.pop()
        if len(segments) <= len(parts):
            return False
        segments = segments[: len(parts)]
    return len(parts) == len(segments) and all(
        part in ("*", segment) for part, segment in zip(parts, segments, strict=True)
    )


@with_nats
@given(PATTERNS, TOPICS)
def test_subjects_match_as_much_or_more(pattern: str, topic: str) -> None:
    from websock.topics.nats import subjects_of

    if matches(pattern, topic):
        assert any(subject_matches(s, topic) for s in subjects_of(pattern))


@with_nats
@pytest.mark.parametrize(
    ("pattern", "subjects"),
    [
        ("a.b", ["a.b"]), ("a.*", ["a.*"]), ("a.**", ["a.>", "a"]), ("**", [">"]),
        ("**.b", [">"]), ("a.**.b", ["a.>"]), ("a.*.**", ["a.*.>", "a.*"]),
    ],
)  # fmt: skip
def test_subjects(pattern: str, subjects: list[str]) -> None:
    from websock.topics.nats import subjects_of

    assert subjects_of(pattern) == subjects
