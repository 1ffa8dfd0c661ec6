"""granian, one worker, ASGI."""

from __future__ import annotations

import common
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.log import LogLevels

options = common.parse_arguments()
common.refuse(options, "mode", "deflate", "cert")

if __name__ == "__main__":
    common.announce("granian", loop=options.loop)
    Granian(
        "asgi_app:app",
        address="127.0.0.1",
        port=options.port,
        interface=Interfaces.ASGINL,
        loop=Loops(options.loop),
        log_level=LogLevels.warning,
        backlog=4096,
    ).serve()
