"""A worker, as its hub sees it: what it asks for, and what it has missed.

What waits for a worker that does not read has a limit.  From there on nothing is kept
for it until it has read most of that; the first message of each channel that it missed
is remembered, and how many there were, and that is the first thing it is told then.
The answers that it asks for are no way around the limit: as long as they wait, nothing
more is read of it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from ..asyncio.incoming import ServerConnection
from ..constants import OP_BINARY
from ..frames import CloseCode
from ..listener import Listener
from ..prepared import PreparedMessage
from ..topics.history import Position
from ..topics.pattern import check_pattern, check_topic
from ..typing import Data, DataLike
from .routes import check_name
from .wire import COUNT, Kind, lines_of, pack, places_of, unpack

if TYPE_CHECKING:
    from .server import Hub

__all__ = ["Worker", "WorkerConnection"]

MAX_MISSED = 1000  # channels of which the first message that was missed is remembered
MAX_TOKEN = 20  # characters of text that comes back


class WorkerConnection(ServerConnection):
    """The connection to a worker."""

    __slots__ = ("worker",)

    worker: Worker

    def post(
        self,
        message: PreparedMessage | DataLike,
        *,
        key: Hashable = None,
        text: bool | None = None,
    ) -> bool:
        """Take note of a message that the worker does not get: it does not read."""
        assert isinstance(key, tuple)
        self.worker.note_missed(*key)
        return False


class Worker(Listener):
    """What a worker says, and what is to be said to it.

    Attributes:
        number: Which one it is, for people.
    """

    def __init__(self, hub: Hub, number: int) -> None:
        self.hub = hub
        self.number = number
        self.ws: WorkerConnection
        self.patterns: set[str] = set()
        self._missed: dict[str, Position] = {}
        self._missed_count = 0

    # -- what happens on the connection ------------------------------------------------

    def on_open(self, ws: Any) -> None:
        """Say what may be said."""
        self.ws = ws
        ws.worker = self
        self.hub.joined(self)
        ws.send_nowait(pack(Kind.HELLO, b"", str(self.hub.max_size).encode()))

    def on_message(self, ws: Any, message: Data) -> None:
        """Do what the worker says."""
        if isinstance(message, str):
            raise ValueError("text is not for a hub")
        kind, channel, payload = unpack(message)
        if kind == Kind.PUBLISH:
            if len(payload) < COUNT.size:
                raise ValueError(f"publication is too short: {len(payload)} bytes")
            (length,) = COUNT.unpack_from(payload)
            self.hub.publish(channel, length, payload[COUNT.size :])
        elif kind == Kind.SUBSCRIBE:
            self._subscribe(channel.decode())
        elif kind == Kind.LEAVE:
            self._leave(channel.decode())
        elif kind == Kind.SYNC:
            ws.send_nowait(pack(Kind.SYNC, b"", _token(payload.decode()).encode()))
        elif kind == Kind.READ:
            self._read(channel.decode(), payload)
        else:
            raise ValueError(f"kind of message is unknown: {kind}")

    def on_error(self, ws: Any, exc: Exception) -> None:
        """End a connection on which there is something else than a worker."""
        if isinstance(exc, ValueError):
            self.hub.refused(self)
            ws.fail(CloseCode.POLICY_VIOLATION, "not what a hub is told")
        else:
            super().on_error(ws, exc)

    def on_resume_writing(self, ws: Any) -> None:
        """Tell what was missed, before anything else is sent."""
        if not self._missed_count:
            return
        count, self._missed_count = self._missed_count, 0
        missed, self._missed = self._missed, {}
        self.hub.caught_up(self, count)
        # When not all channels could be remembered, that is said too.
        more = " more" if len(missed) >= MAX_MISSED else ""
        lines = lines_of(f"{count}{more}", missed.items())
        # In front of what is published in this turn of the loop already.
        lost = PreparedMessage(OP_BINARY, pack(Kind.LOST, b"", lines), False)
        ws.send_prepared(lost, None)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        """Forget it."""
        for pattern in self.patterns:
            self.hub.routes.remove(pattern, self.ws)
        self.patterns.clear()
        self.hub.left(self)

    # -- what it says ------------------------------------------------------------------

    def _subscribe(self, pattern: str) -> None:
        if pattern in self.patterns:
            return
        check_name(pattern, check_pattern)
        if len(self.patterns) >= self.hub.max_subscriptions:
            raise ValueError(
                f"too many subscriptions: {len(self.patterns) + 1}, "
                f"limit {self.hub.max_subscriptions}"
            )
        self.patterns.add(pattern)
        self.hub.routes.add(pattern, self.ws)

    def _leave(self, pattern: str) -> None:
        if pattern in self.patterns:
            self.patterns.remove(pattern)
            self.hub.routes.remove(pattern, self.ws)

    def _read(self, pattern: str, payload: bytes) -> None:
        first, since = places_of(payload)
        token, _, text = first.partition(" ")
        last = None
        if text != "-":
            if not (text.isascii() and text.isdecimal() and len(text) <= 9):
                raise ValueError("number of messages is none")
            last = int(text)
        if pattern:
            check_name(pattern, check_pattern)
        for channel in since:
            check_name(channel, check_topic)
        found, places = self.hub.read(pattern, last, since)
        token = _token(token)
        self.ws.send_nowait(pack(Kind.KEPT, b"", token.encode()))
        for message in found:
            self.ws.send_nowait(message)
        self.ws.send_nowait(pack(Kind.END, b"", lines_of(token, places.items())))

    # -- what it misses ----------------------------------------------------------------

    def note_missed(self, channel: str, place: Position) -> None:
        """Take note of a message that it does not get."""
        if not self._missed_count:
            self.hub.fell_behind(self)
        self._missed_count += 1
        if channel not in self._missed and len(self._missed) < MAX_MISSED:
            self._missed[channel] = place


def _token(text: str) -> str:
    if not (0 < len(text) <= MAX_TOKEN and text.isascii() and text.isalnum()):
        raise ValueError("text that comes back is none")
    return text
