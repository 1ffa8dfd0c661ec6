/* One text through every variant: scanned, validated in chunks, measured, and
 * decoded into units of each width that can hold it; against the grammar. */
#ifndef UTF8_EVERY_WAY_H
#define UTF8_EVERY_WAY_H

#include "../test/rfc3629.h"
#include "../ws_kernel.h"
#include "fuzz.h"

static inline size_t
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

static inline void
decoded(const ws_kernel *kernel, const uint8_t *text, size_t n,
        const reading *want)
{
    const size_t chars = want->chars;
    uint8_t *one = exact_copy(want->text, chars);
    uint16_t *two = exact_copy(want->text, 2 * chars);
    uint32_t *four = exact_copy(want->text, 4 * chars);

    memset(four, 0, 4 * chars);
    kernel->utf8_decode4(four, text, n);
    must(memcmp(four, want->text, 4 * chars) == 0, kernel->name, "decode4");
    if (want->largest < 0x10000) {
        memset(two, 0, 2 * chars);
        kernel->utf8_decode2(two, text, n);
        for (size_t i = 0; i < chars; i++) {
            must(two[i] == want->text[i], kernel->name, "decode2");
        }
    }
    if (want->largest < 0x100) {
        memset(one, 0, chars);
        kernel->utf8_decode1(one, text, n);
        for (size_t i = 0; i < chars; i++) {
            must(one[i] == want->text[i], kernel->name, "decode1");
        }
    }
    free(one);
    free(two);
    free(four);
}

/* data may be anywhere; at most READING_SIZE bytes. */
static inline void
utf8_every_way(const uint8_t *data, size_t n, size_t chunk)
{
    static reading want;
    uint8_t *text = exact_copy(data, n);
    size_t ascii = 0;

    slow_read(text, n, &want);
    while (ascii < n && text[ascii] < 0x80) {
        ascii++;
    }
    for (size_t v = 0; v < ws_kernel_count(); v++) {
        const ws_kernel *kernel = ws_kernel_at(v);
        ws_utf8_info info;
        int complete;
        if (!kernel->supported()) {
            continue;
        }
        must(kernel->utf8_scan(text, n, &info) == want.end, kernel->name,
             "scan");
        must(in_chunks(kernel, text, n, chunk, &complete) == want.end,
             kernel->name, "chunks");
        must(complete == want.complete, kernel->name, "complete");
        must(kernel->ascii_prefix(text, n) == ascii, kernel->name, "ascii");
        if (want.end < n) {
            continue;
        }
        must(info.chars == (want.complete ? want.chars : SIZE_MAX),
             kernel->name, "chars");
        if (want.complete) {
            must(info.max_char == class_of(want.largest), kernel->name,
                 "max_char");
            decoded(kernel, text, n, &want);
        }
    }
    free(text);
}

#endif
