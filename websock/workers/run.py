"""``websock.run()``: a server with all that belongs to a process, and on all cores."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..frames import CloseCode
from .listeners import Listeners, address_text
from .plan import BINDING, DRAIN, Lifespan, Order, Plan, loop_factory
from .process import ProcessWorker, pack
from .serving import Orders, serve_plan
from .signals import obey_signals, on_stop
from .supervisor import Supervisor
from .thread import ThreadWorker
from .worker import why_no_run

if TYPE_CHECKING:
    from ..hub import Hub

__all__ = ["carry_out", "run"]

logger = logging.getLogger("websock.workers")

Started = Callable[[Sequence[socket.socket]], object]


def run(
    application: Any,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    workers: int | None = None,
    threads: int | None = None,
    path: Any = None,
    sock: socket.socket | None = None,
    drain: float = DRAIN,
    lifespan: Lifespan | str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    loop: str = "asyncio",
    **options: Any,
) -> None:
    """Run a server until a signal ends it, in this process, or in several.

    ::

        if __name__ == "__main__":
            websock.run("app:handler", "localhost", 8765, workers=4)

    ``SIGTERM`` closes connections over some seconds, ``SIGINT`` (Ctrl-C) and
    ``SIGQUIT`` at once, both with code 1001.  With workers ``SIGHUP`` replaces
    them, one after the other, and ``SIGTTIN`` and ``SIGTTOU`` start and stop one.

    Args:
        application: Handler or listener, as for :func:`~websock.serve`; or the
            ``"module:name"`` of one, or of what ``serve()`` or ``route()`` returned.
        host: As for ``serve()``.
        port: As for ``serve()``.
        workers: Number of processes.  They are supervised: one that ends is replaced.
            ``None`` serves in this process.  Processes need the application by its
            name, or as a function or class that can be imported.
        threads: Number of threads instead, each with a loop of its own.
        path: Path of a Unix socket, instead of host and port.
        sock: Socket that is bound already, instead of host and port.
        drain: Seconds in which ``SIGTERM`` and ``SIGHUP`` close connections.
        lifespan: Called with the server before it accepts connections; returns an
            asynchronous context manager that lasts as long as the server.  Or the
            ``"module:name"`` of it.  Each worker calls it.
        certificate: PEM file, for TLS.
        key: File with its key, if it is apart.
        loop: ``"asyncio"`` or ``"uvloop"``.
        **options: Other arguments of ``serve()``.

    Raises:
        NotImplementedError: When the system has no processes that inherit sockets.
        OSError: When the address cannot be listened on.
        RuntimeError: When it is not called in the main thread, is called in a loop,
            or by a module that a worker imports.
        StartError: When the application cannot be loaded, or too many workers in a
            row cannot start.
        TypeError: When an argument is of a wrong type, unknown, or cannot be handed
            to another process.
        ValueError: When an argument has a wrong value.
    """
    binding = {name: options.pop(name) for name in BINDING & options.keys()}
    plan = Plan(application, options, lifespan, certificate, key, drain, loop)
    where = {"path": path, "sock": sock, **binding}
    carry_out(plan, host, port, where, workers, threads)


def carry_out(
    plan: Plan,
    host: str | Sequence[str] | None,
    port: int | None,
    where: dict[str, Any],
    workers: int | None,
    threads: int | None,
    *,
    log_level: int | None = None,
    started: Started | None = None,
) -> None:
    """Carry out a plan; see :func:`run`.

    Args:
        plan: The plan.
        host: As for ``run()``.
        port: As for ``run()``.
        where: Other arguments that say where to listen.
        workers: As for ``run()``.
        threads: As for ``run()``.
        log_level: Level from which on worker processes log to standard error.
        started: Called with the sockets when connections are accepted.
    """
    for name, count in (("workers", workers), ("threads", threads)):
        if count is not None and not isinstance(count, int):
            raise TypeError(f"{name} must be an int, not {type(count).__name__}")
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1: {count}")
    if workers is not None and threads is not None:
        raise ValueError("workers and threads cannot be given together")
    if workers is not None and os.name != "posix":
        raise NotImplementedError(
            "worker processes inherit sockets, which this system cannot: use threads"
        )
    plan.check()
    _check_place()
    listeners = Listeners(host, port, spread=bool(workers or threads), **where)
    tell = functools.partial(_tell, plan, started)
    main: Callable[[], Coroutine[Any, Any, None]]
    if workers is not None:
        packed = pack(plan)
        main = functools.partial(
            _with_processes, plan, packed, listeners, workers, log_level, tell
        )
    elif threads is not None:
        main = functools.partial(_with_threads, plan, listeners, threads, tell)
    else:
        main = functools.partial(_serve_here, plan, listeners, tell)
    with asyncio.Runner(loop_factory=loop_factory(plan.loop)) as runner:
        runner.run(main())


def _check_place() -> None:
    """Check that this is a place to run a server.

    Raises:
        RuntimeError: When it is not.
    """
    reason = why_no_run()
    if reason is not None:
        raise RuntimeError(reason)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("run() has a loop of its own: in a loop, use serve()")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run() is for the main thread, which gets the signals")


def _tell(plan: Plan, started: Started | None, socks: Sequence[socket.socket]) -> None:
    """Say where it listens."""
    has_tls = plan.certificate is not None or plan.options.get("ssl") is not None
    for sock in socks:
        address = address_text(sock, "wss" if has_tls else "ws")
        logger.info("listening on %s", address)
    if started is not None:
        started(socks)


async def _with_processes(
    plan: Plan,
    packed: bytes,
    listeners: Listeners,
    count: int,
    log_level: int | None,
    tell: Started,
) -> None:
    # The address has a secret in it: no log has it.
    async with _make_hub() as hub:

        def make(number: int, socks: Sequence[socket.socket]) -> ProcessWorker:
            return ProcessWorker(number, packed, socks, hub.address, log_level)

        await _supervise(
            Supervisor(make, listeners, count, drain=plan.drain, started=tell)
        )


async def _with_threads(
    plan: Plan, listeners: Listeners, count: int, tell: Started
) -> None:
    async with _make_hub() as hub:
        connected = replace(plan, hub=hub.address)

        def make(number: int, socks: Sequence[socket.socket]) -> ThreadWorker:
            return ThreadWorker(number, connected, socks)

        await _supervise(
            Supervisor(
                make, listeners, count, drain=plan.drain, reloads=False, started=tell
            )
        )


def _make_hub() -> Hub:
    from ..hub import Hub  # a server that most programs do not need

    return Hub()


async def _supervise(supervisor: Supervisor) -> None:
    obey_signals(supervisor)
    await supervisor.run()


async def _serve_here(plan: Plan, listeners: Listeners, tell: Started) -> None:
    orders = Orders()

    def stop(quick: bool) -> None:
        orders.give(Order(None if quick else plan.drain, CloseCode.GOING_AWAY))

    on_stop(stop)
    await listeners.open()
    try:
        socks = listeners.take(1)
        await serve_plan(plan, socks, orders, lambda server: tell(server.sockets))
    finally:
        listeners.close()
