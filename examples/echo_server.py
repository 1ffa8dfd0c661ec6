"""Echo server with a coroutine per connection: ``python echo_server.py``."""

from __future__ import annotations

import asyncio

import websock
from websock.asyncio.server import ServerConnection


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with websock.serve(echo, "localhost", 8765) as server:
        print("ws://localhost:8765, Ctrl-C ends")
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
