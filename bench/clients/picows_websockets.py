"""picows, its API in the style of websockets."""

from __future__ import annotations

import common
from picows.websockets import connect

options = common.parse_arguments()


async def main() -> None:
    common.announce("picows", loop=options.loop)
    async with connect(options.url, compression=None) as ws:
        await common.measure(options, ws.send, ws.recv)


common.run(options, main())
