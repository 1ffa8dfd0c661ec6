/* Many threads at once: choosing a variant, and every kernel on data that all of
 * them read.  The thread sanitizer watches; the results are checked as well. */
#define _POSIX_C_SOURCE 200112L

#include <pthread.h>

#include "../ws_cpu.h"
#include "../ws_frame.h"
#include "../ws_kernel.h"
#include "check.h"

enum { THREADS = 8, ROUNDS = 200, SIZE = 1000 };

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
/* Written before there are threads. */
static uint8_t plain[SIZE], masked[SIZE];
static pthread_barrier_t start;

static unsigned long
round_of(const ws_kernel *kernel, size_t n)
{
    unsigned long wrong = 0;
    uint8_t out[SIZE];
    uint8_t units1[SIZE];
    uint16_t units2[SIZE];
    uint32_t units4[SIZE];
    ws_utf8_state st = {0, 0, 0};
    ws_utf8_info info;

    kernel->mask_copy(out, plain, n, key, 0);
    wrong += memcmp(out, masked, n) != 0;
    kernel->mask_inplace(out, n, key, 0);
    wrong += memcmp(out, plain, n) != 0;
    wrong += !kernel->mask_copy_or(out, plain, n, key, 0);
    wrong += kernel->mask_inplace_or(out, n, key, 0) != 0;
    wrong += kernel->utf8_validate(&st, plain, n) != n;
    wrong += kernel->utf8_scan(plain, n, &info) != n || info.chars != n;
    kernel->utf8_decode1(units1, plain, n);
    kernel->utf8_decode2(units2, plain, n);
    kernel->utf8_decode4(units4, plain, n);
    wrong += units1[n - 1] != plain[n - 1] || units2[n - 1] != plain[n - 1]
             || units4[n - 1] != plain[n - 1];
    wrong += kernel->ascii_prefix(plain, n) != n;
    return wrong;
}

static void *
run(void *result)
{
    unsigned long wrong = 0;

    pthread_barrier_wait(&start); /* so that the first look-ups coincide */
    const ws_kernel *best = ws_kernel_best();
    for (size_t round = 0; round < ROUNDS; round++) {
        uint8_t head[WS_FRAME_MAX_HEADER];
        ws_frame_header out;
        const size_t size = ws_frame_encode(head, 0x82, SIZE, key);

        wrong += ws_frame_decode(head, size, 1, 0, &out) != (int)size;
        wrong += ws_kernel_best() != best;
        wrong += (ws_cpu_has_avx2() && !ws_cpu_has_sse42());
        for (size_t v = 0; v < ws_kernel_count(); v++) {
            const ws_kernel *kernel = ws_kernel_at(v);
            if (kernel->supported()) {
                wrong += ws_kernel_find(kernel->name) != kernel;
                wrong += round_of(kernel, SIZE - round);
            }
        }
    }
    *(unsigned long *)result = wrong;
    return NULL;
}

int
main(void)
{
    pthread_t threads[THREADS];
    unsigned long wrong[THREADS];

    for (size_t i = 0; i < SIZE; i++) {
        plain[i] = (uint8_t)('a' + i % 26);
        masked[i] = plain[i] ^ key[i % 4];
    }
    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0, "barrier");
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, run, &wrong[i]) == 0,
              "thread %zu", i);
    }
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0, "join %zu", i);
        CHECK(wrong[i] == 0, "thread %zu: %lu wrong results", i, wrong[i]);
    }
    return passed("test_threads");
}
