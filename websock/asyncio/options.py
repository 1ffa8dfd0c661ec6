"""The options of ``connect()`` about sockets, TLS and listeners: checks, defaults."""

from __future__ import annotations

import inspect
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..listener import Listener, check_listener
from ..proxy import parse_proxy
from ..uri import WebSocketURI

__all__ = ["TCP_OPTIONS", "check_options", "listener_factory", "tls_arguments"]

TCP_OPTIONS = frozenset(
    (
        "host",
        "port",
        "family",
        "proto",
        "flags",
        "local_addr",
        "happy_eyeballs_delay",
        "interleave",
        "all_errors",
    )
)
TLS_OPTIONS = (
    "ssl",
    "server_hostname",
    "ssl_handshake_timeout",
    "ssl_shutdown_timeout",
)
PROXY_OPTIONS = tuple(f"proxy_{name}" for name in TLS_OPTIONS)
ALL_OPTIONS = TCP_OPTIONS.union(TLS_OPTIONS, PROXY_OPTIONS, ("sock", "unix", "path"))


def check_options(
    uri: WebSocketURI, proxy: str | Literal[True] | None, options: Mapping[str, Any]
) -> None:
    """Check the options about sockets and TLS, by themselves and together.

    Args:
        uri: URI of the server.
        proxy: The ``proxy`` argument.
        options: The options.

    Raises:
        InvalidProxy: When ``proxy`` is not the URL of a proxy.
        TypeError: When an option is unknown, or of a wrong type.
        ValueError: When an option is wrong, or does not go with another one.
    """
    for name in options:
        if name not in ALL_OPTIONS:
            raise TypeError(f"connect() got an unexpected keyword argument {name!r}")
    sock = options.get("sock")
    if sock is not None:
        check_socket(sock)
    if options.get("unix"):
        check_unix(options)
        proxy = None
    elif options.get("path") is not None:
        raise TypeError("path is for unix_connect(), connect() has no such argument")
    elif sock is not None:
        for name in TCP_OPTIONS:
            if options.get(name):
                raise ValueError(f"{name} and sock cannot be given together")
        proxy = None

    check_tls(uri.secure, "a ws:// URI", "a wss:// URI", "", options)
    if proxy is None:
        check_tls(False, "a connection without a proxy", "", "proxy_", options)
    elif proxy is not True:
        secure = parse_proxy(proxy).scheme == "https"
        check_tls(secure, "this proxy", "an https:// proxy", "proxy_", options)


def check_socket(sock: Any) -> None:
    """Check that an object is a plain stream socket.

    Raises:
        TypeError: When it is not a socket, or one that speaks TLS.
        ValueError: When it is a socket of another type.
    """
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket, not {type(sock).__name__}")
    ssl = sys.modules.get("ssl")  # who has not imported it has no such socket
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError("sock must be a plain socket: use a wss:// URI, and ssl")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"sock must be a stream socket, not {sock.type.name}")


def check_unix(options: Mapping[str, Any]) -> None:
    """Check the options of ``unix_connect()``.

    Raises:
        NotImplementedError: When the system has no Unix sockets.
        TypeError: When there is an option that they do not have.
        ValueError: Unless there is either a path or a socket.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError("this system has no Unix sockets")
    for name in TCP_OPTIONS:
        if name in options:
            raise TypeError(
                f"unix_connect() got an unexpected keyword argument {name!r}"
            )
    if (options.get("path") is None) == (options.get("sock") is None):
        raise ValueError("either path or sock must be given, and not both")


def check_tls(
    secure: bool, plain: str, encrypted: str, prefix: str, options: Mapping[str, Any]
) -> None:
    """Check the options about TLS.

    Args:
        secure: Whether TLS is spoken.
        plain: What it is otherwise, for errors.
        encrypted: What it is, for errors.
        prefix: Prefix of the options' names.
        options: The options.

    Raises:
        TypeError: When ``ssl`` is not an ``SSLContext``.
        ValueError: When they say something else than ``secure``, or check nothing.
    """
    if not secure:
        for name in TLS_OPTIONS:
            if options.get(prefix + name) is not None:
                raise ValueError(f"{prefix}{name} is not for {plain}")
        return
    context = options.get(f"{prefix}ssl", True)
    if context is None or context is False:
        raise ValueError(f"{prefix}ssl={context} is not for {encrypted}")
    if context is not True:
        import ssl

        if not isinstance(context, ssl.SSLContext):
            raise TypeError(
                f"{prefix}ssl must be an SSLContext or True, "
                f"not {type(context).__name__}"
            )
    if options.get(f"{prefix}server_hostname") == "" and (
        context is True or context.check_hostname
    ):
        raise ValueError(
            f"{prefix}server_hostname is empty: a certificate is for a host name; "
            "pass an SSLContext that does not check it"
        )


def tls_arguments(options: Mapping[str, Any], prefix: str, host: str) -> dict[str, Any]:
    """Return the TLS arguments for the loop's ``create_connection()``.

    Args:
        options: The options.
        prefix: Prefix of the options' names: empty, or ``proxy_``.
        host: Name or address of the host that must have the certificate.

    Raises:
        ValueError: When TLS is switched off.
    """
    context = options.get(f"{prefix}ssl", True)
    if context is True:
        import ssl

        context = ssl.create_default_context()
    elif not context:
        raise ValueError(f"{prefix}ssl={context} is not for a server that speaks TLS")
    server_hostname = options.get(f"{prefix}server_hostname")
    if server_hostname is None:
        server_hostname = host.partition("%")[0]  # without the zone of an address
    arguments = {"ssl": context, "server_hostname": server_hostname}
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        value = options.get(prefix + name)
        if value is not None:
            arguments[name] = value
    return arguments


def listener_factory(listener: Any) -> Callable[[], Listener] | None:
    """Return what makes the listener of a connection.

    Args:
        listener: A listener, or a class or function without arguments that makes
            one; ``None`` for no listener.

    Raises:
        TypeError: When it is none of these.
    """
    if listener is None:
        return None
    if not isinstance(listener, type) and hasattr(listener, "on_message"):
        instance: Any = listener
        check_listener(instance)
        return lambda: instance
    if not callable(listener) or inspect.iscoroutinefunction(listener):
        raise TypeError(
            "listener must be a websock.Listener, or a class or function that makes "
            f"one, not {type(listener).__name__}"
        )
    if isinstance(listener, type):
        check_listener(listener)
    try:
        signature = inspect.signature(listener)
    except ValueError:  # some callables have none
        pass
    else:
        try:
            signature.bind()
        except TypeError as exc:
            name = getattr(listener, "__name__", repr(listener))
            raise TypeError(
                f"listener {name} must be callable without arguments: {exc}"
            ) from None

    def make() -> Listener:
        made: Listener = listener()
        check_listener(made)
        return made

    return make
