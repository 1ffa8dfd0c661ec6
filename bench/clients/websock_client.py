"""websock, coroutine API."""

from __future__ import annotations

import common

import websock

options = common.parse_arguments()


async def main() -> None:
    common.announce_websock(options)
    async with websock.connect(options.url, compression=None) as ws:
        await common.measure(options, ws.send, ws.recv)


common.run(options, main())
