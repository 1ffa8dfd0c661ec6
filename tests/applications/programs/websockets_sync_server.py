"""A chat with rooms and more, on the threading API of websockets."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from urllib.parse import urlsplit

from journal import Notes, write
from journal import talk as noted
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets_site import LIMIT, check, first_part, query_of, select_subprotocol

rooms: defaultdict[str, dict[str, ServerConnection]] = defaultdict(dict)


def tell(room: dict[str, ServerConnection], text: str) -> None:
    for member in list(room.values()):
        member.send(text)


def chat(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    assert ws.request is not None
    room, name = rooms[urlsplit(ws.request.path).path], query["name"]
    room[name] = ws
    tell(room, f"{name} is here")
    try:
        for text in ws:
            note("message", text)
            tell(room, f"{name}: {text!s}")
    finally:
        del room[name]
        tell(room, f"{name} has left")


def echo(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    note("subprotocol", ws.subprotocol)
    try:
        for message in ws:
            note("message", message)
            ws.send(message)
        note("closed", ws.close_code, ws.close_reason)
    except ConnectionClosed as exc:
        note("closed", exc)
    try:
        ws.send("too late")
    except ConnectionClosed as exc:
        note("late", exc)


def upload(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    digest, size = hashlib.sha256(), 0
    while isinstance(data := ws.recv(), bytes):
        digest.update(data)
        size += len(data)
    note("uploaded", data, size)
    ws.send(json.dumps({"size": size, "sha256": digest.hexdigest()}))


def fail(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    raise LookupError(ws.recv())


def forget(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    pass


def close(ws: ServerConnection, query: dict[str, str], note: Notes) -> None:
    note("message", ws.recv())
    ws.close(int(query["code"]), query.get("reason", ""))
    note("closed", ws.close_code, ws.close_reason)
    ws.recv()


ROUTES: dict[str, Callable[..., None]] = {
    "chat": chat,
    "echo": echo,
    "protocols": echo,
    "upload": upload,
    "raise": fail,
    "return": forget,
    "close": close,
}


def handle(ws: ServerConnection) -> None:
    assert ws.request is not None
    query = query_of(ws.request)
    with noted(query["talk"]) as note:
        ROUTES[first_part(ws.request.path)](ws, query, note)


with serve(
    handle, "127.0.0.1", 0, max_size=LIMIT, process_request=check,
    select_subprotocol=select_subprotocol,
) as server:  # fmt: skip
    # It may be asked to stop before it has begun to serve.
    thread = threading.Thread(target=server.serve_forever)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    write(port=server.socket.getsockname()[1])
    thread.start()
    stop.wait()
    server.shutdown()
    thread.join()
