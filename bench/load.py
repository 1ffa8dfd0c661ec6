"""The load generator and the C echo servers: built on demand, and driven."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case
from .process import BenchError, CpuTime, Metered, running, tree_cpu_time

DIRECTORY = Path(__file__).resolve().parent / "load"
SETTLE = 0.02


@functools.cache
def build(name: str) -> Path:
    """Compile a program of ``bench/load`` if it is older than its source.

    Raises:
        BenchError: When there is no compiler, or it fails.
    """
    if shutil.which("make") is None or not any(map(shutil.which, ("cc", "gcc"))):
        raise BenchError("the load generator needs make and a C compiler")
    target = f"build/{name}"
    done = subprocess.run(
        ["make", "-C", str(DIRECTORY), target],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"building {name} failed:\n{done.stderr.strip()}")
    return DIRECTORY / target


@dataclass(frozen=True)
class Loaded:
    """What one run of the load generator found, and what the server spent."""

    result: dict[str, Any]
    cpu: CpuTime
    memory: tuple[int, int]


def drive(case: Case, port: int, server: Metered, *, core: int | None) -> Loaded:
    """Put the case's load on a server and meter the server meanwhile.

    Raises:
        BenchError: When the load generator fails. Wrong replies do not
            raise: ``result["correct"]`` says so.
    """
    command = [str(build("ws_load")), "--port", str(port), "--gate"]
    patience = 60 + case.seconds + case.warmup
    idle = server.private_memory()
    with running([*command, *case.load_arguments()], core=core) as generator:
        before = after = CpuTime(0, 0, 0)
        memory = idle
        while True:
            answer: dict[str, Any] = json.loads(generator.read_line(patience))
            if "phase" not in answer:
                return Loaded(answer, after - before, (idle, memory))
            # What the server does after its last reply belongs to it.
            time.sleep(SETTLE)
            if answer["phase"] == "ready":
                if case.mode == "idle":
                    time.sleep(0.5)
                memory = server.private_memory()
                before = after = server.cpu_time()
            else:
                after = server.cpu_time()
            generator.write_line()


def drive_url(case: Case, port: int, path: str, pid: int | None, *, core: int) -> str:
    """Put a load on a server that somebody else started; describe the outcome.

    Raises:
        BenchError: When the load generator fails.
    """
    command = [str(build("ws_load")), "--port", str(port), "--path", path, "--gate"]
    patience = 60 + case.seconds + case.warmup
    spent = 0.0
    with running([*command, *case.load_arguments()], core=core) as generator:
        while True:
            answer: dict[str, Any] = json.loads(generator.read_line(patience))
            if "phase" not in answer:
                break
            time.sleep(SETTLE)
            now = tree_cpu_time(pid).total if pid else 0.0
            spent = now if answer["phase"] == "ready" else now - spent
            generator.write_line()
    if not answer["correct"]:
        return f"{case.title}: WRONG: {answer['error']}"
    text = (
        f"{case.title}: {answer['rate']:,.0f}/s, p50 {answer['p50_us']:.0f} us, "
        f"p99 {answer['p99_us']:.0f} us"
    )
    if pid and answer["messages"]:
        text += f", {spent / answer['messages'] * 1e6:.2f} us CPU per message"
    return text
