"""Send the time to everybody who is connected, once a second.

``broadcast`` builds the frame once for all connections, and does not wait for slow
ones.
"""

from __future__ import annotations

import asyncio
import datetime

import websock
from websock.asyncio.server import Server, ServerConnection


async def handler(ws: ServerConnection) -> None:
    await ws.wait_closed()


async def tell_time(server: Server) -> None:
    while True:
        websock.broadcast(server.connections, datetime.datetime.now().isoformat())
        await asyncio.sleep(1)


async def main() -> None:
    async with websock.serve(handler, "localhost", 8765) as server:
        print("ws://localhost:8765, Ctrl-C ends")
        await tell_time(server)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
