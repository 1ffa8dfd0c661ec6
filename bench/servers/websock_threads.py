"""websock, threading API: one thread a connection."""

from __future__ import annotations

from typing import Any

import common

from websock.sync.server import serve

options = common.parse_arguments()
common.refuse(options, "mode")
options.loop = "threads"


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


extra: dict[str, Any] = {}
if options.max_size:
    extra["max_size"] = options.max_size
with serve(
    echo, "127.0.0.1", options.port, ssl=common.tls_context(options), **extra
) as server:
    common.announce_websock(options)
    server.serve_forever()
