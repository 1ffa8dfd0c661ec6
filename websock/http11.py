"""HTTP/1.1 heads: bytes to requests and responses, and back.

Two steps. A reader collects bytes until it has a whole head; it enforces the limits as
the bytes come, looks at each byte once, and keeps what comes after the head for the
frames. A parse function then checks the whole head with one expression and leaves the
header lines as they are: :class:`~websock.datastructures.Headers` splits them when
somebody looks.

The grammar is that of RFC 9112 without its tolerance: lines end in CRLF and only in
CRLF, there is no folding, no white space before the colon, no NUL. Whatever two parsers
could read in two ways is refused, and the refusal says which line and why, without
quoting it.

Nothing depends on how the bytes are cut into pieces, not even the error.
"""

from __future__ import annotations

import dataclasses
import re
import sys

from .constants import (
    MAX_BODY_SIZE,
    MAX_HEAD_SIZE,
    MAX_LINE_LENGTH,
    MAX_NUM_HEADERS,
)
from .datastructures import Headers, MultipleValuesError
from .exceptions import (
    HeaderLineTooLong,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from .version import version

__all__ = [
    "SERVER",
    "USER_AGENT",
    "HeadReader",
    "Request",
    "Response",
    "ResponseReader",
    "parse_request",
    "parse_response",
    "show_header",
]

_PYTHON = f"Python/{sys.version_info[0]}.{sys.version_info[1]}"

USER_AGENT = f"{_PYTHON} websock/{version}"
"""``User-Agent`` of requests."""

SERVER = USER_AGENT
"""``Server`` of responses."""

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
# The way everybody writes a line, which Headers can use as it is, and any other way.
_TIDY = _TOKEN + rb": (?:[!-~\x80-\xff]" + _VALUE + rb"(?<![\t ]))?\r\n"
_LINE = _TOKEN + rb":" + _VALUE + rb"\r\n"
_REQUEST = rb"(" + _TOKEN + rb") ([!-~]++) (HTTP/[0-9]\.[0-9])\r\n"
_STATUS = rb"(HTTP/[0-9]\.[0-9]) ([1-5][0-9][0-9])(?: (" + _VALUE + rb"))?\r\n"

_match_request = re.compile(_REQUEST + rb"((?:" + _TIDY + rb")*+)\r\n").fullmatch
_match_any_request = re.compile(_REQUEST + rb"((?:" + _LINE + rb")*+)\r\n").fullmatch
_match_response = re.compile(_STATUS + rb"((?:" + _LINE + rb")*+)\r\n").fullmatch

_is_method = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+").fullmatch
_is_target = re.compile(r"[!-~]+").fullmatch
_is_phrase = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

_is_token = re.compile(_TOKEN).fullmatch
_is_value = re.compile(_VALUE).fullmatch
_is_chunk_size = re.compile(
    rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?"
).fullmatch

# First bytes of a method; anything else is not HTTP and need not be waited for.
_TOKEN_BYTES = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

# Bytes in the line with the size of a chunk.
_MAX_CHUNK_LINE = 1024

# Interim responses that are skipped, before one is taken for the answer.
_MAX_INTERIM = 8


# What tells a reader of the log how to be somebody else.
_SECRET = frozenset(("authorization", "cookie", "proxy-authorization", "set-cookie"))


def show_header(name: str, value: str) -> str:
    """Return the value of a header for one line of a log, without secrets.

    Args:
        name: Name of the header.
        value: Its value.
    """
    if name.lower() in _SECRET:
        return "(hidden)"
    # Some control characters are legal in a header, and ends of lines to some readers.
    return value if value.isprintable() else ascii(value)[1:-1]


@dataclasses.dataclass(slots=True)
class Request:
    """A handshake request.

    Attributes:
        path: Path and query, as they came: not decoded.
        headers: Headers.
        method: Method; GET in every handshake.
        protocol: Protocol; HTTP/1.1 in every handshake.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        """Build the bytes of the request.

        Raises:
            ValueError: If the method or the path cannot stand in a request line.
        """
        if not _is_method(self.method):
            raise ValueError(
                f"invalid method: {self.method!a} is not a token (RFC 9110, 9.1)"
            )
        if not _is_target(self.path):
            raise ValueError(
                f"invalid path: {self.path!a} is empty or contains a space, a control"
                " character or a non-ASCII one (RFC 9112, 3.2)"
            )
        if not _is_target(self.protocol):
            raise ValueError(f"invalid protocol: {self.protocol!a}")
        line = f"{self.method} {self.path} {self.protocol}\r\n"
        return line.encode("ascii") + self.headers.serialize()


@dataclasses.dataclass(slots=True)
class Response:
    """A handshake response.

    Attributes:
        status_code: Status code.
        reason_phrase: Reason phrase.
        headers: Headers.
        body: Body; empty for a response that accepts the connection.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes | bytearray = b""

    def serialize(self) -> bytes:
        """Build the bytes of the response.

        Raises:
            ValueError: If the status code or the reason phrase cannot stand in a
                status line.
        """
        if not 100 <= self.status_code <= 599:
            raise ValueError(
                f"invalid status code: {self.status_code}, expected 100 to 599"
            )
        phrase = self.reason_phrase
        if not (phrase.isascii() and phrase.isprintable()) and not _is_phrase(phrase):
            raise ValueError(
                f"invalid reason phrase: {phrase!a} contains a character"
                " that HTTP cannot carry (RFC 9112, 4)"
            )
        head = (f"HTTP/1.1 {self.status_code:d} {phrase}\r\n{self.headers}").encode(
            "latin-1"
        )
        return head + self.body if self.body else head


# -- heads -------------------------------------------------------------------------


class HeadReader:
    """Collects the head of a request or a response.

    Args:
        response: Whether a response is expected instead of a request.
        max_line: Bytes in a line, without its CRLF.
        max_headers: Number of header lines.
        max_size: Bytes in the head.

    Attributes:
        leftover: What came after the head, once the head is complete.

    Memory: holds a copy of an incomplete head; at most ``max_size`` bytes and the
    last piece that was fed.
    """

    __slots__ = (
        "_buffer",
        "_line",
        "_lines",
        "_max_headers",
        "_max_line",
        "_max_size",
        "_response",
        "_scanned",
        "leftover",
    )

    def __init__(
        self,
        *,
        response: bool = False,
        max_line: int = MAX_LINE_LENGTH,
        max_headers: int = MAX_NUM_HEADERS,
        max_size: int = MAX_HEAD_SIZE,
    ) -> None:
        self._response = response
        self._max_line = max_line
        self._max_headers = max_headers
        self._max_size = max_size
        self._buffer: bytearray | None = None
        self._line = 0  # where the current line begins
        self._lines = 0  # lines before it
        self._scanned = 0  # where to look for the next line end
        self.leftover = b""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self._buffer

    def feed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """Take bytes.

        Args:
            data: The bytes; they are not kept.

        Returns:
            The whole head, with the empty line that ends it; ``None`` when there is
            more to come.

        Raises:
            RequestLineTooLong: If the request line passes its limit.
            StatusLineTooLong: If the status line passes its limit.
            HeaderLineTooLong: If a header line or the head passes its limit.
            TooManyHeaders: If there are more header lines than the limit.
            InvalidMessage: If this is not HTTP, or a line does not end in CRLF.
        """
        if self._buffer is None:
            # Nearly always the whole head comes at once, and is so short that no line
            # can be too long.
            if type(data) is not bytes:
                data = bytes(data)
            end = data.find(b"\r\n\r\n") + 4
            if (
                3 < end <= self._max_line
                and end <= self._max_size
                and data[0] in _TOKEN_BYTES
                and data.count(b"\n", 0, end) - 2 <= self._max_headers
            ):
                if end == len(data):
                    return data
                self.leftover = data[end:]
                return data[:end]
            self._buffer = bytearray()
        return self._feed_slowly(data)

    def _feed_slowly(self, data: bytes | bytearray | memoryview) -> bytes | None:
        buffer = self._buffer
        assert buffer is not None
        buffer += data
        if buffer and buffer[0] not in _TOKEN_BYTES:
            raise InvalidMessage(
                "received a TLS handshake, expected HTTP"
                if buffer[0] == 0x16
                else "received something that is not HTTP"
            )
        while True:
            end = buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(buffer)
                self._check_size(len(buffer) - self._line)
                return None
            self._check_size(end + 1 - self._line)
            if end == self._line or buffer[end - 1] != 0x0D:
                raise InvalidMessage(_bare_lf(self._lines + 1))
            if not self._lines:
                # What speaks another protocol may wait for an answer to its first line.
                kind = "response" if self._response else "request"
                wrong = _explain_first(bytes(buffer[: end - 1]), kind)
                if wrong:
                    raise InvalidMessage(wrong)
            end += 1
            if end - self._line == 2:
                self.leftover = bytes(buffer[end:])
                head = bytes(buffer[:end])
                self._buffer = None
                return head
            self._lines += 1
            self._line = self._scanned = end
            if self._lines - 1 > self._max_headers:
                raise TooManyHeaders(f"too many headers: more than {self._max_headers}")

    def _check_size(self, size: int) -> None:
        """Check the length of the current line, complete or not, with its CRLF."""
        line_room = self._max_line + 2
        room = self._max_size - self._line
        if size <= line_room and size <= room:
            return
        if room < line_room:
            raise HeaderLineTooLong(
                f"headers are too long: more than {self._max_size} bytes"
            )
        text = f"line is too long: more than {self._max_line} bytes"
        if self._lines:
            raise HeaderLineTooLong(f"header {text}")
        if self._response:
            raise StatusLineTooLong(f"status {text}")
        raise RequestLineTooLong(f"request {text}")


def parse_request(head: bytes) -> Request:
    """Parse the head of a request.

    Any method is accepted, and HTTP/1.0 too, so that a server can answer plain HTTP
    on the same port: :func:`websock.handshake.check_request` refuses them when a
    WebSocket is asked for.

    Args:
        head: The whole head, with the empty line that ends it.

    Raises:
        InvalidMessage: If it does not match the grammar, or announces a body.
        InvalidProtocol: If it is another version than HTTP/1.1 and HTTP/1.0.
    """
    match = _match_request(head)
    if match is None:
        match = _match_any_request(head)
        if match is None:
            raise InvalidMessage(_explain(head, "request"))
        method, path, protocol, lines = match.groups()
        lines = _tidy(lines)
    else:
        method, path, protocol, lines = match.groups()
    if protocol != b"HTTP/1.1" and protocol != b"HTTP/1.0":
        raise InvalidProtocol(protocol.decode("ascii"))
    headers = Headers.from_block(lines)
    index = headers.index()
    if "content-length" in index or "transfer-encoding" in index:
        check_no_body(headers)
    return Request(
        path.decode("ascii"),
        headers,
        "GET" if method == b"GET" else method.decode("ascii"),
        "HTTP/1.1" if protocol == b"HTTP/1.1" else "HTTP/1.0",
    )


def check_no_body(headers: Headers) -> None:
    """Refuse a request with a body: it would be read as frames, or the reverse.

    Args:
        headers: Headers of the request.

    Raises:
        InvalidMessage: If there is a ``Transfer-Encoding``, or a ``Content-Length``
            other than 0.
    """
    index = headers.index()
    if "transfer-encoding" in index:
        raise InvalidMessage("request has a Transfer-Encoding, expected no body")
    if index.get("content-length", "0") != "0":
        raise InvalidMessage("request has a Content-Length, expected no body")


def parse_response(head: bytes, *, allow_http10: bool = False) -> Response:
    """Parse the head of a response.

    Args:
        head: The whole head, with the empty line that ends it.
        allow_http10: Whether HTTP/1.0 will do, as for some proxies.

    Raises:
        InvalidMessage: If it does not match the grammar.
    """
    match = _match_response(head)
    if match is None:
        raise InvalidMessage(_explain(head, "response"))
    protocol, status, phrase, lines = match.groups()
    if protocol != b"HTTP/1.1" and not (allow_http10 and protocol == b"HTTP/1.0"):
        raise InvalidMessage(
            f"unsupported HTTP version: {protocol.decode()}, expected HTTP/1.1"
        )
    return Response(
        int(status),
        (phrase or b"").decode("latin-1"),
        Headers.from_block(_tidy(lines)),
    )


def _tidy(lines: bytes) -> bytes:
    """Write header lines the way :class:`Headers` wants them."""
    tidy = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        tidy.append(name + b": " + value.strip(b" \t") if colon else b"")
    return b"\r\n".join(tidy)


def _bare_lf(line: int) -> str:
    return f"line {line} ends in LF without CR (RFC 9112, 2.2)"


def _explain(head: bytes, kind: str) -> str:
    """Say what is wrong with a head that an expression refused."""
    if not head.endswith(b"\r\n\r\n") and head != b"\r\n":
        return f"{kind} is truncated"
    # In the order in which HeadReader sees it when the head comes in pieces.
    bare = re.search(rb"(?<!\r)\n", head)
    bare_line = head.count(b"\n", 0, bare.start()) + 1 if bare else 0
    if bare_line == 1:
        return _bare_lf(1)
    lines = head[:-4].split(b"\r\n")
    wrong = _explain_first(lines[0], kind)
    if wrong:
        return wrong
    if bare_line:
        return _bare_lf(bare_line)
    for number, line in enumerate(lines[1:], 2):
        if wrong := _explain_bytes(line, number, kind):
            return wrong
    for number, line in enumerate(lines[1:], 2):
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return f"{kind} line {number} is folded (RFC 9112, 5.2)"
        if not colon:
            return f"{kind} line {number} has no colon (RFC 9112, 5)"
        if name.endswith((b" ", b"\t")):
            return f"{kind} line {number} has a space before the colon (RFC 9112, 5.1)"
        if not _is_token(name):
            return f"name in {kind} line {number} is not a token (RFC 9110, 5.1)"
        if not _is_value(value):
            return (
                f"value in {kind} line {number} has a control character (RFC 9110, 5.5)"
            )
    return f"{kind} is invalid"  # pragma: no cover (all that can be wrong is above)


def _explain_first(line: bytes, kind: str) -> str:
    """Say what is wrong with the first line of a head, if something is."""
    if wrong := _explain_bytes(line, 1, kind):
        return wrong
    if kind == "request":
        if line.count(b" ") != 2:
            return "request line is not made of three parts (RFC 9112, 3)"
        method, target, protocol = line.split(b" ")
        if not _is_token(method):
            return "method is not a token (RFC 9110, 9.1)"
        if not re.fullmatch(rb"[!-~]+", target):
            return "request target is empty or not visible ASCII (RFC 9112, 3.2)"
        if not re.fullmatch(rb"HTTP/[0-9]\.[0-9]", protocol):
            return "protocol is not an HTTP version (RFC 9112, 2.3)"
    elif not re.match(rb"HTTP/[0-9]\.[0-9] [1-5][0-9][0-9](?: |\Z)", line):
        return "status line has no version or no valid status code (RFC 9112, 4)"
    elif not _is_value(line):
        return "reason phrase contains a control character (RFC 9112, 4)"
    return ""


def _explain_bytes(line: bytes, number: int, kind: str) -> str:
    """Say which byte may not be in a line of a head, if one is in it."""
    for bad, what in ((b"\0", "NUL"), (b"\r", "CR without LF")):
        if bad in line:
            return f"{kind} line {number} contains {what} (RFC 9110, 5.5)"
    return ""


# -- responses with a body ---------------------------------------------------------


class ResponseReader:
    """Collects a response: head and body.

    Interim responses (1xx other than 101) are skipped. The body of a response that
    refuses the connection is read by its length, in chunks or to the end of the
    connection; when the connection ends early, what came of the body is returned,
    since the status matters more than the rest of an error page.

    Args:
        proxy: Whether a proxy answers: there is no body to read and HTTP/1.0 will do.
        max_body: Bytes in the body.

    Attributes:
        leftover: What came after the response, once it is complete.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_chunked",
        "_head",
        "_interim",
        "_length",
        "_max_body",
        "_proxy",
        "_response",
        "leftover",
    )

    def __init__(self, *, proxy: bool = False, max_body: int = MAX_BODY_SIZE) -> None:
        self._proxy = proxy
        self._max_body = max_body
        self._head = HeadReader(response=True)
        self._interim = 0
        self._response: Response | None = None
        self._body = bytearray()
        self._length: int | None = None  # of the body, or of what is left of a chunk
        self._chunked = False
        self._buffer = bytearray()  # incomplete line between two chunks
        self.leftover = b""

    def feed(self, data: bytes | bytearray | memoryview) -> Response | None:
        """Take bytes.

        Args:
            data: The bytes; they are not kept.

        Returns:
            The response; ``None`` when there is more to come.

        Raises:
            InvalidMessage: If it does not match the grammar.
            SecurityError: If a limit is passed.
        """
        data = bytes(data)
        while self._response is None:
            head = self._head.feed(data)
            if head is None:
                return None
            data = self._head.leftover
            response = parse_response(head, allow_http10=self._proxy)
            status = response.status_code
            if 100 <= status < 200 and status != 101:
                self._interim += 1
                if self._interim > _MAX_INTERIM:
                    raise SecurityError(
                        f"too many interim responses: more than {_MAX_INTERIM}"
                    )
                self._head = HeadReader(response=True)
                continue
            if self._proxy or status in (101, 204, 304):
                self.leftover = data
                return response
            self._start_body(response)
        return self._feed_chunked(data) if self._chunked else self._feed_plain(data)

    def feed_eof(self) -> Response | None:
        """Say that the connection has ended.

        Returns:
            The response, with as much of its body as came; ``None`` when nothing came
            at all.

        Raises:
            InvalidMessage: If it ended within the head.
        """
        if self._response is None:
            if self._head.is_empty and not self._interim:
                return None
            raise InvalidMessage("connection closed in the head of the response")
        return self._finish(b"")

    def _start_body(self, response: Response) -> None:
        # RFC 9112, 6.3.
        headers = response.headers
        try:
            coding = headers.get("Transfer-Encoding")
            length = headers.get("Content-Length")
        except MultipleValuesError as exc:
            raise InvalidMessage(f"multiple values of {exc.args[0]}") from None
        if coding is not None:
            if coding.lower() != "chunked":
                raise InvalidMessage(
                    "transfer coding isn't supported, expected chunked"
                )
            self._chunked = True
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise InvalidMessage("Content-Length isn't a number (RFC 9110, 8.6)")
            # Comparing digits first keeps int() away from very long ones.
            length = length.lstrip("0") or "0"
            if len(length) > 18 or int(length) > self._max_body:
                raise SecurityError(
                    f"body is too big: {length[:18]} bytes, limit {self._max_body}"
                )
            self._length = int(length)
        self._response = response

    def _finish(self, leftover: bytes) -> Response:
        response = self._response
        assert response is not None
        response.body = bytes(self._body)
        self.leftover = leftover
        return response

    def _feed_plain(self, data: bytes) -> Response | None:
        if self._length is None:
            self._append(data)
            return None
        missing = self._length - len(self._body)
        self._body += data[:missing]
        if len(data) < missing:
            return None
        return self._finish(data[missing:])

    def _append(self, data: bytes) -> None:
        if len(data) > self._max_body - len(self._body):
            raise SecurityError(f"body is too big: more than {self._max_body} bytes")
        self._body += data

    def _feed_chunked(self, data: bytes) -> Response | None:
        # RFC 9112, 7.1: lines with a size, that many bytes, CRLF, ..., a size of 0.
        # _length is None while the line with the size is awaited, else what is left
        # of the chunk. Nothing follows such a response on the connection, so the
        # trailers are not waited for.
        buffer = self._buffer
        buffer += data
        while True:
            if self._length is None:
                end = buffer.find(b"\r\n")
                if end < 0 and len(buffer) <= _MAX_CHUNK_LINE:
                    return None
                match = _is_chunk_size(buffer[:end]) if end >= 0 else None
                if match is None or end > _MAX_CHUNK_LINE:
                    raise InvalidMessage("invalid chunk size (RFC 9112, 7.1)")
                self._length = int(match[1], 16)
                if self._length == 0:
                    return self._finish(b"")
                if self._length > self._max_body - len(self._body):
                    raise SecurityError(
                        f"body is too big: {self._length + len(self._body)} bytes,"
                        f" limit {self._max_body}"
                    )
                del buffer[: end + 2]
            if self._length:
                content = buffer[: self._length]
                self._body += content
                self._length -= len(content)
                del buffer[: len(content)]
            if self._length or len(buffer) < 2:
                return None
            if buffer[:2] != b"\r\n":
                raise InvalidMessage("chunk doesn't end in CRLF (RFC 9112, 7.1)")
            del buffer[:2]
            self._length = None
