"""The process of a worker, from the inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import sys
from types import ModuleType
from typing import Any

from ..frames import CloseCode
from ..hub.address import Address
from .plan import Order, Plan, StartError, describe, loop_factory
from .serving import Orders, serve_plan
from .worker import forbid_run

__all__ = ["FAILED", "configure_logging", "main"]

# Exit code of a worker that could not start.
FAILED = 3

LOG_FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"

# What a terminal sends to all of its processes, and what only a supervisor knows how
# to carry out.
_MUTED = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU")


def main(control: int) -> None:
    """Be a worker; ends the process.

    Args:
        control: Descriptor of the socket to the supervisor.
    """
    os.set_inheritable(control, False)
    sock = socket.socket(fileno=control)
    _mute_signals()
    spec = pickle.loads(_read_spec(sock))
    for fd in spec["sockets"]:
        os.set_inheritable(fd, False)
    # What %(processName)s is in the format of a log.
    multiprocessing.current_process().name = f"worker {spec['number']}"
    if spec["log_level"] is not None:
        configure_logging(spec["log_level"])
    forbid_run(
        "a worker imports the program: "
        'run() must be called under if __name__ == "__main__"'
    )
    status = _work(spec, sock)
    sock.close()
    sys.exit(status)


def configure_logging(level: int) -> None:
    """Log to standard error, but no lines for each connection."""
    logging.basicConfig(format=LOG_FORMAT, level=level)
    logging.getLogger("websock.server").setLevel(logging.WARNING)


def _mute_signals() -> None:
    """Do nothing on signals that are for the supervisor.

    They are handled, not ignored: programs that the application starts would inherit
    that.
    """
    numbers = {getattr(signal, name) for name in _MUTED if hasattr(signal, name)}
    for number in numbers:
        signal.signal(number, lambda number, frame: None)
    # Until there is a loop, it is over at once.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*numbers, signal.SIGTERM})


def _remove_hub(url: str) -> None:
    """Remove the files of a hub whose process was killed, with its directory."""
    path = Address.parse(url).path
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))


def _read_spec(control: socket.socket) -> bytes:
    """Read what to do; ends the process when the supervisor is gone."""

    def read(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            some = control.recv(size - len(data))
            if not some:
                sys.exit(FAILED)
            data += some
        return bytes(data)

    return read(int.from_bytes(read(8), "big"))


def _work(spec: dict[str, Any], control: socket.socket) -> int:
    try:
        plan = _unpack(spec["plan"], spec["main"])
        with asyncio.Runner(loop_factory=loop_factory(plan.loop)) as runner:
            runner.run(_serve(plan, spec, control))
    except Exception as exc:
        with contextlib.suppress(OSError):
            control.setblocking(True)
            said = {"failed": describe(exc)}
            control.sendall(json.dumps(said).encode() + b"\n")
        return FAILED
    return 0


def _unpack(packed: bytes, main_module: tuple[str, str] | None) -> Plan:
    """Return the plan; what it takes from the program's main module is imported."""
    if b"__main__" in packed and main_module is not None:
        _import_main(*main_module)
    try:
        plan: Plan = pickle.loads(packed)
    except (AttributeError, ImportError) as exc:
        raise StartError(f"cannot import the application: {exc}") from exc
    return plan


def _import_main(kind: str, name: str) -> None:
    """Import the main module of the program under another name, so that its
    ``if __name__ == "__main__"`` is not true here."""
    module = ModuleType("__mp_main__")
    if kind == "module":
        content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(name, run_name="__mp_main__")
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


async def _serve(plan: Plan, spec: dict[str, Any], control: socket.socket) -> None:
    orders = Orders()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(
        signal.SIGTERM, orders.give, Order(plan.drain, CloseCode.GOING_AWAY)
    )
    # A copy: the socket itself is to tell a failure when the loop is gone.
    reader, writer = await asyncio.open_connection(sock=control.dup())
    listening = loop.create_task(_listen(reader, orders, spec["hub"]))
    socks = [socket.socket(fileno=fd) for fd in spec["sockets"]]
    try:
        await serve_plan(plan, socks, orders, lambda _: writer.write(b"{}\n"))
    finally:
        listening.cancel()
        writer.close()
        for sock in socks:
            sock.close()


async def _listen(
    reader: asyncio.StreamReader, orders: Orders, hub: str | None
) -> None:
    """Take the orders of the supervisor; when it is gone, stop without it."""
    try:
        while line := await reader.readline():
            orders.give(Order(**json.loads(line)))
    except (OSError, ValueError):
        pass
    orders.give(Order(None, CloseCode.GOING_AWAY))
    if hub is not None:
        _remove_hub(hub)
