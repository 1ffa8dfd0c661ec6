"""Real brokers on loopback, which tests kill, restart and pause."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from brokers.machines import Machine
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


class Authority:
    """A certificate authority, and a broker's certificate from it.

    Args:
        folder: Where the files go.
        names: Names and addresses that the certificate is for.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        names = names or (LOOPBACK, "localhost")
        self.name = names[0]
        self._authority = trustme.CA()
        issued = self._authority.issue_cert(*names)
        self.authority = folder / "authority.pem"
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))

    def client(self) -> ssl.SSLContext:
        """Return a context that trusts it, and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context

    def arguments(self, kind: str, port: int) -> list[str]:
        """Return what makes a broker speak TLS, and nothing else."""
        if kind == "nats":
            return [
                *("--tls", "--tlscert", str(self.certificate)),
                *("--tlskey", str(self.key)),
            ]
        return [
            *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(self.certificate)),
            *("--tls-key-file", str(self.key)),
            *("--tls-ca-cert-file", str(self.authority)),
        ]


SECURE = {"redis": "rediss", "nats": "tls"}


class Broker:
    """A broker on a port of its own, with its data in a folder.

    Args:
        kind: ``"redis"`` or ``"nats"``.
        folder: Where it may write.
        arguments: More arguments for it.
        authority: Whose certificate it has, if it speaks TLS.
        machine: Where it runs, if that is not here.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        *arguments: str,
        authority: Authority | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.arguments = arguments
        self.authority = authority
        self.machine = machine
        self.address = machine.address if machine else LOOPBACK
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def scheme(self) -> str:
        return self.kind if self.authority is None else SECURE[self.kind]

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = find(f"{self.kind}-server")
        assert program is not None
        # On a machine of its own it is also asked from there.
        address = "0.0.0.0" if self.machine else LOOPBACK
        command = [program, "-a", address, "-p", str(self.port)]
        if self.kind == "redis":
            command = [program, "--bind", address, "--port", str(self.port)]
            command += ["--protected-mode", "no"] if self.machine else []
            command += ["--dir", str(self.folder), "--save", "", "--daemonize", "no"]
        if self.authority is not None:
            command += self.authority.arguments(self.kind, self.port)
        if self.machine is not None:
            command = self.machine.command(*command)
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
            with self._connect() as sock:
                if self.kind == "nats":
                    return sock.recv(4) == b"INFO"
                if self.authority is not None:
                    with self.authority.client().wrap_socket(
                        sock, server_hostname=self.authority.name
                    ) as secure:
                        secure.sendall(b"PING\r\n")
                        return secure.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
                sock.sendall(b"PING\r\n")
                return sock.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        if self.machine is None:
            return socket.create_connection((LOOPBACK, self.port), 1)
        sock = self.machine.connect(self.port)
        sock.settimeout(1)
        return sock

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
def running(
    kind: str,
    folder: Path,
    *arguments: str,
    authority: Authority | None = None,
    machine: Machine | None = None,
) -> Iterator[Broker]:
    """Run a broker."""
    folder.mkdir(exist_ok=True)
    broker = Broker(kind, folder, *arguments, authority=authority, machine=machine)
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
