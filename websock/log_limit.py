"""A limit on the lines that peers can have logged.

A peer costs a line each time it is refused, and it can be refused as often as it can
connect. Whoever floods a server must not fill its disk as well: so many lines a second
are written, the others are counted, and the next line that is written says how many
they were.
"""

from __future__ import annotations

import threading
from time import monotonic

from .constants import MAX_LOG_LINES
from .typing import LoggerLike

__all__ = ["LogLimit"]


class LogLimit:
    """Decides which lines about what peers did are logged.

    Any thread may use it.

    Args:
        logger: Where to say how many lines were left out.
        per_second: Lines in a second.
        about: What the lines are about.

    Attributes:
        logger: Where to say how many lines were left out.
        per_second: Lines in a second; ``None`` for no limit.
        left_out: Lines that were left out, and not yet spoken of.
    """

    __slots__ = (
        "_about",
        "_count",
        "_lock",
        "_since",
        "left_out",
        "logger",
        "per_second",
    )

    def __init__(
        self,
        logger: LoggerLike,
        per_second: int | None = MAX_LOG_LINES,
        about: str = "refused handshakes",
    ) -> None:
        self.logger = logger
        self._about = about
        self.per_second = per_second
        self.left_out = 0
        self._count = 0
        self._since = 0.0  # when the second began, or the first line was left out
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Tell whether a line may be logged; ask once for each line."""
        if self.per_second is None:
            return True
        with self._lock:
            now = monotonic()
            if now - self._since >= 1:
                left_out, seconds = self.left_out, now - self._since
                self.left_out = 0
                self._since = now
                self._count = 1
            elif self._count < self.per_second:
                self._count += 1
                return True
            else:
                self.left_out += 1
                return False
        # Not while locked: what handles records may do anything.
        self._tell(left_out, seconds)
        return True

    def tell(self) -> None:
        """Say how many lines were left out, if any, because nothing follows."""
        with self._lock:
            left_out, seconds = self.left_out, monotonic() - self._since
            self.left_out = 0
        self._tell(left_out, seconds)

    def _tell(self, left_out: int, seconds: float) -> None:
        if left_out:
            self.logger.info(
                "%d more lines about %s in %.1f s were not logged",
                left_out,
                self._about,
                seconds,
            )
