# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Streams, compiled; see ``_stream_py`` for the behaviour and the documentation.

From a readable socket to a delivered message, and from ``send()`` to the socket,
everything here runs in C: one call from the loop per read event.

Ownership.  The streams of a loop share one read buffer and one cork buffer, both in
``LoopState``; input is borrowed from the read buffer only while ``process()`` runs.
A stream owns memory of its own only for input that its queue could not take
(``pending``), and for output that the socket did not take (``segments``).
Cost: no object per read or write; one per message.
"""

import asyncio
import os
import threading

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from ._codec_c cimport EVENT, FAILED, NEED_DATA, FrameReader, FrameWriter
from ._csrc cimport (
    WS_SOCK_AGAIN,
    ws_frame_encode,
    ws_iovec,
    ws_kernel,
    ws_sock_readv,
    ws_sock_recv,
    ws_sock_send,
    ws_sock_sendv,
)
from ._kernels_c cimport active_kernel, next_mask

from .exceptions import ConcurrencyError, ConnectionClosedOK, InternalError
from .timers import TimerWheel

cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    void PyErr_SetObject(object, object)
    PyObject *Py_NewRef(object) noexcept
    object PyUnicode_AsUTF8String(object)
    void *PyUnicode_DATA(object) noexcept
    bint PyUnicode_IS_ASCII(object) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object) noexcept

cdef extern from *:
    """
    /* Awaitables finish through these slots without an exception object where the
     * interpreter allows it; Cython has no spelling for them. */
    static void
    websock_set_steps(PyTypeObject *type, sendfunc send, iternextfunc next)
    {
        type->tp_iternext = next;
        if (type->tp_as_async != NULL) {
            type->tp_as_async->am_send = send;
        }
    #ifdef Py_TPFLAGS_HAVE_AM_SEND
        type->tp_flags |= Py_TPFLAGS_HAVE_AM_SEND;
    #endif
        PyType_Modified(type);
    }
    """
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **) except? PYGEN_ERROR
    ctypedef PyObject *(*iternextfunc)(PyObject *) except? NULL
    void websock_set_steps(PyTypeObject *, sendfunc, iternextfunc)

cdef enum:
    OP_CONT = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    FIN = 0x80

    # What arrives: the opening handshake, frames, nothing that matters any more.
    HANDSHAKE = 0
    FRAMES = 1
    IGNORED = 2

    READ_SIZE = 131072
    CORK_SIZE = 65536
    # From this size on a payload is sent from where it is, not copied.
    LARGE = 16384
    SEGMENT_SIZE = 16384
    MAX_PARTS = 16
    # Reads in one event: a fast sender must not starve the other connections.
    MAX_READS = 16
    # Fragments in bytes that may wait until somebody receives.
    FRAGMENTS_LIMIT = 65536

    # What a Recv waits for.
    WHOLE = 0
    ITERATE = 1
    PIECES = 2

cdef const ws_kernel *kernel = active_kernel()
cdef object current_task = asyncio.current_task


class _NoLoop:
    """Stands for the loop of a future that belongs to none."""

    def get_debug(self):
        return False


# What a task's wake-up is called with: the wake-up looks only at the result.
cdef object FINISHED = asyncio.Future(loop=_NoLoop())
FINISHED.set_result(None)


# -- what the streams of a loop share ------------------------------------------------


cdef class LoopState:
    """What the streams of one loop share: buffers, the cork, the timer wheel."""

    cdef object __weakref__
    cdef uint8_t *read_buffer
    cdef uint8_t *cork
    cdef size_t corked
    cdef Stream cork_owner
    cdef bint reading
    cdef unsigned long turn
    cdef bint turn_ends
    cdef list dirty
    cdef object read_view
    cdef readonly object wheel

    def __cinit__(self, loop):
        self.read_buffer = <uint8_t *>PyMem_Malloc(READ_SIZE)
        self.cork = <uint8_t *>PyMem_Malloc(CORK_SIZE)
        if self.read_buffer == NULL or self.cork == NULL:
            raise MemoryError
        self.turn = 1
        self.dirty = []
        self.wheel = TimerWheel(loop)

    def __dealloc__(self):
        PyMem_Free(self.read_buffer)
        PyMem_Free(self.cork)

    cdef object view(self):
        if self.read_view is None:
            self.read_view = PyMemoryView_FromMemory(
                <char *>self.read_buffer, READ_SIZE, PyBUF_WRITE
            )
        return self.read_view

    cdef int end_turn_later(self, object loop) except -1:
        if not self.turn_ends:
            self.turn_ends = True
            loop.call_soon(self.end_turn)
        return 0

    def end_turn(self):
        """Send what was joined since the loop's last turn."""
        cdef list dirty = self.dirty
        cdef Stream stream
        self.turn_ends = False
        self.turn += 1
        if dirty:
            self.dirty = []
            for stream in dirty:
                stream.flush()


_states_lock = threading.Lock()


def loop_state(loop):
    """Return what the streams of ``loop`` share, made at first use."""
    # An attribute of the loop: timers refer to the loop, so that anything else which
    # held them would keep it alive.
    state = getattr(loop, "_websock_c", None)
    if state is None:
        with _states_lock:
            state = getattr(loop, "_websock_c", None)
            if state is None:
                state = loop._websock_c = LoopState(loop)
    return state


# -- awaitables ----------------------------------------------------------------------


cdef class Recv:
    """The awaitable that ``recv()`` returns; acts as a coroutine, without a frame."""

    cdef Stream stream
    cdef object decode
    cdef char mode
    cdef char state             # 0 not begun, 1 waiting, 2 over
    cdef bint failing           # only the end of the connection is awaited

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on, as a coroutine's ``send()``."""
        cdef PyObject *result = NULL
        cdef object item
        if recv_send(<PyObject *>self, <PyObject *>value, &result) == PYGEN_NEXT:
            item = <object>result
            release(result)
            return item
        item = <object>result
        release(result)
        raise StopIteration(item)

    def throw(self, typ, val=None, tb=None):
        """Leave the wait with an exception; no message is lost."""
        self.leave(True)
        if val is None:
            val = typ if isinstance(typ, BaseException) else typ()
        elif not isinstance(val, BaseException):
            val = typ(val)
        if tb is not None:
            val = val.with_traceback(tb)
        raise val

    def close(self):
        """Leave the wait; no message is lost."""
        self.leave(True)

    cdef void leave(self, bint abandoned) noexcept:
        if self.state == 1:
            self.stream.receiver = None
            if abandoned:
                self.stream.waiter = None
        self.state = 2

    cdef object step(self):
        """Return the message, or the waiter when ``state`` stays 1."""
        cdef Stream stream = self.stream
        cdef object item
        if self.state == 2:
            raise RuntimeError("cannot reuse an already awaited recv()")
        if self.state == 0:
            if stream.receiver is not None or (stream.streaming and self.mode != PIECES):
                raise ConcurrencyError(
                    "cannot call recv while another coroutine is already "
                    "running recv or recv_streaming"
                )
            if stream.on_message is not None:
                raise ConcurrencyError("cannot call recv: the listener gets messages")
        if not self.failing:
            if stream.queued:
                item = stream.pop()
                self.leave(False)
                return self.convert(item)
            if self.mode == PIECES:
                pieces = stream.take_pieces()
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

    cdef object wait(self):
        cdef object waiter = self.stream.waiter
        if self.stream.queue_full:
            # Nothing is queued: the fragments of a message wait.
            self.stream.queue_full = False
            self.stream.loop.call_soon(self.stream.read_on)
        # A waiter that only lost its callback is as good as new; see finish_wait().
        if waiter is None or waiter.done():
            waiter = self.stream.waiter = self.stream.loop.create_future()
        waiter._asyncio_future_blocking = True
        self.stream.receiver = self
        self.state = 1
        return waiter

    cdef object convert(self, object item):
        """Apply ``decode``; give the message without its marks."""
        if self.mode == PIECES:
            return [item]
        if type(item) is tuple:
            item = (<tuple>item)[0]
        if self.decode is None:
            return item
        if self.decode:
            if type(item) is bytes:
                try:
                    return (<bytes>item).decode()
                except UnicodeDecodeError as exc:
                    self.stream.decoding_failed(exc)
                    self.failing = True
                    if self.stream.is_lost:
                        self.state = 2
                        raise self.stream.closed_error()
                    return self.wait()
        elif type(item) is str:
            return (<str>item).encode()
        return item


cdef extern from "Python.h":
    void release "Py_DECREF"(PyObject *) noexcept


cdef PySendResult recv_send(
    PyObject *self, PyObject *arg, PyObject **result
) except? PYGEN_ERROR:
    cdef Recv recv = <Recv>self
    cdef object value = recv.step()
    result[0] = Py_NewRef(value)
    return PYGEN_NEXT if recv.state == 1 else PYGEN_RETURN


cdef PyObject *recv_next(PyObject *self) except? NULL:
    cdef Recv recv = <Recv>self
    cdef object value = recv.step()
    if recv.state == 1:
        return Py_NewRef(value)
    PyErr_SetObject(StopIteration, value)
    return NULL


cdef class Messages:
    """The asynchronous iterator over incoming messages."""

    cdef Stream stream

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Recv recv = Recv.__new__(Recv)
        recv.stream = self.stream
        recv.mode = ITERATE
        return recv


cdef class Done:
    """The awaitable of a call that has nothing to wait for."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        """Go on, as a coroutine's ``send()``."""
        raise StopIteration

    def throw(self, typ, val=None, tb=None):
        """Raise the exception, as a coroutine that is over."""
        if val is None:
            val = typ if isinstance(typ, BaseException) else typ()
        raise val

    def close(self):
        """Do nothing: it is over."""


cdef PySendResult done_send(
    PyObject *self, PyObject *arg, PyObject **result
) except? PYGEN_ERROR:
    result[0] = Py_NewRef(None)
    return PYGEN_RETURN


cdef PyObject *done_next(PyObject *self) except? NULL:
    return NULL


websock_set_steps(<PyTypeObject *>Recv, recv_send, recv_next)
websock_set_steps(<PyTypeObject *>Done, done_send, done_next)
cdef object DONE = Done()


# -- the stream ----------------------------------------------------------------------


cdef class Segment:
    """Output that the socket did not take yet."""

    cdef bytes owner
    cdef object other           # owner when it is not bytes
    cdef const uint8_t *start
    cdef size_t size
    cdef size_t capacity        # 0: closed, else the size of owner


cdef class Stream:
    """Bytes to messages and back, on a socket or a transport; see ``_stream_py``."""

    cdef object __weakref__
    cdef readonly object loop
    cdef LoopState shared
    cdef readonly object sock
    cdef int fd
    cdef readonly object io                 # the transport, when there is one
    cdef FrameReader reader
    cdef FrameWriter writer

    # Receiving.
    cdef object on_message                  # callback, or None: messages are queued
    cdef list queue
    cdef Py_ssize_t first
    cdef readonly Py_ssize_t queued
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef object waiter                      # the future that the receiver awaits
    cdef Recv receiver
    cdef bytes pending                      # input that was not parsed yet
    cdef char phase
    cdef bint processing
    cdef bint watching                      # the loop tells when there is input
    cdef bint queue_full
    cdef int held                           # reasons to hold input back, as bits
    cdef bint ended                         # the peer sent EOF
    cdef public bint streaming

    # Sending.
    cdef bint mask
    cdef object transform
    cdef list segments
    cdef size_t unsent
    cdef size_t write_high
    cdef size_t write_low
    cdef unsigned long sent_turn
    cdef bint dirty
    cdef bint watching_writes
    cdef bint end_after_flush
    cdef bint finishing                     # closed once everything is sent
    cdef bytes late_pong
    cdef readonly bint write_paused
    cdef public bint fragmenting            # a fragmented message is being sent

    cdef bint broken                        # reading or writing failed

    cdef readonly bint is_open
    cdef readonly bint is_closing
    cdef readonly bint is_lost

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.high = -1
        self.phase = HANDSHAKE
        self.write_high = 32768
        self.write_low = 8192

    # -- set-up ----------------------------------------------------------------------

    def init_stream(self, loop, on_message, queue_marks, write_marks):
        """Set up; call once, before anything else."""
        self.loop = loop
        self.shared = loop_state(loop)
        self.on_message = on_message
        high, low = queue_marks
        self.high = -1 if high is None else high
        self.low = 0 if low is None else low
        self.write_high, self.write_low = write_marks

    def attach_socket(self, sock):
        """Own a connected non-blocking socket and begin to read from it."""
        self.sock = sock
        self.fd = sock.fileno()
        self.watch()

    def attach_transport(self, transport):
        """Work on a transport instead of a socket."""
        self.io = transport
        self.watching = True
        transport.set_write_buffer_limits(self.write_high, self.write_low)

    def open_stream(self, FrameReader reader, FrameWriter writer):
        """End the handshake phase: from here on frames arrive and can be sent."""
        self.reader = reader
        self.writer = writer
        self.mask = writer.mask
        self.transform = writer.transform
        self.phase = FRAMES
        self.is_open = True

    def set_on_message(self, on_message):
        """Deliver messages to a callback instead of the queue."""
        self.on_message = on_message

    def set_closing(self):
        """No message can be sent any more; messages are received until the end."""
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
            self.watching = True
            self.loop.add_reader(self.fd, self.on_readable)
        elif self.io is not None and not self.is_lost:
            self.watching = True
            self.io.resume_reading()
        return 0

    cdef int unwatch(self) except -1:
        """Stop reading: called only when input comes that is to be held back."""
        if not self.watching:
            return 0
        self.watching = False
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
        elif self.io is not None:
            self.io.pause_reading()
        return 0

    cdef bint must_hold(self) noexcept:
        return self.held != 0 or self.queue_full

    def hold_reading(self, int reason=1):
        """Deliver nothing and read nothing until ``release_reading()``."""
        self.held |= reason

    def release_reading(self, int reason=1):
        """Undo ``hold_reading()`` for the same reason."""
        if self.held & reason:
            self.held &= ~reason
            if not self.held and not self.processing and not self.is_lost:
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

    def on_readable(self):
        """Take input from the socket; the loop's reader callback."""
        cdef bint corked
        cdef LoopState shared = self.shared
        if self.fd < 0:
            return
        if self.must_hold():
            self.unwatch()
            return
        if shared.reading:
            # A loop that runs inside a callback of this loop: use other memory.
            try:
                data = self.sock.recv(READ_SIZE)
            except OSError:
                return  # nothing there, or the next read finds out what is wrong
            if data:
                self.data_received(data)
            else:
                self.unwatch()
                self.eof_received()
            return
        shared.reading = True
        corked = self.cork()
        try:
            self.read_socket()
        except Exception as exc:
            self.crashed(exc)
        finally:
            shared.reading = False
            if corked:
                self.uncork()

    cdef int read_socket(self) except -1:
        cdef LoopState shared = self.shared
        cdef ws_iovec parts[2]
        cdef uint8_t *tail
        cdef size_t room = 0
        cdef size_t wanted
        cdef size_t n
        cdef long got
        cdef int reads
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
                if tail == NULL:
                    self.process(shared.read_buffer, n)
                elif n <= room:
                    self.process_tail(n, NULL, 0)
                    wanted = room
                else:
                    self.process_tail(room, shared.read_buffer, n - room)
                if n < wanted or self.fd < 0 or self.must_hold():
                    return 0
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
        return 0

    cdef int io_failed(self, long code) except -1:
        """The socket is broken: close it soon, when what was read is delivered."""
        self.is_open = False
        if not self.broken:
            self.broken = True
            self.loop.call_soon(self.abort_stream, OSError(code, os.strerror(code)))
        return 0

    def get_buffer(self, sizehint):
        """Lend memory to the transport; asyncio's ``BufferedProtocol``."""
        if self.shared.reading:
            # Somebody's input is being processed in the shared buffer.
            self.pending_view = bytearray(65536)
            return self.pending_view
        return self.shared.view()

    cdef object pending_view

    def buffer_updated(self, Py_ssize_t n):
        """Take what the transport wrote; asyncio's ``BufferedProtocol``."""
        cdef LoopState shared = self.shared
        cdef bint corked
        if self.pending_view is not None:
            view, self.pending_view = self.pending_view, None
            self.data_received(bytes(memoryview(view)[:n]))
            return
        if self.must_hold():
            self.unwatch()
            self.keep(shared.read_buffer, <size_t>n)
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
        try:
            if self.must_hold():
                self.unwatch()
                self.keep(<const uint8_t *>view.buf, <size_t>view.len)
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
            if self.pending is None:
                self.peer_ended()
        return self.io is not None and self.io.can_write_eof()

    cdef int keep(self, const uint8_t *p, size_t n) except -1:
        """Keep input for later, behind what is kept already."""
        cdef bytes data
        if n == 0 or self.phase == IGNORED:
            return 0
        data = PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n)
        self.pending = data if self.pending is None else self.pending + data
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
        self.processing = True
        try:
            if found == NEED_DATA:
                found = reader.next()
            while found == EVENT:
                self.deliver(reader)
                if self.phase != FRAMES:
                    break
                if self.must_hold():
                    self.keep(reader.data + reader.pos, reader.end - reader.pos)
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
                    self.queued > self.high >= 0 or self.has_enough()
                ):
                    self.queue_full = True
        finally:
            reader.begin(NULL, 0)
            self.processing = outer
        return 0

    cdef bint has_enough(self) noexcept:
        """Whether fragments wait for somebody who does not want the whole message."""
        return (
            self.reader.complete > FRAGMENTS_LIMIT
            and self.high >= 0
            and self.on_message is None
            and (self.receiver is None or self.receiver.mode == PIECES)
        )

    cdef int deliver(self, FrameReader reader) except -1:
        cdef int opcode = reader.event_opcode
        cdef object payload = reader.event_payload
        reader.event_payload = None
        if opcode <= OP_BINARY:
            if self.on_message is not None:
                if opcode == OP_CONT:
                    raise InternalError("a message was taken apart for a callback")
                try:
                    self.on_message(self, payload)
                except Exception as exc:
                    self.callback_failed(exc)
                return 0
            if opcode == OP_CONT or reader.event_extra is not None:
                payload = (payload, reader.event_extra, opcode == OP_CONT)
                reader.event_extra = None
            if self.is_closing and self.queued > self.high >= 0:
                # The program has said that it is done: nothing may pile up.
                return 0
            if self.queue is None:
                self.queue = []
            self.queue.append(payload)
            self.queued += 1
            if self.queued > self.high >= 0:
                self.wake(True)
                if self.queued > self.high and self.is_open:
                    self.queue_full = True
        elif opcode == OP_PING:
            self.ping_received(payload)
        elif opcode == OP_PONG:
            self.pong_received(payload)
        else:
            # Messages that came before are handled while sending still works.
            self.wake(True)
            if self.phase == FRAMES:
                self.phase = IGNORED
                self.close_received(payload)
        return 0

    cdef int wake(self, bint at_once) except -1:
        """Let the receiver go on, if it has something to go on with."""
        if self.receiver is None or self.waiter is None:
            return 0
        if not self.queued and not self.is_lost:
            if self.receiver.mode != PIECES or not self.has_pieces():
                return 0
        return self.finish_wait(at_once)

    cdef int finish_wait(self, bint at_once) except -1:
        """End the receiver's wait; run its task's wake-up here if ``at_once``.

        Setting a result would have the loop call the wake-up in its next turn.  So
        the wake-up is taken off the future and called, unless a task is running.
        """
        cdef object waiter = self.waiter
        cdef object callbacks
        cdef object callback
        cdef object context
        if not at_once:
            if not waiter.done():
                waiter.set_result(None)
            return 0
        callbacks = waiter._callbacks
        if not callbacks:
            # Cancelled, or woken already: the task is on its way.
            if not waiter.done():
                waiter.set_result(None)
            return 0
        callback, context = callbacks[0]
        if len(callbacks) > 1 or context is None or current_task(self.loop) is not None:
            waiter.set_result(None)
            return 0
        try:
            PyContext_Enter(context)
        except RuntimeError:
            # The task's context is in use: its wake-up has to wait.
            waiter.set_result(None)
            return 0
        try:
            waiter.remove_done_callback(callback)
            callback(FINISHED)
        finally:
            PyContext_Exit(context)
        return 0

    cdef bint has_pieces(self) noexcept:
        return self.reader is not None and self.reader.ends is not None

    cdef object take_pieces(self):
        cdef object pieces
        if not self.has_pieces():
            return None
        opcode = self.reader.opcode
        pieces = self.reader.take_fragments()
        self.taken()
        return (opcode, pieces) if pieces else None

    cdef object pop(self):
        """Take the first message out of the queue."""
        cdef list queue = self.queue
        cdef object item = queue[self.first]
        queue[self.first] = None
        self.first += 1
        self.queued -= 1
        if self.queued == 0:
            queue.clear()
            self.first = 0
        elif self.first > 64 and self.first > self.queued:
            del queue[: self.first]
            self.first = 0
        self.taken()
        return item

    cdef int taken(self) except -1:
        """Read on when enough was taken."""
        if self.queue_full and self.queued <= self.low:
            self.queue_full = False
            if not self.processing:
                self.read_on()
        return 0

    def recv(self, decode=None):
        """Receive the next message; see ``_stream_py``."""
        cdef Recv recv = Recv.__new__(Recv)
        recv.stream = self
        recv.decode = decode
        return recv

    def recv_pieces(self):
        """Receive a message with its marks, or finished fragments of one."""
        cdef Recv recv = Recv.__new__(Recv)
        recv.stream = self
        recv.mode = PIECES
        return recv

    @property
    def is_receiving(self):
        """Whether a ``recv()`` is waiting."""
        return self.receiver is not None

    @property
    def is_corked(self):
        """Whether a read event of this stream is being handled."""
        return self.shared.cork_owner is self

    def __aiter__(self):
        cdef Messages messages = Messages.__new__(Messages)
        messages.stream = self
        return messages

    # -- writing ---------------------------------------------------------------------

    cdef bint cork(self) noexcept:
        """Join what is sent from here on; ``False`` when another stream does that."""
        cdef LoopState shared = self.shared
        if shared.cork_owner is not None:
            return False
        shared.cork_owner = self
        return True

    cdef int uncork(self) except -1:
        cdef LoopState shared = self.shared
        try:
            if shared.corked:
                self.flush_cork()
        finally:
            shared.corked = 0
            shared.cork_owner = None
        return 0

    cdef int flush_cork(self) except -1:
        cdef LoopState shared = self.shared
        cdef size_t n = shared.corked
        shared.corked = 0
        if n:
            self.send_now(shared.cork, n)
        return 0

    cdef int send_now(self, const uint8_t *p, size_t n) except -1:
        """Send if nothing waits before it; keep the rest."""
        cdef long sent
        if self.broken:
            return 0
        if self.segments:
            self.append(p, n)
            return self.check_high()
        if self.fd < 0:
            if self.io is not None and not self.is_lost:
                self.io.write(PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n))
            return 0
        sent = ws_sock_send(self.fd, p, n)
        if sent < 0:
            if sent != WS_SOCK_AGAIN:
                return self.io_failed(-sent - 1)
            sent = 0
        if <size_t>sent < n:
            self.append(p + sent, n - <size_t>sent)
            self.watch_writes()
            self.check_high()
        return 0

    cdef int write(self, const uint8_t *head, size_t m, const uint8_t *p, size_t n) except -1:
        """Write a few bytes made of two parts: corked, joined, or at once."""
        cdef LoopState shared = self.shared
        cdef uint8_t *cork
        if self.broken or (self.fd < 0 and self.io is None):
            return 0
        if shared.cork_owner is self:
            if shared.corked + m + n > CORK_SIZE:
                self.flush_cork()
            if m + n <= CORK_SIZE:
                cork = shared.cork + shared.corked
                memcpy(cork, head, m)
                memcpy(cork + m, p, n)
                shared.corked += m + n
                return 0
        elif not self.segments and self.sent_turn != shared.turn:
            # The first of this turn of the loop goes out at once.
            self.sent_turn = shared.turn
            shared.end_turn_later(self.loop)
            if m == 0:
                return self.send_now(p, n)
            return self.send_parts(head, m, p, n, None)
        self.append(head, m)
        self.append(p, n)
        if not self.watching_writes:
            self.flush_later()
        return self.check_high()

    cdef int flush_later(self) except -1:
        if not self.dirty:
            self.dirty = True
            self.shared.dirty.append(self)
            self.shared.end_turn_later(self.loop)
        return 0

    cdef int send_parts(
        self, const uint8_t *head, size_t m, const uint8_t *p, size_t n, object owner
    ) except -1:
        """Send two parts, behind what is corked, without joining them."""
        cdef LoopState shared = self.shared
        cdef ws_iovec parts[3]
        cdef int count = 0
        cdef long sent
        cdef size_t done
        cdef size_t corked = 0
        if shared.cork_owner is self:
            corked = shared.corked
            shared.corked = 0
        if self.broken or (self.fd < 0 and self.io is None):
            return 0
        if self.fd < 0 or self.segments:
            self.append(shared.cork, corked)
            self.append(head, m)
            if owner is None:
                self.append(p, n)
            else:
                self.append_owned(p, n, owner)
            if self.fd < 0:
                return self.flush()
            return self.check_high()
        if corked:
            parts[count].iov_base = shared.cork
            parts[count].iov_len = corked
            count += 1
        if m:
            parts[count].iov_base = <void *>head
            parts[count].iov_len = m
            count += 1
        parts[count].iov_base = <void *>p
        parts[count].iov_len = n
        count += 1
        sent = ws_sock_sendv(self.fd, parts, count)
        if sent < 0:
            if sent != WS_SOCK_AGAIN:
                return self.io_failed(-sent - 1)
            sent = 0
        done = <size_t>sent
        if done >= corked + m + n:
            return 0
        if done < corked:
            self.append(shared.cork + done, corked - done)
            done = 0
        else:
            done -= corked
        if done < m:
            self.append(head + done, m - done)
            done = 0
        else:
            done -= m
        if owner is None:
            self.append(p + done, n - done)
        else:
            self.append_owned(p + done, n - done, owner)
        self.watch_writes()
        return self.check_high()

    cdef int append(self, const uint8_t *p, size_t n) except -1:
        """Keep a copy of output."""
        cdef Segment segment
        cdef size_t size
        if n == 0:
            return 0
        if self.segments is None:
            self.segments = []
        if self.segments:
            segment = <Segment>self.segments[len(self.segments) - 1]
            if segment.capacity:
                size = <size_t>(
                    segment.start - <const uint8_t *>PyBytes_AS_STRING(segment.owner)
                ) + segment.size
                if n <= segment.capacity - size:
                    memcpy(PyBytes_AS_STRING(segment.owner) + size, p, n)
                    segment.size += n
                    self.unsent += n
                    return 0
        segment = Segment.__new__(Segment)
        size = n if n > SEGMENT_SIZE else <size_t>(SEGMENT_SIZE if self.segments else max(n, <size_t>512))
        segment.owner = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        segment.start = <const uint8_t *>PyBytes_AS_STRING(segment.owner)
        segment.capacity = size
        segment.size = n
        memcpy(PyBytes_AS_STRING(segment.owner), p, n)
        self.segments.append(segment)
        self.unsent += n
        return 0

    cdef int append_owned(self, const uint8_t *p, size_t n, object owner) except -1:
        """Keep output that ``owner``, which never changes, holds."""
        cdef Segment segment
        if n == 0:
            return 0
        if n < LARGE:
            return self.append(p, n)
        if self.segments is None:
            self.segments = []
        segment = Segment.__new__(Segment)
        segment.other = owner
        segment.start = p
        segment.size = n
        self.segments.append(segment)
        self.unsent += n
        return 0

    cdef int flush(self) except -1:
        """Send what was kept, as far as the socket takes it."""
        cdef list segments = self.segments
        cdef Segment segment
        cdef ws_iovec parts[MAX_PARTS]
        cdef Py_ssize_t count
        cdef Py_ssize_t i
        cdef long sent
        cdef size_t rest
        self.dirty = False
        if not segments or self.broken:
            return 0
        if self.fd < 0:
            chunks = []
            for segment in segments:
                chunks.append(
                    PyBytes_FromStringAndSize(
                        <const char *>segment.start, <Py_ssize_t>segment.size
                    )
                )
            segments.clear()
            self.unsent = 0
            if self.io is not None and not self.is_lost:
                self.io.write(b"".join(chunks))
            return 0
        while segments:
            count = min(<Py_ssize_t>len(segments), MAX_PARTS)
            for i in range(count):
                segment = <Segment>segments[i]
                parts[i].iov_base = <void *>segment.start
                parts[i].iov_len = segment.size
            sent = ws_sock_sendv(self.fd, parts, <int>count)
            if sent < 0:
                if sent != WS_SOCK_AGAIN:
                    return self.io_failed(-sent - 1)
                break
            rest = <size_t>sent
            self.unsent -= rest
            i = 0
            while i < count:
                segment = <Segment>segments[i]
                if segment.size > rest:
                    segment.start += rest
                    segment.size -= rest
                    break
                rest -= segment.size
                i += 1
            del segments[:i]
            if i < count:
                break
        if segments:
            self.watch_writes()
            return self.check_low()
        if self.watching_writes:
            self.watching_writes = False
            self.loop.remove_writer(self.fd)
        self.check_low()
        if self.end_after_flush and not self.segments:
            self.end_output()
        if self.finishing and not self.segments:
            self.release_socket()
            self.loop.call_soon(self.lost, None)
        return 0

    def on_writable(self):
        """Send more; the loop's writer callback."""
        if self.fd >= 0:
            self.flush()

    cdef int watch_writes(self) except -1:
        if not self.watching_writes and self.fd >= 0:
            self.watching_writes = True
            self.loop.add_writer(self.fd, self.on_writable)
        return 0

    cdef int check_high(self) except -1:
        if self.unsent > self.write_high and not self.write_paused:
            self.write_paused = True
            self.pause_writing()
        return 0

    cdef int check_low(self) except -1:
        cdef bytes pong
        if self.write_paused and self.unsent <= self.write_low:
            self.write_paused = False
            if self.late_pong is not None and self.is_open:
                pong, self.late_pong = self.late_pong, None
                self.send_control(OP_PONG, pong)
            self.resume_writing()
        return 0

    def transport_paused(self, bint paused):
        """Follow the transport's flow control."""
        cdef bytes pong
        self.write_paused = paused
        if not paused and self.late_pong is not None and self.is_open:
            pong, self.late_pong = self.late_pong, None
            self.send_control(OP_PONG, pong)

    cdef int send_frame(
        self, unsigned first, const uint8_t *p, size_t n, object owner
    ) except -1:
        """Frame a payload and write it; ``owner`` keeps it alive and unchanged."""
        cdef LoopState shared = self.shared
        cdef uint8_t header[14]
        cdef uint8_t mask[4]
        cdef size_t m
        cdef uint8_t *out
        cdef object frame
        if not self.mask:
            m = ws_frame_encode(header, first, n, NULL)
            if n >= LARGE:
                return self.send_parts(header, m, p, n, owner)
            return self.write(header, m, p, n)
        next_mask(mask)
        m = ws_frame_encode(header, first, n, mask)
        if n < LARGE and shared.cork_owner is self:
            if shared.corked + m + n > CORK_SIZE:
                self.flush_cork()
            out = shared.cork + shared.corked
            memcpy(out, header, m)
            kernel.mask_copy(out + m, p, n, mask, 0)
            shared.corked += m + n
            return 0
        frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(m + n))
        out = <uint8_t *>PyBytes_AS_STRING(frame)
        memcpy(out, header, m)
        kernel.mask_copy(out + m, p, n, mask, 0)
        if n >= LARGE:
            return self.send_parts(NULL, 0, out, m + n, frame)
        return self.write(NULL, 0, out, m + n)

    cdef int send_message(self, object message, object text) except -1:
        """Send a whole message; ``TypeError`` when it is of a wrong type."""
        cdef unsigned first
        cdef Py_buffer view
        cdef object data
        if type(message) is bytes:
            data = message
            first = OP_TEXT if text else OP_BINARY
        elif isinstance(message, str):
            first = OP_BINARY if text is False else OP_TEXT
            if self.transform is None and PyUnicode_IS_ASCII(message):
                return self.send_frame(
                    FIN | first,
                    <const uint8_t *>PyUnicode_DATA(message),
                    <size_t>PyUnicode_GET_LENGTH(message),
                    message,
                )
            data = PyUnicode_AsUTF8String(message)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            data = bytes(message)
            first = OP_TEXT if text else OP_BINARY
        else:
            raise TypeError(
                f"message must be str or bytes-like, not {type(message).__name__}"
            )
        if self.transform is not None:
            rsv, data = self.transform.encode(<int>first, True, data)
            first |= <unsigned>rsv
        return self.send_frame(
            FIN | first,
            <const uint8_t *>PyBytes_AS_STRING(data),
            <size_t>len(data),
            data,
        )

    def send(self, message, *, text=None):
        """Send a message; see ``_stream_py``."""
        if (
            not self.is_open
            or self.fragmenting
            or not isinstance(message, (str, bytes, bytearray, memoryview))
        ):
            return self.send_otherwise(message, text)
        self.send_message(message, text)
        if self.write_paused:
            return self.drain()
        return DONE

    def send_nowait(self, message, *, text=None):
        """Send a message without waiting; see ``_stream_py``."""
        if not self.is_open:
            raise self.closed_error()
        if self.fragmenting:
            raise ConcurrencyError("cannot send: a fragmented message is being sent")
        self.send_message(message, text)

    def send_control(self, unsigned opcode, payload):
        """Send a control frame, whatever the state."""
        cdef bytes data = bytes(payload)
        self.send_frame(
            FIN | opcode,
            <const uint8_t *>PyBytes_AS_STRING(data),
            <size_t>len(data),
            data,
        )

    def answer_ping(self, bytes payload):
        """Send a pong; only the newest while the peer does not read (5.5.3)."""
        if self.write_paused:
            self.late_pong = payload
        else:
            self.send_control(OP_PONG, payload)

    def write_bytes(self, bytes data):
        """Write bytes that are frames or HTTP already."""
        if len(data) >= LARGE:
            self.send_parts(
                NULL,
                0,
                <const uint8_t *>PyBytes_AS_STRING(data),
                <size_t>len(data),
                data,
            )
        else:
            self.write(
                NULL, 0, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>len(data)
            )

    @property
    def buffered_amount(self):
        """Bytes that were sent but not yet handed to the operating system."""
        cdef size_t n = self.unsent
        if self.shared is not None and self.shared.cork_owner is self:
            n += self.shared.corked
        if self.io is not None and not self.is_lost:
            n += self.io.get_write_buffer_size()
        return n

    # -- the end ---------------------------------------------------------------------

    def end_writing(self):
        """Send EOF after what was sent before; TLS closes instead."""
        if self.shared.cork_owner is self and self.shared.corked:
            self.flush_cork()
        if self.segments:
            self.flush()
        if self.segments:
            self.end_after_flush = True
        else:
            self.end_output()

    cdef int end_output(self) except -1:
        self.end_after_flush = False
        if self.fd >= 0:
            try:
                self.sock.shutdown(1)
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
        return 0

    def close_stream(self):
        """Close, and send what is unsent before; read nothing more."""
        if self.is_lost:
            return
        if self.fd >= 0:
            if self.shared.cork_owner is self:
                self.flush_cork()
            self.flush()
            if self.segments and not self.broken:
                self.is_open = False
                self.is_closing = True
                self.finishing = True
                self.unwatch()
                return
            self.release_socket()
            self.loop.call_soon(self.lost, None)
        elif self.io is not None:
            self.io.close()

    def abort_stream(self, exc=None):
        """Close at once; ``exc`` is the reason, for ``connection_lost()``."""
        if self.is_lost:
            return
        if self.fd >= 0:
            self.release_socket()
            self.loop.call_soon(self.lost, exc)
        elif self.io is not None:
            self.io.abort()

    cdef int release_socket(self) except -1:
        cdef int fd = self.fd
        self.fd = -1
        self.is_open = False
        self.is_closing = True
        if self.shared.cork_owner is self:
            self.shared.corked = 0
        if self.watching:
            self.watching = False
            self.loop.remove_reader(fd)
        if self.watching_writes:
            self.watching_writes = False
            self.loop.remove_writer(fd)
        self.segments = None
        self.unsent = 0
        return 0

    def lost(self, exc):
        """The connection is gone: the socket is closed and waiters go on."""
        if self.is_lost:
            return
        self.connection_lost(exc)

    def mark_lost(self):
        """Wake the receiver for the last time; called by ``connection_lost()``."""
        cdef bytes pending = self.pending
        self.broken = True
        self.is_open = False
        if pending is not None and self.phase == FRAMES:
            # Nothing that arrived is lost: it was read, so it is bounded.
            self.pending = None
            self.high = -1
            self.held = 0
            self.queue_full = False
            self.process(
                <const uint8_t *>PyBytes_AS_STRING(pending), <size_t>len(pending)
            )
        self.is_lost = True
        self.is_open = False
        self.phase = IGNORED
        self.segments = None
        self.unsent = 0
        self.pending = None
        self.late_pong = None
        self.on_message = None
        if self.sock is not None:
            self.sock.close()
        self.wake(False)
