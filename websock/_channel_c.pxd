# Layout of the compiled channel: a socket or a transport, and what is sent on it.

from libc.stdint cimport uint8_t, uint64_t

from ._loop_c cimport LoopSocket, LoopState, Published

cdef enum:
    HOLD_FOR_WRITING = 2                    # a reason to hold input back, as a bit


cdef class Channel


cdef class Run:
    cdef tuple channels
    cdef list messages                      # and their keys
    cdef list parts                         # their frames
    cdef bytes frames                       # the same as one, once they are sent
    cdef size_t size
    cdef size_t payload

    cdef bint has_room(self, tuple channels, size_t n) noexcept


cdef class Publications(Published):
    cdef list runs
    cdef size_t size                        # bytes of their frames
    cdef bint sending

    cdef int hand_out(self, LoopState shared, bint is_end) except -1


cdef class Channel(LoopSocket):
    # What a message to thousands of channels touches in each comes first, together:
    # by then the caches have forgotten it.
    cdef readonly bint is_open
    cdef readonly bint write_paused
    cdef public bint fragmenting            # a fragmented message is being sent
    cdef char mask
    cdef char broken                        # reading or writing failed
    cdef char dirty
    cdef unsigned due                       # runs of this turn that are still to come
    cdef object transform
    cdef list segments                      # what the socket did not take
    cdef uint64_t sent_turn
    cdef uint64_t sends                     # messages sent
    cdef uint64_t sent_payload              # bytes in them, before compression
    cdef uint64_t accepted                  # bytes that were to be sent, as they are
    cdef uint64_t writes                    # calls of the system to write

    cdef readonly object io                 # the transport, when there is one
    cdef int held                           # reasons to hold input back, as bits
    cdef size_t unsent                      # bytes of segments
    cdef size_t write_high
    cdef size_t write_low
    cdef char answered                      # some by the callback, in this read event
    cdef char end_after_flush
    cdef char finishing                     # closed once everything is sent
    cdef bytes late_pong
    cdef public object backlog              # messages for a slow peer, or None
    cdef readonly bint is_closing
    cdef readonly bint is_lost

    cdef int unwatch(self) except -1
    cdef int io_failed(self, long code) except -1
    cdef bint cork(self) noexcept
    cdef int uncork(self) except -1
    cdef int flush_cork(self) except -1
    cdef int send_now(self, const uint8_t *p, size_t n) except -1
    cdef int write(
        self, const uint8_t *head, size_t m, const uint8_t *p, size_t n
    ) except -1
    cdef int write_io(self, list chunks) except -1
    cdef int flush_later(self) except -1
    cdef int send_parts(
        self, const uint8_t *head, size_t m, const uint8_t *p, size_t n, object owner
    ) except -1
    cdef int append(self, const uint8_t *p, size_t n) except -1
    cdef int append_owned(self, const uint8_t *p, size_t n, object owner) except -1
    cdef int watch_writes(self) except -1
    cdef int check_high(self) except -1
    cdef int check_low(self) except -1
    cdef int send_frame(
        self, unsigned first, const uint8_t *p, size_t n, object owner
    ) except -1
    cdef int send_message(self, object message, object text) except -1
    cdef bint is_plain(self) except -1
    cdef int take_run(self, Run run, bint is_end, bint is_last) except -1
    cdef int end_output(self) except -1
    cdef int release_socket(self) except -1
