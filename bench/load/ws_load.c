/* ws_load: load generator for WebSocket servers, faster than any of them.
 *
 *     ws_load --port 9000 --connections 64 --depth 1 --size 32 --seconds 2
 *
 * One thread, edge-triggered epoll. Frames are masked before the clock starts
 * (stream.h); a batch leaves in one send(2); replies are compared where they
 * were received. Prints one JSON line. Modes:
 *
 *   echo        every connection keeps `depth` messages in flight
 *   broadcast   the first connection sends, all of them receive each message
 *   handshake   connect, upgrade, close, over and over, in `connections` slots
 *   idle        connect, exchange --messages each, hold until told to go on
 *
 * A phase ends when nothing is in flight, so the server is asleep at both
 * ends of the measured time and its CPU clock belongs to counted messages
 * only. With --gate it prints {"phase": ...} before and after the measured
 * phase and waits for a line on standard input.
 *
 * --port takes several ports, over which the connections are dealt out in turn.
 * --kind socketio speaks Socket.IO: a connection joins the default namespace first,
 * messages are events of one text, and heartbeats are answered.
 */
#define _GNU_SOURCE
#include "histogram.h"
#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef HAVE_OPENSSL
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { ROOM = 1 << 19, EVENTS = 256, HEAD_LIMIT = 16384, STALL = 10 };
enum { MOST_PORTS = 16 };
enum { CONNECTING, SECURING, UPGRADING, JOINING, OPEN, CLOSING, CLOSED };

static struct {
    const char *mode, *path, *kind;
    unsigned ports[MOST_PORTS];
    size_t port_count, connections, depth, batch, size, fragments, chunk;
    double seconds, warmup, settle;
    uint64_t messages;
    bool gate, tls, deflate, no_context, socketio;
} opt = {.mode = "echo", .path = "/", .kind = "text", .ports = {9000},
         .port_count = 1, .connections = 1, .depth = 1, .size = 32,
         .fragments = 1, .seconds = 1, .settle = 0.2};

typedef struct {
    int fd;
    uint8_t state, opcode, fin, header_have, skip;
    uint8_t header[10];
    uint8_t control_have, control[125];
    uint64_t sent;       /* bytes of the frame stream handed to the kernel */
    uint64_t target;     /* messages that may be sent */
    uint64_t received;   /* whole replies */
    uint64_t left;       /* payload bytes of the current frame to come */
    uint64_t offset;     /* payload bytes of the current message so far */
    uint64_t *stamps;    /* send time of message i at i % depth */
    uint64_t started;    /* connect() */
    char *head;
    size_t head_have;
    bool inflating;
    bool packet;         /* the message is one of Engine.IO, none of ours */
#ifdef HAVE_ZLIB
    z_stream *zlib;
#endif
#ifdef HAVE_OPENSSL
    SSL *ssl;
#endif
} conn;

static struct {
    stream stream;
    conn *conns;
    int epoll_fd;
    bool running;           /* new messages may be sent */
    bool failed;
    char error[200];
    uint64_t now, progress; /* ns; the last time a reply was completed */
    uint64_t inflight, done, issued, limit, rounds;
    size_t open, opening, opened;
    histogram latency;
    char request[1024], accept[29];
    size_t request_size;
} g;

static uint8_t room[ROOM];
static void connect_more(void);

static void __attribute__((format(printf, 1, 2)))
fail(const char *format, ...)
{
    if (!g.failed) {
        va_list args;
        va_start(args, format);
        vsnprintf(g.error, sizeof g.error, format, args);
        va_end(args);
    }
    g.failed = true;
    g.running = false;
}

static bool
mode_is(const char *name)
{
    return strcmp(opt.mode, name) == 0;
}

/* In a broadcast the first connection sends what all of them receive. */
static conn *
sender_of(conn *c)
{
    return g.rounds > 1 ? &g.conns[0] : c;
}

/* --- bytes in and out: like recv(2) and send(2), also over TLS ---------- */

#ifdef HAVE_OPENSSL
static SSL_CTX *tls_context;

static ssize_t
tls_result(conn *c, int r)
{
    if (r > 0) {
        return r;
    }
    int error = SSL_get_error(c->ssl, r);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    return 0;
}
#endif

static ssize_t
conn_recv(conn *c, void *data, size_t n)
{
#ifdef HAVE_OPENSSL
    if (c->ssl) {
        return tls_result(c, SSL_read(c->ssl, data, (int)n));
    }
#endif
    return recv(c->fd, data, n, 0);
}

static ssize_t
conn_write(conn *c, const void *data, size_t n)
{
#ifdef HAVE_OPENSSL
    if (c->ssl) {
        return tls_result(c, SSL_write(c->ssl, data, (int)n));
    }
#endif
    return send(c->fd, data, n, MSG_NOSIGNAL);
}

/* --- sending ------------------------------------------------------------ */

static void
conn_flush(conn *c)
{
    const stream *s = &g.stream;
    uint64_t end = stream_position(s, c->target);
    while (c->sent < end) {
        size_t at = (size_t)(c->sent % s->period);
        size_t n = s->copies * s->period - at;
        if (n > end - c->sent) {
            n = (size_t)(end - c->sent);
        }
        if (opt.chunk && n > opt.chunk) {
            n = opt.chunk;
        }
        ssize_t r = conn_write(c, s->frames + at, n);
        if (r <= 0) {
            if (r < 0 && errno == EAGAIN) {
                return;
            }
            fail("send failed: %s", strerror(errno));
            return;
        }
        c->sent += (uint64_t)r;
    }
}

/* Lets more messages out when a batch of them has been answered. */
static void
conn_refill(conn *c)
{
    uint64_t room_for = opt.depth - (c->target - c->received);
    if (!g.running || room_for < opt.batch) {
        return;
    }
    if (g.limit && room_for > g.limit - g.issued) {
        room_for = g.limit - g.issued;
        g.running = false;
    }
    uint64_t now = wire_now(CLOCK_MONOTONIC);
    for (uint64_t i = c->target; i < c->target + room_for; i++) {
        c->stamps[i % opt.depth] = now;
    }
    c->target += room_for;
    g.issued += room_for;
    g.inflight += room_for * g.rounds;
    conn_flush(c);
}

/* --- checking replies --------------------------------------------------- */

static void
replies_done(conn *c, uint64_t n)
{
    conn *sender = sender_of(c);
    uint64_t last = UINT64_MAX, times = 0;
    for (uint64_t i = c->received; i < c->received + n; i++) {
        uint64_t stamp = sender->stamps[i % opt.depth];
        if (stamp != last && times) {
            histogram_add(&g.latency, g.now - last, times);
            times = 0;
        }
        last = stamp;
        times++;
    }
    histogram_add(&g.latency, g.now > last ? g.now - last : 0, times);
    c->received += n;
    g.done += n;
    g.inflight -= n;
    g.progress = g.now;
}

static void
compare(conn *c, const uint8_t *data, size_t n)
{
    const stream *s = &g.stream;
    uint64_t i = c->received % s->count;
    if (c->offset + n > s->size
        || memcmp(data, s->payloads + i * s->size + c->offset, n) != 0) {
        fail("wrong reply: message %llu differs within %zu bytes at %llu",
             (unsigned long long)c->received, n,
             (unsigned long long)c->offset);
    }
    c->offset += n;
}

static void
inflate_part(conn *c, const uint8_t *data, size_t n)
{
#ifdef HAVE_ZLIB
    uint8_t out[16384];
    if (!c->zlib) {
        c->zlib = stream_alloc(sizeof *c->zlib);
        memset(c->zlib, 0, sizeof *c->zlib);
        inflateInit2(c->zlib, -15);
    }
    c->zlib->next_in = (Bytef *)data;
    c->zlib->avail_in = (uInt)n;
    do {
        c->zlib->next_out = out;
        c->zlib->avail_out = sizeof out;
        int r = inflate(c->zlib, Z_SYNC_FLUSH);
        if (r != Z_OK && r != Z_BUF_ERROR) {
            fail("wrong reply: inflate says %d", r);
            return;
        }
        compare(c, out, sizeof out - c->zlib->avail_out);
    } while (c->zlib->avail_out == 0 && !g.failed);
#else
    (void)c;
    (void)data;
    (void)n;
#endif
}

static void
payload_part(conn *c, const uint8_t *data, size_t n)
{
    if (c->packet) {
        /* what it is stands at its beginning */
        size_t most = sizeof c->control - c->control_have;
        n = n < most ? n : most;
    }
    if (c->opcode & 8 || c->packet) {
        memcpy(c->control + c->control_have, data, n);
        c->control_have = (uint8_t)(c->control_have + n);
    }
    else if (c->inflating) {
        inflate_part(c, data, n);
    }
    else {
        compare(c, data, n);
    }
}

static void conn_joined(conn *c);

/* Sends a frame of two bytes of text, unless it would fall inside another. */
static void
send_packet(conn *c, const char *text)
{
    static const uint8_t mask[4] = {0};
    uint8_t frame[14 + 2];
    size_t n = strlen(text), size = wire_header(frame, 0x80 | WIRE_TEXT, n, mask);
    memcpy(frame + size, text, n);
    if (c->sent == stream_position(&g.stream, c->target)) {
        conn_write(c, frame, size + n);
    }
}

static void
packet_end(conn *c)
{
    const uint8_t *text = c->control;
    size_t n = c->control_have;
    c->packet = false;
    c->skip = 0;
    if (c->state == JOINING && n > 0 && text[0] == '0') {
        send_packet(c, "40");
    }
    else if (c->state == JOINING && n > 1 && text[0] == '4' && text[1] == '0') {
        conn_joined(c);
    }
    else if (n == 1 && text[0] == '2') {
        send_packet(c, "3");
    }
    else {
        fail("Socket.IO: not expected: %.*s", (int)(n < 60 ? n : 60),
             (const char *)text);
    }
}

static void
frame_end(conn *c)
{
    if (c->packet) {
        packet_end(c);
        return;
    }
    if (c->opcode == WIRE_PING) {
        uint8_t pong[14 + 125] = {0}, mask[4] = {0};
        size_t size = wire_header(pong, 0x80 | WIRE_PONG, c->control_have,
                                  mask);
        memcpy(pong + size, c->control, c->control_have);
        size += c->control_have;
        uint64_t boundary = stream_position(&g.stream, c->target);
        if (c->sent == boundary) { /* never inside a frame of the stream */
            conn_write(c, pong, size);
        }
        return;
    }
    if (c->opcode == WIRE_CLOSE) {
        if (c->state != CLOSING) {
            fail("the server closed the connection");
        }
        return;
    }
    if (c->opcode & 8 || !c->fin) {
        return;
    }
    if (c->inflating) {
        static const uint8_t tail[4] = {0, 0, 0xff, 0xff};
        inflate_part(c, tail, 4);
    }
    if (c->offset != g.stream.size) {
        fail("wrong reply: %llu bytes, expected %zu",
             (unsigned long long)c->offset, g.stream.size);
        return;
    }
    c->offset = 0;
    c->skip = 0;
    replies_done(c, 1);
}

static void
frame_begin(conn *c)
{
    const uint8_t *h = c->header;
    uint8_t opcode = h[0] & 15;
    c->left = h[1] & 0x7f;
    if (c->left >= 126) {
        size_t bytes = c->left == 126 ? 2 : 8;
        c->left = 0;
        for (size_t i = 0; i < bytes; i++) {
            c->left = c->left << 8 | h[2 + i];
        }
    }
    c->opcode = opcode;
    c->fin = h[0] >> 7;
    c->control_have = 0;
    c->header_have = 0;
    if (opcode & 8) {
        if (c->left > 125 || h[0] & 0x70 || !c->fin) {
            fail("wrong reply: bad control frame");
        }
        return;
    }
    /* skip: 1 while a fragmented message is under way */
    if (opcode != (c->skip ? WIRE_CONT : g.stream.opcode)
        || h[0] & (opt.deflate && !c->skip ? 0x30 : 0x70) || h[1] & 0x80) {
        fail("wrong reply: frame header %02x %02x", h[0], h[1]);
        return;
    }
    if (!c->skip) {
        c->inflating = (h[0] & 0x40) != 0;
        c->packet = opt.socketio && (c->state == JOINING || c->left == 1);
        if (!c->packet && c->received >= sender_of(c)->target) {
            fail("wrong reply: a message that nobody sent");
        }
    }
    c->skip = 1;
}

static size_t
header_size(const conn *c)
{
    if (c->header_have < 2) {
        return 2;
    }
    unsigned marker = c->header[1] & 0x7f;
    return marker < 126 ? 2 : marker == 126 ? 4 : 10;
}

/* Whole replies in the usual form; returns the bytes that were such. */
static size_t
fast_replies(conn *c, const uint8_t *data, size_t n)
{
    const stream *s = &g.stream;
    size_t used = 0;
    while (n - used >= s->reply_size) {
        uint64_t many = (n - used) / s->reply_size;
        uint64_t waiting = sender_of(c)->target - c->received;
        many = many < waiting ? many : waiting;
        many = many < s->count ? many : s->count;
        size_t bytes = (size_t)many * s->reply_size;
        const uint8_t *want = s->replies
                            + c->received % s->count * s->reply_size;
        if (!many || memcmp(data + used, want, bytes) != 0) {
            break;
        }
        replies_done(c, many);
        used += bytes;
    }
    return used;
}

static void
conn_frames(conn *c, const uint8_t *data, size_t n)
{
    while (n && !g.failed) {
        if (!c->header_have && !c->left && !c->skip && !opt.deflate
            && c->state == OPEN) {
            size_t used = fast_replies(c, data, n);
            data += used;
            n -= used;
            if (!n) {
                break;
            }
        }
        if (!c->left) {
            c->header[c->header_have++] = *data++;
            n--;
            if (c->header_have < 2 || c->header_have < header_size(c)) {
                continue;
            }
            frame_begin(c);
        }
        size_t part = c->left < n ? (size_t)c->left : n;
        if (!g.failed && part) {
            payload_part(c, data, part);
        }
        data += part;
        n -= part;
        c->left -= part;
        if (!c->left && !g.failed) {
            frame_end(c);
        }
    }
}

/* --- opening and closing ------------------------------------------------ */

static void
conn_start(conn *c)
{
    c->state = CONNECTING;
    c->started = wire_now(CLOCK_MONOTONIC);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* many source addresses: one has only 28,000 ports, and a closed
     * connection keeps its port for a minute */
    static unsigned source;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f000002u + source++ % 200);
#ifdef IP_BIND_ADDRESS_NO_PORT
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
#endif
    if (opt.connections > 1) {
        bind(c->fd, (struct sockaddr *)&from, sizeof from);
    }
    unsigned port = opt.ports[(size_t)(c - g.conns) % opt.port_count];
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (c->fd < 0 || (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0
                      && errno != EINPROGRESS)) {
        fail("connect failed: %s", strerror(errno));
        return;
    }
    struct epoll_event ev = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, c->fd, &ev);
    g.opening++;
}

/* Answer to the upgrade request; returns the offset of the frames, or 0. */
static size_t
check_upgrade(conn *c)
{
    char *end = memmem(c->head, c->head_have, "\r\n\r\n", 4);
    if (!end) {
        if (c->head_have == HEAD_LIMIT) {
            fail("handshake failed: head of more than %d bytes", HEAD_LIMIT);
        }
        return 0;
    }
    *end = '\0';
    char *accept = strcasestr(c->head, "\r\nSec-WebSocket-Accept:");
    accept = accept ? accept + 23 : c->head;
    accept += strspn(accept, " ");
    if (strncmp(c->head, "HTTP/1.1 101", 12) != 0
        || strncmp(accept, g.accept, 28) != 0) {
        fail("handshake failed: %.60s", c->head);
        return 0;
    }
    if (opt.deflate
        && !strcasestr(c->head, "\r\nSec-WebSocket-Extensions:")) {
        fail("handshake failed: permessage-deflate was not accepted");
        return 0;
    }
    return (size_t)(end - c->head) + 4;
}

/* The connection can be sent messages from now on. */
static void
conn_joined(conn *c)
{
    g.opening--;
    g.opened++;
    g.progress = wire_now(CLOCK_MONOTONIC);
    c->state = OPEN;
    if (!mode_is("handshake")) {
        g.open++;
        connect_more();
    }
}

static void
conn_upgraded(conn *c, size_t used)
{
    g.now = wire_now(CLOCK_MONOTONIC);
    char *head = c->head;
    size_t n = c->head_have - used;
    c->head = NULL;
    if (opt.socketio) {
        c->state = JOINING;
    }
    else {
        conn_joined(c);
    }
    if (mode_is("handshake")) {
        static const uint8_t close_frame[8] = {0x88, 0x82, 0, 0, 0, 0,
                                               0x03, 0xe8};
        histogram_add(&g.latency, g.now - c->started, 1);
        c->state = CLOSING;
        conn_write(c, close_frame, sizeof close_frame);
    }
    if (n) {
        conn_frames(c, (uint8_t *)head + used, n);
    }
    free(head);
}

static void
conn_upgrading(conn *c)
{
    if (!c->head) {
        c->head = stream_alloc(HEAD_LIMIT + 1);
        c->head_have = 0;
    }
    ssize_t r;
    while ((r = conn_recv(c, c->head + c->head_have,
                          HEAD_LIMIT - c->head_have)) > 0) {
        c->head_have += (size_t)r;
        c->head[c->head_have] = '\0';
        size_t used = check_upgrade(c);
        if (used) {
            conn_upgraded(c, used);
        }
        if (used || g.failed) {
            return;
        }
    }
    if (r == 0 || errno != EAGAIN) {
        fail("handshake failed: connection closed by the server");
    }
}

static void
conn_connected(conn *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        fail("connect failed: %s", strerror(error));
        return;
    }
    c->state = UPGRADING;
#ifdef HAVE_OPENSSL
    if (opt.tls && !c->ssl) {
        c->state = SECURING;
        c->ssl = SSL_new(tls_context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_connect_state(c->ssl);
    }
#endif
}

static void
conn_secure(conn *c)
{
#ifdef HAVE_OPENSSL
    int r = SSL_do_handshake(c->ssl);
    if (r == 1) {
        c->state = UPGRADING;
    }
    else if (tls_result(c, r) == 0) {
        fail("TLS handshake failed");
    }
#else
    (void)c;
#endif
}

/* A slot's next handshake, while there are time and count left. */
static void
handshake_next(conn *c)
{
    if (g.running && g.limit && g.issued == g.limit) {
        g.running = false;
    }
    if (g.running) {
        g.issued++;
        g.inflight++;
        conn_start(c);
    }
}

static void
conn_closed(conn *c)
{
#ifdef HAVE_OPENSSL
    SSL_free(c->ssl);
    c->ssl = NULL;
#endif
    close(c->fd);
    c->state = CLOSED;
    c->left = c->header_have = c->skip = 0;
    g.done++;
    g.inflight--;
    handshake_next(c);
}

/* Keeps up to 100 connections opening until all are there. */
static void
connect_more(void)
{
    while (!g.failed && g.opening < 100
           && g.open + g.opening < opt.connections) {
        conn_start(&g.conns[g.open + g.opening]);
    }
}

/* --- events ------------------------------------------------------------- */

/* A short read empties a socket under EPOLLET, unless its end came along. */
static void
conn_read(conn *c, bool to_end)
{
    for (;;) {
        ssize_t r = conn_recv(c, room, sizeof room);
        if (r < 0 && errno == EAGAIN) {
            return;
        }
        if (r <= 0) {
            if (c->state == CLOSING) {
                conn_closed(c);
                return;
            }
            fail("connection closed by the server");
            return;
        }
        g.now = wire_now(CLOCK_MONOTONIC);
        conn_frames(c, room, (size_t)r);
        if (g.failed
            || (r < (ssize_t)sizeof room && !to_end && !opt.tls)) {
            return;
        }
    }
}

static void
conn_event(conn *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        conn_connected(c);
    }
    if (c->state == SECURING && !g.failed) {
        conn_secure(c);
    }
    if (c->state == UPGRADING && !g.failed) {
        if (!c->head) {
            conn_write(c, g.request, g.request_size);
        }
        conn_upgrading(c);
        return;
    }
    if (c->state < JOINING || g.failed) {
        return;
    }
    const uint32_t end = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    if (events & (EPOLLIN | end)) {
        conn_read(c, (events & end) != 0);
    }
    if (c->state == OPEN && !g.failed) {
        conn_flush(c);
        conn *sender = sender_of(c);
        if (g.rounds == 1 || g.inflight == 0) {
            conn_refill(sender);
        }
    }
}

/* Handles one round of events; false when standard input has a line. */
static bool
turn(int timeout)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(g.epoll_fd, events, EVENTS, timeout);
    bool go_on = true;
    for (int i = 0; i < n && !g.failed; i++) {
        if (!events[i].data.ptr) {
            char line[256];
            ssize_t r = read(0, line, sizeof line);
            (void)r;
            go_on = false;
            continue;
        }
        conn_event(events[i].data.ptr, events[i].events);
    }
    return go_on;
}

static void
gate(const char *phase)
{
    if (!opt.gate || g.failed) {
        return;
    }
    printf("{\"phase\": \"%s\", \"connections\": %zu}\n", phase, g.open);
    fflush(stdout);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, 0, &ev);
    while (turn(-1) && !g.failed) {
    }
    epoll_ctl(g.epoll_fd, EPOLL_CTL_DEL, 0, NULL);
}

/* Runs until the time or the count is over and nothing is in flight. */
static double
phase(double seconds, uint64_t messages)
{
    g.done = g.issued = g.inflight = 0;
    g.limit = messages;
    g.running = true;
    memset(&g.latency, 0, sizeof g.latency);
    uint64_t start = wire_now(CLOCK_MONOTONIC);
    uint64_t deadline = start + (uint64_t)(seconds * 1e9);
    g.now = g.progress = start;
    for (size_t i = 0; i < opt.connections && !g.failed; i++) {
        if (mode_is("handshake")) {
            handshake_next(&g.conns[i]);
        }
        else if (i == 0 || g.rounds == 1) {
            conn_refill(&g.conns[i]);
        }
    }
    while ((g.running || g.inflight) && !g.failed) {
        turn(1000);
        uint64_t now = wire_now(CLOCK_MONOTONIC);
        if (!messages && now >= deadline) {
            g.running = false;
        }
        if (now > g.progress + STALL * 1000000000ull) {
            fail("stalled: no reply in %d s, %llu in flight", STALL,
                 (unsigned long long)g.inflight);
        }
    }
    return (double)(wire_now(CLOCK_MONOTONIC) - start) / 1e9;
}

static void
open_all(void)
{
    if (mode_is("handshake")) {
        return;
    }
    g.progress = wire_now(CLOCK_MONOTONIC);
    connect_more();
    while (g.open < opt.connections && !g.failed) {
        turn(1000);
        if (wire_now(CLOCK_MONOTONIC) > g.progress + STALL * 1000000000ull) {
            fail("stalled: %zu of %zu connections are open", g.open,
                 opt.connections);
        }
    }
}

/* --- set-up and report -------------------------------------------------- */

static double
seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void
report(double seconds, const struct rusage *before, const struct rusage *end)
{
    double user = seconds_of(end->ru_utime) - seconds_of(before->ru_utime);
    double sys = seconds_of(end->ru_stime) - seconds_of(before->ru_stime);
    uint64_t fewest = UINT64_MAX; /* replies that a connection has received */
    for (size_t i = 0; i < opt.connections; i++) {
        fewest = MIN(fewest, g.conns[i].received);
    }
    printf("{\"mode\": \"%s\", \"messages\": %llu, \"seconds\": %.6f, "
           "\"rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"max_us\": %.2f, \"load_user\": %.6f, \"load_system\": %.6f, "
           "\"opened\": %zu, \"waiting\": %llu, \"fewest\": %llu, "
           "\"correct\": %s, \"error\": \"",
           opt.mode, (unsigned long long)g.done, seconds,
           seconds > 0 ? (double)g.done / seconds : 0.0,
           histogram_quantile(&g.latency, 0.50) / 1e3,
           histogram_quantile(&g.latency, 0.99) / 1e3,
           (double)g.latency.max / 1e3, user, sys,
           g.opened, (unsigned long long)g.inflight,
           (unsigned long long)fewest,
           g.failed ? "false" : "true");
    for (const char *p = g.error; *p; p++) {
        putchar(*p == '"' || *p == '\\' || *p < ' ' ? ' ' : *p);
    }
    printf("\"}\n");
    fflush(stdout);
}

static void
usage(const char *what)
{
    fprintf(stderr,
            "ws_load: %s\n"
            "usage: ws_load --port N,... [--mode echo|broadcast|handshake|idle]\n"
            "  [--connections N] [--depth N] [--refill N] [--size BYTES]\n"
            "  [--kind text|binary|cyrillic|cjk|emoji|mixed|json|socketio]\n"
            "  [--seconds S | --messages N] [--warmup S] [--settle S] [--path PATH]\n"
            "  [--fragments N] [--chunk BYTES] [--tls] [--deflate] [--no-context]\n"
            "  [--gate]\n",
            what);
    exit(2);
}

static void
parse_ports(const char *text)
{
    char *end = (char *)text;
    for (opt.port_count = 0; opt.port_count < MOST_PORTS; text = end + 1) {
        opt.ports[opt.port_count++] = (unsigned)strtoul(text, &end, 10);
        if (*end != ',') {
            break;
        }
    }
    if (*end) {
        usage("--port takes numbers between commas, at most 16");
    }
}

static void
parse_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--gate") == 0) {
            opt.gate = true;
            continue;
        }
        if (strcmp(name, "--tls") == 0) {
            opt.tls = true;
            continue;
        }
        if (strcmp(name, "--deflate") == 0) {
            opt.deflate = true;
            continue;
        }
        if (strcmp(name, "--no-context") == 0) {
            opt.no_context = true;
            continue;
        }
        const char *value = i + 1 < argc ? argv[++i] : NULL;
        if (!value) {
            usage("an option lacks its value, or is not known");
        }
        size_t number = (size_t)strtoull(value, NULL, 10);
        if (strcmp(name, "--mode") == 0) {
            opt.mode = value;
        }
        else if (strcmp(name, "--path") == 0) {
            opt.path = value;
        }
        else if (strcmp(name, "--kind") == 0) {
            opt.kind = value;
        }
        else if (strcmp(name, "--port") == 0) {
            parse_ports(value);
        }
        else if (strcmp(name, "--connections") == 0) {
            opt.connections = number;
        }
        else if (strcmp(name, "--depth") == 0) {
            opt.depth = number;
        }
        else if (strcmp(name, "--refill") == 0) {
            opt.batch = number;
        }
        else if (strcmp(name, "--size") == 0) {
            opt.size = number;
        }
        else if (strcmp(name, "--fragments") == 0) {
            opt.fragments = number;
        }
        else if (strcmp(name, "--chunk") == 0) {
            opt.chunk = number;
        }
        else if (strcmp(name, "--messages") == 0) {
            opt.messages = number;
        }
        else if (strcmp(name, "--seconds") == 0) {
            opt.seconds = strtod(value, NULL);
        }
        else if (strcmp(name, "--settle") == 0) {
            opt.settle = strtod(value, NULL);
        }
        else if (strcmp(name, "--warmup") == 0) {
            opt.warmup = strtod(value, NULL);
        }
        else {
            usage("unknown option");
        }
    }
    if (!opt.connections || !opt.depth || !opt.fragments) {
        usage("--connections, --depth and --fragments start at 1");
    }
    opt.socketio = strcmp(opt.kind, "socketio") == 0;
    if (opt.socketio) {
        opt.size += strlen(STREAM_EVENT) + strlen(STREAM_EVENT_END);
    }
    if (!opt.batch || opt.batch > opt.depth) {
        opt.batch = opt.depth; /* a whole batch at a time */
    }
#ifndef HAVE_OPENSSL
    if (opt.tls) {
        usage("--tls needs a build with OpenSSL");
    }
#endif
#ifndef HAVE_ZLIB
    if (opt.deflate) {
        usage("--deflate needs a build with zlib");
    }
#endif
}

static void
prepare(void)
{
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
    wire_accept_key(key, g.accept);
    g.request_size = (size_t)snprintf(
        g.request, sizeof g.request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
        "Sec-WebSocket-Version: 13\r\nUser-Agent: ws_load\r\n%s\r\n",
        opt.path, opt.ports[0], key,
        !opt.deflate ? ""
        : opt.no_context
            ? "Sec-WebSocket-Extensions: permessage-deflate; "
              "client_no_context_takeover; server_no_context_takeover; "
              "client_max_window_bits=12\r\n"
            : "Sec-WebSocket-Extensions: permessage-deflate; "
              "client_max_window_bits=12\r\n");
    stream_init(&g.stream, opt.size, opt.kind, opt.fragments, opt.deflate,
                opt.depth);
    g.rounds = mode_is("broadcast") ? opt.connections : 1;
    g.conns = calloc(opt.connections, sizeof *g.conns);
    g.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < opt.connections; i++) {
        g.conns[i].stamps = stream_alloc(opt.depth * sizeof(uint64_t));
    }
#ifdef HAVE_OPENSSL
    if (opt.tls) {
        tls_context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(tls_context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(tls_context,
                         SSL_MODE_ENABLE_PARTIAL_WRITE
                             | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
#endif
}

int
main(int argc, char **argv)
{
    struct rusage before, end;
    double seconds = 0;
    signal(SIGPIPE, SIG_IGN);
    parse_options(argc, argv);
    prepare();
    open_all();
    if (mode_is("broadcast")) {
        /* the last handlers must have joined the crowd */
        usleep((useconds_t)(opt.settle * 1e6));
    }
    if (mode_is("idle")) {
        if (opt.messages && !g.failed) {
            phase(0, opt.messages * opt.connections);
        }
    }
    else if (opt.warmup > 0 && !g.failed) {
        phase(opt.warmup, 0);
    }
    gate("ready");
    getrusage(RUSAGE_SELF, &before);
    if (!mode_is("idle") && !g.failed) {
        seconds = phase(opt.seconds, opt.messages);
    }
    getrusage(RUSAGE_SELF, &end);
    gate("done");
    report(seconds, &before, &end);
    return g.failed ? 1 : 0;
}
