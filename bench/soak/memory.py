"""What a process holds in memory, told by itself.

Resident memory alone says little about a process of minutes: malloc gives memory back
only from the end of its heap, so messages of random sizes leave holes that are free but
resident, the more the longer it runs, up to a level.  What is not free is in use.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later, the sum over all arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


_libc: Any = ctypes.CDLL(None)
_mallinfo: Any = getattr(_libc, "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _Mallinfo


def free() -> int:
    """Return the bytes that malloc holds free; 0 where it does not tell."""
    return 0 if _mallinfo is None else int(_mallinfo().fordblks)


def measure() -> dict[str, int]:
    """Return resident bytes, free ones among them, and blocks of Python's objects."""
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": resident * os.sysconf("SC_PAGE_SIZE"),
        "free": free(),
        "blocks": sys.getallocatedblocks(),
    }
