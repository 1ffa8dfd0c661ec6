"""Processes under measurement: started on one core, metered, always stopped.

CPU time comes from the kernel's CPU clock of each process (what
``clock_getcpuclockid(3)`` returns), summed over the process tree. It counts
nanoseconds, all threads, also those that ended, and can be read while the
process runs. ``/proc/PID/stat`` counts the same time in ticks of 10 ms, too
coarse for a run of a second: it only splits the total into user and system
time. ``/proc/PID/schedstat`` is as fine but knows one thread, and ``wait4``
knows only the whole life of a process, start-up included. Reading happens
while nothing is in flight, so the scheduler has booked everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

START_TIMEOUT = 20.0
STOP_TIMEOUT = 3.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that could not be made; the text says why."""


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds of a process tree: exact total, and its coarse split."""

    total: float
    user: float
    system: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(
            self.total - earlier.total,
            self.user - earlier.user,
            self.system - earlier.system,
        )

    def split(self) -> tuple[float, float]:
        """Return user and system seconds that add up to the exact total."""
        ticks = self.user + self.system
        share = self.user / ticks if ticks > 0 else 0.0
        return self.total * share, self.total * (1 - share)


class Metered:
    """A running process (and its children), with its output to read."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._pending = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def write_line(self) -> None:
        """Let a process that waits for a line on its standard input go on."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def read_line(self, timeout: float) -> str:
        """Return the next line of its standard output.

        Raises:
            BenchError: When it ended, or said nothing in time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        fd = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise BenchError(f"no answer in {timeout:g} s{self.complaint()}")
            data = os.read(fd, 65536)
            if not data:
                raise BenchError(f"it ended{self.complaint()}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def complaint(self) -> str:
        """Return the end of its standard error, for an error text."""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        lines = text.splitlines()[-8:]
        return ":\n  " + "\n  ".join(lines) if lines else ""

    def tree(self) -> list[int]:
        """Return the process ids of the tree, itself first."""
        return process_tree(self.pid)

    def cpu_time(self) -> CpuTime:
        """Return the CPU time of the tree so far."""
        return tree_cpu_time(self.pid)

    def private_memory(self) -> int:
        """Return the bytes of memory that belong to the tree alone."""
        return sum(private_memory(pid) for pid in self.tree())

    def is_running(self) -> bool:
        return self._process.poll() is None


def cpu_clock(pid: int) -> int:
    """Return the id of a process's CPU clock, as ``clock_getcpuclockid(3)``."""
    return (~pid << 3) | 2


def read_stat(pid: int) -> tuple[float, float, int]:
    """Return user seconds, system seconds and the parent of a process."""
    text = Path(f"/proc/{pid}/stat").read_text()
    values = text[text.rindex(")") + 2 :].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(values[11]) / tick, int(values[12]) / tick, int(values[1])


def process_tree(root: int) -> list[int]:
    """Return ``root`` and the ids of all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(read_stat(int(entry))[2], []).append(int(entry))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def tree_cpu_time(root: int) -> CpuTime:
    """Return the CPU time that a process and its descendants used so far."""
    total = user = system = 0.0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(cpu_clock(pid))
            ticks = read_stat(pid)
            user += ticks[0]
            system += ticks[1]
    return CpuTime(total, user, system)


def private_memory(pid: int) -> int:
    """Return the bytes that would be freed if the process ended (its USS)."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


def choose_cores() -> tuple[int, int]:
    """Return a core for the server and another for the load.

    Hyper-threads of one core are not two cores; the first core is left to
    the rest of the machine where there are more than two.
    """
    allowed = sorted(os.sched_getaffinity(0))
    seen: set[str] = set()
    cores = []
    for cpu in allowed:
        siblings = Path(
            f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        )
        try:
            core = siblings.read_text().strip()
        except OSError:
            core = str(cpu)
        if core not in seen:
            seen.add(core)
            cores.append(cpu)
    if len(cores) < 2:
        cores = allowed
    return cores[-1], cores[-2] if len(cores) > 1 else cores[-1]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Metered]:
    """Run a command on one core, or on all; stop it and its children at the end."""

    def prepare() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        # Ten thousand connections need as many files.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # Should the harness be killed, what it started goes with it.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=prepare,
        )
        try:
            yield Metered(process, errors)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            continue
        # Its children are in the same group: none may stay behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        break
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, server: Metered) -> None:
    """Wait until a server accepts connections.

    Raises:
        BenchError: When it ended, or did not listen in time.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if not server.is_running():
            raise BenchError(f"the server ended{server.complaint()}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise BenchError(f"the server does not listen{server.complaint()}")
