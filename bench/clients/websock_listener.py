"""websock, callback API."""

from __future__ import annotations

from typing import Any

import common

import websock

options = common.parse_arguments()


class Client(websock.Listener):
    def on_open(self, ws: Any) -> None:
        self.exchange = common.Exchange(options, ws.send_nowait)
        self.exchange.start()

    def on_message(self, ws: Any, message: Any) -> None:
        self.exchange.got(message)


async def main() -> None:
    common.announce_websock(options)
    listener = Client()
    async with websock.connect(
        options.url, listener=lambda: listener, compression=None
    ):
        await listener.exchange.done


common.run(options, main())
