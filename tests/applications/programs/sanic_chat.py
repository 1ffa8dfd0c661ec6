"""A chat with rooms and more, on Sanic with its own server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections import defaultdict
from typing import Any

from journal import talk as noted
from journal import write
from sanic import Request, Sanic, Websocket
from sanic.exceptions import Forbidden, WebsocketClosed

PROTOCOLS = ["chat.v2", "chat.v1"]

app = Sanic("chat")
app.config.WEBSOCKET_MAX_SIZE = 100_000
app.config.ACCESS_LOG = False
rooms: defaultdict[str, dict[str, Any]] = defaultdict(dict)


async def tell(room: str, text: str) -> None:
    for member in list(rooms[room].values()):
        await member.send(text)


@app.websocket("/chat/<room>")
async def chat(request: Request, ws: Websocket, room: str) -> None:
    with noted(request.args["talk"][0]) as note:
        name = request.args["name"][0]
        rooms[room][name] = ws
        await tell(room, f"{name} is here")
        try:
            while True:
                text = await ws.recv()
                note("message", text)
                await tell(room, f"{name}: {text}")
        except (WebsocketClosed, asyncio.CancelledError):
            del rooms[room][name]
            await tell(room, f"{name} has left")


@app.websocket("/echo", name="echo")
@app.websocket("/protocols", subprotocols=PROTOCOLS, name="protocols")
async def echo(request: Request, ws: Websocket) -> None:
    with noted(request.args["talk"][0]) as note:
        note("subprotocol", ws.subprotocol)
        try:
            while True:
                message = await ws.recv()
                note("message", message)
                await ws.send(message)
        except (WebsocketClosed, asyncio.CancelledError):
            # Which of them it is, is a matter of luck.
            note("closed")


@app.websocket("/upload")
async def upload(request: Request, ws: Websocket) -> None:
    with noted(request.args["talk"][0]) as note:
        digest, size = hashlib.sha256(), 0
        while isinstance(data := await ws.recv(), bytes):
            digest.update(data)
            size += len(data)
        note("uploaded", data, size)
        await ws.send(json.dumps({"size": size, "sha256": digest.hexdigest()}))


@app.websocket("/raise")
async def fail(request: Request, ws: Websocket) -> None:
    with noted(request.args["talk"][0]):
        raise LookupError(await ws.recv())


@app.websocket("/return")
async def forget(request: Request, ws: Websocket) -> None:
    with noted(request.args["talk"][0]):
        pass


@app.websocket("/close")
async def close(request: Request, ws: Websocket) -> None:
    with noted(request.args["talk"][0]) as note:
        note("message", await ws.recv())
        await ws.close(int(request.args["code"][0]), request.args.get("reason", ""))
        try:
            note("after", await ws.recv())
        except (WebsocketClosed, asyncio.CancelledError):
            note("closed")


@app.websocket("/deny")
async def deny(request: Request, ws: Websocket) -> None:
    raise AssertionError("the middleware denies it")


@app.websocket("/raise-early")
async def fail_early(request: Request, ws: Websocket) -> None:
    raise AssertionError("the middleware raises")


@app.middleware("request")
async def guard(request: Request) -> None:
    if request.path == "/deny":
        with noted(request.args["talk"][0]):
            raise Forbidden("go away")
    if request.path == "/raise-early":
        with noted(request.args["talk"][0]):
            raise LookupError("before the handshake")


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    write(port=listening.getsockname()[1])
    app.run(sock=listening, single_process=True, motd=False)
