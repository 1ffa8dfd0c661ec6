/* echo_epoll: a WebSocket echo server with nothing in it but the system
 * calls, one copy in and one copy out: the physical limit that every other
 * server is measured against.
 *
 *     echo_epoll --port 9000 [--broadcast 1]
 *                                    (port 0: any; the port is printed)
 *
 * One thread, level-triggered epoll, one recv(2) and one send(2) an event.
 * All connections share one read buffer; echoes are built in place in it,
 * because an unmasked header is never longer than the masked one it came
 * with. A connection owns memory only while a frame is incomplete or the
 * socket is full. It checks no UTF-8 and no fragmentation order: a limit may
 * leave out what a library must do. With --broadcast, small messages go to
 * every connection.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SHARED = 1 << 16, HEAD_LIMIT = 8192, EVENTS = 256 };

typedef struct conn {
    struct conn *previous, *next; /* all connections */
    int fd;
    uint8_t is_open;      /* handshake done */
    uint8_t is_closing;   /* close frame answered: only flush */
    uint8_t is_blocked;   /* output waits for EPOLLOUT; input is paused */
    uint8_t mask[4];      /* of the frame being put together in `in` */
    uint8_t *in;          /* incomplete head or frame, or NULL */
    size_t in_have, in_size;
    size_t in_body;       /* header size of the frame in `in`; 0: unknown */
    uint8_t *out;         /* what the socket did not take, or NULL */
    size_t out_have, out_done;
} conn;

static uint8_t shared[SHARED];
static int epoll_fd, is_broadcast;
static conn everybody = {.previous = &everybody, .next = &everybody};

static void
die(const char *what)
{
    perror(what);
    exit(1);
}

static void *
take(size_t n)
{
    void *p = malloc(n);
    if (!p) {
        die("malloc");
    }
    return p;
}

static void
conn_free(conn *c)
{
    c->previous->next = c->next;
    c->next->previous = c->previous;
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void
conn_watch(conn *c, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/* Sends, keeping what does not fit. Returns 0, or -1 for a dead peer. */
static int
conn_send(conn *c, const uint8_t *data, size_t n)
{
    size_t done = 0;
    if (!c->out && n) {
        ssize_t r = send(c->fd, data, n, MSG_NOSIGNAL);
        if (r < 0 && errno != EAGAIN) {
            return -1;
        }
        done = r < 0 ? 0 : (size_t)r;
    }
    if (done == n) {
        return 0;
    }
    uint8_t *out = take(c->out_have - c->out_done + n - done);
    size_t old = c->out_have - c->out_done;
    if (old) {
        memcpy(out, c->out + c->out_done, old);
    }
    memcpy(out + old, data + done, n - done);
    free(c->out);
    c->out = out;
    c->out_have = old + n - done;
    c->out_done = 0;
    if (!c->is_blocked) {
        c->is_blocked = 1;
        conn_watch(c, EPOLLOUT);
    }
    return 0;
}

static int
conn_flush(conn *c)
{
    size_t left = c->out_have - c->out_done;
    ssize_t r = send(c->fd, c->out + c->out_done, left, MSG_NOSIGNAL);
    if (r < 0) {
        return errno == EAGAIN ? 0 : -1;
    }
    c->out_done += (size_t)r;
    if ((size_t)r == left) {
        free(c->out);
        c->out = NULL;
        c->out_have = c->out_done = 0;
        c->is_blocked = 0;
        if (c->is_closing) {
            return -1;
        }
        conn_watch(c, EPOLLIN);
    }
    return 0;
}

/* Header of a masked frame: its size, or 0 while it is incomplete. */
static size_t
parse_header(const uint8_t *p, size_t n, uint64_t *length)
{
    if (n < 2) {
        return 0;
    }
    size_t size = 2;
    *length = p[1] & 0x7f;
    if (*length >= 126) {
        size_t bytes = *length == 126 ? 2 : 8;
        if (n < 2 + bytes) {
            return 0;
        }
        *length = 0;
        for (size_t i = 0; i < bytes; i++) {
            *length = *length << 8 | p[2 + i];
        }
        size += bytes;
    }
    return n < size + 4 ? 0 : size + 4;
}

/* First byte of the answer to a frame; -1: no answer. */
static int
answer(conn *c, unsigned first)
{
    switch (first & 15) {
    case WIRE_CLOSE:
        c->is_closing = 1;
        return (int)first;
    case WIRE_PING:
        return 0x80 | WIRE_PONG;
    case WIRE_PONG:
        return -1;
    default:
        return (int)first;
    }
}

/* Echoes every whole frame of buf[0, n). The echoes overwrite buf from its
 * start. Returns the bytes consumed; *made is the bytes of echo. */
static size_t
echo_frames(conn *c, uint8_t *buf, size_t n, size_t *made)
{
    size_t in = 0, out = 0;
    while (!c->is_closing) {
        uint64_t length;
        size_t head = parse_header(buf + in, n - in, &length);
        if (!head || length > n - in - head) {
            break;
        }
        uint8_t mask[4], header[14];
        uint8_t *body = buf + in + head;
        memcpy(mask, body - 4, 4);
        int first = answer(c, buf[in]);
        in += head + (size_t)length;
        if (first >= 0) {
            size_t size = wire_header(header, (unsigned)first, length,
                                      NULL);
            wire_mask(body, (size_t)length, mask, 0);
            memcpy(buf + out, header, size);
            memmove(buf + out + size, body, (size_t)length);
            out += size + (size_t)length;
        }
    }
    *made = out;
    return in;
}

/* Keeps an incomplete frame; a known length gives its exact size. */
static int
conn_keep(conn *c, const uint8_t *data, size_t n)
{
    uint64_t length = 0;
    size_t head = parse_header(data, n, &length);
    if (length > (1u << 30)) {
        return -1;
    }
    c->in_size = head ? head + (size_t)length : 64;
    c->in = take(c->in_size);
    memcpy(c->in, data, n);
    c->in_have = n;
    c->in_body = head;
    if (head) {
        memcpy(c->mask, c->in + head - 4, 4);
        wire_mask(c->in + head, n - head, c->mask, 0);
    }
    return 0;
}

/* A peer that cannot be written to is left for its own event to free. */
static int
conn_answer(conn *c, const uint8_t *data, size_t n)
{
    if (!is_broadcast || c->is_closing) {
        return conn_send(c, data, n);
    }
    for (conn *to = everybody.next; to != &everybody; to = to->next) {
        if (to->is_open && !to->is_closing) {
            conn_send(to, data, n);
        }
    }
    return 0;
}

static int
feed(conn *c, uint8_t *buf, size_t n)
{
    size_t made;
    size_t used = echo_frames(c, buf, n, &made);
    if (made && conn_answer(c, buf, made) < 0) {
        return -1;
    }
    if (c->is_closing) {
        return c->out ? 0 : -1;
    }
    return used < n ? conn_keep(c, buf + used, n - used) : 0;
}

/* Sends frame[at, end) and frees the frame, at once or when it has left: what
 * the socket does not take yet is not copied. */
static int
conn_send_frame(conn *c, uint8_t *frame, size_t at, size_t end)
{
    int status = 0;
    if (c->out) {
        status = conn_send(c, frame + at, end - at);
    }
    else {
        ssize_t r = send(c->fd, frame + at, end - at, MSG_NOSIGNAL);
        if (r < 0 && errno != EAGAIN) {
            status = -1;
        }
        else if ((at += r < 0 ? 0 : (size_t)r) < end) {
            c->out = frame;
            c->out_have = end;
            c->out_done = at;
            c->is_blocked = 1;
            conn_watch(c, EPOLLOUT);
            return 0;
        }
    }
    free(frame);
    return status < 0 || (c->is_closing && !c->out) ? -1 : 0;
}

/* A frame larger than what came: received into its final place, unmasked
 * piece by piece while the cache is warm, sent from there. */
static int
read_large(conn *c)
{
    ssize_t r = recv(c->fd, c->in + c->in_have, c->in_size - c->in_have, 0);
    if (r <= 0) {
        return r < 0 && errno == EAGAIN ? 0 : -1;
    }
    wire_mask(c->in + c->in_have, (size_t)r, c->mask,
              c->in_have - c->in_body);
    c->in_have += (size_t)r;
    if (c->in_have < c->in_size) {
        return 0;
    }
    uint8_t *frame = c->in, header[14];
    size_t body = c->in_body, length = c->in_size - body;
    int first = answer(c, frame[0]);
    int status = 0;
    c->in = NULL;
    c->in_have = c->in_body = 0;
    if (first >= 0) {
        size_t size = wire_header(header, (unsigned)first, length, NULL);
        memcpy(frame + body - size, header, size);
        if (!is_broadcast) {
            return conn_send_frame(c, frame, body - size, body + length);
        }
        status = conn_answer(c, frame + body - size, size + length);
    }
    free(frame);
    return status < 0 || (c->is_closing && !c->out) ? -1 : 0;
}

static const char *
find_key(const char *head)
{
    const char *line = head;
    while ((line = strstr(line, "\r\n")) != NULL) {
        line += 2;
        if (strncasecmp(line, "sec-websocket-key:", 18) == 0) {
            line += 18;
            while (*line == ' ') {
                line++;
            }
            return strcspn(line, "\r") >= 24 ? line : NULL;
        }
    }
    return NULL;
}

static int
upgrade(conn *c, uint8_t *buf, size_t n)
{
    uint8_t *end = memmem(buf, n, "\r\n\r\n", 4);
    if (!end) {
        if (n > HEAD_LIMIT) {
            return -1;
        }
        uint8_t *in = take(n);
        memcpy(in, buf, n);
        c->in = in;
        c->in_have = n;
        return 0;
    }
    *end = '\0';
    const char *key = find_key((char *)buf);
    char accept[29], reply[256];
    if (!key) {
        return -1;
    }
    wire_accept_key(key, accept);
    int size = snprintf(reply, sizeof reply,
                        "HTTP/1.1 101 Switching Protocols\r\n"
                        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    c->is_open = 1;
    if (conn_send(c, (uint8_t *)reply, (size_t)size) < 0) {
        return -1;
    }
    size_t used = (size_t)(end - buf) + 4;
    return used < n ? feed(c, buf + used, n - used) : 0;
}

static int
conn_read(conn *c)
{
    if (c->in && c->in_body) {
        return read_large(c);
    }
    size_t have = c->in ? c->in_have : 0;
    if (have) { /* a few bytes: back in front of what comes */
        memcpy(shared, c->in, have);
        free(c->in);
        c->in = NULL;
        c->in_have = 0;
    }
    ssize_t r = recv(c->fd, shared + have, sizeof shared - have - 1, 0);
    if (r < 0 && errno == EAGAIN && !have) {
        return 0;
    }
    if (r <= 0) {
        return -1;
    }
    size_t n = have + (size_t)r;
    return c->is_open ? feed(c, shared, n) : upgrade(c, shared, n);
}

static void
accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = calloc(1, sizeof *c);
        if (!c) {
            die("calloc");
        }
        c->fd = fd;
        c->next = &everybody;
        c->previous = everybody.previous;
        everybody.previous->next = c;
        everybody.previous = c;
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    }
}

int
main(int argc, char **argv)
{
    uint16_t port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0) {
            port = (uint16_t)atoi(argv[i + 1]);
        }
        if (strcmp(argv[i], "--broadcast") == 0) {
            is_broadcast = 1;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    /* Large messages reuse the pages of earlier ones. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, size) < 0
        || listen(listener, 4096) < 0
        || getsockname(listener, (struct sockaddr *)&address, &size) < 0) {
        die("listen");
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            int status = events[i].events & EPOLLOUT ? conn_flush(c)
                                                     : conn_read(c);
            if (status < 0) {
                conn_free(c);
            }
        }
    }
}
