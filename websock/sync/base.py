"""The life of a connection that is used by threads.

Whoever waits for a message reads the socket itself: no thread runs beside the
program, and none is switched to for a message.  Three locks keep threads apart, and
none is held while another one is waited for, except the last while ending:

* ``_receiver``: who takes messages.  Two at once are a mistake of the program.
* ``_reading``: who reads and parses.  That is the thread in ``recv()``, or one that
  waits for the end of the connection, or the watcher (:mod:`.watcher`) while the
  program does something else.  Others who want to read wait until it is free, or
  until what they wait for is there.
* ``_sending``: who builds frames and writes.  What the reader has to send, answers to
  pings above all, is left as actions: if a thread is sending, even one that is stuck
  because the peer does not read, that thread carries them out when it is done.  So
  reading never waits for writing.

Bytes and messages are taken from the socket, parsed and kept by one call that is C
from end to end, so that Ctrl-C finds them before or after it, and never lost between.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._codec import FrameReader, FrameWriter
from ..asyncio.base import Marks, queue_marks
from ..constants import MAX_CONTROL_RATE, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG
from ..exceptions import ConnectionClosed, Failure, fail
from ..frames import CloseCode
from ..protocol import CLOSED, OPEN, Protocol, State
from ..typing import BytesLike
from .deadlines import Deadline
from .info import ConnectionInfo
from .streams import NO_WAIT, TlsStream
from .watcher import Timer, the_watcher

if TYPE_CHECKING:
    pass

__all__ = ["ConnectionBase"]

Event = tuple[int, Any, Any]

# Bytes of one read.  Small, since everything in it is parsed, whatever the queue can
# take; larger while a large message comes in, which is one message however it ends.
READ_SIZE = 16384
LARGE_READ_SIZE = 262144
# With extensions, always: a few bytes may become a message of the largest size.
COMPRESSED_READ_SIZE = 8192

# Bytes read without anybody receiving at which reading stops although the queue has
# room, if there are fragments that recv_streaming() could take.
READ_AHEAD = 2**20

# Reads of one connection in a row by the watcher.
MAX_READS = 8

# Pings that wait for their answers; beyond, only the newest are (RFC 6455, 5.5.3).
MAX_PONGS = 64

# Seconds for a thread that is sending when the peer's stream has ended.
MAX_SEND_WAIT = 0.1

_WAIT = (0,)
_DO_NOT_WAIT = (NO_WAIT,)


def _ignore(data: BytesLike) -> list[Event]:
    """Take input that nobody wants any more."""
    return []


class ConnectionBase(ConnectionInfo):
    """What a connection is and what becomes of it, apart from its messages."""

    def __init__(
        self,
        sock: Any,
        protocol: Protocol,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: Marks = 16,
        max_control_rate: int | None = MAX_CONTROL_RATE,
    ) -> None:
        super().__init__(sock, protocol)
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.close_timeout = close_timeout

        self._recv = self._stream.recv
        self._send_quickly = (
            None if isinstance(self._stream, TlsStream) else self._stream.send_now
        )
        self._watcher = the_watcher()
        self._high, self._low = queue_marks(max_queue)

        self._receiver = threading.Lock()
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0  # threads that wait for _changed

        self.is_paused = False  # nothing is read until messages are taken
        self.fragmenting = False  # a fragmented message is being sent

        self._queue: deque[Event] = deque()
        self._reader: FrameReader | None = None
        self._writer: FrameWriter | None = None
        self._feed: Callable[[BytesLike], Iterable[Event]] = _ignore
        self._sizes = self._small = (READ_SIZE,)
        self._large = (LARGE_READ_SIZE,)
        self._max_controls = max_control_rate
        self._controls_left = 0  # until the clock is looked at
        self._controls_since: float | None = None
        self._ahead = 0  # bytes read that nobody asked for
        self._judged = False  # whether an error of the reader was seen

        self._actions: deque[tuple[Callable[..., None], Any]] = deque()
        self._pongs: deque[bytes] = deque(maxlen=MAX_PONGS)
        self._has_actions = False
        self._unsent = b""  # as it goes over the network
        self._end_after_unsent = False
        self._broken = False  # nothing can be written any more

        # For the watcher: see there.
        self.activity = 0
        self.seen_activity = -1
        self.is_watched = False
        self.watched_fd = -1

        self._pings: dict[bytes, tuple[threading.Event | None, float, bool]] = {}
        self._pings_lock = threading.Lock()
        self._ping_sent: bytes | None = None  # the keepalive ping that waits
        self._timer: Timer | None = None
        self._close_timer: Timer | None = None
        self._connection_exc: BaseException | None = None

    # -- opening -------------------------------------------------------------------

    def handshake_done(self, rest: bytes) -> None:
        """Go from the opening handshake to messages.

        Args:
            rest: What the peer sent after its part of the handshake.
        """
        protocol = self.protocol
        reader = self._reader = protocol.make_reader()
        self._writer = protocol.make_writer()
        self._feed = reader.feed
        if protocol.extensions:
            self._sizes = self._small = self._large = (COMPRESSED_READ_SIZE,)
        self.is_open = self.opened = True
        if rest:
            with self._reading:
                self._take(rest)
        self._watcher.add(self)
        if self.ping_interval is not None and self.is_open:
            self._keepalive_later(self.ping_interval)

    # -- reading: by who holds _reading --------------------------------------------

    def _read_message(self, deadline: Deadline | None, pieces: bool = False) -> bool:
        """Read until there is a message, or the end; the queue is empty.

        By a thread that holds ``_receiver`` too.

        Args:
            deadline: When to stop; ``None`` for never.
            pieces: Whether fragments of a message will do.

        Returns:
            ``False`` when the deadline came first.
        """
        self._ahead = 0
        if self.is_paused:
            self._resume()
        stream = self._stream
        flags = _WAIT if deadline is None else _DO_NOT_WAIT
        while not self._queue and not self.is_lost:
            try:
                self._queue.extend(
                    itertools.chain.from_iterable(
                        map(self._feed, map(self._recv, self._sizes, flags))
                    )
                )
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                self._lose(exc)
                break
            except Exception as exc:
                self._crashed(exc)
            queue = self._queue
            if (
                len(queue) != 1
                or queue[0][0] > OP_BINARY
                or self._judged
                or stream.has_output
                or (self._reader is not None and self._reader.error is not None)
            ):
                self._sift()
            if self._queue or self._at_end():
                break
            reader = self._reader
            if pieces and reader is not None and reader.has_fragments:
                break
            if reader is not None and reader.in_message:
                self._sizes = self._large
            if deadline is not None and not stream.wait_readable(deadline.left()):
                return False
        self._sizes = self._small
        self.activity += 1
        return True

    def _at_end(self) -> bool:
        """Tell whether the stream has ended; if so, so does the connection."""
        try:
            if not self._stream.at_end():
                return False
        except OSError as exc:
            self._lose(exc)
        else:
            self._lose(None)
        return True

    def _sift(self) -> None:
        """Take out of the queue what is not for the program, and see to it.

        By a thread that holds ``_receiver`` too, so that nobody else uses the queue.
        """
        others = [event for event in self._queue if event[0] > OP_BINARY]
        if others:
            self._queue = deque(e for e in self._queue if e[0] <= OP_BINARY)
            for opcode, payload, _ in others:
                self.take_control(opcode, payload)
        self._after_read()

    def _read_some(self) -> bool:
        """Read what is there for whoever receives; return whether anything was."""
        try:
            data = self._recv(self._sizes[0], NO_WAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self._lose(exc)
            return True
        if not data:
            self._after_read()
            return self._at_end()
        self._ahead += len(data)
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        """Parse input; put messages into the queue."""
        try:
            events = self._feed(data)
        except Exception as exc:
            self._crashed(exc)
            return
        dropping = False
        for event in events:
            if event[0] > OP_BINARY:
                # Also behind messages that are dropped: the close frame above all.
                self.take_control(event[0], event[1])
            elif dropping:
                continue
            elif self.is_open or self._high is None or len(self._queue) < self._high:
                self._queue.append(event)
            else:
                # Closing does not wait for a program that has stopped to receive.
                dropping = True
        if dropping and self._feed is not _ignore:
            self._feed = self._feed_controls
        self._after_read()

    def _feed_controls(self, data: BytesLike) -> list[Event]:
        """Parse input of which the messages are not wanted any more."""
        assert self._reader is not None
        return [e for e in self._reader.feed(data) if e[0] > OP_BINARY]

    def _after_read(self) -> None:
        """See to what input has brought about."""
        reader = self._reader
        if reader is not None and reader.error is not None and not self._judged:
            self._judged = True
            self._feed = _ignore
            self._end_with(self._do_fail_reader, reader.error)
        if self._stream.has_output:
            self._has_actions = True
        if self._has_actions:
            self.run_actions()
        if self._waiting:
            self._notify()

    def take_control(self, opcode: int, payload: bytes) -> None:
        """See to a control frame; what there is to send becomes an action."""
        if opcode != OP_CLOSE:
            left = self._controls_left or self._count_controls()
            if not left:
                return
            self._controls_left = left - 1
        if opcode == OP_PING:
            self._pongs.append(payload)
            self._has_actions = True
        elif opcode == OP_PONG:
            self._pong_received(payload)
        elif opcode == OP_CLOSE:
            self._feed = _ignore
            self._end_with(self._do_close_received, payload)

    def _count_controls(self) -> int:
        """Begin a second of control frames; fail when the last one is not over.

        Returns:
            How many may come in it.
        """
        limit = self._max_controls
        now = monotonic()
        if limit is None:
            return 1
        if self._controls_since is None or now - self._controls_since >= 1:
            self._controls_since = now
            return limit
        if not self._judged:
            self._judged = True
            self._feed = _ignore
            self._end_with(
                self._do_fail_reader, fail(Failure.CONTROL_RATE, limit=limit)
            )
        return 0

    def read_idle(self) -> bool | None:
        """Read what is there, for the watcher.

        Returns:
            Whether there is room for more; ``None`` when another thread reads.
        """
        if not self._reading.acquire(False):
            return None
        try:
            for _ in range(MAX_READS):
                if self.is_lost or self._pauses():
                    return False
                if not self._read_some():
                    return True
            while self.has_read_ahead():
                # It would not be told again of what is in memory already.
                if self.is_lost or self._pauses():
                    return False
                if not self._read_some():
                    return True
            return True
        finally:
            # The watcher itself need not be woken.
            self._reading.release()
            if self._waiting:
                self._notify()

    def _must_hold(self) -> bool:
        """Whether nothing is to be read before messages are taken."""
        if not self.is_open:
            return False
        if self._high is not None and len(self._queue) >= self._high:
            return True
        return (
            self._ahead >= READ_AHEAD
            and self._reader is not None
            and self._reader.has_fragments
        )

    def _pauses(self) -> bool:
        """Stop reading if that is called for."""
        if not self._must_hold():
            return False
        self.is_paused = True
        # Messages may have been taken before that could be seen.
        if self._has_room():
            self.is_paused = False
            return False
        return True

    def _has_room(self) -> bool:
        if self._must_hold():
            return False
        return self._low is None or len(self._queue) <= self._low

    def _check_room(self) -> None:
        """Go on reading if enough messages were taken; after a pause."""
        if self._has_room():
            self._resume()

    def _resume(self) -> None:
        self.is_paused = False
        if not self.is_lost:
            self._watcher.add_again(self)
        if self._waiting:
            self._notify()

    def has_read_ahead(self) -> bool:
        """Whether there is input in memory that the socket does not tell of."""
        return self._stream.ssl_pending()

    def is_read(self) -> bool:
        """Whether a thread reads, or waits to."""
        return self._reading.locked()

    def _release_reading(self) -> None:
        self._reading.release()
        if self._watcher.asleep:
            self._watcher.wake()
        if self._waiting:
            self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_until(self, ready: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait while another thread reads; ``False`` when the deadline comes first."""
        with self._changed:
            # Seen by who reads from here on; what was before, ready() sees.
            self._waiting += 1
            try:
                while not ready():
                    left = deadline.left()
                    if left == 0 or not self._changed.wait(left):
                        return ready()
                return True
            finally:
                self._waiting -= 1

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection is closed, by whichever side.

        Messages that arrive meanwhile can be received before or afterwards; while
        nobody receives them, no more are read than the queue takes.

        Args:
            timeout: Seconds to wait; ``None`` for no limit.

        Returns:
            Whether it is closed.
        """
        deadline = Deadline(timeout)
        while not self.is_lost:
            if not self._reading.acquire(False):
                self._wait_until(self._may_read, deadline)
            else:
                try:
                    paused = self._pauses()
                    if not paused:
                        self.activity += 1
                        if self._read_some():
                            continue
                        self._stream.wait_readable(deadline.left())
                finally:
                    self._release_reading()
                if paused:
                    self._wait_until(self._may_go_on, deadline)
            if deadline.left() == 0:
                break
        return self.is_lost

    def _may_read(self) -> bool:
        return self.is_lost or not self._reading.locked()

    def _may_go_on(self) -> bool:
        return self.is_lost or not self.is_paused

    # -- sending: by who holds _sending --------------------------------------------

    def has_unsent(self) -> bool:
        """Whether something is left to send that nobody is sending."""
        return bool(self._unsent)

    def run_actions(self) -> None:
        """Send what is to be sent besides messages, unless a thread is sending.

        That thread does it when it is done.
        """
        if self._unsent:
            self._has_actions = True
        while self._has_actions and self._sending.acquire(False):
            try:
                self._do_actions()
            finally:
                self._sending.release()

    def _do_actions(self) -> None:
        self._has_actions = False
        if self.is_lost:
            self._actions.clear()
            return
        try:
            self._send_now(b"")
            pongs = b""
            while self._pongs and not self._unsent:
                payload = self._pongs.popleft()
                if self.protocol.state in (OPEN, State.CLOSING) and not (
                    self.protocol.eof_sent
                ):
                    assert self._writer is not None
                    pongs += self._writer.frame(OP_PONG, payload)
            if pongs:
                self._send_now(pongs)
            while self._actions:
                function, argument = self._actions.popleft()
                function(argument)
                self._send_writes()
        except OSError as exc:
            self._write_failed(exc)

    def _send_writes(self) -> None:
        """Send what the protocol has to send."""
        for data in self.protocol.data_to_send():
            if data:
                self._send_now(data)
            else:
                self._send_encoded_now(self._stream.encode_eof())
                if self._unsent:
                    self._end_after_unsent = True
                else:
                    self._stream.end()

    def _send_now(self, data: bytes) -> None:
        """Send without waiting; keep what cannot be sent."""
        if self._broken:
            return
        if data or self._stream.has_output:
            data = self._stream.encode(data)
        if data or self._unsent:
            self._send_encoded_now(data)

    def _send_encoded_now(self, data: bytes) -> None:
        if self._broken:
            return
        had_unsent = bool(self._unsent)
        data = self._unsent + data
        sent = self._stream.send_now(data) if data else 0
        self._unsent = data[sent:]
        if self._unsent:
            if not had_unsent or self.watched_fd < 0:
                self._watcher.want_write(self)
        elif self._end_after_unsent:
            self._end_after_unsent = False
            self._stream.end()

    def _send_waiting(self, data: bytes) -> None:
        """Send what is encoded, after what is left, waiting as long as it takes."""
        if self._broken:
            return
        self._unsent += data
        sent: deque[int] = deque()
        while self._unsent:
            # How much was sent is known even if Ctrl-C ends the waiting: the rest
            # then goes out before anything else does.
            try:
                sent.extend(map(self._stream.send, (memoryview(self._unsent),)))
            except BaseException:
                self._watcher.want_write(self)
                raise
            finally:
                if sent:
                    self._unsent = self._unsent[sent.pop() :]
        if self._pongs:
            self._has_actions = True  # they had to wait for that

    def _write_failed(self, exc: OSError) -> None:
        """Nothing can be sent any more; what the peer has sent is still read."""
        self._broken = True
        self._unsent = b""
        self.is_open = False
        if self._connection_exc is None:
            self._connection_exc = exc
        self.expect_close()

    def send_frame(self, data: bytes) -> None:
        """Send a frame; ``_sending`` is held, and the connection is open.

        Raises:
            OSError: When that fails.
        """
        if self._unsent or self._send_quickly is None:
            self._send_waiting(self._stream.encode(data))
            return
        sent = self._send_quickly(data)
        if sent != len(data):
            self._send_waiting(data[sent:])

    # -- actions -------------------------------------------------------------------

    def add_action(self, function: Callable[..., None], argument: Any) -> None:
        """Have something done by who sends next, or at once."""
        self._actions.append((function, argument))
        self._has_actions = True

    def _end_with(self, function: Callable[..., None], argument: Any) -> None:
        """Begin the end of the connection."""
        self.is_open = False
        self.add_action(function, argument)
        self.expect_close()
        if self.is_paused:
            self._resume()

    def _do_close_received(self, payload: bytes) -> None:
        self.protocol.close_received(payload)

    def _do_fail_reader(self, exc: Exception) -> None:
        self.protocol.logger = self.logger
        self.protocol.reader_failed(exc)
        if self.debug:
            self.logger.debug("! %s", exc)

    def _do_fail(self, close: tuple[int, str]) -> None:
        if self.protocol.state is not CLOSED:
            self.protocol.fail(*close)

    def _do_close(self, close: tuple[int, str]) -> None:
        if self.protocol.state is not OPEN:
            return
        if self.fragmenting:
            self.protocol.fail(
                CloseCode.INTERNAL_ERROR, "close during fragmented message"
            )
        else:
            self.protocol.send_close(*close)

    def _do_ping(self, payload: bytes) -> None:
        # Without a timeout they would pile up behind what the peer does not read.
        if self.is_open and (not self._unsent or self.ping_timeout is not None):
            assert self._writer is not None
            self._send_now(self._writer.frame(OP_PING, payload))

    def begin_close(self, code: CloseCode | int, reason: str) -> None:
        """Begin to close the connection, without waiting."""
        if self.is_open:
            self._end_with(self._do_close, (code, reason))
            self.run_actions()

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection (RFC 6455, 7.1.7): say why, read nothing more."""
        if self.is_lost:
            return
        self._feed = _ignore
        self._end_with(self._do_fail, (code, reason))
        self.run_actions()

    def decoding_failed(self, exc: UnicodeDecodeError, offset: int = 0) -> None:
        """A binary message that was to be decoded is not UTF-8."""
        if self._connection_exc is None:
            self._connection_exc = exc
        position = offset + exc.start
        self.fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {position}")

    def _crashed(self, exc: Exception) -> None:
        """Something failed that must not: say so, and end the connection."""
        self.logger.error("connection failed", exc_info=exc)
        if self._connection_exc is None:
            self._connection_exc = exc
        self.fail(CloseCode.INTERNAL_ERROR)

    # -- the end -------------------------------------------------------------------

    def expect_close(self) -> None:
        """Give the peer ``close_timeout`` seconds to end the connection."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if (
            self._close_timer is None
            and self.close_timeout is not None
            and not self.is_lost
        ):
            self._close_timer = self._watcher.call_later(
                self.close_timeout, self._close_timed_out
            )

    def _close_timed_out(self) -> None:
        self.abort_with(TimeoutError("timed out while closing connection"))

    def abort_with(self, exc: BaseException) -> None:
        """Drop the connection; ``exc`` becomes the cause that errors tell."""
        if self.is_lost:
            return
        if self._connection_exc is None:
            self._connection_exc = exc
        self.is_open = False
        # Wakes who reads, who then ends the connection; and who writes.
        self._stream.abort()
        if self._reading.acquire(False):
            try:
                self._lose(None)
            finally:
                self._release_reading()

    def _lose(self, exc: BaseException | None) -> None:
        """End the connection; ``_reading`` is held."""
        if self.is_lost:
            return
        if exc is not None and self._connection_exc is None:
            self._connection_exc = exc
        # Who is stuck in sending is woken first.
        if exc is not None or not self._sending.acquire(timeout=MAX_SEND_WAIT):
            self._stream.abort()
            self._sending.acquire()
        try:
            self._do_actions()
            self.protocol.receive_eof()
            self.protocol.data_to_send()
            self.local_address  # noqa: B018  # for logs, once the socket is closed
            self.remote_address  # noqa: B018
            self.is_open = False
            self.is_lost = True
            self._unsent = b""
            self._watcher.forget(self)
            self._stream.close()
        finally:
            self._sending.release()
        for timer in (self._timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._close_timer = None
        with self._pings_lock:
            pings, self._pings = self._pings, {}
        for waiter, _, ack_on_close in pings.values():
            if waiter is not None and ack_on_close:
                waiter.set()
        # They refer to the connection: without them it is freed at once.
        if self._logger is not None and self.protocol.logger is self._logger:
            self.protocol.logger = self._logger.logger
        if self._waiting:
            self._notify()

    def closed_error(self) -> ConnectionClosed:
        """Return the exception that tells how the connection was closed."""
        exc = self.protocol.close_exc
        cause: BaseException | None = self.protocol.parser_exc
        if self._connection_exc is not None and (
            cause is None or isinstance(cause, EOFError)
        ):
            # What came after a broken rule does not matter.
            cause = self._connection_exc
        exc.__cause__ = cause
        return exc

    # -- pings ---------------------------------------------------------------------

    def _pong_received(self, payload: bytes) -> None:
        """A pong arrived: it answers its ping and all before it (RFC 6455, 5.5.3)."""
        now = monotonic()
        answered = None
        with self._pings_lock:
            pings = self._pings
            if payload not in pings:
                return
            for key in list(pings):
                waiter, sent, _ = pings.pop(key)
                if waiter is not None:
                    waiter.set()
                if key == self._ping_sent:
                    self._ping_sent = None
                    answered = now - sent
                if key == payload:
                    self.latency = now - sent
                    break
        if answered is not None:
            self._keepalive_answered(answered)

    def _keepalive_later(self, delay: float) -> None:
        self._timer = self._watcher.call_later(delay, self._keepalive)

    def _keepalive(self) -> None:
        """Send the ping that shows whether the peer is still there."""
        if not self.is_open:
            return
        assert self.ping_interval is not None
        payload = os.urandom(4)
        with self._pings_lock:
            while payload in self._pings:
                payload = os.urandom(4)
            if self._ping_sent is not None:
                # Never answered, and there is no timeout: it must not pile up.
                self._pings.pop(self._ping_sent, None)
            self._pings[payload] = (None, monotonic(), False)
            self._ping_sent = payload
        if self.ping_timeout is None:
            self._keepalive_later(self.ping_interval)
        else:
            self._timer = self._watcher.call_later(
                self.ping_timeout, self._ping_timed_out
            )
        self.add_action(self._do_ping, payload)
        self.run_actions()
        self.expect_answer()
        if self.debug:
            self.logger.debug("% sent keepalive ping")

    def expect_answer(self) -> None:
        """Have the connection read, if its program does not."""
        if not (self.is_read() or self.is_watched or self.is_paused):
            self._watcher.watch(self)

    def _keepalive_answered(self, latency: float) -> None:
        if self.debug:
            self.logger.debug("% received keepalive pong")
        if self.ping_timeout is None or not self.is_open:
            return
        timer = self._timer
        if timer is not None:
            timer.cancel()
        assert self.ping_interval is not None
        self._keepalive_later(max(self.ping_interval - latency, 0))

    def _ping_timed_out(self) -> None:
        if not self.is_open:
            return
        blocked = bool(self._unsent) or self._sending.locked()
        if self.is_paused and not blocked:
            # The answer may be there, behind messages that the program does not take;
            # but that is the fault of the peer if the program waits for it to read.
            assert self.ping_timeout is not None
            self._timer = self._watcher.call_later(
                self.ping_timeout, self._ping_timed_out
            )
            return
        if self.debug:
            self.logger.debug("- timed out waiting for keepalive pong")
        self.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        if blocked:
            # The peer does not read: a close frame would wait for ever.
            self.abort_with(TimeoutError("keepalive ping timeout"))
