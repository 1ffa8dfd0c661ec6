"""Several machines with a broker between them, and a link that is cut for a while."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers.machines import Machine, network, no_machines
from brokers.running import KINDS, go, in_thread, running

import websock

pytestmark = pytest.mark.skipif(bool(no_machines()), reason=no_machines())

TIMEOUT = 1  # seconds that a broker may take

WORKER = """
import asyncio, json, os, sys
import websock
from websock.topics import Topics

gaps = []

def on_gap(gap):
    gaps.append([gap.topic, gap.first, gap.last])

async def handler(ws):
    await ws.subscribe("room.*")
    await ws.send("ready")
    async for message in ws:
        word, *rest = message.split(" ", 2)
        if word == "publish":
            ws.server.publish(*rest)
        else:
            backend = ws.server.topics.backend
            await ws.send("status " + json.dumps({
                "connected": backend.is_connected,
                "unsent": backend.unsent,
                "gaps": gaps,
                "files": len(os.listdir("/proc/self/fd")),
            }))

async def main(url, timeout):
    topics = Topics(url, timeout=float(timeout), history=10, on_gap=on_gap)
    async with websock.serve(handler, "127.0.0.1", 0, topics=topics) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

asyncio.run(main(*sys.argv[1:]))
"""


class Client:
    """A client of a worker, on the same machine."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.held: list[str] = []  # what came before a status

    async def publish(self, topic: str, text: str) -> None:
        await self.ws.send(f"publish {topic} {text}")

    async def get(self, count: int = 1) -> list[str]:
        while len(self.held) < count:
            self.held.append(await self.ws.recv())
        got, self.held = self.held[:count], self.held[count:]
        return got

    async def status(self) -> dict[str, Any]:
        await self.ws.send("status")
        while not (message := await self.ws.recv()).startswith("status "):
            self.held.append(message)
        found: dict[str, Any] = json.loads(message.removeprefix("status "))
        return found

    async def until(self, name: str, value: object) -> dict[str, Any]:
        while True:
            status = await self.status()
            if status[name] == value:
                return status
            await asyncio.sleep(0.02)  # it is another process


@asynccontextmanager
async def workers(
    machines: Sequence[Machine], url: str, folder: Path
) -> AsyncIterator[list[Client]]:
    """Run a worker on each machine; give a client of each."""
    program = folder / "worker.py"
    program.write_text(WORKER)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    async with AsyncExitStack() as stack:
        clients = []
        for machine in machines:
            words = (sys.executable, "-P", str(program), url, str(TIMEOUT))
            process = await asyncio.create_subprocess_exec(
                *machine.command(*words),
                stdout=asyncio.subprocess.PIPE,
                env=environment,
            )
            stack.push_async_callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            sock = await in_thread(machine.connect, port)
            ws = await stack.enter_async_context(
                websock.connect("ws://127.0.0.1/", sock=sock)
            )
            assert await ws.recv() == "ready"
            clients.append(Client(ws))
        yield clients


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_that_is_cut(kind: str, tmp_path: Path) -> None:
    """Each part goes on alone; afterwards what was missed is delivered, or told."""

    async def main(url: str, machines: Sequence[Machine]) -> None:
        async with workers(machines, url, tmp_path) as (a, b):
            for client, text in ((a, "from a"), (b, "from b")):
                for topic in ("room.few", "room.many"):
                    await client.publish(topic, text)
                    assert await a.get() == await b.get() == [text]
            before = await b.status()
            assert before["connected"]

            await in_thread(machines[1].cut)
            # Nobody knows yet: it is under way, and comes here when that is clear.
            await b.publish("room.few", "b at once")
            # More than the system takes: some waits in the process.
            large = ["." * 500_000] * 12
            for text in large:
                await b.publish("room.large", text)
            assert await b.get(13) == ["b at once", *large]
            await b.until("connected", False)
            for number in range(3):
                await b.publish("room.few", f"b {number}")
            assert await b.get(3) == [f"b {number}" for number in range(3)]
            # Those whose link holds see nothing of it.
            for topic, count in (("few", 5), ("many", 25)):
                for number in range(count):
                    await a.publish(f"room.{topic}", f"{topic} {number}")
            missed = [f"few {n}" for n in range(5)] + [f"many {n}" for n in range(25)]
            assert await a.get(30) == missed
            status = await a.status()
            assert status == {**status, "connected": True, "unsent": 0, "gaps": []}

            await in_thread(machines[1].mend)
            away = await b.until("connected", True)
            assert away["unsent"] >= 3
            if kind == "redis":
                # What was kept comes now, and the rest is told.
                kept = await b.get(15)
                assert [m for m in kept if "few" in m] == missed[:5]
                assert [m for m in kept if "many" in m] == missed[-10:]
            # What b has published meanwhile has gone nowhere else, and never will:
            # it is about now.
            for topic in ("room.few", "room.many"):
                await a.publish(topic, "again")
                assert await a.get() == await b.get() == ["again"]
            await b.publish("room.few", "b again")
            assert await a.get() == await b.get() == ["b again"]
            gaps = (await b.status())["gaps"]
            if kind == "redis":
                # Of the broker's numbers: two came before.
                assert gaps == [["room.many", 3, 17]]
            else:
                # Of the sender's: one came before.
                assert gaps == [["room.few", 2, 6], ["room.many", 2, 26]]
            # Those of b that were under way when the link was cut, where b counts them.
            missing = [] if kind == "redis" else [["room.few", 2, 2]]
            assert (await a.status())["gaps"] == missing
            # Connections that ended in silence are not held for ever.
            await b.until("files", before["files"])

    with (
        network(2) as (home, machines),
        running(kind, tmp_path, machine=home) as broker,
    ):
        go(main(broker.url, machines))
