"""How callbacks of users are called, and what becomes of what they raise.

A plain function costs a call.  What can be awaited is awaited by a task of its own, so
coroutines of one connection may overlap: who needs an order keeps a queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["Source", "call", "report"]

logger = logging.getLogger("websock.events")

# The loop refers to its tasks weakly.
_tasks: set[asyncio.Task[None]] = set()


class Source(Protocol):
    """An object that calls callbacks."""

    def callback_failed(
        self, event: str, exc: Exception, args: tuple[Any, ...]
    ) -> None:
        """A callback for an event raised ``exc``, at once or later."""


def call(
    callback: Callable[..., Any], args: tuple[Any, ...], source: Source, event: str
) -> None:
    """Call a callback for an event of ``source``, which is told what it raises."""
    try:
        result = callback(*args)
    except Exception as exc:
        source.callback_failed(event, exc, args)
        return
    if result is None or result is True or result is False:
        return
    if hasattr(result, "__await__"):
        task = asyncio.get_running_loop().create_task(
            _follow(result, args, source, event)
        )
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


async def _follow(
    result: Awaitable[Any], args: tuple[Any, ...], source: Source, event: str
) -> None:
    try:
        await result
    except Exception as exc:
        source.callback_failed(event, exc, args)


def report(event: str, exc: Exception, source: object) -> None:
    """Hand an exception to the exception handler of the loop.

    Args:
        event: Event whose callback failed.
        exc: What it raised.
        source: Object that called it.
    """
    message = f"exception in a callback for {event!r}"
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        logger.error(message, exc_info=exc)
        return
    loop.call_exception_handler(
        {"message": message, "exception": exc, "source": source}
    )
