"""Floods, and peers that do not read, do not answer or do not end: what may pile up.

What is defended against, and where:

* a message in a million fragments, empty or of one byte: ``test_million_fragments``
  (with --every-api), ``test_thousands_of_fragments``, ``test_fragments_of_one_byte``; the
  limit itself: ``test_fragment_limits``;
* pings, with a peer that reads and one that does not: ``test_flood_of_pings``,
  ``test_flood_of_pings_nobody_reads_the_pongs_of``; pongs: ``test_flood_of_pongs``; the
  limit on both: ``test_control_rate``;
* empty messages: ``test_flood_of_empty_messages``, ``test_queue_without_a_number``;
* answers to a peer that does not read: ``test_echo_to_a_peer_that_does_not_read``,
  ``test_answers_to_control_frames``;
* a peer that never closes, never answers a ping, also when nothing can be written:
  ``test_peer_that_never_closes``, ``test_silent_peers``;
* what the program has done with, and still comes: ``test_stream_that_was_closed``;
* work that grows faster than what was sent: ``test_reading_a_message_in_little_pieces``;
* others that wait meanwhile: ``test_others_are_served``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

import pytest
from attack import (
    BINARY,
    CLIENTS,
    CONT,
    LOOPBACK,
    PING,
    PONG,
    SERVERS,
    TEXT,
    Echo,
    Maker,
    Raw,
    Victim,
    bounded,
    victim_fixture,
)
from helpers import request
from scripted import run_on

import websock
from websock.asyncio.server import serve
from websock.events import WebSocketServer
from websock.listener import Listener

victim = victim_fixture(*SERVERS, *CLIENTS)

# What takes long.
long = victim_fixture(*SERVERS, *CLIENTS, core=())

OURS = ["coroutine", "listener", "events", "sync", "client", "client-sync"]


# -- fragments -------------------------------------------------------------------------

FEW = 50
few = victim_fixture(*OURS, max_fragments=FEW)


def test_fragment_limits(few: Victim) -> None:
    """At the limit, and one above; empty ones count."""
    with few.attack() as peer:
        middle = peer.frame(CONT, fin=False) * (FEW - 2)
        peer.send(peer.frame(TEXT, b"a", fin=False) + middle + peer.frame(CONT, b"b"))
        assert peer.read() == (TEXT, b"ab")
        peer.send(peer.frame(TEXT, fin=False) + middle + peer.frame(CONT, fin=False))
        peer.echoed_ping()
        peer.send(peer.frame(CONT))
        peer.ends(1009, f"too many fragments: limit {FEW} in a message")


def test_million_fragments(long: Victim) -> None:
    with long.attack(memory=8_000_000) as peer:
        peer.send(peer.frame(TEXT, fin=False))
        many = peer.frame(CONT, fin=False) * 10_000
        for _ in range(100):
            peer.send(many)
        peer.ends(1009, "too many fragments: limit 131072 in a message")


THOUSANDS = 10_000
thousands = victim_fixture("coroutine", core=("coroutine",), max_fragments=THOUSANDS)


def test_thousands_of_fragments(thousands: Victim) -> None:
    """The same, smaller: what is kept of them is little, and goes with them."""
    with thousands.attack(memory=1_000_000) as peer:
        peer.send(peer.frame(TEXT, fin=False))
        peer.send(peer.frame(CONT, fin=False) * 2 * THOUSANDS)
        peer.ends(1009, f"too many fragments: limit {THOUSANDS} in a message")


endless = victim_fixture("coroutine", "sync", core=("coroutine",), max_fragments=None)


def test_fragments_of_one_byte(endless: Victim, full: bool) -> None:
    """They cost their bytes: 40,000 of them are a message of 40,000 bytes."""
    times = 4 if full else 1
    with endless.attack(memory=400_000 + 150_000 * times) as peer:
        peer.send(peer.frame(BINARY, fin=False))
        many = peer.frame(CONT, b"x", fin=False) * 10_000
        for _ in range(times):
            peer.send(many)
        peer.send(peer.frame(CONT))
        assert peer.read() == (BINARY, b"x" * 10_000 * times)


# -- pings and pongs -------------------------------------------------------------------

RATE = 300
limited = victim_fixture(*OURS, max_control_rate=RATE)


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_rate(limited: Victim, opcode: int) -> None:
    """As many as are allowed, and one more."""
    with limited.attack() as peer:
        one = peer.frame(opcode, b"x")
        peer.send(one * RATE)
        peer.echoed()  # behind the pongs, of which some may be left out
        peer.send(one * (RATE + 1))  # for one of them there is no second left
        assert peer.ends(
            1008,
            f"too many pings and pongs: more than {RATE} in a second, limit {RATE}",
        )


clocked = victim_fixture(
    "coroutine", "sync", core=("coroutine",), max_control_rate=RATE
)


def test_control_rate_is_for_a_second(clocked: Victim) -> None:
    with clocked.attack() as peer:
        one = peer.frame(PING, b"x")
        peer.send(one * RATE)
        peer.echoed()
        time.sleep(1.05)  # that is what is tested
        peer.send(one * RATE)
        peer.echoed()


def test_flood_of_pings(victim: Victim, full: bool) -> None:
    """From a peer that reads the pongs: they are answered in order, or the newest."""
    with victim.attack(memory=5_000_000) as peer:
        sent = peer.frame(PING, b"12345678") * 1000
        for _ in range(5 if full else 2):
            peer.send(sent)
            peer.echoed()


def test_flood_of_pongs(victim: Victim, full: bool) -> None:
    """Nobody has asked for them, so nothing is kept of them."""
    times = 9 if full else 3
    with victim.attack(memory=times * 330_000) as peer:
        peer.send(peer.frame(PONG, b"12345678") * 1000 * times)
        peer.echoed()


free = victim_fixture(*OURS, core=("coroutine",), max_control_rate=None)


def small(victim: Victim) -> Raw:
    """Connect with a small buffer for what comes."""
    peer = victim.connect()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return peer


def test_flood_of_pings_nobody_reads_the_pongs_of(free: Victim) -> None:
    """Only the newest waits to be answered, or reading stops (RFC 6455, 5.5.3)."""
    payload = bytes(125)
    with bounded(2_000_000), contextlib.closing(small(free).sock) as sock:
        peer = Raw(sock, free.is_server)
        sock.settimeout(0.2)
        data = peer.frame(PING, payload) * 1000
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 5_000_000:
                sock.sendall(data)
                sent += len(data)
        free.good.echoed()


def test_one_pong_waits() -> None:
    """For who does not read, all pings but the newest are forgotten (RFC 6455, 5.5.3)."""
    data = Maker(True).frame(PING, bytes(125)) * 8000
    amounts: list[int] = []

    async def main() -> None:
        taken = asyncio.Event()

        async def wait(ws: Any) -> None:
            while ws.stats().bytes_received < len(data):
                amounts.append(ws.buffered_amount)
                await asyncio.sleep(0.01)
            amounts.append(ws.buffered_amount)
            taken.set()

        # Sockets that are accepted have the sizes of the one that listens.
        listening = socket.create_server((LOOPBACK, 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
            async with serve(
                wait, sock=listening, max_control_rate=None, close_timeout=0.1
            ):
                sock.connect(listening.getsockname())
                sock.sendall(request())
                await asyncio.to_thread(sock.sendall, data)
                await taken.wait()

    asyncio.run(main())
    # 32 KiB may wait before send() does, and what one read has answered.
    assert max(amounts) < 400_000
    assert max(amounts) > 0


# -- messages --------------------------------------------------------------------------


def test_flood_of_empty_messages(victim: Victim, full: bool) -> None:
    with victim.attack(memory=12_000_000) as peer:
        data = peer.frame(BINARY) * 1000
        for _ in range(10 if full else 3):
            peer.send(data)
            for _ in range(1000):
                assert peer.read() == (BINARY, b"")


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "a byte"])
def test_queue_without_a_number(payload: bytes) -> None:
    """With ``max_queue=None`` bytes are limited: of objects too, not of payload only."""

    async def main() -> None:
        opened: asyncio.Future[Any] = asyncio.Future()
        gate = asyncio.Event()

        async def stall(ws: Any) -> None:
            opened.set_result(ws)
            await gate.wait()
            async for _ in ws:
                pass

        options: dict[str, Any] = {"max_queue": None, "max_queue_bytes": 64_000}
        async with serve(stall, LOOPBACK, 0, **options) as server:
            address = server.sockets[0].getsockname()
            _, writer = await asyncio.open_connection(*address)
            peer = Maker(True)
            # They fill the queue many times.
            writer.write(request() + peer.frame(BINARY, payload) * 10_000)
            ws = await opened
            before = -1
            while ws.queued != before or not before:
                before = ws.queued
                await asyncio.sleep(0.05)
            assert ws.queued == 1001
            gate.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    run_on(None, main())


def test_echo_to_a_peer_that_does_not_read(victim: Victim) -> None:
    """Nothing more is read from it; then it reads, and has lost nothing."""
    message = bytes(50_000)
    with bounded(20_000_000), contextlib.closing(small(victim).sock) as sock:
        peer = Raw(sock, victim.is_server)
        sock.settimeout(0.2)
        data = peer.frame(BINARY, message)
        sent = 0
        done = len(data)
        while done == len(data) and sent < 4000:
            done = 0
            with contextlib.suppress(TimeoutError):
                while done < len(data):
                    done += sock.send(data[done:])
                sent += 1
        assert done < len(data)  # at some point it stopped to read
        victim.good.echoed()
        sock.settimeout(30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for _ in range(sent):
            assert peer.read() == (BINARY, message)


@pytest.mark.parametrize(
    ("api", "opcode"),
    [
        ("listener", PING),
        pytest.param("listener", PONG, marks=pytest.mark.every_api),
        pytest.param("events", PING, marks=pytest.mark.every_api),
        ("events", PONG),
    ],
)
def test_answers_to_control_frames(api: str, opcode: int) -> None:
    """What a callback sends when a ping comes must not pile up either."""
    most = 0

    class Answers(Listener):
        def on_ping(self, ws: Any, data: bytes) -> None:
            ws.send_nowait(bytes(1000))

        on_pong = on_ping

    async def main() -> None:
        nonlocal most
        async with contextlib.AsyncExitStack() as stack:
            if api == "listener":
                server: Any = serve(Answers, LOOPBACK, 0, max_control_rate=None)
                server = await stack.enter_async_context(server)
                connections = server.all_connections
            else:
                server = WebSocketServer(
                    LOOPBACK, 0, auto_accept=True, max_control_rate=None
                )
                server.on(
                    "connect",
                    lambda c: [
                        c.on(n, lambda _: c.send(bytes(1000))) for n in ("ping", "pong")
                    ],
                )
                await stack.enter_async_context(server)
                connections = server._connections
            address = server.sockets[0].getsockname()
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(address)
            sock.setblocking(False)
            peer = Raw(sock, True)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, request())
            data = peer.frame(opcode) * 2000
            with contextlib.suppress(TimeoutError):
                for _ in range(1000):
                    async with asyncio.timeout(0.3):
                        await loop.sock_sendall(sock, data)
                    await asyncio.sleep(0)
                    most = max([most] + [ws.buffered_amount for ws in connections])
            most = max([most] + [ws.buffered_amount for ws in connections])
            peer.reset()

    run_on(None, main())
    assert 0 < most < 500_000


# -- peers that do not end -------------------------------------------------------------

quick = victim_fixture("coroutine", "sync", "client", "client-sync", close_timeout=0.2)


def test_peer_that_never_closes(quick: Victim) -> None:
    """Once the other end has failed the connection, it goes after ``close_timeout``."""
    with quick.attack(seconds=10) as peer:
        peer.send(peer.frame(0xB))
        assert peer.closing()[0] == 1002
        # It hangs up, although this end neither answers nor hangs up.
        assert peer.gone() in ("FIN", "RST")


silent = victim_fixture(
    "coroutine",
    "listener",
    "sync",
    "client",
    "client-sync",
    ping_interval=0.3,
    ping_timeout=0.3,
)


def test_silent_peers(silent: Victim) -> None:
    """One that answers no ping; and one to whom no close frame could be written."""
    with silent.attack() as peer, contextlib.closing(silent.connect().sock) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(0.1)
        data = peer.frame(BINARY, bytes(100_000))
        gone = False
        began = time.monotonic()
        while not gone and time.monotonic() < began + 20:
            try:
                deaf.send(data)
            except TimeoutError:
                pass
            except ConnectionError:
                gone = True
        assert gone
        assert peer.read()[0] == PING
        assert peer.ends(1011, "keepalive ping timeout") == "FIN"


# -- what the program has done with ----------------------------------------------------


def pour(address: Any, data: bytes, stop: threading.Event) -> None:
    """Send without end, from a thread."""
    with contextlib.suppress(OSError), socket.create_connection(address) as sock:
        sock.settimeout(0.1)
        sock.sendall(request())
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                sock.sendall(data)  # whole or not: nobody looks any more


def test_messages_after_the_program_has_closed() -> None:
    """They are read, for a close frame may be behind them, and dropped."""
    sizes: list[int] = []

    async def main() -> None:
        stop = threading.Event()

        async def close(ws: Any) -> None:
            await ws.recv()
            closing = asyncio.create_task(ws.close())
            before = ws.stats().bytes_received
            while ws.stats().bytes_received < before + 20_000_000 and not ws.is_lost:
                sizes.append(ws.queued_size)
                await asyncio.sleep(0.01)
            stop.set()
            await closing

        async with serve(close, LOOPBACK, 0, close_timeout=5) as server:
            address = server.sockets[0].getsockname()
            data = Maker(True).frame(BINARY, bytes(50_000))
            await asyncio.to_thread(pour, address, data, stop)

    asyncio.run(main())
    assert max(sizes) < 5_000_000


def test_stream_that_was_closed() -> None:
    """Bytes for a stream that the program has closed are dropped."""
    sizes: list[int] = []

    async def main() -> None:
        stop = threading.Event()

        async def take(ws: Any) -> None:
            reader, writer = websock.open_stream(ws)
            while not reader._paused:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            writer.close()
            before = ws.stats().bytes_received
            while ws.stats().bytes_received < before + 20_000_000 and not ws.is_lost:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            sizes.append(len(reader._buffer))  # type: ignore[attr-defined]
            stop.set()

        async with serve(take, LOOPBACK, 0, close_timeout=5) as server:
            address = server.sockets[0].getsockname()
            peer = Maker(True)
            data = peer.frame(BINARY, bytes(50_000))
            thread = asyncio.create_task(asyncio.to_thread(pour, address, data, stop))
            while not sizes:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await thread

    run_on(None, main())
    assert sizes[0] < 1_000_000


def test_reading_a_message_in_little_pieces() -> None:
    """A part is not copied for each read of a little of it."""
    spent: list[float] = []

    async def main() -> None:
        async def take(ws: Any) -> None:
            for size in (len(message) // 4, 10):
                async with ws.recv_stream() as reader:
                    began = time.process_time()
                    parts = []
                    while part := await reader.read(size):
                        parts.append(part)
                    assert b"".join(parts) == message
                    spent.append(time.process_time() - began)

        message = bytes(range(256)) * 4096
        async with (
            serve(take, LOOPBACK, 0) as server,
            websock.connect(
                f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/",
                compression=None,
            ) as ws,
        ):
            await ws.send(message)
            await ws.send(message)
            await ws.wait_closed()

    run_on(None, main())
    # 105,000 reads, of which each would copy half a MiB: 50 GB take seconds.
    assert spent[1] < spent[0] + 1.5


def test_others_are_served(full: bool) -> None:
    """One connection that sends all it can does not keep the loop for long."""
    gaps: list[float] = []

    async def main() -> None:
        # Sockets that are accepted have the sizes of the one that listens.
        listening = socket.create_server((LOOPBACK, 0))
        if not full:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        async with serve(Echo, sock=listening) as server:
            loop = asyncio.get_running_loop()
            address = server.sockets[0].getsockname()
            stop = threading.Event()
            peer = Maker(True)
            data = peer.frame(BINARY, b"x") * 100_000
            thread = asyncio.create_task(asyncio.to_thread(pour, address, data, stop))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request())
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(2 if full else 1):
                began = loop.time()
                writer.write(peer.frame(TEXT, b"x"))
                await reader.readexactly(3)
                gaps.append(loop.time() - began)
            stop.set()
            await thread
            writer.close()
            await writer.wait_closed()

    run_on(None, main())
    assert min(gaps) < 10
