"""An event loop in which no time is spent waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["FakeClockLoop", "run_with_fake_clock"]

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Goes on to the next timer instead of waiting for it."""

    loop: FakeClockLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            return super().select(None)
        self.loop.advance(timeout)
        return ready


class FakeClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when there is nothing to do.

    ``await asyncio.sleep(3600)`` is over at once, and what was to happen in that hour
    has happened, in order: keepalive pings, timeouts, delays between attempts.  Its
    time begins at 0.

    It is for connections in memory: a test that waits for a real socket or for another
    thread would see its timers run meanwhile.

        with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
            runner.run(main())
    """

    def __init__(self) -> None:
        self._now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Put the clock forward; timers that are due then run in the next turn.

        Args:
            seconds: How much.

        Raises:
            ValueError: When it is negative.
        """
        if seconds < 0:
            raise ValueError(f"the clock cannot be put back: {seconds} seconds")
        self._now += seconds


def run_with_fake_clock(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a :class:`FakeClockLoop`.

    Args:
        coroutine: What to run.
    """
    with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
        return runner.run(coroutine)
