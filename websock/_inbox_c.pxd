# Layout of the compiled inbox: messages that wait for recv(), and who waits for them.

from ._channel_c cimport Channel
from ._codec_c cimport FrameReader

cdef enum:
    # What a Recv waits for.
    WHOLE = 0
    ITERATE = 1
    PIECES = 2


cdef class Recv:
    cdef Inbox inbox
    cdef object decode
    cdef char mode
    cdef char state                         # 0 not begun, 1 waiting, 2 over
    cdef bint failing                       # only the end of the connection is awaited

    cdef void leave(self, bint abandoned) noexcept
    cdef object step(self)
    cdef object wait(self)
    cdef object convert(self, object item)


cdef class Inbox(Channel):
    cdef FrameReader reader
    cdef object on_message                  # callback, or None: messages are queued
    cdef list queue
    cdef Py_ssize_t first
    cdef readonly Py_ssize_t queued
    cdef Py_ssize_t high                    # -1: no limit
    cdef Py_ssize_t low
    cdef readonly size_t queued_size        # bytes in the queue, or characters of text
    cdef size_t high_size
    cdef bint holds_pieces                  # fragments wait for who takes them
    cdef object waiter                      # the future that the receiver awaits
    cdef Recv receiver
    cdef bint processing                    # input is being parsed
    cdef bint from_loop                     # by the loop's callback, so by no task
    cdef bint queue_full
    cdef bint dropping                      # no message is taken any more
    cdef public bint streaming

    cdef bint over_high(self) noexcept
    cdef int put(self, object item) except -1
    cdef int wake(self, bint at_once) except -1
    cdef int finish_wait(self, bint at_once) except -1
    cdef int finish_later(self) except -1
    cdef bint has_pieces(self) noexcept
    cdef object take_pieces(self)
    cdef object pop(self)
    cdef int taken(self) except -1
