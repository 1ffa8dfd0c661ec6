"""What is parsed costs time that is linear in its length, however it is made.

Each input is as long as a limit allows. A parser that looks at all of it again for each
character needs seconds; one that does not needs less than a hundredth of what is
allowed here. It is the time of this thread that counts, and not that of others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import request

from websock.constants import MAX_LINE_LENGTH
from websock.datastructures import Headers
from websock.events.cookies import parse_cookies
from websock.events.router import WebSocketRouter, compile_glob
from websock.exceptions import InvalidHandshake, InvalidURI
from websock.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websock.handshake import check_host, negotiate_extensions
from websock.headers import (
    parse_authorization_basic,
    parse_connection,
    parse_extension,
    parse_subprotocol,
    parse_upgrade,
)
from websock.http11 import HeadReader, Request, ResponseReader, parse_request
from websock.uri import parse_uri

SECONDS = 0.25
N = MAX_LINE_LENGTH


def spent(function: Callable[..., Any], *args: Any) -> float:
    """Return the processor time that a call takes, whatever it raises."""
    begin = time.thread_time()
    try:
        function(*args)
    except (InvalidHandshake, InvalidURI):
        pass
    return time.thread_time() - begin


VALUES = [
    "a" + " " * N + "b",
    "," * N + "@",
    " ," * (N // 2) + "@",
    "a," * (N // 2),
    "a;" * (N // 2),
    'a; b="' + "\\" * N,
    'a; b="' + '\\"' * (N // 2),
    "a; b=" + '"' * N,
    "a; b=c" * (N // 6) + "\xe9",
    "a" * N + "\xe9",
    "a" + "\t " * (N // 2),
    "a/" * (N // 2),
    "permessage-deflate" + "; client_max_window_bits" * (N // 24),
    "permessage-deflate," * (N // 19),
    "Basic " + "a" * N + "@",
    "Basic " + "=" * N,
]


@pytest.mark.parametrize(
    "parse",
    [
        parse_authorization_basic,
        parse_connection,
        parse_extension,
        parse_subprotocol,
        parse_upgrade,
    ],
)
def test_values(parse: Any) -> None:
    for value in VALUES:
        assert spent(parse, value) < SECONDS, value[:20]


def test_offers() -> None:
    """All that a request can offer, most of it refused."""
    factories = [ServerPerMessageDeflateFactory()]
    for value in VALUES[-4:-2]:
        headers = Headers([("Sec-WebSocket-Extensions", value)] * 8)
        assert spent(negotiate_extensions, headers, factories) < SECONDS


def test_heads() -> None:
    for lines in (
        ["X: " + " " * 8000] * 8,
        ["X:" + "\t " * 4000] * 8,
        ["a" * 8000] * 8,
        ["X : a"] * 128,
        ["X: \x01" + "a" * 8000] * 8,
        ["X: a\r" + "a" * 8000] * 8,
    ):
        head = request(*lines)
        assert spent(parse_request, head) < SECONDS


@pytest.mark.parametrize("response", [False, True])
def test_head_in_single_bytes(response: bool) -> None:
    """A head that grows is not looked at from its beginning each time."""
    first = b"HTTP/1.1 403 No\r\n" if response else b"GET / HTTP/1.1\r\n"
    data = first + (b"X: " + b"a" * 600 + b"\r\n") * 100
    reader = HeadReader(response=response)

    def feed() -> None:
        for number in range(len(data)):
            assert reader.feed(data[number : number + 1]) is None

    # A call for each byte; 65536 times 65536 would be a hundred times as much.
    assert spent(feed) < 4 * SECONDS


def test_body_in_small_chunks() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"1\r\na\r\n" * 10_000

    def feed() -> None:
        assert reader.feed(chunks) is None

    assert spent(feed) < 4 * SECONDS


def test_paths_of_the_event_router() -> None:
    """Several stars in a path, and a path that nearly fits in many ways."""
    router = WebSocketRouter()
    router.mount("/a/*/b/*/c/*/d", "*", print)
    mount = router._mounts[0]
    for path in (
        "/a/" + "/b/" * 1300 + "/c/" * 1300,
        "/a/" + "/b/c/d" * 1300 + "/",
        "/a/" + "/" * 8000,
    ):
        assert spent(mount.path.fullmatch, path) < SECONDS
    many = compile_glob("*".join("abcdefgh"))
    assert spent(many.fullmatch, "abcdefg" * 1000) < SECONDS


@pytest.mark.parametrize(
    "glob", ["", "*", "**", "/a", "/a*", "*a", "/*/b", "/*b*b", "*.*"]
)
def test_globs_match_the_same_as_the_plain_expression(glob: str) -> None:
    plain = re.compile(".*".join(map(re.escape, glob.split("*"))), re.DOTALL)
    found = 0
    for path in (
        "",
        "/",
        "/a",
        "/ab",
        "/a/b",
        "/b/b",
        "/bb",
        "/b",
        "a",
        "a\nb",
        "/a/.b",
    ):
        assert bool(compile_glob(glob).fullmatch(path)) is bool(plain.fullmatch(path))
        found += bool(plain.fullmatch(path))
    assert found


def test_cookies_and_uris() -> None:
    for value in ("a=b;" * 2000, ";" * 8000, "=" * 8000, '"' * 8000, " " * 8000):
        assert spent(parse_cookies, Headers([("Cookie", value)] * 8)) < SECONDS
    for host in ("a." * 4000, "xn--" * 2000, "[" * 8000, "@" * 8000, ":" * 8000):
        assert spent(parse_uri, f"ws://{host}/") < SECONDS
        asked = Request(f"http://{host}/", Headers(Host="a"))
        assert spent(check_host, asked, ["localhost"]) < SECONDS
