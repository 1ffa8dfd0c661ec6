"""Text of a program, or of its users, that would become a header of its own."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest
from besieged import siege
from helpers import request
from raw import parse_answer

from websock.asyncio.auth import basic_auth
from websock.asyncio.client import connect
from websock.asyncio.server import serve
from websock.datastructures import Headers
from websock.events import Cookie
from websock.events.cookies import set_cookie_values
from websock.exceptions import InvalidURI, UnsafeHeader
from websock.headers import build_www_authenticate_basic
from websock.http11 import Request, Response
from websock.sync.auth import basic_auth as basic_auth_threads
from websock.sync.client import connect as connect_threads
from websock.sync.server import serve as serve_threads

__all__ = ["siege"]

EVIL = ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b", "a\x0bb", "a\x7fb"]
evil = pytest.mark.parametrize("text", EVIL)
both = pytest.mark.parametrize("connecting", [connect, connect_threads])


@evil
@both
def test_clients_refuse_it(connecting: Any, text: str) -> None:
    """At the call, before there is a connection."""
    uri = "ws://127.0.0.1:1/"
    for options in (
        {"subprotocols": [text]},
        {"origin": text},
        {"user_agent_header": text},
        {"additional_headers": {"X-A": text}},
        {"additional_headers": [(text, "a")]},
    ):
        with pytest.raises(ValueError, match="invalid"):
            connecting(uri, proxy=None, **options)
    for uri in (f"ws://{text}/", f"ws://a/{text}", f"ws://a/?{text}"):
        with pytest.raises(InvalidURI):
            connecting(uri, proxy=None)


@evil
def test_messages_refuse_it(text: str) -> None:
    """Whoever makes requests and responses by himself is refused, too."""
    for name, value in (("X-A", text), (text, "a")):
        with pytest.raises(UnsafeHeader):
            Headers({name: value})
        with pytest.raises(UnsafeHeader):
            Headers()[name] = value
    for made in (
        Request(text, Headers()),
        Request("/", Headers(), method=text),
        Request("/", Headers(), protocol=text),
        Response(403, text, Headers()),
    ):
        with pytest.raises(ValueError, match="invalid"):
            made.serialize()
    with pytest.raises(ValueError, match="invalid"):
        build_www_authenticate_basic(text)
    with pytest.raises(ValueError, match="invalid"):
        basic_auth(text, ("a", "b"))
    for cookie in (
        Cookie(text, "a"),
        Cookie("a", text),
        Cookie("a", "a", path=text),
        Cookie("a", "a", domain=text),
        Cookie("a", "a; Domain=evil.example"),
    ):
        with pytest.raises(ValueError, match="cookie"):
            set_cookie_values([cookie])


@evil
@pytest.mark.parametrize("starting", [serve, serve_threads])
def test_servers_refuse_it(starting: Any, text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        starting(print, "127.0.0.1", 0, server_header=text)
    with pytest.raises(ValueError, match="invalid"):
        starting(print, "127.0.0.1", 0, subprotocols=[text])


def test_numbers_are_no_text() -> None:
    """What is meant for a length must not become that much memory."""
    with pytest.raises(TypeError):
        Headers({"X": 1.5})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        Headers({"X": b"a"})  # type: ignore[dict-item]


def test_answers_with_it_are_not_sent(siege: Any) -> None:
    """The client gets 500, and nothing of what a hook wanted to send."""

    def hook(connection: Any, asked: Any) -> Any:
        if "X-Phrase" in asked.headers:
            return Response(403, "a\r\nX-Evil: 1", Headers(), b"")
        if "X-Header" in asked.headers:
            response = connection.respond(403, "no")
            response.headers["X-A"] = "a\r\nX-Evil: 1"
            return response
        return None

    site = siege(process_request=hook, fails=True)
    for line in ("X-Phrase: 1", "X-Header: 1"):
        peer = site.connect()
        with peer.sock:
            peer.sock.sendall(request(line))
            answer = parse_answer(peer.rest())
        assert answer.status == 500
        assert b"Evil" not in answer.body
        assert "X-Evil" not in answer.headers
        site.goes_on()


def test_subprotocol_with_it_is_not_sent() -> None:
    from websock.server import ServerProtocol

    protocol = ServerProtocol(
        select_subprotocol=lambda _, offered: "a\r\nX-Evil: 1"  # type: ignore[arg-type, return-value]
    )
    protocol.receive_data(request("Sec-WebSocket-Protocol: a"))
    (asked,) = protocol.events_received()
    response = protocol.accept(asked)  # type: ignore[arg-type]
    assert response.status_code == 500
    assert "X-Evil" not in str(response.headers)


# -- passwords -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [basic_auth, basic_auth_threads])
def test_passwords_are_compared_in_constant_time(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comparison of bytes for everybody, known or not, and none with ``==``."""
    from websock.asyncio.auth import checker

    compared: list[tuple[Any, Any]] = []

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(
        "websock.asyncio.auth.hmac", type("", (), {"compare_digest": compare})
    )

    class Password(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared with ==")

        __hash__ = str.__hash__

    check = checker([("known", Password("secret"))])
    make("realm", [("known", Password("secret"))])
    assert check("known", Password("secret"))
    assert not check("known", Password("wrong!"))
    assert not check("known", Password(""))
    assert not check("unknown", Password("secret"))
    assert not check("unknown", Password(""))
    assert not check("known", Password("\udcff\u2603"))
    assert len(compared) == 6
    assert all(type(a) is type(b) is bytes for a, b in compared)


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def test_bad_credentials(siege: Any) -> None:
    """Whatever is sent gets 401, with the same answer for unknown users."""

    def hook(connection: Any, asked: Any) -> Any:
        make = basic_auth_threads if hasattr(connection, "close_socket") else basic_auth
        return make("realm", ("user", "secret"))(connection, asked)

    good = f"Authorization: {basic('user:secret')}"
    site = siege(process_request=hook, good_lines=(good,))
    answers = []
    for value in (
        basic("user:wrong"),
        basic("nobody:secret"),
        "Basic",
        "Basic @",
        "Basic dXNlcg==",
        "Basic " + "a" * 8000,
        "Basic /////w==",
        "Bearer evil",
        '"',
        "\xe9",
        "",
    ):
        peer = site.connect()
        with peer.sock:
            peer.sock.sendall(request(f"Authorization: {value}"))
            answer = parse_answer(peer.rest())
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith('Basic realm="realm"')
        answers.append(answer.body)
    assert answers[0] == answers[1]
    peer = site.connect()
    with peer.sock:
        peer.sock.sendall(request(good, good))
        assert parse_answer(peer.rest()).status == 401
    assert {line[:24] for line in site.log.lines()} <= {
        "HTTP response sent (401 U"[:24]
    }


# -- masks and keys ------------------------------------------------------------------


def test_keys_are_never_the_same() -> None:
    from websock.handshake import generate_key

    keys = {generate_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert {len(key) for key in keys} == {24}
