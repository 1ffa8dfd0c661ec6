/* What the CPU, and the operating system on it, can do. */
#ifndef WS_CPU_H
#define WS_CPU_H

/* Nonzero if the instructions up to SSE4.2, and POPCNT, may be used. */
int ws_cpu_has_sse42(void);

/* Nonzero if AVX2 and POPCNT instructions may be used: the CPU has them and
 * the system saves the wide registers when it switches tasks. */
int ws_cpu_has_avx2(void);

#endif
