"""Events of the library wsproto, for whole messages, without the detours.

``Connection.send()`` and ``Connection.events()`` are the host's, but for messages on an
open connection whose frames are read and written here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ..constants import OP_BINARY, OP_TEXT
from ._wsproto_frames import build

__all__ = ["make_events", "make_send"]


def make_send(connection: ModuleType, protocol: Any, slow: Any) -> Any:
    """Return a faster ``Connection.send()``.

    Args:
        connection: The module ``wsproto.connection``.
        protocol: The ``FrameProtocol`` of this package.
        slow: The host's own ``send()``.
    """
    host: Any = connection
    kinds = (host.TextMessage, host.BytesMessage)
    is_open = host.ConnectionState.OPEN

    @functools.wraps(slow)
    def send(self: Any, event: Any) -> Any:
        frames: Any = self._proto
        if (
            type(event) in kinds
            and type(frames) is protocol
            and self._state is is_open
            and event.message_finished
            and frames._outbound_opcode is None
            and not frames.extensions
        ):
            data = event.data
            if type(data) is str:
                return build[frames.client](OP_TEXT, data.encode())
            if type(data) is bytes or type(data) is bytearray:
                return build[frames.client](OP_BINARY, data)
        return slow(self, event)

    return send


def make_events(connection: ModuleType, protocol: Any, slow: Any) -> Any:
    """Return a faster ``Connection.events()``.

    Args:
        connection: The module ``wsproto.connection``.
        protocol: The ``FrameProtocol`` of this package.
        slow: The host's own ``events()``.
    """
    host: Any = connection
    opcodes = host.Opcode
    kinds = {opcodes.TEXT: host.TextMessage, opcodes.BINARY: host.BytesMessage}

    @functools.wraps(slow)
    def events(self: Any) -> Iterator[Any]:
        frames: Any = self._proto
        if type(frames) is protocol:
            while self._events:
                yield self._events.popleft()
            parse = frames._parse_more
            while True:
                try:
                    frame = next(parse, None)
                except Exception as exc:
                    frames._held = exc
                    break
                if frame is None:
                    return
                opcode, payload, is_frame, is_message = frame
                kind = kinds.get(opcode)
                if kind is None:
                    frames._held = frame
                    break
                # The class is frozen, and its own way of making one is dear.
                event = kind.__new__(kind)
                event.__dict__.update(
                    data=payload, frame_finished=is_frame, message_finished=is_message
                )
                yield event
        yield from slow(self)

    return events
