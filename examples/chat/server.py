"""A chat with rooms: each room is a topic, and whoever comes back misses nothing.

Open http://localhost:8765/#tea in several windows.  On the command line: another port,
and the URL of a broker, with which several of these are one chat.  Or on all cores:
``websock serve server:application --workers 2``; how many are here is then said of the
same worker.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import websock
from websock import Request, Response, ServerConnection
from websock.topics import Topics, check_topic

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def serve_page(ws: ServerConnection, request: Request) -> Response | None:
    path = urlsplit(request.path).path
    if path == "/ws":
        return None
    if path != "/":
        return ws.respond(404, "there is a page at / only\n")
    response = ws.respond(200, PAGE)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    return response


async def chat(ws: ServerConnection) -> None:
    assert ws.request is not None  # it was answered
    query = parse_qs(urlsplit(ws.request.path).query)
    name = query.get("name", ["somebody"])[0][:30]
    room = f"room.{query.get('room', ['hall'])[0]}"
    since = query.get("since", [None])[0]
    try:
        check_topic(room)  # a pattern would be all rooms
        await ws.subscribe(room, numbered=True, last=20, since=since)
    except ValueError:
        await ws.close(1008, "no such room")
        return

    def tell(**event: object) -> None:
        ws.server.publish(room, json.dumps({"name": name, **event}))

    tell(event="comes in", here=len(ws.server.subscribers(room)))
    try:
        async for message in ws:
            tell(text=message)
    finally:
        tell(event="leaves", here=len(ws.server.subscribers(room)))


def serving(port: int = 8765, broker: str | None = None) -> websock.serve:
    return websock.serve(
        chat,
        "localhost",
        port,
        topics=Topics(broker, history=100),
        process_request=serve_page,
        origins=[re.compile(r"http://localhost:\d+"), None],
        max_size=10_000,
        slow_consumer=websock.SlowConsumer("close", max_messages=1000),
    )


application = serving()


async def main(port: int = 8765, broker: str | None = None) -> None:
    async with serving(port, broker) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"http://localhost:{port}/", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int((sys.argv[1:] or ["8765"])[0]), *sys.argv[2:]))
    except KeyboardInterrupt:
        pass
