"""The life of a connection: opening, keepalive, flow control, and the end.

A :class:`ConnectionBase` is a stream (:mod:`websock._stream`) plus what is decided
about it: the handshakes are carried out by a sans-IO protocol
(:mod:`websock.protocol`), and deadlines live in the timer wheel of the loop.  No task
and no timer of the loop belongs to a connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .._stream import Stream, loop_state
from ..constants import MAX_CONTROL_RATE, OP_PING
from ..exceptions import ConnectionClosed
from ..frames import CloseCode
from ..http11 import Request, Response, parse_request, parse_response
from ..listener import Listener
from ..protocol import CLOSED, OPEN, Protocol, State
from ..slow import Backlog, SlowConsumer
from ..timers import Timer
from ..typing import LoggerLike, Subprotocol
from .transport import SocketTransport

if TYPE_CHECKING:
    import uuid

__all__ = [
    "HOLD_FOR_HANDSHAKE",
    "MAX_QUEUE_BYTES",
    "ConnectionBase",
    "Marks",
    "check_control_rate",
    "flow_options",
    "queue_marks",
    "write_marks",
]

# Reasons to hold input back, beside pause_reading().
HOLD_FOR_WRITING = 2  # the stream's: a listener sends more than the peer reads
HOLD_FOR_HANDSHAKE = 4

MAX_QUEUE_BYTES = 4 * 1024 * 1024
"""Bytes of messages, or characters of text, in the queue at which reading stops."""

Marks = int | tuple[int | None, int | None] | None


def queue_marks(max_queue: Marks) -> tuple[int | None, int | None]:
    """Return the marks of a queue: where it is full, and where it takes more again.

    Raises:
        ValueError: When they are negative, or the wrong way round.
    """
    high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
    if high is None and low is not None:
        high = low * 4
    if high is not None and low is None:
        low = high // 4
    if high is not None and low is not None:
        if low < 0:
            raise ValueError(f"low mark of max_queue must not be negative: {low}")
        if high < low:
            raise ValueError(f"marks of max_queue: high {high} is below low {low}")
    return high, low


def write_marks(write_limit: int | tuple[int, int | None]) -> tuple[int, int]:
    """Return the marks of the write buffer: where to wait, and where to go on.

    Raises:
        ValueError: When they are negative, or the wrong way round.
    """
    high, low = write_limit if isinstance(write_limit, tuple) else (write_limit, None)
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"marks of write_limit: high {high}, low {low}")
    return high, low


def flow_options(
    max_queue_bytes: int | None,
    slow_consumer: SlowConsumer | None,
    max_control_rate: int | None = MAX_CONTROL_RATE,
) -> dict[str, Any]:
    """Check arguments of ``connect()`` and ``serve()``; return those that are set.

    Connections are given no others, so that classes of programs need not know them.

    Raises:
        TypeError: When one has a wrong type.
        ValueError: When one has a wrong value.
    """
    options: dict[str, Any] = {}
    if max_queue_bytes != MAX_QUEUE_BYTES:
        if max_queue_bytes is not None and max_queue_bytes < 0:
            raise ValueError(f"max_queue_bytes must not be negative: {max_queue_bytes}")
        options["max_queue_bytes"] = max_queue_bytes
    if max_control_rate != MAX_CONTROL_RATE:
        check_control_rate(max_control_rate)
        options["max_control_rate"] = max_control_rate
    if slow_consumer is not None:
        if not isinstance(slow_consumer, SlowConsumer):
            raise TypeError(
                "slow_consumer must be a SlowConsumer, "
                f"not {type(slow_consumer).__name__}"
            )
        options["slow_consumer"] = slow_consumer
    return options


def check_control_rate(max_control_rate: int | None) -> None:
    """Check the argument of this name.

    Raises:
        ValueError: When it makes no sense.
    """
    if max_control_rate is not None and max_control_rate < 1:
        raise ValueError(f"max_control_rate must be at least 1: {max_control_rate}")


class ConnectionLogger(logging.LoggerAdapter[Any]):
    """Adds the connection to log records, as ``websocket``."""


class ConnectionBase(Stream, asyncio.BufferedProtocol):
    """What a connection is and what becomes of it, apart from its messages."""

    # A program may hang its own attributes onto a connection; the dictionary exists
    # only once it does.
    __slots__ = (
        "__dict__",
        "_close_timer",
        "_connection_exc",
        "_drain_waiters",
        "_listener",
        "_logger",
        "_lost_waiters",
        "_opened",
        "_ping_sent",
        "_pings",
        "_remote_address",
        "_request",
        "_response",
        "_sockname",
        "_timer",
        "_transport",
        "close_timeout",
        "fragment_done",
        "latency",
        "ping_interval",
        "ping_timeout",
        "protocol",
    )

    def __init__(
        self,
        protocol: Protocol,
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
        self.protocol = protocol
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.close_timeout = close_timeout
        self.latency: float = 0.0
        """Round-trip time that the last answered ping measured, in seconds."""

        self._request: Request | None = None
        self._response: Response | None = None
        self._listener = listener
        self._opened = False
        self._logger: ConnectionLogger | None = None
        self._transport: SocketTransport | None = None
        self._remote_address: Any = None
        self._sockname: Any = None
        self._timer: Timer | None = None  # opening, then pings
        self._close_timer: Timer | None = None
        self._connection_exc: BaseException | None = None
        self._drain_waiters: list[asyncio.Future[None]] | None = None
        self._lost_waiters: list[asyncio.Future[None]] | None = None
        self.fragment_done: asyncio.Future[None] | None = None
        self._pings: dict[bytes, tuple[asyncio.Future[float] | None, float]] | None
        self._pings = None
        self._ping_sent: bytes | None = None  # the keepalive ping that waits
        self.init_stream(
            asyncio.get_running_loop(),
            None if listener is None else listener.on_message,
            queue_marks(max_queue),
            write_marks(write_limit),
            max_queue_bytes,
            max_control_rate,
        )
        if slow_consumer is not None:
            self.backlog = Backlog(slow_consumer)
        if protocol.logger.isEnabledFor(logging.INFO):
            # What the protocol logs says which connection it is about.
            protocol.logger = self.logger

    def __repr__(self) -> str:
        state = self.state.name.lower()
        return f"<{type(self).__name__} {state} {self.remote_address}>"

    # -- what a connection is --------------------------------------------------------

    @property
    def id(self) -> uuid.UUID:
        """Identifier of the connection, for logs."""
        return self.protocol.id

    @property
    def logger(self) -> LoggerLike:
        """Logger of this connection; its records have a ``websocket`` attribute."""
        if self._logger is None:
            self._logger = ConnectionLogger(self.protocol.logger, {"websocket": self})
        return self._logger

    @property
    def debug(self) -> bool:
        """Whether the logger takes debug messages."""
        return self.protocol.debug

    @property
    def local_address(self) -> Any:
        """Address of this end, ``(host, port)`` for IPv4; see ``getsockname()``."""
        if self._sockname is None:
            self._sockname = self.sockname()
        return self._sockname

    @property
    def remote_address(self) -> Any:
        """Address of the peer, ``(host, port)`` for IPv4; see ``getpeername()``."""
        if self._remote_address is None:
            self._remote_address = self.peername()
        return self._remote_address

    @property
    def transport(self) -> Any:
        """Transport of the connection, or an object that looks like one."""
        if self.io is not None:
            return self.io
        if self._transport is None:
            self._transport = SocketTransport(self)
        return self._transport

    @property
    def state(self) -> State:
        """State of the connection."""
        return self.protocol.state

    @property
    def subprotocol(self) -> Subprotocol | None:
        """Subprotocol that was negotiated, if any."""
        return self.protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """Close code from the peer; ``None`` while the connection is not closed."""
        return self.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        """Close reason from the peer; ``None`` while the connection is not closed."""
        return self.protocol.close_reason

    # A server keeps requests and responses as bytes once a connection is open: few
    # programs look at them, and as objects they take several times the memory.

    @property
    def request(self) -> Request | None:
        """Request of the opening handshake."""
        if self._request is None and self.protocol.request_head is not None:
            self._request = parse_request(self.protocol.request_head)
        return self._request

    @request.setter
    def request(self, request: Request | None) -> None:
        self._request = request

    @property
    def response(self) -> Response | None:
        """Response of the opening handshake."""
        if self._response is None and self.protocol.response_head is not None:
            self._response = parse_response(self.protocol.response_head)
        return self._response

    @response.setter
    def response(self, response: Response | None) -> None:
        self._response = response

    @property
    def was_opened(self) -> bool:
        """Whether the opening handshake succeeded, however it went on."""
        return self._opened

    @property
    def listener(self) -> Listener | None:
        """Object that is told what happens, if any."""
        return self._listener

    # -- opening ---------------------------------------------------------------------

    def start(self, sock: Any, peername: Any = None) -> None:
        """Begin on a connected non-blocking socket."""
        self._remote_address = peername
        self.attach_socket(sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a transport; asyncio's protocols."""
        # With TLS, transports forget them when they are closed.
        self._sockname = transport.get_extra_info("sockname")
        self._remote_address = transport.get_extra_info("peername")
        self.attach_transport(transport)

    def handshake_done(self) -> None:
        """Go from the opening handshake to messages."""
        protocol = self.protocol
        self.open_stream(protocol.make_reader(), protocol.make_writer())
        self._opened = True
        if protocol.response_head is not None:
            self._request = self._response = None
        self._start_keepalive()
        if self._listener is not None:
            try:
                self._listener.on_open(self)
            except Exception as exc:
                self.callback_failed(exc)

    def send_writes(self) -> None:
        """Send what the protocol has to send."""
        for data in self.protocol.data_to_send():
            if data:
                self.write_bytes(data)
            else:
                self.end_writing()

    # -- closing ---------------------------------------------------------------------

    def _closing(self) -> None:
        """Send what the closing handshake asks for; from here on it is timed."""
        self.set_closing()
        if self.backlog:
            self.messages_dropped(self.backlog.clear())
        self.send_writes()
        self.expect_close()

    def expect_close(self) -> None:
        """Give the peer ``close_timeout`` seconds to end the connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (
            self._close_timer is None
            and self.close_timeout is not None
            and not self.is_lost
        ):
            self._close_timer = loop_state(self.loop).wheel.call_later(
                self.close_timeout, self._close_timed_out
            )

    def _close_timed_out(self) -> None:
        self._close_timer = None
        self.abort_with(TimeoutError("timed out while closing connection"))

    def abort_with(self, exc: BaseException) -> None:
        """Drop the connection; ``exc`` becomes the cause that errors tell."""
        if self._connection_exc is None:
            self._connection_exc = exc
        self.abort_stream(exc)

    def close_received(self, payload: bytes) -> None:
        """A close frame arrived; its payload was checked."""
        self.protocol.close_received(payload)
        self._closing()

    def reader_failed(self, exc: Exception) -> None:
        """The peer broke the protocol."""
        self.protocol.logger = self.logger
        self.protocol.reader_failed(exc)
        if self.debug:
            self.logger.debug("! %s", exc)
        self._closing()

    def decoding_failed(self, exc: UnicodeDecodeError, offset: int = 0) -> None:
        """A binary message that was to be decoded is not UTF-8."""
        if self._connection_exc is None:
            self._connection_exc = exc
        position = offset + exc.start
        self.fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {position}")

    def callback_failed(self, exc: Exception) -> None:
        """A method of the listener raised."""
        assert self._listener is not None
        try:
            self._listener.on_error(self, exc)
        except Exception:
            self.logger.exception("listener failed in on_error")
            self.fail(CloseCode.INTERNAL_ERROR)

    def crashed(self, exc: Exception) -> None:
        """Something failed that must not: say so, and end the connection."""
        self.logger.error("connection failed", exc_info=exc)
        if self._connection_exc is None:
            self._connection_exc = exc
        if self.protocol.state is OPEN:
            self.fail(CloseCode.INTERNAL_ERROR)
        else:
            self.abort_stream(exc)

    def peer_ended(self) -> None:
        """The peer sent EOF: what is left to do is to close."""
        self.protocol.receive_eof()
        self._closing()
        self.close_stream()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; called once, by the stream or the transport."""
        if self.is_lost:
            return
        if isinstance(exc, type):
            exc = exc()  # type: ignore[unreachable]  # some transports give the class
        if self._connection_exc is None:
            self._connection_exc = exc
        if self.io is None:
            self.local_address  # noqa: B018  # for logs, once the socket is closed
        listener = self._listener
        # Input that was held back is delivered first: it came before the end.
        self.mark_lost()
        for timer in (self._timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._close_timer = None
        self.protocol.receive_eof()
        if self.backlog:
            self.messages_dropped(self.backlog.clear())
        self._end_waits()
        if listener is not None and self._opened:
            rcvd = self.protocol.close_rcvd
            code = CloseCode.ABNORMAL_CLOSURE if rcvd is None else rcvd.code
            try:
                listener.on_close(self, int(code), "" if rcvd is None else rcvd.reason)
            except Exception:
                self.logger.exception("listener failed in on_close")
        # They refer to the connection: without them it is freed at once.
        if self._logger is not None and self.protocol.logger is self._logger:
            self.protocol.logger = self._logger.logger
        self._transport = self._logger = None

    def _end_waits(self) -> None:
        pings, self._pings = self._pings, None
        if pings:
            for ping_waiter, _ in pings.values():
                if ping_waiter is not None and not ping_waiter.done():
                    ping_waiter.set_exception(self.closed_error())
        for waiters in (self._drain_waiters, self._lost_waiters):
            for waiter in waiters or ():
                if not waiter.done():
                    waiter.set_result(None)
        self._drain_waiters = self._lost_waiters = None

    def closed_error(self) -> ConnectionClosed:
        """Return the exception that tells how the connection was closed."""
        protocol = self.protocol
        if protocol.state is CLOSED:
            exc = protocol.close_exc
        else:
            exc = ConnectionClosed(
                protocol.close_rcvd, protocol.close_sent, protocol.close_rcvd_then_sent
            )
        cause: BaseException | None = protocol.parser_exc
        if self._connection_exc is not None and (
            cause is None or isinstance(cause, EOFError)
        ):
            # What came after a broken rule does not matter.
            cause = self._connection_exc
        exc.__cause__ = cause
        return exc

    # -- what connections and listeners use ------------------------------------------

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection (RFC 6455, 7.1.7): say why, read nothing more."""
        if self.protocol.state is CLOSED:
            return
        self.protocol.fail(code, reason)
        self.ignore_input()
        self._closing()

    def pause_reading(self) -> None:
        """Deliver no message and read nothing until ``resume_reading()``."""
        self.hold_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading()``."""
        self.release_reading()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by whichever side."""
        if not self.is_lost:
            if self._lost_waiters is None:
                self._lost_waiters = []
            await self._wait_among(self._lost_waiters)

    async def _wait_among(self, waiters: list[asyncio.Future[None]]) -> None:
        """Wait for what others may be waiting for too; leave no trace."""
        waiter = self.loop.create_future()
        waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled():
                waiters.remove(waiter)

    # -- pings -----------------------------------------------------------------------

    def ping_received(self, payload: bytes) -> None:
        """A ping arrived: answer it."""
        self.answer_ping(payload)
        if self._listener is not None:
            self._call_listener("on_ping", payload)

    def pong_received(self, payload: bytes) -> None:
        """A pong arrived: it answers its ping and all before it (RFC 6455, 5.5.3)."""
        pings = self._pings
        if pings is not None and payload in pings:
            now = perf_counter()
            for key in list(pings):
                waiter, sent = pings.pop(key)
                latency = now - sent
                if waiter is not None and not waiter.done():
                    waiter.set_result(latency)
                if key == self._ping_sent:
                    self._ping_sent = None
                    self._keepalive_answered(latency)
                if key == payload:
                    self.latency = latency
                    break
        if self._listener is not None:
            self._call_listener("on_pong", payload)

    def _call_listener(self, name: str, *args: Any) -> None:
        try:
            getattr(self._listener, name)(self, *args)
        except Exception as exc:
            self.callback_failed(exc)

    def _start_keepalive(self) -> None:
        """Have the deadline of the first ping follow that of the handshake."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ping_interval is not None:
            self._keepalive_later(self.ping_interval)

    def _keepalive_later(self, delay: float) -> None:
        self._timer = loop_state(self.loop).wheel.call_later(
            delay, ConnectionBase._keepalive, self
        )

    def _keepalive(self) -> None:
        """Send the ping that shows whether the peer is still there."""
        self._timer = None
        if not self.is_open:
            return
        assert self.ping_interval is not None
        if self._pings is None:
            self._pings = {}
        if self._ping_sent is not None:
            # Never answered, and there is no timeout: it must not pile up.
            self._pings.pop(self._ping_sent, None)
        payload = os.urandom(4)
        while payload in self._pings:
            payload = os.urandom(4)
        self._pings[payload] = (None, perf_counter())
        self._ping_sent = payload
        self.send_control(OP_PING, payload)
        if self.debug:
            self.logger.debug("% sent keepalive ping")
        if self.ping_timeout is None:
            self._keepalive_later(self.ping_interval)
        else:
            self._timer = loop_state(self.loop).wheel.call_later(
                self.ping_timeout, self._ping_timed_out
            )

    def _keepalive_answered(self, latency: float) -> None:
        if self.ping_timeout is None or not self.is_open:
            return
        if self._timer is not None:
            self._timer.cancel()
        assert self.ping_interval is not None
        self._keepalive_later(max(self.ping_interval - latency, 0))

    def _ping_timed_out(self) -> None:
        self._timer = None
        if not self.is_open:
            return
        if self.is_held and not self.write_paused:
            # The pong may be here: that the program does not read is not the fault of
            # the peer, unless the program waits for it to read.
            assert self.ping_timeout is not None
            self._timer = loop_state(self.loop).wheel.call_later(
                self.ping_timeout, self._ping_timed_out
            )
            return
        if self.debug:
            self.logger.debug("- timed out waiting for keepalive pong")
        blocked = self.buffered_amount > 0
        self.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        if blocked:
            # The peer does not read: a close frame would wait for ever.
            self.abort_with(TimeoutError("keepalive ping timeout"))

    # -- flow control ----------------------------------------------------------------

    def pause_writing(self) -> None:
        """Unsent bytes went above the high mark."""
        if self.io is not None:
            self.transport_paused(True)
        if self._listener is not None:
            self._call_listener("on_pause_writing")

    def resume_writing(self) -> None:
        """Unsent bytes went below the low mark."""
        if self.io is not None:
            self.transport_paused(False)
        if self.backlog:
            self.send_backlog()
        waiters, self._drain_waiters = self._drain_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        if self._listener is not None:
            self.release_reading(HOLD_FOR_WRITING)
            self._call_listener("on_resume_writing")

    def send_backlog(self) -> None:
        """Send what waits for a slow peer, as far as it takes it."""
        while (
            self.backlog
            and not self.write_paused
            and self.is_open
            and not self.fragmenting
        ):
            self.send_prepared(self.backlog.take(), None)

    def messages_dropped(self, count: int) -> None:
        """Tell the program that messages for a slow peer were dropped."""
        on_drop = self.backlog.settings.on_drop
        if count and on_drop is not None:
            try:
                on_drop(self, count)
            except Exception:
                self.logger.exception("on_drop failed")

    async def drain(self) -> None:
        """Wait until unsent bytes are below the low mark.

        Raises:
            ConnectionClosed: When the connection is lost meanwhile.
        """
        while self.write_paused and not self.is_lost:
            if self._drain_waiters is None:
                self._drain_waiters = []
            await self._wait_among(self._drain_waiters)
        if self.is_lost:
            raise self.closed_error()
