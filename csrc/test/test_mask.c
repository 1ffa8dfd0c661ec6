/* Masking: every variant against a loop over bytes. */
#include "../ws_kernel.h"
#include "check.h"

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

/* Returns whether some byte is 0x80 or above. */
static int
slow_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *k,
          size_t phase)
{
    int seen = 0;
    for (size_t i = 0; i < n; i++) {
        dst[i] = (uint8_t)(src[i] ^ k[(i + phase) % 4]);
        seen |= dst[i] >= 0x80;
    }
    return seen;
}

static void
one(const ws_kernel *kernel, const uint8_t *data, size_t n, size_t offset,
    const uint8_t *k, size_t phase)
{
    uint8_t *src = exact(offset + n);
    uint8_t *dst = exact(offset + n);
    uint8_t *want = exact(n);
    unsigned seen;

    memcpy(src + offset, data, n);
    const int wide = slow_mask(want, data, n, k, phase);

    memset(dst, 0x55, offset + n);
    kernel->mask_copy(dst + offset, src + offset, n, k, phase);
    CHECK(memcmp(dst + offset, want, n) == 0,
          "%s mask_copy: n %zu, offset %zu, phase %zu", kernel->name, n,
          offset, phase);
    for (size_t i = 0; i < offset; i++) {
        CHECK(dst[i] == 0x55, "%s mask_copy wrote before dst", kernel->name);
    }
    memset(dst, 0x55, offset + n);
    seen = kernel->mask_copy_or(dst + offset, src + offset, n, k, phase);
    CHECK(memcmp(dst + offset, want, n) == 0 && !seen == !wide,
          "%s mask_copy_or: n %zu, offset %zu, phase %zu, result %u",
          kernel->name, n, offset, phase, seen);
    CHECK(memcmp(src + offset, data, n) == 0, "%s changed src", kernel->name);

    kernel->mask_inplace(src + offset, n, k, phase);
    CHECK(memcmp(src + offset, want, n) == 0,
          "%s mask_inplace: n %zu, offset %zu, phase %zu", kernel->name, n,
          offset, phase);
    memcpy(src + offset, data, n);
    seen = kernel->mask_inplace_or(src + offset, n, k, phase);
    CHECK(memcmp(src + offset, want, n) == 0 && !seen == !wide,
          "%s mask_inplace_or: n %zu, offset %zu, phase %zu, result %u",
          kernel->name, n, offset, phase, seen);
    free(src);
    free(dst);
    free(want);
}

/* A single byte of 0x80 or above is reported wherever it is. */
static void
lone_high_byte(const ws_kernel *kernel)
{
    const uint8_t none[4] = {0, 0, 0, 0};

    for (size_t n = 1; n <= 300; n++) {
        uint8_t *data = exact(n);
        memset(data, 0x7f, n);
        for (size_t i = 0; i < n; i += 1 + n / 40) {
            data[i] = 0x80;
            one(kernel, data, n, 0, none, 0);
            data[i] = 0x7f;
        }
        one(kernel, data, n, 0, none, 0);
        free(data);
    }
}

int
main(void)
{
    uint8_t data[3000];

    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)random_below(256);
    }
    for (size_t v = 0; v < ws_kernel_count(); v++) {
        const ws_kernel *kernel = ws_kernel_at(v);
        if (!kernel->supported()) {
            printf("test_mask: this CPU cannot run %s\n", kernel->name);
            continue;
        }
        for (size_t n = 0; n <= 300; n++) {
            for (size_t offset = 0; offset < 64; offset++) {
                for (size_t phase = 0; phase < 4; phase++) {
                    one(kernel, data, n, offset, key, phase);
                }
            }
        }
        for (size_t n = 500; n <= sizeof data; n += 37) {
            one(kernel, data, n, n % 64, key, n % 7);
        }
        one(kernel, data, 100, 0, key, SIZE_MAX);
        lone_high_byte(kernel);
    }

    uint8_t whole[100], pieces[100];
    slow_mask(whole, data, 100, key, 0);
    memcpy(pieces, data, 100);
    for (size_t cut = 0; cut <= 100; cut++) {
        ws_mask_copy(pieces, data, cut, key, 0);
        ws_mask_copy(pieces + cut, data + cut, 100 - cut, key, cut);
        CHECK(memcmp(whole, pieces, 100) == 0, "cut at %zu", cut);
        ws_mask_inplace(pieces, cut, key, 0);
        ws_mask_inplace(pieces + cut, 100 - cut, key, cut);
        CHECK(memcmp(data, pieces, 100) == 0, "in place, cut at %zu", cut);
    }
    memset(pieces, 'a', 100);
    CHECK(ws_mask_copy_or(whole, pieces, 100, key, 0), "copy_or: %d",
          whole[1]);
    CHECK(!ws_mask_inplace_or(whole, 100, key, 0), "inplace_or: %d", whole[1]);
    return passed("test_mask");
}
