"""What aiohttp's WebSockets do for each message, client and server.

``receive()``, iteration, ``send_str()`` and ``send_bytes()`` take the straight way for
a message on an open connection.  All else is left to the host's own methods: what was
read and is no message is handed to them as if they had read it.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from ._aiohttp_writer import LARGE, Joined

__all__ = ["make_receive", "make_send"]


class Again:
    """Stands in for the queue of a connection, to be read once.

    The host looks at the state of the connection before it waits; what it is when the
    wait is over does not matter to it.  So it sees what the state was before.

    Args:
        response: The connection; it has its queue back when this is read.
        outcome: What was read from the queue, or what reading it raised.
    """

    __slots__ = ("_outcome", "_response", "_state")

    def __init__(self, response: Any, outcome: Any) -> None:
        self._response = response
        self._outcome = outcome
        self._state = (response._reader, response._closed, response._closing)
        response._reader = self
        response._closed = response._closing = False

    async def read(self) -> Any:
        """Give what was read, or raise what was raised."""
        response, outcome = self._response, self._outcome
        response._reader, response._closed, response._closing = self._state
        self._response = self._outcome = None
        if isinstance(outcome, BaseException):
            try:
                raise outcome
            finally:
                outcome = None  # it has this frame in its traceback
        return outcome


def make_receive(
    module: ModuleType, slow: Any, slow_receive: Any = None, kind: Any = None
) -> Any:
    """Return a faster ``receive()``, or a faster ``__anext__()``.

    Args:
        module: The module of the class.
        slow: The host's own method.
        slow_receive: For ``__anext__()``: the host's own ``receive()``.
        kind: For ``__anext__()``: the class; one derived from it may have a
            ``receive()`` of its own.
    """
    host: Any = module
    text, binary = host.WSMsgType.TEXT, host.WSMsgType.BINARY
    ends = (host.WSMsgType.CLOSE, host.WSMsgType.CLOSING, host.WSMsgType.CLOSED)
    set_result = host.set_result
    is_server = hasattr(host, "WebSocketResponse")

    async def receive(self: Any, timeout: Any = None) -> Any:
        reader = self._reader
        if (
            timeout
            or self._waiting
            or self._closed
            or self._closing
            or reader is None
            or (writer := self._writer) is None
            or (self._receive_timeout if is_server else self._timeout.ws_receive)
            or (kind is not None and type(self) is not kind)
        ):
            return await (slow(self, timeout) if kind is None else slow(self))
        if type(writer.transport) is Joined and not reader._buffer:
            writer.transport.end()
        self._waiting = True
        try:
            outcome = await reader.read()
            what = outcome[0]
        except BaseException as exc:
            outcome = exc
            what = None
        self._waiting = False
        if what is text or what is binary:
            if self._close_wait is not None:
                set_result(self._close_wait, None)
            return outcome
        Again(self, outcome)
        outcome = None  # an exception has this frame in its traceback
        if kind is None:
            return await slow(self)
        message = await slow_receive(self)
        if message[0] in ends:
            raise StopAsyncIteration
        return message

    return functools.wraps(slow)(receive)


def make_send(module: ModuleType, slow: Any, writer: Any, kind: Any) -> Any:
    """Return a faster ``send_str()`` or ``send_bytes()``.

    Args:
        module: The module of the class.
        slow: The host's own method.
        writer: The class of ``make_writer()``.
        kind: The type of the messages.
    """
    queue = module.WebSocketDataQueue
    is_bytes = kind is bytes  # the host does not copy large ones

    async def send(self: Any, data: Any, compress: Any = None) -> None:
        to = self._writer
        if type(to) is not writer or type(data) is not kind:
            await slow(self, data, compress)
            return
        transport = to.transport
        if type(transport) is not Joined:
            reader = self._reader
            if (
                type(reader) is queue
                and reader._buffer
                and to.protocol.transport is transport
            ):
                transport = Joined(to, self._loop)
        if (
            compress
            or to._websock_message is None
            or to._closing
            or (is_bytes and len(data) > LARGE)
            or transport.is_closing()
        ):
            await slow(self, data, compress)
            return
        frame = to._websock_message(data)
        transport.write(frame)
        size = to._output_size + len(frame)
        if size <= to._limit:
            to._output_size = size
            return
        to._output_size = 0
        if type(transport) is Joined:
            transport.flush()
        if to.protocol._paused:
            await to.protocol._drain_helper()

    return functools.wraps(slow)(send)
