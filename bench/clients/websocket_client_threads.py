"""websocket-client."""

from __future__ import annotations

import common
import websocket

options = common.parse_arguments()
common.announce("websocket-client", loop="threads")
ws = websocket.create_connection(options.url)
send = ws.send_bytes if options.kind == "binary" else ws.send
common.measure_blocking(options, send, ws.recv)
ws.close()
