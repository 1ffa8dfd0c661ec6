"""What ends in one thread while all of them serve: a handler, a loop, and the server.

The others are in the middle of something each time: connections of every thread say
what they have to say and compare the answers, one after the other, until they are
closed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from scripted import run_on
from supervised import TIMEOUT, supervised_fixture

import websock

pytestmark = pytest.mark.usefixtures("interruptible")

serve = supervised_fixture()

THREADS = 3
CLIENTS = 45  # so that each thread has some, by all odds
ROUNDS = 20  # of each client, until something ends
PUBLISHED = 100

APP = """
import asyncio, contextlib, sys, threading

servers = {}

@contextlib.asynccontextmanager
async def lifespan(server):
    name = threading.current_thread().name
    servers[name] = server
    yield
    del servers[name]

async def handler(ws):
    await ws.send(threading.current_thread().name)
    async for message in ws:
        word, _, rest = message.partition(" ")
        if word == "fail":
            raise RuntimeError("as it was told")
        elif word == "exit":
            asyncio.get_running_loop().call_soon(sys.exit, 5)
        elif word == "subscribe":
            await ws.subscribe(rest)
            await ws.send("subscribed")
        elif word == "publish":
            await publish(ws, *rest.split())
        else:
            await ws.send(message)

async def publish(ws, topic, count):
    "Publish in this thread, by the server of each thread, and in a thread of its own."
    def work():
        for number in range(int(count)):
            ws.server.publish(topic, f"work {number}")

    working = asyncio.create_task(asyncio.to_thread(work))
    for number in range(int(count)):
        for name, server in list(servers.items()):
            server.publish(topic, f"{name.replace(' ', '-')} {number}")
        await asyncio.sleep(0)
    await working
"""


class Client:
    """A connection that is never idle.

    Attributes:
        thread: Name of the thread that serves it.
        rounds: Messages that came back as they were.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.thread = ""
        self.rounds = 0
        self.ws: Any = None
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._talk())

    async def _talk(self) -> int | None:
        """Talk until the connection ends; return its code."""
        async with websock.connect(self.url, compression=None) as self.ws:
            self.thread = await self.ws.recv()
            with contextlib.suppress(websock.ConnectionClosed):
                for number in itertools.count():
                    message = f"{self.thread} {number} ".ljust(number % 7 * 100, "é")
                    await self.ws.send(message)
                    assert await self.ws.recv() == message
                    async with self._changed:
                        self.rounds += 1
                        self._changed.notify_all()
            return self.ws.close_code  # type: ignore[no-any-return]

    async def has(self, rounds: int) -> None:
        """Wait until it has got so far."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self.rounds >= rounds)

        waiting = asyncio.create_task(wait())
        await asyncio.wait(
            (waiting, self.task), return_when=asyncio.FIRST_COMPLETED
        )  # the task fails when an answer is wrong
        assert waiting.done(), self.task
        await waiting


@pytest.fixture
def server(serve: Any, tmp_path: Path) -> Any:
    (tmp_path / "threaded.py").write_text(APP)
    server = serve(
        "threaded:handler",
        *("--threads", str(THREADS)),
        *("--lifespan", "threaded:lifespan"),
    )
    server.url = server.says(r" at (ws\S+)\n")[1]
    server.has(*(rf"worker {n} \(thread\) is ready" for n in range(2, THREADS + 1)))
    return server


@contextlib.asynccontextmanager
async def talking(url: str) -> AsyncIterator[list[Client]]:
    """Have clients talk to all threads, and see that none of them is wrong."""
    async with asyncio.timeout(2 * TIMEOUT):
        clients = [Client(url) for _ in range(CLIENTS)]
        try:
            for client in clients:
                await client.has(ROUNDS)
            assert len({client.thread for client in clients}) == THREADS
            yield clients
        finally:
            for client in clients:
                client.task.cancel()
            ends = await asyncio.gather(
                *(client.task for client in clients), return_exceptions=True
            )
    for end in ends:
        assert not isinstance(end, Exception), end


async def connect_to(stack: contextlib.AsyncExitStack, url: str, thread: str) -> Any:
    """Return a connection that a thread serves; the system chooses who does."""
    while True:
        ws = await stack.enter_async_context(websock.connect(url))
        if await ws.recv() == thread:
            return ws


def check_end(output: str, tracebacks: int = 0) -> None:
    assert output.count("Traceback") == tracebacks, output
    assert "Warning" not in output
    stopped = re.findall(r"worker (\d) \(thread\) stopped", output)
    assert sorted(stopped) == [str(n) for n in range(1, THREADS + 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="ends without signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_server_ends(server: Any, name: str) -> None:
    """Every connection is closed as it should be, whatever it is doing."""

    async def main() -> None:
        async with talking(server.url) as clients:
            server.send(getattr(signal, name))
            codes = await asyncio.gather(*(client.task for client in clients))
            assert collections.Counter(codes) == {1001: CLIENTS}

    run_on(None, main())
    check_end(server.ends())


def test_a_handler_fails(server: Any) -> None:
    """It ends the one connection; all others do not notice."""

    async def main() -> None:
        async with talking(server.url) as clients:
            for _ in range(THREADS):
                async with websock.connect(server.url) as ws:
                    await ws.recv()
                    await ws.send("fail")
                    with pytest.raises(websock.ConnectionClosed):
                        await ws.recv()
                    assert ws.close_code == 1011
            for client in clients:
                await client.has(client.rounds + ROUNDS)

    run_on(None, main())
    if sys.platform != "win32":
        output = server.stop()
        check_end(output, THREADS)
        assert output.count("RuntimeError: as it was told") == THREADS


def test_a_loop_ends(server: Any) -> None:
    """Another thread takes its place, and gets topics; all others do not notice."""

    async def main() -> None:
        async with talking(server.url) as clients:
            victims = [client for client in clients if client.thread == "worker 2"]
            others = [client for client in clients if client.thread != "worker 2"]
            await victims[0].ws.send("exit")
            await asyncio.wait([client.task for client in victims])
            for client in others:
                await client.has(client.rounds + ROUNDS)
            await asyncio.to_thread(server.says, r"ended with SystemExit: 5")
            await asyncio.to_thread(server.says, r"worker 2 \(thread\) is ready")
            async with contextlib.AsyncExitStack() as stack:
                old = await connect_to(stack, server.url, "worker 1")
                new = await connect_to(stack, server.url, "worker 2")
                await new.send("subscribe news")
                assert await new.recv() == "subscribed"
                await old.send("publish news 1")
                news = sorted([await new.recv() for _ in range(THREADS + 1)])
                names = [f"worker-{n}" for n in range(1, THREADS + 1)]
                assert news == [f"{name} 0" for name in ("work", *names)]

    run_on(None, main())
    if sys.platform != "win32":
        # One traceback: that of the loop, in the line that says how it ended.
        check_end(server.stop(), 1)


def test_topics_are_published_by_many_threads(server: Any) -> None:
    """By those that serve, each by the servers of all, and by others; all come."""

    async def main() -> None:
        async with asyncio.timeout(2 * TIMEOUT), contextlib.AsyncExitStack() as stack:
            threads = [f"worker {n}" for n in range(1, THREADS + 1)]
            connections = {
                name: await connect_to(stack, server.url, name) for name in threads
            }
            for ws in connections.values():
                await ws.send("subscribe **")
                assert await ws.recv() == "subscribed"
            for name, ws in connections.items():
                await ws.send(f"publish {name.replace(' ', '-')} {PUBLISHED}")
            # Each by the server of each thread, and from a thread without a loop.
            sources = [*(name.replace(" ", "-") for name in threads), "work"]
            for ws in connections.values():
                got: dict[str, list[int]] = collections.defaultdict(list)
                for _ in range(THREADS * len(sources) * PUBLISHED):
                    source, _, number = (await ws.recv()).partition(" ")
                    got[source].append(int(number))
                assert set(got) == set(sources)
                for numbers in got.values():
                    assert sorted(numbers) == sorted([*range(PUBLISHED)] * THREADS)

    run_on(None, main())
    if sys.platform != "win32":
        check_end(server.stop())
