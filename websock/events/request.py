"""A request for a connection, which the program accepts or rejects."""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import handshake
from ..datastructures import Headers, HeadersLike
from ..headers import parse_extension
from ..http11 import Request
from ..typing import ExtensionHeader, Origin, StatusLike, Subprotocol
from .connection import WebSocketConnection
from .cookies import CookiesLike, parse_cookies, set_cookie_values
from .errors import InvalidStateError

if TYPE_CHECKING:
    from .incoming import IncomingConnection

__all__ = ["WebSocketRequest"]


class WebSocketRequest:
    """A request to open a WebSocket, as the ``request`` event gives it.

    It is answered with ``accept()`` or ``reject()``, in the callback or later; after
    ``open_timeout`` seconds without an answer the client gets status 503.

    Attributes:
        http_request: The request as it came.
        headers: Its headers.
        resource: Path and query, not decoded.
        path: Path, decoded.
        query: Values in the query, by name.
        origin: Origin of the page that asks; ``None`` when it is no browser.
        requested_protocols: Subprotocols that the client offers, in its order.
        requested_extensions: Extensions that it offers, with their parameters.
        cookies: Cookies by name, as they were sent.
        ws: The connection that is to be opened.
    """

    def __init__(self, ws: IncomingConnection, request: Request) -> None:
        """Take a request apart.

        Raises:
            InvalidHandshake: When a header is invalid.
        """
        headers = request.headers
        self.ws = ws
        self.http_request = request
        self.headers: Headers = headers
        self.resource: str = request.path
        self.origin: Origin | None = handshake.get_origin(headers)
        self.requested_protocols: list[Subprotocol] = handshake.get_subprotocols(
            headers
        )
        self.requested_extensions: list[ExtensionHeader] = [
            item
            for value in headers.get_all("Sec-WebSocket-Extensions")
            for item in parse_extension(value)
        ]
        self.cookies: dict[str, str] = parse_cookies(headers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.resource!a} {self.remote_address}>"

    @property
    def path(self) -> str:
        """Path, decoded, without the query."""
        return urllib.parse.unquote(self.resource.partition("?")[0])

    @property
    def query(self) -> dict[str, list[str]]:
        """Values in the query, by name."""
        query = self.resource.partition("?")[2]
        return urllib.parse.parse_qs(query, keep_blank_values=True)

    @property
    def remote_address(self) -> Any:
        """Address of the peer, ``(host, port)`` for IPv4."""
        return self.ws.remote_address

    @property
    def is_pending(self) -> bool:
        """Whether it can still be answered; it was not, and the client waits."""
        return self.ws.is_unanswered

    def accept(
        self,
        protocol: str | None = None,
        origin: str | None = None,
        cookies: CookiesLike = (),
        *,
        headers: HeadersLike | None = None,
    ) -> WebSocketConnection:
        """Open the connection.

        Add callbacks to the connection before anything is awaited: messages that come
        without one are lost.

        Args:
            protocol: Subprotocol: one of those requested, or ``None``.
            origin: Origin that is accepted: if given, it must be that of the request.
            cookies: Cookies to set: names and values, or a list of
                :class:`~websock.events.Cookie` or of their attributes.
            headers: Headers to add to the response.

        Returns:
            The connection; it is open.

        Raises:
            InvalidStateError: When the request was answered already, or the client is
                gone, or the server is shutting down.
            ValueError: When an argument does not fit the request, or cannot be sent.
        """
        self._check_pending("accept")
        if protocol is not None and protocol not in self.requested_protocols:
            raise ValueError(
                f"subprotocol {protocol!a} was not requested, "
                f"expected one of: {', '.join(self.requested_protocols) or 'none'}"
            )
        if origin is not None and origin != self.origin:
            raise ValueError(
                f"origin to accept is {origin!a}, origin of the request {self.origin!a}"
            )
        added = Headers() if headers is None else Headers(headers)
        for value in set_cookie_values(cookies):
            added["Set-Cookie"] = value
        connection = WebSocketConnection(self.ws, self)
        self.ws.owner.adopt(connection)
        if not self.ws.accept(protocol, added):
            self.ws.owner.forget(connection)
            raise InvalidStateError("cannot accept the request: the connection is gone")
        connection.start()
        self.ws.owner.emit("connect", connection)
        return connection

    def reject(
        self,
        status: StatusLike = http.HTTPStatus.FORBIDDEN,
        reason: str | None = None,
        headers: HeadersLike | None = None,
    ) -> None:
        """Refuse the connection.

        Browsers do not tell pages why; the console and other clients do.

        Args:
            status: HTTP status, 300 to 599.
            reason: Why: plain text for the body.
            headers: Headers to add to the response.

        Raises:
            InvalidStateError: When the request was answered already, or the client is
                gone.
            ValueError: When the status or a header cannot be sent.
        """
        self._check_pending("reject")
        status = http.HTTPStatus(status)
        if not 300 <= status <= 599:
            raise ValueError(f"status is {status:d}, expected 300 to 599")
        added = Headers() if headers is None else Headers(headers)
        text = status.phrase if reason is None else reason
        response = self.ws.respond(status, f"{text}\n")
        for name in added:
            response.headers.pop(name, None)  # the program's own comes instead
        for name, value in added.raw_items():
            response.headers[name] = value
        self.ws.reject(response)

    def _check_pending(self, what: str) -> None:
        if self.is_pending:
            return
        if self.ws.response is not None:
            why = "it was answered already"
        else:
            why = "the client is gone"
        raise InvalidStateError(f"cannot {what} the request: {why}")


def first_common(
    offered: Sequence[str], accepted: Iterable[str] | None
) -> Subprotocol | None:
    """Return the first subprotocol that is offered, or is also accepted, if any."""
    for protocol in offered:
        if accepted is None or protocol in accepted:
            return Subprotocol(protocol)
    return None
