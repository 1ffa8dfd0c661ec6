"""What ``python -m bench capacity`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .. import report
from .figures import Figures
from .model import GIB, ONE_CORE, Answer, Load, Machine, Sum, broker_network
from .simulation import Outcome

WIDTH = 26  # of a name
SMALL = 1024  # bytes of a message for which the figures still hold, about
LEAST = 0.001  # cores that are worth a line
WORKERS = (1, 10, 100, 1000)  # of the brokers' limits


def answer(load: Load, machine: Machine, figures: Figures, found: Answer) -> str:
    """Return the answer for people to read."""
    each = (figures.compressed if load.compressed else figures.memory) + figures.kernel
    rows = [
        (
            "machines",
            f"{found.machines:,}, of {machine.cores:,} "
            f"{'core' if machine.cores == 1 else 'cores'} and "
            f"{number(machine.memory / GIB)} GiB; decided by {found.bound}",
        ),
        ("  to lose one of them", f"{found.safe:,}; {_recovery(found)}"),
        (
            "workers",
            f"{found.workers:,}, one for each core, with "
            f"{number(load.connections / found.workers)} connections",
        ),
        (
            "in use of a machine",
            ", ".join(f"{name} {share:.0%}" for name, share in found.shares.items()),
        ),
        (
            "memory",
            f"{number(found.memory / GIB)} GiB; {number(each / 1024)} KiB for a "
            f"connection, {number(figures.kernel / 1024)} of it the kernel's",
        ),
        ("network", f"{number(found.network / 1e9)} Gbit/s out"),
        ("copies of a message", f"{number(found.copies)}, one for each worker that "
         "has a subscriber"),
        (
            "cores in use",
            f"{number(found.cores)}: so many in a second, with so much time each",
        ),
        *(
            (f"  {name}", f"{number(item.cores)} = {_sum(item)}")
            for name, item in found.sums.items()
            if item.cores >= LEAST
        ),
        *_broker(load, figures, found),
    ]  # fmt: skip
    if found.shards > 1:
        rows.insert(
            0,
            (
                "shards",
                f"{found.shards:,}, each with {found.machines // found.shards:,} of "
                f"the machines and {found.brokers // found.shards:,} {figures.broker}",
            ),
        )
    lines = [f"{name:{WIDTH}}{value}" for name, value in rows]
    return "\n".join(lines + [f"note: {note}" for note in _notes(load, figures, found)])


def _recovery(found: Answer) -> str:
    if math.isinf(found.recovery):
        return "but its clients find no place"
    seconds = found.recovery
    time = f"{number(seconds)} s" if seconds >= 0.1 else "less than 0.1 s"
    return f"the others have let in its clients after {time}"


def _sum(item: Sum) -> str:
    factors = " x ".join(
        f"{x:.1g}" if 0 < x < LEAST else number(x) for x in item.factors
    )
    if item.interval != 1:
        factors += f" / {number(item.interval)}"
    return f"{factors} x {number(item.cost)} us"


def _broker(load: Load, figures: Figures, found: Answer) -> list[tuple[str, str]]:
    servers = "1 server" if found.brokers == 1 else f"{found.brokers:,} servers"
    limit = " of one core" if figures.broker in ONE_CORE else ""
    bits = broker_network(load, found.copies) / 1e9
    return [
        (figures.broker, f"{servers}{limit}; {number(bits)} Gbit/s out"),
        (
            "  cores in use",
            f"{number(found.broker)} = {number(load.published)} x "
            f"({number(figures.broker_message)} + {number(found.copies)} x "
            f"{number(figures.broker_copy)}) us",
        ),
    ]


def _notes(load: Load, figures: Figures, found: Answer) -> list[str]:
    notes = []
    if found.brokers > found.shards and figures.broker in ONE_CORE:
        each = -(-found.brokers // found.shards)
        notes.append(
            f"a worker knows one broker; that topics need {each} is met by shards: "
            f"--shards {found.shards * each}"
        )
    if load.received and not load.handler:
        notes.append("handlers are taken to cost nothing: measure yours for --handler")
    if load.size > SMALL:
        notes.append(
            "the times were measured with messages of 100 bytes or less, longer ones "
            "cost more"
        )
    if load.compressed:
        notes.append("what compression needs is in the memory, its time is not")
    return notes


def number(value: float) -> str:
    """Return a number with three digits that mean something; a whole one as it is."""
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    if 0 < value < LEAST:
        return f"less than {LEAST:g}"
    return report.number(value) if value >= 1 else f"{value:.3g}"


def comparison(found: Answer, topics: int, outcomes: Mapping[str, Outcome]) -> str:
    """Return what was computed beside what was seen, in one shard."""
    seen = list(outcomes.values())

    def row(name: str, computed: str, values: Sequence[str]) -> str:
        return f"{name:{WIDTH}}" + "".join(f"{x:>24}" for x in (computed, *values))

    broker, workers = found.broker / found.shards, found.cores / found.workers
    lines = [
        f"{seen[0].messages:,} messages played, {topics:,} "
        + ("topic" if topics == 1 else "topics"),
        row("", "computed", list(outcomes)),
        row("copies of a message", f"{found.copies:.2f}", _each(seen, "copies", 2)),
        row("broker, cores in use", f"{broker:.3f}", _each(seen, "broker", 3)),
        row("worker, in use", f"{workers:.3f}", _each(seen, "worker", 3)),
        row("busiest worker", "", _each(seen, "busiest", 3)),
        row("ms to the last, half", "", [f"{o.delays[0] * 1e3:.2f}" for o in seen]),
        row("ms to the last, 99 of 100", "",
            [f"{o.delays[1] * 1e3:.2f}" for o in seen]),
    ]  # fmt: skip
    if max(outcome.busiest for outcome in seen) >= 1:
        lines.append(
            "note: a worker that is busy for more than all of its time has too much of "
            "a popular topic; averages do not show that"
        )
    return "\n".join(lines)


def _each(seen: Sequence[Outcome], name: str, digits: int) -> list[str]:
    return [f"{getattr(outcome, name):.{digits}f}" for outcome in seen]


def costs(measured: Sequence[Figures]) -> str:
    """Return the figures that all else is computed from, and when brokers are full."""
    one = measured[0]
    rows = [
        ("KiB of memory for a connection", one.memory / 1024),
        ("  with compression", one.compressed / 1024),
        ("  of the kernel, besides", one.kernel / 1024),
        ("us of a core for a handshake", one.handshake),
        ("  for a message and its answer", one.echo),
        ("  for a delivery to a subscriber", one.delivery),
    ]
    width = 38
    lines = [f"{name:{width}}{report.number(value):>10}" for name, value in rows]

    def line(name: str, values: Sequence[str]) -> str:
        return f"{name:{width}}" + "".join(f"{value:>10}" for value in values)

    lines += ["", line("", [each.broker for each in measured])]
    for name, attribute in (
        ("us of the broker for a message", "broker_message"),
        ("  for each copy of it", "broker_copy"),
        ("us of a worker that publishes it", "publish"),
        ("  of one that gets a copy of it", "receive"),
    ):
        lines.append(
            line(name, [report.number(getattr(f, attribute)) for f in measured])
        )
    lines += ["", "messages/s that fill one core"]
    for workers in WORKERS:
        who = "1 worker" if workers == 1 else f"{workers:,} workers"
        full = [1e6 / (f.broker_message + workers * f.broker_copy) for f in measured]
        lines.append(
            line(
                f"  of the broker, {who} {'gets' if workers == 1 else 'get'} all",
                [f"{x:,.0f}" for x in full],
            )
        )
    for name, attribute in (("publishes", "publish"), ("gets them all", "receive")):
        full = [1e6 / getattr(f, attribute) for f in measured]
        lines.append(line(f"  of a worker that {name}", [f"{x:,.0f}" for x in full]))
    return "\n".join(lines)
