"""Tornado."""

from __future__ import annotations

import asyncio
from typing import Any

import common
import tornado.web
import tornado.websocket

options = common.parse_arguments()
connections: set[Any] = set()


class Echo(tornado.websocket.WebSocketHandler):
    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)  # as its documentation advises for small messages

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if options.deflate else None

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))


class Broadcast(Echo):
    def open(self, *args: str, **kwargs: str) -> None:
        super().open(*args, **kwargs)
        connections.add(self)

    def on_close(self) -> None:
        connections.discard(self)

    async def on_message(self, message: str | bytes) -> None:
        for to in connections:
            to.write_message(message)


async def main() -> None:
    handler = Echo if options.mode == "echo" else Broadcast
    extra: dict[str, Any] = {}
    if options.max_size:
        extra["websocket_max_message_size"] = options.max_size
    app = tornado.web.Application([("/", handler)], log_function=print_nothing, **extra)
    context = common.tls_context(options)
    app.listen(options.port, "127.0.0.1", ssl_options=context, backlog=4096)
    common.announce("tornado", loop=options.loop)
    await asyncio.Event().wait()


def print_nothing(handler: Any) -> None:
    """Take the place of the access log."""


common.run(options, main())
