/* UTF-8 with AVX2.
 *
 * Validation looks at pairs of neighbouring bytes: three tables, indexed by
 * the halves of the bytes, say which mistakes a pair could be, and what all
 * three agree on is one (the method of Keiser and Lemire, "Validating UTF-8 in
 * less than one instruction per byte", 2020).  Decoding computes, at each
 * byte, the character that would end there, and closes up those that do.
 * Windows use 128-bit registers: what they store is of no fixed size.
 */
#include "ws_platform.h"

#if WS_X86

#include <immintrin.h>

#include "ws_utf8_pack.h"
#include "ws_utf8_step.h"
#include "ws_variants.h"

#define WS_ISA avx2
#define WS_ATTRIBUTE WS_TARGET("avx2,popcnt")
#define WS_WINDOWS 1

static WS_INLINE WS_ATTRIBUTE __m256i
load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static WS_INLINE WS_ATTRIBUTE __m128i
load128(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static WS_INLINE WS_ATTRIBUTE __m256i
repeat256(unsigned byte)
{
    return _mm256_set1_epi8((char)byte);
}

static WS_INLINE WS_ATTRIBUTE __m128i
repeat128(unsigned byte)
{
    return _mm_set1_epi8((char)byte);
}

/* Which bytes are continuations?  As signed numbers they are the least. */
static WS_INLINE WS_ATTRIBUTE __m256i
continuations256(__m256i v)
{
    return _mm256_cmpgt_epi8(repeat256(0xc0), v);
}

static WS_INLINE WS_ATTRIBUTE __m128i
continuations128(__m128i v)
{
    return _mm_cmpgt_epi8(repeat128(0xc0), v);
}

/* Validation ------------------------------------------------------------- */

typedef struct gather {
    __m256i top;
    size_t extra;
} gather;

static WS_INLINE WS_ATTRIBUTE gather
gather_none(void)
{
    gather g;
    g.top = _mm256_setzero_si256();
    g.extra = 0;
    return g;
}

static WS_INLINE WS_ATTRIBUTE void
gather_tally(const gather *g, tally *t)
{
    const __m128i top = _mm_max_epu8(_mm256_castsi256_si128(g->top),
                                     _mm256_extracti128_si256(g->top, 1));
    /* The least of inverted words whose bytes are inverted maxima. */
    const __m128i folded = _mm_max_epu8(top, _mm_srli_epi16(top, 8));
    const __m128i inverted =
        _mm_xor_si128(_mm_and_si128(folded, _mm_set1_epi16(0xff)),
                      _mm_set1_epi16(0xff));
    t->top = (uint8_t)(0xff ^ _mm_cvtsi128_si32(_mm_minpos_epu16(inverted)));
    t->extra += g->extra;
}

static WS_INLINE WS_ATTRIBUTE int
block_is_ascii(const uint8_t *p)
{
    return _mm256_movemask_epi8(
               _mm256_or_si256(load256(p), load256(p + 32)))
           == 0;
}

static WS_INLINE WS_ATTRIBUTE int
pair_is_ascii(const uint8_t *p)
{
    return _mm256_movemask_epi8(load256(p)) == 0;
}

/* The mistakes that a pair of bytes can be.  The last is none by itself. */
enum {
    CUT = 1,        /* lead, then no continuation */
    STRAY = 2,      /* ASCII, then continuation */
    LONG_2 = 4,     /* C0 or C1, then continuation */
    LONG_3 = 8,     /* E0, then below A0 */
    SURROGATE = 16, /* ED, then A0 or above */
    LONG_4 = 32,    /* F0, then below 90; also F5 to FF, then below 90 */
    TOO_LARGE = 64, /* F4, then 90 or above; F5 to FF, then 90 or above */
    THIRD = 128     /* continuation, then continuation */
};
#define FIRST_LOW_ALWAYS (CUT | STRAY | THIRD)

/* By the upper half of the first byte ... */
#define FIRST_HIGH                                                            \
    STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, (char)THIRD,      \
        (char)THIRD, (char)THIRD, (char)THIRD, CUT | LONG_2, CUT,             \
        CUT | LONG_3 | SURROGATE, CUT | LONG_4 | TOO_LARGE
/* ... its lower half ... */
#define LOW(more) (char)(FIRST_LOW_ALWAYS | (more))
#define FIRST_LOW                                                             \
    LOW(LONG_2 | LONG_3 | LONG_4), LOW(LONG_2), LOW(0), LOW(0),               \
        LOW(TOO_LARGE), LOW(TOO_LARGE | LONG_4), LOW(TOO_LARGE | LONG_4),     \
        LOW(TOO_LARGE | LONG_4), LOW(TOO_LARGE | LONG_4),                     \
        LOW(TOO_LARGE | LONG_4), LOW(TOO_LARGE | LONG_4),                     \
        LOW(TOO_LARGE | LONG_4), LOW(TOO_LARGE | LONG_4),                     \
        LOW(TOO_LARGE | LONG_4 | SURROGATE), LOW(TOO_LARGE | LONG_4),         \
        LOW(TOO_LARGE | LONG_4)
/* ... and the upper half of the second byte. */
#define FOLLOW (STRAY | LONG_2 | THIRD)
#define SECOND_HIGH                                                           \
    CUT, CUT, CUT, CUT, CUT, CUT, CUT, CUT, (char)(FOLLOW | LONG_3 | LONG_4), \
        (char)(FOLLOW | LONG_3 | TOO_LARGE),                                  \
        (char)(FOLLOW | SURROGATE | TOO_LARGE),                               \
        (char)(FOLLOW | SURROGATE | TOO_LARGE), CUT, CUT, CUT, CUT

/* Nonzero at each byte of p[0] to p[31] that cannot be, given p[-3] to p[-1]. */
static WS_INLINE WS_ATTRIBUTE __m256i
mistakes(const uint8_t *p, __m256i here)
{
    const __m256i first_high = _mm256_setr_epi8(FIRST_HIGH, FIRST_HIGH);
    const __m256i first_low = _mm256_setr_epi8(FIRST_LOW, FIRST_LOW);
    const __m256i second_high = _mm256_setr_epi8(SECOND_HIGH, SECOND_HIGH);
    const __m256i half = repeat256(0x0f);
    const __m256i before = load256(p - 1);
    const __m256i pair = _mm256_and_si256(
        _mm256_and_si256(
            _mm256_shuffle_epi8(
                first_high,
                _mm256_and_si256(_mm256_srli_epi16(before, 4), half)),
            _mm256_shuffle_epi8(first_low, _mm256_and_si256(before, half))),
        _mm256_shuffle_epi8(
            second_high, _mm256_and_si256(_mm256_srli_epi16(here, 4), half)));
    /* A third or fourth byte is due exactly where THIRD was found.  The top
     * bit is set by a subtraction that stops at zero. */
    const __m256i due = _mm256_or_si256(
        _mm256_subs_epu8(load256(p - 2), repeat256(0xe0 - 0x80)),
        _mm256_subs_epu8(load256(p - 3), repeat256(0xf0 - 0x80)));
    return _mm256_xor_si256(pair, _mm256_and_si256(due, repeat256(THIRD)));
}

static WS_INLINE WS_ATTRIBUTE int
block_is_bad(const uint8_t *p, gather *g)
{
    const __m256i a = load256(p);
    const __m256i b = load256(p + 32);
    const __m256i wrong =
        _mm256_or_si256(mistakes(p, a), mistakes(p + 32, b));
    const unsigned in_a = (unsigned)_mm256_movemask_epi8(continuations256(a));
    const unsigned in_b = (unsigned)_mm256_movemask_epi8(continuations256(b));

    g->top = _mm256_max_epu8(g->top, _mm256_max_epu8(a, b));
    g->extra += (unsigned)_mm_popcnt_u32(in_a);
    g->extra += (unsigned)_mm_popcnt_u32(in_b);
    return !_mm256_testz_si256(wrong, wrong);
}

/* Decoding --------------------------------------------------------------- */

/* Which bytes of p[0] to p[15] end a character: a bit for each. */
static WS_INLINE WS_ATTRIBUTE unsigned
ends(const uint8_t *p)
{
    const __m128i c = continuations128(load128(p + 1));
    return ~(unsigned)_mm_movemask_epi8(c) & 0xffff;
}

static WS_INLINE WS_ATTRIBUTE __m128i
pack_row(unsigned which)
{
    return _mm_loadl_epi64((const __m128i *)(const void *)ws_utf8_pack[which]);
}

static WS_INLINE WS_ATTRIBUTE __m128i
pack_row_upper(unsigned which)
{
    return _mm_add_epi8(pack_row(which), repeat128(8));
}

/* The low byte of the character that ends at each byte. */
static WS_INLINE WS_ATTRIBUTE __m128i
low_bytes(__m128i last, __m128i previous)
{
    return _mm_or_si128(
        _mm_and_si128(last, repeat128(0x7f)),
        _mm_and_si128(_mm_slli_epi16(previous, 6), repeat128(0xc0)));
}

/* Its second byte. */
static WS_INLINE WS_ATTRIBUTE __m128i
high_bytes(__m128i previous, __m128i second)
{
    return _mm_or_si128(
        _mm_and_si128(_mm_srli_epi16(previous, 2), repeat128(0x0f)),
        _mm_and_si128(_mm_slli_epi16(second, 4), repeat128(0xf0)));
}

static WS_INLINE WS_ATTRIBUTE uint8_t *
window1(uint8_t *dst, const uint8_t *p)
{
    const __m128i last = load128(p);
    const __m128i previous =
        _mm_and_si128(load128(p - 1), continuations128(last));
    const __m128i low = low_bytes(last, previous);
    const unsigned end = ends(p);

    _mm_storel_epi64((__m128i *)(void *)dst,
                     _mm_shuffle_epi8(low, pack_row(end & 0xff)));
    dst += _mm_popcnt_u32(end & 0xff);
    _mm_storel_epi64((__m128i *)(void *)dst,
                     _mm_shuffle_epi8(low, pack_row_upper(end >> 8)));
    return dst + _mm_popcnt_u32(end >> 8);
}

static WS_INLINE WS_ATTRIBUTE void
store2(uint16_t *dst, __m128i low, __m128i high, __m128i row)
{
    _mm_storeu_si128((__m128i *)(void *)dst,
                     _mm_unpacklo_epi8(_mm_shuffle_epi8(low, row),
                                       _mm_shuffle_epi8(high, row)));
}

static WS_INLINE WS_ATTRIBUTE uint16_t *
window2(uint16_t *dst, const uint8_t *p)
{
    const __m128i last = load128(p);
    const __m128i before = load128(p - 1);
    const __m128i is_more = continuations128(last);
    const __m128i previous = _mm_and_si128(
        _mm_and_si128(before, repeat128(0x3f)), is_more);
    const __m128i second =
        _mm_and_si128(_mm_and_si128(load128(p - 2), is_more),
                      continuations128(before));
    const __m128i low = low_bytes(last, previous);
    const __m128i high = high_bytes(previous, second);
    const unsigned end = ends(p);

    store2(dst, low, high, pack_row(end & 0xff));
    dst += _mm_popcnt_u32(end & 0xff);
    store2(dst, low, high, pack_row_upper(end >> 8));
    return dst + _mm_popcnt_u32(end >> 8);
}

static WS_INLINE WS_ATTRIBUTE void
store4(uint32_t *dst, __m128i low, __m128i high, __m128i top, __m128i row)
{
    const __m128i lower = _mm_unpacklo_epi8(_mm_shuffle_epi8(low, row),
                                            _mm_shuffle_epi8(high, row));
    const __m128i upper = _mm_cvtepu8_epi16(_mm_shuffle_epi8(top, row));

    _mm_storeu_si128((__m128i *)(void *)dst, _mm_unpacklo_epi16(lower, upper));
    _mm_storeu_si128((__m128i *)(void *)(dst + 4),
                     _mm_unpackhi_epi16(lower, upper));
}

static WS_INLINE WS_ATTRIBUTE uint32_t *
window4(uint32_t *dst, const uint8_t *p)
{
    const __m128i last = load128(p);
    const __m128i before = load128(p - 1);
    const __m128i before2 = load128(p - 2);
    const __m128i is_more = continuations128(last);
    const __m128i is_third = _mm_and_si128(is_more, continuations128(before));
    const __m128i is_fourth =
        _mm_and_si128(is_third, continuations128(before2));
    const __m128i previous = _mm_and_si128(
        _mm_and_si128(before, repeat128(0x3f)), is_more);
    const __m128i second = _mm_and_si128(before2, is_third);
    const __m128i low = low_bytes(last, previous);
    const __m128i high = high_bytes(previous, second);
    const __m128i top = _mm_and_si128(
        is_fourth,
        _mm_or_si128(
            _mm_and_si128(_mm_srli_epi16(second, 4), repeat128(0x03)),
            _mm_and_si128(_mm_slli_epi16(load128(p - 3), 2),
                          repeat128(0x1c))));
    const unsigned end = ends(p);

    store4(dst, low, high, top, pack_row(end & 0xff));
    dst += _mm_popcnt_u32(end & 0xff);
    store4(dst, low, high, top, pack_row_upper(end >> 8));
    return dst + _mm_popcnt_u32(end >> 8);
}

static WS_INLINE WS_ATTRIBUTE void
widen1(uint8_t *dst, const uint8_t *p)
{
    memcpy(dst, p, 32);
}

static WS_INLINE WS_ATTRIBUTE void
widen2(uint16_t *dst, const uint8_t *p)
{
    for (size_t i = 0; i < 32; i += 16) {
        _mm256_storeu_si256((__m256i *)(void *)(dst + i),
                            _mm256_cvtepu8_epi16(load128(p + i)));
    }
}

static WS_INLINE WS_ATTRIBUTE void
widen4(uint32_t *dst, const uint8_t *p)
{
    for (size_t i = 0; i < 32; i += 8) {
        const __m128i some =
            _mm_loadl_epi64((const __m128i *)(const void *)(p + i));
        _mm256_storeu_si256((__m256i *)(void *)(dst + i),
                            _mm256_cvtepu8_epi32(some));
    }
}

#include "ws_utf8_body.h"

#endif /* WS_X86 */
