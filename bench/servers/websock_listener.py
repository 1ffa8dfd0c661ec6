"""websock, callback API."""

from __future__ import annotations

from typing import Any

import common

import websock

options = common.parse_arguments()
connections: set[Any] = set()


class Echo(websock.Listener):
    def on_message(self, ws: Any, message: Any) -> None:
        ws.send_nowait(message)


class Broadcast(websock.Listener):
    def on_open(self, ws: Any) -> None:
        connections.add(ws)

    def on_message(self, ws: Any, message: Any) -> None:
        websock.broadcast(connections, message)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        connections.discard(ws)


async def main() -> None:
    extra: dict[str, Any] = {}
    if options.max_size:
        extra["max_size"] = options.max_size
    listener = Echo if options.mode == "echo" else Broadcast
    context = common.tls_context(options)
    async with websock.serve(
        listener, "127.0.0.1", options.port, ssl=context, **extra
    ) as server:
        common.announce_websock(options)
        await server.serve_forever()


common.run(options, main())
