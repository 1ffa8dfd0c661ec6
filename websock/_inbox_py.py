"""Inboxes: messages that wait for ``recv()``, and who waits for them; the pure twin.

The ideas, the same in both twins:

* *Wake inside the event.*  A task that waits in ``recv()`` goes on inside the read
  event that brought its message, unless another task of the loop is running.
* *Nothing is lost.*  A message leaves the queue in the step of the task that receives
  it, so a cancelled ``recv()`` leaves it there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from ._channel_py import Channel
from ._codec_py import FrameReader
from .constants import MIN_QUEUED_SIZE
from .exceptions import ConcurrencyError, ConnectionClosedOK
from .typing import Data

__all__ = ["Inbox"]

WHOLE, ITERATE, PIECES = range(3)  # what a Recv waits for


class Recv:
    """The awaitable that ``recv()`` returns; acts as a coroutine, without a frame."""

    __slots__ = ("decode", "failing", "mode", "state", "inbox")

    def __init__(self, inbox: Inbox, decode: bool | None, mode: int) -> None:
        self.inbox = inbox
        self.decode = decode
        self.mode = mode
        self.state = 0  # 0 not begun, 1 waiting, 2 over
        self.failing = False  # only the end of the connection is awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    __iter__ = __await__

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine's ``send()``."""
        item = self.step()
        if self.state == 1:
            return item
        raise StopIteration(item)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Leave the wait with an exception; no message is lost."""
        self.leave(True)
        if val is None:
            val = typ if isinstance(typ, BaseException) else typ()
        elif not isinstance(val, BaseException):
            val = typ(val)
        if tb is not None:
            val = val.with_traceback(tb)
        raise val

    def close(self) -> None:
        """Leave the wait; no message is lost."""
        self.leave(True)

    def leave(self, abandoned: bool) -> None:
        """Stop being the receiver."""
        if self.state == 1:
            self.inbox._receiver = None
            if abandoned:
                self.inbox._waiter = None
        self.state = 2

    def step(self) -> Any:
        """Return the message, or the waiter when ``state`` stays 1."""
        inbox = self.inbox
        if self.state == 2:
            raise RuntimeError("cannot reuse an already awaited recv()")
        if self.state == 0:
            if inbox._receiver is not None or (inbox.streaming and self.mode != PIECES):
                raise ConcurrencyError(
                    "cannot call recv while another coroutine is already "
                    "running recv or recv_streaming"
                )
            if inbox._on_message is not None:
                raise ConcurrencyError("cannot call recv: the listener gets messages")
        if not self.failing:
            if inbox._queue:
                item = inbox._pop()
                self.leave(False)
                return self.convert(item)
            if self.mode == PIECES:
                pieces = inbox._take_pieces()
                if pieces is not None:
                    self.leave(False)
                    return pieces
        if inbox.is_lost:
            self.leave(False)
            exc = inbox.closed_error()
            if self.mode == ITERATE and isinstance(exc, ConnectionClosedOK):
                raise StopAsyncIteration
            raise exc
        return self.wait()

    def wait(self) -> asyncio.Future[None]:
        """Become the receiver."""
        inbox = self.inbox
        waiter = inbox._waiter
        if inbox._queue_full:
            # Nothing is queued: the fragments of a message wait.
            inbox._queue_full = False
            inbox.loop.call_soon(inbox.read_on)
        # A waiter that only lost its callback is as good as new; see _finish_wait().
        if waiter is None or waiter.done():
            waiter = inbox._waiter = inbox.loop.create_future()
        waiter._asyncio_future_blocking = True
        inbox._receiver = self
        self.state = 1
        return waiter

    def convert(self, item: Any) -> Any:
        """Apply ``decode``; give the message without its marks."""
        if self.mode == PIECES:
            return [item]
        if type(item) is tuple:
            item = item[0]
        if self.decode is None:
            return item
        if self.decode:
            if type(item) is bytes:
                try:
                    return item.decode()
                except UnicodeDecodeError as exc:
                    self.inbox.decoding_failed(exc)
                    self.failing = True
                    if self.inbox.is_lost:
                        self.state = 2
                        raise self.inbox.closed_error()  # noqa: B904  # has a cause
                    return self.wait()
        elif type(item) is str:
            return item.encode()
        return item


class Messages:
    """The asynchronous iterator over incoming messages."""

    __slots__ = ("inbox",)

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    def __aiter__(self) -> Messages:
        return self

    def __anext__(self) -> Awaitable[Data]:
        return Recv(self.inbox, None, ITERATE)


def size_of(item: Any) -> int:
    """Return the bytes of a message, or the characters of a text."""
    return len(item[0] if type(item) is tuple else item)


class Inbox(Channel):
    """Messages that wait for ``recv()``, and who waits for them."""

    __slots__ = (
        "_dropping",
        "_high",
        "_high_size",
        "_holds_pieces",
        "_low",
        "_on_message",
        "_processing",
        "_queue",
        "_queue_full",
        "_reader",
        "_receiver",
        "_waiter",
        "queued_size",
        "streaming",
    )

    def init_inbox(
        self,
        on_message: Callable[[Any, Any], Any] | None,
        queue_marks: tuple[int | None, int | None],
        queue_size: int | None,
    ) -> None:
        """Set up; call once, after ``init_channel()``.

        Args:
            on_message: Callback ``(stream, message)``; ``None``: messages are queued.
            queue_marks: Messages in the queue at which reading stops and goes on.
            queue_size: Bytes, and characters of text, in the queue at which reading
                stops; it goes on at a quarter.
        """
        self._reader: FrameReader | None = None
        self._on_message = on_message
        self._holds_pieces = queue_marks[0] is not None
        if queue_marks[0] is None and queue_size is not None:
            high = queue_size // MIN_QUEUED_SIZE
            queue_marks = high, high // 4
        self._high, self._low = queue_marks
        self._queue: deque[Any] = deque()
        self.queued_size = 0  # bytes in the queue, or characters of text
        self._high_size = queue_size
        self._waiter: asyncio.Future[None] | None = None
        self._receiver: Recv | None = None
        self._processing = False  # input is being parsed
        self._queue_full = False
        self._dropping = False  # no message is taken any more
        self.streaming = False

    @property
    def queued(self) -> int:
        """Messages that wait for ``recv()``."""
        return len(self._queue)

    def set_on_message(self, on_message: Callable[[Any, Any], Any]) -> None:
        """Deliver messages to a callback instead of the queue."""
        self._on_message = on_message

    def _over_high(self) -> bool:
        """Whether the queue holds more than it should."""
        if self._high is not None and len(self._queue) > self._high:
            return True
        return self._high_size is not None and self.queued_size > self._high_size

    def _put(self, item: Any) -> None:
        """Queue a message; wake the receiver when that is more than enough."""
        if self.is_closing and (self._dropping or self._over_high()):
            # The program has said that it is done: nothing may pile up, and if some
            # messages are dropped, then all that follow.
            self._dropping = True
            return
        self._queue.append(item)
        self.queued_size += size_of(item)
        if self._over_high():
            self._wake(True)
            if self._over_high() and self.is_open:
                self._queue_full = True

    def _wake(self, at_once: bool) -> None:
        """Let the receiver go on, if it has something to go on with."""
        waiter, receiver = self._waiter, self._receiver
        if receiver is None or waiter is None:
            return
        if (
            not self._queue
            and not self.is_lost
            and (receiver.mode != PIECES or not self._has_pieces())
        ):
            return
        self._finish_wait(waiter, at_once)

    def _finish_wait(self, waiter: Any, at_once: bool) -> None:
        """End the receiver's wait; run its task's wake-up here if ``at_once``.

        Setting a result would have the loop call the wake-up in its next turn.  So
        the wake-up is taken off the future and called, unless a task is running.
        """
        callbacks = waiter._callbacks
        if (
            at_once
            and callbacks
            and len(callbacks) == 1
            and asyncio.current_task(self.loop) is None
        ):
            callback, context = callbacks[0]
            try:
                context.run(self._wake_up, waiter, callback)
            except RuntimeError:
                if waiter.done() or not waiter._callbacks:
                    raise
                # The task's context is in use: its wake-up has to wait.
                waiter.set_result(None)
        elif not waiter.done():
            waiter.set_result(None)

    def _wake_up(self, waiter: Any, callback: Callable[[Any], Any]) -> None:
        waiter.remove_done_callback(callback)
        callback(self._shared.finished)

    def _has_pieces(self) -> bool:
        return self._reader is not None and self._reader.has_fragments

    def _take_pieces(self) -> tuple[int, list[bytes]] | None:
        if self._reader is None or not self._reader.has_fragments:
            return None
        opcode = self._reader.message_opcode
        pieces = self._reader.take_fragments()
        self._taken()
        return (opcode, pieces) if pieces else None

    def _pop(self) -> Any:
        """Take the first message out of the queue."""
        item = self._queue.popleft()
        self.queued_size -= size_of(item)
        self._taken()
        return item

    def _taken(self) -> None:
        """Read on when enough was taken."""
        if (
            self._queue_full
            and len(self._queue) <= (self._low or 0)
            and (self._high_size is None or self.queued_size <= self._high_size // 4)
        ):
            self._queue_full = False
            if self._processing:
                self.loop.call_soon(self.read_on)
            else:
                self.read_on()

    def recv(self, decode: bool | None = None) -> Awaitable[Any]:
        """Receive the next message.

        Args:
            decode: ``True`` forces text, ``False`` forces bytes; by default text
                frames give ``str`` and binary frames ``bytes``.

        Raises:
            ConnectionClosed: When the connection is closed and the queue is empty.
            ConcurrencyError: When another ``recv()`` or ``recv_streaming()`` waits.

        Cancelling is safe: a message already received stays in the queue.
        """
        return Recv(self, decode, WHOLE)

    def recv_pieces(self) -> Awaitable[Any]:
        """Receive a message with its marks, or finished fragments of one.

        Gives ``[item]`` for a whole message, where an item is the message, or a
        tuple ``(message, ends of its fragments, whether its beginning was taken)``;
        or ``(opcode, fragments)`` for a message that is still arriving.
        """
        return Recv(self, None, PIECES)

    @property
    def is_receiving(self) -> bool:
        """Whether a ``recv()`` is waiting."""
        return self._receiver is not None

    def interrupt(self, exc: Exception) -> None:
        """End the wait of a ``recv()`` with an exception; no message is lost.

        Args:
            exc: What the ``recv()`` raises, if one waits that was not woken yet.
        """
        waiter = self._waiter
        if self._receiver is not None and waiter is not None and not waiter.done():
            waiter.set_exception(exc)

    def __aiter__(self) -> Messages:
        return Messages(self)

    # -- what the stream and the connection do ---------------------------------------

    def read_on(self) -> None:
        """Go on to read after the queue was full."""
        raise NotImplementedError

    def decoding_failed(self, exc: UnicodeDecodeError) -> None:
        """A binary message that was to be decoded is not UTF-8."""
        raise NotImplementedError
