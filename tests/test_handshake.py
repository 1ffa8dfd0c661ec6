"""The opening handshake: the checks of both sides, and the answers to failures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers import BROWSER_REQUEST, request, response

from websock import exceptions, handshake
from websock.datastructures import Headers
from websock.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    InvalidVersion,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
    TooManyHeaders,
    UnsafeHeader,
)
from websock.extensions.base import (
    ClientExtensionFactory,
    Extension,
    ServerExtensionFactory,
)
from websock.handshake import (
    accept_extensions,
    accept_key,
    accept_subprotocol,
    check_origin,
    check_request,
    check_response,
    generate_key,
    get_origin,
    get_subprotocols,
    negotiate_extensions,
    rejection,
    select_subprotocol,
)
from websock.http11 import Request, Response, parse_request, parse_response

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def check(*lines: str) -> str:
    return check_request(parse_request(request(*lines)))


def refused(*lines: str) -> tuple[Exception, int]:
    """Return what a request is refused with, and the status of the answer."""
    with pytest.raises(InvalidHandshake) as info:
        check(*lines)
    return info.value, rejection(info.value)[0]


class TestKeys:
    def test_example_of_the_rfc(self) -> None:
        assert accept_key(KEY) == ACCEPT

    def test_keys_are_random(self) -> None:
        keys = {generate_key() for _ in range(100)}
        assert len(keys) == 100
        for key in keys:
            assert re.fullmatch(r"[A-Za-z0-9+/]{22}==", key)
            assert check(f"Sec-WebSocket-Key: {key}") == key


class TestRequest:
    """RFC 6455, 4.2.1."""

    def test_good(self) -> None:
        assert check() == KEY
        assert check_request(parse_request(BROWSER_REQUEST)) == KEY

    @pytest.mark.parametrize(
        "line",
        [
            "Connection: upgrade",
            "Connection: keep-alive, Upgrade",
            "Connection: UPGRADE,close",
            "Connection: , Upgrade,",
            "Connection: foo\r\nConnection: Upgrade",
            "Upgrade: WebSocket",
            "Upgrade: ,websocket",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Key: //////////////////////==",
            "Sec-WebSocket-Key:   dGhlIHNhbXBsZSBub25jZQ==  ",
            "Host: a",
            "Host: example.com:",
            "Host: 127.0.0.1:80",
            "Host: [::1]",
            "Host: [::1]:65535",
            "Host: my_host.example",
            "Content-Length: 0",
        ],
    )
    def test_also_good(self, line: str) -> None:
        check(line)

    @pytest.mark.parametrize(
        ("line", "kind", "status"),
        [
            ("-Connection", InvalidUpgrade, 426),
            ("Connection: ", InvalidHeaderFormat, 400),
            ("Connection: close", InvalidUpgrade, 426),
            ("Connection: notupgrade", InvalidUpgrade, 426),
            ("Connection: Upgraded", InvalidUpgrade, 426),
            ("Connection: up grade", InvalidHeaderFormat, 400),
            ("Connection: Upgrade; a", InvalidHeaderFormat, 400),
            ("-Upgrade", InvalidUpgrade, 426),
            ("Upgrade: h2c", InvalidUpgrade, 426),
            ("Upgrade: notwebsocket", InvalidUpgrade, 426),
            ("Upgrade: websocket, h2c", InvalidUpgrade, 426),
            ("Upgrade: websocket\r\nUpgrade: websocket", InvalidUpgrade, 426),
            ("Upgrade: websocket/13", InvalidUpgrade, 426),
            ("Upgrade: websocket;", InvalidHeaderFormat, 400),
            ("-Host", InvalidHeader, 400),
            ("Host: ", InvalidHeader, 400),
            ("Host: a\r\nHost: a", InvalidHeader, 400),
            ("Host: a\r\nHost: b", InvalidHeader, 400),
            ("Host: a b", InvalidHeaderValue, 400),
            ("Host: a/b", InvalidHeaderValue, 400),
            ("Host: a@b", InvalidHeaderValue, 400),
            ("Host: a, b", InvalidHeaderValue, 400),
            ("Host: a:b", InvalidHeaderValue, 400),
            ("Host: a:80:80", InvalidHeaderValue, 400),
            ("Host: :80", InvalidHeaderValue, 400),
            ("Host: [::1", InvalidHeaderValue, 400),
            ("Host: [a", InvalidHeaderValue, 400),
            ("Host: ::1", InvalidHeaderValue, 400),
            ("Host: \xe9", InvalidHeaderValue, 400),
            ("-Sec-WebSocket-Key", InvalidHeader, 400),
            ("Sec-WebSocket-Key: ", InvalidHeader, 400),
            (
                f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Key: {KEY}",
                InvalidHeader,
                400,
            ),
            ("Sec-WebSocket-Key: abc", InvalidHeaderValue, 400),
            ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=", InvalidHeaderValue, 400),
            ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA===", InvalidHeaderValue, 400),
            ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA", InvalidHeaderValue, 400),
            ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAA AA==", InvalidHeaderValue, 400),
            ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA-_==", InvalidHeaderValue, 400),
            ("Sec-WebSocket-Key: \xe9AAAAAAAAAAAAAAAAAAAAA==", InvalidHeaderValue, 400),
            ("-Sec-WebSocket-Version", InvalidVersion, 426),
            ("Sec-WebSocket-Version: ", InvalidVersion, 426),
            ("Sec-WebSocket-Version: 8", InvalidVersion, 426),
            ("Sec-WebSocket-Version: 013", InvalidVersion, 426),
            ("Sec-WebSocket-Version: 13, 8", InvalidVersion, 426),
            (
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13",
                InvalidHeader,
                400,
            ),
        ],
    )
    def test_refused(self, line: str, kind: type, status: int) -> None:
        assert refused(line)[0].__class__ is kind
        assert refused(line)[1] == status

    def test_method(self) -> None:
        with pytest.raises(InvalidMethod) as info:
            check_request(parse_request(request().replace(b"GET", b"HEAD")))
        status, _, headers = rejection(info.value)
        assert status == 405
        assert headers == [("Allow", "GET")]

    def test_http10(self) -> None:
        with pytest.raises(InvalidProtocol) as info:
            check_request(parse_request(request().replace(b"HTTP/1.1", b"HTTP/1.0")))
        assert rejection(info.value)[0] == 400

    @pytest.mark.parametrize(
        "line",
        [
            ("Content-Length", "1"),
            ("Content-Length", "0, 0"),
            ("Transfer-Encoding", "chunked"),
            ("Transfer-Encoding", "identity"),
        ],
    )
    def test_bodies(self, line: tuple[str, str]) -> None:
        # For hosts that parse HTTP themselves; our own parser refuses them before.
        parsed = parse_request(request())
        parsed.headers[line[0]] = line[1]
        with pytest.raises(InvalidMessage, match="expected no body"):
            check_request(parsed)

    def test_request_made_by_hand(self) -> None:
        headers = Headers(
            {
                "host": "localhost",
                "connection": "Upgrade",
                "upgrade": "websocket",
                "sec-websocket-key": KEY,
                "sec-websocket-version": "13",
            }
        )
        assert check_request(Request("/", headers)) == KEY


class TestOrigin:
    """Cross-site WebSocket hijacking."""

    GOOD: Any = [
        "https://example.com",
        re.compile(r"https://[a-z]+\.example\.com"),
        None,
    ]

    def test_get(self) -> None:
        assert get_origin(Headers()) is None
        assert get_origin(Headers(Origin="https://a")) == "https://a"
        with pytest.raises(InvalidHeader, match="multiple values") as info:
            get_origin(Headers([("Origin", "https://a"), ("origin", "https://a")]))
        assert rejection(info.value)[0] == 400

    @pytest.mark.parametrize(
        "origin", ["https://example.com", "https://a.example.com", None]
    )
    def test_allowed(self, origin: Any) -> None:
        check_origin(origin, self.GOOD)

    @pytest.mark.parametrize(
        "origin",
        [
            "http://example.com",
            "https://EXAMPLE.com",
            "https://example.com:8443",
            "https://example.com.evil.com",
            "https://example.com/",
            "https://a.example.com.evil.com",
            "evil https://a.example.com",
            "https://a.example.com\n",
            "https://axexample.com",
            "null",
            "",
        ],
    )
    def test_refused(self, origin: Any) -> None:
        with pytest.raises(InvalidOrigin) as info:
            check_origin(origin, self.GOOD)
        assert rejection(info.value)[0] == 403

    def test_absent(self) -> None:
        with pytest.raises(InvalidOrigin) as info:
            check_origin(None, self.GOOD[:2])
        status, text, _ = rejection(info.value)
        assert status == 403
        assert "missing Origin header" in text

    def test_everything_is_allowed_without_a_list(self) -> None:
        check_origin("https://anywhere", None)  # type: ignore[arg-type]
        check_origin(None, None)

    def test_nothing_is_allowed_by_an_empty_list(self) -> None:
        for origin in ("https://example.com", None):
            with pytest.raises(InvalidOrigin):
                check_origin(origin, [])  # type: ignore[arg-type]


class TestSubprotocol:
    def test_get(self) -> None:
        headers = Headers([("Sec-WebSocket-Protocol", "a, b")])
        headers["sec-websocket-protocol"] = "c"
        assert get_subprotocols(headers) == ["a", "b", "c"]
        assert get_subprotocols(Headers()) == []

    @pytest.mark.parametrize("value", ["a b", "é", "a;b", ""])
    def test_malformed(self, value: str) -> None:
        with pytest.raises(InvalidHeaderFormat) as info:
            get_subprotocols(Headers([("Sec-WebSocket-Protocol", value)]))
        assert rejection(info.value)[0] == 400

    @pytest.mark.parametrize(
        ("offered", "supported", "chosen"),
        [
            ([], None, None),
            ([], [], None),
            (["a"], None, None),
            (["a", "b"], ["b", "a"], "b"),
            (["a", "b"], ["c", "a"], "a"),
        ],
    )
    def test_select(self, offered: Any, supported: Any, chosen: str | None) -> None:
        assert select_subprotocol(offered, supported) == chosen

    @pytest.mark.parametrize(
        ("offered", "text"),
        [
            ([], "missing subprotocol, expected one of a, b"),
            (["c", "A"], "no common subprotocol, expected one of a, b"),
        ],
    )
    def test_none_in_common(self, offered: Any, text: str) -> None:
        supported: Any = ["a", "b"]
        with pytest.raises(NegotiationError) as info:
            select_subprotocol(offered, supported)
        assert str(info.value) == text
        status, body, _ = rejection(info.value)
        assert status == 400
        assert text in body

    def test_accept(self) -> None:
        offered: Any = ["a", "b"]
        assert accept_subprotocol(Headers(), offered) is None
        assert accept_subprotocol(Headers(), None) is None
        headers = Headers([("Sec-WebSocket-Protocol", "b")])
        assert accept_subprotocol(headers, offered) == "b"

    @pytest.mark.parametrize(
        ("values", "offered", "kind"),
        [
            (["a"], None, NegotiationError),
            (["a"], [], NegotiationError),
            (["c"], ["a", "b"], NegotiationError),
            (["A"], ["a", "b"], NegotiationError),
            (["a, b"], ["a", "b"], InvalidHeader),
            (["a", "b"], ["a", "b"], InvalidHeader),
            (["a b"], ["a", "b"], InvalidHeaderFormat),
        ],
    )
    def test_accept_refuses(self, values: list[str], offered: Any, kind: type) -> None:
        headers = Headers([("Sec-WebSocket-Protocol", value) for value in values])
        with pytest.raises(InvalidHandshake) as info:
            accept_subprotocol(headers, offered)
        assert type(info.value) is kind


class Rot(Extension):
    name = "x-rot"  # type: ignore[assignment]

    def __init__(self, by: int) -> None:
        self.by = by


class ServerRot(ServerExtensionFactory):
    """Accepts one number; declines all others."""

    name = "x-rot"  # type: ignore[assignment]

    def __init__(self, by: int) -> None:
        self.by = by

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        if any(other.name == self.name for other in accepted_extensions):
            raise NegotiationError("once is enough")
        if list(params) != [("by", str(self.by))]:
            raise NegotiationError("cannot do that")
        return [("by", str(self.by))], Rot(self.by)


class ClientRot(ClientExtensionFactory):
    name = "x-rot"  # type: ignore[assignment]

    def __init__(self, by: int) -> None:
        self.by = by

    def process_response_params(self, params: Any, accepted_extensions: Any) -> Any:
        if list(params) != [("by", str(self.by))]:
            raise NegotiationError("did not offer that")
        return Rot(self.by)


def offers(*values: str) -> Headers:
    return Headers([("Sec-WebSocket-Extensions", value) for value in values])


class TestExtensions:
    def negotiate(
        self, headers: Headers, *factories: Any
    ) -> tuple[str | None, list[int]]:
        value, extensions = negotiate_extensions(headers, factories or None)
        return value, [extension.by for extension in extensions]  # type: ignore[attr-defined]

    def test_nothing_offered_or_supported(self) -> None:
        assert self.negotiate(Headers(), ServerRot(1)) == (None, [])
        assert self.negotiate(offers("x-rot; by=1")) == (None, [])

    def test_not_looked_at_without_support(self) -> None:
        assert self.negotiate(offers("@@@")) == (None, [])

    def test_accepted(self) -> None:
        assert self.negotiate(offers("x-rot; by=1"), ServerRot(1)) == (
            "x-rot; by=1",
            [1],
        )

    def test_declined(self) -> None:
        assert self.negotiate(offers("x-rot; by=2, other"), ServerRot(1)) == (None, [])

    def test_order_is_that_of_the_client(self) -> None:
        headers = offers("x-rot; by=3, x-rot; by=2", "x-rot; by=1")
        got = self.negotiate(headers, ServerRot(1), ServerRot(2))
        assert got == ("x-rot; by=2", [2])

    def test_malformed(self) -> None:
        with pytest.raises(InvalidHeaderFormat) as info:
            self.negotiate(offers("x-rot; by="), ServerRot(1))
        assert rejection(info.value)[0] == 400

    def test_server_that_builds_nonsense(self) -> None:
        class Bad(ServerRot):
            def process_request_params(self, params: Any, accepted: Any) -> Any:
                return [("by", "1\r\nX: y")], Rot(1)

        with pytest.raises(ValueError, match="not made of tokens") as info:
            self.negotiate(offers("x-rot; by=1"), Bad(1))
        assert rejection(info.value)[0] == 500

    def test_client_accepts(self) -> None:
        factories = [ClientRot(2), ClientRot(1)]
        assert accept_extensions(Headers(), factories) == []
        assert accept_extensions(Headers(), None) == []
        got: Any = accept_extensions(offers("x-rot; by=1", "x-rot; by=2"), factories)
        assert [extension.by for extension in got] == [1, 2]

    @pytest.mark.parametrize(
        ("value", "factories", "text"),
        [
            ("x-rot; by=1", None, "no extensions were offered"),
            ("x-rot; by=1", [], "no extensions were offered"),
            ("x-rot; by=2", [ClientRot(1)], "wasn't offered like this: x-rot; by=2"),
            ("other; a", [ClientRot(1)], "wasn't offered like this: other; a"),
        ],
    )
    def test_client_refuses(self, value: str, factories: Any, text: str) -> None:
        with pytest.raises(NegotiationError, match=text):
            accept_extensions(offers(value), factories)

    def test_client_refuses_malformed(self) -> None:
        with pytest.raises(InvalidHeaderFormat):
            accept_extensions(offers("x-rot;"), [ClientRot(1)])


class TestResponse:
    """RFC 6455, 4.1."""

    def check(self, *lines: str, **kwargs: str) -> None:
        check_response(parse_response(response(*lines, **kwargs)), KEY)

    def test_good(self) -> None:
        self.check()
        self.check("Connection: keep-alive, upgrade", "Upgrade: WebSocket")
        self.check(status="101 Whatever")

    @pytest.mark.parametrize("status", ["200 OK", "301 Moved", "401 No", "426 No"])
    def test_status(self, status: str) -> None:
        with pytest.raises(InvalidStatus) as info:
            self.check(status=status)
        assert info.value.response.status_code == int(status[:3])

    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            ("-Connection", InvalidUpgrade),
            ("Connection: close", InvalidUpgrade),
            ("-Upgrade", InvalidUpgrade),
            ("Upgrade: h2c", InvalidUpgrade),
            ("-Sec-WebSocket-Accept", InvalidHeader),
            (
                f"Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Accept: a",
                InvalidHeader,
            ),
            ("Sec-WebSocket-Accept: ", InvalidHeaderValue),
            ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=", InvalidHeaderValue),
            (f"Sec-WebSocket-Accept: {ACCEPT.lower()}", InvalidHeaderValue),
        ],
    )
    def test_refused(self, line: str, kind: type) -> None:
        with pytest.raises(InvalidHandshake) as info:
            self.check(line)
        assert type(info.value) is kind


SECRET = "peer-said-this"

ANSWERS: list[tuple[BaseException, int, str]] = [
    (InvalidOrigin(SECRET), 403, "origin not allowed"),
    (InvalidOrigin(None), 403, "missing Origin header"),
    (InvalidMethod(SECRET), 405, "unsupported HTTP method, expected GET"),
    (InvalidProtocol(SECRET), 400, "unsupported HTTP version, expected HTTP/1.1"),
    (InvalidUpgrade("Upgrade"), 426, "missing Upgrade header"),
    (InvalidUpgrade("Upgrade", SECRET), 426, "invalid Upgrade header"),
    (InvalidVersion(SECRET), 426, "invalid Sec-WebSocket-Version header, expected 13"),
    (InvalidVersion(), 426, "missing Sec-WebSocket-Version header, expected 13"),
    (InvalidVersion(""), 426, "empty Sec-WebSocket-Version header, expected 13"),
    (InvalidHeader("Host"), 400, "missing Host header"),
    (InvalidHeader("Host", SECRET), 400, "invalid Host header"),
    (InvalidHeaderFormat("Host", "a", SECRET, 3), 400, "invalid Host header"),
    (RequestLineTooLong("too long"), 414, "too long"),
    (HeaderLineTooLong("too long"), 431, "too long"),
    (TooManyHeaders("too many"), 431, "too many"),
    (SecurityError(SECRET), 400, "invalid request"),
    (InvalidMessage("request line 3 is folded"), 400, "request line 3 is folded"),
    (NegotiationError("say why"), 400, "say why"),
    (exceptions.DuplicateParameter(SECRET), 400, "invalid request"),
    (exceptions.InvalidParameterName(SECRET), 400, "invalid request"),
    (InvalidHandshake(SECRET), 400, "invalid request"),
    (TimeoutError(SECRET), 408, "the request didn't arrive in time"),
    (UnsafeHeader("A", SECRET), 500, "See server log"),
    (ValueError(SECRET), 500, "See server log"),
    (ZeroDivisionError(SECRET), 500, "See server log"),
]


class TestRejection:
    @pytest.mark.parametrize(("exc", "status", "text"), ANSWERS, ids=lambda v: repr(v))
    def test_answers(self, exc: BaseException, status: int, text: str) -> None:
        got, body, headers = rejection(exc)
        assert got == status
        assert body.startswith("Failed to open a WebSocket connection")
        assert body.endswith(".\n")
        assert text in body
        assert len(body) < 300
        assert SECRET not in body
        assert SECRET not in str(headers)

    def test_upgrade_required(self) -> None:
        for exc in (InvalidUpgrade("Upgrade"), InvalidVersion("8")):
            _, _, headers = rejection(exc)
            assert headers == [
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
            ]

    def test_people_with_a_browser_are_told(self) -> None:
        assert "use a WebSocket client" in rejection(InvalidUpgrade("Upgrade"))[1]

    def test_nothing_a_peer_does_is_an_internal_error(self) -> None:
        for exc, status, _ in ANSWERS:
            if isinstance(exc, InvalidHandshake) and not isinstance(exc, ValueError):
                assert status != 500


class TestSafety:
    """What a caller passes on cannot split a response."""

    def test_subprotocol_from_a_hook(self) -> None:
        headers = Headers()
        with pytest.raises(ValueError, match="invalid header"):
            headers["Sec-WebSocket-Protocol"] = "chat\r\nSet-Cookie: a=b"

    def test_listed(self) -> None:
        for name in handshake.__all__:
            assert hasattr(handshake, name)

    def test_response_type(self) -> None:
        assert isinstance(parse_response(response()), Response)
