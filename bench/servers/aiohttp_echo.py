"""aiohttp."""

from __future__ import annotations

import asyncio
from typing import Any

import common
from aiohttp import WSMsgType, web

options = common.parse_arguments()
connections: set[Any] = set()


async def echo(request: web.Request) -> Any:
    ws = make(**extra)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def broadcast(request: web.Request) -> Any:
    ws = make(**extra)
    await ws.prepare(request)
    connections.add(ws)
    async for message in ws:
        for to in connections:
            await to.send_str(message.data)
    connections.discard(ws)
    return ws


async def main() -> None:
    app = web.Application()
    app.router.add_get("/", echo if options.mode == "echo" else broadcast)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(
        runner,
        "127.0.0.1",
        options.port,
        backlog=4096,
        ssl_context=common.tls_context(options),
    )
    await site.start()
    common.announce("aiohttp", loop=options.loop)
    await asyncio.Event().wait()


make: Any = web.WebSocketResponse
extra: dict[str, Any] = {"max_msg_size": options.max_size} if options.max_size else {}
common.run(options, main())
