"""Fuzz everything for some minutes: ``python tests/fuzz/run.py --minutes 10``.

The kernels are fuzzed by libFuzzer, which needs clang; the Python side by atheris, where
``--atheris`` names a Python that has it, and otherwise by changing seeds and saved
inputs at random, which finds less. The time is shared by all targets in turn.

An input that made a target fail stays in ``build/fuzz/found``. Copied into the corpus
of its target, the tests replay it from then on.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fuzz"
FOUND = BUILD / "found"

sys.path[:0] = [str(ROOT), str(HERE.parent)]

from fuzz.inputs import cut_in_turn  # noqa: E402
from fuzz.seeds import SEEDS  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

C_TARGETS = ("mask", "frame", "header", "utf8", "text")


class Report(NamedTuple):
    """What became of one target."""

    name: str
    executions: int
    findings: int


def libfuzzer(name: str, command: list[str], seconds: int, saved: Path) -> Report:
    """Run a target of libFuzzer's kind; show its last lines if it finds something."""
    kept = BUILD / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    prefix = FOUND / f"{name.replace(' ', '-')}-"
    arguments = [
        f"-max_total_time={seconds}", "-max_len=2048", "-print_final_stats=1",
        f"-artifact_prefix={prefix}", str(kept), *([str(saved)] if saved.is_dir() else []),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    counts = re.findall(r"number_of_executed_units: *(\d+)", done.stdout)
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-40:]))
    return Report(name, int(counts[-1]) if counts else 0, int(done.returncode != 0))


def changed(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes of an input, put some in, or take some out."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(result))
        put = chance.choice(
            (b"", b"\0", b"\xff", chance.randbytes(chance.randint(1, 4)))
        )
        result[at : at + chance.choice((0, len(put), chance.randint(0, 8)))] = put
    return bytes(result)


def at_random(name: str, seconds: int) -> Report:
    """Run a target of the Python side on changed seeds."""
    cut_in_turn()
    chance = random.Random(time.time_ns())
    paths = sorted((HERE / "corpus" / name).glob("*"))
    inputs = [*SEEDS[name], *(path.read_bytes() for path in paths)]
    executions = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = changed(chance.choice(inputs), chance)
        executions += 1
        try:
            TARGETS[name](data)
        except Exception as exc:
            path = FOUND / f"{name}-{executions}"
            path.write_bytes(data)
            print(f"{name}: {type(exc).__name__}: {str(exc)[:2000]}\nkept in {path}")
            return Report(name, executions, 1)
    return Report(name, executions, 0)


def has_atheris(python: str | None) -> bool:
    if python is None or shutil.which(python) is None:
        return False
    return not subprocess.run(
        [python, "-c", "import atheris"], capture_output=True
    ).returncode


def write_seeds(name: str) -> None:
    """Put the seeds where libFuzzer reads and adds to them."""
    folder = BUILD / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(SEEDS[name]):
        (folder / f"seed-{number}").write_bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--minutes", type=float, default=5, help="for all targets together"
    )
    parser.add_argument("--atheris", metavar="PYTHON", help="a Python that has atheris")
    parser.add_argument("targets", nargs="*", help="names; all by default")
    options = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)

    names = [f"c {name}" for name in C_TARGETS] + list(TARGETS)
    names = [name for name in names if not options.targets or name in options.targets]
    left_out = []
    if shutil.which("clang") is None:
        names = [name for name in names if not name.startswith("c ")]
        left_out.append(
            "the C targets: clang is not installed (Debian: apt install clang)"
        )
    elif any(name.startswith("c ") for name in names):
        build = ["make", "--silent", "-C", str(ROOT / "csrc"), "fuzz-targets"]
        subprocess.run(build, check=True)
    guided = has_atheris(options.atheris)
    if not guided:
        left_out.append("coverage for the Python targets: atheris is not installed")

    seconds = max(1, round(options.minutes * 60 / max(1, len(names))))
    reports = []
    for name in names:
        if name.startswith("c "):
            binary = ROOT / "csrc" / "build" / "fuzz" / f"fuzz_{name[2:]}"
            saved = ROOT / "csrc" / "fuzz" / "corpus" / name[2:]
            report = libfuzzer(name, [str(binary)], seconds, saved)
        elif guided:
            write_seeds(name)
            command = [options.atheris, "-P", str(HERE / "one.py"), name]
            report = libfuzzer(name, command, seconds, HERE / "corpus" / name)
        else:
            report = at_random(name, seconds)
        reports.append(report)
        print(f"{report.name:16}{report.executions:12,} executions", flush=True)
    print(f"\n{'target':16}{'executions':>12}{'findings':>10}")
    for report in reports:
        print(f"{report.name:16}{report.executions:12,}{report.findings:10}")
    total = sum(report.executions for report in reports)
    findings = sum(report.findings for report in reports)
    print(f"{'all':16}{total:12,}{findings:10}")
    for what in left_out:
        print(f"left out: {what}")
    if findings:
        print(f"what was found is in {FOUND}")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
