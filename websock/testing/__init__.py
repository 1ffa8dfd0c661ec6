"""Help for tests of programs that use WebSockets.

* :func:`memory_pair` and :func:`memory_server`: connections without sockets, with
  :class:`Faults` on demand;
* :class:`FakeClockLoop`: an event loop in which no time is spent waiting;
* :func:`record` and :func:`replay`: conversations kept in a file;
* a plugin for pytest with the fixtures ``ws_server`` and ``ws_pair``.
"""

from .clock import FakeClockLoop, run_with_fake_clock
from .memory import Faults, MemoryPair, MemoryServer, memory_pair, memory_server
from .recording import Entry, Recording, ReplayMismatch, record, replay

__all__ = [
    "Entry",
    "FakeClockLoop",
    "Faults",
    "MemoryPair",
    "MemoryServer",
    "Recording",
    "ReplayMismatch",
    "memory_pair",
    "memory_server",
    "record",
    "replay",
    "run_with_fake_clock",
]
