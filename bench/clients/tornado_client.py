"""Tornado."""

from __future__ import annotations

from typing import Any

import common
from tornado.websocket import websocket_connect

options = common.parse_arguments()


async def main() -> None:
    common.announce("tornado", loop=options.loop)
    ws = await websocket_connect(options.url)

    async def send(message: Any) -> None:
        await ws.write_message(message, binary=isinstance(message, bytes))

    await common.measure(options, send, ws.read_message)


common.run(options, main())
