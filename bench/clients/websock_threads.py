"""websock, threading API."""

from __future__ import annotations

import common

from websock.sync.client import connect

options = common.parse_arguments()
options.loop = "threads"
common.announce_websock(options)
with connect(options.url, compression=None, proxy=None) as ws:
    common.measure_blocking(options, ws.send, ws.recv)
