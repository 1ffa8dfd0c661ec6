"""What websock promises about its speed, as ratios to peers in one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .cases import Case
from .stats import Figure, Row, ratios


@dataclass(frozen=True)
class Goal:
    """``library`` must need at most ``limit`` times what ``peer`` needs.

    ``is_strict`` wants less than the limit, not as much. ``figure`` may be
    one where more is better (``rate``): then the limit is a lower one.
    """

    case: Case
    library: str
    peer: str
    limit: float
    is_strict: bool = False
    figure: str = "cpu_us"

    def is_met(self, ratio: float) -> bool:
        """Say whether a ratio is good enough."""
        if self.figure == "rate":
            return ratio >= self.limit
        return ratio < self.limit if self.is_strict else ratio <= self.limit

    @property
    def wanted(self) -> str:
        """The limit in words."""
        if self.figure == "rate":
            return f"at least {self.limit:g}"
        return f"{'below' if self.is_strict else 'at most'} {self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured; no ratio when a figure is missing."""

    goal: Goal
    ratio: Figure | None

    @property
    def is_met(self) -> bool:
        return self.ratio is not None and self.goal.is_met(self.ratio.median)


CROWD = Case(connections=64)
PING_PONG = Case()
PIPELINE = Case(depth=64)
LARGE = Case(size=1 << 20, kind="binary")
CLIENT = Case(size=256)
HANDSHAKE = Case(mode="handshake", connections=16)
IDLE = Case(mode="idle", connections=1000, messages=1, seconds=0, warmup=0)
_DEFLATED = IDLE.with_(deflate=True, kind="json", size=1024)
IDLE_CASES = (
    IDLE,
    _DEFLATED.with_(messages=0),
    _DEFLATED.with_(no_context=True),
)
BROADCAST = Case(mode="broadcast", connections=5000, size=100)
TLS = Case(connections=64, size=1024, tls=True)
DEFLATE = Case(connections=64, size=1024, kind="json", deflate=True)

COROUTINE = "websock"
CALLBACK = "websock-listener"

FLOOR = (
    Goal(CROWD, COROUTINE, "websockets", 0.5),
    Goal(CROWD, COROUTINE, "picows-websockets", 1.0, is_strict=True),
    Goal(CROWD, CALLBACK, "picows", 1.0, is_strict=True),
    Goal(PIPELINE, COROUTINE, "websockets", 0.1),
    Goal(PIPELINE, CALLBACK, "picows", 0.15),
)

SPEED = (
    Goal(CROWD, CALLBACK, "epoll", 1.1),
    Goal(CROWD, COROUTINE, "epoll", 1.4),
    Goal(PING_PONG, CALLBACK, "epoll", 1.15),
    Goal(PING_PONG, COROUTINE, "picows", 1.1),
    Goal(PIPELINE, CALLBACK, "uws", 1.5),
    Goal(PIPELINE, COROUTINE, "uws", 3.0),
    Goal(LARGE, CALLBACK, "uws", 1.1),
    Goal(HANDSHAKE, CALLBACK, "picows", 3.0, figure="rate"),
    Goal(BROADCAST, COROUTINE, "websockets", 0.5),
    Goal(BROADCAST, COROUTINE, "picows-websockets", 1.0, is_strict=True),
    Goal(TLS, CALLBACK, "picows", 1.05),
    Goal(TLS, COROUTINE, "picows-websockets", 1.05),
    Goal(TLS, COROUTINE, "aiohttp", 1.05),
    Goal(DEFLATE, COROUTINE, "websockets", 0.6),
)

CLIENT_SPEED = (
    Goal(CLIENT, CALLBACK, "picows", 1.0, is_strict=True),
    Goal(CLIENT, COROUTINE, "picows", 1.1),
)

# What the speed-ups of other libraries gain: the host with one over the host without.
LARGE_TEXT = Case(size=64 << 10)
LARGE_BINARY = Case(size=64 << 10, kind="binary")
_UVICORN = "uvicorn-websockets-sansio"  # what --ws auto takes where websockets is

HOSTS = (
    Goal(CROWD, "uvicorn-websock", _UVICORN, 0.4),
    Goal(PIPELINE, "uvicorn-websock", _UVICORN, 0.25),
    Goal(CROWD, "websockets-fast", "websockets", 0.75),
    Goal(PIPELINE, "websockets-fast", "websockets", 0.6),
    Goal(CROWD, "websockets-engine", "websockets", 0.4),
    Goal(PIPELINE, "websockets-engine", "websockets", 0.1),
    Goal(CROWD, "wsproto-fast", "wsproto", 0.6),
    Goal(LARGE_BINARY, "wsproto-fast", "wsproto", 0.1),
    Goal(CROWD, "tornado-fast", "tornado", 0.6),
    Goal(CROWD, "aiohttp-fast", "aiohttp", 0.9),
    Goal(PIPELINE, "aiohttp-fast", "aiohttp", 0.9),
    Goal(CROWD, "autobahn-fast", "autobahn", 0.7),
    Goal(LARGE_TEXT, "autobahn-fast", "autobahn", 0.3),
)

CLIENT_HOSTS = (
    Goal(PING_PONG, "websocket-client-fast", "websocket-client", 0.8),
    Goal(LARGE_TEXT, "websocket-client-fast", "websocket-client", 0.4),
    Goal(PING_PONG, "websock-sync", "websockets-threads", 0.5),
    Goal(PING_PONG, "websock-sync", "websocket-client", 0.5),
)

# Memory has limits of its own, in bytes per connection.
MEMORY = {CALLBACK: 2048, COROUTINE: 5120}
MEMORY_WITHOUT_CONTEXT = 8192


def memory_limit(library: str, case: Case) -> int | None:
    """Return how many bytes a connection may take; ``None`` when nothing is promised.

    Compression adds nothing until it is used.
    """
    limit = MEMORY.get(library)
    if limit is not None and case.deflate and case.messages:
        return MEMORY_WITHOUT_CONTEXT if case.no_context else None
    return limit


def cases_of(goals: Sequence[Goal]) -> list[Case]:
    """Return the cases of some goals, each once."""
    return list(dict.fromkeys(goal.case for goal in goals))


def libraries_of(goals: Sequence[Goal], case: Case) -> list[str]:
    """Return the libraries that a case needs, each once."""
    names = [n for g in goals if g.case == case for n in (g.library, g.peer)]
    return list(dict.fromkeys(names))


def judge(goals: Iterable[Goal], rows: Sequence[Row]) -> list[Verdict]:
    """Hold the goals against measured rows."""
    return [
        Verdict(goal, ratios(rows, goal.case, goal.library, goal.peer, goal.figure))
        for goal in goals
    ]
