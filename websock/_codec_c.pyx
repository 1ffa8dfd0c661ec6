# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=True, freethreading_compatible=True
"""Frames and messages, compiled; see ``_codec_py`` for what it does and why.

What differs from the pure twin is only how.  ``next()`` steps from event to event
over borrowed memory.  A whole message in one read is unmasked once, from the read
buffer into its final ``bytes`` or ``str``.  A message that arrives in parts is
unmasked into a ``bytes`` object that becomes the message itself; ``tail()`` lends
its unfilled end to the socket, so that a large payload is never copied.  That
object grows with what has arrived, not with what a header announces.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from ._csrc cimport (
    ws_frame_decode,
    ws_frame_encode,
    ws_frame_reserve,
    ws_kernel,
    ws_utf8_is_complete,
    ws_utf8_state,
)
from ._kernels_c cimport active_kernel, decode_text, next_mask

from .constants import INFLATED_AT_ONCE, MAX_FRAGMENTS, MAX_KEPT_ENDS
from .exceptions import Failure, PayloadTooBig, fail

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1
    PyObject *PyBytes_NewRef "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    char *BYTES_DATA "PyBytes_AS_STRING"(PyObject *) noexcept
    Py_ssize_t BYTES_SIZE "PyBytes_GET_SIZE"(PyObject *) noexcept
    object PyUnicode_New(Py_ssize_t, Py_UCS4)
    void *PyUnicode_DATA(object) noexcept
    bint PyUnicode_IS_ASCII(object) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object) noexcept

cdef enum:
    OP_CONT = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    FIN = 0x80
    # A buffer for a payload that is still arriving begins with this many bytes,
    # and may be four times as large as what has arrived.
    FIRST_RESERVE = 65536

cdef const ws_kernel *kernel = active_kernel()
cdef size_t MAX_ENDS = MAX_KEPT_ENDS
cdef uint64_t ENOUGH = INFLATED_AT_ONCE

cdef int FAIL_TOO_BIG = Failure.TOO_BIG


cdef class FrameReader:
    """Read frames; give whole messages and control frames; see ``_codec_py``."""

    def __cinit__(self):
        self.message = NULL
        self.payload = NULL
        self.control = NULL

    def __init__(
        self,
        *,
        bint expect_mask,
        max_message_size=None,
        max_fragment_size=None,
        max_fragments=MAX_FRAGMENTS,
        transform=None,
        bint assemble=True,
    ):
        self.expect_mask = expect_mask
        self.max_message_size = UINT64_MAX if max_message_size is None else max_message_size
        self.max_fragment_size = UINT64_MAX if max_fragment_size is None else max_fragment_size
        self.max_fragments = UINT64_MAX if max_fragments is None else max_fragments
        self.transform = transform
        self.assemble = assemble
        if transform is not None:
            self.allowed_rsv = transform.allowed_rsv
            self.passes_plain = transform.passes_plain
        self.data = NULL

    def __dealloc__(self):
        Py_XDECREF(self.message)
        Py_XDECREF(self.payload)
        Py_XDECREF(self.control)

    @property
    def in_message(self):
        """Whether a message has begun and not ended, and still can."""
        return self.opcode != 0 and self.error is None

    @property
    def has_fragments(self):
        """Whether ``take_fragments()`` has something to take."""
        return self.ends is not None

    @property
    def message_opcode(self):
        """The opcode of the unfinished message, 0 when there is none."""
        return self.opcode

    def feed(self, data):
        """Take bytes from the peer; return the events that they complete."""
        cdef Py_buffer view
        cdef list events = []
        if self.closed or self.error is not None:
            return events
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.begin(<const uint8_t *>view.buf, <size_t>view.len)
            while self.next() >= EVENT:
                events.append(
                    (self.event_opcode, self.event_payload, self.event_extra)
                )
                self.event_payload = None
                self.event_extra = None
        except Exception as exc:
            self.error = exc  # there is no memory
        finally:
            self.begin(NULL, 0)
            PyBuffer_Release(&view)
        return events

    def take_fragments(self):
        """Take the finished fragments of the unfinished message out of the buffer."""
        cdef list pieces = []
        cdef size_t start = 0
        cdef size_t end
        cdef size_t left = self.used - self.complete
        cdef const char *base = ""
        cdef PyObject *rest = NULL
        if not self.opcode or self.ends is None:
            return pieces
        if self.message != NULL:
            base = BYTES_DATA(self.message)
        for end in self.ends:
            pieces.append(PyBytes_FromStringAndSize(base + start, end - start))
            start = end
        if start < self.complete:
            pieces.append(
                PyBytes_FromStringAndSize(base + start, self.complete - start)
            )
        if self.complete:
            if left:
                rest = PyBytes_NewRef(base + self.complete, <Py_ssize_t>left)
            Py_XDECREF(self.message)
            self.message = rest
            self.used = left
            self.complete = 0
        self.ends = None
        self.taken = True
        return pieces

    # -- stepping ----------------------------------------------------------------

    cdef void begin(self, const uint8_t *data, size_t n) noexcept:
        """Lend the input; it must stay until next() returns NEED_DATA or FAILED."""
        self.data = data
        self.pos = 0
        self.inflated = 0
        self.end = n

    cdef int next(self) except -2:
        """Go on to the next event: EVENT, LAST_EVENT, NEED_DATA (input used up), FAILED."""
        cdef int size
        cdef size_t n
        if self.closed or self.error is not None:
            self.pos = self.end
            return NEED_DATA if self.error is None else FAILED
        while True:
            if not self.in_frame:
                if self.pos == self.end:
                    return NEED_DATA
                if self.stashed == 0:
                    size = ws_frame_decode(
                        self.data + self.pos,
                        self.end - self.pos,
                        self.expect_mask,
                        self.allowed_rsv,
                        &self.head,
                    )
                    if size > 0:
                        self.pos += <size_t>size
                    elif size == 0:
                        n = self.end - self.pos
                        memcpy(self.stash, self.data + self.pos, n)
                        self.stashed = <uint8_t>n
                        self.pos = self.end
                        return NEED_DATA
                else:
                    n = min(<size_t>(14 - self.stashed), self.end - self.pos)
                    memcpy(self.stash + self.stashed, self.data + self.pos, n)
                    size = ws_frame_decode(
                        self.stash,
                        self.stashed + n,
                        self.expect_mask,
                        self.allowed_rsv,
                        &self.head,
                    )
                    if size == 0:
                        self.stashed += <uint8_t>n
                        self.pos = self.end
                        return NEED_DATA
                    if size > 0:
                        self.pos += <size_t>size - self.stashed
                        self.stashed = 0
                if size < 0:
                    return self.header_failed(-size)
                if self.begin_frame() == FAILED:
                    return FAILED
                # The usual case: a whole message, all of it here.
                if (
                    self.head.fin
                    and self.plain
                    and self.assemble
                    and 0 < self.head.opcode < OP_CLOSE
                    and self.head.length <= self.end - self.pos
                ):
                    return self.whole_message()
            if self.take_payload() == FAILED:
                return FAILED
            if self.received < self.head.length:
                return NEED_DATA
            size = self.end_frame()
            if size != NEED_DATA:
                return size

    cdef int header_failed(self, int code) except -2:
        if code == <int>Failure.RSV:
            self.error = fail(code, rsv=self.head.rsv)
        elif code == <int>Failure.OPCODE:
            self.error = fail(code, opcode=self.head.opcode)
        elif code == <int>Failure.CONTROL_TOO_LONG:
            self.error = fail(code, size=None)
        else:
            self.error = fail(code)
        return FAILED

    cdef int begin_frame(self) except -2:
        """Judge the header of a frame against sequence and limits."""
        self.received = 0
        if self.head.opcode < OP_CLOSE:
            if self.head.opcode == OP_CONT:
                if not self.opcode:
                    self.error = fail(Failure.UNEXPECTED_CONTINUATION)
                    return FAILED
            elif self.opcode:
                self.error = fail(
                    Failure.EXPECTED_CONTINUATION, opcode=self.head.opcode
                )
                return FAILED
            if self.check_size(self.head.length) == FAILED:
                return FAILED
            if self.fragments >= self.max_fragments:
                self.error = fail(
                    Failure.TOO_MANY_FRAGMENTS, max_fragments=self.max_fragments
                )
                return FAILED
            if self.head.opcode != OP_CONT:
                self.opcode = self.head.opcode
                self.plain = self.transform is None or (
                    self.head.rsv == 0 and self.passes_plain
                )
            elif self.head.rsv:
                self.plain = False
            self.fragments += 1
        else:
            # At most 125 bytes: the header was judged.
            self.control = PyBytes_NewRef(NULL, <Py_ssize_t>self.head.length)
        self.in_frame = True
        return NEED_DATA

    cdef int check_size(self, uint64_t length) except -2:
        # size <= max_message_size always holds, so the subtraction cannot wrap.
        if length > self.max_fragment_size:
            self.error = fail(
                FAIL_TOO_BIG,
                size=length,
                max_size=self.max_fragment_size,
                current_size=None,
            )
            return FAILED
        if length > self.max_message_size - self.size:
            self.error = fail(
                FAIL_TOO_BIG,
                size=length,
                max_size=self.max_message_size - self.size,
                current_size=self.size or None,
            )
            return FAILED
        return NEED_DATA

    cdef int whole_message(self) except -2:
        """Take an unfragmented message that is in the input from end to end."""
        cdef const uint8_t *p = self.data + self.pos
        cdef size_t n = <size_t>self.head.length
        cdef object result
        cdef object text
        cdef uint8_t *raw
        cdef size_t bad
        self.pos += n
        self.in_frame = False
        self.opcode = 0
        self.fragments = 0
        self.messages += 1
        self.message_bytes += n
        self.event_opcode = self.head.opcode
        self.event_extra = None
        if self.head.opcode == OP_BINARY:
            if self.head.masked:
                result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>n)
                kernel.mask_copy(
                    <uint8_t *>PyBytes_AS_STRING(result), p, n, self.head.mask, 0
                )
            else:
                result = PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>n)
            self.event_payload = result
            return EVENT
        if n == 0:
            self.event_payload = ""
            return EVENT
        if self.head.masked:
            # Unmask into an ASCII string: for most text that is the result, else
            # it is the scratch memory that the text is decoded from.
            result = PyUnicode_New(<Py_ssize_t>n, 127)
            raw = <uint8_t *>PyUnicode_DATA(result)
            if not kernel.mask_copy_or(raw, p, n, self.head.mask, 0):
                self.event_payload = result
                return EVENT
            p = raw
        text = decode_text(p, n, &bad)
        if text is not None:
            self.event_payload = text
            return EVENT
        self.event_payload = None
        self.opcode = self.head.opcode
        self.messages -= 1
        self.message_bytes -= n
        if bad < n:
            self.error = fail(Failure.UTF8, position=bad)
        else:
            self.error = fail(Failure.UTF8_TRUNCATED, size=n)
        return FAILED

    cdef int take_payload(self) except -2:
        """Unmask, validate and store what is here of the payload."""
        cdef const uint8_t *p = self.data + self.pos
        cdef size_t n = self.end - self.pos
        cdef const uint8_t *mask = self.head.mask if self.head.masked else NULL
        cdef size_t size
        cdef uint8_t *control
        if n > self.head.length - self.received:
            n = <size_t>(self.head.length - self.received)
        if n == 0:
            return NEED_DATA
        self.pos += n
        if self.head.opcode >= OP_CLOSE:
            control = <uint8_t *>BYTES_DATA(self.control) + self.received
            if mask != NULL:
                kernel.mask_copy(control, p, n, mask, <size_t>self.received)
            else:
                memcpy(control, p, n)
            self.received += n
            return NEED_DATA
        if self.plain:
            if self.store(p, n, mask) == FAILED:
                return FAILED
            self.received += n
            return NEED_DATA
        # For the transform: the wire payload of this frame, unmasked.
        if self.payload == NULL:
            self.payload = PyBytes_NewRef(NULL, <Py_ssize_t>max(n, <size_t>64))
            self.payload_used = 0
        size = <size_t>BYTES_SIZE(self.payload)
        if n > size - self.payload_used:
            size = ws_frame_reserve(
                self.payload_used + n, self.head.length - self.received - n
            )
            _PyBytes_Resize(&self.payload, <Py_ssize_t>size)
        if mask != NULL:
            kernel.mask_copy(
                <uint8_t *>BYTES_DATA(self.payload) + self.payload_used,
                p,
                n,
                mask,
                <size_t>(self.received & 3),
            )
        else:
            memcpy(BYTES_DATA(self.payload) + self.payload_used, p, n)
        self.payload_used += n
        self.received += n
        return NEED_DATA

    cdef int reserve(self, size_t extra) except -2:
        """Make room for ``extra`` bytes behind what the message holds."""
        cdef size_t need = self.used + extra
        cdef size_t capacity
        cdef uint64_t rest
        if self.message == NULL:
            capacity = 0
        else:
            capacity = <size_t>BYTES_SIZE(self.message)
            if need <= capacity:
                return NEED_DATA
        rest = self.head.length - self.received
        if self.head.fin and rest >= extra and self.in_frame:
            # The final size is known: take it at once when it is small or when
            # most of it is here, else grow fourfold.
            capacity = max(need, max(<size_t>FIRST_RESERVE, 4 * need))
            if rest <= capacity - self.used:
                capacity = self.used + <size_t>rest
        elif self.used:
            capacity = max(need, self.used + self.used // 2 + 64)
        else:
            capacity = need
        if self.message == NULL:
            self.message = PyBytes_NewRef(NULL, <Py_ssize_t>capacity)
        else:
            self.resize(capacity)
        return NEED_DATA

    cdef int resize(self, size_t capacity) except -2:
        """Give the message another size; without memory for that it is gone."""
        try:
            _PyBytes_Resize(&self.message, <Py_ssize_t>capacity)
        except MemoryError as exc:
            self.error = exc
            self.used = 0
            self.complete = 0
            self.ends = None
            raise
        return NEED_DATA

    cdef int store(self, const uint8_t *p, size_t n, const uint8_t *mask) except -2:
        """Append to the message, unmasking on the way."""
        cdef uint8_t *target
        if n == 0:
            return NEED_DATA
        self.reserve(n)
        target = <uint8_t *>BYTES_DATA(self.message) + self.used
        if mask != NULL:
            kernel.mask_copy(target, p, n, mask, <size_t>(self.received & 3))
        else:
            memcpy(target, p, n)
        return self.stored(target, n)

    cdef int stored(self, uint8_t *p, size_t n) except -2:
        """Count, and validate if it is text, what was appended to the message."""
        cdef size_t bad
        if self.opcode == OP_TEXT:
            bad = kernel.utf8_validate(&self.utf8, p, n)
            if bad < n:
                self.error = fail(Failure.UTF8, position=self.size + bad)
                return FAILED
        self.size += n
        self.used += n
        return NEED_DATA

    cdef uint8_t *tail(self, size_t *room) except? NULL:
        """Lend the unfilled end of a large message that is being received.

        NULL when the input should go to a read buffer as usual.  What is written
        there is reported with tail_filled().
        """
        cdef uint64_t rest
        cdef size_t capacity
        room[0] = 0
        if not self.in_frame or not self.plain or self.head.opcode >= OP_CLOSE:
            return NULL
        rest = self.head.length - self.received
        if rest < 4096:
            return NULL
        if self.message == NULL or <size_t>BYTES_SIZE(self.message) == self.used:
            self.reserve(4096)
        capacity = <size_t>BYTES_SIZE(self.message) - self.used
        if capacity > rest:
            capacity = <size_t>rest
        room[0] = capacity
        return <uint8_t *>BYTES_DATA(self.message) + self.used

    cdef int tail_filled(self, size_t n) except -2:
        """Take ``n`` bytes that the socket wrote to tail(): like next()."""
        cdef uint8_t *target = <uint8_t *>BYTES_DATA(self.message) + self.used
        if self.head.masked:
            kernel.mask_inplace(target, n, self.head.mask, <size_t>(self.received & 3))
        self.received += n
        if self.stored(target, n) == FAILED:
            return FAILED
        if self.received < self.head.length:
            return NEED_DATA
        return self.end_frame()

    # -- ends --------------------------------------------------------------------

    cdef int end_frame(self) except -2:
        """Close the frame whose payload is complete: EVENT when that says something."""
        self.in_frame = False
        if self.head.opcode >= OP_CLOSE:
            return self.end_control()
        if not self.plain and self.run_transform() == FAILED:
            return FAILED
        self.complete = self.used
        if not self.assemble:
            if self.head.fin and self.check_text_end() == FAILED:
                return FAILED
            self.event_opcode = self.head.opcode
            self.event_payload = self.finished()
            self.event_extra = bool(self.head.fin)
            if self.head.fin:
                self.count_message()
                self.reset_message()
            return EVENT if self.inflated < ENOUGH else LAST_EVENT
        if self.head.fin:
            return self.end_message()
        if self.ends is None:
            self.ends = []
        if <size_t>len(self.ends) < MAX_ENDS:
            self.ends.append(self.complete)
        return NEED_DATA

    cdef int end_control(self) except -2:
        cdef bytes payload = <bytes>self.control
        Py_XDECREF(self.control)
        self.control = NULL
        if self.head.opcode == OP_CLOSE:
            if self.check_close(payload) == FAILED:
                return FAILED
            self.closed = True
        self.event_opcode = self.head.opcode
        self.event_payload = payload
        self.event_extra = True
        return EVENT

    cdef int end_message(self) except -2:
        cdef object payload
        if self.check_text_end() == FAILED:
            return FAILED
        self.event_opcode = self.opcode
        self.event_extra = None
        if self.fragments > 1:
            if self.ends is None:
                self.ends = []
            if <size_t>len(self.ends) < MAX_ENDS:
                self.ends.append(self.complete)
            self.event_extra = self.ends
        payload = self.finished()
        if self.taken:
            self.event_opcode = OP_CONT
        elif self.opcode == OP_TEXT:
            payload = decode_text(
                <const uint8_t *>PyBytes_AS_STRING(payload), <size_t>len(payload), NULL
            )
        self.event_payload = payload
        self.count_message()
        self.reset_message()
        return EVENT if self.inflated < ENOUGH else LAST_EVENT

    cdef finished(self):
        """Hand the message's bytes over, cut to size."""
        cdef object result
        if self.message == NULL:
            return b""
        if <size_t>BYTES_SIZE(self.message) != self.used:
            self.resize(self.used)
        result = <object>self.message
        Py_XDECREF(self.message)
        self.message = NULL
        self.used = 0
        self.complete = 0
        self.ends = None
        return result

    cdef int run_transform(self) except -2:
        cdef object data = b""
        cdef object limit = None
        cdef uint64_t room = self.max_message_size - self.size
        cdef bint counted = self.max_message_size != UINT64_MAX
        cdef bint whole
        if self.max_message_size != UINT64_MAX:
            limit = room
        if self.max_fragment_size != UINT64_MAX and (
            limit is None or self.max_fragment_size < room
        ):
            limit = self.max_fragment_size
            counted = False
        if self.payload != NULL:
            if <size_t>BYTES_SIZE(self.payload) != self.payload_used:
                _PyBytes_Resize(&self.payload, <Py_ssize_t>self.payload_used)
            data = <object>self.payload
            Py_XDECREF(self.payload)
            self.payload = NULL
        try:
            data = self.transform.decode(
                self.head.opcode, bool(self.head.fin), self.head.rsv, data, limit
            )
            if type(data) is not bytes:
                data = bytes(memoryview(data))
        except Exception as exc:
            # One without a code is a mistake of an extension; it ends the
            # connection like the peer's, after the events before it.
            if counted and isinstance(exc, PayloadTooBig):
                exc.set_current_size(self.size or None)
            self.error = exc
            return FAILED
        self.inflated += <size_t>len(data)
        return self.store(
            <const uint8_t *>PyBytes_AS_STRING(data), <size_t>len(data), NULL
        )

    cdef int check_text_end(self) except -2:
        if self.opcode == OP_TEXT and not ws_utf8_is_complete(&self.utf8):
            self.error = fail(Failure.UTF8_TRUNCATED, size=self.size)
            return FAILED
        return NEED_DATA

    cdef void count_message(self) noexcept:
        self.messages += 1
        self.message_bytes += self.size

    cdef void reset_message(self) noexcept:
        Py_XDECREF(self.message)
        self.message = NULL
        self.opcode = 0
        self.used = 0
        self.complete = 0
        self.size = 0
        self.fragments = 0
        self.ends = None
        self.taken = False
        memset(&self.utf8, 0, sizeof(self.utf8))

    cdef int check_close(self, bytes payload) except -2:
        """Judge the payload of a close frame (RFC 6455, 5.5.1 and 7.4)."""
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(payload)
        cdef size_t n = <size_t>len(payload)
        cdef unsigned code
        cdef ws_utf8_state state
        if n == 0:
            return NEED_DATA
        if n == 1:
            self.error = fail(Failure.CLOSE_TOO_SHORT)
            return FAILED
        code = (<unsigned>p[0] << 8) | p[1]
        if not (
            3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014
        ):
            self.error = fail(Failure.CLOSE_CODE, close_code=code)
            return FAILED
        memset(&state, 0, sizeof(state))
        if kernel.utf8_validate(
            &state, p + 2, n - 2
        ) != n - 2 or not ws_utf8_is_complete(&state):
            self.error = fail(Failure.CLOSE_REASON)
            return FAILED
        return NEED_DATA


cdef class FrameWriter:
    """Build frames; see ``_codec_py``."""

    def __init__(self, *, bint mask, transform=None):
        self.mask = mask
        self.transform = transform

    @property
    def is_plain(self):
        """Whether a frame depends on nothing but its payload, and does for many."""
        return not self.mask and self.transform is None

    def message(self, data, text=None):
        """Build the one frame of a whole message."""
        cdef int opcode
        if isinstance(data, str):
            opcode = OP_BINARY if text is False else OP_TEXT
            if not PyUnicode_IS_ASCII(data):
                return self.frame(opcode, data.encode(), True)
            if self.transform is None:
                return self.build(
                    FIN | opcode,
                    <const uint8_t *>PyUnicode_DATA(data),
                    <size_t>PyUnicode_GET_LENGTH(data),
                )
            return self.frame(opcode, data.encode(), True)
        if isinstance(data, (bytes, bytearray, memoryview)):
            return self.frame(OP_TEXT if text else OP_BINARY, data, True)
        raise TypeError(
            f"message must be str or bytes-like, not {type(data).__name__}"
        )

    def frame(self, int opcode, payload, bint fin=True):
        """Build one frame of any kind."""
        cdef unsigned first = <unsigned>opcode | (FIN if fin else 0)
        cdef object data = payload if type(payload) is bytes else bytes(payload)
        if opcode >= OP_CLOSE:
            if not fin:
                raise fail(Failure.CONTROL_FRAGMENTED)
            if len(data) > 125:
                raise fail(Failure.CONTROL_TOO_LONG, size=len(data))
        elif self.transform is not None:
            rsv, data = self.transform.encode(opcode, bool(fin), data)
            if type(data) is not bytes:
                data = bytes(memoryview(data))
            first |= <unsigned>rsv
        return self.build(
            first, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>len(data)
        )

    cdef build(self, unsigned first, const uint8_t *p, size_t n):
        cdef uint8_t header[14]
        cdef uint8_t mask[4]
        cdef size_t size
        cdef bytes frame
        cdef uint8_t *out
        if self.mask:
            next_mask(mask)
            size = ws_frame_encode(header, first, n, mask)
        else:
            size = ws_frame_encode(header, first, n, NULL)
        frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(size + n))
        out = <uint8_t *>PyBytes_AS_STRING(frame)
        memcpy(out, header, size)
        if self.mask:
            kernel.mask_copy(out + size, p, n, mask, 0)
        else:
            memcpy(out + size, p, n)
        return frame
