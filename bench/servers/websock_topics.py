"""websock, topics: what the broadcast mode sends is published.

Without ``--per-topic`` everybody has subscribed to one topic.  With it, so many
connections share a topic each, and a message is published to all topics in turn: each
connection still gets it once, so the figures are comparable.
"""

from __future__ import annotations

import itertools
from typing import Any

import common

import websock

options = common.parse_arguments()
numbers = itertools.count()
topics: list[str] = []


async def handler(ws: Any) -> None:
    number = next(numbers)
    topic = f"room.{number // options.per_topic if options.per_topic else 0}"
    if not topics or topics[-1] != topic:
        topics.append(topic)
    ws.subscribe(topic)
    publish = ws.server.publish
    async for message in ws:
        for name in topics:
            publish(name, message)


async def main() -> None:
    context = common.tls_context(options)
    async with websock.serve(handler, "127.0.0.1", options.port, ssl=context) as server:
        common.announce_websock(options)
        await server.serve_forever()


common.run(options, main())
