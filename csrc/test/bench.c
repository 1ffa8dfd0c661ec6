/* Speed of each kernel, each variant: GB/s, best of many short runs, so that
 * what else the machine does matters little.  Arguments: names of variants. */
#include <time.h>

#include "../ws_kernel.h"
#include "check.h"

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    const ws_kernel *kernel;
    const uint8_t *src;
    size_t n;
    void *dst;
} job;

static volatile size_t sink;

static void
do_memcpy(const job *j)
{
    memcpy(j->dst, j->src, j->n);
}

static void
do_mask_copy(const job *j)
{
    const uint8_t key[4] = {1, 2, 3, 4};
    j->kernel->mask_copy(j->dst, j->src, j->n, key, 0);
}

static void
do_mask_inplace(const job *j)
{
    const uint8_t key[4] = {1, 2, 3, 4};
    j->kernel->mask_inplace(j->dst, j->n, key, 0);
}

static void
do_mask_copy_or(const job *j)
{
    const uint8_t key[4] = {1, 2, 3, 4};
    sink = j->kernel->mask_copy_or(j->dst, j->src, j->n, key, 0);
}

static void
do_scan(const job *j)
{
    ws_utf8_info info;
    sink = j->kernel->utf8_scan(j->src, j->n, &info);
}

static void
do_validate(const job *j)
{
    ws_utf8_state st = {0, 0, 0};
    sink = j->kernel->utf8_validate(&st, j->src, j->n);
}

static void
do_decode(const job *j)
{
    ws_utf8_info info;
    j->kernel->utf8_scan(j->src, j->n, &info);
    if (info.max_char <= 0xff) {
        j->kernel->utf8_decode1(j->dst, j->src, j->n);
    } else if (info.max_char <= 0xffff) {
        j->kernel->utf8_decode2(j->dst, j->src, j->n);
    } else {
        j->kernel->utf8_decode4(j->dst, j->src, j->n);
    }
}

static double
best(void (*work)(const job *), const job *j)
{
    double least = 1e9;
    int times = 1;
    for (;;) {
        const double start = now();
        for (int i = 0; i < times; i++) {
            work(j);
        }
        const double took = now() - start;
        if (took > 5e-5) {
            break;
        }
        times *= 2;
    }
    const double stop = now() + 0.03;
    while (now() < stop) {
        const double start = now();
        for (int i = 0; i < times; i++) {
            work(j);
        }
        const double took = (now() - start) / times;
        least = took < least ? took : least;
    }
    return least;
}

static void
report(const char *what, void (*work)(const job *), const job *j)
{
    const double t = best(work, j);
    printf("  %-14s %8zu B %10.1f ns %7.2f GB/s\n", what, j->n, t * 1e9,
           (double)j->n / t * 1e-9);
}

static const struct {
    const char *name, *text;
} texts[] = {
    {"ascii", "The quick brown fox jumps over the lazy dog, and so on. "},
    {"french", "L'\xc3\xa9t\xc3\xa9 dernier, le gar\xc3\xa7on a mang\xc3\xa9 "
               "des cr\xc3\xaapes \xc3\xa0 la cr\xc3\xa8me. "},
    {"russian", "\xd0\xa1\xd1\x8a\xd0\xb5\xd1\x88\xd1\x8c \xd0\xb6\xd0\xb5 "
                "\xd0\xb5\xd1\x89\xd1\x91 \xd1\x8d\xd1\x82\xd0\xb8\xd1\x85. "},
    {"chinese", "\xe6\x95\x8f\xe6\x8d\xb7\xe7\x9a\x84\xe6\xa3\x95\xe8\x89\xb2"
                "\xe7\x8b\x90\xe7\x8b\xb8\xef\xbc\x8c"},
    {"emoji", "\xf0\x9f\x98\x80\xf0\x9f\x98\x81\xf0\x9f\xa4\xa3"},
    {"chat", "lol \xf0\x9f\x98\x80 that is so funny \xf0\x9f\x98\x82\xf0\x9f"
             "\x98\x82 see you tomorrow at 5 \xf0\x9f\x91\x8d "},
};

int
main(int argc, char **argv)
{
    static const size_t sizes[] = {8, 32, 125, 1024, 16384, 1 << 20};
    enum { MOST = 1 << 20 };
    uint8_t *src = exact(MOST + 64);
    uint8_t *dst = exact(4 * MOST);
    job j = {ws_kernel_at(0), src, 0, dst};

    memset(dst, 0, 4 * MOST);
    memset(src, 'x', MOST);
    printf("memcpy\n");
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        j.n = sizes[s];
        report("memcpy", do_memcpy, &j);
    }
    for (size_t v = 0; v < ws_kernel_count(); v++) {
        int wanted = argc < 2;
        j.kernel = ws_kernel_at(v);
        for (int a = 1; a < argc; a++) {
            wanted |= strcmp(argv[a], j.kernel->name) == 0;
        }
        if (!wanted || !j.kernel->supported()) {
            continue;
        }
        printf("%s\n", j.kernel->name);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            j.n = sizes[s];
            report("mask_copy", do_mask_copy, &j);
            report("mask_inplace", do_mask_inplace, &j);
            report("mask_copy_or", do_mask_copy_or, &j);
        }
        for (size_t t = 0; t < sizeof texts / sizeof texts[0]; t++) {
            const size_t length = strlen(texts[t].text);
            for (size_t i = 0; i < MOST; i++) {
                src[i] = (uint8_t)texts[t].text[i % length];
            }
            printf(" %s\n", texts[t].name);
            for (size_t s = 1; s < sizeof sizes / sizeof sizes[0]; s++) {
                const size_t whole = sizes[s] / length * length;
                j.n = whole ? whole : length;
                report("utf8_validate", do_validate, &j);
                report("utf8_scan", do_scan, &j);
                report("scan + decode", do_decode, &j);
            }
        }
    }
    free(src);
    free(dst);
    return 0;
}
