/* Masking, four variants.
 *
 * All of them: a block at each end of the buffer is loaded before anything is
 * stored and stored after everything else; between the two runs a loop over
 * whole blocks.  The blocks at the ends may overlap the loop's, which does no
 * harm, as both write the same values.  So there is no loop over a tail, and
 * one body serves copying (no overlap) and in place (dst == src).
 *
 * The key is one 32-bit word in memory order, turned so that its first byte
 * meets the first byte of the block.
 */
#include "ws_mask.h"

#include "ws_variants.h"

#if WS_X86
#include <immintrin.h>
#endif
#if WS_ARM64
#include <arm_neon.h>
#endif

/* The key as it applies from `phase` on.  The shift is of a doubled key, so
 * that a shift by 0 needs no special case. */
static WS_INLINE uint32_t
turn_key(uint32_t key, size_t phase)
{
    const uint64_t twice = (uint64_t)key << 32 | key;
    const unsigned bits = 8 * (unsigned)(phase & 3);

#if WS_BIG_ENDIAN
    return (uint32_t)(twice << bits >> 32);
#else
    return (uint32_t)(twice >> bits);
#endif
}

static WS_INLINE uint64_t
widen_key(uint32_t key)
{
    return (uint64_t)key << 32 | key;
}

/* n < 16.  Returns nonzero iff an output byte is 0x80 or above. */
static WS_INLINE unsigned
mask_short(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n >= 8) {
        const uint64_t a = ws_load64(src) ^ widen_key(key);
        const uint64_t b =
            ws_load64(src + n - 8) ^ widen_key(turn_key(key, n));
        ws_store64(dst, a);
        ws_store64(dst + n - 8, b);
        return ((a | b) & WS_HIGH_BITS) != 0;
    }
    if (n >= 4) {
        const uint32_t a = ws_load32(src) ^ key;
        const uint32_t b = ws_load32(src + n - 4) ^ turn_key(key, n);
        ws_store32(dst, a);
        ws_store32(dst + n - 4, b);
        return ((a | b) & (uint32_t)WS_HIGH_BITS) != 0;
    }
    unsigned seen = 0;
    uint8_t k[4];
    memcpy(k, &key, 4);
    for (size_t i = 0; i < n; i++) {
        const uint8_t b = (uint8_t)(src[i] ^ k[i]);
        dst[i] = b;
        seen |= b;
    }
    return seen & 0x80;
}

static WS_INLINE unsigned
mask_scalar(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key4[4],
            size_t phase)
{
    const uint32_t key = turn_key(ws_load32(key4), phase);
    if (n < 16) {
        return mask_short(dst, src, n, key);
    }
    const uint64_t k = widen_key(key);
    const uint64_t last = ws_load64(src + n - 8) ^ widen_key(turn_key(key, n));
    uint64_t seen = last;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const uint64_t a = ws_load64(src + i) ^ k;
        const uint64_t b = ws_load64(src + i + 8) ^ k;
        const uint64_t c = ws_load64(src + i + 16) ^ k;
        const uint64_t d = ws_load64(src + i + 24) ^ k;
        ws_store64(dst + i, a);
        ws_store64(dst + i + 8, b);
        ws_store64(dst + i + 16, c);
        ws_store64(dst + i + 24, d);
        seen |= (a | b) | (c | d);
    }
    for (; i + 8 <= n; i += 8) {
        const uint64_t a = ws_load64(src + i) ^ k;
        ws_store64(dst + i, a);
        seen |= a;
    }
    ws_store64(dst + n - 8, last);
    return (seen & WS_HIGH_BITS) != 0;
}

#if WS_X86

static WS_INLINE __m128i
load128(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static WS_INLINE void
store128(uint8_t *p, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, v);
}

static WS_INLINE unsigned
mask_sse2(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key4[4],
          size_t phase)
{
    const uint32_t key = turn_key(ws_load32(key4), phase);
    if (n < 16) {
        return mask_short(dst, src, n, key);
    }
    const __m128i k = _mm_set1_epi32((int)key);
    const __m128i last = _mm_xor_si128(load128(src + n - 16),
                                       _mm_set1_epi32((int)turn_key(key, n)));
    __m128i seen = last;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        const __m128i a = _mm_xor_si128(load128(src + i), k);
        const __m128i b = _mm_xor_si128(load128(src + i + 16), k);
        const __m128i c = _mm_xor_si128(load128(src + i + 32), k);
        const __m128i d = _mm_xor_si128(load128(src + i + 48), k);
        store128(dst + i, a);
        store128(dst + i + 16, b);
        store128(dst + i + 32, c);
        store128(dst + i + 48, d);
        seen = _mm_or_si128(
            seen, _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d)));
    }
    for (; i + 16 <= n; i += 16) {
        const __m128i a = _mm_xor_si128(load128(src + i), k);
        store128(dst + i, a);
        seen = _mm_or_si128(seen, a);
    }
    store128(dst + n - 16, last);
    return (unsigned)_mm_movemask_epi8(seen);
}

/* Nothing newer helps before 256-bit registers do. */
#define mask_sse42 mask_sse2

static WS_INLINE WS_TARGET("avx2") __m256i
load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static WS_INLINE WS_TARGET("avx2") void
store256(uint8_t *p, __m256i v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, v);
}

/* From here on it pays to start the loop on a 32-byte boundary of dst. */
#define ALIGN_FROM 512

static WS_INLINE WS_TARGET("avx2") unsigned
mask_avx2(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key4[4],
          size_t phase)
{
    if (n < 32) {
        return mask_sse2(dst, src, n, key4, phase);
    }
    const uint32_t key = turn_key(ws_load32(key4), phase);
    __m256i k = _mm256_set1_epi32((int)key);
    const __m256i first = _mm256_xor_si256(load256(src), k);
    const __m256i last = _mm256_xor_si256(
        load256(src + n - 32), _mm256_set1_epi32((int)turn_key(key, n)));
    __m256i seen = _mm256_or_si256(first, last);
    size_t i = 0;
    if (n >= ALIGN_FROM) {
        i = (0 - (uintptr_t)dst) & 31;
        k = _mm256_set1_epi32((int)turn_key(key, i));
    }
    for (; i + 128 <= n; i += 128) {
        const __m256i a = _mm256_xor_si256(load256(src + i), k);
        const __m256i b = _mm256_xor_si256(load256(src + i + 32), k);
        const __m256i c = _mm256_xor_si256(load256(src + i + 64), k);
        const __m256i d = _mm256_xor_si256(load256(src + i + 96), k);
        store256(dst + i, a);
        store256(dst + i + 32, b);
        store256(dst + i + 64, c);
        store256(dst + i + 96, d);
        seen = _mm256_or_si256(seen, _mm256_or_si256(_mm256_or_si256(a, b),
                                                     _mm256_or_si256(c, d)));
    }
    for (; i + 32 <= n; i += 32) {
        const __m256i a = _mm256_xor_si256(load256(src + i), k);
        store256(dst + i, a);
        seen = _mm256_or_si256(seen, a);
    }
    store256(dst, first);
    store256(dst + n - 32, last);
    return (unsigned)_mm256_movemask_epi8(seen);
}

#endif /* WS_X86 */

#if WS_ARM64

static WS_INLINE unsigned
mask_neon(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key4[4],
          size_t phase)
{
    const uint32_t key = turn_key(ws_load32(key4), phase);
    if (n < 16) {
        return mask_short(dst, src, n, key);
    }
    const uint8x16_t k = vreinterpretq_u8_u32(vdupq_n_u32(key));
    const uint8x16_t last =
        veorq_u8(vld1q_u8(src + n - 16),
                 vreinterpretq_u8_u32(vdupq_n_u32(turn_key(key, n))));
    uint8x16_t seen = last;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        const uint8x16_t a = veorq_u8(vld1q_u8(src + i), k);
        const uint8x16_t b = veorq_u8(vld1q_u8(src + i + 16), k);
        const uint8x16_t c = veorq_u8(vld1q_u8(src + i + 32), k);
        const uint8x16_t d = veorq_u8(vld1q_u8(src + i + 48), k);
        vst1q_u8(dst + i, a);
        vst1q_u8(dst + i + 16, b);
        vst1q_u8(dst + i + 32, c);
        vst1q_u8(dst + i + 48, d);
        seen = vorrq_u8(seen, vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d)));
    }
    for (; i + 16 <= n; i += 16) {
        const uint8x16_t a = veorq_u8(vld1q_u8(src + i), k);
        vst1q_u8(dst + i, a);
        seen = vorrq_u8(seen, a);
    }
    vst1q_u8(dst + n - 16, last);
    return vmaxvq_u8(seen) & 0x80U;
}

#endif /* WS_ARM64 */

/* The four entry points of a variant. */
#define WS_MASK_ENTRIES(isa, attribute)                                       \
    attribute void ws_mask_copy_##isa(                                        \
        uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src, size_t n,   \
        const uint8_t key[4], size_t phase)                                   \
    {                                                                         \
        (void)mask_##isa(dst, src, n, key, phase);                            \
    }                                                                         \
    attribute void ws_mask_inplace_##isa(uint8_t *buf, size_t n,              \
                                         const uint8_t key[4], size_t phase)  \
    {                                                                         \
        (void)mask_##isa(buf, buf, n, key, phase);                            \
    }                                                                         \
    attribute unsigned ws_mask_copy_or_##isa(                                 \
        uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src, size_t n,   \
        const uint8_t key[4], size_t phase)                                   \
    {                                                                         \
        return mask_##isa(dst, src, n, key, phase);                           \
    }                                                                         \
    attribute unsigned ws_mask_inplace_or_##isa(                              \
        uint8_t *buf, size_t n, const uint8_t key[4], size_t phase)           \
    {                                                                         \
        return mask_##isa(buf, buf, n, key, phase);                           \
    }

WS_MASK_ENTRIES(scalar, )
#if WS_X86
WS_MASK_ENTRIES(sse2, )
WS_MASK_ENTRIES(sse42, )
WS_MASK_ENTRIES(avx2, WS_TARGET("avx2"))
#endif
#if WS_ARM64
WS_MASK_ENTRIES(neon, )
#endif

void
ws_mask_copy(uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
             size_t n, const uint8_t key[4], size_t phase)
{
    WS_BASELINE(ws_mask_copy)(dst, src, n, key, phase);
}

void
ws_mask_inplace(uint8_t *buf, size_t n, const uint8_t key[4], size_t phase)
{
    WS_BASELINE(ws_mask_inplace)(buf, n, key, phase);
}

unsigned
ws_mask_copy_or(uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                size_t n, const uint8_t key[4], size_t phase)
{
    return WS_BASELINE(ws_mask_copy_or)(dst, src, n, key, phase);
}

unsigned
ws_mask_inplace_or(uint8_t *buf, size_t n, const uint8_t key[4], size_t phase)
{
    return WS_BASELINE(ws_mask_inplace_or)(buf, n, key, phase);
}
