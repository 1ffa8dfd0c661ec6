"""Threads that serve at once, with or without a lock around Python: nothing is mixed up.

All that they share is at work: the pool of masks and the parsers of one process, messages
that are prepared once, the application's own state, the hub between their topics.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import run_on
from supervised import TIMEOUT, supervised_fixture

import websock

pytestmark = pytest.mark.usefixtures("interruptible")

serve = supervised_fixture()

THREADS = 3
CLIENTS = 24  # so that each thread has some, by all odds
ROUNDS = 60

APP = """
import threading
import websock

GREETING = websock.prepare("welcome", compress=True)
lock = threading.Lock()
served = 0

async def handler(ws):
    global served
    with lock:
        served += 1
    await ws.send(GREETING)
    await ws.send(threading.current_thread().name)
    if ws.request.path == "/":
        await ws.subscribe("all")
    await ws.send("subscribed")
    async for message in ws:
        if message == "count":
            await ws.send(f"{served}")
        elif isinstance(message, str) and message.startswith("all "):
            ws.server.publish("all", message)
        else:
            # As a client does: in threads, and masked.
            await ws.send(message)

async def calling(ws):
    # Each message is passed on to the other handler, by a client in this thread.
    host, port = ws.local_address[:2]
    async with websock.connect(f"ws://{host}:{port}/echo", compression=None) as other:
        for _ in range(3):
            await other.recv()
        async for message in ws:
            await other.send(message)
            await ws.send(await other.recv())

async def choose(ws):
    await (calling if ws.request.path == "/calling" else handler)(ws)
"""


def test_all_at_once(serve: Any, tmp_path: Path) -> None:
    """Many clients of each thread: every echo is right, every copy comes, in order."""
    (tmp_path / "threaded.py").write_text(APP)
    server = serve("threaded:choose", "--threads", str(THREADS))
    url = server.says(r" at (ws\S+)\n")[1]
    server.has(*(rf"worker {n} \(thread\) is ready" for n in range(2, THREADS + 1)))

    async def come(number: int, subscribed: asyncio.Barrier) -> str:
        compression = "deflate" if number % 2 else None
        async with websock.connect(url, compression=compression) as ws:
            assert await ws.recv() == "welcome"
            thread = await ws.recv()
            assert await ws.recv() == "subscribed"
            await subscribed.wait()
            copies: dict[str, list[int]] = {}
            echoes = []
            for round in range(ROUNDS):
                await ws.send(f"all {number} {round}")
                await ws.send(f"{number} {round} ".ljust(40 * round, "é"))
                await ws.send(bytes((number,)) * round * 300)
            while len(echoes) < 2 * ROUNDS or sum(map(len, copies.values())) < (
                CLIENTS * ROUNDS
            ):
                message = await ws.recv()
                if isinstance(message, str) and message.startswith("all "):
                    _, who, which = message.split()
                    copies.setdefault(who, []).append(int(which))
                else:
                    echoes.append(message)
            for round in range(ROUNDS):
                assert echoes[2 * round] == f"{number} {round} ".ljust(40 * round, "é")
                assert echoes[2 * round + 1] == bytes((number,)) * round * 300
            assert copies == {str(n): list(range(ROUNDS)) for n in range(CLIENTS)}
            # One that leaves would be one thread less that publishes.
            await subscribed.wait()
            return str(thread)

    async def call(number: int) -> None:
        async with websock.connect(f"{url}/calling") as ws:
            for round in range(ROUNDS):
                message = f"{number} {round} ".ljust(20 * round, "é")
                await ws.send(message)
                assert await ws.recv() == message

    async def main() -> None:
        async with asyncio.timeout(2 * TIMEOUT), asyncio.TaskGroup() as group:
            subscribed = asyncio.Barrier(CLIENTS)
            comers = [
                group.create_task(come(number, subscribed)) for number in range(CLIENTS)
            ]
            for number in range(CLIENTS // 2):
                group.create_task(call(number))
        assert len({task.result() for task in comers}) > 1
        async with websock.connect(url) as ws:
            for _ in range(3):
                await ws.recv()
            await ws.send("count")
            assert await ws.recv() == str(CLIENTS + CLIENTS // 2 + 1)

    run_on(None, main())
    if sys.platform != "win32":
        output = server.stop()
        assert "Traceback" not in output
        assert "Warning" not in output
