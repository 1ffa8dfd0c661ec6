"""Taking connections over from ``aiohttp.web``; imported only when that is used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .errors import InvalidStateError
from .hosting import Detach, is_upgrade, until_lost

if TYPE_CHECKING:
    from .server import WebSocketServer

__all__ = ["attach"]

Handler = Callable[[Any], Awaitable[web.StreamResponse]]


def attach(server: WebSocketServer, http_server: Any) -> Detach:
    """Have an HTTP server hand over requests for WebSockets.

    Args:
        server: Server that takes them.
        http_server: An application, a runner, a site, or a low-level server.

    Returns:
        A function that undoes it.

    Raises:
        InvalidStateError: When the application runs already.
        TypeError: When it is something else.
    """
    if isinstance(http_server, web.BaseSite):
        http_server = http_server._runner
    if isinstance(http_server, web.BaseRunner):
        running = http_server.server
        if running is not None:
            return attach_server(server, running)
        if isinstance(http_server, web.AppRunner):
            http_server = http_server.app
        elif isinstance(http_server, web.ServerRunner):
            return attach_server(server, http_server._web_server)
    if isinstance(http_server, web.Server):
        return attach_server(server, http_server)
    if isinstance(http_server, web.Application):
        return attach_application(server, http_server)
    raise TypeError(f"cannot attach to {type(http_server).__name__}")


def attach_application(server: WebSocketServer, app: web.Application) -> Detach:
    """Add a middleware, behind those that are there: they may refuse requests."""
    if app.frozen or app.pre_frozen:
        raise InvalidStateError(
            "cannot attach to an application that runs: attach to its runner or site"
        )
    attached = True

    @web.middleware
    async def websockets(request: web.Request, handler: Handler) -> web.StreamResponse:
        if attached and takes(server, request):
            return await take(server, request)
        return await handler(request)

    async def on_shutdown(app: web.Application) -> None:
        if attached:
            await server.shut_down()

    app.middlewares.append(websockets)
    app.on_shutdown.append(on_shutdown)

    def detach() -> None:
        nonlocal attached
        attached = False

    return detach


def attach_server(server: WebSocketServer, http_server: web.Server) -> Detach:
    """Wrap the handler of a low-level server, which may run already."""
    handler = http_server.request_handler
    attached = True

    async def websockets(request: web.BaseRequest) -> web.StreamResponse:
        if attached and takes(server, request):
            return await take(server, request)
        return await handler(request)

    http_server.request_handler = websockets

    def detach() -> None:
        nonlocal attached
        attached = False  # connections that are open keep the handler
        if http_server.request_handler is websockets:
            http_server.request_handler = handler

    return detach


def takes(server: WebSocketServer, request: web.BaseRequest) -> bool:
    """Whether a request is for the WebSocket server."""
    return (
        request.method == "GET"
        and is_upgrade(request.headers)
        and (server.path is None or request.path == server.path)
    )


async def take(server: WebSocketServer, request: web.BaseRequest) -> web.StreamResponse:
    """Take over the connection of a request; return when it is over."""
    tail = Tail()
    # What came behind the request is fed to the parser that is set.
    request.protocol.set_parser(tail)  # type: ignore[arg-type]
    version = request.version
    lines = [
        f"{request.method} {request.raw_path} "
        f"HTTP/{version.major}.{version.minor}".encode("latin-1"),
        *(b"%s: %s" % header for header in request.raw_headers),
    ]
    head = b"\r\n".join((*lines, b"", b""))
    transport = request.transport
    if transport is not None:
        connection = server.take_over(transport, head, bytes(tail.data))
        if connection is not None:
            await until_lost(connection)
    return Taken(status=101)


class Tail:
    """What aiohttp takes for a parser of what follows an upgrade."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep bytes."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: the connection is told itself."""


class Taken(web.StreamResponse):
    """Stands for the response, which was sent by the connection."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send nothing."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""
