"""Peers that vanish: a reset or the end of the stream in each phase, on every API.

What is defended against, and where: a reset in a header, in a payload, in a compressed
message, between fragments, while answers are under way, and during the closing handshake
of either side (``test_vanishing``, ``test_vanishing_while_closing``,
``test_vanishing_while_answers_wait``); half-closing (``test_half_close``); many in a row
(``test_nothing_is_left``).
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

import pytest
from attack import (
    BINARY,
    CLIENTS,
    CLOSE,
    CONT,
    DEFLATE,
    PATIENCE,
    PING,
    SECRET,
    SERVERS,
    TEXT,
    Maker,
    Victim,
    deflated,
    victim_fixture,
)

victim = victim_fixture(*SERVERS, *CLIENTS)

COMPRESSED = deflated(SECRET * 10)

PHASES: dict[str, Any] = {
    "open": lambda p: b"",
    "first byte": lambda p: p.frame(TEXT, SECRET * 100)[:1],
    "length": lambda p: p.frame(TEXT, SECRET * 100)[:3],
    "mask": lambda p: (
        p.frame(TEXT, SECRET * 100, mask=b"1234")[:6]
        if p.masks
        else p.frame(TEXT, SECRET)[:2]
    ),
    "payload": lambda p: p.frame(TEXT, SECRET * 100)[:-1],
    "long payload": lambda p: p.frame(BINARY, bytes(100_000), length=900_000),
    "character": lambda p: p.frame(TEXT, b"\xe2\x82", length=3),
    "fragments": lambda p: p.frame(TEXT, SECRET, fin=False) + p.frame(CONT, fin=False),
    "compressed message": lambda p: p.frame(TEXT, COMPRESSED, rsv=0x40)[:-5],
    "compressed fragments": lambda p: p.frame(
        TEXT, COMPRESSED[:5], fin=False, rsv=0x40
    ),
    "ping": lambda p: p.frame(PING, SECRET)[:-1],
    "close frame": lambda p: p.frame(CLOSE, b"\x03\xe8" + SECRET)[:-1],
}


@pytest.mark.parametrize("how", ["reset", "eof"])
@pytest.mark.parametrize("phase", PHASES)
def test_vanishing(victim: Victim, phase: str, how: str) -> None:
    with victim.attack(DEFLATE, memory=2_000_000) as peer:
        peer.echoed()
        peer.send(PHASES[phase](peer))
        if how == "reset":
            peer.reset()
        else:
            peer.end()
            assert peer.gone() in victim.endings


@pytest.mark.parametrize("how", ["reset", "eof"])
@pytest.mark.parametrize("reads", [False, True], ids=["before", "after"])
def test_vanishing_while_closing(victim: Victim, how: str, reads: bool) -> None:
    """Before or after the answer to its close frame was read."""
    with victim.attack() as peer:
        peer.send(peer.frame(CLOSE, b"\x03\xe8"))
        if reads:
            assert peer.read() == (CLOSE, b"\x03\xe8")
        if how == "reset":
            peer.reset()
        else:
            peer.end()
            assert peer.gone() in victim.endings


def test_vanishing_while_answers_wait(victim: Victim) -> None:
    with victim.attack() as peer:
        peer.send(peer.frame(BINARY, bytes(200_000)) * 5)
        peer.reset()


def test_violation_and_reset(victim: Victim) -> None:
    """Both at once: the close frame finds nobody."""
    with victim.attack() as peer:
        peer.send(peer.frame(0xB, SECRET))
        peer.reset()


def test_half_close(victim: Victim) -> None:
    """Whoever ends its half is answered what it has sent before, or nothing."""
    with victim.attack() as peer:
        peer.echoed()
        peer.end()
        assert peer.gone() in victim.endings


def test_nothing_is_left(victim: Victim) -> None:
    """What connections that vanish have taken is given back."""
    data = Maker(victim.is_server).frame(BINARY, bytes(20_000), length=100_000)

    def vanish(number: int) -> None:
        peer = victim.connect()
        peer.send(data)
        if number % 2:
            peer.reset()
        else:
            peer.end()
            peer.gone()
            peer.sock.close()

    for number in range(4):
        vanish(number)
    tracemalloc.start()
    try:
        for number in range(60):
            vanish(number)
        deadline = time.monotonic() + PATIENCE
        while True:
            victim.good.echoed()
            gc.collect()
            left = tracemalloc.get_traced_memory()[0]
            if left < 400_000:
                break  # a third of the 1,200,000 bytes of payload that came
            assert time.monotonic() < deadline, left
    finally:
        tracemalloc.stop()
