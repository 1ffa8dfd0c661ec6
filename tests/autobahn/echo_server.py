"""The echo server that the Autobahn test suite talks to.

Echoes every message with the type it had, on any path.  Messages of 16 MiB and
messages of 65,536 fragments are among the cases, and so is compression with every
set of parameters.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from typing import Any

import websock
from websock.asyncio.server import ServerConnection

MAX_SIZE = 16 * 1024 * 1024


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


class Echo(websock.Listener):
    def on_message(self, ws: Any, message: str | bytes) -> None:
        ws.send_nowait(message)


async def main(port: int, listener: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    handler: Any = Echo if listener else echo
    async with websock.serve(
        handler,
        "127.0.0.1",
        port,
        max_size=MAX_SIZE,
        # A case waits for a frame of 16 MiB in pieces: no ping in between.
        ping_interval=None,
    ):
        print(f"websock {websock.__version__} ({websock.BACKEND}) on port {port}")
        await stop.wait()


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
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
        runner.run(main(args.port, args.listener))


if __name__ == "__main__":
    run()
