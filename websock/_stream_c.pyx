# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Streams, compiled; see ``_stream_py`` for the behaviour and the documentation.

From a readable socket to a delivered message everything here runs in C: one call from
the loop per read event.

Ownership.  The streams of a loop share one read buffer; input is borrowed from it only
while ``process()`` runs.  A stream owns memory of its own only for input that its queue
could not take (``pending``).  Cost: no object per read; one per message.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport SIZE_MAX, uint8_t, uint64_t
from libc.string cimport memcpy

from ._channel_c cimport HOLD_FOR_WRITING
from ._codec_c cimport (
    EVENT,
    FAILED,
    LAST_EVENT,
    NEED_DATA,
    FrameReader,
    FrameWriter,
)
from ._csrc cimport WS_SOCK_AGAIN, ws_iovec, ws_sock_readv, ws_sock_recv
from ._inbox_c cimport PIECES, Inbox
from ._loop_c cimport READ_SIZE, LoopState

from ._channel_c import Done, publish, send_to_many
from ._loop_c import (
    accept_connections,
    accepted_address,
    accepted_socket,
    close_accepted,
    loop_state,
)
from .exceptions import Failure, InternalError, fail

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

Accepted = tuple

cdef enum:
    OP_CONT = 0
    OP_BINARY = 2
    OP_PING = 9
    OP_PONG = 10

    # What arrives: the opening handshake, frames, nothing that matters any more.
    HANDSHAKE = 0
    FRAMES = 1
    IGNORED = 2

    # A reason to hold input back, as a bit.
    HOLD_FOR_OTHERS = 16

    # Reads in one event: a fast sender must not starve the other connections.
    MAX_READS = 16
    # Fragments in bytes that may wait until somebody receives.
    FRAGMENTS_LIMIT = 65536

# And seconds after the first of them, for input that takes long.
cdef double MAX_READ_TIME = 0.01


cdef object held_input(object transport):
    """Return what has a transport deliver what it holds; see ``_stream_py``."""
    if type(transport).__module__ != "aiofastnet.ssl_transport":
        return None
    return getattr(transport, "_retry_ssl_read", None)


cdef class Stream(Inbox):
    """Bytes to messages and back, on a socket or a transport; see ``_stream_py``."""

    cdef bytes pending                      # input that was not parsed yet
    cdef object pending_view                # memory lent while the shared one is in use
    cdef char phase                         # what arrives
    cdef bint ended                         # the peer sent EOF
    cdef uint64_t received                  # bytes
    cdef size_t max_controls                # pings and pongs from the peer in a second
    cdef size_t controls_left               # until the clock is looked at
    cdef double controls_since              # -1: there was none

    # -- set-up ----------------------------------------------------------------------

    def init_stream(
        self,
        loop,
        on_message,
        queue_marks,
        write_marks,
        queue_size=None,
        max_controls=None,
    ):
        """Set up; call once, before anything else."""
        self.max_controls = SIZE_MAX if max_controls is None else min(max_controls, SIZE_MAX)
        self.controls_since = -1
        self.init_channel(loop, write_marks)
        self.init_inbox(on_message, queue_marks, queue_size)

    def attach_socket(self, sock):
        """Own a connected non-blocking socket and begin to read from it."""
        self.io = None
        self.watching = False
        self.socket = sock
        self.fd = sock.fileno()
        self.watch()

    def attach_accepted(self, accepted):
        """Own what ``accept_connections()`` gave and begin to read from it."""
        cdef bytes address
        cdef int fd
        fd, address = accepted
        self.fd = fd
        try:
            self.watch()
        except BaseException:
            self.fd = -1
            raise
        self.own_fd = fd
        self.peer_size = <uint8_t>min(len(address), 28)
        memcpy(self.peer, PyBytes_AS_STRING(address), self.peer_size)

    def attach_transport(self, transport):
        """Work on a transport instead of a socket."""
        self.io = transport
        self.watching = True
        # With a high mark of 0, asyncio's TLS may pause writing and never resume it.
        transport.set_write_buffer_limits(max(self.write_high, <size_t>1), self.write_low)

    def open_stream(self, FrameReader reader not None, FrameWriter writer not None):
        """End the handshake phase: from here on frames arrive and can be sent."""
        self.reader = reader
        self.mask = writer.mask
        self.transform = writer.transform
        self.phase = FRAMES
        self.is_open = True

    def set_closing(self):
        """No message can be sent any more; messages are received until the end."""
        self.join_published()
        self.is_open = False
        self.is_closing = True
        if self.queue_full:
            self.queue_full = False
            self.loop.call_soon(self.read_on)

    def ignore_input(self):
        """Discard whatever arrives from now on."""
        self.phase = IGNORED
        self.pending = None
        self.queue_full = False
        self.watch()

    # -- reading ---------------------------------------------------------------------

    cdef int watch(self) except -1:
        """Have the loop tell about input, unless it is to be held back."""
        if self.watching or self.must_hold() or self.ended or self.finishing:
            return 0
        if self.fd >= 0:
            self.set_watch(True, self.watching_writes)
        elif self.io is not None and not self.is_lost:
            self.watching = True
            self.io.resume_reading()
            read_again = held_input(self.io)
            if read_again is not None:
                self.loop.call_soon(read_again)
        return 0

    cdef bint must_hold(self) noexcept:
        # What is ignored is read on to the end of the stream.
        return self.phase != IGNORED and (self.held != 0 or self.queue_full)

    @property
    def is_held(self):
        """Whether input is held back on this side, so that no pong can be seen."""
        return self.must_hold()

    def hold_reading(self, int reason=1):
        """Deliver nothing and read nothing until ``release_reading()``."""
        self.held |= reason

    def release_reading(self, int reason=1):
        """Undo ``hold_reading()`` for the same reason."""
        if self.held & reason:
            self.held &= ~reason
            if not self.held and not self.is_lost:
                self.loop.call_soon(self.read_on)

    def read_on(self):
        """Go on after a pause: first what was read already, then the socket."""
        cdef bytes pending
        cdef bint corked
        if self.processing or self.must_hold() or self.is_lost:
            return
        if self.pending is not None:
            pending = self.pending
            self.pending = None
            corked = self.cork()
            try:
                self.process(
                    <const uint8_t *>PyBytes_AS_STRING(pending), <size_t>len(pending)
                )
            except Exception as exc:
                self.crashed(exc)
            finally:
                if corked:
                    self.uncork()
        if self.must_hold() or self.is_lost:
            return
        if self.ended and self.pending is None:
            self.peer_ended()
            return
        self.watch()

    cdef int readable(self) except -1:
        """Take input from the socket."""
        cdef LoopState shared = self.shared
        cdef uint64_t writes = self.writes
        if self.fd < 0:
            return 0
        if self.must_hold():
            return self.unwatch()
        if self.pending is not None:
            return 0  # it comes first, and read_on() is on its way
        if shared.reading:
            return self.read_apart()
        self.read_socket(False)
        if self.single and shared.tells_once:
            if self.must_hold():
                self.unwatch()  # watch() makes the loop look again
            elif self.writes == writes and self.watching and self.fd >= 0:
                # An error behind the input would stay unknown until the next write.
                self.read_socket(True)
        return 0

    cdef int read_apart(self) except -1:
        """Read into other memory, in a loop that runs inside a callback of this one."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, READ_SIZE)
        cdef long got
        got = ws_sock_recv(self.fd, <uint8_t *>PyBytes_AS_STRING(data), READ_SIZE)
        if got > 0:
            self.data_received(data[:got])
        elif got == 0:
            self.unwatch()
            self.eof_received()
        return 0  # else nothing is there, or the next read finds out what is wrong

    cdef int read_socket(self, bint to_the_end) except -1:
        """Read what a read event is about, or all that is there."""
        cdef bint corked = self.cork()
        self.shared.reading = True
        self.from_loop = True
        try:
            self.read_some(to_the_end)
        except Exception as exc:
            self.crashed(exc)
        finally:
            self.from_loop = False
            self.shared.reading = False
            if corked:
                self.uncork()
        return 0

    cdef int read_some(self, bint to_the_end) except -1:
        cdef LoopState shared = self.shared
        cdef ws_iovec parts[2]
        cdef uint8_t *tail
        cdef size_t room = 0
        cdef size_t wanted
        cdef size_t n
        cdef long got
        cdef int reads
        cdef double until = 0
        for reads in range(MAX_READS):
            tail = NULL
            if self.phase == FRAMES:
                tail = self.reader.tail(&room)
            if tail != NULL:
                parts[0].iov_base = tail
                parts[0].iov_len = room
                parts[1].iov_base = shared.read_buffer
                parts[1].iov_len = READ_SIZE
                wanted = room + READ_SIZE
                got = ws_sock_readv(self.fd, parts, 2)
            else:
                wanted = READ_SIZE
                got = ws_sock_recv(self.fd, shared.read_buffer, READ_SIZE)
            if got > 0:
                n = <size_t>got
                self.received += n
                if tail == NULL:
                    self.process(shared.read_buffer, n)
                elif n <= room:
                    self.process_tail(n, NULL, 0)
                else:
                    self.process_tail(room, shared.read_buffer, n - room)
                if n < wanted and not to_the_end:
                    return 0
                if self.fd < 0 or self.must_hold():
                    return 0
                if reads == 0:
                    until = shared.now() + MAX_READ_TIME
                elif shared.now() > until:
                    break
            elif got == 0:
                self.unwatch()
                self.ended = True
                self.peer_ended()
                return 0
            elif got == WS_SOCK_AGAIN:
                return 0
            else:
                self.unwatch()
                self.io_failed(-got - 1)
                return 0
        if self.single and shared.tells_once:
            self.loop.call_soon(self.on_readable)
        return 0

    def get_buffer(self, sizehint):
        """Lend memory to the transport; asyncio's ``BufferedProtocol``."""
        if self.shared.reading:
            # Somebody's input is being processed in the shared buffer.
            self.pending_view = bytearray(65536)
            return self.pending_view
        return self.shared.view()

    def buffer_updated(self, Py_ssize_t n):
        """Take what the transport wrote; asyncio's ``BufferedProtocol``."""
        cdef LoopState shared = self.shared
        cdef bint corked
        if self.pending_view is not None:
            view, self.pending_view = self.pending_view, None
            self.data_received(bytes(memoryview(view)[:n]))
            return
        self.received += <size_t>n
        if self.must_keep():
            self.hold(shared.read_buffer, <size_t>n)
            return
        shared.reading = True
        corked = self.cork()
        try:
            self.process(shared.read_buffer, <size_t>n)
        except Exception as exc:
            self.crashed(exc)
        finally:
            shared.reading = False
            if corked:
                self.uncork()

    def data_received(self, data):
        """Take input as an object; asyncio's ``Protocol``."""
        cdef Py_buffer view
        cdef bint corked
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        self.received += <size_t>view.len
        try:
            if self.must_keep():
                self.hold(<const uint8_t *>view.buf, <size_t>view.len)
                return
            corked = self.cork()
            try:
                self.process(<const uint8_t *>view.buf, <size_t>view.len)
            except Exception as exc:
                self.crashed(exc)
            finally:
                if corked:
                    self.uncork()
        finally:
            PyBuffer_Release(&view)

    def eof_received(self):
        """Take the end of the input; asyncio's protocols."""
        if not self.ended:
            self.ended = True
            if self.processing:
                self.loop.call_soon(self.read_on)
            elif self.pending is None:
                self.peer_ended()
        return self.io is not None and self.io.can_write_eof()

    cdef bint must_keep(self) noexcept:
        """Whether input cannot be parsed now, or is not the next: a callback runs."""
        return self.must_hold() or self.pending is not None or self.processing

    cdef int hold(self, const uint8_t *p, size_t n) except -1:
        """Keep what a transport has read; have it read no more while that is held."""
        if self.must_hold():
            self.unwatch()
        if self.processing:
            self.loop.call_soon(self.read_on)
        return self.keep(p, n)

    cdef int keep(self, const uint8_t *p, size_t n) except -1:
        """Keep input for later, behind what is kept already."""
        cdef bytes data
        if n == 0 or self.phase == IGNORED:
            return 0
        data = PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n)
        self.pending = data if self.pending is None else self.pending + data
        return 0

    cdef int keep_rest(self, FrameReader reader) except -1:
        """Keep what was not parsed, before what came while a callback ran."""
        cdef bytes later = self.pending
        self.pending = None
        self.keep(reader.data + reader.pos, reader.end - reader.pos)
        if later is not None:
            self.pending = later if self.pending is None else self.pending + later
        return 0

    cdef int process(self, const uint8_t *p, size_t n) except -1:
        """Parse input and deliver what it says; keep what the queue cannot take."""
        cdef object rest
        if self.phase == HANDSHAKE:
            rest = self.handshake_received(
                PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n)
            )
            if rest:
                if self.must_hold():
                    self.keep(<const uint8_t *>PyBytes_AS_STRING(rest), <size_t>len(rest))
                elif self.phase == FRAMES:
                    self.process(
                        <const uint8_t *>PyBytes_AS_STRING(rest), <size_t>len(rest)
                    )
            return 0
        if self.phase == IGNORED:
            return 0
        self.reader.begin(p, n)
        return self.pump(NEED_DATA)

    cdef int process_tail(self, size_t n, const uint8_t *p, size_t rest) except -1:
        self.reader.begin(p, rest)
        self.processing = True
        try:
            found = self.reader.tail_filled(n)
        finally:
            self.processing = False
        return self.pump(found)

    cdef int pump(self, int found) except -1:
        """Deliver events until the input is used up or must be held back."""
        cdef FrameReader reader = self.reader
        cdef bint outer = self.processing
        cdef bint finished = False
        self.processing = True
        try:
            if found == NEED_DATA:
                found = reader.next()
            while found >= EVENT:
                self.deliver(reader)
                if self.phase != FRAMES:
                    break
                if found == LAST_EVENT:
                    self.hold_for_others()
                if self.must_hold():
                    self.keep_rest(reader)
                    break
                found = reader.next()
            if found == FAILED and self.phase == FRAMES:
                self.wake(True)
                if self.phase == FRAMES:
                    self.phase = IGNORED
                    self.reader_failed(reader.error)
            elif self.queued or reader.ends is not None:
                self.wake(True)
                if self.is_open and (
                    self.over_high() or self.has_enough()
                ):
                    self.queue_full = True
            finished = True
        finally:
            self.processing = outer
            if not finished:
                # The loop may be left here, by Ctrl-C, and run again.
                self.keep_rest(reader)
                self.loop.call_soon(self.read_on)
            reader.begin(NULL, 0)
        return 0

    cdef int hold_for_others(self) except -1:
        """Go on after the loop has served other connections."""
        if not self.held & HOLD_FOR_OTHERS:
            self.held |= HOLD_FOR_OTHERS
            self.loop.call_soon(self.release_reading, HOLD_FOR_OTHERS)
        return 0

    cdef bint has_enough(self) noexcept:
        """Whether fragments wait for somebody who does not want the whole message."""
        return (
            self.reader.complete > FRAGMENTS_LIMIT
            and self.holds_pieces
            and self.on_message is None
            and (self.receiver is None or self.receiver.mode == PIECES)
        )

    cdef int deliver(self, FrameReader reader) except -1:
        cdef int opcode = reader.event_opcode
        cdef object payload = reader.event_payload
        cdef uint64_t sends = self.sends
        reader.event_payload = None
        if opcode <= OP_BINARY:
            if self.on_message is not None:
                if opcode == OP_CONT:
                    raise InternalError("a message was taken apart for a callback")
                try:
                    self.on_message(self, payload)
                except Exception as exc:
                    self.callback_failed(exc)
                if self.sends != sends:
                    # Answers to a peer that does not read them must not pile up.
                    self.answered = True
                    if self.write_paused:
                        self.held |= HOLD_FOR_WRITING
                return 0
            if opcode == OP_CONT or reader.event_extra is not None:
                payload = (payload, reader.event_extra, opcode == OP_CONT)
                reader.event_extra = None
            self.put(payload)
        elif opcode == OP_PING or opcode == OP_PONG:
            self.deliver_control(opcode, payload)
        else:
            # Messages that came before are handled while sending still works.
            self.wake(True)
            if self.phase == FRAMES:
                self.phase = IGNORED
                self.close_received(payload)
        return 0

    cdef int deliver_control(self, int opcode, object payload) except -1:
        """Deliver a ping or a pong, unless there are too many."""
        cdef uint64_t sends = self.sends
        if self.controls_left == 0 and not self.may_have_controls():
            return 0
        self.controls_left -= 1
        if opcode == OP_PING:
            self.ping_received(payload)
        else:
            self.pong_received(payload)
        if self.sends != sends and self.on_message is not None:
            self.answered = True
            if self.write_paused:
                self.held |= HOLD_FOR_WRITING
        return 0

    cdef int may_have_controls(self) except -1:
        """Begin a second of control frames; fail when the last one is not over."""
        cdef LoopState shared = self.shared
        cdef double now = shared.now()
        if self.controls_since < 0 or now - self.controls_since >= 1:
            self.controls_since = now
            self.controls_left = self.max_controls
            return True
        self.wake(True)
        if self.phase == FRAMES:
            self.phase = IGNORED
            self.reader_failed(fail(Failure.CONTROL_RATE, limit=self.max_controls))
        return False

    def counters(self):
        """Return what was received and sent; see ``_stream_py``."""
        cdef FrameReader reader = self.reader
        self.join_published()
        return (
            0 if reader is None else reader.messages,
            0 if reader is None else reader.message_bytes,
            self.received,
            self.sends,
            self.sent_payload,
            self.accepted - min(self.accepted, <uint64_t>self.buffered_amount),
        )

    # -- the end ---------------------------------------------------------------------

    def mark_lost(self):
        """Wake the receiver for the last time; called by ``connection_lost()``."""
        cdef bytes pending
        self.broken = True
        self.is_open = False
        while self.pending is not None and self.phase == FRAMES:
            # Nothing that arrived is lost: it was read, so it is bounded.
            pending = self.pending
            self.pending = None
            self.high = -1
            self.high_size = SIZE_MAX
            self.held = 0
            self.queue_full = False
            try:
                self.process(
                    <const uint8_t *>PyBytes_AS_STRING(pending), <size_t>len(pending)
                )
            except Exception as exc:
                self.phase = IGNORED
                self.crashed(exc)
        self.is_lost = True
        self.is_open = False
        self.phase = IGNORED
        self.segments = None
        self.unsent = 0
        self.pending = None
        self.late_pong = None
        self.on_message = None
        self.close_socket()
        self.wake(False)
