/* stream.h: what the load generator sends and what it expects back, built
 * once before the clock starts.
 *
 * Message i of a connection is variant i % count. The masked frames of all
 * variants lie one behind the other in `frames`, twice if that is small, so
 * that a batch of any length starting anywhere is one send(2). The expected
 * replies (whole, unmasked, minimal header) lie in `replies` likewise and are
 * compared with memcmp; a server that answers in another legal form is parsed
 * and compared with `payloads`.
 */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include "wire.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef HAVE_ZLIB
#include <zlib.h>
#endif

typedef struct {
    size_t count;       /* variants */
    size_t size;        /* payload bytes of a message */
    unsigned opcode;
    uint8_t *payloads;  /* count * size */
    uint8_t *frames;    /* period bytes, `copies` times */
    size_t *starts;     /* count + 1 offsets in `frames` */
    size_t period, copies;
    uint8_t *replies;   /* count * reply_size, twice */
    size_t reply_size;
} stream;

static uint64_t stream_seed = 0x9E3779B97F4A7C15u;

static inline uint64_t
stream_random(void)
{
    stream_seed ^= stream_seed << 13;
    stream_seed ^= stream_seed >> 7;
    stream_seed ^= stream_seed << 17;
    return stream_seed;
}

static inline void *
stream_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p) {
        fprintf(stderr, "out of memory: %zu bytes\n", n);
        exit(2);
    }
    return p;
}

static inline size_t
stream_utf8(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

static inline uint32_t
stream_character(const char *kind)
{
    uint32_t r = (uint32_t)(stream_random() >> 33);
    if (strcmp(kind, "cyrillic") == 0) {
        return 0x410 + r % 64;
    }
    if (strcmp(kind, "cjk") == 0) {
        return 0x4E00 + r % 20000;
    }
    if (strcmp(kind, "emoji") == 0) {
        return 0x1F600 + r % 64;
    }
    if (strcmp(kind, "mixed") == 0) {
        static const uint32_t base[] = {'a', 'a', 'a', 'a', 'a', 0xE0, 0x430,
                                        0x4E00, 0x1F600};
        return base[r / 32 % 9] + r % 26;
    }
    return r % 6 ? 'a' + r / 8 % 26 : ' ';
}

static inline void
stream_json(uint8_t *out, size_t n)
{
    size_t have = 0;
    while (have < n) {
        char item[160];
        int size = snprintf(
            item, sizeof item,
            "%s{\"id\": %u, \"symbol\": \"%c%c%c\", \"price\": %u.%02u, "
            "\"side\": \"%s\", \"active\": %s}", have ? ", " : "[",
            (unsigned)(stream_random() >> 44),
            (char)('A' + stream_random() % 26),
            (char)('A' + stream_random() % 26),
            (char)('A' + stream_random() % 26),
            (unsigned)(stream_random() >> 50), (unsigned)(stream_random() % 100),
            stream_random() & 1 ? "buy" : "sell",
            stream_random() & 1 ? "true" : "false");
        size_t part = (size_t)size < n - have ? (size_t)size : n - have;
        memcpy(out + have, item, part);
        have += part;
    }
}

/* A message of Socket.IO: an event with one text, which needs no escapes. */
#define STREAM_EVENT "42[\"m\",\""
#define STREAM_EVENT_END "\"]"

/* Exactly n bytes of the kind; text kinds end in ASCII where they must. */
static inline void
stream_payload(uint8_t *out, size_t n, const char *kind)
{
    if (strcmp(kind, "json") == 0) {
        stream_json(out, n);
        return;
    }
    if (strcmp(kind, "socketio") == 0) {
        size_t begin = strlen(STREAM_EVENT), end = strlen(STREAM_EVENT_END);
        memcpy(out, STREAM_EVENT, begin);
        memcpy(out + n - end, STREAM_EVENT_END, end);
        out += begin;
        n -= begin + end;
    }
    if (strcmp(kind, "binary") == 0) {
        for (size_t i = 0; i < n; i++) {
            out[i] = (uint8_t)(stream_random() >> 32);
        }
        return;
    }
    for (size_t have = 0; have < n;) {
        uint8_t unit[4];
        size_t size = stream_utf8(unit, stream_character(kind));
        if (size > n - have) {
            unit[0] = '.';
            size = 1;
        }
        memcpy(out + have, unit, size);
        have += size;
    }
}

/* Raw deflate of a message without its last four bytes (RFC 7692, 7.2.1);
 * every message stands alone, which a client may always do. */
static inline size_t
stream_deflate(const uint8_t *data, size_t n, uint8_t **out)
{
#ifdef HAVE_ZLIB
    z_stream z = {0};
    deflateInit2(&z, 6, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY);
    size_t room = deflateBound(&z, n) + 64;
    *out = stream_alloc(room);
    z.next_in = (Bytef *)data;
    z.avail_in = (uInt)n;
    z.next_out = *out;
    z.avail_out = (uInt)room;
    deflate(&z, Z_SYNC_FLUSH);
    size_t size = room - z.avail_out;
    deflateEnd(&z);
    return size - 4;
#else
    (void)data;
    (void)n;
    (void)out;
    return 0;
#endif
}

/* One message as `fragments` masked frames at `out` (or only its size). */
static inline size_t
stream_frames(uint8_t *out, const uint8_t *data, size_t n, unsigned opcode,
              unsigned rsv, size_t fragments)
{
    size_t total = 0, done = 0;
    for (size_t i = 0; i < fragments; i++) {
        size_t end = (size_t)((unsigned __int128)n * (i + 1) / fragments);
        uint64_t random = stream_random();
        uint8_t mask[4], header[14];
        memcpy(mask, &random, 4);
        unsigned first = (i == 0 ? opcode | rsv : WIRE_CONT)
                       | (i + 1 == fragments ? 0x80u : 0u);
        size_t size = wire_header(header, first, end - done, mask);
        if (out) {
            memcpy(out + total, header, size);
            if (end > done) {
                memcpy(out + total + size, data + done, end - done);
                wire_mask(out + total + size, end - done, mask, 0);
            }
        }
        total += size + end - done;
        done = end;
    }
    return total;
}

static inline void
stream_init(stream *s, size_t size, const char *kind, size_t fragments,
            int deflated, size_t depth)
{
    enum { BUDGET = 1 << 22 };
    s->size = size;
    s->opcode = strcmp(kind, "binary") == 0 ? WIRE_BINARY : WIRE_TEXT;
    size_t cost = size + 14 * fragments;
    s->count = cost < BUDGET / 2 ? BUDGET / cost : 2;
    if (s->count > (depth > 64 ? depth : 64)) {
        s->count = depth > 64 ? depth : 64;
    }
    s->payloads = stream_alloc(s->count * size);
    s->starts = stream_alloc((s->count + 1) * sizeof *s->starts);
    uint8_t header[14];
    unsigned first = 0x80 | s->opcode;
    size_t head = wire_header(header, first, size, NULL);
    s->reply_size = head + size;
    s->replies = stream_alloc(2 * s->count * s->reply_size);
    uint8_t **bodies = stream_alloc(s->count * sizeof *bodies);
    size_t *sizes = stream_alloc(s->count * sizeof *sizes);
    s->starts[0] = 0;
    for (size_t i = 0; i < s->count; i++) {
        uint8_t *payload = s->payloads + i * size;
        stream_payload(payload, size, kind);
        bodies[i] = payload;
        sizes[i] = deflated ? stream_deflate(payload, size, &bodies[i])
                            : size;
        s->starts[i + 1] = s->starts[i]
                         + stream_frames(NULL, NULL, sizes[i], 0, 0,
                                         fragments);
        for (size_t copy = 0; copy < 2; copy++) {
            uint8_t *reply = s->replies
                           + (copy * s->count + i) * s->reply_size;
            memcpy(reply, header, head);
            memcpy(reply + head, payload, size);
        }
    }
    s->period = s->starts[s->count];
    s->copies = s->period <= BUDGET ? 2 : 1;
    s->frames = stream_alloc(s->copies * s->period);
    for (size_t i = 0; i < s->count; i++) {
        stream_frames(s->frames + s->starts[i], bodies[i], sizes[i],
                      s->opcode, deflated ? 0x40 : 0, fragments);
    }
    if (s->copies == 2) {
        memcpy(s->frames + s->period, s->frames, s->period);
    }
    free(bodies);
    free(sizes);
}

/* Stream position of the first byte of message i. */
static inline uint64_t
stream_position(const stream *s, uint64_t i)
{
    return i / s->count * s->period + s->starts[i % s->count];
}

#endif
