"""The listening sockets of workers: the supervisor makes them and keeps them open.

On Linux each worker gets sockets of its own for the same port (``SO_REUSEPORT``), and
the kernel spreads connections over them.  They outlive the worker, so that its
successor finds what waits in them.  Elsewhere, and for unix sockets, all workers accept
from the same sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterable
from typing import Any

from ..asyncio.checks import check_listening
from ..asyncio.listening import Listening

__all__ = ["Listeners", "address_text"]

# Whether the kernel spreads connections over the sockets of a port.  macOS knows the
# option, and gives all to one socket.
SPREADS = sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")

_REUSE = "reuse_address"


class Listeners:
    """Listening sockets for workers.

    Args:
        host: As for ``serve()``.
        port: As for ``serve()``.
        path: Path of a unix socket instead.
        sock: A socket that is bound already instead.
        spread: Whether each worker gets sockets of its own, where that is possible.
        **options: ``family``, ``flags``, ``reuse_address`` and ``reuse_port``, as for
            ``serve()``; with the latter other programs may have the port too.

    Raises:
        ValueError: When there is nothing to listen on, or more than one thing.
    """

    def __init__(
        self,
        host: Any = None,
        port: int | None = None,
        *,
        path: Any = None,
        sock: socket.socket | None = None,
        spread: bool = True,
        **options: Any,
    ) -> None:
        self._where = {"host": host, "port": port, "path": path, "sock": sock}
        check = {k: v for k, v in (("sock", sock), ("path", path)) if v is not None}
        if path is not None:
            check["unix"] = True
        check_listening(host, port, {**check, **options})
        self._shares = bool(options.pop("reuse_port", None))
        self._options = options
        self._spreads = SPREADS and spread and path is None and sock is None
        self._listening: Listening | None = None
        self._own: dict[int, tuple[socket.socket, ...]] = {}

    async def open(self) -> None:
        """Make the first sockets.

        Raises:
            OSError: When an address cannot be bound, also when another program of the
                same user listens there and would share it.
        """
        if self._spreads and not self._shares and self._where["port"]:
            # With SO_REUSEPORT two servers get half of the connections each.
            probe = self._make(False)
            await probe.bind()
            probe.close()
        self._listening = self._make(self._spreads or self._shares)
        await self._listening.bind()

    def _make(self, reuse_port: bool) -> Listening:
        return Listening(
            asyncio.get_running_loop(),
            _no_connections,
            own_sockets=False,
            unix=self._where["path"] is not None,
            **self._where,
            reuse_port=reuse_port,
            **self._options,
        )

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets of the first worker, or of all."""
        return () if self._listening is None else self._listening.sockets

    def take(self, number: int) -> tuple[socket.socket, ...]:
        """Return the sockets of a worker; they stay ours.

        Args:
            number: Number of the worker.

        Raises:
            OSError: When they cannot be bound.
        """
        if not self._spreads:
            return self.sockets
        if number not in self._own:
            first = not self._own
            socks = self.sockets if first else self._bind_again()
            self._own[number] = socks
        return self._own[number]

    def _bind_again(self) -> tuple[socket.socket, ...]:
        made: list[socket.socket] = []
        try:
            for sock in self.sockets:
                new = socket.socket(sock.family, sock.type, sock.proto)
                made.append(new)
                if self._options.get(_REUSE) is not False:
                    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if sock.family == socket.AF_INET6:
                    new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                new.bind(sock.getsockname())
                new.setblocking(False)
        except BaseException:
            _close(made)
            raise
        return tuple(made)

    def give_back(self, number: int) -> None:
        """Close our copies of a worker's own sockets: it is not replaced.

        The sockets of the first worker stay, since others are made after them.
        """
        if self._own.get(number, self.sockets) != self.sockets:
            _close(self._own.pop(number))

    def close(self) -> None:
        """Close all, and remove the file of a unix socket."""
        for socks in self._own.values():
            _close(socks)
        self._own.clear()
        if self._listening is not None:
            self._listening.close()
            self._listening = None


def _close(socks: Iterable[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def _no_connections(server: Any) -> Any:
    raise NotImplementedError  # the supervisor accepts none


def address_text(sock: socket.socket, scheme: str) -> str:
    """Return where a socket listens, for people: a URL or a path."""
    address = sock.getsockname()
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{scheme}://{host}:{address[1]}"
    return os.fsdecode(address)
