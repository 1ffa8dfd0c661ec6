"""Which worker the running code is in."""

from __future__ import annotations

import threading

from .plan import Place

__all__ = ["current_worker", "set_current"]


class _Here(threading.local):
    place: Place | None = None


_here = _Here()
_process: Place | None = None


def set_current(place: Place | None) -> None:
    """Say which worker this process, or this thread, is."""
    global _process
    if place is not None and place.kind == "process":
        _process = place
    else:
        _here.place = place


def current_worker() -> Place | None:
    """Return which worker this is: its number, and where the hub is.

    Returns:
        ``None`` outside of workers.  With ``threads=``, only the thread of the
        worker itself knows.
    """
    return _here.place or _process
