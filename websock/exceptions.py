"""Every exception of the library, and the one table of protocol failures.

::

    WebSocketException
        ConnectionClosed
            ConnectionClosedOK
            ConnectionClosedError
        InvalidURI
        InvalidProxy
        InvalidHandshake
            SecurityError
                RequestLineTooLong
                StatusLineTooLong
                HeaderLineTooLong
                TooManyHeaders
            ProxyError
                InvalidProxyMessage
                InvalidProxyStatus
            InvalidMessage
            InvalidMethod
            InvalidProtocol
            InvalidStatus
            InvalidHeader
                InvalidHeaderFormat
                InvalidHeaderValue
                    UnsafeHeader (also a ValueError)
                InvalidHost
                InvalidOrigin
                InvalidUpgrade
                InvalidVersion
            NegotiationError
                DuplicateParameter
                InvalidParameterName
                InvalidParameterValue
        ProtocolError
            InvalidText
            InvalidClose (also a ValueError)
        PayloadTooBig
        TooManyFragments
        InvalidState (also an AssertionError)
        ConcurrencyError (also a RuntimeError)
        InternalError (also an AssertionError)

Texts say what was wrong, then the numbers, then the rule. They never contain the
payload of a message. What a peer put into a header is shown in the exception of a
handshake (escaped and shortened, for the local log) and never sent back to a peer:
:func:`websock.handshake.rejection` has the texts for that.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from .constants import (
    CLOSE_ABNORMAL,
    CLOSE_INVALID_DATA,
    CLOSE_POLICY_VIOLATION,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_BIG,
    MAX_CONTROL_SIZE,
)

if TYPE_CHECKING:  # pragma: no cover
    from .frames import Close
    from .http11 import Response

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "Failure",
    "HeaderLineTooLong",
    "InternalError",
    "InvalidClose",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidHost",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidText",
    "InvalidURI",
    "InvalidUpgrade",
    "InvalidVersion",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyControlFrames",
    "TooManyFragments",
    "TooManyHeaders",
    "UnsafeHeader",
    "WebSocketException",
    "fail",
]

_MAX_SHOWN = 120


def _show(text: str) -> str:
    """Shorten and escape text of unknown origin for one line of a log."""
    if len(text) > _MAX_SHOWN:
        text = text[: _MAX_SHOWN - 3] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


class WebSocketException(Exception):
    """Base class of the library's exceptions."""


class ConnectionClosed(WebSocketException):
    """The connection is closed, so the operation cannot be done.

    Attributes:
        rcvd: The close frame that was received, if any: ``rcvd.code`` and
            ``rcvd.reason``.
        sent: The close frame that was sent, if any.
        rcvd_then_sent: When both exist, whether the peer's came first, which means
            that the peer began closing.
    """

    def __init__(
        self,
        rcvd: Close | None,
        sent: Close | None,
        rcvd_then_sent: bool | None = None,
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        if (rcvd_then_sent is None) != (rcvd is None or sent is None):
            raise ValueError(
                "rcvd_then_sent must be given exactly when both close frames are"
            )
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    def __str__(self) -> str:
        if self.rcvd is None and self.sent is None:
            return "no close frame received or sent"
        if self.rcvd is None:
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"

    @property
    def code(self) -> int:
        """Code of the close frame received; 1006 when none was."""
        return CLOSE_ABNORMAL if self.rcvd is None else int(self.rcvd.code)

    @property
    def reason(self) -> str:
        """Reason in the close frame received; empty when none was."""
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed):
    """The connection was closed properly.

    Close frames with code 1000 or 1001 or without a code were received and sent.
    """


class ConnectionClosedError(ConnectionClosed):
    """The connection was closed with an error, or the closing was not completed."""


class InvalidURI(WebSocketException):
    """A URI cannot be connected to.

    Attributes:
        uri: The URI as it was given.
        msg: What is wrong with it.
    """

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        return f"{_show(self.uri)} isn't a valid URI: {self.msg}"


class InvalidProxy(WebSocketException):
    """A proxy cannot be used.

    Attributes:
        proxy: The URL of the proxy as it was given.
        msg: What is wrong with it.
    """

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{_show(self.proxy)} isn't a valid proxy: {self.msg}"


class InvalidHandshake(WebSocketException):
    """Base class for a failure of the opening handshake."""


class SecurityError(InvalidHandshake):
    """A handshake request or response passed a limit."""


class RequestLineTooLong(SecurityError):
    """The request line is longer than the limit."""


class StatusLineTooLong(SecurityError):
    """The status line is longer than the limit."""


class HeaderLineTooLong(SecurityError):
    """A header line, or all of them together, are longer than the limit."""


class TooManyHeaders(SecurityError):
    """There are more header lines than the limit."""


class ProxyError(InvalidHandshake):
    """Connecting through a proxy failed."""


class InvalidProxyMessage(ProxyError):
    """The answer of an HTTP proxy cannot be parsed."""


class InvalidProxyStatus(ProxyError):
    """An HTTP proxy refused to connect.

    Attributes:
        response: The proxy's response.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


class InvalidMessage(InvalidHandshake):
    """A handshake request or response cannot be parsed."""


class InvalidMethod(InvalidHandshake):
    """A handshake request has a method other than GET.

    Attributes:
        method: The method of the request.
    """

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {_show(self.method)}, expected GET"


class InvalidProtocol(InvalidHandshake):
    """A handshake request has a protocol other than HTTP/1.1.

    Attributes:
        protocol: The protocol of the request.
    """

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {_show(self.protocol)}, expected HTTP/1.1"


class InvalidStatus(InvalidHandshake):
    """The server refused the connection.

    Attributes:
        response: The server's response, with status, headers and body.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return (
            f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"
        )


class InvalidHeader(InvalidHandshake):
    """A header is missing or wrong.

    Attributes:
        name: Name of the header.
        value: Its value, or what is wrong with it; ``None`` when it is missing.
    """

    def __init__(self, name: str, value: str | None = None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if self.value == "":
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {_show(self.value)}"


class InvalidHeaderFormat(InvalidHeader):
    """A header does not match its grammar."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {_show(header)}")
        self.args = (name, error, header, pos)


class InvalidHeaderValue(InvalidHeader):
    """A header matches its grammar and has a wrong value."""


class UnsafeHeader(InvalidHeaderValue, ValueError):
    """A caller's header cannot be sent.

    Its name is not a token, or its value contains a control character, such as CR,
    LF or NUL, or a character outside ISO-8859-1.
    """

    def __str__(self) -> str:
        return f"invalid header {_show(self.name)!r}: {self.value}"


class InvalidHost(InvalidHeader):
    """The ``Host`` of a request is not among those that are allowed."""

    def __init__(self, host: str) -> None:
        super().__init__("Host", host)
        self.args = (host,)


class InvalidOrigin(InvalidHeader):
    """The ``Origin`` of a request is not among those that are allowed."""

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)
        self.args = (origin,)


class InvalidUpgrade(InvalidHeader):
    """``Upgrade`` or ``Connection`` do not ask for a WebSocket."""


class InvalidVersion(InvalidHeader):
    """``Sec-WebSocket-Version`` is missing or is not 13."""

    def __init__(self, value: str | None = None) -> None:
        super().__init__("Sec-WebSocket-Version", value)
        self.args = (value,)


class NegotiationError(InvalidHandshake):
    """Negotiating an extension or a subprotocol failed."""


class DuplicateParameter(NegotiationError):
    """An extension has the same parameter twice.

    Attributes:
        name: Name of the parameter.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {_show(self.name)}"


class InvalidParameterName(NegotiationError):
    """An extension has a parameter that it does not define.

    Attributes:
        name: Name of the parameter.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {_show(self.name)}"


class InvalidParameterValue(NegotiationError):
    """A parameter of an extension has a wrong value.

    Attributes:
        name: Name of the parameter.
        value: Its value; ``None`` when it has none.
    """

    def __init__(self, name: str, value: str | None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if self.value == "":
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {_show(self.value)}"


class ProtocolError(WebSocketException):
    """A frame, or a sequence of frames, breaks the protocol.

    Attributes:
        code: The close code that answers it, 1002 unless said otherwise.
    """

    code: int = CLOSE_PROTOCOL_ERROR

    def __init__(self, *args: object, code: int | None = None) -> None:
        super().__init__(*args)
        if code is not None:
            self.code = code


class InvalidText(ProtocolError):
    """A text message or a close reason is not valid UTF-8.

    Attributes:
        code: The close code that answers it, 1007.
    """

    code: int = CLOSE_INVALID_DATA


class InvalidClose(ProtocolError, ValueError):
    """A close frame that a caller asks for cannot be sent."""


class PayloadTooBig(WebSocketException):
    """A message is bigger than the limit.

    Extensions raise this in ``decode()`` when their output passes ``max_size``.

    Attributes:
        size: Bytes that would have come now; ``None`` when it is not known, as in
            the middle of decompressing.
        max_size: The limit for the whole message.
        current_size: Bytes of the same message that came earlier, if any.
        code: The close code that answers it, 1009.
    """

    code: int = CLOSE_TOO_BIG

    def __init__(
        self,
        size: int | None,
        max_size: int,
        current_size: int | None = None,
    ) -> None:
        super().__init__(size, max_size, current_size)
        self.size = size
        self.max_size = max_size
        self.current_size: int | None = None
        self.set_current_size(current_size)

    def __str__(self) -> str:
        if self.size is None:
            return f"message is too big: more than {self.max_size} bytes"
        total = self.size + (self.current_size or 0)
        return f"message is too big: {total} bytes, limit {self.max_size}"

    def set_current_size(self, current_size: int | None) -> None:
        """Count bytes of the message that came before this frame.

        What was left for this frame becomes the limit for the whole message.

        Args:
            current_size: Bytes that came before; ``None`` changes nothing.
        """
        if current_size is None:
            return
        if self.current_size is not None:
            raise InternalError("current_size is set already")
        self.max_size += current_size
        self.current_size = current_size


class TooManyFragments(WebSocketException):
    """A message comes in more frames than the limit.

    Attributes:
        max_fragments: The limit.
        code: The close code that answers it, 1009.
    """

    code: int = CLOSE_TOO_BIG

    def __init__(self, max_fragments: int) -> None:
        super().__init__(max_fragments)
        self.max_fragments = max_fragments

    def __str__(self) -> str:
        return f"too many fragments: limit {self.max_fragments} in a message"


class TooManyControlFrames(ProtocolError):
    """A peer sends pings and pongs faster than the limit.

    Attributes:
        code: The close code that answers it, 1008.
    """

    code: int = CLOSE_POLICY_VIOLATION


class InvalidState(WebSocketException, AssertionError):
    """A frame cannot be sent in this state of the connection."""


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two tasks receive, or send a fragmented message, at the same time."""


class InternalError(WebSocketException, AssertionError):
    """The library broke one of its own rules: please report it."""


# -- failures of the frame parser ------------------------------------------------


class Failure(enum.IntEnum):
    """What can be wrong with bytes from the peer; equal to C ``enum ws_err``."""

    OK = 0
    RSV = 1
    OPCODE = 2
    CONTROL_FRAGMENTED = 3
    CONTROL_TOO_LONG = 4
    NOT_MASKED = 5
    MASKED = 6
    LENGTH = 7
    EXPECTED_CONTINUATION = 8
    UNEXPECTED_CONTINUATION = 9
    TOO_BIG = 10
    TOO_MANY_FRAGMENTS = 11
    UTF8 = 12
    UTF8_TRUNCATED = 13
    CLOSE_TOO_SHORT = 14
    CLOSE_CODE = 15
    CLOSE_REASON = 16
    DEFLATE = 17
    CONTROL_RATE = 18


# Texts with the facts they show; the three that need more are in fail().
_TEXTS: dict[int, tuple[type[ProtocolError], str]] = {
    Failure.RSV: (
        ProtocolError,
        "reserved bits are set: 0x{rsv:02x}, no extension defines them (RFC 6455, 5.2)",
    ),
    Failure.OPCODE: (ProtocolError, "unknown opcode: 0x{opcode:x} (RFC 6455, 5.2)"),
    Failure.CONTROL_FRAGMENTED: (
        ProtocolError,
        "fragmented control frame (RFC 6455, 5.5)",
    ),
    Failure.NOT_MASKED: (ProtocolError, "unmasked frame from client (RFC 6455, 5.1)"),
    Failure.MASKED: (ProtocolError, "masked frame from server (RFC 6455, 5.1)"),
    Failure.LENGTH: (
        ProtocolError,
        "payload length has its top bit set (RFC 6455, 5.2)",
    ),
    Failure.EXPECTED_CONTINUATION: (
        ProtocolError,
        "expected a continuation frame, got opcode 0x{opcode:x} (RFC 6455, 5.4)",
    ),
    Failure.UNEXPECTED_CONTINUATION: (
        ProtocolError,
        "unexpected continuation frame (RFC 6455, 5.4)",
    ),
    Failure.UTF8: (
        InvalidText,
        "invalid UTF-8 at byte {position} of the message (RFC 6455, 8.1)",
    ),
    Failure.UTF8_TRUNCATED: (
        InvalidText,
        (
            "truncated UTF-8 at the end of the message, after {size} bytes"
            " (RFC 6455, 8.1)"
        ),
    ),
    Failure.CLOSE_TOO_SHORT: (
        ProtocolError,
        "close frame with a payload of 1 byte (RFC 6455, 5.5.1)",
    ),
    Failure.CLOSE_CODE: (
        ProtocolError,
        "invalid close code: {close_code} (RFC 6455, 7.4)",
    ),
    Failure.CLOSE_REASON: (
        InvalidText,
        "invalid UTF-8 in close reason (RFC 6455, 5.5.1)",
    ),
    Failure.DEFLATE: (ProtocolError, "decompression failed: {reason} (RFC 7692, 7.2)"),
    Failure.CONTROL_RATE: (
        TooManyControlFrames,
        "too many pings and pongs: more than {limit} in a second, limit {limit}",
    ),
}


def fail(code: int, **facts: Any) -> Exception:
    """Build, and do not raise, the exception for a failure.

    Args:
        code: A :class:`Failure`, or the number of one.
        **facts: What the text shows: ``rsv``, ``opcode``, ``size``, ``max_size``,
            ``current_size``, ``max_fragments``, ``position``, ``close_code``,
            ``reason``, ``limit``.

    Returns:
        The exception; its ``code`` is the close code that answers the failure.
    """
    if code == Failure.TOO_BIG:
        return PayloadTooBig(
            facts.get("size"), facts["max_size"], facts.get("current_size")
        )
    if code == Failure.TOO_MANY_FRAGMENTS:
        return TooManyFragments(facts["max_fragments"])
    if code == Failure.CONTROL_TOO_LONG:
        size = facts.get("size")
        # While a header is read, the number behind 126 or 127 is not known yet.
        known = size is not None
        return ProtocolError(
            "control frame is too long: "
            + (f"{size} bytes" if known else f"more than {MAX_CONTROL_SIZE} bytes")
            + f", limit {MAX_CONTROL_SIZE} (RFC 6455, 5.5)"
        )
    entry = _TEXTS.get(code)
    if entry is None:
        return InternalError(f"unknown failure: {code}")
    kind, text = entry
    return kind(text.format(**facts))
