/* The variants of the kernels, and which of them this CPU can run.
 *
 * The contracts of the functions are those of ws_mask.h and ws_utf8.h.  A
 * table is constant: look one up once, keep the pointer.
 */
#ifndef WS_KERNEL_H
#define WS_KERNEL_H

#include "ws_mask.h"
#include "ws_utf8.h"

typedef struct ws_kernel {
    const char *name; /* "scalar", "sse2", "sse42", "avx2", "neon" */
    int (*supported)(void);
    void (*mask_copy)(uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                      size_t n, const uint8_t key[4], size_t phase);
    void (*mask_inplace)(uint8_t *buf, size_t n, const uint8_t key[4],
                         size_t phase);
    unsigned (*mask_copy_or)(uint8_t *WS_RESTRICT dst,
                             const uint8_t *WS_RESTRICT src, size_t n,
                             const uint8_t key[4], size_t phase);
    unsigned (*mask_inplace_or)(uint8_t *buf, size_t n, const uint8_t key[4],
                                size_t phase);
    size_t (*utf8_validate)(ws_utf8_state *st, const uint8_t *data, size_t n);
    size_t (*utf8_scan)(const uint8_t *data, size_t n, ws_utf8_info *info);
    void (*utf8_decode1)(uint8_t *WS_RESTRICT dst,
                         const uint8_t *WS_RESTRICT src, size_t n);
    void (*utf8_decode2)(uint16_t *WS_RESTRICT dst,
                         const uint8_t *WS_RESTRICT src, size_t n);
    void (*utf8_decode4)(uint32_t *WS_RESTRICT dst,
                         const uint8_t *WS_RESTRICT src, size_t n);
    size_t (*ascii_prefix)(const uint8_t *data, size_t n);
} ws_kernel;

/* All variants that were compiled, slowest first; also those that this CPU
 * cannot run (ask supported()).  ws_kernel_at(i) is NULL for i >= count. */
size_t ws_kernel_count(void);
const ws_kernel *ws_kernel_at(size_t i);

/* The fastest that this CPU can run.  Never NULL. */
const ws_kernel *ws_kernel_best(void);

/* By name; NULL if there is none, or this CPU cannot run it. */
const ws_kernel *ws_kernel_find(const char *name);

#endif
