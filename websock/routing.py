"""Choice of a handler by the path of a request, with the rules of werkzeug.

What the routers of :mod:`websock.asyncio` and :mod:`websock.sync` share.
"""

from __future__ import annotations

import http
import urllib.parse
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from . import handshake
from .exceptions import InvalidHandshake, InvalidHeaderValue
from .http11 import Request, Response

if TYPE_CHECKING:
    import ssl as ssl_module
    from typing import Literal

    from werkzeug.routing import Map

__all__ = ["Router", "take_scheme"]


def take_scheme(
    function: str,
    ssl: ssl_module.SSLContext | Literal[True] | None,
    options: dict[str, Any],
) -> str:
    """Return the scheme of a server's URIs; put its ``ssl`` into its options.

    Args:
        function: Name of the caller, for the error.
        ssl: Context; ``True`` for plain TCP behind something that speaks TLS.
        options: Where ``ssl`` goes, if it is a context.

    Raises:
        ImportError: When werkzeug is not installed.
    """
    if find_spec("werkzeug") is None:
        raise ImportError(
            f"{function}() needs werkzeug: pip install 'websock-fast[router]'"
        )
    if ssl is None:
        return "ws"
    if ssl is not True:
        options["ssl"] = ssl
    return "wss"


class Router:
    """Finds the handlers of connections.

    Args:
        url_map: Rules whose endpoints are handlers.
        server_name: Name of the server as clients see it, for redirects; ``None`` for
            what the ``Host`` header says.
        url_scheme: Scheme of the server's URIs, ``ws`` or ``wss``, for redirects.
    """

    def __init__(
        self, url_map: Map, server_name: str | None = None, url_scheme: str = "ws"
    ) -> None:
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: Any, request: Request) -> str:
        """Return the name of the server as the client sees it.

        Raises:
            InvalidHeader: When the client does not say, or makes no sense.
        """
        if self.server_name is not None:
            return self.server_name
        return handshake.get_host(request.headers)

    def redirect(self, connection: Any, url: str) -> Response:
        """Make the response to a request that belongs elsewhere."""
        response: Response = connection.respond(
            http.HTTPStatus.FOUND, f"Found at {url}"
        )
        response.headers["Location"] = url
        return response

    def not_found(self, connection: Any) -> Response:
        """Make the response to a request that no rule is for."""
        response: Response = connection.respond(http.HTTPStatus.NOT_FOUND, "Not Found")
        return response

    def bad_host(self, connection: Any, exc: InvalidHandshake) -> Response:
        """Make the response to a request whose ``Host`` header is no good."""
        status, text, _ = handshake.rejection(exc)
        connection.protocol.handshake_exc = exc
        response: Response = connection.respond(status, text)
        return response

    def route_request(self, connection: Any, request: Request) -> Response | None:
        """Find the handler for a request, or a response to send instead.

        The handler and its arguments become ``handler`` and ``handler_kwargs`` of the
        connection.  Parts of the path are percent-decoded, as they are in WSGI.

        Args:
            connection: The connection, in its opening handshake.
            request: The request.
        """
        from werkzeug.exceptions import BadHost, HTTPException
        from werkzeug.routing import RequestRedirect

        path, _, query = request.path.partition("?")
        try:
            name = self.get_server_name(connection, request)
            adapter = self.url_map.bind(name, url_scheme=self.url_scheme)
        except InvalidHandshake as exc:
            return self.bad_host(connection, exc)
        except BadHost:
            return self.bad_host(connection, InvalidHeaderValue("Host", name))
        try:
            handler, arguments = adapter.match(
                urllib.parse.unquote(path), query_args=query
            )
        except RequestRedirect as redirect:
            return self.redirect(connection, redirect.new_url)
        except (HTTPException, ValueError):
            # The latter of converters: int() takes only so many digits.
            return self.not_found(connection)
        connection.handler, connection.handler_kwargs = handler, arguments
        return None
