"""A chat with rooms and more, on trio-websocket."""

from __future__ import annotations

import hashlib
import json
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trio
from journal import Notes, write
from journal import talk as noted
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

LIMIT = 100_000
PROTOCOLS = ("chat.v2", "chat.v1")
rooms: defaultdict[str, dict[str, Any]] = defaultdict(dict)


async def tell(room: str, text: str) -> None:
    for member in list(rooms[room].values()):
        await member.send_message(text)


async def chat(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    room, name = urlsplit(request.path).path, query["name"]
    ws = await request.accept()
    rooms[room][name] = ws
    await tell(room, f"{name} is here")
    try:
        while True:
            text = await ws.get_message()
            note("message", text)
            await tell(room, f"{name}: {text}")
    except ConnectionClosed as exc:
        note("closed", exc)
    del rooms[room][name]
    await tell(room, f"{name} has left")


async def echo(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    offered = request.proposed_subprotocols
    note("offered", *offered)
    chosen = next((name for name in PROTOCOLS if name in offered), None)
    headers = [(b"X-Served-By", b"echo")]
    ws = await request.accept(subprotocol=chosen, extra_headers=headers)
    try:
        while True:
            message = await ws.get_message()
            note("message", message)
            await ws.send_message(message)
    except ConnectionClosed as exc:
        note("closed", exc)
    try:
        await ws.send_message("too late")
    except ConnectionClosed as exc:
        note("late", exc)


async def upload(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    ws = await request.accept()
    digest, size = hashlib.sha256(), 0
    while isinstance(data := await ws.get_message(), bytes):
        digest.update(data)
        size += len(data)
    note("uploaded", data, size)
    await ws.send_message(json.dumps({"size": size, "sha256": digest.hexdigest()}))


async def fail(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    ws = await request.accept()
    try:
        raise LookupError(await ws.get_message())
    except LookupError as exc:
        # One that is not caught ends the server.
        note("failed", exc)
        await ws.aclose(1011, "sorry")


async def forget(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    await request.accept()


async def close(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    ws = await request.accept()
    note("message", await ws.get_message())
    try:
        await ws.aclose(int(query["code"]), query.get("reason"))
        note("after", await ws.get_message())
    except ConnectionClosed as exc:
        note("closed", exc)
    except Exception as exc:
        note("failed", exc)


async def deny(request: WebSocketRequest, query: dict[str, str], note: Notes) -> None:
    headers = [(b"X-Why", b"rules")]
    await request.reject(403, extra_headers=headers, body=b"go away\n")


ROUTES: dict[str, Callable[..., Awaitable[None]]] = {
    "chat": chat,
    "echo": echo,
    "protocols": echo,
    "upload": upload,
    "raise": fail,
    "return": forget,
    "close": close,
    "deny": deny,
    "raise-early": deny,
}


async def serve(request: WebSocketRequest) -> None:
    parts = urlsplit(request.path)
    query = dict(parse_qsl(parts.query))
    handler = ROUTES.get(parts.path.split("/")[1])
    if handler is None:
        await request.reject(404, body=b"no such path\n")
        return
    with noted(query["talk"]) as note:
        await handler(request, query, note)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve_websocket(
                serve, "127.0.0.1", 0, None,
                max_message_size=LIMIT, task_status=task_status,
            )
        )  # fmt: skip
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            write(port=server.port)
            async for _ in signals:
                nursery.cancel_scope.cancel()


trio.run(main)
