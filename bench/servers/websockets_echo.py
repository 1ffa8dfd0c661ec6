"""websockets, asyncio API."""

from __future__ import annotations

from typing import Any

import common

options = common.parse_arguments()
common.speed_up(options, "websockets")

from websockets.asyncio.server import broadcast as send_to_all  # noqa: E402
from websockets.asyncio.server import serve  # noqa: E402

connections: set[Any] = set()


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def broadcast(ws: Any) -> None:
    connections.add(ws)
    async for message in ws:
        send_to_all(connections, message)


async def main() -> None:
    extra: dict[str, Any] = {}
    if options.max_size:
        extra["max_size"] = options.max_size
    handler = echo if options.mode == "echo" else broadcast
    context = common.tls_context(options)
    async with serve(
        handler, "127.0.0.1", options.port, ssl=context, **extra
    ) as server:
        common.announce("websockets", loop=options.loop)
        await server.serve_forever()


common.run(options, main())
