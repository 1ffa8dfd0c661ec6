# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Channels, compiled; see ``_channel_py`` for the behaviour and the documentation.

Memory.  What is sent goes from the caller's object, or from the cork buffer that the
channels of a loop share, straight to the socket; a channel owns memory of its own
only for output that the socket did not take (``segments``).  Large payloads are never
joined by copying.
"""

import asyncio
import contextvars
import os
import socket
import threading

from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from ._csrc cimport (
    WS_POLL_READ,
    WS_POLL_WRITE,
    WS_SOCK_AGAIN,
    ws_frame_encode,
    ws_iovec,
    ws_kernel,
    ws_poll_event,
    ws_poll_fd,
    ws_poll_flags,
    ws_poll_now,
    ws_poll_open,
    ws_poll_set,
    ws_sock_accept,
    ws_sock_close,
    ws_sock_end,
    ws_sock_name,
    ws_sock_parts,
    ws_sock_send,
    ws_sock_sendv,
)
from ._kernels_c cimport active_kernel, next_mask
from ._slots cimport (
    PYGEN_RETURN,
    PYGEN_ERROR,
    Py_NewRef,
    PySendResult,
    PyTypeObject,
    websock_set_steps,
)

from .exceptions import ConcurrencyError
from .timers import TimerWheel

cdef extern from "Python.h":
    object PyUnicode_AsUTF8String(object)
    void *PyUnicode_DATA(object) noexcept
    bint PyUnicode_IS_ASCII(object) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object) noexcept
    object PyContext_CopyCurrent()
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1

cdef enum:
    OP_TEXT = 1
    OP_BINARY = 2
    OP_PONG = 10
    FIN = 0x80

    # From this size on a payload is sent from where it is, not copied.
    LARGE = 16384
    SEGMENT_SIZE = 16384
    MAX_PARTS = 16
    # Ready sockets that are served before the loop sees to other things.
    MAX_EVENTS = 256

cdef const ws_kernel *kernel = active_kernel()


cdef object address_of(const uint8_t *raw, size_t size):
    """Return an address as Python gives it; ``None`` when that takes more."""
    cdef char text[46]
    cdef unsigned long numbers[3]
    cdef int count = ws_sock_parts(raw, size, text, numbers)
    if count == 1:
        return ((<bytes>text).decode("ascii"), numbers[0])
    if count == 3 and numbers[2] == 0:  # else the text names the interface
        return ((<bytes>text).decode("ascii"), numbers[0], numbers[1], 0)
    return None


def accept_connections(listening, int limit):
    """Accept the connections that wait; see ``_channel_py``."""
    cdef uint8_t address[28]
    cdef size_t size
    cdef long fd
    cdef int listening_fd = listening.fileno()
    cdef list accepted = []
    while len(accepted) < limit:
        fd = ws_sock_accept(listening_fd, address, &size)
        if fd >= 0:
            accepted.append(
                (fd, PyBytes_FromStringAndSize(<char *>address, <Py_ssize_t>size))
            )
            continue
        if fd != WS_SOCK_AGAIN:
            exc = OSError(-fd - 1, os.strerror(-fd - 1))
            if not isinstance(exc, ConnectionError):  # else a peer that left
                return accepted, exc
        break
    return accepted, None


def close_accepted(accepted):
    """Close what ``accept_connections()`` gave and no channel took."""
    ws_sock_close(accepted[0])


# -- what the channels of a loop share ------------------------------------------------


cdef class LoopState:
    """What the channels of one loop share: buffers, the cork, the timer wheel.

    And one poller (Linux): the loop watches a single descriptor, and which sockets are
    ready is asked for here.  That costs a system call for each turn of the loop with
    input, and saves an object of the loop, its context and a Python call for each
    socket and event.  One socket alone, as most clients have, is watched by the loop.
    """

    def __cinit__(self, loop):
        self.poll_fd = -1
        self.read_buffer = <uint8_t *>PyMem_Malloc(READ_SIZE)
        self.cork = <uint8_t *>PyMem_Malloc(CORK_SIZE)
        if self.read_buffer == NULL or self.cork == NULL:
            raise MemoryError
        self.turn = 1
        self.dirty = []
        # Selectors tell as long as something is wrong.  libuv tells once, and it may
        # do so while there is still input in front of the error.
        self.tells_once = not isinstance(loop, asyncio.SelectorEventLoop)
        self.wheel = TimerWheel(loop)

    cdef int open_poller(self, object loop) except -1:
        cdef int fd = ws_poll_open()
        if fd < 0:
            self.poll_fd = -2
            return 0
        try:
            # Not in the context of whoever comes first.
            contextvars.Context().run(loop.add_reader, fd, self.on_poll)
        except BaseException:
            ws_sock_close(fd)
            raise
        self.polled = []
        self.poll_fd = fd
        return 0

    cdef int poll(self, Channel channel, int flags) except -1:
        """Watch a channel's socket for these things and no others."""
        cdef int fd = channel.fd
        cdef int error = ws_poll_set(self.poll_fd, fd, channel.polling, flags)
        if error and flags:
            raise OSError(-error, os.strerror(-error))
        if channel.polling == 0:
            if fd >= len(self.polled):
                self.polled.extend([None] * (fd + 1 - len(self.polled)))
            self.polled[fd] = channel
            self.poll_count += 1
            self.poll_sum += fd
        elif flags == 0:
            self.polled[fd] = None
            self.poll_count -= 1
            self.poll_sum -= fd
        channel.polling = <char>flags
        return 0

    def on_poll(self):
        """Serve the sockets that are ready; the loop's reader callback."""
        cdef ws_poll_event events[MAX_EVENTS]
        cdef int count
        cdef int i
        cdef object channel
        if self.poll_count == 1:
            # It can only be this one, and if it is watched for one thing, only that.
            channel = self.polled[self.poll_sum]
            i = (<Channel>channel).polling
            if i == WS_POLL_READ or i == WS_POLL_WRITE:
                (<Channel>channel).ready(i)
                return
        count = ws_poll_now(self.poll_fd, events, MAX_EVENTS)
        for i in range(count):
            # What was served before may have closed it.
            channel = self.polled[ws_poll_fd(&events[i])]
            if channel is not None:
                (<Channel>channel).ready(ws_poll_flags(&events[i]))

    def __dealloc__(self):
        if self.poll_fd >= 0:
            ws_sock_close(self.poll_fd)
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
        cdef Channel channel
        self.turn_ends = False
        self.turn += 1
        if dirty:
            self.dirty = []
            for channel in dirty:
                channel.flush()


_states_lock = threading.Lock()


def loop_state(loop):
    """Return what the channels of ``loop`` share, made at first use."""
    # An attribute of the loop: timers refer to the loop, so that anything else which
    # held them would keep it alive.
    state = getattr(loop, "_websock_c", None)
    if state is None:
        with _states_lock:
            state = getattr(loop, "_websock_c", None)
            if state is None:
                state = loop._websock_c = LoopState(loop)
    return state


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


websock_set_steps(<PyTypeObject *>Done, done_send, done_next)
cdef object DONE = Done()


cdef class Segment:
    """Output that the socket did not take yet."""

    cdef bytes owner
    cdef object other           # owner when it is not bytes
    cdef const uint8_t *start
    cdef size_t size
    cdef size_t capacity        # 0: closed, else the size of owner


cdef class Channel:
    """A socket or a transport, and what is sent on it; see ``_channel_py``."""

    def __cinit__(self, *args, **kwargs):
        self.fd = self.own_fd = -1
        self.write_high = 32768
        self.write_low = 8192

    def init_channel(self, loop, write_marks):
        """Set up; call once, before anything else."""
        self.loop = loop
        self.shared = loop_state(loop)
        self.write_high, self.write_low = write_marks

    def __dealloc__(self):
        if self.own_fd >= 0:
            ws_sock_close(self.own_fd)

    @property
    def sock(self):
        """The socket, if there is one."""
        if self.socket is None and self.own_fd >= 0:
            sock = socket.socket(fileno=self.own_fd)
            sock.setblocking(False)
            self.socket = sock
            self.own_fd = -1
        return self.socket

    def peername(self):
        """Return the address of the peer, ``None`` when it is not known."""
        name = address_of(self.peer, self.peer_size)
        if name is None and self.sock is not None:
            try:
                name = self.sock.getpeername()
            except OSError:
                pass
        return name

    def sockname(self):
        """Return the address of this end, ``None`` when it is not known."""
        cdef uint8_t own[28]
        cdef size_t size = 0
        if self.own_fd >= 0 and ws_sock_name(self.own_fd, own, &size) == 0:
            name = address_of(own, size)
            if name is not None:
                return name
        if self.sock is None:
            return None
        try:
            return self.sock.getsockname()
        except OSError:
            return None

    cdef int close_socket(self) except -1:
        cdef int fd = self.own_fd
        self.own_fd = -1
        if fd >= 0:
            ws_sock_close(fd)
        elif self.socket is not None:
            self.socket.close()
        return 0

    cdef int set_watch(self, bint reads, bint writes) except -1:
        """Have the loop tell when the socket can be read or written."""
        cdef LoopState shared = self.shared
        cdef int flags = 0
        if not self.single and not self.polling:
            # Not watched by either: choose.
            if not reads and not writes:
                return 0
            if shared.has_single and shared.poll_fd == -1:
                shared.open_poller(self.loop)
            self.single = not shared.has_single or shared.poll_fd < 0
        if self.single:
            if reads and not self.watching:
                self.loop.add_reader(self.fd, self.on_readable)
            elif self.watching and not reads:
                self.loop.remove_reader(self.fd)
            if writes and not self.watching_writes:
                self.loop.add_writer(self.fd, self.on_writable)
            elif self.watching_writes and not writes:
                self.loop.remove_writer(self.fd)
            self.single = reads or writes
            shared.has_single = self.single
        else:
            if reads:
                flags |= WS_POLL_READ
            if writes:
                flags |= WS_POLL_WRITE
            if self.context is None:
                self.context = PyContext_CopyCurrent()
            if flags != self.polling:
                shared.poll(self, flags)
        self.watching = reads
        self.watching_writes = writes
        return 0

    cdef int unwatch(self) except -1:
        """Stop reading: called only when input comes that is to be held back."""
        if not self.watching:
            return 0
        if self.fd >= 0:
            self.set_watch(False, self.watching_writes)
        else:
            self.watching = False
            if self.io is not None:
                self.io.pause_reading()
        return 0

    cdef int ready(self, int flags) except -1:
        """Read and write what can be; the poller's callback."""
        cdef bint entered = True
        try:
            PyContext_Enter(self.context)
        except RuntimeError:
            entered = False  # in a loop that runs inside a callback of this channel
        try:
            if flags & WS_POLL_READ and self.watching and self.fd >= 0:
                self.readable()
            if flags & WS_POLL_WRITE and self.watching_writes and self.fd >= 0:
                self.flush()
        finally:
            if entered:
                PyContext_Exit(self.context)
        return 0

    cdef int readable(self) except -1:
        """Take input from the socket; the stream does it."""
        return 0

    cdef int io_failed(self, long code) except -1:
        """The socket is broken: close it soon, when what was read is delivered."""
        self.is_open = False
        if not self.broken:
            self.broken = True
            self.loop.call_soon(self.abort_stream, OSError(code, os.strerror(code)))
        return 0

    # -- writing ---------------------------------------------------------------------

    cdef bint cork(self) noexcept:
        """Join what is sent from here on; ``False`` when another channel does that."""
        cdef LoopState shared = self.shared
        if shared.cork_owner is not None:
            return False
        shared.cork_owner = self
        self.answered = False
        return True

    cdef int uncork(self) except -1:
        cdef LoopState shared = self.shared
        try:
            if shared.corked:
                self.flush_cork()
        finally:
            shared.corked = 0
            shared.cork_owner = None
        if self.answered and self.write_paused:
            self.held |= HOLD_FOR_WRITING
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
            return self.write_io(
                PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n)
            )
        self.writes += 1
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

    cdef int write_io(self, bytes data) except -1:
        if self.io is None or self.is_lost:
            return 0
        if self.io.is_closing():
            self.is_open = False  # it was closed by somebody else
        else:
            self.io.write(data)
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
                if m:  # head may be NULL, which memcpy must not see
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
        self.writes += 1
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
            return self.write_io(b"".join(chunks))
        while segments:
            count = min(<Py_ssize_t>len(segments), MAX_PARTS)
            for i in range(count):
                segment = <Segment>segments[i]
                parts[i].iov_base = <void *>segment.start
                parts[i].iov_len = segment.size
            self.writes += 1
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
            self.set_watch(self.watching, False)
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
            self.set_watch(self.watching, True)
        return 0

    cdef int check_high(self) except -1:
        if self.unsent > self.write_high and not self.write_paused:
            if self.fd < 0:
                return self.flush()  # a transport says itself when it has enough
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
        cdef object data
        self.sends += 1
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
        """Send a message; see ``_channel_py``."""
        cdef object kind = type(message)
        if (
            not self.is_open
            or self.fragmenting
            or not (
                kind is str
                or kind is bytes
                or isinstance(message, (str, bytes, bytearray, memoryview))
            )
        ):
            return self.send_otherwise(message, text)
        self.send_message(message, text)
        if self.write_paused:
            return self.drain()
        return DONE

    def send_nowait(self, message, *, text=None):
        """Send a message without waiting; see ``_channel_py``."""
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
            try:
                n += self.io.get_write_buffer_size()
            except AttributeError:
                pass  # asyncio's TLS transport has let go of what it wraps
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
            ws_sock_end(self.fd)  # fails when the peer is gone; reading finds out
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
        self.set_watch(False, False)
        self.fd = -1
        self.is_open = False
        self.is_closing = True
        if self.shared.cork_owner is self:
            self.shared.corked = 0
        self.segments = None
        self.unsent = 0
        return 0

    def lost(self, exc):
        """The connection is gone: the socket is closed and waiters go on."""
        if self.is_lost:
            return
        self.connection_lost(exc)


def send_to_many(channels, bytes frame):
    """Write a frame to the channels that take it as it is; see ``_channel_py``."""
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(frame)
    cdef size_t n = <size_t>len(frame)
    cdef Channel channel
    cdef list others = []
    for item in channels:
        if not isinstance(item, Channel):
            raise TypeError(f"not a connection: {type(item).__name__}")
        channel = <Channel>item
        if not channel.is_open:
            continue
        if channel.fragmenting or channel.mask or channel.transform is not None:
            others.append((item, None))
            continue
        channel.sends += 1
        try:
            if n < LARGE:
                channel.write(NULL, 0, p, n)
            else:
                channel.send_parts(NULL, 0, p, n, frame)
        except Exception as exc:
            others.append((item, exc))
    return others
