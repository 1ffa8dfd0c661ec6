"""A worker that is a thread with a loop of its own, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import traceback
from collections.abc import Sequence

from ..asyncio.server import Server
from .current import set_current
from .plan import Order, Place, Plan, StartError, loop_factory
from .serving import Orders, serve_plan

__all__ = ["ThreadWorker"]


class ThreadWorker:
    """A worker in a thread of this process.

    Args:
        place: Its number, and the address of the hub.
        plan: What to do.
        socks: Sockets to listen on; it takes copies.
    """

    can_reload = False

    def __init__(
        self, place: Place, plan: Plan, socks: Sequence[socket.socket]
    ) -> None:
        self.place = place
        self.name = f"worker {place.number} (thread)"
        self.started = time.monotonic()
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
            target=self._work, name=f"worker {place.number}", daemon=True
        ).start()

    def _work(self) -> None:
        set_current(self.place)
        text = "ended"
        try:
            factory = loop_factory(self._plan.loop)
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self._serve())
        except StartError as exc:
            self.problem = str(exc)
        except BaseException as exc:
            # Also what asks for the end of the process, which is not this thread's.
            text = f"ended with {type(exc).__name__}: {exc}"
            lines = "".join(traceback.format_exception(exc)).rstrip()
            self.problem = f"{type(exc).__name__}: {exc}\n{lines}"
        finally:
            with self._lock:
                self._orders = None
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
        await serve_plan(self._plan, self._socks, orders, self._say_ready)

    def _say_ready(self, server: Server) -> None:
        self._tell(self._set_ready, True)

    def _tell(self, function: object, *args: object) -> None:
        try:
            self._supervisor.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]
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
