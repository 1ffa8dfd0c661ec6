"""Clients for threads: the handshake, redirects, proxies, trying again."""

from __future__ import annotations

import contextlib
import inspect
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets.sync.client
import websockets.sync.router
import websockets.sync.server
from scripted import TLS, tls_fixture
from threads import (
    CLOSE,
    LOOPBACK,
    PATIENCE,
    Peer,
    Thread,
    echo,
    raw_server,
    serving,
    uri_of,
)

import websock.sync.client
import websock.sync.router
import websock.sync.server
from websock.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    SecurityError,
)
from websock.sync.client import ClientConnection, connect, reconnect

tls = tls_fixture()


# Arguments that only this library has.
MORE = {
    "hosts",
    "max_fragments",
    "max_control_rate",
    "max_connections",
    "max_connections_per_address",
}


@pytest.mark.parametrize("module", ["client", "server", "router"])
def test_the_names_and_parameters_are_those_of_websockets(module: str) -> None:
    theirs = getattr(websockets.sync, module)
    ours = getattr(websock.sync, module)
    for name in theirs.__all__:
        expected, found = getattr(theirs, name), getattr(ours, name)
        names = [n for n in inspect.signature(found).parameters if n not in MORE]
        assert names == list(inspect.signature(expected).parameters), name
    for name in ("recv", "recv_streaming", "send", "ping", "pong", "close"):
        expected = inspect.signature(getattr(theirs_connection(), name))
        found = inspect.signature(getattr(ClientConnection, name))
        assert list(found.parameters) == list(expected.parameters), name


def theirs_connection() -> Any:
    return websockets.sync.client.ClientConnection


# -- the handshake ---------------------------------------------------------------------


def test_headers() -> None:
    seen: list[Any] = []

    def look(ws: Any, request: Any) -> None:
        seen.append(request.headers)

    with serving(process_request=look) as server:
        with connect(
            uri_of(server).replace("//", "//user:secret@"),
            proxy=None,
            additional_headers={"X-One": "1", "Host": "other.example"},
            user_agent_header="me",
            origin="https://a.example",
            compression=None,
        ) as ws:
            assert isinstance(ws, ClientConnection)
    (headers,) = seen
    assert headers["X-One"] == "1"
    assert headers.get_all("Host") == ["other.example"]
    assert headers["User-Agent"] == "me"
    assert headers["Origin"] == "https://a.example"
    assert headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert "Sec-WebSocket-Extensions" not in headers


def test_create_connection() -> None:
    class Mine(ClientConnection):
        pass

    with serving() as server:
        with connect(uri_of(server), proxy=None, create_connection=Mine) as ws:
            assert type(ws) is Mine


def test_open_timeout() -> None:
    done = threading.Event()

    def script(peer: Peer, head: bytes) -> None:
        assert done.wait(PATIENCE)

    with raw_server(script, opens=False) as uri:
        with pytest.raises(TimeoutError, match="during opening handshake"):
            connect(uri, proxy=None, open_timeout=0.1)
        done.set()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", InvalidStatus),
        (b"nonsense\r\n\r\n", InvalidMessage),
        (b"", InvalidMessage),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", InvalidHandshake),
    ],
)
def test_bad_answers(answer: bytes, error: type[Exception]) -> None:
    def script(peer: Peer, head: bytes) -> None:
        peer.sock.sendall(answer)

    with raw_server(script, opens=False) as uri, pytest.raises(error):
        connect(uri, proxy=None)


def test_messages_that_come_with_the_answer() -> None:
    with serving(lambda ws: [ws.send(str(n)) for n in range(100)]) as server:
        for _ in range(5):
            with connect(uri_of(server), proxy=None) as ws:
                assert list(ws) == [str(n) for n in range(100)]


def test_nobody_listens() -> None:
    with socket.create_server((LOOPBACK, 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect(f"ws://{LOOPBACK}:{port}/", proxy=None)


def test_certificates_are_checked(tls: TLS) -> None:
    with serving(ssl=tls.server) as server:
        uri = uri_of(server, scheme="wss")
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(uri, proxy=None)
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(uri, proxy=None, ssl=tls.client, server_hostname="a.example")
        name = {"ssl": tls.client, "server_hostname": "localhost"}
        with connect(uri, proxy=None, **name) as ws:  # type: ignore[arg-type]
            ws.send("x")
            assert ws.recv() == "x"


@pytest.mark.parametrize(
    ("uri", "kwargs", "error"),
    [
        ("http://localhost/", {}, InvalidURI),
        ("ws://localhost/", {"what": 1}, TypeError),
        ("ws://localhost/", {"ssl": ssl.create_default_context()}, ValueError),
        ("ws://localhost/", {"compression": "zip"}, ValueError),
        ("ws://localhost/", {"ping_interval": -1}, ValueError),
        ("ws://localhost/", {"additional_headers": {"a": "b\r\nc"}}, ValueError),
    ],
)
def test_bad_arguments(uri: str, kwargs: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        connect(uri, **kwargs)


# -- redirects -------------------------------------------------------------------------


def redirecting(to: Callable[[], str], seen: list[Any]) -> Any:
    """Make a server that sends its clients elsewhere."""

    def process_request(ws: Any, request: Any) -> Any:
        seen.append(request.headers)
        response = ws.respond(302, "elsewhere\n")
        response.headers["Location"] = to()
        return response

    return process_request


def test_redirects_keep_no_credentials_for_others() -> None:
    first: list[Any] = []
    second: list[Any] = []

    def look(ws: Any, request: Any) -> None:
        second.append(request.headers)

    with serving(process_request=look) as target:
        hook = redirecting(lambda: uri_of(target, "/there"), first)
        with serving(process_request=hook) as server:
            uri = uri_of(server).replace("//", "//user:secret@")
            headers = {"Cookie": "a=b", "X-Other": "1"}
            with connect(uri, proxy=None, additional_headers=headers) as ws:
                assert ws.request.path == "/there"
    for name in ("Authorization", "Cookie", "X-Other"):
        assert name in first[0]
    assert second[0]["X-Other"] == "1"
    assert "Authorization" not in second[0]
    assert "Cookie" not in second[0]


def test_redirects_end() -> None:
    seen: list[Any] = []
    with serving(process_request=redirecting(lambda: "/again", seen)) as server:
        with pytest.raises(SecurityError, match="too many redirects"):
            connect(uri_of(server), proxy=None)
    assert len(seen) == 11


def test_redirects_never_leave_tls(tls: TLS) -> None:
    hook = redirecting(lambda: "ws://localhost:1/", [])
    with serving(process_request=hook, ssl=tls.server) as server:
        with pytest.raises(SecurityError, match="from wss to ws"):
            connect(uri_of(server, scheme="wss"), proxy=None, ssl=tls.client)


# -- proxies ---------------------------------------------------------------------------


@contextlib.contextmanager
def proxy(speak: Callable[[Peer], tuple[str, int] | None]) -> Iterator[int]:
    """Run a proxy for one connection; ``speak`` returns where it is to go."""
    listening = socket.create_server((LOOPBACK, 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def run() -> None:
        sock, _ = listening.accept()
        with sock:
            address = speak(Peer(sock, None))
            if address is not None:
                with socket.create_connection(address) as server:
                    back = Thread(pump, server, sock)
                    pump(sock, server)
                    back.result()

    thread = Thread(run)
    try:
        yield listening.getsockname()[1]
        thread.result()
    finally:
        listening.close()


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_http_proxy(tls: TLS, secure: bool) -> None:
    heads: list[bytes] = []

    def speak(peer: Peer) -> tuple[str, int]:
        heads.append(peer.head())
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        host, _, port = heads[0].split(b" ")[1].decode().partition(":")
        return host, int(port)

    options: dict[str, Any] = {"ssl": tls.client} if secure else {}
    with serving(ssl=tls.server if secure else None) as server, proxy(speak) as port:
        uri = uri_of(server, scheme="wss" if secure else "ws")
        where = f"http://user:secret@{LOOPBACK}:{port}"
        with connect(uri, proxy=where, **options) as ws:
            ws.send("x")
            assert ws.recv() == "x"
    assert heads[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in heads[0]


def test_http_proxy_that_refuses() -> None:
    def speak(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 407 Nope\r\nContent-Length: 0\r\n\r\n")

    with proxy(speak) as port, pytest.raises(ProxyError, match="407"):
        connect("ws://a.example/", proxy=f"http://{LOOPBACK}:{port}")


def test_socks_proxy() -> None:
    def speak(peer: Peer) -> tuple[str, int]:
        assert peer.exactly(1) == b"\x05"
        peer.exactly(peer.exactly(1)[0])
        peer.sock.sendall(b"\x05\x00")
        assert peer.exactly(3) == b"\x05\x01\x00"
        if peer.exactly(1) == b"\x01":
            host = socket.inet_ntoa(peer.exactly(4))
        else:
            host = peer.exactly(peer.exactly(1)[0]).decode()
        port = int.from_bytes(peer.exactly(2), "big")
        peer.sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
        return host, port

    with serving() as server, proxy(speak) as port:
        with connect(uri_of(server), proxy=f"socks5h://{LOOPBACK}:{port}") as ws:
            ws.send("x")
            assert ws.recv() == "x"


# -- trying again ----------------------------------------------------------------------


def test_reconnecting() -> None:
    count = [0]

    def script(peer: Peer, head: bytes) -> None:
        count[0] += 1
        if count[0] == 2:
            return  # it vanishes
        peer.send(1, b"%d" % count[0])
        assert peer.frame()[0] == CLOSE
        peer.send(CLOSE, b"\x03\xe8")

    seen: list[Any] = []
    with raw_server(script) as uri:
        for ws in reconnect(uri, proxy=None, reconnect_delays=lambda: iter([0] * 9)):
            try:
                seen.append(ws.recv())
            except ConnectionClosed:
                seen.append(None)
                continue
            if len(seen) == 3:
                break
        assert ws.close_code == 1000
    assert seen == ["1", None, "3"]


def test_reconnecting_after_refusals() -> None:
    answers = [503, 502, None]

    def process_request(ws: Any, request: Any) -> Any:
        status = answers.pop(0)
        return None if status is None else ws.respond(status, "later\n")

    delays: list[int] = []

    def backoff() -> Iterator[float]:
        while True:
            delays.append(1)
            yield 0

    with serving(process_request=process_request) as server:
        connecting = connect(
            uri_of(server), proxy=None, legacy=False, reconnect_delays=backoff
        )
        for ws in connecting:
            ws.send("x")
            assert ws.recv() == "x"
            break
    assert delays == [1, 1]


def test_reconnecting_stops_at_what_will_not_pass() -> None:
    with serving(process_request=lambda ws, request: ws.respond(404, "")) as server:
        with pytest.raises(InvalidStatus):
            next(iter(reconnect(uri_of(server), proxy=None)))


def test_reconnect_as_a_context_manager() -> None:
    with serving(echo) as server, reconnect(uri_of(server), proxy=None) as ws:
        ws.send("x")
        assert ws.recv() == "x"
