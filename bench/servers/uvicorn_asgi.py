"""uvicorn, with the WebSocket engine that ``--engine`` names."""

from __future__ import annotations

from typing import Any

import asgi_server
import common
from asgi_app import app

options = common.parse_arguments()
common.refuse(options, "mode")
extra: dict[str, Any] = {}
if options.max_size:
    extra["ws_max_size"] = options.max_size
asgi_server.serve(app, options, ws=options.engine, **extra)
