"""A server's connections: from the request on, a handshake that hooks take part in."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from .._stream import loop_state
from ..admission import REFUSAL, RETRY_AFTER, Ticket
from ..constants import MAX_CONTROL_RATE
from ..exceptions import InvalidHandshake, InvalidState
from ..http11 import Request, Response
from ..listener import Listener
from ..protocol import CONNECTING, OPEN
from ..server import ServerProtocol
from ..slow import SlowConsumer
from ..typing import StatusLike
from .base import MAX_QUEUE_BYTES
from .connection import HOLD_FOR_HANDSHAKE, Connection, Marks

if TYPE_CHECKING:
    from ..topics.history import Since
    from ..topics.registry import Subscription
    from .server import Handler, Server

__all__ = ["ServerConnection"]

FAILED = (
    "Failed to open a WebSocket connection.\nSee server log for more information.\n"
)

T = TypeVar("T")
# Gives what has to be awaited, takes what comes of it.
HookSteps = Generator[Awaitable[Any], Any, T]


class ServerConnection(Connection):
    """A server's connection to a client.

    Args:
        protocol: Sans-IO connection.
        server: Server that the connection belongs to.

    The other arguments are those of :func:`serve`.
    """

    __slots__ = (
        "_first_ping_at",
        "_handshake_task",
        "accepted_at",
        "handler",
        "handler_kwargs",
        "server",
        "subscriptions",
        "ticket",
        "username",
    )

    protocol: ServerProtocol

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
        max_queue_bytes: int | None = MAX_QUEUE_BYTES,
        slow_consumer: SlowConsumer | None = None,
        max_control_rate: int | None = MAX_CONTROL_RATE,
    ) -> None:
        super().__init__(
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
            listener=listener,
            max_queue_bytes=max_queue_bytes,
            slow_consumer=slow_consumer,
            max_control_rate=max_control_rate,
        )
        self.server = server
        self.accepted_at: float | None = None
        """The loop's time when it was accepted, if TLS came before the request."""
        self.ticket: Ticket | None = None
        """That it was let in, on a server with ``max_connections``."""
        self.subscriptions: dict[str, Subscription] | None = None
        """What it has subscribed to, by pattern; ``None`` before."""
        self._handshake_task: asyncio.Task[None] | None = None
        self._first_ping_at: float | None = None
        self.username: str
        self.handler: Handler
        self.handler_kwargs: Mapping[str, Any]

    def respond(self, status: StatusLike, text: str) -> Response:
        """Make a plain text HTTP response, to return from ``process_request``.

        Args:
            status: HTTP status.
            text: Body; it is sent in UTF-8.
        """
        return self.protocol.reject(status, text)

    # -- topics ----------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        *,
        numbered: bool = False,
        last: int | None = None,
        since: Since | None = None,
    ) -> Subscription:
        """Get what is published about a topic, or about all that match a pattern.

        A message that several patterns match comes once.  The end of the connection
        ends it too.  Subscribing again to the same pattern replaces what was asked for.

        Args:
            pattern: Topic; or a pattern, in which ``*`` stands for one segment and
                ``**`` for any number of them.
            numbered: Begin each message with a line that says the topic and the
                position, ``"prices.eur 5f0c-1:17\\n"``.
            last: Send kept messages first, so many of each topic at most.
            since: Send first what came after this position, as far as it is kept; for
                a pattern, a position for each topic.

        Returns:
            What can be awaited, to know that the broker, if there is one, has been
            told, and kept messages were sent.

        Raises:
            ConnectionClosed: When the connection is closed.
            RuntimeError: When it is not open yet, or this is another thread than the
                loop's.
            TopicLimitError: When there are too many subscriptions.
            ValueError: When the pattern breaks a rule, or ``last`` or ``since`` is
                malformed.
        """
        return self.server.topics.subscribe(
            self, pattern, numbered=numbered, last=last, since=since
        )

    def unsubscribe(self, pattern: str) -> bool:
        """Undo ``subscribe()``.

        Args:
            pattern: The same pattern.

        Returns:
            Whether it had been subscribed to.

        Raises:
            RuntimeError: When this is another thread than the loop's.
        """
        return self.server.topics.unsubscribe(self, pattern)

    # -- opening ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a transport; asyncio's protocols."""
        super().connection_made(transport)
        self.server.add_connection(self)

    def time_opening(self, seconds: float) -> None:
        """Give the peer so many seconds for its request."""
        self._timer = loop_state(self.loop).wheel.call_later(
            seconds, ServerConnection._open_timed_out, self
        )

    def _start_keepalive(self) -> None:
        interval, limit = self.ping_interval, self.server.open_timeout
        if self._timer is None or interval is None or limit is None or interval < limit:
            super()._start_keepalive()
        else:
            # The deadline of the handshake comes first and sets the next one then:
            # most connections that are short see neither.
            self._first_ping_at = self.loop.time() + interval

    def _open_timed_out(self) -> None:
        self._timer = None
        if self.protocol.state is not CONNECTING:
            if self.is_open and self._first_ping_at is not None:
                self._keepalive_later(max(self._first_ping_at - self.loop.time(), 0))
                self._first_ping_at = None
            return
        if self._handshake_task is not None:
            self._handshake_task.cancel()
        if self.request is None:
            status = http.HTTPStatus.REQUEST_TIMEOUT
        else:
            status = http.HTTPStatus.SERVICE_UNAVAILABLE
        self.refuse(status, "Opening handshake took too long.\n")

    def refuse(self, status: StatusLike, text: str) -> None:
        """Answer an opening handshake that is going on with an HTTP error."""
        if self.protocol.handshake_exc is None:
            self.protocol.handshake_exc = InvalidHandshake(text.strip(".\n").lower())
        self._respond(self.protocol.reject(status, text))

    def turn_away(self) -> None:
        """Refuse a connection for which there is no room."""
        self.protocol.handshake_exc = InvalidHandshake("too many connections")
        response = self.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, REFUSAL)
        response.headers["Retry-After"] = RETRY_AFTER
        self._respond(response)

    def handshake_received(self, data: bytes) -> bytes:
        """Take input of the opening handshake; return what follows it."""
        protocol = self.protocol
        rest = protocol.feed_handshake(data)
        if rest is None:
            return b""
        events = protocol.events_received()
        if events:
            request = events[0]
            assert isinstance(request, Request)
            self.request = request
            server = self.server
            if server.process_request is None and server.process_response is None:
                self._respond(self._accept(request))
            else:
                # Without a task, unless there is something to wait for.
                steps = self._answer(request)
                awaitable = next(steps, None)
                if awaitable is not None:
                    self._answer_later(steps, awaitable)
        else:
            # The request was bad, and the answer is ready; or it is too late.
            self._refused()
        return rest

    def _accept(self, request: Request) -> Response:
        response = self.protocol.accept(request)
        if self.server.server_header is not None:
            response.headers["Server"] = self.server.server_header
        return response

    def _answer(self, request: Request) -> HookSteps[None]:
        """Answer the request; gives what has to be awaited."""
        response = yield from self._call_hook("process_request", request)
        if response is None:
            response = self._accept(request)
        elif self.server.server_header is not None:
            response.headers["Server"] = self.server.server_header
        changed = yield from self._call_hook("process_response", request, response)
        self._respond(changed or response)

    def _call_hook(self, name: str, *args: Any) -> HookSteps[Response | None]:
        hook = getattr(self.server, name)
        if hook is None:
            return None
        try:
            result = hook(self, *args)
            if isinstance(result, Awaitable):
                result = yield result
            if not (result is None or isinstance(result, Response)):
                raise TypeError(
                    f"{name} must return a Response or None, "
                    f"not {type(result).__name__}"
                )
        except Exception as exc:
            return self._hook_failed(f"{name} failed", exc)
        return result

    def _hook_failed(self, text: str, exc: Exception) -> Response:
        self.protocol.handshake_exc = exc
        # A mistake of the program's, but it is peers who have it made.
        if self.server.log_limit.allows():
            self.logger.error(text, exc_info=exc)
        return self.protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, FAILED)

    def _answer_later(self, steps: HookSteps[None], awaitable: Awaitable[Any]) -> None:
        # Frames that come early stay in the socket.
        self.hold_reading(HOLD_FOR_HANDSHAKE)
        task = self.loop.create_task(self._await_hooks(steps, awaitable))
        self._handshake_task = task
        self.server.add_task(task)

    async def _await_hooks(
        self, steps: HookSteps[None], awaitable: Awaitable[Any]
    ) -> None:
        try:
            while True:
                try:
                    result = await awaitable
                except Exception as exc:
                    awaitable = steps.throw(exc)
                else:
                    awaitable = steps.send(result)
        except StopIteration:
            pass
        except asyncio.CancelledError:
            if self.response is None:
                self.abort_stream()  # cancelled by somebody else: no answer will come
            raise
        except Exception as exc:
            self.crashed(exc)
        finally:
            self._handshake_task = None
            self.release_reading(HOLD_FOR_HANDSHAKE)

    def _respond(self, response: Response) -> None:
        """Send the response, and be open or refused."""
        protocol = self.protocol
        if protocol.state is not CONNECTING or self.is_lost:
            return
        if response.status_code == 101 and not self.server.finishes_openings():
            response = protocol.reject(
                http.HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n"
            )
        if self.request is not None and self.request.method == "HEAD":
            response.body = b""
        try:
            protocol.send_response(response)
        except InvalidState:
            return  # refused already
        except Exception as exc:
            response = self._hook_failed("cannot send the response", exc)
            protocol.send_response(response)
        self.response = response
        if protocol.state is OPEN:
            self.send_writes()
            self.handshake_done()
            if self._listener is None:
                self.server.start_handler(self)
        else:
            self._refused()

    def _refused(self) -> None:
        self.ignore_input()
        self.send_writes()
        self.expect_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; called once, by the stream or the transport."""
        try:
            super().connection_lost(exc)
        finally:
            if self._handshake_task is not None:
                self._handshake_task.cancel()
                self._handshake_task = None
            if self.subscriptions:
                self.server.topics.forget(self)
            self.server.remove_connection(self)
