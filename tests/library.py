"""websockets and websock under one name, for tests that must pass with both."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from scripted import LOOPBACK, TLS, run_on

LIBRARIES = ("websockets", "websock")


class Library:
    """A library: ``lib.client`` is its ``asyncio.client``, ``lib.http11`` its http11."""

    def __init__(self, name: str, tls: TLS, tmp_path: Path) -> None:
        self.name = name
        self.tls = tls
        self.tmp_path = tmp_path
        self.root = import_module(name)
        self.client = import_module(f"{name}.asyncio.client")
        self.server = import_module(f"{name}.asyncio.server")
        self.router = import_module(f"{name}.asyncio.router")
        self.exceptions = import_module(f"{name}.exceptions")

    def module(self, name: str) -> Any:
        return import_module(f"{self.name}.{name}")

    def connect(self, server: Any, path: str = "/", **kwargs: Any) -> Any:
        """Make what connects to a server, without a proxy."""
        kwargs.setdefault("proxy", None)
        return self.client.connect(self.url(server, path), **kwargs)

    def url(self, server: Any, path: str = "/") -> str:
        """Return the URL of a path on a server."""
        scheme = getattr(server, "test_scheme", "ws")
        return f"{scheme}://{LOOPBACK}:{server.sockets[0].getsockname()[1]}{path}"

    @contextlib.asynccontextmanager
    async def serve(self, handler: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Run a server; by default one that sends each message back."""
        async with self.server.serve(handler or echo, LOOPBACK, 0, **kwargs) as server:
            if isinstance(kwargs.get("ssl"), ssl.SSLContext):
                server.test_scheme = "wss"
            yield server


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


Program = Callable[[Library], Coroutine[Any, Any, None]]


def same(program: Program) -> Any:
    """Make a test that runs a program with each of the libraries."""

    @pytest.mark.parametrize("name", LIBRARIES)
    def test(name: str, tls: TLS, tmp_path: Path) -> None:
        run_on(asyncio.SelectorEventLoop, program(Library(name, tls, tmp_path)))

    test.__name__ = program.__name__
    test.__doc__ = program.__doc__
    return test
