"""From a URI to a stream that a handshake can begin on: TCP, TLS, Unix, proxies."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..asyncio.sockets import set_nodelay
from ..asyncio.tunnels import SOCKS_TIMEOUT, Answer
from ..exceptions import ProxyError
from ..proxy import (
    Proxy,
    get_proxy,
    make_socks,
    parse_proxy,
    prepare_connect_request,
)
from .deadlines import Deadline
from .streams import (
    SocketStream,
    Stream,
    TlsStream,
    make_stream,
    recv_within,
    send_within,
)

if TYPE_CHECKING:
    from ..uri import WebSocketURI

__all__ = ["connect_tcp", "open_stream", "start_tls"]

Address = tuple[str, int]


def open_stream(
    uri: WebSocketURI,
    proxy: str | Literal[True] | None,
    options: Mapping[str, Any],
    user_agent_header: str | None,
    deadline: Deadline,
) -> Stream:
    """Connect to a server, directly or through a proxy, with TLS if it is called for.

    Args:
        uri: URI of the server.
        proxy: URL of a proxy; ``True`` looks for one, ``None`` uses none.
        options: The options of ``connect()`` about sockets and TLS, checked.
        user_agent_header: Value of ``User-Agent`` for proxies.
        deadline: When to give up.

    Raises:
        OSError: When that fails.
        ProxyError: When the proxy does not do its part.
        TimeoutError: When it takes too long.
    """
    stream: Stream
    if options.get("sock") is not None:
        stream = take_socket(options["sock"])
    elif options.get("unix"):
        stream = SocketStream(connect_unix(options["path"], deadline))
    else:
        stream = open_tcp(uri, proxy, options, user_agent_header, deadline)
    if not uri.secure:
        return stream
    return start_tls(
        stream,
        options.get("ssl"),
        options.get("server_hostname"),
        uri.host,
        deadline,
    )


def open_tcp(
    uri: WebSocketURI,
    proxy: str | Literal[True] | None,
    options: Mapping[str, Any],
    user_agent_header: str | None,
    deadline: Deadline,
) -> Stream:
    """Connect over TCP, directly or through a proxy."""
    tcp = {
        name: options[name]
        for name in ("source_address", "timeout", "all_errors")
        if name in options
    }
    through: Proxy | None = None
    if proxy is True:
        proxy = get_proxy(uri)
    if proxy is not None:
        through = parse_proxy(proxy)
    if through is None:
        address = options.get("address") or (uri.host, uri.port)
        return SocketStream(connect_tcp(address, deadline, **tcp))
    if through.scheme.startswith("socks"):
        source = tcp.get("source_address")
        return SocketStream(connect_socks(through, uri, source, deadline))
    request = prepare_connect_request(through, uri, user_agent_header)
    sock = connect_tcp((through.host, through.port), deadline, **tcp)
    stream: Stream = SocketStream(sock)
    if through.scheme == "https":
        stream = start_tls(
            stream,
            options.get("proxy_ssl"),
            options.get("proxy_server_hostname"),
            through.host,
            deadline,
        )
    try:
        send_within(stream, request, deadline)
        answer = Answer()
        while not answer.feed(recv_within(stream, 65536, deadline)):
            pass
    except BaseException:
        stream.close()
        raise
    return stream


def take_socket(sock: socket.socket) -> Stream:
    """Take over a connected socket from the caller.

    Raises:
        OSError: When it is not connected.
        ValueError: When it is closed.
    """
    if sock.fileno() < 0:
        raise ValueError("sock is closed: a socket serves for one connection")
    try:
        sock.getpeername()
        set_nodelay(sock)
        return make_stream(sock)
    except BaseException:
        sock.close()
        raise


def connect_tcp(
    address: Address,
    deadline: Deadline,
    *,
    source_address: Address | None = None,
    timeout: float | None = None,
    all_errors: bool = False,
) -> socket.socket:
    """Connect to the first address of a host that answers.

    Args:
        address: Host and port.
        deadline: When to give up.
        source_address: Host and port to connect from.
        timeout: Seconds for each address, if there are several.
        all_errors: Raise all errors as an ``ExceptionGroup``.

    Raises:
        OSError: When no address can be connected to.
        TimeoutError: When it takes too long.
    """
    host, port = address
    try:
        infos = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except socket.gaierror as exc:
        # The system's text does not say which name it is about.
        raise socket.gaierror(exc.errno, f"{exc.strerror}: {host}") from None
    except UnicodeError:
        raise socket.gaierror(
            socket.EAI_NONAME, f"host name cannot be resolved: {host}"
        ) from None
    if not infos:
        raise OSError(f"host has no address: {host}")
    errors: list[OSError] = []
    try:
        for family, kind, proto, _, target in infos:
            left = deadline.check()
            if timeout is not None and (left is None or timeout < left):
                left = timeout
            sock = socket.socket(family, kind, proto)
            try:
                sock.settimeout(left)
                set_nodelay(sock)
                if source_address is not None:
                    sock.bind(source_address)
                sock.connect(target)
                return sock
            except OSError as exc:
                sock.close()
                errors.append(exc)
            except BaseException:
                sock.close()
                raise
        if all_errors:
            raise ExceptionGroup(f"cannot connect to {host}", errors)
        raise errors[0]
    finally:
        errors = []  # they hold this frame


def connect_unix(path: Any, deadline: Deadline) -> socket.socket:
    """Connect to a Unix socket.

    Raises:
        OSError: When that fails.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.check())
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


def start_tls(
    stream: Stream,
    context: Any,
    server_hostname: str | None,
    host: str,
    deadline: Deadline,
) -> TlsStream:
    """Speak TLS with a server from here on.

    Args:
        stream: The stream to the server; it is closed when that fails.
        context: An ``SSLContext``; ``None`` or ``True`` for the default one.
        server_hostname: Name to find in the certificate.
        host: The same, if there is none.
        deadline: When to give up.

    Raises:
        OSError: When the handshake of TLS fails.
        TimeoutError: When it takes too long.
    """
    try:
        if context is None or context is True:
            context = ssl_module.create_default_context()
        if server_hostname is None:
            server_hostname = host.partition("%")[0]  # without the zone of an address
        tls = TlsStream(stream, context, server_hostname=server_hostname)
        tls.handshake(deadline)
    except BaseException:
        stream.close()
        raise
    return tls


def connect_socks(
    proxy: Proxy, uri: WebSocketURI, source_address: Address | None, deadline: Deadline
) -> socket.socket:
    """Make a tunnel through a SOCKS proxy.

    Raises:
        ImportError: When python-socks is not installed.
        OSError: When the proxy cannot be connected to.
        ProxyError: When it does not make the tunnel.
    """
    if deadline.left() is None:
        deadline = Deadline(SOCKS_TIMEOUT)
    way = WayToProxy(deadline, source_address)
    socks = make_socks(proxy, "python_socks.sync", way)
    try:
        socks.connect(uri.host, uri.port, timeout=deadline.check())
    except Exception as exc:
        way.close()
        if deadline.left() == 0:
            raise TimeoutError("timed out") from exc
        if isinstance(exc, OSError):
            raise
        raise ProxyError(f"failed to connect through the SOCKS proxy: {exc}") from exc
    except BaseException:
        way.close()
        raise
    assert way.sock is not None
    return way.sock


class WayToProxy:
    """Connects to a SOCKS proxy, and is the socket that python-socks talks on.

    python-socks has a time limit for each system call: a proxy that sends a byte now
    and then would never reach it. Here there is one deadline for all of them.

    Args:
        deadline: When to give up.
        source_address: Host and port to connect from.

    Attributes:
        sock: The socket, once it is connected.
    """

    def __init__(self, deadline: Deadline, source_address: Address | None) -> None:
        self._deadline = deadline
        self._source_address = source_address
        self.sock: socket.socket | None = None

    def connect(self, dest_host: str, dest_port: int, **kwargs: Any) -> WayToProxy:
        """Connect to the proxy."""
        self.sock = connect_tcp(
            (dest_host, dest_port), self._deadline, source_address=self._source_address
        )
        return self

    def recv(self, size: int) -> bytes:
        """Receive bytes before the deadline."""
        assert self.sock is not None
        self.sock.settimeout(self._deadline.check())
        return self.sock.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send bytes before the deadline."""
        assert self.sock is not None
        self.sock.settimeout(self._deadline.check())
        self.sock.sendall(data)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self.sock is not None:
            self.sock.close()
