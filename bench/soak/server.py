"""The server of the soak: both APIs, with and without TLS, on sockets it inherits.

It prints a JSON line when it serves, and one with what it holds on each ``SIGUSR1``.
``SIGTERM`` makes it drain, tell what it counted in another line, and end.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import signal
import socket
import ssl
from typing import Any
from urllib.parse import parse_qs, urlsplit

import memory

import websock
from websock.asyncio.server import Server, ServerConnection

# Seconds between two messages of the feed.
FEED_INTERVAL = 0.25

subscribers: set[ServerConnection] = set()


async def serve_client(ws: ServerConnection) -> None:
    """Do what the path says."""
    assert ws.request is not None
    url = urlsplit(ws.request.path)
    if url.path == "/feed":
        subscribers.add(ws)
        try:
            await ws.wait_closed()
        finally:
            subscribers.discard(ws)
    elif url.path == "/flood":
        # As fast as the client reads.
        wanted = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
        filler = "." * wanted["size"]
        for number in range(wanted["count"]):
            await ws.send(f"{number}:{filler}")
        await ws.send("end")
    elif url.path == "/slow":
        # A server that is slower than its client.
        async for message in ws:
            await asyncio.sleep(0.01)
            await ws.send(message)
    else:
        async for message in ws:
            await ws.send(message)


class Echo(websock.Listener):
    """The callback API: an echo, or a subscriber."""

    def on_open(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        if ws.request.path == "/feed":
            subscribers.add(ws)

    def on_message(self, ws: ServerConnection, message: str | bytes) -> None:
        ws.send_nowait(message)

    def on_pause_writing(self, ws: ServerConnection) -> None:
        ws.pause_reading()

    def on_resume_writing(self, ws: ServerConnection) -> None:
        ws.resume_reading()

    def on_close(self, ws: ServerConnection, code: int, reason: str) -> None:
        subscribers.discard(ws)


async def feed() -> None:
    """Send numbered messages to all subscribers."""
    number = 0
    while True:
        await asyncio.sleep(FEED_INTERVAL)
        message = f"{number}:" + "feed " * (number % 500)
        websock.broadcast(subscribers, message)
        number += 1


def left_over() -> int:
    """Return how many connections are still objects once all are closed."""
    gc.collect()
    return sum(isinstance(item, ServerConnection) for item in gc.get_objects())


def tell_memory() -> None:
    """Print what this process holds now."""
    print(json.dumps(memory.measure()), flush=True)


async def main(options: argparse.Namespace) -> None:
    """Serve until the signal."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    servers: list[Server] = []
    for number, name in enumerate(("plain", "tls", "listener", "listener-tls")):
        handler: Any = Echo if "listener" in name else serve_client
        extra: dict[str, Any] = {"ssl": context} if "tls" in name else {}
        sock = socket.socket(fileno=options.fds[number])
        servers.append(
            await websock.serve(handler, sock=sock, max_size=4 << 20, **extra)
        )
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.add_signal_handler(signal.SIGUSR1, tell_memory)
    feeding = asyncio.create_task(feed())
    print(
        json.dumps({"backend": websock.BACKEND, "loop": type(loop).__module__}),
        flush=True,
    )
    await told.wait()
    await asyncio.gather(*(server.drain(options.drain) for server in servers))
    feeding.cancel()
    stats = [dataclasses.asdict(server.stats()) for server in servers]
    sums = {
        name: sum(item[name] for item in stats)
        for name in ("connections", "connections_total", "handshakes_failed", "queued")
    }
    # What asyncio still holds goes with the next turns of the loop.
    for _ in range(10):
        await asyncio.sleep(0.01)
    left = left_over()
    print(
        json.dumps({**sums, "left_over": left, "settled": memory.measure()}), flush=True
    )


def run() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fds", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--drain", type=float, default=5.0)
    options = parser.parse_args()
    factory: Any = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(options))


if __name__ == "__main__":
    run()
