"""Counts what a WebSocket has taken and not yet sent: ``bufferedAmount``.

A connection knows how many bytes of frames are unsent, and the standard wants bytes of
messages.  So each message that could not be sent at once is noted with its place in the
stream of unsent bytes; nothing is noted while the system takes everything.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..typing import DataLike
from .opening import TellingConnection

__all__ = ["BufferedAmount"]


class BufferedAmount:
    """Payload bytes that were sent, and that the system has not taken.

    Args:
        loop: The loop whose turns count.
    """

    __slots__ = ("_fixed", "_loop", "_lost", "_noted", "_place", "_total", "_turn")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Messages that were not sent at once: where they end, and their size.
        self._noted: deque[tuple[int, int]] = deque()
        self._total = 0  # the sum of their sizes
        # Where the unsent bytes end, from the beginning and without control frames.
        self._place = 0
        self._turn = -1  # what is told until the loop's turn is over; -1: unknown
        self._lost = 0  # sent when it was too late
        self._fixed: int | None = None  # unsent at the end of the connection

    def send(self, ws: TellingConnection, data: DataLike, size: int) -> None:
        """Send a message of ``size`` bytes, and count it."""
        before = ws.buffered_amount
        if self._turn < 0:
            # The standard's number does not fall while a task of the loop runs.
            self._turn = self._unsent(ws, before)
            self._loop.call_soon(self._turn_over)
        ws.send_nowait(data)
        self._turn += size
        after = ws.buffered_amount
        if after:
            self._place += max(after - before, 0)
            self._noted.append((self._place + ws.control_size, size))
            self._total += size
        else:
            self._forget()

    def lose(self, size: int) -> None:
        """Count a message that is not sent."""
        self._lost += size

    def count(self, ws: TellingConnection | None) -> int:
        """Return the number."""
        if self._turn >= 0:
            return self._turn + self._lost
        if ws is None or self._fixed is not None:
            return (self._fixed or 0) + self._lost
        return self._unsent(ws, ws.buffered_amount) + self._lost

    def end(self, ws: TellingConnection) -> None:
        """Hold on to what was not sent: the connection is lost."""
        self._fixed = self._unsent(ws, ws.unsent_at_end)
        self._forget()

    def _turn_over(self) -> None:
        self._turn = -1

    def _unsent(self, ws: TellingConnection, unsent: int) -> int:
        """Return how much of the noted messages is among the unsent bytes."""
        noted = self._noted
        if not unsent:
            self._forget()
            return 0
        sent = self._place + ws.control_size - unsent
        while noted and noted[0][0] <= sent:
            self._total -= noted.popleft()[1]
        if not noted or ws.protocol.extensions:
            return self._total  # of a compressed message, nobody knows a part
        end, size = noted[0]
        return self._total - max(size - (end - sent), 0)

    def _forget(self) -> None:
        self._noted.clear()
        self._total = 0
