"""Very many connections at once, held and echoing: none may be lost.

A server is put under the load generator, which compares every reply; many clients in
one process, each of which compares its own, talk to the C echo server. All connections
stay open until the last one is done, and each has a message in flight all the time.
"""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import libraries, load
from .cases import Case
from .process import (
    BenchError,
    CpuTime,
    Metered,
    choose_cores,
    free_port,
    running,
    wait_for_port,
)
from .report import machine_lines, number, table, versions_line
from .run import certificate, say

# Files of a process that are no connections.
SPARE_FILES = 100

# Seconds that opening, the last answers, and closing may take, each.
PATIENCE = 180.0

# States in /proc/net/tcp: the process of this end has not closed it.
_ESTABLISHED = "01"
_CLOSE_WAIT = "08"


@dataclass(frozen=True)
class Crowd:
    """One row: who holds the connections, on which loop."""

    side: str
    library: str
    connections: int
    seconds: float
    loop: str = "uvloop"
    tls: bool = False

    @property
    def title(self) -> str:
        """A short name."""
        things = [f"{self.side} {self.library}", self.loop]
        return ", ".join([*things, "TLS"] if self.tls else things)


def crowds(connections: int, seconds: float, loops: Sequence[str]) -> list[Crowd]:
    """Return what is run: both APIs as servers and as clients.

    The threading API is there with a tenth: it has a thread for each connection, and
    thousands of them that are all awake do little but wait for each other.
    """
    apis = ("websock", "websock-listener")
    pairs = [(loop, api) for loop in loops for api in apis]
    plain = [
        Crowd(side, api, connections, seconds, loop)
        for side in ("server", "client")
        for loop, api in pairs
    ]
    tls = [Crowd("server", api, connections, seconds, loops[0], True) for api in apis]
    few = max(connections // 10, 1)
    threads = Crowd("server", "websock-sync", few, seconds, "threads")
    return [*plain, *tls, threads]


def check_files(connections: int) -> None:
    """Refuse what the limit of open files does not allow.

    Raises:
        BenchError: When it is too low; the text says what would be enough.
    """
    wanted = connections + SPARE_FILES
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        raise BenchError(
            f"{connections} connections need {wanted} open files in one process, the "
            f"hard limit is {most}: raise it (ulimit -Hn, LimitNOFILE=) or ask for "
            "fewer connections"
        )


def run(chosen: Sequence[Crowd], python: str) -> list[dict[str, Any]]:
    """Run one after the other; return a row for each."""
    for crowd in chosen:
        check_files(crowd.connections)
    rows = []
    for crowd in chosen:
        row = asdict(crowd)
        measure = _run_server if crowd.side == "server" else _run_client
        try:
            row.update(measure(crowd, python))
        except BenchError as exc:
            row.update(correct=False, error=str(exc))
        rows.append(row)
        say(f"[{len(rows)}/{len(chosen)}] {crowd.title}: {_verdict(row)}")
    return rows


def _run_server(crowd: Crowd, python: str) -> dict[str, Any]:
    server_core, load_core = choose_cores()
    case = Case(
        connections=crowd.connections,
        seconds=crowd.seconds,
        warmup=0,
        loop=crowd.loop,
        tls=crowd.tls,
    )
    port = free_port()
    with contextlib.ExitStack() as stack:
        tls = stack.enter_context(certificate()) if crowd.tls else ("", "")
        library = libraries.LIBRARIES[crowd.library]
        command, environment = libraries.server_command(
            library, case, port, python=python, tls_files=tls
        )
        server = stack.enter_context(
            running(command, core=server_core, environment=environment)
        )
        wait_for_port(port, server)
        facts = _facts(server)
        loaded = load.drive(case, port, server, core=load_core)
        # The generator is gone, and with it all of its connections.
        left = _left(port)
    row = _figures(crowd, loaded.result, loaded.cpu, loaded.memory)
    return {**facts, **row, "left": left}


def _run_client(crowd: Crowd, python: str) -> dict[str, Any]:
    client_core, echo_core = choose_cores()
    port = free_port()
    script = libraries.CLIENTS / "websock_crowd.py"
    command = [python, str(script), "--port", str(port), "--loop", crowd.loop]
    command += ["--connections", str(crowd.connections)]
    command += ["--seconds", str(crowd.seconds)]
    if crowd.library == "websock-listener":
        command.append("--listener")
    library = libraries.LIBRARIES[crowd.library]
    environment = libraries.python_environment(library, python)
    echo = [str(load.build("echo_epoll")), "--port", str(port)]
    with (
        running(echo, core=echo_core) as server,
        running(command, core=client_core, environment=environment) as client,
    ):
        wait_for_port(port, server)
        facts = _facts(client)
        idle = client.private_memory()
        client.write_line()
        client.read_line(PATIENCE)
        memory = client.private_memory()
        before = client.cpu_time()
        client.write_line()
        client.read_line(PATIENCE + crowd.seconds)
        cpu = client.cpu_time() - before
        client.write_line()
        result = json.loads(client.read_line(PATIENCE))
    row = _figures(crowd, result, cpu, (idle, memory))
    left = result["opened"] - result["closed"]
    return {**facts, **row, "left": left}


def _facts(process: Metered) -> dict[str, Any]:
    """Read the first line of a script: what it is."""
    facts = json.loads(process.read_line(PATIENCE))
    return {name: facts[name] for name in ("versions", "backend", "kernel")}


def _figures(
    crowd: Crowd, result: dict[str, Any], cpu: CpuTime, memory: tuple[int, int]
) -> dict[str, Any]:
    messages = result["messages"]
    return {
        "correct": result["correct"],
        "error": result["error"],
        "opened": result["opened"],
        "answered": messages,
        "fewest": result["fewest"],
        "waiting": result["waiting"],
        "duration": result["seconds"],
        "rate": result["rate"],
        "memory": (memory[1] - memory[0]) / crowd.connections,
        "cpu_us": cpu.total / messages * 1e6 if messages else None,
        "busy": cpu.total / result["seconds"] if result["seconds"] else None,
    }


def _left(port: int) -> int:
    """Wait until a server has closed what its clients left; count what it has not."""
    deadline = time.monotonic() + PATIENCE
    while (left := _held(port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _held(port: int) -> int:
    """Return how many connections to a port have an end that a process holds open."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    end = f":{port:04X}"
    held = 0
    for line in lines:
        _, local, _, state, *_ = line.split()
        held += local.endswith(end) and state in (_ESTABLISHED, _CLOSE_WAIT)
    return held


def is_right(row: dict[str, Any]) -> bool:
    """Whether a row lost nothing: all opened, all answered, all closed in the end."""
    return bool(
        row["correct"]
        and row["opened"] == row["connections"]
        and row["fewest"] > 0
        and not row["waiting"]
        and not row["left"]
    )


def _verdict(row: dict[str, Any]) -> str:
    if not is_right(row):
        return f"LOST: {row['error'] or 'see the table'}"
    return f"{row['opened']:,} held, {row['answered']:,} echoed, none lost"


def markdown(facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return the whole report."""
    lost = [row for row in rows if not is_right(row)]
    parts = [
        "# Many connections at once",
        f"`{facts['command']}`",
        f"{machine_lines(facts)}\n- {versions_line(rows)}",
        "All connections of a row are opened, then each of them has a message of 32 "
        "bytes in flight all the time, and all stay open until the last reply has "
        "come. *server*: one process of websock on one core, the load generator on "
        "the other; it compares every reply and then drops all connections. *client*: "
        "one process of websock clients, each of which compares its own replies and "
        "closes in good order, with the C echo server on the other core. *fewest* is "
        "what the connection with the fewest replies has received, *not answered* what "
        "was sent and never came back, *left open* what has no end when all are "
        "closed. Memory is private memory (USS) per connection once all are open, "
        "before the first message; CPU is that of the process of websock. "
        "*websock-sync* has a thread for each connection, so a tenth of them: "
        "thousands of threads that are all awake do little but wait for each other.",
        "Verdict: " + ("**lost**" if lost else "**none lost**"),
    ]
    if lost:
        parts.append("\n".join(f"- {_title(row)}: {_verdict(row)}" for row in lost))
    parts.append(table(_HEADER, map(_line, rows)))
    return "\n\n".join(parts) + "\n"


_HEADER = (
    *("", "connections", "opened", "seconds", "echoed", "fewest", "not answered"),
    *("left open", "KiB/connection", "CPU us/message", "messages/s", "its core"),
)


def _title(row: dict[str, Any]) -> str:
    return Crowd(
        row["side"], row["library"], 0, 0, loop=row["loop"], tls=row["tls"]
    ).title


def _line(row: dict[str, Any]) -> list[str]:
    if "opened" not in row:
        return [_title(row), f"{row['connections']:,}", *[""] * (len(_HEADER) - 2)]
    return [
        _title(row),
        f"{row['connections']:,}",
        f"{row['opened']:,}",
        f"{row['duration']:.1f}",
        f"{row['answered']:,}",
        f"{row['fewest']:,}",
        str(row["waiting"]),
        str(row["left"]),
        number(row["memory"] / 1024),
        number(row["cpu_us"]),
        number(row["rate"]),
        "" if row["busy"] is None else f"{row['busy']:.0%}",
    ]
