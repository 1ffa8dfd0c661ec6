"""uvicorn with an application, as every script does that has one."""

from __future__ import annotations

from typing import Any

import common
import uvicorn


def serve(app: Any, options: Any, *names: str, **extra: Any) -> None:
    """Serve until the process is told to stop; say what it is when it listens.

    Args:
        app: ASGI application.
        options: What the script was given.
        *names: Distributions whose versions are shown, beside uvicorn's.
        **extra: Settings of uvicorn.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            common.announce("uvicorn", *names, loop=options.loop, engine=options.engine)

    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": options.port,
        "loop": options.loop,
        "log_level": "warning",
        "access_log": False,
        "lifespan": "off",
        "ssl_certfile": options.cert,
        "ssl_keyfile": options.key,
        "backlog": 4096,
        **extra,
    }
    Server(uvicorn.Config(app, **settings)).run()
