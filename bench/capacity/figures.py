"""The measured figures that capacity is computed from, out of ``bench/results``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import brokers, report
from ..process import BenchError

APIS = {"coroutine": "websock", "listener": "websock-listener"}


@dataclass(frozen=True)
class Figures:
    """What things cost, in microseconds of CPU and bytes of memory."""

    api: str
    broker: str
    memory: float
    """Bytes of the process for an idle connection that has had a message."""
    compressed: float
    """The same with permessage-deflate, whose windows are in use."""
    kernel: float
    """Bytes of the kernel for an idle connection."""
    handshake: float
    echo: float
    """A short message received and answered, with many connections open."""
    delivery: float
    """A published message sent to one of many subscribers."""
    broker_message: float
    """A message, in the broker."""
    broker_copy: float
    """Each copy of it that the broker sends to a worker, in the broker."""
    publish: float
    """A message published, in the worker."""
    receive: float
    """A copy received from the broker and sent to one subscriber, in the worker."""


def load(
    api: str = "coroutine", broker: str = "redis", results: Path = report.RESULTS
) -> Figures:
    """Read the figures.

    Args:
        api: ``coroutine`` or ``listener``.
        broker: Name of a broker that was measured.
        results: Where the harness has written.

    Raises:
        BenchError: When something was not measured; the text says with what to.
        ValueError: When a name is not known.
    """
    if api not in APIS:
        raise ValueError(f"unknown API {api!r}; there are {', '.join(APIS)}")
    # The hub is for one machine.
    choices = [name for name in brokers.BROKERS if name != brokers.HUB.name]
    if broker not in choices:
        known = ", ".join(choices)
        raise ValueError(f"unknown broker {broker!r}; there are {known}")
    library = APIS[api]

    def rows(suite: str) -> list[dict[str, Any]]:
        path = results / f"{suite}.jsonl"
        if not path.exists():
            raise BenchError(f"{path} is missing: run python -m bench {suite}")
        return report.read(path)[1]

    def median(suite: str, name: str, fits: Callable[[dict[str, Any]], bool]) -> float:
        found = [row[name] for row in rows(suite) if fits(row) and row.get(name)]
        if not found:
            raise BenchError(
                f"{suite}.jsonl has no figure: run python -m bench {suite}"
            )
        return statistics.median(found)

    def mine(row: dict[str, Any], **case: Any) -> bool:
        wanted = {"library": library, "correct": True, **case}
        return all(row.get(name) == value for name, value in wanted.items())

    costs = brokers.costs(rows("brokers"), broker)
    return Figures(
        api=api,
        broker=broker,
        memory=median(
            "idle", "memory", lambda row: mine(row, connections=10_000, deflate=False)
        ),
        compressed=median(
            "idle",
            "memory",
            lambda row: mine(row, deflate=True, no_context=False, messages=1),
        ),
        kernel=median("kernel", "memory", lambda row: True),
        handshake=median("handshake", "cpu_us", mine),
        echo=median(
            "growth", "cpu_us", lambda row: mine(row, mode="echo", connections=10_000)
        ),
        delivery=median(
            "broadcast", "cpu_us", lambda row: mine(row, connections=10_000)
        ),
        broker_message=costs.message,
        broker_copy=costs.copy,
        publish=costs.publish,
        receive=costs.receive,
    )
