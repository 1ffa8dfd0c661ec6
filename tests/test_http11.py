"""Requests and responses: the grammar, the limits, and every way to feed them."""

from __future__ import annotations

import itertools
import time

import pytest
from helpers import BROWSER_REQUEST, cuts, feed_every_way, outcome, request, response
from hypothesis import given, settings
from hypothesis import strategies as st

from websock.constants import (
    MAX_BODY_SIZE,
    MAX_HEAD_SIZE,
    MAX_LINE_LENGTH,
    MAX_NUM_HEADERS,
)
from websock.datastructures import Headers
from websock.exceptions import InvalidMessage, InvalidProtocol
from websock.http11 import (
    SERVER,
    USER_AGENT,
    HeadReader,
    Request,
    Response,
    ResponseReader,
    parse_request,
    parse_response,
)


class RequestParser:
    """A reader and the parse function in one, as the server uses them."""

    def __init__(self) -> None:
        self.reader = HeadReader()

    def feed(self, data: bytes) -> Request | None:
        head = self.reader.feed(data)
        return None if head is None else parse_request(head)

    @property
    def leftover(self) -> bytes:
        return self.reader.leftover


def read_request(data: bytes) -> Request:
    result, error = feed_every_way(RequestParser, data)
    assert error is None
    assert isinstance(result, Request)
    return result


def refuse_request(data: bytes) -> str:
    """Return the error of a request that is refused, however it comes."""
    result, error = feed_every_way(RequestParser, data)
    assert result is None
    assert error is not None
    return error


def read_response(data: bytes) -> Response:
    result, error = feed_every_way(ResponseReader, data)
    assert error is None
    assert isinstance(result, Response)
    return result


def refuse_response(data: bytes) -> str:
    result, error = feed_every_way(ResponseReader, data)
    assert result is None
    assert error is not None
    return error


class TestRequest:
    def test_browser(self) -> None:
        got = read_request(BROWSER_REQUEST)
        assert got.method == "GET"
        assert got.path == "/chat?room=1"
        assert got.protocol == "HTTP/1.1"
        assert len(got.headers) == 14
        assert got.headers["sec-websocket-key"] == "dGhlIHNhbXBsZSBub25jZQ=="
        assert got.serialize() == BROWSER_REQUEST

    @pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "get"])
    def test_other_methods_are_for_the_server_to_judge(self, method: str) -> None:
        assert read_request(f"{method} / HTTP/1.1\r\n\r\n".encode()).method == method

    def test_http10_is_for_the_server_to_judge(self) -> None:
        got = read_request(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert got.protocol == "HTTP/1.0"

    @pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0"])
    def test_other_versions(self, version: str) -> None:
        error = refuse_request(f"GET / {version}\r\n\r\n".encode())
        assert error.startswith(f"InvalidProtocol: unsupported HTTP version: {version}")

    def test_white_space_around_values_is_stripped(self) -> None:
        got = read_request(
            b"GET / HTTP/1.1\r\nA:b\r\nC: \t d  e\t \r\nF:\r\nG:  \r\n\r\n"
        )
        assert list(got.headers.raw_items()) == [
            ("A", "b"),
            ("C", "d  e"),
            ("F", ""),
            ("G", ""),
        ]
        assert got.headers.get("f") == ""

    def test_values_with_colons_and_latin1(self) -> None:
        got = read_request(b"GET / HTTP/1.1\r\nA: b: c:: d\r\nE: \xe9\x80\xff\r\n\r\n")
        assert got.headers["A"] == "b: c:: d"
        assert got.headers["E"] == "\xe9\x80\xff"

    def test_frames_in_the_same_segment_are_kept(self) -> None:
        reader = HeadReader()
        assert reader.feed(BROWSER_REQUEST + b"\x81\x80abcd") == BROWSER_REQUEST
        assert reader.leftover == b"\x81\x80abcd"

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_other_types_of_input(self, kind: type) -> None:
        for pieces in ([BROWSER_REQUEST], [BROWSER_REQUEST[:9], BROWSER_REQUEST[9:]]):
            result = outcome(HeadReader(), [kind(piece) for piece in pieces[:1]])
            if len(pieces) == 1:
                assert result[0] == BROWSER_REQUEST

    def test_input_is_not_kept(self) -> None:
        data = bytearray(BROWSER_REQUEST[:100])
        reader = HeadReader()
        reader.feed(data)
        data[:] = bytes(100)
        assert reader.feed(BROWSER_REQUEST[100:]) == BROWSER_REQUEST


# What two parsers could read in two ways: smuggling begins here.
BAD_REQUESTS = {
    # The line.
    b"\r\nGET / HTTP/1.1\r\n\r\n": "received something that is not HTTP",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "received a TLS handshake",
    b"\x00\x00\x00\x00": "received something that is not HTTP",
    b"{}\r\n\r\n": "received something that is not HTTP",
    b"GET /\r\n\r\n": "request line is not made of three parts",
    b"GET  / HTTP/1.1\r\n\r\n": "request line is not made of three parts",
    b"GET / HTTP/1.1 \r\n\r\n": "request line is not made of three parts",
    b"GET /a b HTTP/1.1\r\n\r\n": "request line is not made of three parts",
    b"GET\t/ HTTP/1.1\r\n\r\n": "request line is not made of three parts",
    b"G(T / HTTP/1.1\r\n\r\n": "method is not a token",
    b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n": "request target is empty or not visible ASCII",
    b"GET /\x7f HTTP/1.1\r\n\r\n": "request target is empty or not visible ASCII",
    b"GET / HTTP/11\r\n\r\n": "protocol is not an HTTP version",
    b"GET / http/1.1\r\n\r\n": "protocol is not an HTTP version",
    b"GET / HTTP/1.1x\r\n\r\n": "protocol is not an HTTP version",
    "GET / HTTP/1.١\r\n\r\n".encode(): "protocol is not an HTTP version",
    # Line ends.
    b"GET / HTTP/1.1\nHost: a\n\n": "line 1 ends in LF without CR",
    b"GET / HTTP/1.1\r\nHost: a\n\r\n": "line 2 ends in LF without CR",
    b"GET / HTTP/1.1\r\nHost: a\r\n\nA: b\r\n\r\n": "line 3 ends in LF without CR",
    b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n": "line 2 ends in LF without CR",
    b"GET / HTTP/1.1\r\nX: a\x00\r\nHost: a\nX: b\r\n\r\n": "line 3 ends in LF without",
    b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n": "line 2 contains CR without LF",
    b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n": "line 2 contains CR without LF",
    b"GET / HTTP/1.1\rHost: a\r\n\r\n": "line 1 contains CR without LF",
    # Characters that str.splitlines() takes for line ends.
    b"GET / HTTP/1.1\r\nA: b\x0bX: c\r\n\r\n": "value in request line 2 has a control",
    b"GET / HTTP/1.1\r\nA: b\x0cX: c\r\n\r\n": "value in request line 2 has a control",
    b"GET / HTTP/1.1\r\nA: b\x1cX: c\r\n\r\n": "value in request line 2 has a control",
    b"GET / HTTP/1.1\r\nA: b\x1eX: c\r\n\r\n": "value in request line 2 has a control",
    # Headers.
    b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n": "line 2 contains NUL",
    b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n": "value in request line 2 has a control",
    b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n": "line 3 is folded",
    b"GET / HTTP/1.1\r\nA: b\r\n\tc: d\r\n\r\n": "line 3 is folded",
    b"GET / HTTP/1.1\r\n A: b\r\n\r\n": "line 2 is folded",
    b"GET / HTTP/1.1\r\nA\r\n\r\n": "line 2 has no colon",
    b"GET / HTTP/1.1\r\nA : b\r\n\r\n": "line 2 has a space before the colon",
    b"GET / HTTP/1.1\r\nA\t: b\r\n\r\n": "line 2 has a space before the colon",
    b"GET / HTTP/1.1\r\n: b\r\n\r\n": "name in request line 2 is not a token",
    b"GET / HTTP/1.1\r\nA B: c\r\n\r\n": "name in request line 2 is not a token",
    b"GET / HTTP/1.1\r\nA\x00: c\r\n\r\n": "line 2 contains NUL",
    b"GET / HTTP/1.1\r\nA(: c\r\n\r\n": "name in request line 2 is not a token",
    b"GET / HTTP/1.1\r\n\xe9: c\r\n\r\n": "name in request line 2 is not a token",
    # Bodies.
    b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n": "request has a Content-Length",
    b"GET / HTTP/1.1\r\nContent-Length: 00\r\n\r\n": "request has a Content-Length",
    b"GET / HTTP/1.1\r\nContent-Length: +0\r\n\r\n": "request has a Content-Length",
    b"GET / HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n": (
        "request has a Content-Length"
    ),
    b"GET / HTTP/1.1\r\nContent-Length: 0, 0\r\n\r\n": "request has a Content-Length",
    b"GET / HTTP/1.1\r\nContent-Length:\r\n\r\n": "request has a Content-Length",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n": (
        "request has a Transfer-Encoding"
    ),
    b"GET / HTTP/1.1\r\ntransfer-encoding: identity\r\n\r\n": (
        "request has a Transfer-Encoding"
    ),
}


class TestBadRequest:
    @pytest.mark.parametrize("data", BAD_REQUESTS, ids=repr)
    def test_is_refused(self, data: bytes) -> None:
        error = refuse_request(data)
        assert error.startswith("InvalidMessage: ")
        assert BAD_REQUESTS[data] in error

    def test_content_length_of_zero_is_no_body(self) -> None:
        read_request(b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")

    def test_errors_never_show_what_came(self) -> None:
        for data in BAD_REQUESTS:
            assert "\\x" not in refuse_request(data)

    @pytest.mark.parametrize("byte", [*range(0x09), *range(0x0A, 0x20), 0x7F])
    def test_control_characters_in_a_value(self, byte: int) -> None:
        data = b"GET / HTTP/1.1\r\nA: b" + bytes([byte]) + b"c\r\n\r\n"
        assert refuse_request(data).startswith("InvalidMessage: ")

    @pytest.mark.parametrize("byte", sorted(set(range(256)) - set(b"\r\n:")))
    def test_characters_of_a_name(self, byte: int) -> None:
        data = b"GET / HTTP/1.1\r\nA" + bytes([byte]) + b"B: c\r\n\r\n"
        valid = byte in (
            b"!#$%&'*+-.^_`|~0123456789"
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        )
        if valid:
            assert parse_request(data).headers[f"a{chr(byte)}b"] == "c"
        else:
            with pytest.raises(InvalidMessage):
                parse_request(data)

    def test_parse_request_alone_needs_the_end(self) -> None:
        for cut in range(len(BROWSER_REQUEST)):
            with pytest.raises((InvalidMessage, InvalidProtocol)):
                parse_request(BROWSER_REQUEST[:cut])
        with pytest.raises(InvalidMessage):
            parse_request(BROWSER_REQUEST + b"A: b\r\n\r\n")
        with pytest.raises(InvalidMessage):
            parse_request(BROWSER_REQUEST + b"x")


class TestLimits:
    """Each at the limit and one above it."""

    def test_request_line(self) -> None:
        line = b"GET /%b HTTP/1.1"
        room = MAX_LINE_LENGTH - len(line % b"")
        assert read_request(line % (b"a" * room) + b"\r\n\r\n").path == "/" + "a" * room
        error = refuse_request(line % (b"a" * (room + 1)) + b"\r\n\r\n")
        assert (
            error
            == "RequestLineTooLong: request line is too long: more than 8192 bytes"
        )

    def test_header_line(self) -> None:
        start = b"GET / HTTP/1.1\r\n"
        value = b"b" * (MAX_LINE_LENGTH - 3)
        assert (
            len(read_request(start + b"A: " + value + b"\r\n\r\n").headers["A"]) == 8189
        )
        error = refuse_request(start + b"A: " + value + b"b\r\n\r\n")
        assert (
            error == "HeaderLineTooLong: header line is too long: more than 8192 bytes"
        )

    def test_line_without_end(self) -> None:
        # Refused long before an end could come.
        for start, kind in ((b"", "Request"), (b"GET / HTTP/1.1\r\nA: ", "Header")):
            reader = HeadReader()
            data = start + b"a" * 100_000
            pieces = [data[i : i + 1000] for i in range(0, len(data), 1000)]
            error = outcome(reader, pieces[:10])[2]
            assert error is not None
            assert error.startswith(f"{kind}LineTooLong: ")

    def test_number_of_headers(self) -> None:
        start = b"GET / HTTP/1.1\r\n"
        lines = b"".join(b"A%d: b\r\n" % n for n in range(MAX_NUM_HEADERS))
        assert len(read_request(start + lines + b"\r\n").headers) == MAX_NUM_HEADERS
        error = refuse_request(start + lines + b"B: c\r\n\r\n")
        assert error == "TooManyHeaders: too many headers: more than 128"

    def test_short_headers(self) -> None:
        start = b"GET / HTTP/1.1\r\n"
        assert len(read_request(start + b"a:\r\n" * 128 + b"\r\n").headers) == 1
        assert "TooManyHeaders" in refuse_request(start + b"a:\r\n" * 129 + b"\r\n")

    def test_headers_without_end(self) -> None:
        pieces = [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 200]
        assert "too many headers" in (outcome(HeadReader(), pieces)[2] or "")

    def test_first_line_of_another_protocol(self) -> None:
        """It fails at once, since its peer may wait for an answer."""
        for is_response, line, error in (
            (True, b"220 mail.example ESMTP\r\n", "status line has no version"),
            (True, b"SSH-2.0-OpenSSH_9.2\r\n", "status line has no version"),
            (False, b"EHLO localhost\r\n", "not made of three parts"),
            (False, b"GET / FTP/1.1\r\n", "not an HTTP version"),
            (False, b"GET /\0 HTTP/1.1\r\n", "line 1 contains NUL"),
        ):
            for pieces in cuts(line):
                reader = HeadReader(response=is_response)
                assert error in (outcome(reader, pieces)[2] or "")

    def test_size_of_the_head(self) -> None:
        start = b"GET / HTTP/1.1\r\n"
        line = b"A: %b\r\n" % (b"b" * 8000)
        data = start + line * 8
        last = MAX_HEAD_SIZE - len(data) - 2 - 5
        whole = data + b"C: " + b"d" * last + b"\r\n\r\n"
        assert len(whole) == MAX_HEAD_SIZE
        assert len(read_request(whole).headers["C"]) == last
        error = refuse_request(data + b"C: " + b"d" * (last + 1) + b"\r\n\r\n")
        assert error == "HeaderLineTooLong: headers are too long: more than 65536 bytes"

    def test_size_of_the_head_in_the_middle(self) -> None:
        data = b"GET / HTTP/1.1\r\n" + (b"A: %b\r\n" % (b"b" * 8000)) * 20
        assert "headers are too long" in refuse_request(data)

    def test_own_limits(self) -> None:
        def make() -> HeadReader:
            return HeadReader(max_line=20, max_headers=2, max_size=50)

        for data, name in {
            b"GET /aaaaaaaaa HTTP/1.1\r\n\r\n": "RequestLineTooLong",
            b"GET / HTTP/1.1\r\nA: 456789012345678901\r\n\r\n": "HeaderLineTooLong",
            b"GET / HTTP/1.1\r\nA:\r\nA:\r\nA:\r\n\r\n": "TooManyHeaders",
            b"GET / HTTP/1.1\r\nA: 45678901234567\r\nB: 456789012\r\n\r\n": (
                "HeaderLineTooLong"
            ),
        }.items():
            result, error = feed_every_way(make, data)
            assert result is None
            assert error is not None
            assert error.startswith(name)

    def test_status_line(self) -> None:
        error = refuse_response(b"HTTP/1.1 200 " + b"a" * 8192 + b"\r\n\r\n")
        assert (
            error == "StatusLineTooLong: status line is too long: more than 8192 bytes"
        )

    def test_time_is_linear_byte_by_byte(self) -> None:
        # Quadratic, this would take minutes.
        data = b"GET / HTTP/1.1\r\n" + (b"A: %b\r\n" % (b"b" * 8000)) * 8
        began = time.perf_counter()
        reader = HeadReader()
        for i in range(len(data)):
            reader.feed(data[i : i + 1])
        assert time.perf_counter() - began < 5

    @pytest.mark.parametrize(
        "line",
        [
            b"A:" + b" " * 8000 + b"b",
            b"A: b" + b" " * 8000,
            b"A: " + b" b" * 4000,
            b"A: b" + b" \t" * 4000 + b"b",
            b"A" * 8000 + b":b",
            b"A" * 8000,
            b"A: " + b"b" * 8000 + b"\x00",
        ],
    )
    def test_time_is_linear_for_white_space(self, line: bytes) -> None:
        data = b"GET / HTTP/1.1\r\n" + (line + b"\r\n") * 7 + b"\r\n"
        began = time.perf_counter()
        try:
            parse_request(data).headers.get_all("A")
        except InvalidMessage:
            pass
        assert time.perf_counter() - began < 0.5


class TestResponse:
    def test_accepted(self) -> None:
        got = read_response(response())
        assert got.status_code == 101
        assert got.reason_phrase == "Switching Protocols"
        assert got.headers["upgrade"] == "websocket"
        assert got.body == b""
        assert got.serialize() == response()

    @pytest.mark.parametrize(
        ("line", "phrase"),
        [("HTTP/1.1 101 ", ""), ("HTTP/1.1 101", ""), ("HTTP/1.1 101 a\tb \xe9", None)],
    )
    def test_phrases(self, line: str, phrase: str | None) -> None:
        got = read_response(f"{line}\r\n\r\n".encode("latin-1"))
        assert got.reason_phrase == ("a\tb \xe9" if phrase is None else phrase)

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"HTTP/1.0 101 a\r\n\r\n", "unsupported HTTP version: HTTP/1.0"),
            (b"HTTP/2.0 101 a\r\n\r\n", "unsupported HTTP version: HTTP/2.0"),
            (b"HTTP/1.1 99 a\r\n\r\n", "status line has no version or no valid"),
            (b"HTTP/1.1 600 a\r\n\r\n", "status line has no version or no valid"),
            (b"HTTP/1.1 1010 a\r\n\r\n", "status line has no version or no valid"),
            (b"HTTP/1.1 +10 a\r\n\r\n", "status line has no version or no valid"),
            (b"HTTP/1.1 101\ta\r\n\r\n", "status line has no version or no valid"),
            (b"HTTP/1.1  101 a\r\n\r\n", "status line has no version or no valid"),
            (b"HTTP/1.1 101 a\x01\r\n\r\n", "reason phrase contains a control"),
            (b"HTTP/1.1 101 a\r\nA\r\n\r\n", "response line 2 has no colon"),
            (b"HTTP/1.1 101 a\nA: b\n\n", "line 1 ends in LF without CR"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "status line has no version or no valid"),
            (b"220 smtp.example.com\r\n\r\n", "status line has no version or no valid"),
            (b"\x15\x03\x01\x00\x02\x02\x16", "received something that is not HTTP"),
        ],
    )
    def test_refused(self, data: bytes, text: str) -> None:
        error = refuse_response(data)
        assert error.startswith("InvalidMessage: ")
        assert text in error

    def test_interim_responses_are_skipped(self) -> None:
        interim = (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
        )
        assert read_response(interim + response()).status_code == 101

    def test_too_many_interim_responses(self) -> None:
        data = b"HTTP/1.1 102 Processing\r\n\r\n" * 9
        assert refuse_response(data).startswith("SecurityError: too many interim")

    @pytest.mark.parametrize("status", [204, 304])
    def test_statuses_without_body(self, status: int) -> None:
        data = f"HTTP/1.1 {status} a\r\nContent-Length: 9\r\n\r\n".encode()
        assert read_response(data).body == b""


def eof(data: list[bytes]) -> Response | None:
    reader = ResponseReader()
    for piece in data:
        assert reader.feed(piece) is None
    return reader.feed_eof()


class TestBody:
    @pytest.mark.parametrize("size", [0, 1, 3, 1000])
    def test_by_length(self, size: int) -> None:
        body = b"x" * size
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {size}\r\n\r\n".encode()
        got = read_response(head + body)
        assert got.status_code == 403
        assert got.body == body

    @pytest.mark.parametrize("length", ["00000003", "3"])
    def test_length_with_zeros(self, length: str) -> None:
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n\r\n".encode()
        assert read_response(head + b"abc").body == b"abc"

    @pytest.mark.parametrize(
        "length", ["", "-1", "+1", "1 1", "0x1", "1_0", "²", "1.0"]
    )
    def test_bad_length(self, length: str) -> None:
        data = f"HTTP/1.1 403 a\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
        assert "InvalidMessage: Content-Length isn't a number" in refuse_response(data)

    def test_two_lengths(self) -> None:
        data = b"HTTP/1.1 403 a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
        assert "multiple values of Content-Length" in refuse_response(data)

    @pytest.mark.parametrize("length", ["1048577", str(2**63), "1" + "0" * 5000])
    def test_length_above_the_limit(self, length: str) -> None:
        data = f"HTTP/1.1 403 a\r\nContent-Length: {length}\r\n\r\n".encode()
        error = refuse_response(data)
        assert error.startswith(f"SecurityError: body is too big: {length[:18]}")
        assert error.endswith("limit 1048576")

    def test_length_at_the_limit(self) -> None:
        head = f"HTTP/1.1 403 a\r\nContent-Length: {MAX_BODY_SIZE}\r\n\r\n".encode()
        reader = ResponseReader()
        assert reader.feed(head) is None
        result = reader.feed(bytes(MAX_BODY_SIZE))
        assert result is not None
        assert len(result.body) == MAX_BODY_SIZE

    def test_to_the_end(self) -> None:
        data = b"HTTP/1.1 500 a\r\n\r\nsorry, it broke"
        for pieces in cuts(data):
            result = eof(pieces)
            assert result is not None
            assert result.body == b"sorry, it broke"

    def test_to_the_end_is_bounded(self) -> None:
        pieces = [b"HTTP/1.1 500 a\r\n\r\n", *[bytes(100_000)] * 10]
        assert outcome(ResponseReader(), pieces)[2] is None
        error = outcome(ResponseReader(), [*pieces, bytes(100_000)])[2]
        assert error == "SecurityError: body is too big: more than 1048576 bytes"

    def test_short_body_keeps_the_status(self) -> None:
        data = b"HTTP/1.1 503 a\r\nContent-Length: 100\r\n\r\nsorry"
        for pieces in cuts(data):
            result = eof(pieces)
            assert result is not None
            assert (result.status_code, result.body) == (503, b"sorry")

    def test_end_in_the_head(self) -> None:
        data = b"HTTP/1.1 503 a\r\nA: b\r\n"
        for cut in range(1, len(data)):
            with pytest.raises(InvalidMessage, match="closed in the head"):
                eof([data[:cut]])

    def test_end_before_anything(self) -> None:
        assert eof([]) is None

    def test_end_after_an_interim_response(self) -> None:
        with pytest.raises(InvalidMessage, match="closed in the head"):
            eof([b"HTTP/1.1 100 a\r\n\r\n"])


class TestChunked:
    HEAD = b"HTTP/1.1 403 a\r\nTransfer-Encoding: chunked\r\n\r\n"

    def check(self, data: bytes, body: bytes) -> None:
        for pieces in cuts(self.HEAD + data):
            result, _, error = outcome(ResponseReader(), pieces)
            assert error is None
            assert result.body == body

    def refuse(self, data: bytes) -> str:
        errors = {outcome(ResponseReader(), p)[2] for p in cuts(self.HEAD + data)}
        assert len(errors) == 1
        return errors.pop() or ""

    def test_chunks(self) -> None:
        self.check(b"3\r\nabc\r\n0\r\n\r\n", b"abc")
        self.check(
            b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: u\r\n\r\n", b"abc0123456789"
        )
        self.check(b"0\r\n\r\n", b"")
        self.check(b"0003 \r\n\r\n\r\r\n0\r\n\r\n", b"\r\n\r")

    @pytest.mark.parametrize(
        "data",
        [b"\r\n", b"g\r\n", b"-1\r\n", b"0x3\r\n", b"+3\r\n", b" 3\r\n", b"3;\x01\r\n"],
    )
    def test_bad_sizes(self, data: bytes) -> None:
        assert self.refuse(data) == "InvalidMessage: invalid chunk size (RFC 9112, 7.1)"

    def test_long_line(self) -> None:
        assert "invalid chunk size" in self.refuse(b"3;" + b"a" * 2000 + b"\r\nabc\r\n")

    def test_chunk_without_end(self) -> None:
        assert "chunk doesn't end in CRLF" in self.refuse(b"3\r\nabcd\r\n")
        assert "chunk doesn't end in CRLF" in self.refuse(b"3\r\nabc\n\r")

    @pytest.mark.parametrize("size", [MAX_BODY_SIZE + 1, 2**60 - 1])
    def test_too_big(self, size: int) -> None:
        error = self.refuse(b"%x\r\n" % size)
        assert error == f"SecurityError: body is too big: {size} bytes, limit 1048576"

    def test_too_big_together(self) -> None:
        reader = ResponseReader(max_body=10)
        with pytest.raises(Exception, match="body is too big: 12 bytes, limit 10"):
            reader.feed(self.HEAD + b"6\r\nabcdef\r\n6\r\nabcdef\r\n")

    def test_end_of_the_connection(self) -> None:
        result = eof([self.HEAD + b"6\r\nabc"])
        assert result is not None
        assert result.body == b"abc"

    def test_other_codings(self) -> None:
        for coding in ("gzip, chunked", "identity", "chunked, chunked", ""):
            data = f"HTTP/1.1 403 a\r\nTransfer-Encoding: {coding}\r\n\r\n".encode()
            assert "transfer coding isn't supported" in refuse_response(data)

    def test_name_in_any_case(self) -> None:
        data = (
            b"HTTP/1.1 403 a\r\ntransfer-encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n"
        )
        result, _, _ = outcome(ResponseReader(), [data])
        assert result.body == b"a"

    def test_coding_wins_over_length(self) -> None:
        data = (
            b"HTTP/1.1 403 a\r\nContent-Length: 99\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\n\r\n"
        )
        result, _, _ = outcome(ResponseReader(), [data])
        assert result.body == b"a"


class TestProxy:
    def make(self) -> ResponseReader:
        return ResponseReader(proxy=True)

    @pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
    def test_no_body_is_read(self, version: str) -> None:
        data = f"{version} 200 Established\r\nContent-Length: 5\r\n\r\n".encode()
        result, error = feed_every_way(self.make, data)
        assert error is None
        assert result.status_code == 200
        assert result.body == b""

    def test_refused(self) -> None:
        data = b"HTTP/1.1 407 a\r\nProxy-Authenticate: Basic\r\n\r\n"
        result, _ = feed_every_way(self.make, data)
        assert result.status_code == 407


class TestSerialize:
    def test_request(self) -> None:
        data = Request("/a?b", Headers({"Host": "c"})).serialize()
        assert data == b"GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n"

    def test_response(self) -> None:
        data = Response(403, "Forbidden", Headers({"A": "b"}), b"no").serialize()
        assert data == b"HTTP/1.1 403 Forbidden\r\nA: b\r\n\r\nno"
        data = Response(200, "caf\xe9\t", Headers(), bytearray(b"x")).serialize()
        assert data == b"HTTP/1.1 200 caf\xe9\t\r\n\r\nx"

    @pytest.mark.parametrize(
        "path", ["", "/a b", "/a\r\nX: y", "/a\n", "/\x00", "/\x7f", "/é"]
    )
    def test_bad_path(self, path: str) -> None:
        with pytest.raises(ValueError, match="invalid path"):
            Request(path, Headers()).serialize()

    @pytest.mark.parametrize("method", ["", "GET ", "G\r\nT", "G/T"])
    def test_bad_method(self, method: str) -> None:
        with pytest.raises(ValueError, match="invalid method"):
            Request("/", Headers(), method).serialize()

    def test_bad_protocol(self) -> None:
        with pytest.raises(ValueError, match="invalid protocol"):
            Request("/", Headers(), protocol="HTTP/1.1\r\nA: b").serialize()

    @pytest.mark.parametrize("phrase", ["a\r\nX: y", "a\n", "\x00", "a\x7f", "Ж"])
    def test_bad_phrase(self, phrase: str) -> None:
        with pytest.raises(ValueError, match="invalid reason phrase"):
            Response(200, phrase, Headers()).serialize()

    @pytest.mark.parametrize("status", [0, 99, 600, 1000, -1])
    def test_bad_status(self, status: int) -> None:
        with pytest.raises(ValueError, match="invalid status code"):
            Response(status, "", Headers()).serialize()


class TestValues:
    def test_defaults_and_equality(self) -> None:
        assert Request("/", Headers()) == Request("/", Headers(), "GET", "HTTP/1.1")
        assert Response(200, "OK", Headers()) == Response(200, "OK", Headers(), b"")

    def test_are_small(self) -> None:
        for value in (
            Request("/", Headers()),
            Response(200, "OK", Headers()),
            Headers(),
        ):
            assert not hasattr(value, "__dict__")

    def test_names(self) -> None:
        assert USER_AGENT == SERVER
        assert USER_AGENT.startswith("Python/3.")
        assert "websock/" in USER_AGENT

    def test_helpers_agree(self) -> None:
        assert parse_request(request()).headers["Host"] == "localhost:8765"
        assert parse_response(response()).status_code == 101


def reference(data: bytes) -> tuple[str, list[tuple[str, str]], bytes] | None:
    """Read a request in the slow way: first line, headers, and what follows.

    Nothing here is shared with the library: no expression, no table.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = head.split(b"\r\n")
    token = {*b"!#$%&'*+-.^_`|~", *range(48, 58), *range(65, 91), *range(97, 123)}
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not parts[0] or not parts[1]:
        return None
    if not set(parts[0]) <= token or not all(33 <= byte <= 126 for byte in parts[1]):
        return None
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return None
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or not set(name) <= token:
            return None
        if any(byte == 127 or (byte < 32 and byte != 9) for byte in value):
            return None
        text = value.decode("latin-1").strip(" \t")
        headers.append((name.decode(), text))
        if name.lower() == b"transfer-encoding":
            return None
        if name.lower() == b"content-length" and text != "0":
            return None
    if sum(name.lower() == "content-length" for name, _ in headers) > 1:
        return None
    return lines[0].decode(), headers, rest


PIECES = [
    *[b"\r\n", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\n\r\n", b"\r\r\n", b"\n\n"],
    *[b"GET / HTTP/1.1\r\n", b"GET", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"],
    *[
        b"A: b\r\n",
        b"A:b",
        b"a",
        b":",
        b": ",
        b" :",
        b"\t",
        b",",
        b"\x00",
        b"\x0b",
        b"\x85",
    ],
    *[b"Content-Length: 0\r\n", b"content-length:5\r\n", b"Transfer-Encoding: x\r\n"],
    *[b"\xff", b"\x7f", b"\x81\x80", b"\xc2\xa0"],
]


@settings(max_examples=400, deadline=None)
@given(
    st.booleans(),
    st.lists(st.sampled_from(PIECES), max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_requests_of_any_kind(
    begun: bool, pieces: list[bytes], ended: bool, points: list[int]
) -> None:
    data = b"GET / HTTP/1.1\r\n" * begun + b"".join(pieces) + b"\r\n\r\n" * ended
    expected = reference(data)
    result, leftover, error = outcome(RequestParser(), [data])
    if expected is None:
        assert result is None
    else:
        line, headers, rest = expected
        assert error is None
        assert f"{result.method} {result.path} {result.protocol}" == line
        assert list(result.headers.raw_items()) == headers
        assert leftover == rest
        # What is sent on is what was understood.
        assert reference(result.serialize()) == (line, headers, b"")
    edges = [0, *sorted(min(point, len(data)) for point in points), len(data)]
    cut = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert outcome(RequestParser(), cut) == (result, leftover, error)
