/* Non-blocking socket input and output for the stream: accept, recv, send and their
 * vectored forms, with one way to report errors.
 *
 * Each function returns the number of bytes moved (0 from a read: the peer ended
 * its side) or the descriptor, WS_SOCK_AGAIN when the call would block or was
 * interrupted, or the negated errno minus one (always below WS_SOCK_AGAIN), so that
 * the caller needs no errno.  None allocates; the memory stays the caller's.
 *
 * Addresses are those of the system, struct sockaddr_in or sockaddr_in6, as bytes.
 *
 * On Windows the stream works on a transport, never on a socket: the functions are
 * there only so that the module links. */
#ifndef WS_SOCKET_H
#define WS_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#define WS_SOCK_AGAIN (-1)

/* Room for an address: a struct sockaddr_in6. */
#define WS_SOCK_ADDRESS 28

#ifndef _WIN32

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

typedef struct iovec ws_iovec;

static inline long
ws_sock_result(long n)
{
    if (n >= 0) {
        return n;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return WS_SOCK_AGAIN;
    }
    return -(long)errno - 1;
}

static inline long
ws_sock_recv(int fd, uint8_t *buf, size_t n)
{
    return ws_sock_result((long)recv(fd, buf, n, 0));
}

static inline long
ws_sock_send(int fd, const uint8_t *buf, size_t n)
{
    return ws_sock_result((long)send(fd, buf, n, MSG_NOSIGNAL));
}

static inline long
ws_sock_readv(int fd, ws_iovec *parts, int count)
{
    return ws_sock_result((long)readv(fd, parts, count));
}

static inline long
ws_sock_sendv(int fd, ws_iovec *parts, int count)
{
    if (count == 1) {
        /* The system reads no list of parts, and no header. */
        return ws_sock_send(fd, parts->iov_base, parts->iov_len);
    }
    struct msghdr message = {0};
    message.msg_iov = parts;
#if defined(__linux__) && defined(__GLIBC__)
    message.msg_iovlen = (size_t)count;
#else
    message.msg_iovlen = count;
#endif
    return ws_sock_result((long)sendmsg(fd, &message, MSG_NOSIGNAL));
}

/* Accept a TCP connection: non-blocking, closed on exec, without Nagle's algorithm.
 * address takes up to WS_SOCK_ADDRESS bytes; *size is how many are in it, 0 when the
 * address is of another family. */
static inline long
ws_sock_accept(int listening, uint8_t *address, size_t *size)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int on = 1;
    int fd;
    *size = 0;
#if defined(__linux__) && defined(SOCK_NONBLOCK) && defined(_GNU_SOURCE)
    fd = accept4(listening, (struct sockaddr *)&peer, &length,
                 SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return ws_sock_result(fd);
    }
#else
    fd = accept(listening, (struct sockaddr *)&peer, &length);
    if (fd < 0) {
        return ws_sock_result(fd);
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0
        || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_NONBLOCK) < 0) {
        long result = ws_sock_result(-1);
        close(fd);
        return result;
    }
#endif
    /* It fails when the peer is gone already, which the first read finds out. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((peer.ss_family == AF_INET || peer.ss_family == AF_INET6)
        && length <= WS_SOCK_ADDRESS) {
        memcpy(address, &peer, length);
        *size = length;
    }
    return fd;
}

/* The address of this end; *size as for ws_sock_accept(). */
static inline long
ws_sock_name(int fd, uint8_t *address, size_t *size)
{
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    *size = 0;
    if (getsockname(fd, (struct sockaddr *)&own, &length) < 0) {
        return ws_sock_result(-1);
    }
    if ((own.ss_family == AF_INET || own.ss_family == AF_INET6)
        && length <= WS_SOCK_ADDRESS) {
        memcpy(address, &own, length);
        *size = length;
    }
    return 0;
}

/* Take an address apart.  text takes up to 46 bytes; numbers are the port and, for
 * IPv6, the flow and the scope.  Returns how many numbers there are: 1 or 3, or 0
 * when it is no such address. */
static inline int
ws_sock_parts(const uint8_t *address, size_t size, char *text,
              unsigned long *numbers)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    if (size == sizeof four) {
        memcpy(&four, address, sizeof four);
        numbers[0] = ntohs(four.sin_port);
        return inet_ntop(AF_INET, &four.sin_addr, text, 46) != NULL ? 1 : 0;
    }
    if (size == sizeof six) {
        memcpy(&six, address, sizeof six);
        numbers[0] = ntohs(six.sin6_port);
        numbers[1] = ntohl(six.sin6_flowinfo);
        numbers[2] = six.sin6_scope_id;
        return inet_ntop(AF_INET6, &six.sin6_addr, text, 46) != NULL ? 3 : 0;
    }
    return 0;
}

/* End the outgoing direction. */
static inline long
ws_sock_end(int fd)
{
    return ws_sock_result(shutdown(fd, SHUT_WR));
}

static inline void
ws_sock_close(int fd)
{
    (void)close(fd);
}

#else

typedef struct {
    void *iov_base;
    size_t iov_len;
} ws_iovec;

static inline long
ws_sock_recv(int fd, uint8_t *buf, size_t n)
{
    (void)fd;
    (void)buf;
    (void)n;
    return -2;
}

static inline long
ws_sock_send(int fd, const uint8_t *buf, size_t n)
{
    (void)fd;
    (void)buf;
    (void)n;
    return -2;
}

static inline long
ws_sock_readv(int fd, ws_iovec *parts, int count)
{
    (void)fd;
    (void)parts;
    (void)count;
    return -2;
}

static inline long
ws_sock_sendv(int fd, ws_iovec *parts, int count)
{
    (void)fd;
    (void)parts;
    (void)count;
    return -2;
}

static inline long
ws_sock_accept(int listening, uint8_t *address, size_t *size)
{
    (void)listening;
    (void)address;
    *size = 0;
    return -2;
}

static inline long
ws_sock_name(int fd, uint8_t *address, size_t *size)
{
    (void)fd;
    (void)address;
    *size = 0;
    return -2;
}

static inline int
ws_sock_parts(const uint8_t *address, size_t size, char *text,
              unsigned long *numbers)
{
    (void)address;
    (void)size;
    (void)text;
    (void)numbers;
    return 0;
}

static inline long
ws_sock_end(int fd)
{
    (void)fd;
    return -2;
}

static inline void
ws_sock_close(int fd)
{
    (void)fd;
}

#endif
#endif
