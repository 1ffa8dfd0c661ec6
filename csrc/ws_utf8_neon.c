/* UTF-8 with NEON, which every 64-bit ARM CPU has. */
#include "ws_platform.h"

#if WS_ARM64

#include <arm_neon.h>

#include "ws_utf8_pack.h"
#include "ws_utf8_pairs.h"
#include "ws_utf8_step.h"
#include "ws_variants.h"

#define WS_ISA neon
#define WS_ATTRIBUTE
#define WS_WINDOWS 1

typedef uint8x16_t vec;

#define OP static WS_INLINE
#define PAIRS(v) vreinterpretq_u16_u8(v)
#define BYTES(v) vreinterpretq_u8_u16(v)

/* clang-format off */
OP vec v_load(const void *p) { return vld1q_u8(p); }
OP vec v_table(const uint8_t *p) { return vld1q_u8(p); }
OP void v_store(void *p, vec v) { vst1q_u8(p, v); }
OP void v_store_half(void *p, vec v) { vst1_u8(p, vget_low_u8(v)); }
OP vec v_repeat(unsigned byte) { return vdupq_n_u8((uint8_t)byte); }
OP vec v_and(vec a, vec b) { return vandq_u8(a, b); }
OP vec v_or(vec a, vec b) { return vorrq_u8(a, b); }
OP vec v_xor(vec a, vec b) { return veorq_u8(a, b); }
OP vec v_max(vec a, vec b) { return vmaxq_u8(a, b); }
OP vec v_subs(vec a, vec b) { return vqsubq_u8(a, b); }
OP vec v_sub(vec a, vec b) { return vsubq_u8(a, b); }
OP vec v_add(vec a, vec b) { return vaddq_u8(a, b); }
OP vec v_look(vec t, vec i) { return vqtbl1q_u8(t, i); }
OP vec v_lower(vec a, vec b) { return vzip1q_u8(a, b); }
OP vec v_upper(vec a, vec b) { return vzip2q_u8(a, b); }
OP vec v_lower2(vec a, vec b) { return BYTES(vzip1q_u16(PAIRS(a), PAIRS(b))); }
OP vec v_upper2(vec a, vec b) { return BYTES(vzip2q_u16(PAIRS(a), PAIRS(b))); }
OP int v_any_high(vec v) { return vmaxvq_u8(v) >= 0x80; }
OP int v_is_zero(vec v) { return vmaxvq_u8(v) == 0; }
OP vec v_row8(unsigned m) { return vcombine_u8(vld1_u8(ws_utf8_pack8[m]), vdup_n_u8(0)); }
OP vec v_row16(unsigned m) { return vld1q_u8(ws_utf8_pack16[m]); }
OP size_t v_sum(vec v) { return vaddlvq_u8(v); }
OP uint8_t v_top(vec v) { return vmaxvq_u8(v); }
/* clang-format on */
#define v_left(v, n) vshlq_n_u8(v, n)
#define v_right(v, n) vshrq_n_u8(v, n)

/* As signed numbers, continuations are the least. */
OP vec
v_more(vec v)
{
    return vcltq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(-64));
}

OP unsigned
v_bits(vec v)
{
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                        1, 2, 4, 8, 16, 32, 64, 128};
    vec sums = vandq_u8(v, vld1q_u8(weights));

    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);
    return vgetq_lane_u16(PAIRS(sums), 0);
}

/* Of a byte. */
OP unsigned
ws_popcount(unsigned m)
{
    m = m - (m >> 1 & 0x55);
    m = (m & 0x33) + (m >> 2 & 0x33);
    return (m + (m >> 4)) & 0x0f;
}

#include "ws_utf8_v128.h"

#include "ws_utf8_body.h"

#else

/* A translation unit must not be empty. */
typedef int ws_utf8_neon_is_for_arm64;

#endif /* WS_ARM64 */
