"""A bot on trio-websocket."""

from __future__ import annotations

import trio
from bot import LIMIT, PROTOCOLS, have_talks, understood
from journal import Notes
from trio_websocket import ConnectionClosed, open_websocket_url


async def obey(url: str, note: Notes) -> None:
    async with open_websocket_url(
        url, subprotocols=PROTOCOLS, max_message_size=LIMIT
    ) as ws:
        note("open", ws.subprotocol)
        try:
            while True:
                message = await ws.get_message()
                note("message", message)
                order = understood(message)
                if order.verb == "close":
                    await ws.aclose(order.code, str(order.data))
                else:
                    await ws.send_message(order.data)
        except ConnectionClosed as exc:
            note("closed", exc)
        try:
            await ws.send_message("too late")
        except ConnectionClosed as exc:
            note("late", exc)


have_talks(lambda url, note: trio.run(obey, url, note))
