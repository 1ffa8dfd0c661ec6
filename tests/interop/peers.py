"""The other implementations, each as an echo server and as a client.

An echo server sends every message back, except the text "close 4000 reason", with
which it closes.  It picks the subprotocol "chat".  A client sends messages and waits
for each echo, pings once, and closes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
MAX_SIZE = 16 * 1024 * 1024

Message = str | bytes


@dataclass(frozen=True)
class Security:
    """Contexts of both sides, and the same as files for programs that are no Python."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    cert: Path
    key: Path
    ca: Path


@dataclass
class Setup:
    """What a test varies."""

    security: Security | None
    deflate: bool

    @property
    def server_ssl(self) -> ssl.SSLContext | None:
        return self.security and self.security.server

    @property
    def client_ssl(self) -> ssl.SSLContext | None:
        return self.security and self.security.client

    def url(self, port: int) -> str:
        return f"{'wss' if self.security else 'ws'}://{HOST}:{port}/some/path?query=1"


@dataclass
class Talk:
    """What a client of a peer found."""

    messages: list[Message] = field(default_factory=list)
    extensions: str = ""
    subprotocol: str | None = None
    code: int | None = None
    reason: str = ""
    ponged: bool = False


class Peer(Protocol):
    """Another implementation."""

    name: str

    def serve(self, setup: Setup) -> contextlib.AbstractAsyncContextManager[int]:
        """Serve echo, giving the port."""

    async def talk(
        self,
        url: str,
        setup: Setup,
        messages: Sequence[Message],
        close: tuple[int, str] | None = (1000, ""),
    ) -> Talk:
        """Send messages one by one; ``close=None`` waits for the server to close."""


def asked_to_close(message: object) -> tuple[int, str] | None:
    """Return the code and reason in "close 4000 reason"."""
    if isinstance(message, str) and message.startswith("close "):
        _, code, reason = message.split(" ", 2)
        return int(code), reason
    return None


class WebsocketsPeer:
    """websockets, and what has the same API."""

    name = "websockets"
    server = "websockets.asyncio.server"
    client = "websockets.asyncio.client"
    server_options: Mapping[str, Any] = {}

    @contextlib.asynccontextmanager
    async def serve(self, setup: Setup) -> AsyncIterator[int]:
        async def echo(ws: Any) -> None:
            async for message in ws:
                if close := asked_to_close(message):
                    await ws.close(*close)
                else:
                    await ws.send(message)

        async with import_module(self.server).serve(
            echo,
            HOST,
            0,
            ssl=setup.server_ssl,
            compression="deflate" if setup.deflate else None,
            subprotocols=["chat"],
            select_subprotocol=lambda ws, offered: (
                "chat" if "chat" in offered else None
            ),
            max_size=MAX_SIZE,
            **self.server_options,
        ) as server:
            yield next(iter(server.sockets)).getsockname()[1]

    async def talk(
        self,
        url: str,
        setup: Setup,
        messages: Sequence[Message],
        close: tuple[int, str] | None = (1000, ""),
    ) -> Talk:
        result = Talk()
        async with import_module(self.client).connect(
            url,
            ssl=setup.client_ssl,
            compression="deflate" if setup.deflate else None,
            subprotocols=["chat"],
            max_size=MAX_SIZE,
            proxy=None,
        ) as ws:
            assert ws.response is not None
            result.extensions = ws.response.headers.get("Sec-WebSocket-Extensions", "")
            result.subprotocol = ws.subprotocol
            await (await ws.ping(b"are you there"))
            result.ponged = True
            for message in messages:
                await ws.send(message)
                if asked_to_close(message) is None:
                    result.messages.append(await ws.recv())
            if close is not None:
                await ws.close(*close)
            await ws.wait_closed()
            result.code, result.reason = ws.close_code, ws.close_reason or ""
        return result


class PicowsPeer(WebsocketsPeer):
    """picows, its API in the style of websockets."""

    name = "picows"
    server = client = "picows.websockets"
    # With it, picows 2.3.1 stops in the middle of many messages over TLS until a ping
    # comes, whoever the client is.
    server_options: Mapping[str, Any] = {"use_aiofastnet": False}


class TornadoPeer:
    name = "tornado"

    @contextlib.asynccontextmanager
    async def serve(self, setup: Setup) -> AsyncIterator[int]:
        from tornado.httpserver import HTTPServer
        from tornado.netutil import bind_sockets
        from tornado.web import Application
        from tornado.websocket import WebSocketHandler

        class Echo(WebSocketHandler):
            def select_subprotocol(self, subprotocols: list[str]) -> str | None:
                return "chat" if "chat" in subprotocols else None

            def get_compression_options(self) -> dict[str, Any] | None:
                return {} if setup.deflate else None

            def check_origin(self, origin: str) -> bool:
                return True

            async def on_message(self, message: str | bytes) -> None:
                if close := asked_to_close(message):
                    self.close(*close)
                else:
                    await self.write_message(message, isinstance(message, bytes))

        application = Application([("/.*", Echo)], websocket_max_message_size=MAX_SIZE)
        server = HTTPServer(application, ssl_options=setup.server_ssl)
        sockets = bind_sockets(0, HOST)
        server.add_sockets(sockets)
        try:
            yield sockets[0].getsockname()[1]
        finally:
            server.stop()
            await server.close_all_connections()

    async def talk(
        self,
        url: str,
        setup: Setup,
        messages: Sequence[Message],
        close: tuple[int, str] | None = (1000, ""),
    ) -> Talk:
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import WebSocketClientConnection, websocket_connect

        class Connection(WebSocketClientConnection):
            def on_pong(self, data: bytes) -> None:
                ponged.set()

        result = Talk()
        ponged = asyncio.Event()
        request = HTTPRequest(url, ssl_options=setup.client_ssl)
        ws = await websocket_connect(
            request,
            compression_options={} if setup.deflate else None,
            max_message_size=MAX_SIZE,
            subprotocols=["chat"],
        )
        ws.__class__ = Connection
        result.extensions = ws.headers.get("Sec-WebSocket-Extensions", "")
        result.subprotocol = ws.selected_subprotocol
        ws.ping(b"are you there")
        for message in messages:
            await ws.write_message(message, isinstance(message, bytes))
            if asked_to_close(message) is None:
                answer = await ws.read_message()
                assert answer is not None
                result.messages.append(answer)
        if messages:
            result.ponged = ponged.is_set()
        if close is not None:
            ws.close(*close)
        assert await ws.read_message() is None
        ws.close()  # else it complains of not having been closed
        result.code, result.reason = ws.close_code, ws.close_reason or ""
        return result


class AiohttpPeer:
    name = "aiohttp"

    @contextlib.asynccontextmanager
    async def serve(self, setup: Setup) -> AsyncIterator[int]:
        from aiohttp import WSMsgType, web

        async def echo(request: web.Request) -> web.WebSocketResponse:
            ws = web.WebSocketResponse(
                protocols=["chat"], compress=setup.deflate, max_msg_size=MAX_SIZE
            )
            await ws.prepare(request)
            async for message in ws:
                if message.type == WSMsgType.BINARY:
                    await ws.send_bytes(message.data)
                elif close := asked_to_close(message.data):
                    await ws.close(code=close[0], message=close[1].encode())
                elif message.type == WSMsgType.TEXT:
                    await ws.send_str(message.data)
            return ws

        app = web.Application()
        app.router.add_get("/{path:.*}", echo)
        runner = web.AppRunner(app, shutdown_timeout=5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, 0, ssl_context=setup.server_ssl)
            await site.start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def talk(
        self,
        url: str,
        setup: Setup,
        messages: Sequence[Message],
        close: tuple[int, str] | None = (1000, ""),
    ) -> Talk:
        import aiohttp

        result = Talk()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                url,
                ssl=setup.client_ssl or True,
                protocols=["chat"],
                compress=15 if setup.deflate else 0,
                max_msg_size=MAX_SIZE,
                autoping=False,
            ) as ws,
        ):
            result.extensions = "permessage-deflate" if ws.compress else ""
            result.subprotocol = ws.protocol
            await ws.ping(b"are you there")
            pong = await ws.receive()
            result.ponged = pong.type == aiohttp.WSMsgType.PONG
            for message in messages:
                if isinstance(message, str):
                    await ws.send_str(message)
                else:
                    await ws.send_bytes(message)
                if asked_to_close(message) is None:
                    answer = await ws.receive()
                    result.messages.append(answer.data)
            if close is None:
                answer = await ws.receive()
                assert answer.type == aiohttp.WSMsgType.CLOSE
                result.code, result.reason = answer.data, answer.extra or ""
            else:
                await ws.close(code=close[0], message=close[1].encode())
                result.code, result.reason = ws.close_code, close[1]
        return result


class WsPeer:
    """ws from npm, in a process of its own."""

    name = "ws"

    def __init__(self, node: str) -> None:
        self.node = node

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            self.node, str(HERE / "echo.mjs"), *arguments, stdin=pipe, stdout=pipe
        )

    @contextlib.asynccontextmanager
    async def serve(self, setup: Setup) -> AsyncIterator[int]:
        options: dict[str, Any] = {"deflate": setup.deflate}
        if setup.security is not None:
            options["cert"] = str(setup.security.cert)
            options["key"] = str(setup.security.key)
        process = await self.start("server", json.dumps(options))
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(await process.stdout.readline())["port"]
        finally:
            process.stdin.close()  # this ends it
            await process.wait()

    async def talk(
        self,
        url: str,
        setup: Setup,
        messages: Sequence[Message],
        close: tuple[int, str] | None = (1000, ""),
    ) -> Talk:
        options = {
            "url": url,
            "deflate": setup.deflate,
            "ca": str(setup.security.ca) if setup.security else None,
            "protocols": ["chat"],
            "messages": [
                ("text", message)
                if isinstance(message, str)
                else ("binary", base64.b64encode(message).decode())
                for message in messages
            ],
            "close": close,
        }
        process = await self.start("client")
        output, _ = await process.communicate(json.dumps(options).encode())
        found = json.loads(output)
        return Talk(
            messages=[
                data if kind == "text" else base64.b64decode(data)
                for kind, data in found["messages"]
            ],
            extensions=found["extensions"],
            subprotocol=found["protocol"] or None,
            code=found["code"],
            reason=found["reason"],
            ponged=found["pongs"] > 0,
        )
