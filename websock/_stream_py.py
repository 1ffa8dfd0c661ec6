"""Streams: the pure twin, and the description of what a stream does.

A :class:`Stream` owns a connected socket, or works on a transport where the loop
has no ``add_reader`` or the bytes are encrypted.  It reads, parses with a
:class:`~websock._codec_py.FrameReader`, and delivers messages to a queue or to a
callback; it frames messages and writes them.  It knows neither the opening nor the
closing handshake nor timeouts: :mod:`websock.asyncio.connection` derives from it and
decides, through the methods listed at the end of the class.

The ideas, the same in both twins:

* *One read buffer per loop.*  Input is parsed at once and copied only into messages.
* *Cork.*  What is sent while a read event is handled leaves in one write at its
  end.  Outside of one, the first write of a turn of the loop goes out at once and
  later ones are joined until the turn ends.
* *Wake inside the event.*  A task that waits in ``recv()`` goes on inside the read
  event, unless another task of the loop is running.
* *Nothing to wait for, nothing to await.*  ``send()`` returns a finished awaitable
  while the write buffer is below its mark.
* *Held input.*  When the queue is full, what was read and not parsed is kept as
  bytes, at most one read, and the socket is not read.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from ._codec_py import FrameReader, FrameWriter
from .constants import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG
from .exceptions import ConcurrencyError, ConnectionClosedOK, InternalError
from .timers import TimerWheel
from .typing import BytesLike, Data, DataLike

__all__ = ["Stream", "loop_state"]

READ_SIZE = 131072
MAX_READS = 16  # in one event, so that a fast sender does not starve the others
LARGE = 16384  # from this size on, output is not joined by copying
# Fragments in bytes that may wait until somebody receives.
FRAGMENTS_LIMIT = 65536

HANDSHAKE, FRAMES, IGNORED = range(3)  # what arrives
WHOLE, ITERATE, PIECES = range(3)  # what a Recv waits for


class LoopState:
    """What the streams of one loop share: the read buffer, the cork, the timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.read_buffer = memoryview(bytearray(READ_SIZE))
        self.corked: list[bytes] = []
        self.cork_owner: Stream | None = None
        self.reading = False
        self.turn = 1
        self.turn_ends = False
        self.dirty: list[Stream] = []
        self.wheel = TimerWheel(loop)

    def end_turn_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have ``end_turn()`` called in the loop's next turn."""
        if not self.turn_ends:
            self.turn_ends = True
            loop.call_soon(self.end_turn)

    def end_turn(self) -> None:
        """Send what was joined since the loop's last turn."""
        dirty, self.dirty = self.dirty, []
        self.turn_ends = False
        self.turn += 1
        for stream in dirty:
            stream._flush()


_states_lock = threading.Lock()


def loop_state(loop: asyncio.AbstractEventLoop) -> LoopState:
    """Return what the streams of ``loop`` share, made at first use."""
    # An attribute of the loop: timers refer to the loop, so that anything else which
    # held them would keep it alive.
    state: LoopState | None = getattr(loop, "_websock_py", None)
    if state is None:
        with _states_lock:
            state = getattr(loop, "_websock_py", None)
            if state is None:
                state = LoopState(loop)
                loop._websock_py = state  # type: ignore[attr-defined]
    return state


class _NoLoop:
    """Stands for the loop of a future that belongs to none."""

    def get_debug(self) -> bool:
        return False


# What a task's wake-up is called with: the wake-up looks only at the result.
FINISHED: asyncio.Future[None] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]
FINISHED.set_result(None)


class Recv:
    """The awaitable that ``recv()`` returns; acts as a coroutine, without a frame."""

    __slots__ = ("decode", "failing", "mode", "state", "stream")

    def __init__(self, stream: Stream, decode: bool | None, mode: int) -> None:
        self.stream = stream
        self.decode = decode
        self.mode = mode
        self.state = 0  # 0 not begun, 1 waiting, 2 over
        self.failing = False  # only the end of the connection is awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    __iter__ = __await__

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine's ``send()``."""
        item = self.step()
        if self.state == 1:
            return item
        raise StopIteration(item)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Leave the wait with an exception; no message is lost."""
        self.leave(True)
        if val is None:
            val = typ if isinstance(typ, BaseException) else typ()
        elif not isinstance(val, BaseException):
            val = typ(val)
        if tb is not None:
            val = val.with_traceback(tb)
        raise val

    def close(self) -> None:
        """Leave the wait; no message is lost."""
        self.leave(True)

    def leave(self, abandoned: bool) -> None:
        """Stop being the receiver."""
        if self.state == 1:
            self.stream._receiver = None
            if abandoned:
                self.stream._waiter = None
        self.state = 2

    def step(self) -> Any:
        """Return the message, or the waiter when ``state`` stays 1."""
        stream = self.stream
        if self.state == 2:
            raise RuntimeError("cannot reuse an already awaited recv()")
        if self.state == 0:
            if stream._receiver is not None or (
                stream.streaming and self.mode != PIECES
            ):
                raise ConcurrencyError(
                    "cannot call recv while another coroutine is already "
                    "running recv or recv_streaming"
                )
            if stream._on_message is not None:
                raise ConcurrencyError("cannot call recv: the listener gets messages")
        if not self.failing:
            if stream._queue:
                item = stream._pop()
                self.leave(False)
                return self.convert(item)
            if self.mode == PIECES:
                pieces = stream._take_pieces()
                if pieces is not None:
                    self.leave(False)
                    return pieces
        if stream.is_lost:
            self.leave(False)
            exc = stream.closed_error()
            if self.mode == ITERATE and isinstance(exc, ConnectionClosedOK):
                raise StopAsyncIteration
            raise exc
        return self.wait()

    def wait(self) -> asyncio.Future[None]:
        """Become the receiver."""
        stream = self.stream
        waiter = stream._waiter
        if stream._queue_full:
            # Nothing is queued: the fragments of a message wait.
            stream._queue_full = False
            stream.loop.call_soon(stream.read_on)
        # A waiter that only lost its callback is as good as new; see _finish_wait().
        if waiter is None or waiter.done():
            waiter = stream._waiter = stream.loop.create_future()
        waiter._asyncio_future_blocking = True
        stream._receiver = self
        self.state = 1
        return waiter

    def convert(self, item: Any) -> Any:
        """Apply ``decode``; give the message without its marks."""
        if self.mode == PIECES:
            return [item]
        if type(item) is tuple:
            item = item[0]
        if self.decode is None:
            return item
        if self.decode:
            if type(item) is bytes:
                try:
                    return item.decode()
                except UnicodeDecodeError as exc:
                    self.stream.decoding_failed(exc)
                    self.failing = True
                    if self.stream.is_lost:
                        self.state = 2
                        raise self.stream.closed_error()  # noqa: B904  # has a cause
                    return self.wait()
        elif type(item) is str:
            return item.encode()
        return item


class Messages:
    """The asynchronous iterator over incoming messages."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __aiter__(self) -> Messages:
        return self

    def __anext__(self) -> Awaitable[Data]:
        return Recv(self.stream, None, ITERATE)


class Done:
    """The awaitable of a call that has nothing to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    __iter__ = __await__

    def __next__(self) -> Any:
        raise StopIteration

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine's ``send()``."""
        raise StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Raise the exception, as a coroutine that is over."""
        if val is None:
            val = typ if isinstance(typ, BaseException) else typ()
        raise val

    def close(self) -> None:
        """Do nothing: it is over."""


DONE = Done()


class Stream:
    """Bytes to messages and back, on a socket or a transport."""

    __slots__ = (
        "__weakref__",
        "_broken",
        "_buffer",
        "_dirty",
        "_end_after_flush",
        "_ended",
        "_fd",
        "_finishing",
        "_held",
        "_high",
        "_late_pong",
        "_low",
        "_on_message",
        "_pending",
        "_phase",
        "_processing",
        "_queue",
        "_queue_full",
        "_reader",
        "_receiver",
        "_segments",
        "_sent_turn",
        "_shared",
        "_unsent",
        "_waiter",
        "_watching",
        "_watching_writes",
        "_write_high",
        "_write_low",
        "_writer",
        "fragmenting",
        "io",
        "is_closing",
        "is_lost",
        "is_open",
        "loop",
        "sock",
        "streaming",
        "write_paused",
    )

    # -- set-up ----------------------------------------------------------------------

    def init_stream(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Any, Any], Any] | None,
        queue_marks: tuple[int | None, int | None],
        write_marks: tuple[int, int],
    ) -> None:
        """Set up; call once, before anything else.

        Args:
            loop: The event loop.
            on_message: Callback ``(stream, message)``; ``None``: messages are queued.
            queue_marks: Messages in the queue at which reading stops and goes on.
            write_marks: Unsent bytes at which ``send()`` waits and goes on.
        """
        self.loop = loop
        self._shared = loop_state(loop)
        self._on_message = on_message
        self._high, self._low = queue_marks
        self._write_high, self._write_low = write_marks
        self.sock: socket.socket | None = None
        self.io: Any = None
        self._fd = -1

        self._reader: FrameReader | None = None
        self._queue: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._receiver: Recv | None = None
        self._pending = b""
        self._phase = HANDSHAKE
        self._processing = False
        self._watching = False
        self._queue_full = False
        self._held = 0  # reasons to hold input back, as bits
        self._ended = False
        self.streaming = False

        self._writer: FrameWriter | None = None
        self._segments: deque[bytes | memoryview] = deque()
        self._unsent = 0
        self._sent_turn = 0
        self._dirty = False
        self._watching_writes = False
        self._end_after_flush = False
        self._finishing = False  # closed once everything is sent
        self._late_pong: bytes | None = None
        self._buffer: memoryview | None = None
        self.write_paused = False
        self.fragmenting = False

        self._broken = False  # reading or writing failed
        self.is_open = False
        self.is_closing = False
        self.is_lost = False

    @property
    def queued(self) -> int:
        """Messages that wait for ``recv()``."""
        return len(self._queue)

    def attach_socket(self, sock: socket.socket) -> None:
        """Own a connected non-blocking socket and begin to read from it."""
        self.sock = sock
        self._fd = sock.fileno()
        self._watch()

    def attach_transport(self, transport: Any) -> None:
        """Work on a transport instead of a socket."""
        self.io = transport
        self._watching = True
        transport.set_write_buffer_limits(self._write_high, self._write_low)

    def open_stream(self, reader: FrameReader, writer: FrameWriter) -> None:
        """End the handshake phase: from here on frames arrive and can be sent."""
        self._reader = reader
        self._writer = writer
        self._phase = FRAMES
        self.is_open = True

    def set_on_message(self, on_message: Callable[[Any, Any], Any]) -> None:
        """Deliver messages to a callback instead of the queue."""
        self._on_message = on_message

    def set_closing(self) -> None:
        """No message can be sent any more; messages are received until the end."""
        self.is_open = False
        self.is_closing = True
        if self._queue_full:
            self._queue_full = False
            self.loop.call_soon(self.read_on)

    def ignore_input(self) -> None:
        """Discard whatever arrives from now on."""
        self._phase = IGNORED
        self._pending = b""
        self._queue_full = False
        self._watch()

    # -- reading ---------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the loop tell about input, unless it is to be held back."""
        if self._watching or self._must_hold() or self._ended or self._finishing:
            return
        if self._fd >= 0:
            self._watching = True
            self.loop.add_reader(self._fd, self.on_readable)
        elif self.io is not None and not self.is_lost:
            self._watching = True
            self.io.resume_reading()

    def _unwatch(self) -> None:
        """Stop reading: called only when input comes that is to be held back."""
        if not self._watching:
            return
        self._watching = False
        if self._fd >= 0:
            self.loop.remove_reader(self._fd)
        elif self.io is not None:
            self.io.pause_reading()

    def _must_hold(self) -> bool:
        return self._held != 0 or self._queue_full

    def hold_reading(self, reason: int = 1) -> None:
        """Deliver nothing and read nothing until ``release_reading()``.

        Args:
            reason: A bit; input is held while any is set.
        """
        self._held |= reason

    def release_reading(self, reason: int = 1) -> None:
        """Undo ``hold_reading()`` for the same reason."""
        if self._held & reason:
            self._held &= ~reason
            if not self._held and not self._processing and not self.is_lost:
                self.loop.call_soon(self.read_on)

    def read_on(self) -> None:
        """Go on after a pause: first what was read already, then the socket."""
        if self._processing or self._must_hold() or self.is_lost:
            return
        if self._pending:
            pending, self._pending = self._pending, b""
            self._process_corked(pending)
        if self._must_hold() or self.is_lost:
            return
        if self._ended and not self._pending:
            self.peer_ended()
            return
        self._watch()

    def on_readable(self) -> None:
        """Take input from the socket; the loop's reader callback."""
        if self._fd < 0:
            return
        if self._must_hold():
            self._unwatch()
            return
        corked = self._cork()
        try:
            self._read_socket()
        except Exception as exc:
            self.crashed(exc)
        finally:
            if corked:
                self._uncork()

    def _read_socket(self) -> None:
        assert self.sock is not None
        for _ in range(MAX_READS):
            try:
                data = self.sock.recv(READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._unwatch()
                self._io_failed(exc)
                return
            if not data:
                self._unwatch()
                self._ended = True
                self.peer_ended()
                return
            self._process(data)
            if len(data) < READ_SIZE or self._fd < 0 or self._must_hold():
                return

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend memory to the transport; asyncio's ``BufferedProtocol``."""
        if self._shared.reading:
            # Somebody's input is being processed in the shared buffer.
            self._buffer = memoryview(bytearray(65536))
            return self._buffer
        return self._shared.read_buffer

    def buffer_updated(self, n: int) -> None:
        """Take what the transport wrote; asyncio's ``BufferedProtocol``."""
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
        else:
            buffer = self._shared.read_buffer
        self.data_received(bytes(buffer[:n]))

    def data_received(self, data: BytesLike) -> None:
        """Take input as an object; asyncio's ``Protocol``."""
        if self._must_hold():
            self._unwatch()
            self._keep(bytes(data))
        else:
            self._process_corked(bytes(data))

    def eof_received(self) -> bool:
        """Take the end of the input; asyncio's protocols."""
        if not self._ended:
            self._ended = True
            if not self._pending:
                self.peer_ended()
        return self.io is not None and bool(self.io.can_write_eof())

    def _keep(self, data: bytes) -> None:
        """Keep input for later, behind what is kept already."""
        if self._phase != IGNORED:
            self._pending += data

    def _process_corked(self, data: bytes) -> None:
        corked = self._cork()
        try:
            self._process(data)
        except Exception as exc:
            self.crashed(exc)
        finally:
            if corked:
                self._uncork()

    def _process(self, data: bytes) -> None:
        """Parse input and deliver what it says; keep what the queue cannot take."""
        if self._phase == HANDSHAKE:
            rest = self.handshake_received(data)
            if rest:
                if self._must_hold():
                    self._keep(rest)
                elif self._phase == FRAMES:
                    self._process(rest)
        elif self._phase == FRAMES:
            self._pump(data)

    def _pump(self, data: bytes) -> None:
        """Deliver events until the input is used up or must be held back."""
        reader = self._reader
        assert reader is not None
        outer, self._processing = self._processing, True
        try:
            # One event at a time, so that input can be held back between two.
            reader.begin(data)
            while self._phase == FRAMES:
                event = reader.next()
                if event is None:
                    break
                self._deliver(*event)
                if self._phase == FRAMES and self._must_hold():
                    self._keep(reader.rest())
                    break
            if reader.error is not None and self._phase == FRAMES:
                self._wake(True)
                if self._phase == FRAMES:
                    self._phase = IGNORED
                    self.reader_failed(reader.error)
            elif self._queue or reader.has_fragments:
                self._wake(True)
                if self.is_open and (self._over_high() or self._has_enough()):
                    self._queue_full = True
        finally:
            self._processing = outer

    def _over_high(self) -> bool:
        return self._high is not None and len(self._queue) > self._high

    def _has_enough(self) -> bool:
        """Whether fragments wait for somebody who does not want the whole message."""
        assert self._reader is not None
        return (
            self._reader._complete > FRAGMENTS_LIMIT
            and self._high is not None
            and self._on_message is None
            and (self._receiver is None or self._receiver.mode == PIECES)
        )

    def _deliver(self, opcode: int, payload: Any, extra: Any) -> None:
        if opcode <= OP_BINARY:
            if self._on_message is not None:
                if opcode == OP_CONT:
                    raise InternalError("a message was taken apart for a callback")
                try:
                    self._on_message(self, payload)
                except Exception as exc:
                    self.callback_failed(exc)
                return
            if opcode == OP_CONT or extra is not None:
                payload = (payload, extra, opcode == OP_CONT)
            if self.is_closing and self._over_high():
                # The program has said that it is done: nothing may pile up.
                return
            self._queue.append(payload)
            if self._over_high():
                self._wake(True)
                if self._over_high() and self.is_open:
                    self._queue_full = True
        elif opcode == OP_PING:
            self.ping_received(payload)
        elif opcode == OP_PONG:
            self.pong_received(payload)
        else:
            assert opcode == OP_CLOSE
            # Messages that came before are handled while sending still works.
            self._wake(True)
            if self._phase == FRAMES:
                self._phase = IGNORED
                self.close_received(payload)

    def _wake(self, at_once: bool) -> None:
        """Let the receiver go on, if it has something to go on with."""
        waiter, receiver = self._waiter, self._receiver
        if receiver is None or waiter is None:
            return
        if not self._queue and not self.is_lost:
            if receiver.mode != PIECES or not self._has_pieces():
                return
        self._finish_wait(waiter, at_once)

    def _finish_wait(self, waiter: Any, at_once: bool) -> None:
        """End the receiver's wait; run its task's wake-up here if ``at_once``.

        Setting a result would have the loop call the wake-up in its next turn.  So
        the wake-up is taken off the future and called, unless a task is running.
        """
        callbacks = waiter._callbacks
        if (
            at_once
            and callbacks
            and len(callbacks) == 1
            and asyncio.current_task(self.loop) is None
        ):
            callback, context = callbacks[0]
            try:
                context.run(self._wake_up, waiter, callback)
            except RuntimeError:
                if waiter.done() or not waiter._callbacks:
                    raise
                # The task's context is in use: its wake-up has to wait.
                waiter.set_result(None)
        elif not waiter.done():
            waiter.set_result(None)

    @staticmethod
    def _wake_up(waiter: Any, callback: Callable[[Any], Any]) -> None:
        waiter.remove_done_callback(callback)
        callback(FINISHED)

    def _has_pieces(self) -> bool:
        return self._reader is not None and self._reader.has_fragments

    def _take_pieces(self) -> tuple[int, list[bytes]] | None:
        if self._reader is None or not self._reader.has_fragments:
            return None
        opcode = self._reader.message_opcode
        pieces = self._reader.take_fragments()
        self._taken()
        return (opcode, pieces) if pieces else None

    def _pop(self) -> Any:
        """Take the first message out of the queue."""
        item = self._queue.popleft()
        self._taken()
        return item

    def _taken(self) -> None:
        """Read on when enough was taken."""
        if self._queue_full and len(self._queue) <= (self._low or 0):
            self._queue_full = False
            if not self._processing:
                self.read_on()

    def recv(self, decode: bool | None = None) -> Awaitable[Any]:
        """Receive the next message.

        Args:
            decode: ``True`` forces text, ``False`` forces bytes; by default text
                frames give ``str`` and binary frames ``bytes``.

        Raises:
            ConnectionClosed: When the connection is closed and the queue is empty.
            ConcurrencyError: When another ``recv()`` or ``recv_streaming()`` waits.

        Cancelling is safe: a message already received stays in the queue.
        """
        return Recv(self, decode, WHOLE)

    def recv_pieces(self) -> Awaitable[Any]:
        """Receive a message with its marks, or finished fragments of one.

        Gives ``[item]`` for a whole message, where an item is the message, or a
        tuple ``(message, ends of its fragments, whether its beginning was taken)``;
        or ``(opcode, fragments)`` for a message that is still arriving.
        """
        return Recv(self, None, PIECES)

    @property
    def is_receiving(self) -> bool:
        """Whether a ``recv()`` is waiting."""
        return self._receiver is not None

    @property
    def is_corked(self) -> bool:
        """Whether a read event of this stream is being handled."""
        return self._shared.cork_owner is self

    def __aiter__(self) -> Messages:
        return Messages(self)

    # -- writing ---------------------------------------------------------------------

    def _cork(self) -> bool:
        """Join what is sent from here on; ``False`` when another stream does that."""
        if self._shared.cork_owner is not None:
            return False
        self._shared.cork_owner = self
        return True

    def _uncork(self) -> None:
        shared = self._shared
        try:
            self._flush_cork()
        finally:
            shared.corked.clear()
            shared.cork_owner = None

    def _flush_cork(self) -> None:
        corked, self._shared.corked = self._shared.corked, []
        if corked:
            self._send_now(b"".join(corked))

    def _send_now(self, data: bytes) -> None:
        """Send if nothing waits before it; keep the rest."""
        if self._broken:
            return
        if not self._segments:
            if self._fd < 0:
                if self.io is not None and not self.is_lost:
                    self.io.write(data)
                return
            sent = self._send_some(data)
            if sent < 0 or sent == len(data):
                return
            data = data[sent:]
            self._watch_writes()
        self._append(data)

    def _send_some(self, data: BytesLike) -> int:
        """Return how much the socket took, -1 when it is broken."""
        assert self.sock is not None
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            self._io_failed(exc)
            return -1

    def _io_failed(self, exc: OSError) -> None:
        """The socket is broken: close it soon, when what was read is delivered."""
        self.is_open = False
        if not self._broken:
            self._broken = True
            self.loop.call_soon(self.abort_stream, exc)

    def _append(self, data: bytes) -> None:
        self._segments.append(data)
        self._unsent += len(data)
        if self._unsent > self._write_high and not self.write_paused:
            self.write_paused = True
            self.pause_writing()

    def write_bytes(self, data: bytes) -> None:
        """Write bytes that are frames or HTTP already: corked, joined, or at once."""
        shared = self._shared
        if self._broken or (self._fd < 0 and self.io is None):
            return
        if shared.cork_owner is self:
            shared.corked.append(data)
            if len(data) >= LARGE:
                self._flush_cork()
        elif not self._segments and self._sent_turn != shared.turn:
            # The first of this turn of the loop goes out at once.
            self._sent_turn = shared.turn
            shared.end_turn_later(self.loop)
            self._send_now(data)
        else:
            self._append(data)
            if not self._watching_writes and not self._dirty:
                self._dirty = True
                shared.dirty.append(self)
                shared.end_turn_later(self.loop)

    def _flush(self) -> None:
        """Send what was kept, as far as the socket takes it."""
        self._dirty = False
        segments = self._segments
        if not segments or self._broken:
            return
        if self._fd < 0:
            data = b"".join(segments)
            segments.clear()
            self._unsent = 0
            if self.io is not None and not self.is_lost:
                self.io.write(data)
            return
        while segments:
            if len(segments) > 1 and len(segments[0]) < LARGE:
                joined = b"".join(segments)
                segments.clear()
                segments.append(joined)
            sent = self._send_some(segments[0])
            if sent < 0:
                return
            self._unsent -= sent
            if sent < len(segments[0]):
                segments[0] = memoryview(segments[0])[sent:]
                break
            segments.popleft()
        if segments:
            self._watch_writes()
            self._check_low()
            return
        if self._watching_writes:
            self._watching_writes = False
            self.loop.remove_writer(self._fd)
        self._check_low()
        if self._end_after_flush and not self._segments:
            self._end_output()
        if self._finishing and not self._segments:
            self._release_socket()
            self.loop.call_soon(self.lost, None)

    def on_writable(self) -> None:
        """Send more; the loop's writer callback."""
        if self._fd >= 0:
            self._flush()

    def _watch_writes(self) -> None:
        if not self._watching_writes and self._fd >= 0:
            self._watching_writes = True
            self.loop.add_writer(self._fd, self.on_writable)

    def _check_low(self) -> None:
        if self.write_paused and self._unsent <= self._write_low:
            self.write_paused = False
            self._send_late_pong()
            self.resume_writing()

    def _send_late_pong(self) -> None:
        if self._late_pong is not None and self.is_open:
            pong, self._late_pong = self._late_pong, None
            self.send_control(OP_PONG, pong)

    def transport_paused(self, paused: bool) -> None:
        """Follow the transport's flow control."""
        self.write_paused = paused
        if not paused:
            self._send_late_pong()

    def send(self, message: Any, *, text: bool | None = None) -> Awaitable[None]:
        """Send a message.

        Args:
            message: ``str`` goes out as text, bytes-like as binary; an iterable or
                an asynchronous iterable of these as one fragmented message.
            text: ``True`` or ``False`` forces a text or a binary frame.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            TypeError: When ``message`` is of none of these types.

        The message is on its way when ``send()`` returns; awaiting waits while more
        than ``write_limit`` bytes are unsent.
        """
        if (
            not self.is_open
            or self.fragmenting
            or not isinstance(message, (str, bytes, bytearray, memoryview))
        ):
            return self.send_otherwise(message, text)
        assert self._writer is not None
        self.write_bytes(self._writer.message(message, text))
        if self.write_paused:
            return self.drain()
        return DONE

    def send_nowait(self, message: DataLike, *, text: bool | None = None) -> None:
        """Send a message without waiting, whatever is unsent already.

        Watch ``buffered_amount``, or ``on_pause_writing``, to slow down.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            ConcurrencyError: When a fragmented message is being sent.
            TypeError: When ``message`` is neither ``str`` nor bytes-like.
        """
        if not self.is_open:
            raise self.closed_error()
        if self.fragmenting:
            raise ConcurrencyError("cannot send: a fragmented message is being sent")
        assert self._writer is not None
        self.write_bytes(self._writer.message(message, text))

    def send_control(self, opcode: int, payload: BytesLike) -> None:
        """Send a control frame, whatever the state."""
        assert self._writer is not None
        self.write_bytes(self._writer.frame(opcode, payload))

    def answer_ping(self, payload: bytes) -> None:
        """Send a pong; only the newest while the peer does not read (5.5.3)."""
        if self.write_paused:
            self._late_pong = payload
        else:
            self.send_control(OP_PONG, payload)

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent but not yet handed to the operating system."""
        n = self._unsent
        if self._shared.cork_owner is self:
            n += sum(map(len, self._shared.corked))
        if self.io is not None and not self.is_lost:
            n += self.io.get_write_buffer_size()
        return n

    # -- the end ---------------------------------------------------------------------

    def end_writing(self) -> None:
        """Send EOF after what was sent before; TLS closes instead."""
        if self._shared.cork_owner is self:
            self._flush_cork()
        self._flush()
        if self._segments:
            self._end_after_flush = True
        else:
            self._end_output()

    def _end_output(self) -> None:
        self._end_after_flush = False
        if self._fd >= 0:
            assert self.sock is not None
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer is gone already; reading finds out
        elif self.io is not None and not self.is_lost:
            if self.io.can_write_eof():
                try:
                    self.io.write_eof()
                except (OSError, RuntimeError):
                    pass
            else:
                self.io.close()

    def close_stream(self) -> None:
        """Close, and send what is unsent before; read nothing more."""
        if self.is_lost:
            return
        if self._fd >= 0:
            if self._shared.cork_owner is self:
                self._flush_cork()
            self._flush()
            if self._segments and not self._broken:
                self.is_open = False
                self.is_closing = True
                self._finishing = True
                self._unwatch()
                return
            self._release_socket()
            self.loop.call_soon(self.lost, None)
        elif self.io is not None:
            self.io.close()

    def abort_stream(self, exc: BaseException | None = None) -> None:
        """Close at once; ``exc`` is the reason, for ``connection_lost()``."""
        if self.is_lost:
            return
        if self._fd >= 0:
            self._release_socket()
            self.loop.call_soon(self.lost, exc)
        elif self.io is not None:
            self.io.abort()

    def _release_socket(self) -> None:
        fd, self._fd = self._fd, -1
        self.is_open = False
        self.is_closing = True
        if self._shared.cork_owner is self:
            self._shared.corked.clear()
        if self._watching:
            self._watching = False
            self.loop.remove_reader(fd)
        if self._watching_writes:
            self._watching_writes = False
            self.loop.remove_writer(fd)
        self._segments.clear()
        self._unsent = 0

    def lost(self, exc: BaseException | None) -> None:
        """The connection is gone: the socket is closed and waiters go on."""
        if not self.is_lost:
            self.connection_lost(exc)

    def mark_lost(self) -> None:
        """Wake the receiver for the last time; called by ``connection_lost()``."""
        self._broken = True
        self.is_open = False
        if self._pending and self._phase == FRAMES:
            # Nothing that arrived is lost: it was read, so it is bounded.
            pending, self._pending = self._pending, b""
            self._high = None
            self._held = 0
            self._queue_full = False
            self._process(pending)
        self.is_lost = True
        self.is_open = False
        self._phase = IGNORED
        self._segments.clear()
        self._unsent = 0
        self._pending = b""
        self._late_pong = None
        self._on_message = None
        if self.sock is not None:
            self.sock.close()
        self._wake(False)

    # -- what the connection decides -------------------------------------------------

    def handshake_received(self, data: bytes) -> bytes:
        """Take input of the opening handshake; return what follows it."""
        raise NotImplementedError

    def ping_received(self, payload: bytes) -> None:
        """A ping arrived."""
        raise NotImplementedError

    def pong_received(self, payload: bytes) -> None:
        """A pong arrived."""
        raise NotImplementedError

    def close_received(self, payload: bytes) -> None:
        """A close frame arrived, with a payload that was checked."""
        raise NotImplementedError

    def reader_failed(self, exc: Exception) -> None:
        """The peer broke the protocol."""
        raise NotImplementedError

    def decoding_failed(self, exc: UnicodeDecodeError) -> None:
        """A binary message that was to be decoded is not UTF-8."""
        raise NotImplementedError

    def callback_failed(self, exc: Exception) -> None:
        """``on_message`` raised."""
        raise NotImplementedError

    def crashed(self, exc: Exception) -> None:
        """Something failed that must not: a mistake in this library or an extension."""
        raise NotImplementedError

    def peer_ended(self) -> None:
        """The peer sent EOF."""
        raise NotImplementedError

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; must call ``mark_lost()``."""
        raise NotImplementedError

    def closed_error(self) -> Exception:
        """Return the exception for an operation on a closed connection."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Unsent bytes went above the high mark."""
        raise NotImplementedError

    def resume_writing(self) -> None:
        """Unsent bytes went below the low mark."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait until unsent bytes are below the low mark."""
        raise NotImplementedError

    async def send_otherwise(self, message: Any, text: bool | None) -> None:
        """Send what ``send()`` cannot send at once, or raise what is wrong."""
        raise NotImplementedError
