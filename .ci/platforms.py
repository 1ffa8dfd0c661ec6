"""Run the tests on every Python that is found, compiled and pure; write a table.

    python .ci/platforms.py [--python PATH ...] [--backend c|py] [-- pytest options]

Each interpreter gets an environment and a copy of the tree in ``build/platforms``, so
nothing here is touched.  What the tests need is installed; what cannot be, for lack of
a wheel for this interpreter, is left out with the tests that import it, and the table
says so.  Extensions are compiled where a compiler and headers are.  The logs and
``table.md`` are beside the environments.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from pythons import find_pythons, tag_of

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "platforms"
BUILD = ["setuptools>=77", "Cython>=3.1,<4"]
MODES = {"c": {"WEBSOCK_REQUIRE_EXT": "1"}, "py": {"WEBSOCK_PURE": "1"}}
GIB = 2**30
SHOWN = 8  # names of tests that fail, in the table
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".autobahn", ".*_cache", ".hypothesis", "build", "dist",
    "node_modules", "reports", "__pycache__", "*.so", "*.egg-info", "*_c.c",
)  # fmt: skip
COLUMNS = ("Python", "lock", "backend", "passed", "failed", "skipped", "minutes", "")
STATE = (
    "import platform, sys, websock;"
    "on = getattr(sys, '_is_gil_enabled', lambda: True)();"
    "print(platform.python_implementation(), platform.python_version(),"
    " websock.BACKEND, 'on' if on else 'off', sep='|')"
)


def environment(**more: str) -> dict[str, str]:
    """Return variables without those that decide which package is imported."""
    ours = ("WEBSOCK_", "PYTHON")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more


def requirements() -> list[str]:
    """Return what the tests need, as pyproject.toml has it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        test: list[str] = tomllib.load(file)["project"]["optional-dependencies"]["test"]
    return test


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]


def begin_process(size: int) -> None:
    """Have a test that takes all memory fail, and not what else runs here."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    # A shell without job control has what runs in the background ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(process: subprocess.Popen[bytes]) -> int:
    """End pytest, which says what it has done so far; return its exit status."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # faulthandler says where it is
        return process.wait(60)


@dataclass
class Result:
    """What became of the tests on one backend."""

    backend: str
    lock: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    minutes: float = 0.0
    notes: list[str] = field(default_factory=list)
    good: bool = False


class Platform:
    """One interpreter with its environment and its copy of the tree."""

    def __init__(self, tag: str, base: Path) -> None:
        self.tag, self.base = tag, base
        self.place = WORK / tag
        self.tree = self.place / "tree"
        self.python = self.place / "venv" / "bin" / "python"
        self.name = tag
        self.left_out: list[str] = []
        # Without its lock, and on PyPy, Python reserves more than it will use.
        reserves = tag.endswith("t") or not tag.startswith("cpython")
        self.memory = (24 if reserves else 6) * GIB

    def run(
        self, *command: str | Path, timeout: float = 400, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.tree,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def pip(self, *arguments: str | Path, **env: str) -> str:
        """Run pip; return nothing, or what it says when it fails."""
        quiet = ("--disable-pip-version-check", "--quiet", "--no-input")
        try:
            done = self.run(self.python, "-m", "pip", *quiet, *arguments, **env)
        except subprocess.TimeoutExpired:
            return "pip takes too long"
        return done.stdout.strip() or "pip fails" if done.returncode else ""

    def prepare(self) -> str:
        """Make the environment; return what is in the way, if anything."""
        self.place.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.copytree(ROOT, self.tree, ignore=NOT_COPIED)
        wanted = requirements()
        stamp = self.place / "installed.txt"
        text = "\n".join([str(self.base), *BUILD, *wanted])
        if not stamp.exists() or stamp.read_text().partition("\n\n")[0] != text:
            stamp.unlink(missing_ok=True)
            made = self.run(self.base, "-m", "venv", "--clear", self.python.parents[1])
            if made.returncode:
                return f"no environment: {made.stdout.strip().splitlines()[-1]}"
            if self.run(self.python, "-m", "pip", "--version").returncode:
                # Some builds are without the wheel of pip, so ours puts it there.
                ours = (sys.executable, "-m", "pip", "--python", self.python)
                self.run(*ours, "--quiet", "install", "pip")
            if failure := self.pip("install", "--only-binary", ":all:", *BUILD):
                return f"no setuptools or Cython: {failure.splitlines()[-1]}"
            missing = self.install(wanted)
            stamp.write_text(f"{text}\n\n{' '.join(missing)}")
        self.left_out = stamp.read_text().partition("\n\n")[2].split()
        return ""

    def install(self, wanted: list[str]) -> list[str]:
        """Install what the tests need; return the names of what cannot be."""
        binary = ("install", "--only-binary", ":all:")
        if not self.pip(*binary, *wanted):
            return []
        missing = [item for item in wanted if self.pip(*binary, item)]
        # Some build without a compiler of another language; the others fail soon.
        source = ("install", "--prefer-binary")
        return [name_of(item) for item in missing if self.pip(*source, item)]

    def cannot_compile(self) -> str:
        """Return what keeps extensions from being compiled, if anything."""
        probe = self.run(self.python, self.tree / ".ci" / "can_compile.py")
        return probe.stdout.strip().splitlines()[-1] if probe.returncode else ""

    def build(self, backend: str) -> str:
        """Install the tree for a backend; return what is in the way, if anything."""
        how = ("install", "--no-deps", "--no-build-isolation", "--editable", ".")
        failure = self.pip(*how, **MODES[backend])
        log = WORK / f"{self.tag}-build.log"
        log.write_text(failure, encoding="utf-8")
        return f"cannot be built, see {log.name}" if failure else ""

    def variables(self, backend: str) -> dict[str, str]:
        # An extension that is not made for it would have the lock put on again, with a
        # warning; the other libraries of the tests have some.
        more = {"PYTHON_GIL": "0"} if self.tag.endswith("t") else {}
        if "trustme" in self.left_out and shutil.which("openssl"):
            more["PYTHONPATH"] = str(self.tree / ".ci" / "stand_ins")
        return MODES[backend] | more

    def pytest(self, backend: str, compiled: bool) -> list[str]:
        command = [str(self.python), "-X", "faulthandler", "-P", "-m", "pytest", "-q"]
        if backend == "py":
            command.append("--no-ext")
        if backend == "py" and compiled:  # the compiled run has the rest
            command += ["-m", "not twins and not source"]
        return [*command, "-p", "no:cacheprovider"]

    def without_imports(self, command: list[str], backend: str) -> dict[str, str]:
        """Return files of tests that cannot be imported here, with what they lack."""
        done = self.run(*command, "--collect-only", **self.variables(backend))
        found = {}
        for part in re.split(r"^_+ ERROR collecting ", done.stdout, flags=re.M)[1:]:
            lacking = re.findall(r"ModuleNotFoundError: No module named '(\w+)", part)
            if lacking and lacking[-1] != "websock":
                found[part.split()[0]] = lacking[-1]
        return found

    def test(self, backend: str, compiled: bool, more: list[str], limit: int) -> Result:
        """Run the tests on a backend."""
        result = Result(backend)
        if backend == "c" and (reason := self.cannot_compile()):
            result.notes.append(reason)
            result.good = True
            return result
        if failure := self.build(backend):
            result.notes.append(failure)
            return result
        asked = self.run(self.python, "-P", "-c", STATE, **MODES[backend])
        state = asked.stdout.strip().rpartition("\n")[2].split("|")
        if len(state) != 4 or state[2] != backend:
            result.notes.append(f"import websock: {'|'.join(state).strip()[-200:]}")
            return result
        self.name, result.lock = f"{state[0]} {state[1]}", state[3].strip()
        self.name += " free-threaded" if self.tag.endswith("t") else ""
        command = [*self.pytest(backend, compiled), *more]
        ignored = self.without_imports(command, backend) if self.left_out else {}
        if ignored:
            names = ", ".join(f"{k} ({v})" for k, v in sorted(ignored.items()))
            result.notes.append(f"not imported: {names}")
        self.run_tests(
            result, [*command, *(f"--ignore={path}" for path in ignored)], limit
        )
        return result

    def run_tests(self, result: Result, command: list[str], limit: int) -> None:
        """Run pytest into a log, within limits of time and memory."""
        log = WORK / f"{self.tag}-{result.backend}.log"
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                cwd=self.tree,
                env=environment(**self.variables(result.backend)),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: begin_process(self.memory),
            )
            try:
                status = process.wait(limit * 60)
            except subprocess.TimeoutExpired:
                status = stop(process)
                result.notes.append(f"stopped after {limit} minutes")
        result.minutes = (time.monotonic() - began) / 60
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        counted = [line for line in lines if re.search(r"\d \w+.* in [\d.]+s", line)]
        for number, what in re.findall(r"(\d+) (\w+)", counted[-1] if counted else ""):
            result.counts[what] = int(number)
        result.good = status == 0
        if status < 0:
            result.notes.append(f"ended by signal {-status}")
        elif status and not result.counts:
            result.notes.append(f"exit status {status}")
        bad = {line for line in lines if line.startswith(("FAILED ", "ERROR "))}
        names = sorted(line.split(" - ")[0] for line in bad)
        result.notes += names[:SHOWN]
        if len(names) > SHOWN:
            result.notes.append(f"and {len(names) - SHOWN} more")


def row(platform: Platform, result: Result) -> tuple[str, ...]:
    """Return what the table says of one run."""
    counts = result.counts
    failed = counts.get("failed", 0) + counts.get("errors", 0) + counts.get("error", 0)
    notes = [*result.notes]
    if platform.left_out:
        notes.insert(0, f"not installed: {', '.join(platform.left_out)}")
    return (
        platform.name,
        result.lock,
        "compiled" if result.backend == "c" else "pure",
        str(counts.get("passed", "-")),
        str(failed) if counts else "-",
        str(counts.get("skipped", 0)) if counts else "-",
        f"{result.minutes:.1f}",
        "; ".join(notes),
    )


def write_table(rows: list[tuple[str, ...]]) -> None:
    """Write the table as Markdown, after each run: those that follow take long."""
    lines = [COLUMNS, tuple("-" * max(3, len(name)) for name in COLUMNS), *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (WORK / "table.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", type=Path)
    parser.add_argument("--backend", choices=("c", "py"), action="append")
    parser.add_argument("--minutes", type=int, default=40, help="for each run of tests")
    parser.add_argument("pytest", nargs="*")
    arguments = parser.parse_args()
    if arguments.python:
        pythons = {tag_of(path): path.absolute() for path in arguments.python}
    else:
        pythons = find_pythons()
    if "" in pythons:
        sys.exit(f"websock: {pythons['']} is no Python from 3.11 on")
    rows: list[tuple[str, ...]] = []
    good = True
    WORK.mkdir(parents=True, exist_ok=True)
    for tag, base in sorted(pythons.items()):
        platform = Platform(tag, base)
        print(f"=== {tag}: {base}", flush=True)
        failure = platform.prepare()
        compiled = False
        for backend in arguments.backend or ("c", "py"):
            if failure:
                result = Result(backend, notes=[failure])
            else:
                result = platform.test(
                    backend, compiled, arguments.pytest, arguments.minutes
                )
            compiled |= backend == "c" and bool(result.counts)
            good &= result.good
            rows.append(row(platform, result))
            print(" | ".join(rows[-1]), flush=True)
            write_table(rows)
    print(f"{len(rows)} runs, in {WORK / 'table.md'}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
