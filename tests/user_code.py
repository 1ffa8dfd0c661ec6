"""What users write, for the type checker: ``make check`` runs mypy over it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus

import websock
from websock.asyncio.client import ClientConnection, connect
from websock.asyncio.server import Server, ServerConnection, broadcast, serve
from websock.events import (
    CloseEvent,
    MessageEvent,
    WebSocket,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketRouter,
    WebSocketServer,
)
from websock.exceptions import ConnectionClosed, InvalidStatus
from websock.frames import CloseCode
from websock.http11 import Request, Response
from websock.protocol import SEND_EOF, State
from websock.typing import Subprotocol


async def client() -> str | None:
    async with connect("ws://localhost:8765", max_size=2**20) as ws:
        await ws.send("text")
        await ws.send(b"bytes")
        await ws.send(["in ", "fragments"])
        message: str | bytes = await ws.recv()
        text: str = await ws.recv(decode=True)
        data: bytes = await ws.recv(decode=False)
        latency: float = await (await ws.ping())
        await ws.pong(b"unasked")
        print(message, text, data, latency, ws.latency, ws.state is State.OPEN)
        async for part in ws.recv_streaming():
            print(len(part))
    print(ws.close_code, ws.close_reason)
    return ws.subprotocol


async def fragments() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def reconnecting() -> None:
    async for ws in websock.connect(
        "wss://localhost", ssl=ssl.create_default_context()
    ):
        try:
            await ws.send(fragments())
            async for message in ws:
                print(message)
        except ConnectionClosed as exc:
            print(exc.rcvd.code if exc.rcvd else None, exc.sent, exc.rcvd_then_sent)
            continue


async def refused() -> int:
    ws: ClientConnection
    try:
        ws = await websock.connect("ws://localhost", subprotocols=[Subprotocol("chat")])
    except InvalidStatus as exc:
        return exc.response.status_code
    await ws.close(CloseCode.GOING_AWAY, "bye")
    await ws.wait_closed()
    return 101


async def handler(ws: ServerConnection) -> None:
    assert ws.request is not None
    print(ws.id, ws.remote_address, ws.request.path, ws.request.headers["Host"])
    async for message in ws:
        await ws.send(message)


def process_request(ws: ServerConnection, request: Request) -> Response | None:
    if request.path == "/health":
        return ws.respond(HTTPStatus.OK, "fine\n")
    return None


async def server() -> None:
    async with serve(
        handler,
        "localhost",
        8765,
        origins=["https://example.com", None],
        process_request=process_request,
        compression="deflate",
    ) as server:
        tell(server, "hello")
        await server.serve_forever()


def tell(server: Server, message: str) -> None:
    broadcast(server.connections, message)


class Echo(websock.Listener):
    def on_message(self, ws: ServerConnection, message: str | bytes) -> None:
        ws.send_nowait(message)
        if ws.buffered_amount > 2**20:
            ws.pause_reading()


async def listening() -> None:
    server = await websock.serve(Echo, "localhost", 8765)
    async with websock.connect("ws://localhost:8765", listener=Echo()) as ws:
        ws.send_nowait("hello")
        await ws.wait_closed()
    server.close()
    await server.wait_closed()


def sans_io(received: bytes) -> bytes:
    protocol = websock.ServerProtocol()
    protocol.receive_data(received)
    for event in protocol.events_received():
        if isinstance(event, Request):
            protocol.send_response(protocol.accept(event))
    return b"".join(data for data in protocol.data_to_send() if data != SEND_EOF)


async def events() -> tuple[int, str]:
    server = WebSocketServer("localhost", 0, auto_accept=False, max_size=2**20)
    router = WebSocketRouter(server)

    @router.mount("/chat", "chat")
    def chat(request: WebSocketRequest) -> None:
        name: str = request.cookies.get("name", "somebody")
        if request.origin is None:
            return request.reject(403, "no browser", {"Retry-After": "1"})
        connection: WebSocketConnection = request.accept(
            "chat", request.origin, {"name": name}, headers={"X-Name": name}
        )

        @connection.on("message")
        async def on_message(message: str | bytes) -> None:
            if not connection.send(message):
                connection.pause()

        connection.on("drain", connection.resume)
        connection.once("close", lambda code, reason: print(code, reason))
        return None

    async with server:
        ws = WebSocket(f"ws://localhost:{server.port}/chat", ["chat"], max_size=None)
        ws.onopen = lambda event: ws.send("hello")
        ws.binaryType = "memoryview"

        def on_message(event: MessageEvent) -> None:
            print(event.data, event.origin, event.target is ws)

        ws.addEventListener("message", on_message, once=True)
        opened: WebSocket = await ws.opened
        opened.close(1000, "bye")
        event: CloseEvent = await ws.closed
        print(ws.readyState == WebSocket.CLOSED, ws.bufferedAmount, event.wasClean)
        server.broadcast("all of you")
        return event.code, event.reason


if __name__ == "__main__":
    asyncio.run(client())
