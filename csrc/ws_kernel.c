#include "ws_kernel.h"

#include "ws_cpu.h"
#include "ws_variants.h"

static int
always(void)
{
    return 1;
}

#define TABLE(isa, is_supported)                                              \
    {                                                                         \
        .name = #isa,                                                         \
        .supported = is_supported,                                            \
        .mask_copy = ws_mask_copy_##isa,                                      \
        .mask_inplace = ws_mask_inplace_##isa,                                \
        .mask_copy_or = ws_mask_copy_or_##isa,                                \
        .mask_inplace_or = ws_mask_inplace_or_##isa,                          \
        .utf8_validate = ws_utf8_validate_##isa,                              \
        .utf8_scan = ws_utf8_scan_##isa,                                      \
        .utf8_decode1 = ws_utf8_decode1_##isa,                                \
        .utf8_decode2 = ws_utf8_decode2_##isa,                                \
        .utf8_decode4 = ws_utf8_decode4_##isa,                                \
        .ascii_prefix = ws_utf8_ascii_prefix_##isa,                           \
    }

/* clang-format off */
static const ws_kernel kernels[] = {
    TABLE(scalar, always),
#if WS_X86
    TABLE(sse2, always),
    TABLE(sse42, ws_cpu_has_sse42),
    TABLE(avx2, ws_cpu_has_avx2),
#endif
#if WS_ARM64
    TABLE(neon, always),
#endif
};
/* clang-format on */

size_t
ws_kernel_count(void)
{
    return sizeof kernels / sizeof kernels[0];
}

const ws_kernel *
ws_kernel_at(size_t i)
{
    return i < ws_kernel_count() ? &kernels[i] : NULL;
}

const ws_kernel *
ws_kernel_best(void)
{
    size_t i = ws_kernel_count() - 1;

    while (i > 0 && !kernels[i].supported()) {
        i--;
    }
    return &kernels[i];
}

const ws_kernel *
ws_kernel_find(const char *name)
{
    for (size_t i = 0; i < ws_kernel_count(); i++) {
        if (strcmp(kernels[i].name, name) == 0) {
            return kernels[i].supported() ? &kernels[i] : NULL;
        }
    }
    return NULL;
}
