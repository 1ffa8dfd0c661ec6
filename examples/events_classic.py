"""The event API in one go: a server that answers requests, and a browser's client.

The client says hello when it is open.  The server sends what it gets back in pieces,
each a frame of its own; the client's ``onmessage`` gets one message again.  The port
is 8765, or what the command line says.
"""

from __future__ import annotations

import asyncio
import sys

from websock.events import (
    MessageEvent,
    WebSocket,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
)

PIECE = 1000


def make_server(port: int) -> WebSocketServer:
    server = WebSocketServer("localhost", port)

    @server.on("request")
    def on_request(request: WebSocketRequest) -> None:
        if "echo" not in request.requested_protocols:
            request.reject(400, "this server speaks echo")
            return
        connection = request.accept("echo", request.origin)
        print("server: accepted", request.resource)

        @connection.on("message")
        async def on_message(message: str) -> None:
            await send_in_pieces(connection, message)

        @connection.on("close")
        def on_close(code: int, reason: str) -> None:
            print("server: closed", code, reason)

    return server


async def send_in_pieces(connection: WebSocketConnection, message: str) -> None:
    print(f"server: got {len(message)} characters, sends them by {PIECE}")
    pieces = [message[i : i + PIECE] for i in range(0, len(message), PIECE)]
    await connection.ws.send(pieces)


async def main(port: int = 8765) -> None:
    async with make_server(port) as server:
        ws = WebSocket(f"ws://localhost:{server.port}/", ["echo"])

        def on_open(event: object) -> None:
            print("client: connected, speaks", ws.protocol)
            ws.send("hello " * 1000)

        def on_message(event: MessageEvent) -> None:
            print(f"client: got {len(event.data)} characters in one message")
            ws.close(1000, "thanks")

        ws.onopen = on_open
        ws.onmessage = on_message
        ws.onerror = lambda event: print("client: failed:", event.message)
        event = await ws.closed
        print("client: closed", event.code, event.reason, event.wasClean)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
