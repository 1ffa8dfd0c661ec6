"""What a message through a broker costs in instructions: the same on a busy machine.

The two workers of ``brokers`` run under callgrind, which counts what they do outside
the kernel. Messages are published one by one, the next when the one before has arrived,
and many at once. Times say nothing here.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import brokers, report
from .process import BenchError, Metered

MESSAGES = 128  # of which the mean is taken
WARMUP = 64
AT_ONCE = (1, brokers.BURST)


def _callgrind(folder: Path) -> list[str]:
    command = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"]
    return [*command, f"--callgrind-out-file={folder}/%p"]


def _control(worker: Metered, *arguments: str) -> None:
    command = ["callgrind_control", *arguments, str(worker.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or "OK" not in done.stdout:
        raise BenchError(f"callgrind_control: {done.stdout}{done.stderr}")


def _count(folder: Path, worker: Metered) -> int:
    """Have a worker write what it has counted, and read it."""
    _control(worker, "--dump")
    [file] = folder.glob(f"{worker.pid}.*")
    found = re.search(r"^totals: (\d+)$", file.read_text(), re.MULTILINE)
    file.unlink()
    if found is None:
        raise BenchError("callgrind has counted nothing")
    return int(found[1])


def measure(broker: brokers.Broker, python: str) -> list[dict[str, Any]]:
    """Count what a worker does that publishes, and one that receives.

    Raises:
        BenchError: When a message does not arrive, or callgrind is missing.
    """
    if shutil.which("callgrind_control") is None:
        raise BenchError("valgrind is not installed")
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        prefix = _callgrind(folder)
        pair = stack.enter_context(brokers.pair(broker, python, prefix))
        for at_once in AT_ONCE:
            for _ in range(WARMUP // at_once):
                pair.publish(at_once)
            for worker in pair.workers:
                _control(worker, "--instr=on")
                _control(worker, "--zero")
            for _ in range(MESSAGES // at_once):
                pair.publish(at_once)
            counts = [_count(folder, worker) for worker in pair.workers]
            for worker in pair.workers:
                _control(worker, "--instr=off")
            for kind, count in zip(("publishes", "receives"), counts, strict=True):
                row = {"broker": broker.name, "at_once": at_once, "worker": kind}
                rows.append({**row, "instructions": count / MESSAGES})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return what was counted, as text."""
    return report.table(
        ["broker", "at once", "worker", "instructions"],
        [
            [
                row["broker"],
                str(row["at_once"]),
                row["worker"],
                f"{row['instructions']:,.0f}",
            ]
            for row in rows
        ],
    )
