# Layout of the compiled channel: a socket or a transport, and what is sent on it.

from libc.stdint cimport uint8_t

cdef enum:
    READ_SIZE = 131072
    CORK_SIZE = 65536
    HOLD_FOR_WRITING = 2                    # a reason to hold input back, as a bit


cdef class Channel


cdef class LoopState:
    cdef uint8_t *read_buffer
    cdef uint8_t *cork
    cdef size_t corked                      # bytes in the cork buffer
    cdef Channel cork_owner                 # whose they are
    cdef bint reading                       # the read buffer is in use
    cdef unsigned long turn                 # of the loop; grows when something was sent
    cdef bint turn_ends                     # end_turn() is scheduled
    cdef list dirty                         # channels with joined output
    cdef object read_view
    cdef bint tells_once                    # whether the loop tells of an error once only
    cdef int poll_fd                        # -1: not open, -2: there is none
    cdef bint has_single                    # the loop watches one socket itself
    cdef list polled                        # channels by the number of their socket
    cdef long poll_count                    # how many
    cdef long poll_sum                      # the sum of the numbers
    cdef readonly object wheel

    cdef object view(self)
    cdef int end_turn_later(self, object loop) except -1
    cdef int open_poller(self, object loop) except -1
    cdef int poll(self, Channel channel, int flags) except -1


cdef class Channel:
    cdef object __weakref__
    cdef readonly object loop
    cdef LoopState shared
    cdef object socket                      # the socket as an object, once asked for
    cdef int own_fd                         # a socket to close that is no object
    cdef int fd                             # -1 without a socket
    cdef uint8_t peer[28]                   # address of the peer, as accept() gave it
    cdef uint8_t peer_size
    cdef readonly object io                 # the transport, when there is one
    cdef char watching                      # the loop tells when there is input
    cdef char polling                       # what the poller tells about, as flags
    cdef char single                        # the loop watches this socket itself
    cdef int held                           # reasons to hold input back, as bits
    cdef object context                     # what callbacks run in

    cdef char mask
    cdef object transform
    cdef list segments                      # what the socket did not take
    cdef size_t unsent                      # bytes of it
    cdef size_t write_high
    cdef size_t write_low
    cdef unsigned long sent_turn
    cdef unsigned long sends                # messages sent
    cdef unsigned long writes               # calls of the system to write
    cdef char answered                      # some by the callback, in this read event
    cdef char dirty
    cdef char watching_writes
    cdef char end_after_flush
    cdef char finishing                     # closed once everything is sent
    cdef bytes late_pong
    cdef readonly bint write_paused
    cdef public bint fragmenting            # a fragmented message is being sent

    cdef char broken                        # reading or writing failed
    cdef readonly bint is_open
    cdef readonly bint is_closing
    cdef readonly bint is_lost

    cdef int set_watch(self, bint reads, bint writes) except -1
    cdef int unwatch(self) except -1
    cdef int ready(self, int flags) except -1
    cdef int readable(self) except -1
    cdef int io_failed(self, long code) except -1
    cdef bint cork(self) noexcept
    cdef int uncork(self) except -1
    cdef int flush_cork(self) except -1
    cdef int send_now(self, const uint8_t *p, size_t n) except -1
    cdef int write(
        self, const uint8_t *head, size_t m, const uint8_t *p, size_t n
    ) except -1
    cdef int write_io(self, bytes data) except -1
    cdef int flush_later(self) except -1
    cdef int send_parts(
        self, const uint8_t *head, size_t m, const uint8_t *p, size_t n, object owner
    ) except -1
    cdef int append(self, const uint8_t *p, size_t n) except -1
    cdef int append_owned(self, const uint8_t *p, size_t n, object owner) except -1
    cdef int flush(self) except -1
    cdef int watch_writes(self) except -1
    cdef int check_high(self) except -1
    cdef int check_low(self) except -1
    cdef int send_frame(
        self, unsigned first, const uint8_t *p, size_t n, object owner
    ) except -1
    cdef int send_message(self, object message, object text) except -1
    cdef int end_output(self) except -1
    cdef int release_socket(self) except -1
    cdef int close_socket(self) except -1
