"""Frames and messages, sans-IO: the pure twin, and the specification.

:class:`FrameReader` turns bytes into messages and control frames;
:class:`FrameWriter` turns messages and control frames into bytes.  Neither knows
sockets, loops, connection states or the closing handshake.

Strategy.  A frame's payload is handled as it arrives, chunk by chunk: unmask,
validate if it is text, append to one buffer.  So the work is linear however the
input is cut, invalid text fails in the middle of a frame (RFC 6455, 8.1), and a
message in a million fragments costs its bytes and not a million objects.  Limits
are judged on the header, before any payload is stored.

Ownership.  ``feed()`` copies what it keeps; nothing borrowed outlives the call.
Cost: one ``bytes`` or ``str`` per message.
"""

from __future__ import annotations

from typing import Any

from ._kernels_py import (
    MAX_HEADER_SIZE,
    Utf8Validator,
    apply_mask,
    build_header,
    parse_header,
    random_mask,
)
from .constants import (
    MAX_CONTROL_SIZE,
    MAX_FRAGMENTS,
    MAX_KEPT_ENDS,
    OP_BINARY,
    OP_CLOSE,
    OP_CONT,
    OP_TEXT,
)
from .exceptions import Failure, PayloadTooBig, fail
from .frames import FrameHeader
from .typing import BytesLike, DataLike

__all__ = ["FrameReader", "FrameWriter"]

Event = tuple[int, str | bytes, Any]


def is_valid_close_code(code: int) -> bool:
    """Tell whether a peer may send ``code`` in a close frame (RFC 6455, 7.4)."""
    if code >= 3000:
        return code <= 4999
    return 1000 <= code <= 1003 or 1007 <= code <= 1014


def made_bytes(data: BytesLike) -> bytes:
    """Return what an extension has made as ``bytes``; it may be an extension of users.

    Raises:
        TypeError: If it is not bytes-like.
    """
    if type(data) is bytes:
        return data
    with memoryview(data) as view:
        return bytes(view)


class FrameReader:
    """Read frames; give whole messages and control frames.

    Args:
        expect_mask: Whether frames must be masked: ``True`` on a server.
        max_message_size: Limit on the payload of a message, in bytes.
        max_fragment_size: Limit on the payload of one frame, in bytes.
        max_fragments: Limit on the number of frames in a message; ``None`` for none.
        transform: What extensions do to payloads, or ``None``.
        assemble: Whether the fragments of a message are put together.

    Memory: an unfinished message is held in one buffer of at most
    ``max_message_size`` bytes; nothing is held between messages.
    """

    __slots__ = (
        "_buffer",
        "_complete",
        "_control",
        "_ends",
        "_expect_mask",
        "_fragments",
        "_head",
        "_max_fragment_size",
        "_max_fragments",
        "_max_message_size",
        "_message",
        "_opcode",
        "_payload",
        "_plain",
        "_pos",
        "_received",
        "_size",
        "_taken",
        "_transform",
        "_utf8",
        "assemble",
        "closed",
        "error",
        "inflated",
        "message_bytes",
        "messages",
    )

    def __init__(
        self,
        *,
        expect_mask: bool,
        max_message_size: int | None = None,
        max_fragment_size: int | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
        transform: Any = None,
        assemble: bool = True,
    ) -> None:
        self._expect_mask = expect_mask
        self._max_message_size = max_message_size
        self._max_fragment_size = max_fragment_size
        self._max_fragments = max_fragments
        self._transform = transform
        self.assemble = assemble
        self.error: Exception | None = None
        self.closed = False
        self.messages = 0  # that were complete
        self.message_bytes = 0  # of payload in them
        self.inflated = 0  # bytes that came out of the transform since begin()

        self._buffer = bytearray()  # input not consumed: a partial header
        self._pos = 0  # where it begins, while next() steps through it
        self._head: FrameHeader | None = None  # frame whose payload is awaited
        self._received = 0  # payload bytes of that frame so far
        self._plain = True  # whether its payload is used as it is
        self._control = bytearray()  # payload of a control frame
        self._payload = bytearray()  # payload of a frame for the transform

        self._opcode = 0  # of the unfinished message; 0: none
        self._message = bytearray()  # its payload so far
        self._size = 0  # bytes of it counted against the limit
        self._fragments = 0
        self._ends: list[int] = []  # where its fragments ended
        self._complete = 0  # bytes of _message in finished fragments
        self._taken = False  # whether take_fragments() took some of it
        self._utf8 = Utf8Validator()

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended, and still can."""
        return self._opcode != 0 and self.error is None

    @property
    def has_fragments(self) -> bool:
        """Whether ``take_fragments()`` has something to take."""
        return bool(self._ends)

    @property
    def message_opcode(self) -> int:
        """The opcode of the unfinished message, 0 when there is none."""
        return self._opcode

    def feed(self, data: BytesLike) -> list[Event]:
        """Take bytes from the peer; return the events that they complete.

        An event is ``(opcode, payload, extra)``:

        * a message, when ``assemble`` is true: ``str`` for text, ``bytes`` for
          binary; extra is ``None``, or the offsets in bytes where its fragments
          ended.  The end of a message whose beginning ``take_fragments()`` took
          has opcode 0 and ``bytes``;
        * a data frame, when ``assemble`` is false: ``bytes``; extra is its FIN bit;
        * a control frame: ``bytes``; extra is ``True``.

        After a close frame or an error the input is discarded; ``error`` tells
        what broke the protocol.
        """
        events: list[Event] = []
        self.begin(data)
        while (event := self.next()) is not None:
            events.append(event)
        return events

    def begin(self, data: BytesLike) -> None:
        """Take input; ``next()`` steps through what it says."""
        self.inflated = 0
        if not self.closed and self.error is None:
            self._buffer += data

    def next(self) -> Event | None:
        """Go on to the next event; ``None`` when there is no more, or an error."""
        if self.closed or self.error is not None:
            return None
        try:
            event = self._step()
        except Exception as exc:
            # One without a code is a mistake of an extension; it ends the
            # connection like the peer's, after the events before it.
            self.error = exc
            event = None
        if event is None or event[0] == OP_CLOSE:
            over = event is not None or self.error is not None
            del self._buffer[: len(self._buffer) if over else self._pos]
            self._pos = 0
        return event

    def rest(self) -> bytes:
        """Take back the input behind the last event."""
        data = bytes(self._buffer[self._pos :])
        self._buffer = bytearray()
        self._pos = 0
        return data

    def _step(self) -> Event | None:
        buffer = self._buffer
        while True:
            if self._head is None:
                head = parse_header(
                    bytes(buffer[self._pos : self._pos + MAX_HEADER_SIZE]),
                    expect_mask=self._expect_mask,
                    allowed_rsv=self._allowed_rsv(),
                )
                if head is None:
                    return None
                self._pos += head.size
                self._begin_frame(head)
            head = self._head
            assert head is not None
            end = self._pos + head.length - self._received
            chunk = bytes(buffer[self._pos : end])
            self._pos += len(chunk)
            self._take_chunk(head, chunk)
            if self._received < head.length:
                return None
            event = self._end_frame(head)
            if event is not None:
                return event

    def take_fragments(self) -> list[bytes]:
        """Take the finished fragments of the unfinished message out of the buffer.

        What is left of the message then comes as an event with opcode 0.  The
        limits go on counting the whole message.
        """
        if not self._ends:
            return []
        pieces = cut(bytes(self._message[: self._complete]), self._ends)
        del self._message[: self._complete]
        self._ends = []
        self._complete = 0
        if pieces:
            self._taken = True
        return pieces

    def _allowed_rsv(self) -> int:
        return 0 if self._transform is None else int(self._transform.allowed_rsv)

    def _begin_frame(self, head: FrameHeader) -> None:
        """Judge the header of a frame against sequence and limits."""
        if head.opcode < OP_CLOSE:
            if head.opcode == OP_CONT:
                if not self._opcode:
                    raise fail(Failure.UNEXPECTED_CONTINUATION)
            elif self._opcode:
                raise fail(Failure.EXPECTED_CONTINUATION, opcode=head.opcode)
            self._check_size(head.length)
            limit = self._max_fragments
            if limit is not None and self._fragments >= limit:
                raise fail(Failure.TOO_MANY_FRAGMENTS, max_fragments=limit)
            if head.opcode != OP_CONT:
                self._opcode = head.opcode
                self._plain = self._transform is None or (
                    head.rsv == 0 and self._transform.passes_plain
                )
            elif head.rsv:
                # Only the transform can say whether this is allowed.
                self._plain = False
            self._fragments += 1
        self._head = head
        self._received = 0

    def _check_size(self, length: int) -> None:
        limit = self._max_fragment_size
        if limit is not None and length > limit:
            raise fail(Failure.TOO_BIG, size=length, max_size=limit, current_size=None)
        limit = self._room()
        if limit is not None and length > limit:
            raise fail(
                Failure.TOO_BIG,
                size=length,
                max_size=limit,
                current_size=self._size or None,
            )

    def _room(self) -> int | None:
        if self._max_message_size is None:
            return None
        return self._max_message_size - self._size

    def _take_chunk(self, head: FrameHeader, chunk: bytes) -> None:
        """Unmask, validate and store a part of the payload."""
        if not chunk:
            return
        if head.mask:
            chunk = apply_mask(chunk, head.mask, self._received)
        self._received += len(chunk)
        if head.opcode >= OP_CLOSE:
            self._control += chunk
        elif self._plain:
            self._store(chunk)
        else:
            self._payload += chunk

    def _store(self, chunk: bytes) -> None:
        """Append to the message what no extension has to look at any more."""
        if self._opcode == OP_TEXT:
            bad = self._utf8.feed(chunk)
            if bad >= 0:
                raise fail(Failure.UTF8, position=self._size + bad)
        self._size += len(chunk)
        self._message += chunk

    def _end_frame(self, head: FrameHeader) -> Event | None:
        self._head = None
        if head.opcode >= OP_CLOSE:
            control = bytes(self._control)
            self._control = bytearray()
            if head.opcode == OP_CLOSE:
                self._check_close(control)
                self.closed = True
            return (head.opcode, control, True)
        if not self._plain:
            self._run_transform(head)
        self._complete = len(self._message)
        if not self.assemble:
            return self._end_fragment(head)
        if head.fin:
            return self._end_message()
        if len(self._ends) < MAX_KEPT_ENDS:
            self._ends.append(self._complete)
        return None

    def _run_transform(self, head: FrameHeader) -> None:
        """Have the extensions decode the payload of a frame."""
        limit = self._room()
        counted = limit is not None
        if self._max_fragment_size is not None and (
            limit is None or self._max_fragment_size < limit
        ):
            limit = self._max_fragment_size
            counted = False
        payload, self._payload = bytes(self._payload), bytearray()
        try:
            payload = self._transform.decode(
                head.opcode, head.fin, head.rsv, payload, limit
            )
            payload = made_bytes(payload)
        except PayloadTooBig as exc:
            if counted:
                exc.set_current_size(self._size or None)
            raise
        self.inflated += len(payload)
        self._store(payload)

    def _end_fragment(self, head: FrameHeader) -> Event:
        if head.fin:
            self._check_text_end()
        event = (head.opcode, bytes(self._message), head.fin)
        self._message = bytearray()
        self._complete = 0
        if head.fin:
            self._count_message()
            self._reset_message()
        return event

    def _end_message(self) -> Event:
        self._check_text_end()
        payload: str | bytes = bytes(self._message)
        opcode = self._opcode
        extra = None
        if self._fragments > 1:
            extra = self._ends
            if len(extra) < MAX_KEPT_ENDS:
                extra.append(self._complete)
        if self._taken:
            opcode = OP_CONT
        elif opcode == OP_TEXT:
            payload = self._message.decode()
        self._count_message()
        self._reset_message()
        return (opcode, payload, extra)

    def _check_text_end(self) -> None:
        if self._opcode == OP_TEXT and not self._utf8.is_complete:
            raise fail(Failure.UTF8_TRUNCATED, size=self._size)

    def _count_message(self) -> None:
        self.messages += 1
        self.message_bytes += self._size

    def _reset_message(self) -> None:
        self._opcode = 0
        self._message = bytearray()
        self._size = 0
        self._fragments = 0
        self._ends = []
        self._complete = 0
        self._taken = False

    @staticmethod
    def _check_close(payload: bytes) -> None:
        """Judge the payload of a close frame (RFC 6455, 5.5.1 and 7.4)."""
        if not payload:
            return
        if len(payload) == 1:
            raise fail(Failure.CLOSE_TOO_SHORT)
        code = int.from_bytes(payload[:2], "big")
        if not is_valid_close_code(code):
            raise fail(Failure.CLOSE_CODE, close_code=code)
        utf8 = Utf8Validator()
        if utf8.feed(payload[2:]) >= 0 or not utf8.is_complete:
            raise fail(Failure.CLOSE_REASON)


def message_payload(data: DataLike, text: bool | None) -> tuple[int, bytes]:
    """Return the opcode and the payload of a message; ``FrameWriter.message()``."""
    if isinstance(data, str):
        return OP_BINARY if text is False else OP_TEXT, data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return OP_TEXT if text else OP_BINARY, bytes(data)
    raise TypeError(f"message must be str or bytes-like, not {type(data).__name__}")


def cut(data: bytes, ends: list[int]) -> list[bytes]:
    """Cut ``data`` at the offsets in ``ends``; what follows the last is one piece."""
    pieces = []
    start = 0
    for end in ends:
        pieces.append(data[start:end])
        start = end
    if start < len(data):
        pieces.append(data[start:])
    return pieces


class FrameWriter:
    """Build frames.

    Args:
        mask: Whether frames are masked: ``True`` on a client (RFC 6455, 5.3).
        transform: What extensions do to payloads, or ``None``.
    """

    __slots__ = ("_mask", "_transform")

    def __init__(self, *, mask: bool, transform: Any = None) -> None:
        self._mask = mask
        self._transform = transform

    @property
    def is_plain(self) -> bool:
        """Whether a frame depends on nothing but its payload, and does for many."""
        return not self._mask and self._transform is None

    def message(self, data: DataLike, text: bool | None = None) -> bytes:
        """Build the one frame of a whole message.

        Args:
            data: ``str`` goes into a text frame, bytes into a binary frame.
            text: ``True`` or ``False`` forces a text or a binary frame; bytes
                sent as text must be UTF-8.

        Raises:
            TypeError: When ``data`` is neither ``str`` nor bytes-like.
            UnicodeEncodeError: When ``data`` has lone surrogates.
        """
        return self.frame(*message_payload(data, text))

    def frame(self, opcode: int, payload: BytesLike, fin: bool = True) -> bytes:
        """Build one frame of any kind.

        Raises:
            ProtocolError: When a control frame is over 125 bytes or fragmented.
        """
        data = bytes(payload)
        rsv = 0
        if opcode >= OP_CLOSE:
            if not fin:
                raise fail(Failure.CONTROL_FRAGMENTED)
            if len(data) > MAX_CONTROL_SIZE:
                raise fail(Failure.CONTROL_TOO_LONG, size=len(data))
        elif self._transform is not None:
            rsv, data = self._transform.encode(opcode, fin, data)
            data = made_bytes(data)
        if not self._mask:
            return build_header(opcode, len(data), fin=fin, rsv=rsv) + data
        mask = random_mask()
        header = build_header(opcode, len(data), fin=fin, rsv=rsv, mask=mask)
        return header + apply_mask(data, mask)
