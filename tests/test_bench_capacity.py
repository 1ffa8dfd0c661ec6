"""Capacity: the arithmetic, that a simulation agrees with it, and what it is fed with.

Nothing here measures time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import brokers, instructions, kernel, stats  # noqa: E402
from bench.__main__ import main as bench  # noqa: E402
from bench.capacity import command, quantities  # noqa: E402
from bench.capacity import figures as figures_module  # noqa: E402
from bench.capacity.figures import Figures  # noqa: E402
from bench.capacity.model import (  # noqa: E402
    GIB,
    Load,
    Machine,
    copies,
    cpu,
    plan,
    sums,
    usage,
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
        found = {name: item.cores for name, item in sums(load, FIGURES, 1).items()}
        assert found == pytest.approx(
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
        used = cpu(load, FIGURES, workers)
        assert used > (1 - machine.headroom) * workers

    def test_compression_costs_memory(self) -> None:
        plain = plan(Load(), Machine(), FIGURES)
        packed = plan(Load(compressed=True), Machine(), FIGURES)
        assert packed.memory - plain.memory >= 1_000_000 * 46_000
        assert packed.machines > plain.machines

    @pytest.mark.parametrize(
        ("load", "machine", "error"),
        [
            (
                Load(published=30_000, audience=1_000_000),
                Machine(),
                "would use 270% of their cores, of which 60% may be used; every worker is "
                "busy with the copies that it gets from the broker: publish less, or s",
            ),
            (Load(lifetime=0.001), Machine(), "most of it goes into handshakes$"),
            (
                Load(connections=10**12),
                Machine(),
                "of their memory, of which 60% may b",
            ),
            (
                Load(),
                Machine(memory=GIB / 4),
                r"a machine's 8 workers need 0.50 GiB before the first connection, and "
                r"0.15 of its 0.25 GiB may be used",
            ),
        ],
    )
    def test_more_than_any_number_of_workers_can_do(
        self, load: Load, machine: Machine, error: str
    ) -> None:
        """The text says what is too much."""
        with pytest.raises(ValueError, match=error):
            plan(load, machine, FIGURES)

    def test_several_brokers(self) -> None:
        answer = plan(Load(published=100_000, audience=4), Machine(), FIGURES)
        assert answer.broker == pytest.approx(
            100_000 * (3 + 0.25 * answer.copies) / 1e6
        )
        assert answer.brokers == math.ceil(answer.broker / 0.6)

    def test_brokers_that_send_too_much(self) -> None:
        load = Load(published=1000, audience=10_000, size=16_384)
        answer = plan(load, Machine(cores=64), FIGURES)
        assert answer.broker < answer.brokers * 0.1
        bits = 1000 * answer.copies * (16_384 + 64 + 66) * 8
        assert answer.brokers == math.ceil(bits / 10e9 / 0.6) > 1

    def test_brokers_on_all_cores(self) -> None:
        nats = dataclasses.replace(FIGURES, broker="nats")
        answer = plan(Load(published=2e6, audience=4), Machine(network=1e11), nats)
        assert answer.brokers == math.ceil(answer.broker / 8 / 0.6)

    def test_a_lost_machine(self) -> None:
        load = Load(published=1000, audience=1000)
        answer = plan(load, Machine(), FIGURES)
        assert answer.machines == answer.safe == 2
        left = 8 - cpu(load, FIGURES, 8)
        assert answer.recovery == pytest.approx(500_000 * 70e-6 / left)

    def test_one_machine_cannot_be_lost(self) -> None:
        answer = plan(Load(connections=1000, audience=10), Machine(), FIGURES)
        assert (answer.machines, answer.safe) == (1, 2)
        assert answer.recovery < math.inf

    def test_a_lost_machine_whose_clients_need_memory(self) -> None:
        """Cores are free, but half of the clients is more than fits."""
        load, machine = Load(published=1, audience=1), Machine(memory=6.5 * GIB)
        answer = plan(load, machine, FIGURES)
        assert answer.bound == "memory"
        assert (answer.machines, answer.safe) == (3, 3)
        machine = Machine(memory=7.5 * GIB)
        assert plan(load, machine, FIGURES).machines == 2
        assert usage(load, machine, FIGURES, 1)["memory"] > 1
        assert plan(load, machine, FIGURES).safe == 3

    def test_shards(self) -> None:
        """Each is a deployment of its own, with its part of all but the audience."""
        load = Load(published=40_000, audience=50)
        whole, shards = (
            plan(load, Machine(), FIGURES),
            plan(load, Machine(), FIGURES, 4),
        )
        part = dataclasses.replace(load, connections=250_000, published=10_000)
        one = plan(part, Machine(), FIGURES)
        assert shards.copies == one.copies < whole.copies
        assert shards.cores == pytest.approx(4 * one.cores)
        assert shards.cores < whole.cores
        assert shards.shares == pytest.approx(one.shares)
        assert shards.recovery == pytest.approx(one.recovery)
        found = (shards.machines, shards.safe, shards.brokers, shards.workers)
        assert found == tuple(
            4 * n for n in (one.machines, one.safe, one.brokers, one.workers)
        )


class TestSimulation:
    @pytest.mark.parametrize("audience", [1.5, 3, 50, 2000])
    @pytest.mark.parametrize("workers", [1, 8, 64])
    def test_agrees_with_the_model(self, audience: float, workers: int) -> None:
        """As long as topics are alike, which is what the model supposes."""
        rate = min(5000.0, 0.5 * workers / cost(workers, audience))
        load = Load(connections=workers * 5000, published=rate, audience=audience)
        seen = simulate(load, FIGURES, workers, skew=0, seconds=6000 / rate)
        expected = copies(workers, audience)
        assert seen.copies == pytest.approx(expected, rel=0.02)
        assert seen.broker == pytest.approx(
            rate * (3 + 0.25 * expected) / 1e6, rel=0.05
        )
        used = cpu(load, FIGURES, workers) / workers
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

    def test_too_much_to_play(self) -> None:
        with pytest.raises(
            ValueError, match="1,000 topics of 1,000,000 subscribers ar"
        ):
            simulate(Load(audience=1e6), FIGURES, 8)

    def test_brokers_share_the_topics(self) -> None:
        """What one cannot do two can."""
        load = Load(connections=1000, published=200_000, audience=4)
        one = simulate(load, FIGURES, 800, skew=0, seconds=0.1)
        two = simulate(load, FIGURES, 800, brokers=2, skew=0, seconds=0.1)
        assert one.broker == pytest.approx(two.broker)
        assert 0.5 < one.broker < 1
        slow = dataclasses.replace(FIGURES, broker_message=8)
        one = simulate(load, slow, 800, skew=0, seconds=0.1)
        two = simulate(load, slow, 800, brokers=2, skew=0, seconds=0.1)
        assert one.broker > 1.5
        assert one.delays[0] > 0.01 > two.delays[0]

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

    @pytest.mark.slow
    def test_instructions(self) -> None:
        if shutil.which("callgrind_control") is None:
            pytest.skip("valgrind is not installed")
        pytest.importorskip("uvloop")
        rows = instructions.measure(brokers.BROKERS["hub"], sys.executable)
        assert len(rows) == 2 * len(instructions.AT_ONCE)
        assert all(1_000 < row["instructions"] < 1_000_000 for row in rows)
        lines = instructions.table(rows).splitlines()
        assert len(lines) == 2 + len(rows)
        assert lines[2].startswith("| hub | 1 | publishes |")

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


def words(text: str) -> list[str]:
    return text.split()


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
        said = ask("--published", "50", "--audience", "100,000")
        assert (
            "machines                  6, of 8 cores and 16 GiB; decided by cores\n"
            in said
        )
        assert "  to lose one of them     6; the others have let in its cl" in said
        assert "copies of a message       48, one for each worker that" in said
        assert "  deliveries              25 = 50 x 100,000 x 5 us\n" in said
        assert "played" not in said
        assert "note" not in said

    def test_one_machine(self, ask: Callable[..., str]) -> None:
        """A small one: the audience is what there is."""
        said = ask("--connections", "10")
        assert "machines                  1, of" in said
        assert "  to lose one of them     2; " in said
        assert " = 1,000 x 10 x 5 us\n" in said

    def test_shards(self, ask: Callable[..., str]) -> None:
        said = ask(*words("--published 10k --audience 50 --shards 4"))
        assert said.startswith("shards                    4, each with 1 of the machi")

    def test_one_broker_is_not_enough(self, ask: Callable[..., str]) -> None:
        load = words("--published 200k --audience 2 --connections 10k")
        said = ask(*load)
        assert "redis                     2 servers of one core; " in said
        assert "note: a worker knows one broker; that topics need 2 is met by" in said
        said = ask(*load, "--shards", "2")
        assert "note" not in said

    def test_notes(self, ask: Callable[..., str]) -> None:
        said = ask(*words("--received 1/60 --size 16k --compressed"))
        assert len(re.findall("^note: ", said, re.M)) == 3
        assert " = 1,000,000 x 0.0167 x 7 us\n" in said

    def test_simulation(self, ask: Callable[..., str]) -> None:
        said = ask("--connections", "50000", "--audience", "50", "--simulate")
        copies = next(x for x in said.splitlines()[::-1] if x.startswith("copies of"))
        assert copies.split()[4:6] == ["7.99", "7.99"]
        assert " messages played, 1,000 topics\n" in said

    def test_simulation_of_many(self, ask: Callable[..., str]) -> None:
        """It takes as many topics as it can, and as many messages."""
        assert command.choose_topics(Load(audience=500_000), None) == 4
        assert command.choose_topics(Load(audience=500_000), 7) == 7
        said = ask(*words("--published 1M --audience 2 --simulate"))
        played = int(said.partition(" messages played")[0].split()[-1].replace(",", ""))
        assert 5000 < played < 100_000
        assert "note: a worker that is busy for more than all of its time" in said

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("--connections 0", "--connections is 0, must be more than 0"),
            ("--connections 1.5", "--connections is 1.5, must be a whole number"),
            ("--published -1", "--published is -1, must be 0 or more"),
            ("--handler inf", "--handler is inf, must be 0 or more"),
            ("--headroom 1", "--headroom is 1, must be from 0 to below 1"),
            ("--headroom 40", "--headroom is 40, must be from 0 to below 1, or 0% to"),
            ("--ping-interval 0", "--ping-interval is 0, must be more than 0"),
            (
                "--audience 2e6",
                "--audience is 2,000,000, which is more than the 1,000,",
            ),
            ("--audience 500k --shards 3", "more than the 333,333 connections of a sh"),
            ("--published 0 --simulate", "there is nothing to simulate"),
            ("--topics 0 --simulate", "to 0 topics: there is nothing to simulate"),
            ("--topics -1 --simulate", "--topics is -1, must be 1 or more"),
            ("--topics inf", "--topics is inf, must be a whole number"),
            ("--memory nan", "--memory is nan, must be more than 0"),
            ("--memory inf", "--memory is inf, must be more than 0"),
        ],
    )
    def test_nonsense(
        self, ask: Callable[..., str], arguments: str, error: str
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(error)):
            ask(*arguments.split())

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (
                "--conections 5",
                "there is no option --conections; did you mean --connec",
            ),
            ("1000", "there is no option 1000\n"),
            ("--connections many", "'many' is not a number: write 1000000, 1,000,000,"),
            ("--published 1/0", "'1/0' is a division by zero"),
            ("--broker rabbit", "invalid choice: 'rabbit' (choose from"),
        ],
    )
    def test_typos(
        self, capsys: pytest.CaptureFixture[str], arguments: str, error: str
    ) -> None:
        """A line that says what is wrong, and where to look; no list of options."""
        with pytest.raises(SystemExit) as caught:
            bench(["capacity", *arguments.split()])
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert error in said
        assert said.endswith("\nall options: python -m bench capacity --help\n")
        assert said.count("\n") == 2

    def test_figures(self, ask: Callable[..., str]) -> None:
        said = ask("--figures")
        assert "KiB of memory for a connection              3.91\n" in said
        full = next(x for x in said.splitlines() if "10 workers get all" in x)
        assert full.split()[-2:] == [f"{1e6 / (3 + 10 * 0.25):,.0f}"] * 2


class TestQuantities:
    @pytest.mark.parametrize(
        ("parse", "text", "value"),
        [
            (quantities.count, "1,000,000", 1e6),
            (quantities.count, "1_000", 1000),
            (quantities.count, "1.5M", 1.5e6),
            (quantities.count, "1e6", 1e6),
            (quantities.rate, "1/60", 1 / 60),
            (quantities.rate, "1M/60", 1e6 / 60),
            (quantities.rate, "-.5", -0.5),
            (quantities.size, "16k", 16_384),
            (quantities.size, "16 KiB", 16_384),
            (quantities.gibibytes, "512M", 0.5),
            (quantities.gigabits, "10Gbit", 10),
            (quantities.seconds, "30min", 1800),
            (quantities.microseconds, "2ms", 2000),
            (quantities.share, "40%", 0.4),
        ],
    )
    def test_right(
        self, parse: Callable[[str], float], text: str, value: float
    ) -> None:
        assert parse(text) == pytest.approx(value)

    @pytest.mark.parametrize(
        "text", ["", "1,5", "1,0000", "10x", "1/", "k", "1 2", "--1"]
    )
    def test_wrong(self, text: str) -> None:
        with pytest.raises(
            argparse.ArgumentTypeError, match="is not a number: write 1"
        ):
            quantities.rate(text)


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
        with pytest.raises(BenchError, match=r"idle\.jsonl has no memory of lib"):
            figures_module.load(results=tmp_path)

    @pytest.mark.parametrize("text", ["", "so what", "{}", "[]\n[]", '{"machine": 1}'])
    def test_spoiled(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "brokers.jsonl").write_text(text)
        with pytest.raises(BenchError, match=r"brokers\.jsonl .*run python -m bench b"):
            figures_module.load(results=tmp_path)

    def test_names(self) -> None:
        with pytest.raises(ValueError, match="unknown API 'threads'; there are cor"):
            figures_module.load("threads")
        with pytest.raises(ValueError, match="unknown broker 'kafka'; there are redis"):
            figures_module.load(broker="kafka")
