"""An echo server as Node's documentation shows it: pages and WebSockets on one port.

The HTTP server is a few lines on ``asyncio.start_server``.  It serves one page, and
gives requests for WebSockets away.  Open http://localhost:8080/ in a browser; another
port goes on the command line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from websock.events import WebSocketRequest, WebSocketServer, is_upgrade

PAGE = Path(__file__).with_name("events_echo.html")


def make_server(port: int) -> WebSocketServer:
    # Without a host: it does not listen, others hand connections over to it.
    # Accepting every request would let any page use this server.
    server = WebSocketServer(auto_accept=False)
    allowed = (f"http://localhost:{port}", f"http://127.0.0.1:{port}")

    @server.on("request")
    def on_request(request: WebSocketRequest) -> None:
        if request.origin not in allowed:
            request.reject(403, "origin is not allowed")
            print("rejected a connection from", request.origin)
            return
        connection = request.accept("echo-protocol", request.origin)
        print("accepted a connection from", connection.remote_address)

        @connection.on("message")
        def on_message(message: str | bytes) -> None:
            if isinstance(message, str):
                print("received text:", message[:60])
                connection.send_utf8(message)
            else:
                print("received", len(message), "bytes")
                connection.send_bytes(message)

        @connection.on("close")
        def on_close(code: int, reason: str) -> None:
            print("disconnected", connection.remote_address, code, reason)

    return server


async def answer(
    server: WebSocketServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request, of whatever kind."""
    try:
        async with asyncio.timeout(60):  # browsers connect before they have to
            head = await reader.readuntil(b"\r\n\r\n")
        if is_upgrade(head):
            await server.handle_upgrade(reader, writer, head)
            return
        status, body = b"404 Not Found", b"There is one page only: /\n"
        if head.startswith(b"GET / "):
            status, body = b"200 OK", PAGE.read_bytes()
        writer.write(
            b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n"
            b"Content-Type: text/html; charset=utf-8\r\n\r\n" % (status, len(body))
        )
        writer.write(body)
        await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        pass
    except asyncio.CancelledError:
        pass  # the program ends
    finally:
        writer.close()


async def start(port: int) -> tuple[WebSocketServer, asyncio.Server]:
    http = await asyncio.start_server(
        lambda reader, writer: answer(server, reader, writer), "localhost", port
    )
    server = make_server(http.sockets[0].getsockname()[1])
    return server, http


async def main(port: int = 8080) -> None:
    server, http = await start(port)
    port = http.sockets[0].getsockname()[1]
    print(f"http://localhost:{port}/, Ctrl-C ends")
    async with server:  # at the end, WebSockets are closed
        try:
            await asyncio.Event().wait()
        finally:
            http.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(*map(int, sys.argv[1:])))
    except KeyboardInterrupt:
        pass
