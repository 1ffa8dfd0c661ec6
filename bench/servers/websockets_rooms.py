"""websockets, asyncio API: rooms as sets, each broadcast to; see websock_topics."""

from __future__ import annotations

import itertools
from typing import Any

import common

options = common.parse_arguments()

from websockets.asyncio.server import broadcast, serve  # noqa: E402

numbers = itertools.count()
rooms: dict[int, set[Any]] = {}


async def handler(ws: Any) -> None:
    number = next(numbers)
    key = number // options.per_topic if options.per_topic else 0
    rooms.setdefault(key, set()).add(ws)
    async for message in ws:
        for room in rooms.values():
            broadcast(room, message)


async def main() -> None:
    context = common.tls_context(options)
    async with serve(handler, "127.0.0.1", options.port, ssl=context) as server:
        common.announce("websockets", loop=options.loop)
        await server.serve_forever()


common.run(options, main())
