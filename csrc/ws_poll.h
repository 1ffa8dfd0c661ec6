/* One epoll instance for all sockets of an event loop: which descriptors are ready,
 * many at a time, without an object of the loop for each.
 *
 * ws_poll_open() returns a descriptor, or -1 where there is no epoll: then the loop
 * has to tell about each socket itself.  ws_poll_set() changes what one socket is
 * watched for, from and to a combination of WS_POLL_READ and WS_POLL_WRITE; it returns
 * 0 or the negated errno.  Errors and the end of a connection are told as whatever is
 * watched, since the next read or write finds out.  Events are told as long as they
 * last ("level-triggered").  Nothing is allocated. */
#ifndef WS_POLL_H
#define WS_POLL_H

#define WS_POLL_READ 1
#define WS_POLL_WRITE 2

#ifdef __linux__

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>

typedef struct epoll_event ws_poll_event;

static inline int
ws_poll_open(void)
{
    return epoll_create1(EPOLL_CLOEXEC);
}

static inline int
ws_poll_set(int poll, int fd, int before, int after)
{
    struct epoll_event event = {0};
    int what = after == 0    ? EPOLL_CTL_DEL
               : before == 0 ? EPOLL_CTL_ADD
                             : EPOLL_CTL_MOD;
    event.events = ((after & WS_POLL_READ) ? (uint32_t)EPOLLIN : 0U)
                   | ((after & WS_POLL_WRITE) ? (uint32_t)EPOLLOUT : 0U);
    event.data.fd = fd;
    if (epoll_ctl(poll, what, fd, &event) == 0) {
        return 0;
    }
    return -errno;
}

/* Fill at most size events without waiting; return how many. */
static inline int
ws_poll_now(int poll, ws_poll_event *events, int size)
{
    int n = epoll_wait(poll, events, size, 0);
    return n < 0 ? 0 : n;
}

static inline int
ws_poll_fd(const ws_poll_event *event)
{
    return event->data.fd;
}

static inline int
ws_poll_flags(const ws_poll_event *event)
{
    uint32_t events = event->events;
    if (events & (uint32_t)(EPOLLERR | EPOLLHUP)) {
        return WS_POLL_READ | WS_POLL_WRITE;
    }
    return ((events & (uint32_t)EPOLLIN) ? WS_POLL_READ : 0)
           | ((events & (uint32_t)EPOLLOUT) ? WS_POLL_WRITE : 0);
}

#else

typedef struct {
    int unused;
} ws_poll_event;

static inline int
ws_poll_open(void)
{
    return -1;
}

static inline int
ws_poll_set(int poll, int fd, int before, int after)
{
    (void)poll;
    (void)fd;
    (void)before;
    (void)after;
    return -1;
}

static inline int
ws_poll_now(int poll, ws_poll_event *events, int size)
{
    (void)poll;
    (void)events;
    (void)size;
    return 0;
}

static inline int
ws_poll_fd(const ws_poll_event *event)
{
    (void)event;
    return -1;
}

static inline int
ws_poll_flags(const ws_poll_event *event)
{
    (void)event;
    return 0;
}

#endif
#endif
