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
from scripted import (
    TLS,
    Peer,
    Run,
    echo,
    loop_fixture,
    refuse,
    scripted,
    tls_fixture,
)

import websock
from websock.asyncio.client import connect, unix_connect
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


@pytest.mark.parametrize("secure", [False, True])
def test_connection_ends_before_the_request(run: Run, tls: TLS, secure: bool) -> None:
    async def nothing(peer: Peer) -> None:
        pass

    async def main() -> None:
        options: dict[str, Any] = {"ssl": tls.client} if secure else {}
        async with scripted(nothing, tls=tls.server if secure else None) as server:
            with pytest.raises(InvalidMessage) as caught:
                await connect(server.uri, **options)
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
            uri = server.uri
            options: dict[str, Any] = {}
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
            uri = server.uri
            options: dict[str, Any] = {}
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
        options: dict[str, Any] = {"ssl": tls.client} if secure else {}
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
