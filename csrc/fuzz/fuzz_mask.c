/* Masking: variant == scalar == in place == in chunks.
 * Input: key (4), phase (1), size of chunks (1), payload. */
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
    uint8_t *src = exact_copy(data + 6, n);
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
        uint8_t *out = exact_copy(want, n);
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
        free(out);
    }
    free(src);
    free(want);
    return 0;
}
