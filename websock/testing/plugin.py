"""The plugin for pytest; it is loaded by itself where both are installed.

Fixtures:

``ws_server``
    A function that starts a server in a thread of its own and returns it, for clients
    of any kind::

        def test_client(ws_server):
            server = ws_server()                    # sends each message back
            assert talk_to(server.url) == "hello"
            assert server.received == ["hello"]

``ws_pair``
    :func:`websock.testing.memory_pair`, for tests that run in an event loop::

        async def test_handler(ws_pair):
            async with ws_pair() as (client, server):
                ...
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..asyncio.server import ServerConnection

__all__ = ["ThreadedServer", "ws_pair", "ws_server"]


class ThreadedServer:
    """A server in a thread.

    Args:
        handler: As for :func:`~websock.serve`; ``None`` sends each message back.
        options: As for ``serve()``; the address is ``127.0.0.1`` and any free port.

    Attributes:
        url: Where to connect.
        received: Messages that the handler received, in order, when it is the one that
            sends them back.
    """

    def __init__(self, handler: Any, options: dict[str, Any]) -> None:
        self.received: list[Any] = []
        self.url = ""
        self._handler = handler or self._echo
        self._options = options
        self._ready = threading.Event()
        self._failures: list[BaseException] = []
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="ws_server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failures:
            self._thread.join()
            raise self._failures[0]

    async def _echo(self, ws: ServerConnection) -> None:
        async for message in ws:
            self.received.append(message)
            await ws.send(message)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            self._failures.append(exc)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from ..asyncio.server import serve

        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        async with serve(self._handler, "127.0.0.1", 0, **self._options) as server:
            scheme = "wss" if self._options.get("ssl") else "ws"
            port = server.sockets[0].getsockname()[1]
            self.url = f"{scheme}://127.0.0.1:{port}"
            self._ready.set()
            await self._stopped.wait()

    def stop(self) -> None:
        """Close the server and its connections; harmless when that was done."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()


@pytest.fixture
def ws_server() -> Iterator[Callable[..., ThreadedServer]]:
    """A function that starts a server: ``start(handler=None, **options)``."""
    servers: list[ThreadedServer] = []

    def start(handler: Any = None, **options: Any) -> ThreadedServer:
        servers.append(ThreadedServer(handler, options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def ws_pair() -> Any:
    """``websock.testing.memory_pair``: both ends of a connection, without sockets."""
    from .memory import memory_pair

    return memory_pair
