"""A worker that is a thread with a loop of its own, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..asyncio.server import Server
from .plan import Order, Plan, describe, loop_factory
from .serving import Orders, serve_plan

__all__ = ["ThreadWorker"]


class ThreadWorker:
    """A worker in a thread of this process.

    Args:
        number: Its number.
        plan: What to do.
        socks: Sockets to listen on; it takes copies.
    """

    def __init__(self, number: int, plan: Plan, socks: Sequence[socket.socket]) -> None:
        self.number = number
        self.name = f"worker {number} (thread)"
        self.problem: str | None = None
        self._supervisor = asyncio.get_running_loop()
        self.ready: asyncio.Future[bool] = self._supervisor.create_future()
        self.ended: asyncio.Future[str] = self._supervisor.create_future()
        self._plan = plan
        self._socks = [sock.dup() for sock in socks]
        self._lock = threading.Lock()
        self._order: Order | None = None
        self._orders: Orders | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # It must not keep the process alive when its loop hangs.
        threading.Thread(
            target=self._work, name=f"worker {number}", daemon=True
        ).start()

    def _work(self) -> None:
        text = "ended"
        try:
            factory = loop_factory(self._plan.loop)
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self._serve())
        except BaseException as exc:
            # Also what asks for the end of the process, which is not this thread's.
            text = f"ended with {type(exc).__name__}: {exc}"
            self.problem = describe(exc)
        finally:
            for sock in self._socks:
                sock.close()
        self._tell(self._set_ended, text)

    async def _serve(self) -> None:
        orders = Orders()
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._orders = orders
            if self._order is not None:
                orders.give(self._order)
        try:
            await serve_plan(self._plan, self._socks, orders, self._say_ready)
        finally:
            with self._lock:
                self._orders = None  # its loop takes no more calls

    def _say_ready(self, server: Server) -> None:
        self._tell(self._set_ready, True)

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        try:
            self._supervisor.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the supervisor's loop is closed

    def _set_ready(self, is_ready: bool) -> None:
        if not self.ready.done():
            self.ready.set_result(is_ready)

    def _set_ended(self, text: str) -> None:
        self._set_ready(False)
        if not self.ended.done():
            self.ended.set_result(text)

    def stop(self, order: Order) -> None:
        """Have it stop."""
        with self._lock:
            self._order = order
            if self._orders is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._orders.give, order)

    def kill(self) -> None:
        """Wait for it no longer: a thread cannot be ended from outside."""
        self._set_ended("hangs, and was left behind")
