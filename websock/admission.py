"""How many connections a server has at once: in all, and from one address.

A connection is counted from the moment it is accepted, so that handshakes which never
end count too; it holds a :class:`Ticket` until it is lost.  Who finds no room is
answered at once, without a connection being made, and closed: whoever is refused must
cost next to nothing.  With TLS there is no answer, for that would take a handshake.

Addresses of IPv6 are counted by their first 64 bits: whoever has one of them has all.
"""

from __future__ import annotations

import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .typing import LoggerLike

__all__ = ["Admission", "Ticket", "make_admission", "turn_away"]

RETRY_AFTER = "10"
"""Seconds after which a client that was refused may try again."""

REFUSAL = "Too many connections.\n"

# Seconds between two lines of the log about refused connections.
LOG_INTERVAL = 10.0

_ANSWER = (
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Connection: close\r\n"
    f"Retry-After: {RETRY_AFTER}\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(REFUSAL)}\r\n"
    f"\r\n{REFUSAL}"
).encode()


class Ticket:
    """What a connection that was let in holds."""

    __slots__ = ("_admission", "_key")

    def __init__(self, admission: Admission, key: Any) -> None:
        self._admission: Admission | None = admission
        self._key = key

    def give_back(self) -> None:
        """Make room for another connection; any number of times."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave(self._key)


class Admission:
    """Counts the connections of a server.

    Args:
        max_connections: Connections at once; ``None`` for no limit.
        max_per_address: Connections at once from one address; ``None`` for no limit.
        logger: Logger of the server.
        is_plain: Whether HTTP is spoken from the beginning, so that there can be an
            answer.

    Attributes:
        refused: Connections that found no room.
    """

    def __init__(
        self,
        max_connections: int | None,
        max_per_address: int | None,
        logger: LoggerLike,
        is_plain: bool,
    ) -> None:
        self.answer = _ANSWER if is_plain else b""
        self.refused = 0
        self._max = max_connections
        self._max_per_address = max_per_address
        self._logger = logger
        self._lock = threading.Lock()
        self._count = 0
        self._counts: dict[Any, int] = {}
        self._told = 0  # refused connections that the log tells of
        self._told_at = -LOG_INTERVAL

    def enter(self, address: Any) -> Ticket | None:
        """Let a connection in; ``None`` when there is no room.

        Args:
            address: Address of the peer, as the socket gives it.
        """
        key = None if self._max_per_address is None else key_of(address)
        with self._lock:
            if self._max is not None and self._count >= self._max:
                limit = f"max_connections={self._max}"
            elif (
                self._max_per_address is not None
                and key is not None
                and self._counts.get(key, 0) >= self._max_per_address
            ):
                limit = f"max_connections_per_address={self._max_per_address}"
            else:
                self._count += 1
                if key is not None:
                    self._counts[key] = self._counts.get(key, 0) + 1
                return Ticket(self, key)
            self.refused += 1
            if monotonic() < self._told_at + LOG_INTERVAL:
                return None
            self._told_at = monotonic()
            count, self._told = self.refused - self._told, self.refused
        # One line for many: whoever is refused often must not fill the log.
        self._logger.warning("refused %d connections: limit %s", count, limit)
        return None

    def leave(self, key: Any) -> None:
        """Count a connection no more."""
        with self._lock:
            self._count -= 1
            if key is None:
                return
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]


def key_of(address: Any) -> str | bytes | None:
    """Return what connections from one address have in common.

    ``None`` for peers that have no address, as on Unix sockets.
    """
    if not isinstance(address, tuple) or not address:
        return None
    host = str(address[0])
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return host
    if packed.startswith(bytes(10) + b"\xff\xff"):  # IPv4 on a socket for both
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return packed[:8]


def make_admission(
    max_connections: int | None,
    max_per_address: int | None,
    logger: LoggerLike,
    is_plain: bool,
) -> Admission | None:
    """Make what counts the connections of a server, if anything is to be counted."""
    if max_connections is None and max_per_address is None:
        return None
    return Admission(max_connections, max_per_address, logger, is_plain)


def turn_away(sock: socket.socket, answer: bytes) -> None:
    """Answer a peer that was accepted and not let in, if there is an answer; close."""
    try:
        sock.setblocking(False)
        if answer:
            sock.send(answer)
            # What is unread when a socket is closed would destroy the answer.
            sock.recv(65536)
    except OSError:
        pass  # nothing is there, or nobody
    finally:
        sock.close()
