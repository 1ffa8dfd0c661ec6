"""The command ``python -m bench capacity``: its options, and what it prints."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

from .. import report
from . import figures as figures_module
from .figures import Figures
from .model import GIB, Answer, Load, Machine, plan
from .simulation import Outcome, simulate

MESSAGES = 5000  # that a simulation plays, at least for SECONDS
SECONDS = 2.0
SKEWS = {"all topics alike": 0.0, "popular by Zipf's law": 1.0}
WIDTH = 26  # of a name, in what is printed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser; what they are by default is in ``Load``."""
    usual, one = Load(), Machine()
    group = parser.add_argument_group("load")
    group.add_argument("--connections", type=int, default=usual.connections)
    group.add_argument(
        "--published", type=float, default=usual.published, metavar="PER_SECOND"
    )
    group.add_argument(
        "--audience",
        type=float,
        default=usual.audience,
        help="subscribers that a published message has",
    )
    group.add_argument("--size", type=int, default=usual.size, help="of a message")
    group.add_argument(
        "--received",
        type=float,
        default=usual.received,
        metavar="PER_SECOND",
        help="messages of one client",
    )
    group.add_argument(
        "--handler",
        type=float,
        default=usual.handler,
        metavar="MICROSECONDS",
        help="of the program for each of those",
    )
    group.add_argument(
        "--lifetime", type=float, default=usual.lifetime, help="of a connection, in s"
    )
    group.add_argument("--ping-interval", type=float, default=usual.ping_interval)
    group.add_argument("--compressed", action="store_true")
    group = parser.add_argument_group("machines")
    group.add_argument("--cores", type=int, default=one.cores)
    group.add_argument("--memory", type=float, default=one.memory / GIB, metavar="GIB")
    group.add_argument(
        "--network", type=float, default=one.network / 1e9, metavar="GBIT"
    )
    group.add_argument(
        "--headroom", type=float, default=one.headroom, help="share that stays free"
    )
    parser.add_argument("--api", choices=list(figures_module.APIS), default="coroutine")
    parser.add_argument("--broker", default="redis")
    parser.add_argument(
        "--simulate", action="store_true", help="play messages, and compare"
    )
    parser.add_argument("--topics", type=int, default=1000, help="of the simulation")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> int:
    """Compute, and print; return the exit status."""
    load, machine = read(options)
    figures = figures_module.load(options.api, options.broker)
    answer = plan(load, machine, figures)
    print(text(load, machine, figures, answer))
    if not options.simulate:
        return 0
    seconds = max(SECONDS, MESSAGES / load.published)
    outcomes = {
        name: simulate(
            load,
            figures,
            answer.workers,
            topics=options.topics,
            skew=skew,
            seconds=seconds,
            seed=options.seed,
        )
        for name, skew in SKEWS.items()
    }
    print("\n" + comparison(answer, outcomes))
    return 0


def read(options: argparse.Namespace) -> tuple[Load, Machine]:
    """Return what the options say.

    Raises:
        ValueError: When a number makes no sense.
    """
    for name in ("connections", "cores", "memory", "network", "lifetime"):
        value = getattr(options, name)
        if not value > 0:
            raise ValueError(f"{name} is {value:g}, must be more than 0")
    if not options.ping_interval > 0:
        raise ValueError(f"ping interval is {options.ping_interval:g}, must be above 0")
    for name in ("published", "audience", "size", "received", "handler"):
        value = getattr(options, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value:g}, must be 0 or more")
    if options.simulate and not (options.published > 0 and options.topics > 0):
        raise ValueError(
            f"{options.published:g} messages/s to {options.topics} topics: there is "
            "nothing to simulate"
        )
    if not 0 <= options.headroom < 1:
        raise ValueError(f"headroom is {options.headroom:g}, must be from 0 to below 1")
    if options.audience > options.connections:
        raise ValueError(
            f"an audience of {options.audience:g} is more than the "
            f"{options.connections:,} connections"
        )
    load = Load(
        connections=options.connections,
        published=options.published,
        audience=options.audience,
        size=options.size,
        received=options.received,
        handler=options.handler,
        lifetime=options.lifetime,
        ping_interval=options.ping_interval,
        compressed=options.compressed,
    )
    machine = Machine(
        cores=options.cores,
        memory=options.memory * GIB,
        network=options.network * 1e9,
        headroom=options.headroom,
    )
    return load, machine


def text(load: Load, machine: Machine, figures: Figures, answer: Answer) -> str:
    """Return the answer for people to read."""
    each = (figures.compressed if load.compressed else figures.memory) + figures.kernel
    recovery = (
        "its clients find no place"
        if math.isinf(answer.recovery)
        else f"all are back after {answer.recovery:.1f} s"
    )
    rows = [
        ("machines", f"{answer.machines:,}, for {answer.bound}"),
        ("workers", f"{answer.workers:,}, one for each core"),
        ("connections/worker", f"{load.connections / answer.workers:,.0f}"),
        ("memory/connection", f"{each / 1024:.1f} KiB, {figures.kernel / 1024:.1f} KiB "
         "of it the kernel's"),
        ("memory", f"{answer.memory / GIB:.1f} GiB in all"),
        ("network", f"{answer.network / 1e9:.2f} Gbit/s in all"),
        ("cores in use", f"{answer.cores:.2f}"),
        *((f"  {name}", f"{cores:.2f}") for name, cores in answer.cpu.items()),
        ("copies of a message", f"{answer.copies:.1f}"),
        (f"{figures.broker}, in use", f"{answer.broker:.2f} of a core"),
        (f"{figures.broker} servers", f"{answer.brokers:,}"),
        ("a machine is lost", recovery),
    ]  # fmt: skip
    return "\n".join(f"{name:{WIDTH}}{value}" for name, value in rows)


def comparison(answer: Answer, outcomes: Mapping[str, Outcome]) -> str:
    """Return what was computed beside what was seen."""
    seen = list(outcomes.values())
    rows = [
        ["copies of a message", f"{answer.copies:.2f}"]
        + [f"{outcome.copies:.2f}" for outcome in seen],
        ["broker in use", f"{answer.broker:.3f}"]
        + [f"{outcome.broker:.3f}" for outcome in seen],
        ["workers in use", f"{answer.cores / answer.workers:.3f}"]
        + [f"{outcome.worker:.3f}" for outcome in seen],
        ["busiest worker", ""] + [f"{outcome.busiest:.3f}" for outcome in seen],
        ["until the last subscriber, ms", ""]
        + [f"{outcome.delays[0] * 1e3:.2f}" for outcome in seen],
        ["the same, 99 of 100", ""]
        + [f"{outcome.delays[1] * 1e3:.2f}" for outcome in seen],
    ]
    return report.table(["", "computed", *outcomes], rows)
