"""The client's end of the opening handshake, sans-IO, and how to retry it."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from . import handshake
from .closing import Phase, Trigger
from .constants import DEFAULT_MAX_SIZE, MAX_FRAGMENTS, VERSION
from .datastructures import Headers
from .exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    SecurityError,
)
from .headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
)
from .http11 import Request, Response, ResponseReader, show_header
from .protocol import CLIENT, CONNECTING, Protocol, State

if TYPE_CHECKING:  # pragma: no cover
    from .extensions.base import ClientExtensionFactory, Extension
    from .typing import BytesLike, LoggerLike, Origin, Subprotocol
    from .uri import WebSocketURI

__all__ = ["ClientProtocol", "backoff", "process_exception"]

# Delays between attempts to reconnect, in seconds.
BACKOFF_INITIAL_DELAY = 5.0
BACKOFF_MIN_DELAY = 3.1
BACKOFF_MAX_DELAY = 90.0
BACKOFF_FACTOR = 1.618

# What a server, or a proxy before it, answers when it may do better later.
_RETRYABLE_STATUSES = frozenset((500, 502, 503, 504))


class ClientProtocol(Protocol):
    """The client's end of a connection, without input and output.

    Args:
        uri: URI of the server, from :func:`websock.uri.parse_uri`.
        origin: Value of the ``Origin`` header, for servers that check it.
        extensions: Extensions to offer, in order of preference.
        subprotocols: Subprotocols to offer, in order of preference.
        state: State to begin in.
        max_size: Limit for incoming messages in bytes, ``None`` for no limit; or a
            pair: the limits for messages and for fragments.
        logger: Logger for this connection; by default ``websock.client``.
        max_fragments: Limit for the fragments of an incoming message, ``None`` for no
            limit.

    Attributes:
        uri: URI of the server.
        key: Value of the ``Sec-WebSocket-Key`` header.
        available_extensions: Extensions to offer.
        available_subprotocols: Subprotocols to offer.
    """

    __slots__ = ("available_extensions", "available_subprotocols", "key", "uri")

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        state: State = CONNECTING,
        max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
        logger: LoggerLike | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
    ) -> None:
        super().__init__(
            CLIENT,
            state=state,
            max_size=max_size,
            logger=logger,
            max_fragments=max_fragments,
        )
        self._awaits_head = state is CONNECTING
        self.uri = uri
        self.origin = origin
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self.key = handshake.generate_key()

    def connect(self) -> Request:
        """Make the handshake request, for ``send_request()``.

        It can be changed before it is sent, for example to add headers.
        """
        uri = self.uri
        headers = Headers()
        headers["Host"] = build_host(uri.host, uri.port, uri.secure)
        if uri.user_info:
            headers["Authorization"] = build_authorization_basic(*uri.user_info)
        if self.origin is not None:
            headers["Origin"] = self.origin
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Key"] = self.key
        headers["Sec-WebSocket-Version"] = VERSION
        if self.available_extensions:
            headers["Sec-WebSocket-Extensions"] = build_extension(
                [
                    (factory.name, list(factory.get_request_params()))
                    for factory in self.available_extensions
                ]
            )
        if self.available_subprotocols:
            headers["Sec-WebSocket-Protocol"] = build_subprotocol(
                self.available_subprotocols
            )
        return Request(uri.resource_name, headers)

    def send_request(self, request: Request) -> None:
        """Send the handshake request.

        Args:
            request: The request that ``connect()`` made.

        Raises:
            ValueError: If something in the request cannot be sent.
        """
        data = request.serialize()
        if self.debug:
            self.logger.debug("> %s %s HTTP/1.1", request.method, request.path)
            for name, value in request.headers.raw_items():
                self.logger.debug("> %s: %s", name, show_header(name, value))
        self.writes.append(data)

    def process_response(self, response: Response) -> None:
        """Check the response, and take over what it negotiates.

        Args:
            response: The server's response.

        Raises:
            InvalidHandshake: If the connection cannot be opened.
        """
        handshake.check_response(response, self.key)
        self.extensions = self.process_extensions(response.headers)
        self.subprotocol = self.process_subprotocol(response.headers)

    def process_extensions(self, headers: Headers) -> list[Extension]:
        """Check the extensions that the server accepted.

        Override it for rules about several extensions, such as their order.

        Args:
            headers: Headers of the response.

        Returns:
            The extensions for the connection.

        Raises:
            InvalidHandshake: If there is one that was not offered, or a parameter is
                not acceptable.
        """
        return handshake.accept_extensions(headers, self.available_extensions)

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Check the subprotocol that the server chose.

        Args:
            headers: Headers of the response.

        Returns:
            The subprotocol, if there is one.

        Raises:
            InvalidHandshake: If there are several, or one that was not offered.
        """
        return handshake.accept_subprotocol(headers, self.available_subprotocols)

    def _receive_head(self, data: BytesLike) -> bytes | None:
        reader = self._head
        if reader is None:
            reader = self._head = ResponseReader()
        try:
            response = reader.feed(data)
        except Exception as exc:
            self._refuse(exc)
            return b""
        if response is None:
            return None
        self._respond(response)
        return reader.leftover if self._phase is Phase.OPEN else b""

    def _end_head(self) -> None:
        reader = self._head
        try:
            response = None if reader is None else reader.feed_eof()
        except InvalidMessage:
            response = None
        if response is None:
            self._refuse(EOFError("connection closed before the end of the response"))
        else:
            self._respond(response)

    def _respond(self, response: Response) -> None:
        """Handle a complete response."""
        self._head = None
        self._awaits_head = False
        if self.debug:
            self.logger.debug(
                "< HTTP/1.1 %d %s",
                response.status_code,
                show_header("", response.reason_phrase),
            )
            for name, value in response.headers.raw_items():
                self.logger.debug("< %s: %s", name, show_header(name, value))
            if response.body:
                self.logger.debug("< [body] (%d bytes)", len(response.body))
        self.events.append(response)
        try:
            self.process_response(response)
        except InvalidHandshake as exc:
            self.handshake_exc = exc
            self._advance(Trigger.REFUSE)
        else:
            self._advance(Trigger.ACCEPT)

    def _refuse(self, exc: Exception) -> None:
        """Handle something that is not a response."""
        if not isinstance(exc, SecurityError):
            # Retrying looks at the cause: EOFError means that the network failed.
            failure = InvalidMessage("did not receive a valid HTTP response")
            failure.__cause__ = exc
            exc = failure
        self.handshake_exc = exc
        self._advance(Trigger.REFUSE)


def process_exception(exc: Exception) -> Exception | None:
    """Tell whether to try again after an exception while connecting.

    This is the default of the ``process_exception`` argument of ``connect()``. Errors
    of the network are worth another attempt, and so are the statuses 500, 502, 503 and
    504; everything else would fail again in the same way.

    Args:
        exc: The exception.

    Returns:
        ``None`` to try again, else the exception to raise.
    """
    if isinstance(exc, OSError):  # TimeoutError and asyncio.TimeoutError are too
        return None
    if isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError):
        return None
    if (
        isinstance(exc, InvalidStatus)
        and exc.response.status_code in _RETRYABLE_STATUSES
    ):
        return None
    return exc


def backoff(
    initial_delay: float = BACKOFF_INITIAL_DELAY,
    min_delay: float = BACKOFF_MIN_DELAY,
    max_delay: float = BACKOFF_MAX_DELAY,
    factor: float = BACKOFF_FACTOR,
) -> Generator[float, None, None]:
    """Generate delays between attempts to reconnect (RFC 6455, 7.2.3).

    The first is random, so that the clients of a server that restarts do not all come
    back at once; the others grow.

    Args:
        initial_delay: Upper limit of the first delay, in seconds.
        min_delay: The second delay, in seconds.
        max_delay: Upper limit of all others, in seconds.
        factor: Ratio of each delay to the one before.
    """
    yield random.random() * initial_delay
    delay = min_delay
    while delay < max_delay:
        yield delay
        delay *= factor
    while True:
        yield max_delay
