"""A server's connections: from the request on, a handshake that hooks take part in."""

from __future__ import annotations

import http
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..asyncio.base import Marks
from ..constants import MAX_CONTROL_RATE
from ..exceptions import InvalidHandshake, InvalidState
from ..http11 import SERVER, Request, Response
from ..protocol import CONNECTING, OPEN
from ..server import ServerProtocol
from ..typing import StatusLike
from .connection import Connection
from .deadlines import Deadline
from .streams import recv_within, send_within

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ServerConnection"]

FAILED = (
    "Failed to open a WebSocket connection.\nSee server log for more information.\n"
)
SHUTTING_DOWN = "Server is shutting down.\n"

# Seconds that a peer has for reading the answer to a handshake that took too long.
ANSWER_TIMEOUT = 1

ProcessRequest = Callable[["ServerConnection", Request], Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Response | None]


class ServerConnection(Connection):
    """A WebSocket connection, on the server's side.

    Args:
        sock: Socket that is connected to the client.
        protocol: Sans-IO connection.
        server: Server that the connection belongs to.

    The other arguments are those of :func:`~websock.sync.server.serve`.
    """

    protocol: ServerProtocol
    username: str
    handler: Callable[..., None]
    handler_kwargs: Mapping[str, Any]

    def __init__(
        self,
        sock: Any,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: Marks = 16,
        max_control_rate: int | None = MAX_CONTROL_RATE,
    ) -> None:
        super().__init__(
            sock,
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            max_control_rate=max_control_rate,
        )
        self.server = server
        self._opening = threading.Lock()  # against being interrupted while closed
        self._interrupted = False

    def respond(self, status: StatusLike, text: str) -> Response:
        """Make a plain text HTTP response, to return from ``process_request``.

        Args:
            status: HTTP status.
            text: Body; it is sent in UTF-8.
        """
        return self.protocol.reject(status, text)

    # -- opening -------------------------------------------------------------------

    def handshake(
        self,
        process_request: ProcessRequest | None = None,
        process_response: ProcessResponse | None = None,
        server_header: str | None = SERVER,
        timeout: float | None = None,
    ) -> None:
        """Do the opening handshake; afterwards the connection is open or closed.

        Args:
            process_request: As for :func:`~websock.sync.server.serve`.
            process_response: See there.
            server_header: See there.
            timeout: Seconds for it; ``None`` for no limit.

        Raises:
            OSError: When the connection fails.
        """
        deadline = Deadline(timeout)
        try:
            rest = self._receive_request(deadline)
        except TimeoutError:
            self._refuse(
                http.HTTPStatus.REQUEST_TIMEOUT, "Opening handshake took too long.\n"
            )
            return
        if self.request is None:
            if self.protocol.state is CONNECTING and self._interrupted:
                self._refuse(http.HTTPStatus.SERVICE_UNAVAILABLE, SHUTTING_DOWN)
            else:
                # The request was bad, and the answer is ready; or it is too late.
                self._refused()
            return
        request = self.request
        response = self._call_hook("process_request", process_request, request)
        if response is None:
            response = self.protocol.accept(request)
        if server_header is not None:
            response.headers["Server"] = server_header
        changed = self._call_hook(
            "process_response", process_response, request, response
        )
        if changed is not None:
            response = changed
        if deadline.left() == 0:
            self._refuse(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                "Opening handshake took too long.\n",
            )
        else:
            self._respond(response, rest, deadline)

    def _receive_request(self, deadline: Deadline) -> bytes:
        """Receive the request, if a good one comes; return what follows it."""
        rest = None
        while rest is None:
            data = recv_within(self._stream, 65536, deadline)
            if not data:
                if not self._interrupted:
                    self.protocol.receive_eof()
                return b""
            rest = self.protocol.feed_handshake(data)
        for event in self.protocol.events_received():
            assert isinstance(event, Request)
            self.request = event
        return rest

    def _call_hook(
        self, name: str, hook: Callable[..., Any] | None, *args: Any
    ) -> Response | None:
        if hook is None:
            return None
        try:
            result = hook(self, *args)
            if not (result is None or isinstance(result, Response)):
                raise TypeError(
                    f"{name} must return a Response or None, "
                    f"not {type(result).__name__}"
                )
        except Exception as exc:
            return self._hook_failed(f"{name} failed", exc)
        return result

    def _hook_failed(self, text: str, exc: Exception) -> Response:
        self.protocol.handshake_exc = exc
        # A mistake of the program's, but it is peers who have it made.
        if self.server.log_limit.allows():
            self.logger.error(text, exc_info=exc)
        return self.protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, FAILED)

    def _refuse(self, status: StatusLike, text: str) -> None:
        """Answer with an HTTP error."""
        if self.protocol.handshake_exc is None:
            self.protocol.handshake_exc = InvalidHandshake(text.strip(".\n").lower())
        self._respond(self.protocol.reject(status, text), b"", Deadline(ANSWER_TIMEOUT))

    def _respond(self, response: Response, rest: bytes, deadline: Deadline) -> None:
        """Send the response, and be open or refused."""
        protocol = self.protocol
        if protocol.state is not CONNECTING:
            return
        if response.status_code == 101 and self.server.is_shutting_down():
            response = protocol.reject(
                http.HTTPStatus.SERVICE_UNAVAILABLE, SHUTTING_DOWN
            )
        if self.request is not None and self.request.method == "HEAD":
            response.body = b""
        try:
            protocol.send_response(response)
        except InvalidState:
            return  # refused already
        except Exception as exc:
            response = self._hook_failed("cannot send the response", exc)
            protocol.send_response(response)
        self.response = response
        if protocol.state is OPEN:
            self._send_response(deadline)
            self.handshake_done(rest)
        else:
            self._refused()

    def _send_response(self, deadline: Deadline) -> None:
        for data in self.protocol.data_to_send():
            if data:
                send_within(self._stream, data, deadline)
            else:
                self._send_encoded_now(self._stream.encode_eof())
                self._stream.end()

    def _refused(self) -> None:
        """Send the answer, and give the peer time to read it."""
        self._send_response(Deadline(ANSWER_TIMEOUT))
        if self.protocol.close_expected():
            # Closing a socket with unread input would destroy the answer on its way.
            deadline = Deadline(self.close_timeout)
            try:
                while recv_within(self._stream, 65536, deadline):
                    deadline.check()  # it may never stop sending
            except OSError:
                pass

    def interrupt(self) -> None:
        """Have a handshake that waits for the request end; the server shuts down."""
        with self._opening:
            if not self.is_lost and self.request is None:
                self._interrupted = True
                try:
                    self._stream.sock.shutdown(socket.SHUT_RD)
                except OSError:
                    pass  # it is broken

    def close_socket(self) -> None:
        """Close the socket, whatever the state; after a failed handshake."""
        with self._opening, self._reading:
            self._lose(None)
