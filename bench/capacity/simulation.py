"""Messages played through workers and a broker, to see that the arithmetic holds.

Subscribers are placed on workers one by one, topics are popular by Zipf's law,
messages come at random times (a Poisson process), and the broker and every worker take
what comes one after the other.  The model knows none of that: it has averages.  What
comes out is how busy each is, and what averages cannot show, how long messages wait.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from .figures import Figures
from .model import Load

MOST_SUBSCRIBERS = 2_000_000
"""Of all topics: each is placed by itself."""


@dataclass(frozen=True)
class Outcome:
    """What was seen."""

    messages: int
    copies: float
    """Of a message, on average."""
    broker: float
    """Cores that the brokers were busy with."""
    worker: float
    """Share of their time that workers were busy, on average."""
    busiest: float
    """The share of the worker that was busiest."""
    delays: tuple[float, float]
    """Seconds from publishing to the last subscriber: the median, and 99 of 100."""


def simulate(
    load: Load,
    figures: Figures,
    workers: int,
    *,
    brokers: int = 1,
    topics: int = 1000,
    skew: float = 1.0,
    seconds: float = 5.0,
    seed: int = 0,
) -> Outcome:
    """Play ``seconds`` of a load.

    Args:
        load: What is published.  All else (clients' messages, pings, handshakes, and
            publishing itself) is even on all workers, and makes them slower.
        figures: What things cost.
        workers: How many there are.
        brokers: Cores of brokers, among which the topics are shared in turn.
        topics: How many there are; their audiences differ, ``load.audience`` is what
            a message meets on average.
        skew: Exponent of Zipf's law: 0 makes all topics alike.
        seconds: How long to play.
        seed: Of the random numbers.

    Raises:
        ValueError: When there is nothing to play, or too much.
    """
    if load.published <= 0 or topics < 1:
        raise ValueError(f"{load.published:g} messages/s to {topics} topics are none")
    if topics * load.audience > MOST_SUBSCRIBERS:
        raise ValueError(
            f"{topics:,} topics of {load.audience:,.0f} subscribers are more than the "
            f"{MOST_SUBSCRIBERS:,} that are simulated: take fewer topics"
        )
    chance = random.Random(seed)
    # A topic is published to as often as it is popular, and has as many subscribers.
    weights = [1 / rank**skew for rank in range(1, topics + 1)]
    total = sum(weights)
    met = sum(weight * weight for weight in weights) / total
    placed = [
        _place(_whole(load.audience * weight / met, chance), workers, chance)
        for weight in weights
    ]
    steps = list(itertools.accumulate(weights))
    even = _other_work(load, figures, workers)
    slower = 1 / (1 - even)
    free_at = [0.0] * workers
    busy = [0.0] * workers
    broker_free = [0.0] * brokers
    broker_busy = clock = 0.0
    sent = messages = 0
    delays = []
    while True:
        clock += chance.expovariate(load.published)
        if clock > seconds:
            break
        messages += 1
        topic = chance.choices(range(topics), cum_weights=steps)[0]
        subscribers, broker = placed[topic], topic % brokers
        cost = figures.broker_message + figures.broker_copy * len(subscribers)
        sent_at = broker_free[broker] = max(broker_free[broker], clock) + cost / 1e6
        broker_busy += cost / 1e6
        sent += len(subscribers)
        last = sent_at
        for worker, count in subscribers.items():
            cost = (figures.receive + figures.delivery * count) / 1e6
            busy[worker] += cost
            free_at[worker] = max(free_at[worker], sent_at) + cost * slower
            last = max(last, free_at[worker])
        delays.append(last - clock)
    delays.sort()
    return Outcome(
        messages=messages,
        copies=sent / max(1, messages),
        broker=broker_busy / seconds,
        worker=sum(busy) / workers / seconds + even,
        busiest=max(busy) / seconds + even,
        delays=(_quantile(delays, 0.5), _quantile(delays, 0.99)),
    )


def _other_work(load: Load, figures: Figures, workers: int) -> float:
    """Return the share of a worker's time that goes into what is not published.

    Raises:
        ValueError: When that alone is more than it has.
    """
    rate = load.received * (figures.echo + load.handler)
    rate += figures.echo / load.ping_interval + figures.handshake / load.lifetime
    rate = load.connections * rate + load.published * figures.publish
    share = rate / workers / 1e6
    if share >= 1:
        raise ValueError(
            f"{workers:,} workers are busy with {share:.2f} of their time before "
            "anything is published"
        )
    return share


def _whole(value: float, chance: random.Random) -> int:
    """Return one of the two whole numbers around a value, which it is on average."""
    return int(value) + (chance.random() < value - int(value))


def _place(count: int, workers: int, chance: random.Random) -> dict[int, int]:
    """Return how many of some subscribers are on each worker that has any."""
    placed: dict[int, int] = {}
    for worker in chance.choices(range(workers), k=count):
        placed[worker] = placed.get(worker, 0) + 1
    return placed


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
