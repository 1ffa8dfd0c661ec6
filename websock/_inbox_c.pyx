# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Inboxes, compiled; see ``_inbox_py`` for the behaviour and the documentation."""

import asyncio
import sys

from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_GET_LENGTH
from libc.stdint cimport SIZE_MAX

from ._slots cimport (
    PYGEN_ERROR,
    PYGEN_NEXT,
    PYGEN_RETURN,
    Py_NewRef,
    PySendResult,
    PyTypeObject,
    websock_set_steps,
)

from .constants import MIN_QUEUED_SIZE
from .exceptions import ConcurrencyError, ConnectionClosedOK

cdef extern from "Python.h":
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    void PyErr_SetObject(object, object)
    void release "Py_DECREF"(PyObject *) noexcept

cdef object current_task = asyncio.current_task


cdef class Recv:
    """The awaitable that ``recv()`` returns; acts as a coroutine, without a frame."""

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
            self.inbox.receiver = None
            if abandoned:
                self.inbox.waiter = None
        self.state = 2

    cdef object step(self):
        """Return the message, or the waiter when ``state`` stays 1."""
        cdef Inbox inbox = self.inbox
        cdef object item
        if self.state == 2:
            raise RuntimeError("cannot reuse an already awaited recv()")
        if self.state == 0:
            if inbox.receiver is not None or (inbox.streaming and self.mode != PIECES):
                raise ConcurrencyError(
                    "cannot call recv while another coroutine is already "
                    "running recv or recv_streaming"
                )
            if inbox.on_message is not None:
                raise ConcurrencyError("cannot call recv: the listener gets messages")
        if not self.failing:
            if inbox.queued:
                item = inbox.pop()
                self.leave(False)
                return self.convert(item)
            if self.mode == PIECES:
                pieces = inbox.take_pieces()
                if pieces is not None:
                    self.leave(False)
                    return pieces
        if inbox.is_lost:
            self.leave(False)
            exc = inbox.closed_error()
            if self.mode == ITERATE and isinstance(exc, ConnectionClosedOK):
                raise StopAsyncIteration
            raise exc
        return self.wait()

    cdef object wait(self):
        cdef object waiter = self.inbox.waiter
        if self.inbox.queue_full:
            # Nothing is queued: the fragments of a message wait.
            self.inbox.queue_full = False
            self.inbox.loop.call_soon(self.inbox.read_on)
        # A waiter that only lost its callback is as good as new; see finish_wait().
        if waiter is None:
            waiter = self.inbox.waiter = self.inbox.loop.create_future()
        waiter._asyncio_future_blocking = True
        self.inbox.receiver = self
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
                    self.inbox.decoding_failed(exc)
                    self.failing = True
                    if self.inbox.is_lost:
                        self.state = 2
                        raise self.inbox.closed_error()
                    return self.wait()
        elif type(item) is str:
            return (<str>item).encode()
        return item


cdef PySendResult recv_send(
    PyObject *self, PyObject *arg, PyObject **result
) except? PYGEN_ERROR:
    result[0] = NULL  # what PyIter_Send() promises for an error
    cdef Recv recv = <Recv>self
    cdef object value = recv.step()
    result[0] = Py_NewRef(value)
    return PYGEN_NEXT if recv.state == 1 else PYGEN_RETURN


cdef PyObject *recv_next(PyObject *self) except? NULL:
    cdef Recv recv = <Recv>self
    cdef object value = recv.step()
    if recv.state == 1:
        return Py_NewRef(value)
    if type(value) is tuple:
        value = StopIteration(value)  # else it would become the arguments of one
    PyErr_SetObject(StopIteration, value)
    return NULL


cdef class Messages:
    """The asynchronous iterator over incoming messages."""

    cdef Inbox inbox

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Recv recv = Recv.__new__(Recv)
        recv.inbox = self.inbox
        recv.mode = ITERATE
        return recv


websock_set_steps(<PyTypeObject *>Recv, recv_send, recv_next)


cdef size_t size_of(object item) noexcept:
    """Return the bytes of a message, or the characters of a text."""
    if type(item) is tuple:
        item = (<tuple>item)[0]  # with its marks
    if type(item) is str:
        return <size_t>PyUnicode_GET_LENGTH(item)
    return <size_t>len(<bytes>item)


cdef class Inbox(Channel):
    """Messages that wait for ``recv()``, and who waits; see ``_inbox_py``."""

    def __cinit__(self, *args, **kwargs):
        self.high = -1

    def init_inbox(self, on_message, queue_marks, queue_size):
        """Set up; call once, after ``init_channel()``."""
        self.on_message = on_message
        high, low = queue_marks
        self.holds_pieces = high is not None
        if high is None and queue_size is not None:
            high = queue_size // MIN_QUEUED_SIZE
            low = high // 4
        # More than fits into memory is no limit.
        self.high = -1 if high is None else min(high, sys.maxsize)
        self.low = 0 if low is None else min(low, sys.maxsize)
        self.high_size = SIZE_MAX if queue_size is None else min(queue_size, sys.maxsize)

    def set_on_message(self, on_message):
        """Deliver messages to a callback instead of the queue."""
        self.on_message = on_message

    cdef bint over_high(self) noexcept:
        """Whether the queue holds more than it should."""
        return self.queued > self.high >= 0 or self.queued_size > self.high_size

    cdef int put(self, object item) except -1:
        """Queue a message; wake the receiver when that is more than enough."""
        if self.is_closing and (self.dropping or self.over_high()):
            # The program has said that it is done: nothing may pile up, and if some
            # messages are dropped, then all that follow.
            self.dropping = True
            return 0
        if self.queue is None:
            self.queue = []
        self.queue.append(item)
        self.queued += 1
        self.queued_size += size_of(item)
        if self.over_high():
            self.wake(True)
            if self.over_high() and self.is_open:
                self.queue_full = True
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
        cdef list callbacks
        cdef object callback
        cdef object context
        cdef bint from_loop = self.from_loop
        if not at_once:
            return self.finish_later()
        callbacks = waiter._callbacks
        if not callbacks:
            # Cancelled, or woken already: the task is on its way.
            return self.finish_later()
        callback, context = callbacks[0]
        if len(callbacks) > 1 or context is None:
            return self.finish_later()
        if not from_loop and current_task(self.loop) is not None:
            return self.finish_later()
        try:
            PyContext_Enter(context)
        except RuntimeError:
            # The task's context is in use: its wake-up has to wait.
            return self.finish_later()
        self.from_loop = False
        try:
            waiter.remove_done_callback(callback)
            callback(self.shared.finished)
        finally:
            self.from_loop = from_loop
            PyContext_Exit(context)
        return 0

    cdef int finish_later(self) except -1:
        """End the receiver's wait as any future does."""
        cdef object waiter = self.waiter
        self.waiter = None
        if not waiter.done():
            waiter.set_result(None)
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
        self.queued_size -= size_of(item)
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
        if (
            self.queue_full
            and self.queued <= self.low
            and self.queued_size <= self.high_size // 4
        ):
            self.queue_full = False
            if self.processing:
                self.loop.call_soon(self.read_on)
            else:
                self.read_on()
        return 0

    def recv(self, decode=None):
        """Receive the next message; see ``_inbox_py``."""
        cdef Recv recv = Recv.__new__(Recv)
        recv.inbox = self
        recv.decode = decode
        return recv

    def recv_pieces(self):
        """Receive a message with its marks, or finished fragments of one."""
        cdef Recv recv = Recv.__new__(Recv)
        recv.inbox = self
        recv.mode = PIECES
        return recv

    @property
    def is_receiving(self):
        """Whether a ``recv()`` is waiting."""
        return self.receiver is not None

    def interrupt(self, exc):
        """End the wait of a ``recv()`` with an exception; see ``_inbox_py``."""
        cdef object waiter = self.waiter
        if self.receiver is not None and waiter is not None and not waiter.done():
            waiter.set_exception(exc)

    def __aiter__(self):
        cdef Messages messages = Messages.__new__(Messages)
        messages.inbox = self
        return messages
