"""The command ``python -m bench capacity``: its options, and what it does."""

from __future__ import annotations

import argparse
import dataclasses
import math

from . import figures as figures_module
from . import quantities, text
from .figures import Figures
from .model import GIB, ONE_CORE, Answer, Load, Machine, copies, plan
from .simulation import MOST_SUBSCRIBERS, Outcome, simulate

MESSAGES = 5000  # that a simulation plays, at least for SECONDS
SECONDS = 2.0
MOST_COPIES = 150_000  # that it plays, whatever else
TOPICS = 1000
SKEWS = {"all topics alike": 0.0, "popular by Zipf's law": 1.0}
DESCRIPTION = """
How many machines does it take?  Computed from the figures in bench/results; nothing is
measured now.  Numbers may be written as 1M, 1,000,000, 1/60, 16k, 30min, 40%.
"""
EXAMPLES = """
a chat whose rooms have 50 members, each of whom says something once a minute:
  python -m bench capacity --connections 1M --published 1M/60 --audience 50
the same, with the rooms shared among four groups of machines:
  python -m bench capacity --connections 1M --published 1M/60 --audience 50 --shards 4
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser; what they are by default is in ``Load``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    usual, one = Load(), Machine()
    group = parser.add_argument_group("load")

    def add(name: str, kind: object, default: float, unit: str, help: str) -> None:
        group.add_argument(
            name,
            type=kind,  # type: ignore[arg-type]
            default=default,
            metavar=unit,
            help=f"{help} ({text.number(default)})",
        )

    q = quantities
    add("--connections", q.count, usual.connections, "N", "that are open at once")
    add("--published", q.rate, usual.published, "N", "messages/s, to all topics")
    group.add_argument(
        "--audience",
        type=q.count,
        metavar="N",
        help="subscribers that a published message has "
        f"({usual.audience:g}, or all connections)",
    )
    add("--size", q.size, usual.size, "BYTES", "of a message")
    add("--received", q.rate, usual.received, "N", "messages/s of one client, answered")
    add("--handler", q.microseconds, usual.handler, "US", "of your code, for each")
    add("--lifetime", q.seconds, usual.lifetime, "SECONDS", "of a connection")
    add("--ping-interval", q.seconds, usual.ping_interval, "SECONDS", "between pings")
    group.add_argument("--compressed", action="store_true", help="permessage-deflate")
    group = parser.add_argument_group("machines")
    add("--cores", q.count, one.cores, "N", "of one, each with a worker")
    add("--memory", q.gibibytes, one.memory / GIB, "GIB", "of one")
    add("--network", q.gigabits, one.network / 1e9, "GBIT", "of one, per second")
    add("--headroom", q.share, one.headroom, "SHARE", "of all that, which stays free")
    add("--shards", q.count, 1, "N", "groups of machines with topics of their own")
    group.add_argument(
        "--api",
        choices=list(figures_module.APIS),
        default="coroutine",
        help="handlers as coroutines, or listeners (coroutine)",
    )
    group.add_argument(
        "--broker",
        choices=figures_module.BROKERS,
        default="redis",
        help="between the workers (redis)",
    )
    group = parser.add_argument_group("instead, or besides")
    group.add_argument(
        "--figures", action="store_true", help="print the figures, and nothing else"
    )
    group.add_argument(
        "--simulate", action="store_true", help="play messages, and compare"
    )
    group.add_argument(
        "--topics",
        type=q.count,
        metavar="N",
        help=f"of the simulation ({TOPICS:,}, or as many as can be played)",
    )
    group.add_argument("--seed", type=int, default=0, help="of the simulation (0)")


def run(options: argparse.Namespace) -> int:
    """Compute, and print; return the exit status."""
    if options.figures:
        names = figures_module.BROKERS
        measured = [figures_module.load(options.api, name) for name in names]
        print(text.costs(measured))
        return 0
    load, machine, shards = read(options)
    figures = figures_module.load(options.api, options.broker)
    answer = plan(load, machine, figures, shards)
    print(text.answer(load, machine, figures, answer))
    if options.simulate:
        topics = choose_topics(load, options.topics)
        outcomes = play(load, machine, figures, answer, topics, options.seed)
        print("\n" + text.comparison(answer, topics, outcomes))
    return 0


def choose_topics(load: Load, wanted: int | None) -> int:
    """Return how many topics a simulation has."""
    if wanted is not None:
        return wanted
    return max(1, min(TOPICS, int(MOST_SUBSCRIBERS / max(1, load.audience))))


def play(
    load: Load,
    machine: Machine,
    figures: Figures,
    answer: Answer,
    topics: int,
    seed: int,
) -> dict[str, Outcome]:
    """Simulate one of the shards, with topics alike and with popular ones."""
    shards = answer.shards
    mine = dataclasses.replace(
        load,
        connections=math.ceil(load.connections / shards),
        published=load.published / shards,
    )
    workers = answer.workers // shards
    rate = mine.published * max(1, copies(workers, load.audience))
    seconds = min(max(SECONDS, MESSAGES / mine.published), MOST_COPIES / rate)
    servers = answer.brokers // shards
    if figures.broker not in ONE_CORE:
        servers *= machine.cores
    return {
        name: simulate(
            mine,
            figures,
            workers,
            brokers=servers,
            topics=topics,
            skew=skew,
            seconds=seconds,
            seed=seed,
        )
        for name, skew in SKEWS.items()
    }


def read(options: argparse.Namespace) -> tuple[Load, Machine, int]:
    """Return what the options say: a load, a machine, and the number of shards.

    Raises:
        ValueError: When a number makes no sense.
    """
    names = "connections cores memory network lifetime ping_interval shards"
    for name in names.split():
        value = getattr(options, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{_option(name)} is {value:g}, must be more than 0")
    for name in ("connections", "cores", "shards", "size", "topics"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value == int(value)):
            raise ValueError(f"{_option(name)} is {value:g}, must be a whole number")
    for name in ("published", "audience", "size", "received", "handler"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{_option(name)} is {value:g}, must be 0 or more")
    topics = TOPICS if options.topics is None else options.topics
    if options.simulate and not (options.published > 0 and topics):
        raise ValueError(
            f"{options.published:g} messages/s to {topics:g} topics: there is nothing "
            "to simulate"
        )
    if options.topics is not None:
        if options.topics < 0:
            raise ValueError(f"--topics is {options.topics:g}, must be 1 or more")
        options.topics = int(options.topics)
    if not 0 <= options.headroom < 1:
        raise ValueError(
            f"--headroom is {options.headroom:g}, must be from 0 to below 1, or 0% to "
            "below 100%"
        )
    most = options.connections / options.shards
    audience = options.audience
    if audience is None:
        audience = min(Load().audience, most)
    if audience > most:
        where = "connections" if options.shards == 1 else "connections of a shard"
        raise ValueError(
            f"--audience is {text.number(audience)}, which is more than the "
            f"{most:,.0f} {where}"
        )
    load = Load(
        connections=int(options.connections),
        published=options.published,
        audience=audience,
        size=int(options.size),
        received=options.received,
        handler=options.handler,
        lifetime=options.lifetime,
        ping_interval=options.ping_interval,
        compressed=options.compressed,
    )
    machine = Machine(
        cores=int(options.cores),
        memory=options.memory * GIB,
        network=options.network * 1e9,
        headroom=options.headroom,
    )
    return load, machine, int(options.shards)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
