"""``python -m websock doctor``: what runs here, and which hosts are sped up."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterable
from importlib import import_module, metadata
from importlib.util import find_spec

from .. import speedups
from ..extensions import deflate
from ..report import report

__all__ = ["add_command", "zlib_name"]

# Modules that can take zlib's place, and the distributions they are in.
ZLIBS = {"zlib_ng": "zlib-ng", "isal": "isal"}


def zlib_name() -> str:
    """Return the zlib that compresses messages, and others that are installed."""
    used = str(vars(deflate)["zlib"].__name__).partition(".")[0]
    if used == "zlib":
        name = f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    else:
        name = f"{ZLIBS.get(used, used)} {version_of(used)}".rstrip()
    others = [
        f"{distribution} {version_of(module)}"
        for module, distribution in ZLIBS.items()
        if module != used and find_spec(module) is not None
    ]
    if others:
        name += f" (installed and not used: {', '.join(others)})"
    return name


def version_of(module: str) -> str:
    """Return the version of a distribution, by its module; else nothing."""
    try:
        return metadata.version(ZLIBS.get(module, module))
    except metadata.PackageNotFoundError:
        return ""


def check_hosts() -> list[speedups.Status]:
    """Install all speed-ups and import their hosts, so that each is tested for real."""
    speedups.install()
    waiting = {host.name for host in speedups.status() if host.state == "waiting"}
    failures = {}
    for name in waiting:
        for module in speedups.modules(name):
            try:
                import_module(module)
            except Exception as exc:
                failures[name] = f"cannot import {module}: {type(exc).__name__}: {exc}"
                break
    return [
        speedups.Status(host.name, host.version, "failed", failures[host.name])
        if host.name in failures
        else host
        for host in speedups.status()
    ]


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with columns one below the other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def run(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    for line in table([*report(), ("zlib", zlib_name())]):
        print(line)
    print()
    rows = [("host", "version", "state", "")]
    rows += [
        (host.name, host.version or "-", host.state, host.reason)
        for host in check_hosts()
    ]
    for line in table(rows):
        print(line)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="say what runs here, and which libraries are sped up",
        description="Says what runs here. Imports each library that there is a "
        "speed-up for, tests and installs the speed-up in this process, and says "
        "what became of it.",
    )
    parser.set_defaults(run=run)
