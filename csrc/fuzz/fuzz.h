/* What the fuzz targets share. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stop here, so that the fuzzer keeps the input. */
static inline void
must(int ok, const char *variant, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s: %s\n", variant, what);
        abort();
    }
}

/* A copy in a block of exactly n bytes, so that sanitizers see one too many. */
static inline void *
exact_copy(const void *data, size_t n)
{
    void *p = malloc(n ? n : 1);
    if (p == NULL) {
        abort();
    }
    if (n) {
        memcpy(p, data, n);
    }
    return p;
}

#endif
