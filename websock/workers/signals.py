"""What signals do, as users of other supervisors know them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from ..asyncio.interrupts import call_on
from .supervisor import Supervisor

__all__ = ["obey_signals", "on_stop"]

logger = logging.getLogger("websock.workers")


def on_stop(stop: Callable[[bool], object]) -> None:
    """Call a function on signals that end a program; true: it must not wait.

    Args:
        stop: The function, called in the running loop.
    """
    loop = asyncio.get_running_loop()

    def handle(name: str, quick: bool) -> None:
        number = getattr(signal, name, None)
        if number is None:
            return

        def handler() -> None:
            logger.info("%s: %s", name, "closing" if quick else "draining")
            stop(quick)

        call_on(number, handler, loop)

    handle("SIGTERM", False)
    handle("SIGINT", True)
    handle("SIGQUIT", True)


def obey_signals(supervisor: Supervisor) -> None:
    """Have signals control a supervisor, in the running loop."""
    loop = asyncio.get_running_loop()
    on_stop(supervisor.stop)

    def handle(name: str, function: Callable[[], object]) -> None:
        number = getattr(signal, name, None)
        if number is None:
            return

        def handler() -> None:
            logger.info("%s", name)
            function()

        call_on(number, handler, loop)

    handle("SIGHUP", supervisor.reload)
    handle("SIGTTIN", supervisor.add)
    handle("SIGTTOU", supervisor.remove)
    for name, what in (
        ("SIGUSR1", "there are no log files to open again"),
        ("SIGUSR2", "there is no other binary to go on with: SIGHUP reloads"),
    ):
        handle(name, lambda what=what: logger.warning("%s", what))  # type: ignore[misc]
