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
OP void v_store(void *p, vec v) { vst1q_u8(p, v); }
OP void v_store_half(void *p, vec v) { vst1_u8(p, vget_low_u8(v)); }
OP vec v_repeat(unsigned byte) { return vdupq_n_u8((uint8_t)byte); }
OP vec v_and(vec a, vec b) { return vandq_u8(a, b); }
OP vec v_or(vec a, vec b) { return vorrq_u8(a, b); }
OP vec v_xor(vec a, vec b) { return veorq_u8(a, b); }
OP vec v_andnot(vec a, vec b) { return vbicq_u8(b, a); }
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
v_more(vec c0, vec v)
{
    return vcltq_s8(vreinterpretq_s8_u8(v), vreinterpretq_s8_u8(c0));
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

OP unsigned
ws_popcount(uint32_t m)
{
    return vaddv_u8(vcnt_u8(vcreate_u8(m)));
}

#include "ws_utf8_v128.h"

/* Runs of characters of 3 or 4 bytes: NEON loads the first bytes of 8 of them
 * into one register, their second bytes into another, and so on. */

OP uint64_t
more8(uint8x8_t v)
{
    const uint8x8_t more = vclt_s8(vreinterpret_s8_u8(v), vdup_n_s8(-64));
    return vget_lane_u64(vreinterpret_u64_u8(more), 0);
}

OP int
is_run3(const uint8_t *p)
{
    const uint8x8x3_t v = vld3_u8(p);
    return more8(v.val[0]) == 0
           && (more8(v.val[1]) & more8(v.val[2])) == UINT64_MAX;
}

OP void
run3(uint16_t *dst, const uint8_t *p)
{
    const uint8x8x3_t v = vld3_u8(p);
    const uint8x8_t six = vdup_n_u8(0x3f);
    const uint16x8_t lead = vshlq_n_u16(vmovl_u8(v.val[0]), 12);
    const uint16x8_t middle = vshll_n_u8(vand_u8(v.val[1], six), 6);
    const uint16x8_t last = vmovl_u8(vand_u8(v.val[2], six));

    vst1q_u16(dst, vorrq_u16(lead, vorrq_u16(middle, last)));
}

OP int
is_run4(const uint8_t *p)
{
    const uint8x8x4_t v = vld4_u8(p);
    return more8(v.val[0]) == 0
           && (more8(v.val[1]) & more8(v.val[2]) & more8(v.val[3]))
                  == UINT64_MAX;
}

OP void
run4(uint32_t *dst, const uint8_t *p)
{
    const uint8x8x4_t v = vld4_u8(p);
    const uint8x8_t six = vdup_n_u8(0x3f);
    /* the upper and the lower 12 bits, of which the upper are 9 */
    const uint16x8_t upper =
        vorrq_u16(vshll_n_u8(vand_u8(v.val[0], vdup_n_u8(0x07)), 6),
                  vmovl_u8(vand_u8(v.val[1], six)));
    const uint16x8_t lower = vorrq_u16(vshll_n_u8(vand_u8(v.val[2], six), 6),
                                       vmovl_u8(vand_u8(v.val[3], six)));

    vst1q_u32(dst, vorrq_u32(vshll_n_u16(vget_low_u16(upper), 12),
                             vmovl_u16(vget_low_u16(lower))));
    vst1q_u32(dst + 4, vorrq_u32(vshll_n_u16(vget_high_u16(upper), 12),
                                 vmovl_u16(vget_high_u16(lower))));
}

#include "ws_utf8_body.h"

#else

/* A translation unit must not be empty. */
typedef int ws_utf8_neon_is_for_arm64;

#endif /* WS_ARM64 */
