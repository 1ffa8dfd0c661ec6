"""The comparison of topics with other libraries: its sums, its load, and a real run.

Nothing here measures time.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import websock

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import load, machine, process, rooms, stats  # noqa: E402

pytestmark = pytest.mark.source

needs_load = pytest.mark.skipif(
    not sys.platform.startswith("linux")
    or shutil.which("cc") is None
    or shutil.which("make") is None,
    reason="the load generator needs Linux, a C compiler and make",
)


def row(library: str, shape: rooms.Shape, cpu: float, number: int = 0) -> stats.Row:
    return {
        "library": library,
        "workers": shape.workers,
        "subscribers": shape.subscribers,
        "topics": shape.topics,
        "round": number,
        "correct": True,
        "error": "",
        "cpu_us": cpu,
        "rate": 1e6 / cpu,
    }


FEW, MANY = rooms.Shape(2, 10), rooms.Shape(2, 10_000)


class TestShapes:
    def test_topics_have_ten_subscribers_each_on_all_workers(self) -> None:
        one, many = rooms.shapes([2], [100], [1000])
        assert (one.subscribers, one.topics, one.per_topic) == (100, 1, 0)
        assert (many.subscribers, many.topics, many.per_topic) == (10_000, 1000, 5)
        assert many.title == "1,000 topics x 10"

    @pytest.mark.parametrize(("workers", "count"), [(3, 9), (2, 11)])
    def test_uneven(self, workers: int, count: int) -> None:
        with pytest.raises(ValueError, match="cannot share"):
            rooms.shapes([workers], [count], [])

    def test_unknown_library(self) -> None:
        with pytest.raises(ValueError, match="unknown library: nobody"):
            rooms.choose("websock,nobody")

    def test_who_is_run_where(self) -> None:
        chosen = rooms.choose("websock,websock-redis,socketio-redis,epoll")
        plan = rooms.Plan(chosen, [], sys.executable, 3, 0.1)
        wide = rooms.Plan(chosen, [], sys.executable, 3, 0.1, all_workers=True)

        def run(plan: rooms.Plan, shape: rooms.Shape, number: int = 0) -> list[str]:
            return [c.name for c in chosen if plan.has(c, shape, number)]

        one = rooms.Shape(1, 10)
        assert run(plan, one) == ["websock", "websock-redis", "epoll"]
        assert run(plan, rooms.Shape(1, 10, 2)) == ["websock", "websock-redis"]
        assert run(wide, one) == ["websock", "websock-redis", "socketio-redis", "epoll"]
        assert run(plan, FEW) == run(plan, MANY) == ["websock-redis", "socketio-redis"]
        # With many connections what is slow has one round.
        assert run(plan, MANY, 1) == ["websock-redis"]


class TestGoals:
    def rows(self, few: float, many: float) -> list[stats.Row]:
        peers = [("channels-redis", 500), ("socketio-redis", 100)]
        return [
            *(row("websock-redis", FEW, few * n, n - 1) for n in (1, 2)),
            *(row("websock-redis", MANY, many * n, n - 1) for n in (1, 2)),
            *(row(name, FEW, cpu * n, n - 1) for name, cpu in peers for n in (1, 2)),
            *(row(name, MANY, cpu) for name, cpu in peers),
        ]

    def test_half_of_the_cheapest_and_flat(self) -> None:
        found = rooms.judge(self.rows(50, 60))
        assert [(v.case, v.what, v.is_met) for v in found] == [
            ("2 workers: 10 subscribers", "websock-redis / socketio-redis", True),
            ("2 workers: 10,000 subscribers", "websock-redis / socketio-redis", False),
            ("2 workers: 10,000 subscribers / 10", "websock-redis", True),
        ]
        # Within each round, also where one of them has more.
        assert [v.ratio and v.ratio.median for v in found] == [0.5, 0.6, 1.2]

    def test_not_flat(self) -> None:
        assert not rooms.judge(self.rows(10, 13))[-1].is_met

    def test_what_is_wrong_has_no_figure(self) -> None:
        rows = self.rows(50, 40)
        rows[1].update(correct=False, error="first\nlast line")
        (many, flat) = rooms.judge(rows)
        assert many.case == "2 workers: 10,000 subscribers"
        assert many.is_met
        assert flat.ratio is None
        assert not flat.is_met

    def test_report(self) -> None:
        rows = self.rows(50, 40)
        rows[-1].update(correct=False, error="first\nlast line")
        text = rooms.markdown(machine.describe(sys.executable), rows)
        assert "| websock-redis | 75.0 (50.0-100) | 60.0 (40.0-80.0) |" in text
        assert "| socketio-redis | 150 (100-200) |  |" in text
        assert "- socketio-redis, 2 workers: 10,000 subscribers: last line" in text
        assert "| at most 0.5 | 0.50 (0.50-0.50) | met |" in text


@contextmanager
def serving(handler: Callable[[Any], Any], count: int = 1) -> Iterator[list[int]]:
    """Run servers of one handler in a thread; yield their ports."""
    ports: list[int] = []
    ready = threading.Event()
    stopping: list[Callable[[], None]] = []

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stopping.append(lambda: loop.call_soon_threadsafe(ended.set))
        servers = [
            await websock.serve(handler, "127.0.0.1", 0, compression=None)
            for _ in range(count)
        ]
        ports.extend(server.sockets[0].getsockname()[1] for server in servers)
        ready.set()
        await ended.wait()
        for server in servers:
            server.close()
            await server.wait_closed()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield ports
    finally:
        stopping[0]()
        thread.join()


def generate(ports: list[int], *arguments: str) -> dict[str, Any]:
    """Run the load generator; return what it found."""
    command = [str(load.build("ws_load")), "--port", ",".join(map(str, ports))]
    core = process.choose_cores()[1]
    with process.running([*command, *arguments], core=core) as generator:
        result: dict[str, Any] = json.loads(generator.read_line(60))
        return result


@needs_load
class TestLoad:
    def test_ports_in_turn(self) -> None:
        """Connections are dealt out over the ports, the same number to each."""
        seen: dict[int, int] = {}

        async def echo(ws: Any) -> None:
            port = ws.local_address[1]
            seen[port] = seen.get(port, 0) + 1
            async for message in ws:
                await ws.send(message)

        with serving(echo, 3) as ports:
            result = generate(ports, "--connections", "12", "--messages", "24")
            assert seen == dict.fromkeys(ports, 4)
        assert (result["correct"], result["messages"]) == (True, 24)

    def talk(self, ending: str = '"]', heartbeat: str = "3") -> dict[str, Any]:
        """Talk Socket.IO as its server does; return what the load generator found."""
        said: list[str] = []

        async def handler(ws: Any) -> None:
            assert ws.request.path == "/socket.io/?EIO=4&transport=websocket"
            # As long as theirs, and with what a client need not understand.
            await ws.send("0" + json.dumps({"sid": "x" * 20, "upgrades": ["y" * 120]}))
            said.append(await ws.recv())
            await ws.send('40{"sid":"z"}')
            async for message in ws:
                if message == heartbeat:
                    continue
                assert message.startswith('42["m","')
                await ws.send("2")
                await ws.send(message[:-2] + ending)

        with serving(handler) as ports:
            result = generate(
                ports,
                *("--kind", "socketio", "--size", "50", "--connections", "3"),
                *("--path", "/socket.io/?EIO=4&transport=websocket"),
                *("--messages", "30", "--depth", "2"),
            )
        assert said == ["40"] * 3
        return result

    def test_socketio(self) -> None:
        result = self.talk()
        assert (result["correct"], result["messages"]) == (True, 30), result

    def test_socketio_that_answers_otherwise(self) -> None:
        result = self.talk("']")
        assert result["correct"] is False
        assert "wrong reply" in result["error"]


@needs_load
class TestRuns:
    @pytest.mark.parametrize("name", ["websock", "websock-redis", "websockets"])
    def test_a_small_one(self, name: str) -> None:
        pytest.importorskip("uvloop")
        pytest.importorskip("websockets")
        (contender,) = rooms.choose(name)
        if contender.has_broker:
            pytest.importorskip("redis")
            if shutil.which("redis-server") is None:
                pytest.skip("redis-server is not installed")
        workers = contender.workers[-1]
        shapes = rooms.shapes([workers], [], [2])
        plan = rooms.Plan([contender], shapes, sys.executable, 1, 0.02)
        (found,) = rooms.run(plan)
        assert found["correct"], found["error"]
        assert found["delivered"] % 20 == 0
        assert found["cpu_us"] > 0
        assert ("broker_us" in found) is contender.has_broker
