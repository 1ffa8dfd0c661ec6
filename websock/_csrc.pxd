# Declarations of csrc/*.h, one block per header, nothing else.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "ws_err.h" nogil:
    enum ws_err:
        WS_OK
        WS_ERR_RSV
        WS_ERR_OPCODE
        WS_ERR_CONTROL_FRAGMENTED
        WS_ERR_CONTROL_TOO_LONG
        WS_ERR_NOT_MASKED
        WS_ERR_MASKED
        WS_ERR_LENGTH
        WS_ERR_EXPECTED_CONTINUATION
        WS_ERR_UNEXPECTED_CONTINUATION
        WS_ERR_TOO_BIG
        WS_ERR_TOO_MANY_FRAGMENTS
        WS_ERR_UTF8
        WS_ERR_UTF8_TRUNCATED
        WS_ERR_CLOSE_TOO_SHORT
        WS_ERR_CLOSE_CODE
        WS_ERR_CLOSE_REASON
        WS_ERR_DEFLATE


cdef extern from "ws_platform.h" nogil:
    void ws_prefetch "WS_PREFETCH"(const void *p) noexcept


cdef extern from "ws_mask.h" nogil:
    void ws_mask_copy(
        uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, size_t phase
    ) noexcept
    void ws_mask_inplace(
        uint8_t *buf, size_t n, const uint8_t *key, size_t phase
    ) noexcept
    unsigned ws_mask_copy_or(
        uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, size_t phase
    ) noexcept
    unsigned ws_mask_inplace_or(
        uint8_t *buf, size_t n, const uint8_t *key, size_t phase
    ) noexcept


cdef extern from "ws_frame.h" nogil:
    enum:
        WS_FRAME_MAX_HEADER

    ctypedef struct ws_frame_header:
        uint64_t length
        uint8_t first
        uint8_t fin
        uint8_t opcode
        uint8_t rsv
        uint8_t masked
        uint8_t size
        uint8_t mask[4]

    int ws_frame_decode(
        const uint8_t *data,
        size_t n,
        bint expect_mask,
        unsigned allowed_rsv,
        ws_frame_header *out,
    ) noexcept
    size_t ws_frame_encode(
        uint8_t *out, unsigned first, uint64_t length, const uint8_t *mask
    ) noexcept
    size_t ws_frame_reserve(size_t need, uint64_t rest) noexcept


cdef extern from "ws_utf8.h" nogil:
    ctypedef struct ws_utf8_state:
        uint8_t need
        uint8_t low
        uint8_t high

    ctypedef struct ws_utf8_info:
        size_t chars
        uint32_t max_char

    bint ws_utf8_is_complete(const ws_utf8_state *st) noexcept


cdef extern from "ws_kernel.h" nogil:
    # The units of dst are 1, 2 or 4 bytes wide; declared as void to spare casts.
    ctypedef struct ws_kernel:
        const char *name
        int (*supported)() noexcept nogil
        void (*mask_copy)(
            uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, size_t phase
        ) noexcept nogil
        void (*mask_inplace)(
            uint8_t *buf, size_t n, const uint8_t *key, size_t phase
        ) noexcept nogil
        unsigned (*mask_copy_or)(
            uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, size_t phase
        ) noexcept nogil
        unsigned (*mask_inplace_or)(
            uint8_t *buf, size_t n, const uint8_t *key, size_t phase
        ) noexcept nogil
        size_t (*utf8_validate)(
            ws_utf8_state *st, const uint8_t *data, size_t n
        ) noexcept nogil
        size_t (*utf8_scan)(
            const uint8_t *data, size_t n, ws_utf8_info *info
        ) noexcept nogil
        void (*utf8_decode1)(void *dst, const uint8_t *src, size_t n) noexcept nogil
        void (*utf8_decode2)(void *dst, const uint8_t *src, size_t n) noexcept nogil
        void (*utf8_decode4)(void *dst, const uint8_t *src, size_t n) noexcept nogil
        size_t (*ascii_prefix)(const uint8_t *data, size_t n) noexcept nogil

    size_t ws_kernel_count() noexcept
    const ws_kernel *ws_kernel_at(size_t i) noexcept
    const ws_kernel *ws_kernel_best() noexcept
    const ws_kernel *ws_kernel_find(const char *name) noexcept


cdef extern from "ws_socket.h" nogil:
    ctypedef struct ws_iovec:
        void *iov_base
        size_t iov_len

    enum:
        WS_SOCK_AGAIN

    long ws_sock_recv(int fd, uint8_t *buf, size_t n) noexcept
    long ws_sock_send(int fd, const uint8_t *buf, size_t n) noexcept
    long ws_sock_readv(int fd, ws_iovec *parts, int count) noexcept
    long ws_sock_sendv(int fd, ws_iovec *parts, int count) noexcept
    long ws_sock_accept(int listening, uint8_t *address, size_t *size) noexcept
    long ws_sock_name(int fd, uint8_t *address, size_t *size) noexcept
    int ws_sock_parts(
        const uint8_t *address, size_t size, char *text, unsigned long *numbers
    ) noexcept
    long ws_sock_end(int fd) noexcept
    void ws_sock_close(int fd) noexcept


cdef extern from "ws_poll.h" nogil:
    ctypedef struct ws_poll_event:
        pass

    enum:
        WS_POLL_READ
        WS_POLL_WRITE

    int ws_poll_open() noexcept
    int ws_poll_set(int poll, int fd, int before, int after) noexcept
    int ws_poll_now(int poll, ws_poll_event *events, int size) noexcept
    int ws_poll_fd(const ws_poll_event *event) noexcept
    int ws_poll_flags(const ws_poll_event *event) noexcept
