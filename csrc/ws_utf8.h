/* UTF-8 (RFC 3629): validate, measure, decode.
 *
 * Exactly n bytes of the input are read.  "The first byte that cannot be" is
 * the first byte after which no continuation makes the text valid: a wrong
 * lead byte, or the byte that is not the continuation its sequence needs.
 *
 * These functions use what every CPU of the target has.  The faster choice
 * made at run time is in ws_kernel.h.
 */
#ifndef WS_UTF8_H
#define WS_UTF8_H

#include "ws_platform.h"

/* Where a text stands between two pieces.  All zeros: at the end of a
 * character, which is also how a text begins. */
typedef struct ws_utf8_state {
    uint8_t need; /* bytes that the current character still needs */
    uint8_t low;  /* if need > 0: the next byte is at least this */
    uint8_t high; /* if need > 0: the next byte is at most this */
} ws_utf8_state;

/* Take the next piece of a text.  Pieces may be cut anywhere, also inside a
 * character.  Returns n if the text can still become valid, else the index in
 * data of the first byte that cannot be; st is then of no more use. */
size_t ws_utf8_validate(ws_utf8_state *st, const uint8_t *data, size_t n);

/* Nonzero if the text may end here. */
static WS_INLINE int
ws_utf8_is_complete(const ws_utf8_state *st)
{
    return st->need == 0;
}

typedef struct ws_utf8_info {
    size_t chars;      /* code points */
    uint32_t max_char; /* 0x7f, 0xff, 0xffff or 0x10ffff: the least of these
                        * that no code point exceeds */
} ws_utf8_info;

/* Validate and measure a whole text.  Returns n if it is valid; the index of
 * the first byte that cannot be (below n) if not; and n, with info->chars ==
 * SIZE_MAX, if it ends inside a character.  info is meaningful only after the
 * first of these (but for that SIZE_MAX). */
size_t ws_utf8_scan(const uint8_t *data, size_t n, ws_utf8_info *info);

/* Decode a text that ws_utf8_scan found valid.  dst has room for info.chars
 * units, and no unit beyond is touched; each unit must be wide enough for
 * info.max_char.  dst and src must not overlap. */
void ws_utf8_decode1(uint8_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                     size_t n);
void ws_utf8_decode2(uint16_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                     size_t n);
void ws_utf8_decode4(uint32_t *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src,
                     size_t n);

/* How many leading bytes are below 0x80. */
size_t ws_utf8_ascii_prefix(const uint8_t *data, size_t n);

#endif
