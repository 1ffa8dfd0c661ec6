"""Routes requests by path and subprotocol."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from .callbacks import call
from .request import WebSocketRequest

if TYPE_CHECKING:
    from .server import WebSocketServer

__all__ = ["WebSocketRouter"]

C = TypeVar("C", bound=Callable[..., Any])


def compile_glob(path: str) -> re.Pattern[str]:
    """Make the expression for a path in which ``*`` stands for anything.

    Clients choose what is matched: each part is looked for once, where it comes first,
    and never again elsewhere. For the last one only the end will do.
    """
    first, *parts = map(re.escape, path.split("*"))
    if not parts:
        return re.compile(first)
    *middle, last = parts
    steps = "".join(f"(?>.*?{part})" for part in middle if part)
    return re.compile(f"{first}{steps}.*{last}", re.DOTALL)


class Mount(NamedTuple):
    """An entry of the router."""

    key: str | re.Pattern[str]
    path: re.Pattern[str]
    protocol: str | None
    callback: Callable[..., Any]

    def match(self, request: WebSocketRequest) -> bool:
        """Whether a request is for this entry."""
        if self.path.fullmatch(request.path) is None:
            return False
        if self.protocol == "*":
            return True
        if self.protocol is None:
            return not request.requested_protocols
        return self.protocol in request.requested_protocols


class WebSocketRouter:
    """Calls the callback that a path and a subprotocol are mounted for.

    ::

        router = WebSocketRouter(server)

        @router.mount("/chat/*", "chat")
        def chat(request):
            connection = request.accept("chat", request.origin)

    The first entry that fits gets the request; without one it is rejected with 404.

    Args:
        server: Server to route the requests of; see ``attach()``.
    """

    def __init__(self, server: WebSocketServer | None = None) -> None:
        self._mounts: list[Mount] = []
        self._servers: list[WebSocketServer] = []
        if server is not None:
            self.attach(server)

    def attach(self, server: WebSocketServer) -> None:
        """Route the requests of a server, of several with several calls."""
        server.on("request", self.handle)
        self._servers.append(server)

    def detach(self, server: WebSocketServer) -> None:
        """Undo ``attach()``."""
        server.off("request", self.handle)
        self._servers.remove(server)

    @overload
    def mount(
        self, path: str | re.Pattern[str], protocol: str | None = "*"
    ) -> Callable[[C], C]: ...

    @overload
    def mount(
        self, path: str | re.Pattern[str], protocol: str | None, callback: C
    ) -> C: ...

    def mount(
        self,
        path: str | re.Pattern[str],
        protocol: str | None = "*",
        callback: Any = None,
    ) -> Any:
        """Have a callback called for requests; also a decorator.

        Args:
            path: Path, in which ``*`` stands for anything; or an expression for the
                whole path.
            protocol: Subprotocol that the client must offer; ``"*"`` for any or none,
                ``None`` for clients that offer none.
            callback: Called with the request, as for the ``request`` event.

        Raises:
            TypeError: When an argument is of a wrong type.
            ValueError: When there is a callback for this already.
        """
        if isinstance(path, str):
            compiled = compile_glob(path)
        elif isinstance(path, re.Pattern):
            compiled = path
        else:
            raise TypeError(
                f"path must be str or an expression, not {type(path).__name__}"
            )
        if callback is None:
            return partial(self._decorate, path, protocol)
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        if self._find(path, protocol) is not None:
            raise ValueError(f"there is a callback for {path!r} and {protocol!r}")
        self._mounts.append(Mount(path, compiled, protocol, callback))
        return callback

    def unmount(self, path: str | re.Pattern[str], protocol: str | None = "*") -> None:
        """Undo ``mount()`` for the same path and subprotocol.

        Raises:
            LookupError: When there is no callback for them.
        """
        found = self._find(path, protocol)
        if found is None:
            raise LookupError(f"there is no callback for {path!r} and {protocol!r}")
        self._mounts.remove(found)

    def handle(self, request: WebSocketRequest) -> None:
        """Give a request to the entry that it is for."""
        for mount in self._mounts:
            if mount.match(request):
                call(mount.callback, (request,), request.ws.owner, "request")
                return
        if request.is_pending:
            request.reject(404, "There is no WebSocket here.")

    def _decorate(
        self, path: str | re.Pattern[str], protocol: str | None, callback: C
    ) -> C:
        self.mount(path, protocol, callback)
        return callback

    def _find(self, path: Any, protocol: str | None) -> Mount | None:
        for mount in self._mounts:
            if mount.key == path and mount.protocol == protocol:
                return mount
        return None
