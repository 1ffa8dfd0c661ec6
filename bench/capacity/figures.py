"""The measured figures that capacity is computed from, out of ``bench/results``."""

from __future__ import annotations

import statistics
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

    def rows(suite: str) -> list[dict[str, Any]]:
        path = results / f"{suite}.jsonl"
        if not path.exists():
            raise BenchError(f"{path} is missing: run python -m bench {suite}")
        try:
            return report.read(path)[1]
        except (ValueError, KeyError, TypeError) as exc:
            raise BenchError(
                f"{path} is not what the harness writes ({type(exc).__name__}): run "
                f"python -m bench {suite}"
            ) from exc

    def median(suite: str, name: str, wanted: dict[str, Any]) -> float:
        found = [
            row[name]
            for row in rows(suite)
            if all(row.get(key) == value for key, value in wanted.items())
            and row.get(name)
        ]
        if not found:
            case = ", ".join(f"{key} {value}" for key, value in wanted.items())
            raise BenchError(
                f"{suite}.jsonl has no {name} of {case or 'anything'}: run "
                f"python -m bench {suite}"
            )
        return float(statistics.median(found))

    mine = {"library": APIS[api], "correct": True}
    many = {**mine, "connections": 10_000}
    used = {**mine, "deflate": True, "no_context": False, "messages": 1}
    try:
        costs = brokers.costs(rows("brokers"), broker)
    except (KeyError, ValueError) as exc:
        raise BenchError(
            f"brokers.jsonl has too little of {broker} ({exc}): run "
            "python -m bench brokers"
        ) from exc
    return Figures(
        api=api,
        broker=broker,
        memory=median("idle", "memory", {**many, "deflate": False}),
        compressed=median("idle", "memory", used),
        kernel=median("kernel", "memory", {}),
        handshake=median("handshake", "cpu_us", mine),
        echo=median("growth", "cpu_us", {**many, "mode": "echo"}),
        delivery=median("broadcast", "cpu_us", many),
        broker_message=costs.message,
        broker_copy=costs.copy,
        publish=costs.publish,
        receive=costs.receive,
    )
