"""A chat with rooms and more, on aiohttp's server."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections import defaultdict
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from journal import talk as noted
from journal import write

LIMIT = 100_000
PROTOCOLS = ("chat.v2", "chat.v1")
OPEN = web.AppKey("open", set)

rooms: defaultdict[str, dict[str, web.WebSocketResponse]] = defaultdict(dict)
routes = web.RouteTableDef()


async def accepted(request: web.Request, **options: Any) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=LIMIT, **options)
    await ws.prepare(request)
    request.app[OPEN].add(ws)
    return ws


async def tell(room: str, text: str) -> None:
    for member in list(rooms[room].values()):
        await member.send_str(text)


@routes.get("/chat/{room}")
async def chat(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]) as note:
        room, name = request.match_info["room"], request.query["name"]
        ws = await accepted(request)
        rooms[room][name] = ws
        await tell(room, f"{name} is here")
        async for message in ws:
            note("message", message.data)
            await tell(room, f"{name}: {message.data}")
        note("closed", ws.close_code, ws.exception())
        del rooms[room][name]
        await tell(room, f"{name} has left")
        return ws


@routes.get("/echo")
@routes.get("/protocols")
async def echo(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]) as note:
        ws = web.WebSocketResponse(max_msg_size=LIMIT, protocols=PROTOCOLS)
        ws.headers["X-Served-By"] = "echo"
        await ws.prepare(request)
        request.app[OPEN].add(ws)
        note("subprotocol", ws.ws_protocol)
        while True:
            message = await ws.receive()
            note("message", message.type.name, message.data, message.extra)
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
            else:
                break
        note("closed", ws.close_code, ws.exception())
        try:
            await ws.send_str("too late")
        except Exception as exc:
            note("late", exc)
        return ws


@routes.get("/upload")
async def upload(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]) as note:
        ws = await accepted(request)
        digest, size = hashlib.sha256(), 0
        async for message in ws:
            if message.type is not WSMsgType.BINARY:
                break
            digest.update(message.data)
            size += len(message.data)
        note("uploaded", message.data, size)
        await ws.send_json({"size": size, "sha256": digest.hexdigest()})
        await ws.close()
        return ws


@routes.get("/raise")
async def fail(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]):
        ws = await accepted(request)
        raise LookupError(await ws.receive_str())


@routes.get("/raise-early")
async def fail_early(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]):
        raise LookupError("before the handshake")


@routes.get("/return")
async def forget(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]):
        return await accepted(request)


@routes.get("/close")
async def close(request: web.Request) -> web.WebSocketResponse:
    with noted(request.query["talk"]) as note:
        ws = await accepted(request)
        note("message", await ws.receive_str())
        reason = request.query.get("reason", "").encode()
        note("closing", await ws.close(code=int(request.query["code"]), message=reason))
        message = await ws.receive()
        note("after", message.type.name, ws.close_code, ws.exception())
        return ws


@routes.get("/deny")
async def deny(request: web.Request) -> web.Response:
    with noted(request.query["talk"]):
        raise web.HTTPForbidden(text="go away\n")


async def say_bye(app: web.Application) -> None:
    for ws in set(app[OPEN]):
        await ws.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")


async def main() -> None:
    app = web.Application()
    app[OPEN] = set()
    app.add_routes(routes)
    app.on_shutdown.append(say_bye)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    write(port=runner.addresses[0][1])
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
