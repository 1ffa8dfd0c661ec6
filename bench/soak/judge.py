"""Is the memory of the soak's processes flat?

Three figures, since each misses what another shows:

- *in use*, resident memory less what malloc holds free: may not be more after the last
  connection than before the first.  Under load, the messages that are in flight make it
  go up and down by a tenth, so there it is compared in processes that live long;
- *blocks*, the number of Python's objects: small leaks, before they are megabytes;
- *resident*: grows while holes gather between messages of random sizes, by a tenth in
  minutes, and must level off.  A process that lives long is measured against its own
  beginning; one that is replaced before is measured against the level of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Seconds that a process must have lived for its growth to be judged: before, caches
# still fill, and the medians are of too few samples.
JUDGED_AFTER = 300.0

# Seconds that it must have lived to be measured against its own memory under load.
SETTLED_AFTER = 1200.0

# What memory may grow by: this share, and this many bytes.  Sizes are random; four
# messages of 1 MiB more in flight are in here.
MAX_GROWTH = 0.10
MAX_GROWTH_BYTES = 4 << 20

# What a server may have in use more after its last connection than before its first:
# code and caches that came with the first.  Nothing is in flight at either time.
MAX_SETTLED_BYTES = 3 << 20

# What the number of blocks may grow by.
MAX_GROWTH_BLOCKS = 0.05


def judge(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the memory of processes that ended.

    Args:
        rows: One for each, as ``run.py`` notes them.
    """
    faults = []
    judged = [row for row in rows if row["growth"] and _age(row) >= JUDGED_AFTER]
    for row in rows:
        faults += _judge_settled(row)
    for row in judged:
        faults += _judge_growth(row)
        faults += _judge_resident(row, judged)
    return faults


def name(row: dict[str, Any]) -> str:
    """Return what a process is called in a report."""
    return f"{row['process']} ({row['started']:.0f} s)"


def without_connections(row: dict[str, Any]) -> tuple[int, int] | None:
    """Return what a server had in use before its first connection, after its last."""
    if "settled" not in row:
        return None
    idle, settled = row["idle"], row["settled"]
    return idle["memory"] - idle["free"], settled["memory"] - settled["free"]


def _age(row: dict[str, Any]) -> float:
    age: float = row["ended"] - row["started"]
    return age


def _allowed(before: int) -> float:
    return before + max(before * MAX_GROWTH, MAX_GROWTH_BYTES)


def _judge_settled(row: dict[str, Any]) -> list[str]:
    if (settled := without_connections(row)) is None:
        return []
    before, after = settled
    if after <= before + MAX_SETTLED_BYTES:
        return []
    return [
        f"{name(row)} has {after >> 10} KiB in use after its last connection, "
        f"{before >> 10} before its first"
    ]


def _judge_growth(row: dict[str, Any]) -> list[str]:
    faults = []
    before, after = row["growth"]["in_use"]
    if _age(row) >= SETTLED_AFTER and after > _allowed(before):
        faults.append(
            f"{name(row)} grew from {before >> 10} to {after >> 10} KiB in use"
        )
    before, after = row["growth"]["blocks"]
    if after > before * (1 + MAX_GROWTH_BLOCKS):
        faults.append(f"{name(row)} grew from {before} to {after} blocks")
    return faults


def _judge_resident(row: dict[str, Any], judged: Sequence[dict[str, Any]]) -> list[str]:
    before, after = row["growth"]["memory"]
    if _age(row) >= SETTLED_AFTER:
        if after > _allowed(before):
            return [f"{name(row)} grew from {before >> 10} to {after >> 10} KiB"]
        return []
    levels = [
        other["growth"]["memory"][1]
        for other in judged
        if _age(other) >= SETTLED_AFTER and other["role"] == row["role"]
    ]
    if levels and after > _allowed(max(levels)):
        return [
            f"{name(row)} holds {after >> 10} KiB, those that live long level off at "
            f"{max(levels) >> 10}"
        ]
    return []
