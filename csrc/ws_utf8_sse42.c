/* UTF-8 with SSSE3's byte shuffle, on CPUs that lack AVX2. */
#include "ws_platform.h"

#if WS_X86

#include <immintrin.h>

#include "ws_utf8_pack.h"
#include "ws_utf8_pairs.h"
#include "ws_utf8_step.h"
#include "ws_variants.h"

#define WS_ISA sse42
#define WS_ATTRIBUTE WS_TARGET("sse4.2,popcnt")
#define WS_WINDOWS 1

typedef __m128i vec;

#define OP static WS_INLINE WS_ATTRIBUTE

/* clang-format off */
OP vec v_load(const void *p) { return _mm_loadu_si128(p); }
OP void v_store(void *p, vec v) { _mm_storeu_si128(p, v); }
OP void v_store_half(void *p, vec v) { _mm_storel_epi64(p, v); }
OP vec v_repeat(unsigned byte) { return _mm_set1_epi8((char)byte); }
OP vec v_and(vec a, vec b) { return _mm_and_si128(a, b); }
OP vec v_or(vec a, vec b) { return _mm_or_si128(a, b); }
OP vec v_xor(vec a, vec b) { return _mm_xor_si128(a, b); }
OP vec v_andnot(vec a, vec b) { return _mm_andnot_si128(a, b); }
OP vec v_max(vec a, vec b) { return _mm_max_epu8(a, b); }
OP vec v_subs(vec a, vec b) { return _mm_subs_epu8(a, b); }
OP vec v_sub(vec a, vec b) { return _mm_sub_epi8(a, b); }
OP vec v_add(vec a, vec b) { return _mm_add_epi8(a, b); }
/* As signed numbers, continuations are the least. */
OP vec v_more(vec c0, vec v) { return _mm_cmpgt_epi8(c0, v); }
OP vec v_look(vec t, vec i) { return _mm_shuffle_epi8(t, i); }
OP vec v_lower(vec a, vec b) { return _mm_unpacklo_epi8(a, b); }
OP vec v_upper(vec a, vec b) { return _mm_unpackhi_epi8(a, b); }
OP vec v_lower2(vec a, vec b) { return _mm_unpacklo_epi16(a, b); }
OP vec v_upper2(vec a, vec b) { return _mm_unpackhi_epi16(a, b); }
OP int v_any_high(vec v) { return _mm_movemask_epi8(v) != 0; }
OP int v_is_zero(vec v) { return _mm_testz_si128(v, v); }
OP unsigned v_bits(vec v) { return (unsigned)_mm_movemask_epi8(v); }
OP vec v_row8(unsigned m) { return _mm_loadl_epi64((const void *)ws_utf8_pack8[m]); }
OP vec v_row16(unsigned m) { return v_load(ws_utf8_pack16[m]); }
OP unsigned ws_popcount(unsigned m) { return (unsigned)_mm_popcnt_u32(m); }
/* clang-format on */
#define v_left(v, n) _mm_slli_epi16(v, n)
#define v_right(v, n) _mm_srli_epi16(v, n)

OP size_t
v_sum(vec v)
{
    const vec sums = _mm_sad_epu8(v, _mm_setzero_si128());
    return (size_t)(_mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4));
}

OP uint8_t
v_top(vec v)
{
    uint8_t bytes[16];
    uint8_t top = 0;

    v_store(bytes, v);
    for (size_t i = 0; i < sizeof bytes; i++) {
        top = bytes[i] > top ? bytes[i] : top;
    }
    return top;
}

#include "ws_utf8_v128.h"

#include "ws_utf8_runs_x86.h"

#include "ws_utf8_body.h"

#endif /* WS_X86 */
