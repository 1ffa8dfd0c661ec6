/* UTF-8: runs of characters of one width, and changes between them, which is
 * what the decoders' windows and tables are about; then bytes that are wrong.
 * Random bytes are hardly ever a long text, so the input says how to make one.
 * Input: size of chunks (1), how many bytes are changed (1), place and value of
 * each (3), then runs: kind and length (1), first code point (2). */
#include "utf8_every_way.h"

enum { MAX_TEXT = 4096 };

/* A code point of a kind: below 0x80, 0x100, 0x800, 0x10000, or from there. */
static uint32_t
point_of(unsigned kind, uint32_t seed)
{
    static const uint32_t from[] = {0, 0x80, 0x80, 0x800, 0x10000};
    static const uint32_t below[] = {0x80, 0x100, 0x800, 0x10000, 0x110000};
    const uint32_t point = from[kind] + seed % (below[kind] - from[kind]);

    return point >= 0xd800 && point < 0xe000 ? point - 0x800 : point;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t text[MAX_TEXT];
    size_t n = 0;

    if (size < 2) {
        return 0;
    }
    const size_t chunk = 1 + (size_t)data[0];
    const size_t changes = data[1] % 4;
    const uint8_t *change = data + 2;
    if (size < 2 + 3 * changes) {
        return 0;
    }
    for (size_t i = 2 + 3 * changes; i + 3 <= size; i += 3) {
        const unsigned kind = data[i] % 5;
        const uint32_t seed = (uint32_t)data[i + 1] << 8 | data[i + 2];
        for (uint32_t k = 0; k < data[i] / 5U; k++) {
            /* the same character, its neighbours, or all over the range */
            const uint32_t step = seed & 1   ? k * (seed >> 4)
                                  : seed & 2 ? k
                                             : 0;
            if (n + 4 > MAX_TEXT) {
                break;
            }
            n += encode(text + n, point_of(kind, (seed << 5) + step));
        }
    }
    utf8_every_way(text, n, chunk);
    for (size_t k = 0; k < changes && n > 0; k++, change += 3) {
        text[((size_t)change[0] << 8 | change[1]) % n] = change[2];
        utf8_every_way(text, n, chunk);
    }
    /* what follows must not be looked at */
    utf8_every_way(text, n - n / 3, chunk);
    return 0;
}
