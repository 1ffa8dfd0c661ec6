/* Non-blocking socket input and output for the stream: recv, send and their
 * vectored forms, with one way to report errors.
 *
 * Each function returns the number of bytes moved (0 from a read: the peer ended
 * its side), WS_SOCK_AGAIN when the call would block or was interrupted, or the
 * negated errno minus one (always below WS_SOCK_AGAIN), so that the caller needs no
 * errno.  None allocates; the memory stays the caller's.
 *
 * On Windows the stream works on a transport, never on a socket: the functions are
 * there only so that the module links. */
#ifndef WS_SOCKET_H
#define WS_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#define WS_SOCK_AGAIN (-1)

#ifndef _WIN32

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

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
    struct msghdr message = {0};
    message.msg_iov = parts;
#if defined(__linux__) && defined(__GLIBC__)
    message.msg_iovlen = (size_t)count;
#else
    message.msg_iovlen = count;
#endif
    return ws_sock_result((long)sendmsg(fd, &message, MSG_NOSIGNAL));
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

#endif
#endif
