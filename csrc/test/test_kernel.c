/* The table of variants. */
#include "../ws_cpu.h"
#include "../ws_kernel.h"
#include "check.h"

int
main(void)
{
    const size_t count = ws_kernel_count();

    CHECK(count >= 1, "no variants");
    CHECK(ws_kernel_at(count) == NULL, "one too many");
    CHECK(strcmp(ws_kernel_at(0)->name, "scalar") == 0, "scalar is first");
    CHECK(ws_kernel_find("scalar") == ws_kernel_at(0), "scalar");
    CHECK(ws_kernel_find("") == NULL, "no name");
    CHECK(ws_kernel_find("mmx") == NULL, "unknown");
    for (size_t i = 0; i < count; i++) {
        const ws_kernel *kernel = ws_kernel_at(i);
        const int can = kernel->supported();
        CHECK(ws_kernel_find(kernel->name) == (can ? kernel : NULL), "%s",
              kernel->name);
        printf("test_kernel: %s%s\n", kernel->name, can ? "" : " (not here)");
    }
    CHECK(ws_kernel_best()->supported(), "best");
#if WS_X86
    CHECK(count == 4, "x86: %zu variants", count);
    CHECK(strcmp(ws_kernel_best()->name, ws_cpu_has_avx2()    ? "avx2"
                                         : ws_cpu_has_sse42() ? "sse42"
                                                              : "sse2")
              == 0,
          "best is %s", ws_kernel_best()->name);
#elif WS_ARM64
    CHECK(count == 2 && strcmp(ws_kernel_best()->name, "neon") == 0, "neon");
#endif
    return passed("test_kernel");
}
