"""websock, many clients in one process: all are held and echo at the same time.

Each sends its next message when the last one has come back, and none closes before all
are done. Prints a JSON line when it could start, when all are open, when all are done,
and when all are closed; waits for a line on standard input after each but the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import common

import websock

# How many may be on the way at the same time: a listener's backlog is not longer.
OPENING = 100

# Source addresses that are used in turn: one has only 28,000 ports.
SOURCES = 200

PATIENCE = 60.0


class Crowd:
    """What the clients share: the start, the end, and the counts.

    Args:
        url: Where they connect to.
        size: How many they are.
        seconds: How long they send.
    """

    def __init__(self, url: str, size: int, seconds: float) -> None:
        self.url = url
        self.size = size
        self.seconds = seconds
        self.deadline = 0.0
        self.opening = asyncio.Semaphore(OPENING)
        self.all_done = asyncio.Event()
        self.answered = [0] * size
        self.waiting = [False] * size
        self.opened = self.done = self.closed = 0
        self.error = ""

    async def open(self, number: int, **extra: Any) -> Any:
        """Open a connection; ``None`` if it fails, which is noted."""
        source = f"127.0.0.{2 + number % SOURCES}"
        try:
            async with self.opening:
                ws = await websock.connect(
                    self.url, compression=None, local_addr=(source, 0), **extra
                )
        except Exception as exc:
            self.note(number, exc)
            return None
        self.opened += 1
        return ws

    def note(self, number: int, what: object) -> None:
        """Keep the first thing that went wrong."""
        self.error = self.error or f"client {number}: {what!r}"

    def next_message(self, number: int) -> str | None:
        """Return a client's next message; ``None`` when the time is over."""
        if time.perf_counter() >= self.deadline:
            self.finish()
            return None
        self.waiting[number] = True
        return f"{number}:{self.answered[number]}:".ljust(32, "-")

    def got(self, number: int, message: Any) -> None:
        """Compare an answer with the message that is waiting for one."""
        if message != f"{number}:{self.answered[number]}:".ljust(32, "-"):
            self.note(number, f"expected number {self.answered[number]}, got {message}")
            return
        self.answered[number] += 1
        self.waiting[number] = False

    def finish(self) -> None:
        """One client is done, or lost."""
        self.done += 1
        if self.done == self.size:
            self.all_done.set()

    def closed_with(self, number: int, code: int) -> None:
        """Note how a connection ended."""
        if code == 1000:
            self.closed += 1
        else:
            self.note(number, f"closed with {code}")

    def report(self, seconds: float) -> dict[str, Any]:
        """Return what the harness reads."""
        messages = sum(self.answered)
        return {
            "messages": messages,
            "seconds": seconds,
            "rate": messages / seconds,
            "opened": self.opened,
            "closed": self.closed,
            "waiting": sum(self.waiting),
            "fewest": min(self.answered),
            "correct": not self.error and self.closed == self.size,
            "error": self.error,
        }


class Coroutines:
    """Each client is a task."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.connections: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Open all connections."""
        crowd = self.crowd
        self.connections = await asyncio.gather(*map(crowd.open, range(crowd.size)))

    def start(self) -> None:
        """Have all of them send."""
        self.tasks = [
            asyncio.create_task(self.talk(number, ws))
            for number, ws in enumerate(self.connections)
        ]

    async def talk(self, number: int, ws: Any) -> None:
        """Send and receive until the time is over."""
        crowd = self.crowd
        if ws is None:
            crowd.finish()
            return
        try:
            while (message := crowd.next_message(number)) is not None:
                await ws.send(message)
                crowd.got(number, await ws.recv())
        except websock.ConnectionClosed as exc:
            crowd.note(number, exc)
            crowd.finish()

    async def close(self) -> None:
        """Close all connections that are open."""

        async def close(number: int, ws: Any) -> None:
            await ws.close()
            self.crowd.closed_with(number, ws.close_code)

        await asyncio.gather(*self.tasks)
        await asyncio.gather(
            *(close(n, ws) for n, ws in enumerate(self.connections) if ws is not None)
        )


class Client(websock.Listener):
    """One client with callbacks."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd = crowd
        self.number = number
        self.is_talking = False
        self.closed = asyncio.Event()

    def send_next(self, ws: Any) -> None:
        """Send the next message, unless the time is over."""
        message = self.crowd.next_message(self.number)
        self.is_talking = message is not None
        if message is not None:
            ws.send_nowait(message)

    def on_message(self, ws: Any, message: Any) -> None:
        self.crowd.got(self.number, message)
        self.send_next(ws)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.crowd.closed_with(self.number, code)
        if self.is_talking:
            self.crowd.finish()
        self.closed.set()


class Listeners:
    """Each client is a listener: no tasks while they echo."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.clients = [Client(crowd, number) for number in range(crowd.size)]
        self.connections: list[Any] = []

    async def open(self) -> None:
        """Open all connections."""
        self.connections = await asyncio.gather(
            *(
                self.crowd.open(client.number, listener=client)
                for client in self.clients
            )
        )

    def start(self) -> None:
        """Have all of them send."""
        for client, ws in zip(self.clients, self.connections, strict=True):
            if ws is None or client.closed.is_set():
                self.crowd.finish()
            else:
                client.send_next(ws)

    async def close(self) -> None:
        """Close all connections that are open."""
        for ws in filter(None, self.connections):
            ws.close_nowait()
        for client, ws in zip(self.clients, self.connections, strict=True):
            if ws is not None:
                await client.closed.wait()


async def main() -> None:
    """Do it all."""
    crowd = Crowd(options.url, options.connections, options.seconds)
    clients = Listeners(crowd) if options.listener else Coroutines(crowd)
    common.announce_websock(options)
    await harness_line()
    await clients.open()
    print(json.dumps({"opened": crowd.opened, "error": crowd.error}), flush=True)
    await harness_line()
    began = time.perf_counter()
    crowd.deadline = began + crowd.seconds
    clients.start()
    async with asyncio.timeout(crowd.seconds + PATIENCE):
        await crowd.all_done.wait()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds}), flush=True)
    await harness_line()
    async with asyncio.timeout(PATIENCE):
        await clients.close()
    print(json.dumps(crowd.report(seconds)), flush=True)


async def harness_line() -> None:
    """Wait for a line of the harness; connections go on meanwhile."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def parse_arguments() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--listener", action="store_true")
    found = parser.parse_args()
    found.url = f"ws://127.0.0.1:{found.port}/"
    return found


if __name__ == "__main__":
    options = parse_arguments()
    common.run(options, main())
