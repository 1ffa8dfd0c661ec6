"""Frames as values: opcodes, close codes, a frame, the payload of a close frame.

These are what the sans-IO API takes and gives, and what logs show. The paths that
carry messages do not build them: the codec works on bytes and plain integers.
:meth:`Frame.serialize` is therefore written for reading, not for speed, and masks
with a few lines of its own instead of reaching up to the kernels.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from .constants import MAX_CONTROL_SIZE, RSV1, RSV2, RSV3
from .exceptions import Failure, InvalidClose, WebSocketException, fail

if TYPE_CHECKING:  # pragma: no cover
    from .extensions.base import Extension
    from .typing import BytesLike

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "CTRL_OPCODES",
    "DATA_OPCODES",
    "OK_CLOSE_CODES",
    "PING",
    "PONG",
    "TEXT",
    "Close",
    "CloseCode",
    "Frame",
    "FrameHeader",
    "Opcode",
]


class Opcode(enum.IntEnum):
    """Kinds of frames (RFC 6455, 5.2)."""

    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


CONT = Opcode.CONT
TEXT = Opcode.TEXT
BINARY = Opcode.BINARY
CLOSE = Opcode.CLOSE
PING = Opcode.PING
PONG = Opcode.PONG

DATA_OPCODES = (CONT, TEXT, BINARY)
CTRL_OPCODES = (CLOSE, PING, PONG)


class CloseCode(enum.IntEnum):
    """Reasons for closing (RFC 6455, 7.4.1, and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1004 is reserved.
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


# Codes that stand for the absence of a code and never travel in a frame.
_INTERNAL_CLOSE_CODES = frozenset(
    (
        CloseCode.NO_STATUS_RCVD,
        CloseCode.ABNORMAL_CLOSURE,
        CloseCode.TLS_HANDSHAKE,
    )
)

EXTERNAL_CLOSE_CODES = frozenset(CloseCode) - _INTERNAL_CLOSE_CODES
"""The codes below 3000 that a close frame may carry."""

OK_CLOSE_CODES = frozenset(
    (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)
)
"""The codes that end a connection without an error."""

# Only where the member's name, in lower case, does not say it well.
_EXPLANATIONS: dict[int, str] = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}


def explain_close_code(code: int) -> str:
    """Say in a few words what a close code means."""
    if code in _EXPLANATIONS:
        return _EXPLANATIONS[code]
    try:
        return CloseCode(code).name.lower().replace("_", " ")
    except ValueError:
        pass
    if 3000 <= code < 4000:
        return "registered"
    if 4000 <= code < 5000:
        return "private use"
    return "unknown"


def is_valid_close_code(code: int) -> bool:
    """Tell whether a close frame may carry this code (RFC 6455, 7.4)."""
    return 3000 <= code < 5000 or code in EXTERNAL_CLOSE_CODES


class FrameHeader(NamedTuple):
    """Header of a frame, as the kernels read it.

    ``rsv`` has the reserved bits where byte 0 has them (0x40, 0x20, 0x10), ``length``
    is the size of the payload, ``mask`` is empty for an unmasked frame, and ``size``
    is the size of the header itself.
    """

    fin: bool
    opcode: int
    rsv: int
    length: int
    mask: bytes
    size: int


@dataclasses.dataclass
class Close:
    """Payload of a close frame.

    Attributes:
        code: Close code.
        reason: Close reason.
    """

    code: CloseCode | int
    reason: str

    def __str__(self) -> str:
        text = f"{int(self.code)} ({explain_close_code(self.code)})"
        return f"{text} {_printable(self.reason)}" if self.reason else text

    @classmethod
    def parse(cls, data: BytesLike) -> Self:
        """Read the payload of a close frame.

        An empty payload gives code 1005.

        Args:
            data: The payload.

        Raises:
            ProtocolError: If the payload has one byte, or the code is not one that
                may be sent.
            InvalidText: If the reason is not valid UTF-8.
        """
        data = bytes(data)
        if not data:
            return cls(CloseCode.NO_STATUS_RCVD, "")
        if len(data) == 1:
            raise fail(Failure.CLOSE_TOO_SHORT)
        code = int.from_bytes(data[:2], "big")
        if not is_valid_close_code(code):
            raise fail(Failure.CLOSE_CODE, close_code=code)
        try:
            reason = data[2:].decode()
        except UnicodeDecodeError:
            raise fail(Failure.CLOSE_REASON) from None
        return cls(code, reason)

    def serialize(self) -> bytes:
        """Build the payload of a close frame.

        Raises:
            InvalidClose: If the code or the reason cannot be sent.
        """
        self.check()
        return struct.pack("!H", self.code) + self.reason.encode()

    def check(self) -> None:
        """Check that the code and the reason can be sent.

        Raises:
            InvalidClose: If they cannot.
        """
        if not is_valid_close_code(self.code):
            raise InvalidClose(str(fail(Failure.CLOSE_CODE, close_code=int(self.code))))
        try:
            size = len(self.reason.encode())
        except UnicodeEncodeError:
            raise InvalidClose("close reason contains a surrogate") from None
        limit = MAX_CONTROL_SIZE - 2
        if size > limit:
            raise InvalidClose(
                f"close reason is too long: {size} bytes, limit {limit} (RFC 6455, 5.5)"
            )


@dataclasses.dataclass
class Frame:
    """A frame.

    The mask and the length are not here: they belong to the wire.

    Attributes:
        opcode: Kind of frame.
        data: Payload.
        fin: Whether it ends its message.
        rsv1: First reserved bit.
        rsv2: Second reserved bit.
        rsv3: Third reserved bit.
    """

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    # Characters of the payload that __str__() shows; a program may change it.
    MAX_LOG_SIZE: ClassVar[int] = 75

    def __str__(self) -> str:
        """Describe the frame for a log, with an excerpt of the payload.

        The payload is shown as text when it looks like text, whatever the opcode,
        since JSON in binary frames is common; else as hexadecimal digits.
        """
        facts = []
        shown, is_text = self._excerpt()
        # Say which it is only where the opcode does not.
        if self.data and is_text != (self.opcode in (TEXT, CLOSE)):
            facts.append("text" if is_text else "binary")
        size = len(self.data)
        facts.append(f"{size} byte" if size == 1 else f"{size} bytes")
        if not self.fin:
            facts.append("continued")
        return f"{Opcode(self.opcode).name} {shown} [{', '.join(facts)}]"

    def _excerpt(self) -> tuple[str, bool]:
        """Return a short form of the payload, and whether it shows text."""
        size = len(self.data)
        if not size:
            return "''", False
        if self.opcode == CLOSE:
            try:
                return _elide(str(Close.parse(self.data)), self.MAX_LOG_SIZE), True
            except WebSocketException:
                return _hexadecimal(bytes(self.data), self.MAX_LOG_SIZE), False
        # A character takes up to four bytes: look at no more than can be shown.
        limit = 4 * self.MAX_LOG_SIZE
        if size <= 2 * limit:
            head, tail = bytes(self.data), b""
        else:
            head, tail = bytes(self.data[:limit]), bytes(self.data[-limit:])
        # Four random bytes, as in many pings, are often valid UTF-8 by accident.
        is_control = self.opcode in CTRL_OPCODES
        text = _guess_text(head, cut_start=self.opcode == CONT, cut_end=True)
        if text is not None and tail:
            end = _guess_text(tail, cut_start=True, cut_end=True)
            text = None if end is None else text + end
        if text is None or (is_control and not text.isascii()):
            return _hexadecimal(head + tail, self.MAX_LOG_SIZE), False
        return _elide(repr(text), self.MAX_LOG_SIZE), True

    def serialize(
        self,
        *,
        mask: bool,
        extensions: Sequence[Extension] | None = None,
    ) -> bytes:
        """Build the bytes of the frame.

        Args:
            mask: Whether to mask the payload, as clients must.
            extensions: Extensions to apply, in order.

        Raises:
            ProtocolError: If the frame breaks a rule; see :meth:`check`.
        """
        self.check()
        frame = self
        for extension in extensions or ():
            frame = extension.encode(frame)
        first = (
            (0x80 if frame.fin else 0)
            | (RSV1 if frame.rsv1 else 0)
            | (RSV2 if frame.rsv2 else 0)
            | (RSV3 if frame.rsv3 else 0)
            | frame.opcode
        )
        second = 0x80 if mask else 0
        data = bytes(frame.data)
        size = len(data)
        if size < 126:
            header = struct.pack("!BB", first, second | size)
        elif size < 65536:
            header = struct.pack("!BBH", first, second | 126, size)
        else:
            header = struct.pack("!BBQ", first, second | 127, size)
        if not mask:
            return header + data
        key = os.urandom(4)
        return header + key + _mask(data, key)

    def check(self) -> None:
        """Check the opcode, the reserved bits, and the rules for control frames.

        Raises:
            ProtocolError: If a rule is broken.
        """
        rsv = (
            (RSV1 if self.rsv1 else 0)
            | (RSV2 if self.rsv2 else 0)
            | (RSV3 if self.rsv3 else 0)
        )
        if rsv:
            raise fail(Failure.RSV, rsv=rsv)
        if self.opcode in CTRL_OPCODES:
            if not self.fin:
                raise fail(Failure.CONTROL_FRAGMENTED)
            if len(self.data) > MAX_CONTROL_SIZE:
                raise fail(Failure.CONTROL_TOO_LONG, size=len(self.data))
        elif self.opcode not in DATA_OPCODES:
            raise fail(Failure.OPCODE, opcode=self.opcode)


_find_control = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]").search


def _mask(data: bytes, key: bytes) -> bytes:
    size = len(data)
    pattern = (key * (size // 4 + 1))[:size]
    order = sys.byteorder
    mixed = int.from_bytes(data, order) ^ int.from_bytes(pattern, order)
    return mixed.to_bytes(size, order)


def _guess_text(data: bytes, *, cut_start: bool, cut_end: bool) -> str | None:
    """Decode data that looks like text, or like a piece cut out of text."""
    start, end = 0, len(data)
    if cut_start:
        while start < min(3, end) and data[start] & 0xC0 == 0x80:
            start += 1
    try:
        text = data[start:].decode()
    except UnicodeDecodeError as exc:
        if not (cut_end and exc.reason == "unexpected end of data"):
            return None
        text = data[start : start + exc.start].decode()
    # Control characters other than white space mean that this is not text.
    return None if _find_control(text) else text


def _printable(text: str) -> str:
    """Return text of a peer for one line of a log: nothing that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _elide(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = limit // 3 - 1
    return text[: 2 * cut] + "..." + text[-cut:]


def _hexadecimal(data: bytes, limit: int) -> str:
    if 3 * len(data) <= limit:
        return data.hex(" ")
    cut = (limit // 3 - 1) // 3
    return f"{data[: 2 * cut].hex(' ')} ... {data[-cut:].hex(' ')}"
