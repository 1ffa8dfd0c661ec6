"""Starts workers, replaces those that end, and stops them.

One task watches each worker, from its start to its end.  A number is held by one
worker; at a reload its successor is started beside it, and takes over when it is ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import socket

from ..frames import CloseCode
from .listeners import Listeners
from .plan import DRAIN, Order, StartError
from .serving import GRACE, QUICK
from .worker import Worker

__all__ = ["MAX_FAILURES", "Pauses", "Supervisor"]

logger = logging.getLogger("websock.workers")

# Starts in a row that may fail.
MAX_FAILURES = 5

# Seconds for a worker to end, after all that it waits for has had its time.
KILL_AFTER = 3.0


@dataclass(frozen=True)
class Pauses:
    """How long to wait before a worker is replaced.

    The first is replaced at once; then there is a pause, which doubles.

    Attributes:
        first: Seconds of the first pause.
        longest: Seconds of the longest.
        short_life: Seconds of life after which it begins anew.
    """

    first: float = 0.5
    longest: float = 30.0
    short_life: float = 10.0


class Supervisor:
    """Keeps workers running; ``run()`` does it, other methods are called meanwhile.

    Args:
        make: Starts a worker, given its number and its sockets.
        listeners: Has the sockets.
        count: Number of workers.
        drain: Seconds in which connections are closed at a graceful stop.
        reloads: Whether new workers load the application anew.
        pauses: How long to wait before a worker is replaced.
        kill_after: Seconds for a worker to end, after all that it waits for has had
            its time.
        started: Called when the first worker is ready.
    """

    def __init__(
        self,
        make: Callable[[int, Sequence[socket]], Worker],
        listeners: Listeners,
        count: int,
        *,
        drain: float = DRAIN,
        reloads: bool = True,
        pauses: Pauses | None = None,
        kill_after: float = KILL_AFTER,
        started: Callable[[Sequence[socket]], object] | None = None,
    ) -> None:
        self._make = make
        self._listeners = listeners
        self._count = count
        self._drain = drain
        self._reloads = reloads
        self._pauses = Pauses() if pauses is None else pauses
        self._kill_after = kill_after
        self._started = started
        self._has_begun = False
        self._running: set[Worker] = set()
        self._told: dict[Worker, Order] = {}
        self._holders: dict[int, Worker | None] = {}
        """The worker of each number; ``None`` while it is being replaced."""
        self._successors: dict[int, Worker] = {}
        self._pause: dict[int, float] = {}
        self._failures = 0
        self._error: StartError | None = None
        self._over = asyncio.Event()
        self._hurry = 0
        self._reload: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup

    # -- what is asked for -----------------------------------------------------------

    async def run(self) -> None:
        """Run the workers until ``stop()`` is called, and until they have ended.

        Raises:
            OSError: When the address cannot be listened on.
            StartError: When the first worker, or too many in a row, could not start.
        """
        await self._listeners.open()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._start(1)
                await self._over.wait()
        finally:
            self._listeners.close()
            for worker in self._running:
                worker.kill()
            for worker in self._running:
                await worker.ended  # no process is left unwaited for
        if self._error is not None:
            raise self._error

    @property
    def workers(self) -> dict[int, Worker | None]:
        """The worker of each number; ``None`` while it is being replaced."""
        return self._holders.copy()

    def stop(self, quick: bool = False) -> None:
        """Stop all workers, and then ``run()``.

        Args:
            quick: Whether not to wait for connections; the second time it is true, not
                for workers.
        """
        self._over.set()
        # What arrives from now on is refused, and not left in a queue.
        self._listeners.close()
        self._hurry = max(self._hurry + 1, 2) if quick else max(self._hurry, 1)
        for worker in list(self._running):
            if self._hurry > 2:
                worker.kill()
            elif self._hurry == 2:
                self._tell(worker, Order(None, CloseCode.GOING_AWAY))
            elif worker not in self._told:
                self._tell(worker, Order(self._drain, CloseCode.GOING_AWAY))

    def reload(self) -> None:
        """Replace all workers, one after the other, by such that load it all anew."""
        if not self._reloads:
            logger.warning("threads cannot load the application anew: start it again")
        elif self._reload is not None or not self._has_begun:
            logger.warning("a reload is going on")
        elif not self._over.is_set():
            self._reload = self._tasks.create_task(self._replace_all())

    def add(self) -> None:
        """Start another worker."""
        if self._has_begun and not self._over.is_set():
            used = {*self._holders, *(worker.number for worker in self._running)}
            number = next(n for n in range(1, len(used) + 2) if n not in used)
            logger.info("a worker more: %d", len(self._holders) + 1)
            self._start(number)

    def remove(self) -> None:
        """Stop the last worker; one is left."""
        if self._over.is_set():
            return
        if len(self._holders) < 2:
            logger.warning("one worker is left: it stays")
            return
        logger.info("a worker less: %d", len(self._holders) - 1)
        number = max(self._holders)
        worker = self._holders.pop(number)
        self._listeners.give_back(number)
        for each in (worker, self._successors.get(number)):
            if each is not None:
                self._tell(each, self._make_way)

    # -- workers ---------------------------------------------------------------------

    @property
    def _make_way(self) -> Order:
        return Order(self._drain, CloseCode.SERVICE_RESTART)

    def _start(self, number: int, old: Worker | None = None) -> Worker | None:
        """Start a worker; beside ``old``, if there is one, which then makes way."""
        if old is None:
            self._holders[number] = None
        try:
            worker = self._make(number, self._listeners.take(number))
        except OSError as exc:
            self._failed(number, f"worker {number} cannot be started: {exc}", old)
            return None
        if old is None:
            self._holders[number] = worker
        else:
            self._successors[number] = worker
        self._running.add(worker)
        self._tasks.create_task(self._watch(worker, old))
        return worker

    async def _watch(self, worker: Worker, old: Worker | None) -> None:
        born = asyncio.get_running_loop().time()
        is_ready = await asyncio.shield(worker.ready)
        if is_ready:
            self._is_ready(worker, old)
        how = await asyncio.shield(worker.ended)
        self._running.discard(worker)
        number = worker.number
        if self._successors.get(number) is worker:
            del self._successors[number]  # it was to take over, and never was ready
        if self._told.pop(worker, None) is not None or self._over.is_set():
            logger.info("%s stopped", worker.name)
        elif not is_ready:
            text = f"{worker.name} cannot start: {worker.problem or how}"
            self._failed(number, text, old)
        else:
            life = asyncio.get_running_loop().time() - born
            if life >= self._pauses.short_life:
                self._pause.pop(number, None)
            if worker.problem is not None:
                how = f"{how}: {worker.problem}"
            self._lost(number, f"{worker.name} {how}")

    def _is_ready(self, worker: Worker, old: Worker | None) -> None:
        logger.info("%s is ready", worker.name)
        number = worker.number
        self._failures = 0
        if old is not None:
            self._successors.pop(number, None)
            if number in self._holders:
                self._holders[number] = worker
            if old in self._running:
                self._tell(old, self._make_way)
        if not self._has_begun and not self._over.is_set():
            self._has_begun = True
            if self._started is not None:
                self._started(self._listeners.sockets)
            for other in range(2, self._count + 1):
                self._start(other)

    def _failed(self, number: int, text: str, old: Worker | None) -> None:
        """Deal with a worker that has ended before it was ready."""
        if not self._has_begun:
            self._give_up(text)
        elif old is not None and old in self._running:
            logger.error("%s\nreload given up: %s goes on", text, old.name)
        else:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                self._give_up(f"{text}\n{self._failures} starts in a row have failed")
            else:
                self._lost(number, text)

    def _give_up(self, text: str) -> None:
        self._error = StartError(text)
        self.stop()

    def _lost(self, number: int, text: str) -> None:
        """Replace a worker, unless another is about to take its number."""
        if number not in self._holders or self._over.is_set():
            logger.warning("%s", text)
        elif number in self._successors:
            self._holders[number] = None
            logger.warning("%s; another is starting already", text)
        else:
            self._holders[number] = None
            pause = self._pause.get(number, 0.0)
            pauses = self._pauses
            self._pause[number] = min(max(2 * pause, pauses.first), pauses.longest)
            when = f"in {pause:g} s" if pause else "now"
            logger.warning("%s; another starts %s", text, when)
            self._tasks.create_task(self._replace(number, pause))

    async def _replace(self, number: int, pause: float) -> None:
        if pause:
            try:
                await asyncio.wait_for(self._over.wait(), pause)
            except TimeoutError:
                pass
        if self._over.is_set() or self._holders.get(number, self) is not None:
            return  # it is over, or there are fewer, or more again
        self._start(number)

    async def _replace_all(self) -> None:
        try:
            for number in sorted(self._holders):
                old = self._holders.get(number)
                if old is None or old in self._told:
                    continue  # it is gone, or what is started for it is new
                worker = self._start(number, old)
                if (
                    worker is None
                    or not await asyncio.shield(worker.ready)
                    or self._over.is_set()
                ):
                    return
            logger.info("reloaded")
        finally:
            self._reload = None

    def _tell(self, worker: Worker, order: Order) -> None:
        """Have a worker stop; it has only so long."""
        self._told[worker] = order
        worker.stop(order)
        patience = QUICK if order.seconds is None else order.seconds + GRACE
        asyncio.get_running_loop().call_later(
            patience + QUICK + self._kill_after, self._kill, worker
        )

    def _kill(self, worker: Worker) -> None:
        if worker in self._running:
            logger.warning("%s does not end: it is killed", worker.name)
            worker.kill()
