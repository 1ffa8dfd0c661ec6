"""Frames that break the rules: lengths, opcodes, masks, control frames, text, closing.

Each on every API, as a server against clients and as a client against servers. What is
defended against, and where:

* lengths that are compared before anything is reserved: ``test_violation``,
  ``test_huge_lengths_take_no_memory``, ``test_incomplete_frames_are_limited``;
* an unknown opcode with a huge length: ``test_violation``;
* control frames that are fragmented, too long, or with a reserved bit:
  ``test_violation``; between fragments: ``test_control_frames_between_fragments``;
* masks that are missing, or should be: ``test_violation``; masks of our own, fresh and
  not to be predicted: ``test_masks_are_fresh``;
* UTF-8 across fragments and in close reasons, all close codes: ``test_violation``,
  ``test_close_codes``;
* one byte at a time: ``test_violation`` feeds some of all that so, and
  ``test_tiny_reads``;
* limits at the limit, one above, and at 2^63: ``test_size_limits``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attack import (
    BINARY,
    CLIENTS,
    CLOSE,
    CONT,
    PING,
    PONG,
    SECRET,
    SERVERS,
    TEXT,
    Raw,
    Victim,
    echo,
    victim_fixture,
)

from websock import SlowConsumer
from websock.asyncio.client import connect
from websock.asyncio.server import serve
from websock.events import WebSocketServer
from websock.sync.client import connect as sync_connect
from websock.sync.server import serve as sync_serve

LIMIT = 1000

victim = victim_fixture(*SERVERS, *CLIENTS, max_size=LIMIT)

Build = Any  # a function of the peer that builds what it sends

RSV = "reserved bits are set: 0x{:02x}, no extension defines them (RFC 6455, 5.2)"
LONG_CONTROL = (
    "control frame is too long: more than 125 bytes, limit 125 (RFC 6455, 5.5)"
)
TOO_BIG = "message is too big: {} bytes, limit " + str(LIMIT)

VIOLATIONS: dict[str, tuple[Build, int, str]] = {
    "2^63": (
        lambda p: p.frame(BINARY, length=2**63),
        1002,
        "payload length has its top bit set (RFC 6455, 5.2)",
    ),
    "2^64-1": (
        lambda p: p.frame(TEXT, length=2**64 - 1),
        1002,
        "payload length has its top bit set (RFC 6455, 5.2)",
    ),
    "opcode and 2^63-1": (
        lambda p: p.frame(0x3, length=2**63 - 1),
        1002,
        "unknown opcode: 0x3 (RFC 6455, 5.2)",
    ),
    "control opcode": (
        lambda p: p.frame(0xF, SECRET),
        1002,
        "unknown opcode: 0xf (RFC 6455, 5.2)",
    ),
    "rsv": (lambda p: p.frame(TEXT, SECRET, rsv=0x70), 1002, RSV.format(0x70)),
    "rsv1, not negotiated": (
        lambda p: p.frame(TEXT, SECRET, rsv=0x40),
        1002,
        RSV.format(0x40),
    ),
    "rsv1 of a ping": (lambda p: p.frame(PING, rsv=0x40), 1002, RSV.format(0x40)),
    "fragmented ping": (
        lambda p: p.frame(PING, SECRET, fin=False),
        1002,
        "fragmented control frame (RFC 6455, 5.5)",
    ),
    "ping of 126": (lambda p: p.frame(PING, bytes(126)), 1002, LONG_CONTROL),
    "pong of 2^63-1": (lambda p: p.frame(PONG, length=2**63 - 1), 1002, LONG_CONTROL),
    "close of 2^32": (lambda p: p.frame(CLOSE, length=2**32), 1002, LONG_CONTROL),
    "continuation of nothing": (
        lambda p: p.frame(CONT, SECRET),
        1002,
        "unexpected continuation frame (RFC 6455, 5.4)",
    ),
    "message in a message": (
        lambda p: p.frame(TEXT, b"a", fin=False) + p.frame(BINARY, SECRET),
        1002,
        "expected a continuation frame, got opcode 0x2 (RFC 6455, 5.4)",
    ),
    "invalid UTF-8": (
        lambda p: p.frame(TEXT, SECRET + b"\xf5"),
        1007,
        f"invalid UTF-8 at byte {len(SECRET)} of the message (RFC 6455, 8.1)",
    ),
    "surrogate over fragments": (
        lambda p: (
            p.frame(TEXT, b"a\xed", fin=False) + p.frame(CONT, b"\xa0", fin=False)
        ),
        1007,
        "invalid UTF-8 at byte 2 of the message (RFC 6455, 8.1)",
    ),
    "invalid UTF-8 before the end of a frame": (
        lambda p: p.frame(TEXT, b"\xc0", length=900),
        1007,
        "invalid UTF-8 at byte 0 of the message (RFC 6455, 8.1)",
    ),
    "UTF-8 that is cut": (
        lambda p: p.frame(TEXT, b"\xf0\x9f", fin=False) + p.frame(CONT, b"\x98"),
        1007,
        "truncated UTF-8 at the end of the message, after 3 bytes (RFC 6455, 8.1)",
    ),
    "close reason": (
        lambda p: p.frame(CLOSE, b"\x03\xe8" + SECRET + b"\xff"),
        1007,
        "invalid UTF-8 in close reason (RFC 6455, 5.5.1)",
    ),
    "close reason that is cut": (
        lambda p: p.frame(CLOSE, b"\x03\xe8\xe2\x82"),
        1007,
        "invalid UTF-8 in close reason (RFC 6455, 5.5.1)",
    ),
    "close of a byte": (
        lambda p: p.frame(CLOSE, b"\x03"),
        1002,
        "close frame with a payload of 1 byte (RFC 6455, 5.5.1)",
    ),
}
for _length in (LIMIT + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**62, 2**63 - 1):
    VIOLATIONS[f"{_length} bytes"] = (
        lambda p, n=_length: p.frame(BINARY, SECRET, length=n),
        1009,
        TOO_BIG.format(_length),
    )
    VIOLATIONS[f"{_length} bytes in fragments"] = (
        lambda p, n=_length: (
            p.frame(BINARY, b"xx", fin=False) + p.frame(CONT, length=n - 1)
        ),
        1009,
        TOO_BIG.format(_length + 1),
    )


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation(victim: Victim, name: str) -> None:
    build, code, reason = VIOLATIONS[name]
    with victim.attack() as peer:
        peer.echoed()
        peer.send(build(peer))
        assert peer.ends(code, reason) in victim.endings


@pytest.mark.parametrize("name", ["surrogate over fragments", "2^63", "close reason"])
def test_violation_byte_by_byte(victim: Victim, name: str) -> None:
    build, code, reason = VIOLATIONS[name]
    with victim.attack() as peer:
        for byte in build(peer):
            peer.send(bytes([byte]))
        assert peer.ends(code, reason) in victim.endings


def test_wrong_masks(victim: Victim) -> None:
    """Clients must mask, servers must not."""
    with victim.attack() as peer:
        if victim.is_server:
            peer.send(peer.frame(TEXT, SECRET, mask=None))
            peer.ends(1002, "unmasked frame from client (RFC 6455, 5.1)")
        else:
            peer.send(peer.frame(TEXT, SECRET, mask=b"1234"))
            peer.ends(1002, "masked frame from server (RFC 6455, 5.1)")


CLOSE_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535]
GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", CLOSE_CODES + GOOD_CODES)
def test_close_codes(victim: Victim, code: int) -> None:
    with victim.attack() as peer:
        peer.send(peer.frame(CLOSE, code.to_bytes(2, "big")))
        if code in GOOD_CODES:
            assert peer.ends(code, "") in victim.endings
        else:
            reason = f"invalid close code: {code} (RFC 6455, 7.4)"
            assert peer.ends(1002, reason) in victim.endings


def test_nothing_is_answered_after_a_violation(victim: Victim) -> None:
    with victim.attack() as peer:
        peer.send(
            peer.frame(0xB) + peer.frame(TEXT, b"late") + peer.frame(PING, b"late")
        )
        assert peer.read()[0] == CLOSE
        peer.end()
        assert peer.gone() in victim.endings
        assert peer.buffer == b""


def test_control_frames_between_fragments(victim: Victim) -> None:
    with victim.attack() as peer:
        peer.send(
            peer.frame(TEXT, b"a", fin=False)
            + peer.frame(PING, b"1")
            + peer.frame(CONT, fin=False)
            + peer.frame(PONG, b"2")
            + peer.frame(CONT, b"b", fin=False)
        )
        assert peer.read() == (PONG, b"1")
        peer.send(peer.frame(PING, b"3") + peer.frame(CONT, b"c"))
        assert peer.read() == (PONG, b"3")
        assert peer.read() == (TEXT, b"abc")


def test_tiny_reads(victim: Victim) -> None:
    """A byte at a time: no object for each stays, and nothing is copied again."""
    with victim.attack(memory=400_000) as peer:
        data = peer.frame(BINARY, bytes(LIMIT)) * 3
        for n in range(len(data)):
            peer.send(data[n : n + 1])
        for _ in range(3):
            assert peer.read() == (BINARY, bytes(LIMIT))


def test_size_limits(victim: Victim) -> None:
    """What is just allowed, in one frame or in many."""
    with victim.attack() as peer:
        peer.send(peer.frame(BINARY, bytes(LIMIT)))
        assert peer.read() == (BINARY, bytes(LIMIT))
        peer.send(peer.frame(BINARY, fin=False))
        peer.send(peer.frame(CONT, b"x", fin=False) * LIMIT, peer.frame(CONT))
        assert peer.read() == (BINARY, b"x" * LIMIT)
        peer.send(peer.frame(BINARY, b"x" * LIMIT, fin=False) + peer.frame(CONT, b"x"))
        peer.ends(1009, TOO_BIG.format(LIMIT + 1))


# -- without a limit, or with a large one ----------------------------------------------

unlimited = victim_fixture(
    "coroutine", "listener", "sync", "client", "client-sync", max_size=None
)
generous = victim_fixture("coroutine", "sync", "client", max_size=2**63 - 1)


def hold_back(peer: Raw, length: int) -> None:
    """Announce a lot, and send a little of it."""
    peer.send(peer.frame(BINARY, bytes(1000), length=length))
    peer.send(bytes(1000))
    peer.end()
    peer.gone()


@pytest.mark.parametrize("length", [2**31, 2**32 + 1, 2**40, 2**63 - 1])
def test_huge_lengths_take_no_memory(unlimited: Victim, length: int) -> None:
    """Memory follows what has arrived, not what was announced."""
    with unlimited.attack(memory=1_000_000) as peer:
        hold_back(peer, length)


@pytest.mark.parametrize("length", [2**32 + 1, 2**63 - 1])
def test_the_largest_limit(generous: Victim, length: int) -> None:
    with generous.attack(memory=1_000_000) as peer:
        peer.echoed()
        hold_back(peer, length)


def test_incomplete_frames_are_limited(victim: Victim) -> None:
    """A frame that never ends counts as it comes, not when it ends."""
    with victim.attack(memory=500_000) as peer:
        peer.send(peer.frame(BINARY, bytes(600), fin=False))
        peer.send(peer.frame(CONT, bytes(300), length=400))
        peer.send(bytes(99))
        peer.end()
        peer.gone()
    with victim.attack(memory=500_000) as peer:
        peer.send(peer.frame(BINARY, bytes(600), fin=False))
        peer.send(peer.frame(CONT, bytes(1), length=401))
        assert peer.ends(1009, TOO_BIG.format(LIMIT + 1)) in victim.endings


# -- what arguments take ---------------------------------------------------------------

WRONG: list[tuple[str, Any]] = [
    ("max_size", -1),
    ("max_size", 2**63),
    ("max_size", (2**63, None)),
    ("max_size", (None, -1)),
    ("max_fragments", 0),
    ("max_fragments", 2**63),
    ("max_control_rate", 0),
]


async def nothing(ws: Any) -> None:
    pass


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_limits_that_make_no_sense(name: str, value: Any) -> None:
    """They are refused at the call, everywhere."""
    for function, args in (
        (serve, (nothing, "127.0.0.1", 0)),
        (connect, ("ws://127.0.0.1/",)),
        (sync_serve, (print, "127.0.0.1", 0)),
        (sync_connect, ("ws://127.0.0.1/",)),
    ):
        with pytest.raises(ValueError, match=name):
            function(*args, **{name: value})  # type: ignore[operator]


@pytest.mark.parametrize("value", [2**63, 2**64, 2**100])
def test_limits_without_end(value: int) -> None:
    """What is more than fits into memory, or into a number in C, is no limit."""

    async def main() -> None:
        options: dict[str, Any] = {
            "max_queue": value,
            "max_queue_bytes": value,
            "write_limit": value,
            "max_control_rate": value,
            "max_connections": value,
        }
        async with serve(echo, "127.0.0.1", 0, **options) as server:
            port = server.sockets[0].getsockname()[1]
            del options["max_connections"]
            uri = f"ws://127.0.0.1:{port}/"
            async with connect(uri, proxy=None, **options) as ws:
                await (await ws.ping())
                await ws.send("here")
                assert await ws.recv() == "here"

    asyncio.run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"max_queue_bytes": 1000},
        {"slow_consumer": SlowConsumer()},
        {"max_fragments": 9},
    ],
    ids=str,
)
def test_limits_of_the_event_api(options: dict[str, Any]) -> None:
    """It takes the options of ``serve()``, those about flow too."""

    async def main() -> None:
        server = WebSocketServer("127.0.0.1", 0, auto_accept=True, **options)
        server.on("connect", lambda c: c.on("message", c.send))
        async with server:
            uri = f"ws://127.0.0.1:{server.port}/"
            async with connect(uri, proxy=None) as ws:
                await ws.send("here")
                assert await ws.recv() == "here"

    asyncio.run(main())


# -- masks of our own ------------------------------------------------------------------

clients = victim_fixture("client", "client-sync")


def test_masks_are_fresh(clients: Victim) -> None:
    """A mask is never used again, and its bits are spread evenly."""
    count = 2000
    masks = []
    with clients.attack() as peer:
        for n in range(0, count, 100):
            peer.send(peer.frame(TEXT, b"x") * 100)
            for _ in range(100):
                header = peer._read(2)
                assert header == b"\x81\x81", n
                masks.append(peer._read(4))
                peer._read(1)
    # 2000 of 2^32 collide once in two thousand runs; five times never.
    assert count - len(set(masks)) < 5
    bits = sum(int.from_bytes(mask, "big").bit_count() for mask in masks)
    assert abs(bits - 16 * count) < 10 * (8 * count) ** 0.5  # ten deviations
