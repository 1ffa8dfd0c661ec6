"""Servers whose clients say what they subscribe to, and such clients."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from scripted import LOOPBACK

import websock


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0.001)


async def handler(ws: Any) -> None:
    """Subscribe to what the client names, and say so; ``-`` takes it back."""
    async for message in ws:
        pattern = message.lstrip("-+")
        if message.startswith("-"):
            await ws.send(str(ws.unsubscribe(pattern)))
        else:
            await ws.subscribe(pattern, numbered=message.startswith("+"))
            await ws.send("ok")


class Subscriber:
    """A client, on the end of a subscription."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws

    async def ask(self, message: str) -> str:
        await self.ws.send(message)
        return str(await self.ws.recv())

    async def get(self, count: int = 1) -> Any:
        got = [await self.ws.recv() for _ in range(count)]
        return got if count > 1 else got[0]


@asynccontextmanager
async def served(
    handler: Any = handler, clients: int = 1, client: Any = None, **options: Any
) -> AsyncIterator[Any]:
    async with websock.serve(handler, LOOPBACK, 0, **options) as server:
        scheme = "wss" if options.get("ssl") else "ws"
        url = f"{scheme}://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        made = [await websock.connect(url, **(client or {})) for _ in range(clients)]
        try:
            yield server, *(Subscriber(ws) for ws in made)
        finally:
            for ws in made:
                await ws.close()


class Relay:
    """A line to a broker that can be cut: for one process, not for the others."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_cut = False
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Relay:
        self.server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *args: object) -> None:
        self.server.close()
        self.flow()
        self.cut()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections; refuse others."""
        self.is_cut = True
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def mend(self) -> None:
        self.is_cut = False

    def hold(self) -> None:
        """Take no more from the broker than it has sent already."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        if self.is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(LOOPBACK, self.target)
        self.writers += [writer, back]
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer, self._flowing))


async def _pipe(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    flowing: asyncio.Event | None = None,
) -> None:
    try:
        while data := await reader.read(65536):
            if flowing is not None:
                await flowing.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
