"""What can be asked of a connection at any time; nothing here waits or changes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..http11 import Request, Response
from ..protocol import Protocol, State
from ..typing import LoggerLike, Subprotocol
from .streams import make_stream

if TYPE_CHECKING:
    import uuid

__all__ = ["ConnectionInfo"]


class ConnectionLogger(logging.LoggerAdapter[Any]):
    """Adds the connection to log records, as ``websocket``."""


class ConnectionInfo:
    """What a connection is.

    Args:
        sock: Socket that is connected to the peer, or a stream over it.
        protocol: Sans-IO protocol of the connection.
    """

    def __init__(self, sock: Any, protocol: Protocol) -> None:
        self.socket: Any = sock
        """Socket of the connection; with TLS, an object that looks like one."""
        self.protocol = protocol
        self.latency: float = 0.0
        """Round-trip time that the last answered ping measured, in seconds."""
        self.request: Request | None = None
        """Request of the opening handshake."""
        self.response: Response | None = None
        """Response of the opening handshake."""

        self.opened = False  # the opening handshake succeeded
        self.is_open = False  # messages can be sent
        self.is_lost = False  # the socket is closed

        self._stream = make_stream(sock)
        self._logger: ConnectionLogger | None = None
        self._addresses: list[Any] = [None, None]
        if protocol.logger.isEnabledFor(logging.INFO):
            # What the protocol logs says which connection it is about.
            protocol.logger = self.logger

    def __repr__(self) -> str:
        state = self.state.name.lower()
        return f"<{type(self).__name__} {state} {self.remote_address}>"

    # -- what a connection is ------------------------------------------------------

    @property
    def id(self) -> uuid.UUID:
        """Identifier of the connection, for logs."""
        return self.protocol.id

    @property
    def logger(self) -> LoggerLike:
        """Logger of this connection; its records have a ``websocket`` attribute."""
        if self._logger is None:
            self._logger = ConnectionLogger(self.protocol.logger, {"websocket": self})
        return self._logger

    @property
    def debug(self) -> bool:
        """Whether the logger takes debug messages."""
        return self.protocol.debug

    @property
    def local_address(self) -> Any:
        """Address of this end, ``(host, port)`` for IPv4; see ``getsockname()``."""
        return self._address(0)

    @property
    def remote_address(self) -> Any:
        """Address of the peer, ``(host, port)`` for IPv4; see ``getpeername()``."""
        return self._address(1)

    def _address(self, which: int) -> Any:
        addresses = self._addresses
        if addresses[which] is None and not self.is_lost:
            sock = self._stream.sock
            try:
                addresses[which] = (sock.getpeername if which else sock.getsockname)()
            except OSError:
                return None
        return addresses[which]

    @property
    def state(self) -> State:
        """State of the connection."""
        return self.protocol.state

    @property
    def subprotocol(self) -> Subprotocol | None:
        """Subprotocol that was negotiated, if any."""
        return self.protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """Close code from the peer; ``None`` while the connection is not closed."""
        return self.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        """Close reason from the peer; ``None`` while the connection is not closed."""
        return self.protocol.close_reason

    def fileno(self) -> int:
        """Return the file descriptor of the socket; -1 when it is closed."""
        return self._stream.sock.fileno()
