"""Echo server with callbacks: the fastest path, without a task per connection.

``send_nowait`` never waits.  When the peer reads more slowly than it sends, what is
not sent yet grows: stop reading until it has gone out.
"""

from __future__ import annotations

import asyncio

import websock
from websock.asyncio.server import ServerConnection


class Echo(websock.Listener):
    def on_open(self, ws: ServerConnection) -> None:
        print("open  ", ws.remote_address)

    def on_message(self, ws: ServerConnection, message: str | bytes) -> None:
        ws.send_nowait(message)

    def on_pause_writing(self, ws: ServerConnection) -> None:
        ws.pause_reading()

    def on_resume_writing(self, ws: ServerConnection) -> None:
        ws.resume_reading()

    def on_close(self, ws: ServerConnection, code: int, reason: str) -> None:
        print("closed", ws.remote_address, code, reason)


async def main() -> None:
    async with websock.serve(Echo, "localhost", 8765) as server:
        print("ws://localhost:8765, Ctrl-C ends")
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
