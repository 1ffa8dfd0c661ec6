"""Attacks on the opening handshake, against the servers of every API.

What a refusal is made of (the answer, the end, the log, the others) is checked by
``Site.refuses()``.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import sysconfig
import threading
import time
from typing import Any

import pytest
from besieged import Site, bounded_memory, ending, siege, siege_of_two
from helpers import request
from raw import parse_answer
from scripted import TLS, tls_fixture
from threads import Peer
from wire import MASK, frame

__all__ = ["siege", "siege_of_two"]

tls = tls_fixture()

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
EVIL = "X-Evil: 1"


def line(text: str) -> bytes:
    """A good request with another first line."""
    _, end, rest = request().partition(b"\r\n")
    return text.encode("latin-1") + end + rest


# For each class: bytes, status, part of the answer.
REFUSED: dict[str, dict[str, tuple[bytes, int, str]]] = {
    "too much": {
        "endless request line": (b"GET /" + b"a" * 9000, 414, "more than 8192 bytes"),
        "endless header": (
            request()[:-2] + b"X: " + b"a" * 9000,
            431,
            "more than 8192",
        ),
        "many headers": (request(*["X-A: a"] * 200), 431, "more than 128"),
        "many bytes": (
            request(*[f"X: {'a' * 8000}"] * 9),
            431,
            "more than 65536 bytes",
        ),
        "headers without an end": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 129, 431, ""),
    },
    "ends of lines": {
        "folded header": (request(f"X-A: a\r\n {EVIL}"), 400, "folded"),
        "folded with tab": (request(f"X-A: a\r\n\t{EVIL}"), 400, "folded"),
        "bare lf": (request(f"X-A: a\n{EVIL}"), 400, "LF without CR"),
        "bare lf at the end": (request()[:-2] + b"\n", 400, "LF without CR"),
        "bare cr": (request(f"X-A: a\r{EVIL}"), 400, "CR without LF"),
        "nul in a value": (request("X-A: a\0b"), 400, "NUL"),
        "nul in a name": (request("X\0A: a"), 400, "NUL"),
        "nul in the target": (line("GET /\0 HTTP/1.1"), 400, "NUL"),
        "vertical tab": (request(f"X-A: a\x0b{EVIL}"), 400, "control character"),
        "form feed": (request(f"X-A: a\x0c{EVIL}"), 400, "control character"),
        "file separator": (request(f"X-A: a\x1c{EVIL}"), 400, "control character"),
        "record separator": (request(f"X-A: a\x1e{EVIL}"), 400, "control character"),
        "space before colon": (request("Host : a"), 400, "space before the colon"),
        "no colon": (request("evil"), 400, "no colon"),
        "name not ascii": (request("X\xb2: a"), 400, "not a token"),
    },
    "doubled": {
        "two hosts": (request("-Host", "Host: a", "Host: b"), 400, "Host"),
        "two hosts alike": (request("-Host", "Host: a", "Host: a"), 400, "Host"),
        "two keys": (request("-Sec-WebSocket-Key", KEY, KEY), 400, "Sec-WebSocket-Key"),
        "two versions": (
            request("-Sec-WebSocket-Version", VERSION, VERSION),
            400,
            "Sec-WebSocket-Version",
        ),
        "two upgrades": (
            request("-Upgrade", "Upgrade: websocket", "Upgrade: websocket"),
            426,
            "Upgrade",
        ),
        "no host": (request("-Host"), 400, "missing Host"),
        "host with a path": (request("Host: a/b"), 400, "invalid Host"),
        "host with a user": (request("Host: a@b"), 400, "invalid Host"),
        "host not ascii": (request("Host: \xe9"), 400, "invalid Host"),
    },
    "bodies": {
        "content length": (request("Content-Length: 9"), 400, "Content-Length"),
        "signed length": (request("Content-Length: +0"), 400, "Content-Length"),
        "length in other digits": (
            request("Content-Length: \xb2"),
            400,
            "Content-Length",
        ),
        "two lengths": (request(*["Content-Length: 0"] * 2), 400, "Content-Length"),
        "chunked": (request("Transfer-Encoding: chunked"), 400, "Transfer-Encoding"),
        "both": (
            request("Content-Length: 0", "Transfer-Encoding: chunked"),
            400,
            "Transfer-Encoding",
        ),
    },
    "other protocols": {
        "http/1.0": (line("GET / HTTP/1.0"), 400, "HTTP version"),
        "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP version"),
        "post": (line("POST / HTTP/1.1"), 405, "HTTP method"),
        "connect": (line("CONNECT a:80 HTTP/1.1"), 405, "HTTP method"),
        "tls": (b"\x16\x03\x01\x02\x00\x01\x00", 400, "TLS handshake"),
        "binary": (b"\xff\x00", 400, "not HTTP"),
        "another protocol": (b"EHLO evil\r\n", 400, "three parts"),
        "target without a slash": (line("GET evil HTTP/1.1"), 400, "neither a path"),
        "target of another scheme": (
            line("GET ftp://a/ HTTP/1.1"),
            400,
            "neither a path",
        ),
        "target with a star": (line("GET * HTTP/1.1"), 400, "neither a path"),
        "target not ascii": (line("GET /\xe9 HTTP/1.1"), 400, "not visible ASCII"),
        "not upgrade": (request("Connection: notupgrade"), 426, "Connection"),
        "no upgrade": (request("-Upgrade"), 426, "Upgrade"),
        "no connection": (request("-Connection"), 426, "Connection"),
        "another upgrade": (request("Upgrade: h2c, websocket"), 426, "Upgrade"),
        "version 14": (request("Sec-WebSocket-Version: 14"), 426, "expected 13"),
        "version in other digits": (
            request("Sec-WebSocket-Version: 1\xb3"),
            426,
            "expected 13",
        ),
        "short key": (request(key="c2hvcnQ="), 400, "Sec-WebSocket-Key"),
        "key not ascii": (request(key="\xe9" * 24), 400, "Sec-WebSocket-Key"),
    },
    "values": {
        "extension not ascii": (
            request("Sec-WebSocket-Extensions: \xe9"),
            400,
            "Extens",
        ),
        "unclosed quotes": (
            request('Sec-WebSocket-Extensions: a; b="' + '\\"' * 4000),
            400,
            "Sec-WebSocket-Extensions",
        ),
        "many semicolons": (
            request("Sec-WebSocket-Extensions: a" + ";" * 8000),
            400,
            "Sec-WebSocket-Extensions",
        ),
        "many spaces": (request("Connection: a" + " " * 8000 + "b"), 400, "Connection"),
        "upgrade with spaces": (
            request("Upgrade: a" + " " * 8000 + "b"),
            400,
            "Upgrade",
        ),
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(siege: Any, kind: str) -> None:
    site = siege()
    site.server_of_sockets.log_limit.per_second = None
    for name, (data, status, text) in REFUSED[kind].items():
        try:
            answer = site.refuses(data, status=status, text=text)
            if status == 426:
                assert answer.headers["Sec-WebSocket-Version"] == "13"
            # Nothing that came is sent back.
            assert b"evil" not in answer.body.lower()
        except BaseException as exc:
            exc.add_note(f"at {name!r}")
            raise


def test_bad_subprotocols(siege: Any) -> None:
    good = "Sec-WebSocket-Protocol: chat"
    site = siege(subprotocols=["chat"], good_lines=(good,))
    for offer in ("\xe9", "a" + " " * 8000 + "b", "," * 8000 + "@", '"' * 8000, "a;b"):
        data = request(f"Sec-WebSocket-Protocol: {offer}")
        site.refuses(data, status=400, text="invalid Sec-WebSocket-Protocol header")


def test_other_ends_of_lines_are_part_of_the_value(siege: Any) -> None:
    """U+0085 may be in a value; it must not hide a header, nor split a log line."""
    site = siege(origins=["https://good.example"], good_lines=(ORIGIN,))
    hidden = request("X-A: a\x85Origin: https://good.example")
    site.refuses(hidden, status=403, text="missing Origin header")
    debug = [text for text in site.log.lines(logging.DEBUG) if "X-A" in text]
    assert debug == ["< X-A: a\\x85Origin: https://good.example"]


ORIGIN = "Origin: https://good.example"


# -- time ----------------------------------------------------------------------------


WAYS = ("silent", "half", "drip")


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_handshake_that_never_ends(siege_of_two: Any, tls: TLS, secure: bool) -> None:
    """There is one deadline for all of it, and others are not held up."""
    site = siege_of_two(open_timeout=0.5, tls=tls if secure else None)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        for way in WAYS:
            peer = site.connect()
            stack.enter_context(peer.sock)
            stack.callback(send_slowly(peer.sock, way).set)
            stack.callback(check_answer, peer)
        site.goes_on()
    assert time.monotonic() - began < 15
    assert site.log.lines() == ["connection rejected (408 Request Timeout)"] * 3


def check_answer(peer: Peer) -> None:
    answer = parse_answer(ending(peer))
    assert answer.status == 408
    assert answer.body == b"Opening handshake took too long.\n"


def test_tls_handshake_that_never_ends(siege_of_two: Any, tls: TLS) -> None:
    """TLS is part of what has to be done in time. No HTTP is spoken, nothing logged."""
    site = siege_of_two(open_timeout=0.5, tls=tls)
    # A record of 512 bytes begins, which never comes to its end.
    data = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        peers = [site.connect(secure=False) for _ in WAYS]
        for peer, way in zip(peers, WAYS, strict=True):
            stack.enter_context(peer.sock)
            stack.callback(send_slowly(peer.sock, way, data).set)
        site.goes_on()
        for peer in peers:
            assert not ending(peer).startswith(b"HTTP")
    assert time.monotonic() - began < 15
    assert site.log.lines() == []


def send_slowly(
    sock: socket.socket, way: str, data: bytes = request()[:40]
) -> threading.Event:
    """Send something that is not complete, or byte after byte, until told to stop."""
    stop = threading.Event()
    if way == "half":
        sock.sendall(data)
    if way != "drip":
        return stop

    def drip() -> None:
        with contextlib.suppress(OSError):
            for number in range(400):
                sock.sendall(data[number : number + 1] or b"a")
                if stop.wait(0.02):
                    return

    threading.Thread(target=drip, daemon=True).start()
    return stop


def test_one_byte_at_a_time(siege: Any) -> None:
    """A good request in single bytes is a good request, and costs no more memory."""
    site = siege()
    data = request(*[f"X-{n}: {'a' * 90}" for n in range(100)])
    peer = site.connect()
    with peer.sock, bounded_memory(1 << 20):
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(data)):
            peer.sock.sendall(data[number : number + 1])
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        peer.send(1, b"x")
        assert peer.frame() == (1, b"x")


# -- memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "again", "status"),
    [
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nX: ", b"a", 431),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"evil", 405),
    ],
    ids=["line", "header", "headers", "body"],
)
def test_flood(siege: Any, first: bytes, again: bytes, status: int) -> None:
    """16 MB come, and neither before nor after the answer is much of it kept."""
    site = siege()
    block = again * (65536 // len(again))
    with bounded_memory(1 << 20):
        site.refuses(first, *[block] * 250, status=status)


def test_flood_that_never_stops(siege_of_two: Any) -> None:
    """Who is refused and goes on sending is dropped after ``close_timeout``."""
    site = siege_of_two(close_timeout=0.2)
    peer = site.connect()
    block = b"a" * 65536
    began = time.monotonic()
    with peer.sock, contextlib.suppress(ConnectionError):
        peer.sock.sendall(b"evil\r\n\r\n")
        while time.monotonic() - began < 20:
            peer.sock.sendall(block)
    assert time.monotonic() - began < 15


def test_thousands_half_open(siege_of_two: Any, full: bool) -> None:
    """They cost little each, and good clients come and go as if they were not there."""
    site: Site = siege_of_two(open_timeout=60, backlog=2048)
    number, size = 2000 if full else 500, 8000
    if hasattr(site.server, "handler_threads"):
        number, size = 200, 20_000  # each has a thread, too
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            size = 50_000  # with a heap of its own
    with contextlib.ExitStack() as stack:
        with bounded_memory(number * size):
            for n in range(number):
                sock = stack.enter_context(socket.create_connection(site.address, 30))
                sock.sendall(request()[: n % 120])
            site.goes_on()
        for _ in range(5):
            site.goes_on()


# -- order ---------------------------------------------------------------------------


def test_bytes_before_the_answer_are_kept(siege: Any) -> None:
    site = siege()
    early = b"".join(frame(1, b"%d" % n, mask=MASK) for n in range(10))
    peer = site.open(rest=early)
    with peer.sock:
        peer.send(1, b"10")
        assert [peer.frame()[1] for _ in range(11)] == [b"%d" % n for n in range(11)]


# -- who asks ------------------------------------------------------------------------


ORIGINS: dict[str | None, int] = {
    "https://good.example": 101,
    "https://a.sub.example": 101,
    "https://good.example.evil.example": 403,
    "https://good.example/": 403,
    "https://GOOD.example": 403,
    "http://good.example": 403,
    "https://a.sub.example.evil.example": 403,
    "https://evil.example/https://a.sub.example": 403,
    "null": 403,
    "": 403,
    None: 403,
}


def test_origins(siege: Any) -> None:
    """Text is compared as a whole, expressions match in full, ``None`` is not given."""
    allowed = ["https://good.example", re.compile(r"https://\w+\.sub\.example")]
    site = siege(origins=allowed, good_lines=(ORIGIN,))
    site.server_of_sockets.log_limit.per_second = None
    for origin, status in ORIGINS.items():
        asked = request() if origin is None else request(f"Origin: {origin}")
        if status == 101:
            site.accepts(asked)
        else:
            site.refuses(asked, status=status)


def test_no_origin_may_be_allowed(siege: Any) -> None:
    site = siege(origins=[None])
    site.refuses(request(ORIGIN), status=403, text="origin not allowed")


def test_two_origins(siege: Any) -> None:
    """Whichever a program looked at, a proxy may have looked at the other one."""
    site = siege(origins=["https://good.example"], good_lines=(ORIGIN,))
    data = request(ORIGIN, "Origin: https://evil.example")
    site.refuses(data, status=400, text="Origin")
    site.refuses(request(ORIGIN, ORIGIN), status=400, text="Origin")
