"""Workers that are processes, on one hub: in order, killed, paused, flooded."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.running import SECRET, Cluster, go, numbers_in, numbers_of

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="no signals that pause a process"
)

MAX_PENDING = 256 * 1024
KEPT = 20  # by the workers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Paths of unix sockets are short.
    with tempfile.TemporaryDirectory(prefix="hub-") as folder:
        address = f"local://:{SECRET}@localhost{Path(folder).resolve()}/hub.sock"
        cluster = Cluster(address, 3, MAX_PENDING)
        yield cluster
        cluster.stop()


def test_one_order_for_all(cluster: Cluster) -> None:
    async def main() -> None:
        async with cluster.clients() as clients:
            for client, pattern in zip(
                clients, ("order.x", "order.*", "**"), strict=True
            ):
                await client.ask("subscribe", pattern=pattern)
            count = 300
            await asyncio.gather(
                *(
                    client.ask(
                        "publish",
                        topic="order.x",
                        texts=[f"{name} {number}" for number in range(count)],
                    )
                    for name, client in zip("abc", clients, strict=True)
                )
            )
            seen = [
                [await client.get() for _ in range(3 * count)] for client in clients
            ]
            assert numbers_of(seen[0]) == list(range(1, 3 * count + 1))
            for messages in seen:
                assert [m.place for m in messages] == [m.place for m in seen[0]]
                assert [m.text for m in messages] == [m.text for m in seen[0]]
                for name in "abc":
                    mine = [m.text for m in messages if m.text.startswith(name)]
                    assert mine == [f"{name} {number}" for number in range(count)]

    go(main())


def test_flood(cluster: Cluster) -> None:
    """Everything arrives, or it is told that it did not."""

    async def main() -> None:
        async with cluster.clients() as clients:
            for client in clients:
                await client.ask("subscribe", pattern="flood")
            count = 4000
            flood = {"topic": "flood", "count": count, "size": 300}
            await clients[0].ask("flood", **flood)
            await clients[0].ask("publish", topic="flood", texts=["end"])
            for client in clients:
                numbers = numbers_in(await client.get_until("end"))
                assert len(set(numbers)) == len(numbers)
                state = await client.ask("state")
                lost = sum(
                    last - first + 1
                    for topic, first, last in state["gaps"]
                    if topic == "flood"
                )
                if client is not clients[0]:
                    # In order, and what is not there is known.
                    assert numbers == sorted(numbers)
                    assert len(numbers) + lost == count
                else:
                    # Its own process can do without the hub.
                    assert sorted(numbers) == list(range(count))
                assert state["unsent"] == 0

    go(main())


def test_paused(cluster: Cluster) -> None:
    """One stands still: the others go on, and nothing grows; it is told later."""

    async def main() -> None:
        async with cluster.clients() as (a, b, c):
            for client in (a, b, c):
                await client.ask("subscribe", pattern="pause.*")
            await a.ask("publish", topic="pause.x", texts=["before"])
            for client in (a, b, c):
                assert (await client.get()).text == "before"
            cluster.workers[2].pause()
            before = cluster.hub.memory() if sys.platform == "linux" else 0
            size = 12_000  # so that what is kept is no more than may wait
            count = 40 * MAX_PENDING // size
            for number in range(count):
                # In lockstep: these two keep up, whatever the machine does.
                text = f"{number} ".ljust(size, ".")
                await a.ask("publish", topic="pause.x", texts=[text])
                for client in (a, b):
                    assert (await client.get()).text == text
            await a.ask("publish", topic="pause.only", texts=["new"])
            if sys.platform == "linux":
                grown = cluster.hub.memory() - before
                # What waits, and what is kept; not the 10 MiB that were published.
                assert grown < 5 * 1024 * 1024, grown
            cluster.workers[2].go_on()
            await b.ask("publish", topic="pause.x", texts=["end"])
            got = [m for m in await c.get_until("end") if m.topic == "pause.x"]
            numbers = numbers_of(got)
            assert numbers == sorted(set(numbers))
            # The last that are kept came after all.
            assert numbers_in(got[1 - KEPT :]) == list(range(count - KEPT + 1, count))
            state = await c.ask("state")
            gaps = [gap for gap in state["gaps"] if gap[0] == "pause.x"]
            lost = sum(last - first + 1 for _, first, last in gaps)
            assert len(got) + lost == count
            assert state["missed"] > 0
            for client in (a, b):
                state = await client.ask("state")
                assert [gap for gap in state["gaps"] if "pause" in gap[0]] == []

    go(main())


def test_killed_worker(cluster: Cluster) -> None:
    """The others go on; who comes to another worker goes on where it was."""

    async def main() -> None:
        async with cluster.clients(0, 1) as (a, b):
            for client in (a, b):
                await client.ask("subscribe", pattern="kill.x")
            await a.ask("publish", topic="kill.x", texts=["1", "2"])
            await b.get()
            last = await b.get()
            await asyncio.to_thread(cluster.workers[1].kill)
            cluster.replace(1)
            await a.ask("publish", topic="kill.x", texts=["3", "4"])
        async with cluster.clients() as (a, b, c):
            for client in (b, c):
                await client.ask("subscribe", pattern="kill.x", since=last.place)
            await a.ask("publish", topic="kill.x", texts=["5"])
            for client in (b, c):
                got = [await client.get() for _ in range(3)]
                assert [m.text for m in got] == ["3", "4", "5"]
                assert numbers_of(got) == [3, 4, 5]
                assert {m.epoch for m in got} == {last.epoch}

    go(main())


def test_killed_hub(cluster: Cluster) -> None:
    """Each worker goes on alone; with the hub back they are one again."""

    async def main() -> None:
        async with cluster.clients() as clients:
            for client in clients:
                await client.ask("subscribe", pattern="hub.x")
            await clients[0].ask("publish", topic="hub.x", texts=["all"])
            epochs = {(await client.get()).epoch for client in clients}
            await asyncio.to_thread(cluster.hub.kill)
            for client in clients:
                await client.ask("wait", is_connected=False)
            before = [(await client.ask("state"))["unsent"] for client in clients]
            for number, client in enumerate(clients):
                await client.ask("publish", topic="hub.x", texts=[f"alone {number}"])
                assert (await client.get()).text == f"alone {number}"
            await asyncio.to_thread(cluster.restart_hub)
            for number, client in enumerate(clients):
                await client.ask("wait", is_connected=True)
                state = await client.ask("state")
                assert state["unsent"] == before[number] + 1
            await clients[1].ask("publish", topic="hub.x", texts=["again"])
            for client in clients:
                (message,) = [await client.get()]
                assert message.text == "again"
                assert {message.epoch} != epochs  # the counts began anew
                gaps = (await client.ask("state"))["gaps"]
                assert ["hub.x", 2, None] in gaps

    go(main())
