"""The callback API: an object that is told what happens on a connection."""

from __future__ import annotations

from typing import Any

from .exceptions import ConnectionClosed
from .typing import Data

__all__ = ["Listener"]


class Listener:
    """What happens on a connection, as method calls; all do nothing by default.

    Pass a subclass, or a function that returns an instance, to ``serve()``, or an
    instance to ``connect(listener=...)``.  A connection with a listener has no task
    and no queue: this is the fastest way to receive messages.

    The methods are called from the event loop and must not block.  Those that are
    coroutine functions are refused: start a task for work that waits.
    """

    __slots__ = ()

    def on_open(self, ws: Any) -> None:
        """The opening handshake is done; messages can be sent."""

    def on_message(self, ws: Any, message: Data) -> None:
        """A message arrived: ``str`` for text, ``bytes`` for binary."""

    def on_ping(self, ws: Any, data: bytes) -> None:
        """A ping arrived; its pong was sent."""

    def on_pong(self, ws: Any, data: bytes) -> None:
        """A pong arrived."""

    def on_pause_writing(self, ws: Any) -> None:
        """More than ``write_limit`` bytes are unsent: send less, or wait."""

    def on_resume_writing(self, ws: Any) -> None:
        """What was unsent has been sent, or most of it."""

    def on_error(self, ws: Any, exc: Exception) -> None:
        """A method of this object raised ``exc``.

        By default the error is logged and the connection is closed with code 1011;
        but that something was sent after the end of the connection is no error.
        """
        if isinstance(exc, ConnectionClosed) and not ws.is_open:
            return
        ws.logger.error("listener failed", exc_info=exc)
        ws.fail(1011)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        """The connection is closed.

        Args:
            code: Close code from the peer: 1005 when its close frame had none, 1006
                when no close frame came.
            reason: Close reason from the peer.
        """


def check_listener(listener: Any) -> None:
    """Check that an object can be told what happens on a connection.

    Raises:
        TypeError: When it lacks a method, or one is a coroutine function.
    """
    import inspect

    kind = listener if isinstance(listener, type) else type(listener)
    for name in (
        "on_open",
        "on_message",
        "on_ping",
        "on_pong",
        "on_pause_writing",
        "on_resume_writing",
        "on_error",
        "on_close",
    ):
        method = getattr(listener, name, None)
        if not callable(method):
            raise TypeError(
                f"listener has no method {name}: derive it from websock.Listener"
            )
        if inspect.iscoroutinefunction(method):
            raise TypeError(
                f"{kind.__name__}.{name} is a coroutine function: "
                "listeners are called, not awaited"
            )
