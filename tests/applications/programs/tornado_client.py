"""A bot on Tornado's client."""

from __future__ import annotations

import asyncio

from bot import LIMIT, PROTOCOLS, have_talks, understood
from journal import Notes
from tornado.websocket import WebSocketClosedError, websocket_connect


async def obey(url: str, note: Notes) -> None:
    ws = await websocket_connect(
        url, subprotocols=PROTOCOLS, max_message_size=LIMIT, compression_options={}
    )
    note("open", ws.selected_subprotocol)
    try:
        while (message := await ws.read_message()) is not None:
            note("message", message)
            order = understood(message)
            if order.verb == "close":
                ws.close(order.code, str(order.data))
            else:
                binary = isinstance(order.data, bytes)
                await ws.write_message(order.data, binary=binary)
    finally:
        ws.close()
    note("closed", ws.close_code, ws.close_reason)
    try:
        await ws.write_message("too late")
    except WebSocketClosedError as exc:
        note("late", exc)


have_talks(lambda url, note: asyncio.run(obey(url, note)))
