/* UTF-8 with 128-bit vectors: the pieces of ws_utf8_body.h, written over a few
 * operations that each ISA's file defines.  Internal.
 *
 * vec                      16 bytes
 * v_load(p), v_store(p, v)
 * v_repeat(byte)
 * v_and, v_or, v_xor, v_max(a, b)  the maximum is of unsigned bytes
 * v_andnot(a, b)          b without the bits of a
 * v_subs(a, b)             difference of unsigned bytes, at least 0
 * v_sub(a, b), v_add(a, b) modulo 256
 * v_more(c0, v)            0xff where a byte is a continuation, else 0
 * v_left(v, n), v_right(v, n)      shift; bits that come from or go to a
 *                          neighbouring byte may be anything
 * v_look(table, index)     index < 16 in each byte
 * v_lower(a, b), v_upper(a, b)     interleave the lower or upper 8 bytes
 * v_lower2(a, b), v_upper2(a, b)   the same for 4 units of 2 bytes
 * v_any_high(v)            is some byte 0x80 or above?
 * v_is_zero(v)
 * v_bits(v)                a bit for each byte, which is 0 or 0xff
 * v_sum(v)                 of all bytes
 * v_top(v)                 the largest byte
 * v_store_half(p, v)       the lower 8 bytes
 * v_row8(m), v_row16(m)    rows of ws_utf8_pack.h
 * ws_popcount(m)           of 32 bits
 */

/* Constants, set up once for each loop. */
typedef struct marks {
    vec x03, x08, x0f, x1c, x60, x70, x7f, x80, xc0;
    vec tables[3];
} marks;

static WS_INLINE WS_ATTRIBUTE vec
mark(unsigned byte)
{
    vec v = v_repeat(byte);
    WS_OPAQUE(v);
    return v;
}

static WS_INLINE WS_ATTRIBUTE vec
table(const uint8_t *p)
{
    vec v = v_load(p);
    WS_OPAQUE(v);
    return v;
}

static WS_INLINE WS_ATTRIBUTE marks
marks_made(void)
{
    static const uint8_t tables[3][16] = {
        {FIRST_UPPER}, {FIRST_LOWER}, {SECOND_UPPER}};
    marks k;

    k.x03 = mark(0x03);
    k.x08 = mark(0x08);
    k.x0f = mark(0x0f);
    k.x1c = mark(0x1c);
    k.x60 = mark(0xe0 - 0x80);
    k.x70 = mark(0xf0 - 0x80);
    k.x7f = mark(0x7f);
    k.x80 = mark(THIRD);
    k.xc0 = mark(0xc0);
    k.tables[0] = table(tables[0]);
    k.tables[1] = table(tables[1]);
    k.tables[2] = table(tables[2]);
    return k;
}

static WS_INLINE WS_ATTRIBUTE vec
lower_half(const marks *k, vec v)
{
    return v_and(v, k->x0f);
}

static WS_INLINE WS_ATTRIBUTE vec
upper_half(const marks *k, vec v)
{
    return v_and(v_right(v, 4), k->x0f);
}

/* Validation ------------------------------------------------------------- */

enum { FLUSH = 60 }; /* blocks, of 4 vectors, that fit into a byte's count */

typedef struct gather {
    vec top;
    vec more; /* how many continuations, by column, since the last flush */
    size_t extra;
} gather;

static WS_INLINE WS_ATTRIBUTE gather
gather_none(void)
{
    gather g;
    g.top = v_repeat(0);
    g.more = v_repeat(0);
    g.extra = 0;
    return g;
}

static WS_INLINE WS_ATTRIBUTE void
gather_flush(gather *g)
{
    g->extra += v_sum(g->more);
    g->more = v_repeat(0);
}

static WS_INLINE WS_ATTRIBUTE void
gather_tally(gather *g, tally *t)
{
    t->top = v_top(g->top);
    t->extra += g->extra + v_sum(g->more);
}

static WS_INLINE WS_ATTRIBUTE int
block_is_ascii(const uint8_t *p)
{
    return !v_any_high(v_or(v_or(v_load(p), v_load(p + 16)),
                            v_or(v_load(p + 32), v_load(p + 48))));
}

static WS_INLINE WS_ATTRIBUTE int
pair_is_ascii(const uint8_t *p)
{
    return !v_any_high(v_or(v_load(p), v_load(p + 16)));
}

/* Nonzero at each byte of p[0] to p[15] that cannot be, given p[-3] to p[-1]. */
static WS_INLINE WS_ATTRIBUTE vec
mistakes(const marks *k, const uint8_t *p, vec here)
{
    const vec before = v_load(p - 1);
    const vec pair = v_and(v_and(v_look(k->tables[0], upper_half(k, before)),
                                 v_look(k->tables[1], lower_half(k, before))),
                           v_look(k->tables[2], upper_half(k, here)));
    /* The top bit is set by a subtraction that stops at zero. */
    const vec due =
        v_or(v_subs(v_load(p - 2), k->x60), v_subs(v_load(p - 3), k->x70));

    return v_xor(pair, v_and(due, k->x80));
}

static WS_INLINE WS_ATTRIBUTE int
block_is_bad(const marks *k, const uint8_t *p, gather *g)
{
    vec wrong = v_repeat(0);

    for (size_t i = 0; i < 64; i += 16) {
        const vec here = v_load(p + i);
        wrong = v_or(wrong, mistakes(k, p + i, here));
        g->top = v_max(g->top, here);
        g->more = v_sub(g->more, v_more(k->xc0, here));
    }
    return !v_is_zero(wrong);
}

/* Decoding --------------------------------------------------------------- */

/* Which bytes of p[0] to p[31] end a character: a bit for each. */
static WS_INLINE WS_ATTRIBUTE uint32_t
ends(const marks *k, const uint8_t *p)
{
    return ~(v_bits(v_more(k->xc0, v_load(p + 1)))
             | v_bits(v_more(k->xc0, v_load(p + 17))) << 16);
}

/* The low byte of the character that ends at each byte. */
static WS_INLINE WS_ATTRIBUTE vec
low_bytes(const marks *k, vec last, vec previous)
{
    return v_or(v_and(last, k->x7f), v_and(v_left(previous, 6), k->xc0));
}

/* Its second byte. */
static WS_INLINE WS_ATTRIBUTE vec
high_bytes(const marks *k, vec previous, vec second)
{
    return v_or(v_and(v_right(previous, 2), k->x0f),
                v_andnot(k->x0f, v_left(second, 4)));
}

static WS_INLINE WS_ATTRIBUTE uint8_t *
window1(const marks *k, uint8_t *dst, const uint8_t *p, uint32_t end)
{
    const vec last = v_load(p);
    const vec previous = v_and(v_load(p - 1), v_more(k->xc0, last));
    const vec low = low_bytes(k, last, previous);

    v_store_half(dst, v_look(low, v_row8(end & 0xff)));
    dst += ws_popcount(end & 0xff);
    v_store_half(dst, v_look(low, v_add(v_row8(end >> 8 & 0xff), k->x08)));
    return dst + ws_popcount(end >> 8 & 0xff);
}

static WS_INLINE WS_ATTRIBUTE uint16_t *
window2(const marks *k, uint16_t *dst, const uint8_t *p, uint32_t end)
{
    const vec last = v_load(p);
    const vec before = v_load(p - 1);
    const vec is_more = v_more(k->xc0, last);
    const vec previous = v_and(before, is_more);
    const vec second =
        v_and(v_load(p - 2), v_and(is_more, v_more(k->xc0, before)));
    const vec low = low_bytes(k, last, previous);
    const vec high = high_bytes(k, previous, second);

    v_store(dst, v_look(v_lower(low, high), v_row16(end & 0xff)));
    dst += ws_popcount(end & 0xff);
    v_store(dst, v_look(v_upper(low, high), v_row16(end >> 8 & 0xff)));
    return dst + ws_popcount(end >> 8 & 0xff);
}

static WS_INLINE WS_ATTRIBUTE void
store4(uint32_t *dst, vec lower, vec upper, vec row)
{
    lower = v_look(lower, row);
    upper = v_look(upper, row);
    v_store(dst, v_lower2(lower, upper));
    v_store(dst + 4, v_upper2(lower, upper));
}

static WS_INLINE WS_ATTRIBUTE uint32_t *
window4(const marks *k, uint32_t *dst, const uint8_t *p, uint32_t end)
{
    const vec zero = v_repeat(0);
    const vec last = v_load(p);
    const vec before = v_load(p - 1);
    const vec before2 = v_load(p - 2);
    const vec is_more = v_more(k->xc0, last);
    const vec is_third = v_and(is_more, v_more(k->xc0, before));
    const vec is_fourth = v_and(is_third, v_more(k->xc0, before2));
    const vec previous = v_and(before, is_more);
    const vec second = v_and(before2, is_third);
    const vec low = low_bytes(k, last, previous);
    const vec high = high_bytes(k, previous, second);
    const vec top =
        v_and(is_fourth, v_or(v_and(v_right(second, 4), k->x03),
                              v_and(v_left(v_load(p - 3), 2), k->x1c)));

    store4(dst, v_lower(low, high), v_lower(top, zero), v_row16(end & 0xff));
    dst += ws_popcount(end & 0xff);
    store4(dst, v_upper(low, high), v_upper(top, zero),
           v_row16(end >> 8 & 0xff));
    return dst + ws_popcount(end >> 8 & 0xff);
}

static WS_INLINE WS_ATTRIBUTE uint8_t *
pair1(const marks *k, uint8_t *dst, const uint8_t *p, uint32_t end)
{
    return window1(k, window1(k, dst, p, end), p + 16, end >> 16);
}

static WS_INLINE WS_ATTRIBUTE uint16_t *
pair2(const marks *k, uint16_t *dst, const uint8_t *p, uint32_t end)
{
    return window2(k, window2(k, dst, p, end), p + 16, end >> 16);
}

static WS_INLINE WS_ATTRIBUTE uint32_t *
pair4(const marks *k, uint32_t *dst, const uint8_t *p, uint32_t end)
{
    return window4(k, window4(k, dst, p, end), p + 16, end >> 16);
}

static WS_INLINE WS_ATTRIBUTE void
widen1(uint8_t *dst, const uint8_t *p)
{
    memcpy(dst, p, 32);
}

static WS_INLINE WS_ATTRIBUTE void
widen2(uint16_t *dst, const uint8_t *p)
{
    const vec zero = v_repeat(0);

    for (size_t i = 0; i < 32; i += 16) {
        const vec v = v_load(p + i);
        v_store(dst + i, v_lower(v, zero));
        v_store(dst + i + 8, v_upper(v, zero));
    }
}

static WS_INLINE WS_ATTRIBUTE void
widen4(uint32_t *dst, const uint8_t *p)
{
    const vec zero = v_repeat(0);

    for (size_t i = 0; i < 32; i += 16) {
        const vec v = v_load(p + i);
        const vec lower = v_lower(v, zero);
        const vec upper = v_upper(v, zero);
        v_store(dst + i, v_lower2(lower, zero));
        v_store(dst + i + 4, v_upper2(lower, zero));
        v_store(dst + i + 8, v_lower2(upper, zero));
        v_store(dst + i + 12, v_upper2(upper, zero));
    }
}
