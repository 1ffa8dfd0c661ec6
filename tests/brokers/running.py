"""Real brokers on loopback, which tests kill, restart and pause."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from doc_pages import free_port
from linked import freeze
from scripted import LOOPBACK, run_on
from subscribers import served

from websock.topics import Topics

TIMEOUT = 30  # seconds, for a busy machine


def find(name: str) -> str | None:
    """Return where the program of a broker is; Debian has some in ``sbin``."""
    return shutil.which(
        name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )


class Broker:
    """A broker on a port of its own, with its data in a folder.

    Args:
        kind: ``"redis"`` or ``"nats"``.
        folder: Where it may write.
        arguments: More arguments for it.
    """

    def __init__(self, kind: str, folder: Path, *arguments: str) -> None:
        self.kind = kind
        self.folder = folder
        self.arguments = arguments
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.kind}://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = find(f"{self.kind}-server")
        assert program is not None
        command = [program, "-a", LOOPBACK, "-p", str(self.port)]
        if self.kind == "redis":
            command = [program, "--bind", LOOPBACK, "--port", str(self.port)]
            command += ["--dir", str(self.folder), "--save", "", "--daemonize", "no"]
        with (self.folder / f"{self.kind}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments], stdout=log, stderr=log, cwd=self.folder
            )
        until = time.monotonic() + TIMEOUT
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), 1) as sock:
                if self.kind == "nats":
                    return sock.recv(4) == b"INFO"
                sock.sendall(b"PING\r\n")
                return sock.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
        except OSError:
            return False

    def log(self) -> str:
        return (self.folder / f"{self.kind}.log").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Have it stand still: it takes what comes, as far as the system does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # All of its threads: until then it may still answer.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(kind: str, folder: Path, *arguments: str) -> Iterator[Broker]:
    """Run a broker."""
    folder.mkdir(exist_ok=True)
    broker = Broker(kind, folder, *arguments)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


async def in_thread(function: Any, *args: Any) -> Any:
    """Do what blocks, while the loop goes on."""
    return await asyncio.to_thread(function, *args)


def missing(kind: str) -> str:
    """Return why tests with a broker cannot run, or nothing."""
    if find(f"{kind}-server") is None:
        return f"{kind}-server is not installed (Debian: apt install {kind}-server)"
    package = {"redis": "redis", "nats": "nats-py"}[kind]
    try:
        __import__(kind)
    except ImportError:
        return f"the package {package} is not installed (pip install {package})"
    return ""


KINDS = [
    pytest.param(
        kind, marks=pytest.mark.skipif(bool(missing(kind)), reason=missing(kind))
    )
    for kind in ("redis", "nats")
]
with_redis = pytest.mark.skipif(bool(missing("redis")), reason=missing("redis"))
with_nats = pytest.mark.skipif(bool(missing("nats")), reason=missing("nats"))


def go(coroutine: Any) -> None:
    freeze()
    run_on(None, coroutine)


prefixes = iter(range(1_000_000))


def prefix() -> str:
    """Return a name that no other test uses."""
    return f"t{os.getpid()}_{next(prefixes)}"


def topics_on(url: str, **options: Any) -> Topics:
    options.setdefault("timeout", 10)
    return Topics(url, **options)


@asynccontextmanager
async def several(
    broker: Broker, count: int = 2, clients: int = 1, **options: Any
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Run servers that have nothing in common but a broker, each with its clients."""
    options.setdefault("prefix", prefix())
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                served(clients=clients, topics=topics_on(broker.url, **options))
            )
            for _ in range(count)
        ]


def broker_fixture() -> Any:
    """Make a fixture: a broker of each kind, that nobody harms."""

    @pytest.fixture(scope="module", params=KINDS)
    def broker(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Broker]:
        with running(request.param, tmp_path_factory.mktemp("broker")) as broker:
            yield broker

    return broker
