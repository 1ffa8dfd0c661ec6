"""What Windows and macOS lack and do otherwise, on a system that has it all.

With this directory in ``PYTHONPATH`` and ``WEBSOCK_WORLD=windows`` or ``macos`` in the
environment, an interpreter and all that it starts is in such a world.  It is entered
before anything is imported, so that the standard library finds there what it would find
on that system: its own select loop, its own ``socketpair()`` over TCP.

``sys.platform`` and ``os.name`` are changed for websock alone: the standard library and
pytest would look for what only the real system has.
"""

from __future__ import annotations

import errno
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any

# Names that there are not, by module.
MISSING = {
    "windows": {
        "_socket": "AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL SO_REUSEPORT SOCK_CLOEXEC "
        "SOCK_NONBLOCK socketpair sethostname",
        "_signal": "SIGALRM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 pthread_kill "
        "pthread_sigmask setitimer sigwait",
        "select": "epoll poll",
        "posix": "fork forkpty register_at_fork sched_getaffinity",
    },
    "macos": {
        "_socket": "MSG_NOSIGNAL SOCK_CLOEXEC SOCK_NONBLOCK",
        "posix": "sched_getaffinity",
        "select": "epoll",
    },
}


# For websock alone.
SHOWN = {
    "windows": {"sys": {"platform": "win32"}, "os": {"name": "nt"}},
    "macos": {"sys": {"platform": "darwin"}, "os": {}},
}


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module that sees another ``sys.platform`` and ``os.name``."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for name, changes in SHOWN[os.environ["WEBSOCK_WORLD"]].items():
            if vars(module).get(name) is sys.modules[name]:
                vars(module)[name] = Shown(name, changes)


class Finder(importlib.machinery.PathFinder):
    """Finds the modules of websock."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != "websock":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is (
            importlib.machinery.SourceFileLoader
        ):
            spec.loader = Loader(fullname, spec.loader.path)
        return spec


class Shown(ModuleType):
    """A module, but for a few of its values."""

    def __init__(self, name: str, changes: dict[str, Any]) -> None:
        vars(self).update(changes)
        vars(self)["_shown"] = sys.modules[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_shown"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_shown"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(vars(self)["_shown"], name)


def leave_out(world: str) -> None:
    """Take the names away; before the standard library looks for them."""
    early = {"socket", "select", "selectors", "signal", "asyncio"} & sys.modules.keys()
    if early:
        raise RuntimeError(f"imported before the world was entered: {sorted(early)}")
    for module, names in MISSING[world].items():
        space = vars(__import__(module))
        for name in names.split():
            space.pop(name, None)
            if module == "posix":
                vars(os).pop(name, None)
    if "process_cpu_count" in vars(os):  # from 3.13 on; it asks sched_getaffinity()
        vars(os)["process_cpu_count"] = os.cpu_count


def change_sockets(world: str) -> None:
    """Have sockets do what they do there."""
    import socket
    import struct

    real = socket.socket

    if world == "windows":

        def setsockopt(self: Any, level: int, name: int, *value: Any) -> None:
            if (level, name) == (socket.SOL_SOCKET, socket.SO_RCVTIMEO):
                seconds, rest = divmod(value[0], 1000)  # it takes milliseconds
                value = (struct.pack("@ll", seconds, rest * 1000),)
            elif level == socket.SOL_SOCKET and name == socket.SO_REUSEADDR:
                caller = sys._getframe(1).f_globals["__name__"]
                if caller.partition(".")[0] == "websock":
                    raise AssertionError("SO_REUSEADDR lets others take the port there")
            super(real, self).setsockopt(level, name, *value)

        def bind(self: Any, address: Any) -> None:
            # What is over does not keep a port there.
            super(real, self).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            super(real, self).bind(address)

        def recv(self: Any, size: int, flags: int = 0) -> bytes:
            try:
                return super(real, self).recv(size, flags)
            except BlockingIOError:
                if self.gettimeout() is None:  # WSAETIMEDOUT
                    raise TimeoutError(errno.ETIMEDOUT, "timed out") from None
                raise

        real.setsockopt = setsockopt  # type: ignore[method-assign, assignment]
        real.bind = bind  # type: ignore[method-assign]
        real.recv = recv  # type: ignore[method-assign, assignment]

    accept = real.accept

    def accept_inheriting(self: Any) -> tuple[Any, Any]:
        sock, address = accept(self)
        if self.gettimeout() == 0 and sock.gettimeout() is None:
            os.set_blocking(sock.fileno(), False)  # Python goes on to think otherwise
        return sock, address

    real.accept = accept_inheriting  # type: ignore[method-assign]


def change_loops() -> None:
    """Have asyncio make loops like Windows' proactor: they tell of no sockets."""
    import asyncio
    import asyncio.selector_events as selector_events

    class ProactorEventLoop(selector_events.BaseSelectorEventLoop):
        pass

    def refuse(name: str) -> None:
        inner = getattr(ProactorEventLoop, name)

        def method(self: Any, *args: Any) -> Any:
            if sys._getframe(1).f_globals["__name__"].startswith("asyncio."):
                return inner(self, *args)
            raise NotImplementedError

        setattr(ProactorEventLoop, name, method)

    for name in ("add_reader", "add_writer", "remove_reader", "remove_writer"):
        refuse(name)

    if hasattr(selector_events, "_HAS_SENDMSG"):  # from Python 3.12 on
        selector_events._HAS_SENDMSG = False

    # From Python 3.14 on, the public names of policies warn that they will go.
    events: Any = asyncio.events
    private = "_" if hasattr(events, "_set_event_loop_policy") else ""
    base: Any = getattr(events, f"{private}BaseDefaultEventLoopPolicy")

    class Policy(base):  # type: ignore[misc]
        _loop_factory = ProactorEventLoop

    for space in (asyncio, asyncio.events):
        space.ProactorEventLoop = ProactorEventLoop  # type: ignore[union-attr]
    getattr(events, f"{private}set_event_loop_policy")(Policy())


def enter(world: str) -> None:
    """Change this interpreter; the interpreters that it starts do so themselves."""
    leave_out(world)
    change_sockets(world)
    sys.meta_path.insert(0, Finder)
    if world == "windows":
        change_loops()


if os.environ.get("WEBSOCK_WORLD"):
    enter(os.environ["WEBSOCK_WORLD"])
