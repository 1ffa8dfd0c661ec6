"""Memory stays flat: ``python tests/leaks/run.py --scale 100``.

Each scenario runs some rounds to warm up and then as many again, several times. What
the collector counts, by type, must not grow with the rounds, nor may the resident
memory beyond a bound. Runs on the backend that the environment chooses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from wire import MASK, frame  # noqa: E402

import websock  # noqa: E402
from websock.sync.client import connect as connect_sync  # noqa: E402

MAX_GROWTH = 6 * 2**20
"""Bytes of resident memory; allocators keep some."""

Round = Callable[[int], Awaitable[None]]


async def handler(ws: websock.ServerConnection) -> None:
    async for message in ws:
        if message == "raise":
            raise RuntimeError("a handler that fails")
        await ws.send(message)


async def echo(port: int) -> None:
    async with websock.connect(f"ws://127.0.0.1:{port}") as ws:
        for size in (0, 5, 200, 70_000):
            for data in ("é" * size, b"a" * size):
                await ws.send(data)
                assert await ws.recv() == data
        for number in range(200):
            await ws.send(str(number))
            await ws.recv()
        await ws.send(["in ", "fragments"])
        assert [part async for part in ws.recv_streaming()]
        await (await ws.ping())


async def plain(port: int) -> None:
    async with websock.connect(f"ws://127.0.0.1:{port}", compression=None) as ws:
        await ws.send("a")
        await ws.recv()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.001)
    with contextlib.suppress(websock.ConnectionClosed):
        await ws.send("too late")


async def fails(port: int) -> None:
    async with websock.connect(f"ws://127.0.0.1:{port}") as ws:
        await ws.send("raise")
        with contextlib.suppress(websock.ConnectionClosed):
            await ws.recv()


async def cancelled(port: int) -> None:
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await websock.connect(f"ws://127.0.0.1:{port}")


REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def raw(port: int) -> None:
    """Bad frames, bad requests, and connections that are reset."""
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"junk\r\n",
        REQUEST + frame(3, b"", mask=MASK),
        REQUEST + frame(1, b"\xff", mask=MASK),
        REQUEST + frame(2, b"", mask=MASK, length=2**62),
        REQUEST + frame(1, b"a", fin=False, mask=MASK) + frame(8, b"\x03", mask=MASK),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        await reader.read()
        writer.close()
        await writer.wait_closed()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST + frame(1, b"half", mask=MASK)[:-1])
    await reader.readuntil(b"\r\n\r\n")
    linger = b"\1\0\0\0\0\0\0\0"
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, linger
    )
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def threads(port: int) -> None:
    def run() -> None:
        with connect_sync(f"ws://127.0.0.1:{port}") as ws:
            ws.send("a")
            assert ws.recv() == "a"

    await asyncio.to_thread(run)


SCENARIOS: dict[str, tuple[Round, int]] = {
    "echo": (echo, 5),
    "plain": (plain, 20),
    "fails": (fails, 20),
    "cancelled": (cancelled, 20),
    "raw": (raw, 10),
    "threads": (threads, 10),
}


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def settled(server: websock.Server) -> Counter[str]:
    """Wait until the server holds no connection; count what is left, by type."""
    while server.connections:  # noqa: ASYNC110 - nothing tells when the last one goes
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0.01)
        gc.collect()
    items = gc.get_objects()
    counts = Counter(type(item).__qualname__ for item in items)
    # Loops keep up to a hundred cancelled timers, with their contexts, until they are due.
    kept = sum(isinstance(i, asyncio.TimerHandle) and i.cancelled() for i in items)
    counts["TimerHandle"] -= kept
    counts["Context"] -= min(kept, counts["Context"])
    return counts


async def measure(name: str, scale: int) -> bool:
    once, rounds = SCENARIOS[name]
    rounds *= scale
    async with websock.serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(rounds):
            await once(port)
        before, memory = await settled(server), resident()
        grown: list[Counter[str]] = []
        for _ in range(3):
            for _ in range(rounds):
                await once(port)
            now = await settled(server)
            grown.append(now - before)
        growth = resident() - memory
        # One for each round is a leak; a few are a cache.
        leaks = {kind: n for kind, n in grown[-1].items() if n >= 2 * rounds}
        print(
            f"{name:10} {4 * rounds:8} rounds, {growth / 2**20:6.2f} MiB, {leaks or 'flat'}"
        )
        return not leaks and growth < MAX_GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--scale", type=int, default=1, help="rounds, times this")
    options = parser.parse_args()
    logging.disable()
    print(f"backend {websock.BACKEND}")
    flat = [asyncio.run(measure(name, options.scale)) for name in SCENARIOS]
    return int(not all(flat))


if __name__ == "__main__":
    sys.exit(main())
