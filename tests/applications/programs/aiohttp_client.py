"""A bot on aiohttp's client."""

from __future__ import annotations

import asyncio

from aiohttp import ClientSession, WSMsgType
from bot import LIMIT, PROTOCOLS, have_talks, understood
from journal import Notes


async def obey(url: str, note: Notes) -> None:
    async with (
        ClientSession() as session,
        session.ws_connect(
            url, max_msg_size=LIMIT, protocols=PROTOCOLS, compress=15
        ) as ws,
    ):
        note("open", ws.protocol, ws.compress)
        while True:
            message = await ws.receive()
            note("message", message.type.name, message.data, message.extra)
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            order = understood(message.data)
            if order.verb == "close":
                reason = str(order.data).encode()
                note("closing", await ws.close(code=order.code, message=reason))
            elif isinstance(order.data, str):
                await ws.send_str(order.data)
            else:
                await ws.send_bytes(order.data)
        note("closed", ws.close_code, ws.exception())
        try:
            await ws.send_str("too late")
        except Exception as exc:
            note("late", exc)


have_talks(lambda url, note: asyncio.run(obey(url, note)))
