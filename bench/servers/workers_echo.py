"""An echo server in worker processes, for ``python -m bench workers``.

Its first argument is how many.  Besides the line that every server prints, it prints
one for each worker that is ready.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import common

import websock


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


class Lines(logging.Handler):
    """Prints what the supervisor says."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), flush=True)


if __name__ == "__main__":
    workers = int(sys.argv.pop(1))
    options = common.parse_arguments()
    common.announce_websock(options)
    logger = logging.getLogger("websock.workers")
    logger.setLevel(logging.INFO)
    logger.addHandler(Lines())
    websock.run(
        echo,
        "127.0.0.1",
        options.port,
        workers=workers,
        loop=options.loop,
        compression=None,
    )
