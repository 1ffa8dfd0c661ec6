"""A server's connections whose opening handshake waits for an answer by the program.

The request is checked as everywhere, then the program is told.  It may answer at once,
which costs no task, or later: until then the connection reads nothing, and the time
limit for opening handshakes goes on.
"""

from __future__ import annotations

import asyncio
import functools
import http
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import handshake
from .._stream import loop_state
from ..asyncio.connection import Marks
from ..asyncio.incoming import HookSteps, ServerConnection
from ..datastructures import Headers
from ..exceptions import InvalidHandshake
from ..http11 import Request, Response
from ..listener import Listener
from ..protocol import CONNECTING
from ..server import ServerProtocol
from ..typing import Subprotocol
from .frames import FrameTap
from .request import WebSocketRequest

if TYPE_CHECKING:
    from ..asyncio.server import Server

__all__ = ["IncomingConnection", "chosen_subprotocol"]


class IncomingConnection(ServerConnection):
    """A connection that the program accepts or rejects.

    The arguments are those of :class:`~websock.asyncio.incoming.ServerConnection`.
    """

    __slots__ = (
        "_answer_waiter",
        "chosen",
        "former",
        "frames",
        "is_deaf",
        "kept",
        "owner",
    )

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: Marks = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
        listener: Listener | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            protocol,
            server,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
            listener=listener,
            **kwargs,
        )
        self.owner: Any = None
        """The :class:`~websock.events.WebSocketServer`."""
        self.chosen: str | None = None
        """Subprotocol that the program accepts."""
        self.frames: FrameTap | None = None
        """Set when frames are delivered instead of messages."""
        self.former: asyncio.BaseProtocol | None = None
        """Who had the transport before, to be told of the end."""
        self.kept: Any = None
        """What must live as long as the connection."""
        self.is_deaf = False
        """Whether the program has paused it, so that pongs are not noticed."""
        self._answer_waiter: asyncio.Future[None] | None = None

    # -- the request -----------------------------------------------------------------

    def _answer(self, request: Request) -> HookSteps[None]:
        """Have the program answer the request; gives what has to be awaited."""
        response = yield from self._call_hook("process_request", request)
        if response is not None:
            self.send_answer(response)
            return
        if not self.is_unanswered:
            return  # the hook took too long
        try:
            handshake.check_request(request)
            handshake.check_host(request, self.protocol.hosts)
            handshake.check_origin(
                handshake.get_origin(request.headers), self.protocol.origins
            )
            event = WebSocketRequest(self, request)
        except InvalidHandshake as exc:
            status, text, headers = handshake.rejection(exc)
            response = self.protocol.reject(status, text)
            for name, value in headers:
                response.headers.set_insecure(name, value)
            self.protocol.handshake_exc = exc
            self.send_answer(response)
            return
        self.owner.tell_request(event)
        if self.is_unanswered:
            self._answer_waiter = self.loop.create_future()
            yield self._answer_waiter

    @property
    def is_unanswered(self) -> bool:
        """Whether an answer to the request can still be sent."""
        return (
            self.response is None
            and self.protocol.state is CONNECTING
            and self.protocol.handshake_exc is None
            and not self.is_lost
            and not self.is_closing
        )

    def accept(self, subprotocol: str | None, headers: Headers) -> bool:
        """Open the connection; return whether it is open.

        Args:
            subprotocol: The subprotocol, which the client must have offered.
            headers: Headers to add to the response.
        """
        assert self.request is not None
        self.chosen = subprotocol
        response = self.protocol.accept(self.request)
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            for name, value in headers.raw_items():
                response.headers[name] = value
        self.send_answer(response)
        return self.is_open

    def reject(self, response: Response) -> None:
        """Refuse the connection."""
        self.protocol.handshake_exc = InvalidHandshake("rejected by the program")
        self.send_answer(response)

    def send_answer(self, response: Response) -> None:
        """Send the response to the request."""
        if self.server.server_header is not None:
            response.headers["Server"] = self.server.server_header
        self._respond(response)
        waiter = self._answer_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- what it delivers ------------------------------------------------------------

    def deliver_frames(self, listener: Listener) -> None:
        """Have frames queued, one by one, and tell the listener of all the rest."""
        self._listener = listener
        self.frames = FrameTap()

    def handshake_done(self) -> None:
        """Go from the opening handshake to messages, or to frames."""
        if self.frames is not None:
            protocol = self.protocol
            protocol.make_writer()  # before: only what comes in is of interest
            self.frames.inner = protocol._transform
            protocol._transform = self.frames
            make_reader = functools.partial(protocol.make_reader, assemble=False)
            setattr(protocol, "make_reader", make_reader)  # noqa: B010  # this one's
        super().handshake_done()

    # -- pauses ----------------------------------------------------------------------

    def listen_again(self) -> None:
        """End a pause: a pong that is due has all its time from now on."""
        self.is_deaf = False
        if self._ping_sent is not None and self.is_open:
            self._expect_pong()

    def _ping_timed_out(self) -> None:
        if self.is_deaf and self.is_open:
            self._expect_pong()
        else:
            super()._ping_timed_out()

    def _expect_pong(self) -> None:
        if self.ping_timeout is None:
            return  # nothing is awaited, and the next ping is on its way
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop_state(self.loop).wheel.call_later(
            self.ping_timeout, self._ping_timed_out
        )

    # -- the end ---------------------------------------------------------------------

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; called once, by the stream or the transport."""
        if self.is_lost:
            return
        try:
            super().connection_lost(exc)
        finally:
            former, self.former = self.former, None
            self.kept = None
            if former is not None:
                former.connection_lost(exc if isinstance(exc, Exception) else None)


def chosen_subprotocol(
    connection: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Say which subprotocol the program chose; for ``serve()``."""
    assert isinstance(connection, IncomingConnection)
    return None if connection.chosen is None else Subprotocol(connection.chosen)
