"""Messages that are kept for those who come late, and what numbers show."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import Run, loop_fixture
from subscribers import served, until

import websock
from websock.topics import Position, Topics
from websock.topics.history import History, positions

run = loop_fixture()


def texts(history: History, pattern: str, *args: Any) -> list[str]:
    return [kept.message.payload.decode() for kept in history.read(pattern, *args)]


def fill(history: History, **messages: str) -> None:
    for topic, text in messages.items():
        for letter in text:
            history.add(topic.replace("_", "."), websock.prepare(letter))


# -- the history itself ----------------------------------------------------------------


def test_last() -> None:
    history = History(3, 1000)
    fill(history, a="12345", a_b="xy", c="p", a_c="q")
    assert texts(history, "a", None, {}) == ["3", "4", "5"]
    assert texts(history, "a", 2, {}) == ["4", "5"]
    assert texts(history, "a", 9, {}) == ["3", "4", "5"]
    assert texts(history, "a", 0, {}) == []
    assert texts(history, "a.*", 1, {}) == ["y", "q"]
    assert texts(history, "**", None, {}) == ["3", "4", "5", "x", "y", "p", "q"]
    assert texts(history, "none", None, {}) == []
    fill(history, a_b="z")  # in the order they came
    assert texts(history, "a.*", None, {}) == ["x", "y", "q", "z"]
    assert history.size == 3 + 3 + 1 + 1


def test_since() -> None:
    history = History(3, 1000)
    places = [history.add("a", websock.prepare(str(n))) for n in range(1, 6)]
    assert [place.number for place in places] == [1, 2, 3, 4, 5]
    assert texts(history, "a", None, {"a": places[3]}) == ["5"]
    assert texts(history, "a", None, {"a": places[4]}) == []
    assert texts(history, "a", 1, {"a": places[2]}) == ["4", "5"]  # since counts
    # There is a gap, which the numbers show: 1 was the last, 3 is the first.
    kept = history.read("a", None, {"a": places[0]})
    assert [item.position.number for item in kept] == [3, 4, 5]
    # Of another count nothing has been seen.
    other = Position("other", 4)
    assert texts(history, "a", None, {"a": other}) == ["3", "4", "5"]
    fill(history, b="12")
    assert texts(history, "*", 1, {"a": places[3]}) == ["5", "2"]


def test_bytes_are_limited() -> None:
    history = History(100, 10)
    fill(history, a="1234", b="1234", c="12")
    assert history.size == 10
    fill(history, c="3")
    assert texts(history, "a", None, {}) == ["2", "3", "4"]
    fill(history, a="5")  # now b was quiet longest
    assert texts(history, "**", None, {}) == [*"234", *"234", *"123", "5"]
    assert history.size == 10
    history.add("d", websock.prepare("." * 11))
    assert history.size == 0
    assert texts(history, "**", None, {}) == []
    assert history.add("a", websock.prepare("x")).number == 6  # it is counted on


def test_topics_are_limited() -> None:
    history = History(2, 1000, max_topics=2)
    first = history.add("a", websock.prepare("1"))
    history.add("b", websock.prepare("1"))
    history.add("c", websock.prepare("1"))
    assert texts(history, "**", None, {}) == ["1", "1"]
    assert history.size == 2
    again = history.add("a", websock.prepare("2"))
    assert again.number == 1
    assert again.epoch != first.epoch  # the gap shows
    assert texts(history, "a", None, {"a": first}) == ["2"]


def test_without_history_messages_are_counted() -> None:
    history = History(0, 0)
    assert [history.add("a", websock.prepare("x")).number for _ in range(3)] == [
        1,
        2,
        3,
    ]
    assert history.read("a", None, {}) == []
    assert history.size == 0


def test_positions() -> None:
    place = Position("a-1:b", 12)
    assert str(place) == "a-1:b:12"
    assert Position.parse("a-1:b:12") == place
    for wrong in ("", "12", "a", ":1", "a:", "a:-1", "a:1x", "a:٣", "a:" + "1" * 99):
        with pytest.raises(ValueError, match="not of the form epoch:number"):
            Position.parse(wrong)
    assert positions("t", None) == {}
    assert positions("t", "e:1") == {"t": Position("e", 1)}
    assert positions("t.*", {"t.a": "e:1", "t.b": place}) == {
        "t.a": Position("e", 1),
        "t.b": place,
    }
    with pytest.raises(ValueError, match=r"for each topic: 't\.\*' is a pattern"):
        positions("t.*", "e:1")


# -- on connections --------------------------------------------------------------------


async def late(ws: Any) -> None:
    """Subscribe as the path of the request says."""
    path, _, query = ws.request.path[1:].partition("?")
    options = dict(part.split("=") for part in query.split("&") if part)
    ws.subscribe(
        path,
        numbered="numbered" in options,
        last=int(options["last"]) if "last" in options else None,
        since=options.get("since"),
    )
    await ws.wait_closed()


def test_those_who_come_late(run: Run) -> None:
    async def main() -> None:
        topics = Topics(history=5)
        async with served(late, clients=0, topics=topics) as (server,):
            for number in range(8):
                server.publish("t.a", f"a{number}")
            server.publish("t.b", b"b0")
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}"
            async with websock.connect(f"{url}/t.a?last=2") as ws:
                assert [await ws.recv(), await ws.recv()] == ["a6", "a7"]
                server.publish("t.a", "a8")
                assert await ws.recv() == "a8"
            async with websock.connect(f"{url}/t.*?last=9") as ws:
                got = [await ws.recv() for _ in range(6)]
                assert got == ["a4", "a5", "a6", "a7", b"b0", "a8"]
            async with websock.connect(f"{url}/t.a") as ws:
                await until(lambda: server.subscribers("t.a"))
                server.publish("t.a", "a9")
                assert await ws.recv() == "a9"
            kept = server.topics.history("t.a")
            assert [item.message.payload for item in kept] == [
                b"a5", b"a6", b"a7", b"a8", b"a9",
            ]  # fmt: skip
            assert len(server.topics.history("t.*", 1)) == 2

    run(main())


def parted(message: str) -> tuple[str, Position, str]:
    """Take an envelope apart, as a client does."""
    line, _, text = message.partition("\n")
    topic, _, place = line.partition(" ")
    return topic, Position.parse(place), text


def test_those_who_come_back(run: Run) -> None:
    async def main() -> None:
        topics = Topics(history=3)
        async with served(late, clients=0, topics=topics) as (server,):
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}/t?numbered=1"
            async with websock.connect(f"{url}&last=1") as ws:
                await until(lambda: server.subscribers("t"))
                server.publish("t", "0")
                _, place, text = parted(await ws.recv())
                assert text == "0"
            server.publish("t", "1")
            server.publish("t", "2")
            async with websock.connect(f"{url}&since={place}") as ws:
                got = [parted(await ws.recv()) for _ in range(2)]
                assert [text for _, _, text in got] == ["1", "2"]
                assert [p.number for _, p, _ in got] == [2, 3]  # nothing is missing
                place = got[-1][1]
            for number in range(3, 10):
                server.publish("t", str(number))
            async with websock.connect(f"{url}&since={place}") as ws:
                got = [parted(await ws.recv()) for _ in range(3)]
                assert [text for _, _, text in got] == ["7", "8", "9"]
                assert got[0][1] == Position(place.epoch, 8)  # 4 to 7 are missing
                place = got[-1][1]
        # A restart.
        async with served(late, clients=0, topics=Topics(history=3)) as (server,):
            port = server.sockets[0].getsockname()[1]
            server.publish("t", "new")
            async with websock.connect(
                f"ws://127.0.0.1:{port}/t?numbered=1&since={place}"
            ) as ws:
                _, now, text = parted(await ws.recv())
                assert text == "new"
                assert now.epoch != place.epoch

    run(main())


def test_bad_positions_of_clients(run: Run) -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            async for message in ws:
                pattern, _, since = message.partition(" ")
                with pytest.raises(ValueError) as caught:
                    ws.subscribe(pattern, since=since)
                await ws.send(str(caught.value))

        async with served(handler) as (server, a):
            assert await a.ask("t nonsense") == (
                "position is not of the form epoch:number"
            )
            assert await a.ask("t.* e:1") == (
                "since must be a position for each topic: 't.*' is a pattern"
            )
            assert server.subscribers("t") == set()
            (ws,) = server.connections
            with pytest.raises(ValueError, match="last must not be negative: -1"):
                ws.subscribe("t", last=-1)

    run(main())
