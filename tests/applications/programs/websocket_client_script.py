"""A bot on websocket-client: one half in a loop, one half with callbacks."""

from __future__ import annotations

import websocket
from bot import PROTOCOLS, have_talks, understood
from journal import Notes

OPCODES = {websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY}


def obey(ws: websocket.WebSocket, message: str | bytes) -> None:
    order = understood(message)
    if order.verb == "close":
        ws.close(order.code, str(order.data).encode(), timeout=60)
    elif isinstance(order.data, bytes):
        ws.send_binary(order.data)
    else:
        ws.send(order.data)


def offered(url: str) -> list[str] | None:
    """Return subprotocols, if wanted: who offers some gets one or an error here."""
    return PROTOCOLS if "/subprotocols" in url else None


def loop(url: str, note: Notes) -> None:
    ws = websocket.create_connection(url, timeout=60, subprotocols=offered(url))
    note("open", ws.getsubprotocol())
    try:
        while ws.connected:
            opcode, data = ws.recv_data(control_frame=True)
            note("frame", opcode, data)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                break
            if opcode in OPCODES:
                obey(ws, data.decode() if opcode == 1 else data)
    finally:
        ws.shutdown()
    try:
        ws.send("too late")
    except Exception as exc:
        note("late", exc)


def callbacks(url: str, note: Notes) -> None:
    def on_message(app: websocket.WebSocketApp, message: str | bytes) -> None:
        note("message", message)
        assert app.sock is not None
        order = understood(message)
        if order.verb == "close":
            app.close(status=order.code, reason=str(order.data).encode(), timeout=60)
        else:
            obey(app.sock, message)

    app = websocket.WebSocketApp(
        url,
        on_open=lambda app: note("open"),
        on_message=on_message,
        on_ping=lambda app, data: note("ping", data),
        on_error=lambda app, exc: note("error", exc),
        on_close=lambda app, code, reason: note("closed", code, reason),
        subprotocols=offered(url),
    )
    note("ended", app.run_forever())


def either(url: str, note: Notes) -> None:
    (callbacks if url.endswith(".callbacks") else loop)(url, note)


have_talks(either)
