"""A chat with rooms and more, on FastAPI; run by uvicorn."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi import WebSocketException as Refused
from journal import talk as noted
from starlette.responses import PlainTextResponse

PROTOCOLS = ("chat.v2", "chat.v1")

app = FastAPI()
rooms: defaultdict[str, dict[str, WebSocket]] = defaultdict(dict)


async def tell(room: str, text: str) -> None:
    for member in list(rooms[room].values()):
        await member.send_text(text)


@app.websocket("/chat/{room}")
async def chat(ws: WebSocket, room: str, name: str, talk: str) -> None:
    with noted(talk) as note:
        await ws.accept()
        rooms[room][name] = ws
        await tell(room, f"{name} is here")
        try:
            async for text in ws.iter_text():
                note("message", text)
                await tell(room, f"{name}: {text}")
        finally:
            del rooms[room][name]
            await tell(room, f"{name} has left")


@app.websocket("/echo")
@app.websocket("/protocols")
async def echo(ws: WebSocket, talk: str) -> None:
    with noted(talk) as note:
        note("offered", *ws.scope["subprotocols"])
        chosen = next((p for p in PROTOCOLS if p in ws.scope["subprotocols"]), None)
        await ws.accept(subprotocol=chosen, headers=[(b"x-served-by", b"echo")])
        try:
            while True:
                event = await ws.receive()
                if event["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(event["code"], event.get("reason"))
                if event.get("text") is not None:
                    note("message", event["text"])
                    await ws.send_text(event["text"])
                else:
                    note("message", event["bytes"])
                    await ws.send_bytes(event["bytes"])
        except WebSocketDisconnect as exc:
            note("closed", exc)
            # Who did not notice goes on sending.
            try:
                await ws.send_text("too late")
            except Exception as error:
                note("late", error)


@app.websocket("/upload")
async def upload(ws: WebSocket, talk: str) -> None:
    with noted(talk) as note:
        await ws.accept()
        digest, size = hashlib.sha256(), 0
        while (event := await ws.receive()).get("bytes") is not None:
            digest.update(event["bytes"])
            size += len(event["bytes"])
        note("uploaded", event.get("text"), size)
        await ws.send_json({"size": size, "sha256": digest.hexdigest()})
        await ws.close()


@app.websocket("/raise")
async def fail(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        await ws.accept()
        raise LookupError(await ws.receive_text())


@app.websocket("/raise-early")
async def fail_early(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        raise LookupError("before the handshake")


@app.websocket("/return")
async def forget(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        await ws.accept()


@app.websocket("/close")
async def close(ws: WebSocket, talk: str, code: int, reason: str = "") -> None:
    with noted(talk) as note:
        await ws.accept()
        note("message", await ws.receive_text())
        await ws.close(code, reason)
        note("after", await ws.receive())


@app.websocket("/policy")
async def policy(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        await ws.accept()
        raise Refused(code=1008, reason=f"not {await ws.receive_text()}")


@app.websocket("/deny")
async def deny(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        await ws.close()


@app.websocket("/deny-with-page")
async def deny_with_page(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        headers = {"x-why": "rules", "set-cookie": "a=1"}
        await ws.send_denial_response(PlainTextResponse("go away\n", 418, headers))


@app.websocket("/deny-by-exception")
async def deny_by_exception(ws: WebSocket, talk: str) -> None:
    with noted(talk):
        raise HTTPException(status_code=401, detail="who are you?")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve, and have it told which class of the server is at the other end."""
    if scope["type"] == "websocket":
        engine = type(getattr(send, "__self__", None))
        query = dict(
            pair.split("=", 1) for pair in scope["query_string"].decode().split("&")
        )
        from journal import write

        write(engine=f"{engine.__module__}.{engine.__qualname__}", of=query["talk"])
    await app(scope, receive, send)
