# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Sockets of an event loop, compiled; see ``_loop_py`` for the documentation.

A connection holds a descriptor; the socket as an object is made when somebody asks for
it.  On Linux the loop watches one epoll descriptor for all of them.
"""

import asyncio
import contextvars
import os
import socket
import threading
from time import monotonic

from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

from ._csrc cimport (
    WS_POLL_READ,
    WS_POLL_WRITE,
    WS_SOCK_AGAIN,
    ws_poll_event,
    ws_poll_fd,
    ws_poll_flags,
    ws_poll_now,
    ws_poll_open,
    ws_poll_set,
    ws_sock_accept,
    ws_sock_close,
    ws_sock_name,
    ws_sock_parts,
)

from .timers import TimerWheel

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1

cdef enum:
    # Ready sockets that are served before the loop sees to other things.
    MAX_EVENTS = 256


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
    """Accept the connections that wait; see ``_loop_py``."""
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


def accepted_address(accepted):
    """Return the address of who was accepted; see ``_loop_py``."""
    cdef bytes raw = accepted[1]
    cdef char text[46]
    cdef unsigned long numbers[3]
    if ws_sock_parts(<const uint8_t *>raw, <size_t>len(raw), text, numbers) == 0:
        return None
    return ((<bytes>text).decode("ascii"), numbers[0])


def accepted_socket(accepted):
    """Make what ``accept_connections()`` gave a socket; see ``_loop_py``."""
    return socket.socket(fileno=accepted[0])


def close_accepted(accepted):
    """Close what ``accept_connections()`` gave and nobody took."""
    ws_sock_close(accepted[0])


class _NoLoop:
    """Stands for the loop of a future that belongs to none."""

    def get_debug(self):
        return False


cdef class Published:
    """What is sent to many at the end of the turn; for derived classes."""

    cdef int send(self, LoopState shared) except -1:
        """Send it: the turn ends."""
        return 0

    cdef int join(self, LoopState shared) except -1:
        """Put it in front of what the sockets send from here on in this turn."""
        return 0


cdef class LoopState:
    """What the connections of one loop share: buffers, the cork, the timer wheel.

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
        # A wake-up looks only at the result; but that writes to the future, so that
        # loops in several threads must not have the same.
        self.finished = asyncio.Future(loop=_NoLoop())
        self.finished.set_result(None)

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

    cdef int poll(self, LoopSocket item, int flags) except -1:
        """Watch a socket for these things and no others."""
        cdef int fd = item.fd
        cdef int error = ws_poll_set(self.poll_fd, fd, item.polling, flags)
        if error and flags:
            raise OSError(-error, os.strerror(-error))
        if item.polling == 0:
            if fd >= len(self.polled):
                self.polled.extend([None] * (fd + 1 - len(self.polled)))
            self.polled[fd] = item
            self.poll_count += 1
            self.poll_sum += fd
        elif flags == 0:
            self.polled[fd] = None
            self.poll_count -= 1
            self.poll_sum -= fd
        item.polling = <char>flags
        return 0

    def on_poll(self):
        """Serve the sockets that are ready; the loop's reader callback."""
        cdef ws_poll_event events[MAX_EVENTS]
        cdef int count
        cdef int i
        cdef object item
        if self.poll_count == 1:
            # It can only be this one, and if it is watched for one thing, only that.
            item = self.polled[self.poll_sum]
            i = (<LoopSocket>item).polling
            if i == WS_POLL_READ or i == WS_POLL_WRITE:
                (<LoopSocket>item).ready(i)
                return
        count = ws_poll_now(self.poll_fd, events, MAX_EVENTS)
        for i in range(count):
            # What was served before may have closed it.
            item = self.polled[ws_poll_fd(&events[i])]
            if item is not None:
                (<LoopSocket>item).ready(ws_poll_flags(&events[i]))

    def __dealloc__(self):
        if self.poll_fd >= 0:
            ws_sock_close(self.poll_fd)
        PyMem_Free(self.read_buffer)
        PyMem_Free(self.cork)

    cdef double now(self) except -1:
        """Return seconds of a clock that only goes on."""
        return monotonic()

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
        """Send what was published and joined since the loop's last turn."""
        cdef list dirty
        cdef LoopSocket item
        self.turn_ends = False
        if self.has_published:
            self.published.send(self)
        self.turn += 1
        dirty = self.dirty
        if dirty:
            self.dirty = []
            for item in dirty:
                item.flush()

    cdef int join_published(self) except -1:
        """Put what was published in this turn in front of what is sent next."""
        if self.has_published:
            self.published.join(self)
        return 0


_states_lock = threading.Lock()


def loop_state(loop):
    """Return what the connections of ``loop`` share, made at first use."""
    # An attribute of the loop: timers refer to the loop, so that anything else which
    # held them would keep it alive.
    state = getattr(loop, "_websock_c", None)
    if state is None:
        with _states_lock:
            state = getattr(loop, "_websock_c", None)
            if state is None:
                state = loop._websock_c = LoopState(loop)
    return state


cdef class LoopSocket:
    """A socket that a loop watches; see ``_loop_py``."""

    def __cinit__(self, *args, **kwargs):
        self.fd = self.own_fd = -1

    def init_socket(self, loop):
        """Set up; call once, before anything else."""
        self.loop = loop
        self.shared = loop_state(loop)

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

    def on_readable(self):
        """Take input; the loop's reader callback."""
        self.readable()

    def on_writable(self):
        """Send more; the loop's writer callback."""
        if self.fd >= 0:
            self.flush()

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
        """Take input from the socket; for derived classes."""
        return 0

    cdef int flush(self) except -1:
        """Send what was kept; for derived classes."""
        return 0
