"""A bot on httpx-ws."""

from __future__ import annotations

import asyncio

import httpx
from bot import LIMIT, PROTOCOLS, have_talks, understood
from httpx_ws import HTTPXWSException, aconnect_ws
from journal import Notes
from wsproto.events import BytesMessage, TextMessage


async def obey(url: str, note: Notes) -> None:
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        aconnect_ws(
            url,
            client,
            max_message_size_bytes=LIMIT,
            keepalive_ping_interval_seconds=None,
            subprotocols=PROTOCOLS,
        ) as ws,
    ):
        note("open", ws.subprotocol)
        try:
            while True:
                event = await ws.receive()
                if not isinstance(event, (TextMessage, BytesMessage)):
                    note("event", event)
                    continue
                note("message", event.data)
                order = understood(
                    event.data if isinstance(event.data, str) else bytes(event.data)
                )
                if order.verb == "close":
                    await ws.close(order.code, str(order.data))
                elif isinstance(order.data, str):
                    await ws.send_text(order.data)
                else:
                    await ws.send_bytes(order.data)
        except HTTPXWSException as exc:
            note("closed", exc)
        try:
            await ws.send_text("too late")
        except Exception as exc:
            note("late", exc)


have_talks(lambda url, note: asyncio.run(obey(url, note)))
