"""Exceptions: the tree, the attributes, the texts, and the table of failures."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from websock import exceptions
from websock.datastructures import Headers
from websock.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    Failure,
    InternalError,
    InvalidClose,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidState,
    InvalidStatus,
    InvalidText,
    InvalidUpgrade,
    InvalidURI,
    InvalidVersion,
    PayloadTooBig,
    ProtocolError,
    TooManyControlFrames,
    TooManyFragments,
    UnsafeHeader,
    WebSocketException,
    fail,
)
from websock.frames import Close, CloseCode
from websock.http11 import Response

NORMAL = Close(CloseCode.NORMAL_CLOSURE, "")
AWAY = Close(CloseCode.GOING_AWAY, "bye")

TEXTS: list[tuple[Exception, str]] = [
    (ConnectionClosed(None, None), "no close frame received or sent"),
    (
        ConnectionClosed(AWAY, None),
        "received 1001 (going away) bye; no close frame sent",
    ),
    (ConnectionClosed(None, NORMAL), "sent 1000 (OK); no close frame received"),
    (
        ConnectionClosedOK(NORMAL, NORMAL, True),
        "received 1000 (OK); then sent 1000 (OK)",
    ),
    (
        ConnectionClosedError(AWAY, NORMAL, False),
        "sent 1000 (OK); then received 1001 (going away) bye",
    ),
    (InvalidURI("|", "not at all"), "| isn't a valid URI: not at all"),
    (InvalidProxy("|", "not at all"), "| isn't a valid proxy: not at all"),
    (
        InvalidProxyStatus(Response(401, "Unauthorized", Headers())),
        "proxy rejected connection: HTTP 401",
    ),
    (InvalidMethod("HEAD"), "unsupported HTTP method: HEAD, expected GET"),
    (
        InvalidProtocol("HTTP/1.0"),
        "unsupported HTTP version: HTTP/1.0, expected HTTP/1.1",
    ),
    (
        InvalidStatus(Response(401, "Unauthorized", Headers())),
        "server rejected WebSocket connection: HTTP 401",
    ),
    (InvalidHeader("Name"), "missing Name header"),
    (InvalidHeader("Name", ""), "empty Name header"),
    (InvalidHeader("Name", "Value"), "invalid Name header: Value"),
    (
        InvalidHeaderFormat("Connection", "expected a token", "@", 0),
        "invalid Connection header: expected a token at 0 in @",
    ),
    (
        InvalidHeaderValue("Sec-WebSocket-Key", "abc"),
        "invalid Sec-WebSocket-Key header: abc",
    ),
    (InvalidOrigin("http://evil"), "invalid Origin header: http://evil"),
    (InvalidOrigin(None), "missing Origin header"),
    (InvalidUpgrade("Upgrade", "h2c"), "invalid Upgrade header: h2c"),
    (InvalidVersion("8"), "invalid Sec-WebSocket-Version header: 8"),
    (InvalidVersion(), "missing Sec-WebSocket-Version header"),
    (UnsafeHeader("A", "wrong"), "invalid header 'A': wrong"),
    (DuplicateParameter("a"), "duplicate parameter: a"),
    (InvalidParameterName("|"), "invalid parameter name: |"),
    (InvalidParameterValue("a", None), "missing value for parameter a"),
    (InvalidParameterValue("a", ""), "empty value for parameter a"),
    (InvalidParameterValue("a", "|"), "invalid value for parameter a: |"),
    (ProtocolError("wrong"), "wrong"),
    (PayloadTooBig(4, 3), "message is too big: 4 bytes, limit 3"),
    (PayloadTooBig(4, 3, 10), "message is too big: 14 bytes, limit 13"),
    (PayloadTooBig(None, 3), "message is too big: more than 3 bytes"),
    (PayloadTooBig(None, 3, 10), "message is too big: more than 13 bytes"),
    (TooManyFragments(5), "too many fragments: limit 5 in a message"),
    (InvalidState("wrong"), "wrong"),
    (ConcurrencyError("wrong"), "wrong"),
]


@pytest.mark.parametrize(("exc", "text"), TEXTS, ids=lambda v: type(v).__name__)
def test_texts(exc: Exception, text: str) -> None:
    assert str(exc) == text


@pytest.mark.parametrize("exc", [exc for exc, _ in TEXTS], ids=repr)
def test_copies_are_the_same(exc: Exception) -> None:
    # Process pools and multiprocessing send exceptions this way.
    for other in (pickle.loads(pickle.dumps(exc)), copy.copy(exc)):
        assert type(other) is type(exc)
        assert str(other) == str(exc)
        assert {k: v for k, v in vars(other).items() if k != "response"} == {
            k: v for k, v in vars(exc).items() if k != "response"
        }


# The tree of the library whose users change an import and nothing else.
TREE = {
    "ConnectionClosed": "WebSocketException",
    "ConnectionClosedOK": "ConnectionClosed",
    "ConnectionClosedError": "ConnectionClosed",
    "InvalidURI": "WebSocketException",
    "InvalidProxy": "WebSocketException",
    "InvalidHandshake": "WebSocketException",
    "SecurityError": "InvalidHandshake",
    "RequestLineTooLong": "SecurityError",
    "StatusLineTooLong": "SecurityError",
    "HeaderLineTooLong": "SecurityError",
    "TooManyHeaders": "SecurityError",
    "ProxyError": "InvalidHandshake",
    "InvalidProxyMessage": "ProxyError",
    "InvalidProxyStatus": "ProxyError",
    "InvalidMessage": "InvalidHandshake",
    "InvalidMethod": "InvalidHandshake",
    "InvalidProtocol": "InvalidHandshake",
    "InvalidStatus": "InvalidHandshake",
    "InvalidHeader": "InvalidHandshake",
    "InvalidHeaderFormat": "InvalidHeader",
    "InvalidHeaderValue": "InvalidHeader",
    "InvalidOrigin": "InvalidHeader",
    "InvalidUpgrade": "InvalidHeader",
    "NegotiationError": "InvalidHandshake",
    "DuplicateParameter": "NegotiationError",
    "InvalidParameterName": "NegotiationError",
    "InvalidParameterValue": "NegotiationError",
    "ProtocolError": "WebSocketException",
    "PayloadTooBig": "WebSocketException",
    "TooManyFragments": "WebSocketException",
    "InvalidState": "WebSocketException",
    "ConcurrencyError": "WebSocketException",
}


@pytest.mark.parametrize(("name", "base"), TREE.items())
def test_tree(name: str, base: str) -> None:
    assert getattr(exceptions, name).__bases__[0] is getattr(exceptions, base)
    assert name in exceptions.__all__


def test_all_are_documented_and_listed() -> None:
    for name, value in vars(exceptions).items():
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert value.__doc__
            assert name in exceptions.__all__
            assert issubclass(value, WebSocketException)


def test_second_bases() -> None:
    # So that a caller's mistake is what Python calls it.
    assert issubclass(UnsafeHeader, ValueError)
    assert issubclass(InvalidClose, ValueError)
    assert issubclass(ConcurrencyError, RuntimeError)
    assert issubclass(InvalidState, AssertionError)
    assert issubclass(InternalError, AssertionError)
    assert issubclass(InvalidText, ProtocolError)
    assert not issubclass(InvalidHandshake, ValueError)


class TestConnectionClosed:
    def test_attributes(self) -> None:
        exc = ConnectionClosed(AWAY, NORMAL, True)
        assert (exc.rcvd, exc.sent, exc.rcvd_then_sent) == (AWAY, NORMAL, True)
        assert (exc.code, exc.reason) == (1001, "bye")

    def test_without_a_frame(self) -> None:
        exc = ConnectionClosed(None, NORMAL)
        assert exc.rcvd_then_sent is None
        assert (exc.code, exc.reason) == (1006, "")

    @pytest.mark.parametrize(
        "args", [(AWAY, NORMAL), (AWAY, None, True), (None, None, False)]
    )
    def test_order_goes_with_both_frames(self, args: Any) -> None:
        with pytest.raises(ValueError, match="rcvd_then_sent must be given exactly"):
            ConnectionClosed(*args)


class TestPayloadTooBig:
    def test_attributes(self) -> None:
        exc = PayloadTooBig(4, 3)
        assert (exc.size, exc.max_size, exc.current_size) == (4, 3, None)
        exc.set_current_size(10)
        assert (exc.size, exc.max_size, exc.current_size) == (4, 13, 10)

    def test_none_changes_nothing(self) -> None:
        exc = PayloadTooBig(None, 3)
        exc.set_current_size(None)
        assert (exc.size, exc.max_size, exc.current_size) == (None, 3, None)

    def test_is_set_once(self) -> None:
        exc = PayloadTooBig(4, 3, 10)
        with pytest.raises(InternalError):
            exc.set_current_size(10)


class TestCodes:
    def test_defaults(self) -> None:
        assert ProtocolError("a").code == 1002
        assert InvalidText("a").code == 1007
        assert PayloadTooBig(2, 1).code == 1009
        assert TooManyFragments(1).code == 1009

    def test_can_be_set(self) -> None:
        exc = ProtocolError("a", code=1003)
        assert exc.code == 1003
        assert exc.args == ("a",)
        assert ProtocolError("a").code == 1002


class TestPeerText:
    """What a peer sent is shown shortened and in one line."""

    def test_is_escaped(self) -> None:
        text = str(InvalidHeaderValue("Origin", "a\r\nb\x00\x1b[31m"))
        assert text.isprintable()
        assert "a\\r\\nb\\x00" in text

    def test_is_shortened(self) -> None:
        for exc in (
            InvalidHeaderValue("Origin", "a" * 9000),
            InvalidHeaderFormat("Origin", "wrong", "a" * 9000, 8999),
            InvalidMethod("a" * 9000),
            InvalidParameterValue("b", "a" * 9000),
        ):
            assert len(str(exc)) < 250


FACTS = {
    "rsv": 0x50,
    "opcode": 0xB,
    "size": 200,
    "max_size": 100,
    "current_size": 20,
    "max_fragments": 7,
    "position": 5,
    "close_code": 1005,
    "reason": "it broke",
    "limit": 10,
}

FAILURES = {
    Failure.RSV: (
        ProtocolError,
        1002,
        "reserved bits are set: 0x50, no extension defines them (RFC 6455, 5.2)",
    ),
    Failure.OPCODE: (ProtocolError, 1002, "unknown opcode: 0xb (RFC 6455, 5.2)"),
    Failure.CONTROL_FRAGMENTED: (
        ProtocolError,
        1002,
        "fragmented control frame (RFC 6455, 5.5)",
    ),
    Failure.CONTROL_TOO_LONG: (
        ProtocolError,
        1002,
        "control frame is too long: 200 bytes, limit 125 (RFC 6455, 5.5)",
    ),
    Failure.NOT_MASKED: (
        ProtocolError,
        1002,
        "unmasked frame from client (RFC 6455, 5.1)",
    ),
    Failure.MASKED: (ProtocolError, 1002, "masked frame from server (RFC 6455, 5.1)"),
    Failure.LENGTH: (
        ProtocolError,
        1002,
        "payload length has its top bit set (RFC 6455, 5.2)",
    ),
    Failure.EXPECTED_CONTINUATION: (
        ProtocolError,
        1002,
        "expected a continuation frame, got opcode 0xb (RFC 6455, 5.4)",
    ),
    Failure.UNEXPECTED_CONTINUATION: (
        ProtocolError,
        1002,
        "unexpected continuation frame (RFC 6455, 5.4)",
    ),
    Failure.TOO_BIG: (
        PayloadTooBig,
        1009,
        "message is too big: 220 bytes, limit 120",
    ),
    Failure.TOO_MANY_FRAGMENTS: (
        TooManyFragments,
        1009,
        "too many fragments: limit 7 in a message",
    ),
    Failure.UTF8: (
        InvalidText,
        1007,
        "invalid UTF-8 at byte 5 of the message (RFC 6455, 8.1)",
    ),
    Failure.UTF8_TRUNCATED: (
        InvalidText,
        1007,
        "truncated UTF-8 at the end of the message, after 200 bytes (RFC 6455, 8.1)",
    ),
    Failure.CLOSE_TOO_SHORT: (
        ProtocolError,
        1002,
        "close frame with a payload of 1 byte (RFC 6455, 5.5.1)",
    ),
    Failure.CLOSE_CODE: (
        ProtocolError,
        1002,
        "invalid close code: 1005 (RFC 6455, 7.4)",
    ),
    Failure.CLOSE_REASON: (
        InvalidText,
        1007,
        "invalid UTF-8 in close reason (RFC 6455, 5.5.1)",
    ),
    Failure.DEFLATE: (
        ProtocolError,
        1002,
        "decompression failed: it broke (RFC 7692, 7.2)",
    ),
    Failure.CONTROL_RATE: (
        TooManyControlFrames,
        1008,
        "too many pings and pongs: more than 10 in a second, limit 10",
    ),
}


class TestFail:
    @pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
    def test_builds(self, code: Failure) -> None:
        kind, close_code, text = FAILURES[code]
        for number in (code, int(code)):
            exc = fail(number, **FACTS)
            assert type(exc) is kind
            assert str(exc) == text
            assert getattr(exc, "code", None) == close_code

    def test_knows_all(self) -> None:
        assert set(FAILURES) | {Failure.OK} == set(Failure)

    @pytest.mark.parametrize("code", [Failure.OK, -1, 99])
    def test_anything_else_is_our_mistake(self, code: int) -> None:
        assert isinstance(fail(code), InternalError)

    def test_length_that_is_not_known_yet(self) -> None:
        assert str(fail(Failure.CONTROL_TOO_LONG, size=None)) == (
            "control frame is too long: more than 125 bytes, limit 125 (RFC 6455, 5.5)"
        )

    def test_texts_fit_in_a_close_frame(self) -> None:
        # The reason that goes with the code; 123 bytes are allowed.
        for code in FAILURES:
            assert len(str(fail(code, **FACTS)).encode()) <= 123

    def test_texts_are_in_the_style_of_the_house(self) -> None:
        for code in FAILURES:
            text = str(fail(code, **FACTS))
            assert text[0].islower()
            assert not text.endswith(".")
