# Layout of the compiled codec, for `_stream_c`.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t

from ._csrc cimport ws_frame_header, ws_utf8_state


# What FrameReader.next() found.
cdef enum:
    NEED_DATA = 0
    EVENT = 1
    LAST_EVENT = 2      # an event, and enough for now: others are to be served
    FAILED = -1


cdef class FrameReader:
    # Configuration.
    cdef uint64_t max_message_size      # UINT64_MAX: no limit
    cdef uint64_t max_fragment_size
    cdef uint64_t max_fragments
    cdef object transform
    cdef unsigned allowed_rsv
    cdef char expect_mask
    cdef char passes_plain
    cdef public bint assemble

    # Input, borrowed between begin() and the last next().
    cdef const uint8_t *data
    cdef size_t pos
    cdef size_t end

    # The frame being read.
    cdef uint8_t stash[14]              # a header cut by the end of the input
    cdef uint8_t stashed
    cdef char in_frame
    cdef char plain
    cdef ws_frame_header head
    cdef uint64_t received
    cdef PyObject *control              # payload of a control frame, or NULL

    # The message being read.
    cdef uint8_t opcode                 # 0: none
    cdef char taken
    cdef uint64_t size                  # counted against the limit
    cdef uint64_t fragments
    cdef PyObject *message              # bytes object under construction, or NULL
    cdef size_t used                    # bytes of it that are filled
    cdef size_t complete                # bytes of it in finished fragments
    cdef PyObject *payload              # same, a frame for the transform
    cdef size_t payload_used
    cdef list ends
    cdef ws_utf8_state utf8

    # What next() found.
    cdef int event_opcode
    cdef object event_payload
    cdef object event_extra
    cdef readonly bint closed
    cdef readonly uint64_t messages         # that were complete
    cdef readonly uint64_t message_bytes    # of payload in them
    cdef readonly object error
    cdef readonly uint64_t inflated         # out of the transform since begin()

    cdef void begin(self, const uint8_t *data, size_t n) noexcept
    cdef int next(self) except -2
    cdef uint8_t *tail(self, size_t *room) except? NULL
    cdef int tail_filled(self, size_t n) except -2

    cdef int header_failed(self, int code) except -2
    cdef int begin_frame(self) except -2
    cdef int check_size(self, uint64_t length) except -2
    cdef int whole_message(self) except -2
    cdef int take_payload(self) except -2
    cdef int stored(self, uint8_t *p, size_t n) except -2
    cdef int store(self, const uint8_t *p, size_t n, const uint8_t *mask) except -2
    cdef int end_frame(self) except -2
    cdef int end_control(self) except -2
    cdef int end_message(self) except -2
    cdef int run_transform(self) except -2
    cdef int check_text_end(self) except -2
    cdef int check_close(self, bytes payload) except -2
    cdef void count_message(self) noexcept
    cdef void reset_message(self) noexcept
    cdef int reserve(self, size_t extra) except -2
    cdef int resize(self, size_t capacity) except -2
    cdef finished(self)


cdef class FrameWriter:
    cdef bint mask
    cdef object transform

    cdef build(self, unsigned first, const uint8_t *p, size_t n)

