# Layout of the compiled sockets of a loop, and of what they share.

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    READ_SIZE = 131072
    CORK_SIZE = 65536


cdef class LoopSocket
cdef class LoopState


cdef class Published:
    cdef int send(self, LoopState shared) except -1
    cdef int join(self, LoopState shared) except -1


cdef class LoopState:
    cdef uint8_t *read_buffer
    cdef uint8_t *cork
    cdef size_t corked                      # bytes in the cork buffer
    cdef LoopSocket cork_owner                 # whose they are
    cdef bint reading                       # the read buffer is in use
    cdef uint64_t turn                      # of the loop; grows when something was sent
    cdef bint turn_ends                     # end_turn() is scheduled
    cdef list dirty                         # sockets with joined output
    cdef bint has_published                 # something waits in published
    cdef Published published                # what is for many, or None
    cdef object read_view
    cdef bint tells_once                    # whether the loop tells of an error once only
    cdef int poll_fd                        # -1: not open, -2: there is none
    cdef bint has_single                    # the loop watches one socket itself
    cdef list polled                        # sockets by their number
    cdef long poll_count                    # how many
    cdef long poll_sum                      # the sum of the numbers
    cdef object finished                    # what a task's wake-up is called with
    cdef readonly object wheel

    cdef double now(self) except -1
    cdef object view(self)
    cdef int end_turn_later(self, object loop) except -1
    cdef int join_published(self) except -1
    cdef int open_poller(self, object loop) except -1
    cdef int poll(self, LoopSocket item, int flags) except -1


cdef class LoopSocket:
    cdef object __weakref__
    cdef readonly object loop
    cdef LoopState shared
    cdef object socket                      # the socket as an object, once asked for
    cdef int own_fd                         # a socket to close that is no object
    cdef int fd                             # -1 without a socket
    cdef uint8_t peer[28]                   # address of the peer, as accept() gave it
    cdef uint8_t peer_size
    cdef char watching                      # the loop tells when there is input
    cdef char watching_writes               # or room for output
    cdef char polling                       # what the poller tells about, as flags
    cdef char single                        # the loop watches this socket itself
    cdef object context                     # what callbacks run in

    cdef int set_watch(self, bint reads, bint writes) except -1
    cdef int ready(self, int flags) except -1
    cdef int readable(self) except -1
    cdef int flush(self) except -1
    cdef int close_socket(self) except -1
