"""What Tornado's streams do for a small frame, without what only large ones need.

While a connection waits for its next frame, an event that finds a whole one on the
socket wakes the task inside the event.  Everything else that ``recv()`` gives is handed
to the stream's own reading, which sees it as if it had come from the socket just then:
what is cut, what is large, control frames, errors, and the end.  What ``send()`` does
not take, and its errors, go to the stream's own writing in the same way.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["READ", "is_idle", "next_frame", "stop_waiting", "write"]

READ = 1  # of tornado.ioloop.IOLoop

AT_ONCE = 16384
"""How long a frame may be that is not copied into the stream's buffer first."""


def frame_end(data: bytes, limit: int) -> int:
    """Return where a message of one frame ends, or 0 when there is no such frame.

    Args:
        data: What was received.
        limit: Largest message that is allowed.
    """
    size = len(data)
    if size < 2 or data[0] not in (0x81, 0x82):
        return 0
    second = data[1]
    length = second & 0x7F
    end = 2
    if length > 125:
        if length == 127 or size < 4:
            return 0
        length = data[2] << 8 | data[3]
        end = 4
    if second & 0x80:
        end += 4
    end += length
    return end if end <= size and length <= limit else 0


def is_idle(protocol: Any, stream: Any) -> bool:
    """Whether the next frame may be had from ``next_frame()``."""
    return (
        stream._read_buffer_size == 0
        and stream._read_future is None
        and not stream._closed
        and protocol._fragmented_message_buffer is None
    )


def next_frame(protocol: Any, stream: Any) -> Any:
    """Return bytes and where the frame in them ends, or an awaitable.

    What is awaited gives the same, or bytes alone: those are the first two of a frame
    that the stream has to read.  What follows a frame is in the stream's buffer.

    Args:
        protocol: A ``WebSocketProtocol13``.
        stream: Its ``IOStream``, of which ``is_idle()`` is true.
    """
    limit = protocol.params.max_message_size
    # A read of the stream would try the socket at once, too.
    try:
        data = stream.socket.recv(stream.read_chunk_size)
    except BlockingIOError:
        return wait(stream, limit)
    except OSError as exc:
        stream.read_from_fd = given(stream, b"", exc)
        return stream.read_bytes(2)
    end = frame_end(data, limit)
    if not end:
        stream.read_from_fd = given(stream, data)
        return stream.read_bytes(2)
    if end < len(data):
        keep(stream, data, end)
    else:
        stream._maybe_add_error_listener()
    return data, end


def wait(stream: Any, limit: int) -> asyncio.Future[Any]:
    """Return what a frame is waited for on; have the next event look for one.

    Args:
        stream: A stream whose socket has nothing.
        limit: Largest message that is allowed.
    """
    # The read that the host would have pending: closing the stream fails it, and the
    # stream's own reading fulfils it.
    reading: asyncio.Future[Any] = asyncio.Future()

    def handle_read() -> None:
        if stream._read_future is not reading or stream._read_buffer_size:
            del stream._handle_read
            stream._handle_read()
            return
        try:
            data = stream.socket.recv(stream.read_chunk_size)
        except BlockingIOError:
            return
        except OSError as exc:
            stream.read_from_fd = given(stream, b"", exc)
            end = 0
        else:
            end = frame_end(data, limit)
            if not end:
                stream.read_from_fd = given(stream, data)
        del stream._handle_read
        if not end:
            stream._handle_read()
            return
        if end < len(data):
            keep(stream, data, end)
        stream._read_future = stream._read_bytes = None
        wake(reading, (data, end))

    stream._read_future = reading
    stream._read_bytes = 2
    stream._handle_read = handle_read
    stream._add_io_state(READ)
    return reading


def stop_waiting(stream: Any) -> None:
    """Have a stream's own reading back, whatever the wait has come to."""
    vars(stream).pop("_handle_read", None)


def keep(stream: Any, data: bytes, end: int) -> None:
    """Put what follows a frame into the stream's buffer."""
    stream._read_buffer += memoryview(data)[end:]
    stream._read_buffer_size += len(data) - end


def given(stream: Any, data: bytes, error: OSError | None = None) -> Any:
    """Return a ``read_from_fd`` that gives once what the socket has given.

    Args:
        stream: An ``IOStream``, which gets its own back then.
        data: What was received; empty at the end.
        error: What was raised instead.
    """

    def read_from_fd(buffer: Any) -> int:
        del stream.read_from_fd
        if error is not None:
            raise error
        # Both have the stream's read_chunk_size.
        memoryview(buffer)[: len(data)] = data
        return len(data)

    return read_from_fd


def wake(future: asyncio.Future[Any], data: Any) -> None:
    """Give a future its result, and what waits for it a turn at once.

    Args:
        future: What a task may be waiting for.
        data: The result.
    """
    if future.cancelled():
        return
    entries: Any = future._callbacks
    if not entries or len(entries) != 1 or asyncio.current_task() is not None:
        future.set_result(data)
        return
    callback, context = entries[0]

    def run() -> None:
        future.remove_done_callback(callback)
        future.set_result(data)
        callback(future)

    try:
        context.run(run)
    except RuntimeError:
        if future.done():
            raise
        # The task's context is in use: its turn has to wait.
        future.set_result(data)


def write(stream: Any, frame: bytes) -> Any:
    """Return what ``stream.write(frame)`` does.

    Args:
        stream: An ``IOStream``.
        frame: What is written, which is not empty.
    """
    if (
        stream._closed
        or stream._write_buffer
        or stream._write_futures
        or stream._connecting
        or stream.max_write_buffer_size is not None
        or len(frame) > AT_ONCE
    ):
        return stream.write(frame)
    try:
        sent = stream.socket.send(frame)
    except BlockingIOError:
        return stream.write(frame)
    except OSError as exc:
        return write_failed(stream, frame, exc)
    stream._total_write_index += sent
    stream._total_write_done_index += sent
    if sent < len(frame):
        return stream.write(frame[sent:])
    written: asyncio.Future[None] = asyncio.Future()
    written.set_result(None)
    if not (stream._state or 0) & READ:
        stream._maybe_add_error_listener()
    return written


def write_failed(stream: Any, frame: bytes, error: OSError) -> Any:
    """Have a stream write what its socket has refused already.

    Args:
        stream: An ``IOStream``.
        frame: What is written.
        error: What ``send()`` has raised, which a second one would not.
    """

    def write_to_fd(data: Any) -> int:
        del stream.write_to_fd
        raise error

    stream.write_to_fd = write_to_fd
    return stream.write(frame)
