"""The connections to Redis: each can end alone, and either parser reads them."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers.running import Broker, go, missing, running, several, topics_on
from scripted import LOOPBACK
from subscribers import served, until

if missing("redis"):
    pytest.skip(missing("redis"), allow_module_level=True)

import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from websock.topics import BrokerError
from websock.topics import redis as topics_redis

needs_hiredis = pytest.mark.skipif(
    importlib.util.find_spec("hiredis") is None, reason="hiredis is not installed"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Broker]:
    with running("redis", tmp_path) as broker:
        yield broker


#: What each has last said; nobody asks whether anybody is there within a minute.
LAST = {"receives": "ping", "sends": "evalsha", "reads": "xrevrange"}


def admin_of(server: Broker) -> Any:
    return redis.asyncio.Redis(host=LOOPBACK, port=server.port)


@pytest.mark.parametrize("which", LAST)
def test_one_that_ends_alone(server: Broker, which: str) -> None:
    """What is published then comes here once, whichever it is."""

    async def main() -> None:
        async with (
            admin_of(server) as admin,
            several(server, 1, timeout=60, history=5) as ((one, a),),
        ):
            backend = one.topics.backend
            assert await a.ask("t") == "ok"
            one.publish("t", "before")
            assert await a.get() == "before"
            assert len(await backend.kept("t", 5, {})) == 1
            last = {client["cmd"]: client["id"] for client in await admin.client_list()}
            assert await admin.client_kill_filter(_id=last[LAST[which]]) == 1
            one.publish("t", "then")
            assert await a.get() == "then"
            await until(lambda: backend.is_connected)
            one.publish("t", "after")
            assert await a.get() == "after"
            if which == "reads":
                with pytest.raises(BrokerError, match="ConnectionError"):
                    await backend.kept("t", 5, {})
            assert (await backend.kept("t", 1, {}))[0].message.payload == b"after"

    go(main())


def test_the_one_that_reads_goes_when_it_is_not_needed(server: Broker) -> None:
    async def main() -> None:
        async def count() -> int:
            return len(await admin.client_list()) - 1

        async with (
            admin_of(server) as admin,
            several(server, 1, timeout=60, history=5) as ((one, _),),
        ):
            backend = one.topics.backend
            assert await count() == 2
            one.publish("t", "text")
            for _ in range(3):
                everybody = [backend.kept("t", 5, {}) for _ in range(20)]
                await asyncio.gather(*everybody)
                assert await count() == 3
                await backend.probe()
                while await count() > 2:  # Redis hears of it a little later
                    await admin.ping()
                assert len(backend._lines) <= 3

    go(main())


def test_who_is_interrupted_leaves_no_answer_behind(server: Broker) -> None:
    async def main() -> None:
        async with several(server, 1, history=5) as ((one, a),):
            backend = one.topics.backend
            assert await a.ask("t.*") == "ok"
            for name in ("t.1", "t.2"):
                one.publish(name, name)
            assert await a.get(2) == ["t.1", "t.2"]
            loop = asyncio.get_running_loop()
            for turns in range(20):
                task = loop.create_task(backend.kept("t.1", 5, {}))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                [kept] = await backend.kept("t.2", 5, {})
                assert kept.message.payload == b"t.2"
            assert backend.is_connected

    go(main())


@pytest.mark.parametrize(
    "name",
    ["_AsyncRESP2Parser", pytest.param("_AsyncHiredisParser", marks=needs_hiredis)],
)
def test_either_parser(
    server: Broker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = getattr(redis.asyncio.connection, name)
    set_parser = AbstractConnection.set_parser

    def choose(self: Any, parser: type) -> None:
        set_parser(self, wanted)

    monkeypatch.setattr(AbstractConnection, "set_parser", choose)

    async def main() -> None:
        async with several(server, history=10) as ((one, a), (two, b)):
            for client in (a, b):
                assert await client.ask("t.*") == "ok"
            texts = ["", "\r\n", "." * 70_000, *map(str, range(300))]
            for text in texts:
                one.publish("t.x", text)
            assert await a.get(len(texts)) == await b.get(len(texts)) == texts
            kept = await two.topics.backend.kept("t.**", 3, {})
            assert [item.message.payload for item in kept] == [b"297", b"298", b"299"]

    go(main())


def test_a_url_changes_nothing_that_matters(server: Broker) -> None:
    """Nor do messages stop when none has come for long, as URLs can ask for."""
    options = "decode_responses=yes&protocol=3&socket_timeout=0.01"

    async def main() -> None:
        topics = topics_on(f"{server.url}?{options}", history=2)
        async with served(topics=topics) as (one, a):
            assert await a.ask("t") == "ok"
            for text in ("1", "2", "3"):
                # Longer than the URL says, or this shows nothing.
                await asyncio.sleep(0.02)
                one.publish("t", text)
                assert await a.get() == text
            kept = await topics.backend.kept("t", None, {})
            assert [item.message.payload for item in kept] == [b"2", b"3"]
            assert topics.backend.unsent == 0  # type: ignore[attr-defined]

    go(main())


def test_more_topics_than_are_remembered(
    server: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics_redis, "MAX_HEADS", 3)

    async def main() -> None:
        async with several(server, 1) as ((one, a),):
            assert await a.ask("**") == "ok"
            names = [f"t{number % 7}" for number in range(50)]
            for name in names:
                one.publish(name, name)
            assert await a.get(len(names)) == names
            assert len(one.topics.backend._heads) <= 3

    go(main())
