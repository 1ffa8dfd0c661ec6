/* Frame headers: every first two bytes, every length of interest, every cut. */
#include "../ws_frame.h"
#include "check.h"

static const uint8_t mask[4] = {0x11, 0x22, 0x83, 0xf4};

/* What is wrong with these bytes, judged by the letter; 0: nothing so far. */
static int
judge(const uint8_t *p, size_t n, int expect_mask, unsigned allowed)
{
    if (n >= 1) {
        const int opcode = p[0] & 15;
        const int control = opcode >= 8;
        if (p[0] & 0x70 & ~(control ? 0 : allowed)) {
            return WS_ERR_RSV;
        }
        if (opcode != 0 && opcode != 1 && opcode != 2 && opcode != 8
            && opcode != 9 && opcode != 10) {
            return WS_ERR_OPCODE;
        }
        if (control && !(p[0] & 0x80)) {
            return WS_ERR_CONTROL_FRAGMENTED;
        }
        if (n >= 2) {
            if (expect_mask && !(p[1] & 0x80)) {
                return WS_ERR_NOT_MASKED;
            }
            if (!expect_mask && (p[1] & 0x80)) {
                return WS_ERR_MASKED;
            }
            if (control && (p[1] & 0x7f) > 125) {
                return WS_ERR_CONTROL_TOO_LONG;
            }
            if (n >= 3 && (p[1] & 0x7f) == 127 && (p[2] & 0x80)) {
                return WS_ERR_LENGTH;
            }
        }
    }
    return 0;
}

static size_t
header_size(const uint8_t *p)
{
    const unsigned field = p[1] & 0x7f;
    const size_t extended = field == 126 ? 2 : field == 127 ? 8 : 0;
    return 2 + extended + (p[1] & 0x80 ? 4U : 0U);
}

static void
feed(const uint8_t *bytes, size_t total, int expect_mask, unsigned allowed)
{
    for (size_t n = 0; n <= total; n++) {
        uint8_t *p = exact(n);
        ws_frame_header head;
        memcpy(p, bytes, n);
        memset(&head, 0xee, sizeof head);
        const int got = ws_frame_decode(p, n, expect_mask, allowed, &head);
        const int wrong = judge(p, n, expect_mask, allowed);
        if (n >= 1) {
            CHECK(head.first == p[0] && head.fin == p[0] >> 7
                      && head.opcode == (p[0] & 15)
                      && head.rsv == (p[0] & 0x70),
                  "byte 0: %02x", p[0]);
        }
        if (wrong) {
            CHECK(got == -wrong, "%02x %02x, %zu bytes: %d, not %d", bytes[0],
                  bytes[1], n, got, -wrong);
            if (wrong == WS_ERR_CONTROL_TOO_LONG) {
                CHECK(head.length == (p[1] & 0x7fU), "length of control");
            }
        } else if (n >= 2 && n >= header_size(bytes)) {
            const size_t size = header_size(bytes);
            CHECK(got == (int)size && head.size == size, "size %d", got);
            CHECK(head.masked == bytes[1] >> 7, "masked");
            const uint8_t none[4] = {0, 0, 0, 0};
            CHECK(memcmp(head.mask, head.masked ? bytes + size - 4 : none, 4)
                      == 0,
                  "mask");
        } else {
            CHECK(got == 0, "%02x %02x, %zu bytes: %d, not 0", bytes[0],
                  bytes[1], n, got);
        }
        free(p);
    }
}

static void
round_trip(uint64_t length, int masked)
{
    uint8_t *out = exact(WS_FRAME_MAX_HEADER);
    ws_frame_header head;
    const size_t extended = length > 65535 ? 8 : length > 125 ? 2 : 0;
    const size_t want = 2 + extended + (masked ? 4U : 0U);

    memset(out, 0xee, WS_FRAME_MAX_HEADER);
    const size_t size =
        ws_frame_encode(out, 0x82, length, masked ? mask : NULL);
    CHECK(size == want, "length %llu: header of %zu bytes, not %zu",
          (unsigned long long)length, size, want);
    for (size_t i = size; i < WS_FRAME_MAX_HEADER; i++) {
        CHECK(out[i] == 0xee, "wrote behind the header");
    }
    CHECK(ws_frame_decode(out, size, masked, 0, &head) == (int)size
              && head.length == length && head.first == 0x82
              && head.masked == (masked != 0),
          "length %llu", (unsigned long long)length);
    CHECK(!masked || memcmp(head.mask, mask, 4) == 0, "mask");
    free(out);
}

/* Room for a payload: the sums do not wrap, on any width of size_t. */
static void
reserving(void)
{
    const size_t half = SIZE_MAX / 2;
    const struct {
        size_t need;
        uint64_t rest;
        size_t room;
    } cases[] = {
        {64, 0, 64},
        {64, 100, 164},
        {64, 192, 256},
        {64, UINT64_C(0x7fffffffffffffff), 256},
        {half / 4, UINT64_C(0x7fffffffffffffff), half / 4 * 4},
        {SIZE_MAX / 4 + 2, UINT64_C(0x7fffffffffffffff), half},
        {half - 1, UINT64_C(0x7fffffffffffffff), half},
        {half - 1, 0, half - 1},
        {half, UINT64_C(0x7fffffffffffffff), half},
        {SIZE_MAX, UINT64_C(0x7fffffffffffffff), SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t room = ws_frame_reserve(cases[i].need, cases[i].rest);
        CHECK(room == cases[i].room, "case %zu: %zu bytes, not %zu", i, room,
              cases[i].room);
    }
}

int
main(void)
{
    uint8_t bytes[15];

    for (unsigned first = 0; first < 256; first++) {
        for (unsigned second = 0; second < 256; second++) {
            for (unsigned variant = 0; variant < 8; variant++) {
                for (size_t i = 2; i < sizeof bytes; i++) {
                    bytes[i] = (uint8_t)random_below(256);
                }
                bytes[0] = (uint8_t)first;
                bytes[1] = (uint8_t)second;
                const unsigned rsv = variant & 2   ? 0x40
                                     : variant & 4 ? 0x70
                                                   : 0;
                feed(bytes, variant < 2 ? sizeof bytes : 3, variant & 1, rsv);
            }
        }
    }

    /* clang-format off */
    const uint64_t lengths[] = {0, 1, 124, 125, 126, 127, 128, 255, 256, 65534,
                                65535, 65536, 65537, 0x7fffffff, 0x80000000,
                                0xffffffff, UINT64_C(0x100000000),
                                UINT64_C(0x100000001),
                                UINT64_C(0x7fffffffffffffff)};
    /* clang-format on */
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        round_trip(lengths[i], 0);
        round_trip(lengths[i], 1);
    }

    /* RFC 6455, 5.7: the examples. */
    ws_frame_header head;
    const uint8_t hello[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d};
    CHECK(ws_frame_decode(hello, 6, 1, 0, &head) == 6 && head.length == 5
              && head.fin && head.opcode == 1,
          "a masked hello");
    const uint8_t large[] = {0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0};
    CHECK(ws_frame_decode(large, 10, 0, 0, &head) == 10
              && head.length == 65536,
          "64 KiB");
    const uint8_t top[] = {0x82, 0x7f, 0x80};
    CHECK(ws_frame_decode(top, 3, 0, 0, &head) == -WS_ERR_LENGTH, "top bit");
    /* More than needed is there: the payload is not looked at. */
    const uint8_t more[] = {0x02, 0x01, 0xff, 0xff};
    CHECK(ws_frame_decode(more, 4, 0, 0, &head) == 2 && !head.fin, "payload");
    reserving();
    return passed("test_frame");
}
