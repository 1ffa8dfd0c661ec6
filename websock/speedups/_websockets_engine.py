"""Connections of :mod:`websock.asyncio` under the names of the library websockets.

``connect()``, ``serve()`` and what goes with them are replaced in the modules of its
asyncio API, and so are the names that the package itself offers.  Where a program asks
for something that only the host can do, because it hands in extensions or a class of
connections that are the host's, it gets the host's.

Exceptions: those of this library get the host's as further bases, and are caught by
``except`` clauses that were compiled, or whose names were imported, at any time.  That
is not taken back, because connections live on that raise them.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from .. import exceptions
from ..asyncio import client, connection, server
from ..datastructures import Headers
from ..http11 import Response

__all__ = ["adopt_exceptions", "replacements"]

CONNECTION = "websockets.asyncio.connection"
CLIENT = "websockets.asyncio.client"
SERVER = "websockets.asyncio.server"
ROUTER = "websockets.asyncio.router"


def replacements(name: str, module: ModuleType) -> list[tuple[str, Any]]:
    """Return the names of one of the host's modules to replace, and with what.

    Args:
        name: Name of the module.
        module: The module itself.
    """
    host: Any = module
    if name == CONNECTION:
        return [("broadcast", make_broadcast(host.broadcast))]
    if name == CLIENT:
        connect = make_connect(host)
        return [
            ("connect", connect),
            ("unix_connect", make_unix_connect(host.unix_connect, connect)),
        ]
    if name == SERVER:
        serve = make_serve(host)
        return [
            ("serve", serve),
            ("unix_serve", make_unix_serve(host.unix_serve, serve)),
            # What connection has may be replaced already.
            ("broadcast", make_broadcast(host.broadcast)),
        ]
    if name == ROUTER:
        return [("serve", make_serve_for_router(host.serve))]
    return []


# -- exceptions ------------------------------------------------------------------------


class _Border(Exception):
    """Stands between the exceptions of this library and those of the host.

    ``super().__init__()`` and ``str()`` of ours end here, as without the host's.
    """

    __slots__ = ()  # laid out like Exception, so that it can take its place

    __init__ = Exception.__init__
    __str__ = Exception.__str__


def adopt_exceptions(host: ModuleType) -> None:
    """Make the exceptions of this library exceptions of the host, too.

    Args:
        host: The module ``websockets.exceptions``.
    """
    root = exceptions.WebSocketException
    if issubclass(root, host.WebSocketException):
        return
    for name in exceptions.__all__:
        ours, theirs = getattr(exceptions, name), getattr(host, name, None)
        if not isinstance(ours, type) or not isinstance(theirs, type):
            continue
        own = [base for base in ours.__bases__ if issubclass(base, root)]
        further = [base for base in ours.__bases__ if not issubclass(base, root)]
        if ours is root:
            further = [_Border, theirs]
        else:
            # The host's classes may derive from the same exceptions of Python.
            further = [theirs, *further]
        ours.__bases__ = (*own, *further)


# -- what only the host can do ---------------------------------------------------------


def is_ours(options: dict[str, Any], base: type) -> bool:
    """Whether connections of this library can do what is asked for.

    Args:
        options: What ``connect()`` or ``serve()`` was called with.
        base: The class of this library that ``create_connection`` may be derived from.
    """
    for extension in options.get("extensions") or ():
        if not type(extension).__module__.startswith("websock."):
            return False
    create = options.get("create_connection")
    # What is no class may make connections of any kind.
    return create is None or (isinstance(create, type) and issubclass(create, base))


# -- clients ---------------------------------------------------------------------------


def make_connect(host: Any) -> type:
    """Return the class that takes the place of the host's ``connect``."""
    slow, user_agent = host.connect, host.USER_AGENT

    class connect(client.connect):
        """Connect to a server: :class:`websock.connect`."""

        def __new__(cls, uri: str, **options: Any) -> Any:
            if cls is connect and not is_ours(options, client.ClientConnection):
                return slow(uri, **options)
            return object.__new__(cls)

        def __init__(self, uri: str, **options: Any) -> None:
            options.setdefault("user_agent_header", user_agent)
            if options.get("logger") is None:
                options["logger"] = logging.getLogger("websockets.client")
            super().__init__(uri, **options)

    connect.__module__ = slow.__module__
    connect.__qualname__ = slow.__qualname__
    return connect


def make_unix_connect(slow: Any, connect: Any) -> Any:
    """Return what takes the place of the host's ``unix_connect()``."""

    @functools.wraps(slow)
    def unix_connect(path: Any = None, uri: Any = None, **options: Any) -> Any:
        if not is_ours(options, client.ClientConnection):
            return slow(path, uri, **options)
        if uri is None:
            uri = (
                "ws://localhost/" if options.get("ssl") is None else "wss://localhost/"
            )
        return connect(uri, unix=True, path=path, **options)

    return unix_connect


# -- servers ---------------------------------------------------------------------------


def make_serve(host: Any) -> type:
    """Return the class that takes the place of the host's ``serve``."""
    slow, header = host.serve, host.SERVER

    class serve(server.serve):
        """Serve WebSocket connections: :class:`websock.serve`."""

        def __new__(cls, *arguments: Any, **options: Any) -> Any:
            if cls is serve and not is_ours(options, server.ServerConnection):
                return slow(*arguments, **options)
            return object.__new__(cls)

        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.setdefault("server_header", header)
            if options.get("logger") is None:
                options["logger"] = logging.getLogger("websockets.server")
            for name in ("process_request", "process_response"):
                if options.get(name) is not None:
                    options[name] = with_responses(options[name])
            super().__init__(*arguments, **options)

    serve.__module__ = slow.__module__
    serve.__qualname__ = slow.__qualname__
    return serve


def make_unix_serve(slow: Any, serve: Any) -> Any:
    """Return what takes the place of the host's ``unix_serve()``."""

    @functools.wraps(slow)
    def unix_serve(handler: Any, path: Any = None, **options: Any) -> Any:
        if not is_ours(options, server.ServerConnection):
            return slow(handler, path, **options)
        return serve(handler, unix=True, path=path, **options)

    return unix_serve


def make_serve_for_router(slow: Any) -> Any:
    """Return what the host's router serves with: the current ``serve``."""

    def serve(*arguments: Any, **options: Any) -> Any:
        module: Any = sys.modules[SERVER]
        return module.serve(*arguments, **options)

    functools.update_wrapper(serve, slow, updated=())
    return serve


def with_responses(function: Any) -> Any:
    """Return ``process_request`` or ``process_response`` with our responses.

    Args:
        function: The program's, which may return one of the host's responses.
    """

    @functools.wraps(function)
    def process(*arguments: Any) -> Any:
        result = function(*arguments)
        if inspect.isawaitable(result):
            return later(result)
        return our_response(result)

    async def later(result: Any) -> Any:
        return our_response(await result)

    return process


def our_response(response: Any) -> Any:
    """Return the host's response as one of ours, and anything else as it is."""
    if type(response).__module__ != "websockets.http11":
        return response
    headers = Headers(response.headers.raw_items())
    return Response(
        response.status_code, response.reason_phrase, headers, response.body
    )


# -- both ------------------------------------------------------------------------------


def make_broadcast(slow: Any) -> Any:
    """Return what takes the place of the host's ``broadcast()``."""

    @functools.wraps(slow)
    def broadcast(
        connections: Iterable[Any],
        message: Any,
        *,
        text: bool | None = None,
        raise_exceptions: bool = False,
    ) -> None:
        ours: list[Any] = []
        theirs: list[Any] = []
        for one in connections:
            kind = ours if isinstance(one, connection.Connection) else theirs
            kind.append(one)
        failures: list[Exception] = []
        for send, some in ((connection.broadcast, ours), (slow, theirs)):
            if not some and (send is slow or theirs):
                continue
            try:
                send(some, message, text=text, raise_exceptions=raise_exceptions)
            except ExceptionGroup as group:
                failures.extend(group.exceptions)
        if failures:
            raise ExceptionGroup("skipped broadcast", failures)

    return broadcast
