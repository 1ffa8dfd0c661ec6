"""Clients of other libraries have the same conversations with and without speed-ups.

Each is a program of ``programs/``, a bot that obeys a server made of bytes.  All that it
sends is compared, and so is what it saw, and its log.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from applications import table
from applications.answers import ANSWERS, play, talks
from applications.peer import listening
from applications.process import Program
from applications.test_servers import check_speedups, log_of

ENTRIES = {entry.name: entry for entry in table.CLIENTS}


def converse(entry: table.Program, way: table.Way) -> tuple[dict[str, Any], Program]:
    """Have all conversations with a client; return what both saw."""
    with listening() as sock:
        port = str(sock.getsockname()[1])
        command = [*way.before, *entry.command, *way.after, port, *talks(entry.way)]
        program = Program(command, way.environment)
        try:
            found = {name: play(sock, name, program, entry.way) for name in ANSWERS}
            assert program.wait_for_end() == 0
        finally:
            program.kill()
    return found, program


@pytest.mark.parametrize("name", ENTRIES)
def test_client(name: str) -> None:
    entry = ENTRIES[name]
    ways = (table.PLAIN, *table.ways(entry))
    with ThreadPoolExecutor(len(ways)) as threads:
        results = list(threads.map(lambda way: converse(entry, way), ways))
    expected, plain = results[0]
    for way, (found, program) in zip(ways, results, strict=True):
        check_speedups(way, program)
        for conversation in ANSWERS:
            assert found[conversation] == expected[conversation], (
                way.name,
                conversation,
            )
        assert log_of(program) == log_of(plain), way.name
