"""WebSocket server on asyncio: ``serve()``, its server and its connections."""

from __future__ import annotations

import asyncio
import functools
import http
import inspect
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from .._stream import loop_state
from ..constants import DEFAULT_MAX_SIZE
from ..exceptions import InvalidState
from ..extensions.base import ServerExtensionFactory
from ..extensions.permessage_deflate import enable_server_permessage_deflate
from ..frames import CloseCode
from ..headers import validate_subprotocols
from ..http11 import Request, Response
from ..listener import Listener, check_listener
from ..protocol import CONNECTING, OPEN
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, PathLike, StatusLike, Subprotocol
from ..version import __version__
from .auth import basic_auth
from .connection import (
    HOLD_FOR_HANDSHAKE,
    Connection,
    Marks,
    broadcast,
    queue_marks,
    write_marks,
)
from .listening import Listening, can_own_sockets

__all__ = [
    "Server",
    "ServerConnection",
    "basic_auth",
    "broadcast",
    "serve",
    "unix_serve",
]

SERVER = f"Python/{sys.version_info[0]}.{sys.version_info[1]} websock/{__version__}"

FAILED = (
    "Failed to open a WebSocket connection.\nSee server log for more information.\n"
)

Handler = Callable[["ServerConnection"], Awaitable[None]]
ProcessRequest = Callable[
    ["ServerConnection", Request], Awaitable[Response | None] | Response | None
]
ProcessResponse = Callable[
    ["ServerConnection", Request, Response],
    Awaitable[Response | None] | Response | None,
]


class ServerConnection(Connection):
    """A server's connection to a client.

    Args:
        protocol: Sans-IO connection.
        server: Server that the connection belongs to.

    The other arguments are those of :func:`serve`.
    """

    __slots__ = ("_handshake_task", "handler", "handler_kwargs", "server", "username")

    protocol: ServerProtocol

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: Marks = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
        listener: Listener | None = None,
    ) -> None:
        super().__init__(
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
            listener=listener,
        )
        self.server = server
        self._handshake_task: asyncio.Task[None] | None = None
        self.username: str
        self.handler: Handler
        self.handler_kwargs: Mapping[str, Any]

    def respond(self, status: StatusLike, text: str) -> Response:
        """Make a plain text HTTP response, to return from ``process_request``.

        Args:
            status: HTTP status.
            text: Body; it is sent in UTF-8.
        """
        return self.protocol.reject(status, text)

    # -- opening ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a transport; asyncio's protocols."""
        super().connection_made(transport)
        self.server.add_connection(self)

    def time_opening(self, seconds: float) -> None:
        """Give the peer so many seconds for its request."""
        self._timer = loop_state(self.loop).wheel.call_later(
            seconds, self._open_timed_out
        )

    def _open_timed_out(self) -> None:
        self._timer = None
        if self.protocol.state is not CONNECTING:
            return
        if self._handshake_task is not None:
            self._handshake_task.cancel()
        if self.request is None:
            status = http.HTTPStatus.REQUEST_TIMEOUT
        else:
            status = http.HTTPStatus.SERVICE_UNAVAILABLE
        self.refuse(status, "Opening handshake took too long.\n")

    def refuse(self, status: StatusLike, text: str) -> None:
        """Answer an opening handshake that is going on with an HTTP error."""
        self._respond(self.protocol.reject(status, text))

    def handshake_received(self, data: bytes) -> bytes:
        """Take input of the opening handshake; return what follows it."""
        protocol = self.protocol
        rest = protocol.feed_handshake(data)
        if rest is None:
            return b""
        events = protocol.events_received()
        if events:
            request = events[0]
            assert isinstance(request, Request)
            self.request = request
            self._answer(request)
        else:
            # The request was bad, and the answer is ready; or it is too late.
            self._refused()
        return rest

    def _answer(self, request: Request) -> None:
        """Answer the request: at once, or in a task if a hook has to be awaited."""
        server = self.server
        response: Response | None = None
        if server.process_request is not None:
            try:
                result = server.process_request(self, request)
            except Exception as exc:
                response = self._hook_failed("process_request", exc)
            else:
                if isinstance(result, Awaitable):
                    self._answer_later(self._await_request_hook(result))
                    return
                response = result
        self._conclude(response)

    def _conclude(self, response: Response | None) -> None:
        """Accept unless there is a response already; let the last hook see it."""
        server = self.server
        request = self.request
        assert request is not None
        if response is None:
            response = self.protocol.accept(request)
        if server.server_header is not None:
            response.headers["Server"] = server.server_header
        if server.process_response is not None:
            try:
                result = server.process_response(self, request, response)
            except Exception as exc:
                response = self._hook_failed("process_response", exc)
            else:
                if isinstance(result, Awaitable):
                    self._answer_later(self._await_response_hook(result, response))
                    return
                response = result or response
        self._respond(response)

    def _answer_later(self, step: Any) -> None:
        # Frames that come early stay in the socket.
        self.hold_reading(HOLD_FOR_HANDSHAKE)
        self._handshake_task = self.loop.create_task(step)

    async def _await_request_hook(self, result: Awaitable[Response | None]) -> None:
        response: Response | None
        try:
            response = await result
        except Exception as exc:
            response = self._hook_failed("process_request", exc)
        self._conclude(response)
        self.release_reading(HOLD_FOR_HANDSHAKE)

    async def _await_response_hook(
        self, result: Awaitable[Response | None], response: Response
    ) -> None:
        try:
            response = await result or response
        except Exception as exc:
            response = self._hook_failed("process_response", exc)
        self._respond(response)
        self.release_reading(HOLD_FOR_HANDSHAKE)

    def _hook_failed(self, name: str, exc: Exception) -> Response:
        self.protocol.handshake_exc = exc
        self.logger.error("%s failed", name, exc_info=exc)
        return self.protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, FAILED)

    def _respond(self, response: Response) -> None:
        """Send the response, and be open or refused."""
        protocol = self.protocol
        if protocol.state is not CONNECTING or self.is_lost:
            return
        if response.status_code == 101 and not self.server.is_serving():
            response = protocol.reject(
                http.HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n"
            )
        self.response = response
        try:
            protocol.send_response(response)
        except InvalidState:
            return  # refused already
        except ValueError as exc:
            response = self._hook_failed("response", exc)
            self.response = response
            protocol.send_response(response)
        if protocol.state is OPEN:
            self.send_writes()
            self.handshake_done()
            if self._listener is None:
                self.server.start_handler(self)
        else:
            self._refused()

    def _refused(self) -> None:
        self.ignore_input()
        self.send_writes()
        self.expect_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; called once, by the stream or the transport."""
        super().connection_lost(exc)
        if self._handshake_task is not None:
            self._handshake_task.cancel()
            self._handshake_task = None
        self.server.remove_connection(self)


class Server:
    """A running WebSocket server; ``serve()`` makes it.

    It offers what ``asyncio.Server`` offers, and :attr:`connections`.

    Attributes:
        logger: Logger of the server.
        all_connections: Connections that are not closed, in whatever state.
        handler_tasks: Tasks that run the handlers of connections.
    """

    def __init__(
        self,
        handler: Handler | None,
        listening: Listening,
        *,
        process_request: ProcessRequest | None = None,
        process_response: ProcessResponse | None = None,
        server_header: str | None = SERVER,
        open_timeout: float | None = 10,
        logger: LoggerLike | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.handler = handler
        self.listening = listening
        self.process_request = process_request
        self.process_response = process_response
        self.server_header = server_header
        self.open_timeout = open_timeout
        self.logger = logging.getLogger("websock.server") if logger is None else logger
        self.all_connections: set[ServerConnection] = set()
        self.handler_tasks: set[asyncio.Task[None]] = set()
        self._close_task: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._idle: asyncio.Future[None] | None = None

    # -- connections, for ServerConnection -------------------------------------------

    def add_connection(self, connection: ServerConnection) -> None:
        """Take a connection in; its opening handshake is timed from here."""
        self.all_connections.add(connection)
        if self.open_timeout is not None:
            connection.time_opening(self.open_timeout)

    def remove_connection(self, connection: ServerConnection) -> None:
        """Forget a connection that is closed."""
        self.all_connections.discard(connection)
        self._check_idle()

    def start_handler(self, connection: ServerConnection) -> None:
        """Run the handler of a connection that has just been opened."""
        assert self.handler is not None
        try:
            coroutine = self.handler(connection)
            if not inspect.iscoroutine(coroutine):
                coroutine = _await(coroutine)
        except Exception as exc:
            self._handler_failed(connection, exc)
            return
        task = self.loop.create_task(coroutine)
        self.handler_tasks.add(task)
        task.add_done_callback(functools.partial(self._handler_done, connection))

    def _handler_done(
        self, connection: ServerConnection, task: asyncio.Task[None]
    ) -> None:
        self.handler_tasks.discard(task)
        exc = None if task.cancelled() else task.exception()
        if exc is not None:
            self._handler_failed(connection, exc)
        else:
            connection.close_nowait()
        self._check_idle()

    def _handler_failed(self, connection: ServerConnection, exc: BaseException) -> None:
        connection.logger.error("connection handler failed", exc_info=exc)
        connection.close_nowait(CloseCode.INTERNAL_ERROR)

    def _check_idle(self) -> None:
        if (
            self._idle is not None
            and not self.all_connections
            and not self.handler_tasks
            and not self._idle.done()
        ):
            self._idle.set_result(None)

    # -- what programs use -----------------------------------------------------------

    @property
    def connections(self) -> set[ServerConnection]:
        """Connections that are open; made anew at each access."""
        return {c for c in self.all_connections if c.is_open}

    @property
    def sockets(self) -> tuple[Any, ...]:
        """Listening sockets; empty once the server is closed."""
        return self.listening.sockets

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the server runs in."""
        return self.loop

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self.listening.is_serving()

    async def start_serving(self) -> None:
        """Begin to accept connections, after ``serve(..., start_serving=False)``."""
        await self.listening.start(self)

    async def serve_forever(self) -> None:
        """Serve until cancelled, or until ``close()`` is called.

        Cancelling closes the server and its connections before it returns.
        """
        try:
            if not self.is_serving() and self._close_task is None:
                await self.start_serving()
            await self.wait_closed()
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    def close(
        self,
        close_connections: bool = True,
        code: CloseCode | int = CloseCode.GOING_AWAY,
        reason: str = "",
    ) -> None:
        """Close the server gracefully; ``wait_closed()`` waits for the end.

        No connection is accepted any more; opening handshakes that are going on are
        answered with 503.  Calling it again is harmless.

        Args:
            close_connections: Whether open connections are closed; else they go on
                until they end by themselves.
            code: Close code for them, such as 1012 for a restart.
            reason: Close reason for them.
        """
        if self._close_task is None:
            self._close_task = self.loop.create_task(
                self._close(close_connections, code, reason)
            )

    async def _close(
        self, close_connections: bool, code: CloseCode | int, reason: str
    ) -> None:
        self.logger.info("server closing")
        self.listening.close()
        for connection in list(self.all_connections):
            if connection.protocol.state is CONNECTING:
                if connection.request is None:
                    connection.refuse(
                        http.HTTPStatus.SERVICE_UNAVAILABLE,
                        "Server is shutting down.\n",
                    )
            elif close_connections:
                connection.close_nowait(code, reason)
        await self.listening.wait_closed()
        self._idle = self.loop.create_future()
        self._check_idle()
        await self._idle
        self._closed.set_result(None)
        self.logger.info("server closed")

    async def wait_closed(self) -> None:
        """Wait until the server is closed and all connections and handlers ended."""
        await asyncio.shield(self._closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


class serve:
    """Start a WebSocket server.

    ::

        async with websock.serve(handler, "localhost", 8765) as server:
            await server.serve_forever()

    It can be awaited too; then close the server with ``close()``.

    Args:
        handler: Coroutine function that is called with each connection, which is
            closed when it returns.  Or a :class:`~websock.Listener` class, or a
            function without arguments that returns one: the callback API.
        host: Address, or several, to listen on; ``None`` or ``""`` for all.
        port: Port to listen on; 0 for any that is free.
        origins: Values of the ``Origin`` header to allow: text, expressions to match
            in full, ``None`` for requests without one.  Set this when browsers
            connect: it keeps other sites' pages from using their users' cookies.
        extensions: Extensions to accept, in order of preference.
        subprotocols: Subprotocols to accept, in order of preference.
        select_subprotocol: Called with the connection and the subprotocols that the
            client offers; returns the one to use, or ``None``.
        compression: ``"deflate"`` for permessage-deflate, ``None`` for none.
        process_request: Called with the connection and the request, may be a
            coroutine function; returns a response to send instead of opening a
            WebSocket, or ``None``.
        process_response: Called with the connection, the request and the response,
            may be a coroutine function; returns another response, or ``None``.
        server_header: Value of the ``Server`` header, ``None`` for none.
        open_timeout: Seconds for the opening handshake, TLS included; ``None`` for no
            limit.
        ping_interval: Seconds between keepalive pings; ``None`` for none.
        ping_timeout: Seconds to wait for a pong; ``None`` for no limit.
        close_timeout: Seconds to wait for the end of a connection that is being
            closed; ``None`` for no limit.
        max_size: Limit for incoming messages in bytes, ``None`` for no limit; or a
            pair: the limits for messages and for fragments.
        max_queue: Messages in the queue of a connection at which reading stops; or a
            pair: where it stops and where it goes on.
        write_limit: Unsent bytes at which ``send()`` waits; or a pair: where it waits
            and where it goes on.
        logger: Logger; by default ``websock.server``.
        create_connection: Class of the connections.
        **kwargs: Other arguments of ``loop.create_server()``: ``ssl``, ``sock``,
            ``family``, ``backlog``, ``reuse_port``, ``start_serving`` ...

    Raises:
        OSError: When the address cannot be listened on.
        TypeError: When an argument is of a wrong type, or unknown.
        ValueError: When an argument has a wrong value.
    """

    def __init__(
        self,
        handler: Handler | type[Listener] | Callable[[], Listener] | Listener,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        origins: Sequence[Origin | re.Pattern[str] | str | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol | str] | None = None,
        select_subprotocol: Callable[
            [ServerConnection, Sequence[Subprotocol]], Subprotocol | None
        ]
        | None = None,
        compression: str | None = "deflate",
        process_request: ProcessRequest | None = None,
        process_response: ProcessResponse | None = None,
        server_header: str | None = SERVER,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
        max_queue: Marks = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
        logger: LoggerLike | None = None,
        create_connection: type[ServerConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        if subprotocols is not None:
            validate_subprotocols(subprotocols)  # type: ignore[arg-type]
        if isinstance(origins, str):
            raise TypeError("origins must be a list, not a str")
        if compression == "deflate":
            extensions = enable_server_permessage_deflate(extensions)
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        queue_marks(max_queue)
        write_marks(write_limit)

        self._handler, self._make_listener = sort_handler(handler)
        self._settings: dict[str, Any] = {
            "process_request": process_request,
            "process_response": process_response,
            "server_header": server_header,
            "open_timeout": open_timeout,
            "logger": logger,
        }
        self._start_serving = kwargs.pop("start_serving", True)
        if kwargs.get("ssl") and open_timeout is not None:
            # One deadline for all of the opening: TLS has no longer one of its own.
            kwargs.setdefault("ssl_handshake_timeout", open_timeout)
        self._kwargs = {"host": host, "port": port, **kwargs}

        protocol_class = ServerProtocol
        connection_class: Any = create_connection or ServerConnection
        make_listener = self._make_listener

        def factory(server: Server) -> ServerConnection:
            connection: ServerConnection
            select: Any = None
            if select_subprotocol is not None:

                def select(_: Any, offered: Sequence[Subprotocol]) -> Any:
                    return select_subprotocol(connection, offered)

            protocol = protocol_class(
                origins=origins,  # type: ignore[arg-type]
                extensions=extensions,
                subprotocols=subprotocols,  # type: ignore[arg-type]
                select_subprotocol=select,
                max_size=max_size,
                logger=server.logger,
            )
            listener = {} if make_listener is None else {"listener": make_listener()}
            connection = connection_class(
                protocol,
                server,
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
                close_timeout=close_timeout,
                max_queue=max_queue,
                write_limit=write_limit,
                **listener,
            )
            return connection

        self._factory = factory
        self._server: Server | None = None

    async def _serve(self) -> Server:
        loop = asyncio.get_running_loop()
        listening = Listening(
            loop,
            self._factory,
            own_sockets=can_own_sockets(loop) and not self._kwargs.get("ssl"),
            **self._kwargs,
        )
        await listening.bind()
        server = Server(self._handler, listening, **self._settings)
        try:
            if self._start_serving:
                await listening.start(server)
        except BaseException:
            listening.close()
            raise
        return server

    def __await__(self) -> Generator[Any, None, Server]:
        return self._serve().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._serve()
        return self._server

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        await self._server.__aexit__(exc_type, exc_value, traceback)


def unix_serve(
    handler: Handler | type[Listener] | Callable[[], Listener] | Listener,
    path: PathLike | None = None,
    **kwargs: Any,
) -> serve:
    """Start a WebSocket server on a unix socket; see :func:`serve`.

    Args:
        handler: As for ``serve()``.
        path: Path of the socket.
        **kwargs: As for ``serve()``.
    """
    return serve(handler, unix=True, path=path, **kwargs)


def sort_handler(
    handler: Any,
) -> tuple[Handler | None, Callable[[], Listener] | None]:
    """Tell a handler from a listener: one of the two results is ``None``.

    Raises:
        TypeError: When it is neither.
    """
    if isinstance(handler, Listener):
        check_listener(handler)
        return None, lambda: handler
    if isinstance(handler, type) and issubclass(handler, Listener):
        check_listener(handler)
        return None, handler
    if not callable(handler):
        raise TypeError(
            "handler must be a coroutine function or a Listener class, "
            f"not {type(handler).__name__}"
        )
    if not inspect.iscoroutinefunction(handler):
        try:
            inspect.signature(handler).bind()
        except (TypeError, ValueError):
            pass
        else:

            def make_listener() -> Listener:
                listener = handler()
                check_listener(listener)
                return listener  # type: ignore[no-any-return]

            return None, make_listener
    return handler, None
