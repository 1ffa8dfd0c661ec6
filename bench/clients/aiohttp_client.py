"""aiohttp."""

from __future__ import annotations

from typing import Any

import aiohttp
import common

options = common.parse_arguments()


async def main() -> None:
    common.announce("aiohttp", loop=options.loop)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(options.url) as ws,
    ):

        async def receive() -> Any:
            return (await ws.receive()).data

        send = ws.send_bytes if options.kind == "binary" else ws.send_str
        await common.measure(options, send, receive)


common.run(options, main())
