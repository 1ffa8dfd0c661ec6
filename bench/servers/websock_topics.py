"""websock, topics: what the broadcast mode sends is published.

A message is published to all topics in turn: each connection gets it once, however
many there are (see rooms.py), so the figures are comparable.  ``--broker`` carries it
to other processes.
"""

from __future__ import annotations

from typing import Any

import common
from rooms import Rooms

import websock

options = common.parse_arguments()
rooms = Rooms(options)


async def handler(ws: Any) -> None:
    ws.subscribe(rooms.enter())
    publish = ws.server.publish
    async for message in ws:
        for name in rooms.names:
            publish(name, message)


async def main() -> None:
    context = common.tls_context(options)
    topics = options.broker or "memory://"
    async with websock.serve(
        handler, "127.0.0.1", options.port, ssl=context, topics=topics
    ) as server:
        common.announce_websock(options)
        await server.serve_forever()


common.run(options, main())
