"""Event loops in several threads at once, each with its own server and clients."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from websock.asyncio.client import connect
from websock.asyncio.server import ServerConnection, serve
from websock.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websock.prepared import prepare

THREADS = 4
CLIENTS = 3
MESSAGES = 100
LONG = 60


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def talk(uri: str, name: str) -> int:
    """Send messages one by one; return how many came back as they were."""
    count = 0
    async with connect(uri) as ws:
        for i in range(MESSAGES):
            message = f"{name}: {i} " + "é" * (i * 50)
            await ws.send(message)
            count += await ws.recv() == message
    return count


async def serve_and_talk(number: int, ready: threading.Barrier) -> list[int]:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        # All loops are serving before anybody connects.
        await asyncio.to_thread(ready.wait, LONG)
        clients = [
            talk(f"ws://127.0.0.1:{port}", f"{number}.{i}") for i in range(CLIENTS)
        ]
        return await asyncio.wait_for(asyncio.gather(*clients), LONG)


def test_a_loop_in_each_thread() -> None:
    ready = threading.Barrier(THREADS)

    def work(number: int) -> list[int]:
        return asyncio.run(serve_and_talk(number, ready))

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(work, range(THREADS)))
    assert results == [[MESSAGES] * CLIENTS] * THREADS


#: What all threads share: compressors that are idle, answers that are remembered, and a
#: message that is framed, and compressed, by whoever sends it first.
ALONE = {"server_no_context_takeover": True, "client_no_context_takeover": True}


async def share(
    deflate: tuple[ServerPerMessageDeflateFactory, ClientPerMessageDeflateFactory],
    news: Any,
    ready: threading.Barrier,
) -> int:
    """Serve the news, and an echo; return how many answers were as expected."""

    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)
            await ws.send(news)

    theirs, ours = deflate
    count = 0
    async with serve(handler, "127.0.0.1", 0, extensions=[theirs]) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(ready.wait, LONG)
        async with connect(f"ws://127.0.0.1:{port}", extensions=[ours]) as ws:
            for i in range(MESSAGES):
                message = f"{port} " * (20 + i)
                await ws.send(message)
                count += await ws.recv() == message
                count += await ws.recv() == NEWS
    return count


NEWS = "what everybody is told, é and 語. " * 50


def test_what_loops_share() -> None:
    ready = threading.Barrier(THREADS)
    news = prepare(NEWS)
    deflate = (
        ServerPerMessageDeflateFactory(**ALONE),
        ClientPerMessageDeflateFactory(**ALONE),
    )

    def work(_: int) -> int:
        return asyncio.run(asyncio.wait_for(share(deflate, news, ready), LONG))

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [2 * MESSAGES] * THREADS
