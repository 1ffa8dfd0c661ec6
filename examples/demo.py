"""A web page and its WebSocket on one port, a client, and a figure.

Run it with ``make demo``.  ``KEEP=1`` keeps the server up for a browser, ``PORT``
chooses the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import websock
from websock.asyncio.client import ClientConnection
from websock.asyncio.server import Server, ServerConnection
from websock.datastructures import Headers
from websock.http11 import Request, Response
from websock.report import report

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("demo.html").read_bytes()
MESSAGES: list[str | bytes] = ["hello", "grüß dich, мир, 世界 🌍", b"\x00\x01\x02"]
SIZE = 32  # bytes in a message that is timed
IN_FLIGHT = 64  # messages sent ahead of their echo
SECONDS = 1.0


async def echo(ws: ServerConnection) -> None:
    """Send every message back."""
    async for message in ws:
        await ws.send(message)


def serve_page(ws: ServerConnection, request: Request) -> Response | None:
    """Answer plain HTTP requests; ``None`` lets the WebSocket handshake go on."""
    if request.path == "/ws":
        return None
    if request.path != "/":
        return ws.respond(HTTPStatus.NOT_FOUND, "there is a page at / only\n")
    headers = Headers(
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(PAGE))),
            ("Connection", "close"),
        ]
    )
    return Response(HTTPStatus.OK, "OK", headers, PAGE)


def fetch(url: str) -> tuple[int, int]:
    """Return the status and the size of a page."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, len(answer.read())


async def measure(ws: ClientConnection) -> float:
    """Return how many messages a second come back."""
    message = "x" * SIZE
    count = 0
    began = time.perf_counter()
    for _ in range(IN_FLIGHT):
        await ws.send(message)
    while time.perf_counter() - began < SECONDS:
        for _ in range(IN_FLIGHT):
            await ws.recv()
            await ws.send(message)
        count += IN_FLIGHT
    for _ in range(IN_FLIGHT):
        await ws.recv()
    return (count + IN_FLIGHT) / (time.perf_counter() - began)


async def show(address: str) -> None:
    """Be a client of the server: first of the page, then of the WebSocket."""
    status, size = await asyncio.to_thread(fetch, f"http://{address}/")
    print(f"\npage     GET http://{address}/ -> {status}, {size} bytes")
    async with websock.connect(f"ws://{address}/ws") as ws:
        extensions = ", ".join(item.name for item in ws.protocol.extensions)
        print(f"socket   ws://{address}/ws is open, {extensions or 'no extension'}")
        for message in MESSAGES:
            await ws.send(message)
            answer = await ws.recv()
            print(f"         sent {message!r}, received {answer!r}")
            if answer != message:
                raise SystemExit("demo: the echo differs from what was sent")
    print(f"         closed, {ws.close_code} {ws.close_reason or 'without a reason'}")
    # Compression would be timed more than WebSocket.
    async with websock.connect(f"ws://{address}/ws", compression=None) as ws:
        rate = await measure(ws)
    print(
        f"speed    {rate:,.0f} messages/s: echo of {SIZE} bytes, {IN_FLIGHT} in "
        "flight, client and server in one process"
    )


async def keep(server: Server, address: str) -> None:
    """Stay up until Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    print(f"\nopen     http://{address}/ (Ctrl-C ends)", flush=True)
    await stop.wait()
    print("\ndemo: bye")


async def main() -> None:
    """Start the server, be its client, and end or stay."""
    stays = os.environ.get("KEEP", "") not in ("", "0")
    port = int(os.environ.get("PORT") or (8765 if stays else 0))
    for name, value in report():
        print(f"{name:<8} {value}")
    print(f"running  {type(asyncio.get_running_loop()).__module__}")
    try:
        server = await websock.serve(echo, HOST, port, process_request=serve_page)
    except OSError as exc:
        raise SystemExit(f"demo: cannot listen on {HOST}:{port}: {exc}") from None
    async with server:
        address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
        await show(address)
        if stays:
            await keep(server, address)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(main())
        except KeyboardInterrupt:
            print("\ndemo: bye")
