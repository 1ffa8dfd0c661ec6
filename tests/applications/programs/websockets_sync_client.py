"""A bot on the threading API of websockets."""

from __future__ import annotations

from bot import LIMIT, PROTOCOLS, have_talks, understood
from journal import Notes
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def obey(url: str, note: Notes) -> None:
    with connect(
        url, max_size=LIMIT, subprotocols=PROTOCOLS, open_timeout=None, proxy=None
    ) as ws:
        note("open", ws.subprotocol)
        try:
            for message in ws:
                note("message", message)
                order = understood(message)
                if order.verb == "close":
                    ws.close(order.code, str(order.data))
                else:
                    ws.send(order.data)
            note("closed", ws.close_code, ws.close_reason)
        except ConnectionClosed as exc:
            note("closed", exc)
        try:
            ws.send("too late")
        except ConnectionClosed as exc:
            note("late", exc)


have_talks(obey)
