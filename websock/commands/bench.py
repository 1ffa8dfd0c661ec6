"""``python -m websock bench``: how fast an echo server answers."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from typing import Any

from ..asyncio.client import ClientConnection, connect
from ..exceptions import WebSocketException

__all__ = ["add_command", "percentile"]


def percentile(values: list[float], part: float) -> float:
    """Return the value below which a part of the sorted values are.

    Args:
        values: Sorted, at least one.
        part: From 0 to 1.
    """
    return values[min(len(values) - 1, max(0, math.ceil(part * len(values)) - 1))]


async def drive(
    ws: ClientConnection, message: str | bytes, depth: int, until: float
) -> list[float]:
    """Keep messages under way; return the times from sending to the answer."""
    times: list[float] = []
    sent: list[float] = []
    clock = time.perf_counter
    for _ in range(depth):
        sent.append(clock())
        await ws.send(message)
    first = 0
    while first < len(sent):
        answer = await ws.recv()
        now = clock()
        if answer != message:
            raise ValueError("the answer is not the message: is this an echo server?")
        times.append(now - sent[first])
        first += 1
        if now < until:
            sent.append(now)
            await ws.send(message)
        if first > 10_000:
            del sent[:first]
            first = 0
    return times


async def measure(arguments: argparse.Namespace) -> None:
    """Connect, measure, and print the figures."""
    message: str | bytes = "x" * arguments.size
    if arguments.binary:
        message = b"x" * arguments.size
    options: dict[str, Any] = {"max_size": None}
    if not arguments.compression:
        options["compression"] = None
    connections = await asyncio.gather(
        *(connect(arguments.uri, **options) for _ in range(arguments.connections))
    )
    try:
        began = time.perf_counter()
        until = began + arguments.seconds
        found = await asyncio.gather(
            *(drive(ws, message, arguments.depth, until) for ws in connections)
        )
        elapsed = time.perf_counter() - began
    finally:
        await asyncio.gather(*(ws.close() for ws in connections))
    times = sorted(seconds for some in found for seconds in some)
    rate = len(times) / elapsed
    kind = "binary" if arguments.binary else "text"
    print(
        f"{arguments.connections} connections, {arguments.depth} messages in flight on "
        f"each, {arguments.size} bytes of {kind}, {elapsed:.1f} s"
    )
    megabytes = rate * arguments.size / 1e6
    print(f"messages  {len(times)}, {rate:,.0f}/s, {megabytes:.1f} MB/s")
    shown = "  ".join(
        f"{name} {percentile(times, part) * 1000:.3f} ms"
        for name, part in (("50 %", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("max", 1))
    )
    print(f"answer in {shown}")


def run(arguments: argparse.Namespace) -> None:
    """Carry out the command."""
    try:
        asyncio.run(measure(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError, WebSocketException) as exc:
        print(f"websock: {exc}", file=sys.stderr)
        sys.exit(1)


def at_least_one(text: str) -> int:
    """Parse a number of things."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "bench",
        help="measure an echo server",
        description="Sends messages to an echo server and measures the time until they "
        "are back. The client is one process of Python: fast servers wait for it.",
    )
    parser.add_argument("uri", metavar="URL", help="ws:// or wss://")
    for name, default, text in (
        ("--connections", 10, "connections"),
        ("--depth", 1, "messages in flight on each connection"),
    ):
        parser.add_argument(
            name,
            type=at_least_one,
            default=default,
            metavar="N",
            help=f"{text} (default: {default})",
        )
    parser.add_argument(
        "--size", type=int, default=32, metavar="BYTES", help="default: %(default)s"
    )
    parser.add_argument(
        "--seconds", type=float, default=5, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--binary", action="store_true", help="binary messages")
    parser.add_argument("--compression", action="store_true", help="compress messages")
    parser.set_defaults(run=run)
