"""The connection that programs hold: its messages, and what is sent and received."""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Hashable,
    Iterable,
    Mapping,
)
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from .._stream import send_to_many
from ..constants import OP_PING, OP_PONG, OP_TEXT
from ..exceptions import ConcurrencyError, ConnectionClosed
from ..frames import Close, CloseCode
from ..prepared import PreparedMessage, prepare
from ..protocol import CONNECTING, OPEN
from ..stats import ConnectionStats
from ..typing import BytesLike, Data, DataLike
from .base import (
    HOLD_FOR_HANDSHAKE,
    ConnectionBase,
    Marks,
    queue_marks,
    write_marks,
)
from .message_streams import MessageReader, MessageWriter
from .payloads import (
    AsAsync,
    control_payload,
    fragment_payload,
    split_message,
    utf8_decoder,
)

__all__ = [
    "HOLD_FOR_HANDSHAKE",
    "Connection",
    "Marks",
    "broadcast",
    "queue_marks",
    "write_marks",
]


class Connection(ConnectionBase):
    """A WebSocket connection, of a client or of a server.

    Use :class:`~websock.asyncio.client.ClientConnection` and
    :class:`~websock.asyncio.server.ServerConnection`.

    Attributes:
        is_open: Whether messages can be sent.
        latency: Round-trip time of the last answered ping, in seconds; 0 before.
        write_paused: Whether more than ``write_limit`` bytes are unsent.
        ping_interval: Seconds between keepalive pings.
        ping_timeout: Seconds to wait for their pongs.
        close_timeout: Seconds to wait for the end when closing.
    """

    __slots__ = ()

    # -- using it --------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await self.close(CloseCode.INTERNAL_ERROR)

    if TYPE_CHECKING:

        @overload
        def recv(self, decode: Literal[True]) -> Coroutine[Any, Any, str]: ...

        @overload
        def recv(self, decode: Literal[False]) -> Coroutine[Any, Any, bytes]: ...

        @overload
        def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]: ...

        def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]: ...

        def send(
            self,
            message: PreparedMessage
            | DataLike
            | Iterable[DataLike]
            | AsyncIterable[DataLike],
            *,
            text: bool | None = None,
        ) -> Coroutine[Any, Any, None]: ...

    async def recv_many(
        self, maximum: int | None = None, *, decode: bool | None = None
    ) -> list[Data]:
        """Receive the messages that are there, at least one; waits for the first.

        Args:
            maximum: How many at most; ``None`` for all.
            decode: As for ``recv()``.

        Raises:
            ConnectionClosed: When the connection is closed and the queue is empty.
            ConcurrencyError: When another ``recv()`` or ``recv_streaming()`` waits.
            ValueError: When ``maximum`` is below 1.

        Cancelling is safe: messages already received stay in the queue.
        """
        if maximum is not None and maximum < 1:
            raise ValueError(f"maximum must be at least 1, not {maximum}")
        messages = [await self.recv(decode)]
        # None of these waits: what is queued is received at once.
        while self.queued and (maximum is None or len(messages) < maximum):
            if decode is not True:
                messages.append(await self.recv(decode))
                continue
            message = await self.recv()
            if isinstance(message, bytes):
                try:
                    message = message.decode()
                except UnicodeDecodeError as exc:
                    self.decoding_failed(exc)  # the next recv() tells
                    break
            messages.append(message)
        return messages

    async def recv_latest(self, *, decode: bool | None = None) -> Data:
        """Receive the newest message that is there, and drop those before it.

        For state that is sent again and again, of which only the newest counts.

        Args:
            decode: As for ``recv()``.

        Raises:
            ConnectionClosed: When the connection is closed and the queue is empty.
            ConcurrencyError: When another ``recv()`` or ``recv_streaming()`` waits.
        """
        return (await self.recv_many(decode=decode))[-1]

    @overload
    def recv_streaming(self, decode: Literal[True]) -> AsyncIterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> AsyncIterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]: ...

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """Receive the next message fragment by fragment, as they arrive.

        Args:
            decode: ``True`` forces text, ``False`` forces bytes; by default text
                frames give ``str`` and binary frames ``bytes``.

        Raises:
            ConnectionClosed: When the connection is closed.
            ConcurrencyError: When another ``recv()`` or ``recv_streaming()`` waits.

        Consume the iterator to its end: one that is left in the middle of a message
        makes further calls raise ``ConcurrencyError``.  Cancelling it before the
        first fragment is safe.
        """
        if self.streaming or self.is_receiving:
            raise ConcurrencyError(
                "cannot call recv_streaming while another coroutine is already "
                "running recv or recv_streaming"
            )
        self.streaming = True
        begun = False
        try:
            pieces: list[bytes]
            decoder = None
            size = 0
            while True:
                got = await self.recv_pieces()
                done = isinstance(got, list)
                if done:
                    opcode, pieces = split_message(got[0])
                else:
                    opcode, pieces = got
                if not begun:
                    begun = True
                    if decode is None:
                        decode = opcode == OP_TEXT
                    if decode:
                        decoder = utf8_decoder()
                for number, piece in enumerate(pieces, 1):
                    if decoder is None:
                        yield piece
                        continue
                    try:
                        text = decoder.decode(piece, done and number == len(pieces))
                    except UnicodeDecodeError as exc:
                        held, _ = decoder.getstate()
                        self.decoding_failed(exc, size - len(held))
                        await self.wait_closed()
                        raise self.closed_error()  # noqa: B904  # the cause is set
                    size += len(piece)
                    yield text
                if done:
                    begun = False
                    return
        except ConnectionClosed:
            # There is no rest of the message; further calls say so too.
            begun = self.streaming = False
            raise
        finally:
            if not begun:
                self.streaming = False

    async def close(
        self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = ""
    ) -> None:
        """Close the connection: send a close frame and wait for the end.

        Calling it again is harmless.  After ``close_timeout`` seconds without an
        answer the connection is dropped.

        Args:
            code: Close code.
            reason: Close reason, at most 123 bytes in UTF-8.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        self.close_nowait(code, reason)
        await self.wait_closed()

    def close_nowait(
        self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = ""
    ) -> None:
        """Begin to close the connection, as ``close()``, without waiting.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        Close(code, reason).check()
        state = self.protocol.state
        if state is CONNECTING:
            self.fail(code, reason)
        if state is not OPEN:
            return
        if self.fragmenting:
            self.fail(CloseCode.INTERNAL_ERROR, "close during fragmented message")
            return
        self.protocol.send_close(code, reason)
        self._closing()

    async def ping(self, data: DataLike | None = None) -> Awaitable[float]:
        """Send a ping.

        Args:
            data: Payload, at most 125 bytes; by default four random bytes.

        Returns:
            A future whose result is the round-trip time in seconds, once the pong
            came.  It need not be awaited.

        Raises:
            ConnectionClosed: When the connection is closed.
            ConcurrencyError: When a ping with the same payload waits for its pong.
        """
        payload = None if data is None else control_payload(data)
        await self._check_open()
        pings = self._pings
        if pings is None:
            pings = self._pings = {}
        if payload is None:
            payload = os.urandom(4)
            while payload in pings:
                payload = os.urandom(4)
        elif payload in pings:
            raise ConcurrencyError("already waiting for a pong with the same data")
        waiter: asyncio.Future[float] = self.loop.create_future()
        # The exception need not be retrieved: a ping may be sent and forgotten.
        waiter.add_done_callback(_retrieve_exception)
        pings[payload] = (waiter, perf_counter())
        self.send_control(OP_PING, payload)
        if self.write_paused:
            await self.drain()
        return waiter

    async def pong(self, data: DataLike = b"") -> None:
        """Send a pong that no ping asked for; pings are answered without this.

        Args:
            data: Payload, at most 125 bytes.

        Raises:
            ConnectionClosed: When the connection is closed.
        """
        payload = control_payload(data)
        await self._check_open()
        self.send_control(OP_PONG, payload)
        if self.write_paused:
            await self.drain()

    # -- streams -----------------------------------------------------------------------

    def send_stream(self, *, text: bool | None = None) -> MessageWriter:
        """Send one message in parts; see :class:`MessageWriter`.

        Args:
            text: ``True`` or ``False`` forces a text or a binary message; by default
                the first part decides.
        """
        return MessageWriter(self, text)

    def recv_stream(self, *, decode: bool | None = None) -> MessageReader:
        """Receive one message in parts; see :class:`MessageReader`.

        Args:
            decode: ``True`` forces text, ``False`` forces bytes.
        """
        return MessageReader(self, decode)

    # -- peers that read too slowly ----------------------------------------------------

    def post(
        self,
        message: PreparedMessage | DataLike,
        *,
        key: Hashable = None,
        text: bool | None = None,
    ) -> bool:
        """Send a message without waiting; the slow-consumer policy has the last word.

        With ``slow_consumer`` a message waits in the backlog while the peer reads too
        slowly, or is dropped, see :class:`~websock.SlowConsumer`; without, it is
        ``send_nowait()``.  What ``send()`` and ``send_nowait()`` send overtakes the
        backlog.

        Args:
            message: ``str``, bytes-like, or what :func:`~websock.prepare` made.
            key: What it is about, for the policy ``"latest"``.
            text: ``True`` or ``False`` forces a text or a binary frame.

        Returns:
            Whether no message was dropped.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            ConcurrencyError: When a fragmented message is being sent, without
                ``slow_consumer``.
            TypeError: When ``message`` is of none of these types.
        """
        self.join_published()
        backlog = self.backlog
        if backlog is not None and self.write_paused:
            self.takes_joined()  # it may be that the socket was not asked yet
        if (
            backlog is None
            or not self.is_open
            or not (self.write_paused or self.fragmenting or backlog)
        ):
            self.send_nowait(message, text=text)
            return True
        if not isinstance(message, PreparedMessage):
            message = prepare(message, text=text)
        dropped, is_too_slow = backlog.add(message, key)
        if is_too_slow:
            self.close_nowait(CloseCode.TRY_AGAIN_LATER, "too slow")
        self.messages_dropped(dropped)
        return not dropped

    def send_prepared(self, message: Any, text: bool | None) -> None:
        """Send a prepared message, or raise: it is of none of the types to send."""
        if not isinstance(message, PreparedMessage):
            raise TypeError(
                f"message must be str or bytes-like, not {type(message).__name__}"
            )
        if text is not None:
            raise TypeError("text is chosen in prepare(), not when it is sent")
        frame = message.frame_for(self.protocol)
        self.count_sent(1, len(message.payload))
        self.write_bytes(frame)

    def send_published(self, message: PreparedMessage, key: Hashable) -> None:
        """Send what was published and cannot be sent as it is; errors are logged."""
        try:
            self.join_writes()
            self.send_to_one_of_many(message, key)
        except Exception as exc:
            self.publishing_failed(exc)

    def publishing_failed(self, exc: Exception) -> None:
        """Say that a message for many was not sent here."""
        _skipped(self, exc, False)

    def send_to_one_of_many(self, message: PreparedMessage, key: Hashable) -> None:
        """Send a message that others get too; a slow peer's policy is heeded."""
        if self.backlog is not None:
            self.post(message, key=key)
        elif self.fragmenting:
            raise ConcurrencyError("sending a fragmented message")
        else:
            self.send_prepared(message, None)

    def stats(self) -> ConnectionStats:
        """Return what was sent and received so far, and what waits."""
        return ConnectionStats(
            *self.counters(),
            dropped=0 if self.backlog is None else self.backlog.dropped,
            queued=self.queued,
            queued_size=self.queued_size,
            buffered=self.buffered_amount,
            latency=self.latency,
        )

    # -- sending what takes more than one step -----------------------------------------

    async def _check_open(self) -> None:
        """Raise if nothing can be sent, once it is known how the connection closed."""
        if not self.is_open:
            await self.wait_closed()
            raise self.closed_error()

    async def send_otherwise(
        self,
        message: DataLike | Iterable[DataLike] | AsyncIterable[DataLike],
        text: bool | None,
    ) -> None:
        """Send what ``send()`` cannot send at once, or raise what is wrong."""
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            await self.wait_for_turn()
            await self.send(message, text=text)
        elif isinstance(message, PreparedMessage):
            await self.wait_for_turn()
            self.send_prepared(message, text)
            if self.write_paused:
                await self.drain()
        elif isinstance(message, Mapping):
            # Iterating would send its keys, which nobody means.
            raise TypeError("message must not be a mapping")
        elif isinstance(message, AsyncIterable):
            await self._send_fragments(message, text)
        elif isinstance(message, Iterable):
            await self._send_fragments(AsAsync(iter(message)), text)
        else:
            raise TypeError(
                "message must be str, bytes-like, or an iterable of these, "
                f"not {type(message).__name__}"
            )

    async def wait_for_turn(self) -> None:
        """Wait until no fragmented message is being sent."""
        while self.fragmenting:
            assert self.fragment_done is not None
            await asyncio.shield(self.fragment_done)
        await self._check_open()
        self.join_published()

    async def _send_fragments(
        self, fragments: AsyncIterable[DataLike], text: bool | None
    ) -> None:
        """Send a message in fragments (RFC 6455, 5.4)."""
        iterator = fragments.__aiter__()
        await self.wait_for_turn()
        try:
            fragment = await anext(iterator)
        except StopAsyncIteration:
            return
        fragment_payload(fragment, text)  # if it raises, nothing has begun
        async with MessageWriter(self, text) as writer:
            await writer.write(fragment)
            async for fragment in iterator:
                await writer.write(fragment)

    async def send_fragment(self, opcode: int, payload: BytesLike, fin: bool) -> None:
        """Send a frame of a message; waits while the peer does not read."""
        # It may have been closed while the fragment was awaited.
        if not self.is_open:
            await self._check_open()
        self.count_sent(int(fin), len(payload))
        self.write_bytes(self.protocol.make_writer().frame(opcode, payload, fin))
        if self.write_paused:
            await self.drain()


def _retrieve_exception(waiter: asyncio.Future[float]) -> None:
    if not waiter.cancelled():
        waiter.exception()


def broadcast(
    connections: Iterable[Connection],
    message: PreparedMessage | DataLike,
    *,
    text: bool | None = None,
    key: Hashable = None,
    raise_exceptions: bool = False,
) -> None:
    """Send a message to many connections, without waiting for any.

    It is framed once, and compressed once where connections compress alike; see
    :func:`~websock.prepare`.  Connections that are not open are passed over.  Those
    that fail, or are in the middle of a fragmented message, are logged and passed over.
    Those that read too slowly are treated as their ``slow_consumer`` says.

    Args:
        connections: Where to send it.
        message: ``str`` goes out as text, bytes-like as binary; or what
            :func:`~websock.prepare` made.
        text: ``True`` or ``False`` forces a text or a binary frame.
        key: What it is about, for ``SlowConsumer("latest")``.
        raise_exceptions: Raise what went wrong, as an ``ExceptionGroup``, at the end.

    Raises:
        TypeError: When ``message`` is of none of these types.
        UnicodeEncodeError: When it has lone surrogates.
    """
    if not isinstance(message, PreparedMessage):
        message = prepare(message, text=text)
    elif text is not None:
        raise TypeError("text is chosen in prepare(), not when it is sent")
    failures = send_prepared_to_many(
        connections, message, key, raise_exceptions=raise_exceptions
    )
    if failures and raise_exceptions:
        raise ExceptionGroup("skipped broadcast", failures)


def send_prepared_to_many(
    connections: Iterable[Connection],
    message: PreparedMessage,
    key: Hashable = None,
    *,
    raise_exceptions: bool = False,
) -> list[Exception]:
    """Send a message to many connections, as ``broadcast()`` says.

    Args:
        connections: Where to send it.
        message: The message.
        key: What it is about, for ``SlowConsumer("latest")``.
        raise_exceptions: The caller raises what went wrong: it is not logged.

    Returns:
        What went wrong.
    """
    failures: list[Exception] = []
    # A copy: on_pause_writing(), called meanwhile, may take a slow peer out of the set.
    to = tuple(connections)
    others = send_to_many(to, message.frame(), len(message.payload))
    for connection, exc in others:
        try:
            if exc is not None:
                raise exc
            connection.send_to_one_of_many(message, key)
        except Exception as failure:
            failures.append(_skipped(connection, failure, raise_exceptions))
    return failures


def _skipped(connection: Connection, exc: Exception, is_raised: bool) -> Exception:
    """Log that a connection was passed over, or return what is to be raised."""
    if isinstance(exc, ConcurrencyError):
        if not is_raised:
            connection.logger.warning("skipped broadcast: %s", exc)
        return exc
    failure = RuntimeError("failed to write message")
    failure.__cause__ = exc
    if not is_raised:
        connection.logger.warning(
            "skipped broadcast: failed to write message: %s: %s",
            type(exc).__name__,
            exc,
        )
    return failure
