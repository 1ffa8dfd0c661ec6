"""websockets, asyncio API."""

from __future__ import annotations

import common
from websockets.asyncio.client import connect

options = common.parse_arguments()


async def main() -> None:
    common.announce("websockets", loop=options.loop)
    async with connect(options.url, compression=None, proxy=None) as ws:
        await common.measure(options, ws.send, ws.recv)


common.run(options, main())
