"""What was sent, what came back, and what became of the rest."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

# Text of one to four bytes a character; payloads are cut out of it.
_TEXT = "".join(
    f"{n:x} brown foxes jump; " + ("grüße " if n % 3 else "文字 ")
    for n in range(60_000)
)
_BYTES = Random(1).randbytes(1 << 21)

# Share, smallest and largest size.
SIZES = (
    (0.05, 0, 0),
    (0.40, 1, 125),
    (0.30, 126, 2 << 10),
    (0.22, 2 << 10, 64 << 10),
    (0.03, 64 << 10, (1 << 20) - 64),
)

# Failures that are kept with their text; all are counted.
MAX_TEXTS = 20


def choose_size(random: Random) -> int:
    """Return the size of the next message, most of them small."""
    wanted = random.random()
    for share, low, high in SIZES:
        wanted -= share
        if wanted < 0:
            return random.randint(low, high)
    return 1


def make_message(random: Random, number: int) -> str | bytes:
    """Make a message that says its number, unless it is empty."""
    size = choose_size(random)
    if not size:
        return "" if random.random() < 0.5 else b""
    head = f"{number}:"
    if random.random() < 0.5:
        start = random.randrange(1000)
        # About 1.1 bytes a character: the message stays below 1 MiB.
        return head + _TEXT[start : start + size * 9 // 10]
    start = random.randrange(len(_BYTES) - size)
    return head.encode() + _BYTES[start : start + size]


@dataclass
class Totals:
    """The sums over all connections of a kind."""

    connections: int = 0
    sent: int = 0
    answered: int = 0
    bytes: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    texts: list[str] = field(default_factory=list)

    def fail(self, text: str) -> None:
        """Note that something happened that must not."""
        self.failures += 1
        if len(self.texts) < MAX_TEXTS:
            self.texts.append(text)

    def as_row(self) -> dict[str, Any]:
        """Return the sums for a file of JSON lines."""
        return {
            "connections": self.connections,
            "sent": self.sent,
            "answered": self.answered,
            "bytes": self.bytes,
            "unanswered": dict(self.unanswered),
            "ends": dict(self.ends),
            "failures": self.failures,
            "texts": self.texts,
        }


class Ledger:
    """The account of one connection whose peer sends everything back.

    Args:
        totals: Where it is added up.
        random: Source of the messages.
    """

    def __init__(self, totals: Totals, random: Random) -> None:
        self.totals = totals
        self.random = random
        self.sent = 0
        self.answered = 0
        self.waiting: deque[str | bytes] = deque()

    def next_message(self) -> str | bytes:
        """Make the next message; from here on an answer is due."""
        message = make_message(self.random, self.sent)
        self.sent += 1
        self.waiting.append(message)
        return message

    def received(self, message: str | bytes) -> None:
        """Compare an answer with what is due."""
        if not self.waiting:
            self.totals.fail(f"answer to nothing: {_name(message)}")
            return
        expected = self.waiting.popleft()
        self.answered += 1
        self.totals.bytes += len(message)
        if message != expected or type(message) is not type(expected):
            self.totals.fail(f"expected {_name(expected)}, got {_name(message)}")

    def closed(self, end: str) -> None:
        """Add the account up.

        Args:
            end: How the connection ended, which says why answers are missing.
        """
        totals = self.totals
        totals.connections += 1
        totals.sent += self.sent
        totals.answered += self.answered
        totals.ends[end] += 1
        missing = self.sent - self.answered
        if missing:
            totals.unanswered[end] += missing
            if end == "finished":
                totals.fail(f"{missing} of {self.sent} not answered, no reason given")


def _name(message: str | bytes) -> str:
    return f"{type(message).__name__} {message[:12]!r} of {len(message)}"
