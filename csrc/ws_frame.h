/* Frame headers (RFC 6455, 5.2): decode and encode.
 *
 * Header only, so that the codec has it inlined.  Nothing here looks at the
 * payload, and nothing is added to a length that came from the wire.
 */
#ifndef WS_FRAME_H
#define WS_FRAME_H

#include "ws_err.h"
#include "ws_platform.h"

#define WS_FRAME_MAX_HEADER 14

typedef struct ws_frame_header {
    uint64_t length; /* of the payload; below 2^63 in a complete header */
    uint8_t first;   /* byte 0 as it came */
    uint8_t fin;     /* 0 or 1 */
    uint8_t opcode;  /* 0 to 15 */
    uint8_t rsv;     /* 0x40, 0x20 and 0x10, in place */
    uint8_t masked;  /* 0 or 1 */
    uint8_t size;    /* bytes of the header: 2 to 14 */
    uint8_t mask[4]; /* zeros if not masked */
} ws_frame_header;

/* Read a header from the n bytes at data.
 *
 * expect_mask: nonzero on a server.  allowed_rsv: reserved bits (of byte 0)
 * which extensions define; in control frames none is allowed.
 *
 * Returns the size of the header; or 0 if more bytes are needed; or -ws_err.
 * What can be judged is judged as soon as its byte is there, so an answer of
 * 0 says that the bytes so far are fine.  out->first, fin, opcode and rsv are
 * set if n >= 1, whatever the result; the rest only by a complete header,
 * except that length is the 7-bit field after WS_ERR_CONTROL_TOO_LONG.
 */
static WS_INLINE int
ws_frame_decode(const uint8_t *data, size_t n, int expect_mask,
                unsigned allowed_rsv, ws_frame_header *out)
{
    if (n == 0) {
        return 0;
    }
    const unsigned first = data[0];
    const unsigned opcode = first & 0x0f;
    const unsigned rsv = first & 0x70;
    out->first = (uint8_t)first;
    out->fin = (uint8_t)(first >> 7);
    out->opcode = (uint8_t)opcode;
    out->rsv = (uint8_t)rsv;
    if (WS_UNLIKELY(rsv & ~(opcode & 8 ? 0 : allowed_rsv))) {
        return -WS_ERR_RSV;
    }
    if (WS_UNLIKELY((opcode & 7) > 2)) { /* 3 to 7 and 11 to 15 */
        return -WS_ERR_OPCODE;
    }
    if (WS_UNLIKELY((first & 0x88) == 0x08)) {
        return -WS_ERR_CONTROL_FRAGMENTED;
    }
    if (n == 1) {
        return 0;
    }

    const unsigned second = data[1];
    const unsigned masked = second >> 7;
    uint64_t length = second & 0x7f;
    if (WS_UNLIKELY(masked != (expect_mask != 0))) {
        return expect_mask ? -WS_ERR_NOT_MASKED : -WS_ERR_MASKED;
    }
    size_t at = 2;
    if (length > 125) {
        if (WS_UNLIKELY(opcode & 8)) {
            out->length = length;
            return -WS_ERR_CONTROL_TOO_LONG;
        }
        if (length == 126) {
            if (n < 4) {
                return 0;
            }
            length = (uint64_t)data[2] << 8 | data[3];
            at = 4;
        } else {
            if (n > 2 && WS_UNLIKELY(data[2] & 0x80)) {
                return -WS_ERR_LENGTH;
            }
            if (n < 10) {
                return 0;
            }
            length = 0;
            for (at = 2; at < 10; at++) {
                length = length << 8 | data[at];
            }
        }
    }
    if (masked) {
        if (n - at < 4) {
            return 0;
        }
        memcpy(out->mask, data + at, 4);
        at += 4;
    } else {
        memset(out->mask, 0, 4);
    }
    out->length = length;
    out->masked = (uint8_t)masked;
    out->size = (uint8_t)at;
    return (int)at;
}

/* Write a header; first is byte 0 (FIN, reserved bits, opcode).
 * length must be below 2^63; mask is 4 bytes or NULL.
 * Returns the size, 2 to 14; bytes of out beyond it are left as they were. */
static WS_INLINE size_t
ws_frame_encode(uint8_t out[WS_FRAME_MAX_HEADER], unsigned first,
                uint64_t length, const uint8_t *mask)
{
    const unsigned masked = mask != NULL ? 0x80 : 0;
    size_t at = 2;

    out[0] = (uint8_t)first;
    if (length < 126) {
        out[1] = (uint8_t)(masked | (unsigned)length);
    } else if (length < 65536) {
        out[1] = (uint8_t)(masked | 126);
        out[2] = (uint8_t)(length >> 8);
        out[3] = (uint8_t)length;
        at = 4;
    } else {
        out[1] = (uint8_t)(masked | 127);
        for (unsigned shift = 64; shift > 0;) {
            shift -= 8;
            out[at++] = (uint8_t)(length >> shift);
        }
    }
    if (mask != NULL) {
        memcpy(out + at, mask, 4);
        at += 4;
    }
    return at;
}

/* Bytes to reserve for a payload of which need are here and rest are still to come:
 * those that are here, and of the rest up to three times as many.  At least need, and
 * what is above it never goes beyond half of what a size_t holds, whatever was
 * claimed. */
static WS_INLINE size_t
ws_frame_reserve(size_t need, uint64_t rest)
{
    const size_t limit = SIZE_MAX / 2;
    if (need >= limit) {
        return need;
    }
    size_t more = need > limit / 3 ? limit : need * 3;
    if (more > limit - need) {
        more = limit - need;
    }
    return need + (rest < more ? (size_t)rest : more);
}

#endif
