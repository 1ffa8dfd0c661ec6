"""Capacity: the arithmetic, that a simulation agrees with it, and what it is fed with.

Nothing here measures time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import brokers, kernel, stats  # noqa: E402
from bench.capacity import command  # noqa: E402
from bench.capacity import figures as figures_module  # noqa: E402
from bench.capacity.figures import Figures  # noqa: E402
from bench.capacity.model import (  # noqa: E402
    GIB,
    Load,
    Machine,
    copies,
    cpu,
    plan,
)
from bench.capacity.simulation import simulate  # noqa: E402
from bench.process import BenchError  # noqa: E402

pytestmark = pytest.mark.source

FIGURES = Figures(
    api="coroutine",
    broker="redis",
    memory=4000,
    compressed=50_000,
    kernel=4000,
    handshake=70,
    echo=7,
    delivery=5,
    broker_message=3,
    broker_copy=0.25,
    publish=20,
    receive=40,
)


class TestModel:
    @pytest.mark.parametrize(("workers", "audience"), [(1, 5), (4, 3), (7, 20)])
    def test_copies(self, workers: int, audience: int) -> None:
        chance = random.Random(workers)
        rounds = 20_000
        seen = sum(
            len(set(chance.choices(range(workers), k=audience))) for _ in range(rounds)
        )
        assert copies(workers, audience) == pytest.approx(seen / rounds, rel=0.01)

    def test_copies_at_the_ends(self) -> None:
        assert copies(100, 0) == 0
        assert copies(100, 1) == pytest.approx(1)
        assert copies(100, 1e9) == pytest.approx(100)
        assert copies(1, 0.25) == 0.25

    def test_costs_are_sums_of_products(self) -> None:
        load = Load(
            connections=60_000,
            published=100,
            audience=2000,
            received=0.5,
            handler=3,
            lifetime=600,
            ping_interval=30,
        )
        assert cpu(load, FIGURES, 1) == pytest.approx(
            {
                "deliveries": 100 * 2000 * 5e-6,
                "publishing": 100 * 20e-6,
                "copies from the broker": 100 * 40e-6,
                "messages of clients": 60_000 * 0.5 * 10e-6,
                "keepalive": 60_000 / 30 * 7e-6,
                "handshakes": 60_000 / 600 * 70e-6,
            }
        )

    @pytest.mark.parametrize(
        ("load", "machine", "bound"),
        [
            (Load(published=1, audience=1), Machine(memory=4 * GIB), "memory"),
            (Load(published=1000, audience=10_000), Machine(memory=64 * GIB), "cores"),
            (
                Load(published=10, audience=1000, size=1 << 20, connections=1000),
                Machine(network=1e9),
                "network",
            ),
        ],
    )
    def test_what_decides(self, load: Load, machine: Machine, bound: str) -> None:
        answer = plan(load, machine, FIGURES)
        assert answer.bound == bound
        assert answer.workers == answer.machines * machine.cores
        free = 1 - machine.headroom
        assert answer.cores <= free * answer.workers
        assert answer.memory <= free * machine.memory * answer.machines
        assert answer.network <= free * machine.network * answer.machines

    def test_one_machine_fewer_would_not_do(self) -> None:
        load, machine = Load(published=500, audience=10_000), Machine()
        answer = plan(load, machine, FIGURES)
        workers = (answer.machines - 1) * machine.cores
        assert workers > 0
        used = sum(cpu(load, FIGURES, workers).values())
        assert used > (1 - machine.headroom) * workers

    def test_compression_costs_memory(self) -> None:
        plain = plan(Load(), Machine(), FIGURES)
        packed = plan(Load(compressed=True), Machine(), FIGURES)
        assert packed.memory - plain.memory >= 1_000_000 * 46_000
        assert packed.machines > plain.machines

    def test_more_than_any_number_of_workers_can_do(self) -> None:
        """Each worker gets each message, and has no time for as many."""
        with pytest.raises(ValueError, match="workers are not enough, 100,000 are"):
            plan(Load(published=30_000, audience=1_000_000), Machine(), FIGURES)

    def test_several_brokers(self) -> None:
        answer = plan(Load(published=100_000, audience=4), Machine(), FIGURES)
        assert answer.broker == pytest.approx(
            100_000 * (3 + 0.25 * answer.copies) / 1e6
        )
        assert answer.brokers == math.ceil(answer.broker / 0.6)

    def test_a_lost_machine(self) -> None:
        load = Load(published=1000, audience=1000)
        answer = plan(load, Machine(), FIGURES)
        assert answer.machines == 2
        left = 8 - sum(cpu(load, FIGURES, 8).values())
        assert answer.recovery == pytest.approx(500_000 * 70e-6 / left)
        alone = plan(Load(connections=1000, audience=10), Machine(), FIGURES)
        assert alone.recovery == math.inf


class TestSimulation:
    @pytest.mark.parametrize("audience", [3, 50, 2000])
    @pytest.mark.parametrize("workers", [1, 8, 64])
    def test_agrees_with_the_model(self, audience: int, workers: int) -> None:
        """As long as topics are alike, which is what the model supposes."""
        rate = min(5000.0, 0.5 * workers / cost(workers, audience))
        load = Load(connections=workers * 5000, published=rate, audience=audience)
        seen = simulate(load, FIGURES, workers, skew=0, seconds=6000 / rate)
        expected = copies(workers, audience)
        assert seen.copies == pytest.approx(expected, rel=0.02)
        assert seen.broker == pytest.approx(
            rate * (3 + 0.25 * expected) / 1e6, rel=0.05
        )
        used = sum(cpu(load, FIGURES, workers).values()) / workers
        assert seen.worker == pytest.approx(used, rel=0.05)
        assert seen.worker <= seen.busiest

    def test_popular_topics_need_fewer_copies(self) -> None:
        """Averages are on the safe side where topics differ."""
        load = Load(published=2000, audience=30)
        alike = simulate(load, FIGURES, 64, skew=0)
        differing = simulate(load, FIGURES, 64, skew=1)
        assert differing.copies < alike.copies
        assert differing.worker < alike.worker

    def test_too_few_workers(self) -> None:
        """Messages wait for longer and longer."""
        load = Load(connections=1000, published=1000, audience=400)
        enough = simulate(load, FIGURES, 4, skew=0, seconds=5)
        too_few = simulate(load, FIGURES, 1, skew=0, seconds=5)
        assert enough.busiest < 1 < too_few.busiest
        assert enough.delays[1] < 0.1 < too_few.delays[0]

    def test_nothing_to_play(self) -> None:
        with pytest.raises(ValueError, match="0 messages/s to 1000 topics"):
            simulate(Load(published=0), FIGURES, 1)

    def test_no_time_for_messages(self) -> None:
        with pytest.raises(ValueError, match="1 workers are busy with"):
            simulate(Load(connections=10_000_000), FIGURES, 1)


def cost(workers: int, audience: float) -> float:
    """Return the seconds of all workers for a message."""
    return (copies(workers, audience) * 40 + audience * 5) / 1e6


class TestBrokers:
    @pytest.mark.parametrize("name", brokers.BROKERS)
    def test_a_real_one(self, name: str) -> None:
        broker = brokers.BROKERS[name]
        if shutil.which(broker.program) is None:
            pytest.skip(f"{broker.program} is not installed")
        row = brokers.measure(broker, 3, 0.02)
        assert row["published"] >= brokers.AT_ONCE
        assert row["cpu_us"] > 0
        assert row["version"][0].lstrip("v").isdigit() or row["version"][1].isdigit()

    @pytest.mark.parametrize("name", brokers.BROKERS)
    def test_workers(self, name: str) -> None:
        broker = brokers.BROKERS[name]
        if shutil.which(broker.program) is None:
            pytest.skip(f"{broker.program} is not installed")
        if name != "hub":
            pytest.importorskip(name)
        pytest.importorskip("uvloop")
        row = brokers.measure_workers(broker, sys.executable, 0.02)
        assert row["published"] >= brokers.BURST
        assert min(row["broker_us"], row["publish_us"], row["receive_us"]) > 0

    def test_costs(self) -> None:
        rows: list[dict[str, Any]] = [
            {"broker": name, "subscribers": n, "cpu_us": a + b * n}
            for name, a, b in [("redis", 3, 0.25), ("nats", 4, 0.5)]
            for n in (1, 8, 32)
        ]
        workers = {"broker_us": 9, "publish_us": 20, "receive_us": 40}
        with pytest.raises(ValueError, match="no rows of workers with redis"):
            brokers.costs(rows, "redis")
        rows += [{"broker": name, **workers} for name in ("redis", "nats")]
        cost = brokers.costs(rows, "nats")
        found = (cost.copy, cost.message, cost.publish, cost.receive)
        assert found == pytest.approx((0.5, 8.5, 20, 40))
        with pytest.raises(ValueError, match="1 points at one place make no line"):
            brokers.costs(rows[:1], "redis")

    def test_names(self) -> None:
        with pytest.raises(
            ValueError, match="unknown broker 'rabbit'; there are redis"
        ):
            brokers.choose("rabbit")

    def test_line(self) -> None:
        assert stats.line_through([(1, 3), (2, 5), (10, 21)]) == pytest.approx((1, 2))


def test_kernel_needs_files() -> None:
    with pytest.raises(BenchError, match="files may be open"):
        kernel.measure(1 << 40)


class TestCommand:
    @pytest.fixture
    def ask(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., str]:
        monkeypatch.setattr(figures_module, "load", lambda *names: FIGURES)

        def ask(*arguments: str) -> str:
            parser = argparse.ArgumentParser()
            command.add_options(parser)
            assert command.run(parser.parse_args(arguments)) == 0
            return capsys.readouterr().out

        return ask

    def test_answer(self, ask: Callable[..., str]) -> None:
        said = ask("--published", "50", "--audience", "100000")
        assert "machines                  6, for cores\n" in said
        assert "copies of a message       48.0\n" in said
        assert "simulated" not in said

    def test_simulation(self, ask: Callable[..., str]) -> None:
        said = ask("--connections", "50000", "--audience", "50", "--simulate")
        assert "| copies of a message | 7.99 | 7.99 |" in said

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("--connections 0", "connections is 0, must be more than 0"),
            ("--published -1", "published is -1, must be 0 or more"),
            ("--headroom 1", "headroom is 1, must be from 0 to below 1"),
            ("--ping-interval 0", "ping interval is 0, must be above 0"),
            ("--audience 2e6", "audience of 2e\\+06 is more than the 1,000,000"),
            ("--published 0 --simulate", "there is nothing to simulate"),
            ("--memory nan", "memory is nan, must be more than 0"),
        ],
    )
    def test_nonsense(
        self, ask: Callable[..., str], arguments: str, error: str
    ) -> None:
        with pytest.raises(ValueError, match=error):
            ask(*arguments.split())


class TestFigures:
    def test_what_was_not_measured(self, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match="run python -m bench brokers"):
            figures_module.load(results=tmp_path)

    def test_no_row_that_fits(self, tmp_path: Path) -> None:
        row = {"broker": "redis", "subscribers": 1, "cpu_us": 3}
        workers = {"broker": "redis", "broker_us": 9, "publish_us": 1, "receive_us": 2}
        lines = [{"machine": {}}, row, {**row, "subscribers": 2}, workers]
        text = "\n".join(json.dumps(line) for line in lines)
        (tmp_path / "brokers.jsonl").write_text(text)
        (tmp_path / "idle.jsonl").write_text('{"machine": {}}')
        with pytest.raises(BenchError, match=r"idle\.jsonl has no figure: run python"):
            figures_module.load(results=tmp_path)

    def test_names(self) -> None:
        with pytest.raises(ValueError, match="unknown API 'threads'; there are cor"):
            figures_module.load("threads")
        with pytest.raises(ValueError, match="unknown broker 'kafka'; there are redis"):
            figures_module.load(broker="kafka")
