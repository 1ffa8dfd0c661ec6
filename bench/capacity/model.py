"""The arithmetic of capacity: what a load costs, and how many machines carry it.

All costs are sums of products of rates and measured figures.  What is not measured on a
network, and so not computed: latency between machines, packet loss, and what a handler
does by itself; ``handler`` takes that as a figure.
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


@dataclass(frozen=True)
class Answer:
    """What it takes."""

    workers: int
    machines: int
    bound: str
    """What decides about the number: ``cores``, ``memory`` or ``network``."""
    copies: float
    """Copies of a message that the broker sends."""
    broker: float
    """Share of a core that the broker uses; above 1 it cannot be had from one."""
    brokers: int
    """Brokers to share the topics among, with the headroom of a machine."""
    cpu: dict[str, float]
    """Cores in use, by what for."""
    memory: float
    """Bytes of all machines."""
    network: float
    """Bits in a second, out of all machines."""
    recovery: float
    """Seconds until the clients of a lost machine are back on the others."""

    @property
    def cores(self) -> float:
        """Cores in use on all machines."""
        return sum(self.cpu.values())


def copies(workers: int, audience: float) -> float:
    """Return how many workers have a subscriber, who are placed at random.

    Each of ``workers`` is without one with the probability (1 - 1/workers)^audience.
    """
    if workers == 1:
        return min(1.0, audience)
    return workers * -math.expm1(audience * math.log1p(-1 / workers))


def cpu(load: Load, figures: Figures, workers: int) -> dict[str, float]:
    """Return the cores that a load keeps busy, by what for."""
    rates = {
        "deliveries": (load.published * load.audience, figures.delivery),
        "publishing": (load.published, figures.publish),
        "copies from the broker": (
            load.published * copies(workers, load.audience),
            figures.receive,
        ),
        "messages of clients": (
            load.connections * load.received,
            figures.echo + load.handler,
        ),
        # A ping and its pong are two short messages, as an echo is.
        "keepalive": (load.connections / load.ping_interval, figures.echo),
        "handshakes": (load.connections / load.lifetime, figures.handshake),
    }
    return {name: rate * cost / 1e6 for name, (rate, cost) in rates.items()}


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


def plan(load: Load, machine: Machine, figures: Figures) -> Answer:
    """Return what a load takes: one worker for each core.

    Raises:
        ValueError: When no number of machines would do.
    """
    free = 1 - machine.headroom
    bits = network(load)
    machines = 0
    while True:
        machines += 1
        workers = machines * machine.cores
        if workers > MOST_WORKERS:
            raise ValueError(
                f"{workers:,} workers are not enough, {MOST_WORKERS:,} are the most: "
                "each copy from the broker costs every worker; publish less, or share "
                "the topics among groups of machines"
            )
        used = cpu(load, figures, workers)
        shares = {
            "cores": sum(used.values()) / workers,
            "memory": memory(load, figures, workers) / (machines * machine.memory),
            "network": bits / (machines * machine.network),
        }
        if max(shares.values()) <= free:
            break
    sent = copies(workers, load.audience)
    busy = load.published * (figures.broker_message + sent * figures.broker_copy) / 1e6
    return Answer(
        workers=workers,
        machines=machines,
        bound=max(shares, key=lambda name: shares[name]),
        copies=sent,
        broker=busy,
        brokers=max(1, math.ceil(busy / free)),
        cpu=used,
        memory=memory(load, figures, workers),
        network=bits,
        recovery=recovery(load, machine, figures, machines),
    )


def recovery(load: Load, machine: Machine, figures: Figures, machines: int) -> float:
    """Return seconds until the clients of a lost machine are connected to the others.

    They all come at once, and what the others have free goes into handshakes; infinite
    when there is none, or no other.
    """
    if machines == 1:
        return math.inf
    left = (machines - 1) * machine.cores
    free = left - sum(cpu(load, figures, left).values())
    if free <= 0:
        return math.inf
    return load.connections / machines * figures.handshake / 1e6 / free
