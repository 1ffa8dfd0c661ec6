"""websockets, asyncio API: rooms as sets, each broadcast to; see websock_topics.py."""

from __future__ import annotations

from typing import Any

import common
from rooms import Rooms

options = common.parse_arguments()

from websockets.asyncio.server import broadcast, serve  # noqa: E402

rooms = Rooms(options)
members: dict[str, set[Any]] = {}


async def handler(ws: Any) -> None:
    members.setdefault(rooms.enter(), set()).add(ws)
    async for message in ws:
        for room in members.values():
            broadcast(room, message)


async def main() -> None:
    context = common.tls_context(options)
    async with serve(handler, "127.0.0.1", options.port, ssl=context) as server:
        common.announce("websockets", loop=options.loop)
        await server.serve_forever()


common.run(options, main())
