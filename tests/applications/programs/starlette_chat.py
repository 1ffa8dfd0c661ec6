"""A chat with rooms and more, of Starlette's endpoints; run by hypercorn."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any, ClassVar

from journal import Notes
from journal import talk as noted
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PROTOCOLS = ("chat.v2", "chat.v1")


class Chat(WebSocketEndpoint):
    """A room, which members come into and leave."""

    encoding = "text"
    rooms: ClassVar[defaultdict[str, dict[str, WebSocket]]] = defaultdict(dict)

    async def tell(self, text: str) -> None:
        for member in list(self.room.values()):
            await member.send_text(text)

    async def on_connect(self, websocket: WebSocket) -> None:
        self.note = Notes(websocket.query_params["talk"])
        self.name = websocket.query_params["name"]
        self.room = self.rooms[websocket.path_params["room"]]
        await websocket.accept()
        self.room[self.name] = websocket
        await self.tell(f"{self.name} is here")

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        self.note("message", data)
        await self.tell(f"{self.name}: {data}")

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.note("closed", close_code)
        del self.room[self.name]
        await self.tell(f"{self.name} has left")
        self.note("over")


async def echo(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]) as note:
        offered = ws.scope["subprotocols"]
        note("offered", *offered)
        chosen = next((name for name in PROTOCOLS if name in offered), None)
        await ws.accept(subprotocol=chosen, headers=[(b"x-served-by", b"echo")])
        while (event := await ws.receive())["type"] == "websocket.receive":
            data = event.get("text")
            if data is None:
                data = event["bytes"]
            note("message", data)
            if isinstance(data, str):
                await ws.send_text(data)
            else:
                await ws.send_bytes(data)
        note("closed", event["code"], event.get("reason"))
        try:
            await ws.send_text("too late")
        except Exception as exc:
            note("late", exc)


async def upload(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]) as note:
        await ws.accept()
        digest, size = hashlib.sha256(), 0
        while (event := await ws.receive()).get("bytes") is not None:
            digest.update(event["bytes"])
            size += len(event["bytes"])
        note("uploaded", event.get("text"), size)
        await ws.send_json({"size": size, "sha256": digest.hexdigest()})
        await ws.close()


async def fail(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]):
        await ws.accept()
        raise LookupError(await ws.receive_text())


async def fail_early(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]):
        raise LookupError("before the handshake")


async def forget(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]):
        await ws.accept()


async def close(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]) as note:
        await ws.accept()
        note("message", await ws.receive_text())
        await ws.close(int(ws.query_params["code"]), ws.query_params.get("reason"))
        try:
            note("after", (await ws.receive())["type"])
        except WebSocketDisconnect as exc:
            note("after", exc)


async def deny(ws: WebSocket) -> None:
    with noted(ws.query_params["talk"]):
        await ws.close()


app = Starlette(
    routes=[
        WebSocketRoute("/chat/{room}", Chat),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/protocols", echo),
        WebSocketRoute("/upload", upload),
        WebSocketRoute("/raise", fail),
        WebSocketRoute("/raise-early", fail_early),
        WebSocketRoute("/return", forget),
        WebSocketRoute("/close", close),
        WebSocketRoute("/deny", deny),
    ]
)
