"""Kernels and the codec without sockets: runs the pytest-benchmark files, as a table.

The files can be run by hand too (``pytest bench``); here their figures are set beside
the machine's facts and written like those of the other suites.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import libraries, report
from .process import BenchError

FILES = {"kernels": "test_kernels.py", "codec": "test_codec.py"}

# What a group is compared with: a group's name begins with the key, and one of its
# tests' names contains the value. The first that is there is taken.
BASELINES = {
    "decode": ("of_cpython",),
    "mask": ("test_copy", "of_aiohttp", "py"),
    "": ("of_websockets", "py"),
}


def run(name: str, python: str, seconds: float = 0.2) -> list[dict[str, Any]]:
    """Run one of the files.

    Args:
        name: A key of ``FILES``.
        python: Interpreter; it needs pytest-benchmark.
        seconds: How long each benchmark is measured at least.

    Returns:
        For each benchmark: group, name, median and spread in nanoseconds.

    Raises:
        BenchError: If it fails.
    """
    root = libraries.BENCH.parent
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "out.json")
        # The path first: the harness's own environment may hold another websock.
        command = [python, "-m", "pytest", f"bench/{FILES[name]}", "-q"]
        command += [f"--benchmark-json={output}", f"--benchmark-max-time={seconds}"]
        command += ["--benchmark-min-rounds=20", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=root, stdout=sys.stderr, check=False)
        if done.returncode:
            raise BenchError(f"pytest {FILES[name]} failed: {done.returncode}")
        found = json.loads(output.read_text())["benchmarks"]
    return [
        {
            "suite": name,
            "group": item["group"],
            "name": item["name"],
            "ns": item["stats"]["median"] * 1e9,
            "low_ns": item["stats"]["min"] * 1e9,
            "iqr_ns": item["stats"]["iqr"] * 1e9,
            "rounds": item["stats"]["rounds"],
        }
        for item in found
    ]


def markdown(title: str, facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the report of some benchmarks, a table for each group."""
    parts = [f"# {title}", f"`{facts['command']}`", report.machine_lines(facts)]
    parts.append(
        "Medians. `x` is the time relative to the first line, which is a peer, plain "
        "memory or the pure twin: less is faster. These are calls from Python, so the "
        "call itself is in every figure."
    )
    for group in dict.fromkeys(row["group"] for row in rows):
        parts += [f"## {group[0].upper()}{group[1:]}", _table(group, rows)]
    return "\n\n".join(parts) + "\n"


def _table(group: str, rows: list[dict[str, Any]]) -> str:
    mine = [row for row in rows if row["group"] == group]
    base = _baseline(group, mine)
    mine.sort(key=lambda row: (row is not base, row["ns"]))
    size, count = _bytes_of(group)
    lines = []
    for row in mine:
        speed = f"{size * count / row['ns']:.2f}" if size else ""
        lines.append(
            [
                _label(row["name"]),
                report.number(row["ns"]),
                report.number(row["iqr_ns"]),
                speed,
                report.number(row["ns"] / base["ns"]),
            ]
        )
    return report.table(["", "ns", "spread (IQR)", "GB/s", "x"], lines)


def _baseline(group: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    for start, names in BASELINES.items():
        if group.startswith(start):
            for name in names:
                for row in rows:
                    if name in row["name"]:
                        return row
    return rows[0]


def _bytes_of(group: str) -> tuple[int, int]:
    """Return the bytes of a message and the number of messages; 0 when not said."""
    match = re.search(r"(?:(\d+) x )?(\d+) B", group)
    if match is None:
        return 0, 0
    return int(match[2]), int(match[1] or 1)


def _label(name: str) -> str:
    """``test_mask[c-32]`` is `mask (c)`, ``test_decode_of_cpython[…]`` says it."""
    stem, _, inside = name.partition("[")
    stem = stem.removeprefix("test_").replace("_", " ")
    words = inside.rstrip("]").split("-")
    tags = {"c", "py", "server", "client", "scalar", "sse2", "avx2", "neon"}
    twins = [word for word in words if word in tags]
    return f"{stem} ({', '.join(twins)})" if twins else stem
