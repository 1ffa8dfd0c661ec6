"""The asyncio connection, used at random: whatever is done, nothing is lost.

Two of our connections talk to each other.  Each sends messages of all kinds and sizes
in its own time, and receives in all ways, which it gives up at random moments.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from linked import LOOPS, freeze, loop_factory, quiet_fixture, socket_pair
from scripted import TLS, run_on, tls_fixture

from websock.asyncio.connection import Connection, broadcast
from websock.exceptions import ConcurrencyError, ConnectionClosed
from websock.protocol import Protocol, Side

tls = tls_fixture()
quiet = quiet_fixture()

Message = str | bytes


class End:
    """One end: what it sends, and what it has received."""

    def __init__(self, ws: Connection, rng: random.Random, count: int) -> None:
        self.ws = ws
        self.rng = rng
        self.messages = [self.message(number) for number in range(count)]
        self.received: list[Message] = []

    def message(self, number: int) -> Message:
        size = self.rng.choice((0, 1, 100, 126, 1000, 5000, 20_000, 100_000))
        if self.rng.random() < 0.5:
            return f"{number}:" + self.rng.choice("aé漢😀") * (size // 4)
        return b"%d:" % number + self.rng.randbytes(1) * size

    async def pause(self) -> None:
        for _ in range(self.rng.choice((0, 0, 0, 1, 2, 5))):
            await asyncio.sleep(0)

    def pieces(self, message: Message) -> list[Message]:
        size = max(1, len(message) // self.rng.randint(1, 8))
        return [message[i : i + size] for i in range(0, len(message), size)]

    async def send_all(self) -> None:
        for message in self.messages:
            await self.pause()
            how = self.rng.randrange(6)
            if how == 0:
                await self.ws.send(self.pieces(message))
            elif how == 1:
                await self.ws.send(self.slowly(self.pieces(message)))
            elif how == 2:
                self.ws.send_nowait(message)
            elif how == 3:
                broadcast([self.ws], message)
            else:
                await self.ws.send(message)

    async def slowly(self, pieces: list[Message]) -> AsyncIterator[Message]:
        for piece in pieces:
            await self.pause()
            yield piece

    async def receive_all(self, count: int) -> None:
        while len(self.received) < count:
            await self.pause()
            how = self.rng.randrange(6)
            if how == 0:
                await self.receive_for_a_while()
            elif how == 1:
                await self.receive_and_cancel()
            elif how == 2:
                pieces = [piece async for piece in self.ws.recv_streaming()]
                self.received.append(type(pieces[0])().join(pieces))  # type: ignore[arg-type]
            elif how == 3:
                async for message in self.ws:
                    self.received.append(message)
                    if self.rng.random() < 0.5 or len(self.received) == count:
                        break
            else:
                self.received.append(await self.ws.recv())

    async def receive_for_a_while(self) -> None:
        try:
            async with asyncio.timeout(self.rng.random() / 500):
                self.received.append(await self.ws.recv())
        except TimeoutError:
            pass

    async def receive_and_cancel(self) -> None:
        task = asyncio.create_task(self.ws.recv())
        await self.pause()
        task.cancel()
        try:
            self.received.append(await task)
        except asyncio.CancelledError:
            pass

    async def ping(self) -> None:
        while True:
            await asyncio.sleep(self.rng.random() / 100)
            assert await (await self.ws.ping()) >= 0


async def make(
    rng: random.Random, kind: str, tls: TLS | None, side: Side, sock: Any
) -> Connection:
    options: dict[str, Any] = {
        "max_queue": rng.choice((0, 1, 4, 16, (5, 5), None)),
        "write_limit": rng.choice((0, 1000, 32768, (5000, 4000))),
        "ping_interval": rng.choice((None, 0.01)),
    }
    ws = Connection(Protocol(side, max_size=None), **options)
    loop = asyncio.get_running_loop()
    if kind == "socket":
        ws.start(sock)
    elif tls is None:
        await loop.create_connection(lambda: ws, sock=sock)
    elif side is Side.SERVER:
        await loop.connect_accepted_socket(lambda: ws, sock, ssl=tls.server)
    else:
        await loop.create_connection(
            lambda: ws, sock=sock, ssl=tls.client, server_hostname="localhost"
        )
    ws.handshake_done()
    return ws


async def converse(seed: int, kind: str, tls: TLS | None) -> None:
    rng = random.Random(seed)
    socks = socket_pair(rng.choice((None, 4096)))
    made = await asyncio.gather(
        *(
            make(rng, kind, tls, side, sock)
            for side, sock in zip((Side.CLIENT, Side.SERVER), socks, strict=True)
        )
    )
    one, two = (End(ws, random.Random(seed + 7), rng.randint(20, 60)) for ws in made)
    pinging = [asyncio.create_task(end.ping()) for end in (one, two)]
    sending = [asyncio.create_task(end.send_all()) for end in (one, two)]
    receiving = [
        asyncio.create_task(one.receive_all(len(two.messages))),
        asyncio.create_task(two.receive_all(len(one.messages))),
    ]
    await asyncio.gather(*sending, *receiving)
    assert one.received == two.messages
    assert two.received == one.messages
    for task in pinging:
        task.cancel()
    await asyncio.gather(*pinging, return_exceptions=True)
    closer = rng.choice(made)
    await closer.close(1001, "done")
    for ws in made:
        await ws.wait_closed()
        assert ws.close_code == 1001
        with pytest.raises(ConnectionClosed):
            await ws.recv()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["socket", "transport", "tls"])
@pytest.mark.parametrize("seed", range(8))
def test_conversations(
    loop: str, kind: str, seed: int, request: pytest.FixtureRequest
) -> None:
    freeze()
    tls = request.getfixturevalue("tls") if kind == "tls" else None
    run_on(loop_factory(loop), converse(seed, kind, tls))


async def break_off(seed: int, kind: str, tls: TLS | None) -> None:
    """Whatever is going on, one end vanishes: all calls of the other end in time."""
    rng = random.Random(seed)
    socks = socket_pair(rng.choice((None, 4096)))
    made = await asyncio.gather(
        *(
            make(rng, kind, tls, side, sock)
            for side, sock in zip((Side.CLIENT, Side.SERVER), socks, strict=True)
        )
    )
    ends = [End(ws, random.Random(seed + 7), 60) for ws in made]
    tasks = [
        asyncio.create_task(call)
        for end, other in (ends, ends[::-1])
        for call in (
            end.send_all(),
            end.receive_all(len(other.messages)),
            end.ping(),
            end.ws.wait_closed(),
        )
    ]
    await asyncio.sleep(rng.random() / 50)
    victim = rng.choice(made)
    how = rng.randrange(4)
    if how == 0:
        victim.transport.abort()
    elif how == 1:
        victim.close_nowait(1001)
    elif how == 2:
        victim.transport.close()
    else:
        victim.fail(1011, "broken")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(
            result, (ConnectionClosed, ConcurrencyError)
        )
    for end, other in (ends, ends[::-1]):
        # What was received is what was sent, from the beginning and without a gap.
        assert end.received == other.messages[: len(end.received)]
        assert end.ws.is_lost


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["socket", "transport", "tls"])
@pytest.mark.parametrize("seed", range(8))
def test_broken_conversations(
    loop: str, kind: str, seed: int, request: pytest.FixtureRequest
) -> None:
    freeze()
    tls = request.getfixturevalue("tls") if kind == "tls" else None
    run_on(loop_factory(loop), break_off(seed, kind, tls))
