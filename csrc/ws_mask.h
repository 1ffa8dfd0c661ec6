/* Masking: XOR with a repeated 4-byte key (RFC 6455, 5.3).
 *
 * phase: bytes of the frame's payload that came before src[0]; only
 * phase % 4 matters.  So a payload can be handled in pieces of any size.
 * Exactly n bytes are read and n are written; n may be 0.
 *
 * These four use what every CPU of the target has.  The faster choice made at
 * run time is in ws_kernel.h.
 */
#ifndef WS_MASK_H
#define WS_MASK_H

#include "ws_platform.h"

/* dst and src must not overlap. */
void ws_mask_copy(uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                  size_t n, const uint8_t key[4], size_t phase);

void ws_mask_inplace(uint8_t *buf, size_t n, const uint8_t key[4],
                     size_t phase);

/* The same, and tell whether the result is more than ASCII: nonzero if some
 * byte that was written is 0x80 or above. */
unsigned ws_mask_copy_or(uint8_t *WS_RESTRICT dst,
                         const uint8_t *WS_RESTRICT src, size_t n,
                         const uint8_t key[4], size_t phase);
unsigned ws_mask_inplace_or(uint8_t *buf, size_t n, const uint8_t key[4],
                            size_t phase);

#endif
