"""The events that a :class:`~websock.events.WebSocket` dispatches."""

from __future__ import annotations

from time import monotonic
from typing import Any

__all__ = ["CloseEvent", "ErrorEvent", "Event", "MessageEvent"]


class Event:
    """Something that happened.

    Attributes:
        type: What: ``"open"``, ``"message"``, ``"error"`` or ``"close"``.
        target: Object that it happened to, once it is dispatched.
        timeStamp: When, in milliseconds of a clock that never goes back.
    """

    __slots__ = ("target", "timeStamp", "type")

    def __init__(self, type: str) -> None:
        self.type = type
        self.target: Any = None
        self.timeStamp = monotonic() * 1000

    @property
    def currentTarget(self) -> Any:
        """Object whose callback is called, the same as ``target``."""
        return self.target

    def __repr__(self) -> str:
        shown = [
            f"{name}={getattr(self, name)!r}"
            for name in type(self).__slots__
            if name not in ("target", "timeStamp", "type", "data")
        ]
        return f"<{type(self).__name__} {' '.join([self.type, *shown])}>"


class MessageEvent(Event):
    """A message arrived.

    Attributes:
        data: ``str`` for a text message; for a binary one what ``binaryType`` says.
        origin: Origin of the server, as ``ws://localhost:8765``.
    """

    __slots__ = ("data", "origin")

    def __init__(self, type: str, data: Any = None, origin: str = "") -> None:
        super().__init__(type)
        self.data = data
        self.origin = origin


class CloseEvent(Event):
    """The connection is closed.

    Attributes:
        wasClean: Whether close frames went both ways.
        code: Close code from the peer: 1005 when its close frame had none, 1006 when
            no close frame came.
        reason: Close reason from the peer.
    """

    __slots__ = ("code", "reason", "wasClean")

    def __init__(
        self, type: str, wasClean: bool = False, code: int = 0, reason: str = ""
    ) -> None:
        super().__init__(type)
        self.wasClean = wasClean
        self.code = code
        self.reason = reason


class ErrorEvent(Event):
    """The connection failed; a :class:`CloseEvent` follows.

    Browsers do not tell pages why.  Here it is told.

    Attributes:
        error: Why.
        message: Why, as text.
    """

    __slots__ = ("error", "message")

    def __init__(self, type: str, error: BaseException | None = None) -> None:
        super().__init__(type)
        self.error = error
        self.message = "" if error is None else str(error)
