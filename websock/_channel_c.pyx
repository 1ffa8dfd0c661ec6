# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Channels, compiled; see ``_channel_py`` for the behaviour and the documentation.

Memory.  What is sent goes from the caller's object, or from the cork buffer that the
channels of a loop share, straight to the socket; a channel owns memory of its own
only for output that the socket did not take (``segments``).  Large payloads are never
joined by copying.
"""

import os
import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from ._csrc cimport (
    WS_SOCK_AGAIN,
    ws_frame_encode,
    ws_iovec,
    ws_kernel,
    ws_prefetch,
    ws_sock_end,
    ws_sock_send,
    ws_sock_sendv,
)
from ._kernels_c cimport active_kernel, next_mask
from ._loop_c cimport CORK_SIZE, LoopSocket, LoopState, Published
from ._slots cimport (
    PYGEN_RETURN,
    PYGEN_ERROR,
    Py_NewRef,
    PySendResult,
    PyTypeObject,
    websock_set_steps,
)

from .exceptions import ConcurrencyError

cdef extern from "Python.h":
    object PyUnicode_AsUTF8String(object)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t) noexcept
    void *PyUnicode_DATA(object) noexcept
    bint PyUnicode_IS_ASCII(object) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object) noexcept

cdef enum:
    OP_TEXT = 1
    OP_BINARY = 2
    OP_PONG = 10
    FIN = 0x80

    # From this size on a payload is sent from where it is, not copied.
    LARGE = 16384
    SEGMENT_SIZE = 16384
    MAX_PARTS = 16

cdef const ws_kernel *kernel = active_kernel()


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

    cdef bytes take(self):
        """Return it as an object; a whole message that is one goes as it is."""
        if (
            type(self.other) is bytes
            and self.size == <size_t>len(<bytes>self.other)
            and self.start == <const uint8_t *>PyBytes_AS_STRING(self.other)
        ):
            return self.other
        return PyBytes_FromStringAndSize(
            <const char *>self.start, <Py_ssize_t>self.size
        )


cdef bint joins_writes(object transport):
    """Whether ``writelines()`` is safe to use; see ``_channel_py``."""
    return type(transport).__module__ != "asyncio.selector_events"


cdef class Channel(LoopSocket):
    """A socket or a transport, and what is sent on it; see ``_channel_py``."""

    def __cinit__(self, *args, **kwargs):
        self.write_high = 32768
        self.write_low = 8192

    def init_channel(self, loop, write_marks):
        """Set up; call once, before anything else."""
        self.init_socket(loop)
        # More than fits into memory is no limit.  (No generator: each of Cython's takes
        # a reference to their type that it never gives back.)
        high, low = write_marks
        self.write_high, self.write_low = min(high, sys.maxsize), min(low, sys.maxsize)

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
            while shared.corked:  # pause_writing() may send
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
                [PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n)]
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

    cdef int write_io(self, list chunks) except -1:
        if self.io is None or self.is_lost:
            return 0
        if self.io.is_closing():
            self.is_open = False  # it was closed by somebody else
        elif len(chunks) > 1 and joins_writes(self.io):
            self.io.writelines(chunks)
        else:
            for chunk in chunks:
                self.io.write(chunk)
        return 0

    cdef int write(self, const uint8_t *head, size_t m, const uint8_t *p, size_t n) except -1:
        """Write a few bytes made of two parts: corked, joined, or at once."""
        cdef LoopState shared = self.shared
        cdef uint8_t *cork
        if self.broken or (self.fd < 0 and self.io is None):
            return 0
        if shared.cork_owner is self:
            # Again when pause_writing(), called from there, has sent something.
            while shared.corked + m + n > CORK_SIZE and shared.corked:
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
        # As much again as waits already: what is joined in one turn for thousands of
        # channels must not take a large segment for each.
        size = max(n, min(<size_t>SEGMENT_SIZE, max(self.unsent, <size_t>512)))
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
            segments = [segment.take() for segment in segments]
            self.segments.clear()
            self.unsent = 0
            return self.write_io(segments)
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
            self.accepted += m + n
            if n >= LARGE:
                return self.send_parts(header, m, p, n, owner)
            return self.write(header, m, p, n)
        next_mask(mask)
        m = ws_frame_encode(header, first, n, mask)
        self.accepted += m + n
        if n < LARGE and shared.cork_owner is self:
            while shared.corked + m + n > CORK_SIZE:  # as in write()
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
        cdef size_t size
        if self.shared.has_published:
            self.shared.join_published()
        if type(message) is bytes:
            data = message
            first = OP_TEXT if text else OP_BINARY
        elif isinstance(message, str):
            first = OP_BINARY if text is False else OP_TEXT
            if self.transform is None and PyUnicode_IS_ASCII(message):
                self.sends += 1
                self.sent_payload += <size_t>PyUnicode_GET_LENGTH(message)
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
            self.send_prepared(message, text)
            return 0
        size = <size_t>len(data)
        if self.transform is not None:
            rsv, data = self.transform.encode(<int>first, True, data)
            if type(data) is not bytes:
                data = bytes(memoryview(data))
            first |= <unsigned>rsv
        self.sends += 1
        self.sent_payload += size
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

    def count_sent(self, uint64_t messages, uint64_t size):
        """Count messages that are sent by ``write_bytes()``, and their payload."""
        self.sends += messages
        self.sent_payload += size

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
        self.accepted += <size_t>len(data)
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

    def takes_joined(self):
        """Have the socket take what is joined now; see ``_channel_py``."""
        if self.dirty and not self.watching_writes:
            self.flush()
        return not self.write_paused

    cdef bint is_plain(self) except -1:
        """Whether a frame for many goes to the socket as it is."""
        if self.write_paused and self.backlog is not None and not self.takes_joined():
            return False
        return not (self.fragmenting or self.mask or self.transform is not None)

    def join_writes(self):
        """Send what is written from here on at the end of the loop's turn."""
        if self.shared is not None:
            self.sent_turn = self.shared.turn

    def join_published(self):
        """Put what was published in front of what is sent next."""
        if self.shared is not None:
            self.shared.join_published()

    cdef int take_run(self, Run run, bint is_end, bint is_last) except -1:
        """Send what was published: joined, or at once if no more comes in the turn."""
        cdef LoopState shared = self.shared
        cdef bytes frames = run.frames
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(frames)
        cdef size_t n = run.size
        if not self.is_open:
            return 0
        if not self.is_plain():
            for message, key in run.messages:
                self.send_published(message, key)
            return 0
        self.sends += <uint64_t>len(run.messages)
        self.sent_payload += run.payload
        self.accepted += n
        self.sent_turn = shared.turn
        if not is_end or shared.cork_owner is self:
            if n < LARGE:
                return self.write(NULL, 0, p, n)
            return self.send_parts(NULL, 0, p, n, frames)
        if is_last and not self.segments:
            if self.fd < 0:
                return self.write_io([frames])
            if n < LARGE:
                return self.send_now(p, n)
            return self.send_parts(NULL, 0, p, n, frames)
        self.append_owned(p, n, frames)
        if is_last:
            if not self.watching_writes:
                self.flush()
            return self.check_high()
        if not self.dirty and not self.watching_writes:
            # The last run may find that it goes to the backlog.
            self.dirty = True
            shared.dirty.append(self)
        return 0

    @property
    def buffered_amount(self):
        """Bytes that were sent but not yet handed to the operating system."""
        cdef size_t n
        if self.shared is not None:
            self.shared.join_published()
        n = self.unsent
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


def send_to_many(channels, bytes frame, size_t size):
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
        try:
            if channel.shared.has_published:
                channel.shared.join_published()
            if not channel.is_plain():
                others.append((item, None))
                continue
            channel.sends += 1
            channel.sent_payload += size
            channel.accepted += n
            if n < LARGE:
                channel.write(NULL, 0, p, n)
            else:
                channel.send_parts(NULL, 0, p, n, frame)
        except Exception as exc:
            others.append((item, exc))
    return others


cdef class Run:
    """Messages to the same channels, one after the other; see ``_channel_py``."""

    cdef bint has_room(self, tuple channels, size_t n) noexcept:
        return self.channels is channels and self.size + n <= LARGE


cdef inline void prefetch(tuple channels, Py_ssize_t i, Py_ssize_t n) noexcept:
    """Ask for the memory of a channel that is next: the cache has forgotten it."""
    cdef const char *p
    if i < n:
        p = <const char *>PyTuple_GET_ITEM(channels, i)
        ws_prefetch(p)
        ws_prefetch(p + 64)
        ws_prefetch(p + 128)
        ws_prefetch(p + 192)


cdef class Publications(Published):
    """What is published in one turn of the loop; see ``_channel_py``."""

    def __cinit__(self):
        self.runs = []

    cdef int send(self, LoopState shared) except -1:
        return self.hand_out(shared, True)

    cdef int join(self, LoopState shared) except -1:
        return self.hand_out(shared, False)

    cdef int hand_out(self, LoopState shared, bint is_end) except -1:
        cdef list runs = self.runs
        cdef Run run
        cdef Channel channel
        cdef Py_ssize_t i
        cdef Py_ssize_t n
        cdef bint counts = is_end and len(runs) > 1
        interrupt = None
        shared.has_published = False
        self.runs = []
        self.size = 0
        for run in runs:
            run.frames = run.parts[0] if len(run.parts) == 1 else b"".join(run.parts)
        # What callbacks publish meanwhile comes behind this, for everybody.
        self.sending = True
        if counts:
            for run in runs:
                n = len(run.channels)
                for i in range(n):
                    prefetch(run.channels, i + 8, n)
                    item = run.channels[i]
                    if isinstance(item, Channel):
                        (<Channel>item).due += 1
        for run in runs:
            n = len(run.channels)
            for i in range(n):
                prefetch(run.channels, i + 1, n)
                item = run.channels[i]
                if not isinstance(item, Channel):
                    continue  # nobody lets one in; but then the memory is another's
                channel = <Channel>item
                if counts:
                    channel.due -= 1
                try:
                    channel.take_run(run, is_end, channel.due == 0)
                except Exception as exc:
                    channel.publishing_failed(exc)
                except BaseException as exc:
                    interrupt = exc  # the others get it nevertheless
        self.sending = False
        shared.has_published = len(self.runs) > 0
        if interrupt is not None:
            raise interrupt
        return 0


def publish(tuple channels not None, message, key):
    """Send a message to many at the end of the turn; see ``_channel_py``."""
    cdef Channel first
    cdef LoopState shared
    cdef Publications published
    cdef Run run = None
    cdef bytes frame = message.frame()
    cdef size_t n = <size_t>len(frame)
    if not channels:
        return
    first = <Channel?>channels[0]
    shared = first.shared
    if shared.published is None:
        shared.published = Publications()
    published = <Publications>shared.published
    if published.runs:
        run = <Run>published.runs[len(published.runs) - 1]
    if run is None or not run.has_room(channels, n):
        run = Run.__new__(Run)
        run.channels = channels
        run.messages = []
        run.parts = []
        published.runs.append(run)
    run.messages.append((message, key))
    run.parts.append(frame)
    run.size += n
    run.payload += <size_t>len(<bytes>message.payload)
    published.size += n
    shared.end_turn_later(first.loop)
    if not published.sending:
        shared.has_published = True
        if published.size > CORK_SIZE:
            published.send(shared)
