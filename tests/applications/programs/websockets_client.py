"""A bot on the asyncio API of websockets."""

from __future__ import annotations

import asyncio

from bot import LIMIT, PROTOCOLS, understood, urls
from journal import Notes, talk
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


async def main() -> None:
    for name, url in urls():
        try:
            with talk(name) as note:
                await obey(url, note)
        except Exception:
            pass  # it was noted


asyncio.run(main())
