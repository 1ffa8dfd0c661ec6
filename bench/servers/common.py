"""What every server script shares: options, the event loop, the first line.

A server script prints one JSON line (what it is) when it listens, then
serves until it is told to stop. All of them do the same: send back what came,
text as text and binary as binary; with ``--mode broadcast``, send it to every
connection.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any


def parse_arguments() -> argparse.Namespace:
    """Parse the options that all server scripts take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    parser.add_argument("--mode", choices=("echo", "broadcast"), default="echo")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--max-size", type=int)
    parser.add_argument("--zlib", choices=("zlib", "zlib-ng"), default="zlib")
    parser.add_argument("--engine", default="")
    parser.add_argument("--per-topic", type=int, default=0)
    parser.add_argument("--broker", default="")
    return parser.parse_args()


def refuse(options: argparse.Namespace, *names: str) -> None:
    """Stop if an option is set that this server cannot honour."""
    for name in names:
        value = getattr(options, name)
        if value and value != "echo":
            sys.exit(f"unsupported: {name}={value}")


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the server's TLS context, or None without ``--cert``."""
    if not options.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    return context


def install_speedup() -> None:
    """Install the speed-up that the harness asks for; refuse to run without it."""
    name = os.environ.get("BENCH_SPEEDUP")
    if name is None:
        return
    from websock import speedups

    speedups.install(name)
    [found] = [status for status in speedups.status() if status.name == name]
    if found.state != "patched":
        sys.exit(f"unsupported: speed-up of {name}: {found.state}, {found.reason}")


def announce(*distributions: str, loop: str = "", **facts: Any) -> None:
    """Print the first line: versions of what runs, and other facts."""
    install_speedup()
    versions = {name: importlib.metadata.version(name) for name in distributions}
    if loop == "uvloop":
        versions["uvloop"] = importlib.metadata.version("uvloop")
    print(json.dumps({"versions": versions, "loop": loop, **facts}), flush=True)


def speed_up(options: argparse.Namespace, host: str) -> None:
    """Patch the library before it is imported, as ``--engine`` says."""
    if options.engine:
        import websock.speedups

        extra = {"engine": True} if options.engine == "engine" else {}
        websock.speedups.install(host, **extra)


def choose_zlib(options: argparse.Namespace) -> None:
    """Have websock compress with zlib, as its peers do, unless told otherwise."""
    from websock.extensions import deflate

    name = {"zlib": "zlib", "zlib-ng": "zlib_ng.zlib_ng"}[options.zlib]
    deflate.zlib = importlib.import_module(name)


def announce_websock(options: argparse.Namespace) -> None:
    """Choose the zlib; print the first line: also backend and kernel."""
    import websock
    from websock import _kernels

    choose_zlib(options)
    facts = {"backend": websock.BACKEND, "kernel": _kernels.KERNEL}
    try:
        announce("websock-fast", loop=options.loop, **facts)
    except importlib.metadata.PackageNotFoundError:
        versions = {"websock-fast": f"{websock.__version__} (source tree)"}
        if options.loop == "uvloop":
            versions["uvloop"] = importlib.metadata.version("uvloop")
        line = {"versions": versions, "loop": options.loop, **facts}
        print(json.dumps(line), flush=True)


def loop_factory(options: argparse.Namespace) -> Callable[[], Any]:
    """Return what makes the event loop that ``--loop`` names."""
    if options.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def run(options: argparse.Namespace, main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` until the process is told to stop."""
    with asyncio.Runner(loop_factory=loop_factory(options)) as runner:
        runner.run(main)
