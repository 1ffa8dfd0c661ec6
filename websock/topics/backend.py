"""What carries messages between processes: the interface, and which URL means which."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from .._compat import env_text
from ..prepared import PreparedMessage
from ..typing import LoggerLike
from .errors import BrokerError
from .gaps import Gap
from .history import Kept, Position

__all__ = [
    "Backend",
    "Deliver",
    "Hub",
    "default_backend",
    "hub_address",
    "make_backend",
    "register_backend",
]


class Deliver(Protocol):
    """Hands a message to the subscribers of this process."""

    def __call__(
        self,
        topic: str,
        message: PreparedMessage,
        key: str | None = None,
        position: Position | None = None,
    ) -> Position | None: ...


@dataclass
class Hub:
    """What a backend is given: where messages go, and what the program has asked for.

    Attributes:
        deliver: Takes each message that arrives, and each that is published while it
            cannot be carried.  Without a position it is numbered here.
        wanted: Returns whether somebody here has subscribed to a topic.
        lost: Takes what did not arrive.
        history: Messages of each topic to keep.
        max_bytes: Bytes of a message above which it is not kept.
    """

    deliver: Deliver
    wanted: Callable[[str], bool]
    lost: Callable[[Gap], None]
    history: int
    max_bytes: int
    logger: LoggerLike


class Backend:
    """The interface of what carries messages; all but ``publish()`` may do nothing.

    The methods are called in the loop's thread.

    Attributes:
        keeps: Whether it keeps messages itself, and numbers them, for all processes.
    """

    keeps: ClassVar[bool] = False

    async def start(self, hub: Hub) -> None:
        """Begin; called once, before anything else.

        Raises:
            BrokerError: When the broker cannot be reached.
        """

    async def stop(self) -> None:
        """End: nothing is delivered any more."""

    def publish(
        self, topic: str, message: PreparedMessage, key: str | None
    ) -> Position | None:
        """Take a message, without waiting.

        It comes to the subscribers of this process by ``hub.deliver()``, now or later.

        Returns:
            Its position, if it is known already.
        """
        raise NotImplementedError

    def subscribe(self, pattern: str) -> None:
        """Somebody here has subscribed to a pattern to which nobody had."""

    def unsubscribe(self, pattern: str) -> None:
        """Nobody here is subscribed to a pattern any more."""

    async def confirm(self, pattern: str) -> None:
        """Wait until messages of a pattern come, or it is clear that they do not."""

    async def kept(
        self, pattern: str, last: int | None, since: Mapping[str, Position]
    ) -> list[Kept]:
        """Return messages that are kept, in order; for backends that keep them.

        Args:
            pattern: Pattern of their topics.
            last: How many of each topic at most.
            since: Positions that have been reached.

        Raises:
            BrokerError: When the broker cannot be asked.
        """
        return []


#: Where the backends of this library are; they are imported when they are asked for.
_MODULES = {
    "local": "local",
    "memory": "memory",
    "nats": "nats",
    "redis": "redis",
    "rediss": "redis",
    "tls": "nats",
}
_factories: dict[str, Callable[..., Backend]] = {}


def register_backend(scheme: str, factory: Callable[..., Backend]) -> None:
    """Have URLs of a scheme mean a backend of the program's own.

    Args:
        scheme: What stands before ``://``.
        factory: Called with the URL, and with the options given to ``Topics``.
    """
    _factories[scheme] = factory


def hub_address() -> str | None:
    """Return the address of the hub of this process, if it has one."""
    return env_text("WEBSOCK_HUB")


#: What may be said to the default backend, whether there is a hub or not.
_HUB_OPTIONS = frozenset(("max_pending", "max_pending_bytes", "prefix", "timeout"))


def default_backend(**options: Any) -> Backend:
    """Make the backend of a program that does not choose one.

    In a worker it is the hub that all of them have in common, where its first topics
    are those of the first topics of the others, and so on.

    Raises:
        TypeError: When an option is unknown.
        ValueError: When an option has a wrong value.
    """
    scheme = "memory" if hub_address() is None else "local"
    for name in options.keys() - _HUB_OPTIONS:
        raise _no_option(scheme, name)
    if scheme == "memory":
        return make_backend("memory://")
    return make_backend("local://", **{"prefix": None, **options})


def _no_option(scheme: str, name: str) -> TypeError:
    return TypeError(
        f"Topics() got an unexpected keyword argument {name!r}: {scheme}:// "
        "has no such option"
    )


def make_backend(url: str, **options: Any) -> Backend:
    """Make the backend that a URL means; nothing is connected yet.

    Raises:
        BrokerError: When a package that it needs is not installed.
        TypeError: When it has no such option.
        ValueError: When no backend has this scheme.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if scheme not in _factories:
        # The URL is not shown: it may have a password.
        known = ", ".join(sorted({*_MODULES, *_factories}))
        if not separator:
            raise ValueError(
                "no backend is named: a URL begins with its scheme, as in "
                f"redis://localhost:6379; there are {known}"
            )
        if scheme not in _MODULES:
            raise ValueError(f"no backend for scheme {scheme!r}: there are {known}")
        name = _MODULES[scheme]
        try:
            module = importlib.import_module(f".{name}", __package__)
        except ImportError as exc:
            raise BrokerError(
                f"topics with {scheme} need a package: "
                f"pip install websock-fast[{name}] ({exc})"
            ) from exc
        _factories[scheme] = module.make
    try:
        return _factories[scheme](url, **options)
    except TypeError as exc:
        # It names a function that people have not called.
        found = re.search(r"unexpected keyword argument '(\w+)'", str(exc))
        if found is None or found[1] not in options:
            raise
        raise _no_option(scheme, found[1]) from exc
