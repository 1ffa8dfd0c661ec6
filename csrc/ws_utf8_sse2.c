/* UTF-8 with SSE2, which every x86-64 CPU has.
 *
 * There is no byte shuffle, so validation compares: which bytes are due to be
 * continuations, and which seconds are out of their lead's range.  Decoding
 * has vectors only for stretches of ASCII.
 */
#include "ws_platform.h"

#if WS_X86

#include <emmintrin.h>

#include "ws_utf8_step.h"
#include "ws_variants.h"

#define WS_ISA sse2
#define WS_ATTRIBUTE
#define WS_WINDOWS 0

static WS_INLINE __m128i
load128(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static WS_INLINE __m128i
repeat128(unsigned byte)
{
    return _mm_set1_epi8((char)byte);
}

static WS_INLINE __m128i
equals(__m128i v, unsigned byte)
{
    return _mm_cmpeq_epi8(v, repeat128(byte));
}

/* As unsigned numbers. */
static WS_INLINE __m128i
is_at_least(__m128i v, unsigned byte)
{
    return _mm_cmpeq_epi8(_mm_max_epu8(v, repeat128(byte)), v);
}

/* There are more constants than registers: leave them to the compiler. */
typedef struct marks {
    char none;
} marks;

static WS_INLINE marks
marks_made(void)
{
    const marks k = {0};
    return k;
}

typedef struct gather {
    __m128i top;
    __m128i more;  /* how many continuations, by column */
    __m128i extra; /* two sums */
} gather;

enum { FLUSH = 60 }; /* blocks, of 4 vectors, that fit into a byte's count */

static WS_INLINE gather
gather_none(void)
{
    gather g;
    g.top = _mm_setzero_si128();
    g.more = _mm_setzero_si128();
    g.extra = _mm_setzero_si128();
    return g;
}

static WS_INLINE void
gather_flush(gather *g)
{
    g->extra =
        _mm_add_epi64(g->extra, _mm_sad_epu8(g->more, _mm_setzero_si128()));
    g->more = _mm_setzero_si128();
}

static WS_INLINE void
gather_tally(gather *g, tally *t)
{
    uint8_t top[16];
    uint64_t extra[2];

    gather_flush(g);
    memcpy(top, &g->top, sizeof top);
    memcpy(extra, &g->extra, sizeof extra);
    for (size_t i = 0; i < sizeof top; i++) {
        if (top[i] > t->top) {
            t->top = top[i];
        }
    }
    t->extra += (size_t)(extra[0] + extra[1]);
}

static WS_INLINE int
block_is_ascii(const uint8_t *p)
{
    const __m128i a = _mm_or_si128(load128(p), load128(p + 16));
    const __m128i b = _mm_or_si128(load128(p + 32), load128(p + 48));
    return _mm_movemask_epi8(_mm_or_si128(a, b)) == 0;
}

/* Nonzero at each byte of p[0] to p[15] that cannot be, given p[-3] to p[-1].
 * *more is -1 at each continuation. */
static WS_INLINE __m128i
mistakes(const uint8_t *p, __m128i here, __m128i *more)
{
    const __m128i before = load128(p - 1);
    const __m128i due =
        _mm_or_si128(is_at_least(before, 0xc0),
                     _mm_or_si128(is_at_least(load128(p - 2), 0xe0),
                                  is_at_least(load128(p - 3), 0xf0)));
    const __m128i is_more = _mm_cmplt_epi8(here, repeat128(0xc0));
    const __m128i is_a0 = is_at_least(here, 0xa0);
    const __m128i is_90 = is_at_least(here, 0x90);
    __m128i wrong = _mm_xor_si128(is_more, due);

    wrong = _mm_or_si128(wrong, equals(_mm_and_si128(here, repeat128(0xfe)),
                                       0xc0)); /* C0, C1 */
    wrong = _mm_or_si128(wrong, is_at_least(here, 0xf5));
    wrong = _mm_or_si128(wrong, _mm_andnot_si128(is_a0, equals(before, 0xe0)));
    wrong = _mm_or_si128(wrong, _mm_and_si128(is_a0, equals(before, 0xed)));
    wrong = _mm_or_si128(wrong, _mm_andnot_si128(is_90, equals(before, 0xf0)));
    wrong = _mm_or_si128(wrong, _mm_and_si128(is_90, equals(before, 0xf4)));
    *more = is_more;
    return wrong;
}

static WS_INLINE int
block_is_bad(const marks *k, const uint8_t *p, gather *g)
{
    __m128i wrong = _mm_setzero_si128();

    (void)k;
    for (size_t i = 0; i < 64; i += 16) {
        const __m128i here = load128(p + i);
        __m128i more;
        wrong = _mm_or_si128(wrong, mistakes(p + i, here, &more));
        g->more = _mm_sub_epi8(g->more, more);
        g->top = _mm_max_epu8(g->top, here);
    }
    return _mm_movemask_epi8(_mm_cmpeq_epi8(wrong, _mm_setzero_si128()))
           != 0xffff;
}

#include "ws_utf8_body.h"

/* Decoding --------------------------------------------------------------- */

static WS_INLINE void
widen1(uint8_t *dst, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)dst, v);
}

static WS_INLINE void
widen2(uint16_t *dst, __m128i v)
{
    const __m128i zero = _mm_setzero_si128();
    _mm_storeu_si128((__m128i *)(void *)dst, _mm_unpacklo_epi8(v, zero));
    _mm_storeu_si128((__m128i *)(void *)(dst + 8), _mm_unpackhi_epi8(v, zero));
}

static WS_INLINE void
widen4(uint32_t *dst, __m128i v)
{
    const __m128i zero = _mm_setzero_si128();
    const __m128i lower = _mm_unpacklo_epi8(v, zero);
    const __m128i upper = _mm_unpackhi_epi8(v, zero);
    __m128i *out = (__m128i *)(void *)dst;
    _mm_storeu_si128(out, _mm_unpacklo_epi16(lower, zero));
    _mm_storeu_si128(out + 1, _mm_unpackhi_epi16(lower, zero));
    _mm_storeu_si128(out + 2, _mm_unpacklo_epi16(upper, zero));
    _mm_storeu_si128(out + 3, _mm_unpackhi_epi16(upper, zero));
}

/* All of 16 bytes become units though only the first of them may be ASCII:
 * what is wrong is written over later.  64 bytes are at least 16 characters,
 * so there is room. */
#define DECODE(name, unit, widen, from)                                       \
    void name(unit *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,          \
              size_t n)                                                       \
    {                                                                         \
        size_t i = 0;                                                         \
                                                                              \
        while (n - i >= 64) {                                                 \
            const __m128i v = load128(src + i);                               \
            const uint64_t high = (unsigned)_mm_movemask_epi8(v);             \
            widen(dst, v);                                                    \
            if (high == 0) {                                                  \
                dst += 16;                                                    \
                i += 16;                                                      \
                continue;                                                     \
            }                                                                 \
            const size_t ascii = ws_first_one(high);                          \
            dst += ascii;                                                     \
            i += ascii;                                                       \
            do {                                                              \
                *dst++ = (unit)take(src, &i);                                 \
            } while (i < n && src[i] >= 0x80);                                \
        }                                                                     \
        from(dst, src, i, n);                                                 \
    }

DECODE(ws_utf8_decode1_sse2, uint8_t, widen1, decode1_from)
DECODE(ws_utf8_decode2_sse2, uint16_t, widen2, decode2_from)
DECODE(ws_utf8_decode4_sse2, uint32_t, widen4, decode4_from)

#endif /* WS_X86 */
