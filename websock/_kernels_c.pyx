# cython: language_level=3, boundscheck=False, wraparound=False
# cython: embedsignature=True, freethreading_compatible=True
"""Kernels over ``csrc``: masking, frame headers, UTF-8.  See ``_kernels_py``.

Pure functions on bytes; what they mean is said in the Python twin.  This module
is the only one that the C objects are linked into; ``_codec_c`` and ``_stream_c``
reach them through the table of function pointers that ``active_kernel()`` returns.

Buffers of callers are borrowed for the length of a call, with the GIL held, or as a
view where there is none.  One allocation for each result.  The only state: the variant
in use, set at import, and the pool of random masks.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ._csrc cimport (
    WS_ERR_CONTROL_TOO_LONG,
    ws_frame_decode,
    ws_frame_encode,
    ws_frame_header,
    ws_kernel,
    ws_kernel_at,
    ws_kernel_best,
    ws_kernel_count,
    ws_kernel_find,
    ws_utf8_info,
    ws_utf8_is_complete,
    ws_utf8_state,
)

import os

from ._compat import KERNEL_NAME

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t, Py_UCS4)
    void *PyUnicode_DATA(str) noexcept
    str PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *)
    str PyUnicode_FromKindAndData(int, const void *, Py_ssize_t)
    enum:
        PyUnicode_1BYTE_KIND

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define HAS_GIL 0
    #else
    #define HAS_GIL 1
    #endif
    """
    bint HAS_GIL

cdef enum:
    # Up to this size, text is first taken for ASCII: it nearly always is, and
    # the call of a scan would cost more than the test.
    SHORT_TEXT = 64
    POOL_SIZE = 4096

cdef uint64_t HIGH_BITS = 0x8080808080808080u

# frames.FrameHeader and exceptions.fail, taken at first use: this module is what
# _compat looks for first, before those are there.
cdef object frame_header = None
cdef object fail = None


# The variant in use --------------------------------------------------------------

cdef const ws_kernel *kernel = ws_kernel_best()

KERNEL = (<bytes>kernel.name).decode()


cdef const ws_kernel *active_kernel() noexcept nogil:
    return kernel


def kernels() -> tuple[str, ...]:
    """Return the names of the variants that this CPU can run, slowest first."""
    cdef size_t i
    cdef list names = []
    for i in range(ws_kernel_count()):
        if ws_kernel_at(i).supported():
            names.append((<bytes>ws_kernel_at(i).name).decode())
    return tuple(names)


def select_kernel(name: str) -> None:
    """Use the variant of this name; see ``_kernels_py``."""
    global kernel, KERNEL
    cdef bytes wanted = name.encode()
    cdef const ws_kernel *found = ws_kernel_find(wanted)
    if found == NULL or "\0" in name:
        raise ValueError(
            f"unknown kernel: {name!r}, usable here: {', '.join(kernels())}"
        )
    kernel = found
    KERNEL = name


if KERNEL_NAME is not None:
    select_kernel(KERNEL_NAME)


# Masking -------------------------------------------------------------------------

cdef inline int copy_mask(object mask, uint8_t *out) except -1:
    """Copy the 4 bytes of a mask to out."""
    cdef Py_buffer view
    cdef Py_ssize_t size
    if type(mask) is bytes:
        size = len(<bytes>mask)
        if size == 4:
            memcpy(out, PyBytes_AS_STRING(mask), 4)
            return 0
    else:
        PyObject_GetBuffer(mask, &view, PyBUF_SIMPLE)
        size = view.len
        if size == 4:
            memcpy(out, view.buf, 4)
        PyBuffer_Release(&view)
        if size == 4:
            return 0
    raise ValueError(f"mask is {size} bytes long, not 4 (RFC 6455, 5.3)")


def apply_mask(data, mask, Py_ssize_t phase=0) -> bytes:
    """Return ``data`` masked or unmasked; see ``_kernels_py``."""
    cdef uint8_t key[4]
    cdef Py_buffer view
    cdef bytes result
    copy_mask(mask, key)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result = PyBytes_FromStringAndSize(NULL, view.len)
        if view.len:
            kernel.mask_copy(
                <uint8_t *>PyBytes_AS_STRING(result),
                <const uint8_t *>view.buf,
                <size_t>view.len,
                key,
                <size_t>(phase & 3),
            )
    finally:
        PyBuffer_Release(&view)
    return result


def apply_mask_inplace(data, mask, Py_ssize_t phase=0) -> None:
    """Mask or unmask ``data`` where it is; see ``_kernels_py``."""
    cdef uint8_t key[4]
    cdef Py_buffer view
    copy_mask(mask, key)
    if HAS_GIL and type(data) is bytearray:
        # Cheaper than a view of it: nobody can resize it before the call is over.
        kernel.mask_inplace(
            <uint8_t *>PyByteArray_AS_STRING(data),
            <size_t>len(<bytearray>data),
            key,
            <size_t>(phase & 3),
        )
        return
    PyObject_GetBuffer(data, &view, PyBUF_WRITABLE)
    kernel.mask_inplace(
        <uint8_t *>view.buf, <size_t>view.len, key, <size_t>(phase & 3)
    )
    PyBuffer_Release(&view)


# The masks of frames to be sent come from a pool.  Nothing between reading and
# moving pool_at can run another thread: on a free-threaded build the critical
# section sees to that, elsewhere the GIL.  os.urandom() can, so its bytes are
# taken before the pool is touched.

@cython.final
cdef class Lock:
    pass

cdef Lock pool_lock = Lock()
cdef uint8_t pool[POOL_SIZE]
cdef size_t pool_at = POOL_SIZE
cdef object urandom = os.urandom


cdef int refill_pool() except -1:
    global pool_at
    cdef bytes fresh = urandom(POOL_SIZE)
    with cython.critical_section(pool_lock):
        memcpy(pool, PyBytes_AS_STRING(fresh), POOL_SIZE)
        pool_at = 0
    return 0


cdef int next_mask(uint8_t *out) except -1:
    global pool_at
    cdef bint done
    while True:
        with cython.critical_section(pool_lock):
            done = pool_at < POOL_SIZE
            if done:
                memcpy(out, pool + pool_at, 4)
                pool_at += 4
        if done:
            return 0
        refill_pool()


def _forget_masks() -> None:
    """Drop the pool: a child of ``fork()`` must not repeat its parent's masks."""
    global pool_at
    pool_at = POOL_SIZE


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_masks)


def random_mask() -> bytes:
    """Return 4 unpredictable bytes; see ``_kernels_py``."""
    cdef uint8_t mask[4]
    next_mask(mask)
    return PyBytes_FromStringAndSize(<char *>mask, 4)


# Frame headers -------------------------------------------------------------------

cdef int load_names() except -1:
    global frame_header, fail
    from .exceptions import fail as fail_
    from .frames import FrameHeader
    fail = fail_
    frame_header = FrameHeader
    return 0


def parse_header(data, *, bint expect_mask, unsigned allowed_rsv=0):
    """Read the header of a frame; see ``_kernels_py``."""
    cdef ws_frame_header head
    cdef Py_buffer view
    cdef int size
    if frame_header is None:
        load_names()
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    size = ws_frame_decode(
        <const uint8_t *>view.buf, <size_t>view.len, expect_mask, allowed_rsv, &head
    )
    PyBuffer_Release(&view)
    if size == 0:
        return None
    if size < 0:
        if size == -<int>WS_ERR_CONTROL_TOO_LONG:
            raise fail(-size, size=None)
        raise fail(-size, rsv=head.rsv, opcode=head.opcode)
    return frame_header(
        head.fin != 0,
        head.opcode,
        head.rsv,
        head.length,
        PyBytes_FromStringAndSize(<char *>head.mask, 4) if head.masked else b"",
        size,
    )


def build_header(opcode, length, *, fin=True, rsv=0, mask=None) -> bytes:
    """Write the header of a frame; see ``_kernels_py``."""
    cdef uint8_t out[14]
    cdef uint8_t key[4]
    cdef size_t size
    if not 0 <= opcode <= 15:
        raise ValueError(f"opcode is out of range: {opcode}, limits 0 and 15")
    if rsv & ~0x70:
        raise ValueError(f"reserved bits are not within 0x70: {rsv:#x}")
    if not 0 <= length <= 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"length is out of range: {length}, limits 0 and 2**63 - 1")
    if mask is not None:
        copy_mask(mask, key)
    size = ws_frame_encode(
        out,
        (0x80 if fin else 0) | <unsigned>rsv | <unsigned>opcode,
        <uint64_t>length,
        NULL if mask is None else key,
    )
    return PyBytes_FromStringAndSize(<char *>out, <Py_ssize_t>size)


# UTF-8 ---------------------------------------------------------------------------

@cython.final
cdef class Utf8Validator:
    """Check a text piece by piece; see ``_kernels_py``."""

    cdef ws_utf8_state state

    def feed(self, data) -> int:
        """Take the next piece; see ``_kernels_py``."""
        cdef Py_buffer view
        cdef size_t n, end
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        n = <size_t>view.len
        end = kernel.utf8_validate(&self.state, <const uint8_t *>view.buf, n)
        PyBuffer_Release(&view)
        return -1 if end == n else <Py_ssize_t>end

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return ws_utf8_is_complete(&self.state) != 0

    def reset(self) -> None:
        """Begin another text."""
        memset(&self.state, 0, sizeof(self.state))


cdef inline bint is_short_ascii(const uint8_t *p, size_t n) noexcept nogil:
    """Tell whether at most SHORT_TEXT bytes are ASCII."""
    cdef uint64_t word, seen = 0
    cdef size_t i
    if n >= 8:
        i = 0
        while i + 8 < n:
            memcpy(&word, p + i, 8)
            seen |= word
            i += 8
        memcpy(&word, p + n - 8, 8)
        return ((seen | word) & HIGH_BITS) == 0
    for i in range(n):
        seen |= p[i]
    return (seen & 0x80) == 0


cdef inline str ascii_text(const uint8_t *p, size_t n):
    cdef str text
    if n == 1:  # CPython has all of these already
        return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, p, 1)
    text = PyUnicode_New(<Py_ssize_t>n, 0x7f)
    memcpy(PyUnicode_DATA(text), p, n)
    return text


cdef str decode_text(const uint8_t *data, size_t n, size_t *bad):
    cdef ws_utf8_info info
    cdef str text
    cdef void *units
    cdef size_t end
    if n <= SHORT_TEXT and is_short_ascii(data, n):
        return "" if n == 0 else ascii_text(data, n)
    end = kernel.utf8_scan(data, n, &info)
    if end != n or info.chars == <size_t>-1:
        if bad != NULL:
            bad[0] = end
        return None
    if info.max_char == 0x7f:
        return ascii_text(data, n)
    text = PyUnicode_New(<Py_ssize_t>info.chars, info.max_char)
    units = PyUnicode_DATA(text)
    if info.max_char == 0xff:
        kernel.utf8_decode1(units, data, n)
    elif info.max_char == 0xffff:
        kernel.utf8_decode2(units, data, n)
    else:
        kernel.utf8_decode4(units, data, n)
    return text


def decode_utf8(data) -> str:
    """Return the text of UTF-8 bytes; see ``_kernels_py``."""
    cdef Py_buffer view
    cdef str text
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        text = decode_text(<const uint8_t *>view.buf, <size_t>view.len, NULL)
        if text is None:
            # Not valid: let CPython raise, with its own words.
            text = PyUnicode_DecodeUTF8(<const char *>view.buf, view.len, "strict")
    finally:
        PyBuffer_Release(&view)
    return text
