"""A worker that is a process, as its supervisor sees it.

The child is started from scratch, not forked: a copy of a process that runs a loop and
has threads is no sound process.  It gets a socket on which it learns what to do, and
says that it is ready; when its supervisor is gone, that socket is at its end.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._compat import child_environment
from .plan import Order, Plan

__all__ = ["ProcessWorker", "pack"]

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from websock.workers.child import main; main(int(sys.argv[1]))"
)

# They wait until the child is able to handle them.
_HELD = (
    *("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"),
    *("SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU"),
)

# Bytes of a line from a child at most: it may be a traceback.
_LINE = 1 << 20

# Seconds for what a child that has ended said last.
_LAST_WORDS = 1.0


def pack(plan: Plan) -> bytes:
    """Pack a plan for another process.

    Raises:
        TypeError: When a part of it cannot be handed to another process.
    """
    parts: dict[str, Any] = {
        "the application": plan.application,
        "lifespan": plan.lifespan,
        **plan.options,
    }
    for name, value in parts.items():
        try:
            pickle.dumps(value)
        except Exception as exc:
            raise TypeError(
                f"{name} cannot be handed to worker processes: {exc}; "
                "name it as 'module:name', in an application made by serve()"
            ) from exc
    return pickle.dumps(plan)


def main_module() -> tuple[str, str] | None:
    """Return how the program's main module is found again, if it has to be."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return "module", spec.name
    path = getattr(main, "__file__", None)
    return None if path is None else ("path", str(Path(path).absolute()))


class ProcessWorker:
    """A worker in a process of its own.

    Args:
        number: Its number.
        packed: Its plan.
        socks: Sockets to listen on.
        hub: Address of the hub, if there is one; it goes into its environment.
        log_level: Level from which on it logs to standard error; ``None`` leaves that
            to the application.
    """

    def __init__(
        self,
        number: int,
        packed: bytes,
        socks: Sequence[socket.socket],
        hub: str | None,
        log_level: int | None,
    ) -> None:
        self.number = number
        self.problem: str | None = None
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        spec = pickle.dumps(
            {
                "number": number,
                "plan": packed,
                "main": main_module(),
                "sockets": [sock.fileno() for sock in socks],
                "log_level": log_level,
                "hub": hub,
            }
        )
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), *(sock.fileno() for sock in socks)]
            try:
                self._process = _start(fds, {} if hub is None else {"WEBSOCK_HUB": hub})
            except BaseException:
                ours.close()
                raise
        self.name = f"worker {number} (process {self._process.pid})"
        self._order: Order | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._talking = loop.create_task(self._talk(ours, spec))
        self._finishing: asyncio.Task[None] | None = None
        threading.Thread(
            target=self._wait, args=(loop,), name=self.name, daemon=True
        ).start()

    async def _talk(self, sock: socket.socket, spec: bytes) -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=_LINE)
        try:
            writer.write(len(spec).to_bytes(8, "big") + spec)
            self._writer = writer
            if self._order is not None:
                self.stop(self._order)
            while line := await reader.readline():
                said = json.loads(line)
                if "failed" in said:
                    self.problem = said["failed"]
                elif not self.ready.done():
                    self.ready.set_result(True)
        except OSError:
            pass  # it is gone: its exit code tells
        except ValueError:
            self.kill()  # what it says is no answer of a worker
        finally:
            writer.close()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        try:
            loop.call_soon_threadsafe(self._gone, code)
        except RuntimeError:
            pass  # the loop is closed

    def _gone(self, code: int) -> None:
        self._finishing = asyncio.ensure_future(self._finish(code))

    async def _finish(self, code: int) -> None:
        # What it said last may be unread.  There may be no end of it: a process that
        # it has forked has the same socket.
        await asyncio.wait((self._talking,), timeout=_LAST_WORDS)
        self._talking.cancel()
        if code < 0:
            text = f"was killed by {_signal_name(-code)}"
        else:
            text = f"ended with exit code {code}"
        self.ended.set_result(text)
        if not self.ready.done():
            self.ready.set_result(False)

    def stop(self, order: Order) -> None:
        """Have it stop."""
        self._order = order
        if self._writer is not None and not self._writer.is_closing():
            line = json.dumps({"seconds": order.seconds, "code": int(order.code)})
            self._writer.write(line.encode() + b"\n")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _start(fds: Sequence[int], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    numbers = {getattr(signal, name) for name in _HELD if hasattr(signal, name)}
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        return subprocess.Popen(
            [sys.executable, *flags, "-c", _CODE, str(fds[0]), json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            env=child_environment(**variables),
            pass_fds=fds,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
