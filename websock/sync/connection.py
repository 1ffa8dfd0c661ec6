"""The connection that programs hold: its messages, and what is sent and received."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self, overload

from ..asyncio.payloads import (
    control_payload,
    fragment_payload,
    split_message,
    utf8_decoder,
)
from ..constants import OP_BINARY, OP_CONT, OP_PING, OP_PONG, OP_TEXT
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from ..frames import Close, CloseCode
from ..typing import BytesLike, Data, DataLike
from .base import ConnectionBase
from .deadlines import Deadline

__all__ = ["Connection", "broadcast"]


class Connection(ConnectionBase):
    """A WebSocket connection, of a client or of a server.

    Use :class:`~websock.sync.client.ClientConnection` and
    :class:`~websock.sync.server.ServerConnection`.  All methods may be called from
    any thread; one thread can send while another one receives.
    """

    # -- using it ------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.close(CloseCode.INTERNAL_ERROR)

    def __iter__(self) -> Iterator[Data]:
        """Receive messages until the connection is closed.

        Raises:
            ConnectionClosedError: When it is closed with an error.
            ConcurrencyError: When another thread receives.
        """
        try:
            while True:
                yield self.recv()
        except ConnectionClosedOK:
            return

    @overload
    def recv(self, timeout: float | None, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None, decode: Literal[False]) -> bytes: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...

    @overload
    def recv(
        self, timeout: float | None = None, *, decode: Literal[False]
    ) -> bytes: ...

    @overload
    def recv(
        self, timeout: float | None = None, decode: bool | None = None
    ) -> Data: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Data:
        """Receive the next message.

        A message that comes too late for ``timeout`` is there for the next call.

        Args:
            timeout: Seconds to wait for it; ``None`` for no limit. With 0 or less, it
                must be there already.
            decode: ``True`` forces text, ``False`` forces bytes; by default text
                frames give ``str`` and binary frames ``bytes``.

        Raises:
            ConnectionClosed: When the connection is closed.
            ConcurrencyError: When another thread receives.
            TimeoutError: When no message comes in time.
        """
        if not self._receiver.acquire(False):
            raise ConcurrencyError(
                "cannot call recv while another thread is already "
                "running recv or recv_streaming"
            )
        try:
            opcode, payload, _ = self._next_event(timeout)
        finally:
            self._receiver.release()
        if decode is None:
            return payload  # type: ignore[no-any-return]
        if decode:
            if opcode == OP_BINARY:
                try:
                    return payload.decode()  # type: ignore[no-any-return]
                except UnicodeDecodeError as exc:
                    self.decoding_failed(exc)
                self.wait_closed()
                raise self.closed_error()
        elif opcode == OP_TEXT:
            return payload.encode()  # type: ignore[no-any-return]
        return payload  # type: ignore[no-any-return]

    def _next_event(self, timeout: float | None) -> tuple[int, Any, Any]:
        """Take the next message out of the queue; ``_receiver`` is held."""
        while True:
            if not self._queue:
                if timeout is None and self._reading.acquire(False):
                    try:
                        self._read_message(None)
                    finally:
                        self._release_reading()
                    if not self._queue:
                        raise self.closed_error()
                else:
                    self._wait_for_message(timeout)
            event = self._queue.popleft()
            if self.is_paused:
                self._check_room()
            if event[0] <= OP_BINARY:
                return event
            # Ctrl-C was faster than who should have seen to it.
            self.take_control(event[0], event[1])
            self.run_actions()

    def _wait_for_message(self, timeout: float | None) -> None:
        deadline = Deadline(timeout)
        while not self._queue:
            if self.is_lost:
                raise self.closed_error()
            if self._reading.acquire(False):
                try:
                    in_time = bool(self._queue) or self._read_message(deadline)
                finally:
                    self._release_reading()
            else:
                in_time = self._wait_until(self._may_receive, deadline)
            if not in_time and not self._queue:
                raise TimeoutError(f"no message came within {timeout} seconds")

    def _may_receive(self) -> bool:
        return bool(self._queue) or self._may_read()

    @overload
    def recv_streaming(self, decode: Literal[True]) -> Iterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> Iterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> Iterator[Data]: ...

    def recv_streaming(self, decode: bool | None = None) -> Iterator[Data]:
        """Receive the next message fragment by fragment, as they arrive.

        Consume the iterator to its end: one that is left in the middle of a message
        makes further calls raise ``ConcurrencyError``.

        Args:
            decode: ``True`` forces text, ``False`` forces bytes; by default text
                frames give ``str`` and binary frames ``bytes``.

        Raises:
            ConnectionClosed: When the connection is closed.
            ConcurrencyError: When another thread receives.
        """
        if not self._receiver.acquire(False):
            raise ConcurrencyError(
                "cannot call recv_streaming while another thread is already "
                "running recv or recv_streaming"
            )
        begun = False
        try:
            decoder = None
            size = 0
            done = False
            while not done:
                done, opcode, pieces = self._next_pieces()
                if not begun:
                    begun = True
                    if decode is None:
                        decode = opcode == OP_TEXT
                    if decode:
                        decoder = utf8_decoder()
                for number, piece in enumerate(pieces, 1):
                    last = done and number == len(pieces)
                    if decoder is None:
                        begun = not last
                        yield piece
                        continue
                    try:
                        text = decoder.decode(piece, last)
                    except UnicodeDecodeError as exc:
                        held, _ = decoder.getstate()
                        self.decoding_failed(exc, size - len(held))
                        self.wait_closed()
                        raise self.closed_error()  # noqa: B904  # the cause is set
                    size += len(piece)
                    begun = not last
                    yield text
        except ConnectionClosed:
            begun = False  # there is no rest of the message
            raise
        finally:
            if not begun:
                self._receiver.release()

    def _next_pieces(self) -> tuple[bool, int, list[bytes]]:
        """Return what is there of a message: whether it ends so, opcode, fragments."""
        while True:
            if self._queue:
                event = self._next_event(None)
                opcode, payload, ends = event
                item = payload if ends is None else (payload, ends, opcode == OP_CONT)
                kind, pieces = split_message(item)
                return True, kind, pieces
            if self._reading.acquire(False):
                try:
                    if self._queue:
                        continue
                    reader = self._reader
                    assert reader is not None
                    if reader.has_fragments:
                        opcode = reader.message_opcode
                        pieces = reader.take_fragments()
                        self._ahead = 0
                        if self.is_paused:
                            self._check_room()
                        return False, opcode, pieces
                    if self.is_lost:
                        raise self.closed_error()
                    self._read_message(None, True)
                finally:
                    self._release_reading()
            else:
                self._wait_until(self._may_receive, Deadline(None))

    def send(
        self,
        message: DataLike | Iterable[DataLike],
        *,
        text: bool | None = None,
    ) -> None:
        """Send a message.

        Args:
            message: ``str`` goes out as text, bytes-like as binary; an iterable of
                either is sent in fragments, one frame for each.
            text: ``True`` or ``False`` forces a text or a binary message.

        Raises:
            ConnectionClosed: When the connection is closed.
            ConcurrencyError: When another thread sends a fragmented message.
            TypeError: When ``message`` is none of these.
            UnicodeEncodeError: When it has lone surrogates.
        """
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            with self._sending:
                sent = self.is_open
                if sent:
                    if self.fragmenting:
                        raise _busy()
                    try:
                        self.send_frame(
                            self._writer.message(message, text)  # type: ignore[union-attr]
                        )
                    except OSError as exc:
                        self._write_failed(exc)
                        sent = False
            if self._has_actions:
                self.run_actions()
            if not sent:
                self._raise_closed()
            return
        if isinstance(message, Mapping):
            # Iterating would send its keys, which nobody means.
            raise TypeError("message must not be a mapping")
        if not isinstance(message, Iterable):
            raise TypeError(
                "message must be str, bytes-like, or an iterable of these, "
                f"not {type(message).__name__}"
            )
        self._send_fragments(iter(message), text)

    def _raise_closed(self) -> None:
        self.wait_closed()
        raise self.closed_error()

    def _send_locked(self, opcode: int, payload: BytesLike, fin: bool = True) -> bool:
        """Send a frame while ``_sending`` is held; tell whether that was possible."""
        if not self.is_open:
            return False
        assert self._writer is not None
        frame = self._writer.frame(opcode, payload, fin)
        try:
            self.send_frame(frame)
        except OSError as exc:
            self._write_failed(exc)
            return False
        return True

    def _send_one(self, opcode: int, payload: BytesLike, fin: bool = True) -> None:
        """Send a frame.

        Raises:
            ConnectionClosed: When the connection is closed.
        """
        with self._sending:
            sent = self._send_locked(opcode, payload, fin)
        self._sent(sent)

    def _sent(self, sent: bool) -> None:
        """See to what had to wait for a frame; tell if that could not be sent."""
        if self._has_actions:
            self.run_actions()
        if not sent:
            self._raise_closed()

    def _send_fragments(self, fragments: Iterator[DataLike], text: bool | None) -> None:
        """Send a message in fragments (RFC 6455, 5.4)."""
        try:
            fragment = next(fragments)
        except StopIteration:
            return
        opcode, payload = fragment_payload(fragment, text)
        is_text = isinstance(fragment, str)
        with self._sending:
            if self.fragmenting:
                raise _busy()
            self.fragmenting = True
        ended = False
        try:
            self._send_one(opcode, payload, False)
            for fragment in fragments:
                if isinstance(fragment, str) is not is_text:
                    raise TypeError("fragments must be all str or all bytes-like")
                _, payload = fragment_payload(fragment, text)
                self._send_one(OP_CONT, payload, False)
            with self._sending:
                sent = self._send_locked(OP_CONT, b"", True)
                # From here on it may be the message of another thread.
                self.fragmenting, ended = False, True
            self._sent(sent)
        except BaseException:
            # The message cannot be ended, nor can another one be begun.
            if not ended and self.is_open:
                self.fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")
            raise
        finally:
            if not ended:
                self.fragmenting = False

    def send_at_once(
        self, opcode: int, payload: BytesLike, frame: bytes | None
    ) -> bool:
        """Send a message if that needs no waiting; tell whether it was sent.

        What the network does not take of it is sent when it does.

        Args:
            opcode: Opcode of the message.
            payload: Its payload.
            frame: The frame of both, if it was built already.

        Raises:
            ConcurrencyError: When a fragmented message is being sent.
            OSError: When the connection fails.
        """
        if not self._sending.acquire(False):
            return False
        try:
            if self.fragmenting:
                raise _busy()
            if self._unsent:
                return False
            if self.is_open:
                assert self._writer is not None
                if frame is None:
                    frame = self._writer.frame(opcode, payload)
                try:
                    self._send_now(frame)
                except OSError as exc:
                    self._write_failed(exc)
                    raise
        finally:
            self._sending.release()
        if self._has_actions:
            self.run_actions()
        return True

    def send_after(self, opcode: int, payload: BytesLike) -> bool:
        """Send a message behind what is being sent, waiting as long as it takes.

        Raises:
            ConcurrencyError: When a fragmented message is being sent.
            ConnectionClosed: When the connection is closed.
        """
        with self._sending:
            # Not before: while it waited, another thread may have begun one.
            if self.fragmenting:
                raise _busy()
            sent = self._send_locked(opcode, payload)
        self._sent(sent)
        return True

    def close(
        self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = ""
    ) -> None:
        """Close the connection: send a close frame and wait for the end.

        Calling it again is harmless.  After ``close_timeout`` seconds without an
        answer the connection is dropped.  Messages that arrive meanwhile can be
        received as far as the queue takes them; the others are dropped.

        Args:
            code: Close code.
            reason: Close reason, at most 123 bytes in UTF-8.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        Close(code, reason).check()
        self.begin_close(code, reason)
        self.wait_closed()

    def ping(
        self, data: DataLike | None = None, *, ack_on_close: bool = False
    ) -> threading.Event:
        """Send a ping.

        Args:
            data: Payload, at most 125 bytes; by default four random bytes.
            ack_on_close: Whether the event is set too when the connection is closed.

        Returns:
            An event that is set when the pong comes.  It need not be waited for.

        Raises:
            ConnectionClosed: When the connection is closed.
            ConcurrencyError: When a ping with the same payload waits for its pong.
        """
        payload = None if data is None else control_payload(data)
        if not self.is_open:
            self._raise_closed()
        waiter = threading.Event()
        with self._pings_lock:
            if payload is None:
                payload = os.urandom(4)
                while payload in self._pings:
                    payload = os.urandom(4)
            elif payload in self._pings:
                raise ConcurrencyError("already waiting for a pong with the same data")
            self._pings[payload] = (waiter, monotonic(), ack_on_close)
        try:
            self._send_one(OP_PING, payload)
        except BaseException:
            with self._pings_lock:
                self._pings.pop(payload, None)
            raise
        self.expect_answer()
        return waiter

    def pong(self, data: DataLike = b"") -> None:
        """Send a pong that no ping asked for; pings are answered without this.

        Args:
            data: Payload, at most 125 bytes.

        Raises:
            ConnectionClosed: When the connection is closed.
        """
        self._send_one(OP_PONG, control_payload(data))


def _busy() -> ConcurrencyError:
    return ConcurrencyError(
        "cannot call send while another thread is already running send "
        "with a fragmented message"
    )


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    raise_exceptions: bool = False,
    text: bool | None = None,
    **kwargs: Any,
) -> None:
    """Send a message to many connections.

    What the network takes at once is sent at once; for the other connections, threads
    wait, so that one slow peer does not hold up the others.  Connections that are not
    open are passed over.  Those that fail, or are in the middle of a fragmented
    message, are logged and passed over.

    Args:
        connections: Where to send it.
        message: ``str`` goes out as text, bytes-like as binary.
        raise_exceptions: Raise what went wrong, as an ``ExceptionGroup``, at the end.
        text: ``True`` or ``False`` forces a text or a binary frame.
        **kwargs: For the ``ThreadPoolExecutor`` that waits, such as ``max_workers``.

    Raises:
        TypeError: When ``message`` is neither ``str`` nor bytes-like.
        UnicodeEncodeError: When it has lone surrogates.
    """
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        raise TypeError(
            f"message must be str or bytes-like, not {type(message).__name__}"
        )
    opcode, payload = fragment_payload(message, text)
    failures: list[Exception] = []
    slow: list[Connection] = []
    shared: bytes | None = None

    def send_to(connection: Connection, send: Callable[[], bool]) -> bool:
        try:
            return send()
        except ConcurrencyError as exc:
            failure: Exception = exc
            text = "sending a fragmented message"
        except Exception as exc:
            failure = RuntimeError("failed to write message")
            failure.__cause__ = exc
            text = f"failed to write message: {type(exc).__name__}: {exc}"
        if raise_exceptions:
            failures.append(failure)
        else:
            connection.logger.warning("skipped broadcast: %s", text)
        return True

    for connection in tuple(connections):  # a set may change in other threads
        if not connection.is_open:
            continue
        protocol = connection.protocol
        frame = None
        if not (protocol.side or protocol.extensions):
            # The same for every server connection without extensions.
            if shared is None:
                shared = protocol.make_writer().frame(opcode, payload)
            frame = shared
        at_once = functools.partial(connection.send_at_once, opcode, payload, frame)
        if not send_to(connection, at_once):
            slow.append(connection)

    def wait_for(connection: Connection) -> None:
        if connection.is_open:
            send_to(connection, lambda: connection.send_after(opcode, payload))

    if slow:
        with concurrent.futures.ThreadPoolExecutor(**kwargs) as executor:
            for _ in executor.map(wait_for, slow):
                pass
    if failures:
        raise ExceptionGroup("skipped broadcast", failures)
