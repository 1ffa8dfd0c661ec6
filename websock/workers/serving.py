"""A worker's life: load, serve, stop when it is told to.  The same in all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from ..asyncio.server import Server
from .loading import load, load_lifespan
from .plan import Order, Plan, StartError, describe

__all__ = ["GRACE", "QUICK", "Orders", "serve_plan"]

# Seconds for handlers and peers to end, after the connections were closed.
GRACE = 10.0
# The same when there is no time.
QUICK = 0.5


class Orders:
    """How the worker is to stop; a later order counts if it is quicker.

    Its methods are called in the loop of the worker.
    """

    def __init__(self) -> None:
        self.order: Order | None = None
        self._changed = asyncio.Event()

    def give(self, order: Order) -> None:
        """Give an order."""
        if self.order is None or (
            self.order.seconds is not None and order.seconds is None
        ):
            self.order = order
            self._changed.set()

    async def next(self) -> Order:
        """Wait for an order, or for another one."""
        await self._changed.wait()
        self._changed.clear()
        assert self.order is not None
        return self.order


async def serve_plan(
    plan: Plan,
    socks: Sequence[socket.socket],
    orders: Orders,
    ready: Callable[[Server], object],
) -> None:
    """Serve until an order comes, or until the server is closed by the application.

    Args:
        plan: What to do.
        socks: Sockets to listen on; they are closed.
        orders: Says how to stop.
        ready: Called when connections are accepted.

    Raises:
        OSError: When the certificate cannot be loaded, or the broker not be reached.
        StartError: When the application cannot be loaded, or its lifespan not begin.
    """
    try:
        serving, lifespan = load(plan), load_lifespan(plan)
    except (StartError, OSError):
        raise
    except Exception as exc:
        raise StartError(describe(exc)) from exc
    server = await serving.on_sockets(socks)
    try:
        async with AsyncExitStack() as stack:
            if lifespan is not None:
                try:
                    await stack.enter_async_context(lifespan(server))
                except Exception as exc:
                    raise StartError(describe(exc)) from exc
            await server.start_serving()
            ready(server)
            await _obey(server, orders)
    finally:
        server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), QUICK)


async def _obey(server: Server, orders: Orders) -> None:
    """Wait for an order, and carry it out."""
    closed = asyncio.ensure_future(server.wait_closed())
    ending: asyncio.Future[None] | None = None
    timeout: float | None = None
    next_order = asyncio.ensure_future(orders.next())
    try:
        while True:
            done, _ = await asyncio.wait(
                (closed, next_order),
                timeout=timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if closed in done or next_order not in done:
                break  # it is closed, or there is no more time
            order = next_order.result()
            next_order = asyncio.ensure_future(orders.next())
            if order.seconds is None:
                timeout = QUICK
                server.close(code=order.code)
            else:
                timeout = order.seconds + GRACE
                ending = asyncio.ensure_future(
                    server.drain(order.seconds, code=order.code)
                )
        if not closed.done():
            server.logger.warning(
                "%d connections and %d handlers did not end in time",
                len(server.all_connections),
                len(server.handler_tasks),
            )
    finally:
        for future in (closed, next_order, ending):
            if future is not None:
                future.cancel()
