"""Sockets of an event loop, and what its connections share; the pure twin.

A :class:`LoopSocket` owns a connected socket that its loop watches; what is read and
written is for derived classes.  Where the loop has no ``add_reader``, or the bytes are
encrypted, there is no socket here but a transport, and nothing is watched.

The compiled twin holds a descriptor, and makes the socket as an object when somebody
asks for it.  On Linux, where a loop has more than one socket, it has the loop watch a
single descriptor and asks that which of them are ready.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from .timers import TimerWheel

__all__ = [
    "Accepted",
    "LoopSocket",
    "LoopState",
    "accept_connections",
    "accepted_address",
    "accepted_socket",
    "close_accepted",
    "loop_state",
]

Accepted = tuple[Any, Any]
"""A connection that was accepted: a socket, or its descriptor, and an address."""

READ_SIZE = 131072
CORK_SIZE = 65536


def accept_connections(
    listening: socket.socket, limit: int
) -> tuple[list[Accepted], OSError | None]:
    """Accept the connections that wait.

    Args:
        listening: Listening socket, not blocking.
        limit: How many to accept at most.

    Returns:
        What was accepted, each for ``attach_accepted()`` or ``close_accepted()``; and
        what kept more from being accepted, if it would do so again at once: no file
        descriptor is left, or no memory.
    """
    accepted: list[Accepted] = []
    while len(accepted) < limit:
        try:
            sock, address = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            break
        except OSError as exc:
            return accepted, exc
        try:
            sock.setblocking(False)
            if listening.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()  # the peer is gone already
            continue
        accepted.append((sock, address))
    return accepted, None


def accepted_address(accepted: Accepted) -> Any:
    """Return the address of who was accepted."""
    return accepted[1]


def accepted_socket(accepted: Accepted) -> socket.socket:
    """Make what ``accept_connections()`` gave a socket, which is the caller's."""
    sock: socket.socket = accepted[0]
    return sock


def close_accepted(accepted: Accepted) -> None:
    """Close what ``accept_connections()`` gave and nobody took."""
    accepted[0].close()


class _NoLoop:
    """Stands for the loop of a future that belongs to none."""

    def get_debug(self) -> bool:
        return False


class LoopState:
    """What the connections of one loop share: the read buffer, the cork, the timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.read_buffer = memoryview(bytearray(READ_SIZE))
        self.corked: list[bytes] = []
        self.corked_size = 0
        self.cork_owner: LoopSocket | None = None
        self.reading = False
        self.turn = 1
        self.turn_ends = False
        self.dirty: list[LoopSocket] = []
        self.published: Any = None  # what is for many, and for the end of the turn
        self.has_published = False
        # Selectors tell as long as something is wrong.  libuv tells once, and it may
        # do so while there is still input in front of the error.
        self.tells_once = not isinstance(loop, asyncio.SelectorEventLoop)
        self.wheel = TimerWheel(loop)
        # What a task's wake-up is called with.  It looks only at the result; but that
        # writes to the future, so that loops in several threads must not have the same.
        nowhere: Any = _NoLoop()
        self.finished: asyncio.Future[None] = asyncio.Future(loop=nowhere)
        self.finished.set_result(None)

    def end_turn_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have ``end_turn()`` called in the loop's next turn."""
        if not self.turn_ends:
            self.turn_ends = True
            loop.call_soon(self.end_turn)

    def end_turn(self) -> None:
        """Send what was published and joined since the loop's last turn."""
        self.turn_ends = False
        if self.has_published:
            self.published.send(self)
        self.turn += 1
        dirty, self.dirty = self.dirty, []
        for item in dirty:
            item._flush()

    def join_published(self) -> None:
        """Put what was published in this turn in front of what is sent next."""
        if self.has_published:
            self.published.join(self)


_states_lock = threading.Lock()


def loop_state(loop: asyncio.AbstractEventLoop) -> LoopState:
    """Return what the connections of ``loop`` share, made at first use."""
    # An attribute of the loop: timers refer to the loop, so that anything else which
    # held them would keep it alive.
    state: LoopState | None = getattr(loop, "_websock_py", None)
    if state is None:
        with _states_lock:
            state = getattr(loop, "_websock_py", None)
            if state is None:
                state = LoopState(loop)
                loop._websock_py = state  # type: ignore[attr-defined]
    return state


class LoopSocket:
    """A connected socket that a loop watches, if there is one."""

    __slots__ = (
        "__weakref__",
        "_fd",
        "_peername",
        "_shared",
        "_watching",
        "_watching_writes",
        "loop",
        "sock",
    )

    def init_socket(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set up; call once, before anything else."""
        self.loop = loop
        self._shared = loop_state(loop)
        self.sock: socket.socket | None = None
        self._peername: Any = None
        self._fd = -1
        self._watching = False  # the loop tells when there is input
        self._watching_writes = False  # or room for output

    def peername(self) -> Any:
        """Return the address of the peer, ``None`` when it is not known."""
        if self._peername is None and self.sock is not None:
            try:
                self._peername = self.sock.getpeername()
            except OSError:
                pass
        return self._peername

    def sockname(self) -> Any:
        """Return the address of this end, ``None`` when it is not known."""
        if self.sock is None:
            return None
        try:
            return self.sock.getsockname()
        except OSError:
            return None

    def on_writable(self) -> None:
        """Send more; the loop's writer callback."""
        if self._fd >= 0:
            self._flush()

    def _flush(self) -> None:
        """Send what was kept; for derived classes."""
