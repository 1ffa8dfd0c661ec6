"""Compressed messages that are bombs, or no messages: each API, as server and as client.

What is defended against, and where:

* bombs, in one frame, nested, in fragments: ``test_bomb``; many small ones, none of
  which is too big: ``test_many_small_bombs``; and that others are served meanwhile:
  ``test_others_are_served``;
* what is decompressed ahead of who receives: ``test_bombs_ahead_of_the_program``;
* BFINAL=1, a message that ends inside a block, garbage: ``test_broken``, and that
  messages after a final block are not empty: ``test_final_block``;
* reserved bits, on continuations and control frames too: ``test_broken``;
* control frames inside a compressed message: ``test_control_frames_between_fragments``;
* the limit at the limit, one above, and at 2^63: ``test_limits``,
  ``test_the_largest_limits``.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import zlib
from typing import Any

import pytest
from attack import (
    BINARY,
    CLIENTS,
    CONT,
    DEFLATE,
    LOOPBACK,
    PING,
    PONG,
    SERVERS,
    TEXT,
    Echo,
    Maker,
    Raw,
    Victim,
    deflated,
    victim_fixture,
)
from helpers import request
from scripted import run_on

from websock.asyncio.server import serve
from websock.sync.server import serve as sync_serve

LIMIT = 100_000
SOME_RSV = "reserved bits are set: 0x{:02x}, no extension defines them (RFC 6455, 5.2)"

victim = victim_fixture(*SERVERS, *CLIENTS, max_size=LIMIT)


def final(data: bytes) -> bytes:
    """Compress with a last block that says so, as no message should end."""
    encoder = zlib.compressobj(9, wbits=-12)
    return encoder.compress(data) + encoder.flush(zlib.Z_FINISH)


BOMB = deflated(bytes(20_000_000))

BOMBS: dict[str, Any] = {
    "plain": lambda p: p.frame(BINARY, BOMB, rsv=0x40),
    "text": lambda p: p.frame(TEXT, deflated(b"x" * 20_000_000), rsv=0x40),
    "nested": lambda p: p.frame(BINARY, deflated(BOMB * 50), rsv=0x40),
    "in fragments": lambda p: (
        p.frame(BINARY, BOMB[:10], fin=False, rsv=0x40)
        + b"".join(p.frame(CONT, bytes((b,)), fin=False) for b in BOMB[10:500])
        + p.frame(CONT, BOMB[500:])
    ),
    "final": lambda p: p.frame(BINARY, final(bytes(20_000_000)), rsv=0x40),
    "after final blocks": lambda p: p.frame(
        BINARY, final(b"a") + final(b"b") + BOMB, rsv=0x40
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(victim: Victim, name: str) -> None:
    """The limit is on what comes out, and holds while it comes out."""
    data = BOMBS[name](Maker(victim.is_server))
    with victim.attack(DEFLATE, memory=2_000_000) as peer:
        peer.send(data)
        code, reason = peer.closing()
        assert code == 1009
        if peer.has_other_words:
            assert str(LIMIT) in reason
        else:
            assert reason.startswith("message is too big: ")
            assert reason.endswith(f"more than {LIMIT} bytes")


def test_limits(victim: Victim) -> None:
    with victim.attack(DEFLATE) as peer:
        peer.send(peer.frame(BINARY, deflated(bytes(LIMIT)), rsv=0x40))
        assert peer.read() == (BINARY, bytes(LIMIT))
        peer.send(peer.frame(BINARY, deflated(bytes(LIMIT + 1)), rsv=0x40))
        peer.ends(1009, f"message is too big: more than {LIMIT} bytes")


largest = victim_fixture("coroutine", "sync", "client", max_size=2**63 - 1)


def test_the_largest_limits(largest: Victim) -> None:
    """zlib takes no number above the largest of the machine."""
    with largest.attack(DEFLATE) as peer:
        for data in (deflated(b"first"), final(b"first")):
            peer.send(peer.frame(TEXT, data, rsv=0x40))
            assert peer.read() == (TEXT, b"first")


def deflate_error(reason: str) -> tuple[int, str]:
    return 1002, f"decompression failed: {reason} (RFC 7692, 7.2)"


BROKEN: dict[str, tuple[Any, tuple[int, str]]] = {
    "garbage": (
        lambda p: p.frame(BINARY, b"\xff\xff\xff", rsv=0x40),
        deflate_error("invalid block type"),
    ),
    "cut": (
        lambda p: p.frame(BINARY, deflated(b"a message of some length")[:-5], rsv=0x40),
        deflate_error("message ends inside a block"),
    ),
    "cut in fragments": (
        lambda p: (
            p.frame(BINARY, deflated(b"a message")[:4], fin=False, rsv=0x40)
            + p.frame(CONT)
        ),
        deflate_error("message ends inside a block"),
    ),
    "far too many final blocks": (
        lambda p: p.frame(BINARY, final(b"x") * 100, rsv=0x40),
        deflate_error("more than 8 final blocks in a frame"),
    ),
    "RSV1 on a continuation": (
        lambda p: (
            p.frame(BINARY, deflated(b"x"), fin=False, rsv=0x40)
            + p.frame(CONT, b"", rsv=0x40)
        ),
        deflate_error("RSV1 is set on a continuation frame"),
    ),
    "RSV1 on a ping": (
        lambda p: p.frame(PING, deflated(b"x"), rsv=0x40),
        (1002, SOME_RSV.format(0x40)),
    ),
    "RSV1 and RSV2": (
        lambda p: p.frame(TEXT, deflated(b"x"), rsv=0x60),
        (1002, SOME_RSV.format(0x60)),
    ),
    "invalid UTF-8": (
        lambda p: p.frame(TEXT, deflated(b"good\xff"), rsv=0x40),
        (1007, "invalid UTF-8 at byte 4 of the message (RFC 6455, 8.1)"),
    ),
    "too long before it is decompressed": (
        lambda p: p.frame(BINARY, b"", rsv=0x40, length=2**40),
        (1009, f"message is too big: {2**40} bytes, limit {LIMIT}"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(victim: Victim, name: str) -> None:
    build, (code, reason) = BROKEN[name]
    with victim.attack(DEFLATE) as peer:
        peer.send(peer.frame(TEXT, deflated(b"before"), rsv=0x40))
        assert peer.read() == (TEXT, b"before")
        peer.send(build(peer))
        got = peer.closing()
        assert got[0] == code
        # zlib and zlib-ng have each their words.
        assert got[1] == reason or name == "garbage" or peer.has_other_words
        peer.end()
        assert peer.gone() in victim.endings


def test_final_block(victim: Victim) -> None:
    """What follows it is decompressed too, and does not come out empty."""
    with victim.attack(DEFLATE) as peer:
        for n in range(20):
            peer.send(peer.frame(TEXT, final(b"%d" % n), rsv=0x40))
            assert peer.read() == (TEXT, b"%d" % n)
            peer.send(peer.frame(TEXT, deflated(b"between"), rsv=0x40))
            assert peer.read() == (TEXT, b"between")


def test_control_frames_between_fragments(victim: Victim) -> None:
    data = deflated(b"a message in two halves")
    with victim.attack(DEFLATE) as peer:
        for _ in range(3):
            peer.send(
                peer.frame(TEXT, data[:9], fin=False, rsv=0x40)
                + peer.frame(PING, b"here")
                + peer.frame(PONG, b"there")
                + peer.frame(CONT, data[9:])
            )
            assert peer.read() == (PONG, b"here")
            assert peer.read() == (TEXT, b"a message in two halves")


def test_many_small_bombs(victim: Victim) -> None:
    """None is too big; what waits is no more than a queue holds."""
    with victim.attack(DEFLATE, memory=40_000_000) as peer:
        peer.send(peer.frame(BINARY, deflated(bytes(LIMIT)), rsv=0x40) * 300)
        peer.end()
        peer.gone()


def test_bombs_ahead_of_the_program() -> None:
    """Threads: however a message is begun, little is read ahead of who receives."""
    sizes: list[int] = []
    taken, done = threading.Event(), threading.Event()

    def stall(ws: Any) -> None:
        ws.recv()
        taken.set()
        done.wait(30)
        sizes.append(sum(len(event[1]) for event in ws._queue))

    server = sync_serve(stall, LOOPBACK, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with socket.create_connection(server.socket.getsockname()) as sock:
            peer = Raw(sock, True)
            peer.send(request(DEFLATE))
            peer.until(b"\r\n\r\n")
            # A message that is under way is no reason to read a lot at once.
            peer.send(peer.frame(BINARY, b"x", fin=False))
            time.sleep(0.1)
            bombs = peer.frame(BINARY, deflated(bytes(1 << 20)), rsv=0x40) * 200
            peer.send(peer.frame(CONT) + bombs)
            assert taken.wait(30)
            (ws,) = server.connections
            while not ws.is_paused:
                time.sleep(0.01)
            done.set()
    finally:
        done.set()
        server.shutdown()
        thread.join()
    assert sizes[0] < 40 << 20


@pytest.mark.parametrize("listens", [False, True], ids=["handler", "listener"])
def test_others_are_served(listens: bool) -> None:
    """A few bytes are a lot of work: it is done a little at a time."""
    gaps: list[float] = []

    async def take(ws: Any) -> None:
        async for message in ws:
            if isinstance(message, str):
                await ws.send(message)

    class Take(Echo):
        def on_message(self, ws: Any, message: Any) -> None:
            if isinstance(message, str):
                ws.send_nowait(message)

    async def main() -> None:
        handler: Any = Take if listens else take
        async with serve(handler, LOOPBACK, 0) as server:
            loop = asyncio.get_running_loop()
            address = server.sockets[0].getsockname()
            peers = [await asyncio.open_connection(*address) for _ in range(2)]
            for number, (reader, writer) in enumerate(peers):
                writer.write(request(*(DEFLATE,) * (number == 0)))
                await reader.readuntil(b"\r\n\r\n")
            made = Maker(True)
            bombs = made.frame(BINARY, deflated(bytes(1 << 20)), rsv=0x40) * 500
            peers[0][1].write(bombs)  # half a GiB
            reader, writer = peers[1]
            for _ in range(50):
                began = loop.time()
                writer.write(made.frame(TEXT, b"x"))
                await reader.readexactly(3)
                gaps.append(loop.time() - began)
            received = max(ws.stats().payload_received for ws in server.connections)
            assert received < 500 << 20  # the others were served before it was all done
            for _, writer in peers:
                writer.transport.abort()

    run_on(None, main())
    assert len(gaps) == 50
