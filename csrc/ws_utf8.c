/* UTF-8: the variant without vectors, and the names that need no choice. */
#include "ws_utf8.h"

#include "ws_utf8_step.h"
#include "ws_variants.h"

size_t
ws_utf8_validate_scalar(ws_utf8_state *st, const uint8_t *data, size_t n)
{
    tally t = {0, 0};
    int bad;
    const size_t i = finish_character(st, data, n, &bad);

    if (bad || i == n) {
        return i;
    }
    return check_from(st, data, i, n, &t);
}

size_t
ws_utf8_scan_scalar(const uint8_t *data, size_t n, ws_utf8_info *info)
{
    ws_utf8_state st = {0, 0, 0};
    tally t = {0, 0};
    const size_t end = check_from(&st, data, 0, n, &t);

    return conclude(&st, end, n, &t, info);
}

void
ws_utf8_decode1_scalar(uint8_t *WS_RESTRICT dst,
                       const uint8_t *WS_RESTRICT src, size_t n)
{
    decode1_from(dst, src, 0, n);
}

void
ws_utf8_decode2_scalar(uint16_t *WS_RESTRICT dst,
                       const uint8_t *WS_RESTRICT src, size_t n)
{
    decode2_from(dst, src, 0, n);
}

void
ws_utf8_decode4_scalar(uint32_t *WS_RESTRICT dst,
                       const uint8_t *WS_RESTRICT src, size_t n)
{
    decode4_from(dst, src, 0, n);
}

size_t
ws_utf8_ascii_prefix_scalar(const uint8_t *data, size_t n)
{
    size_t i = 0;

    while (n - i >= 8 && is_ascii8(data + i)) {
        i += 8;
    }
    while (i < n && data[i] < 0x80) {
        i++;
    }
    return i;
}

size_t
ws_utf8_validate(ws_utf8_state *st, const uint8_t *data, size_t n)
{
    return WS_BASELINE(ws_utf8_validate)(st, data, n);
}

size_t
ws_utf8_scan(const uint8_t *data, size_t n, ws_utf8_info *info)
{
    return WS_BASELINE(ws_utf8_scan)(data, n, info);
}

void
ws_utf8_decode1(uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                size_t n)
{
    WS_BASELINE(ws_utf8_decode1)(dst, src, n);
}

void
ws_utf8_decode2(uint16_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                size_t n)
{
    WS_BASELINE(ws_utf8_decode2)(dst, src, n);
}

void
ws_utf8_decode4(uint32_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                size_t n)
{
    WS_BASELINE(ws_utf8_decode4)(dst, src, n);
}

size_t
ws_utf8_ascii_prefix(const uint8_t *data, size_t n)
{
    return WS_BASELINE(ws_utf8_ascii_prefix)(data, n);
}
