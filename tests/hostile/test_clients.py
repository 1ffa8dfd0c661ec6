"""Servers that lie to clients, of both APIs.

Each attack has a good connection beside it, of the same API and on the same loop, which
goes on. Clients log nothing of what servers do: they raise it.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time

import pytest
from besieged import bounded_memory, ending
from helpers import response
from lied_to import Clients, answering, clients, tls_server
from scripted import TLS, tls_fixture
from threads import LOOPBACK, PATIENCE, Peer, accept_key, raw_server
from wire import frame

from websock.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)

__all__ = ["clients"]

tls = tls_fixture()


def accepting(*lines: str) -> bytes:
    """Accept the request, with other lines."""
    return response("Sec-WebSocket-Accept: KEY", *lines)


def extension(value: str) -> bytes:
    return accepting(f"Sec-WebSocket-Extensions: {value}")


# What comes, and what is raised for it.
ANSWERS: dict[str, tuple[bytes, type[Exception]]] = {
    "nothing": (b"", InvalidMessage),
    "junk": (b"\x00\xff\x00\xff" * 100, InvalidMessage),
    "another protocol": (b"220 evil ESMTP\r\n", InvalidMessage),
    "a tls record": (b"\x15\x03\x01\x00\x02\x02\x28", InvalidMessage),
    "half a head": (accepting()[:60], InvalidMessage),
    "http/1.0": (accepting().replace(b"1.1", b"1.0"), InvalidMessage),
    "http/2": (accepting().replace(b"1.1", b"2.0"), InvalidMessage),
    "no status": (b"HTTP/1.1 \r\n\r\n", InvalidMessage),
    "status 999": (accepting().replace(b"101", b"999"), InvalidMessage),
    "status 200": (accepting().replace(b"101", b"200"), InvalidStatus),
    "status 204": (accepting().replace(b"101", b"204"), InvalidStatus),
    # What accepts has three headers, with one value each.
    "wrong key": (response("Sec-WebSocket-Accept: " + "A" * 27 + "="), InvalidHeader),
    "no accept": (response("-Sec-WebSocket-Accept"), InvalidHeader),
    "two accepts": (accepting("Sec-WebSocket-Accept: KEY"), InvalidHeader),
    "no upgrade": (accepting("-Upgrade"), InvalidUpgrade),
    "no connection": (accepting("-Connection"), InvalidUpgrade),
    "another upgrade": (accepting("Upgrade: h2c"), InvalidUpgrade),
    "not upgrade": (accepting("Connection: notupgrade"), InvalidUpgrade),
    "two upgrades": (
        accepting("-Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
        InvalidUpgrade,
    ),
    # What was not offered.
    "extension": (extension("x-evil"), NegotiationError),
    "parameter": (extension("permessage-deflate; evil"), NegotiationError),
    "bits 1000": (
        extension("permessage-deflate; server_max_window_bits=1000"),
        NegotiationError,
    ),
    "bits 7": (
        extension("permessage-deflate; server_max_window_bits=7"),
        NegotiationError,
    ),
    "bits 16": (
        extension("permessage-deflate; client_max_window_bits=16"),
        NegotiationError,
    ),
    "bits 08": (
        extension("permessage-deflate; client_max_window_bits=08"),
        NegotiationError,
    ),
    "no bits": (
        extension("permessage-deflate; server_max_window_bits"),
        NegotiationError,
    ),
    "parameter twice": (
        extension(
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover"
        ),
        NegotiationError,
    ),
    "extension twice": (
        extension("permessage-deflate, permessage-deflate"),
        NegotiationError,
    ),
    "bad extension": (extension('a; b="'), InvalidHeader),
    "extension not ascii": (extension("\xe9\x85"), InvalidHeader),
    "subprotocol": (accepting("Sec-WebSocket-Protocol: evil"), NegotiationError),
    "two subprotocols": (accepting("Sec-WebSocket-Protocol: a, b"), InvalidHeader),
    "subprotocol not ascii": (
        accepting("Sec-WebSocket-Protocol: \xe9"),
        InvalidHeader,
    ),
    # Lines.
    "folded": (accepting("X: a\r\n b"), InvalidMessage),
    "bare lf": (accepting().replace(b"\r\n", b"\n"), InvalidMessage),
    "bare cr": (accepting("X: a\rb"), InvalidMessage),
    "nul": (accepting("X: a\0"), InvalidMessage),
    "header not ascii": (accepting("X\xe9: a"), InvalidMessage),
    # Too much.
    "endless status line": (b"HTTP/1.1 101 " + b"a" * 9000, StatusLineTooLong),
    "endless header": (accepting()[:-2] + b"X: " + b"a" * 9000, HeaderLineTooLong),
    "many headers": (accepting(*["X: a"] * 200), TooManyHeaders),
    "many bytes": (accepting(*[f"X: {'a' * 8000}"] * 9), HeaderLineTooLong),
    "interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, SecurityError),
    # Bodies.
    "two lengths": (
        b"HTTP/1.1 403 No\r\n" + b"Content-Length: 1\r\n" * 2 + b"\r\na",
        InvalidMessage,
    ),
    "big length": (
        b"HTTP/1.1 403 No\r\nContent-Length: 99999999999999999999\r\n\r\n",
        SecurityError,
    ),
    "negative length": (
        b"HTTP/1.1 403 No\r\nContent-Length: -1\r\n\r\n",
        InvalidMessage,
    ),
    "big chunk": (
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n",
        SecurityError,
    ),
    "bad chunk": (
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        InvalidMessage,
    ),
    "gzip": (b"HTTP/1.1 403 No\r\nTransfer-Encoding: gzip\r\n\r\n", InvalidMessage),
}


def test_answers(clients: Clients) -> None:
    for name, (answer, kind) in ANSWERS.items():
        if "subprotocol" in name:
            options = {"subprotocols": ["a", "b"]}
        else:
            options = {}
        with raw_server(answering(answer), opens=False) as uri:
            try:
                exc = clients.fails(uri, kind, **options)
            except BaseException as failed:
                failed.add_note(f"at {name!r}")
                raise
            assert isinstance(exc, InvalidHandshake)
    assert clients.log.lines() == []


def test_nothing_was_offered(clients: Clients) -> None:
    deflate = extension("permessage-deflate")
    with raw_server(answering(deflate), opens=False) as uri:
        clients.fails(uri, NegotiationError, compression=None)
    chosen = accepting("Sec-WebSocket-Protocol: a")
    with raw_server(answering(chosen), opens=False) as uri:
        clients.fails(uri, NegotiationError)


def test_messages_behind_the_answer_are_kept(clients: Clients) -> None:
    early = b"".join(frame(1, b"%d" % n) for n in range(10))

    def script(peer: Peer, head: bytes) -> None:
        peer.sock.sendall(
            accepting().replace(b"KEY", accept_key(head).encode()) + early
        )
        assert peer.frame()[0] == 8
        peer.send(8, b"\x03\xe8")

    with raw_server(script, opens=False) as uri:
        ws = clients.connect(uri)
        assert [clients.do(ws, "recv") for _ in range(10)] == [
            str(n) for n in range(10)
        ]
        clients.do(ws, "close")


# -- memory and time -----------------------------------------------------------------

FLOODS = {
    "header": (b"HTTP/1.1 101 X\r\nX: ", b"a"),
    "headers": (b"HTTP/1.1 101 X\r\n", b"A: b\r\n"),
    "body": (b"HTTP/1.1 403 No\r\n\r\n", b"a"),
    "chunked body": (
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"80\r\n" + b"a" * 128 + b"\r\n",
    ),
    "interim": (b"", b"HTTP/1.1 102 Wait\r\n\r\n"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(clients: Clients, name: str) -> None:
    """Servers send without an end; no more than the limit of a body is kept."""
    first, again = FLOODS[name]
    block = again * (65536 // len(again))

    def script(peer: Peer, head: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            peer.sock.sendall(first)
            for _ in range(400):
                peer.sock.sendall(block)
        ending(peer)

    with raw_server(script, opens=False) as uri, bounded_memory(6 << 20):
        exc = clients.fails(uri, SecurityError)
    assert not isinstance(exc, InvalidStatus)


def test_lines_between_chunks_without_an_end(clients: Clients) -> None:
    """Little of it is a body, so it is the time that ends it, for all that comes."""
    filler = b";" + b"a" * 900

    def script(peer: Peer, head: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            peer.sock.sendall(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                peer.sock.sendall((b"1" + filler + b"\r\na\r\n") * 64)

    began = time.monotonic()
    with raw_server(script, opens=False) as uri:
        clients.fails(uri, TimeoutError, open_timeout=0.3)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("what", ["response", "body", "tls"])
def test_answer_that_never_ends(clients: Clients, what: str) -> None:
    """There is one deadline, for TLS and all of the answer, however often some comes."""
    first = {
        "response": b"HTTP/1.1 101 ",
        "body": b"HTTP/1.1 403 No\r\n\r\n",
        "tls": b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03",
    }[what]
    stop = threading.Event()

    def serve() -> None:
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            sock.sendall(first)
            while not stop.wait(0.02):
                sock.sendall(b"a")

    with socket.create_server((LOOPBACK, 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        scheme = "wss" if what == "tls" else "ws"
        uri = f"{scheme}://{LOOPBACK}:{listening.getsockname()[1]}/"
        began = time.monotonic()
        try:
            clients.fails(uri, TimeoutError, open_timeout=0.3)
        finally:
            stop.set()
            thread.join(PATIENCE)
        assert time.monotonic() - began < 15


# -- TLS -----------------------------------------------------------------------------


def test_certificates_are_verified(clients: Clients, tls: TLS) -> None:
    """By default, and for the name of the URI: nothing is sent to anybody else."""
    with tls_server(tls.server) as (uri, heads):
        clients.fails(uri, ssl.SSLCertVerificationError)
        named = {"ssl": tls.client, "server_hostname": "other.example"}
        clients.fails(uri, ssl.SSLCertVerificationError, **named)
        assert heads == []


def test_tls_cannot_be_left_out(clients: Clients) -> None:
    for value in (None, False):
        if clients.kind == "threads" and value is None:
            continue  # it is the default there
        with pytest.raises((TypeError, ValueError), match="ssl"):
            clients.connect("wss://localhost/", ssl=value)


# -- redirects -----------------------------------------------------------------------


def redirect(location: str, *lines: str) -> bytes:
    head = ["HTTP/1.1 302 Found", f"Location: {location}", "Content-Length: 0", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


SECRETS = {
    "Authorization": "Bearer secret",
    "Cookie": "secret=1",
    "Proxy-Authorization": "Basic secret",
    "Host": "secret.example",
    "X-Harmless": "1",
}


def test_redirect_to_another_origin_takes_no_secrets_along(clients: Clients) -> None:
    """The other server learns nothing, and the first one gets all when it is again."""
    heads: list[bytes] = []

    def other(peer: Peer, head: bytes) -> None:
        heads.append(head)
        peer.sock.sendall(redirect(first_uri))
        ending(peer)

    def first(peer: Peer, head: bytes) -> None:
        heads.append(head)
        peer.sock.sendall(redirect(other_uri if len(heads) == 1 else "/loop"))
        ending(peer)

    with (
        raw_server(other, opens=False) as other_uri,
        raw_server(first, opens=False) as first_uri,
    ):
        uri = first_uri.replace("ws://", "ws://user:secret@")
        clients.fails(uri, SecurityError, additional_headers=SECRETS)
    assert b"secret" in heads[0]
    assert b"secret.example" in heads[0]
    port = other_uri.rpartition(":")[2].strip("/")
    assert f"Host: {LOOPBACK}:{port}\r\n".encode() in heads[1]
    basic = base64.b64encode(b"user:secret")
    # What was lost on the way does not come back: the second one may have led there.
    for head in heads[1:]:
        assert b"secret" not in head
        assert basic not in head
        assert b"authorization" not in head.lower()
        assert b"cookie" not in head.lower()
        assert b"X-Harmless: 1\r\n" in head


def test_redirects_in_a_loop(clients: Clients) -> None:
    count = [0]

    def script(peer: Peer, head: bytes) -> None:
        count[0] += 1
        peer.sock.sendall(redirect("/again"))
        ending(peer)

    with raw_server(script, opens=False) as uri:
        exc = clients.fails(uri, SecurityError)
    assert str(exc) == "too many redirects: more than 10"
    assert count == [11]


def test_redirect_from_tls_to_plain(clients: Clients, tls: TLS) -> None:
    reached: list[bytes] = []

    def script(peer: Peer, head: bytes) -> None:
        reached.append(head)

    with raw_server(script, opens=False) as plain:
        for location in (
            plain,
            plain.replace("ws:", "http:"),
            plain.replace("ws", "WS"),
        ):
            with tls_server(tls.server, redirect(location)) as (uri, _):
                exc = clients.fails(uri, SecurityError, ssl=tls.client)
                assert "it leads from wss to ws" in str(exc)
    assert reached == []


@pytest.mark.parametrize(
    "location",
    [
        "http://[",
        "//[::1",
        "ws://a b/",
        "ws://a:99999/",
        "ws://:1/",
        "ws://user@a/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:,evil",
        "ftp://evil.example/",
        "ws://\xe9\x85/",
        "ws://a\x85b/" + "c" * 4000,
    ],
)
def test_redirect_to_nonsense(clients: Clients, location: str) -> None:
    with raw_server(answering(redirect(location)), opens=False) as uri:
        clients.fails(uri, InvalidURI)


def test_two_locations_are_none(clients: Clients) -> None:
    answer = redirect("ws://a.example/", "Location: ws://b.example/")
    with raw_server(answering(answer), opens=False) as uri:
        clients.fails(uri, InvalidStatus)


def test_location_cannot_add_headers(clients: Clients) -> None:
    """What may end a line for somebody is encoded in the next request."""
    heads: list[bytes] = []

    def script(peer: Peer, head: bytes) -> None:
        heads.append(head)
        if len(heads) == 1:
            peer.sock.sendall(redirect("/a%0d%0aX-Evil:1?\xe9\xa0\xff"))
        else:
            peer.sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        ending(peer)

    with raw_server(script, opens=False) as uri:
        clients.fails(uri, InvalidStatus)
    assert heads[1].startswith(b"GET /a%0d%0aX-Evil:1?%C3%A9%C2%A0%C3%BF HTTP/1.1\r\n")
    assert b"\nX-Evil" not in heads[1]
