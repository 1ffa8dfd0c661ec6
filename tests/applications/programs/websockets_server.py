"""A chat with rooms and more, on the asyncio API of websockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from journal import Notes, write
from journal import talk as noted
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets_site import LIMIT, check, first_part, query_of, select_subprotocol

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def chat(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    assert ws.request is not None
    room, name = rooms[urlsplit(ws.request.path).path], query["name"]
    room.add(ws)
    broadcast(room, f"{name} is here")
    try:
        async for text in ws:
            note("message", text)
            broadcast(room, f"{name}: {text!s}")
    finally:
        room.remove(ws)
        broadcast(room, f"{name} has left")


async def echo(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    note("subprotocol", ws.subprotocol)
    try:
        async for message in ws:
            note("message", message)
            await ws.send(message)
        note("closed", ws.close_code, ws.close_reason)
    except ConnectionClosed as exc:
        note("closed", exc)
    try:
        await ws.send("too late")
    except ConnectionClosed as exc:
        note("late", exc)


async def upload(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    digest, size = hashlib.sha256(), 0
    while isinstance(data := await ws.recv(), bytes):
        digest.update(data)
        size += len(data)
    note("uploaded", data, size)
    await ws.send(json.dumps({"size": size, "sha256": digest.hexdigest()}))


async def fail(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    raise LookupError(await ws.recv())


async def forget(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    pass


async def close(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    note("message", await ws.recv())
    await ws.close(int(query["code"]), query.get("reason", ""))
    note("closed", ws.close_code, ws.close_reason)
    await ws.recv()


ROUTES: dict[str, Callable[..., Awaitable[None]]] = {
    "chat": chat,
    "echo": echo,
    "protocols": echo,
    "upload": upload,
    "raise": fail,
    "return": forget,
    "close": close,
}


async def handle(ws: ServerConnection) -> None:
    assert ws.request is not None
    query = query_of(ws.request)
    with noted(query["talk"]) as note:
        await ROUTES[first_part(ws.request.path)](ws, query, note)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(
        handle, "127.0.0.1", 0, max_size=LIMIT, process_request=check,
        select_subprotocol=select_subprotocol,
    ) as server:  # fmt: skip
        write(port=server.sockets[0].getsockname()[1])
        await stop.wait()


asyncio.run(main())
