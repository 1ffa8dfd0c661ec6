"""URIs: what they are made of, and what is wrong with the others."""

from __future__ import annotations

from typing import Any

import pytest

from websock.events.url import parse_url
from websock.exceptions import InvalidURI, WebSocketException
from websock.uri import WebSocketURI, parse_uri

GOOD: dict[str, WebSocketURI] = {
    "ws://localhost": WebSocketURI(False, "localhost", 80, "", ""),
    "ws://localhost/": WebSocketURI(False, "localhost", 80, "/", ""),
    "ws://localhost:/": WebSocketURI(False, "localhost", 80, "/", ""),
    "wss://localhost/": WebSocketURI(True, "localhost", 443, "/", ""),
    "ws://localhost:8765/a?b=c": WebSocketURI(False, "localhost", 8765, "/a", "b=c"),
    "wss://localhost:00443": WebSocketURI(True, "localhost", 443, "", ""),
    "ws://localhost:65535": WebSocketURI(False, "localhost", 65535, "", ""),
    "WSS://LocalHost/Path": WebSocketURI(True, "localhost", 443, "/Path", ""),
    "ws://localhost?a": WebSocketURI(False, "localhost", 80, "", "a"),
    "ws://localhost?a/b?c": WebSocketURI(False, "localhost", 80, "", "a/b?c"),
    "ws://localhost/?": WebSocketURI(False, "localhost", 80, "/", ""),
    "ws://localhost/a;b/c;d": WebSocketURI(False, "localhost", 80, "/a;b/c;d", ""),
    "ws://localhost//a": WebSocketURI(False, "localhost", 80, "//a", ""),
    "ws://localhost/a:b@c": WebSocketURI(False, "localhost", 80, "/a:b@c", ""),
    "ws://localhost/%20%C3%A9": WebSocketURI(False, "localhost", 80, "/%20%C3%A9", ""),
    "ws://127.0.0.1:1": WebSocketURI(False, "127.0.0.1", 1, "", ""),
    "ws://[::1]:8765/a": WebSocketURI(False, "::1", 8765, "/a", ""),
    "ws://[FE80::1]": WebSocketURI(False, "fe80::1", 80, "", ""),
    "ws://[fe80::1%25eth0]/": WebSocketURI(False, "fe80::1%eth0", 80, "/", ""),
    "ws://[::ffff:127.0.0.1]/": WebSocketURI(False, "::ffff:127.0.0.1", 80, "/", ""),
    "ws://my_host-1.example.": WebSocketURI(False, "my_host-1.example.", 80, "", ""),
    "ws://a:b@localhost": WebSocketURI(False, "localhost", 80, "", "", "a", "b"),
    "ws://a:b:c@localhost": WebSocketURI(False, "localhost", 80, "", "", "a", "b:c"),
    "ws://:@localhost": WebSocketURI(False, "localhost", 80, "", "", "", ""),
    "ws://a%40:%C3%A9@localhost": WebSocketURI(
        False, "localhost", 80, "", "", "a@", "é"
    ),
    "ws://a@b:c@localhost": WebSocketURI(False, "localhost", 80, "", "", "a@b", "c"),
    # IRIs.
    "wss://müller.example/": WebSocketURI(True, "xn--mller-kva.example", 443, "/", ""),
    "ws://localhost/π?é=ж": WebSocketURI(
        False, "localhost", 80, "/%CF%80", "%C3%A9=%D0%B6"
    ),
    "ws://localhost/%20é": WebSocketURI(False, "localhost", 80, "/%20%C3%A9", ""),
    "ws://é:ж@localhost": WebSocketURI(False, "localhost", 80, "", "", "é", "ж"),
    "ws://日本語.example": WebSocketURI(False, "xn--wgv71a119e.example", 80, "", ""),
}

BAD: dict[str, str] = {
    "": "scheme is missing",
    "localhost": "scheme is missing",
    "//localhost": "scheme is missing",
    "localhost:8765": "scheme is localhost, expected ws or wss",
    "http://localhost": "scheme is http, expected ws or wss",
    "https://localhost": "scheme is https, expected ws or wss",
    "wsss://localhost": "scheme is wsss, expected ws or wss",
    "ws:localhost": "hostname isn't provided",
    "ws:/localhost": "hostname isn't provided",
    "ws://": "hostname isn't provided",
    "ws:///path": "hostname isn't provided",
    "ws://:80": "hostname isn't provided",
    "ws://a:b@": "hostname isn't provided",
    "ws://?a": "hostname isn't provided",
    "ws://localhost#": "fragment isn't allowed",
    "ws://localhost/a#b": "fragment isn't allowed",
    "ws://localhost:x": "port isn't a number",
    "ws://localhost:8O": "port isn't a number",
    "ws://localhost:-1": "port isn't a number",
    "ws://localhost:+1": "port isn't a number",
    "ws://localhost:1_0": "port isn't a number",
    "ws://localhost:٣": "port isn't a number",
    "ws://localhost:²": "port isn't a number",
    "ws://localhost:80:90": "port isn't a number",
    "ws://::1": "hostname isn't provided",
    "ws://localhost:0": "port is out of range, expected 1 to 65535",
    "ws://localhost:65536": "port is out of range, expected 1 to 65535",
    "ws://localhost:" + "9" * 9000: "port is out of range",
    "ws://a@localhost": "username is provided without password",
    "ws://@localhost": "username is provided without password",
    "ws://a%3Ab:c@localhost": "username contains a colon",
    "ws://%FF:b@localhost": "username or password isn't valid UTF-8",
    "ws://a:%C3@localhost": "username or password isn't valid UTF-8",
    " ws://localhost": "space at 0",
    "ws://localhost ": "space at 14",
    "ws://local host": "space at 10",
    "ws://localhost/a b": "space at 16",
    "ws://localhost/\r\nX: y": "control character at 15",
    "ws://localhost/\n": "control character at 15",
    "ws://local\thost/": "control character at 10",
    "ws://localhost/\x00": "control character at 15",
    "ws://localhost/\x7f": "control character at 15",
    "ws://localhost/\x85": "control character at 15",
    "ws://[::1": "host isn't a valid IPv6 address",
    "ws://::1]": "hostname isn't provided",
    "ws://[]": "host isn't a valid IPv6 address",
    "ws://[localhost]": "host isn't a valid IPv6 address",
    "ws://[127.0.0.1]": "host isn't a valid IPv6 address",
    "ws://[::1]x": "host isn't a valid IPv6 address",
    "ws://[::1]x:80": "host isn't a valid IPv6 address",
    "ws://[fe80::1%eth0]": "host isn't a valid IPv6 address",
    "ws://a<b": "host contains a character that isn't allowed",
    "ws://a%41": "host contains a character that isn't allowed",
    "ws://a\\b": "host contains a character that isn't allowed",
    'ws://a"b': "host contains a character that isn't allowed",
    "ws://é..example": "host isn't a valid domain name",
    "ws://" + "é" * 70: "host isn't a valid domain name",
    "ws://localhost/\ud800": "path or query contains a surrogate",
}


@pytest.mark.parametrize("uri", GOOD)
def test_good(uri: str) -> None:
    assert parse_uri(uri) == GOOD[uri]


@pytest.mark.parametrize("uri", BAD, ids=lambda uri: ascii(uri[:40]))
def test_bad(uri: str) -> None:
    with pytest.raises(InvalidURI) as info:
        parse_uri(uri)
    assert BAD[uri] in info.value.msg
    assert info.value.uri == uri
    assert str(info.value).isprintable()
    assert isinstance(info.value, WebSocketException)


@pytest.mark.parametrize("uri", [b"ws://localhost", None, 3, object()])
def test_types(uri: Any) -> None:
    with pytest.raises(TypeError, match="uri must be str, not "):
        parse_uri(uri)


@pytest.mark.parametrize(
    ("uri", "resource_name"),
    [
        ("ws://localhost", "/"),
        ("ws://localhost/", "/"),
        ("ws://localhost/a/b", "/a/b"),
        ("ws://localhost?a", "/?a"),
        ("ws://localhost/a?b=c&d", "/a?b=c&d"),
    ],
)
def test_resource_name(uri: str, resource_name: str) -> None:
    assert parse_uri(uri).resource_name == resource_name


def test_user_info() -> None:
    assert parse_uri("ws://localhost").user_info is None
    assert parse_uri("ws://a:b@localhost").user_info == ("a", "b")


def test_every_good_resource_name_is_sendable() -> None:
    for uri in GOOD:
        assert parse_uri(uri).resource_name.isascii()
        assert parse_uri(uri).resource_name.isprintable()
        assert " " not in parse_uri(uri).resource_name


def test_zeros_before_the_port() -> None:
    """More of them than int() takes."""
    uri = f"ws://localhost:{'0' * 5000}80/"
    assert parse_uri(uri).port == 80
    assert parse_url(uri).origin == "ws://localhost"
    with pytest.raises(InvalidURI, match="port is out of range"):
        parse_uri(f"ws://localhost:{'0' * 5000}")
