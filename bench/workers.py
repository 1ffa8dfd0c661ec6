"""What more worker processes bring: an echo server with one, with two, and so on.

Connections are spread by the kernel, so there are many of them, and how evenly that
went is a part of the figure.  No process is bound to a core: with fewer cores than
workers and one for the load, they get in each other's way, and the report says so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from . import libraries, load, report
from .cases import Case
from .process import BenchError, Metered, free_port, running
from .run import say
from .stats import figure

CASES = (
    Case(connections=256, depth=1, size=32),
    Case(connections=256, depth=16, size=32),
)
PATIENCE = 30.0


def measure(case: Case, workers: int, python: str) -> dict[str, Any]:
    """Put a load on so many workers; return the row.

    Args:
        case: The load.
        workers: How many.
        python: Interpreter of the workers.

    Raises:
        BenchError: When they do not start, or a reply is wrong.
    """
    port = free_port()
    script = str(libraries.SERVERS / "workers_echo.py")
    command = [python, script, str(workers), "--port", str(port), "--loop", case.loop]
    environment = libraries.python_environment(libraries.LIBRARIES["websock"], python)
    with running(command, core=None, environment=environment) as server:
        facts = json.loads(server.read_line(PATIENCE))
        _wait_for_workers(server, workers)
        loaded = load.drive(case, port, server, core=None)
    result = loaded.result
    if not result["correct"]:
        raise BenchError(f"{workers} workers, {case.title}: {result['error']}")
    return {
        **facts,
        "workers": workers,
        "case": case.title,
        "answered": result["messages"],
        "rate": result["rate"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "cpu_us": loaded.cpu.total * 1e6 / result["messages"],
    }


def _wait_for_workers(server: Metered, workers: int) -> None:
    ready: set[str] = set()
    while len(ready) < workers:
        found = re.match(r"worker (\d+) .* is ready", server.read_line(PATIENCE))
        if found:
            ready.add(found[1])


def run(
    counts: Sequence[int], python: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measure all cases with all numbers of workers, in interleaved rounds."""
    rows = []
    for number in range(rounds):
        for case in CASES:
            for workers in counts:
                row = measure(case.with_(seconds=seconds), workers, python)
                rows.append({**row, "round": number})
                say(
                    f"{workers} workers, {row['case']}: {row['rate']:,.0f}/s, "
                    f"{row['cpu_us']:.2f} us"
                )
    return rows


def markdown(facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return the report."""
    counts = list(dict.fromkeys(row["workers"] for row in rows))
    cores = len(os.sched_getaffinity(0))
    parts = [
        "# What workers bring",
        f"`{facts['command']}`",
        report.machine_lines(facts),
        "An echo server of `websock.run(workers=N)`, coroutine API. CPU is that of all "
        "workers and their supervisor, in microseconds for each message; the median, "
        "in brackets the smallest and largest round. The gain is in messages/s, over "
        f"the first line. {cores} cores for workers and load: from {cores} workers on "
        "they share them, and messages/s are less than the workers could do.",
    ]
    for title in dict.fromkeys(row["case"] for row in rows):
        lines = []
        first = 0.0
        for workers in counts:
            found = [
                row for row in rows if (row["case"], row["workers"]) == (title, workers)
            ]
            rate = figure([row["rate"] for row in found])
            first = first or rate.median
            lines.append(
                [
                    f"{workers}",
                    report.spread(rate),
                    f"{rate.median / first:.2f}",
                    report.spread(figure([row["cpu_us"] for row in found])),
                    report.spread(figure([row["p50_us"] for row in found])),
                    report.spread(figure([row["p99_us"] for row in found])),
                ]
            )
        header = ["workers", "messages/s", "gain", "CPU us", "p50 us", "p99 us"]
        parts += [f"## {title}", report.table(header, lines)]
    return "\n\n".join(parts) + "\n"
