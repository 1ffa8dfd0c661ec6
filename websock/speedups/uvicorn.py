"""WebSockets for uvicorn on the compiled stream.

    uvicorn app:app --ws websock.speedups.uvicorn:WebSocketProtocol

uvicorn's HTTP protocol makes a :class:`WebSocketProtocol` when a request asks for a
WebSocket, calls ``connection_made()`` with the transport, hands over the request, and
puts it onto the transport.  When the application accepts, the connection takes the
socket from a transport that is nothing but a socket: reading, parsing and writing are
one step in C then.  Over TLS the transport writes into the read buffer of the loop.

What the application sees is what uvicorn's own protocols give it, and the log has the
same lines.  What differs:

* Reading stops when ``ws_max_queue`` messages or 256 KiB wait for ``receive()``, and
  not at each message; it goes on when the application has caught up.
* A peer that does not read is dropped after ``close_timeout`` seconds, so that it
  cannot keep a server from shutting down.

``receive()`` and ``send()`` make no task and no future unless there is something to
wait for.  The bytes of a message are copied once, into the object the application gets.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import logging
import sys
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)

from .._stream import Done, loop_state
from ..asyncio.base import HOLD_FOR_HANDSHAKE, ConnectionBase
from ..asyncio.transport import take_socket
from ..datastructures import Headers
from ..exceptions import ConnectionClosed, InvalidText
from ..extensions.permessage_deflate import enable_server_permessage_deflate
from ..frames import Close, CloseCode
from ..http11 import Request, Response
from ..log_limit import LogLimit
from ..server import ServerProtocol
from ._uvicorn_reasons import as_uvicorn_says

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["WebSocketProtocol"]

Event = dict[str, Any]  # an ASGI message

DONE = Done()  # what awaiting gives back at once
BACKLOG = 1 << 18  # bytes of messages that may wait for the application

# How far the application is.  ACCEPTED is left by its own close only.
WAITING, ACCEPTED, DENYING, OVER = range(4)

logger = logging.getLogger("uvicorn.error")
log_limit = LogLimit(logger)
quiet_logger = logging.getLogger("websock.server")


class Interrupted(Exception):
    """What a ``receive()`` that waits is woken with when no message will come."""


def early_data(transport: Any) -> bytes:
    """Return what followed the request in the read that is being handled.

    uvicorn hands over the request alone.  What its parsers have left is found where
    they keep it: httptools tells the position by an exception, which is being handled
    where uvicorn takes the request; h11 keeps the bytes; zttp gives them to nobody.
    """
    exc = sys.exception()
    if exc is not None and type(exc).__name__ == "HttpParserUpgrade":
        traceback = exc.__traceback__
        data = None if traceback is None else traceback.tb_frame.f_locals.get("data")
        offset = exc.args[0] if exc.args else None
        if isinstance(data, (bytes, bytearray)) and isinstance(offset, int):
            return bytes(data[offset:])
        return b""
    get_protocol = getattr(transport, "get_protocol", None)
    parser = getattr(get_protocol and get_protocol(), "conn", None)
    trailing = getattr(parser, "trailing_data", None)
    if isinstance(trailing, tuple) and trailing and isinstance(trailing[0], bytes):
        return trailing[0]
    return b""


class WebSocketProtocol(ConnectionBase):
    """A WebSocket connection of uvicorn.

    Args:
        config: uvicorn's configuration.
        server_state: What the connections of the server share.
        app_state: State that the application made in its lifespan.
    """

    __slots__ = (
        "_app_state",
        "_asgi_stage",
        "_config",
        "_connect_due",
        "_connections",
        "_denial",
        "_endings",
        "_lost_code",
        "_plain",
        "_server_state",
        "_turns",
        "ping_sent_at",
        "scope",
    )

    protocol: ServerProtocol

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        deflate = config.ws_per_message_deflate
        super().__init__(
            ServerProtocol(
                extensions=enable_server_permessage_deflate(None) if deflate else None,
                max_size=config.ws_max_size,
                logger=logger,
            ),
            # uvicorn takes 0 for no pings.
            ping_interval=config.ws_ping_interval or None,
            ping_timeout=config.ws_ping_timeout,
            max_queue=config.ws_max_queue,
            max_queue_bytes=BACKLOG,
            write_limit=2**16,
        )
        self.protocol.may_log = log_limit.allows
        self._config = config
        self._server_state = server_state
        connections: Any = server_state.connections
        self._connections: set[WebSocketProtocol] = connections
        self._app_state = app_state
        self._asgi_stage = WAITING
        self._connect_due = True  # "websocket.connect" was not received yet
        self._endings: deque[Event] = deque()  # what is received after the messages
        self._plain = False  # receive() has nothing to give but messages
        self._lost_code = CloseCode.ABNORMAL_CLOSURE
        self._denial: tuple[int, Headers, list[bytes]]
        self._turns: deque[asyncio.Future[None]] | None = None
        self.ping_sent_at = 0.0
        """The loop's time when the last ping was sent."""
        self.scope: dict[str, Any] = {}
        """ASGI scope of the connection."""

    # -- what uvicorn calls ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a transport; asyncio's protocols."""
        super().connection_made(transport)
        self._connections.add(self)
        self._trace("connection made")

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; asyncio's protocols."""
        if self.is_lost:
            return
        self._connections.discard(self)
        self._trace("connection lost")
        # It would log that the connection is closed, which uvicorn does not.
        self.protocol.logger = quiet_logger
        super().connection_lost(exc)
        self._end({"type": "websocket.disconnect", "code": int(self._lost_code)})

    def shutdown(self) -> None:
        """Close because the server shuts down."""
        if self._asgi_stage == ACCEPTED:
            self._end({"type": "websocket.disconnect", "code": 1012})
            if self.is_open:
                self.protocol.send_close(CloseCode.SERVICE_RESTART)
                self.set_closing()
                self._send_frames()
        elif self._asgi_stage != OVER:
            self._fail_handshake()
        self._close_transport()

    @property
    def ping_timer(self) -> Any:
        """Timer of the keepalive, if any."""
        return self._timer

    @property
    def close_timer(self) -> Any:
        """Timer of a closing handshake that was begun here, if any."""
        return self._close_timer

    def _trace(self, text: str) -> None:
        if logger.level <= TRACE_LOG_LEVEL:
            client = get_remote_addr(self.transport)
            prefix = f"{client[0]}:{client[1]} - " if client else ""
            logger.log(TRACE_LOG_LEVEL, "%sWebSocket %s", prefix, text)

    # -- the request -----------------------------------------------------------------

    def handshake_received(self, data: bytes) -> bytes:
        """Take the request, and start the application."""
        protocol = self.protocol
        rest = protocol.feed_handshake(data)
        if rest is None:
            return b""
        events = protocol.events_received()
        if not events:
            self._refuse()
            return b""
        request = events[0]
        assert isinstance(request, Request)
        self.request = request
        response = self.response = protocol.accept(request)
        if response.status_code != 101:
            protocol.send_response(response)
            self._refuse()
            return b""
        # Frames that come before the application accepts wait, and so does the peer.
        self.hold_reading(HOLD_FOR_HANDSHAKE)
        self.scope = self._make_scope(request)
        task = self.loop.create_task(self.run_asgi())
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        return rest + early_data(self.io)

    def _refuse(self) -> None:
        """Send the answer to a request that is no good; there is no application."""
        self._lost_code = CloseCode.NO_STATUS_RCVD
        self._finish()

    def _make_scope(self, request: Request) -> dict[str, Any]:
        root_path = self._config.root_path
        raw_path, _, query_string = request.path.partition("?")
        offers = request.headers.get_all("Sec-WebSocket-Protocol")
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.io) else "ws",
            "server": get_local_addr(self.io),
            "client": get_remote_addr(self.io),
            "root_path": root_path,
            "path": root_path + unquote(raw_path),
            "raw_path": (root_path + raw_path).encode("ascii"),
            "query_string": query_string.encode("ascii"),
            "headers": [
                (name.encode("ascii"), value.encode("latin-1"))
                for name, value in request.headers.raw_items()
            ],
            "subprotocols": [
                name.strip() for offer in offers for name in offer.split(",")
            ],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    async def run_asgi(self) -> None:
        """Run the application for this connection."""
        app: Any = self._config.loaded_app
        try:
            result = await app(self.scope, self.asgi_receive, self.asgi_send)
        except ClientDisconnected:
            pass
        except BaseException:
            logger.exception("Exception in ASGI application\n")
            self._fail_handshake()
        else:
            if self._asgi_stage == WAITING:
                logger.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                logger.error(
                    "ASGI callable should return None, but returned '%s'.", result
                )
            self._fail_handshake()
        if self._close_timer is None:
            self._close_transport()

    def _fail_handshake(self) -> None:
        """Answer a request that the application has not answered to the end."""
        if self.is_lost:
            return
        if self._asgi_stage == WAITING:
            self._answer(self.protocol.reject(500, "Internal Server Error"))
        elif self._asgi_stage == DENYING:
            self._deny()

    # -- receive() -------------------------------------------------------------------

    async def asgi_receive(self) -> Event:
        """Return the next event; the application's ``receive()``."""
        if self._plain and not self.is_receiving:
            try:
                message = await self.recv()
            except (ConnectionClosed, Interrupted):
                return await self._next_event()
            finally:
                if self._turns:
                    self._pass_turn()
            if message.__class__ is str:
                return {"type": "websocket.receive", "text": message}
            return {"type": "websocket.receive", "bytes": message}
        return await self._next_event()

    async def _next_event(self) -> Event:
        """Return the next event, whatever it is."""
        if self._connect_due:
            self._connect_due = False
            self._plain = not self._endings
            return {"type": "websocket.connect"}
        while self.is_receiving:
            # Several may wait, as on uvicorn's queue.
            if self._turns is None:
                self._turns = deque()
            turn = self.loop.create_future()
            self._turns.append(turn)
            await turn
        if not self._endings and not self.queued:
            if self._plain:
                return await self.asgi_receive()
            await self.wait_closed()
            if not self._endings:
                # All was received.  uvicorn has one wait who goes on to ask; a loop
                # that ignores the end would never leave the processor otherwise.
                await self.loop.create_future()
        if self.queued:
            return as_event(await self.recv())
        event = self._endings.popleft()
        if self._turns:
            self._pass_turn()
        return event

    def _pass_turn(self) -> None:
        assert self._turns is not None
        while self._turns and not self.is_receiving:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _end(self, event: Event) -> None:
        """Have the application receive an event after the messages that are there."""
        self._endings.append(event)
        self._plain = False
        self.interrupt(Interrupted())

    def _end_with(self, close: Close) -> None:
        self._end(
            {
                "type": "websocket.disconnect",
                "code": int(close.code),
                "reason": close.reason,
            }
        )

    # -- send() ----------------------------------------------------------------------

    def asgi_send(self, event: Event) -> Awaitable[None]:
        """Send an event; the application's ``send()``.

        A message for which there is nothing to wait is sent by the call: most are, and
        a coroutine for each would cost more than what it does.

        Raises:
            ClientDisconnected: When the connection is closed, or being closed.
            RuntimeError: When the event is not due.
        """
        if self.is_open and not self.write_paused and event["type"] == "websocket.send":
            data = event.get("bytes")
            kind: type = bytes
            if data is None:
                data = event.get("text")
                kind = str
            if data.__class__ is kind:
                self.send_nowait(data)
                return DONE
        return self._send_event(event)

    async def _send_event(self, event: Event) -> None:
        """Send an event, whatever it is, and wait if need be."""
        if self.write_paused:
            try:
                await self.drain()
            except ConnectionClosed:
                raise ClientDisconnected from None
        if self.is_open and event["type"] == "websocket.send":
            data = event.get("bytes")
            if data is None:
                data = event.get("text")
                if data is None:
                    return
                if not isinstance(data, str):
                    raise TypeError(f"text must be str, not {type(data).__name__}")
            self.send_nowait(data)
            return
        if self.is_lost:
            raise ClientDisconnected
        kind = event["type"]
        if self._asgi_stage == WAITING:
            self._send_first(kind, event)
        elif self._asgi_stage == ACCEPTED:
            if kind == "websocket.close":
                self._send_close(event)
            elif kind == "websocket.send":
                raise ClientDisconnected
            else:
                raise RuntimeError(
                    "Expected ASGI message 'websocket.send' or 'websocket.close', "
                    f"but got '{kind}'."
                )
        elif self._asgi_stage == DENYING:
            if kind != "websocket.http.response.body":
                raise RuntimeError(
                    "Expected ASGI message 'websocket.http.response.body' "
                    f"but got '{kind}'."
                )
            self._denial[2].append(bytes(event.get("body", b"")))
            if not event.get("more_body", False):
                self._deny()
        else:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}', after sending 'websocket.close'."
            )

    def _send_first(self, kind: str, event: Event) -> None:
        """Send what the application answers the request with."""
        if kind == "websocket.accept":
            self._accept(event)
        elif kind == "websocket.close":
            self._log("403")
            self._lost_code = CloseCode.NO_STATUS_RCVD
            self._answer(self.protocol.reject(http.HTTPStatus.FORBIDDEN, ""))
        elif kind == "websocket.http.response.start":
            status = event["status"]
            if not 100 <= status < 600 or status == 101:
                raise RuntimeError(
                    f"Invalid HTTP status code '{status:d}' in response."
                )
            headers = Headers(decode_headers(event.get("headers", ())))
            self._log(str(status))
            self._denial = status, headers, []
            self._asgi_stage = DENYING
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or "
                f"'websocket.http.response.start' but got '{kind}'."
            )

    def _log(self, outcome: str) -> None:
        scope: Any = self.scope
        client, path = get_client_addr(scope), get_path_with_query_string(scope)
        logger.info('%s - "WebSocket %s" %s', client, path, outcome)

    def _accept(self, event: Event) -> None:
        if self.is_closing or self._is_shut():
            raise ClientDisconnected
        response = self.response
        assert response is not None
        headers = response.headers.copy()
        del headers["Date"]  # uvicorn has one, or none
        for name, value in decode_headers(self._server_state.default_headers):
            headers[name.lower()] = value
        for name, value in decode_headers(event.get("headers", ())):
            headers[name.lower()] = value
        subprotocol = event.get("subprotocol")
        if subprotocol:
            headers["Sec-WebSocket-Protocol"] = subprotocol
            self.protocol.subprotocol = subprotocol
        response.headers = headers
        self._log("[accepted]")
        self.protocol.send_response(response)
        self._asgi_stage = ACCEPTED
        self._lost_code = CloseCode.NO_STATUS_RCVD
        self._leave_transport()
        self.send_writes()
        self.handshake_done()
        self.release_reading(HOLD_FOR_HANDSHAKE)

    def _leave_transport(self) -> None:
        """Go on without the transport, where it is nothing but a socket."""
        transport = self.io
        sock = take_socket(transport)
        if sock is not None:
            self.attach_socket(sock)
            transport.set_protocol(asyncio.Protocol())
            transport.abort()

    def _deny(self) -> None:
        """Send the response that the application has made."""
        status, headers, body = self._denial
        data = b"".join(body)
        headers.setdefault("Date", email.utils.formatdate(usegmt=True))
        headers.setdefault("Connection", "close")
        headers.setdefault("Content-Length", str(len(data)))
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        self._answer(Response(status, phrase, headers, data))

    def _answer(self, response: Response) -> None:
        """Refuse the request, for the application or because of it."""
        self._end({"type": "websocket.disconnect", "code": 1006})
        self.protocol.send_response(response)
        self.response = response
        self._finish()

    def _finish(self) -> None:
        """Send the last that will be sent, and close."""
        self._asgi_stage = OVER
        self.ignore_input()
        self.set_closing()
        self._send_frames()
        self._close_transport()

    def _send_close(self, event: Event) -> None:
        """Begin the closing handshake."""
        if not self.is_open:
            return  # the peer was faster
        code = event.get("code", 1000)
        reason = event.get("reason", "") or ""
        self.protocol.send_close(code, reason)
        self._asgi_stage = OVER
        if not self.queued or not self.is_receiving:
            # What came before can still be received, what comes later is dropped.
            while self.queued:
                try:
                    self.recv().send(None)  # type: ignore[attr-defined]
                except StopIteration as stop:
                    self._endings.append(as_event(stop.value))
            self.set_on_message(drop)
        self._end({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.set_closing()
        self._send_frames()
        self.expect_close()

    # -- closing ---------------------------------------------------------------------

    def _send_frames(self) -> None:
        """Send what the protocol has to send; it is not left half open after that."""
        for data in self.protocol.data_to_send():
            if data:
                self.write_bytes(data)

    def _close_transport(self) -> None:
        """Close after what was sent; do not wait for ever for a peer to read it."""
        if self._is_shut():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        io = self.io
        if io is not None and self.buffered_amount > io.get_write_buffer_size():
            # Some of it waits for the end of this turn of the loop.
            self.loop.call_soon(self._close_transport)
            return
        self.set_closing()
        self.close_stream()
        if self.buffered_amount:
            self.expect_close()

    def _is_shut(self) -> bool:
        """Whether the transport, if there is one, takes nothing more."""
        return self.is_lost or (self.io is not None and self.io.is_closing())

    def close_received(self, payload: bytes) -> None:
        """A close frame arrived: an answer, or the peer closes."""
        protocol = self.protocol
        protocol.close_received(payload)
        if self._asgi_stage != OVER and not self._is_shut():
            close = protocol.close_rcvd
            assert close is not None
            self.set_closing()
            self._send_frames()
            self._end_with(close)
        self._close_transport()

    def reader_failed(self, exc: Exception) -> None:
        """The peer broke the protocol: tell both sides."""
        if isinstance(exc, InvalidText):
            logger.error("Invalid UTF-8 sequence received from client.")
        self.protocol.reader_failed(as_uvicorn_says(exc))
        self.set_closing()
        self._send_frames()
        close = self.protocol.close_sent
        if self._asgi_stage != OVER and close is not None:
            self._end_with(close)
            # As after its own close, the application has nothing more to send.
            self._asgi_stage = OVER
        self._close_transport()

    def peer_ended(self) -> None:
        """The peer has closed without a closing handshake."""
        self.set_closing()
        self._close_transport()

    def _keepalive_later(self, delay: float) -> None:
        self._timer = loop_state(self.loop).wheel.call_later(
            delay, WebSocketProtocol._keepalive, self
        )

    def _keepalive(self) -> None:
        self.ping_sent_at = self.loop.time()
        super()._keepalive()

    def _ping_timed_out(self) -> None:
        self._timer = None
        if not self.is_open:
            return
        self._trace("keepalive ping timeout")
        blocked = self.buffered_amount > 0
        self.protocol.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        self.ignore_input()
        self.set_closing()
        self._send_frames()
        if blocked:
            # The peer does not read: a close frame would wait for ever.
            self.abort_with(TimeoutError("keepalive ping timeout"))
        else:
            self._close_transport()


def decode_headers(headers: Any) -> list[tuple[str, str]]:
    """Return ASGI's headers as text."""
    return [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
    ]


def as_event(message: Any) -> Event:
    """Return the event that a message is."""
    if isinstance(message, str):
        return {"type": "websocket.receive", "text": message}
    return {"type": "websocket.receive", "bytes": message}


def drop(connection: Any, message: Any) -> None:
    """Take a message that came after the application had closed."""
