"""Memory stays flat: ``python tests/leaks/run.py --scale 100``.

Each scenario is played some rounds to warm up and then as often again, several times,
in two ways:

- beside servers that live on: what the collector counts, by type, must not grow with
  the rounds, nor may the resident memory beyond a bound;
- in an event loop of its own each time, which takes its servers with it: the number of
  memory blocks must not grow, nor the sum of reference counts: of all objects in a debug
  build of CPython, else of those that the collector knows.

Runs on the backend that the environment chooses.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from places import Places, Round, open_places  # noqa: E402
from scenarios import MESSAGES, SCENARIOS  # noqa: E402

import websock  # noqa: E402
from websock import _kernels_py  # noqa: E402

MAX_GROWTH = 6 * 2**20
"""Bytes of resident memory; allocators keep some."""

BATCHES = 3
"""After the first, which warms up."""

FEW = 20
"""Blocks that are never taken for a leak, and half as many references: threads that
have just ended, and caches, make a few."""

Certificate = tuple[str, str] | None


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


_at_first: list[object] = []


def set_aside() -> None:
    """Have the collector pass over what there is already, which makes it quick."""
    gc.collect()
    if hasattr(gc, "freeze"):
        _at_first.extend(gc.get_objects())
        gc.freeze()


async def settled(places: Places) -> Counter[str]:
    """Wait until no server holds a connection; count what is left, by type."""
    await places.are_empty()
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


async def grow_beside(
    once: Round, rounds: int, certificate: Certificate
) -> tuple[dict[str, int], int]:
    """Play beside servers that live on.

    Returns:
        What there is more of with each round, by type, and the bytes of growth.
    """
    async with open_places(certificate) as places:
        for _ in range(rounds):
            await once(places)
        before, memory = await settled(places), resident()
        grown: Counter[str] = Counter()
        for _ in range(BATCHES):
            for _ in range(rounds):
                await once(places)
            grown = await settled(places) - before
        # One for each round is a leak; a few are a cache.
        least = max(2 * rounds, FEW)
        leaks = {kind: n for kind, n in grown.items() if n >= least}
        return leaks, resident() - memory


async def play(once: Round, rounds: int, certificate: Certificate) -> None:
    async with open_places(certificate) as places:
        for _ in range(rounds):
            await once(places)
        await places.are_empty()


def count() -> Counter[str]:
    """Count blocks of memory and references; what the interpreter lacks stays out."""
    # How full the pool of masks is, is left to chance.
    _kernels_py._masks.clear()
    for _ in range(3):
        gc.collect()
    counts = Counter[str]()
    if hasattr(sys, "getallocatedblocks"):
        counts["blocks"] = sys.getallocatedblocks()
    if hasattr(sys, "gettotalrefcount"):
        counts["references"] = sys.gettotalrefcount()
    elif hasattr(sys, "getrefcount"):
        items = [None, True, False, *_at_first, *gc.get_objects()]
        counts["references"] = sum(map(sys.getrefcount, items))
    return counts


def grow_alone(once: Round, rounds: int, certificate: Certificate) -> Counter[str]:
    """Play in loops of their own; return what there is more of for each batch.

    The least of the batches counts: a cache that fills takes one of them, a leak all.
    """
    asyncio.run(play(once, rounds, certificate))
    grown: list[Counter[str]] = []
    for _ in range(BATCHES):
        before = count()
        asyncio.run(play(once, rounds, certificate))
        now = count()
        now.subtract(before)
        grown.append(now)
    return Counter({name: min(g[name] for g in grown) for name in grown[0]})


def measure(name: str, scale: int, certificate: Certificate) -> bool:
    once, rounds = SCENARIOS[name]
    return judge(name, once, rounds * scale, certificate)


def judge(name: str, once: Round, rounds: int, certificate: Certificate) -> bool:
    """Play a scenario in both ways; say whether all stays flat."""
    began = time.perf_counter()
    leaks, growth = asyncio.run(grow_beside(once, rounds, certificate))
    each = grow_alone(once, rounds, certificate)
    # Half of what one for each round would be: some go that were there before.
    if each["blocks"] >= max(rounds / 2, FEW):
        leaks["blocks"] = each["blocks"]
    if each["references"] >= max(rounds / 2, FEW / 2):
        leaks["references"] = each["references"]
    played = 2 * (1 + BATCHES) * rounds
    counts = ", ".join(f"{n:+} {what}" for what, n in each.items())
    print(
        f"{name:10} {played:8,} rounds, {time.perf_counter() - began:5.0f} s, "
        f"{growth / 2**20:5.2f} MiB, {counts} a batch: {leaks or 'flat'}",
        flush=True,
    )
    return not leaks and growth < MAX_GROWTH


def make_certificate(directory: str) -> Certificate:
    if shutil.which("openssl") is None:
        return None
    cert, key = f"{directory}/cert.pem", f"{directory}/key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    return cert, key


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--scale", type=int, default=1, help="rounds, times this")
    parser.add_argument("names", nargs="*", choices=[[], *SCENARIOS], metavar="NAME")
    options = parser.parse_args()
    logging.disable()
    each = 2 * (1 + BATCHES) * options.scale
    print(
        f"backend {websock.BACKEND}, "
        f"{SCENARIOS['messages'][1] * each * MESSAGES:,} messages"
    )
    set_aside()
    with tempfile.TemporaryDirectory() as directory:
        certificate = make_certificate(directory)
        if certificate is None:
            print("no TLS: there is no openssl to make a certificate")
        names = options.names or SCENARIOS
        flat = [measure(name, options.scale, certificate) for name in names]
    return int(not all(flat))


if __name__ == "__main__":
    sys.exit(main())
