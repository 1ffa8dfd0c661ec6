"""websockets, threading API."""

from __future__ import annotations

import common
from websockets.sync.client import connect

options = common.parse_arguments()
common.announce("websockets", loop="threads")
with connect(options.url, compression=None, proxy=None) as ws:
    common.measure_blocking(options, ws.send, ws.recv)
