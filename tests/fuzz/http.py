"""HTTP heads, headers, addresses and cookies: nothing but the documented errors,
whatever way the bytes come, and what was parsed comes back when it is built again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websock.datastructures import Headers
from websock.events.cookies import parse_cookies
from websock.events.errors import DOMSyntaxError
from websock.events.url import parse_url
from websock.exceptions import InvalidHandshake, InvalidHeader, InvalidURI
from websock.headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    parse_authorization_basic,
    parse_connection,
    parse_extension,
    parse_extension_cached,
    parse_subprotocol,
    parse_upgrade,
)
from websock.http11 import (
    HeadReader,
    Request,
    ResponseReader,
    parse_request,
    parse_response,
)
from websock.uri import parse_uri

from .inputs import Input, cuts

__all__ = ["head", "header_values", "response", "uri", "url"]

Outcome = tuple[Any, bytes, str]


def head(data: bytes) -> None:
    """Input: kind and limits, size of pieces; a head and what comes after."""
    source = Input(data)
    flags, size = source.byte(), source.byte()
    kind = bool(flags & 1)
    limits = {} if flags & 2 else {"max_line": 60, "max_headers": 4, "max_size": 200}
    raw = source.rest()

    parse: Callable[[bytes], Any] = parse_response if kind else parse_request

    def read(pieces: list[bytes]) -> Outcome:
        # A bad first line is found by the reader or by the parser: who meets it first.
        reader = HeadReader(response=kind, **limits)
        for number, piece in enumerate(pieces):
            try:
                found = reader.feed(piece)
                parsed = None if found is None else parse(found)
            except InvalidHandshake as exc:
                return None, b"", f"{type(exc).__name__}: {exc}"
            if parsed is not None:
                rest = b"".join(pieces[number + 1 :])
                return parsed, bytes(reader.leftover) + rest, ""
        return None, b"", ""

    outcomes = [read(pieces) for pieces in cuts(raw, size)]
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes
    parsed, leftover, _ = outcomes[0]
    if parsed is None:
        return
    assert raw.endswith(b"\r\n\r\n" + leftover)
    again = parse(parsed.serialize())
    assert again == parsed
    assert list(again.headers.raw_items()) == list(parsed.headers.raw_items())
    for name, value in parsed.headers.raw_items():
        assert value == value.strip(" \t")
        assert value in parsed.headers.get_all(name)
        assert not set(name + value) & set("\r\n\0")


def response(data: bytes) -> None:
    """Input: whose, size of pieces; a response with a body, and its end."""
    source = Input(data)
    flags, size = source.byte(), source.byte()
    raw = source.rest()

    def read(pieces: list[bytes]) -> Any:
        reader = ResponseReader(proxy=bool(flags & 1), max_body=100)
        try:
            for number, piece in enumerate(pieces):
                found = reader.feed(piece)
                if found is not None:
                    rest = b"".join(pieces[number + 1 :])
                    return found, found.status_code == 101 and reader.leftover + rest
            found = reader.feed_eof()
        except InvalidHandshake as exc:
            return type(exc).__name__, str(exc)
        assert found is None or len(found.body) <= 100
        return found, b""

    outcomes = [read(pieces) for pieces in cuts(raw, size)]
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes


def outcome(parse: Callable[[str], Any], text: str) -> Any:
    """Return what parsing gives, or the text of a documented error."""
    try:
        return parse(text)
    except (InvalidHeader, InvalidURI) as exc:
        return str(exc)


def header_values(data: bytes) -> None:
    """Input: a value of every header with a grammar."""
    text = data.decode("latin-1")
    for parse in (parse_connection, parse_upgrade):
        try:
            parse(text)
        except InvalidHeader:
            pass
    try:
        subprotocols = parse_subprotocol(text)
    except InvalidHeader:
        pass
    else:
        if len(set(subprotocols)) == len(subprotocols):
            assert parse_subprotocol(build_subprotocol(subprotocols)) == subprotocols
    extensions = outcome(parse_extension, text)
    cached = outcome(parse_extension_cached, text)
    if isinstance(extensions, str):
        assert extensions == cached
    else:
        assert extensions == [(name, list(params)) for name, params in cached]
        assert parse_extension(build_extension(extensions)) == extensions
    credentials = outcome(parse_authorization_basic, text)
    if isinstance(credentials, str):
        # What may be a password is not shown.
        secret = text[6:].strip()
        shown = (
            text[:6].lower() == "basic " and len(secret) > 9 and secret in credentials
        )
        assert not shown, credentials
    else:
        again = parse_authorization_basic(build_authorization_basic(*credentials))
        assert again == credentials
    headers = Headers()
    headers.set_insecure("Cookie", text)
    for name, value in parse_cookies(headers).items():
        assert name
        assert name in text
        assert value in text


def uri(data: bytes) -> None:
    """Input: the URI that a program connects to; a request can be made for it."""
    text = data.decode("utf-8", "surrogateescape" if data[:1] == b"w" else "replace")
    try:
        parsed = parse_uri(text)
    except InvalidURI:
        return
    assert 1 <= parsed.port <= 65535
    host = build_host(parsed.host, parsed.port, parsed.secure)
    request = Request(parsed.resource_name, Headers(Host=host))
    assert parse_request(request.serialize()).path == parsed.resource_name
    if parsed.user_info is not None and "\udc80" not in str(parsed.user_info):
        build_authorization_basic(*parsed.user_info)


def url(data: bytes) -> None:
    """Input: the URL of a browser's WebSocket; normalising it again changes nothing."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = parse_url(text)
    except DOMSyntaxError:
        return
    assert parse_url(parsed.href) == parsed
    assert parsed.href.isascii()
    # URLs know more hosts than URIs, and a port 0; which ones a program is told.
    why = outcome(parse_uri, parsed.uri)
    assert (
        not isinstance(why, str) or "host" in why or "username" in why or "port" in why
    ), why
