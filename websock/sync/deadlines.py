"""How much time is left for something that takes several steps."""

from __future__ import annotations

from time import monotonic

__all__ = ["Deadline"]


class Deadline:
    """A point in time.

    Args:
        seconds: How far away it is; ``None`` for never.
    """

    __slots__ = ("when",)

    def __init__(self, seconds: float | None) -> None:
        self.when = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Return the seconds that are left, at least 0; ``None`` for no limit."""
        if self.when is None:
            return None
        return max(self.when - monotonic(), 0.0)

    def check(self) -> float | None:
        """Return the seconds that are left, more than 0; ``None`` for no limit.

        Raises:
            TimeoutError: When there are none.
        """
        left = self.left()
        if left == 0:
            raise TimeoutError("timed out")
        return left
