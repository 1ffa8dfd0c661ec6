# What the other compiled modules take from `_kernels_c`.

from libc.stdint cimport uint8_t

from ._csrc cimport ws_kernel


# The variant in use.  Chosen when the module is imported, so the pointer may be
# kept; select_kernel(), which tests use, does not reach pointers kept elsewhere.
cdef const ws_kernel *active_kernel() noexcept nogil

# Write 4 unpredictable bytes to out.
cdef int next_mask(uint8_t *out) except -1

# Decode a whole text.  None, and no Python exception, if it is not valid UTF-8:
# then bad[0] is the index of the first byte that cannot be, or n if the text ends
# inside a character.  bad may be NULL.  Exceptions (MemoryError) are real ones.
cdef str decode_text(const uint8_t *data, size_t n, size_t *bad)
