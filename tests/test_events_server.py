"""``WebSocketServer``: listening, all its connections, and shutting down."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from helpers import request as head
from raw import BINARY, TEXT, raw
from scripted import LOOPBACK, Run, loop_fixture, tls_fixture

import websock
from websock.events import (
    InvalidStateError,
    WebSocket,
    WebSocketRequest,
    WebSocketServer,
)

run = loop_fixture()
tls = tls_fixture()


def echo(request: WebSocketRequest) -> None:
    connection = request.accept()
    connection.on("message", connection.send)


def make(**options: Any) -> WebSocketServer:
    server = WebSocketServer(LOOPBACK, 0, **options)
    server.on("request", echo)
    return server


# -- listening -------------------------------------------------------------------------


def test_listening(run: Run) -> None:
    async def main() -> None:
        server = make()
        assert server.port is None
        assert server.sockets == ()
        await server.listen()
        assert server.port == server.sockets[0].getsockname()[1] > 0
        with pytest.raises(InvalidStateError, match=r"listening already$"):
            await server.listen()
        async with raw(server) as client:
            await client.open()
            await client.echoed("x")
        port = server.port
        await server.shut_down()
        await server.shut_down()
        assert server.sockets == ()
        with pytest.raises(InvalidStateError, match=r"is shut down$"):
            await server.listen()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, port)

    run(main())


class Announcing(WebSocketServer):
    """Tells when it listens."""

    def __init__(self) -> None:
        super().__init__(LOOPBACK, 0)
        self.listens = asyncio.Event()

    async def listen(self) -> None:
        await super().listen()
        self.listens.set()


@pytest.mark.parametrize("way", ["shut down", "cancelled"])
def test_serve_forever(run: Run, way: str) -> None:
    async def main() -> None:
        server = Announcing()
        server.on("request", echo)
        serving = asyncio.create_task(server.serve_forever())
        await server.listens.wait()
        async with raw(server) as client:
            await client.open()
            if way == "cancelled":
                serving.cancel()
                assert await client.closing() == (1001, "")
                with pytest.raises(asyncio.CancelledError):
                    await serving
            else:
                ending = asyncio.create_task(server.shut_down(1012, "restart"))
                assert await client.closing() == (1012, "restart")
                await ending
                await serving
        assert server.sockets == ()
        await server.serve_forever()  # over at once

    run(main())


def test_over_tls(run: Run, tls: Any) -> None:
    async def main() -> None:
        async with make(ssl=tls.server) as server:
            async with raw(server, ssl=tls.client) as client:
                await client.open()
                await client.echoed("x")

    run(main())


def test_on_a_socket_of_the_program(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind((LOOPBACK, 0))
            server = WebSocketServer(sock=sock)
            server.on("request", echo)
            async with server, raw(server) as client:
                await client.open()
                await client.echoed("x")

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets here")
def test_on_a_unix_socket(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")
        server = WebSocketServer(unix_path=path)
        server.on("request", echo)
        async with server, raw(path) as client:
            assert server.port is None
            await client.open()
            await client.echoed("x")

    run(main())


def test_nothing_to_listen_on(run: Run) -> None:
    async def main() -> None:
        server = WebSocketServer()
        with pytest.raises(ValueError, match=r"give host and port$"):
            await server.listen()
        async with server:
            assert server.sockets == ()
        with socket.create_server((LOOPBACK, 0)) as other:
            busy = WebSocketServer(LOOPBACK, other.getsockname()[1])
            with pytest.raises(OSError):
                await busy.listen()
            assert busy.port is None

    run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"handler": print}, TypeError),
        ({"subprotocols": ["x"]}, TypeError),
        ({"select_subprotocol": print}, TypeError),
        ({"nonsense": 1}, TypeError),
        ({"unix": True}, TypeError),
        ({"unix_path": "/x"}, ValueError),  # and a host
        ({"compression": "x"}, ValueError),
        ({"open_timeout": -1}, ValueError),
        ({"http_server": object()}, TypeError),
    ],
)
def test_wrong_options(options: Any, error: Any) -> None:
    with pytest.raises(error):
        WebSocketServer(LOOPBACK, 0, **options)


def test_options_of_serve(run: Run) -> None:
    async def main() -> None:
        async with make(compression=None, max_size=10, server_header="me") as server:
            async with websock.connect(f"ws://{LOOPBACK}:{server.port}") as ws:
                assert ws.protocol.extensions == []
                assert ws.response.headers["Server"] == "me"
                await ws.send("x" * 11)
                with pytest.raises(websock.ConnectionClosedError) as info:
                    await ws.recv()
                assert info.value.rcvd.code == 1009

    run(main())


def test_unknown_events() -> None:
    server = WebSocketServer()
    with pytest.raises(ValueError, match=r"^WebSocketServer has no event 'message'"):
        server.on("message", print)


# -- all connections -------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_broadcast(run: Run, compression: Any) -> None:
    async def main() -> None:
        async with make(compression=compression) as server:
            server.broadcast("nobody is there")
            clients = [WebSocket(f"ws://{LOOPBACK}:{server.port}") for _ in range(3)]
            queues: list[asyncio.Queue[Any]] = []
            for ws in clients:
                queue: asyncio.Queue[Any] = asyncio.Queue()
                queues.append(queue)
                ws.onmessage = lambda event, q=queue: q.put_nowait(event.data)
                await ws.opened
            # A client is open a moment after the server is.
            assert len(server.connections) == 3
            server.broadcast("é" * 1000)
            server.broadcast(b"b")
            server.broadcast(b"t", text=True)
            server.broadcast_utf8("u")
            server.broadcast_bytes(bytearray(b"c"))
            for queue in queues:
                got = [await queue.get() for _ in range(5)]
                assert got == ["é" * 1000, b"b", "t", "u", b"c"]
            for wrong in ("x", 1):
                with pytest.raises(TypeError):
                    server.broadcast_bytes(wrong)  # type: ignore[arg-type]
            with pytest.raises(UnicodeDecodeError):
                server.broadcast_utf8(b"\xff")
            clients[0].close()
            await clients[0].closed
            server.broadcast("y")
            assert [await queue.get() for queue in queues[1:]] == ["y", "y"]
            assert queues[0].empty()

    run(main())


def test_close_all_connections(run: Run) -> None:
    async def main() -> None:
        async with make() as server:
            clients = [WebSocket(f"ws://{LOOPBACK}:{server.port}") for _ in range(3)]
            for ws in clients:
                await ws.opened
            with pytest.raises(ValueError):
                server.close_all_connections(1005)
            server.close_all_connections(4000, "all")
            for ws in clients:
                event = await ws.closed
                assert (event.code, event.reason) == (4000, "all")
            assert server.connections == set()
            async with raw(server) as client:  # it goes on
                await client.open()
                await client.echoed("x")

    run(main())


def test_connections_are_let_go(run: Run) -> None:
    async def main() -> None:
        async with make() as server:
            gone: asyncio.Queue[Any] = asyncio.Queue()
            server.on("close", lambda *args: gone.put_nowait(args))
            for _ in range(3):
                async with raw(server) as client:
                    await client.open()
                await gone.get()
            assert server._connections == set()
            assert server.connections == set()

    run(main())


# -- the end ---------------------------------------------------------------------------


def test_shut_down(run: Run) -> None:
    async def main() -> None:
        server = WebSocketServer(LOOPBACK, 0)
        pending: asyncio.Queue[Any] = asyncio.Queue()

        @server.on("request")
        def on_request(request: WebSocketRequest) -> None:
            if request.path == "/open":
                request.accept()
            pending.put_nowait(request)

        await server.listen()
        async with raw(server) as opened, raw(server) as asked, raw(server) as silent:
            await opened.send(head(target="/open"))
            await opened.reader.readuntil(b"\r\n\r\n")
            await asked.send(head())
            for _ in range(2):
                request = await pending.get()
            with pytest.raises(ValueError):
                await server.shut_down(1005)
            ending = asyncio.create_task(server.shut_down(1012, "restart"))
            assert await opened.closing() == (1012, "restart")
            assert (await asked.answer()).status == 503
            if request.path != "/":
                request = pending.get_nowait()
            assert not request.is_pending
            await silent.ended()
            for client in (opened, asked, silent):
                client.writer.close()
            await ending
        assert server.connections == set()

    run(main())


def test_messages_of_each_kind_reach_a_client(run: Run) -> None:
    """Both ends are of the event API."""

    async def main() -> None:
        async with make() as server:
            ws = WebSocket(f"ws://{LOOPBACK}:{server.port}")
            got: asyncio.Queue[Any] = asyncio.Queue()
            ws.onmessage = lambda event: got.put_nowait(event.data)
            await ws.opened
            for data in ("", b"", "é" * 70_000, bytes(70_000)):
                ws.send(data)
                assert await got.get() == data
            (connection,) = server.connections
            connection.ping(b"x")
            ponged = asyncio.Event()
            connection.on("pong", lambda data: ponged.set())
            await ponged.wait()
            connection.close(4000, "enough")
            event = await ws.closed
            assert (event.code, event.reason, event.wasClean) == (4000, "enough", True)

    run(main())


def test_frames_on_the_wire(run: Run) -> None:
    async def main() -> None:
        async with make() as server, raw(server) as client:
            await client.open()
            (connection,) = server.connections
            connection.send("t")
            connection.send(b"b")
            assert await client.frame() == (TEXT, b"t")
            assert await client.frame() == (BINARY, b"b")

    run(main())
