"""The process of a worker, from the inside."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import pickle
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..frames import CloseCode
from .current import set_current
from .plan import Order, Place, Plan, StartError, loop_factory
from .serving import Orders, serve_plan

__all__ = ["LOG_FORMAT", "main"]

# Exit code of a worker that could not start.
FAILED = 3

LOG_FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"


def main(control: int) -> None:
    """Be a worker.

    Args:
        control: Descriptor of the socket to the supervisor.
    """
    os.set_inheritable(control, False)
    sock = socket.socket(fileno=control)
    _mute_signals()
    spec = pickle.loads(_read_spec(sock))
    for fd in spec["sockets"]:
        os.set_inheritable(fd, False)
    place: Place = spec["place"]
    set_current(place)
    _name_log_records(f"worker {place.number}")
    level = spec["settings"].get("log_level")
    if level is not None:
        logging.basicConfig(format=LOG_FORMAT, level=logging.WARNING)
        logging.getLogger("websock.workers").setLevel(level)
    sys.exit(_work(spec, sock))


def _work(spec: dict[str, Any], control: socket.socket) -> int:
    try:
        plan = _unpack(spec["plan"])
        factory = loop_factory(plan.loop)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(plan, spec, control))
    except StartError as exc:
        return _tell_failure(control, str(exc))
    except OSError as exc:
        if exc.errno is None:
            raise
        return _tell_failure(control, _describe(exc))
    except Exception as exc:
        return _tell_failure(control, _describe(exc))
    return 0


def _describe(exc: BaseException) -> str:
    lines = io.StringIO()
    traceback.print_exception(exc, file=lines)
    return f"{type(exc).__name__}: {exc}\n{lines.getvalue()}".rstrip()


def _tell_failure(control: socket.socket, text: str) -> int:
    control.setblocking(True)
    with contextlib.suppress(OSError):
        control.sendall(json.dumps({"failed": text}).encode() + b"\n")
    return FAILED


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


def _unpack(packed: bytes) -> Plan:
    """Return the plan; the program's main module is imported for it if needed."""
    # Without it, what is defined there could not be found.
    if b"__main__" in packed:
        found = pickle.loads(packed.partition(_MARK)[0]) if _MARK in packed else None
        del found
    try:
        unpickler = _Unpickler(io.BytesIO(packed))
        plan: Plan = unpickler.load()["plan"]
    except (AttributeError, ImportError) as exc:
        raise StartError(f"cannot import the application: {exc}") from exc
    return plan


_MARK = b"\x00"


class _Unpickler(pickle.Unpickler):
    pass


async def _serve(plan: Plan, spec: dict[str, Any], control: socket.socket) -> None:
    orders = Orders()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(
            signal.SIGTERM, orders.give, Order(plan.drain, CloseCode.GOING_AWAY)
        )
    reader, writer = await asyncio.open_connection(sock=control)

    async def listen() -> None:
        try:
            while line := await reader.readline():
                orders.give(Order(**json.loads(line)))
        except (OSError, ValueError):
            pass
        orders.give(Order(None, CloseCode.GOING_AWAY))
    listening = loop.create_task(listen())
    socks = [socket.socket(fileno=fd) for fd in spec["sockets"]]
    await serve_plan(plan, socks, orders, lambda server: writer.write(b"{}\n"))
