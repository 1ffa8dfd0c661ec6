/* UTF-8 with vectors: the loops, written once.  Internal.
 *
 * An ISA's file defines the pieces below and includes this file, which makes
 * its entry points out of them.  Texts are taken in blocks of 64 bytes; a
 * shorter rest is copied into a block of zeros first, so no piece reads or
 * writes outside of the caller's bytes.
 *
 *   WS_ISA                its name, the suffix of all entry points
 *   WS_ATTRIBUTE          the target attribute of all functions here
 *   gather                what a scan gathers, as a struct of vectors
 *   gather_none()         ... at the start of a text
 *   gather_tally(g, t)    ... as a tally (ws_utf8_step.h)
 *   FLUSH, gather_flush(g)   ... after at most FLUSH + 2 blocks
 *   block_is_ascii(p)     are p[0] to p[63] below 0x80?
 *   marks, marks_made()   constants for what takes k
 *   block_is_bad(k, p, g) is some byte of p[0] to p[63] one that cannot be?
 *                         Reads p[-3] to p[63]; p[-3] to p[-1] are known not
 *                         to be wrong.  A character that p[63] cuts is fine.
 *
 * Decoding (if WS_WINDOWS) is by windows of 32 bytes: a window writes the
 * characters whose *last* byte is in p[0] to p[31], and returns dst moved
 * behind them.  So windows need to know nothing of each other.
 *
 *   ends(k, p)            which of p[0] to p[31] end a character, a bit for
 *                         each; reads p[1] to p[32]
 *   pair1, pair2, pair4(k, dst, p, end)   read p[-1], p[-2] or p[-3] to p[31];
 *       store 8 units from each of four places, those where the characters
 *       begin that end in p[0] to p[7], in p[8] to p[15], and so on
 *   widen1, widen2, widen4(dst, p)   32 ASCII bytes to 32 units
 *   pair_is_ascii(p)      are p[0] to p[31] below 0x80?
 *   is_run3(p), run3(dst, p)   are p[0] to p[23] 8 characters of 3 bytes? Then
 *       8 units.  Reads to p[27].
 *   is_run4(p), run4(dst, p)   p[0] to p[31] and 8 characters of 4 bytes
 */
#define WS_PASTE2(a, b) a##_##b
#define WS_PASTE(a, b) WS_PASTE2(a, b)
#define WS_ENTRY(function) WS_PASTE(function, WS_ISA)

enum {
    BLOCK = 64,
    BEFORE = 4, /* bytes that a block or window may look back, and one */
    SHORT = 16  /* below this, going byte by byte is faster */
};

/* A short text with zeros around it. */
typedef struct framed {
    uint8_t before[BEFORE];
    uint8_t text[BLOCK + 4];
} framed;

/* Fill f with n bytes at p, at most BLOCK of them; before the first of them is
 * what is before p if there is something, else zeros.  The compiler's own
 * memset and memcpy of so few bytes are slow "rep" instructions. */
static WS_INLINE void
frame_text(framed *f, const uint8_t *p, size_t n, int has_before)
{
    for (size_t i = 0; i < sizeof f->text - 4; i += 32) {
        memset(f->text + i, 0, 32);
    }
    memset(f->text + BLOCK, 0, 4);
    if (has_before) {
        memcpy(f->before, p - BEFORE, BEFORE);
    } else {
        memset(f->before, 0, BEFORE);
    }
    if (n >= 32) {
        memcpy(f->text, p, 32);
        memcpy(f->text + n - 32, p + n - 32, 32);
    } else if (n >= 16) {
        memcpy(f->text, p, 16);
        memcpy(f->text + n - 16, p + n - 16, 16);
    } else if (n >= 8) {
        memcpy(f->text, p, 8);
        memcpy(f->text + n - 8, p + n - 8, 8);
    } else {
        for (size_t i = 0; i < n; i++) {
            f->text[i] = p[i];
        }
    }
}

/* The same check for a block that is not whole, or with nothing before it. */
static WS_NOINLINE WS_ATTRIBUTE int
framed_is_bad(const uint8_t *p, size_t n, int has_before, gather *g)
{
    const marks k = marks_made();
    framed f;

    frame_text(&f, p, n, has_before);
    return block_is_bad(&k, f.text, g);
}

/* Does the text stop inside a character before p?  p[-3] to p[-1] are known
 * not to be wrong. */
static WS_INLINE int
is_cut_before(const uint8_t *p)
{
    return p[-1] >= 0xc0 || p[-2] >= 0xe0 || p[-3] >= 0xf0;
}

/* n < BLOCK. */
static WS_INLINE int
rest_is_ascii(const uint8_t *p, size_t n)
{
    uint64_t seen = 0;

    if (n >= 8) {
        for (size_t i = 0; i < n - 8; i += 8) {
            seen |= ws_load64(p + i);
        }
        return ((seen | ws_load64(p + n - 8)) & WS_HIGH_BITS) == 0;
    }
    for (size_t i = 0; i < n; i++) {
        seen |= p[i];
    }
    return seen < 0x80;
}

/* A place at or before i where a character starts; at most 3 bytes before.
 * Everything before i is known not to be wrong. */
static WS_INLINE size_t
start_before(const uint8_t *data, size_t i)
{
    for (size_t k = 1; k <= 3 && k <= i; k++) {
        if (data[i - k] >= 0xc0) {
            return i - k;
        }
    }
    return i;
}

/* Validate from a character's start.  Returns n, with st telling where the
 * text stands, or the index of the first byte that cannot be.  t is filled
 * only if the text is valid and complete. */
static WS_INLINE WS_ATTRIBUTE size_t
run(ws_utf8_state *st, const uint8_t *data, size_t n, tally *t)
{
    gather g = gather_none();
    size_t i = 0;
    int after_text = 0; /* is the block before this one more than ASCII? */

    memset(st, 0, sizeof *st);
    if (n < SHORT) {
        return check_from(st, data, 0, n, t);
    }
    while (n - i >= BLOCK) {
        if (block_is_ascii(data + i)) {
            if (after_text && is_cut_before(data + i)) {
                goto find;
            }
            after_text = 0;
            i += BLOCK;
            continue;
        }
        if (i == 0) {
            if (framed_is_bad(data, BLOCK, 0, &g)) {
                goto find;
            }
            i = BLOCK;
        }
        /* This loop is the one that must be fast. */
        const marks k = marks_made();
        gather h = g; /* whose address nobody has */
        size_t flush = FLUSH;
        while (n - i >= BLOCK && flush > 0 && !block_is_ascii(data + i)) {
            if (block_is_bad(&k, data + i, &h)) {
                goto find;
            }
            i += BLOCK;
            flush--;
        }
        gather_flush(&h);
        g = h;
        after_text = 1;
    }
    if (rest_is_ascii(data + i, n - i)) {
        if (after_text && is_cut_before(data + i)) {
            goto find;
        }
    } else if (framed_is_bad(data + i, n - i, i > 0, &g)) {
        /* The zeros show if the text ends inside a character. */
        goto find;
    }
    gather_tally(&g, t);
    return n;

find:
    return check_from(st, data, start_before(data, i), n, t);
}

WS_ATTRIBUTE size_t
WS_ENTRY(ws_utf8_validate)(ws_utf8_state *st, const uint8_t *data, size_t n)
{
    tally t = {0, 0};
    int bad;
    const size_t i = finish_character(st, data, n, &bad);

    if (bad || i == n) {
        return i;
    }
    return i + run(st, data + i, n - i, &t);
}

WS_ATTRIBUTE size_t
WS_ENTRY(ws_utf8_scan)(const uint8_t *data, size_t n, ws_utf8_info *info)
{
    ws_utf8_state st;
    tally t = {0, 0};
    const size_t end = run(&st, data, n, &t);

    return conclude(&st, end, n, &t, info);
}

WS_ATTRIBUTE size_t
WS_ENTRY(ws_utf8_ascii_prefix)(const uint8_t *data, size_t n)
{
    size_t i = 0;

    while (n - i >= BLOCK && block_is_ascii(data + i)) {
        i += BLOCK;
    }
    while (n - i >= 8 && is_ascii8(data + i)) {
        i += 8;
    }
    while (i < n && data[i] < 0x80) {
        i++;
    }
    return i;
}

#if WS_WINDOWS

/* Copy n bytes; see frame_text() for why not by memcpy. */
static WS_INLINE void
copy_units(void *dst, const void *src, size_t n)
{
    uint8_t *to = dst;
    const uint8_t *from = src;

    if (n < 16) {
        for (size_t i = 0; i < n; i++) {
            to[i] = from[i];
        }
        return;
    }
    for (size_t i = 0; i < n - 16; i += 16) {
        memcpy(to + i, from + i, 16);
        WS_AS_WRITTEN();
    }
    memcpy(to + n - 16, from + n - 16, 16);
}

/* The last 8 units that a window stores begin with the characters that end in
 * p[24] or later.  If `need` bytes are left from p on, at least 8 characters
 * end there: one has at most `longest` bytes, so need = 24 + 7 * longest + 1
 * is enough, and covers p[32]. */
#define WS_NEED(longest) (24 + 7 * (longest) + 1)

/* Text of few characters for its bytes is likely to be nothing but characters
 * of `longest` bytes for a while. */
#define WS_DECODE(name, unit, pair, widen, from, longest, is_run, run8)       \
    WS_ATTRIBUTE void WS_ENTRY(name)(                                         \
        unit *WS_RESTRICT dst, const uint8_t *WS_RESTRICT src, size_t n)      \
    {                                                                         \
        enum { NEED = WS_NEED(longest) };                                     \
        const marks k = marks_made();                                         \
        framed rest;                                                          \
        unit out[BLOCK + 8];                                                  \
        unit *stop = out;                                                     \
        size_t i = 0, left = n, done = 0;                                     \
                                                                              \
        if (n < SHORT) {                                                      \
            from(dst, src, 0, n);                                             \
            return;                                                           \
        }                                                                     \
        if (n >= NEED + BEFORE) {                                             \
            while (i < BEFORE) { /* so that there is something before */      \
                *dst++ = (unit)take(src, &i);                                 \
            }                                                                 \
            while (n - i >= NEED) {                                           \
                if (pair_is_ascii(src + i)) {                                 \
                    widen(dst, src + i);                                      \
                    dst += 32;                                                \
                    i += 32;                                                  \
                    continue;                                                 \
                }                                                             \
                const uint32_t end = ends(&k, src + i);                       \
                dst = pair(&k, dst, src + i, end);                            \
                i += 32;                                                      \
                if (longest > 2 && ws_popcount(end) <= 32 / longest + 1) {    \
                    while (is_continuation(src[i])) {                         \
                        i--;                                                  \
                    }                                                         \
                    for (; n - i >= NEED && is_run(src + i); dst += 8) {      \
                        run8(dst, src + i);                                   \
                        i += 8 * (longest);                                   \
                    }                                                         \
                }                                                             \
            }                                                                 \
            left = n - i;                                                     \
        }                                                                     \
        frame_text(&rest, src + i, left, i > 0);                              \
        for (; done < left; done += 32) {                                     \
            stop =                                                            \
                pair(&k, stop, rest.text + done, ends(&k, rest.text + done)); \
        }                                                                     \
        /* Each of the zeros behind the text became a unit as well. */        \
        stop -= done - left;                                                  \
        copy_units(dst, out, (size_t)(stop - out) * sizeof *out);             \
    }

/* There is little to win with characters of 2 bytes. */
static WS_INLINE int
is_run2(const uint8_t *p)
{
    (void)p;
    return 0;
}

static WS_INLINE void
run2(uint8_t *dst, const uint8_t *p)
{
    (void)dst;
    (void)p;
}

WS_DECODE(ws_utf8_decode1, uint8_t, pair1, widen1, decode1_from, 2, is_run2,
          run2)
WS_DECODE(ws_utf8_decode2, uint16_t, pair2, widen2, decode2_from, 3, is_run3,
          run3)
WS_DECODE(ws_utf8_decode4, uint32_t, pair4, widen4, decode4_from, 4, is_run4,
          run4)

#endif
