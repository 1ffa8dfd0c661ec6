"""WebSocket server for threads: ``serve()``, its server and its connections."""

from __future__ import annotations

import logging
import os
import re
import selectors
import socket
import stat
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..admission import Admission, Ticket, make_admission, turn_away
from ..asyncio.base import MAX_QUEUE_BYTES, Marks, flow_options, queue_marks
from ..asyncio.checks import (
    check_callables,
    check_counts,
    check_hosts,
    check_limits,
    check_origins,
    check_server_header,
)
from ..asyncio.options import check_socket
from ..asyncio.sockets import set_nodelay
from ..constants import DEFAULT_MAX_SIZE, MAX_CONTROL_RATE, MAX_FRAGMENTS
from ..exceptions import ConnectionClosed
from ..extensions.permessage_deflate import enable_server_permessage_deflate
from ..frames import Close, CloseCode
from ..headers import validate_subprotocols
from ..http11 import SERVER
from ..log_limit import LogLimit
from ..protocol import OPEN
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .auth import basic_auth
from .connection import broadcast
from .deadlines import Deadline
from .incoming import ProcessRequest, ProcessResponse, ServerConnection
from .streams import SocketStream, TlsStream

if TYPE_CHECKING:
    import ssl as ssl_module

    from ..extensions.base import ServerExtensionFactory

__all__ = [
    "Server",
    "ServerConnection",
    "basic_auth",
    "broadcast",
    "serve",
    "unix_serve",
]

# Connections accepted in one go.
MAX_ACCEPTS = 64

# Seconds without accepting when the process has no file descriptor or memory left.
ACCEPT_RETRY_DELAY = 1.0

_TCP_OPTIONS = frozenset(("family", "backlog", "reuse_port", "dualstack_ipv6"))
_UNIX_OPTIONS = frozenset(("unix", "path", "backlog"))


class Server:
    """A WebSocket server; ``serve()`` makes it.

    It offers what ``socketserver.BaseServer`` offers, and :attr:`connections`.

    Args:
        sock: Listening socket.
        handler: Called in a thread of its own with each accepted socket and the
            peer's address.
        logger: Logger; by default ``websock.server``.

    Attributes:
        socket: Listening socket.
        logger: Logger of the server.
        log_limit: Limit on the lines that peers can have logged.
        admission: Counts the connections, if there is a limit to their number.
        lock: Guards the two sets.
        all_connections: Connections that were opened and have not been closed.
        handler_threads: Threads that serve a connection.
        socket_closed: Set when no connection is accepted any more.
    """

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[socket.socket, Any], None],
        logger: LoggerLike | None = None,
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.handler = handler
        self.logger = logging.getLogger("websock.server") if logger is None else logger
        self.log_limit = LogLimit(self.logger)
        self.admission: Admission | None = None
        # A signal handler may call shutdown() in the thread that holds it.
        self.lock = threading.RLock()
        self.all_connections: set[ServerConnection] = set()
        self.handler_threads: set[threading.Thread] = set()
        self.socket_closed = threading.Event()
        # Sockets whose handshake of TLS goes on, and connections before they open.
        self._opening: set[ServerConnection | socket.socket] = set()
        self._waker, self._woken = socket.socketpair()
        self._shutting_down = False
        # With what shutdown() closes connections; those that open late, too.
        self._closing: tuple[CloseCode | int, str] | None = None
        self._serving: threading.Thread | None = None
        self._unlink: Callable[[], None] | None = None

    @property
    def connections(self) -> set[ServerConnection]:
        """Connections that are open; made anew at each access."""
        with self.lock:
            return {c for c in self.all_connections if c.protocol.state is OPEN}

    @property
    def connections_refused(self) -> int:
        """Connections that found no room, see ``max_connections``."""
        return 0 if self.admission is None else self.admission.refused

    def fileno(self) -> int:
        """Return the file descriptor of the listening socket."""
        return self.socket.fileno()

    def is_shutting_down(self) -> bool:
        """Whether ``shutdown()`` was called."""
        return self._shutting_down

    # -- accepting -----------------------------------------------------------------

    def serve_forever(self) -> None:
        """Accept connections until ``shutdown()`` is called.

        Raises:
            RuntimeError: When another thread serves already.
        """
        with self.lock:
            if self.is_shutting_down():
                return
            if self._serving is not None:
                raise RuntimeError("the server is serving already")
            self._serving = threading.current_thread()
        try:
            self.logger.info("server listening on %s", _address_text(self.socket))
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                selector.register(self.socket, selectors.EVENT_READ)
                while not self.is_shutting_down():
                    try:
                        selector.select()
                    except OSError:
                        # select() minds that a signal handler has closed the sockets.
                        if not self.is_shutting_down():
                            raise
                    if self.is_shutting_down():
                        break
                    if not self._accept():
                        # It would be so again at once; shutdown() ends the wait.
                        selector.unregister(self.socket)
                        selector.select(ACCEPT_RETRY_DELAY)
                        if not self.is_shutting_down():
                            selector.register(self.socket, selectors.EVENT_READ)
        finally:
            with self.lock:
                self._serving = None
                self.socket_closed.set()
                if self.is_shutting_down() and self.fileno() < 0:
                    # shutdown() was called in this thread, by a signal handler.
                    self._close_waker()

    def _accept(self) -> bool:
        """Accept what is there; tell whether that can go on."""
        for _ in range(MAX_ACCEPTS):
            try:
                sock, address = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return True
            except OSError as exc:
                if self._shutting_down:
                    return True
                # No file descriptor is left, or no memory, or the network is down.
                self.logger.error("cannot accept: %s; waiting", exc.strerror)
                return False
            ticket: Ticket | None = None
            if self.admission is not None:
                ticket = self.admission.enter(address)
                if ticket is None:
                    turn_away(sock, self.admission.answer)
                    continue
            try:
                self._start_handler(sock, address, ticket)
            except BaseException as exc:
                sock.close()
                if ticket is not None:
                    ticket.give_back()
                if not isinstance(exc, RuntimeError):
                    raise
                self.logger.error("cannot accept: %s; waiting", exc)
                return False
        return True

    def _start_handler(
        self, sock: socket.socket, address: Any, ticket: Ticket | None
    ) -> None:
        # Not a daemon: shutdown() waits for it in any case.
        thread = threading.Thread(
            target=self._run_handler, args=(sock, address, ticket)
        )
        with self.lock:
            self.handler_threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self.lock:
                self.handler_threads.discard(thread)
            raise

    def _run_handler(
        self, sock: socket.socket, address: Any, ticket: Ticket | None
    ) -> None:
        try:
            self.handler(sock, address)
        except Exception:
            self.logger.exception("cannot handle a connection")
        finally:
            sock.close()
            if ticket is not None:
                ticket.give_back()
            with self.lock:
                self.handler_threads.discard(threading.current_thread())

    # -- connections, for serve() --------------------------------------------------

    def begin_opening(self, item: ServerConnection | socket.socket) -> bool:
        """Take in an opening handshake; ``False`` when it is too late."""
        with self.lock:
            if not self._shutting_down:
                self._opening.add(item)
                return True
        return False

    def end_opening(self, item: ServerConnection | socket.socket) -> None:
        """The opening handshake is over."""
        with self.lock:
            self._opening.discard(item)

    def add_connection(self, connection: ServerConnection) -> None:
        """Take in a connection that was opened."""
        with self.lock:
            self.all_connections.add(connection)
            closing = self._closing
        if closing is not None:
            connection.begin_close(*closing)

    def remove_connection(self, connection: ServerConnection) -> None:
        """Forget a connection that is closed."""
        with self.lock:
            self.all_connections.discard(connection)

    # -- the end -------------------------------------------------------------------

    def shutdown(
        self,
        close_connections: bool = True,
        code: CloseCode | int = CloseCode.GOING_AWAY,
        reason: str = "",
    ) -> None:
        """Close the server gracefully, and wait until all handlers have ended.

        No connection is accepted any more; opening handshakes that are going on are
        answered with 503.  Calling it again is harmless.  A handler may call it; it
        then waits for the other handlers.

        Args:
            close_connections: Whether open connections are closed; else they go on
                until they end by themselves.
            code: Close code for them, such as 1012 for a restart.
            reason: Close reason for them.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        Close(code, reason).check()
        with self.lock:
            first = not self._shutting_down
            self._shutting_down = True
            if close_connections and self._closing is None:
                self._closing = (code, reason)
            serving = self._serving
            opening = list(self._opening)
        if first:
            self.logger.info("server closing")
            self._waker.send(b"\0")
        if serving is not None and serving is not threading.current_thread():
            self.socket_closed.wait()
        self._close_socket()
        for item in opening:
            if isinstance(item, ServerConnection):
                item.interrupt()
            else:
                _shut(item)  # no HTTP can be spoken yet
        if close_connections:
            with self.lock:
                connections = list(self.all_connections)
            for connection in connections:
                connection.begin_close(code, reason)
        self._join()
        if first:
            self.log_limit.tell()
            self.logger.info("server closed")

    def _close_socket(self) -> None:
        self.socket.close()
        with self.lock:
            unlink, self._unlink = self._unlink, None
            if self._serving is None:
                self.socket_closed.set()
                self._close_waker()
        if unlink is not None:
            unlink()

    def _close_waker(self) -> None:
        self._waker.close()
        self._woken.close()

    def _join(self) -> None:
        """Wait for the handlers, except one that is the caller."""
        while True:
            with self.lock:
                threads = self.handler_threads - {threading.current_thread()}
            # One that a signal handler interrupted the start of is refused later.
            threads = {thread for thread in threads if thread.ident is not None}
            if not threads:
                return
            for thread in threads:
                thread.join()

    def unlink_later(self, path: Any) -> None:
        """Remove the file of a Unix socket in the end, if it is still the same."""
        inode = os.stat(path).st_ino

        def unlink() -> None:
            try:
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
            except OSError:
                pass

        self._unlink = unlink

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is broken, or closed


def _address_text(sock: socket.socket) -> str:
    address = sock.getsockname()
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return str(address)


def serve(
    handler: Callable[[ServerConnection], None],
    host: str | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
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
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    hosts: Sequence[re.Pattern[str] | str] | None = None,
    max_fragments: int | None = MAX_FRAGMENTS,
    max_control_rate: int | None = MAX_CONTROL_RATE,
    max_connections: int | None = None,
    max_connections_per_address: int | None = None,
    **kwargs: Any,
) -> Server:
    """Make a WebSocket server, which listens from here on.

    ::

        with serve(handler, "localhost", 8765) as server:
            server.serve_forever()

    Each connection is handled in a thread of its own.  ``server.shutdown()``, from
    another thread, ends it.

    Args:
        handler: Function that is called with each connection, which is closed when
            it returns.
        host: Address to listen on; ``None`` or ``""`` for all.
        port: Port to listen on; 0 for any that is free.
        sock: A bound socket, instead of ``host`` and ``port``.
        ssl: An ``SSLContext`` to speak TLS.
        origins: Values of the ``Origin`` header to allow: text, expressions to match
            in full, ``None`` for requests without one.  Set this when browsers
            connect: it keeps other sites' pages from using their users' cookies.
        extensions: Extensions to accept, in order of preference.
        subprotocols: Subprotocols to accept, in order of preference.
        select_subprotocol: Called with the connection and the subprotocols that the
            client offers; returns the one to use, or ``None``.
        compression: ``"deflate"`` for permessage-deflate, ``None`` for none.
        process_request: Called with the connection and the request; returns a
            response to send instead of opening a WebSocket, or ``None``.
        process_response: Called with the connection, the request and the response;
            returns another response, or ``None``.
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
        logger: Logger; by default ``websock.server``.
        create_connection: Class of the connections.
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
        **kwargs: Other arguments of ``socket.create_server()``: ``family``,
            ``backlog``, ``reuse_port``, ``dualstack_ipv6``.

    Raises:
        OSError: When the address cannot be listened on.
        TypeError: When an argument is of a wrong type, or unknown.
        ValueError: When an argument has a wrong value.
    """
    if not callable(handler):
        raise TypeError(f"handler must be a function, not {type(handler).__name__}")
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
    queue_marks(max_queue)
    check_counts(
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
    )
    more = flow_options(MAX_QUEUE_BYTES, None, max_control_rate)
    if ssl is not None:
        import ssl as ssl_module

        if not isinstance(ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an SSLContext, not {type(ssl).__name__}")
    connection_class = create_connection or ServerConnection

    def make_connection(stream: Any) -> ServerConnection:
        connection: ServerConnection
        select: Any = None
        if select_subprotocol is not None:

            def select(_: Any, offered: Sequence[Subprotocol]) -> Any:
                # If it fails, the log says for which connection.
                protocol.logger = connection.logger
                return select_subprotocol(connection, offered)

        protocol = ServerProtocol(
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
        connection = connection_class(
            stream,
            protocol,
            server,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            **more,
        )
        return connection

    def accept_tls(sock: socket.socket, deadline: Deadline) -> TlsStream | None:
        assert ssl is not None
        stream = TlsStream(SocketStream(sock), ssl, server_side=True)
        if not server.begin_opening(sock):
            return None
        try:
            stream.handshake(deadline)
        except OSError as exc:
            server.logger.debug("TLS handshake failed: %s", exc)
            return None
        finally:
            server.end_opening(sock)
        return stream

    def handle(sock: socket.socket, address: Any) -> None:
        """Serve a connection, from accepting to closing it."""
        deadline = Deadline(open_timeout)
        try:
            set_nodelay(sock)
        except OSError:
            return  # the peer is gone already
        stream: Any = sock
        if ssl is not None:
            stream = accept_tls(sock, deadline)
            if stream is None:
                return
        connection = make_connection(stream)
        server.begin_opening(connection)
        try:
            connection.handshake(
                process_request, process_response, server_header, deadline.left()
            )
        except OSError as exc:
            connection.logger.debug("opening handshake failed: %s", exc)
        finally:
            if connection.protocol.state is OPEN:
                server.add_connection(connection)
            server.end_opening(connection)
            if not connection.is_open and not connection.opened:
                connection.close_socket()
        if connection.opened:
            run_handler(connection)

    def run_handler(connection: ServerConnection) -> None:
        try:
            handler(connection)
        except BaseException as exc:
            if is_end_of(connection, exc):
                connection.logger.debug("connection handler ended: %s", exc)
                connection.close()
            else:
                connection.logger.error("connection handler failed", exc_info=exc)
                connection.close(CloseCode.INTERNAL_ERROR)
        else:
            connection.close()
        finally:
            server.remove_connection(connection)

    unix = bool(kwargs.get("unix"))
    listening = make_socket(host, port, sock, kwargs)
    server = Server(listening, handle, logger)
    server.admission = make_admission(
        max_connections,
        max_connections_per_address,
        server.logger,
        is_plain=ssl is None,
    )
    if unix and sock is None and _is_file(kwargs["path"]):
        server.unlink_later(kwargs["path"])
    return server


def is_end_of(connection: ServerConnection, exc: BaseException) -> bool:
    """Whether an exception says only that this connection was closed."""
    protocol = connection.protocol
    return (
        isinstance(exc, ConnectionClosed)
        and not connection.is_open
        and exc.rcvd is protocol.close_rcvd
        and exc.sent is protocol.close_sent
    )


def make_socket(
    host: Any, port: Any, sock: socket.socket | None, options: dict[str, Any]
) -> socket.socket:
    """Make the listening socket, or take the caller's.

    Raises:
        NotImplementedError: When the system has no Unix sockets.
        OSError: When the address cannot be listened on.
        TypeError: When an option is unknown, or of a wrong type.
        ValueError: When options do not go together.
    """
    unix = bool(options.get("unix"))
    for name in options:
        if name not in (_UNIX_OPTIONS if unix else _TCP_OPTIONS):
            function = "unix_serve" if unix else "serve"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    if unix and not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError("this system has no Unix sockets")
    path = options.get("path")
    if sock is not None:
        check_socket(sock)
        for name, value in (("host", host), ("port", port), ("path", path)):
            if value is not None:
                raise ValueError(f"{name} and sock cannot be given together")
        if not sock.getsockopt(socket.SOL_SOCKET, _ACCEPTCONN):
            sock.listen(options.get("backlog") or 100)
        return sock
    if unix:
        if host is not None or port is not None:
            raise ValueError("a Unix socket has no host and no port")
        if path is None:
            raise ValueError("either path or sock must be given, and not both")
        return _listen_unix(os.fspath(path), options.get("backlog") or 100)
    if host is None and port is None:
        raise ValueError("there is nothing to listen on: give host and port, or sock")
    if port is not None and not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535: {port}")
    if options.get("reuse_port") and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("this system has no SO_REUSEPORT for reuse_port")
    try:
        return socket.create_server(
            ("" if host is None else host, port or 0), **options
        )
    except OSError as exc:
        if exc.errno is None or isinstance(exc, socket.gaierror):
            raise
        # os.strerror() does not know the numbers of Windows' sockets.
        reason = str(exc.strerror).partition(" (while attempting")[0]
        raise OSError(exc.errno, f"cannot listen on {host}:{port}: {reason}") from None


_ACCEPTCONN: int = getattr(socket, "SO_ACCEPTCONN", 0)


def _is_file(path: Any) -> bool:
    """Whether the path of a Unix socket is in the file system, and not abstract."""
    return os.fspath(path)[:1] not in ("\0", b"\0")


def _listen_unix(path: Any, backlog: int) -> socket.socket:
    if _is_file(path):
        try:
            # What a server that was killed left behind.
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.remove(path)
        except FileNotFoundError:
            pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {path!r}: {exc.strerror}") from None
    return sock


def unix_serve(
    handler: Callable[[ServerConnection], None],
    path: PathLike | None = None,
    **kwargs: Any,
) -> Server:
    """Make a WebSocket server on a Unix socket; see :func:`serve`.

    Args:
        handler: As for ``serve()``.
        path: Path of the socket.
        **kwargs: As for ``serve()``.
    """
    return serve(handler, unix=True, path=path, **kwargs)
