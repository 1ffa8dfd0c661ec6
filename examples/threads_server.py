"""Echo server with a thread per connection: ``python threads_server.py``."""

from __future__ import annotations

from websock.sync.server import ServerConnection, serve


def echo(ws: ServerConnection) -> None:
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    with serve(echo, "localhost", 8765) as server:
        print("ws://localhost:8765, Ctrl-C ends")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
