"""Servers of ``python -m websock serve`` and of ``websock.run()``, as processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import websock

TIMEOUT = 60

APP = '''
import asyncio, contextlib, os, sys
import websock

def say(text):
    os.write(2, f"{text}\\n".encode())  # in one piece, whoever else writes

async def handler(ws):
    """Say which process it is, then echo; say so when it has ended."""
    await ws.send(str(os.getpid()))
    try:
        async for message in ws:
            if message == "exit":
                os._exit(7)
            if message == "close server":
                ws.server.close()
            await ws.send(message)
    finally:
        say("handler ended")

VERSION = "old"

async def greet(ws):
    await ws.send(f"{VERSION} {os.getpid()}")
    async for message in ws:
        await ws.send(message)

class Listener(websock.Listener):
    def on_open(self, ws):
        ws.send_nowait(str(os.getpid()))

@contextlib.asynccontextmanager
async def lifespan(server):
    say(f"begins {len(server.sockets)}")
    yield
    say("ends")

served = websock.serve(handler, "localhost", 1)
number = 5
'''


class Supervised:
    """A server that runs, and what it has said so far.

    Args:
        folder: Where its modules are.
        arguments: Command line of Python.
        **options: Arguments of ``Popen``.
    """

    def __init__(self, folder: Path, *arguments: str, **options: Any) -> None:
        package = str(Path(websock.__file__).parents[1])
        variables = {
            "PYTHONPATH": os.pathsep.join((str(folder), package)),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "*",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            text=True,
            **options,
        )
        self.output = ""
        self._past = 0
        self._changed = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output += line
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it says something, after what was waited for before."""
        found: re.Match[str] | None = None

        def is_there() -> bool:
            nonlocal found
            found = re.compile(pattern).search(self.output, self._past)
            return found is not None or self._is_over

        with self._changed:
            assert self._changed.wait_for(is_there, TIMEOUT), self.output
            assert found is not None, self.output
            self._past = found.end()
        return found

    def has(self, *patterns: str) -> None:
        """Wait until it has said several things, in whatever order."""
        start = self._past
        ends = []
        for pattern in patterns:
            self._past = start
            self.says(pattern)
            ends.append(self._past)
        self._past = max(ends)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ends(self, status: int = 0) -> str:
        """Wait until it and its workers have ended; return all that they said."""
        assert self.process.wait(TIMEOUT) == status, self.output
        self.all_end()
        return self.output

    def all_end(self) -> None:
        """Wait until nobody has its output any more: all processes have ended."""
        self._reader.join(TIMEOUT)
        assert not self._reader.is_alive(), self.output

    def stop(self) -> str:
        """Stop it as an operator does; return all that it said."""
        self.send(signal.SIGTERM)
        return self.ends()

    def clean_up(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._reader.join(TIMEOUT)
        if not self._reader.is_alive():
            assert self.process.stdout is not None
            self.process.stdout.close()


def supervised_fixture() -> Any:
    """Make a fixture: a function that starts servers, which end with the test.

    Its arguments are those of ``serve``; or with ``script`` those of Python.
    """

    @pytest.fixture
    def serve(tmp_path: Path) -> Iterator[Any]:
        started: list[Supervised] = []
        (tmp_path / "app.py").write_text(APP, encoding="utf-8")

        def start(
            *arguments: str, script: str | None = None, **options: Any
        ) -> Supervised:
            if script is None:
                where = ("--host", "127.0.0.1", "--port", "0")
                if "--port" in arguments or "--unix" in arguments:
                    where = ()  # type: ignore[assignment]
                command = ("-m", "websock", "serve", *arguments, *where)
            else:
                (tmp_path / "script.py").write_text(script, encoding="utf-8")
                command = ("script.py", *arguments)
            started.append(Supervised(tmp_path, *command, **options))
            return started[-1]

        yield start
        for server in started:
            server.clean_up()

    return serve
