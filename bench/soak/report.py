"""The soak's figures as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..report import machine_lines, table
from .judge import (
    JUDGED_AFTER,
    MAX_GROWTH,
    MAX_GROWTH_BLOCKS,
    MAX_GROWTH_BYTES,
    MAX_SETTLED_BYTES,
    SETTLED_AFTER,
    without_connections,
)
from .run import MALLOC, Plan


def markdown(
    plan: Plan,
    facts: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    faults: Sequence[str],
) -> str:
    """Return the whole report of a run."""
    last = rows[-1]
    ended = [row for row in rows if "process" in row]
    minutes = max(row["ended"] for row in ended) / 60
    parts = [
        "# Soak",
        f"`{facts['command']}`",
        machine_lines(facts),
        f"{minutes:.0f} minutes, seed {plan.seed}. Two services with both APIs, with "
        "and without TLS: *steady* is one process from beginning to end, *rolling* was "
        f"restarted {last['restarts']} times: a new process took over its listening "
        f"sockets, and the old one closed its connections over {plan.drain:g} seconds, "
        "with code 1012. Messages of 0 bytes to 1 MiB, text and binary, whole, in "
        "fragments and prepared, compressed and not.",
        "Verdict: " + ("**passed**" if not faults else "**failed**"),
    ]
    if faults:
        parts.append("\n".join(f"- {fault}" for fault in faults))
    parts += [
        "## Messages",
        "Each message was answered with the same one, in order, or the close of its "
        "connection says why not: *restart* is code 1012, *aborted* is a client that "
        "drops its connection in between, *left early* one that closes it without "
        "waiting for answers.",
        _accounts(last["totals"]),
        "`resilient()` tells what no pong has confirmed, which may have been answered "
        "all the same. A subscriber counts what it received; none of the numbers in "
        "between was left out.",
        "## Processes",
        "The environment of all: "
        + ", ".join(f"`{name}={value}`" for name, value in MALLOC.items())
        + ".",
        "Memory *in use* is resident memory less what malloc holds free. A server may "
        f"have {MAX_SETTLED_BYTES >> 20} MiB more in use after its last connection "
        "than before its first (*idle*, *settled*). The number of Python's blocks may "
        f"grow by {MAX_GROWTH_BLOCKS:.0%} in a process that lived {JUDGED_AFTER:g} "
        "seconds, from the first fifth after its warm-up (a fifth of its life) to its "
        f"last, medians. In one that lived {SETTLED_AFTER / 60:g} minutes, memory in "
        f"use and resident memory may grow by {MAX_GROWTH:.0%} or "
        f"{MAX_GROWTH_BYTES >> 20} MiB, whichever is more; before, messages in flight "
        "and the holes between those of random sizes hide any trend, so servers that "
        "are replaced sooner may not exceed the resident level of the steady one by "
        "more. Without clients, the steady process must have the files open that it "
        "had at first, and no connection may be left as an object in any process that "
        "ends.",
        _processes(ended),
    ]
    return "\n\n".join(parts) + "\n"


def _accounts(totals: dict[str, Any]) -> str:
    lines = []
    for kind in sorted(totals):
        sums = totals[kind]
        reasons = ", ".join(
            f"{n} {why}" for why, n in sorted(sums["unanswered"].items())
        )
        ends = ", ".join(f"{n} {why}" for why, n in sorted(sums["ends"].items()))
        lines.append(
            [
                kind,
                f"{sums['connections']:,}",
                f"{sums['sent']:,}",
                f"{sums['answered']:,}",
                f"{sums['bytes'] / 1e6:,.0f}",
                reasons or "0",
                ends,
                str(sums["failures"]),
            ]
        )
    header = ["clients", "connections", "sent", "answered", "MB", "not answered"]
    return table([*header, "connections ended", "failures"], lines)


def _processes(ended: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in ended:
        seconds = row["ended"] - row["started"]
        growth = row["growth"]
        lines.append(
            [
                f"{row['process']} ({row['started'] / 60:.0f} min on)",
                f"{seconds / 60:.1f}",
                f"{row['cpu'] / seconds:.1%}",
                _pair(growth.get("memory"), _megabytes),
                f"{row['most_memory'] / 1e6:.1f}",
                _pair(growth.get("in_use"), _megabytes),
                _pair(without_connections(row), _megabytes),
                _pair(growth.get("blocks"), "{:,}".format),
                str(row["idle_files"] or ""),
                str(row["most_files"]),
                f"{row['connections_total']:,}" if "connections_total" in row else "",
                str(row["left_over"]),
            ]
        )
    header = ["process", "minutes", "CPU", "MB resident: warm, end", "MB at most"]
    header += ["MB in use: warm, end", "MB in use: idle, settled"]
    header += ["blocks: warm, end", "files idle", "files at most"]
    return table([*header, "connections served", "objects left"], lines)


def _pair(pair: Sequence[int] | None, text: Callable[[int], str]) -> str:
    return ", ".join(map(text, pair)) if pair else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
