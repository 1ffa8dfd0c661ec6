"""One message as a stream: written in parts, read in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..constants import OP_BINARY, OP_CONT, OP_TEXT
from ..exceptions import InvalidState
from ..frames import CloseCode
from ..typing import Data, DataLike
from .payloads import fragment_payload

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["MessageReader", "MessageWriter"]


class MessageWriter:
    """Writes one message in parts, each of which leaves as a fragment.

    ``ws.send_stream()`` makes it::

        async with ws.send_stream() as writer:
            async for chunk in source:
                await writer.write(chunk)

    Leaving the block ends the message.  An exception in it fails the connection with
    code 1011, because a message that has begun cannot be taken back (RFC 6455, 5.4).

    Args:
        ws: The connection.
        text: ``True`` or ``False`` forces a text or a binary message; by default the
            first part decides.
    """

    __slots__ = ("_done", "_is_text", "_started", "_text", "_ws")

    def __init__(self, ws: Connection, text: bool | None = None) -> None:
        self._ws = ws
        self._text = text
        self._is_text: bool | None = None  # the type of the parts
        self._started = False  # a fragment was sent
        self._done: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Wait until no other fragmented message is being sent."""
        if self._done is not None:
            raise InvalidState("a message can be written only once")
        ws = self._ws
        await ws.wait_for_turn()
        ws.fragmenting = True
        self._done = ws.fragment_done = ws.loop.create_future()
        return self

    async def write(self, data: DataLike) -> None:
        """Send a part of the message; waits while the peer does not read.

        Args:
            data: ``str`` or bytes-like, but always the same of these.

        Raises:
            ConnectionClosed: When the connection is closed.
            TypeError: When ``data`` has another type than the part before.
        """
        if self._done is None or self._done.done():
            raise InvalidState("write() is for inside of 'async with'")
        is_text = isinstance(data, str)
        if self._is_text is not None and is_text is not self._is_text:
            raise TypeError("fragments must be all str or all bytes-like")
        opcode, payload = fragment_payload(data, self._text)
        self._is_text = is_text
        if self._started:
            opcode = OP_CONT
        self._started = True
        await self._ws.send_fragment(opcode, payload, False)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the message, or fail the connection."""
        ws = self._ws
        assert self._done is not None
        try:
            if exc_type is None:
                opcode = OP_CONT
                if not self._started:
                    opcode = OP_TEXT if self._text else OP_BINARY
                await ws.send_fragment(opcode, b"", True)
        except BaseException:
            exc_type = BaseException
            raise
        finally:
            if exc_type is not None and ws.is_open:
                # The message cannot be ended, nor can another one be begun.
                ws.fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")
            ws.fragmenting = False
            ws.fragment_done = None
            self._done.set_result(None)
            if ws.backlog:
                ws.send_backlog()


class MessageReader:
    """Reads one message in parts, as they arrive.

    ``ws.recv_stream()`` makes it::

        async with ws.recv_stream() as reader:
            async for chunk in reader:
                file.write(chunk)

    What is left of the message when the block ends is received and dropped, so that
    the next message can be received.

    Args:
        ws: The connection.
        decode: ``True`` forces text, ``False`` forces bytes.
    """

    __slots__ = ("_parts", "_pos", "_rest", "_ws")

    def __init__(self, ws: Connection, decode: bool | None = None) -> None:
        self._ws = ws
        self._parts: AsyncIterator[Data] = ws.recv_streaming(decode)
        self._rest: Data | None = None  # received, and not read from here on:
        self._pos = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Receive what is left of the message."""
        if exc_type is None:
            async for _ in self:
                pass
        elif self._ws.streaming and self._ws.is_open:
            # Whoever handles the exception may not wait for the rest of the message.
            self._ws.fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Data:
        rest, self._rest = self._rest, None
        if rest is not None:
            return rest[self._pos :]
        return await anext(self._parts)

    async def read(self, size: int = -1) -> Data:
        """Read a part of the message.

        Args:
            size: Bytes, or characters of text, at most; by default all that is left.

        Returns:
            What was read, or an empty object at the end of the message; that is
            ``b""`` also for a text message of which nothing was read.

        Raises:
            ConnectionClosed: When the connection is closed before the end.
        """
        parts: list[Data] = []
        try:
            if size >= 0:
                # A part may be a whole message: it is not copied for each read.
                part = self._rest
                if part is None:
                    part, self._pos = await self._next_part(), 0
                begin, self._pos = self._pos, self._pos + size
                self._rest = part if self._pos < len(part) else None
                return part[begin : self._pos]
            while True:
                parts.append(await self._next_part())
        except StopAsyncIteration:
            if not parts:
                return b""
            return parts[0][:0].join(parts)  # type: ignore[arg-type]

    async def _next_part(self) -> Data:
        part: Data = b""
        while not part:  # fragments may be empty
            part = await anext(self)
        return part
