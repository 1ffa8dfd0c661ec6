"""WebSocket server on asyncio: ``serve()``, its server and its connections."""

from __future__ import annotations

import asyncio
import functools
import http
import inspect
import logging
import math
import re
import socket
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from ..admission import Admission, make_admission
from ..constants import DEFAULT_MAX_SIZE, MAX_CONTROL_RATE, MAX_FRAGMENTS
from ..exceptions import ConnectionClosed
from ..extensions.base import ServerExtensionFactory
from ..extensions.permessage_deflate import enable_server_permessage_deflate
from ..frames import Close, CloseCode
from ..headers import validate_subprotocols
from ..http11 import SERVER, Request, Response
from ..listener import Listener
from ..log_limit import LogLimit
from ..prepared import PreparedMessage
from ..protocol import CONNECTING
from ..server import ServerProtocol
from ..slow import SlowConsumer
from ..stats import ServerStats
from ..topics.history import Position
from ..topics.registry import Topics
from ..typing import DataLike, LoggerLike, Origin, PathLike, Subprotocol
from .auth import basic_auth
from .base import MAX_QUEUE_BYTES, flow_options
from .checks import (
    check_callables,
    check_counts,
    check_hosts,
    check_limits,
    check_listening,
    check_origins,
    check_server_header,
    sort_handler,
)
from .connection import (
    Marks,
    broadcast,
    queue_marks,
    write_marks,
)
from .incoming import ServerConnection
from .listening import Listening
from .loops import can_own_sockets

__all__ = [
    "Server",
    "ServerConnection",
    "basic_auth",
    "broadcast",
    "serve",
    "unix_serve",
]

Handler = Callable[[ServerConnection], Awaitable[None]]
ProcessRequest = Callable[
    [ServerConnection, Request], Awaitable[Response | None] | Response | None
]
ProcessResponse = Callable[
    [ServerConnection, Request, Response],
    Awaitable[Response | None] | Response | None,
]


# Seconds between the steps in which drain() closes connections.
DRAIN_STEP = 0.05

# What stats() sums up, in the order of Stream.counters() from the third on.
_TOTALS = (
    "connections_total",
    "handshakes_failed",
    "messages_received",
    "payload_received",
    "bytes_received",
    "messages_sent",
    "payload_sent",
    "bytes_sent",
    "dropped",
)


class Server:
    """A running WebSocket server; ``serve()`` makes it.

    It offers what ``asyncio.Server`` offers, and :attr:`connections`.

    Attributes:
        logger: Logger of the server.
        log_limit: Limit on the lines that peers can have logged.
        all_connections: Connections that are not closed, in whatever state.
        handler_tasks: Tasks that run the handlers of connections.
        topics: What its connections can subscribe to.
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
        admission: tuple[int | None, int | None, bool] = (None, None, True),
        topics: Topics | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.handler = handler
        self.listening = listening
        self.process_request = process_request
        self.process_response = process_response
        self.server_header = server_header
        self.open_timeout = open_timeout
        self.logger = logging.getLogger("websock.server") if logger is None else logger
        self.log_limit = LogLimit(self.logger)
        most, most_per_address, is_plain = admission
        self.admission: Admission | None = make_admission(
            most, most_per_address, self.logger, is_plain
        )
        self.topics = Topics("memory://") if topics is None else topics
        self.topics.start_in(self.loop)
        self.all_connections: set[ServerConnection] = set()
        self.handler_tasks: set[asyncio.Task[None]] = set()
        self._totals = [0] * len(_TOTALS)  # of connections that are closed
        self._close_task: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._idle: asyncio.Future[None] | None = None
        self._draining = False
        self.has_topics = False
        """Whether it has started its topics, and is to stop them."""

    # -- connections, for ServerConnection -------------------------------------------

    def add_connection(self, connection: ServerConnection) -> None:
        """Take a connection in; its opening handshake is timed from here."""
        self.all_connections.add(connection)
        seconds = self.open_timeout
        if seconds is not None:
            if connection.accepted_at is not None:
                seconds -= self.loop.time() - connection.accepted_at
            connection.time_opening(seconds)
        if self.admission is not None and connection.ticket is None:
            # Somebody else has accepted it: the loop, or an HTTP server.
            connection.ticket = self.admission.enter(connection.remote_address)
            if connection.ticket is None:
                connection.turn_away()

    def remove_connection(self, connection: ServerConnection) -> None:
        """Forget a connection that is closed."""
        self.all_connections.discard(connection)
        if connection.ticket is not None:
            connection.ticket.give_back()
        self._totals[0 if connection.was_opened else 1] += 1
        for number, count in enumerate(_counts(connection), 2):
            self._totals[number] += count
        self._check_idle()

    def add_task(self, task: asyncio.Task[None]) -> None:
        """Take in a task to wait for before the server is closed."""
        self.handler_tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.handler_tasks.discard(task)
        self._check_idle()

    def start_handler(self, connection: ServerConnection) -> None:
        """Run the handler of a connection that has just been opened."""
        assert self.handler is not None
        try:
            coroutine = self.handler(connection)
            if not inspect.iscoroutine(coroutine):
                if not isinstance(coroutine, Awaitable):
                    raise TypeError(
                        "handler must be a coroutine function, "
                        f"it returned {type(coroutine).__name__}"
                    )
                coroutine = _await(coroutine)
        except Exception as exc:
            self._handler_failed(connection, exc)
            return
        task = self.loop.create_task(coroutine)
        task.add_done_callback(functools.partial(self._handler_done, connection))
        self.add_task(task)

    def _handler_done(
        self, connection: ServerConnection, task: asyncio.Task[None]
    ) -> None:
        if task.cancelled():
            connection.close_nowait(CloseCode.GOING_AWAY)
            return
        exc = task.exception()
        if exc is None:
            connection.close_nowait()
        elif is_end_of(connection, exc):
            connection.logger.debug("connection handler ended: %s", exc)
        else:
            self._handler_failed(connection, exc)

    def _handler_failed(self, connection: ServerConnection, exc: BaseException) -> None:
        connection.logger.error("connection handler failed", exc_info=exc)
        connection.close_nowait(CloseCode.INTERNAL_ERROR)

    def finishes_openings(self) -> bool:
        """Whether opening handshakes are finished: while it serves, and drains."""
        return self.is_serving() or (self._draining and self._close_task is None)

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

    def stats(self) -> ServerStats:
        """Return what was sent and received so far, and what waits."""
        totals = self._totals.copy()
        connections = list(self.all_connections)
        for connection in connections:
            totals[0] += connection.was_opened
            for number, count in enumerate(_counts(connection), 2):
                totals[number] += count
        latencies = [c.latency for c in connections if c.latency] or [0.0]
        return ServerStats(
            connections=sum(connection.is_open for connection in connections),
            **dict(zip(_TOTALS, totals, strict=True)),
            connections_refused=(
                0 if self.admission is None else self.admission.refused
            ),
            queued=sum(connection.queued for connection in connections),
            buffered=sum(connection.buffered_amount for connection in connections),
            latency=sum(latencies) / len(latencies),
            latency_max=max(latencies),
        )

    def publish(
        self,
        topic: str,
        message: PreparedMessage | DataLike,
        *,
        key: str | None = None,
        text: bool | None = None,
    ) -> Position | None:
        """Send a message to all connections that have subscribed to a topic.

        It waits for nobody, and can be called from any thread.  What is published in
        one turn of the loop leaves together.  Connections that read too slowly are
        treated as their ``slow_consumer`` says.

        Args:
            topic: Topic: segments between dots, such as ``prices.eur``.
            message: ``str`` goes out as text, bytes-like as binary; or what
                :func:`~websock.prepare` made.
            key: What it is about, for ``SlowConsumer("latest")``; by default the topic.
            text: ``True`` or ``False`` forces a text or a binary frame.

        Returns:
            The position of the message in its topic, where it is known at once: without
            a broker, and in the loop's thread.

        Raises:
            RuntimeError: When the server was not started, or its loop is closed.
            TypeError: When ``message`` is of none of these types.
            ValueError: When the topic breaks a rule.
        """
        return self.topics.publish(topic, message, key=key, text=text)

    def subscribers(self, topic: str) -> set[ServerConnection]:
        """Return the open connections of this process that get what is published.

        Args:
            topic: Topic.

        Raises:
            ValueError: When the topic breaks a rule.
        """
        return self.topics.subscribers(topic)

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
        """Begin to accept connections, after ``serve(..., start_serving=False)``.

        Raises:
            RuntimeError: When the server is closed.
        """
        if self._close_task is not None or self._draining:
            raise RuntimeError("cannot start serving: the server is closed")
        await self.listening.start(self)

    async def serve_forever(self) -> None:
        """Serve until cancelled, or until ``close()`` is called.

        Cancelling closes the server and its connections before it returns.
        """
        try:
            if not (self.is_serving() or self._close_task or self._draining):
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
        answered with 503.  Calling it again is harmless.  ``drain()`` is gentler.

        Args:
            close_connections: Whether open connections are closed; else they go on
                until they end by themselves.
            code: Close code for them, such as 1012 for a restart.
            reason: Close reason for them.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        Close(code, reason).check()
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
        await self._wait_idle()
        if self.has_topics:
            await self.topics.stop()
        self._closed.set_result(None)
        self.log_limit.tell()
        self.logger.info("server closed")

    async def _wait_idle(self) -> None:
        """Wait until no connection and no handler is left."""
        if self._idle is None:
            self._idle = self.loop.create_future()
            self._check_idle()
        await asyncio.shield(self._idle)

    async def drain(
        self,
        seconds: float | None = None,
        *,
        code: CloseCode | int = CloseCode.SERVICE_RESTART,
        reason: str = "",
    ) -> None:
        """Close the server behind the last connection; another process goes on.

        No connection is accepted any more, but those that the kernel holds already
        are, and opening handshakes that are going on are finished and served.  Use it
        when a new process has the listening socket, so that none is refused in
        between.

        ``close()`` ends it early.  When it is cancelled, connections go on, and it can
        be called again.

        Args:
            seconds: Time in which open connections are closed, a few at a time, so
                that clients do not come back all at once; 0 closes them now, ``None``
                lets them go on until they end by themselves.
            code: Close code for them.
            reason: Close reason for them.

        Raises:
            ValueError: When the time is negative, or the code or the reason cannot be
                sent.
        """
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"seconds must not be negative: {seconds}")
        Close(code, reason).check()
        if self._close_task is None:
            if not self._draining:
                self._draining = True
                self.logger.info("server draining")
                self.listening.hand_over()
            await self._end_connections(seconds, code, reason)
            self.close(True, code, reason)
        await self.wait_closed()

    async def _end_connections(
        self, seconds: float | None, code: CloseCode | int, reason: str
    ) -> None:
        """Wait for the end of the connections, or close them within ``seconds``."""
        if seconds is None:
            await self._wait_idle()
            return
        deadline = self.loop.time() + seconds
        while self.all_connections and self._close_task is None:
            left = deadline - self.loop.time()
            # Handshakes have a time of their own.  Without it, they end here.
            if left <= 0 and not (self.open_timeout and self._is_opening()):
                return
            connections = list(self.connections)
            share = DRAIN_STEP / left if left > DRAIN_STEP else 1.0
            for connection in connections[: math.ceil(len(connections) * share)]:
                connection.close_nowait(code, reason)
            await asyncio.sleep(min(DRAIN_STEP, left) if left > 0 else DRAIN_STEP)

    def _is_opening(self) -> bool:
        return any(c.protocol.state is CONNECTING for c in self.all_connections)

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


def _counts(connection: ServerConnection) -> tuple[int, ...]:
    backlog = connection.backlog
    return (*connection.counters(), 0 if backlog is None else backlog.dropped)


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


def is_end_of(connection: ServerConnection, exc: BaseException) -> bool:
    """Whether an exception says only that this connection was closed."""
    if isinstance(exc, BaseExceptionGroup):
        return all(is_end_of(connection, item) for item in exc.exceptions)
    protocol = connection.protocol
    return (
        isinstance(exc, ConnectionClosed)
        and not connection.is_open
        and exc.rcvd is protocol.close_rcvd
        and exc.sent is protocol.close_sent
    )


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
        max_queue_bytes: Bytes of messages, or characters of text, in the queue of a
            connection at which reading stops; ``None`` for no limit.
        slow_consumer: What becomes of messages for a peer that reads too slowly, when
            they are sent with ``post()`` or ``broadcast()``.
        hosts: Names that the server goes by: values of the ``Host`` header to allow.
            Text without a port stands for any port, expressions match in full what
            comes before the port.  Other requests get 421.  It keeps pages of other
            sites out that have their own name resolve to this server (DNS rebinding).
        max_fragments: Fragments of an incoming message at most; ``None`` for no limit.
        max_control_rate: Pings and pongs from a peer in a second at most; ``None`` for
            no limit. One that sends more is closed with code 1008.
        max_connections: Connections at once, those in a handshake included; ``None``
            for no limit. Others are answered with 503, or with TLS just closed.
        max_connections_per_address: The same for connections from one address, or for
            IPv6 from one network of 64 bits. It is of no use behind a proxy, whose
            address all have, and for Unix sockets, where there is none.
        topics: What carries what is published: ``"memory://"`` for this process alone;
            the URL of a broker, ``"redis://..."`` or ``"nats://..."``; or a
            :class:`~websock.topics.Topics`, which says more.  By default it is the hub
            of the program's workers, and this process alone where there is none.
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
        max_queue_bytes: int | None = MAX_QUEUE_BYTES,
        slow_consumer: SlowConsumer | None = None,
        hosts: Sequence[re.Pattern[str] | str] | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
        max_control_rate: int | None = MAX_CONTROL_RATE,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        topics: Topics | str | None = None,
        **kwargs: Any,
    ) -> None:
        if subprotocols is not None:
            validate_subprotocols(subprotocols)  # type: ignore[arg-type]
        check_origins(origins)
        check_hosts(hosts)
        if compression == "deflate":
            extensions = enable_server_permessage_deflate(extensions)
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        check_server_header(server_header)
        check_callables(
            select_subprotocol=select_subprotocol,
            process_request=process_request,
            process_response=process_response,
            create_connection=create_connection,
        )
        check_limits(
            {
                "open_timeout": open_timeout,
                "ping_interval": ping_interval,
                "ping_timeout": ping_timeout,
                "close_timeout": close_timeout,
            },
            max_size,
            max_fragments,
        )
        check_counts(
            max_connections=max_connections,
            max_connections_per_address=max_connections_per_address,
        )
        queue_marks(max_queue)
        more = flow_options(max_queue_bytes, slow_consumer, max_control_rate)
        write_marks(write_limit)
        if isinstance(host, Iterable) and not isinstance(host, (str, bytes)):
            host = tuple(host)
        check_listening(host, port, kwargs)

        if not isinstance(topics, Topics):
            if topics is not None and not isinstance(topics, str):
                raise TypeError(
                    f"topics must be a URL or Topics, not {type(topics).__name__}"
                )
            Topics(topics)  # raises what is wrong with it now, not when it is awaited
        self._topics = topics
        self._handler, self._make_listener = sort_handler(handler)
        self._settings: dict[str, Any] = {
            "process_request": process_request,
            "process_response": process_response,
            "server_header": server_header,
            "open_timeout": open_timeout,
            "logger": logger,
            "admission": (
                max_connections,
                max_connections_per_address,
                kwargs.get("ssl") is None,
            ),
        }
        self._start_serving = kwargs.pop("start_serving", True)
        if kwargs.get("ssl") is not None:
            # TLS has no longer times of its own.
            if open_timeout:
                kwargs.setdefault("ssl_handshake_timeout", open_timeout)
            if close_timeout:
                kwargs.setdefault("ssl_shutdown_timeout", close_timeout)
        self._kwargs = {"host": host, "port": port, **kwargs}

        protocol_class = ServerProtocol
        connection_class: Any = create_connection or ServerConnection
        make_listener = self._make_listener

        def factory(server: Server) -> ServerConnection:
            connection: ServerConnection
            select: Any = None
            if select_subprotocol is not None:

                def select(_: Any, offered: Sequence[Subprotocol]) -> Any:
                    # If it fails, the log says for which connection.
                    protocol.logger = connection.logger
                    return select_subprotocol(connection, offered)

            protocol = protocol_class(
                origins=origins,  # type: ignore[arg-type]
                extensions=extensions,
                subprotocols=subprotocols,  # type: ignore[arg-type]
                select_subprotocol=select,
                max_size=max_size,
                logger=server.logger,
                max_fragments=max_fragments,
            )
            protocol.hosts = hosts
            protocol.may_log = server.log_limit.allows
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
                **more,
            )
            return connection

        self._factory = factory
        self._server: Server | None = None

    def make_server(
        self, listening: Any
    ) -> tuple[Server, Callable[[Server], ServerConnection]]:
        """Make the server, and what makes its connections; nothing listens yet.

        Args:
            listening: The listening sockets, or what stands for them.
        """
        topics = self._topics
        if not isinstance(topics, Topics):
            topics = Topics(topics)  # each server has its own
        server = Server(self._handler, listening, topics=topics, **self._settings)
        return server, self._factory

    async def _serve(self) -> Server:
        return await self._make(None, self._start_serving)

    async def on_sockets(self, socks: Iterable[socket.socket]) -> Server:
        """Make the server on sockets that were bound before; it does not accept yet.

        Where to listen was said by whoever made the sockets: what ``serve()`` was
        told about it is passed over.

        Args:
            socks: The sockets; the server closes them.
        """
        return await self._make(socks, False)

    async def _make(
        self, socks: Iterable[socket.socket] | None, start_serving: bool
    ) -> Server:
        loop = asyncio.get_running_loop()
        kwargs = self._kwargs
        if socks is not None:
            kwargs = {**kwargs, **dict.fromkeys(("host", "port", "sock", "path"))}
        listening = Listening(
            loop,
            self._factory,
            own_sockets=can_own_sockets(loop),
            **kwargs,
        )
        if socks is None:
            await listening.bind()
        else:
            listening.adopt(socks)
        server, _ = self.make_server(listening)
        try:
            await server.topics.start()
            server.has_topics = True
            if start_serving:
                await listening.start(server)
        except BaseException:
            listening.close()
            if server.has_topics:
                await server.topics.stop()
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
