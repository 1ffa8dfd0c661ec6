"""What aiohttp's WebSockets are written with.

While messages of a peer wait to be received, what is sent to it is held back until none
waits any more, or for a turn of the loop, and leaves in one write.  For that time a
stand-in takes the place of the transport: whatever else is asked of it comes after the
frames, so a connection is never closed before what was sent on it.
"""

from __future__ import annotations

import time
from typing import Any

from .._codec import FrameWriter

__all__ = ["Joined", "make_writer"]

LARGE = 16384
"""Bytes that are not worth a copy to join them."""
AT_MOST = 65536
"""Bytes that are held back."""
PATIENCE = 0.001
"""Seconds that a frame is held back when another one follows it."""

_plain = FrameWriter(mask=False).message
_masked = FrameWriter(mask=True).message


class Joined:
    """Stands in for the transport of a connection, and joins what is written to it.

    Args:
        writer: The writer of the connection.
        loop: Its loop: in the next turn, at the latest, the transport is back.
    """

    __slots__ = (
        "_frames",
        "_protocol",
        "_since",
        "_size",
        "_transport",
        "_writer",
        "is_closing",
    )

    def __init__(self, writer: Any, loop: Any) -> None:
        self._writer = writer
        self._protocol = protocol = writer.protocol
        self._transport: Any = writer.transport
        self.is_closing = writer.transport.is_closing
        self._frames: list[Any] = []
        self._size = 0
        self._since = time.monotonic()
        loop.call_soon(self.end)
        writer.transport = protocol.transport = self

    def write(self, data: Any) -> None:
        """Take bytes; write them when they have become many, or old."""
        size = len(data)
        if size > LARGE:
            self.flush()
            self._transport.write(data)
            return
        self._frames.append(data)
        self._size += size
        if self._size > AT_MOST or time.monotonic() - self._since > PATIENCE:
            self.flush()
            self._since = time.monotonic()

    def flush(self) -> None:
        """Write what there is."""
        frames = self._frames
        if frames:
            self._frames = []
            self._size = 0
            # One that was lost takes nothing, and some say so with an exception.
            if not self.is_closing():
                self._transport.write(b"".join(frames))

    def end(self) -> None:
        """Write what there is, and step aside; harmless when that was done."""
        if self._writer.transport is self:
            self._writer.transport = self._transport
        if self._protocol.transport is self:
            self._protocol.transport = self._transport
        self.flush()

    def __getattr__(self, name: str) -> Any:
        self.flush()
        return getattr(self._transport, name)

    # For those who compare transports, or ask what they are.

    @property
    def __class__(self) -> Any:
        return self._transport.__class__

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError("the class of a transport cannot be changed")

    def __eq__(self, other: object) -> bool:
        if type(other) is Joined:
            other = other._transport
        return bool(self._transport == other)

    def __hash__(self) -> int:
        return hash(self._transport)


def make_writer(host: Any) -> Any:
    """Return a ``WebSocketWriter`` that knows how to make a frame in one step.

    Args:
        host: The class of the host.
    """

    class WebSocketWriter(host):  # type: ignore[misc]
        __doc__ = host.__doc__

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # Without compression, and without masks of the program's own.
            self._websock_message: Any = None
            if not self.compress and "random" not in kwargs:
                self._websock_message = _masked if self.use_mask else _plain

    WebSocketWriter.__module__ = host.__module__
    WebSocketWriter.__qualname__ = host.__qualname__
    return WebSocketWriter
