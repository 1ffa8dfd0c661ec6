"""python-socketio: rooms, with its manager on Redis; see websock_topics.py."""

from __future__ import annotations

from typing import Any

import asgi_server
import common
import socketio
from rooms import Rooms

options = common.parse_arguments()
rooms = Rooms(options)
manager = socketio.AsyncRedisManager(options.broker) if options.broker else None
server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)


@server.event  # type: ignore[untyped-decorator]
async def connect(sid: str, environ: Any, auth: Any = None) -> None:
    await server.enter_room(sid, rooms.enter())


@server.on("m")  # type: ignore[untyped-decorator]
async def publish(sid: str, text: str) -> None:
    for name in rooms.names:
        await server.emit("m", text, room=name)


app = socketio.ASGIApp(server)
asgi_server.serve(app, options, "python-socketio", "python-engineio")
