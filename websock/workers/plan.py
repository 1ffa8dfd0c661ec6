"""What workers are to do: data that reaches every worker, in whatever process."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..asyncio.server import Server, serve

if TYPE_CHECKING:
    from .hub_wire import HubAddress

__all__ = ["BINDING", "DRAIN", "Lifespan", "Plan", "StartError", "loop_factory"]

Lifespan: TypeAlias = Callable[[Server], AbstractAsyncContextManager[Any]]

# Seconds in which a worker that stops gracefully closes its connections.
DRAIN = 5.0

# Options of serve() that say where to listen: the supervisor does that, for all.
BINDING = frozenset(
    ("family", "flags", "host", "path", "port", "reuse_address", "reuse_port", "sock")
)
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
        is_factory: Whether the application is a function that returns it, which may
            be a coroutine function.
        lifespan: Called with the server before it accepts connections; returns an
            asynchronous context manager that lasts as long as the server.  Or the
            ``"module:name"`` of it.
        certificate: File with a certificate, for TLS.
        key: File with its key, if it is apart.
        drain: Seconds in which connections are closed at a graceful stop.
        loop: ``"asyncio"`` or ``"uvloop"``.
    """

    application: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    is_factory: bool = False
    lifespan: Lifespan | str | None = None
    certificate: str | None = None
    key: str | None = None
    drain: float = DRAIN
    loop: str = "asyncio"

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
        names = (self.application, self.lifespan)
        for name in names:
            if isinstance(name, str) and not all(name.partition(":")):
                raise ValueError(f"expected 'module:name', got {name!r}")
        if self.lifespan is not None and not isinstance(self.lifespan, str):
            if not callable(self.lifespan):
                raise TypeError(
                    "lifespan must be a function or 'module:name', "
                    f"not {type(self.lifespan).__name__}"
                )
        is_handler = not self.is_factory and not isinstance(self.application, str)
        handler = self.application if is_handler else _nothing
        if not isinstance(handler, serve):
            serve(handler, port=0, **self.options)

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


@dataclass(frozen=True)
class Place:
    """Which of the workers one is.

    Attributes:
        number: Its number, from 1 on.
        hub: Where the hub of the workers is; ``None`` when there is none.
        kind: ``"process"`` or ``"thread"``.
    """

    number: int
    hub: HubAddress | None
    kind: str


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
    return uvloop.new_event_loop  # type: ignore[no-any-return]
