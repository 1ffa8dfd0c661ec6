"""Send lines to a server and print what it answers: ``python echo_client.py [URL]``."""

from __future__ import annotations

import asyncio
import sys

import websock


async def main(url: str) -> None:
    async with websock.connect(url) as ws:
        for line in ("one", "two", "three"):
            await ws.send(line)
            print(f"sent {line!r}, received {await ws.recv()!r}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765"))
