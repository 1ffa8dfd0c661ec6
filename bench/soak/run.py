"""Start the services and the clients, restart, watch, and judge."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from websock.sync.client import connect

from ..process import BenchError, tree_cpu_time
from ..run import certificate, say
from .judge import judge, name

HERE = Path(__file__).resolve().parent
KINDS = ("coroutine", "coroutine, TLS", "listener", "listener, TLS")

# Seconds between two looks at memory, descriptors and CPU time.
SAMPLE_EVERY = 5.0

# Seconds that a process may take to start, and to end.
PATIENCE = 60.0

# Share of a process's life that is its warm-up.
WARM_UP = 0.2

# glibc's malloc raises its threshold to the largest block that it was given back, and
# takes whatever is smaller from the heap.  With messages of random sizes the heap then
# gets holes, and what is resident creeps up while what is in use does not.  A threshold
# that is set stays: a large message goes back to the system with its last reference.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}


@dataclass(frozen=True)
class Plan:
    """How long, how much, and where it is random."""

    minutes: float
    restart_every: float = 300.0
    drain: float = 10.0
    interval: float = 0.5
    seed: int = 1
    python: str = sys.executable


class Sample(NamedTuple):
    """What a process holds at one moment."""

    time: float
    memory: int
    free: int
    blocks: int
    files: int

    @property
    def in_use(self) -> int:
        return self.memory - self.free

    def as_row(self) -> dict[str, float]:
        """Return it for a file of JSON lines."""
        return {**self._asdict(), "in_use": self.in_use}


@dataclass
class Process:
    """A process of the soak, and what was seen of it."""

    name: str
    role: str
    popen: subprocess.Popen[str]
    started: float
    first: dict[str, Any] = field(default_factory=dict)
    idle_files: int = 0
    idle: Sample | None = None
    samples: list[Sample] = field(default_factory=list)
    cpu: float = 0.0
    ended: float = 0.0

    def read_line(self) -> dict[str, Any]:
        """Read the next line that it prints.

        Raises:
            BenchError: When it ended instead.
        """
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended: status {self.popen.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def sample(self, now: float) -> Sample:
        """Ask it what it holds."""
        self.popen.send_signal(signal.SIGUSR1)
        return Sample(now, **self.read_line(), files=self.files())

    def look(self, now: float) -> None:
        """Take a sample."""
        self.samples.append(self.sample(now))
        self.cpu = tree_cpu_time(self.pid).total

    @property
    def pid(self) -> int:
        return self.popen.pid

    def files(self) -> int:
        """Return how many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def growth(self) -> dict[str, tuple[int, int]]:
        """Return each figure after the warm-up and in the end; empty: too short.

        Both are medians over a fifth of its life.
        """
        if len(self.samples) < 10:
            return {}
        fifth = len(self.samples) // 5
        after = self.samples[int(len(self.samples) * WARM_UP) :]
        return {
            what: (
                round(statistics.median(getattr(s, what) for s in after[:fifth])),
                round(statistics.median(getattr(s, what) for s in after[-fifth:])),
            )
            for what in ("memory", "in_use", "blocks")
        }


class Service:
    """Four listening sockets, and the process that serves them at the moment.

    Args:
        name: What it is called.
        loop: Event loop of its processes.
        soak: What it is a part of.
    """

    def __init__(self, name: str, loop: str, soak: Soak) -> None:
        self.name = name
        self.loop = loop
        self.soak = soak
        # They stay open here: what arrives between two processes waits in them.
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in KINDS]
        self.ports = [sock.getsockname()[1] for sock in self.sockets]
        soak.services.append(self)
        self.process = self.start()

    def close(self) -> None:
        """Close the sockets."""
        for sock in self.sockets:
            sock.close()

    def start(self) -> Process:
        """Start a process and wait until it serves."""
        plan = self.soak.plan
        fds = [sock.fileno() for sock in self.sockets]
        command = ["--fds", ",".join(map(str, fds)), "--loop", self.loop]
        command += ["--cert", self.soak.cert, "--key", self.soak.key]
        command += ["--drain", str(plan.drain)]
        process = self.soak.start(self.name, "server.py", command, fds)
        process.first = process.read_line()
        # The loop's own descriptors come with the second connection.
        url = f"ws://127.0.0.1:{self.ports[0]}"
        with connect(url) as one, connect(url) as two:
            for ws in (one, two):
                ws.send("")
                ws.recv()
            process.idle = process.sample(self.soak.clock())
            process.idle_files = process.files() - 2
        return process

    def stop(self, process: Process) -> None:
        """Have a process drain, and wait for its end."""
        process.look(self.soak.clock())
        process.popen.send_signal(signal.SIGTERM)
        row = process.read_line()
        # Its own sockets and the duplicates of the loop are closed by now.
        row["status"] = process.popen.wait(PATIENCE)
        process.ended = self.soak.clock()
        self.soak.ended(process, row)

    def restart(self) -> None:
        """Start a new process on the same sockets, then have the old one drain."""
        old, self.process = self.process, self.start()
        self.stop(old)


class Soak:
    """One run.

    Args:
        plan: What to do.
        cert: Path of a certificate.
        key: Path of its key.
    """

    def __init__(self, plan: Plan, cert: str, key: str) -> None:
        self.plan = plan
        self.cert = cert
        self.key = key
        self.rows: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.processes: list[Process] = []
        self.services: list[Service] = []
        self._began = time.monotonic()

    def clock(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def start(
        self, name: str, script: str, arguments: list[str], fds: list[int] | None = None
    ) -> Process:
        """Start a process of the soak."""
        root = str(HERE.parent.parent)
        paths = filter(None, (root, os.environ.get("PYTHONPATH")))
        popen = subprocess.Popen(
            [self.plan.python, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=fds or (),
            env={**os.environ, **MALLOC, "PYTHONPATH": os.pathsep.join(paths)},
        )
        process = Process(name, script, popen, self.clock())
        self.processes.append(process)
        return process

    def ended(self, process: Process, row: dict[str, Any]) -> None:
        """Note how a process ended, and what is wrong with that."""
        found: dict[str, Any] = {
            "process": process.name,
            "role": process.role,
            "started": round(process.started, 1),
            "ended": round(process.ended, 1),
            **process.first,
            **row,
            "cpu": round(process.cpu, 2),
            "idle_files": process.idle_files,
            "idle": process.idle and process.idle.as_row(),
            "most_files": max((s.files for s in process.samples), default=0),
            "growth": process.growth(),
            "most_memory": max((s.memory for s in process.samples), default=0),
        }
        self.rows.append(found)
        if row.get("status"):
            self.faults.append(f"{name(found)} ended with status {row['status']}")
        for what in ("connections", "queued", "left_over"):
            if row.get(what):
                self.faults.append(
                    f"{name(found)}: {what} is {row[what]} in the end, not 0"
                )

    def run(self) -> None:
        """Do it all."""
        services = [
            Service("steady", "uvloop", self),
            Service("rolling", "asyncio", self),
        ]
        steady, rolling = services
        ports = {service.name: service.ports for service in services}
        plan = self.plan
        clients = self.start(
            "clients",
            "client.py",
            [
                *("--ports", json.dumps(ports), "--cert", self.cert),
                *("--seed", str(plan.seed), "--interval", str(plan.interval)),
            ],
        )
        clients.first = clients.read_line()
        clients.idle_files = 0
        end = self.clock() + plan.minutes * 60
        next_restart = self.clock() + plan.restart_every
        restarts = 0
        while self.clock() < end:
            wait = min(end, next_restart) - self.clock()
            time.sleep(min(SAMPLE_EVERY, max(wait, 0.0)))
            now = self.clock()
            if clients.popen.poll() is not None:
                raise BenchError(f"the clients ended: {clients.popen.returncode}")
            for process in (steady.process, rolling.process, clients):
                process.look(now)
                row = process.samples[-1].as_row()
                self.rows.append({"sample": process.name, **row})
            if now >= next_restart and now < end - plan.drain:
                rolling.restart()
                restarts += 1
                next_restart = self.clock() + plan.restart_every
                say(f"{now / 60:.1f} min: restart {restarts}")
        assert clients.popen.stdin is not None
        clients.look(self.clock())
        clients.popen.stdin.close()
        row = clients.read_line()
        row["status"] = clients.popen.wait(PATIENCE)
        clients.ended = self.clock()
        totals = row.pop("totals")
        self.ended(clients, row)
        self._settle(steady.process)
        for service in services:
            service.stop(service.process)
        self.faults += judge([row for row in self.rows if "process" in row])
        self.rows.append({"totals": totals, "restarts": restarts})
        for kind, sums in totals.items():
            self.faults += [f"{kind}: {text}" for text in sums["texts"]]
            if sums["failures"] > len(sums["texts"]):
                self.faults.append(f"{kind}: {sums['failures']} failures in all")
            missing = sums["sent"] - sums["answered"] - sum(sums["unanswered"].values())
            if missing and kind != "resilient":
                self.faults.append(f"{kind}: {missing} messages are in no account")

    def _settle(self, process: Process) -> None:
        """Without clients, a server must have as many files open as at first."""
        deadline = time.monotonic() + PATIENCE
        while process.files() != process.idle_files:
            if time.monotonic() > deadline:
                self.faults.append(
                    f"{process.name}: {process.files()} files are open without "
                    f"clients, {process.idle_files} at first"
                )
                return
            time.sleep(0.1)

    def kill(self) -> None:
        """End whatever still runs, and close what is open."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
            with process.popen:
                pass
        for service in self.services:
            service.close()


@contextlib.contextmanager
def soaking(plan: Plan) -> Iterator[Soak]:
    """Make a soak; end its processes whatever happens."""
    with certificate() as (cert, key):
        soak = Soak(plan, cert, key)
        try:
            yield soak
        finally:
            soak.kill()


def choose_seed() -> int:
    """Return a seed for a run that is given none."""
    return random.SystemRandom().randrange(1 << 32)
