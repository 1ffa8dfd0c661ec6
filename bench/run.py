"""Rounds: every library once, then again, so that all meet the same weather."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import libraries, load
from .cases import Case, case_fields
from .libraries import Library
from .process import (
    BenchError,
    CpuTime,
    choose_cores,
    free_port,
    running,
    wait_for_port,
)
from .stats import Row, per_message

Progress = Callable[[str], None]


def say(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Bench:
    """One run of the harness: where it runs, and what it has found."""

    python: str
    rounds: int = 5
    progress: Progress = say
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server_core, self.load_core = choose_cores()
        if self.server_core == self.load_core:
            self.progress("only one core: server and load share it, figures mislead")

    def usable(
        self, chosen: Iterable[Library], *, client: bool = False
    ) -> list[Library]:
        """Return those that are installed; remember why the others are not."""
        usable = []
        for library in chosen:
            reason = libraries.missing(library, self.python)
            if not (library.client if client else library.server):
                reason = f"no {'client' if client else 'server'} of it"
            if reason:
                self.skipped[library.name] = reason
                self.progress(f"skipped: {library.name}: {reason}")
            else:
                usable.append(library)
        return usable

    def run(self, suite: str, cases: Sequence[Case], chosen: Sequence[Library]) -> None:
        """Measure every library in every case, the rounds interleaved."""
        self._rounds(suite, cases, self.usable(chosen), self.measure_server)

    def run_clients(
        self, suite: str, cases: Sequence[Case], chosen: Sequence[Library]
    ) -> None:
        """Measure the libraries' clients against the C echo server."""
        usable = self.usable(chosen, client=True)
        self._rounds(suite, cases, usable, self.measure_client)

    def _rounds(
        self,
        suite: str,
        cases: Sequence[Case],
        chosen: Sequence[Library],
        measure: Callable[[Library, Case], Row],
    ) -> None:
        total = sum(
            self.rounds
            for case in cases
            for library in chosen
            if not library.lack(case)
        )
        done = 0
        for case in cases:
            for number in range(self.rounds):
                for library in chosen:
                    if lack := library.lack(case):
                        self.skipped[f"{library.name} ({case.title})"] = f"no {lack}"
                        continue
                    row = measure(library, case)
                    row.update(suite=suite, round=number)
                    self.rows.append(row)
                    done += 1
                    self.progress(f"[{done}/{total}] {_line(row, case)}")

    def measure_server(self, library: Library, case: Case) -> Row:
        """Run one library's server once under one load."""
        row = self._row(library, case)
        port = free_port()
        try:
            with contextlib.ExitStack() as stack:
                tls = stack.enter_context(certificate()) if case.tls else ("", "")
                command, environment = libraries.server_command(
                    library, case, port, python=self.python, tls_files=tls
                )
                server = stack.enter_context(
                    running(command, core=self.server_core, environment=environment)
                )
                wait_for_port(port, server)
                row.update(_facts(server.read_line(10)))
                self._check_backend(library, row)
                loaded = load.drive(case, port, server, core=self.load_core)
        except BenchError as exc:
            row["error"] = str(exc)
            return row
        return self._finish(row, case, loaded.result, loaded.cpu, loaded.memory)

    def measure_client(self, library: Library, case: Case) -> Row:
        """Run one library's client once against the C echo server."""
        row = self._row(library, case)
        port = free_port()
        script = libraries.CLIENTS / f"{library.client}.py"
        command = [self.python, str(script), "--port", str(port), "--loop", case.loop]
        for name in ("depth", "size", "kind", "seconds", "warmup"):
            command += [f"--{name}", str(getattr(case, name))]
        try:
            echo = [str(load.build("echo_epoll")), "--port", str(port)]
            with running(echo, core=self.load_core) as server:
                wait_for_port(port, server)
                environment = libraries.python_environment(library, self.python)
                with running(
                    command, core=self.server_core, environment=environment
                ) as client:
                    row.update(_facts(client.read_line(20)))
                    self._check_backend(library, row)
                    patience = 30 + case.seconds + case.warmup
                    client.read_line(patience)
                    before, server_before = client.cpu_time(), server.cpu_time()
                    client.write_line()
                    result = json.loads(client.read_line(patience))
                    spent = client.cpu_time() - before
                    server_spent = server.cpu_time() - server_before
        except BenchError as exc:
            row["error"] = str(exc)
            return row
        result["load_user"], result["load_system"] = server_spent.split()
        return self._finish(row, case, result, spent, (0, 0))

    def _row(self, library: Library, case: Case) -> Row:
        return {
            "library": library.name,
            "api": library.api,
            **case_fields(case),
            "correct": False,
            "error": "",
        }

    def _check_backend(self, library: Library, row: Row) -> None:
        wanted = "py" if library.environment.get("WEBSOCK_PURE") else "c"
        if "backend" in row and row["backend"] != wanted:
            raise BenchError(
                f"websock runs on backend {row['backend']!r}, wanted {wanted!r}: "
                "build the extension first (make dev)"
            )

    def _finish(
        self,
        row: Row,
        case: Case,
        result: dict[str, Any],
        cpu: CpuTime,
        memory: tuple[int, int],
    ) -> Row:
        seconds = result["seconds"]
        messages = result["messages"]
        user, system = cpu.split()
        each = per_message(cpu.total, user, system, messages)
        row.update(
            correct=result["correct"],
            error=result["error"],
            answered=messages,
            duration=seconds,
            rate=result["rate"],
            p50_us=result["p50_us"],
            p99_us=result["p99_us"],
            cpu_us=each[0],
            user_us=each[1],
            system_us=each[2],
        )
        if case.mode == "idle":
            row["memory"] = (memory[1] - memory[0]) / case.connections
            for name in ("rate", "cpu_us", "user_us", "system_us", "p50_us", "p99_us"):
                row[name] = None
        elif seconds > 0:
            load_time = result["load_user"] + result["load_system"]
            row["server_busy"] = cpu.total / seconds
            row["load_busy"] = load_time / seconds
        if not messages and case.mode != "idle":
            row.update(correct=False, error=row["error"] or "no message came back")
        return row


def _facts(line: str) -> dict[str, Any]:
    """Read a script's first line: JSON, or ``listening PORT``."""
    if not line.startswith("{"):
        return {"versions": {}}
    facts: dict[str, Any] = json.loads(line)
    facts.pop("loop", None)
    return facts


def _line(row: Row, case: Case) -> str:
    name = f"{row['library']}: {case.title}"
    if not row["correct"]:
        return f"{name}: WRONG: {row['error']}"
    if row.get("memory") is not None:
        return f"{name}: {row['memory'] / 1024:.2f} KiB a connection"
    return f"{name}: {row['cpu_us']:.2f} us CPU, {row['rate']:,.0f}/s"


@contextlib.contextmanager
def certificate() -> Iterator[tuple[str, str]]:
    """Make a self-signed certificate; yield the paths of it and its key."""
    if shutil.which("openssl") is None:
        raise BenchError("TLS needs the openssl command for a certificate")
    with tempfile.TemporaryDirectory() as directory:
        cert, key = Path(directory, "cert.pem"), Path(directory, "key.pem")
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        )
        done = subprocess.run(
            [*command.split(), "-keyout", str(key), "-out", str(cert)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"openssl failed: {done.stderr.strip()}")
        yield str(cert), str(key)
