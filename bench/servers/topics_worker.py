"""A worker whose topics are carried by a broker, for ``python -m bench brokers``.

``subscribe`` from a client subscribes it, and is answered; ``publish N SIZE`` publishes
so many messages at once.
"""

from __future__ import annotations

from typing import Any

import common

import websock

TOPIC = "prices.eur"

options = common.parse_arguments()


async def handler(ws: Any) -> None:
    async for message in ws:
        word, *numbers = message.split()
        if word == "subscribe":
            await ws.subscribe(TOPIC)
            await ws.send("subscribed")
        else:
            count, size = map(int, numbers)
            payload = bytes(size)
            for _ in range(count):
                ws.server.publish(TOPIC, payload)


async def main() -> None:
    async with websock.serve(
        handler, "127.0.0.1", options.port, topics=options.engine
    ) as server:
        common.announce_websock(options)
        await server.serve_forever()


common.run(options, main())
