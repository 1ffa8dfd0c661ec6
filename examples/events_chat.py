"""A chat on the port of an aiohttp application: pages, and WebSockets by path.

Open http://localhost:8080/ in several windows; another port goes on the command line.
Needs ``aiohttp``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web

from websock.events import WebSocketRequest, WebSocketRouter, WebSocketServer

PAGE = Path(__file__).with_name("events_chat.html")


async def page(request: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE)


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", page)
    server = WebSocketServer(http_server=app)
    router = WebSocketRouter(server)

    @router.mount("/rooms/*", "chat")
    def chat(request: WebSocketRequest) -> None:
        if request.origin != f"http://{request.headers['Host']}":
            request.reject(403, "origin is not allowed")
            return
        room = request.path.removeprefix("/rooms/")
        name = request.cookies.get("name", "somebody")
        connection = request.accept("chat", request.origin)

        def tell(text: str) -> None:
            for other in server.connections:
                if other.request.path == request.path:
                    other.send(text)

        tell(f"{name} comes into {room}")
        connection.on("message", lambda text: tell(f"{name}: {text}"))
        connection.on("close", lambda code, reason: tell(f"{name} leaves"))

    @router.mount("/time")
    def time(request: WebSocketRequest) -> None:
        connection = request.accept()
        connection.send("it is late")
        connection.close()

    return app


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    web.run_app(make_app(), host="localhost", port=port)
