"""The server's end of the opening handshake, sans-IO."""

from __future__ import annotations

import http
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import handshake
from .closing import Phase, Trigger
from .constants import DEFAULT_MAX_SIZE, MAX_FRAGMENTS
from .datastructures import Headers
from .exceptions import InvalidHandshake, InvalidMessage, InvalidState, UnsafeHeader
from .http11 import HeadReader, Request, Response, parse_request, show_header
from .protocol import CONNECTING, SERVER, Protocol, State

if TYPE_CHECKING:  # pragma: no cover
    import re

    from .extensions.base import Extension, ServerExtensionFactory
    from .typing import BytesLike, LoggerLike, Origin, StatusLike, Subprotocol

__all__ = ["ServerProtocol"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)

# The second in which a Date header was last made, and the header.
_date: tuple[int, str] = (-1, "")


def http_date() -> str:
    """Return the time as HTTP writes it (RFC 9110, 5.6.7)."""
    global _date
    now = datetime.now(UTC)
    # A busy server asks thousands of times a second. A tuple is replaced as a whole,
    # so threads need no lock.
    second = int(now.timestamp())
    known, text = _date
    if known != second:
        text = (
            f"{_DAYS[now.weekday()]}, {now.day:02d} {_MONTHS[now.month - 1]}"
            f" {now.year:04d} {now:%H:%M:%S} GMT"
        )
        _date = (second, text)
    return text


class ServerProtocol(Protocol):
    """The server's end of a connection, without input and output.

    Args:
        origins: Values of the ``Origin`` header to allow: text to be equal to,
            expressions to match in full, ``None`` for a request without one. By
            default every origin is allowed: set this when browsers connect and
            cookies tell who they are.
        extensions: Extensions to accept, in order of preference.
        subprotocols: Subprotocols to accept, in order of preference.
        select_subprotocol: Called with this protocol and the subprotocols that the
            client offers, in place of the ``select_subprotocol()`` method.
        state: State to begin in.
        max_size: Limit for incoming messages in bytes, ``None`` for no limit; or a
            pair: the limits for messages and for fragments.
        logger: Logger for this connection; by default ``websock.server``.
        max_fragments: Limit for the fragments of an incoming message, ``None`` for no
            limit.

    Attributes:
        origins: Origins to allow.
        available_extensions: Extensions to accept.
        available_subprotocols: Subprotocols to accept.
        accept_called: Whether ``accept()`` was called.
        hosts: Values of the ``Host`` header to allow, see
            :func:`websock.handshake.check_host`; ``None`` for all. Set it before
            ``accept()`` is called.
        may_log: Called before a line about a refusal is logged; tells whether to.
    """

    __slots__ = (
        "_select_subprotocol",
        "accept_called",
        "available_extensions",
        "available_subprotocols",
        "hosts",
        "may_log",
        "origins",
    )

    def __init__(
        self,
        *,
        origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        select_subprotocol: (
            Callable[[ServerProtocol, Sequence[Subprotocol]], Subprotocol | None] | None
        ) = None,
        state: State = CONNECTING,
        max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
        logger: LoggerLike | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
    ) -> None:
        super().__init__(
            SERVER,
            state=state,
            max_size=max_size,
            logger=logger,
            max_fragments=max_fragments,
        )
        self._awaits_head = state is CONNECTING
        self.origins = origins
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self._select_subprotocol = select_subprotocol
        self.accept_called = False
        self.hosts: Sequence[re.Pattern[str] | str] | None = None
        self.may_log: Callable[[], bool] | None = None

    def accept(self, request: Request) -> Response:
        """Make the response to a handshake request, for ``send_response()``.

        It can be changed before it is sent, for example to add headers.

        Args:
            request: The client's request.

        Returns:
            A response with status 101 when the request is acceptable; else one that
            says why not, and ``handshake_exc`` is set.
        """
        self.accept_called = True
        try:
            accept, extensions, subprotocol = self.process_request(request)
            # As one block, which is all that is kept while the connection lives.
            headers = Headers.from_block(
                f"Date: {http_date()}\r\n"
                "Upgrade: websocket\r\n"
                "Connection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n".encode()
            )
            if extensions is not None:
                headers["Sec-WebSocket-Extensions"] = extensions
            if subprotocol is not None:
                headers["Sec-WebSocket-Protocol"] = subprotocol
        except Exception as exc:
            self.handshake_exc = exc
            if isinstance(exc, UnsafeHeader) or not isinstance(exc, InvalidHandshake):
                # Not the peer's doing: select_subprotocol() or an extension.
                if self.may_log is None or self.may_log():
                    self.logger.error("opening handshake failed", exc_info=True)
            elif self.debug:
                self.logger.debug("! %s", exc)
            return self._make_rejection(exc)
        return Response(101, "Switching Protocols", headers)

    def process_request(self, request: Request) -> tuple[str, str | None, str | None]:
        """Check a request, and negotiate extensions and subprotocol.

        Args:
            request: The client's request.

        Returns:
            Values for the headers ``Sec-WebSocket-Accept``,
            ``Sec-WebSocket-Extensions`` and ``Sec-WebSocket-Protocol``.

        Raises:
            InvalidHandshake: If the request is not acceptable.
        """
        key = handshake.check_request(request)
        if self.hosts is not None:
            handshake.check_host(request, self.hosts)
        headers = request.headers
        self.origin = self.process_origin(headers)
        extensions, self.extensions = self.process_extensions(headers)
        self.subprotocol = self.process_subprotocol(headers)
        return handshake.accept_key(key), extensions, self.subprotocol

    def process_origin(self, headers: Headers) -> Origin | None:
        """Check the origin of a request.

        Args:
            headers: Headers of the request.

        Returns:
            The origin, if there is one.

        Raises:
            InvalidOrigin: If it is not allowed.
            InvalidHeader: If there are several.
        """
        origin = handshake.get_origin(headers)
        if self.origins is not None:
            handshake.check_origin(origin, self.origins)
        return origin

    def process_extensions(
        self, headers: Headers
    ) -> tuple[str | None, list[Extension]]:
        """Choose among the extensions that the client offers.

        Override it for rules about several extensions, such as their order.

        Args:
            headers: Headers of the request.

        Returns:
            A value for the header ``Sec-WebSocket-Extensions``, and the extensions.

        Raises:
            InvalidHandshake: If the header is invalid.
        """
        return handshake.negotiate_extensions(headers, self.available_extensions)

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Choose among the subprotocols that the client offers.

        Args:
            headers: Headers of the request.

        Returns:
            The subprotocol, if any.

        Raises:
            InvalidHandshake: If the header is invalid, or nothing in it will do.
        """
        return self.select_subprotocol(handshake.get_subprotocols(headers))

    def select_subprotocol(
        self, subprotocols: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        """Choose a subprotocol: the first of ours that the client offers.

        Without subprotocols on the server, none is chosen whatever the client offers.
        With some, a client that offers none of them is refused; give a
        ``select_subprotocol`` argument for another rule.

        Args:
            subprotocols: What the client offers.

        Returns:
            The subprotocol; ``None`` to go on without.

        Raises:
            NegotiationError: To refuse the connection.
        """
        if self._select_subprotocol is not None:
            return self._select_subprotocol(self, subprotocols)
        if not self.available_subprotocols:
            return None
        return handshake.select_subprotocol(subprotocols, self.available_subprotocols)

    def reject(self, status: StatusLike, text: str) -> Response:
        """Make a response that refuses a connection, for ``send_response()``.

        It can be changed before it is sent, for example to add headers.

        Args:
            status: HTTP status.
            text: Plain text for the body.
        """
        status = http.HTTPStatus(status)
        body = text.encode()
        headers = Headers.from_items(
            [
                ("Date", http_date()),
                ("Connection", "close"),
                ("Content-Length", str(len(body))),
                ("Content-Type", "text/plain; charset=utf-8"),
            ]
        )
        return Response(status.value, status.phrase, headers, body)

    def send_response(self, response: Response) -> None:
        """Send the response to a handshake request.

        With status 101 the connection is open; frames that came too early are parsed
        now, so look at ``events_received()``. With any other status it is refused,
        and nothing more is read.

        Args:
            response: The response that ``accept()`` or ``reject()`` made.

        Raises:
            InvalidState: If it is too late: a response was sent, or the connection
                failed or was closed.
            ValueError: If something in the response cannot be sent.
        """
        if self._phase is not Phase.CONNECTING:
            raise InvalidState(
                f"cannot send a response: connection is {self._state.name.lower()}"
                + (", it was refused" if self._phase is Phase.REFUSED else "")
            )
        status = response.status_code
        head = response.serialize()
        self.writes.append(head)
        if self.debug:
            self.logger.debug("> HTTP/1.1 %d %s", status, response.reason_phrase)
            for name, value in response.headers.raw_items():
                self.logger.debug("> %s: %s", name, show_header(name, value))
            if response.body:
                self.logger.debug("> [body] (%d bytes)", len(response.body))
        if status == 101:
            self.response_head = head
            self._awaits_head = False
            self._advance(Trigger.ACCEPT)
            self.logger.info("connection open")
            self._release()
            return
        if self.accept_called or self.handshake_exc is not None:
            message = "connection rejected (%d %s)"
        else:
            message = "HTTP response sent (%d %s)"
        # Peers can have it logged as often as they like.
        if status < 400 or self.may_log is None or self.may_log():
            self.logger.info(message, status, response.reason_phrase)
        self._advance(Trigger.REFUSE)

    def _receive_head(self, data: BytesLike) -> bytes | None:
        reader = self._head
        if reader is None:
            reader = self._head = HeadReader()
        try:
            head = reader.feed(data)
            if head is None:
                return None
            request = parse_request(head)
        except InvalidHandshake as exc:
            self.handshake_exc = exc
            if self.debug:
                self.logger.debug("! %s", exc)
            self.send_response(self._make_rejection(exc))
            return b""
        self._head = None
        self._awaits_head = False
        self.request_head = head
        if self.debug:
            self.logger.debug(
                "< %s %s %s", request.method, request.path, request.protocol
            )
            for name, value in request.headers.raw_items():
                self.logger.debug("< %s: %s", name, show_header(name, value))
        self.events.append(request)
        return bytes(reader.leftover)

    def _end_head(self) -> None:
        failure = InvalidMessage("did not receive a valid HTTP request")
        failure.__cause__ = EOFError("connection closed before the end of the request")
        self.handshake_exc = failure

    def _make_rejection(self, exc: Exception) -> Response:
        status, text, extra = handshake.rejection(exc)
        response = self.reject(status, text)
        for name, value in extra:
            response.headers.set_insecure(name, value)
        return response
