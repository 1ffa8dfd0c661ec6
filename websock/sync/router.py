"""Servers that choose a handler by the path of the request, with werkzeug's rules."""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ..http11 import Request, Response
from ..typing import PathLike
from .server import Server, ServerConnection, serve

if TYPE_CHECKING:
    import ssl as ssl_module

    from werkzeug.routing import Map

__all__ = ["Router", "route", "unix_route"]


def route(
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    **kwargs: Any,
) -> Server:
    """Make a WebSocket server that has several handlers.

    ::

        url_map = Map([Rule("/channel/<uuid:channel_id>", endpoint=channel)])

        with route(url_map, "localhost", 8765) as server:
            server.serve_forever()

    A handler is called with the connection and what the rule finds in the path, as
    keyword arguments.  It needs ``werkzeug``.

    Args:
        url_map: Rules whose endpoints are handlers.
        *args: As for :func:`~websock.sync.server.serve`, after ``handler``.
        server_name: Name of the server as clients see it, for redirects; by default
            what the ``Host`` header says.
        ssl: As for ``serve()``; ``True`` when a proxy speaks TLS in its place.
        create_router: Class of the router.
        **kwargs: As for ``serve()``.

    Raises:
        ImportError: When werkzeug is not installed.
    """
    try:
        import werkzeug.routing  # noqa: F401
    except ImportError as exc:
        raise ImportError(
            "route() needs werkzeug: install it with pip install 'websock-fast[router]'"
        ) from exc

    scheme = "ws" if ssl is None else "wss"
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    router = (create_router or Router)(url_map, server_name, scheme)
    hook = kwargs.pop("process_request", None)

    def process_request(
        connection: ServerConnection, request: Request
    ) -> Response | None:
        response: Response | None = None if hook is None else hook(connection, request)
        if response is None:
            response = router.route_request(connection, request)
        return response

    return serve(router.handler, *args, process_request=process_request, **kwargs)


def unix_route(url_map: Map, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Make a WebSocket server on a Unix socket that has several handlers.

    Args:
        url_map: As for :func:`route`.
        path: Path of the socket.
        **kwargs: As for :func:`route`.

    Raises:
        ImportError: When werkzeug is not installed.
    """
    return route(url_map, unix=True, path=path, **kwargs)


class Router:
    """Finds the handler of a connection.

    Args:
        url_map: Rules whose endpoints are handlers.
        server_name: Name of the server as clients see it.
        url_scheme: Scheme of its URIs, ``ws`` or ``wss``.
    """

    def __init__(
        self, url_map: Map, server_name: str | None = None, url_scheme: str = "ws"
    ) -> None:
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        """Return the name of the server as the client sees it."""
        if self.server_name is not None:
            return self.server_name
        return request.headers.get("Host", "localhost")

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        """Make the response to a request that belongs elsewhere."""
        response = connection.respond(http.HTTPStatus.FOUND, f"Found at {url}\n")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        """Make the response to a request that no rule is for."""
        return connection.respond(http.HTTPStatus.NOT_FOUND, "Not Found\n")

    def route_request(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        """Find the handler for a request, or the response to send instead."""
        from werkzeug.exceptions import NotFound
        from werkzeug.routing import RequestRedirect

        path, _, query = request.path.partition("?")
        adapter = self.url_map.bind(
            server_name=self.get_server_name(connection, request),
            url_scheme=self.url_scheme,
        )
        try:
            handler, arguments = adapter.match(
                path_info=urllib.parse.unquote(path), query_args=query
            )
        except RequestRedirect as redirect:
            return self.redirect(connection, redirect.new_url)
        except NotFound:
            return self.not_found(connection)
        connection.handler, connection.handler_kwargs = handler, arguments
        return None

    def handler(self, connection: ServerConnection) -> None:
        """Call the handler of a connection."""
        connection.handler(connection, **connection.handler_kwargs)
