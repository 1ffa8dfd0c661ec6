"""What every client script shares: options, payloads, the clock, the check.

A client script connects to the C echo server, exchanges messages for the
warm-up time, prints ``ready`` and waits for a line on standard input, then
does the same for the measured time and prints what it found as JSON. Every
reply is compared with what was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

VARIANTS = 16


class Tally:
    """Counts one phase: its messages, its latencies, whether all was right."""

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter()
        self.deadline = self.start + seconds
        self.messages = 0
        self.latencies: list[float] = []
        self.correct = True

    def add(self, sent_at: float, now: float, messages: int) -> bool:
        """Count a batch; say whether there is time for another."""
        self.messages += messages
        self.latencies.append(now - sent_at)
        return self.correct and now < self.deadline

    def result(self) -> dict[str, Any]:
        """Return what the harness reads."""
        seconds = time.perf_counter() - self.start
        ordered = sorted(self.latencies) or [0.0]
        return {
            "messages": self.messages,
            "seconds": seconds,
            "rate": self.messages / seconds,
            "p50_us": ordered[len(ordered) // 2] * 1e6,
            "p99_us": ordered[len(ordered) * 99 // 100] * 1e6,
            "correct": self.correct,
            "error": "" if self.correct else "a reply differs from what was sent",
        }


def parse_arguments() -> argparse.Namespace:
    """Parse the options that all client scripts take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--kind", default="text")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.3)
    options = parser.parse_args()
    options.url = f"ws://127.0.0.1:{options.port}/"
    return options


def payloads(options: argparse.Namespace) -> list[Any]:
    """Return some different messages of the wanted size, text or binary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [
        (letters[i:] + letters * (options.size // 26 + 1))[: options.size]
        for i in range(VARIANTS)
    ]
    return [t.encode() for t in texts] if options.kind == "binary" else texts


def install_speedup() -> None:
    """Install the speed-up that the harness asks for; refuse to run without it."""
    name = os.environ.get("BENCH_SPEEDUP")
    if name is None:
        return
    from websock import speedups

    speedups.install(name)
    [found] = [status for status in speedups.status() if status.name == name]
    if found.state != "patched":
        sys.exit(f"unsupported: speed-up of {name}: {found.state}, {found.reason}")


def announce(*distributions: str, loop: str = "", **facts: Any) -> None:
    """Print the first line: versions of what runs, and other facts."""
    install_speedup()
    versions = {}
    for name in distributions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "source tree"
    if loop == "uvloop":
        versions["uvloop"] = importlib.metadata.version("uvloop")
    print(json.dumps({"versions": versions, "loop": loop, **facts}), flush=True)


def announce_websock(options: argparse.Namespace) -> None:
    """Print the first line of a websock client: also backend and kernel."""
    import websock
    from websock import _kernels

    facts = {"backend": websock.BACKEND, "kernel": _kernels.KERNEL}
    announce("websock-fast", loop=options.loop, **facts)


def gate() -> None:
    """Say that the warm-up is over, and wait for the harness."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(tally: Tally) -> None:
    """Print the result."""
    print(json.dumps(tally.result()), flush=True)


def run(options: argparse.Namespace, main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` on the loop that ``--loop`` names."""
    factory: Callable[[], Any] = asyncio.new_event_loop
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


async def exchange(
    options: argparse.Namespace,
    seconds: float,
    send: Callable[[Any], Any],
    receive: Callable[[], Any],
) -> Tally:
    """Send batches and await their echoes until the time is over."""
    messages = payloads(options)
    tally = Tally(seconds)
    go_on, i, depth = True, 0, options.depth
    while go_on:
        sent_at = time.perf_counter()
        for j in range(i, i + depth):
            await send(messages[j % VARIANTS])
        for j in range(i, i + depth):
            if await receive() != messages[j % VARIANTS]:
                tally.correct = False
        i += depth
        go_on = tally.add(sent_at, time.perf_counter(), depth)
    return tally


async def measure(
    options: argparse.Namespace,
    send: Callable[[Any], Any],
    receive: Callable[[], Any],
) -> None:
    """Do the warm-up, the measured phase, and the report."""
    await exchange(options, options.warmup, send, receive)
    gate()
    report(await exchange(options, options.seconds, send, receive))


def exchange_blocking(
    options: argparse.Namespace,
    seconds: float,
    send: Callable[[Any], Any],
    receive: Callable[[], Any],
) -> Tally:
    """Do what `exchange` does without an event loop."""
    messages = payloads(options)
    tally = Tally(seconds)
    go_on, i, depth = True, 0, options.depth
    while go_on:
        sent_at = time.perf_counter()
        for j in range(i, i + depth):
            send(messages[j % VARIANTS])
        for j in range(i, i + depth):
            if receive() != messages[j % VARIANTS]:
                tally.correct = False
        i += depth
        go_on = tally.add(sent_at, time.perf_counter(), depth)
    return tally


def measure_blocking(
    options: argparse.Namespace,
    send: Callable[[Any], Any],
    receive: Callable[[], Any],
) -> None:
    """Do what `measure` does without an event loop."""
    exchange_blocking(options, options.warmup, send, receive)
    gate()
    report(exchange_blocking(options, options.seconds, send, receive))


class Exchange:
    """The same for callbacks: call `start`, then `got` for every message."""

    def __init__(self, options: argparse.Namespace, send: Callable[[Any], Any]) -> None:
        self.options = options
        self.send = send
        self.messages = payloads(options)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_warm = False
        self.sent = self.received = 0
        self.tally = Tally(options.warmup)
        self.sent_at = 0.0

    def start(self) -> None:
        """Send a batch."""
        self.sent_at = time.perf_counter()
        for _ in range(self.options.depth):
            self.send(self.messages[self.sent % VARIANTS])
            self.sent += 1

    def got(self, message: Any) -> None:
        """Check a reply; send the next batch after the last of this one."""
        if message != self.messages[self.received % VARIANTS]:
            self.tally.correct = False
        self.received += 1
        if self.received < self.sent:
            return
        depth = self.options.depth
        if self.tally.add(self.sent_at, time.perf_counter(), depth):
            self.start()
        elif self.is_warm:
            report(self.tally)
            if not self.done.done():
                self.done.set_result(None)
        else:
            gate()
            self.is_warm = True
            self.tally = Tally(self.options.seconds)
            self.start()
