"""picows, its core API (callbacks)."""

from __future__ import annotations

from typing import Any

import common
from picows import WSListener, WSMsgType, ws_connect

options = common.parse_arguments()


class Client(WSListener):
    def on_ws_connected(self, transport: Any) -> None:
        def send(message: Any) -> None:
            if isinstance(message, str):
                transport.send(WSMsgType.TEXT, message.encode())
            else:
                transport.send(WSMsgType.BINARY, message)

        self.exchange = common.Exchange(options, send)
        self.exchange.start()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.exchange.got(frame.get_payload_as_utf8_text())
        elif frame.msg_type == WSMsgType.BINARY:
            self.exchange.got(frame.get_payload_as_bytes())


async def main() -> None:
    common.announce("picows", loop=options.loop)
    listener: Any
    transport, listener = await ws_connect(Client, options.url)
    await listener.exchange.done
    transport.disconnect()


common.run(options, main())
