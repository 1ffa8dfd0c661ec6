"""The sans-IO connection: what clients and servers share.

A protocol turns bytes from the network into events and calls into bytes for the
network. It reads no socket, runs no timer, and decides everything about states, close
codes and errors. Two kinds of callers use it:

* Programs with an input and output of their own call ``receive_data()``, then
  ``data_to_send()`` and ``events_received()``. Frames are parsed here.
* The connections of this library parse and build frames themselves. They take
  ``make_reader()`` and ``make_writer()``, and tell what happened with
  ``feed_handshake()``, ``close_received()`` and ``reader_failed()``.

How closing goes is the table in :mod:`websock.closing`; this module carries it out.
A server makes one protocol per connection, so nothing is built before it is used:
not the parser, nor the identifier, nor anything for logging.
"""

from __future__ import annotations

import enum
import logging
import uuid
from typing import TYPE_CHECKING, Any

from ._codec import FrameReader, FrameWriter
from .closing import Action, Phase, Trigger, table_for
from .constants import (
    CLOSE_ABNORMAL,
    CLOSE_INTERNAL_ERROR,
    CLOSE_INVALID_DATA,
    DEFAULT_MAX_SIZE,
    MAX_CONTROL_SIZE,
    MAX_FRAGMENTS,
    MAX_HEAD_SIZE,
    OP_BINARY,
    OP_CLOSE,
    OP_CONT,
    OP_PING,
    OP_PONG,
    OP_TEXT,
)
from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InternalError,
    InvalidClose,
    InvalidMessage,
    InvalidState,
    PayloadTooBig,
    ProtocolError,
    TooManyFragments,
)
from .frames import (
    OK_CLOSE_CODES,
    Close,
    CloseCode,
    Frame,
    Opcode,
    is_valid_close_code,
)
from .http11 import Request, Response
from .transform import make_transform

if TYPE_CHECKING:  # pragma: no cover
    from .client import ClientProtocol
    from .extensions.base import Extension
    from .server import ServerProtocol
    from .typing import BytesLike, LoggerLike, Origin, Subprotocol

__all__ = [
    "SEND_EOF",
    "ClientProtocol",
    "Event",
    "Protocol",
    "ServerProtocol",
    "Side",
    "State",
]

Event = Request | Response | Frame
"""What :meth:`Protocol.events_received` returns."""


class Side(enum.IntEnum):
    """The two ends of a connection."""

    SERVER = 0
    CLIENT = 1


SERVER = Side.SERVER
CLIENT = Side.CLIENT


class State(enum.IntEnum):
    """The states of a connection (RFC 6455, 4.1, 4.2, 7.1.3 and 7.1.4)."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


CONNECTING = State.CONNECTING
OPEN = State.OPEN
CLOSING = State.CLOSING
CLOSED = State.CLOSED

SEND_EOF = b""
"""Stands for the end of the stream in what :meth:`Protocol.data_to_send` returns."""

# Pings that wait for data_to_send() are answered one by one up to this number; then
# only the newest is (RFC 6455, 5.5.3), so that a flood costs no memory.
MAX_UNSENT_PONGS = 64

# Bytes kept that come before the answer to the handshake request is sent. A client
# must wait for that answer (RFC 6455, 4.1), so only a broken one needs more.
MAX_EARLY_DATA = MAX_HEAD_SIZE

_TABLES = (table_for(is_server=True), table_for(is_server=False))
_LOGGERS = (
    logging.getLogger("websock.server"),
    logging.getLogger("websock.client"),
)
# The writer of all servers' connections without extensions.
_PLAIN_WRITER = FrameWriter(mask=False)

_OPCODES: dict[int, Opcode] = {int(opcode): opcode for opcode in Opcode}

_STATE_OF = {
    Phase.CONNECTING: CONNECTING,
    Phase.REFUSED: CONNECTING,
    Phase.OPEN: OPEN,
    Phase.CLOSE_SENT: CLOSING,
    Phase.FINISHING: CLOSING,
    Phase.CLOSED: CLOSED,
}
_PHASE_OF = {
    CONNECTING: Phase.CONNECTING,
    OPEN: Phase.OPEN,
    CLOSING: Phase.CLOSE_SENT,
    CLOSED: Phase.CLOSED,
}


def truncate_reason(reason: str) -> str:
    """Cut a reason down to what fits into a close frame, between two characters.

    Args:
        reason: Any text.
    """
    limit = MAX_CONTROL_SIZE - 2
    data = reason.encode("utf-8", "replace")
    return data[:limit].decode("utf-8", "ignore")


class Protocol:
    """One end of a connection, without input and output.

    Args:
        side: :attr:`Side.CLIENT` or :attr:`Side.SERVER`.
        state: State to begin in.
        max_size: Limit for incoming messages in bytes, ``None`` for no limit; or a
            pair: the limits for messages and for fragments.
        logger: Logger for this connection; by default ``websock.client`` or
            ``websock.server``.
        max_fragments: Limit for the fragments of an incoming message, ``None`` for no
            limit.

    Attributes:
        side: Which end this is.
        logger: Logger of this connection.
        debug: Whether that logger takes debug messages.
        origin: ``Origin`` header of the request, if any.
        extensions: Extensions that were negotiated.
        subprotocol: Subprotocol that was negotiated, if any.
        max_message_size: Limit for incoming messages in bytes, if any.
        max_fragment_size: Limit for incoming fragments in bytes, if any.
        max_fragments: Limit for the fragments of an incoming message, if any.
        close_rcvd: Close frame that was received, if any.
        close_sent: Close frame that was sent, if any.
        close_rcvd_then_sent: When both exist, whether the peer's came first.
        handshake_exc: Why the opening handshake failed, if it did.
        parser_exc: What was wrong with the incoming data, if anything.
        eof_sent: Whether this side's stream was ended.
        expect_continuation_frame: Whether a fragmented message is being sent.
        request_head: On a server, the request as it came, once it was parsed.
        response_head: On a server, the response as it was sent, once it is open.
    """

    __slots__ = (
        # A program may hang its own attributes onto a protocol; the dictionary
        # exists only once it does.
        "__dict__",
        "__weakref__",
        "_awaits_head",
        "_eof_rcvd",
        "_events",
        "_head",
        "_held",
        "_id",
        "_last_pong",
        "_phase",
        "_pongs",
        "_reader",
        "_state",
        "_transform",
        "_writer",
        "_writes",
        "close_rcvd",
        "close_rcvd_then_sent",
        "close_sent",
        "debug",
        "eof_sent",
        "expect_continuation_frame",
        "extensions",
        "handshake_exc",
        "logger",
        "max_fragment_size",
        "max_fragments",
        "max_message_size",
        "origin",
        "parser_exc",
        "request_head",
        "response_head",
        "side",
        "subprotocol",
    )

    def __init__(
        self,
        side: Side,
        *,
        state: State = OPEN,
        max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
        logger: LoggerLike | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
    ) -> None:
        self.side = side
        if logger is None:
            logger = _LOGGERS[side]
        self.logger: LoggerLike = logger
        self.debug = logger.isEnabledFor(logging.DEBUG)
        self.max_message_size: int | None
        self.max_fragment_size: int | None
        if max_size is None or isinstance(max_size, int):
            self.max_message_size, self.max_fragment_size = max_size, None
        else:
            self.max_message_size, self.max_fragment_size = max_size
        self.max_fragments = max_fragments

        self._state = state
        self._phase = _PHASE_OF[state]
        if self.debug:
            self.logger.debug("= connection is %s", state.name)

        self.origin: Origin | None = None
        self.extensions: list[Extension] = []
        self.subprotocol: Subprotocol | None = None
        self.handshake_exc: Exception | None = None
        self.parser_exc: Exception | None = None
        self.close_rcvd: Close | None = None
        self.close_sent: Close | None = None
        self.close_rcvd_then_sent: bool | None = None
        self.eof_sent = False
        self.expect_continuation_frame = False
        self.request_head: bytes | None = None
        self.response_head: bytes | None = None
        self._events: list[Event] | None = None
        self._writes: list[bytes] | None = None

        self._eof_rcvd = False
        self._awaits_head = False  # whether the peer's HTTP head is still to come
        self._head: Any = None  # parser of that head
        self._held: bytearray | None = None  # frames that came before the answer
        self._reader: FrameReader | None = None
        self._writer: FrameWriter | None = None
        self._transform: Any = None
        self._pongs = 0  # automatic pongs since the last data_to_send()
        self._last_pong = b""
        self._id: uuid.UUID | None = None

    # What a connection is.

    @property
    def id(self) -> uuid.UUID:
        """Identifier of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @id.setter
    def id(self, value: uuid.UUID) -> None:
        self._id = value

    @property
    def events(self) -> list[Event]:
        """What ``events_received()`` will return."""
        if self._events is None:
            self._events = []
        return self._events

    @property
    def writes(self) -> list[bytes]:
        """What ``data_to_send()`` will return."""
        if self._writes is None:
            self._writes = []
        return self._writes

    @property
    def state(self) -> State:
        """State of the connection."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if state is CONNECTING or state is CLOSED:
            self._reader = None
        self._enter(_PHASE_OF[state])

    @property
    def close_code(self) -> int | None:
        """Close code from the peer (RFC 6455, 7.1.5).

        ``None`` while the connection is not closed; 1006 when no close frame came.
        """
        if self._state is not CLOSED:
            return None
        if self.close_rcvd is None:
            return CloseCode.ABNORMAL_CLOSURE
        return self.close_rcvd.code

    @property
    def close_reason(self) -> str | None:
        """Close reason from the peer (RFC 6455, 7.1.6).

        ``None`` while the connection is not closed; empty when no close frame came.
        """
        if self._state is not CLOSED:
            return None
        return "" if self.close_rcvd is None else self.close_rcvd.reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """Exception that says how the connection was closed.

        Raises:
            InternalError: If the connection is not closed yet. It is an
                :exc:`AssertionError`: codes and reasons are known only at the end.
        """
        if self._state is not CLOSED:
            raise InternalError(
                f"connection is {self._state.name.lower()}, it is not closed yet"
            )
        rcvd, sent = self.close_rcvd, self.close_sent
        kind: type[ConnectionClosed] = ConnectionClosedError
        if (
            rcvd is not None
            and sent is not None
            and rcvd.code in OK_CLOSE_CODES
            and sent.code in OK_CLOSE_CODES
        ):
            kind = ConnectionClosedOK
        exc = kind(rcvd, sent, self.close_rcvd_then_sent)
        exc.__cause__ = self.parser_exc
        return exc

    # Bytes from the network.

    def receive_data(self, data: BytesLike) -> None:
        """Take bytes that came from the network.

        Then send what ``data_to_send()`` gives and handle ``events_received()``.
        What is wrong with the data is not raised: see ``parser_exc`` and
        ``handshake_exc``.

        Args:
            data: Bytes from the network.

        Raises:
            EOFError: If ``receive_eof()`` was called before.
        """
        if self._reader is not None:
            self._receive_frames(data)
            return
        if self._eof_rcvd:
            raise EOFError("stream ended")
        if self._phase is Phase.CONNECTING:
            rest = self.feed_handshake(data)
            if not rest:
                return
            data = rest
            if self._phase is Phase.CONNECTING:
                self._hold(data)
                return
        if self._phase is Phase.OPEN or self._phase is Phase.CLOSE_SENT:
            self._receive_frames(data)

    def receive_eof(self) -> None:
        """Take the end of the stream from the network.

        Then send what ``data_to_send()`` gives. On the client, a response that ends
        with the stream is among ``events_received()``. May be called again.
        """
        if self._eof_rcvd:
            return
        self._eof_rcvd = True
        if self.debug:
            self.logger.debug("< EOF")
        if self._awaits_head and self._phase is Phase.CONNECTING:
            self._end_head()
        self._advance(Trigger.PEER_EOF)

    def events_received(self) -> list[Event]:
        """Return the events since the last call.

        Call it after ``receive_data()``, and on a server after ``send_response()``
        too: data that came along with the request is parsed only then.
        """
        events, self._events = self._events or [], None
        return events

    # Calls that send.

    def send_continuation(self, data: BytesLike, fin: bool) -> None:
        """Send the next fragment of a message.

        Args:
            data: Payload.
            fin: Whether it is the last one.

        Raises:
            ProtocolError: If no fragmented message was begun.
            InvalidState: If the connection is not open.
        """
        if not self.expect_continuation_frame:
            raise ProtocolError("unexpected continuation frame: no message was begun")
        self._send_data(OP_CONT, data, fin)

    def send_text(self, data: BytesLike, fin: bool = True) -> None:
        """Send a text message or its first fragment.

        Args:
            data: Payload, in UTF-8.
            fin: Whether the message ends here.

        Raises:
            ProtocolError: If a fragmented message was begun and not ended.
            InvalidState: If the connection is not open.
        """
        if self.expect_continuation_frame:
            raise ProtocolError("expected a continuation frame: a message was begun")
        self._send_data(OP_TEXT, data, fin)

    def send_binary(self, data: BytesLike, fin: bool = True) -> None:
        """Send a binary message or its first fragment.

        Args:
            data: Payload.
            fin: Whether the message ends here.

        Raises:
            ProtocolError: If a fragmented message was begun and not ended.
            InvalidState: If the connection is not open.
        """
        if self.expect_continuation_frame:
            raise ProtocolError("expected a continuation frame: a message was begun")
        self._send_data(OP_BINARY, data, fin)

    def send_ping(self, data: BytesLike) -> None:
        """Send a ping.

        Args:
            data: Payload, at most 125 bytes.

        Raises:
            ProtocolError: If the payload is too long.
            InvalidState: If nothing can be sent any more.
        """
        self._send_control(OP_PING, data)

    def send_pong(self, data: BytesLike) -> None:
        """Send a pong that no ping asked for; pings are answered without this.

        Args:
            data: Payload, at most 125 bytes.

        Raises:
            ProtocolError: If the payload is too long.
            InvalidState: If nothing can be sent any more.
        """
        self._send_control(OP_PONG, data)

    def send_close(self, code: CloseCode | int | None = None, reason: str = "") -> None:
        """Begin the closing handshake.

        Args:
            code: Close code; ``None`` sends a close frame without one.
            reason: Close reason, at most 123 bytes in UTF-8.

        Raises:
            ProtocolError: If the code or the reason cannot be sent.
            InvalidState: If the connection is not open.
        """
        if self._state is not OPEN:
            raise self._wrong_state()
        if code is not None:
            close = Close(code, reason)
            self._advance(Trigger.CLOSE, close, close.serialize())
        elif reason:
            raise InvalidClose("cannot send a reason without a code")
        else:
            self._advance(Trigger.CLOSE, Close(CloseCode.NO_STATUS_RCVD, ""))

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """End the connection because of an error (RFC 6455, 7.1.7).

        Sends a close frame, unless one was sent already or the code is 1006, which
        means that the network is broken. Nothing more is read. Harmless in any state.

        Args:
            code: Close code.
            reason: Close reason; what is over 123 bytes in UTF-8 is cut off.

        Raises:
            ProtocolError: If a close frame is needed and cannot carry the code.
        """
        if code == CLOSE_ABNORMAL:
            self._advance(Trigger.ABORT)
        elif self._phase is Phase.OPEN:
            close = Close(code, truncate_reason(reason))
            self._advance(Trigger.FAIL, close, close.serialize())
        else:
            self._advance(Trigger.FAIL)

    def data_to_send(self) -> list[bytes]:
        """Return the bytes to send since the last call.

        An empty item, :data:`SEND_EOF`, asks for ending this side's stream.
        """
        writes, self._writes = self._writes or [], None
        self._pongs = 0
        return writes

    def close_expected(self) -> bool:
        """Tell whether the peer should end its stream soon.

        If so, and if that takes too long, close the connection without waiting.
        """
        if self._state is CONNECTING:
            return self.eof_sent
        return self._state is CLOSING

    # For connections that parse and build frames themselves.

    def feed_handshake(self, data: BytesLike) -> bytes | None:
        """Take bytes of the opening handshake, and only these.

        On a server the event is the request; on a client the response, after which
        the state is ``OPEN``, or ``handshake_exc`` is set. An answer to a bad
        request is ready in ``data_to_send()``.

        Args:
            data: Bytes from the network.

        Returns:
            ``None`` while the peer's part of the handshake is not complete, then what
            came after it. Nothing comes after a handshake that failed.
        """
        if self._phase is Phase.CONNECTING and self._awaits_head:
            return self._receive_head(data)
        if self._phase is Phase.REFUSED or self._phase is Phase.CLOSED:
            return b""
        return bytes(data)

    def make_reader(self, assemble: bool = True) -> FrameReader:
        """Make a parser for what the peer sends after the opening handshake.

        Args:
            assemble: Whether the fragments of a message are put together.
        """
        return FrameReader(
            expect_mask=self.side is SERVER,
            max_message_size=self.max_message_size,
            max_fragment_size=self.max_fragment_size,
            max_fragments=self.max_fragments,
            transform=self.transform,
            assemble=assemble,
        )

    def make_writer(self) -> FrameWriter:
        """Make what builds frames for the peer after the opening handshake.

        Only extensions have a state, and writers share it: make as many as you like.
        """
        transform = self.transform
        if self.side is SERVER and transform is None:
            return _PLAIN_WRITER
        return FrameWriter(mask=self.side is CLIENT, transform=transform)

    def close_received(self, payload: bytes) -> None:
        """Handle a close frame: answer it, if that was not done before.

        Args:
            payload: Its payload, which the reader has checked.
        """
        if self._phase is not Phase.OPEN and self._phase is not Phase.CLOSE_SENT:
            return
        close = self.close_rcvd = Close.parse(payload)
        self.close_rcvd_then_sent = self._phase is Phase.OPEN
        # Sending the payload itself keeps an empty one empty.
        self._advance(Trigger.PEER_CLOSE, close, payload)

    def reader_failed(self, exc: Exception) -> None:
        """Fail the connection because of what the reader found.

        Args:
            exc: What was wrong with the input; its ``code`` is the close code. Any
                other exception is a mistake on this side, and is logged.
        """
        if self._phase is not Phase.OPEN and self._phase is not Phase.CLOSE_SENT:
            return
        self.parser_exc = exc
        if isinstance(
            exc, (ProtocolError, PayloadTooBig, TooManyFragments)
        ) and is_valid_close_code(exc.code):
            self.fail(exc.code, str(exc))
        elif isinstance(exc, EOFError):
            self.fail(CLOSE_ABNORMAL)
        elif isinstance(exc, UnicodeDecodeError):
            self.fail(CLOSE_INVALID_DATA, f"{exc.reason} at position {exc.start}")
        else:
            self.logger.error("parser failed", exc_info=exc)
            # The text is for the log: it may tell more than the peer should know.
            self.fail(CLOSE_INTERNAL_ERROR)

    # How it is done.

    def _receive_frames(self, data: BytesLike) -> None:
        reader = self._reader
        if reader is None:
            reader = self._reader = self.make_reader(assemble=False)
        try:
            frames = reader.feed(data)
        except Exception as exc:  # an extension's mistake, or ours
            self.reader_failed(exc)
            return
        for opcode, payload, fin in frames:
            frame = Frame(_OPCODES[opcode], payload, fin)  # type: ignore[arg-type]
            if self.debug:
                self.logger.debug("< %s", frame)
            if opcode == OP_PING:
                self._answer_ping(frame.data)
            elif opcode == OP_CLOSE:
                self.close_received(bytes(frame.data))
            self.events.append(frame)
        if reader.error is not None:
            self.reader_failed(reader.error)

    def _answer_ping(self, payload: BytesLike) -> None:
        writes = self._writes
        if self._pongs >= MAX_UNSENT_PONGS and writes and writes[-1] is self._last_pong:
            writes.pop()
        self._last_pong = self._write(OP_PONG, payload)
        self._pongs += 1

    def _hold(self, data: BytesLike) -> None:
        """Keep frames that came before the answer to the request was sent."""
        held = self._held
        if held is None:
            held = self._held = bytearray()
        # One byte over the limit stands for all the others.
        held += data[: MAX_EARLY_DATA + 1 - len(held)]

    def _release(self) -> None:
        """Parse the frames that were kept, if any."""
        held, self._held = self._held, None
        if held is None:
            return
        self._receive_frames(held[:MAX_EARLY_DATA])
        if len(held) > MAX_EARLY_DATA and self._phase is Phase.OPEN:
            self.reader_failed(
                ProtocolError(
                    "too much data before the end of the opening handshake: more than"
                    f" {MAX_EARLY_DATA} bytes (RFC 6455, 4.1)"
                )
            )

    def _send_data(self, opcode: int, data: BytesLike, fin: bool) -> None:
        if self._state is not OPEN:
            raise self._wrong_state()
        self._write(opcode, data, fin)
        self.expect_continuation_frame = not fin

    def _send_control(self, opcode: int, data: BytesLike) -> None:
        # Control frames are allowed after a close frame (RFC 6455, 5.5.1), but not
        # after the end of the stream.
        if self._state not in (OPEN, CLOSING) or self.eof_sent:
            raise self._wrong_state()
        self._write(opcode, data)

    def _wrong_state(self) -> InvalidState:
        text = f"cannot send: connection is {self._state.name.lower()}"
        if self.close_rcvd is not None or self.close_sent is not None:
            closed = ConnectionClosed(
                self.close_rcvd, self.close_sent, self.close_rcvd_then_sent
            )
            text += f" ({closed})"
        return InvalidState(text)

    def _write(self, opcode: int, data: BytesLike, fin: bool = True) -> bytes:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"payload must be bytes-like, not {type(data).__name__}")
        writer = self._writer
        if writer is None:
            writer = self._writer = self.make_writer()
        written = writer.frame(opcode, data, fin)
        self.writes.append(written)
        if self.debug:
            self.logger.debug("> %s", Frame(_OPCODES[opcode], data, fin))
        return written

    def send_frame(self, frame: Frame) -> None:
        """Send a frame, whatever the state. The other methods are safer.

        Args:
            frame: The frame.
        """
        frame.check()
        self._write(frame.opcode, frame.data, frame.fin)

    def send_eof(self) -> None:
        """End this side's stream. Closing does it by itself."""
        if self.eof_sent:
            return
        self.eof_sent = True
        if self.debug:
            self.logger.debug("> EOF")
        self.writes.append(SEND_EOF)

    @property
    def transform(self) -> Any:
        """What extensions do to payloads, ``None`` without; see ``transform.py``.

        Reader and writer share it: an extension may keep one state for both.
        """
        if self._transform is None and self.extensions:
            self._transform = make_transform(self.extensions)
        return self._transform

    def _advance(
        self, trigger: Trigger, close: Close | None = None, payload: bytes = b""
    ) -> None:
        """Look up what a trigger means now, and do it."""
        step = _TABLES[self.side][self._phase][trigger]
        for action in step.actions:
            if action is Action.SEND_CLOSE:
                self._write(OP_CLOSE, payload)
                self.close_sent = close
            elif action is Action.SEND_EOF:
                self.send_eof()
            elif action is Action.STOP_READING:
                self._reader = None
                self._head = None
                self._held = None
            else:
                self._note_loss()
        self._enter(step.phase)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        state = _STATE_OF[phase]
        if state is self._state:
            return
        was_open = self._state is not CONNECTING
        self._state = state
        if self.debug:
            self.logger.debug("= connection is %s", state.name)
        if state is CLOSED and was_open and self.side is SERVER:
            self.logger.info("connection closed")

    def _note_loss(self) -> None:
        exc = EOFError("unexpected end of stream")
        if self._phase is Phase.CONNECTING and self.handshake_exc is None:
            failure = InvalidMessage("connection closed during the opening handshake")
            failure.__cause__ = exc
            self.handshake_exc = failure
        if not self._awaits_head:
            self.parser_exc = exc

    # What the two sides do differently.

    def _receive_head(self, data: BytesLike) -> bytes | None:
        """Handle bytes of the peer's HTTP head; see ``feed_handshake()``."""
        raise NotImplementedError

    def _end_head(self) -> None:
        """Handle the end of the stream before the end of the peer's HTTP head."""


def __getattr__(name: str) -> Any:
    # These import this module, so they cannot be imported above.
    if name == "ClientProtocol":
        from .client import ClientProtocol

        return ClientProtocol
    if name == "ServerProtocol":
        from .server import ServerProtocol

        return ServerProtocol
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
