"""Masks and frames of Tornado's WebSockets on the compiled kernels.

A small message on a plain stream takes one ``recv()`` and one ``send()``; see
``_tornado_stream``.  Any other frame is read with one wait where it used to take one
for each of its parts: what the stream holds already is taken from it at once, as its
own ``read_bytes()`` would.
"""

from __future__ import annotations

import asyncio
import os
import sys
from types import ModuleType
from typing import Any

from .._codec import FrameWriter
from .._kernels import apply_mask, build_header
from ._patch import Patch
from ._tornado_stream import READ, is_idle, next_frame, stop_waiting, write

__all__ = ["PATCH"]

AT_ONCE = 32
"""How many messages are written at once before the loop gets a turn."""

STREAM_METHODS = (
    "_add_io_state",
    "_consume",
    "_handle_read",
    "_maybe_add_error_listener",
    "read_bytes",
    "read_from_fd",
    "write_to_fd",
)

_urandom = os.urandom
_plain = FrameWriter(mask=False)
_masked = FrameWriter(mask=True)


def fast_mask(original: Any) -> Any:
    """Return ``_websocket_mask``."""

    def _websocket_mask(mask: Any, data: Any) -> Any:
        if type(mask) is bytes and len(mask) == 4 and type(data) is bytes:
            return apply_mask(data, mask)
        return original(mask, data)

    return _websocket_mask


def fast_write_frame(original: Any, kind: Any, plain: Any) -> Any:
    """Return ``WebSocketProtocol13._write_frame``."""

    def _write_frame(
        self: Any, fin: Any, opcode: Any, data: Any, flags: Any = 0
    ) -> Any:
        if (
            type(self) is not kind
            or type(data) is not bytes
            or opcode not in (1, 2, 0, 8, 9, 10)
            or (opcode > 7 and (not fin or len(data) > 125))
            or flags not in (0, 0x40)
            or os.urandom is not _urandom
        ):
            return original(self, fin, opcode, data, flags)
        if flags and self.mask_outgoing:
            mask = os.urandom(4)
            frame = build_header(
                opcode, len(data), fin=bool(fin), rsv=flags, mask=mask
            ) + apply_mask(data, mask)
        elif flags:
            frame = build_header(opcode, len(data), fin=bool(fin), rsv=flags) + data
        else:
            writer = _masked if self.mask_outgoing else _plain
            frame = writer.frame(opcode, data, bool(fin))
        self._wire_bytes_out += len(frame)
        stream = self.stream
        if type(stream) is plain:
            return write(stream, frame)
        return stream.write(frame)

    return _write_frame


def fast_receive_frame(original: Any, kind: Any, streams: tuple[Any, ...]) -> Any:
    """Return ``WebSocketProtocol13._receive_frame``."""
    plain = streams[0]

    def handle(self: Any, data: bytes, end: int) -> Any:
        """Handle a message that is one frame."""
        self._wire_bytes_in += end
        if self._decompressor is not None:
            self._frame_compressed = False
        second = data[1]
        length = second & 0x7F
        begin = 2
        if length < 126:
            self._frame_length = length
        else:
            begin = 4
        if not second & 0x80:
            return self._handle_message(data[0] & 0x0F, data[begin:end])
        mask = self._frame_mask = data[begin : begin + 4]
        payload = apply_mask(data[begin + 4 : end], mask)
        return self._handle_message(data[0] & 0x0F, payload)

    async def _receive_frame(self: Any) -> None:
        stream = self.stream
        if type(self) is not kind or type(stream) not in streams:
            await original(self)
            return
        head = None
        if type(stream) is plain and is_idle(self, stream):
            found = next_frame(self, stream)
            if type(found) is not tuple:
                try:
                    found = await found
                finally:
                    stop_waiting(stream)
            if type(found) is tuple:
                handled = handle(self, *found)
                if handled is not None:
                    await handled
                return
            head = found
            self._wire_bytes_in += 2

        async def read(size: int) -> Any:
            data = await stream.read_bytes(size)
            self._wire_bytes_in += size
            return data

        def take(size: int) -> Any:
            """Return bytes that the stream has; None when it has not that many."""
            if stream._read_buffer_size < size or stream._read_future is not None:
                return None
            data = stream._consume(size)
            stream._maybe_add_error_listener()
            self._wire_bytes_in += size
            return data

        if head is None:
            head = take(2) or await read(2)
        first, second = head
        fin = first & 0x80
        rsv = first & 0x70
        opcode = first & 0x0F
        if self._decompressor is not None and opcode:
            # Whether a message is compressed is said by its first frame.
            self._frame_compressed = bool(rsv & 0x40)
            rsv &= 0x30
        length = second & 0x7F
        is_control = opcode > 7
        if rsv or (is_control and length > 125):
            self._abort()
            return
        if length < 126:
            self._frame_length = length
        else:
            size = 2 if length == 126 else 8
            length = int.from_bytes(take(size) or await read(size), "big")
        whole = length
        if self._fragmented_message_buffer is not None:
            whole += len(self._fragmented_message_buffer)
        if whole > self.params.max_message_size:
            self.close(1009, "message too big")
            self._abort()
            return
        if not second & 0x80:
            data = take(length)
            if data is None:
                data = await read(length)
        elif (masked := take(4 + length)) is not None:
            self._frame_mask = masked[:4]
            data = apply_mask(memoryview(masked)[4:], masked[:4])
        else:
            self._frame_mask = take(4) or await read(4)
            data = apply_mask(await read(length), self._frame_mask)

        if is_control:
            if not fin:
                self._abort()
                return
        elif opcode == 0:
            if self._fragmented_message_buffer is None:
                self._abort()
                return
            self._fragmented_message_buffer.extend(data)
            if fin:
                opcode = self._fragmented_message_opcode
                data = bytes(self._fragmented_message_buffer)
                self._fragmented_message_buffer = None
        else:
            if self._fragmented_message_buffer is not None:
                self._abort()
                return
            if not fin:
                self._fragmented_message_opcode = opcode
                self._fragmented_message_buffer = bytearray(data)
        if fin:
            handled = self._handle_message(opcode, data)
            if handled is not None:
                await handled

    return _receive_frame


def fast_write_message(original: Any, kind: Any, websocket: ModuleType) -> Any:
    """Return ``WebSocketProtocol13.write_message``.

    What is written at once needs no task to wait for it: the stream's own future is
    done.  A program that sends in a loop gives way to others every so often.
    """
    lost: Any = websocket.StreamClosedError
    closed: Any = websocket.WebSocketClosedError
    utf8: Any = websocket.tornado.escape.utf8

    def write_message(self: Any, message: Any, binary: Any = False) -> Any:
        if (
            type(self) is not kind
            or type(message) not in (str, bytes)
            or self._compressor is not None
        ):
            return original(self, message, binary)
        data = utf8(message)
        self._message_bytes_out += len(data)
        try:
            written = self._write_frame(True, 2 if binary else 1, data)
        except lost:
            raise closed()  # noqa: B904  # as the host raises it
        at_once = vars(self).get("_websock_at_once", 0) + 1
        if (
            at_once < AT_ONCE
            and written.done()
            and not written.cancelled()
            and written.exception() is None
        ):
            self._websock_at_once = at_once
            return written
        self._websock_at_once = 0

        async def wait() -> None:
            try:
                await written
            except lost:
                raise closed()  # noqa: B904  # as the host raises it

        return asyncio.ensure_future(wait())

    return write_message


def fast_run_callback(original: Any, kind: Any) -> Any:
    """Return ``WebSocketProtocol13._run_callback``: one turn of the loop less."""

    def _run_callback(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if type(self) is not kind:
            return original(self, callback, *args, **kwargs)
        try:
            result = callback(*args, **kwargs)
        except (Exception, asyncio.CancelledError):
            self.handler.log_exception(*sys.exc_info())
            self._abort()
            return None
        if result is None:
            return None
        if not asyncio.iscoroutine(result):
            return original(self, lambda: result)
        over: asyncio.Future[None] = asyncio.Future()
        loop = self.stream.io_loop

        async def run() -> None:
            try:
                await result
            except (Exception, asyncio.CancelledError):
                self.handler.log_exception(*sys.exc_info())
                self._abort()
            finally:
                loop._unregister_task(task)
            if not over.cancelled():
                over.set_result(None)

        task = asyncio.get_running_loop().create_task(run())
        # A task that waits is kept by Tornado alone.
        loop._register_task(task)
        return over

    return _run_callback


class TornadoPatch(Patch):
    """Replaces masks, and the reading and writing of frames."""

    host = "tornado"
    modules = ("tornado.websocket", "tornado.iostream")
    versions = ("6.6", "6.7")
    gain = "masks and frames are compiled"

    def self_test(self) -> None:
        """Compare what is compiled with what the host does."""
        websocket = self.module("tornado.websocket")
        iostream = self.module("tornado.iostream")
        mask = fast_mask(websocket._websocket_mask)
        key = b"\x01\x80\xff\x00"
        for data in (b"", b"a", b"abcde", bytes(range(256))):
            if mask(key, data) != websocket._websocket_mask(key, data):
                raise ValueError("masks are not what they were")
        for name in STREAM_METHODS:
            if not callable(getattr(iostream.IOStream, name, None)):
                raise ValueError(f"a stream has no {name}()")
        loop = iostream.ioloop.IOLoop
        if loop.READ != READ or not callable(getattr(loop, "_register_task", None)):
            raise ValueError("a loop is not what it was")
        kind: Any = websocket.WebSocketProtocol13
        write_frame = fast_write_frame(kind._write_frame, kind, iostream.IOStream)
        for opcode, flags in ((1, 0), (2, 0x40), (8, 0)):
            for size in (0, 125, 126, 65536):
                if opcode == 8 and size > 125:
                    continue
                want = self.written(kind._write_frame, opcode, size, flags)
                if self.written(write_frame, opcode, size, flags) != want:
                    raise ValueError("a frame is not written as it was")

    def written(self, write: Any, opcode: int, size: int, flags: int) -> bytes:
        """Return what a function writes to a stream."""
        kind: Any = self.module("tornado.websocket").WebSocketProtocol13
        protocol = kind.__new__(kind)
        protocol.mask_outgoing = False
        protocol._wire_bytes_out = 0
        protocol.stream = Written()
        write(protocol, True, opcode, bytes(size), flags)
        if protocol._wire_bytes_out != len(protocol.stream.data):
            raise ValueError("the bytes of a frame are not counted")
        return bytes(protocol.stream.data)

    def apply(self) -> None:
        """Replace them."""
        websocket = self.module("tornado.websocket")
        iostream = self.module("tornado.iostream")
        kind: Any = websocket.WebSocketProtocol13
        streams = (iostream.IOStream, iostream.SSLIOStream)
        mask = fast_mask(websocket._websocket_mask)
        write_frame = fast_write_frame(kind._write_frame, kind, streams[0])
        receive_frame = fast_receive_frame(kind._receive_frame, kind, streams)
        self.replace(websocket, "_websocket_mask", mask)
        self.replace(kind, "_write_frame", write_frame)
        self.replace(kind, "_receive_frame", receive_frame)
        write_message = fast_write_message(kind.write_message, kind, websocket)
        self.replace(kind, "write_message", write_message)
        # The method is inherited: it is put into the class itself.
        run_callback = fast_run_callback(kind._run_callback, kind)
        self.replace(kind, "_run_callback", run_callback)


class Written:
    """A stream that keeps what is written to it."""

    data = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.data += data


PATCH = TornadoPatch
