"""Machines: network namespaces with a broker among them, and links that can be cut.

A router stands between a machine and the broker. To cut a link it drops what comes from
the machine and what goes to it, and says so to nobody: neither end sees a reset, or that
its cable is out.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
BROKER = "10.99.0.2"


def _ip(*words: str) -> None:
    done = subprocess.run(
        ["ip", *words], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@functools.cache
def no_machines() -> str:
    """Return why there can be no namespaces here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "ip is not installed (Debian: apt install iproute2)"
    try:
        with network(1):
            return ""
    except OSError as exc:
        return f"network namespaces cannot be made here: {exc}"


class Machine:
    """A namespace, with one link to the router.

    Attributes:
        address: Its address.
    """

    def __init__(self, name: str, router: str, subnet: str, port: str) -> None:
        self.name = name
        self.router = router
        self.address = f"{subnet}.2"
        self._gateway = f"{subnet}.1"
        self._port = port  # of the router

    def make(self) -> None:
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")
        link = ("link", "add", "up0", "netns", self.name, "type", "veth")
        _ip(*link, "peer", "name", self._port, "netns", self.router)
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "up0")
        _ip("-n", self.name, "link", "set", "up0", "up")
        _ip("-n", self.name, "route", "add", "default", "via", self._gateway)
        address = ("addr", "add", f"{self._gateway}/24", "dev", self._port)
        _ip("-n", self.router, *address)
        _ip("-n", self.router, "link", "set", self._port, "up")

    def command(self, *words: str) -> list[str]:
        """Return a command that runs there."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Have everything dropped, in both directions."""
        self._forward("0")
        _ip("-n", self.router, "route", "add", "blackhole", f"{self.address}/32")

    def mend(self) -> None:
        self._forward("1")
        _ip("-n", self.router, "route", "del", "blackhole", f"{self.address}/32")

    def _forward(self, value: str) -> None:
        name = f"/proc/sys/net/ipv4/conf/{self._port}/forwarding"
        within(self.router, lambda: Path(name).write_text(value))

    def connect(self, port: int) -> socket.socket:
        """Connect to a port of this machine, from this machine."""
        made: list[socket.socket] = []
        address = ("127.0.0.1", port)
        within(self.name, lambda: made.append(socket.create_connection(address, 30)))
        made[0].setblocking(False)
        return made[0]


def within(name: str, function: object) -> None:
    """Call a function in a namespace: a thread of its own goes there, and ends."""
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with open(f"/run/netns/{name}", "rb") as file:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), f"cannot enter {name}")
            function()  # type: ignore[operator]
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


_numbers = itertools.count()


@contextlib.contextmanager
def network(count: int) -> Iterator[tuple[Machine, Sequence[Machine]]]:
    """Make a machine for the broker, and some for workers."""
    begin = f"ws{os.getpid()}-{next(_numbers)}"
    router = f"{begin}-router"
    machines = [
        Machine(f"{begin}-{number}", router, f"10.99.{number}", f"port{number}")
        for number in range(count + 1)
    ]
    try:
        _ip("netns", "add", router)
        for machine in machines:
            machine.make()
        forward = Path("/proc/sys/net/ipv4/ip_forward")
        within(router, lambda: forward.write_text("1"))
        yield machines[0], machines[1:]
    finally:
        for name in (*(machine.name for machine in machines), router):
            with contextlib.suppress(OSError):
                _ip("netns", "del", name)
