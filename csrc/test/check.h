/* Checks for the test programs: the first failure says where, and ends. */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long checks_done;

#if defined(__MINGW32__)
__attribute__((format(__MINGW_PRINTF_FORMAT, 4, 5)))
#elif defined(__GNUC__)
__attribute__((format(printf, 4, 5)))
#endif
static inline void
check_at(const char *file, int line, int ok, const char *format, ...)
{
    va_list args;

    checks_done++;
    if (ok) {
        return;
    }
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

#define CHECK(ok, ...) check_at(__FILE__, __LINE__, !!(ok), __VA_ARGS__)

/* A block of exactly n bytes, so that a sanitizer sees one byte too many. */
static inline void *
exact(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (p == NULL) {
        fputs("out of memory\n", stderr);
        exit(2);
    }
    return p;
}

/* Numbers that look random and are the same in every run. */
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);

static inline uint32_t
random_below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) % limit);
}

static inline int
passed(const char *name)
{
    printf("%s: %lu checks\n", name, checks_done);
    return 0;
}

#endif
