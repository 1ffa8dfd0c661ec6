"""Channels: a socket or a transport, and what is sent on it; the pure twin.

A :class:`Channel` owns a connected socket, or works on a transport where the loop has
no ``add_reader`` or the bytes are encrypted.  It frames messages and writes them, and
ends the connection.

The ideas, the same in both twins:

* *Cork.*  What is sent while a read event is handled leaves in one write at its
  end.  Outside of one, the first write of a turn of the loop goes out at once and
  later ones are joined until the turn ends.
* *Nothing to wait for, nothing to await.*  ``send()`` returns a finished awaitable
  while the write buffer is below its mark.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Generator, Hashable, Iterable
from typing import Any, TypeVar

from ._codec_py import FrameWriter, message_payload
from ._loop_py import CORK_SIZE, LoopSocket, LoopState
from .constants import OP_PONG
from .exceptions import ConcurrencyError
from .typing import BytesLike

__all__ = ["Channel", "publish", "send_to_many"]

LARGE = 16384  # from this size on, output is not joined by copying
HOLD_FOR_WRITING = 2  # a reason to hold input back, as a bit


class Done:
    """The awaitable of a call that has nothing to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    __iter__ = __await__

    def __next__(self) -> Any:
        raise StopIteration

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine's ``send()``."""
        raise StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Raise the exception, as a coroutine that is over."""
        if val is None:
            val = typ if isinstance(typ, BaseException) else typ()
        raise val

    def close(self) -> None:
        """Do nothing: it is over."""


DONE = Done()


def joins_writes(transport: Any) -> bool:
    """Whether ``writelines()`` is safe to use.

    That of asyncio's sockets keeps any amount without pausing in the first releases of
    CPython 3.12 and 3.13 (python/cpython #127655), and in some later ones what it is
    given once the connection is lost (#136234).
    """
    return type(transport).__module__ != "asyncio.selector_events"


class Channel(LoopSocket):
    """A socket or a transport, and what is sent on it."""

    __slots__ = (
        "_accepted",
        "_answered",
        "_broken",
        "_dirty",
        "_end_after_flush",
        "_finishing",
        "_held",
        "_late_pong",
        "_segments",
        "_sends",
        "_sent_payload",
        "_sent_turn",
        "_unsent",
        "_write_high",
        "_write_low",
        "_writer",
        "backlog",
        "_writes",
        "fragmenting",
        "io",
        "is_closing",
        "is_lost",
        "is_open",
        "write_paused",
    )

    def init_channel(
        self, loop: asyncio.AbstractEventLoop, write_marks: tuple[int, int]
    ) -> None:
        """Set up; call once, before anything else.

        Args:
            loop: The event loop.
            write_marks: Unsent bytes at which ``send()`` waits and goes on.
        """
        self.init_socket(loop)
        self._write_high, self._write_low = write_marks
        self.io: Any = None
        self._held = 0  # reasons to hold input back, as bits

        self._writer: FrameWriter | None = None
        self._segments: deque[bytes | memoryview] = deque()
        self._unsent = 0
        self._sent_turn = 0
        self._sends = 0  # messages sent
        self._sent_payload = 0  # bytes in them, before compression
        self._accepted = 0  # bytes that were to be sent, as they are
        self._writes = 0  # calls of the system to write
        self._answered = False  # some of them by the callback, in this read event
        self._dirty = False
        self._end_after_flush = False
        self._finishing = False  # closed once everything is sent
        self._late_pong: bytes | None = None
        self.write_paused = False
        self.fragmenting = False  # a fragmented message is being sent
        self.backlog: Any = None  # messages for a slow peer, or None

        self._broken = False  # reading or writing failed
        self.is_open = False
        self.is_closing = False
        self.is_lost = False

    def _unwatch(self) -> None:
        """Stop reading: called only when input comes that is to be held back."""
        if not self._watching:
            return
        self._watching = False
        if self._fd >= 0:
            self.loop.remove_reader(self._fd)
        elif self.io is not None:
            self.io.pause_reading()

    # -- writing ---------------------------------------------------------------------

    def _cork(self) -> bool:
        """Join what is sent from here on; ``False`` when another channel does that."""
        if self._shared.cork_owner is not None:
            return False
        self._shared.cork_owner = self
        self._answered = False
        return True

    def _uncork(self) -> None:
        shared = self._shared
        try:
            while shared.corked:  # pause_writing() may send
                self._flush_cork()
        finally:
            shared.corked.clear()
            shared.corked_size = 0
            shared.cork_owner = None
        if self._answered and self.write_paused:
            self._held |= HOLD_FOR_WRITING

    def _flush_cork(self) -> None:
        corked, self._shared.corked = self._shared.corked, []
        self._shared.corked_size = 0
        if corked:
            self._send_now(b"".join(corked))

    def _send_now(self, data: bytes) -> None:
        """Send if nothing waits before it; keep the rest."""
        if self._broken:
            return
        if not self._segments:
            if self._fd < 0:
                self._write_io(data)
                return
            sent = self._send_some(data)
            if sent < 0 or sent == len(data):
                return
            data = data[sent:]
            self._watch_writes()
        self._append(data)

    def _write_io(self, *chunks: bytes) -> None:
        if self.io is None or self.is_lost:
            return
        if self.io.is_closing():
            self.is_open = False  # it was closed by somebody else
        elif len(chunks) > 1 and joins_writes(self.io):
            self.io.writelines(chunks)
        else:
            for chunk in chunks:
                self.io.write(chunk)

    def _send_some(self, data: BytesLike) -> int:
        """Return how much the socket took, -1 when it is broken."""
        assert self.sock is not None
        try:
            self._writes += 1
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            self._io_failed(exc)
            return -1

    def _io_failed(self, exc: OSError) -> None:
        """The socket is broken: close it soon, when what was read is delivered."""
        self.is_open = False
        if not self._broken:
            self._broken = True
            self.loop.call_soon(self.abort_stream, exc)

    def _append(self, data: bytes) -> None:
        self._segments.append(data)
        self._unsent += len(data)
        self._check_high()

    def _check_high(self) -> None:
        if self._unsent > self._write_high and not self.write_paused:
            if self._fd < 0:
                self._flush()  # a transport says itself when it has enough
            else:
                self.write_paused = True
                self.pause_writing()

    def write_bytes(self, data: bytes) -> None:
        """Write bytes that are frames or HTTP already: corked, joined, or at once."""
        shared = self._shared
        self._accepted += len(data)
        if self._broken or (self._fd < 0 and self.io is None):
            return
        if shared.cork_owner is self:
            shared.corked.append(data)
            shared.corked_size += len(data)
            if len(data) >= LARGE or shared.corked_size > CORK_SIZE:
                self._flush_cork()
        elif not self._segments and self._sent_turn != shared.turn:
            # The first of this turn of the loop goes out at once.
            self._sent_turn = shared.turn
            shared.end_turn_later(self.loop)
            self._send_now(data)
        else:
            self._append(data)
            if not self._watching_writes and not self._dirty:
                self._dirty = True
                shared.dirty.append(self)
                shared.end_turn_later(self.loop)

    def join_writes(self) -> None:
        """Send what is written from here on at the end of the loop's turn.

        For messages to many, of which more may follow in the same turn: they leave in
        one write.
        """
        self._sent_turn = self._shared.turn

    def takes_joined(self) -> bool:
        """Have the socket take what is joined now; whether there is room again.

        That much was sent in one turn of the loop does not mean that the peer is slow:
        the socket was not asked yet.
        """
        if self._dirty and not self._watching_writes:
            self._flush()
        return not self.write_paused

    def _is_plain(self) -> bool:
        """Whether a frame for many goes to the socket as it is.

        Not if it is masked or an extension changes it, while fragments are sent, or
        when there is a backlog and the socket takes nothing.
        """
        if self.write_paused and self.backlog is not None and not self.takes_joined():
            return False
        writer = self._writer
        return not self.fragmenting and writer is not None and writer.is_plain

    def join_published(self) -> None:
        """Put what was published in front of what is sent next."""
        self._shared.join_published()

    def _take_run(self, run: Run, is_end: bool, is_last: bool) -> None:
        """Send what was published: joined, or at once if no more comes in the turn.

        Args:
            run: The messages.
            is_end: Whether the turn ends.
            is_last: Whether this is the last run for this channel then.
        """
        shared = self._shared
        if not self.is_open:
            return
        if not self._is_plain():
            for message, key in run.messages:
                self.send_published(message, key)
            return
        self.count_sent(len(run.messages), run.payload)
        self._sent_turn = shared.turn
        if not is_end or shared.cork_owner is self:
            self.write_bytes(run.frames)
            return
        self._accepted += run.size
        if is_last and not self._segments:
            self._send_now(run.frames)
            return
        self._segments.append(run.frames)
        self._unsent += run.size
        if is_last:
            if not self._watching_writes:
                self._flush()
            self._check_high()
        elif not self._dirty and not self._watching_writes:
            # The last run may find that it goes to the backlog.
            self._dirty = True
            shared.dirty.append(self)

    def _flush(self) -> None:
        """Send what was kept, as far as the socket takes it."""
        self._dirty = False
        segments = self._segments
        if not segments or self._broken:
            return
        if self._fd < 0:
            chunks = [bytes(segment) for segment in segments]
            segments.clear()
            self._unsent = 0
            self._write_io(*chunks)
            return
        while segments:
            if len(segments) > 1 and len(segments[0]) < LARGE:
                joined = b"".join(segments)
                segments.clear()
                segments.append(joined)
            sent = self._send_some(segments[0])
            if sent < 0:
                return
            self._unsent -= sent
            if sent < len(segments[0]):
                segments[0] = memoryview(segments[0])[sent:]
                break
            segments.popleft()
        if segments:
            self._watch_writes()
            self._check_low()
            return
        if self._watching_writes:
            self._watching_writes = False
            self.loop.remove_writer(self._fd)
        self._check_low()
        if self._end_after_flush and not self._segments:
            self._end_output()
        if self._finishing and not self._segments:
            self._release_socket()
            self.loop.call_soon(self.lost, None)

    def _watch_writes(self) -> None:
        if not self._watching_writes and self._fd >= 0:
            self._watching_writes = True
            self.loop.add_writer(self._fd, self.on_writable)

    def _check_low(self) -> None:
        if self.write_paused and self._unsent <= self._write_low:
            self.write_paused = False
            self._send_late_pong()
            self.resume_writing()

    def _send_late_pong(self) -> None:
        if self._late_pong is not None and self.is_open:
            pong, self._late_pong = self._late_pong, None
            self.send_control(OP_PONG, pong)

    def transport_paused(self, paused: bool) -> None:
        """Follow the transport's flow control."""
        self.write_paused = paused
        if not paused:
            self._send_late_pong()

    def send(self, message: Any, *, text: bool | None = None) -> Awaitable[None]:
        """Send a message.

        Args:
            message: ``str`` goes out as text, bytes-like as binary; an iterable or
                an asynchronous iterable of these as one fragmented message.
            text: ``True`` or ``False`` forces a text or a binary frame.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            TypeError: When ``message`` is of none of these types.

        The message is on its way when ``send()`` returns; awaiting waits while more
        than ``write_limit`` bytes are unsent.
        """
        if (
            not self.is_open
            or self.fragmenting
            or not isinstance(message, (str, bytes, bytearray, memoryview))
        ):
            return self.send_otherwise(message, text)
        self._send_message(message, text)
        if self.write_paused:
            return self.drain()
        return DONE

    def send_nowait(self, message: Any, *, text: bool | None = None) -> None:
        """Send a message without waiting, whatever is unsent already.

        Watch ``buffered_amount``, or ``on_pause_writing``, to slow down.

        Raises:
            ConnectionClosed: When the connection is closed or closing.
            ConcurrencyError: When a fragmented message is being sent.
            TypeError: When ``message`` is neither ``str``, bytes-like nor prepared.
        """
        if not self.is_open:
            raise self.closed_error()
        if self.fragmenting:
            raise ConcurrencyError("cannot send: a fragmented message is being sent")
        self._send_message(message, text)

    def _send_message(self, message: Any, text: bool | None) -> None:
        assert self._writer is not None
        self._shared.join_published()
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            opcode, payload = message_payload(message, text)
            frame = self._writer.frame(opcode, payload)
            self.count_sent(1, len(payload))
            self.write_bytes(frame)
        else:
            self.send_prepared(message, text)

    def count_sent(self, messages: int, size: int) -> None:
        """Count messages that are sent by ``write_bytes()``, and their payload."""
        self._sends += messages
        self._sent_payload += size

    def send_control(self, opcode: int, payload: BytesLike) -> None:
        """Send a control frame, whatever the state."""
        assert self._writer is not None
        self.write_bytes(self._writer.frame(opcode, payload))

    def answer_ping(self, payload: bytes) -> None:
        """Send a pong; only the newest while the peer does not read (5.5.3)."""
        if self.write_paused:
            self._late_pong = payload
        else:
            self.send_control(OP_PONG, payload)

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent but not yet handed to the operating system."""
        self._shared.join_published()
        n = self._unsent
        if self._shared.cork_owner is self:
            n += self._shared.corked_size
        if self.io is not None and not self.is_lost:
            try:
                n += self.io.get_write_buffer_size()
            except AttributeError:
                pass  # asyncio's TLS transport has let go of what it wraps
        return n

    # -- the end ---------------------------------------------------------------------

    def end_writing(self) -> None:
        """Send EOF after what was sent before; TLS closes instead."""
        if self._shared.cork_owner is self:
            self._flush_cork()
        self._flush()
        if self._segments:
            self._end_after_flush = True
        else:
            self._end_output()

    def _end_output(self) -> None:
        self._end_after_flush = False
        if self._fd >= 0:
            assert self.sock is not None
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer is gone already; reading finds out
        elif self.io is not None and not self.is_lost:
            if self.io.can_write_eof():
                try:
                    self.io.write_eof()
                except (OSError, RuntimeError):
                    pass
            else:
                self.io.close()

    def close_stream(self) -> None:
        """Close, and send what is unsent before; read nothing more."""
        if self.is_lost:
            return
        if self._fd >= 0:
            if self._shared.cork_owner is self:
                self._flush_cork()
            self._flush()
            if self._segments and not self._broken:
                self.is_open = False
                self.is_closing = True
                self._finishing = True
                self._unwatch()
                return
            self._release_socket()
            self.loop.call_soon(self.lost, None)
        elif self.io is not None:
            self.io.close()

    def abort_stream(self, exc: BaseException | None = None) -> None:
        """Close at once; ``exc`` is the reason, for ``connection_lost()``."""
        if self.is_lost:
            return
        if self._fd >= 0:
            self._release_socket()
            self.loop.call_soon(self.lost, exc)
        elif self.io is not None:
            self.io.abort()

    def _release_socket(self) -> None:
        fd, self._fd = self._fd, -1
        self.is_open = False
        self.is_closing = True
        if self._shared.cork_owner is self:
            self._shared.corked.clear()
            self._shared.corked_size = 0
        if self._watching:
            self._watching = False
            self.loop.remove_reader(fd)
        if self._watching_writes:
            self._watching_writes = False
            self.loop.remove_writer(fd)
        self._segments.clear()
        self._unsent = 0

    def lost(self, exc: BaseException | None) -> None:
        """The connection is gone: the socket is closed and waiters go on."""
        if not self.is_lost:
            self.connection_lost(exc)

    # -- what the connection decides -------------------------------------------------

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; must call ``mark_lost()``."""
        raise NotImplementedError

    def closed_error(self) -> Exception:
        """Return the exception for an operation on a closed connection."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Unsent bytes went above the high mark."""
        raise NotImplementedError

    def resume_writing(self) -> None:
        """Unsent bytes went below the low mark."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait until unsent bytes are below the low mark."""
        raise NotImplementedError

    def send_prepared(self, message: Any, text: bool | None) -> None:
        """Send what is neither ``str`` nor bytes-like, if it is prepared for that."""
        raise NotImplementedError

    def send_published(self, message: Any, key: Hashable) -> None:
        """Send what was published and cannot be sent as it is; must not raise."""
        raise NotImplementedError

    def publishing_failed(self, exc: Exception) -> None:
        """Sending what was published raised this; must not raise."""
        raise NotImplementedError

    async def send_otherwise(self, message: Any, text: bool | None) -> None:
        """Send what ``send()`` cannot send at once, or raise what is wrong."""
        raise NotImplementedError


C = TypeVar("C", bound=Channel)


def send_to_many(
    channels: Iterable[C], frame: bytes, size: int
) -> list[tuple[C, Exception | None]]:
    """Write a frame to the channels that take it as it is; pass over closed ones.

    Args:
        channels: Where to send it.
        frame: A whole message in one frame, not masked and not compressed.
        size: Bytes of payload in it.

    Returns:
        The channels that are to be looked at, because they are not plain, with
        ``None``; and those that failed, with the exception.

    Raises:
        TypeError: When something else than a connection is among them.
    """
    others: list[tuple[C, Exception | None]] = []
    for channel in channels:
        if not isinstance(channel, Channel):
            raise TypeError(f"not a connection: {type(channel).__name__}")
        if not channel.is_open:
            continue
        try:
            channel.join_published()
            if not channel._is_plain():
                others.append((channel, None))
                continue
            channel.count_sent(1, size)
            channel.write_bytes(frame)
        except Exception as exc:
            others.append((channel, exc))
    return others


class Run:
    """Messages to the same channels, one after the other: they leave as one.

    Attributes:
        channels: Where they go.
        messages: The messages and their keys, for channels that are not plain.
        parts: Their frames.
        frames: The same as one, once they are sent.
        size: Bytes of these.
        payload: Bytes of payload in them.
    """

    __slots__ = ("channels", "frames", "messages", "parts", "payload", "size")

    def __init__(self, channels: tuple[Any, ...]) -> None:
        self.channels: tuple[Any, ...] = channels
        self.messages: list[tuple[Any, Hashable]] = []
        self.parts: list[bytes] = []
        self.frames = b""
        self.size = 0
        self.payload = 0

    def has_room(self, channels: tuple[Any, ...], size: int) -> bool:
        """Whether a message to these channels, and of this size, is to be added."""
        return self.channels is channels and self.size + size <= LARGE


class Publications:
    """What is published in one turn of the loop.

    Nothing is kept for each channel, and each is touched once, at the end of the turn:
    of ten thousand, the caches have forgotten the first when the last has its turn.
    When one of the channels is to send something else before that, all get what was
    published so far, so that the order holds.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.size = 0  # bytes of their frames
        self.sending = False

    def send(self, shared: LoopState) -> None:
        """Send it, for each channel in one write: the turn ends."""
        self._hand_out(shared, True)

    def join(self, shared: LoopState) -> None:
        """Put it in front of what the channels send from here on in this turn."""
        self._hand_out(shared, False)

    def _hand_out(self, shared: LoopState, is_end: bool) -> None:
        runs, self.runs = self.runs, []
        interrupt: BaseException | None = None
        shared.has_published = False
        self.size = 0
        due = Counter(channel for run in runs for channel in run.channels)
        for run in runs:
            run.frames = run.parts[0] if len(run.parts) == 1 else b"".join(run.parts)
        # What callbacks publish meanwhile comes behind this, for everybody.
        self.sending = True
        for run in runs:
            for channel in run.channels:
                due[channel] -= 1
                try:
                    channel._take_run(run, is_end, due[channel] == 0)
                except Exception as exc:
                    channel.publishing_failed(exc)
                except BaseException as exc:
                    interrupt = exc  # the others get it nevertheless
        self.sending = False
        shared.has_published = bool(self.runs)
        if interrupt is not None:
            raise interrupt


def publish(channels: tuple[Any, ...], message: Any, key: Hashable) -> None:
    """Send a message to many channels of a loop at the end of its turn.

    What is published in a turn leaves in one write for each channel, in the order in
    which it was published and otherwise sent; see :class:`Publications`.  Closed
    channels are passed over; what goes wrong is told to ``publishing_failed()``.

    Args:
        channels: Where to send it; give the same tuple while they are the same.
        message: A ``PreparedMessage``.
        key: What it is about, for ``SlowConsumer("latest")``.

    Memory: of what was published until the end of the turn, up to 64 KiB; more is sent
    before that.
    """
    frame = message.frame()
    if not channels:
        return
    first = channels[0]
    shared = first._shared
    published: Publications | None = shared.published
    if published is None:
        published = shared.published = Publications()
    if published.runs and published.runs[-1].has_room(channels, len(frame)):
        run = published.runs[-1]
    else:
        run = Run(channels)
        published.runs.append(run)
    run.messages.append((message, key))
    run.parts.append(frame)
    run.size += len(frame)
    run.payload += len(message.payload)
    published.size += len(frame)
    shared.end_turn_later(first.loop)
    if not published.sending:
        shared.has_published = True
        if published.size > CORK_SIZE:
            published.send(shared)
