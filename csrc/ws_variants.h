/* The names of the variants' functions, for ws_kernel.c and their own files. */
#ifndef WS_VARIANTS_H
#define WS_VARIANTS_H

#include "ws_kernel.h"

#define WS_DECLARE_VARIANT(isa)                                               \
    void ws_mask_copy_##isa(uint8_t *WS_RESTRICT dst,                         \
                            const uint8_t *WS_RESTRICT src, size_t n,         \
                            const uint8_t key[4], size_t phase);              \
    void ws_mask_inplace_##isa(uint8_t *buf, size_t n, const uint8_t key[4],  \
                               size_t phase);                                 \
    unsigned ws_mask_copy_or_##isa(uint8_t *WS_RESTRICT dst,                  \
                                   const uint8_t *WS_RESTRICT src, size_t n,  \
                                   const uint8_t key[4], size_t phase);       \
    unsigned ws_mask_inplace_or_##isa(uint8_t *buf, size_t n,                 \
                                      const uint8_t key[4], size_t phase);    \
    size_t ws_utf8_validate_##isa(ws_utf8_state *st, const uint8_t *data,     \
                                  size_t n);                                  \
    size_t ws_utf8_scan_##isa(const uint8_t *data, size_t n,                  \
                              ws_utf8_info *info);                            \
    void ws_utf8_decode1_##isa(uint8_t *WS_RESTRICT dst,                      \
                               const uint8_t *WS_RESTRICT src, size_t n);     \
    void ws_utf8_decode2_##isa(uint16_t *WS_RESTRICT dst,                     \
                               const uint8_t *WS_RESTRICT src, size_t n);     \
    void ws_utf8_decode4_##isa(uint32_t *WS_RESTRICT dst,                     \
                               const uint8_t *WS_RESTRICT src, size_t n);     \
    size_t ws_utf8_ascii_prefix_##isa(const uint8_t *data, size_t n);

WS_DECLARE_VARIANT(scalar)
#if WS_X86
WS_DECLARE_VARIANT(sse2)
WS_DECLARE_VARIANT(sse42)
WS_DECLARE_VARIANT(avx2)
#endif
#if WS_ARM64
WS_DECLARE_VARIANT(neon)
#endif

/* What every CPU of the target can run. */
#if WS_X86
#define WS_BASELINE(function) function##_sse2
#elif WS_ARM64
#define WS_BASELINE(function) function##_neon
#else
#define WS_BASELINE(function) function##_scalar
#endif

#endif
