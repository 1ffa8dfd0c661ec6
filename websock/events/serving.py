"""``serve()`` for the event API: it listens, or makes connections for a host."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..asyncio.listening import Listening
from ..asyncio.server import Server, serve

__all__ = ["Serving"]

# Arguments of serve() that the event API decides, or has another way for.
_TAKEN = frozenset(
    (
        "create_connection",
        "handler",
        "max_queue",
        "process_response",
        "select_subprotocol",
        "start_serving",
        "subprotocols",
        "unix",
    )
)


def ask_nobody(connection: Any, request: Any) -> None:
    """Let a request pass.

    Without hooks, servers open connections on a path where nobody can be asked.
    """


class Hosted(Listening):
    """Stands for the listening sockets where an HTTP server has them."""

    def __init__(self) -> None:
        self._open = True

    @property
    def sockets(self) -> tuple[Any, ...]:
        """None: they are the HTTP server's."""
        return ()

    def is_serving(self) -> bool:
        """Whether connections are taken over."""
        return self._open

    async def start(self, server: Server) -> None:
        """Nothing is to be done."""

    def close(self) -> None:
        """Take over no more connections."""
        self._open = False

    async def wait_closed(self) -> None:
        """Nothing is to be waited for."""


class Serving(serve):
    """The settings of a server, and what makes its connections.

    Args:
        handler: As for ``serve()``.
        host: As for ``serve()``.
        port: As for ``serve()``.
        given: Options of ``serve()`` that the caller of this library gave.
        **options: Those that the event API decides.

    Raises:
        TypeError: When an option is of a wrong type, or unknown.
        ValueError: When an option has a wrong value.
    """

    def __init__(
        self,
        handler: Any,
        host: str | Sequence[str] | None,
        port: int | None,
        given: dict[str, Any],
        **options: Any,
    ) -> None:
        taken = _TAKEN & given.keys()
        if taken:
            raise TypeError(
                f"WebSocketServer() got an unexpected keyword argument {min(taken)!r}"
            )
        unix_path = given.pop("unix_path", None)  # a path is that of requests here
        elsewhere = given.get("sock") is not None or unix_path is not None
        self.has_address = host is not None or port is not None or bool(elsewhere)
        """Whether it can listen itself."""
        if not self.has_address:
            host, port = "", 0  # serve() wants one; nothing is bound
        if given.get("process_request") is None:
            given["process_request"] = ask_nobody
        if unix_path is not None:
            given.update(unix=True, path=unix_path)
        super().__init__(handler, host, port, **options, **given)

    async def listen(self) -> Server:
        """Listen, and accept connections.

        Raises:
            OSError: When the address cannot be listened on.
            ValueError: When there is no address.
        """
        if not self.has_address:
            raise ValueError("there is nothing to listen on: give host and port")
        return await self

    def host(self) -> Server:
        """Make a server whose connections come from elsewhere."""
        return Server(None, Hosted(), **self._settings)

    def make_connection(self, server: Server) -> Any:
        """Make a connection that is to be begun on a transport."""
        connection = self._factory(server)
        connection.accepted_at = asyncio.get_running_loop().time()
        return connection
