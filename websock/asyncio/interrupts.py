"""Signals such as Ctrl-C, on every system."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

__all__ = ["call_on"]


def call_on(
    number: int, callback: Callable[[], object], loop: asyncio.AbstractEventLoop
) -> None:
    """Have a signal call a function in the loop, instead of ending the program.

    Args:
        number: The signal.
        callback: The function.
        loop: The running loop, in the main thread.
    """
    try:
        loop.add_signal_handler(number, callback)
    except NotImplementedError:
        # Windows: Python's own handler, which wakes the loop.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
