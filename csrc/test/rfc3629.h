/* UTF-8 by the letter of RFC 3629, section 4, byte by byte: what the kernels are
 * compared with, by the tests and by the fuzz targets. */
#ifndef RFC3629_H
#define RFC3629_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that a text may have. */
#define READING_SIZE 16384

/* The rules of the grammar: what each byte of a character may be. */
typedef struct {
    size_t length;
    uint8_t range[4][2];
} rule;

#define TAIL {0x80, 0xbf}
static const rule rules[] = {
    {1, {{0x00, 0x7f}}},
    {2, {{0xc2, 0xdf}, TAIL}},
    {3, {{0xe0, 0xe0}, {0xa0, 0xbf}, TAIL}},
    {3, {{0xe1, 0xec}, TAIL, TAIL}},
    {3, {{0xed, 0xed}, {0x80, 0x9f}, TAIL}},
    {3, {{0xee, 0xef}, TAIL, TAIL}},
    {4, {{0xf0, 0xf0}, {0x90, 0xbf}, TAIL, TAIL}},
    {4, {{0xf1, 0xf3}, TAIL, TAIL, TAIL}},
    {4, {{0xf4, 0xf4}, {0x80, 0x8f}, TAIL, TAIL}},
};
#define RULES (sizeof rules / sizeof rules[0])

typedef struct {
    size_t end;       /* n, or the first byte that cannot be */
    int complete;     /* not cut inside a character */
    size_t chars;     /* of the valid part */
    uint32_t largest; /* code point */
    uint32_t text[READING_SIZE];
} reading;

static inline int
fits(const rule *r, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i >= r->length || p[i] < r->range[i][0] || p[i] > r->range[i][1]) {
            return 0;
        }
    }
    return 1;
}

static inline void
slow_read(const uint8_t *p, size_t n, reading *out)
{
    size_t start = 0;

    out->end = n;
    out->complete = 1;
    out->chars = 0;
    out->largest = 0;
    while (start < n) {
        size_t length = 0;
        for (size_t have = 1; !length; have++) {
            if (start + have > n) {
                out->complete = 0;
                return;
            }
            int possible = 0;
            for (size_t r = 0; r < RULES; r++) {
                if (fits(&rules[r], p + start, have)) {
                    possible = 1;
                    length = rules[r].length == have ? have : 0;
                    break;
                }
            }
            if (!possible) {
                out->end = start + have - 1;
                out->complete = 0;
                return;
            }
        }
        uint32_t point = length == 1 ? p[start] : p[start] & (0x7fU >> length);
        for (size_t i = 1; i < length; i++) {
            point = point * 64 + (p[start + i] & 63U);
        }
        out->text[out->chars++] = point;
        out->largest = point > out->largest ? point : out->largest;
        start += length;
    }
}

static inline size_t
encode(uint8_t *p, uint32_t point)
{
    if (point < 0x80) {
        p[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        p[0] = (uint8_t)(0xc0 | point >> 6);
        p[1] = (uint8_t)(0x80 | (point & 63));
        return 2;
    }
    if (point < 0x10000) {
        p[0] = (uint8_t)(0xe0 | point >> 12);
        p[1] = (uint8_t)(0x80 | (point >> 6 & 63));
        p[2] = (uint8_t)(0x80 | (point & 63));
        return 3;
    }
    p[0] = (uint8_t)(0xf0 | point >> 18);
    p[1] = (uint8_t)(0x80 | (point >> 12 & 63));
    p[2] = (uint8_t)(0x80 | (point >> 6 & 63));
    p[3] = (uint8_t)(0x80 | (point & 63));
    return 4;
}

static inline uint32_t
class_of(uint32_t largest)
{
    return largest < 0x80      ? 0x7f
           : largest < 0x100   ? 0xff
           : largest < 0x10000 ? 0xffff
                               : 0x10ffff;
}

#undef TAIL
#endif
