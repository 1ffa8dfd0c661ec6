"""The client for threads: ``connect()``, ``reconnect()``, their connections."""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from ..asyncio.base import MAX_QUEUE_BYTES, Marks, flow_options, queue_marks
from ..asyncio.checks import check_callables, check_limits
from ..asyncio.options import check_socket, check_tls
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
from ..protocol import OPEN
from ..proxy import parse_proxy
from ..redirect import find_location, is_same_origin, keep_for_others
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from ..uri import WebSocketURI, parse_uri
from .connection import Connection
from .deadlines import Deadline
from .sockets import open_stream
from .streams import Stream, TlsStream, recv_within, send_within

if TYPE_CHECKING:
    import ssl as ssl_module

    from ..extensions.base import ClientExtensionFactory

__all__ = ["ClientConnection", "connect", "reconnect", "unix_connect", "unix_reconnect"]

# Headers from the caller that take the place of those made from the URI.
_REPLACEABLE = ("Host", "Authorization", "Origin")

_TCP_OPTIONS = frozenset(("address", "source_address", "timeout", "all_errors"))
_UNIX_OPTIONS = frozenset(("unix", "path"))


class ClientConnection(Connection):
    """A WebSocket connection, on the client's side.

    ``recv()`` and ``send()`` receive and send messages; iterating receives messages
    until the connection is closed::

        for message in websocket:
            process(message)

    The iteration ends when the connection is closed with code 1000 or 1001 or
    without a code, and raises ``ConnectionClosedError`` when with another.

    Args:
        sock: Socket that is connected to the server.
        protocol: Sans-IO protocol of the connection.
        ping_interval: As for :func:`connect`, like all that follow.
        ping_timeout: See there.
        close_timeout: See there.
        max_queue: See there.
    """

    protocol: ClientProtocol

    def handshake(
        self,
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        timeout: float | None = None,
    ) -> None:
        """Do the opening handshake.

        Args:
            additional_headers: Headers to add to the request. ``Host``, ``Origin``
                and ``Authorization`` replace those that the request has already.
            user_agent_header: Value of ``User-Agent``; ``None`` for no such header.
            timeout: Seconds for it; ``None`` for no limit.

        Raises:
            InvalidHandshake: When the server refuses, or does not know the protocol.
            OSError: When the connection fails.
            TimeoutError: When it takes too long.
            ValueError: When a header cannot be sent.
        """
        deadline = Deadline(timeout)
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
        send_within(self._stream, b"".join(protocol.data_to_send()), deadline)

        failure: OSError | None = None
        rest = None
        while rest is None:
            try:
                data = recv_within(self._stream, 65536, deadline)
            except TimeoutError:
                raise
            except OSError as exc:
                failure, data = exc, b""
            if data:
                rest = protocol.feed_handshake(data)
                if rest is None:
                    deadline.check()  # it may never stop sending
            else:
                protocol.receive_eof()
                rest = b""
        for event in protocol.events_received():
            if isinstance(event, Response):
                self.response = event
        refusal = protocol.handshake_exc
        if refusal is not None:
            if failure is not None and refusal.__cause__ is not None:
                # An EOFError: that is what shows that trying again may help.
                refusal.__cause__.__cause__ = failure
            raise refusal
        assert protocol.state is OPEN
        self.handshake_done(rest)


# In lower case because it is used like a function.
class reconnect:
    """Connect to the WebSocket server at ``uri``, again and again if need be.

    Use it as an endless iterator, which connects again whenever the connection is
    lost or the block says ``continue``::

        for websocket in reconnect("ws://localhost:8765"):
            try:
                ...
            except ConnectionClosed:
                continue

    or once, as a context manager. The connection is closed at the end of the block.

    Args:
        uri: URI of the server.
        process_exception: Decides, when iterating, about an error: returns ``None``
            to try again, or the exception to raise. See
            :func:`websock.client.process_exception`, the default.
        reconnect_delays: Makes, when iterating, an iterator of delays in seconds
            between failing attempts. By default they are random at first and grow;
            see :func:`websock.client.backoff`.

    The other arguments are those of :func:`connect`, except ``legacy``, and so are the
    exceptions.
    """

    def __init__(
        self,
        uri: str,
        *,
        sock: socket.socket | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        compression: str | None = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        proxy_server_hostname: str | None = None,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
        max_queue: Marks = 16,
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        max_fragments: int | None = MAX_FRAGMENTS,
        max_control_rate: int | None = MAX_CONTROL_RATE,
        **kwargs: Any,
    ) -> None:
        self.uri = uri
        self.ws_uri = parse_uri(uri)
        self.options: dict[str, Any] = {
            "sock": sock,
            "ssl": ssl,
            "server_hostname": server_hostname,
            "proxy_ssl": proxy_ssl,
            "proxy_server_hostname": proxy_server_hostname,
            **kwargs,
        }
        check_options(self.ws_uri, proxy, self.options, kwargs)
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
        queue_marks(max_queue)
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
        check_callables(
            process_exception=process_exception,
            reconnect_delays=reconnect_delays,
            create_connection=create_connection,
        )

        self.additional_headers = additional_headers
        self.user_agent_header = user_agent_header
        self.proxy = proxy
        self.process_exception = process_exception
        self.open_timeout = open_timeout
        self.reconnect_delays = reconnect_delays
        self.logger = logging.getLogger("websock.client") if logger is None else logger
        self.create_connection = create_connection or ClientConnection
        self.protocol_kwargs: dict[str, Any] = {
            "origin": origin,
            "extensions": extensions,
            "subprotocols": subprotocols,
            "max_size": max_size,
            "logger": self.logger,
            "max_fragments": max_fragments,
        }
        self.connection_kwargs: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
            "max_queue": max_queue,
            **flow_options(MAX_QUEUE_BYTES, None, max_control_rate),
        }
        self._hop = uri  # URI of the current attempt: differs after a redirect

    # -- connecting ----------------------------------------------------------------

    def connect(self) -> ClientConnection:
        """Connect once, following redirects.

        Raises:
            OSError: When the network connection fails.
            InvalidHandshake: When the opening handshake fails.
            TimeoutError: When that takes longer than ``open_timeout``.
        """
        deadline = Deadline(self.open_timeout)
        try:
            return self._follow_redirects(deadline)
        except TimeoutError as exc:
            if deadline.left() == 0:
                raise TimeoutError("timed out during opening handshake") from exc
            raise  # the network's own

    def _follow_redirects(self, deadline: Deadline) -> ClientConnection:
        self._hop = self.uri
        self.ws_uri = parse_uri(self.uri)
        headers = self.additional_headers
        options = self.options
        for _ in range(MAX_REDIRECTS + 1):
            stream = open_stream(
                self.ws_uri, self.proxy, options, self.user_agent_header, deadline
            )
            try:
                connection = self._make_connection(stream)
                connection.handshake(headers, self.user_agent_header, deadline.left())
                return connection
            except BaseException as exc:
                stream.close()
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

    def _make_connection(self, stream: Stream) -> ClientConnection:
        protocol = ClientProtocol(self.ws_uri, **self.protocol_kwargs)
        sock = stream if isinstance(stream, TlsStream) else stream.sock
        return self.create_connection(sock, protocol, **self.connection_kwargs)

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
        options = self.options
        old, new = self.ws_uri, parse_uri(target)
        shown = target if len(target) <= 128 else target[:125] + "..."
        refusal = f"cannot follow redirect to {shown}:"
        if options.get("sock") is not None:
            return ValueError(f"{refusal} the socket given serves for one connection")
        if old.secure and not new.secure:
            return SecurityError(f"{refusal} it leads from wss to ws")
        if not is_same_origin(old, new):
            for name in ("unix", "address"):
                if options.get(name):
                    what = "Unix socket" if name == "unix" else name
                    return ValueError(
                        f"{refusal} it leads to another origin, "
                        f"which the {what} given is not for"
                    )
        return target

    # -- with reconnect(...) as ... ------------------------------------------------

    def __enter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("it is in use already: call it once for each use")
        self.connection = self.connect()
        return self.connection.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self.connection
        del self.connection
        connection.__exit__(exc_type, exc_value, traceback)

    # -- for ... in reconnect(...) -------------------------------------------------

    def __iter__(self) -> Iterator[ClientConnection]:
        delays: Iterator[float] | None = None
        while True:
            try:
                with self as connection:
                    try:
                        yield connection
                    except GeneratorExit:  # the loop was left: that is no error
                        connection.close()
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
                time.sleep(delay)


def check_options(
    uri: WebSocketURI,
    proxy: str | Literal[True] | None,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    """Check the options about sockets and TLS, by themselves and together.

    Args:
        uri: URI of the server.
        proxy: The ``proxy`` argument.
        options: The options.
        more: Those among them that have no argument of their own.

    Raises:
        InvalidProxy: When ``proxy`` is not the URL of a proxy.
        NotImplementedError: When the system has no Unix sockets.
        TypeError: When an option is unknown, or of a wrong type.
        ValueError: When an option is wrong, or does not go with another one.
    """
    unix = bool(options.get("unix"))
    known = _UNIX_OPTIONS if unix else _TCP_OPTIONS
    for name in more:
        if name not in known:
            function = "unix_connect" if unix else "connect"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    sock = options.get("sock")
    if sock is not None:
        check_socket(sock)
    if unix:
        if not hasattr(socket, "AF_UNIX"):
            raise NotImplementedError("this system has no Unix sockets")
        if (options.get("path") is None) == (sock is None):
            raise ValueError("either path or sock must be given, and not both")
        proxy = None
    elif sock is not None:
        for name in more:
            raise ValueError(f"{name} and sock cannot be given together")
        proxy = None
    check_tls(uri.secure, "a ws:// URI", "a wss:// URI", "", _given(options, "ssl"))
    if proxy is None:
        secure = False
    elif proxy is True:
        return
    else:
        secure = parse_proxy(proxy).scheme == "https"
    which = "a connection without a proxy" if proxy is None else "this proxy"
    check_tls(
        secure, which, "an https:// proxy", "proxy_", _given(options, "proxy_ssl")
    )


def _given(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return options without a context that is ``None``: that means the default."""
    return {k: v for k, v in options.items() if k != name or v is not None}


@overload
def connect(
    uri: str, *, legacy: Literal[True] | None = ..., **kwargs: Any
) -> ClientConnection: ...


@overload
def connect(uri: str, *, legacy: Literal[False], **kwargs: Any) -> reconnect: ...


def connect(
    uri: str,
    *,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    server_hostname: str | None = None,
    origin: Origin | None = None,
    extensions: Sequence[ClientExtensionFactory] | None = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    compression: str | None = "deflate",
    additional_headers: HeadersLike | None = None,
    user_agent_header: str | None = USER_AGENT,
    proxy: str | Literal[True] | None = True,
    proxy_ssl: ssl_module.SSLContext | None = None,
    proxy_server_hostname: str | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = DEFAULT_MAX_SIZE,
    max_queue: Marks = 16,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ClientConnection] | None = None,
    legacy: bool | None = None,
    max_fragments: int | None = MAX_FRAGMENTS,
    max_control_rate: int | None = MAX_CONTROL_RATE,
    **kwargs: Any,
) -> ClientConnection | reconnect:
    """Connect to the WebSocket server at ``uri``.

    ::

        with connect("ws://localhost:8765") as websocket:
            websocket.send("hello")
            print(websocket.recv())

    The connection is closed at the end of the block. Without a block, call its
    ``close()`` in the end. :class:`reconnect` connects again when that is needed.

    Args:
        uri: URI of the server, ``ws://`` or ``wss://``. A user name and a password
            in it are sent in an ``Authorization`` header.
        sock: A connected socket, to own from here on.
        ssl: An ``SSLContext`` for a ``wss://`` URI; by default one that checks the
            server's certificate.
        server_hostname: Name to find in the certificate, if not that of ``uri``.
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
        proxy_ssl: An ``SSLContext`` for an ``https`` proxy.
        proxy_server_hostname: Name to find in the certificate of that proxy.
        open_timeout: Seconds for everything until the connection is open, except the
            resolution of names; ``None`` for no limit.
        ping_interval: Seconds between keepalive pings; ``None`` sends none.
        ping_timeout: Seconds to wait for their pongs; ``None`` for no limit.
        close_timeout: Seconds to wait for the end of the connection when closing
            it; ``None`` for no limit.
        max_size: Limit for incoming messages in bytes, ``None`` for no limit; or a
            pair: the limits for messages and for fragments.
        max_queue: Messages in the queue at which reading stops, ``None`` for no
            limit; or a pair: where it stops, and where it goes on, by default at a
            quarter.
        logger: Logger for the connection; by default ``websock.client``.
        create_connection: Makes the connection; a class derived from
            :class:`ClientConnection`, or a function with the same arguments.
        legacy: ``False`` returns a :class:`reconnect`, which iterates over
            connections, instead of a connection, which iterates over messages.
        max_fragments: Fragments of an incoming message at most; ``None`` for no limit.
        max_control_rate: Pings and pongs from a peer in a second at most; ``None`` for
            no limit. One that sends more is closed with code 1008.
        **kwargs: Options of the network connection, as for
            ``socket.create_connection()``: ``address``, a host and a port to connect
            to instead of those of ``uri``; ``source_address``; ``timeout``, seconds
            for one address of a host; ``all_errors``.

    Raises:
        InvalidURI: When ``uri`` cannot be connected to.
        InvalidProxy: When the proxy cannot be used.
        TypeError: When an argument is unknown or of the wrong type.
        ValueError: When an argument is wrong, or does not go with another one.
        OSError: When the network connection fails.
        InvalidHandshake: When the opening handshake fails.
        TimeoutError: When that takes longer than ``open_timeout``.
    """
    connecting = reconnect(
        uri,
        sock=sock,
        ssl=ssl,
        server_hostname=server_hostname,
        origin=origin,
        extensions=extensions,
        subprotocols=subprotocols,
        compression=compression,
        additional_headers=additional_headers,
        user_agent_header=user_agent_header,
        proxy=proxy,
        proxy_ssl=proxy_ssl,
        proxy_server_hostname=proxy_server_hostname,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        logger=logger,
        create_connection=create_connection,
        max_fragments=max_fragments,
        max_control_rate=max_control_rate,
        **kwargs,
    )
    return connecting if legacy is False else connecting.connect()


def unix_reconnect(
    path: PathLike | None = None, uri: str | None = None, **kwargs: Any
) -> reconnect:
    """Connect to a server that listens on a Unix socket, again if need be.

    Args:
        path: Path of the socket.
        uri: URI for the request; by default ``ws://localhost/``, or
            ``wss://localhost/`` when there is an ``ssl`` argument.
        **kwargs: As for :class:`reconnect`.
    """
    if uri is None:
        secure = kwargs.get("ssl") is not None
        uri = "wss://localhost/" if secure else "ws://localhost/"
    return reconnect(uri, unix=True, path=path, **kwargs)


@overload
def unix_connect(
    path: PathLike | None = ...,
    uri: str | None = ...,
    *,
    legacy: Literal[True] | None = ...,
    **kwargs: Any,
) -> ClientConnection: ...


@overload
def unix_connect(
    path: PathLike | None = ...,
    uri: str | None = ...,
    *,
    legacy: Literal[False],
    **kwargs: Any,
) -> reconnect: ...


def unix_connect(
    path: PathLike | None = None,
    uri: str | None = None,
    *,
    legacy: bool | None = None,
    **kwargs: Any,
) -> ClientConnection | reconnect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: Path of the socket.
        uri: URI for the request; by default ``ws://localhost/``, or
            ``wss://localhost/`` when there is an ``ssl`` argument.
        legacy: As for :func:`connect`.
        **kwargs: As for :func:`connect`.
    """
    connecting = unix_reconnect(path, uri, **kwargs)
    return connecting if legacy is False else connecting.connect()
