/* Masking: variant == scalar == in place == in chunks.
 * Input: key (4), phase, and where in memory (1), size of chunks (1), payload. */
#include "../ws_kernel.h"
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 6) {
        return 0;
    }
    const uint8_t *key = data;
    const size_t phase = data[4];
    const size_t chunk = 1 + (size_t)data[5];
    const size_t n = size - 6;
    /* The upper bits of the phase: how far both ends are from alignment. */
    const size_t off = phase >> 2 & 31, off_out = phase >> 5 << 2;
    uint8_t *block = malloc(off + n + 1), *block_out = malloc(off_out + n + 1);
    must(block != NULL && block_out != NULL, "mask", "memory");
    uint8_t *src = block + off + 1, *out = block_out + off_out + 1;
    memcpy(src, data + 6, n);
    uint8_t *want = exact_copy(src, n);
    unsigned wide = 0;

    for (size_t i = 0; i < n; i++) {
        want[i] ^= key[(phase + i) & 3];
        wide |= want[i] & 0x80U;
    }
    for (size_t v = 0; v < ws_kernel_count(); v++) {
        const ws_kernel *kernel = ws_kernel_at(v);
        if (!kernel->supported()) {
            continue;
        }
        memset(out, 0, n);
        kernel->mask_copy(out, src, n, key, phase);
        must(memcmp(out, want, n) == 0, kernel->name, "mask_copy");
        for (size_t i = 0; i < n; i += chunk) {
            const size_t part = chunk < n - i ? chunk : n - i;
            kernel->mask_inplace(out + i, part, key, phase + i);
        }
        must(memcmp(out, src, n) == 0, kernel->name, "chunks");
        must(!kernel->mask_inplace_or(out, n, key, phase) == !wide,
             kernel->name, "mask_inplace_or");
        must(memcmp(out, want, n) == 0, kernel->name, "mask_inplace");
        must(!kernel->mask_copy_or(out, src, n, key, phase) == !wide,
             kernel->name, "mask_copy_or");
        must(memcmp(out, want, n) == 0, kernel->name, "mask_copy_or");
    }
    free(block);
    free(block_out);
    free(want);
    return 0;
}
