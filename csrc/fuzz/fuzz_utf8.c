/* UTF-8: variant == scalar == in chunks, for texts valid or not.
 * Input: size of chunks (1), text. */
#include "../ws_kernel.h"
#include "fuzz.h"

static size_t
in_chunks(const ws_kernel *kernel, const uint8_t *text, size_t n, size_t chunk,
          int *complete)
{
    ws_utf8_state st = {0, 0, 0};

    for (size_t i = 0; i < n; i += chunk) {
        const size_t part = chunk < n - i ? chunk : n - i;
        uint8_t *p = exact_copy(text + i, part);
        const size_t end = kernel->utf8_validate(&st, p, part);
        free(p);
        if (end < part) {
            *complete = 0;
            return i + end;
        }
    }
    *complete = ws_utf8_is_complete(&st);
    return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    const ws_kernel *scalar = ws_kernel_at(0);
    const size_t chunk = 1 + (size_t)data[0];
    const size_t n = size - 1;
    uint8_t *text = exact_copy(data + 1, n);
    ws_utf8_info want;
    const size_t end = scalar->utf8_scan(text, n, &want);
    const int valid = end == n && want.chars != SIZE_MAX;
    const size_t ascii = scalar->ascii_prefix(text, n);
    uint8_t *first = NULL;
    const size_t width = !valid                   ? 0
                         : want.max_char <= 0xff   ? 1
                         : want.max_char <= 0xffff ? 2
                                                   : 4;

    for (size_t v = 0; v < ws_kernel_count(); v++) {
        const ws_kernel *kernel = ws_kernel_at(v);
        ws_utf8_info info;
        int complete;
        if (!kernel->supported()) {
            continue;
        }
        must(kernel->utf8_scan(text, n, &info) == end, kernel->name, "scan");
        must(in_chunks(kernel, text, n, chunk, &complete) == end, kernel->name,
             "chunks");
        must(complete == valid, kernel->name, "complete");
        must(kernel->ascii_prefix(text, n) == ascii, kernel->name, "ascii");
        if (!valid) {
            must(end < n || info.chars == SIZE_MAX, kernel->name, "truncated");
            continue;
        }
        must(info.chars == want.chars && info.max_char == want.max_char,
             kernel->name, "info");
        const size_t units = want.chars * width;
        uint8_t *out = malloc(units ? units : 1);
        if (width == 1) {
            kernel->utf8_decode1(out, text, n);
        } else if (width == 2) {
            kernel->utf8_decode2((uint16_t *)(void *)out, text, n);
        } else {
            kernel->utf8_decode4((uint32_t *)(void *)out, text, n);
        }
        if (first == NULL) {
            first = out;
            continue;
        }
        must(memcmp(first, out, units) == 0, kernel->name, "decode");
        free(out);
    }
    free(first);
    free(text);
    return 0;
}
