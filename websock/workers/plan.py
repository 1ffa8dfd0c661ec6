"""What workers are to do: data that reaches every worker, in whatever process."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..asyncio.server import Server, serve

__all__ = [
    "BINDING",
    "DRAIN",
    "Lifespan",
    "Order",
    "Plan",
    "StartError",
    "describe",
    "loop_factory",
]

Lifespan: TypeAlias = Callable[[Server], AbstractAsyncContextManager[Any]]

# Seconds in which a worker that stops gracefully closes its connections.
DRAIN = 5.0

# Options of serve() that say where to listen: the supervisor does that, for all.
BINDING = frozenset(("family", "flags", "reuse_address", "reuse_port"))
LOOPS = ("asyncio", "uvloop")


class StartError(Exception):
    """The workers cannot start: what they shall serve cannot be loaded, or fails."""


@dataclass(frozen=True)
class Plan:
    """What a worker is to do.

    Attributes:
        application: What ``serve()`` takes as a handler; or ``"module:name"`` of that,
            or of an object that ``serve()`` or ``route()`` returned.
        options: Options of ``serve()``.
        lifespan: Called with the server before it accepts connections; returns an
            asynchronous context manager that lasts as long as the server.  Or the
            ``"module:name"`` of it.
        certificate: File with a certificate, for TLS.
        key: File with its key, if it is apart.
        drain: Seconds in which connections are closed at a graceful stop.
        loop: ``"asyncio"`` or ``"uvloop"``.
        hub: What carries topics, unless the options say that; workers that are
            processes find it in their environment.
    """

    application: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    lifespan: Lifespan | str | None = None
    certificate: str | None = None
    key: str | None = None
    drain: float = DRAIN
    loop: str = "asyncio"
    hub: str | None = None

    def check(self) -> None:
        """Check what can be checked before there is a worker.

        Raises:
            TypeError: When an option is unknown, or something is of a wrong type.
            ValueError: When something has a wrong value.
        """
        if not self.drain >= 0:
            raise ValueError(f"drain must not be negative: {self.drain}")
        if self.loop not in LOOPS:
            raise ValueError(f"loop must be asyncio or uvloop: {self.loop!r}")
        if self.key is not None and self.certificate is None:
            raise ValueError("a key needs its certificate")
        if self.certificate is not None and self.options.get("ssl") is not None:
            raise ValueError("ssl and certificate cannot be given together")
        for name in (self.application, self.lifespan):
            if isinstance(name, str) and not all(name.partition(":")):
                raise ValueError(f"expected 'module:name', got {name!r}")
        lifespan = self.lifespan
        if not (lifespan is None or isinstance(lifespan, str) or callable(lifespan)):
            raise TypeError(
                "lifespan must be a function or 'module:name', "
                f"not {type(lifespan).__name__}"
            )
        is_name = isinstance(self.application, str)
        handler = _nothing if is_name else self.application
        if not isinstance(handler, serve):
            serve(handler, port=0, **self.options)
        elif self.options or self.certificate is not None:
            raise TypeError("serve() has the options: they cannot be given again")

    def tls_context(self) -> ssl.SSLContext | None:
        """Make the context for TLS, if there is a certificate."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True)
class Order:
    """How a worker is to stop.

    Attributes:
        seconds: Time in which connections are closed; ``None`` closes all at once and
            does not wait long for anybody.
        code: Close code for them.
    """

    seconds: float | None
    code: int


async def _nothing(connection: Any) -> None:
    """Stand for a handler that is not loaded yet."""


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes event loops of a name.

    Raises:
        StartError: When it is not installed.
    """
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError as exc:
        raise StartError("uvloop is not installed") from exc
    return uvloop.new_event_loop


def describe(exc: BaseException) -> str:
    """Return what kept a worker from serving, for people.

    One line where that says all; a traceback where it is a failure of the application.
    """
    if isinstance(exc, (StartError, OSError)):
        return str(exc)
    return "".join(traceback.format_exception(exc)).rstrip()
