"""What the chaos tests share: seeds, faults by chance, and that nothing is left."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from faulty import Fault
from linked import loop_factory

from websock.sync.watcher import the_watcher

__all__ = ["nothing_left", "some_fault", "some_loop", "try_seeds"]

PATIENCE = 30.0  # seconds for what takes none

FAULTS = ("none", "stall", "fin", "fin", "rst", "half")


def seeds() -> range:
    """Return the seeds to try."""
    text = os.environ.get("WEBSOCK_CHAOS_SEEDS") or "2"
    first, is_range, last = text.rpartition("-")
    return range(int(first), int(last) + 1) if is_range else range(int(last))


def some_fault(chance: random.Random, sizes: tuple[int, int], is_tls: bool) -> Fault:
    """Choose what happens: in the handshake, somewhere, or around the close frame.

    Args:
        sizes: Bytes of the messages to the server, and to the client.
    """
    kind, to_server = chance.choice(FAULTS), chance.random() < 0.5
    size = sizes[0] if to_server else sizes[1]
    where = chance.choice(("handshake", "anywhere", "anywhere", "end", "end"))
    after_head = where != "handshake" and not is_tls
    if where == "handshake":
        after = chance.randrange(3000 if is_tls else 300)
    elif where == "anywhere":
        after = chance.randrange(size + 20 + 2000 * is_tls)
    else:
        after = max(size - 5 + chance.randrange(60) + 2000 * is_tls, 0)
    return Fault(
        kind,
        to_server,
        after,
        after_head,
        pieces=chance.choice((3, 50, 1000, 65536)),
        lateness=chance.choice((0.0, 0.0, 0.001)),
    )


class _Complaints(logging.Handler):
    """Keeps what is logged above INFO: whatever a network does, nothing is.

    By asyncio either: it logs the exceptions of tasks that nobody has looked at.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def open_files() -> dict[str, str]:
    """Return what is open, by descriptor, where that can be asked.

    Without pipes: libuv keeps one for good.
    """
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found[name] = os.readlink(f"/proc/self/fd/{name}")
    return {name: what for name, what in found.items() if what[:4] != "pipe"}


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """See that there are no threads, files and complaints at the end (3)."""
    the_watcher()  # it stays, with its thread and files
    threads, files = {*threading.enumerate()}, open_files()
    complaints = _Complaints()
    loggers = [logging.getLogger(name) for name in ("websock", "asyncio")]
    for each in loggers:
        each.addHandler(complaints)
    try:
        yield
        gc.collect()  # what nobody has looked at is told when it is freed
    finally:
        for each in loggers:
            each.removeHandler(complaints)
    for thread in {*threading.enumerate()} - threads:
        if thread.name != "websock-watcher":
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread
    left_open = {k: v for k, v in open_files().items() if files.get(k) != v}
    assert not left_open, left_open
    assert not complaints.lines, complaints.lines


def try_seeds(run: Callable[[str], None], *kinds: str) -> None:
    """Run something with each seed; a failure tells which."""
    for number in seeds():
        try:
            with nothing_left():
                run("-".join((*kinds, str(number))))
        except BaseException as exc:
            exc.add_note(f"seed {number}: WEBSOCK_CHAOS_SEEDS={number}-{number}")
            raise


def some_loop(chance: random.Random) -> Any:
    """Choose a loop of those that are there."""
    if sys.platform == "win32" or chance.random() < 0.5:
        return None
    return loop_factory("uvloop")
