/* histogram.h: latencies in nanoseconds, log-linear buckets 1.6 % wide. One
 * increment a message; a percentile is exact to a bucket. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

enum { HISTOGRAM_SUB = 6, HISTOGRAM_SIZE = (64 - HISTOGRAM_SUB + 1) << 6 };

typedef struct {
    uint64_t count[HISTOGRAM_SIZE];
    uint64_t total, max;
} histogram;

static inline void
histogram_add(histogram *h, uint64_t value, uint64_t times)
{
    unsigned index = (unsigned)value;
    if (value >= 1u << HISTOGRAM_SUB) {
        unsigned shift = 63u - (unsigned)__builtin_clzll(value)
                       - HISTOGRAM_SUB;
        index = ((shift + 1) << HISTOGRAM_SUB)
              + (unsigned)((value >> shift) - (1u << HISTOGRAM_SUB));
    }
    h->count[index] += times;
    h->total += times;
    if (value > h->max) {
        h->max = value;
    }
}

/* Middle of the bucket that holds the quantile; 0 for no values. */
static inline double
histogram_quantile(const histogram *h, double quantile)
{
    uint64_t below = 0;
    double wanted = quantile * (double)h->total;
    for (unsigned i = 0; i < HISTOGRAM_SIZE; i++) {
        below += h->count[i];
        if (h->count[i] && (double)below >= wanted) {
            unsigned shift = i >> HISTOGRAM_SUB;
            if (shift == 0) {
                return (double)i;
            }
            shift--;
            uint64_t low = (uint64_t)(i & ((1u << HISTOGRAM_SUB) - 1))
                         + (1u << HISTOGRAM_SUB);
            return ((double)low + 0.5) * (double)(1ull << shift);
        }
    }
    return 0;
}

#endif
