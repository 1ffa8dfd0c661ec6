"""Servers that choose a handler by the path of the request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .. import routing
from ..http11 import Request, Response
from ..typing import PathLike
from .server import Server, ServerConnection, serve

if TYPE_CHECKING:
    import ssl as ssl_module

    from werkzeug.routing import Map

__all__ = ["Router", "route", "unix_route"]


class Router(routing.Router):
    """Finds the handlers of connections, and calls them."""

    def handler(self, connection: ServerConnection) -> None:
        """Call the handler of a connection."""
        connection.handler(connection, **connection.handler_kwargs)


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

    A handler is called with the connection and, as keyword arguments, with what its
    rule finds in the path.  Where no rule fits, the answer is 404 Not Found.

    Args:
        url_map: Rules whose endpoints are handlers, a ``werkzeug.routing.Map``.
        *args: As for :func:`~websock.sync.server.serve`, after ``handler``.
        server_name: Name of the server as clients see it, for redirects; by default
            what the ``Host`` header says.
        ssl: As for ``serve()``; or ``True`` when a proxy speaks TLS in its place.
        create_router: Class of the router.
        **kwargs: As for ``serve()``.

    Raises:
        ImportError: When werkzeug is not installed.
    """
    scheme = routing.take_scheme("route", ssl, kwargs)
    router = (create_router or Router)(url_map, server_name, scheme)
    first = kwargs.pop("process_request", None)

    def process_request(
        connection: ServerConnection, request: Request
    ) -> Response | None:
        response: Response | None = None
        if first is not None:
            response = first(connection, request)
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
