/* Frame headers, written: byte by byte what section 5.2 says, nothing beyond,
 * and what a reader makes of it.
 * Input: byte 0 (1), masked or not (1), mask (4), length (8), shift (1). */
#include "../ws_frame.h"
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 15) {
        return 0;
    }
    const unsigned first = data[0];
    const int masked = data[1] & 1;
    const uint8_t *mask = data + 2;
    uint64_t length = 0;
    uint8_t out[WS_FRAME_MAX_HEADER];
    uint8_t want[WS_FRAME_MAX_HEADER];
    ws_frame_header head;
    size_t n = 2;

    for (size_t i = 6; i < 14; i++) {
        length = length << 8 | data[i];
    }
    length = (length & INT64_MAX) >> data[14] % 63;
    memset(want, 0xa5, sizeof want);
    memset(out, 0xa5, sizeof out);
    want[0] = (uint8_t)first;
    const size_t extended = length < 126 ? 0 : length < 65536 ? 2 : 8;
    want[1] = (uint8_t)(extended == 0 ? length : extended == 2 ? 126 : 127);
    want[1] |= masked ? 0x80 : 0;
    for (size_t i = 0; i < extended; i++) {
        want[n++] = (uint8_t)(length >> 8 * (extended - 1 - i));
    }
    if (masked) {
        memcpy(want + n, mask, 4);
        n += 4;
    }
    must(ws_frame_encode(out, first, length, masked ? mask : NULL) == n,
         "header", "size");
    must(memcmp(out, want, sizeof out) == 0, "header", "bytes");

    uint8_t *p = exact_copy(out, n);
    const int got = ws_frame_decode(p, n, masked, 0x70, &head);
    if (got > 0) {
        must(got == (int)n && head.length == length && head.first == first
                 && head.masked == masked && head.fin == first >> 7
                 && head.opcode == (first & 15) && head.rsv == (first & 0x70),
             "header", "comes back different");
        must(!masked || memcmp(head.mask, mask, 4) == 0, "header", "mask");
    }
    must(ws_frame_decode(p, n, !masked, 0x70, &head) < 0, "header",
         "wrong role");
    for (size_t k = 0; k < n; k++) {
        must(ws_frame_decode(p, k, masked, 0x70, &head) <= 0, "header",
             "done too early");
    }
    free(p);
    return 0;
}
