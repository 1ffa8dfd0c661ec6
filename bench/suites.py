"""The named sets of cases. Each takes minutes, not hours, at the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import Case

# Peers of the two APIs; `epoll` and `uws` are the yardsticks.
COMMON = (
    "epoll,uws,websock-listener,websock,picows,picows-websockets,aiohttp,websockets"
)
EVERYONE = (
    COMMON + ",uvicorn-websockets,uvicorn-websockets-sansio,uvicorn-wsproto,tornado,"
    "autobahn,wsproto,granian,node-ws"
)
PURE = "websock-pure,websock-listener-pure,websockets,wsproto"
CLIENTS = "websock-listener,websock,picows,picows-websockets,aiohttp,websockets"

SWEEP = (0, 8, 32, 125, 126, 1 << 10, 16 << 10, 64 << 10, 1 << 20)


@dataclass(frozen=True)
class Suite:
    """Some cases, who is measured in them, and what they show."""

    title: str
    cases: tuple[Case, ...]
    libraries: str
    is_client: bool = False
    rounds: int = 5


def _grid() -> tuple[Case, ...]:
    shapes = ((1, 1), (1, 16), (1, 64), (64, 1), (1000, 1))
    return tuple(Case(connections=c, depth=d) for c, d in shapes)


def _sizes() -> tuple[Case, ...]:
    return tuple(Case(size=size, kind="binary") for size in SWEEP)


def _growth() -> tuple[Case, ...]:
    many = tuple(Case(connections=n, size=32) for n in (10, 100, 1000, 10_000))
    large = tuple(
        Case(size=size, kind="binary") for size in (1 << 10, 1 << 14, 1 << 20, 1 << 26)
    )
    pieces = tuple(
        Case(size=100_000, fragments=n, kind="binary")
        for n in (1, 100, 10_000, 100_000)
    )
    slow = tuple(Case(size=size, chunk=1) for size in (10, 100, 1000))
    return many + large + pieces + slow


def _idle() -> tuple[Case, ...]:
    one = Case(mode="idle", seconds=0, warmup=0, messages=1)
    return (
        one.with_(connections=1000),
        one.with_(connections=10_000),
        one.with_(connections=1000, deflate=True, kind="json", size=1024),
        one.with_(
            connections=1000, deflate=True, no_context=True, kind="json", size=1024
        ),
        one.with_(connections=1000, deflate=True, messages=0),
    )


_JSON = Case(size=1024, kind="json")

SUITES: dict[str, Suite] = {
    "readme": Suite(
        "Echo server: the figures of the README",
        (
            Case(connections=64),
            Case(),
            Case(depth=64),
            Case(size=1 << 20, kind="binary"),
        ),
        EVERYONE,
        rounds=3,
    ),
    "echo": Suite("Echo server", _grid(), EVERYONE),
    "sizes": Suite("Echo server, message sizes", _sizes(), COMMON, rounds=3),
    "text": Suite(
        "Echo server, text that is not ASCII",
        tuple(
            Case(size=16 << 10, kind=kind)
            for kind in ("text", "cyrillic", "cjk", "emoji", "mixed")
        ),
        COMMON,
        rounds=3,
    ),
    "client": Suite(
        "Echo client", (Case(size=256), Case(size=256, depth=64)), CLIENTS, True
    ),
    "handshake": Suite(
        "Handshakes", (Case(mode="handshake", connections=16),), EVERYONE
    ),
    "idle": Suite("Memory of idle connections", _idle(), EVERYONE, rounds=1),
    "broadcast": Suite(
        "Broadcast",
        tuple(Case(mode="broadcast", connections=n, size=100) for n in (1000, 10_000)),
        "epoll,websock-listener,websock,picows,picows-websockets,aiohttp,websockets,"
        "tornado,autobahn,node-ws",
        rounds=3,
    ),
    "topics": Suite(
        "Topics: one for all, and one for each ten",
        tuple(
            Case(mode="broadcast", connections=n, size=100)
            for n in (10, 100, 1000, 10_000)
        ),
        "websock-topics,websock-rooms,websock,websockets,websockets-rooms",
        rounds=3,
    ),
    "tls": Suite(
        "Echo server over TLS",
        (
            Case(size=1024, tls=True),
            Case(connections=64, size=1024, tls=True),
            Case(size=1 << 20, kind="binary", tls=True),
        ),
        COMMON + ",tornado,node-ws",
        rounds=3,
    ),
    "deflate": Suite(
        "Echo server with permessage-deflate",
        (
            _JSON.with_(deflate=True),
            _JSON.with_(deflate=True, connections=64),
            _JSON.with_(deflate=True, connections=64, no_context=True),
        ),
        "websock-listener,websock,websock-zlib-ng,picows-websockets,aiohttp,websockets,"
        "tornado,node-ws",
        rounds=3,
    ),
    "growth": Suite("Growth of the cost", _growth(), COMMON, rounds=1),
    "pure": Suite("Echo server without a compiler", _grid(), PURE, rounds=3),
}
