"""A ticker: prices as topics, of which a page chooses those that it shows.

Open http://localhost:8765/.  On the command line: another port, the URL of a broker,
and ``quiet`` for all of several processes but one, which makes the prices.  Whoever
reads too slowly gets the newest price of each, and not all of them.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from pathlib import Path

import websock
from websock import Request, Response, ServerConnection
from websock.asyncio.server import Server
from websock.topics import TopicLimitError, Topics

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
PRICES = {"metals.gold": 2650.0, "metals.silver": 31.0, "oil.brent": 73.0}


def serve_page(ws: ServerConnection, request: Request) -> Response | None:
    if request.path == "/ws":
        return None
    if request.path != "/":
        return ws.respond(404, "there is a page at / only\n")
    response = ws.respond(200, PAGE)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    return response


class Reader(websock.Listener):
    """A page: it says ``+metals.*`` and ``-metals.*``."""

    def on_message(self, ws: ServerConnection, message: str | bytes) -> None:
        sign, pattern = str(message)[:1], f"prices.{str(message)[1:]}"
        try:
            if sign == "+":
                ws.subscribe(pattern, last=1)
            else:
                ws.unsubscribe(pattern)
        except (ValueError, TopicLimitError) as exc:
            ws.close_nowait(1008, str(exc)[:100])


async def tick(server: Server, seconds: float) -> None:
    """Make up prices."""
    while True:
        for name, price in PRICES.items():
            PRICES[name] = price * random.uniform(0.999, 1.001)
            text = json.dumps({"name": name, "price": round(PRICES[name], 2)})
            server.publish(f"prices.{name}", text)
        await asyncio.sleep(seconds)


async def main(port: int = 8765, broker: str = "memory://", how: str = "") -> None:
    async with websock.serve(
        Reader,
        "localhost",
        port,
        topics=Topics(broker, history=1),
        process_request=serve_page,
        origins=[re.compile(r"http://localhost:\d+"), None],
        slow_consumer=websock.SlowConsumer("latest"),
    ) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"http://localhost:{port}/", flush=True)
        if how == "quiet":
            await server.serve_forever()
        await tick(server, 0.25)


if __name__ == "__main__":
    try:
        asyncio.run(main(int((sys.argv[1:] or ["8765"])[0]), *sys.argv[2:]))
    except KeyboardInterrupt:
        pass
