"""Streams: the pure twin, and the description of what a stream does.

A :class:`Stream` reads from a socket or a transport, parses with a
:class:`~websock._codec_py.FrameReader`, and delivers messages to a queue
(:mod:`websock._inbox_py`) or to a callback; what is sent goes through
:mod:`websock._channel_py`.  It knows neither the opening nor the closing handshake nor
timeouts: :mod:`websock.asyncio.connection` derives from it and decides, through the
methods listed at the end of each class.

The ideas, the same in both twins:

* *One read buffer per loop.*  Input is parsed at once and copied only into messages.
* *Held input.*  When the queue is full, what was read and not parsed is kept as
  bytes, at most one read, and the socket is not read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

from ._channel_py import HOLD_FOR_WRITING, Done, publish, send_to_many
from ._codec_py import FrameReader, FrameWriter
from ._inbox_py import PIECES, Inbox
from ._loop_py import (
    READ_SIZE,
    Accepted,
    accept_connections,
    accepted_address,
    accepted_socket,
    close_accepted,
    loop_state,
)
from .constants import (
    INFLATED_AT_ONCE,
    OP_BINARY,
    OP_CLOSE,
    OP_CONT,
    OP_PING,
    OP_PONG,
)
from .exceptions import Failure, InternalError, fail
from .typing import BytesLike

__all__ = [
    "Accepted",
    "Done",
    "Stream",
    "accept_connections",
    "accepted_address",
    "accepted_socket",
    "close_accepted",
    "loop_state",
    "publish",
    "send_to_many",
]

# In one event, so that a fast sender does not starve the others: reads; and seconds
# after the first one, for input that takes long.
MAX_READS = 16
MAX_READ_TIME = 0.01
# Fragments in bytes that may wait until somebody receives.
FRAGMENTS_LIMIT = 65536

HOLD_FOR_OTHERS = 16  # a reason to hold input back, as a bit

HANDSHAKE, FRAMES, IGNORED = range(3)  # what arrives


def held_input(transport: Any) -> Callable[[], Any] | None:
    """Return what has a transport deliver what it holds, once reading is resumed.

    aiofastnet's TLS, up to 1.2, then looks at the socket alone, and not at what it has
    taken from there and not decrypted.  Others deliver it by themselves.
    """
    if type(transport).__module__ != "aiofastnet.ssl_transport":
        return None
    return getattr(transport, "_retry_ssl_read", None)


class Stream(Inbox):
    """Bytes to messages and back, on a socket or a transport."""

    __slots__ = (
        "_buffer",
        "_controls_left",
        "_controls_since",
        "_ended",
        "_max_controls",
        "_pending",
        "_phase",
        "_received",
    )

    # -- set-up ----------------------------------------------------------------------

    def init_stream(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Any, Any], Any] | None,
        queue_marks: tuple[int | None, int | None],
        write_marks: tuple[int, int],
        queue_size: int | None = None,
        max_controls: int | None = None,
    ) -> None:
        """Set up; call once, before anything else.

        Args:
            loop: The event loop.
            on_message: Callback ``(stream, message)``; ``None``: messages are queued.
            queue_marks: Messages in the queue at which reading stops and goes on.
            write_marks: Unsent bytes at which ``send()`` waits and goes on.
            queue_size: Bytes in the queue at which reading stops.
            max_controls: Pings and pongs from the peer in a second.
        """
        self.init_channel(loop, write_marks)
        self.init_inbox(on_message, queue_marks, queue_size)
        self._buffer: memoryview | None = None
        self._pending = b""  # input that was not parsed yet
        self._phase = HANDSHAKE
        self._ended = False  # the peer sent EOF
        self._received = 0  # bytes
        self._max_controls = max_controls
        self._controls_left = 0  # until the clock is looked at
        self._controls_since: float | None = None

    def attach_socket(self, sock: socket.socket) -> None:
        """Own a connected non-blocking socket and begin to read from it.

        It takes the place of a transport, if there was one: that one must read nothing
        more and have nothing unsent, and is the caller's to close.
        """
        self.io = None
        self._watching = False
        self.sock = sock
        self._fd = sock.fileno()
        self._watch()

    def attach_accepted(self, accepted: Accepted) -> None:
        """Own what ``accept_connections()`` gave and begin to read from it."""
        sock, self._peername = accepted
        self.attach_socket(sock)

    def attach_transport(self, transport: Any) -> None:
        """Work on a transport instead of a socket."""
        self.io = transport
        self._watching = True
        # With a high mark of 0, asyncio's TLS may pause writing and never resume it.
        transport.set_write_buffer_limits(max(self._write_high, 1), self._write_low)

    def open_stream(self, reader: FrameReader, writer: FrameWriter) -> None:
        """End the handshake phase: from here on frames arrive and can be sent."""
        self._reader = reader
        self._writer = writer
        self._phase = FRAMES
        self.is_open = True

    def set_closing(self) -> None:
        """No message can be sent any more; messages are received until the end."""
        self.join_published()
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
            read_again = held_input(self.io)
            if read_again is not None:
                self.loop.call_soon(read_again)

    def _must_hold(self) -> bool:
        # What is ignored is read on to the end of the stream.
        return self._phase != IGNORED and (self._held != 0 or self._queue_full)

    @property
    def is_held(self) -> bool:
        """Whether input is held back on this side, so that no pong can be seen."""
        return self._must_hold()

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
            if not self._held and not self.is_lost:
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
        if self._pending:
            return  # it comes first, and read_on() is on its way
        writes = self._writes
        self._read_socket(False)
        if self._shared.tells_once:
            if self._must_hold():
                self._unwatch()  # _watch() makes the loop look again
            elif self._writes == writes and self._watching and self._fd >= 0:
                # An error behind the input would stay unknown until the next write.
                self._read_socket(True)

    def _read_socket(self, to_the_end: bool) -> None:
        """Read what a read event is about, or all that is there."""
        corked = self._cork()
        try:
            self._read_some(to_the_end)
        except Exception as exc:
            self.crashed(exc)
        finally:
            if corked:
                self._uncork()

    def _read_some(self, to_the_end: bool) -> None:
        assert self.sock is not None
        until = 0.0
        for reads in range(MAX_READS):
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
            self._received += len(data)
            self._process(data)
            if len(data) < READ_SIZE and not to_the_end:
                return
            if self._fd < 0 or self._must_hold():
                return
            if reads == 0:
                until = monotonic() + MAX_READ_TIME
            elif monotonic() > until:
                break
        if self._shared.tells_once:
            self.loop.call_soon(self.on_readable)

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
        self._received += len(data)
        if self._must_hold() or self._pending or self._processing:
            if self._must_hold():
                self._unwatch()
            if self._processing:
                # A callback runs: what is left of the input before this comes first.
                self.loop.call_soon(self.read_on)
            self._keep(bytes(data))
        else:
            self._process_corked(bytes(data))

    def eof_received(self) -> bool:
        """Take the end of the input; asyncio's protocols."""
        if not self._ended:
            self._ended = True
            if self._processing:
                self.loop.call_soon(self.read_on)
            elif not self._pending:
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
        finished = False
        try:
            # One event at a time, so that input can be held back between two.
            reader.begin(data)
            while self._phase == FRAMES:
                event = reader.next()
                if event is None:
                    break
                self._deliver(*event)
                if reader.inflated >= INFLATED_AT_ONCE and event[0] <= OP_BINARY:
                    self._hold_for_others()
                if self._phase == FRAMES and self._must_hold():
                    self._pending = reader.rest() + self._pending
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
            finished = True
        finally:
            self._processing = outer
            if not finished:
                # The loop may be left here, by Ctrl-C, and run again.
                if self._phase != IGNORED:
                    self._pending = reader.rest() + self._pending
                self.loop.call_soon(self.read_on)

    def _hold_for_others(self) -> None:
        """Go on after the loop has served other connections."""
        if not self._held & HOLD_FOR_OTHERS:
            self._held |= HOLD_FOR_OTHERS
            self.loop.call_soon(self.release_reading, HOLD_FOR_OTHERS)

    def _has_enough(self) -> bool:
        """Whether fragments wait for somebody who does not want the whole message."""
        assert self._reader is not None
        return (
            self._reader._complete > FRAGMENTS_LIMIT
            and self._holds_pieces
            and self._on_message is None
            and (self._receiver is None or self._receiver.mode == PIECES)
        )

    def _deliver(self, opcode: int, payload: Any, extra: Any) -> None:
        if opcode <= OP_BINARY:
            if self._on_message is not None:
                if opcode == OP_CONT:
                    raise InternalError("a message was taken apart for a callback")
                sends = self._sends
                try:
                    self._on_message(self, payload)
                except Exception as exc:
                    self.callback_failed(exc)
                if self._sends != sends:
                    self._answering()
                return
            if opcode == OP_CONT or extra is not None:
                payload = (payload, extra, opcode == OP_CONT)
            self._put(payload)
        elif opcode != OP_CLOSE:
            self._deliver_control(opcode, payload)
        else:
            # Messages that came before are handled while sending still works.
            self._wake(True)
            if self._phase == FRAMES:
                self._phase = IGNORED
                self.close_received(payload)

    def _answering(self) -> None:
        """The callback has sent something because of what was delivered.

        Answers to a peer that does not read them must not pile up.  What is sent for
        other reasons has nothing to do with what is read: two ends that wait for each
        other to read would wait for ever.
        """
        self._answered = True
        if self.write_paused:
            self._held |= HOLD_FOR_WRITING

    def _deliver_control(self, opcode: int, payload: bytes) -> None:
        """Deliver a ping or a pong, unless there are too many."""
        sends = self._sends
        if not self._controls_left and not self._may_have_controls():
            return
        self._controls_left -= 1
        if opcode == OP_PING:
            self.ping_received(payload)
        else:
            assert opcode == OP_PONG
            self.pong_received(payload)
        if self._sends != sends and self._on_message is not None:
            self._answering()

    def _may_have_controls(self) -> bool:
        """Begin a second of control frames; fail when the last one is not over."""
        limit = self._max_controls
        now = monotonic()
        if limit is None:
            self._controls_left = 1
            return True
        if self._controls_since is None or now - self._controls_since >= 1:
            self._controls_since = now
            self._controls_left = limit
            return True
        self._wake(True)
        if self._phase == FRAMES:
            self._phase = IGNORED
            self.reader_failed(fail(Failure.CONTROL_RATE, limit=limit))
        return False

    def counters(self) -> tuple[int, int, int, int, int, int]:
        """Return what was received and sent.

        Returns:
            Messages received whole, bytes of payload in them, bytes received in all;
            and the same of what was sent.  Payloads are counted without compression.
        """
        self.join_published()
        reader = self._reader
        return (
            0 if reader is None else reader.messages,
            0 if reader is None else reader.message_bytes,
            self._received,
            self._sends,
            self._sent_payload,
            max(self._accepted - self.buffered_amount, 0),
        )

    # -- the end ---------------------------------------------------------------------

    def mark_lost(self) -> None:
        """Wake the receiver for the last time; called by ``connection_lost()``."""
        self._broken = True
        self.is_open = False
        while self._pending and self._phase == FRAMES:
            # Nothing that arrived is lost: it was read, so it is bounded.
            pending, self._pending = self._pending, b""
            self._high = self._high_size = None
            self._held = 0
            self._queue_full = False
            try:
                self._process(pending)
            except Exception as exc:
                self._phase = IGNORED
                self.crashed(exc)
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

    def callback_failed(self, exc: Exception) -> None:
        """``on_message`` raised."""
        raise NotImplementedError

    def crashed(self, exc: Exception) -> None:
        """Something failed that must not: a mistake in this library or an extension."""
        raise NotImplementedError

    def peer_ended(self) -> None:
        """The peer sent EOF."""
        raise NotImplementedError
