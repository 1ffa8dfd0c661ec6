"""The asyncio client: ``connect()`` and the connections that it opens."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ..client import ClientProtocol, backoff, process_exception
from ..constants import (
    DEFAULT_MAX_SIZE,
    MAX_CONTROL_RATE,
    MAX_FRAGMENTS,
    MAX_REDIRECTS,
)
from ..datastructures import Headers, HeadersLike
from ..exceptions import SecurityError
from ..extensions.permessage_deflate import enable_client_permessage_deflate
from ..headers import validate_subprotocols
from ..http11 import USER_AGENT, Response
from ..listener import Listener
from ..protocol import CONNECTING, OPEN
from ..redirect import find_location, is_same_origin, keep_for_others
from ..slow import SlowConsumer
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from ..uri import WebSocketURI, parse_uri
from .base import MAX_QUEUE_BYTES, flow_options
from .checks import check_limits
from .connection import HOLD_FOR_HANDSHAKE, Connection, Marks, queue_marks, write_marks
from .opening import open_connection
from .options import check_options, listener_factory

if TYPE_CHECKING:
    from ..extensions.base import ClientExtensionFactory

__all__ = ["ClientConnection", "connect", "unix_connect"]

# Headers from the caller that take the place of those made from the URI.
_REPLACEABLE = ("Host", "Authorization", "Origin")


class ClientConnection(Connection):
    """A WebSocket connection, on the client's side.

    ``recv()`` and ``send()`` receive and send messages; iterating receives messages
    until the connection is closed::

        async for message in websocket:
            await process(message)

    The iteration ends when the connection is closed with code 1000 or 1001 or
    without a code, and raises ``ConnectionClosedError`` when with another.

    Args:
        protocol: Sans-IO protocol of the connection.
        ping_interval: As for :class:`connect`, like all that follow.
        ping_timeout: See there.
        close_timeout: See there.
        max_queue: See there.
        write_limit: See there.
        listener: Object that is told what happens.
    """

    __slots__ = ("_handshake_waiter",)

    protocol: ClientProtocol

    def __init__(
        self,
        protocol: ClientProtocol,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: Marks = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
        listener: Listener | None = None,
        max_queue_bytes: int | None = MAX_QUEUE_BYTES,
        slow_consumer: SlowConsumer | None = None,
        max_control_rate: int | None = MAX_CONTROL_RATE,
    ) -> None:
        super().__init__(
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
            listener=listener,
            max_queue_bytes=max_queue_bytes,
            slow_consumer=slow_consumer,
            max_control_rate=max_control_rate,
        )
        self._handshake_waiter: asyncio.Future[None] | None = None

    async def handshake(
        self,
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
    ) -> None:
        """Send the handshake request and wait for the response.

        Args:
            additional_headers: Headers to add to the request. ``Host``, ``Origin``
                and ``Authorization`` replace those that the request has already.
            user_agent_header: Value of ``User-Agent``; ``None`` for no such header.

        Raises:
            InvalidHandshake: When the server refuses, or does not know the protocol.
            ValueError: When a header cannot be sent.
        """
        protocol = self.protocol
        request = self.request = protocol.connect()
        headers = request.headers
        if additional_headers is not None:
            additional_headers = Headers(additional_headers)
            for name in _REPLACEABLE:
                if name in additional_headers and name in headers:
                    del headers[name]
            headers.update(additional_headers)
        if user_agent_header is not None and "User-Agent" not in headers:
            headers["User-Agent"] = user_agent_header
        protocol.send_request(request)
        self.send_writes()

        if self._is_in_handshake():
            waiter = self._handshake_waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                self._handshake_waiter = None
        self.release_reading(HOLD_FOR_HANDSHAKE)
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc

    def _is_in_handshake(self) -> bool:
        protocol = self.protocol
        return (
            protocol.state is CONNECTING
            and protocol.handshake_exc is None
            and not self.is_lost
        )

    def handshake_received(self, data: bytes) -> bytes:
        """Take input of the opening handshake; return what follows it."""
        rest = self.protocol.feed_handshake(data)
        if rest is None:
            return b""
        self._handshake_over()
        return rest

    def peer_ended(self) -> None:
        """The peer sent EOF, perhaps before the end of the opening handshake."""
        in_handshake = self._is_in_handshake()
        super().peer_ended()
        if in_handshake:
            self._handshake_over()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, perhaps before the end of the opening handshake."""
        in_handshake = self._is_in_handshake()
        super().connection_lost(exc)
        if in_handshake:
            self._handshake_over()
            failure = self.protocol.handshake_exc
            if exc is not None and failure is not None and failure.__cause__:
                # An EOFError: that is what shows that trying again may help.
                failure.__cause__.__cause__ = exc

    def _handshake_over(self) -> None:
        """The response has come, or will not come any more."""
        protocol = self.protocol
        for event in protocol.events_received():
            if isinstance(event, Response):
                self.response = event
        if protocol.state is OPEN:
            if self._listener is None:
                # Frames that came along wait until the program can receive them: if
                # a bad one is among them, the good ones before it are answered.
                self.hold_reading(HOLD_FOR_HANDSHAKE)
            self.handshake_done()
        else:
            # It was not told of an opening, so it is not told of a closing.
            self._listener = None
            self.ignore_input()
        waiter = self._handshake_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


# In lower case because it is used like a function.
class connect:
    """Connect to the WebSocket server at ``uri``.

    Use it as an asynchronous context manager, which closes the connection at the
    end of the block::

        async with connect("ws://localhost:8765") as websocket:
            ...

    or as an endless asynchronous iterator, which connects again whenever the
    connection is lost or the block says ``continue``::

        async for websocket in connect("ws://localhost:8765"):
            try:
                ...
            except ConnectionClosed:
                continue

    or await it, and call ``close()`` in the end::

        websocket = await connect("ws://localhost:8765")

    Wrong arguments are refused when ``connect()`` is called, not later.

    Args:
        uri: URI of the server, ``ws://`` or ``wss://``. A user name and a password
            in it are sent in an ``Authorization`` header.
        origin: Value of the ``Origin`` header, for servers that check it.
        extensions: Extensions to offer, in order of preference.
        subprotocols: Subprotocols to offer, in order of preference.
        compression: ``"deflate"`` offers permessage-deflate, ``None`` does not.
        additional_headers: Headers to add to the request. When a redirect leads to
            another origin, ``Authorization``, ``Cookie``, ``Proxy-Authorization``
            and ``Host`` are left out.
        user_agent_header: Value of ``User-Agent``; ``None`` for no such header.
        proxy: ``True`` uses the proxy of the environment or the system, if there
            is one; a URL uses that proxy; ``None`` connects directly.
        process_exception: Decides, when iterating, about an error: returns ``None``
            to try again, or the exception to raise. See
            :func:`websock.client.process_exception`, the default.
        open_timeout: Seconds for everything until the connection is open; ``None``
            for no limit.
        ping_interval: Seconds between keepalive pings; ``None`` sends none.
        ping_timeout: Seconds to wait for their pongs; ``None`` for no limit.
        close_timeout: Seconds to wait for the end of the connection when closing
            it; ``None`` for no limit.
        reconnect_delays: Makes, when iterating, an iterator of delays in seconds
            between failing attempts. By default they are random at first and grow;
            see :func:`websock.client.backoff`.
        max_size: Limit for incoming messages in bytes, ``None`` for no limit; or a
            pair: the limits for messages and for fragments.
        max_queue: Messages in the queue at which reading stops, ``None`` for no
            limit; or a pair: where it stops, and where it goes on, by default at a
            quarter.
        write_limit: Unsent bytes at which ``send()`` waits; or a pair: where it
            waits, and where it goes on, by default at a quarter.
        logger: Logger for the connection; by default ``websock.client``.
        create_connection: Makes the connection; a class derived from
            :class:`ClientConnection`, or a function with the same arguments.
        listener: A :class:`~websock.Listener` that is told what happens, or a class
            or function without arguments that makes one for each connection. The
            connection then has no queue, so ``recv()`` is not for it.
        max_queue_bytes: Bytes of messages, or characters of text, in the queue at which
            reading stops; ``None`` for no limit.
        slow_consumer: What becomes of messages that ``post()`` sends while the peer
            reads too slowly.
        max_fragments: Fragments of an incoming message at most; ``None`` for no limit.
        max_control_rate: Pings and pongs from a peer in a second at most; ``None`` for
            no limit. One that sends more is closed with code 1008.
        **kwargs: Options of the network connection, as for the loop's
            ``create_connection()``: ``host`` and ``port`` to connect elsewhere than
            ``uri`` says; ``sock``, a connected socket, to own from here on; ``ssl``,
            an ``SSLContext`` (or ``True``, the default for ``wss``);
            ``server_hostname``, the name to find in the certificate;
            ``ssl_handshake_timeout``, ``ssl_shutdown_timeout``; ``family``,
            ``proto``, ``flags``, ``local_addr``, ``happy_eyeballs_delay``,
            ``interleave``, ``all_errors``. The TLS options with the prefix
            ``proxy_`` are for an ``https`` proxy.

    Raises:
        InvalidURI: When ``uri`` cannot be connected to.
        InvalidProxy: When the proxy cannot be used.
        TypeError: When an argument is unknown or of the wrong type.
        ValueError: When an argument is wrong, or does not go with another one.
        OSError: When the network connection fails.
        InvalidHandshake: When the opening handshake fails.
        TimeoutError: When that takes longer than ``open_timeout``.
    """

    def __init__(
        self,
        uri: str,
        *,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        compression: str | None = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
        max_queue: Marks = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        listener: Listener | Callable[[], Listener] | None = None,
        max_queue_bytes: int | None = MAX_QUEUE_BYTES,
        slow_consumer: SlowConsumer | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
        max_control_rate: int | None = MAX_CONTROL_RATE,
        **kwargs: Any,
    ) -> None:
        self.uri = uri
        self.ws_uri = parse_uri(uri)
        check_options(self.ws_uri, proxy, kwargs)

        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        if compression == "deflate":
            extensions = enable_client_permessage_deflate(extensions)
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        if additional_headers is not None:
            checked = Headers(additional_headers)
            if not hasattr(additional_headers, "keys"):
                additional_headers = checked  # it may be an iterator
        for name, value in (("Origin", origin), ("User-Agent", user_agent_header)):
            if value is not None:
                Headers({name: value})
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
        queue_marks(max_queue)
        more = flow_options(max_queue_bytes, slow_consumer, max_control_rate)
        write_marks(write_limit)
        make_listener = listener_factory(listener)

        self.additional_headers = additional_headers
        self.user_agent_header = user_agent_header
        self.proxy = proxy
        self.process_exception = process_exception
        self.open_timeout = open_timeout
        self.reconnect_delays = reconnect_delays
        self.logger = logging.getLogger("websock.client") if logger is None else logger
        self.create_connection_kwargs = kwargs
        self._hop = uri  # URI of the current attempt: differs after a redirect

        def factory(ws_uri: WebSocketURI) -> ClientConnection:
            protocol = ClientProtocol(
                ws_uri,
                origin=origin,
                extensions=extensions,
                subprotocols=subprotocols,
                max_size=max_size,
                logger=self.logger,
                max_fragments=max_fragments,
            )
            options: dict[str, Any] = dict(more)
            if make_listener is not None:
                options["listener"] = make_listener()
            return (create_connection or ClientConnection)(
                protocol,
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
                close_timeout=close_timeout,
                max_queue=max_queue,
                write_limit=write_limit,
                **options,
            )

        self.factory = factory

    # -- connecting ------------------------------------------------------------------

    async def _connect(self) -> ClientConnection:
        try:
            async with asyncio.timeout(self.open_timeout) as deadline:
                return await self._follow_redirects()
        except TimeoutError as exc:
            if deadline.expired():
                raise TimeoutError("timed out during opening handshake") from exc
            raise  # the network's own

    async def _follow_redirects(self) -> ClientConnection:
        self._hop = self.uri
        self.ws_uri = parse_uri(self.uri)
        headers = self.additional_headers
        options = self.create_connection_kwargs
        for _ in range(MAX_REDIRECTS + 1):
            connection = await open_connection(
                self.ws_uri, self.factory, self.proxy, options, self.user_agent_header
            )
            try:
                await connection.handshake(headers, self.user_agent_header)
                return connection
            except BaseException as exc:
                connection.abort_stream()
                if not isinstance(exc, Exception):
                    raise
                target = self.process_redirect(exc)
                if target is exc:
                    raise
                if isinstance(target, Exception):
                    raise target from exc
            old, new = self.ws_uri, parse_uri(target)
            if not is_same_origin(old, new):
                options = {k: v for k, v in options.items() if k != "server_hostname"}
                headers = keep_for_others(headers)
            elif new.user_info is None:
                new.username, new.password = old.username, old.password
            self.ws_uri, self._hop = new, target
        raise SecurityError(f"too many redirects: more than {MAX_REDIRECTS}")

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Decide whether a failure is a redirect to follow.

        Override it to follow fewer: returning ``exc`` follows none.

        Args:
            exc: Why the opening handshake failed.

        Returns:
            The new URI; or the exception to raise, which may be ``exc``.
        """
        target = find_location(exc, self._hop)
        if target is None:
            return exc
        options = self.create_connection_kwargs
        old, new = self.ws_uri, parse_uri(target)
        shown = target if len(target) <= 128 else target[:125] + "..."
        refusal = f"cannot follow redirect to {shown}:"
        if options.get("sock") is not None:
            return ValueError(f"{refusal} the socket given serves for one connection")
        if old.secure and not new.secure:
            return SecurityError(f"{refusal} it leads from wss to ws")
        if not is_same_origin(old, new):
            for name in ("unix", "host", "port"):
                if options.get(name):
                    what = "Unix socket" if name == "unix" else name
                    return ValueError(
                        f"{refusal} it leads to another origin, "
                        f"which the {what} given is not for"
                    )
        return target

    # -- await connect(...) ----------------------------------------------------------

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self._connect().__await__()

    # -- async with connect(...) as ... ----------------------------------------------

    async def __aenter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() is in use already: call it once for each use")
        self.connection = await self
        return await self.connection.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self.connection
        del self.connection
        await connection.__aexit__(exc_type, exc_value, traceback)

    # -- async for ... in connect(...) -----------------------------------------------

    async def __aiter__(self) -> AsyncGenerator[ClientConnection, None]:
        delays: Iterator[float] | None = None
        while True:
            try:
                async with self as connection:
                    try:
                        yield connection
                    except GeneratorExit:  # the loop was left: that is no error
                        await connection.close()
                        raise
                delays = None
            except Exception as exc:
                try:
                    verdict = self.process_exception(exc)
                except Exception as raised:  # instead of returning it
                    verdict = raised
                if verdict is exc:
                    raise
                if verdict is not None:
                    raise verdict from exc
                if delays is None:
                    delays = self.reconnect_delays()
                delay = next(delays)
                self.logger.info(
                    "cannot connect, next attempt in %.1f seconds: %s",
                    delay,
                    traceback.format_exception_only(exc)[-1].strip(),
                )
                await asyncio.sleep(delay)


def unix_connect(
    path: PathLike | None = None, uri: str | None = None, **kwargs: Any
) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: Path of the socket.
        uri: URI for the request; by default ``ws://localhost/``, or
            ``wss://localhost/`` when there is an ``ssl`` argument.
        **kwargs: As for :class:`connect`.
    """
    if uri is None:
        secure = kwargs.get("ssl") is not None
        uri = "wss://localhost/" if secure else "ws://localhost/"
    return connect(uri, unix=True, path=path, **kwargs)
