"""The libraries that can be measured, and how each is started."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import load
from .cases import Case

BENCH = Path(__file__).resolve().parent
SERVERS = BENCH / "servers"
CLIENTS = BENCH / "clients"

CALLBACK = "callback"
COROUTINE = "coroutine"
NATIVE = "native"
THREADS = "threads"


@dataclass(frozen=True)
class Library:
    """One way to use one library.

    ``lacks`` names what its server cannot do: modes, ``tls``, ``deflate``,
    ``fragments`` (putting a fragmented message together).
    ``has_loop`` is false where the event loop is not asyncio's.
    ``patched`` is true where websock's speed-ups are in it.
    """

    name: str
    api: str
    server: str = ""
    client: str = ""
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()
    has_loop: bool = True
    needs: str = ""
    patched: bool = False

    def lack(self, case: Case) -> str:
        """Return what the case asks for and the library lacks, or ``""``."""
        wanted = {case.mode} | {n for n in ("tls", "deflate") if getattr(case, n)}
        if case.fragments > 1:
            wanted.add("fragments")
        return ", ".join(sorted(wanted & self.lacks))


def _python(name: str, api: str, module: str, needs: str, **extra: object) -> Library:
    return Library(name, api, server=module, needs=needs, **extra)  # type: ignore[arg-type]


# Another library with this one's speed-up in it; see install_speedup() of the scripts.
_SPEEDUP = "BENCH_SPEEDUP"
_PURE = {"WEBSOCK_PURE": "1"}
_NO_BROADCAST = frozenset({"broadcast"})
_NO_ECHO = frozenset({"echo", "handshake", "idle"})
_UVICORN_NEEDS = "uvicorn"

LIBRARIES: dict[str, Library] = {
    library.name: library
    for library in (
        Library(
            "epoll",
            NATIVE,
            server="echo_epoll",
            lacks=frozenset({"tls", "deflate"}),
            has_loop=False,
        ),
        Library(
            "uws",
            NATIVE,
            server="echo_uws",
            lacks=frozenset({"deflate", "broadcast"}),
            has_loop=False,
            needs="socketify",
        ),
        _python(
            "websock-listener",
            CALLBACK,
            "websock_listener",
            "websock",
            client="websock_listener",
        ),
        _python(
            "websock", COROUTINE, "websock_echo", "websock", client="websock_client"
        ),
        _python(
            "websock-topics", COROUTINE, "websock_topics", "websock", lacks=_NO_ECHO
        ),
        _python(
            "websock-rooms",
            COROUTINE,
            "websock_topics",
            "websock",
            arguments=("--per-topic", "10"),
            lacks=_NO_ECHO,
        ),
        _python(
            "websockets-rooms",
            COROUTINE,
            "websockets_rooms",
            "websockets",
            arguments=("--per-topic", "10"),
            lacks=_NO_ECHO,
        ),
        _python(
            "websock-zlib-ng",
            COROUTINE,
            "websock_echo",
            "websock",
            arguments=("--zlib", "zlib-ng"),
        ),
        _python(
            "websock-listener-pure",
            CALLBACK,
            "websock_listener",
            "websock",
            client="websock_listener",
            environment=_PURE,
        ),
        _python(
            "websock-pure",
            COROUTINE,
            "websock_echo",
            "websock",
            client="websock_client",
            environment=_PURE,
        ),
        _python(
            "picows",
            CALLBACK,
            "picows_listener",
            "picows",
            client="picows_listener",
            lacks=frozenset({"deflate", "fragments"}),  # it gives frames
        ),
        _python(
            "picows-websockets",
            COROUTINE,
            "picows_websockets",
            "picows",
            client="picows_websockets",
        ),
        _python(
            "websockets",
            COROUTINE,
            "websockets_echo",
            "websockets",
            client="websockets_client",
        ),
        _python(
            "websockets-fast",
            COROUTINE,
            "websockets_echo",
            "websockets",
            arguments=("--engine", "fast"),
            patched=True,
        ),
        _python(
            "websockets-engine",
            COROUTINE,
            "websockets_echo",
            "websockets",
            arguments=("--engine", "engine"),
            patched=True,
        ),
        _python(
            "aiohttp", COROUTINE, "aiohttp_echo", "aiohttp", client="aiohttp_client"
        ),
        _python(
            "aiohttp-fast",
            COROUTINE,
            "aiohttp_echo",
            "aiohttp",
            client="aiohttp_client",
            environment={_SPEEDUP: "aiohttp"},
        ),
        _python(
            "uvicorn-websockets",
            COROUTINE,
            "uvicorn_asgi",
            _UVICORN_NEEDS,
            arguments=("--engine", "websockets"),
            lacks=_NO_BROADCAST,
        ),
        _python(
            "uvicorn-websockets-sansio",
            COROUTINE,
            "uvicorn_asgi",
            _UVICORN_NEEDS,
            arguments=("--engine", "websockets-sansio"),
            lacks=_NO_BROADCAST,
        ),
        _python(
            "uvicorn-wsproto",
            COROUTINE,
            "uvicorn_asgi",
            _UVICORN_NEEDS,
            arguments=("--engine", "wsproto"),
            lacks=_NO_BROADCAST,
        ),
        _python(
            "uvicorn-websock",
            COROUTINE,
            "uvicorn_asgi",
            _UVICORN_NEEDS,
            arguments=("--engine", "websock.speedups.uvicorn:WebSocketProtocol"),
            patched=True,
            lacks=_NO_BROADCAST,
        ),
        _python(
            "tornado", COROUTINE, "tornado_echo", "tornado", client="tornado_client"
        ),
        _python(
            "tornado-fast",
            COROUTINE,
            "tornado_echo",
            "tornado",
            client="tornado_client",
            environment={_SPEEDUP: "tornado"},
        ),
        _python(
            "autobahn",
            CALLBACK,
            "autobahn_echo",
            "autobahn",
            lacks=frozenset({"deflate"}),
        ),
        _python(
            "autobahn-fast",
            CALLBACK,
            "autobahn_echo",
            "autobahn",
            environment={_SPEEDUP: "autobahn"},
            lacks=frozenset({"deflate"}),
        ),
        _python("wsproto", CALLBACK, "wsproto_echo", "wsproto", lacks=_NO_BROADCAST),
        _python(
            "wsproto-fast",
            CALLBACK,
            "wsproto_echo",
            "wsproto",
            arguments=("--engine", "fast"),
            patched=True,
            lacks=_NO_BROADCAST,
        ),
        _python(
            "granian",
            COROUTINE,
            "granian_asgi",
            "granian",
            lacks=frozenset({"broadcast", "tls", "deflate"}),
        ),
        _python(
            "websock-sync",
            THREADS,
            "websock_threads",
            "websock",
            client="websock_threads",
            lacks=_NO_BROADCAST,
            has_loop=False,
        ),
        _python(
            "websockets-threads",
            THREADS,
            "websockets_threads",
            "websockets",
            client="websockets_threads",
            lacks=_NO_BROADCAST,
            has_loop=False,
        ),
        Library(
            "websocket-client",
            THREADS,
            client="websocket_client_threads",
            has_loop=False,
            needs="websocket",
        ),
        Library(
            "websocket-client-fast",
            THREADS,
            client="websocket_client_threads",
            environment={_SPEEDUP: "websocket-client"},
            has_loop=False,
            needs="websocket",
        ),
        Library("node-ws", NATIVE, server="ws_echo.js", has_loop=False, needs="node"),
    )
}


def choose(names: str) -> list[Library]:
    """Return the libraries that a comma-separated list names."""
    chosen = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in LIBRARIES:
            known = ", ".join(LIBRARIES)
            raise ValueError(f"unknown library: {name}, choose from {known}")
        chosen.append(LIBRARIES[name])
    if not chosen:
        raise ValueError("no library was named")
    return chosen


def missing(library: Library, python: str) -> str:
    """Return why the library cannot be measured here, or ``""``."""
    if library.needs == "node":
        if not (BENCH / "node_modules" / "ws").is_dir():
            return "ws for Node is not installed: python -m bench setup"
        return "" if _works(["node", "--version"]) else "node is not installed"
    if library.needs and not find_module(python, library.needs):
        return f"{library.needs} is not installed: python -m bench setup"
    return ""


def find_module(python: str, name: str) -> str:
    """Return the path of a module's package in another interpreter, or ``""``.

    ``websock`` may also be the source tree around this directory.
    """
    code = (
        "import importlib.util as u, sys; s = u.find_spec(sys.argv[1]);"
        "print(s.origin if s and s.origin else '')"
    )
    done = subprocess.run(
        [python, "-P", "-c", code, name], capture_output=True, text=True, check=False
    )
    path = done.stdout.strip()
    if not path and name == "websock":
        tree = BENCH.parent / "websock" / "__init__.py"
        return str(tree) if tree.exists() else ""
    return path


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def server_command(
    library: Library, case: Case, port: int, *, python: str, tls_files: tuple[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command and the extra environment of a library's server."""
    arguments = ["--port", str(port)]
    if case.tls:
        arguments += ["--cert", tls_files[0], "--key", tls_files[1]]
    if case.mode == "broadcast":
        arguments += ["--mode", "broadcast"]
    if library.server == "echo_epoll":
        extra = ["--broadcast", "1"] if case.mode == "broadcast" else []
        return [str(load.build("echo_epoll")), "--port", str(port), *extra], {}
    if library.server == "echo_uws":
        package = Path(find_module(python, "socketify")).parent
        shared = package / "libsocketify_linux_amd64.so"
        return [str(load.build("echo_uws")), "--library", str(shared), *arguments], {}
    if case.deflate:
        arguments.append("--deflate")
    if library.server.endswith(".js"):
        return ["node", str(SERVERS / library.server), *arguments], {}
    if library.has_loop:
        arguments += ["--loop", case.loop]
    if case.size > 1 << 20:
        arguments += ["--max-size", str(2 * case.size)]
    script = SERVERS / f"{library.server}.py"
    return (
        [python, str(script), *arguments, *library.arguments],
        python_environment(library, python),
    )


def python_environment(library: Library, python: str) -> dict[str, str]:
    """Return the extra environment of a library's Python script."""
    environment = dict(library.environment)
    if library.needs == "websock" or library.patched or _SPEEDUP in environment:
        tree = BENCH.parent
        if Path(find_module(python, "websock")).parent.parent == tree:
            environment["PYTHONPATH"] = str(tree)
    return environment


def default_python() -> str:
    """Return the harness's own environment if it was made, else this Python."""
    own = BENCH / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable
