"""Autobahn|Python on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import common
from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol

options = common.parse_arguments()
common.refuse(options, "deflate")
connections: set[Any] = set()


protocol: Any = WebSocketServerProtocol
make_factory: Any = WebSocketServerFactory


class Echo(protocol):  # type: ignore[misc]
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class Broadcast(Echo):
    def onOpen(self) -> None:
        connections.add(self)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        connections.discard(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        prepared = self.factory.prepareMessage(payload, isBinary)
        for to in connections:
            to.sendPreparedMessage(prepared)


async def main() -> None:
    factory = make_factory()
    factory.protocol = Echo if options.mode == "echo" else Broadcast
    server = await asyncio.get_running_loop().create_server(
        factory,
        "127.0.0.1",
        options.port,
        ssl=common.tls_context(options),
        backlog=4096,
    )
    common.announce("autobahn", loop=options.loop)
    await server.serve_forever()


common.run(options, main())
