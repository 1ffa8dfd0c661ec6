"""``WebSocketServer``: requests and connections as events, after Node's."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from ..asyncio.connection import broadcast
from ..asyncio.server import Server
from ..frames import CloseCode
from ..http11 import Request
from ..typing import BytesLike, DataLike
from . import hosting
from .connection import ConnectionEvents, WebSocketConnection, check_binary, check_utf8
from .emitter import EventEmitter
from .errors import InvalidStateError
from .incoming import IncomingConnection, chosen_subprotocol
from .request import WebSocketRequest, first_common
from .serving import Serving

__all__ = ["WebSocketServer"]

NO_WEBSOCKET = "There is no WebSocket here."
SHUTTING_DOWN = "Server is shutting down."


class WebSocketServer(EventEmitter):
    """A WebSocket server that tells what happens as events.

    ::

        server = WebSocketServer("localhost", 8765)

        @server.on("request")
        def on_request(request):
            connection = request.accept(origin=request.origin)
            connection.on("message", connection.send)

        async with server:
            await server.serve_forever()

    It listens itself, once ``listen()`` or ``async with`` says so; or it shares the
    port of an HTTP server, see ``attach()`` and ``handle_upgrade()``; or both.

    Its events, and what callbacks get:

    * ``request``: a :class:`~websock.events.WebSocketRequest`, to be accepted or
      rejected, at once or later.  Without a callback requests are rejected with 404;
    * ``connect``: the connection that was accepted;
    * ``close``: the connection, close code and reason.

    Args:
        host: Address, or several, to listen on; ``None`` or ``""`` for all.
        port: Port to listen on; 0 for any that is free.
        http_server: Something of ``aiohttp.web`` to attach to; see ``attach()``.
        path: Path of the requests to take; ``None`` for all.  An HTTP server keeps
            the others; here they are rejected with 404.
        auto_accept: Accept every request, with the first subprotocol that the client
            offers, before anybody is asked.  With browsers, give ``origins`` too.
        assemble_fragments: Whether connections tell of messages, or of frames.
        origins: Origins to allow, as for :func:`websock.serve`; others are rejected
            before anybody is asked.
        protocols: Subprotocols that ``auto_accept`` accepts; ``None`` for all.
        write_limit: As for ``websock.serve()``.  By default ``drain`` comes when
            everything is sent.
        **options: Other options of ``websock.serve()``: ``open_timeout``,
            ``ping_interval``, ``max_size``, ``compression``, ``process_request``,
            ``ssl`` ...  And ``unix_path``: path of a Unix socket to listen on.

    Raises:
        TypeError: When an option is of a wrong type, or unknown.
        ValueError: When an option has a wrong value.
    """

    __slots__ = (
        "_attached",
        "_connections",
        "_hosted",
        "_listening",
        "_serving",
        "_shut_down",
        "auto_accept",
        "path",
        "protocols",
    )

    events = frozenset(("request", "connect", "close"))

    def __init__(
        self,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        http_server: Any = None,
        path: str | None = None,
        auto_accept: bool = False,
        assemble_fragments: bool = True,
        origins: Sequence[Any] | None = None,
        protocols: Sequence[str] | None = None,
        write_limit: int | tuple[int, int | None] = (2**15, 0),
        **options: Any,
    ) -> None:
        super().__init__()
        self.auto_accept = auto_accept
        self.path = path
        self.protocols = protocols

        def create(
            protocol: Any, server: Any, *, listener: Any, **kwargs: Any
        ) -> IncomingConnection:
            if assemble_fragments:
                kwargs["listener"] = listener
            connection = IncomingConnection(protocol, server, **kwargs)
            if not assemble_fragments:
                connection.deliver_frames(listener)
            connection.owner = self
            return connection

        self._serving = Serving(
            ConnectionEvents,
            host,
            port,
            options,
            create_connection=create,
            select_subprotocol=chosen_subprotocol,
            origins=origins,
            write_limit=write_limit,
        )
        self._listening: Server | None = None
        self._hosted: Server | None = None
        self._connections: set[WebSocketConnection] = set()
        self._attached: list[hosting.Detach] = []
        self._shut_down = False
        if http_server is not None:
            self.attach(http_server)

    # -- listening -------------------------------------------------------------------

    async def listen(self) -> None:
        """Listen on the host and port that were given, and begin to accept.

        Raises:
            InvalidStateError: When it listens already, or was shut down.
            OSError: When the address cannot be listened on.
            ValueError: When there is no address.
        """
        if self._listening is not None or self._shut_down:
            state = "shut down" if self._shut_down else "listening already"
            raise InvalidStateError(f"cannot listen: the server is {state}")
        self._listening = await self._serving.listen()

    async def serve_forever(self) -> None:
        """Listen, if that was not done, and serve until ``shut_down()`` or cancelled.

        Cancelling shuts the server down before it returns.

        Raises:
            OSError: When the address cannot be listened on.
            ValueError: When there is no address.
        """
        if self._listening is None and not self._shut_down:
            await self.listen()
        if self._listening is None:
            return
        try:
            await self._listening.wait_closed()
        except asyncio.CancelledError:
            await self.shut_down()
            raise

    async def __aenter__(self) -> Self:
        if self._serving.has_address and self._listening is None:
            await self.listen()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shut_down()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """Listening sockets; empty when it does not listen itself."""
        return () if self._listening is None else self._listening.sockets

    @property
    def port(self) -> int | None:
        """Port that it listens on; of several the first."""
        for sock in self.sockets:
            address = sock.getsockname()
            if isinstance(address, tuple):
                return int(address[1])
        return None

    # -- on the port of an HTTP server -----------------------------------------------

    def attach(self, http_server: Any) -> None:
        """Take WebSocket requests from an HTTP server of ``aiohttp.web``.

        Args:
            http_server: An ``Application`` that does not run yet; or, also when it
                runs, an ``AppRunner``, a site such as ``TCPSite``, or a low-level
                ``Server``.  Everything but WebSocket requests goes on as it did.

        An ``Application`` shuts this server down when it ends.  With the others, call
        ``shut_down()`` before their cleanup, which waits for open connections.

        Raises:
            InvalidStateError: When the application runs already: give its runner.
            TypeError: When it is something else.
        """
        self._attached.append(hosting.attach(self, http_server))

    def detach(self) -> None:
        """Undo ``attach()``: new requests go to the HTTP server's own handlers."""
        attached, self._attached = self._attached, []
        for undo in attached:
            undo()

    async def handle_upgrade(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: bytes | Request,
    ) -> None:
        """Take over a connection of ``asyncio.start_server()``; wait for its end.

        Args:
            reader: The reader; what it has read already is not lost.
            writer: The writer; what it has to write goes out first.
            request: The head of the request as it came, with the empty line; or
                parsed, as :class:`websock.Request`.

        The answer is sent here, also when it is no WebSocket request:
        :func:`~websock.events.is_upgrade` tells before.
        """
        rest, ended = hosting.take_buffered(reader)
        connection = self.take_over(writer.transport, request, rest, kept=writer)
        if connection is None:
            return
        if ended:
            hosting.tell_eof(connection)
        await hosting.until_lost(connection)

    def take_over(
        self,
        transport: Any,
        request: bytes | Request,
        rest: bytes = b"",
        *,
        kept: Any = None,
    ) -> IncomingConnection | None:
        """Take over a transport from the protocol of an HTTP server.

        The protocol is told when the connection is lost, and of nothing else.

        Args:
            transport: The transport, plain or TLS.
            request: The request; see ``handle_upgrade()``.
            rest: What was read behind the request.
            kept: An object to hold on to until the connection is lost.

        Returns:
            The connection; ``None`` when the transport is closed.
        """
        if transport.is_closing():
            return None
        if self._hosted is None:
            self._hosted = self._serving.host()
        head = request if isinstance(request, bytes) else request.serialize()
        connection: IncomingConnection = self._serving.make_connection(self._hosted)
        hosting.hand_over(connection, transport, head + rest, kept)
        return connection

    # -- connections -----------------------------------------------------------------

    @property
    def connections(self) -> set[WebSocketConnection]:
        """Connections that are open; made anew at each access."""
        return {item for item in self._connections if item.connected}

    def broadcast(self, data: DataLike, *, text: bool | None = None) -> None:
        """Send a message to all connections, without waiting for any.

        Args:
            data: ``str`` goes out as text, bytes-like as binary.
            text: ``True`` or ``False`` forces a text or a binary frame.

        Raises:
            TypeError: When ``data`` is neither ``str`` nor bytes-like.
        """
        broadcast([item.ws for item in self._connections], data, text=text)

    def broadcast_utf8(self, data: str | BytesLike) -> None:
        """Send a text message to all connections.

        Raises:
            TypeError: When ``data`` is neither ``str`` nor bytes-like.
            UnicodeDecodeError: When ``data`` is bytes that are not UTF-8.
        """
        check_utf8(data)
        self.broadcast(data, text=True)

    def broadcast_bytes(self, data: BytesLike) -> None:
        """Send a binary message to all connections.

        Raises:
            TypeError: When ``data`` is not bytes-like.
        """
        check_binary(data, "broadcast_utf8()")
        self.broadcast(data)

    def close_all_connections(
        self,
        reason_code: CloseCode | int = CloseCode.NORMAL_CLOSURE,
        description: str = "",
    ) -> None:
        """Close all connections; the server goes on.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        for connection in self.connections:
            connection.close(reason_code, description)

    async def shut_down(
        self,
        reason_code: CloseCode | int = CloseCode.GOING_AWAY,
        description: str = "",
    ) -> None:
        """Stop for good: detach, close all connections, and wait for their end.

        Requests that wait for an answer are rejected with 503.

        Args:
            reason_code: Close code for the connections.
            description: Close reason for them.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        self._shut_down = True
        self.detach()
        for server in (self._listening, self._hosted):
            if server is not None:
                server.close(True, reason_code, description)
                for ws in list(server.all_connections):
                    assert isinstance(ws, IncomingConnection)
                    if ws.request is not None and ws.is_unanswered:
                        status = http.HTTPStatus.SERVICE_UNAVAILABLE
                        ws.reject(ws.respond(status, SHUTTING_DOWN + "\n"))
        for connection in list(self._connections):
            connection.resume()  # the peers' answers have to be read
        for server in (self._listening, self._hosted):
            if server is not None:
                await server.wait_closed()

    # -- what requests and connections use -------------------------------------------

    def tell_request(self, request: WebSocketRequest) -> None:
        """Have the program answer a request."""
        if self._shut_down:
            request.reject(http.HTTPStatus.SERVICE_UNAVAILABLE, SHUTTING_DOWN)
            return
        if self.path is not None and request.path != self.path:
            request.reject(http.HTTPStatus.NOT_FOUND, NO_WEBSOCKET)
            return
        if self.auto_accept:
            protocol = first_common(request.requested_protocols, self.protocols)
            if protocol is None and request.requested_protocols and self.protocols:
                request.reject(http.HTTPStatus.BAD_REQUEST, "No common subprotocol.")
            else:
                request.accept(protocol, request.origin)
        elif not self.emit("request", request):
            request.reject(http.HTTPStatus.NOT_FOUND, NO_WEBSOCKET)

    def callback_failed(
        self, event: str, exc: Exception, args: tuple[Any, ...]
    ) -> None:
        """Say that a callback raised ``exc``; answer the request that it was for."""
        super().callback_failed(event, exc, args)
        if event == "request" and args[0].is_pending:
            args[0].reject(http.HTTPStatus.INTERNAL_SERVER_ERROR)

    def adopt(self, connection: WebSocketConnection) -> None:
        """Take in a connection that is about to be opened."""
        listener = connection.ws.listener
        assert isinstance(listener, ConnectionEvents)
        listener.connection = connection
        self._connections.add(connection)

    def forget(self, connection: WebSocketConnection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
