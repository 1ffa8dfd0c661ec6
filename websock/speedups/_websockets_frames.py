"""Frames of the library websockets, read and written by the compiled kernels.

What is made here takes the place of ``Protocol.parse()`` and ``Frame.serialize()``,
below everything that the library does with a connection: its threads, asyncio and trio
APIs, and the servers that use its sans-IO protocol, have the same frames.

The parser takes frames that are complete and in order straight out of the host's
buffer.  What it does not want to judge, which are bad headers and the end of the
stream, it leaves in the buffer for the host's own parser; an exception on the way goes
into the host's parser, too.  So texts, close codes and log lines are the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any

from .._codec import FrameWriter
from .._kernels import apply_mask, build_header, random_mask

__all__ = ["make_apply_mask", "make_parse", "make_sender", "make_serialize"]

# Opcodes that begin or continue messages are below it.
FIRST_CONTROL = 8

# Copies of a payload that cost more than a view of it.
LARGE = 4096

build = {True: FrameWriter(mask=True).frame, False: FrameWriter(mask=False).frame}


def make_apply_mask(slow: Callable[..., bytes]) -> Callable[..., bytes]:
    """Return a faster ``apply_mask()``.

    Args:
        slow: The host's own, which judges arguments that are out of the ordinary.
    """

    def apply_mask_(data: Any, mask: Any) -> bytes:
        try:
            return apply_mask(data, mask)
        except (BufferError, TypeError, ValueError):
            pass
        return slow(data, mask)

    apply_mask_.__name__ = apply_mask_.__qualname__ = "apply_mask"
    apply_mask_.__doc__ = slow.__doc__
    return apply_mask_


def is_plain(data: Any) -> bool:
    """Whether the length of ``data`` is its bytes, which are in one piece."""
    kind = type(data)
    if kind is bytes or kind is bytearray:
        return True
    if kind is not memoryview or data.ndim != 1:
        return False
    return bool(data.c_contiguous and data.format == "B")


def make_serialize(
    frames: ModuleType, slow: Callable[..., bytes]
) -> Callable[..., bytes]:
    """Return a faster ``Frame.serialize()``.

    Args:
        frames: The module ``websockets.frames``.
        slow: The host's own ``serialize()``.
    """
    known = frames.__name__.partition(".")[0] + ".extensions.permessage_deflate"

    def serialize(self: Any, *, mask: bool, extensions: Any = None) -> bytes:
        if not is_plain(self.data):
            return slow(self, mask=mask, extensions=extensions)
        if extensions:
            for extension in extensions:
                # Others may return data that is not in one piece.
                if type(extension).__module__ != known:
                    return slow(self, mask=mask, extensions=extensions)
        if self.opcode >= FIRST_CONTROL or self.rsv1 or self.rsv2 or self.rsv3:
            self.check()
        if extensions:
            for extension in extensions:
                self = extension.encode(self)
        rsv = (self.rsv1 and 0x40) | (self.rsv2 and 0x20) | (self.rsv3 and 0x10)
        if not rsv:
            return build[bool(mask)](self.opcode, self.data, self.fin)
        data = self.data
        size = len(data)
        if not mask:
            header = build_header(self.opcode, size, fin=self.fin, rsv=rsv)
            return b"".join((header, data))
        key = random_mask()
        header = build_header(self.opcode, size, fin=self.fin, rsv=rsv, mask=key)
        return header + apply_mask(data, key)

    serialize.__doc__ = slow.__doc__
    return serialize


def make_sender(protocol: ModuleType, opcode: int, slow: Any) -> Callable[..., None]:
    """Return a faster ``Protocol.send_text()`` or ``send_binary()``.

    Args:
        protocol: The module ``websockets.protocol``.
        opcode: What it sends.
        slow: The host's own method, for all that is not a plain message.
    """
    host: Any = protocol
    is_open, client = host.OPEN, host.CLIENT
    kind, send_frame = host.Protocol, host.Protocol.send_frame
    masked, unmasked = build[True], build[False]

    def send(self: Any, data: Any, fin: bool = True) -> None:
        if (
            type(data) is bytes
            and fin
            and self._state is is_open
            and not self.expect_continuation_frame
            and not self.debug
            and not self.extensions
            and (type(self) is kind or type(self).send_frame is send_frame)
        ):
            make = masked if self.side is client else unmasked
            self.writes.append(make(opcode, data))
        else:
            slow(self, data, fin)

    send.__name__ = slow.__name__
    send.__qualname__ = slow.__qualname__
    send.__doc__ = slow.__doc__
    return send


def make_parse(
    frames: ModuleType, protocol: ModuleType, slow: Any
) -> Callable[[Any], Generator[None]]:
    """Return a faster ``Protocol.parse()``.

    Args:
        frames: The module ``websockets.frames``.
        protocol: The module ``websockets.protocol``.
        slow: The host's own ``parse()``.
    """
    host: Any = protocol
    server = host.SERVER
    recv_frame = host.Protocol.recv_frame
    frame_of = frames.Frame
    opcodes = {int(opcode): opcode for opcode in frames.Opcode}

    def parse(self: Any) -> Generator[None]:
        # The last frame, as in the host's parser: with none of a large message left, C
        # libraries give its memory back to the system and ask for it again, each time.
        held: list[Any] = [None]
        while True:
            try:
                goes_on = take_frames(self, held)
            except Exception as exc:
                failure = exc
                break
            if not goes_on or self.reader.eof:
                # Its own parser has the last word.
                yield from slow(self)
            yield
        # As if the host's parser had met with it.  That one starts on another reader,
        # so that it waits for input at the place where exceptions are caught.
        reader, self.reader = self.reader, type(self.reader)()
        try:
            judge = slow(self)
            next(judge)
        finally:
            self.reader = reader
        judge.throw(failure)
        del failure, judge
        yield
        raise AssertionError("parse() goes on after a failure")

    def take_frames(self: Any, held: list[Any]) -> bool:
        """Take what is complete; return whether what is left may become a frame."""
        buffer = self.reader.buffer
        is_masked = self.side is server
        is_usual = type(self).recv_frame is recv_frame
        while True:
            size = len(buffer)
            if size < 2:
                return True
            first, second = buffer[0], buffer[1]
            opcode = opcodes.get(first & 0x0F)
            if opcode is None or (second >= 0x80) is not is_masked:
                return False
            length = second & 0x7F
            at = 2
            if length > 125:
                at = 4 if length == 126 else 10
                if size < at:
                    return True
                length = int.from_bytes(buffer[2:at], "big")
            current_size = self.current_size
            max_size = self.max_message_size
            if max_size is not None and current_size is not None:
                max_size -= current_size
            limit = self.max_fragment_size
            if limit is not None and (max_size is None or limit < max_size):
                max_size = limit
            if max_size is not None and length > max_size:
                return False
            start = at + 4 if is_masked else at
            end = start + length
            if size < end:
                return True
            data: bytes | bytearray
            if not is_masked:
                data = buffer[start:end]
            elif length < LARGE:
                data = apply_mask(buffer[start:end], buffer[at:start])
            else:
                with memoryview(buffer) as whole, whole[start:end] as view:
                    data = apply_mask(view, buffer[at:start])
            del buffer[:end]
            frame = frame_of(
                opcode,
                data,
                first >= 0x80,
                (first & 0x40) != 0,
                (first & 0x20) != 0,
                (first & 0x10) != 0,
            )
            if self.extensions:
                for extension in reversed(self.extensions):
                    frame = extension.decode(frame, max_size=max_size)
                frame.check()
            elif first & 0x78:
                frame.check()
            if self.debug:
                self.logger.debug("< %s", frame)
            if (
                first & 0x8F in (0x81, 0x82)
                and is_usual
                and current_size is None
                and not self.extensions
            ):
                self.events.append(frame)
                held[0] = frame
                continue
            parser = self.parser
            self.recv_frame(frame)
            if self.parser is not parser:
                return True  # it was a close frame: the rest is discarded

    parse.__doc__ = slow.__doc__
    return parse
