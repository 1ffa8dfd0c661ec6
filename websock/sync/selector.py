"""Waiting for many sockets where there is nothing but ``select()``: Windows.

``select()`` takes 512 sockets there.  More are asked about in parts, again and again,
which costs a little time and processor; it is better than none.
"""

from __future__ import annotations

import selectors
from time import monotonic, sleep
from typing import Any

__all__ = ["PartsSelector", "make_selector"]

# Sockets of one call; there is room for one more on Windows.
PART = 500

# Seconds between two rounds.
PAUSE = 0.01


class PartsSelector(selectors.SelectSelector):
    """A selector for any number of sockets.

    Args:
        part: Sockets of one call of ``select()``.
    """

    def __init__(self, part: int = PART) -> None:
        super().__init__()
        self._part = part

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until something is ready, as all selectors do."""
        if len(self.get_map()) <= self._part:
            return super().select(timeout)
        until = None if timeout is None else monotonic() + timeout
        while True:
            ready = self._ask()
            if ready:
                return ready
            pause = PAUSE if until is None else min(PAUSE, until - monotonic())
            if pause <= 0:
                return []
            sleep(pause)

    def _ask(self) -> list[tuple[selectors.SelectorKey, int]]:
        keys = list(self.get_map().values())
        ready: list[tuple[Any, int]] = []
        for start in range(0, len(keys), self._part):
            with selectors.SelectSelector() as some:
                for key in keys[start : start + self._part]:
                    some.register(key.fd, key.events, key)
                ready += ((found.data, events) for found, events in some.select(0))
        return ready


def make_selector() -> selectors.BaseSelector:
    """Return the best selector of this system."""
    selector = selectors.DefaultSelector()
    if isinstance(selector, selectors.SelectSelector):
        return PartsSelector()
    return selector
