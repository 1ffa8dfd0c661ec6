"""picows, its core API (callbacks)."""

from __future__ import annotations

from typing import Any

import common
from picows import WSListener, WSMsgType, ws_create_server

options = common.parse_arguments()
common.refuse(options, "deflate")
transports: set[Any] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        else:
            # As in its own examples: text is neither decoded nor validated.
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Broadcast(Echo):
    def on_ws_connected(self, transport: Any) -> None:
        transports.add(transport)

    def on_ws_disconnected(self, transport: Any) -> None:
        transports.discard(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            for to in transports:
                to.send(WSMsgType.TEXT, message)
        else:
            super().on_ws_frame(transport, frame)


async def main() -> None:
    extra: dict[str, Any] = {}
    if options.max_size:
        extra["max_frame_size"] = options.max_size
    listener = Echo if options.mode == "echo" else Broadcast
    server = await ws_create_server(
        lambda request: listener(),
        "127.0.0.1",
        options.port,
        ssl=common.tls_context(options),
        **extra,
    )
    common.announce("picows", loop=options.loop)
    await server.serve_forever()


common.run(options, main())
