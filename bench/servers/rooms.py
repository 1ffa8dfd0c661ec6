"""Which room a connection comes to: the same for every library.

Without ``--per-topic`` there is one.  With it, so many connections of this process
share a room each; other processes number theirs the same way, so a room has as many of
each.
"""

from __future__ import annotations

import itertools
from typing import Any


class Rooms:
    """The rooms of a process.

    Attributes:
        names: All that anybody has come to.
    """

    def __init__(self, options: Any) -> None:
        self.names: list[str] = []
        self._each = options.per_topic
        self._numbers = itertools.count()

    def enter(self) -> str:
        """Return the room of one more connection."""
        number = next(self._numbers)
        name = f"room.{number // self._each if self._each else 0}"
        if not self.names or self.names[-1] != name:
            self.names.append(name)
        return name
