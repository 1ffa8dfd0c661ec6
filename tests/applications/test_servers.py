"""Servers of other libraries have the same conversations with and without speed-ups.

Each is a program of ``programs/``, run as people run it: without a speed-up, and with
one in each way that there is.  The same bytes go to all of them, and all that comes
back is compared, and so is what each program saw, and its log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from applications import table
from applications.conversations import CONVERSATIONS, Talk, answered, have
from applications.process import Program, tidy

import websock

IS_FAST = websock.BACKEND == "c"


class Running:
    """A program, running without a speed-up and in each way with one."""

    def __init__(self, entry: table.Program) -> None:
        self.entry = entry
        self.ways = (table.PLAIN, *table.ways(entry))
        self.programs: list[Program] = []
        for way in self.ways:
            command = [*way.before, *entry.command, *way.after]
            self.programs.append(Program(command, way.environment, entry.port))

    def each(self, function: Any) -> list[Any]:
        """Call a function for each program, at the same time."""
        with ThreadPoolExecutor(len(self.programs)) as threads:
            return list(threads.map(function, self.programs))

    def kill(self) -> None:
        for program in self.programs:
            program.kill()


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """Run the programs of an entry; those of another one end then."""
    current: list[Running] = []

    def get(entry: table.Program) -> Running:
        if not current or current[0].entry is not entry:
            while current:
                current.pop().kill()
            current.append(Running(entry))
        return current[0]

    yield get
    while current:
        current.pop().kill()


ENTRIES = {entry.name: entry for entry in table.SERVERS}
CASES = [
    pytest.param(name, conversation, id=f"{name}-{conversation}")
    for name, entry in ENTRIES.items()
    for conversation in [*CONVERSATIONS, *entry.more, "stop"]
    if conversation not in entry.left_out
]


@pytest.mark.parametrize(("name", "conversation"), CASES)
def test_server(name: str, conversation: str, running: Any) -> None:
    servers: Running = running(ENTRIES[name])
    if conversation == "stop":
        check_stop(servers)
        return
    expected, *results = servers.each(lambda program: have(program, conversation))
    for way, found in zip(servers.ways[1:], results, strict=True):
        if conversation in way.differs and (IS_FAST or way.name == "flag"):
            why, read = way.differs[conversation]
            assert found != expected, f"it is the same: it is no longer so that {why}"
            assert read(found) == read(expected), way.name
        else:
            assert found == expected, way.name


def check_stop(servers: Running) -> None:
    """Stop the servers while a client is connected, and compare what they did."""

    def stop(program: Program) -> Any:
        talk = Talk(program, "stop")
        peer = talk.open("/echo")
        peer.send_frame(1, "hello")
        peer.frame()
        program.ask_to_stop()
        answered(peer)
        return program.wait_for_end(), peer.seen

    expected, *results = servers.each(stop)
    for way, found in zip(servers.ways[1:], results, strict=True):
        assert found == expected, way.name
    for way, program in zip(servers.ways, servers.programs, strict=True):
        check_speedups(way, program)
        if servers.entry.engine:
            engine = way.engine or servers.entry.engine
            if way.name == "run" and not IS_FAST:
                engine = servers.entry.engine
            assert set(program.engines.values()) == {engine}
    if servers.entry.logs:
        expected_log, *logs = (log_of(program) for program in servers.programs)
        for way, log in zip(servers.ways[1:], logs, strict=True):
            if not way.differs:
                assert log == expected_log, way.name


def check_speedups(way: table.Way, program: Program) -> None:
    """See that a program ran as the table says."""
    assert program.imported is (way is not table.PLAIN)
    assert program.states is not None
    for name in way.patched:
        assert program.states[name] == ("patched" if IS_FAST else "useless")


def log_of(program: Program) -> list[str]:
    """Return the lines of a log that are no part of a traceback."""
    lines = (
        tidy(line) for line in program.log if not re.match(r"[\s+|]|Traceback|$", line)
    )
    return sorted(lines)
