"""The opening handshake of the sans-IO client and server."""

from __future__ import annotations

import importlib
import itertools
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import websock.client
import websock.server
from websock.client import ClientProtocol, backoff, process_exception
from websock.datastructures import Headers
from websock.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    InvalidVersion,
    NegotiationError,
    ProtocolError,
    RequestLineTooLong,
    SecurityError,
    TooManyHeaders,
)
from websock.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websock.frames import Frame, Opcode
from websock.http11 import Request, Response
from websock.protocol import MAX_EARLY_DATA, SEND_EOF, Protocol, State
from websock.server import ServerProtocol, http_date
from websock.uri import parse_uri

# The example of RFC 6455, 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

HEADERS = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(
    line: str = "GET /chat?room=1 HTTP/1.1", *more: str, **changes: str | None
) -> bytes:
    """Build a request; ``changes`` replace headers, or remove them."""
    headers: dict[str, str | None] = dict(HEADERS)
    for name, value in changes.items():
        headers[name.replace("_", "-")] = value
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([line, *lines, *more, "", ""]).encode("latin-1")


def response(
    status: str = "101 Switching Protocols", *more: str, **changes: str | None
) -> bytes:
    """Build a response to a client whose key is that of the example."""
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
    }
    for name, value in changes.items():
        headers[name.replace("_", "-")] = value
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, *more, "", ""]).encode()


def client(uri: str = "ws://example.com/chat", **kwargs: Any) -> ClientProtocol:
    protocol = ClientProtocol(parse_uri(uri), **kwargs)
    protocol.key = KEY
    return protocol


def text_frame(data: bytes, *, masked: bool) -> bytes:
    if masked:
        return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data
    return bytes([0x81, len(data)]) + data


def take_apart(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers in lower case, and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1.1 ")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines)
    return int(first.split()[1]), {k.lower(): v for k, v in headers.items()}, body


def is_in(protocol: Protocol, state: State) -> bool:
    # A function, because type checkers believe that the state cannot change.
    return protocol.state is state


def refusal(protocol: Protocol) -> tuple[int, dict[str, str], str]:
    """Check that the connection was refused, and return how."""
    data, eof = protocol.data_to_send()
    assert eof == SEND_EOF
    assert protocol.eof_sent
    assert is_in(protocol, State.CONNECTING)
    assert protocol.close_expected()
    assert protocol.handshake_exc is not None
    # Nothing is read as frames after a refusal.
    protocol.receive_data(text_frame(b"too late", masked=True))
    protocol.receive_data(request())
    assert protocol.events_received() == []
    assert protocol.data_to_send() == []
    protocol.receive_eof()
    assert is_in(protocol, State.CLOSED)
    assert protocol.parser_exc is None
    status, headers, body = take_apart(data)
    assert headers["connection"] == "close"
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert int(headers["content-length"]) == len(body)
    assert headers["date"].endswith(" GMT")
    return status, headers, body.decode()


def serve(data: bytes, **kwargs: Any) -> ServerProtocol:
    """Receive a request and answer it."""
    protocol = ServerProtocol(**kwargs)
    protocol.receive_data(data)
    for event in protocol.events_received():
        assert isinstance(event, Request)
        protocol.send_response(protocol.accept(event))
    return protocol


class TestServer:
    def test_example(self) -> None:
        protocol = ServerProtocol()
        assert is_in(protocol, State.CONNECTING)
        protocol.receive_data(request())
        assert protocol.data_to_send() == []
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        assert event.path == "/chat?room=1"
        assert event.headers["host"] == "example.com"
        answer = protocol.accept(event)
        assert answer.status_code == 101
        assert is_in(protocol, State.CONNECTING)
        protocol.send_response(answer)
        assert is_in(protocol, State.OPEN)
        assert protocol.handshake_exc is None
        [data] = protocol.data_to_send()
        status, headers, body = take_apart(data)
        assert status == 101
        assert headers.pop("date").endswith(" GMT")
        assert headers == {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": ACCEPT,
        }
        assert body == b""

        protocol.receive_data(text_frame(b"hello", masked=True))
        assert protocol.events_received() == [Frame(Opcode.TEXT, b"hello")]

    def test_byte_by_byte(self) -> None:
        protocol = ServerProtocol()
        data = request()
        for i in range(len(data)):
            assert protocol.events_received() == []
            protocol.receive_data(data[i : i + 1])
        assert len(protocol.events_received()) == 1

    @given(st.integers(0, 400))
    def test_every_split(self, at: int) -> None:
        data = request()
        protocol = ServerProtocol()
        protocol.receive_data(data[:at])
        protocol.receive_data(data[at:])
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        assert protocol.accept(event).status_code == 101

    def test_response_can_be_changed(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(request())
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        answer = protocol.accept(event)
        answer.headers["Server"] = "mine"
        protocol.send_response(answer)
        assert b"\r\nServer: mine\r\n" in protocol.data_to_send()[0]

    def test_reject(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(request())
        answer = protocol.reject(404, "nothing here: €\n")
        assert answer.reason_phrase == "Not Found"
        protocol.handshake_exc = InvalidHandshake("for refusal()")
        protocol.events_received()
        protocol.send_response(answer)
        status, _, body = refusal(protocol)
        assert (status, body) == (404, "nothing here: €\n")

    def test_second_response(self) -> None:
        for status in (101, 404):
            protocol = serve(request())
            with pytest.raises(InvalidState, match="connection is open"):
                protocol.send_response(Response(status, "", Headers()))
        protocol = serve(request(Upgrade=None))
        with pytest.raises(InvalidState, match="it was refused"):
            protocol.send_response(protocol.reject(404, ""))
        protocol.receive_eof()
        with pytest.raises(InvalidState, match="connection is closed"):
            protocol.send_response(protocol.reject(404, ""))

    def test_response_that_cannot_be_sent(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(request())
        with pytest.raises(ValueError, match="reason phrase"):
            protocol.send_response(Response(200, "OK\r\nX-Bad: 1", Headers()))
        assert is_in(protocol, State.CONNECTING)
        assert protocol.data_to_send() == []

    def test_early_timeout(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(b"GET / HT")
        protocol.handshake_exc = TimeoutError()
        protocol.send_response(protocol.reject(408, "too slow\n"))
        assert refusal(protocol)[0] == 408

    def test_open_from_the_start(self) -> None:
        # As servers do that speak HTTP themselves.
        protocol = ServerProtocol(state=State.OPEN)
        answer = protocol.accept(Request("/", Headers(HEADERS)))
        assert answer.status_code == 101
        protocol.receive_data(text_frame(b"hello", masked=True))
        assert protocol.events_received() == [Frame(Opcode.TEXT, b"hello")]


class TestBadRequests:
    @pytest.mark.parametrize(
        ("data", "kind", "status", "text"),
        [
            (request("POST / HTTP/1.1"), InvalidMethod, 405, "expected GET"),
            (request("GET / HTTP/1.0"), InvalidProtocol, 400, "expected HTTP/1.1"),
            (request(Upgrade=None), InvalidUpgrade, 426, "missing Upgrade"),
            (request(Upgrade="h2c"), InvalidUpgrade, 426, "invalid Upgrade"),
            (request(Connection=None), InvalidUpgrade, 426, "missing Connection"),
            (request(Connection="close"), InvalidUpgrade, 426, "invalid Connection"),
            (
                request(Sec_WebSocket_Version=None),
                InvalidVersion,
                426,
                "missing Sec-WebSocket-Version",
            ),
            (
                request(Sec_WebSocket_Version="8"),
                InvalidVersion,
                426,
                "expected 13",
            ),
            (request(Sec_WebSocket_Key=None), InvalidHeader, 400, "missing Sec-"),
            (request(Sec_WebSocket_Key="short"), InvalidHeader, 400, "invalid Sec-"),
            (
                request("GET / HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"),
                InvalidHeader,
                400,
                "Sec-WebSocket-Key",
            ),
            (
                request("GET / HTTP/1.1", "Sec-WebSocket-Version: 13"),
                InvalidHeader,
                400,
                "Sec-WebSocket-Version",
            ),
            (request(Host=None), InvalidHeader, 400, "missing Host"),
            (request("GET / HTTP/1.1", "Host: b"), InvalidHeader, 400, "Host"),
            (request("GET / HTTP/1.1", "Content-Length: 5"), InvalidMessage, 400, ""),
            (
                request("GET / HTTP/1.1", "Transfer-Encoding: chunked"),
                InvalidMessage,
                400,
                "",
            ),
            (request("GET / HTTP/1.1", " folded"), InvalidMessage, 400, "folded"),
            (request("GET / HTTP/1.1", "Evil\0: x"), InvalidMessage, 400, "NUL"),
            (request("GET / HTTP/1.1", "Evil : x"), InvalidMessage, 400, ""),
            (request("GET / HTTP/1.1", "evil"), InvalidMessage, 400, "colon"),
            (request("GET / HTTP/1.1", "X: evil\rX"), InvalidMessage, 400, "CR"),
            (request().replace(b"\r\n", b"\n"), InvalidMessage, 400, "LF"),
            (request("GET  / HTTP/1.1"), InvalidMessage, 400, ""),
            (request("GET /evil"), InvalidMessage, 400, ""),
            (b"\x16\x03\x01evil", InvalidMessage, 400, ""),
            (request("GET /" + "e" * 8192 + " HTTP/1.1"), RequestLineTooLong, 414, ""),
            (b"GET /" + b"e" * 8192, RequestLineTooLong, 414, "8192"),
            (
                request("GET / HTTP/1.1", "X: " + "evil" * 2048),
                HeaderLineTooLong,
                431,
                "8192",
            ),
            (
                request("GET / HTTP/1.1", *[f"X: {'e' * 8000}"] * 9),
                HeaderLineTooLong,
                431,
                "65536",
            ),
            (request("GET / HTTP/1.1", *["X: y"] * 129), TooManyHeaders, 431, "128"),
            (
                request("GET / HTTP/1.1", "Sec-WebSocket-Protocol: evil,,;"),
                InvalidHeader,
                400,
                "Sec-WebSocket-Protocol",
            ),
        ],
    )
    @pytest.mark.parametrize("how", ["whole", "bytes"])
    def test_answers(
        self,
        data: bytes,
        kind: type[Exception],
        status: int,
        text: str,
        how: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        protocol = ServerProtocol()
        pieces = [data] if how == "whole" else [bytes([byte]) for byte in data]
        for piece in pieces:
            protocol.receive_data(piece)
        for event in protocol.events_received():
            assert isinstance(event, Request)
            protocol.send_response(protocol.accept(event))
        assert isinstance(protocol.handshake_exc, kind)
        actual, headers, body = refusal(protocol)
        assert actual == status
        assert text in body
        assert body.startswith("Failed to open a WebSocket connection: ")
        assert len(body) < 300
        assert "evil" not in body
        assert headers.get("allow") == ("GET" if status == 405 else None)
        if status == 426:
            assert headers["sec-websocket-version"] == "13"
            assert headers["upgrade"] == "websocket"
        # What a peer does wrong is not an error of the program.
        assert all(record.levelno <= logging.INFO for record in caplog.records)

    def test_refused_data_is_not_kept(self) -> None:
        protocol = ServerProtocol()
        assert protocol.feed_handshake(request("GET /")) == b""
        assert protocol.feed_handshake(b"more") == b""

    def test_nothing_at_all(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_eof()
        assert protocol.data_to_send() == [SEND_EOF]
        assert is_in(protocol, State.CLOSED)
        assert isinstance(protocol.handshake_exc, InvalidMessage)
        assert isinstance(protocol.handshake_exc.__cause__, EOFError)
        assert protocol.events_received() == []

    def test_half_a_request(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(request()[:-2])
        protocol.receive_eof()
        assert isinstance(protocol.handshake_exc, InvalidMessage)
        assert isinstance(protocol.handshake_exc.__cause__, EOFError)
        assert protocol.data_to_send() == [SEND_EOF]

    def test_eof_before_the_answer(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(request())
        protocol.receive_eof()
        assert is_in(protocol, State.CLOSED)
        assert isinstance(protocol.handshake_exc, InvalidMessage)
        assert isinstance(protocol.parser_exc, EOFError)
        assert isinstance(protocol.close_exc.__cause__, EOFError)

    @given(st.binary(max_size=200))
    def test_rubbish(self, data: bytes) -> None:
        protocol = serve(data)
        protocol.receive_eof()
        assert is_in(protocol, State.CLOSED)
        assert protocol.data_to_send()[-1] == SEND_EOF

    @given(st.integers(0, 300), st.integers(0, 255))
    def test_one_wrong_byte(self, at: int, byte: int) -> None:
        data = bytearray(request())
        data[at % len(data)] = byte
        protocol = serve(bytes(data))
        protocol.receive_eof()
        assert is_in(protocol, State.CLOSED)


class TestEarlyFrames:
    """Frames in the same segment as the request, or before the answer."""

    def test_kept(self) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(request() + text_frame(b"one", masked=True))
        protocol.receive_data(text_frame(b"two", masked=True)[:5])
        protocol.receive_data(text_frame(b"two", masked=True)[5:])
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        assert protocol.data_to_send() == []
        protocol.send_response(protocol.accept(event))
        assert protocol.events_received() == [
            Frame(Opcode.TEXT, b"one"),
            Frame(Opcode.TEXT, b"two"),
        ]

    def test_answers_come_after_the_response(self) -> None:
        protocol = serve(request() + b"\x89\x80\0\0\0\0" + b"\x88\x80\0\0\0\0")
        first, *rest = protocol.data_to_send()
        assert first.startswith(b"HTTP/1.1 101 ")
        assert rest == [b"\x8a\x00", b"\x88\x00", SEND_EOF]
        assert is_in(protocol, State.CLOSING)

    def test_compressed(self) -> None:
        offer = request(
            "GET / HTTP/1.1", "Sec-WebSocket-Extensions: permessage-deflate"
        )
        # "Hello", compressed: RFC 7692, 7.2.3.1.
        frame = bytes.fromhex("c187 00000000 f248cdc9c90700")
        protocol = serve(offer + frame, extensions=[ServerPerMessageDeflateFactory()])
        assert protocol.events_received() == [Frame(Opcode.TEXT, b"Hello")]

    def test_dropped_with_a_refusal(self) -> None:
        protocol = serve(request(Upgrade=None) + text_frame(b"no", masked=True))
        refusal(protocol)

    def test_bounded(self) -> None:
        protocol = ServerProtocol()
        frame = text_frame(b"x" * 100, masked=True)
        flood = frame * (MAX_EARLY_DATA // len(frame) + 10)
        protocol.receive_data(request() + flood)
        for _ in range(10):
            protocol.receive_data(flood)
        assert protocol._held is not None
        assert len(protocol._held) == MAX_EARLY_DATA + 1
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        protocol.send_response(protocol.accept(event))
        assert len(protocol.events_received()) == MAX_EARLY_DATA // len(frame)
        assert isinstance(protocol.parser_exc, ProtocolError)
        assert str(MAX_EARLY_DATA) in str(protocol.parser_exc)
        _, close, eof = protocol.data_to_send()
        assert close[:4] == b"\x88%c\x03\xea" % (len(close) - 2)
        assert eof == SEND_EOF

    def test_exactly_the_limit(self) -> None:
        protocol = ServerProtocol()
        payload = bytes(MAX_EARLY_DATA - 8)
        frame = b"\x82\xfe" + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload
        assert len(frame) == MAX_EARLY_DATA
        protocol.receive_data(request() + frame)
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        protocol.send_response(protocol.accept(event))
        assert protocol.parser_exc is None
        assert len(protocol.events_received()) == 1


class TestNegotiation:
    @pytest.mark.parametrize(
        ("origins", "origin", "is_allowed"),
        [
            (None, "https://anything", True),
            (None, None, True),
            (["https://a"], "https://a", True),
            (["https://a"], "https://b", False),
            (["https://a"], None, False),
            ([None], None, True),
            ([re.compile(r"https://[a-z]+")], "https://abc", True),
            ([re.compile(r"https://[a-z]+")], "https://abc.evil", False),
            ([], "https://a", False),
        ],
    )
    def test_origin(self, origins: Any, origin: str | None, is_allowed: bool) -> None:
        protocol = serve(request(Origin=origin), origins=origins)
        if is_allowed:
            assert is_in(protocol, State.OPEN)
            assert protocol.origin == origin
        else:
            assert isinstance(protocol.handshake_exc, InvalidOrigin)
            status, _, body = refusal(protocol)
            assert status == 403
            assert "Origin" in body or "origin" in body
            assert "https" not in body

    def test_two_origins(self) -> None:
        data = request("GET / HTTP/1.1", "Origin: a", "Origin: b")
        assert refusal(serve(data))[0] == 400

    @pytest.mark.parametrize(
        ("ours", "offered", "chosen"),
        [
            (None, None, None),
            (None, "chat", None),
            ([], "chat", None),
            (["chat"], "chat", "chat"),
            (["superchat", "chat"], "chat, superchat", "superchat"),
        ],
    )
    def test_subprotocol(self, ours: Any, offered: Any, chosen: Any) -> None:
        protocol = serve(request(Sec_WebSocket_Protocol=offered), subprotocols=ours)
        assert is_in(protocol, State.OPEN)
        assert protocol.subprotocol == chosen
        headers = take_apart(protocol.data_to_send()[0])[1]
        assert headers.get("sec-websocket-protocol") == chosen

    @pytest.mark.parametrize("offered", [None, "evil"])
    def test_no_common_subprotocol(self, offered: str | None) -> None:
        protocol = serve(request(Sec_WebSocket_Protocol=offered), subprotocols=["chat"])
        assert isinstance(protocol.handshake_exc, NegotiationError)
        status, _, body = refusal(protocol)
        assert status == 400
        assert "chat" in body
        assert "evil" not in body

    def test_select_subprotocol(self) -> None:
        seen: list[Any] = []

        def select(protocol: ServerProtocol, subprotocols: Any) -> Any:
            seen.append((protocol, subprotocols))
            return subprotocols[-1]

        protocol = serve(
            request(Sec_WebSocket_Protocol="a, b"), select_subprotocol=select
        )
        assert protocol.subprotocol == "b"
        assert seen == [(protocol, ["a", "b"])]
        assert protocol.select_subprotocol(["c"]) == "c"  # type: ignore[list-item]

    def test_select_subprotocol_by_override(self) -> None:
        class Mine(ServerProtocol):
            def select_subprotocol(self, subprotocols: Any) -> Any:
                return "mine"

        protocol = Mine()
        protocol.receive_data(request())
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        assert protocol.accept(event).headers["Sec-WebSocket-Protocol"] == "mine"

    def test_select_subprotocol_refuses(self) -> None:
        def select(protocol: ServerProtocol, subprotocols: Any) -> Any:
            raise NegotiationError("a subprotocol is needed")

        protocol = serve(request(), select_subprotocol=select)
        status, _, body = refusal(protocol)
        assert status == 400
        assert "a subprotocol is needed" in body

    @pytest.mark.parametrize("mistake", ["raise", "header"])
    def test_select_subprotocol_breaks(
        self, mistake: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def select(protocol: ServerProtocol, subprotocols: Any) -> Any:
            if mistake == "raise":
                raise KeyError("secret")
            return "chat\r\nSet-Cookie: evil"

        protocol = serve(request(), select_subprotocol=select)
        status, _, body = refusal(protocol)
        assert status == 500
        assert "secret" not in body
        assert "opening handshake failed" in caplog.text

    def test_extension(self) -> None:
        data = request(
            "GET / HTTP/1.1",
            "Sec-WebSocket-Extensions: x-unknown, permessage-deflate;"
            " server_max_window_bits=10",
        )
        protocol = serve(data, extensions=[ServerPerMessageDeflateFactory()])
        [extension] = protocol.extensions
        assert isinstance(extension, PerMessageDeflate)
        headers = take_apart(protocol.data_to_send()[0])[1]
        assert headers["sec-websocket-extensions"].startswith("permessage-deflate")

    def test_extension_declined(self) -> None:
        data = request("GET / HTTP/1.1", "Sec-WebSocket-Extensions: permessage-deflate")
        protocol = serve(data)
        assert is_in(protocol, State.OPEN)
        assert protocol.extensions == []
        assert b"xtensions" not in protocol.data_to_send()[0]

    def test_overrides(self) -> None:
        class Mine(ServerProtocol):
            def process_origin(self, headers: Headers) -> Any:
                return "origin"

            def process_extensions(self, headers: Headers) -> Any:
                return "x-mine", []

            def process_subprotocol(self, headers: Headers) -> Any:
                return "sub"

        protocol = Mine()
        accept, extensions, subprotocol = protocol.process_request(
            Request("/", Headers(HEADERS))
        )
        assert (accept, extensions, subprotocol) == (ACCEPT, "x-mine", "sub")
        assert protocol.origin == "origin"


class TestClient:
    def test_example(self) -> None:
        protocol = client("ws://example.com/chat?room=1")
        assert is_in(protocol, State.CONNECTING)
        wish = protocol.connect()
        protocol.send_request(wish)
        [data] = protocol.data_to_send()
        assert data == request().replace(b"\r\n\r\n", b"\r\n\r\n")
        protocol.receive_data(response())
        [event] = protocol.events_received()
        assert isinstance(event, Response)
        assert event.status_code == 101
        assert is_in(protocol, State.OPEN)
        assert protocol.handshake_exc is None
        protocol.receive_data(text_frame(b"hello", masked=False))
        assert protocol.events_received() == [Frame(Opcode.TEXT, b"hello")]

    def test_keys_differ(self) -> None:
        uri = parse_uri("ws://example.com/")
        keys = {ClientProtocol(uri).key for _ in range(50)}
        assert len(keys) == 50
        assert all(re.fullmatch(r"[A-Za-z0-9+/]{22}==", key) for key in keys)

    @pytest.mark.parametrize(
        ("uri", "host"),
        [
            ("ws://example.com/", "example.com"),
            ("ws://example.com:80/", "example.com"),
            ("ws://example.com:8080/", "example.com:8080"),
            ("wss://example.com:443/", "example.com"),
            ("wss://example.com:80/", "example.com:80"),
            ("ws://[::1]:8080/", "[::1]:8080"),
        ],
    )
    def test_host(self, uri: str, host: str) -> None:
        assert client(uri).connect().headers["Host"] == host

    def test_all_headers(self) -> None:
        protocol = client(
            "wss://me:pass@example.com/",
            origin="https://example.com",
            extensions=[ClientPerMessageDeflateFactory()],
            subprotocols=["chat", "superchat"],
        )
        headers = protocol.connect().headers
        assert headers["Authorization"] == "Basic bWU6cGFzcw=="
        assert headers["Origin"] == "https://example.com"
        assert headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        assert headers["Sec-WebSocket-Protocol"] == "chat, superchat"

    def test_request_can_be_changed(self) -> None:
        protocol = client()
        wish = protocol.connect()
        wish.headers["X-Mine"] = "1"
        with pytest.raises(ValueError, match="X-Evil"):
            wish.headers["X-Evil"] = "1\r\nX: 2"
        protocol.send_request(wish)
        assert b"\r\nX-Mine: 1\r\n" in protocol.data_to_send()[0]

    @pytest.mark.parametrize("origin", ["https://a\r\nX: evil", "https://a\0"])
    def test_origin_that_cannot_be_sent(self, origin: str) -> None:
        with pytest.raises(ValueError, match="Origin"):
            client(origin=origin).connect()

    def test_frames_with_the_response(self) -> None:
        protocol = client()
        protocol.receive_data(response() + text_frame(b"hi", masked=False) + b"\x89\0")
        assert len(protocol.events_received()) == 3
        assert len(protocol.data_to_send()) == 1

    @given(st.integers(0, 200))
    def test_every_split(self, at: int) -> None:
        data = response() + text_frame(b"hi", masked=False)
        protocol = client()
        protocol.receive_data(data[:at])
        protocol.receive_data(data[at:])
        kinds = [type(event) for event in protocol.events_received()]
        assert kinds == [Response, Frame]

    def test_subprotocol_and_extension(self) -> None:
        protocol = client(
            subprotocols=["chat"], extensions=[ClientPerMessageDeflateFactory()]
        )
        protocol.receive_data(
            response(
                "101 OK",
                "Sec-WebSocket-Protocol: chat",
                "Sec-WebSocket-Extensions: permessage-deflate",
            )
        )
        assert is_in(protocol, State.OPEN)
        assert protocol.subprotocol == "chat"
        assert [type(x) for x in protocol.extensions] == [PerMessageDeflate]

    def test_open_from_the_start(self) -> None:
        protocol = client(state=State.OPEN)
        protocol.receive_data(text_frame(b"hi", masked=False))
        assert len(protocol.events_received()) == 1


class TestBadResponses:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (response("200 OK", "Content-Length: 0"), InvalidStatus),
            (response(Upgrade=None), InvalidUpgrade),
            (response(Upgrade="h2c"), InvalidUpgrade),
            (response(Connection=None), InvalidUpgrade),
            (response(Connection="close"), InvalidUpgrade),
            (response(Sec_WebSocket_Accept=None), InvalidHeader),
            (response(Sec_WebSocket_Accept=ACCEPT.lower()), InvalidHeader),
            (
                response("101 OK", f"Sec-WebSocket-Accept: {ACCEPT}"),
                InvalidHeader,
            ),
            (response("101 OK", "Sec-WebSocket-Protocol: chat"), NegotiationError),
            (response("101 OK", "Sec-WebSocket-Extensions: x"), NegotiationError),
        ],
    )
    def test_refused(self, data: bytes, kind: type[Exception]) -> None:
        protocol = client()
        protocol.receive_data(data + text_frame(b"late", masked=False))
        protocol.receive_data(text_frame(b"later", masked=False))
        assert isinstance(protocol.handshake_exc, kind)
        [event] = protocol.events_received()
        assert isinstance(event, Response)
        assert protocol.data_to_send() == [SEND_EOF]
        assert is_in(protocol, State.CONNECTING)
        assert protocol.close_expected()
        protocol.receive_eof()
        assert is_in(protocol, State.CLOSED)
        assert protocol.data_to_send() == []
        assert protocol.parser_exc is None

    @pytest.mark.parametrize(
        "data",
        [
            b"rubbish\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/2.0 101 OK\r\n\r\n",
            response("101 OK", " folded"),
            response().replace(b"\r\n", b"\n"),
        ],
    )
    def test_not_a_response(self, data: bytes) -> None:
        protocol = client()
        protocol.receive_data(data)
        exc = protocol.handshake_exc
        assert isinstance(exc, InvalidMessage)
        assert str(exc) == "did not receive a valid HTTP response"
        assert exc.__cause__ is not None
        assert protocol.events_received() == []
        assert protocol.data_to_send() == [SEND_EOF]
        assert process_exception(exc) is exc

    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 101 " + b"x" * 9000,
            response("101 OK", *["X: y"] * 129),
            response("403 No", "Content-Length: 1048577"),
        ],
    )
    def test_over_a_limit(self, data: bytes) -> None:
        protocol = client()
        protocol.receive_data(data)
        assert isinstance(protocol.handshake_exc, SecurityError)
        assert protocol.data_to_send() == [SEND_EOF]

    def test_body(self) -> None:
        protocol = client()
        protocol.receive_data(response("403 Forbidden", "Content-Length: 5") + b"sor")
        assert protocol.events_received() == []
        assert is_in(protocol, State.CONNECTING)
        protocol.receive_data(b"ry")
        exc = protocol.handshake_exc
        assert isinstance(exc, InvalidStatus)
        assert exc.response.body == b"sorry"
        assert protocol.events_received() == [exc.response]

    def test_body_up_to_the_end(self) -> None:
        protocol = client()
        protocol.receive_data(response("502 Bad Gateway") + b"sorry")
        assert protocol.events_received() == []
        protocol.receive_eof()
        exc = protocol.handshake_exc
        assert isinstance(exc, InvalidStatus)
        assert exc.response.body == b"sorry"
        assert protocol.events_received() == [exc.response]
        assert is_in(protocol, State.CLOSED)
        assert protocol.data_to_send() == [SEND_EOF]
        assert process_exception(exc) is None

    @pytest.mark.parametrize("data", [b"", b"HTTP/1.1 1", response()[:-1]])
    def test_eof(self, data: bytes) -> None:
        protocol = client()
        protocol.receive_data(data)
        protocol.receive_eof()
        assert is_in(protocol, State.CLOSED)
        assert protocol.events_received() == []
        assert protocol.data_to_send() == [SEND_EOF]
        exc = protocol.handshake_exc
        assert isinstance(exc, InvalidMessage)
        assert isinstance(exc.__cause__, EOFError)
        assert process_exception(exc) is None

    @given(st.binary(max_size=200))
    def test_rubbish(self, data: bytes) -> None:
        protocol = client()
        protocol.receive_data(data)
        protocol.receive_eof()
        assert is_in(protocol, State.CLOSED)
        assert protocol.handshake_exc is not None

    def test_overrides(self) -> None:
        class Mine(ClientProtocol):
            def process_extensions(self, headers: Headers) -> Any:
                return []

            def process_subprotocol(self, headers: Headers) -> Any:
                return headers["Sec-WebSocket-Protocol"]

        protocol = Mine(parse_uri("ws://example.com/"))
        protocol.key = KEY
        protocol.receive_data(response("101 OK", "Sec-WebSocket-Protocol: any"))
        assert protocol.subprotocol == "any"


class TestFeedHandshake:
    """What streams that parse frames themselves use."""

    def test_server(self) -> None:
        protocol = ServerProtocol()
        data = request()
        assert protocol.feed_handshake(data[:10]) is None
        assert protocol.feed_handshake(data[10:] + b"frames") == b"frames"
        assert protocol.feed_handshake(b"more") == b"more"
        [event] = protocol.events_received()
        assert isinstance(event, Request)
        protocol.send_response(protocol.accept(event))
        assert is_in(protocol, State.OPEN)
        assert protocol.feed_handshake(b"and more") == b"and more"

    def test_server_refuses(self) -> None:
        protocol = ServerProtocol()
        assert protocol.feed_handshake(request("GET /") + b"frames") == b""
        assert protocol.handshake_exc is not None

    def test_client(self) -> None:
        protocol = client()
        data = response()
        assert protocol.feed_handshake(data[:10]) is None
        assert protocol.feed_handshake(data[10:] + b"frames") == b"frames"
        assert is_in(protocol, State.OPEN)
        assert len(protocol.events_received()) == 1

    def test_client_is_refused(self) -> None:
        protocol = client()
        assert protocol.feed_handshake(response(Upgrade=None) + b"frames") == b""
        assert protocol.handshake_exc is not None
        assert protocol.data_to_send() == [SEND_EOF]

    def test_memoryview(self) -> None:
        protocol = ServerProtocol()
        rest = protocol.feed_handshake(memoryview(request() + b"frames"))
        assert rest == b"frames"
        assert type(rest) is bytes

    def test_whole_conversation(self) -> None:
        ours = client(extensions=[ClientPerMessageDeflateFactory()])
        theirs = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])
        ours.send_request(ours.connect())
        assert theirs.feed_handshake(b"".join(ours.data_to_send())) == b""
        [event] = theirs.events_received()
        assert isinstance(event, Request)
        theirs.send_response(theirs.accept(event))
        assert ours.feed_handshake(b"".join(theirs.data_to_send())) == b""
        assert ours.extensions
        assert theirs.extensions

        text = "x" * 1000
        data = ours.make_writer().message(text)
        assert len(data) < 100
        assert theirs.make_reader().feed(data) == [(1, text, None)]
        theirs.close_received(b"\x03\xe8")
        frame, eof = theirs.data_to_send()
        assert eof == SEND_EOF
        [(opcode, payload, _)] = ours.make_reader().feed(frame)
        assert (opcode, payload) == (8, b"\x03\xe8")
        ours.send_close(1000)
        ours.close_received(b"\x03\xe8")
        for protocol in (ours, theirs):
            protocol.receive_eof()
            assert is_in(protocol, State.CLOSED)
            assert protocol.close_code == 1000


@pytest.mark.interop
class TestWithWebsockets:
    """Our client with their server, and their client with ours."""

    @pytest.mark.parametrize("ours", ["client", "server"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_conversation(self, ours: str, compressed: bool) -> None:
        pytest.importorskip("websockets")
        names = ["websock", "websockets"]
        if ours == "server":
            names.reverse()
        packages: list[Any] = [
            {
                name: importlib.import_module(f"{package}.{name}")
                for name in ("client", "server", "uri")
            }
            | {
                "deflate": importlib.import_module(
                    f"{package}.extensions.permessage_deflate"
                )
            }
            for package in names
        ]
        offers, accepts = None, None
        if compressed:
            offers = [packages[0]["deflate"].ClientPerMessageDeflateFactory()]
            accepts = [packages[1]["deflate"].ServerPerMessageDeflateFactory()]
        first = packages[0]["client"].ClientProtocol(
            packages[0]["uri"].parse_uri("ws://example.com/chat"),
            extensions=offers,
            subprotocols=["chat"],
        )
        second = packages[1]["server"].ServerProtocol(
            extensions=accepts, subprotocols=["chat"]
        )

        def carry() -> None:
            for source, target in ((first, second), (second, first)) * 2:
                for data in source.data_to_send():
                    if data:
                        target.receive_data(data)
                    else:
                        target.receive_eof()

        first.send_request(first.connect())
        carry()
        [wish] = second.events_received()
        second.send_response(second.accept(wish))
        carry()
        [answer] = first.events_received()
        assert answer.status_code == 101
        assert first.subprotocol == second.subprotocol == "chat"
        assert bool(first.extensions) is bool(second.extensions) is compressed

        for sender, receiver in ((first, second), (second, first)):
            sender.send_text("€".encode() * 500)
            sender.send_binary(b"", fin=False)
            sender.send_continuation(bytes(1000), fin=False)
            sender.send_ping(b"?")
            sender.send_continuation(b"end", fin=True)
            carry()
            frames = receiver.events_received()
            assert [
                (frame.opcode, bytes(frame.data), frame.fin) for frame in frames
            ] == [
                (1, "€".encode() * 500, True),
                (2, b"", False),
                (0, bytes(1000), False),
                (9, b"?", True),
                (0, b"end", True),
            ]
            [pong] = sender.events_received()
            assert (pong.opcode, pong.data) == (10, b"?")

        first.send_close(1000, "bye")
        carry()
        carry()
        for protocol in (first, second):
            assert protocol.state.name == "CLOSED"
            assert type(protocol.close_exc).__name__ == "ConnectionClosedOK"
            assert protocol.close_reason == "bye"


class TestLogs:
    def test_server(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        protocol = serve(request())
        protocol.receive_eof()
        assert caplog.messages == ["connection open", "connection closed"]

    def test_server_refuses(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        serve(request("POST / HTTP/1.1"))
        serve(b"rubbish\r\n\r\n")
        protocol = ServerProtocol()
        protocol.receive_data(request())
        protocol.send_response(protocol.reject(200, "OK\n"))
        assert caplog.messages == [
            "connection rejected (405 Method Not Allowed)",
            "connection rejected (400 Bad Request)",
            "HTTP response sent (200 OK)",
        ]

    def test_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        ours, theirs = client(), ServerProtocol()
        ours.send_request(ours.connect())
        theirs.receive_data(ours.data_to_send()[0])
        [event] = theirs.events_received()
        assert isinstance(event, Request)
        theirs.send_response(theirs.accept(event))
        ours.receive_data(theirs.data_to_send()[0])
        assert "> GET /chat HTTP/1.1" in caplog.messages
        assert "< GET /chat HTTP/1.1" in caplog.messages
        assert "> HTTP/1.1 101 Switching Protocols" in caplog.messages
        assert "< HTTP/1.1 101 Switching Protocols" in caplog.messages
        assert "< Upgrade: websocket" in caplog.messages

    def test_debug_of_refusals(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        serve(request(Upgrade=None))
        assert "! missing Upgrade header" in caplog.messages
        protocol = serve(b"rubbish\r\n\r\n")
        assert any(message.startswith("! ") for message in caplog.messages)
        ours = client()
        ours.receive_data(protocol.data_to_send()[0])
        assert any(message.startswith("< [body] (") for message in caplog.messages)


class TestBackoff:
    def test_delays(self) -> None:
        first, *delays = itertools.islice(backoff(), 12)
        assert 0 <= first <= 5
        assert delays[0] == 3.1
        assert delays == sorted(delays)
        assert delays[-1] == 90

    def test_parameters(self) -> None:
        delays = list(itertools.islice(backoff(0, 1, 5, 2), 6))
        assert delays == [0, 1, 2, 4, 5, 5]

    def test_first_delay_varies(self) -> None:
        assert len({next(backoff()) for _ in range(20)}) > 1


class TestProcessException:
    @pytest.mark.parametrize("exc", [OSError(), TimeoutError(), ConnectionError()])
    def test_network(self, exc: Exception) -> None:
        assert process_exception(exc) is None

    @pytest.mark.parametrize("status", [101, 400, 403, 500, 501, 502, 503, 504, 505])
    def test_status(self, status: int) -> None:
        exc = InvalidStatus(Response(status, "", Headers()))
        retry = status in (500, 502, 503, 504)
        assert process_exception(exc) is (None if retry else exc)

    def test_others(self) -> None:
        for exc in (ValueError(), InvalidMessage("rubbish"), NegotiationError()):
            assert process_exception(exc) is exc


def test_http_date() -> None:
    import email.utils
    import time

    text = http_date()
    when = email.utils.parsedate_to_datetime(text)
    assert email.utils.format_datetime(when, usegmt=True) == text
    assert abs(when.timestamp() - time.time()) < 3
    assert http_date() is text or http_date() != text


class TestNames:
    def test_classes(self) -> None:
        import websock.protocol

        assert websock.protocol.ClientProtocol is ClientProtocol
        assert websock.protocol.ServerProtocol is ServerProtocol

    # Its parser is a generator over a stream reader, which is not for users.
    MISSING = {"current_size", "discard", "parse", "parser", "reader", "recv_frame"}

    def test_client(self) -> None:
        theirs = pytest.importorskip("websockets.client")
        uri = parse_uri("ws://example.com/")
        missing = set(dir(theirs.ClientProtocol(uri))) - set(dir(client()))
        assert {name for name in missing if name[0] != "_"} == self.MISSING
        assert set(theirs.__all__) <= set(websock.client.__all__)

    def test_server(self) -> None:
        theirs = pytest.importorskip("websockets.server")
        missing = set(dir(theirs.ServerProtocol())) - set(dir(ServerProtocol()))
        assert {name for name in missing if name[0] != "_"} == self.MISSING
        assert set(theirs.__all__) <= set(websock.server.__all__)

    @pytest.mark.parametrize("name", ["ClientProtocol", "ServerProtocol"])
    def test_signatures(self, name: str) -> None:
        import inspect

        module = pytest.importorskip(f"websockets.{name[:6].lower()}")
        theirs = getattr(module, name)
        ours = getattr(websock.protocol, name)
        for member, function in inspect.getmembers(theirs, inspect.isfunction):
            if member in self.MISSING or (member[0] == "_" and member != "__init__"):
                continue
            expected = inspect.signature(function).parameters
            actual = inspect.signature(getattr(ours, member)).parameters
            names = [name for name in actual if name != "max_fragments"]  # ours only
            assert names == list(expected), member
            for parameter in expected:
                assert actual[parameter].default == expected[parameter].default
                assert actual[parameter].kind == expected[parameter].kind
