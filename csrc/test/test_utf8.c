/* UTF-8: every variant against the table of RFC 3629, section 4. */
#include "../ws_kernel.h"
#include "check.h"
#include "rfc3629.h"

static void
check_decode(const ws_kernel *kernel, const uint8_t *p, size_t n,
             const reading *want)
{
    if (want->largest < 0x100) {
        uint8_t *out = exact(want->chars);
        kernel->utf8_decode1(out, p, n);
        for (size_t i = 0; i < want->chars; i++) {
            CHECK(out[i] == want->text[i], "%s decode1: n %zu, char %zu",
                  kernel->name, n, i);
        }
        free(out);
    }
    if (want->largest < 0x10000) {
        uint16_t *out = exact(want->chars * 2);
        kernel->utf8_decode2(out, p, n);
        for (size_t i = 0; i < want->chars; i++) {
            CHECK(out[i] == want->text[i], "%s decode2: n %zu, char %zu",
                  kernel->name, n, i);
        }
        free(out);
    }
    uint32_t *out = exact(want->chars * 4);
    kernel->utf8_decode4(out, p, n);
    for (size_t i = 0; i < want->chars; i++) {
        CHECK(out[i] == want->text[i],
              "%s decode4: n %zu, char %zu: %x, not %x", kernel->name, n, i,
              out[i], want->text[i]);
    }
    free(out);
}

/* A text, whole: p has exactly n bytes from a block that ends there. */
static void
check_whole(const ws_kernel *kernel, const uint8_t *p, size_t n)
{
    static reading want;
    ws_utf8_info info;
    ws_utf8_state st = {0, 0, 0};
    size_t ascii = 0;

    slow_read(p, n, &want);
    const size_t end = kernel->utf8_scan(p, n, &info);
    CHECK(end == want.end, "%s scan: n %zu: %zu, not %zu", kernel->name, n,
          end, want.end);
    CHECK(kernel->utf8_validate(&st, p, n) == want.end,
          "%s validate: n %zu, not %zu", kernel->name, n, want.end);
    while (ascii < n && p[ascii] < 0x80) {
        ascii++;
    }
    CHECK(kernel->ascii_prefix(p, n) == ascii, "%s ascii_prefix: n %zu",
          kernel->name, n);
    if (end < n) {
        return;
    }
    CHECK(ws_utf8_is_complete(&st) == want.complete, "%s complete: n %zu",
          kernel->name, n);
    CHECK(info.chars == (want.complete ? want.chars : SIZE_MAX),
          "%s chars: n %zu: %zu, not %zu", kernel->name, n, info.chars,
          want.chars);
    if (want.complete) {
        CHECK(info.max_char == class_of(want.largest),
              "%s max_char: %x for %x", kernel->name, info.max_char,
              want.largest);
        check_decode(kernel, p, n, &want);
    }
}

/* A text in pieces, cut at up to three places. */
static void
check_pieces(const ws_kernel *kernel, const uint8_t *p, size_t n,
             const size_t cuts[3])
{
    static reading want;
    ws_utf8_state st = {0, 0, 0};
    size_t at = 0;

    slow_read(p, n, &want);
    for (size_t k = 0; k <= 3; k++) {
        const size_t stop = k < 3 ? cuts[k] : n;
        const size_t size = stop - at;
        uint8_t *piece = exact(size);
        memcpy(piece, p + at, size);
        const size_t end = kernel->utf8_validate(&st, piece, size);
        free(piece);
        if (end < size) {
            CHECK(at + end == want.end, "%s pieces: n %zu: %zu, not %zu",
                  kernel->name, n, at + end, want.end);
            return;
        }
        CHECK(want.end >= stop, "%s pieces: n %zu: %zu not found",
              kernel->name, n, want.end);
        at = stop;
    }
    CHECK(ws_utf8_is_complete(&st) == want.complete, "%s pieces: complete",
          kernel->name);
}

static uint32_t
random_point(unsigned kind)
{
    static const uint32_t edges[] = {
        0,      0x7f,    0x80,    0xff,    0x100,   0x7ff,    0x800,
        0xfff,  0x1000,  0xcfff,  0xd000,  0xd7ff,  0xe000,   0xfffd,
        0xffff, 0x10000, 0x3ffff, 0x40000, 0xfffff, 0x100000, 0x10ffff};
    static const uint32_t limits[] = {0x80, 0x100, 0x800, 0x10000, 0x110000};

    if (kind == 5) {
        return edges[random_below(sizeof edges / sizeof edges[0])];
    }
    if (kind == 6) { /* mostly ASCII */
        kind = random_below(20) ? 0 : random_below(5);
    }
    const uint32_t point = random_below(limits[kind]);
    return point >= 0xd800 && point < 0xe000 ? point - 0x800 : point;
}

/* Fill exactly n bytes with characters of a kind. */
static void
random_text(uint8_t *p, size_t n, unsigned kind)
{
    size_t i = 0;

    while (i < n) {
        uint8_t one[4];
        const size_t size = encode(one, random_point(kind));
        if (size > n - i) {
            p[i++] = 'x';
            continue;
        }
        memcpy(p + i, one, size);
        i += size;
    }
}

static void
texts(const ws_kernel *kernel)
{
    for (size_t n = 0; n <= 300; n++) {
        for (size_t offset = 0; offset < 64; offset++) {
            uint8_t *block = exact(offset + n);
            uint8_t *p = block + offset;
            memset(block, 0xe1, offset); /* must not be looked at */
            random_text(p, n, (unsigned)(offset % 7));
            check_whole(kernel, p, n);
            if (n > 0) { /* one byte wrong, or the end cut off */
                const uint8_t kept = p[random_below((uint32_t)n)];
                const size_t at = random_below((uint32_t)n);
                p[at] = offset & 1 ? (uint8_t)random_below(256) : kept;
                check_whole(kernel, p, n);
                size_t cuts[3];
                cuts[0] = random_below((uint32_t)n + 1);
                cuts[1] = cuts[0] + random_below((uint32_t)(n - cuts[0]) + 1);
                cuts[2] = cuts[1] + random_below((uint32_t)(n - cuts[1]) + 1);
                check_pieces(kernel, p, n, cuts);
            }
            free(block);
        }
    }
    for (unsigned round = 0; round < 400; round++) {
        const size_t n = 300 + random_below(700);
        uint8_t *p = exact(n);
        random_text(p, n, round % 7);
        check_whole(kernel, p, n);
        p[random_below((uint32_t)n)] ^= (uint8_t)(1U << random_below(8));
        check_whole(kernel, p, n);
        free(p);
    }
}

/* Every beginning of a character, valid or not, at every place of a text of
 * ASCII or of other characters, with the text ending there or going on. */
static void
around(const ws_kernel *kernel, const uint8_t *bytes, size_t size)
{
    static const size_t places[] = {0,  1,  2,  3,  13, 14, 15, 16,  17,
                                    29, 30, 31, 32, 33, 60, 61, 62,  63,
                                    64, 65, 66, 67, 68, 69, 95, 127, 128};

    for (size_t k = 0; k < sizeof places / sizeof places[0]; k++) {
        const size_t before = places[k];
        for (size_t after = 0; after <= 80; after += after ? 79 : 1) {
            uint8_t *p = exact(before + size + after);
            memset(p, 'a', before + size + after);
            if (k & 1) {
                random_text(p, before, 2 + (unsigned)(k & 2) / 2);
            }
            memcpy(p + before, bytes, size);
            check_whole(kernel, p, before + size + after);
            free(p);
        }
    }
}

static void
boundaries(const ws_kernel *kernel)
{
    static const uint8_t seconds[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                      0xa0, 0xbf, 0xc0, 0xc2, 0xe0, 0xff};

    for (unsigned lead = 0x7f; lead < 0x100; lead++) {
        uint8_t bytes[4];
        bytes[0] = (uint8_t)lead;
        around(kernel, bytes, 1);
        for (size_t s = 0; s < sizeof seconds; s++) {
            bytes[1] = seconds[s];
            around(kernel, bytes, 2);
            bytes[2] = 0x80;
            bytes[3] = 0xbf;
            around(kernel, bytes, 3);
            around(kernel, bytes, 4);
            bytes[2] = lead & 1 ? 'z' : 0xc3;
            around(kernel, bytes, 3);
            bytes[2] = 0xbf;
            bytes[3] = lead & 1 ? 0xc2 : 'z';
            around(kernel, bytes, 4);
        }
    }
}

static void
all_code_points(const ws_kernel *kernel)
{
    uint8_t bytes[4 * 1000];
    uint32_t point = 0;

    while (point < 0x110000) {
        size_t n = 0;
        for (int i = 0; i < 1000 && point < 0x110000; i++) {
            n += encode(bytes + n, point++);
            if (point == 0xd800) {
                point = 0xe000;
            }
        }
        uint8_t *p = exact(n);
        memcpy(p, bytes, n);
        check_whole(kernel, p, n);
        free(p);
    }
    for (point = 0xd800; point < 0xe000; point++) {
        ws_utf8_info info;
        encode(bytes, point);
        CHECK(kernel->utf8_scan(bytes, 3, &info) == 1, "surrogate %x", point);
    }
}

static void
every_cut(const ws_kernel *kernel)
{
    /* "kosme" in Greek, then 2, 3 and 4 bytes at their edges */
    static const uint8_t valid[] =
        "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xc2\x80\xdf\xbf\xe0\xa0"
        "\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf"
        "\xbf and some more text, so that it is longer than a block of 64.";
    const size_t n = sizeof valid - 1;

    for (size_t i = 0; i <= n; i++) {
        uint8_t *p = exact(i);
        memcpy(p, valid, i);
        check_whole(kernel, p, i);
        free(p);
        for (size_t k = i; k <= n; k++) {
            const size_t cuts[3] = {i, i, k};
            check_pieces(kernel, valid, n, cuts);
        }
    }
}

int
main(void)
{
    for (size_t v = 0; v < ws_kernel_count(); v++) {
        const ws_kernel *kernel = ws_kernel_at(v);
        if (!kernel->supported()) {
            printf("test_utf8: this CPU cannot run %s\n", kernel->name);
            continue;
        }
        texts(kernel);
        boundaries(kernel);
        all_code_points(kernel);
        every_cut(kernel);
    }

    const uint8_t text[] = "gr\xc3\xbc\xc3\x9f dich";
    ws_utf8_state st = {0, 0, 0};
    ws_utf8_info info;
    uint8_t one[9];
    uint16_t two[9];
    uint32_t four[9];
    CHECK(ws_utf8_scan(text, 11, &info) == 11 && info.chars == 9
              && info.max_char == 0xff,
          "scan: %zu", info.chars);
    CHECK(ws_utf8_validate(&st, text, 11) == 11, "validate");
    CHECK(ws_utf8_ascii_prefix(text, 11) == 2, "ascii_prefix");
    ws_utf8_decode1(one, text, 11);
    ws_utf8_decode2(two, text, 11);
    ws_utf8_decode4(four, text, 11);
    CHECK(one[2] == 0xfc && two[3] == 0xdf && four[8] == 'h', "decode");
    return passed("test_utf8");
}
