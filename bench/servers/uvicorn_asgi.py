"""uvicorn, with the WebSocket engine that ``--engine`` names."""

from __future__ import annotations

from typing import Any

import common
import uvicorn
from asgi_app import app

options = common.parse_arguments()
common.refuse(options, "mode")


class Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        common.announce("uvicorn", loop=options.loop, engine=options.engine)


extra: dict[str, Any] = {}
if options.max_size:
    extra["ws_max_size"] = options.max_size
Server(
    uvicorn.Config(
        app,
        host="127.0.0.1",
        port=options.port,
        loop=options.loop,
        ws=options.engine,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ssl_certfile=options.cert,
        ssl_keyfile=options.key,
        backlog=4096,
        **extra,
    )
).run()
