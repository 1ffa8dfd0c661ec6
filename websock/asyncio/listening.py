"""Listening sockets: accept connections, without a transport where that is possible.

On loops with ``add_reader`` a server owns its listening sockets and accepts what is
there in one go.  With TLS, and on other loops, ``loop.create_server()`` does it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .._stream import (
    Accepted,
    accept_connections,
    accepted_address,
    accepted_socket,
    close_accepted,
)
from ..admission import Ticket, turn_away
from .tls import accept_tls, create_tls_server

if TYPE_CHECKING:
    from .server import Server, ServerConnection

__all__ = ["Listening"]

# Connections accepted in one go, so that others are served in between.
MAX_ACCEPTS = 64

# Seconds without accepting when the process has no file descriptor or memory left.
ACCEPT_RETRY_DELAY = 1.0


class Listening:
    """The listening sockets of a server.

    Args:
        loop: The event loop.
        factory: Makes a connection, given the server.
        own_sockets: Whether connections can own their sockets here.

    The others are arguments of ``loop.create_server()`` and
    ``loop.create_unix_server()``, which were checked.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[Server], ServerConnection],
        *,
        own_sockets: bool,
        host: str | Sequence[str] | None,
        port: int | None,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        unix: bool = False,
        path: Any = None,
        **kwargs: Any,
    ) -> None:
        self._loop = loop
        self._factory = factory
        self._ssl = {k: v for k, v in kwargs.items() if v is not None}
        self._can_own = own_sockets
        # Whether connections are accepted here, or by the loop.
        self._own = own_sockets and not self._ssl
        self._backlog = backlog
        self._keep_alive = keep_alive
        self._unix = unix
        self._path = os.fspath(path) if path is not None else None
        self._inode: int | None = None
        self._server: Server | None = None
        self._inner: list[asyncio.Server] = []
        self._opening: set[asyncio.Task[None]] = set()  # handshakes of TLS
        self._sockets: list[socket.socket] = []
        self._retry: asyncio.TimerHandle | None = None
        self._serving = False
        self._closed = False
        if reuse_address is None:
            reuse_address = os.name == "posix" and sys.platform != "cygwin"
        self._reuse = reuse_address, bool(reuse_port)
        self._address = host, port, family, flags, sock

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets; empty once they are closed."""
        return tuple(self._sockets)

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._serving

    async def bind(self) -> None:
        """Make the sockets and bind them to their addresses.

        Raises:
            OSError: When an address cannot be bound.
        """
        host, port, family, flags, sock = self._address
        if sock is not None:
            self._add(sock)
        elif self._unix:
            self._bind_unix(self._path)
        else:
            await self._bind_hosts(host, port, family, flags)

    def adopt(self, socks: Iterable[socket.socket]) -> None:
        """Take sockets that others have bound, instead of ``bind()``."""
        for sock in socks:
            self._add(sock)

    def _add(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sockets.append(sock)

    def _bind_unix(self, path: Any) -> None:
        if path[:1] not in (0, "\x00", b"\x00"):
            try:
                # What a server that was killed left behind.
                if stat.S_ISSOCK(os.stat(path).st_mode):
                    os.remove(path)
            except FileNotFoundError:
                pass
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
        except OSError as exc:
            sock.close()
            raise OSError(
                exc.errno, f"cannot listen on {path!r}: {exc.strerror}"
            ) from None
        if path[:1] not in (0, "\x00", b"\x00"):
            self._inode = os.stat(path).st_ino
        self._add(sock)

    async def _bind_hosts(
        self,
        host: str | Sequence[str] | None,
        port: int | None,
        family: int,
        flags: int,
    ) -> None:
        if host is None or host == "":
            hosts: list[str | None] = [None]
        elif isinstance(host, str):
            hosts = [host]
        else:
            hosts = list(host)
        addresses: dict[Any, None] = {}
        for name in hosts:
            for info in await self._loop.getaddrinfo(
                name, port, family=family, type=socket.SOCK_STREAM, flags=flags
            ):
                addresses[info] = None
        try:
            for kind, type_, proto, _, address in addresses:
                self._bind(kind, type_, proto, address)
        except BaseException:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()
            raise
        if not self._sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address to listen on for {host!r}")

    def _bind(self, family: int, type_: int, proto: int, address: Any) -> None:
        try:
            sock = socket.socket(family, type_, proto)
        except OSError:
            return  # the family is known to the resolver, not to the kernel
        try:
            reuse_address, reuse_port = self._reuse
            if reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                if not hasattr(socket, "SO_REUSEPORT"):
                    raise ValueError("this system has no SO_REUSEPORT for reuse_port")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Each family has a socket of its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # "localhost" and port 0: one port for all addresses would be expected,
            # and cannot be promised; asyncio does the same.
            sock.bind(address)
        except OSError as exc:
            sock.close()
            if exc.errno == errno.EADDRNOTAVAIL:
                return  # such as ::1 where IPv6 is switched off
            raise OSError(
                exc.errno, f"cannot listen on {address[0]}:{address[1]}: {exc.strerror}"
            ) from None
        except BaseException:
            sock.close()
            raise
        self._add(sock)

    # -- accepting -------------------------------------------------------------------

    async def start(self, server: Server) -> None:
        """Begin to accept connections."""
        if self._serving or self._closed:
            return
        self._server = server
        self._serving = True
        if server.admission is not None:
            self._own = self._can_own  # who is refused gets no handshake of TLS
        try:
            for sock in self._sockets:
                if self._keep_alive:
                    # Sockets that it accepts inherit it.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if self._own:
                    sock.listen(self._backlog)
                    self._loop.add_reader(sock.fileno(), self._accept, sock)
                else:
                    self._inner.append(await self._create_server(server, sock))
        except BaseException:
            self.close()
            raise
        for sock in self._sockets:
            server.logger.info("server listening on %s", _address_text(sock))

    async def _create_server(self, server: Server, sock: socket.socket) -> Any:
        def factory() -> ServerConnection:
            connection = self._factory(server)
            connection.accepted_at = self._loop.time()
            return connection

        return await create_tls_server(
            self._loop, factory, sock, backlog=self._backlog, **self._ssl
        )

    def _accept(self, listening: socket.socket) -> int:
        """Accept what is there; the loop's reader callback.

        Returns:
            How many were accepted.
        """
        server = self._server
        assert server is not None
        accepted, exc = accept_connections(listening, MAX_ACCEPTS)
        for item in accepted:
            ticket: Ticket | None = None
            if server.admission is not None:
                ticket = server.admission.enter(accepted_address(item))
                if ticket is None:
                    turn_away(accepted_socket(item), server.admission.answer)
                    continue
            try:
                connection = self._factory(server)
                connection.ticket = ticket
                if self._ssl:
                    self._begin_tls(connection, item)
                    continue
                connection.attach_accepted(item)
            except Exception:
                server.logger.exception("cannot make a connection")
                close_accepted(item)
                if ticket is not None:
                    ticket.give_back()
                continue
            server.add_connection(connection)
        if exc is not None:
            server.logger.error("cannot accept: %s; waiting", exc.strerror)
            self._loop.remove_reader(listening.fileno())
            if self._retry is None:
                self._retry = self._loop.call_later(
                    ACCEPT_RETRY_DELAY, self._accept_again
                )
        return len(accepted)

    def _begin_tls(self, connection: ServerConnection, item: Accepted) -> None:
        connection.accepted_at = self._loop.time()
        socks = [accepted_socket(item)]
        opening = self._loop.create_task(self._open_tls(connection, socks))
        self._opening.add(opening)

        def done(task: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if socks:
                socks.pop().close()  # it was cancelled before it began
            if connection.ticket is not None and connection.io is None:
                connection.ticket.give_back()

        opening.add_done_callback(done)
        connection.server.add_task(opening)

    async def _open_tls(
        self, connection: ServerConnection, socks: list[socket.socket]
    ) -> None:
        try:
            await accept_tls(self._loop, lambda: connection, socks.pop(), **self._ssl)
        except OSError as exc:
            connection.server.logger.debug("TLS handshake failed: %s", exc)

    def _accept_again(self) -> None:
        self._retry = None
        if self._serving:
            for sock in self._sockets:
                self._loop.add_reader(sock.fileno(), self._accept, sock)

    def hand_over(self) -> None:
        """Accept no more, so that another process goes on with the address.

        What the kernel has queued is accepted before: if this was the only process
        with the socket, closing it would reset them.  The file of a unix socket stays,
        since it may be the other one's by now.
        """
        if self._own and self._serving:
            for sock in self._sockets:
                while self._accept(sock):
                    pass
        self._inode = None
        self.close()

    def close(self) -> None:
        """Accept no more; close the sockets."""
        self._closed = True
        self._serving = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for inner in self._inner:
            inner.close()
        for opening in self._opening:
            opening.cancel()
        for sock in self._sockets:
            if self._own and sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        self._remove_path()

    def _remove_path(self) -> None:
        """Remove the socket's file, unless another server has taken the path."""
        if self._inode is None or self._path is None:
            return
        try:
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except OSError:
            pass
        self._inode = None

    async def wait_closed(self) -> None:
        """Wait until the loop has closed what it opened."""
        inner, self._inner = self._inner, []
        for server in inner:
            await server.wait_closed()


def _address_text(sock: socket.socket) -> str:
    address = sock.getsockname()
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return str(address)
