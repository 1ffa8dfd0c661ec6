"""The client that the Autobahn test suite talks to.

Asks how many cases there are, echoes through each of them on a connection of its
own, whatever happens, and asks for the reports.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any
from urllib.parse import quote

import websock

OPTIONS: dict[str, Any] = {
    "max_size": 16 * 1024 * 1024,
    "ping_interval": None,
    "proxy": None,
}


class Echo(websock.Listener):
    def on_message(self, ws: Any, message: str | bytes) -> None:
        ws.send_nowait(message)


async def count_cases(url: str) -> int:
    async with websock.connect(f"{url}/getCaseCount", **OPTIONS) as ws:
        return int(await ws.recv())


async def run_case(url: str, listener: bool) -> None:
    if listener:
        async with websock.connect(url, listener=Echo, **OPTIONS) as ws:
            await ws.wait_closed()
    else:
        async with websock.connect(url, **OPTIONS) as ws:
            async for message in ws:
                await ws.send(message)


async def main(url: str, agent: str, listener: bool) -> None:
    agent = quote(agent)
    cases = await count_cases(url)
    for case in range(1, cases + 1):
        try:
            await run_case(f"{url}/runCase?case={case}&agent={agent}", listener)
        except websock.ConnectionClosed:
            pass  # many cases are protocol errors that end the connection
        except Exception as exc:
            # Nothing else may come out: it is shown, and the next case is run.
            print(f"case number {case}: {type(exc).__name__}: {exc}", file=sys.stderr)
    async with websock.connect(f"{url}/updateReports?agent={agent}", **OPTIONS):
        pass


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("agent")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument(
        "--listener", action="store_true", help="the callback API, not a coroutine"
    )
    args = parser.parse_args()
    factory = None
    if args.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(args.url.rstrip("/"), args.agent, args.listener))


if __name__ == "__main__":
    run()
