"""Send with one thread, receive with another: ``python threads_client.py [URL]``."""

from __future__ import annotations

import sys
import threading

from websock.sync.client import ClientConnection, connect


def show(ws: ClientConnection) -> None:
    for message in ws:
        print(f"received {message!r}")


def main(url: str) -> None:
    with connect(url) as ws:
        receiver = threading.Thread(target=show, args=(ws,))
        receiver.start()
        for line in ("one", "two", "three"):
            ws.send(line)
            print(f"sent {line!r}")
        ws.ping().wait()  # its answer comes behind those to the lines
    receiver.join()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765")
