"""Conversations with every API, in whatever world this interpreter is.

Run by ``tests/test_worlds.py``, which reads what is printed: a line for each that is done.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import threading
from typing import Any

import trustme

import websock
from websock.asyncio.client import connect, unix_connect
from websock.asyncio.loops import can_own_sockets
from websock.asyncio.server import ServerConnection, serve, unix_serve
from websock.events import WebSocket, WebSocketServer
from websock.sync.client import connect as connect_sync
from websock.sync.client import unix_connect as unix_connect_sync
from websock.sync.server import serve as serve_sync

LARGE = b"\0\1\2\3" * 500_000
LONG = 30

authority = trustme.CA()
SERVER_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost", "127.0.0.1").configure_cert(SERVER_TLS)
CLIENT_TLS = ssl.create_default_context()
authority.configure_trust(CLIENT_TLS)


def address(server: Any, secure: bool, scheme: str = "ws") -> str:
    port = server.sockets[0].getsockname()[1]
    return f"{scheme}{'s' if secure else ''}://127.0.0.1:{port}"


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def coroutine(secure: bool) -> None:
    """Echo, large messages, fragments, drain, the close handshake."""
    server_options: dict[str, Any] = {"ssl": SERVER_TLS} if secure else {}
    options: dict[str, Any] = {"ssl": CLIENT_TLS} if secure else {}
    async with serve(echo, "127.0.0.1", 0, max_size=None, **server_options) as server:
        async with connect(address(server, secure), max_size=None, **options) as ws:
            for message in ("", "é" * 1000, LARGE):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["a", "b" * 100_000, "c"])
            assert await ws.recv() == "a" + "b" * 100_000 + "c"
            for _ in range(8):
                ws.send_nowait(LARGE)
            await ws.drain()
            for _ in range(8):
                assert await ws.recv() == LARGE
            await (await ws.ping())
        assert ws.close_code == 1000
        waiting = await connect(address(server, secure), **options)
    assert await closed(waiting) == 1001


async def closed(ws: Any) -> int | None:
    await ws.wait_closed()
    code: int | None = ws.close_code
    return code


async def listener() -> None:
    """The same with callbacks."""
    got: asyncio.Queue[Any] = asyncio.Queue()

    class Collect(websock.Listener):
        def on_message(self, ws: Any, message: Any) -> None:
            got.put_nowait(message)

    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        async with connect(
            address(server, False), listener=Collect, max_size=None
        ) as ws:
            ws.send_nowait("hello")
            ws.send_nowait(LARGE)
            assert await got.get() == "hello"
            assert await got.get() == LARGE


async def loss() -> None:
    """The peer resets the connection, never answers, or is not there."""
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        try:
            await ws.recv()
        except websock.ConnectionClosed as exc:
            ended.set_result(exc)

    async with serve(handler, "127.0.0.1", 0) as server:
        ws = await connect(address(server, False))
        sock = ws.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ws.transport.abort()
        assert isinstance(await ended, websock.ConnectionClosedError)
        await closed(ws)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        try:
            await connect(uri, open_timeout=0.1)
        except TimeoutError:
            pass
        else:
            raise AssertionError("there was no answer")
    try:
        await connect(uri)
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("nobody was there")


async def events() -> None:
    """Node's server and the browser's client."""
    done = asyncio.get_running_loop().create_future()
    server = WebSocketServer("127.0.0.1", 0, auto_accept=True)

    @server.on("connect")
    def on_connect(connection: Any) -> None:
        connection.on("message", connection.send)

    await server.listen()
    ws = WebSocket(f"ws://127.0.0.1:{server.port}")
    ws.onopen = lambda event: ws.send("hello")

    def message(event: Any) -> None:
        assert event.data == "hello"
        ws.close(1000)

    ws.onmessage = message
    ws.onclose = lambda event: done.set_result(event.code)
    assert await done == 1000
    await server.shut_down()


def threads(secure: bool) -> None:
    """The threads API: the same, and a send that waits for a peer that does not read."""
    release = threading.Event()

    def handler(ws: Any) -> None:
        if ws.request.path == "/deaf":
            release.wait(LONG)
            return
        for message in ws:
            ws.send(message)

    server = serve_sync(
        handler, "127.0.0.1", 0, max_size=None, ssl=SERVER_TLS if secure else None
    )
    with server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        port = server.socket.getsockname()[1]
        uri = f"ws{'s' if secure else ''}://127.0.0.1:{port}"
        options: dict[str, Any] = {"ssl": CLIENT_TLS} if secure else {}
        with connect_sync(uri, max_size=None, **options) as ws:
            for message in ("", "é" * 1000, LARGE):
                ws.send(message)
                assert ws.recv() == message
            ws.send(["a", "b" * 100_000, "c"])
            assert ws.recv() == "a" + "b" * 100_000 + "c"
            try:
                ws.recv(timeout=0.05)
            except TimeoutError:
                pass
            else:
                raise AssertionError("nothing was sent")
            # Longer than any wait of the system's for a socket of the main thread.
            answer = threading.Timer(1.2, ws.send, ("late",))
            answer.start()
            assert ws.recv() == "late"
        assert ws.close_code == 1000
        deaf = connect_sync(f"{uri}/deaf", close_timeout=0.3, **options)
        sender = threading.Thread(target=send_until_closed, args=(deaf,))
        sender.start()
        deaf.close()  # nobody answers, and the watcher breaks it off
        sender.join(LONG)
        assert not sender.is_alive()
        release.set()
        server.shutdown()
        serving.join(LONG)


def send_until_closed(ws: Any) -> None:
    try:
        while True:
            ws.send(LARGE)
    except websock.ConnectionClosed:
        pass


def refusals() -> None:
    """What the system does not have is named."""
    for name, call in (
        ("unix_connect", lambda: asyncio.run(awaited(unix_connect("x")))),
        ("unix_serve", lambda: asyncio.run(awaited(unix_serve(echo, "x")))),
        ("sync unix_connect", lambda: unix_connect_sync("x")),
        ("reuse_port", lambda: asyncio.run(awaited(reuse_port()))),
        ("sync reuse_port", lambda: serve_sync(print, "127.0.0.1", 0, reuse_port=True)),
    ):
        try:
            call()
        except (NotImplementedError, ValueError) as exc:
            print(f"{name}: {exc}")


async def awaited(thing: Any) -> Any:
    return await thing


def reuse_port() -> Any:
    return serve(echo, "127.0.0.1", 0, reuse_port=True)


async def everything() -> None:
    loop = asyncio.get_running_loop()
    print("own sockets:", can_own_sockets(loop))
    async with asyncio.timeout(LONG):
        for secure in (False, True):
            await coroutine(secure)
            print("coroutine", secure)
        await listener()
        print("listener")
        await loss()
        print("loss")
        await events()
        print("events")


if __name__ == "__main__":
    print(websock.BACKEND, os.environ.get("WEBSOCK_WORLD"))
    asyncio.run(everything())
    for secure in (False, True):
        threads(secure)
        print("threads", secure)
    if not hasattr(socket, "AF_UNIX"):
        refusals()
    sys.stdout.flush()
