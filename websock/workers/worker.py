"""What a supervisor knows of a worker, whatever kind it is."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .plan import Order

__all__ = ["Worker", "forbid_run", "why_no_run"]


class Worker(Protocol):
    """A worker that was started.

    Attributes:
        number: Its number, from 1 on; its successor has the same.
        name: What it is called in the log.
        ready: Whether it accepts connections; false when it ended before.
        ended: How it ended, for people.
        problem: What it said about its failure.
    """

    number: int
    name: str
    ready: asyncio.Future[bool]
    ended: asyncio.Future[str]
    problem: str | None

    def stop(self, order: Order) -> None:
        """Have it stop."""

    def kill(self) -> None:
        """End it at once."""


_why_no_run: list[str] = []


def forbid_run(reason: str) -> None:
    """Have ``websock.run()`` fail in this process: it is a worker."""
    _why_no_run[:] = [reason]


def why_no_run() -> str | None:
    """Return why ``websock.run()`` must not be called here, if so."""
    return _why_no_run[0] if _why_no_run else None
