"""The arithmetic of capacity: what a load costs, and how many machines carry it.

All costs are sums of products of rates and measured figures.  What is not measured on a
network, and so not computed: latency between machines, packet loss, and what a handler
does by itself; ``handler`` takes that as a figure.

Shards are groups of machines, each with topics and brokers of its own: whoever
subscribes to a topic is in the group that has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .figures import Figures

MIB = 1 << 20
GIB = 1 << 30

BASE_MEMORY = 64 * MIB
"""Bytes of a worker without connections: the interpreter, and a program."""
FRAME = 4
"""Bytes of a frame's header, without mask (RFC 6455, 5.2)."""
PACKET = 66
"""Bytes of the headers of Ethernet, IPv4 and TCP with timestamps."""
BROKER_WORDS = 64
"""Bytes that a broker sends around a message: the topic's name, lengths, a number."""
ONE_CORE = frozenset({"redis"})
"""Brokers that carry messages on one core, however many a machine has."""
MOST_WORKERS = 100_000


@dataclass(frozen=True)
class Load:
    """What a deployment has to carry."""

    connections: int = 1_000_000
    published: float = 1000.0
    """Messages that are published in a second, to all topics together."""
    audience: float = 100.0
    """Subscribers of a topic, weighted by how often it is published to."""
    size: int = 100
    """Bytes of a message."""
    received: float = 0.0
    """Messages that a client sends in a second, each answered."""
    handler: float = 0.0
    """Microseconds of the program for a message of a client."""
    lifetime: float = 1800.0
    """Seconds that a connection lasts."""
    ping_interval: float = 20.0
    """Seconds between pings of a connection."""
    compressed: bool = False


@dataclass(frozen=True)
class Machine:
    """One of the machines, all of which are alike."""

    cores: int = 8
    memory: float = 16 * GIB
    network: float = 10e9
    """Bits in a second."""
    headroom: float = 0.4
    """Share of cores, memory and network that stays free."""

    @property
    def free(self) -> float:
        """The share that may be used."""
        return 1 - self.headroom


@dataclass(frozen=True)
class Sum:
    """A number of things in a second, each with its cost."""

    factors: tuple[float, ...]
    """The number is their product."""
    cost: float
    """Microseconds of CPU."""
    interval: float = 1.0
    """Seconds in which so many happen."""

    @property
    def cores(self) -> float:
        """Cores that are busy with it."""
        return math.prod(self.factors) / self.interval * self.cost / 1e6


@dataclass(frozen=True)
class Answer:
    """What it takes, of all shards together."""

    workers: int
    machines: int
    safe: int
    """With so many, each shard can lose one: the others have room for its clients."""
    shards: int
    bound: str
    """What decides about the number: ``cores``, ``memory`` or ``network``."""
    shares: dict[str, float]
    """Share of each of these that is in use."""
    copies: float
    """Copies of a message that the broker sends."""
    broker: float
    """Cores that the brokers use; one of ``ONE_CORE`` has 1 and no more."""
    brokers: int
    """Brokers to share the topics among, with the headroom of a machine."""
    sums: dict[str, Sum]
    """Where the cores in use come from."""
    memory: float
    """Bytes of all machines."""
    network: float
    """Bits in a second, out of all machines."""
    recovery: float
    """Seconds until the clients of a lost machine are back, with ``safe`` machines."""

    @property
    def cores(self) -> float:
        """Cores in use on all machines."""
        return sum(item.cores for item in self.sums.values())


def copies(workers: int, audience: float) -> float:
    """Return how many workers have a subscriber, who are placed at random.

    Each of ``workers`` is without one with the probability (1 - 1/workers)^audience.
    """
    if workers == 1:
        return min(1.0, audience)
    return workers * -math.expm1(audience * math.log1p(-1 / workers))


def sums(load: Load, figures: Figures, workers: int, shards: int = 1) -> dict[str, Sum]:
    """Return what keeps the cores of ``workers`` busy, of all shards."""
    sent = copies(workers // shards, load.audience)
    return {
        "deliveries": Sum((load.published, load.audience), figures.delivery),
        "publishing": Sum((load.published,), figures.publish),
        "copies from the broker": Sum((load.published, sent), figures.receive),
        "messages of clients": Sum(
            (load.connections, load.received), figures.echo + load.handler
        ),
        # A ping and its pong are two short messages, as an echo is.
        "keepalive": Sum((load.connections,), figures.echo, load.ping_interval),
        "handshakes": Sum((load.connections,), figures.handshake, load.lifetime),
    }


def cpu(load: Load, figures: Figures, workers: int, shards: int = 1) -> float:
    """Return the cores that a load keeps busy."""
    return sum(item.cores for item in sums(load, figures, workers, shards).values())


def memory(load: Load, figures: Figures, workers: int) -> float:
    """Return the bytes that all workers and their kernels need."""
    each = figures.compressed if load.compressed else figures.memory
    return load.connections * (each + figures.kernel) + workers * BASE_MEMORY


def network(load: Load) -> float:
    """Return the bits that leave in a second."""
    sent = load.published * load.audience * (load.size + FRAME + PACKET)
    sent += load.connections * load.received * (load.size + FRAME + PACKET)
    sent += load.connections / load.ping_interval * 2 * PACKET
    return sent * 8


def broker_network(load: Load, sent: float) -> float:
    """Return the bits that leave the brokers in a second, for ``sent`` copies."""
    return load.published * sent * (load.size + BROKER_WORDS + PACKET) * 8


def usage(
    load: Load, machine: Machine, figures: Figures, machines: int, shards: int = 1
) -> dict[str, float]:
    """Return which shares of what so many machines have are in use."""
    workers = machines * machine.cores
    return {
        "cores": cpu(load, figures, workers, shards) / workers,
        "memory": memory(load, figures, workers) / (machines * machine.memory),
        "network": network(load) / (machines * machine.network),
    }


def plan(load: Load, machine: Machine, figures: Figures, shards: int = 1) -> Answer:
    """Return what a load takes: a worker for each core, all shards alike.

    Raises:
        ValueError: When no number of machines would do.
    """
    machines = 0
    while True:
        machines += shards
        workers = machines * machine.cores
        if workers > MOST_WORKERS:
            raise ValueError(too_many(load, machine, figures, shards))
        shares = usage(load, machine, figures, machines, shards)
        if max(shares.values()) <= machine.free:
            break
    # What fits with headroom is never more than what one machine more has room for.
    safe = machines
    if _recovery(load, machine, figures, safe // shards, shards) == math.inf:
        safe += shards
    sent = copies(workers // shards, load.audience)
    busy = load.published * (figures.broker_message + sent * figures.broker_copy) / 1e6
    return Answer(
        workers=workers,
        machines=machines,
        safe=safe,
        shards=shards,
        bound=max(shares, key=lambda name: shares[name]),
        shares=shares,
        copies=sent,
        broker=busy,
        brokers=shards * _brokers(load, machine, figures, sent, busy / shards, shards),
        sums=sums(load, figures, workers, shards),
        memory=memory(load, figures, workers),
        network=network(load),
        recovery=_recovery(load, machine, figures, safe // shards, shards),
    )


def too_many(load: Load, machine: Machine, figures: Figures, shards: int) -> str:
    """Return why no number of machines is enough."""
    base = machine.cores * BASE_MEMORY
    if base >= machine.free * machine.memory:
        usable = machine.free * machine.memory
        return (
            f"a machine's {machine.cores:,} workers need {base / GIB:,.2f} GiB before "
            f"the first connection, and {usable / GIB:.2f} of its "
            f"{machine.memory / GIB:.2f} GiB may be used"
        )
    machines = max(1, MOST_WORKERS // machine.cores)
    shares = usage(load, machine, figures, machines, shards)
    bound = max(shares, key=lambda name: shares[name])
    said = (
        f"{MOST_WORKERS:,} workers are the most that is computed, and they would use "
        f"{shares[bound]:.0%} of their {bound}, of which {machine.free:.0%} may be used"
    )
    found = sums(load, figures, MOST_WORKERS, shards)
    worst = max(found, key=lambda name: found[name].cores)
    if found["copies from the broker"].cores > machine.free * MOST_WORKERS:
        said += (
            "; every worker is busy with the copies that it gets from the broker: "
            "publish less, or share the topics among shards (--shards)"
        )
    elif bound == "cores":
        said += f"; most of it goes into {worst}"
    return said


def _brokers(
    load: Load,
    machine: Machine,
    figures: Figures,
    sent: float,
    busy: float,
    shards: int,
) -> int:
    """Return how many brokers a shard needs, for their cores and for their network."""
    cores = 1 if figures.broker in ONE_CORE else machine.cores
    used = max(busy / cores, broker_network(load, sent) / shards / machine.network)
    return max(1, math.ceil(used / machine.free))


def _recovery(
    load: Load, machine: Machine, figures: Figures, machines: int, shards: int
) -> float:
    """Return seconds until the clients of a shard's lost machine are on the others.

    They all come at once, and what the others have free goes into handshakes; infinite
    when there is none, or no other, or no room in memory or network.
    """
    left = (machines - 1) * shards  # as if each shard had lost one
    if left == 0 or max(usage(load, machine, figures, left, shards).values()) >= 1:
        return math.inf
    workers = left * machine.cores
    free = (workers - cpu(load, figures, workers, shards)) / shards
    return load.connections / shards / machines * figures.handshake / 1e6 / free
