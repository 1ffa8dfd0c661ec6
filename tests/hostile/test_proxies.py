"""Proxies that lie, and what they may not learn or change."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from besieged import bounded_memory, ending
from lied_to import Clients, clients, tls_server
from scripted import TLS, tls_fixture
from threads import LOOPBACK, PATIENCE, Peer, accepting

from websock.exceptions import (
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    ProxyError,
)
from websock.proxy import parse_proxy, prepare_connect_request
from websock.uri import WebSocketURI

__all__ = ["clients"]

tls = tls_fixture()

TARGET = "ws://server.example/"


class LyingProxy:
    """A proxy that runs a script for each connection.

    Attributes:
        heads: The requests for tunnels that came.
        count: How many connections there were.
    """

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.count = 0
        self.port = 0

    def url(self, scheme: str = "http", user: str = "") -> str:
        return f"{scheme}://{user}{LOOPBACK}:{self.port}"


@contextlib.contextmanager
def proxy(
    script: Callable[[LyingProxy, Peer], None], context: ssl.SSLContext | None = None
) -> Iterator[LyingProxy]:
    made = LyingProxy()

    def serve(sock: socket.socket) -> None:
        made.count += 1
        sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError, AssertionError):
            if context is not None:
                with context.wrap_socket(sock, server_side=True) as secure:
                    script(made, Peer(secure, None))
            else:
                script(made, Peer(sock, None))

    with accepting(serve) as made.port:
        yield made


def answer(*pieces: bytes) -> Callable[[LyingProxy, Peer], None]:
    def script(made: LyingProxy, peer: Peer) -> None:
        made.heads.append(peer.head())
        for piece in pieces:
            peer.sock.sendall(piece)
        with contextlib.suppress(OSError):
            peer.sock.shutdown(socket.SHUT_WR)
        ending(peer)

    return script


OK = b"HTTP/1.1 200 OK\r\n\r\n"

ANSWERS: dict[str, tuple[bytes, type[Exception]]] = {
    "nothing": (b"", InvalidProxyMessage),
    "junk": (b"\x00\xff" * 100, InvalidProxyMessage),
    "half a head": (b"HTTP/1.1 200 OK\r\nX: a", InvalidProxyMessage),
    "bare lf": (b"HTTP/1.1 200 OK\n\n", InvalidProxyMessage),
    "http/2": (b"HTTP/2.0 200 OK\r\n\r\n", InvalidProxyMessage),
    "endless line": (b"HTTP/1.1 200 " + b"a" * 9000, InvalidProxyMessage),
    "endless header": (OK[:-2] + b"X: " + b"a" * 9000, InvalidProxyMessage),
    "many headers": (OK[:-2] + b"X: a\r\n" * 200, InvalidProxyMessage),
    "interim responses": (b"HTTP/1.1 100 A\r\n\r\n" * 20 + OK, InvalidProxyMessage),
    # The server, who would say it, was not asked anything yet.
    "ok with a body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        InvalidProxyMessage,
    ),
    "answer of the server": (
        OK + b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        InvalidProxyMessage,
    ),
    "switching": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        InvalidProxyStatus,
    ),
    "redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: ws://evil.example/\r\n\r\n",
        InvalidProxyStatus,
    ),
    "refusal with an endless body": (
        b"HTTP/1.1 403 No\r\nContent-Length: 999999999999\r\n\r\n" + b"a" * 60000,
        InvalidProxyStatus,
    ),
}


def test_answers(clients: Clients) -> None:
    for name, (data, kind) in ANSWERS.items():
        with proxy(answer(data)) as lying:
            try:
                exc = clients.fails(TARGET, kind, proxy=lying.url())
            except BaseException as failed:
                failed.add_note(f"at {name!r}")
                raise
            assert isinstance(exc, ProxyError)
            assert lying.count == 1
    assert clients.log.lines() == []


def test_flood_of_headers(clients: Clients) -> None:
    block = b"A: b\r\n" * 10_000

    def script(made: LyingProxy, peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(400):
            peer.sock.sendall(block)

    with proxy(script) as lying, bounded_memory(2 << 20):
        clients.fails(TARGET, InvalidProxyMessage, proxy=lying.url())


def test_407_is_not_answered(clients: Clients) -> None:
    """The password was sent at once: to send it again and again is of no use."""
    asks = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=a\r\n\r\n"
    with proxy(answer(asks)) as lying:
        url = lying.url(user="user:secret@")
        exc = clients.fails(TARGET, InvalidProxyStatus, proxy=url)
        assert "407" in str(exc)
        assert "secret" not in str(exc)
    assert lying.count == 1


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5h"])
def test_answer_that_never_ends(clients: Clients, scheme: str) -> None:
    """There is one deadline for all of it, however often something comes."""
    # How it begins, and how many bytes may follow until it is complete.
    first, number = {
        "http": (b"HTTP/1.1 200 ", 1000),
        "https": (b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03", 1000),
        "socks4": (b"\x00", 6),
        # The method is chosen; what answers the request has a name of 255 bytes.
        "socks5h": (b"\x05\x00\x05\x00\x00\x03\xff", 200),
    }[scheme]
    stop = threading.Event()

    def script(made: LyingProxy, peer: Peer) -> None:
        peer.sock.sendall(first)
        for _ in range(number):
            if stop.wait(0.05):
                return
            peer.sock.sendall(b"a")
        stop.wait(PATIENCE)

    with proxy(script) as lying:
        uri = TARGET.replace("server.example", LOOPBACK)
        began = time.monotonic()
        try:
            clients.fails(uri, TimeoutError, proxy=lying.url(scheme), open_timeout=0.3)
        finally:
            stop.set()
        assert time.monotonic() - began < 15


SOCKS_LIES = {
    "nothing": b"",
    "another version": b"\x04\x00",
    "http": b"HTTP/1.1 200 OK\r\n\r\n",
    "method not offered": b"\x05\x02",
    "no method": b"\x05\xff",
    "refusal": b"\x05\x00\x05\x02\x00\x01" + bytes(6),
    "unknown refusal": b"\x05\x00\x05\xf0\x00\x01" + bytes(6),
    "unknown address": b"\x05\x00\x05\x00\x00\x09" + bytes(6),
    "half an answer": b"\x05\x00\x05\x00\x00\x03\xff" + b"a" * 100,
}


def test_socks_lies(clients: Clients) -> None:
    for name, data in SOCKS_LIES.items():

        def script(made: LyingProxy, peer: Peer, data: bytes = data) -> None:
            peer.sock.sendall(data)
            peer.sock.shutdown(socket.SHUT_WR)
            ending(peer)

        with proxy(script) as lying:
            try:
                clients.fails(TARGET, ProxyError, proxy=lying.url("socks5h"))
            except BaseException as failed:
                failed.add_note(f"at {name!r}")
                raise


def test_socks_proxy_that_answers_for_the_server(clients: Clients) -> None:
    """It says that there is a tunnel, and speaks itself."""

    def script(made: LyingProxy, peer: Peer) -> None:
        assert peer.exactly(3) == b"\x05\x01\x00"
        peer.sock.sendall(b"\x05\x00")
        peer.exactly(7 + len("server.example"))
        peer.sock.sendall(b"\x05\x00\x00\x01" + bytes(6) + b"220 evil\r\n")
        ending(peer)

    with proxy(script) as lying:
        clients.fails(TARGET, InvalidMessage, proxy=lying.url("socks5h"))


# -- TLS through proxies -------------------------------------------------------------


def tunnelling(scheme: str, port: int) -> Callable[[LyingProxy, Peer], None]:
    """Make a proxy that makes tunnels, but to a server of its own choice."""

    def script(made: LyingProxy, peer: Peer) -> None:
        if scheme == "socks5h":
            peer.exactly(peer.exactly(2)[1])
            peer.sock.sendall(b"\x05\x00")
            peer.exactly(peer.exactly(5)[4] + 2)
            peer.sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
        else:
            made.heads.append(peer.head())
            peer.sock.sendall(OK)
        with socket.create_connection((LOOPBACK, port), PATIENCE) as server:
            pump(peer.sock, server)

    return script


def pump(one: Any, other: socket.socket) -> None:
    """Hand bytes on in both directions, until one side ends."""
    while True:
        # One thread for both: an SSLSocket is not for two at once.
        ready, _, _ = select.select([one, other], [], [], PATIENCE)
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_tls_is_verified_through_proxies(
    clients: Clients, tls: TLS, scheme: str
) -> None:
    """Whoever the proxy leads to must have a certificate for the name that was asked.

    Nothing of the request goes out in plain text, through SOCKS neither.
    """
    context = tls.server if scheme == "https" else None
    options = {"proxy_ssl": tls.client} if context else {}
    with tls_server(tls.server, b"220 evil\r\n") as (uri, heads):
        port = int(uri.rpartition(":")[2].strip("/"))
        with proxy(tunnelling(scheme, port), context) as lying:
            options["proxy"] = lying.url(scheme)
            target = "wss://server.example/"
            # An authority that is not known, then a name that is not in it.
            clients.fails(target, ssl.SSLCertVerificationError, **options)
            options["ssl"] = tls.client
            clients.fails(target, ssl.SSLCertVerificationError, **options)
            assert heads == []
            # With the right name it would have come through.
            options["server_hostname"] = "localhost"
            clients.fails(target, InvalidMessage, **options)
            (head,) = heads
            assert head.startswith(b"GET / HTTP/1.1\r\nHost: server.example\r\n")


def test_the_proxy_itself_is_verified(clients: Clients) -> None:
    """Before it is told the password, or where to go."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(LOOPBACK).configure_cert(context)
    with proxy(answer(OK), context) as lying:
        url = lying.url("https", "user:secret@")
        clients.fails(TARGET, ssl.SSLCertVerificationError, proxy=url)
        assert lying.heads == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_password_is_for_the_proxy_alone(
    clients: Clients, tls: TLS, scheme: str
) -> None:
    """It goes into the request for the tunnel, and into nothing inside of it."""
    context = tls.server if scheme == "https" else None
    options = {"proxy_ssl": tls.client} if context else {}
    with tls_server(tls.server, b"220 evil\r\n") as (uri, heads):
        port = int(uri.rpartition(":")[2].strip("/"))
        with proxy(tunnelling(scheme, port), context) as lying:
            clients.fails(
                "wss://me:mine@localhost/",
                InvalidMessage,
                proxy=lying.url(scheme, "user:secret@"),
                ssl=tls.client,
                **options,
            )
    ours = base64.b64encode(b"me:mine")
    theirs = base64.b64encode(b"user:secret")
    (asked,), (inside,) = lying.heads, heads
    assert b"Proxy-Authorization: Basic " + theirs in asked
    assert ours not in asked
    assert b"Authorization: Basic " + ours in inside
    assert b"Proxy-Authorization" not in inside
    assert theirs not in inside


@pytest.mark.parametrize(
    "host", ["a b", "a\r\nX-Evil: 1", "a\nb", "a\0b", "\u2603", "\xe9", "a\tb"]
)
def test_hosts_that_cannot_be_asked_for(host: str) -> None:
    """The ``host`` of ``connect()`` is no URI, and was not checked as one."""
    to = WebSocketURI(False, host, 80, "/", "")
    with pytest.raises(ValueError, match="invalid"):
        prepare_connect_request(parse_proxy("http://proxy"), to)
