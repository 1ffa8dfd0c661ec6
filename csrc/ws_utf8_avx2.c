/* UTF-8 with AVX2.
 *
 * The same as ws_utf8_v128.h, 32 bytes at a time.  Decoding computes, at each
 * byte, the character that would end there, and closes up those that do; what
 * is stored goes by 128 bits, as it is of no fixed size.
 */
#include "ws_platform.h"

#if WS_X86

#include <immintrin.h>

#include "ws_utf8_pack.h"
#include "ws_utf8_pairs.h"
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

/* Constants, set up once for each loop. */
typedef struct marks {
    __m256i x03, x08, x0f, x1c, x60, x70, x7f, x80, xc0;
    __m256i tables[3];
} marks;

static WS_INLINE WS_ATTRIBUTE __m256i
mark(unsigned byte)
{
    __m256i v = _mm256_set1_epi8((char)byte);
    WS_OPAQUE(v);
    return v;
}

static WS_INLINE WS_ATTRIBUTE __m256i
table(const uint8_t *p)
{
    __m256i v = _mm256_broadcastsi128_si256(load128(p));
    WS_OPAQUE(v);
    return v;
}

static WS_INLINE WS_ATTRIBUTE marks
marks_made(void)
{
    static const uint8_t tables[3][16] = {
        {FIRST_UPPER}, {FIRST_LOWER}, {SECOND_UPPER}};
    marks k;

    k.x03 = mark(0x03);
    k.x08 = mark(0x08);
    k.x0f = mark(0x0f);
    k.x1c = mark(0x1c);
    k.x60 = mark(0xe0 - 0x80);
    k.x70 = mark(0xf0 - 0x80);
    k.x7f = mark(0x7f);
    k.x80 = mark(THIRD);
    k.xc0 = mark(0xc0);
    k.tables[0] = table(tables[0]);
    k.tables[1] = table(tables[1]);
    k.tables[2] = table(tables[2]);
    return k;
}

/* Which bytes are continuations?  As signed numbers they are the least. */
static WS_INLINE WS_ATTRIBUTE __m256i
more256(const marks *k, __m256i v)
{
    return _mm256_cmpgt_epi8(k->xc0, v);
}

static WS_INLINE WS_ATTRIBUTE void
store128(void *p, __m128i v)
{
    _mm_storeu_si128((__m128i *)p, v);
}

/* Validation ------------------------------------------------------------- */

enum { FLUSH = 120 }; /* blocks, of 2 vectors, that fit into a byte's count */

typedef struct gather {
    __m256i top;
    __m256i more; /* how many continuations, by column, since the last flush */
    __m256i extra;
} gather;

static WS_INLINE WS_ATTRIBUTE gather
gather_none(void)
{
    gather g;
    g.top = _mm256_setzero_si256();
    g.more = _mm256_setzero_si256();
    g.extra = _mm256_setzero_si256();
    return g;
}

static WS_INLINE WS_ATTRIBUTE void
gather_flush(gather *g)
{
    g->extra = _mm256_add_epi64(
        g->extra, _mm256_sad_epu8(g->more, _mm256_setzero_si256()));
    g->more = _mm256_setzero_si256();
}

static WS_INLINE WS_ATTRIBUTE void
gather_tally(gather *g, tally *t)
{
    gather_flush(g);
    const __m128i sums = _mm_add_epi64(_mm256_castsi256_si128(g->extra),
                                       _mm256_extracti128_si256(g->extra, 1));
    const __m128i top = _mm_max_epu8(_mm256_castsi256_si128(g->top),
                                     _mm256_extracti128_si256(g->top, 1));
    uint64_t extra[2];
    uint8_t bytes[16];

    memcpy(extra, &sums, sizeof extra);
    memcpy(bytes, &top, sizeof bytes);
    t->extra += (size_t)(extra[0] + extra[1]);
    for (size_t i = 0; i < sizeof bytes; i++) {
        t->top = bytes[i] > t->top ? bytes[i] : t->top;
    }
}

static WS_INLINE WS_ATTRIBUTE int
block_is_ascii(const uint8_t *p)
{
    return _mm256_movemask_epi8(_mm256_max_epu8(load256(p), load256(p + 32)))
           == 0;
}

static WS_INLINE WS_ATTRIBUTE int
pair_is_ascii(const uint8_t *p)
{
    return _mm256_movemask_epi8(load256(p)) == 0;
}

static WS_INLINE WS_ATTRIBUTE __m256i
lower_half(const marks *k, __m256i v)
{
    return _mm256_and_si256(v, k->x0f);
}

static WS_INLINE WS_ATTRIBUTE __m256i
upper_half(const marks *k, __m256i v)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), k->x0f);
}

/* Nonzero at each byte of p[0] to p[31] that cannot be, given p[-3] to p[-1]. */
static WS_INLINE WS_ATTRIBUTE __m256i
mistakes(const marks *k, const uint8_t *p, __m256i here)
{
    const __m256i before = load256(p - 1);
    const __m256i pair = _mm256_and_si256(
        _mm256_and_si256(
            _mm256_shuffle_epi8(k->tables[0], upper_half(k, before)),
            _mm256_shuffle_epi8(k->tables[1], lower_half(k, before))),
        _mm256_shuffle_epi8(k->tables[2], upper_half(k, here)));
    /* The top bit is set by a subtraction that stops at zero. */
    const __m256i due =
        _mm256_or_si256(_mm256_subs_epu8(load256(p - 2), k->x60),
                        _mm256_subs_epu8(load256(p - 3), k->x70));

    return _mm256_xor_si256(pair, _mm256_and_si256(due, k->x80));
}

static WS_INLINE WS_ATTRIBUTE int
block_is_bad(const marks *k, const uint8_t *p, gather *g)
{
    const __m256i a = load256(p);
    const __m256i b = load256(p + 32);
    __m256i wrong = mistakes(k, p, a);

    g->top = _mm256_max_epu8(g->top, _mm256_max_epu8(a, b));
    g->more = _mm256_sub_epi8(g->more, more256(k, a));
    WS_AS_WRITTEN(); /* both at once would not fit into the registers */
    wrong = _mm256_or_si256(wrong, mistakes(k, p + 32, b));
    g->more = _mm256_sub_epi8(g->more, more256(k, b));
    return !_mm256_testz_si256(wrong, wrong);
}

/* Decoding --------------------------------------------------------------- */

/* Which bytes of p[0] to p[31] end a character: a bit for each. */
static WS_INLINE WS_ATTRIBUTE uint32_t
ends(const marks *k, const uint8_t *p)
{
    return ~(uint32_t)_mm256_movemask_epi8(more256(k, load256(p + 1)));
}

static WS_INLINE WS_ATTRIBUTE unsigned
ws_popcount(uint32_t m)
{
    return (unsigned)_mm_popcnt_u32(m);
}

static WS_INLINE WS_ATTRIBUTE __m128i
row16(uint32_t byte)
{
    return load128(ws_utf8_pack16[byte]);
}

/* The low byte of the character that ends at each byte. */
static WS_INLINE WS_ATTRIBUTE __m256i
low_bytes(const marks *k, __m256i last, __m256i previous)
{
    return _mm256_or_si256(
        _mm256_and_si256(last, k->x7f),
        _mm256_and_si256(_mm256_slli_epi16(previous, 6), k->xc0));
}

/* Its second byte. */
static WS_INLINE WS_ATTRIBUTE __m256i
high_bytes(const marks *k, __m256i previous, __m256i second)
{
    return _mm256_or_si256(
        _mm256_and_si256(_mm256_srli_epi16(previous, 2), k->x0f),
        _mm256_andnot_si256(k->x0f, _mm256_slli_epi16(second, 4)));
}

static WS_INLINE WS_ATTRIBUTE __m128i
row8(uint32_t byte)
{
    return _mm_loadl_epi64((const __m128i *)(const void *)ws_utf8_pack8[byte]);
}

/* The bytes from `from` on, 0 or 8. */
static WS_INLINE WS_ATTRIBUTE void
store1(uint8_t *dst, __m128i low, __m128i from, uint32_t end)
{
    const __m128i row = _mm_add_epi8(row8(end & 0xff), from);
    _mm_storel_epi64((__m128i *)(void *)dst, _mm_shuffle_epi8(low, row));
}

static WS_INLINE WS_ATTRIBUTE uint8_t *
pair1(const marks *k, uint8_t *dst, const uint8_t *p, uint32_t end)
{
    const __m256i last = load256(p);
    const __m256i previous =
        _mm256_and_si256(load256(p - 1), more256(k, last));
    const __m256i low = low_bytes(k, last, previous);

    const __m128i a = _mm256_castsi256_si128(low);
    const __m128i b = _mm256_extracti128_si256(low, 1);
    const __m128i lower = _mm_setzero_si128();
    const __m128i upper = _mm256_castsi256_si128(k->x08);

    store1(dst, a, lower, end);
    store1(dst + ws_popcount(end & 0xff), a, upper, end >> 8);
    store1(dst + ws_popcount(end & 0xffff), b, lower, end >> 16);
    store1(dst + ws_popcount(end & 0xffffff), b, upper, end >> 24);
    return dst + ws_popcount(end);
}

static WS_INLINE WS_ATTRIBUTE void
store2(uint16_t *dst, __m128i units, uint32_t end)
{
    store128(dst, _mm_shuffle_epi8(units, row16(end & 0xff)));
}

static WS_INLINE WS_ATTRIBUTE uint16_t *
pair2(const marks *k, uint16_t *dst, const uint8_t *p, uint32_t end)
{
    const __m256i last = load256(p);
    const __m256i before = load256(p - 1);
    const __m256i is_more = more256(k, last);
    const __m256i previous = _mm256_and_si256(before, is_more);
    const __m256i second = _mm256_and_si256(
        load256(p - 2), _mm256_and_si256(is_more, more256(k, before)));
    const __m256i low = low_bytes(k, last, previous);
    const __m256i high = high_bytes(k, previous, second);
    const __m256i a = _mm256_unpacklo_epi8(low, high); /* 0 to 7, 16 to 23 */
    const __m256i b = _mm256_unpackhi_epi8(low, high); /* 8 to 15, 24 to 31 */

    store2(dst, _mm256_castsi256_si128(a), end);
    store2(dst + ws_popcount(end & 0xff), _mm256_castsi256_si128(b), end >> 8);
    store2(dst + ws_popcount(end & 0xffff), _mm256_extracti128_si256(a, 1),
           end >> 16);
    store2(dst + ws_popcount(end & 0xffffff), _mm256_extracti128_si256(b, 1),
           end >> 24);
    return dst + ws_popcount(end);
}

static WS_INLINE WS_ATTRIBUTE void
store4(uint32_t *dst, __m128i lower, __m128i upper, uint32_t end)
{
    const __m128i row = row16(end & 0xff);

    lower = _mm_shuffle_epi8(lower, row);
    upper = _mm_shuffle_epi8(upper, row);
    store128(dst, _mm_unpacklo_epi16(lower, upper));
    store128(dst + 4, _mm_unpackhi_epi16(lower, upper));
}

static WS_INLINE WS_ATTRIBUTE uint32_t *
pair4(const marks *k, uint32_t *dst, const uint8_t *p, uint32_t end)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i last = load256(p);
    const __m256i before = load256(p - 1);
    const __m256i before2 = load256(p - 2);
    const __m256i is_more = more256(k, last);
    const __m256i is_third = _mm256_and_si256(is_more, more256(k, before));
    const __m256i is_fourth = _mm256_and_si256(is_third, more256(k, before2));
    const __m256i previous = _mm256_and_si256(before, is_more);
    const __m256i second = _mm256_and_si256(before2, is_third);
    const __m256i low = low_bytes(k, last, previous);
    const __m256i high = high_bytes(k, previous, second);
    const __m256i top = _mm256_and_si256(
        is_fourth,
        _mm256_or_si256(
            _mm256_and_si256(_mm256_srli_epi16(second, 4), k->x03),
            _mm256_and_si256(_mm256_slli_epi16(load256(p - 3), 2), k->x1c)));
    const __m256i a = _mm256_unpacklo_epi8(low, high);
    const __m256i b = _mm256_unpackhi_epi8(low, high);
    const __m256i c = _mm256_unpacklo_epi8(top, zero);
    const __m256i d = _mm256_unpackhi_epi8(top, zero);

    store4(dst, _mm256_castsi256_si128(a), _mm256_castsi256_si128(c), end);
    store4(dst + ws_popcount(end & 0xff), _mm256_castsi256_si128(b),
           _mm256_castsi256_si128(d), end >> 8);
    store4(dst + ws_popcount(end & 0xffff), _mm256_extracti128_si256(a, 1),
           _mm256_extracti128_si256(c, 1), end >> 16);
    store4(dst + ws_popcount(end & 0xffffff), _mm256_extracti128_si256(b, 1),
           _mm256_extracti128_si256(d, 1), end >> 24);
    return dst + ws_popcount(end);
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

#include "ws_utf8_runs_x86.h"

#include "ws_utf8_body.h"

#endif /* WS_X86 */
