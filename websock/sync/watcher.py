"""One thread for all connections that nobody is receiving from.

A thread that calls ``recv()`` reads its connection itself; nothing runs beside it.
But a program may do something else for a while, and pings must be answered, close
frames taken and keepalive kept meanwhile.  That is what the watcher does, a thread
that exists once in a process and is started with the first connection.

Handing a connection over costs ``recv()`` next to nothing.  A connection that is
read by its program is only counted (``activity``).  The watcher looks at the counters
every ``TICK`` seconds, takes on the connections that are idle since the look before,
and gives one back as soon as its program is seen to receive again.  When the counters
stand still, because all programs wait in ``recv()``, it stops looking, and the first
``recv()`` that returns wakes it (``asleep``).

It never waits for a connection: what a thread of the program is busy with is left to
that thread.  Timers live here too: keepalive, and the time for closing.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from .selector import make_selector

if TYPE_CHECKING:
    from .base import ConnectionBase

__all__ = ["Timer", "Watcher", "the_watcher"]

TICK = 0.05
QUIET_TICKS = 20  # without a change, before it stops looking

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """Something to be called later; ``cancel()`` undoes it."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call it."""
        self.callback = None


class Watcher:
    """The thread that watches idle connections."""

    def __init__(self) -> None:
        self.asleep = False
        """Whether ``wake()`` must be called after a ``recv()`` from the network."""

        self._lock = threading.Lock()
        self._selector = make_selector()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, READ, None)
        self._unwatched: set[ConnectionBase] = set()
        self._requests: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._until: float | None = None  # when the thread wakes by itself
        self._quiet = 0
        self._next_tick = 0.0
        self._thread: threading.Thread | None = None

    # -- for any thread ------------------------------------------------------------

    def add(self, connection: ConnectionBase) -> None:
        """Look after a connection until ``forget()``."""
        self._unwatched.add(connection)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    # A daemon: it must not keep a program alive that is done.
                    thread = threading.Thread(
                        target=self._run, name="websock-watcher", daemon=True
                    )
                    thread.start()
                    self._thread = thread
        if self.asleep:
            self.wake()

    def add_again(self, connection: ConnectionBase) -> None:
        """Look after a connection again that was full, and has room now."""
        self._unwatched.add(connection)
        if self.asleep:
            self.wake()

    def watch(self, connection: ConnectionBase) -> None:
        """Take a connection on now: an answer is expected on it."""
        self._ask(self._watch, connection)

    def want_write(self, connection: ConnectionBase) -> None:
        """Have a connection told when it can send what is left to send."""
        self._ask(self._update, connection)

    def forget(self, connection: ConnectionBase) -> None:
        """Look no more after a connection; called before its socket is closed."""
        self._unwatched.discard(connection)
        if connection.watched_fd >= 0:
            self._ask(self._drop, (connection, connection.watched_fd))

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Have something called in the watcher's thread; it must not wait."""
        timer = Timer(monotonic() + seconds, callback)
        with self._lock:
            heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
            if len(self._timers) > 1000 and self._timers[0][2].callback is None:
                self._timers = [t for t in self._timers if t[2].callback is not None]
                heapq.heapify(self._timers)
            # The thread goes by this time, which it has read under the lock.
            too_late = self._until is None or timer.when < self._until
        if too_late and not self.is_this_thread():
            self.wake()
        return timer

    def wake(self) -> None:
        """Have the thread look at what there is to do."""
        self.asleep = False
        try:
            self._waker.send(b"\0")
        except OSError:
            pass  # it is full of the same, so the thread is being woken

    def is_this_thread(self) -> bool:
        """Tell whether the caller runs in the watcher's thread."""
        return threading.current_thread() is self._thread

    def _ask(self, function: Callable[[Any], None], argument: Any) -> None:
        self._requests.append((function, argument))
        if not self.is_this_thread():
            self.wake()

    # -- the thread ----------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:
                logging.getLogger("websock").exception("watching connections failed")

    def _turn(self) -> None:
        until = self._wake_up_time()
        timeout = None
        if self._requests:
            timeout = 0.0
        elif until is not None:
            timeout = max(until - monotonic(), 0)
        try:
            ready = self._selector.select(timeout)
        except OSError:  # pragma: no cover  # select() and a socket that was closed
            ready = []
        while self._requests:
            function, argument = self._requests.popleft()
            function(argument)
        for key, events in ready:
            connection: ConnectionBase | None = key.data
            if connection is None:
                self._drain()
            elif connection.watched_fd == key.fd:
                self._serve(connection, events)
        self._run_timers()
        if not self.asleep and monotonic() >= self._next_tick:
            self._tick()

    def _wake_up_time(self) -> float | None:
        with self._lock:
            timers = self._timers
            while timers and timers[0][2].callback is None:
                heapq.heappop(timers)
            until = timers[0][0] if timers else None
            if not self.asleep and (until is None or self._next_tick < until):
                until = self._next_tick
            self._until = until
            return until

    def _drain(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except OSError:
            pass

    def _run_timers(self) -> None:
        now = monotonic()
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                try:
                    callback()
                except Exception:
                    logging.getLogger("websock").exception("a timer failed")

    def _tick(self) -> None:
        """Take on the connections that are idle since the last time."""
        if self._look():
            self._quiet = 0
        else:
            self._quiet += 1
        self._next_tick = monotonic() + TICK
        if self._quiet >= QUIET_TICKS or not self._unwatched:
            # Who returns from recv() from here on wakes; who did so before is seen.
            self.asleep = True
            if self._look():
                self.asleep = False
                self._quiet = 0

    def _look(self) -> bool:
        changed = False
        for connection in self._unwatched.copy():
            if connection.is_lost:
                self._unwatched.discard(connection)
            elif connection.activity != connection.seen_activity:
                connection.seen_activity = connection.activity
                changed = True
            elif not connection.is_read():
                changed = True
                self._watch(connection)
        return changed

    def _watch(self, connection: ConnectionBase) -> None:
        self._unwatched.discard(connection)
        if connection.is_lost:
            return
        connection.seen_activity = connection.activity
        connection.is_watched = True
        self._update(connection)
        if connection.has_read_ahead():
            self._serve(connection, READ)

    def _unwatch(self, connection: ConnectionBase) -> None:
        connection.is_watched = False
        self._update(connection)

    def _update(self, connection: ConnectionBase) -> None:
        """Register a connection for what it waits for."""
        events = (READ if connection.is_watched else 0) | (
            WRITE if connection.has_unsent() else 0
        )
        fd = connection.watched_fd
        if connection.is_lost:
            events = 0
        try:
            if fd < 0:
                if events:
                    fd = connection.fileno()
                    if fd in self._selector.get_map():
                        self._selector.unregister(fd)  # of one that was closed
                    self._selector.register(fd, events, connection)
                    connection.watched_fd = fd
                    if connection.is_lost:  # closed in between
                        self._drop((connection, fd))
            elif events:
                self._selector.modify(fd, events, connection)
            else:
                self._selector.unregister(fd)
                connection.watched_fd = -1
        except (OSError, ValueError, KeyError):
            connection.watched_fd = -1  # closed in between

    def _drop(self, item: tuple[ConnectionBase, int]) -> None:
        connection, fd = item
        key = self._selector.get_map().get(fd)
        if key is not None and key.data is connection:
            try:
                self._selector.unregister(fd)
            except (OSError, ValueError, KeyError):
                pass
        connection.watched_fd = -1
        connection.is_watched = False

    def _serve(self, connection: ConnectionBase, events: int) -> None:
        """Something happened on a connection."""
        if events & WRITE:
            connection.run_actions()
            self._update(connection)
        if not events & READ:
            return
        if connection.activity != connection.seen_activity:
            # Its program receives again.
            self._unwatch(connection)
            self._unwatched.add(connection)
            self._quiet = 0
            self.asleep = False
            return
        taken = connection.read_idle()
        if taken is None:  # its program has begun to receive
            self._unwatch(connection)
            self._unwatched.add(connection)
            self.asleep = False
        elif not taken and not connection.is_lost:
            self._unwatch(connection)  # it is full: add_again() will be called


_watcher: Watcher | None = None
_lock = threading.Lock()


def the_watcher() -> Watcher:
    """Return the watcher of this process."""
    global _watcher
    if _watcher is None:
        with _lock:
            if _watcher is None:
                _watcher = Watcher()
    return _watcher


def _forget_parent() -> None:
    """Begin anew in a child process: threads do not survive a fork."""
    global _watcher, _lock
    _watcher = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
