"""One timer wheel per event loop: open, ping and close deadlines of all connections.

A timer of the loop costs a handle, a heap operation and a context each, and most
deadlines of a connection are cancelled long before they pass.  Here a timer is an
entry in the slot of its deadline, rounded up to the next tick; the loop sees one
timer for the earliest slot.  Adding and cancelling are a dictionary operation each.

A timer fires at or after its deadline, by at most one tick (for delays over a minute:
32 ticks, over an hour: 2048) and the loop's own delay.
"""

from __future__ import annotations

import heapq
import logging
import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["Timer", "TimerWheel"]

TICK = 1 / 32  # seconds
LONGEST = 1e8  # seconds, three years: what is longer, or infinite, makes no difference

logger = logging.getLogger("websock")


class Timer:
    """A deadline; ``cancel()`` forgets it, at any time and any number of times."""

    __slots__ = ("_slot", "callback", "owner")

    def __init__(
        self, slot: dict[Timer, None], callback: Callable[..., Any], owner: Any
    ) -> None:
        self._slot = slot
        self.callback = callback
        self.owner = owner

    def fire(self) -> None:
        """Make the call."""
        if self.owner is None:
            self.callback()
        else:
            self.callback(self.owner)

    def cancel(self) -> None:
        """Forget the deadline; the callback is released at once."""
        self._slot.pop(self, None)


class TimerWheel:
    """The deadlines of one loop.

    Args:
        loop: The event loop, held weakly.
        tick: Width of a slot, in seconds.
    """

    __slots__ = ("_fired", "_handle", "_heap", "_loop", "_slots", "_tick", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = TICK) -> None:
        self._loop = weakref.ref(loop)
        self._tick = tick
        self._slots: dict[int, dict[Timer, None]] = {}
        self._heap: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._when = 0  # slot that the loop's timer waits for
        self._fired = -1  # slot whose timers fired last, or are firing

    def call_later(
        self, delay: float, callback: Callable[..., Any], owner: Any = None
    ) -> Timer:
        """Call ``callback()``, or ``callback(owner)``, in ``delay`` seconds.

        A function and its owner take less memory than a bound method, which matters
        for the deadlines that every connection has.
        """
        loop = self._loop()
        assert loop is not None
        delay = min(max(delay, 0), LONGEST)
        number = math.ceil((loop.time() + delay) / self._tick)
        if number <= self._fired:
            # Some loops' time stands still during a turn: who sets a timer whenever
            # it fires must not keep the others waiting.
            number = self._fired + 1
        if delay > 64:
            # Few slots, so that those that are empty in the end take no room.
            coarse = 32 if delay < 4096 else 2048
            number = -(-number // coarse) * coarse
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heapq.heappush(self._heap, number)
            if self._handle is None or number < self._when:
                self._schedule(loop)
        timer = Timer(slot, callback, owner)
        slot[timer] = None
        return timer

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._when = self._heap[0]
            self._handle = loop.call_at(self._when * self._tick, self._expire)

    def _expire(self) -> None:
        loop = self._loop()
        if loop is None:
            return
        now = loop.time()
        try:
            while self._heap and self._heap[0] * self._tick <= now + 1e-6:
                self._fired = self._when = self._heap[0]
                slot = self._slots[self._fired]
                while slot:
                    timer = next(iter(slot))
                    del slot[timer]
                    try:
                        timer.fire()
                    except Exception:
                        logger.exception("timer callback failed")
                self._drop_first()
        finally:
            # Slots whose timers were all cancelled need no wake-up.
            while self._heap and not self._slots[self._heap[0]]:
                self._drop_first()
            self._handle = None
            self._schedule(loop)

    def _drop_first(self) -> None:
        del self._slots[heapq.heappop(self._heap)]
