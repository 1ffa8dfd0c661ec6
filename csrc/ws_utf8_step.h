/* UTF-8, one character at a time: what all variants share.  Internal. */
#ifndef WS_UTF8_STEP_H
#define WS_UTF8_STEP_H

#include "ws_utf8.h"

/* Are the 8 bytes at p all below 0x80? */
static WS_INLINE int
is_ascii8(const uint8_t *p)
{
    return (ws_load64(p) & WS_HIGH_BITS) == 0;
}

static WS_INLINE int
is_continuation(uint8_t b)
{
    return (b & 0xc0) == 0x80;
}

/* Advance by one byte.  Returns 0 if the byte cannot be. */
static WS_INLINE int
step(ws_utf8_state *st, uint8_t b)
{
    if (st->need) {
        if (b < st->low || b > st->high) {
            return 0;
        }
        st->need--;
        st->low = 0x80;
        st->high = 0xbf;
        return 1;
    }
    if (b < 0x80) {
        return 1;
    }
    if (b < 0xc2 || b > 0xf4) {
        return 0;
    }
    st->need = b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
    st->low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    st->high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    return 1;
}

/* What a scan gathers. */
typedef struct tally {
    size_t extra; /* continuation bytes (of a valid text) */
    uint8_t top;  /* the largest byte */
} tally;

/* Validate from a character's start to n.  Returns n, with st telling where
 * the text stands; or the index of the first byte that cannot be. */
static WS_INLINE size_t
check_from(ws_utf8_state *st, const uint8_t *data, size_t i, size_t n,
           tally *t)
{
    while (n - i >= 4) {
        const uint8_t b = data[i];
        if (b < 0x80) {
            i++;
            while (n - i >= 8) {
                const size_t ascii = ws_first_high(ws_load64(data + i));
                i += ascii;
                if (ascii < 8) {
                    break;
                }
            }
            continue;
        }
        if (b > t->top) {
            t->top = b;
        }
        if (b < 0xe0) {
            if (b < 0xc2) {
                return i;
            }
            if (!is_continuation(data[i + 1])) {
                return i + 1;
            }
            t->extra += 1;
            i += 2;
            continue;
        }
        if (b > 0xf4) {
            return i;
        }
        st->low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
        st->high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
        if (data[i + 1] < st->low || data[i + 1] > st->high) {
            return i + 1;
        }
        if (!is_continuation(data[i + 2])) {
            return i + 2;
        }
        if (b < 0xf0) {
            t->extra += 2;
            i += 3;
            continue;
        }
        if (!is_continuation(data[i + 3])) {
            return i + 3;
        }
        t->extra += 3;
        i += 4;
    }
    memset(st, 0, sizeof *st);
    for (; i < n; i++) {
        if (!step(st, data[i])) {
            return i;
        }
        if (data[i] > t->top) {
            t->top = data[i];
        }
        t->extra += is_continuation(data[i]) ? 1 : 0;
    }
    return n;
}

/* Take the bytes that end a character begun in an earlier piece.  Returns how
 * many there were; *bad is set if one of them cannot be (at that index). */
static WS_INLINE size_t
finish_character(ws_utf8_state *st, const uint8_t *data, size_t n, int *bad)
{
    size_t i = 0;

    *bad = 0;
    while (st->need && i < n) {
        if (!step(st, data[i])) {
            *bad = 1;
            return i;
        }
        i++;
    }
    return i;
}

/* What a scan answers, given what the last check_from() returned. */
static WS_INLINE size_t
conclude(const ws_utf8_state *st, size_t end, size_t n, const tally *t,
         ws_utf8_info *info)
{
    info->chars = end == n && st->need ? SIZE_MAX : n - t->extra;
    info->max_char = t->top < 0x80   ? 0x7f
                     : t->top < 0xc4 ? 0xff
                     : t->top < 0xf0 ? 0xffff
                                     : 0x10ffff;
    return end;
}

/* The character at *i of a valid text; moves *i behind it. */
static WS_INLINE uint32_t
take(const uint8_t *src, size_t *i)
{
    const uint8_t *p = src + *i;

    if (p[0] < 0x80) {
        *i += 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *i += 2;
        return (p[0] & 0x1fU) << 6 | (p[1] & 0x3fU);
    }
    if (p[0] < 0xf0) {
        *i += 3;
        return (p[0] & 0x0fU) << 12 | (p[1] & 0x3fU) << 6 | (p[2] & 0x3fU);
    }
    *i += 4;
    return (p[0] & 0x07U) << 18 | (p[1] & 0x3fU) << 12 | (p[2] & 0x3fU) << 6
           | (p[3] & 0x3fU);
}

/* Decode the characters from i to n, without vectors.  Of 8 bytes, all become
 * units though only the first of them may be ASCII: what is wrong is written
 * over later.  32 bytes are at least 8 characters, so there is room. */
#define WS_UTF8_DECODE_FROM(name, unit)                                       \
    static WS_INLINE void name(unit *WS_RESTRICT dst,                         \
                               const uint8_t *WS_RESTRICT src, size_t i,      \
                               size_t n)                                      \
    {                                                                         \
        while (n - i >= 32) {                                                 \
            const size_t ascii = ws_first_high(ws_load64(src + i));           \
            for (size_t k = 0; k < 8; k++) {                                  \
                dst[k] = src[i + k];                                          \
            }                                                                 \
            dst += ascii;                                                     \
            i += ascii;                                                       \
            if (ascii < 8) {                                                  \
                do {                                                          \
                    *dst++ = (unit)take(src, &i);                             \
                } while (i < n && src[i] >= 0x80);                            \
            }                                                                 \
        }                                                                     \
        while (i < n) {                                                       \
            *dst++ = (unit)take(src, &i);                                     \
        }                                                                     \
    }

WS_UTF8_DECODE_FROM(decode1_from, uint8_t)
WS_UTF8_DECODE_FROM(decode2_from, uint16_t)
WS_UTF8_DECODE_FROM(decode4_from, uint32_t)

#endif
