"""The programs that tests of the hub run: ``hub ADDRESS [MAX_PENDING]``, ``worker``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from subscribers import until

import websock
from websock.hub import Hub
from websock.topics import Gap, Topics


async def hub(address: str, max_pending: str = "8388608") -> None:
    async with Hub(address, max_pending=int(max_pending)):
        print(json.dumps({}), flush=True)
        await asyncio.Event().wait()


async def worker() -> None:
    gaps: list[Gap] = []
    topics = Topics(history=20, on_gap=gaps.append, timeout=20)
    backend: Any = topics.backend

    async def obey(ws: Any, order: str, arguments: dict[str, Any]) -> Any:
        if order == "subscribe":
            await ws.subscribe(numbered=True, **arguments)
        elif order == "publish":
            for text in arguments["texts"]:
                ws.server.publish(arguments["topic"], text)
        elif order == "flood":
            for number in range(arguments["count"]):
                text = f"{number} ".ljust(arguments["size"], ".")
                ws.server.publish(arguments["topic"], text)
                if number % 100 == 0:
                    await asyncio.sleep(0)
        elif order == "wait":
            await until(lambda: backend.is_connected is arguments["is_connected"])
        return {
            "gaps": [(gap.topic, gap.first, gap.last) for gap in gaps],
            "missed": backend.missed,
            "unsent": backend.unsent,
        }

    async def handler(ws: Any) -> None:
        async for message in ws:
            arguments = json.loads(message)
            done = await obey(ws, arguments.pop("order"), arguments)
            await ws.send(json.dumps(done).encode())

    async with websock.serve(
        handler, "127.0.0.1", 0, topics=topics, compression=None, ping_interval=None
    ) as server:
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"port": port}), flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    asyncio.run({"hub": hub, "worker": worker}[name](*arguments))
