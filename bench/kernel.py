"""What the kernel keeps for an idle connection, which no process is charged with.

Both ends of the connections are here, in one process that watches them with epoll, so
there are twice as many sockets as connections, and a figure is for one socket.  It is
the growth of the kernel's slabs (socket, file, inode, directory entry, epoll's item)
and of TCP's buffers, as ``/proc`` shows them: of the whole machine, so it takes many.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .process import BenchError
from .stats import figure

CONNECTIONS = 9_000
SPARE_FILES = 100


def kernel_bytes() -> int:
    """Return what the kernel uses for slabs and for TCP's buffers."""
    slab = pages = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            slab = int(line.split()[1]) * 1024
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        words = line.split()
        if words[0] == "TCP:":
            pages = int(words[words.index("mem") + 1])
    return slab + pages * resource.getpagesize()


def measure(connections: int) -> dict[str, Any]:
    """Open connections, send a message on each, and return the row.

    Raises:
        BenchError: When so many files may not be open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(
            f"{hard:,} files may be open (ulimit -Hn), {needed:,} are needed"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            socket.create_server(("127.0.0.1", 0), backlog=64)
        )
        poll = select.epoll()
        stack.callback(poll.close)
        before = kernel_bytes()
        for _ in range(connections):
            client = stack.enter_context(
                socket.create_connection(listener.getsockname())
            )
            server = stack.enter_context(listener.accept()[0])
            for sock in (client, server):
                sock.setblocking(False)
                poll.register(sock, select.EPOLLIN)
            client.send(b"x")
            server.recv(1)
        grown = kernel_bytes() - before
    return {"connections": connections, "memory": grown / (2 * connections)}


def run(connections: int, rounds: int) -> list[dict[str, Any]]:
    """Measure in rounds; return the rows."""
    return [{**measure(connections), "round": number} for number in range(rounds)]


def markdown(facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return the report."""
    found = figure([row["memory"] / 1024 for row in rows])
    many = rows[0]["connections"]
    return "\n\n".join(
        [
            "# What the kernel keeps for a connection",
            f"`{facts['command']}`",
            report.machine_lines(facts),
            f"One end of a TCP connection, idle after a byte, watched by epoll: "
            f"**{report.spread(found)} KiB**. The median of {len(rows)} rounds with "
            f"{many:,} connections over the loopback interface, and in brackets the "
            "smallest and largest. It is the kernel's, so it is the same with every "
            "library, and comes on top of what a process uses.\n",
        ]
    )
