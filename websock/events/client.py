"""``WebSocket``: the client that browsers have, after the WHATWG standard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

from ..exceptions import ConnectionClosed
from ..listener import Listener
from ..typing import Data, DataLike
from .amount import BufferedAmount
from .errors import DOMSyntaxError, InvalidAccessError, InvalidStateError
from .event import CloseEvent, ErrorEvent, Event, MessageEvent
from .opening import Opening, TellingConnection, check_protocols, usv_string
from .target import EventTarget, handler_attribute
from .url import parse_url

__all__ = ["WebSocket"]

BinaryType = Literal["bytes", "bytearray", "memoryview"]

_BINARY_TYPES: dict[str, Any] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
}

CONNECTING, OPEN, CLOSING, CLOSED = range(4)


class WebSocket(EventTarget):
    """A WebSocket client, shaped like the one in browsers.

    ::

        ws = WebSocket("ws://localhost:1993", ["chat"])
        ws.onopen = lambda event: ws.send("hello")
        ws.onmessage = lambda event: print(event.data)

    It begins to connect at once, in the running loop, and events come from the loop's
    next turn on.  ``await ws.opened`` and ``await ws.closed`` wait for two of them.

    Args:
        url: URL of the server; ``http`` and ``https`` mean ``ws`` and ``wss``.
        protocols: A subprotocol, or several, to offer.
        **options: Options of :class:`websock.connect`: ``additional_headers``,
            ``origin``, ``ssl``, ``compression``, ``max_size``, ``open_timeout`` ...

    Raises:
        DOMSyntaxError: When the URL or a subprotocol cannot be used.
        RuntimeError: When no loop is running.
        TypeError: When an argument is of a wrong type, or unknown.
        ValueError: When an option has a wrong value.
    """

    CONNECTING = CONNECTING
    OPEN = OPEN
    CLOSING = CLOSING
    CLOSED = CLOSED

    onopen = handler_attribute("open")
    onmessage = handler_attribute("message")
    onerror = handler_attribute("error")
    onclose = handler_attribute("close")

    def __init__(
        self, url: str, protocols: str | Iterable[str] = (), **options: Any
    ) -> None:
        super().__init__()
        self._url = parse_url(url)
        offered = check_protocols(protocols)
        loop = asyncio.get_running_loop()
        self._state = CONNECTING
        self._ws: TellingConnection | None = None
        self._binary_type: BinaryType = "bytes"
        self._convert: Any = None
        self._amount = BufferedAmount(loop)
        self._failure: BaseException | None = None
        self._close_event: CloseEvent | None = None
        self._waiters: tuple[list[asyncio.Future[Any]], list[asyncio.Future[Any]]]
        self._waiters = [], []
        opening = Opening(self._url.uri, offered, Events(self), options)
        self._task = loop.create_task(opening.run())
        self._task.add_done_callback(self._opening_done)

    def __repr__(self) -> str:
        state = ("connecting", "open", "closing", "closed")[self.readyState]
        return f"<{type(self).__name__} {state} {self.url}>"

    # -- what it is ------------------------------------------------------------------

    @property
    def url(self) -> str:
        """URL of the server, normalised."""
        return self._url.href

    @property
    def readyState(self) -> int:
        """``CONNECTING``, ``OPEN``, ``CLOSING`` or ``CLOSED``, which are 0 to 3."""
        if self._state == OPEN and self._ws is not None and not self._ws.is_open:
            return CLOSING
        return self._state

    @property
    def protocol(self) -> str:
        """Subprotocol that the server chose; empty when there is none."""
        return "" if self._ws is None else self._ws.subprotocol or ""

    @property
    def extensions(self) -> str:
        """Extensions in use, as the server's header has them; empty for none."""
        if self._ws is None or self._ws.response is None:
            return ""
        return ", ".join(self._ws.response.headers.get_all("Sec-WebSocket-Extensions"))

    @property
    def bufferedAmount(self) -> int:
        """Bytes of messages that ``send()`` took and the system has not taken yet.

        As in browsers it falls between two turns of the loop only, counts payload and
        not frames, and never falls after the end: what was not sent stays counted.
        """
        return self._amount.count(self._ws)

    @property
    def binaryType(self) -> BinaryType:
        """``"bytes"``, ``"bytearray"`` or ``"memoryview"``, for binary messages.

        Memory: ``"bytes"`` and ``"memoryview"`` copy nothing.
        """
        return self._binary_type

    @binaryType.setter
    def binaryType(self, value: BinaryType) -> None:
        if value not in _BINARY_TYPES:
            raise ValueError(
                f"binaryType is {value!r}, expected one of {', '.join(_BINARY_TYPES)}"
            )
        self._binary_type = value
        self._convert = None if value == "bytes" else _BINARY_TYPES[value]

    # -- what it does ----------------------------------------------------------------

    def send(self, data: DataLike) -> None:
        """Send a message; it never waits, so watch ``bufferedAmount``.

        After ``close()``, and after the end, nothing is sent and no error raised:
        ``bufferedAmount`` goes up.

        Args:
            data: ``str`` goes out as text, bytes-like as binary.

        Raises:
            InvalidStateError: While ``readyState`` is ``CONNECTING``.
            TypeError: When ``data`` is neither ``str`` nor bytes-like.
        """
        if isinstance(data, str):
            if data.isascii():
                size = len(data)
            else:
                data = usv_string(data)
                size = len(data.encode())
        elif isinstance(data, memoryview):
            size = data.nbytes
        elif isinstance(data, (bytes, bytearray)):
            size = len(data)
        else:
            raise TypeError(
                f"data must be str or bytes-like, not {type(data).__name__}"
            )
        state = self.readyState
        if state == CONNECTING:
            raise InvalidStateError("cannot send: the connection is not open yet")
        ws = self._ws
        if state != OPEN or ws is None:
            self._amount.lose(size)
            return
        self._amount.send(ws, data, size)

    def close(self, code: int | None = None, reason: str = "") -> None:
        """Close the connection, or give up opening it; harmless when that is done.

        Args:
            code: Close code: 1000, or 3000 to 4999; ``None`` sends none.
            reason: Close reason, at most 123 bytes in UTF-8.

        Raises:
            DOMSyntaxError: When the reason is too long.
            InvalidAccessError: When the code is another one.
            TypeError: When an argument is of a wrong type.
        """
        if code is not None:
            if not isinstance(code, int):
                raise TypeError(f"code must be an int, not {type(code).__name__}")
            if code != 1000 and not 3000 <= code <= 4999:
                raise InvalidAccessError(
                    f"close code is {code}, expected 1000 or 3000 to 4999"
                )
        if not isinstance(reason, str):
            raise TypeError(f"reason must be str, not {type(reason).__name__}")
        reason = usv_string(reason)
        size = len(reason.encode())
        if size > 123:
            raise DOMSyntaxError(f"close reason is too long: {size} bytes, limit 123")
        state = self.readyState
        if state == CONNECTING:
            self._state = CLOSING
            self._task.cancel()
        elif state == OPEN and self._ws is not None:
            self._state = CLOSING
            if code is None and not reason:
                self._ws.close_without_code()
            else:
                self._ws.close_nowait(1000 if code is None else code, reason)

    @property
    def opened(self) -> asyncio.Future[WebSocket]:
        """A future of this object, once it is open.

        Awaiting it raises what went wrong when the connection cannot be opened.  Who
        awaits it from the beginning can set callbacks then: no message comes before.
        """
        waiter = self._wait(0)
        if self._ws is not None:
            waiter.set_result(self)
        elif self._state == CLOSED:
            waiter.set_exception(self._failure or ConnectionClosed(None, None))
        return waiter

    @property
    def closed(self) -> asyncio.Future[CloseEvent]:
        """A future of the ``close`` event, whatever was the reason."""
        waiter = self._wait(1)
        if self._close_event is not None:
            waiter.set_result(self._close_event)
        return waiter

    def _wait(self, kind: int) -> asyncio.Future[Any]:
        # One for each who waits: awaiting may be cancelled.
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(_retrieve)
        if self._close_event is None and (kind or self._ws is None):
            self._waiters[kind].append(waiter)
        return waiter

    # -- what happens ----------------------------------------------------------------

    def _opening_done(self, task: asyncio.Task[None]) -> None:
        if self._ws is not None:
            return  # told already: when it opened, and of its end
        exc = None if task.cancelled() else task.exception()
        if exc is not None and not isinstance(exc, Exception):
            return  # the loop is left
        self._failure = exc or ConnectionClosed(None, None)
        self._end(self._failure, CloseEvent("close", False, 1006, ""))

    def _open(self, ws: TellingConnection) -> None:
        if self._state != CONNECTING:
            ws.abort_stream()  # close() came first
            return
        self._ws = ws
        self._state = OPEN
        if self._waiters[0]:
            # Who awaited this may set callbacks now: messages come two turns of the
            # loop later, time enough for wait_for() too.
            loop = asyncio.get_running_loop()
            ws.pause_reading()
            for waiter in self._waiters[0]:
                if not waiter.done():
                    waiter.set_result(self)
            self._waiters[0].clear()
            loop.call_soon(loop.call_soon, ws.resume_reading)
        self.dispatchEvent(Event("open"))

    def _message(self, message: Data) -> None:
        if self._state != OPEN:
            return  # the program does not want it any more
        data: Any = message
        if self._convert is not None and type(message) is bytes:
            data = self._convert(message)
        self.dispatchEvent(MessageEvent("message", data, self._url.origin))

    def _lost(self, ws: TellingConnection, code: int, reason: str) -> None:
        if self._ws is None:
            return
        was_clean = (
            ws.protocol.close_rcvd is not None and ws.protocol.close_sent is not None
        )
        self._amount.end(ws)
        failure: BaseException | None = None
        if not was_clean:
            failure, code, reason = ws.closed_error(), 1006, ""
        self._end(failure, CloseEvent("close", was_clean, code, reason))

    def _end(self, failure: BaseException | None, event: CloseEvent) -> None:
        self._state = CLOSED
        self._close_event = event
        event.target = self
        for waiter in self._waiters[0]:
            if not waiter.done():
                waiter.set_exception(failure or ConnectionClosed(None, None))
        for waiter in self._waiters[1]:
            if not waiter.done():
                waiter.set_result(event)
        for waiters in self._waiters:
            waiters.clear()
        if failure is not None:
            self.dispatchEvent(ErrorEvent("error", failure))
        self.dispatchEvent(event)


def _retrieve(waiter: asyncio.Future[Any]) -> None:
    # Asking for it and not awaiting it is no mistake.
    if not waiter.cancelled():
        waiter.exception()


class Events(Listener):
    """Tells a :class:`WebSocket` what happens on its connection."""

    __slots__ = ("_target",)

    def __init__(self, target: WebSocket) -> None:
        self._target = target

    def on_open(self, ws: TellingConnection) -> None:
        """The opening handshake is done."""
        self._target._open(ws)

    def on_message(self, ws: TellingConnection, message: Data) -> None:
        """A message arrived."""
        self._target._message(message)

    def on_close(self, ws: TellingConnection, code: int, reason: str) -> None:
        """The connection is closed."""
        self._target._lost(ws, code, reason)
