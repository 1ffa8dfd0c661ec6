"""wsproto (sans-IO) on a plain asyncio protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import common
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate

options = common.parse_arguments()
common.refuse(options, "mode")
common.speed_up(options, "wsproto")


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ws = WSConnection(ConnectionType.SERVER)
        self.parts: list[Any] = []

    def data_received(self, data: bytes) -> None:
        self.ws.receive_data(data)
        for event in self.ws.events():
            reply = self.answer(event)
            if reply is not None:
                self.transport.write(self.ws.send(reply))
            if isinstance(event, CloseConnection):
                self.transport.close()

    def answer(self, event: Any) -> Any:
        if isinstance(event, TextMessage | BytesMessage):
            if event.message_finished and not self.parts:
                return type(event)(data=event.data)  # type: ignore[arg-type]
            self.parts.append(event.data)
            if event.message_finished:
                parts, self.parts = self.parts, []
                return type(event)(data=parts[0][:0].join(parts))
        elif isinstance(event, Request):
            extensions: list[Extension] = []
            if options.deflate:
                extensions.append(PerMessageDeflate())
            return AcceptConnection(extensions=extensions)
        elif isinstance(event, Ping | CloseConnection):
            return event.response()
        return None


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(
        Echo,
        "127.0.0.1",
        options.port,
        ssl=common.tls_context(options),
        backlog=4096,
    )
    common.announce("wsproto", loop=options.loop)
    await server.serve_forever()


common.run(options, main())
