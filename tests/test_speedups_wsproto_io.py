"""The patch of wsproto under servers that use it: the conversations are the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from host_patches import frame, patched, shown, unmasked
from uvicorn_server import run, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

pytest.importorskip("wsproto", reason="wsproto is not installed")

from websock.speedups._wsproto import PATCH

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"mask"
SENT: list[Any] = ["", "text", "é" * 100, b"", b"x" * 126, b"y" * 70_000, "z" * 300_000]
STREAMS = [
    frame(0x81, b"text", MASK) + frame(0x89, b"ping", MASK) + frame(0x83, b"", MASK),
    frame(0x01, b"fr\xc3", MASK) + frame(0x80, b"\xa9", MASK) + frame(0x88, b"", MASK),
    frame(0x81, b"\xff", MASK),
    frame(0x82, bytes(70_000), MASK) + frame(0x88, b"\x0f\xa0bye", MASK),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Send every message back."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        kept = {"bytes": event.get("bytes"), "text": event.get("text")}
        await send({"type": "websocket.send", **kept})


@contextlib.asynccontextmanager
async def uvicorn() -> AsyncIterator[int]:
    async with serving(app, "wsproto") as server:
        yield server.port


@contextlib.asynccontextmanager
async def hypercorn() -> AsyncIterator[int]:
    pytest.importorskip("hypercorn", reason="hypercorn is not installed")
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = Config()
        config.bind = [f"fd://{listening.fileno()}"]
        config.graceful_timeout = 1
        config.errorlog = None
        stop = asyncio.Event()
        task = asyncio.create_task(
            serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
        )
        try:
            yield listening.getsockname()[1]
        finally:
            stop.set()
            await task
            listening.detach()  # the server has closed it


async def talk(server: Callable[[], Any]) -> Any:
    seen: list[Any] = []
    async with server() as port:
        for compression in ("deflate", None):
            async with connect(f"ws://127.0.0.1:{port}", compression=compression) as ws:
                for message in SENT:
                    await ws.send(message)
                    seen.append(shown(await ws.recv()))
                await ws.send(["frag", "ments"])
                seen.append(await ws.recv())
                await ws.close(4000, "é")
                try:
                    await ws.recv()
                except ConnectionClosed as exc:
                    seen.append((shown(exc.rcvd), shown(exc.sent)))
        for stream in STREAMS:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(stream)
            seen.append(sorted(unmasked(await reader.read())))
            writer.close()
    return seen


@pytest.mark.parametrize("server", [uvicorn, hypercorn])
def test_conversations(server: Callable[[], Any]) -> None:
    before = run(talk(server))
    with patched(PATCH):
        assert run(talk(server)) == before
    assert len(before) == 2 * (len(SENT) + 2) + len(STREAMS)


def test_connections_live_through_it() -> None:
    async def main() -> None:
        async def turn(*connections: Any) -> None:
            for ws in connections:
                await ws.send("text")
                assert await ws.recv() == "text"

        async with uvicorn() as port:
            uri = f"ws://127.0.0.1:{port}"
            async with connect(uri) as first:
                await turn(first)
                with patched(PATCH):
                    async with connect(uri) as second:
                        await turn(first, second)
                    third = await connect(uri)
                    await turn(third)
                await turn(first, third)
                await third.close()

    run(main())
