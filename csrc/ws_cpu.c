#include "ws_cpu.h"

#include "ws_platform.h"

#if WS_X86

#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

typedef struct {
    uint32_t eax, ebx, ecx, edx;
} cpuid_regs;

static cpuid_regs
cpuid(uint32_t leaf)
{
    cpuid_regs r = {0, 0, 0, 0};
#if defined(_MSC_VER)
    int out[4];
    __cpuid(out, 0);
    if ((uint32_t)out[0] >= leaf) {
        __cpuidex(out, (int)leaf, 0);
        r.eax = (uint32_t)out[0];
        r.ebx = (uint32_t)out[1];
        r.ecx = (uint32_t)out[2];
        r.edx = (uint32_t)out[3];
    }
#else
    if ((uint32_t)__get_cpuid_max(0, NULL) >= leaf) {
        __cpuid_count(leaf, 0, r.eax, r.ebx, r.ecx, r.edx);
    }
#endif
    return r;
}

/* Which registers the system saves.  Only legal when OSXSAVE is set. */
static uint64_t
xcr0(void)
{
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}

int
ws_cpu_has_sse42(void)
{
    const uint32_t wanted = UINT32_C(1) << 9    /* SSSE3 */
                            | UINT32_C(1) << 19 /* SSE4.1 */
                            | UINT32_C(1) << 20 /* SSE4.2 */
                            | UINT32_C(1) << 23 /* POPCNT */;

    return (cpuid(1).ecx & wanted) == wanted;
}

int
ws_cpu_has_avx2(void)
{
    const uint32_t popcnt = UINT32_C(1) << 23;
    const uint32_t osxsave = UINT32_C(1) << 27;
    const uint32_t avx = UINT32_C(1) << 28;
    const uint32_t avx2 = UINT32_C(1) << 5;
    const uint32_t wanted = popcnt | osxsave | avx;

    if ((cpuid(1).ecx & wanted) != wanted || !(cpuid(7).ebx & avx2)) {
        return 0;
    }
    return (xcr0() & 6) == 6; /* XMM and YMM state */
}

#else

int
ws_cpu_has_sse42(void)
{
    return 0;
}

int
ws_cpu_has_avx2(void)
{
    return 0;
}

#endif
