"""What the asyncio connections of the library websockets do for each message.

``send()`` and ``recv()`` go through context managers and generators that are there for
what happens seldom: fragments, a full write buffer, a closing connection.  These take
the straight way for a whole message on an open connection, and leave all else, and
every failure, to the host's own methods.  Subclasses with methods of their own that
would be left out are served as by the host.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from .._codec import FrameWriter
from .._kernels import decode_utf8
from ..constants import OP_BINARY, OP_TEXT

__all__ = ["make_get", "make_send"]

build = {True: FrameWriter(mask=True).message, False: FrameWriter(mask=False).message}


def make_send(connection: ModuleType, client: Any, slow: Any) -> Any:
    """Return a faster ``Connection.send()``.

    Args:
        connection: The module ``websockets.asyncio.connection``.
        client: The host's name for the side of the client.
        slow: The host's own ``send()``.
    """
    host: Any = connection
    is_open = host.OPEN
    base, base_protocol = host.Connection, host.Protocol
    context, send_data, drain = base.send_context, base.send_data, base.drain

    @functools.wraps(slow)
    async def send(self: Any, message: Any, *, text: Any = None) -> None:
        protocol = self.protocol
        kind = type(self)
        if (
            (type(message) is not str and type(message) is not bytes)
            or self.send_in_progress is not None
            or protocol.state is not is_open
            or kind.send_context is not context
            or kind.send_data is not send_data
            or kind.drain is not drain
        ):
            await slow(self, message, text=text)
            return
        failure = None
        try:
            if is_plain(type(protocol), protocol):
                # A text goes into its frame without bytes of its own in between.
                is_text = text is not False if type(message) is str else text is True
                mask = protocol.side is client
                protocol.writes.append(build[mask](message, is_text))
            elif type(message) is str:
                data = message.encode()
                if text is False:
                    protocol.send_binary(data)
                else:
                    protocol.send_text(data)
            elif text is True:
                protocol.send_text(message)
            else:
                protocol.send_binary(message)
        except Exception as exc:
            failure = exc
        if failure is not None:
            async with self.send_context():
                raise failure
        writes, protocol.writes = protocol.writes, []
        try:
            for written in writes:
                self.transport.write(written)
        except Exception as exc:
            failure = exc
        if failure is not None:
            await fail(self, failure)
        if self.paused or self.transport.is_closing():
            # There is nothing left to write; it waits as it always does.
            async with self.send_context():
                pass

    def is_plain(kind: Any, protocol: Any) -> bool:
        """Whether what a protocol sends is the frame and nothing else."""
        return (
            not protocol.debug
            and not protocol.extensions
            and not protocol.expect_continuation_frame
            and kind.send_frame is base_protocol.send_frame
            and kind.send_text is base_protocol.send_text
            and kind.send_binary is base_protocol.send_binary
        )

    async def fail(self: Any, exc: Exception) -> None:
        """Have the host do what it does when writing fails."""

        def raise_it() -> None:
            del self.send_data
            raise exc

        self.send_data = raise_it
        async with self.send_context():
            pass

    return send


def make_get(slow: Any) -> Any:
    """Return a faster ``Assembler.get()``.

    Args:
        slow: The host's own ``get()``.
    """

    @functools.wraps(slow)
    async def get(self: Any, decode: Any = None) -> Any:
        if self.get_in_progress or self.closed:
            return await slow(self, decode)
        frames = self.frames
        if frames.queue:
            frame = frames.queue.popleft()
        else:
            self.get_in_progress = True
            try:
                frame = await frames.get()
            finally:
                self.get_in_progress = False
        if not frame.fin or frame.opcode not in (OP_TEXT, OP_BINARY):
            frames.queue.appendleft(frame)
            return await slow(self, decode)
        self.maybe_resume()
        data = frame.data
        if decode is None:
            decode = frame.opcode == OP_TEXT
        if decode:
            return decode_utf8(data)
        return data if type(data) is bytes else bytes(data)

    return get
