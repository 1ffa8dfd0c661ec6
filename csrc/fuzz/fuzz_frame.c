/* Frame headers: what is refused is refused as soon as it can be seen, and
 * stays refused; what is accepted comes back when it is encoded.
 * Input: role and reserved bits (1), header and more. */
#include "../ws_frame.h"
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    const int expect_mask = data[0] & 1;
    const unsigned allowed = data[0] & 0x70;
    int result = 0;
    ws_frame_header head;

    data++;
    size--;
    memset(&head, 0, sizeof head);
    for (size_t n = 0; n <= size && n <= 20; n++) {
        uint8_t *p = exact_copy(data, n);
        const int now = ws_frame_decode(p, n, expect_mask, allowed, &head);
        must(result == 0 || now == result, "frame", "changed its mind");
        must(now <= (int)n && now <= WS_FRAME_MAX_HEADER, "frame", "size");
        must(now >= -WS_ERR_LENGTH, "frame", "error");
        result = now;
        free(p);
    }
    if (result > 0) {
        uint8_t again[WS_FRAME_MAX_HEADER];
        ws_frame_header same;
        must(head.size == result && head.length >> 63 == 0, "frame", "head");
        const size_t n = ws_frame_encode(again, head.first, head.length,
                                         head.masked ? head.mask : NULL);
        must(n <= head.size, "frame", "not the shortest form");
        must(ws_frame_decode(again, n, expect_mask, allowed, &same) == (int)n,
             "frame", "does not decode");
        must(same.length == head.length && same.first == head.first
                 && memcmp(same.mask, head.mask, 4) == 0,
             "frame", "comes back different");
    }
    return 0;
}
