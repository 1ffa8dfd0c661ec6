"""What ``serve()`` checks at the call, and what it and ``connect()`` both check."""

from __future__ import annotations

import functools
import inspect
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..datastructures import Headers
from ..listener import Listener, check_listener
from .options import check_socket

__all__ = [
    "check_callables",
    "check_counts",
    "check_hosts",
    "check_limits",
    "check_listening",
    "check_origins",
    "check_server_header",
    "sort_handler",
]

# Arguments for loop.create_server() and loop.create_unix_server().
TCP_OPTIONS = frozenset(
    ("family", "flags", "reuse_address", "reuse_port", "keep_alive")
)
TLS_OPTIONS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")
OPTIONS = TCP_OPTIONS.union(
    TLS_OPTIONS, ("ssl", "sock", "backlog", "start_serving", "unix", "path")
)

# A frame cannot be longer (RFC 6455, 5.2).
LARGEST = 2**63 - 1


def check_limits(
    seconds: Mapping[str, float | None],
    max_size: int | tuple[int | None, int | None] | None,
    max_fragments: int | None = None,
) -> None:
    """Check timeouts, and the limits on incoming messages.

    Args:
        seconds: Timeouts and intervals, by the names of their arguments.
        max_size: The argument of this name.
        max_fragments: The argument of this name.

    Raises:
        TypeError: When something is not a number.
        ValueError: When a number makes no sense.
    """
    for name, value in seconds.items():
        if value is None:
            continue
        try:
            makes_sense = value >= 0
        except TypeError:
            raise TypeError(
                f"{name} must be a number or None, not {type(value).__name__}"
            ) from None
        if not makes_sense:
            raise ValueError(f"{name} must not be negative: {value}")
    sizes = max_size if isinstance(max_size, tuple) else (max_size,)
    if isinstance(max_size, tuple) and len(max_size) != 2:
        raise ValueError(
            "max_size must be a number, or a pair of numbers, not a tuple of "
            f"{len(max_size)}"
        )
    for size in sizes:
        if size is None:
            continue
        if not isinstance(size, int):
            raise TypeError(
                f"max_size must be an int, a pair or None, not {type(size).__name__}"
            )
        if not 0 <= size <= LARGEST:
            raise ValueError(f"max_size must be between 0 and 2**63-1: {size}")
    if max_fragments is not None and not 1 <= max_fragments <= LARGEST:
        raise ValueError(
            f"max_fragments must be between 1 and 2**63-1: {max_fragments}"
        )


def check_counts(**arguments: int | None) -> None:
    """Check arguments that are numbers of connections, or ``None``.

    Raises:
        TypeError: When one is no number.
        ValueError: When one is below 1.
    """
    for name, value in arguments.items():
        if value is None:
            continue
        if not isinstance(value, int):
            raise TypeError(
                f"{name} must be an int or None, not {type(value).__name__}"
            )
        if value < 1:
            raise ValueError(f"{name} must be at least 1: {value}")


def check_origins(origins: Any) -> None:
    """Check the ``origins`` argument.

    Raises:
        TypeError: When it is not a list of text, expressions and ``None``.
    """
    _check_patterns(
        "origins", origins, (str, type(None)), "expressions for str, or None"
    )


def check_hosts(hosts: Any) -> None:
    """Check the ``hosts`` argument.

    Raises:
        TypeError: When it is not a list of text and expressions.
    """
    _check_patterns("hosts", hosts, (str,), "or expressions for str")


def _check_patterns(
    name: str, values: Any, kinds: tuple[type, ...], others: str
) -> None:
    if values is None:
        return
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list, not a str")
    for value in values:
        pattern = value.pattern if isinstance(value, re.Pattern) else value
        if not isinstance(pattern, kinds):
            raise TypeError(
                f"{name} must be str, {others}, not {type(pattern).__name__}"
            )


def check_server_header(value: Any) -> None:
    """Check the ``server_header`` argument.

    Raises:
        TypeError: When it is not text.
        ValueError: When it cannot be in a header.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"server_header must be a str, not {type(value).__name__}")
    Headers({"Server": value})


def check_callables(**arguments: Any) -> None:
    """Check arguments that must be functions, or ``None``.

    Raises:
        TypeError: When they are not.
    """
    for name, value in arguments.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be callable, not {type(value).__name__}")


def check_listening(host: Any, port: Any, options: Mapping[str, Any]) -> None:
    """Check the arguments that say where to listen, and on what.

    Args:
        host: The argument of this name.
        port: The argument of this name.
        options: Arguments for the loop's ``create_server()``.

    Raises:
        NotImplementedError: When the system has no Unix sockets.
        TypeError: When one is unknown, or of a wrong type.
        ValueError: When one is wrong, or they do not go together.
    """
    for name in options:
        if name in ("workers", "threads"):
            raise TypeError(f"serve() serves in this loop: {name} is for websock.run()")
        if name not in OPTIONS:
            raise TypeError(f"serve() got an unexpected keyword argument {name!r}")
    sock = options.get("sock")
    if sock is not None:
        check_socket(sock)
    if options.get("unix"):
        if not hasattr(socket, "AF_UNIX"):
            raise NotImplementedError("this system has no Unix sockets")
        if host is not None or port is not None:
            raise ValueError("a Unix socket has no host and no port")
        if (options.get("path") is None) == (sock is None):
            raise ValueError("either path or sock must be given, and not both")
    elif options.get("path") is not None:
        raise TypeError("path is for unix_serve(), serve() has no such argument")
    elif sock is not None:
        if host is not None or port is not None:
            raise ValueError("sock and host or port cannot be given together")
    else:
        check_address(host, port)
    check_tls(options)
    backlog = options.get("backlog", 0)
    if not isinstance(backlog, int):
        raise TypeError(f"backlog must be an int, not {type(backlog).__name__}")


def check_address(host: Any, port: Any) -> None:
    """Check ``host`` and ``port``.

    Raises:
        TypeError: When one is of a wrong type.
        ValueError: When there is neither, or the port is out of range.
    """
    if host is None and port is None:
        raise ValueError("there is nothing to listen on: give host and port, or sock")
    if isinstance(port, int):
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be between 0 and 65535: {port}")
    elif port is not None and not isinstance(port, str):
        raise TypeError(f"port must be an int, not {type(port).__name__}")
    if host is None or isinstance(host, str):
        return
    if not isinstance(host, Iterable) or isinstance(host, (bytes, bytearray)):
        raise TypeError(f"host must be a str, or several, not {type(host).__name__}")
    for name in host:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"host must be a str, or several, not {name!r}")


def check_tls(options: Mapping[str, Any]) -> None:
    """Check the arguments about TLS.

    Raises:
        TypeError: When ``ssl`` is not an ``SSLContext``.
        ValueError: When there are others without it.
    """
    context = options.get("ssl")
    if context is None:
        for name in TLS_OPTIONS:
            if options.get(name) is not None:
                raise ValueError(f"{name} is for TLS: give ssl too")
        return
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an SSLContext, not {type(context).__name__}")


def sort_handler(
    handler: Any,
) -> tuple[Callable[..., Any] | None, Callable[[], Listener] | None]:
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
    if not makes_listeners(handler):
        return handler, None

    def make_listener() -> Listener:
        listener = handler()
        check_listener(listener)
        return listener  # type: ignore[no-any-return]

    return None, make_listener


def makes_listeners(function: Callable[..., Any]) -> bool:
    """Tell a function that makes listeners from a handler: it takes no connection."""
    origin: Any = function
    while isinstance(origin, functools.partial):
        origin = origin.func
    if isinstance(origin, type) and issubclass(origin, Listener):
        return True
    if inspect.iscoroutinefunction(function):
        return False
    try:
        signature = inspect.signature(function)
    except ValueError:  # some callables have none
        return False
    for arguments, fits in (((None,), False), ((), True)):
        try:
            signature.bind(*arguments)
        except TypeError:
            if fits:
                return False
        else:
            if not fits:
                return False
    return True
