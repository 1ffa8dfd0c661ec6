"""What a server's program holds of a connection: an emitter, after Node's."""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, Any

from ..asyncio.payloads import control_payload
from ..constants import OP_PING, OP_PONG
from ..exceptions import ConnectionClosed
from ..frames import Close, CloseCode
from ..listener import Listener
from ..typing import BytesLike, Data, DataLike
from .emitter import EventEmitter

if TYPE_CHECKING:
    from .incoming import IncomingConnection
    from .request import WebSocketRequest

__all__ = ["WebSocketConnection"]


class WebSocketConnection(EventEmitter):
    """A connection of a :class:`~websock.events.WebSocketServer`.

    ``request.accept()`` returns it.  Its events, and what callbacks get:

    * ``message``: the message, ``str`` for text and ``bytes`` for binary, put together
      from however many frames;
    * ``frame``: a :class:`~websock.frames.Frame`, instead of messages, on a server
      with ``assemble_fragments=False``.  A task delivers frames, so a ping that came
      with them may be told of before;
    * ``ping`` and ``pong``: the payload; pings are answered without help;
    * ``drain``: nothing; what ``send()`` could not send at once has gone out;
    * ``error``: the exception; the peer broke the protocol, or the network failed.
      ``close`` follows;
    * ``close``: close code and reason of the peer: 1005 when its close frame had none,
      1006 when no close frame came; after ``drop()`` those of ``drop()``.

    Attributes:
        request: The request that was accepted.
        ws: The connection itself, with what the rest of this library can do with it.
    """

    __slots__ = (
        "__dict__",
        "_delivered",
        "_dropped",
        "_lost",
        "_paused",
        "request",
        "ws",
    )

    events = frozenset(
        ("message", "frame", "close", "error", "ping", "pong", "drain"),
    )

    def __init__(self, ws: IncomingConnection, request: WebSocketRequest) -> None:
        super().__init__()
        self.ws = ws
        self.request = request
        self._dropped: tuple[int, str] | None = None
        self._paused: asyncio.Future[None] | None = None
        self._delivered = False  # the last frame was
        self._lost: tuple[int, str] | None = None  # close code and reason, until then

    def __repr__(self) -> str:
        state = self.ws.state.name.lower()
        return f"<{type(self).__name__} {state} {self.remote_address}>"

    # -- what it is ------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether messages can be sent."""
        return bool(self.ws.is_open)

    @property
    def protocol(self) -> str | None:
        """Subprotocol of the connection, if any."""
        return self.ws.subprotocol

    @property
    def extensions(self) -> list[str]:
        """Names of the extensions in use."""
        return [str(extension.name) for extension in self.ws.protocol.extensions]

    @property
    def remote_address(self) -> Any:
        """Address of the peer, ``(host, port)`` for IPv4."""
        return self.ws.remote_address

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent and that the system has not taken yet."""
        return int(self.ws.buffered_amount)

    @property
    def close_reason_code(self) -> int | None:
        """Close code, once the connection is closed; see the event."""
        return self.ws.close_code if self._dropped is None else self._dropped[0]

    @property
    def close_description(self) -> str | None:
        """Close reason, once the connection is closed; see the event."""
        return self.ws.close_reason if self._dropped is None else self._dropped[1]

    # -- sending ---------------------------------------------------------------------

    def send(self, data: DataLike) -> bool:
        """Send a message without waiting.

        Args:
            data: ``str`` goes out as text, bytes-like as binary.

        Returns:
            Whether there is room for more; if not, ``drain`` tells when there is.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            TypeError: When ``data`` is neither ``str`` nor bytes-like.
        """
        ws = self.ws
        ws.send_nowait(data)
        return not ws.write_paused

    def send_utf8(self, data: str | BytesLike) -> bool:
        """Send a text message; see ``send()``.

        Raises:
            UnicodeDecodeError: When ``data`` is bytes that are not UTF-8.
        """
        check_utf8(data)
        ws = self.ws
        ws.send_nowait(data, text=True)
        return not ws.write_paused

    def send_bytes(self, data: BytesLike) -> bool:
        """Send a binary message; see ``send()``.

        Raises:
            TypeError: When ``data`` is not bytes-like.
        """
        check_binary(data, "send_utf8()")
        ws = self.ws
        ws.send_nowait(data)
        return not ws.write_paused

    def ping(self, data: DataLike = b"") -> None:
        """Send a ping; the ``pong`` event tells of the answer.

        Args:
            data: Payload, at most 125 bytes.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            ProtocolError: When the payload is too long.
        """
        self._send_control(OP_PING, data)

    def pong(self, data: DataLike = b"") -> None:
        """Send a pong that no ping asked for; see ``ping()``."""
        self._send_control(OP_PONG, data)

    def _send_control(self, opcode: int, data: DataLike) -> None:
        payload = control_payload(data)
        if not self.ws.is_open:
            raise self.ws.closed_error()
        self.ws.send_control(opcode, payload)

    # -- flow ------------------------------------------------------------------------

    def pause(self) -> None:
        """Deliver nothing and read nothing until ``resume()``.

        The peer then notices that it can send no more.  Pongs are not read either, so
        ``ping_timeout`` begins anew with ``resume()``.
        """
        self.ws.pause_reading()
        self.ws.is_deaf = True
        if self._paused is None:
            self._paused = self.ws.loop.create_future()

    def resume(self) -> None:
        """Undo ``pause()``."""
        paused, self._paused = self._paused, None
        if paused is not None:
            if not paused.done():
                paused.set_result(None)
            self.ws.listen_again()
            self.ws.resume_reading()

    # -- the end ---------------------------------------------------------------------

    def close(
        self,
        reason_code: CloseCode | int = CloseCode.NORMAL_CLOSURE,
        description: str = "",
    ) -> None:
        """Close the connection; ``close`` tells when that is done.

        One that is paused is resumed: what the peer answers has to be read.

        Args:
            reason_code: Close code.
            description: Close reason, at most 123 bytes in UTF-8.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        self.ws.close_nowait(reason_code, description)
        self.resume()

    def drop(
        self,
        reason_code: CloseCode | int = CloseCode.PROTOCOL_ERROR,
        description: str = "",
        *,
        skip_close_frame: bool = False,
    ) -> None:
        """End the connection without waiting for the peer to agree.

        Args:
            reason_code: Close code.
            description: Close reason, at most 123 bytes in UTF-8.
            skip_close_frame: Do not even tell the peer, and drop what is unsent.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        Close(reason_code, description).check()
        ws = self.ws
        if ws.is_lost:
            return
        if self._dropped is None:
            self._dropped = int(reason_code), description
        if skip_close_frame:
            ws.abort_stream()
        else:
            ws.fail(reason_code, description)
            ws.close_stream()

    # -- what happens ----------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver frames, if that is what is wanted."""
        if self.ws.frames is not None:
            task = self.ws.loop.create_task(self._deliver_frames())
            self.ws.server.add_task(task)

    async def _deliver_frames(self) -> None:
        frames = self.ws.frames
        assert frames is not None
        try:
            while True:
                (item,) = await self.ws.recv_pieces()
                while self._paused is not None:
                    await self._paused
                if self._dropped is None:
                    self.emit("frame", frames.take(item))
        except ConnectionClosed:
            pass  # and on_close() is called, or was
        finally:
            self._delivered = True
            if self._lost is not None:
                self._tell_closed(*self._lost)

    def closed(self, code: int, reason: str) -> None:
        """The connection is closed: tell of it, after the last frame."""
        self.resume()
        if self.ws.frames is None or self._delivered:
            self._tell_closed(code, reason)
        else:
            self._lost = code, reason

    def _tell_closed(self, code: int, reason: str) -> None:
        ws = self.ws
        if self._dropped is not None:
            code, reason = self._dropped
        else:
            protocol = ws.protocol
            cause = ws.closed_error().__cause__
            # What fails once close frames went both ways has no consequences.
            is_clean = None not in (protocol.close_rcvd, protocol.close_sent)
            if is_clean and cause is not protocol.parser_exc:
                cause = None
            if cause is not None and not isinstance(cause, EOFError):
                self.emit("error", cause)
        self.emit("close", code, reason)
        ws.owner.emit("close", self, code, reason)

    def callback_failed(
        self, event: str, exc: Exception, args: tuple[Any, ...]
    ) -> None:
        """Say that a callback raised ``exc``."""
        # What is sent after the end is no mistake: messages may still come in then.
        if not isinstance(exc, ConnectionClosed) or self.ws.is_open:
            super().callback_failed(event, exc, args)


def check_binary(data: Any, instead: str) -> None:
    """Refuse text where bytes are to be sent.

    Raises:
        TypeError: When it is text; ``instead`` is what to call for it.
    """
    if isinstance(data, str):
        raise TypeError(f"data must be bytes-like, not str: use {instead}")


def check_utf8(data: Any) -> None:
    """Refuse bytes that cannot be sent as text: the peer would have to close.

    Raises:
        UnicodeDecodeError: When they are not UTF-8.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        codecs.utf_8_decode(data, "strict", True)  # str() of PyPy is too kind


class ConnectionEvents(Listener):
    """Tells a :class:`WebSocketConnection` what happens."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: Any = None

    def on_message(self, ws: Any, message: Data) -> None:
        """A message arrived."""
        self.connection.emit("message", message)

    def on_ping(self, ws: Any, data: bytes) -> None:
        """A ping arrived."""
        self.connection.emit("ping", data)

    def on_pong(self, ws: Any, data: bytes) -> None:
        """A pong arrived."""
        self.connection.emit("pong", data)

    def on_resume_writing(self, ws: Any) -> None:
        """What was unsent has gone out."""
        self.connection.emit("drain")

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        """The connection is closed."""
        ws.owner.forget(self.connection)
        self.connection.closed(code, reason)
