"""The asyncio client, on sockets; see test_client_errors, _redirect and _proxy too."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from typing import Any

import pytest
from scripted import (
    LOOPBACK,
    TLS,
    Peer,
    Run,
    echo,
    loop_fixture,
    read_frame,
    refuse,
    run_on,
    say_bye,
    scripted,
    tls_fixture,
)
from websockets.asyncio.server import serve as their_serve
from wire import frame

import websock
from websock.asyncio.client import ClientConnection, connect
from websock.client import ClientProtocol
from websock.exceptions import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidStatus,
)
from websock.http11 import USER_AGENT
from websock.protocol import State

run = loop_fixture()
tls = tls_fixture()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect directly, whatever the environment says."""
    for name in ("http", "https", "socks", "all", "ws", "wss"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


async def their_echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


# -- ways to use it ------------------------------------------------------------------


def test_context_manager(run: Run) -> None:
    async def main() -> None:
        async with their_serve(their_echo, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://{LOOPBACK}:{port}/path?query") as ws:
                assert isinstance(ws, ClientConnection)
                assert ws.state is State.OPEN
                for message in ("text", b"bytes", "", "x" * 100_000):
                    await ws.send(message)
                    assert await ws.recv() == message
                assert ws.remote_address == (LOOPBACK, port)
                assert ws.local_address[0] == LOOPBACK
                assert ws.request is not None
                assert ws.request.path == "/path?query"
                assert ws.response is not None
                assert ws.response.status_code == 101
                assert [e.name for e in ws.protocol.extensions] == [
                    "permessage-deflate"
                ]
            assert ws.state.name == "CLOSED"
            assert ws.close_code == 1000

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_own_server(run: Run, tls: TLS, secure: bool) -> None:
    async def handler(ws: websock.ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async def main() -> None:
        theirs: dict[str, Any] = {"ssl": tls.server} if secure else {}
        ours: dict[str, Any] = {"ssl": tls.client} if secure else {}
        async with websock.serve(handler, LOOPBACK, 0, **theirs) as server:
            port = server.sockets[0].getsockname()[1]
            uri = f"{'wss' if secure else 'ws'}://{LOOPBACK}:{port}"
            async with connect(uri, **ours) as ws:
                for message in ("text", b"bytes", "", "x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert ws.close_code == 1000

    run(main())


def test_await(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            ws = await connect(server.uri, compression=None)
            await ws.send("hello")
            assert await ws.recv() == "hello"
            await ws.close(1001, "bye")
            assert (ws.close_code, ws.close_reason) == (1001, "bye")

    run(main())


def test_context_manager_closes_after_an_error(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            with pytest.raises(ZeroDivisionError):
                async with connect(server.uri, compression=None) as ws:
                    raise ZeroDivisionError
            assert ws.close_code == 1011

    run(main())


def test_connect_is_not_reentrant(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            connecting = connect(server.uri, compression=None)
            async with connecting:
                with pytest.raises(RuntimeError, match="in use already"):
                    async with connecting:
                        pass
            async with connecting as ws:
                assert ws.state is State.OPEN

    run(main())


# -- the request ---------------------------------------------------------------------


def test_request(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            async with connect(server.uri, compression=None):
                pass
            peer = server.peers[0]
            assert peer.line == "GET / HTTP/1.1"
            assert [name for name, _ in peer.headers] == [
                "Host",
                "Upgrade",
                "Connection",
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Version",
                "User-Agent",
            ]
            assert peer.all("Host") == [f"{LOOPBACK}:{server.port}"]
            assert peer.all("User-Agent") == [USER_AGENT]

    run(main())


def test_request_with_everything(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            uri = server.uri.replace("ws://", "ws://us%C3%A9r:p%3Ass@")
            async with connect(
                uri,
                origin=websock.Origin("https://example.com"),
                subprotocols=[websock.Subprotocol("chat"), websock.Subprotocol("talk")],
                additional_headers=iter([("X-One", "1"), ("X-Two", "2")]),
                user_agent_header="test",
            ):
                pass
            peer = server.peers[0]
            basic = base64.b64encode("usér:p:ss".encode()).decode()
            assert peer.all("Authorization") == [f"Basic {basic}"]
            assert peer.all("Origin") == ["https://example.com"]
            assert peer.all("Sec-WebSocket-Protocol") == ["chat, talk"]
            assert peer.all("Sec-WebSocket-Extensions") == [
                "permessage-deflate; client_max_window_bits"
            ]
            assert peer.all("X-One") + peer.all("X-Two") == ["1", "2"]
            assert peer.all("User-Agent") == ["test"]

    run(main())


def test_headers_of_the_caller_win(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            mine = {
                "host": "example.com",
                "authorization": "Bearer token",
                "origin": "null",
                "user-agent": "mine",
            }
            async with connect(
                server.uri.replace("ws://", "ws://user:pass@"),
                origin=websock.Origin("https://example.com"),
                additional_headers=mine,
            ):
                pass
            for name, value in mine.items():
                assert server.peers[0].all(name) == [value]

    run(main())


def test_no_user_agent(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            async with connect(server.uri, user_agent_header=None):
                pass
            assert server.peers[0].all("User-Agent") == []

    run(main())


def test_subprotocol(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept("Sec-WebSocket-Protocol: talk"))
        await peer.send(frame(8, b"\x03\xe8"))
        await say_bye(peer)

    async def main() -> None:
        async with scripted(script) as server:
            names = [websock.Subprotocol("chat"), websock.Subprotocol("talk")]
            async with connect(server.uri, subprotocols=names) as ws:
                assert ws.subprotocol == "talk"

    run(main())


# -- the response --------------------------------------------------------------------


def test_messages_in_the_segment_of_the_response(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        rest = frame(1, b"one") + frame(2, b"two") + frame(8, b"\x03\xe8bye")
        await peer.send(peer.accept(rest=rest))
        await say_bye(peer)

    async def main() -> None:
        async with scripted(script) as server:
            ws = await connect(server.uri)
            assert [message async for message in ws] == ["one", b"two"]
            with pytest.raises(ConnectionClosedOK, match=r"received 1000 \(OK\) bye"):
                await ws.recv()

    run(main())


def test_response_byte_by_byte(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in peer.accept(rest=frame(1, b"one") + frame(8, b"\x03\xe8")):
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        await say_bye(peer)

    async def main() -> None:
        async with scripted(script) as server:
            async with connect(server.uri) as ws:
                assert await ws.recv() == "one"

    run(main())


def test_first_message_and_end_of_the_stream(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept(rest=frame(1, b"one")))

    async def main() -> None:
        async with scripted(script) as server:
            ws = await connect(server.uri)
            assert await ws.recv() == "one"
            with pytest.raises(ConnectionClosed, match="no close frame"):
                await ws.recv()

    run(main())


# -- listeners -----------------------------------------------------------------------


class Recorder(websock.Listener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_open(self, ws: Any) -> None:
        self.events.append("open")
        ws.send_nowait("hello")

    def on_message(self, ws: Any, message: str | bytes) -> None:
        self.events.append(message)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.events.append((code, reason))


@pytest.mark.parametrize("how", ["instance", "class", "function"])
def test_listener(run: Run, how: str) -> None:
    async def main() -> None:
        recorder = Recorder()
        made: list[Recorder] = []

        class Own(Recorder):
            def __init__(self) -> None:
                super().__init__()
                made.append(self)

        listener: Any = {"instance": recorder, "class": Own, "function": lambda: Own()}
        async with scripted(say_and_close) as server:
            ws = await connect(server.uri, listener=listener[how])
            await ws.wait_closed()
        if how != "instance":
            (recorder,) = made
        assert ws.listener is recorder
        assert recorder.events == ["open", "welcome", (1000, "bye")]

    run(main())


async def say_and_close(peer: Peer) -> None:
    await peer.request()
    await peer.send(peer.accept(rest=frame(1, b"welcome")))
    assert await read_frame(peer.reader) == (1, b"hello")
    await peer.send(frame(8, b"\x03\xe8bye"))
    await say_bye(peer)


@pytest.mark.parametrize("script", [refuse("403 Forbidden"), Peer.request])
def test_listener_is_not_told_of_failures(run: Run, script: Any) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with scripted(script) as server:
            with pytest.raises((InvalidStatus, InvalidMessage)):
                await connect(server.uri, listener=recorder)
        await asyncio.sleep(0)
        assert recorder.events == []

    run(main())


def test_create_connection(run: Run) -> None:
    class Own(ClientConnection):
        pass

    def make(protocol: ClientProtocol, **kwargs: Any) -> ClientConnection:
        assert "listener" not in kwargs
        return Own(protocol, **kwargs)

    async def main() -> None:
        async with scripted(echo) as server:
            for own in (Own, make):
                async with connect(server.uri, create_connection=own) as ws:
                    assert isinstance(ws, Own)

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_create_connection_fails(run: Run, tls: TLS, secure: bool) -> None:
    def fail(protocol: ClientProtocol, **kwargs: Any) -> ClientConnection:
        raise TimeoutError("mine")

    async def main() -> None:
        options: dict[str, Any] = {"ssl": tls.client} if secure else {}
        async with scripted(Peer.ended, tls=tls.server if secure else None) as server:
            with pytest.raises(TimeoutError, match="mine"):
                await connect(server.uri, create_connection=fail, **options)

    run(main())


def test_logger(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            logger = logging.getLogger("my.client")
            async with connect(server.uri, logger=logger) as ws:
                assert ws.logger.logger is logger
            async with connect(server.uri) as ws:
                assert ws.logger.logger is logging.getLogger("websock.client")

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert {"my.client", "websock.client"} <= {record.name for record in caplog.records}
    requests = [r for r in caplog.records if r.getMessage() == "> GET / HTTP/1.1"]
    assert [type(getattr(r, "websocket", None)) for r in requests] == [
        ClientConnection
    ] * 2


# -- loops ---------------------------------------------------------------------------


class WithoutReaders(asyncio.SelectorEventLoop):
    """A loop like Windows' proactor: it cannot watch sockets for others."""

    add_reader = asyncio.AbstractEventLoop.add_reader


@pytest.mark.parametrize("secure", [False, True])
def test_loop_without_readers(tls: TLS, secure: bool) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"ssl": tls.client} if secure else {}
        async with scripted(echo, tls=tls.server if secure else None) as server:
            async with connect(server.uri, compression=None, **options) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                assert ws.remote_address == (LOOPBACK, server.port)
                assert isinstance(ws.transport, asyncio.Transport)
            assert ws.close_code == 1000
        async with scripted(refuse("403 No")) as server:
            with pytest.raises(InvalidStatus):
                await connect(server.uri)

    run_on(WithoutReaders, main())


# -- TLS -----------------------------------------------------------------------------


def test_tls(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(echo, tls=tls.server) as server:
            assert server.uri.startswith("wss:")
            async with connect(server.uri, ssl=tls.client, compression=None) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                assert ws.transport.get_extra_info("ssl_object") is not None
                assert ws.remote_address == (LOOPBACK, server.port)
            assert ws.close_code == 1000

    run(main())


def test_tls_with_many_messages_in_one_turn(run: Run, tls: TLS) -> None:
    async def main() -> None:
        messages = [b"x" * 1000] * 200  # far above write_limit
        async with (
            their_serve(their_echo, LOOPBACK, 0, ssl=tls.server) as server,
            connect(
                f"wss://{LOOPBACK}:{server.sockets[0].getsockname()[1]}",
                ssl=tls.client,
                compression=None,
            ) as ws,
        ):

            async def send() -> None:
                for message in messages:
                    await ws.send(message)

            task = asyncio.create_task(send())
            assert [await ws.recv() for _ in messages] == messages
            await task

    run(main())


def test_tls_verifies_by_default(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(Peer.ended, tls=tls.server) as server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(server.uri)
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(server.uri, ssl=True)

    run(main())


def test_tls_verifies_the_host_name(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(Peer.ended, tls=tls.server) as server:
            uri = f"wss://example.com:{server.port}/"
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                await connect(uri, ssl=tls.client, host=LOOPBACK)
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                await connect(server.uri, ssl=tls.client, server_hostname="example.com")

    run(main())


def test_tls_with_another_name(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(echo, tls=tls.server) as server:
            async with connect(
                f"wss://example.com:{server.port}/",
                ssl=tls.client,
                host=LOOPBACK,
                server_hostname="localhost",
                ssl_handshake_timeout=5,
                ssl_shutdown_timeout=5,
            ):
                pass
            assert server.peers[0].all("Host") == [f"example.com:{server.port}"]

    run(main())


def test_tls_on_a_socket_of_the_caller(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(echo, tls=tls.server) as server:
            sock = socket.create_connection((LOOPBACK, server.port))
            uri = f"wss://localhost:{server.port}/"
            async with connect(uri, ssl=tls.client, sock=sock, compression=None) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"

    run(main())
