/* wire.h: the few pieces of RFC 6455 that the load generator and the C echo
 * servers share: SHA-1, base64, the accept key, masking, frame headers, and a
 * monotonic clock. Written for this directory only; the library's own kernels
 * live in csrc/ and are deliberately not used here, so that a fault in them
 * cannot hide itself.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { WIRE_CONT = 0, WIRE_TEXT = 1, WIRE_BINARY = 2, WIRE_CLOSE = 8,
       WIRE_PING = 9, WIRE_PONG = 10 };

static inline uint64_t
wire_now(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- SHA-1 (RFC 3174), one short message at a time ---------------------- */

static inline uint32_t
wire_rotl(uint32_t x, int n)
{
    return (x << n) | (x >> (32 - n));
}

static inline void
wire_sha1_block(uint32_t state[5], const uint8_t block[64])
{
    uint32_t w[80];
    for (int i = 0; i < 16; i++) {
        const uint8_t *p = block + 4 * i;
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16
             | (uint32_t)p[2] << 8 | p[3];
    }
    for (int i = 16; i < 80; i++) {
        w[i] = wire_rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5A827999u;
        }
        else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ED9EBA1u;
        }
        else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8F1BBCDCu;
        }
        else {
            f = b ^ c ^ d;
            k = 0xCA62C1D6u;
        }
        uint32_t t = wire_rotl(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = wire_rotl(b, 30);
        b = a;
        a = t;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* n must be below 120: two blocks hold a key and the GUID (60 bytes). */
static inline void
wire_sha1(const uint8_t *data, size_t n, uint8_t digest[20])
{
    uint8_t block[128] = {0};
    uint32_t state[5] = {0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u,
                         0xC3D2E1F0u};
    size_t total = n < 56 ? 64 : 128;
    memcpy(block, data, n);
    block[n] = 0x80;
    block[total - 2] = (uint8_t)((n * 8) >> 8);
    block[total - 1] = (uint8_t)(n * 8);
    wire_sha1_block(state, block);
    if (total == 128) {
        wire_sha1_block(state, block + 64);
    }
    for (int i = 0; i < 20; i++) {
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

/* Writes 4 * ceil(n / 3) characters and a NUL. */
static inline void
wire_base64(const uint8_t *data, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16;
        if (i + 1 < n) {
            v |= (uint32_t)data[i + 1] << 8;
        }
        if (i + 2 < n) {
            v |= data[i + 2];
        }
        *out++ = digits[v >> 18];
        *out++ = digits[(v >> 12) & 63];
        *out++ = i + 1 < n ? digits[(v >> 6) & 63] : '=';
        *out++ = i + 2 < n ? digits[v & 63] : '=';
    }
    *out = '\0';
}

/* Sec-WebSocket-Accept for a 24-character key (RFC 6455, 4.2.2). */
static inline void
wire_accept_key(const char key[24], char out[29])
{
    uint8_t text[60], digest[20];
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    wire_sha1(text, sizeof text, digest);
    wire_base64(digest, sizeof digest, out);
}

/* --- frames ------------------------------------------------------------- */

/* Header of a frame into out[14]; mask may be NULL. Returns its size. */
static inline size_t
wire_header(uint8_t out[14], unsigned first, uint64_t n, const uint8_t *mask)
{
    unsigned bit = mask ? 0x80u : 0u;
    size_t size = 2;
    out[0] = (uint8_t)first;
    if (n < 126) {
        out[1] = (uint8_t)(bit | n);
    }
    else if (n < 65536) {
        out[1] = (uint8_t)(bit | 126);
        out[2] = (uint8_t)(n >> 8);
        out[3] = (uint8_t)n;
        size = 4;
    }
    else {
        out[1] = (uint8_t)(bit | 127);
        for (int i = 0; i < 8; i++) {
            out[2 + i] = (uint8_t)(n >> (56 - 8 * i));
        }
        size = 10;
    }
    if (mask) {
        memcpy(out + size, mask, 4);
        size += 4;
    }
    return size;
}

/* XORs buf with the mask; phase is the position of buf[0] in the payload. */
static inline void
wire_mask(uint8_t *buf, size_t n, const uint8_t mask[4], size_t phase)
{
    typedef uint8_t lane __attribute__((vector_size(16)));
    uint8_t key[16];
    for (size_t i = 0; i < 16; i++) {
        key[i] = mask[(i + phase) & 3];
    }
    lane k;
    memcpy(&k, key, 16);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        lane v[4];
        memcpy(v, buf + i, 64);
        v[0] ^= k;
        v[1] ^= k;
        v[2] ^= k;
        v[3] ^= k;
        memcpy(buf + i, v, 64);
    }
    for (; i + 16 <= n; i += 16) {
        lane v;
        memcpy(&v, buf + i, 16);
        v ^= k;
        memcpy(buf + i, &v, 16);
    }
    for (; i < n; i++) {
        buf[i] ^= key[i & 15];
    }
}

#endif
