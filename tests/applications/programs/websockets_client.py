"""A bot on the asyncio API of websockets."""

from __future__ import annotations

import asyncio

from bot import LIMIT, PROTOCOLS, have_talks, understood
from journal import Notes
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def obey(url: str, note: Notes) -> None:
    async with connect(
        url, max_size=LIMIT, subprotocols=PROTOCOLS, open_timeout=None, proxy=None
    ) as ws:
        note("open", ws.subprotocol)
        try:
            async for message in ws:
                note("message", message)
                order = understood(message)
                if order.verb == "close":
                    await ws.close(order.code, str(order.data))
                else:
                    await ws.send(order.data)
            note("closed", ws.close_code, ws.close_reason)
        except ConnectionClosed as exc:
            note("closed", exc)
        try:
            await ws.send("too late")
        except ConnectionClosed as exc:
            note("late", exc)


have_talks(lambda url, note: asyncio.run(obey(url, note)))
