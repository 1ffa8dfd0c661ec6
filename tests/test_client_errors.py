"""The asyncio client when things go wrong: calls, addresses, handshakes, waits."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from scripted import LOOPBACK, TLS, Peer, Run, echo, loop_fixture, refuse, scripted
from scripted import tls_fixture

import websock
from websock.asyncio.client import connect, unix_connect
from websock.asyncio.sockets import connect_tcp
from websock.exceptions import (
    ConnectionClosed,
    HeaderLineTooLong,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
)

run = loop_fixture()
tls = tls_fixture()

CONTEXT = ssl.create_default_context()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect directly, whatever the environment says."""
    monkeypatch.setenv("no_proxy", "*")


# -- wrong calls: refused by connect(), before anything is awaited -------------------


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://localhost/", "scheme is http, expected ws or wss"),
        ("localhost:8765", "expected ws or wss"),
        ("/path", "scheme is missing"),
        ("ws://", "hostname isn't provided"),
        ("ws:///path", "hostname isn't provided"),
        ("ws://localhost:port/", "port isn't a number"),
        ("ws://localhost:65536/", "port is out of range"),
        ("ws://localhost/#fragment", "fragment"),
        ("ws://user@localhost/", "without password"),
        ("ws://localhost/ path", "space at 15"),
        ("ws://localhost/\r\nX: y", "control character"),
    ],
)
def test_invalid_uri(uri: str, text: str) -> None:
    with pytest.raises(InvalidURI, match=text):
        connect(uri)


def unconnected() -> socket.socket:
    return socket.socket()


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("ws", {"timeout": 3}, TypeError, "unexpected keyword argument 'timeout'"),
    ("ws", {"path": "/tmp/x"}, TypeError, "path is for unix_connect"),
    ("ws", {"additional_headers": {"X": "a\r\nY: b"}}, ValueError, "'X': character"),
    ("ws", {"additional_headers": {"X": "a\nb"}}, ValueError, "character '.n' at 1"),
    ("ws", {"additional_headers": [("X:", "a")]}, ValueError, "not a token"),
    ("ws", {"additional_headers": {"X": b"a"}}, TypeError, "must be str, not bytes"),
    ("ws", {"user_agent_header": "a\r\n"}, ValueError, "'User-Agent': character"),
    ("ws", {"origin": "a\r\n"}, ValueError, "'Origin': character"),
    ("ws", {"subprotocols": "chat"}, TypeError, "must be a list, not str"),
    ("ws", {"subprotocols": ["a b"]}, ValueError, "is not a token"),
    ("ws", {"subprotocols": ["a", "a"]}, ValueError, "occurs twice"),
    ("ws", {"compression": "gzip"}, ValueError, "unsupported compression: gzip"),
    ("ws", {"max_queue": (1, 2)}, ValueError, "high 1 is below low 2"),
    ("ws", {"write_limit": -1}, ValueError, "write_limit"),
    ("ws", {"listener": 3}, TypeError, "must be a websock.Listener.*not int"),
    ("ws", {"listener": object}, TypeError, "no method on_open"),
    ("ws", {"listener": lambda x: x}, TypeError, "without arguments"),
    ("ws", {"ssl": CONTEXT}, ValueError, "ssl is not for a ws:// URI"),
    ("ws", {"ssl": True}, ValueError, "ssl is not for a ws:// URI"),
    ("ws", {"server_hostname": "x"}, ValueError, "not for a ws:// URI"),
    ("wss", {"ssl": None}, ValueError, "ssl=None is not for a wss:// URI"),
    ("wss", {"ssl": False}, ValueError, "ssl=False is not for a wss:// URI"),
    ("wss", {"ssl": "yes"}, TypeError, "must be an SSLContext or True, not str"),
    ("wss", {"server_hostname": ""}, ValueError, "server_hostname is empty"),
    ("ws", {"sock": 3}, TypeError, "must be a socket, not int"),
    ("ws", {"proxy": 3}, TypeError, "proxy must be str, not int"),
    ("ws", {"proxy": "ftp://proxy"}, InvalidProxy, "scheme ftp isn't supported"),
    ("ws", {"proxy": None, "proxy_ssl": CONTEXT}, ValueError, "without a proxy"),
    (
        "ws",
        {"proxy": "http://proxy", "proxy_ssl": CONTEXT},
        ValueError,
        "proxy_ssl is not for this proxy",
    ),
    (
        "ws",
        {"proxy": "https://proxy", "proxy_ssl": None},
        ValueError,
        "proxy_ssl=None is not for an https:// proxy",
    ),
]


@pytest.mark.parametrize(
    ("scheme", "options", "kind", "text"),
    WRONG,
    ids=[", ".join(f"{k}={v!r:.12}" for k, v in wrong[1].items()) for wrong in WRONG],
)
def test_wrong_call(
    scheme: str, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        connect(f"{scheme}://localhost/", **options)


def test_wrong_sockets(tls: TLS) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="stream socket, not SOCK_DGRAM"):
            connect("ws://localhost/", sock=sock)
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="port and sock cannot be given together"):
            connect("ws://localhost/", sock=sock, port=1)
    with tls.client.wrap_socket(socket.socket(), server_hostname="x") as sock:
        with pytest.raises(TypeError, match="must be a plain socket"):
            connect("ws://localhost/", sock=sock)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
def test_wrong_unix_calls() -> None:
    with pytest.raises(ValueError, match="either path or sock"):
        unix_connect()
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises(ValueError, match="either path or sock"):
            unix_connect("/path", sock=sock)
    with pytest.raises(TypeError, match="unexpected keyword argument 'host'"):
        unix_connect("/path", host="localhost")


def test_listener_with_a_coroutine_function() -> None:
    class Wrong(websock.Listener):
        async def on_message(self, ws: Any, message: Any) -> None:  # type: ignore[override]
            pass

    for listener in (Wrong, Wrong()):
        with pytest.raises(TypeError, match="on_message is a coroutine function"):
            connect("ws://localhost/", listener=listener)


# -- addresses -----------------------------------------------------------------------


class Names:
    """A loop that resolves names its own way, and connects when it is told to."""

    def __init__(self, addresses: list[tuple[Any, ...]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.addresses = addresses
        self.silent: set[str] = set()
        self.tried: list[str] = []
        self.sockets: list[socket.socket] = []

    def create_task(self, coroutine: Any) -> Any:
        return self.loop.create_task(coroutine)

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> Any:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in self.addresses
        ]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.tried.append(address[0])
        self.sockets.append(sock)
        if address[0] in self.silent:
            await asyncio.Event().wait()
        await self.loop.sock_connect(sock, address)


async def closed_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_refused(run: Run) -> None:
    async def main() -> None:
        port = await closed_port()
        with pytest.raises(ConnectionRefusedError, match=LOOPBACK):
            await connect(f"ws://{LOOPBACK}:{port}/")

    run(main())


def test_second_address(run: Run) -> None:
    async def main() -> None:
        async with scripted(Peer.ended) as server:
            port = await closed_port()
            loop: Any = Names([(LOOPBACK, port), (LOOPBACK, server.port)])
            sock, address = await connect_tcp(loop, "name", 1)
            assert address == (LOOPBACK, server.port)
            assert sock.getblocking() is False
            sock.close()

    run(main())


@pytest.mark.parametrize("delay", [None, 0])
def test_all_addresses_fail(run: Run, delay: float | None) -> None:
    async def main() -> None:
        ports = [await closed_port(), await closed_port()]
        loop: Any = Names([(LOOPBACK, port) for port in ports])
        with pytest.raises(ConnectionRefusedError) as caught:
            await connect_tcp(loop, "name", 1, happy_eyeballs_delay=delay)
        assert "cannot connect to name, 2 attempts failed" in str(caught.value)
        assert all(str(port) in str(caught.value) for port in ports)
        with pytest.raises(ExceptionGroup) as group:
            await connect_tcp(
                loop, "name", 1, happy_eyeballs_delay=delay, all_errors=True
            )
        assert [type(e) for e in group.value.exceptions] == [ConnectionRefusedError] * 2
        assert all(sock.fileno() == -1 for sock in loop.sockets)

    run(main())


def test_different_errors_become_one(run: Run) -> None:
    async def main() -> None:
        loop: Any = Names([(LOOPBACK, await closed_port()), ("255.255.255.255", 1)])
        with pytest.raises(OSError, match="2 attempts failed: .*Errno.*Errno"):
            await connect_tcp(loop, "name", 1)

    run(main())


def test_silent_address(run: Run) -> None:
    async def main() -> None:
        async with scripted(Peer.ended) as server:
            port = await closed_port()
            loop: Any = Names(
                [("127.0.0.3", port), ("127.0.0.2", port), (LOOPBACK, server.port)]
            )
            loop.silent = {"127.0.0.3"}
            sock, address = await connect_tcp(loop, "name", 1, happy_eyeballs_delay=0)
            assert address == (LOOPBACK, server.port)
            assert loop.tried == ["127.0.0.3", "127.0.0.2", LOOPBACK]
            assert [s.fileno() == -1 for s in loop.sockets] == [True, True, False]
            sock.close()

    run(main())


def test_race_is_cancelled(run: Run) -> None:
    async def main() -> None:
        loop: Any = Names([("127.0.0.2", 1), ("127.0.0.3", 1)])
        loop.silent = {"127.0.0.2", "127.0.0.3"}
        task = asyncio.create_task(
            connect_tcp(loop, "name", 1, happy_eyeballs_delay=0)
        )
        while len(loop.tried) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(sock.fileno() == -1 for sock in loop.sockets)

    run(main())


def test_names(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror, match="host name cannot be resolved: aaa"):
            await connect("ws://" + "a" * 64 + "/")
        loop: Any = Names([])
        with pytest.raises(OSError, match="host has no address: name"):
            await connect_tcp(loop, "name", 1)

    run(main())


def test_local_address_that_is_not_here(run: Run) -> None:
    async def main() -> None:
        port = await closed_port()
        with pytest.raises(OSError, match="cannot bind to .'192.0.2.1', 0"):
            await connect(f"ws://{LOOPBACK}:{port}/", local_addr=("192.0.2.1", 0))
        with pytest.raises(OSError, match="not of family AF_INET"):
            await connect(f"ws://{LOOPBACK}:{port}/", local_addr=("::1", 0))

    run(main())


# -- the handshake -------------------------------------------------------------------


def test_refusal(run: Run) -> None:
    async def main() -> None:
        body = b"go away\n"
        script = refuse("403 Forbidden", "X-Why: because", body=body)
        async with scripted(script) as server:  # which waits for the client to leave
            with pytest.raises(InvalidStatus, match="HTTP 403") as caught:
                await connect(server.uri)
            response = caught.value.response
            assert response.status_code == 403
            assert response.headers["X-Why"] == "because"
            assert response.body == body

    run(main())


def answer(data: bytes, *, end: str = "wait") -> Callable[[Peer], Any]:
    """Answer a request with anything, and then wait, close or reset."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        if end == "wait":
            await peer.ended()
        elif end == "reset":
            peer.reset()

    return script


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Switch", b"HTTP/1.1 101 X\r\n"])
def test_connection_ends_in_the_handshake(run: Run, data: bytes, end: str) -> None:
    async def main() -> None:
        async with scripted(answer(data, end=end)) as server:
            with pytest.raises(InvalidMessage, match="valid HTTP response") as caught:
                await connect(server.uri)
            cause = caught.value.__cause__
            assert isinstance(cause, EOFError)
            if end == "reset" and not data:
                assert isinstance(cause.__cause__, ConnectionResetError)

    run(main())


def test_connection_ends_before_the_request(run: Run) -> None:
    async def nothing(peer: Peer) -> None:
        pass

    async def main() -> None:
        async with scripted(nothing) as server:
            with pytest.raises(InvalidMessage) as caught:
                await connect(server.uri)
            assert isinstance(caught.value.__cause__, EOFError)

    run(main())


def test_body_until_the_end(run: Run) -> None:
    async def main() -> None:
        data = b"HTTP/1.1 503 Service Unavailable\r\n\r\nlater"
        async with scripted(answer(data, end="close")) as server:
            with pytest.raises(InvalidStatus) as caught:
                await connect(server.uri)
            assert caught.value.response.body == b"later"

    run(main())


@pytest.mark.parametrize(
    ("data", "kind", "cause"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", InvalidMessage, "no version"),
        (b"\x15\x03\x01\x00\x02\x02\x46", InvalidMessage, "not HTTP"),
        (b"HTTP/1.1 200 OK\nX: y\n\n", InvalidMessage, "LF without CR"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9000, HeaderLineTooLong, None),
    ],
)
def test_not_http(
    run: Run, data: bytes, kind: type[Exception], cause: str | None
) -> None:
    async def main() -> None:
        async with scripted(answer(data)) as server:
            with pytest.raises(kind) as caught:
                await connect(server.uri)
            if cause is not None:
                assert cause in str(caught.value.__cause__)

    run(main())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda head: head.replace(b"Accept: ", b"Accept: x"), InvalidHeaderValue),
        (lambda head: head.replace(b"Accept: ", b"Other: "), InvalidHeader),
        (lambda head: head.replace(b"Upgrade: websocket\r\n", b""), InvalidUpgrade),
        (lambda head: head.replace(b"n: Upgrade", b"n: close"), InvalidUpgrade),
        (
            lambda head: head[:-2] + b"Sec-WebSocket-Protocol: chat\r\n\r\n",
            NegotiationError,
        ),
        (
            lambda head: head[:-2] + b"Sec-WebSocket-Extensions: other\r\n\r\n",
            NegotiationError,
        ),
    ],
)
def test_wrong_acceptance(
    run: Run, change: Callable[[bytes], bytes], kind: type[Exception]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(change(peer.accept()))
        await peer.ended()

    async def main() -> None:
        async with scripted(script) as server:
            with pytest.raises(kind):
                await connect(server.uri)

    run(main())


# -- waits that end ------------------------------------------------------------------


class Stages:
    """A server that stops at a stage, and tells when it is there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def script(self, peer: Peer) -> None:
        await peer.request()
        self.reached.set()
        assert await peer.ended() == b""

    async def silence(self, peer: Peer) -> None:
        self.reached.set()
        await peer.ended()  # whatever it says: a TLS handshake


@pytest.mark.parametrize("stage", ["response", "tls"])
def test_open_timeout(run: Run, tls: TLS, stage: str) -> None:
    async def main() -> None:
        stages = Stages()
        script = stages.script if stage == "response" else stages.silence
        async with scripted(script) as server:
            uri, options = server.uri, {}
            if stage == "tls":
                uri, options = uri.replace("ws:", "wss:"), {"ssl": tls.client}
            text = "timed out during opening handshake"
            with pytest.raises(TimeoutError, match=text):
                await connect(uri, open_timeout=0.1, **options)

    run(main())


@pytest.mark.parametrize("stage", ["response", "tls"])
def test_cancel(run: Run, tls: TLS, stage: str) -> None:
    async def main() -> None:
        stages = Stages()
        script = stages.script if stage == "response" else stages.silence
        async with scripted(script) as server:  # which waits for the client to leave
            uri, options = server.uri, {}
            if stage == "tls":
                uri, options = uri.replace("ws:", "wss:"), {"ssl": tls.client}

            async def connecting() -> None:
                await connect(uri, **options)

            task = asyncio.create_task(connecting())
            await stages.reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_cancel_after_every_number_of_turns(run: Run, tls: TLS, secure: bool) -> None:
    async def script(peer: Peer) -> None:
        try:
            await echo(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client was cancelled

    async def main() -> None:
        options = {"ssl": tls.client} if secure else {}
        async with scripted(script, tls=tls.server if secure else None) as server:

            async def connecting() -> None:
                async with connect(server.uri, compression=None, **options) as ws:
                    await ws.send("hello")
                    assert await ws.recv() == "hello"

            turns = 0
            while True:
                task = asyncio.create_task(connecting())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not task.cancel():
                    break
                with pytest.raises(asyncio.CancelledError):
                    await task
                turns += 1
            await task
            assert turns > 3

    run(main())


# -- connecting again and again ------------------------------------------------------


def no_delays() -> Iterator[float]:
    while True:
        yield 0


def test_reconnect(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        scripts = (echo, refuse("503 No"), answer(b"", end="close"), echo, echo)
        rounds = 0
        async with scripted(*scripts) as server:
            connecting = connect(
                server.uri, compression=None, reconnect_delays=no_delays
            )
            async with aclosing(aiter(connecting)) as connections:
                async for ws in connections:
                    rounds += 1
                    await ws.send("hello")
                    assert await ws.recv() == "hello"
                    if rounds == 1:
                        await ws.close()
                        with pytest.raises(ConnectionClosed):
                            await ws.recv()
                        continue
                    if rounds == 3:
                        break
            assert ws.close_code == 1000
            assert len(server.peers) == 5

    with caplog.at_level(logging.INFO, "websock.client"):
        run(main())
    lines = [line for line in caplog.messages if "next attempt" in line]
    assert len(lines) == 2
    assert lines[0].startswith("cannot connect, next attempt in 0.0 seconds: websock.")
    assert "HTTP 503" in lines[0]


def test_reconnect_ends_with_what_is_final(run: Run) -> None:
    async def main() -> None:
        async with scripted(refuse("503 No"), refuse("403 No")) as server:
            with pytest.raises(InvalidStatus) as caught:
                async for _ in connect(server.uri, reconnect_delays=no_delays):
                    pass
            assert caught.value.response.status_code == 403
            assert len(server.peers) == 2

    run(main())


@pytest.mark.parametrize("raises", [False, True])
def test_process_exception(run: Run, raises: bool) -> None:
    def decide(exc: Exception) -> Exception | None:
        assert isinstance(exc, InvalidStatus)
        if exc.response.status_code == 403:
            return None
        if raises:
            raise KeyError("mine")
        return KeyError("mine")

    async def main() -> None:
        async with scripted(refuse("403 No"), refuse("404 No")) as server:
            with pytest.raises(KeyError) as caught:
                async for _ in connect(
                    server.uri, reconnect_delays=no_delays, process_exception=decide
                ):
                    pass
            assert isinstance(caught.value.__cause__, InvalidStatus)

    run(main())


def test_delays_begin_again_after_a_success(run: Run) -> None:
    begun = []

    def delays() -> Iterator[float]:
        begun.append(True)
        yield 0
        yield 0

    async def main() -> None:
        no = refuse("503 No")
        async with scripted(no, no, echo, no, echo) as server:
            connecting = connect(server.uri, reconnect_delays=delays)
            async with aclosing(aiter(connecting)) as connections:
                async for _ in connections:
                    if len(server.peers) == 5:
                        break
        assert len(begun) == 2

    run(main())
