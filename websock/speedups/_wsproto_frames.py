"""Frames of the library wsproto, read and written by the compiled kernels.

The class made here derives from the host's ``FrameProtocol`` and keeps its state in the
host's objects, so any step may be the host's: whole frames that are in order are taken
straight out of the host's buffer, and all else is read by the host's own decoder.  So
errors, their texts and codes, extensions, and parts of frames that are delivered as
they come, are the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any

from .._codec import FrameWriter
from .._kernels import apply_mask, apply_mask_inplace, decode_utf8

__all__ = ["build", "make_frame_protocol", "make_masker"]

MAX_CONTROL = 125

# Opcodes that begin or continue messages are below it.
FIRST_CONTROL = 8

build = {True: FrameWriter(mask=True).frame, False: FrameWriter(mask=False).frame}


def make_masker(slow: Any) -> type:
    """Return a faster ``XorMaskerSimple``.

    Args:
        slow: The host's own class.
    """

    class XorMaskerSimple(slow):  # type: ignore[misc]
        _masking_key: Any

        def process(self, data: Any) -> Any:
            key = self._masking_key
            if len(key) != 4:
                return super().process(data)
            data = bytearray(data)
            if data:
                apply_mask_inplace(data, key)
                turn = len(data) % 4
                if turn:
                    self._masking_key = key[turn:] + key[:turn]
            return data

    copy_names(XorMaskerSimple, slow)
    return XorMaskerSimple


def make_frame_protocol(host: ModuleType, slow: Any) -> type:
    """Return a faster ``FrameProtocol``.

    Args:
        host: The module ``wsproto.frame_protocol``.
        slow: The host's own class.
    """
    module: Any = host
    opcodes = module.Opcode
    frame_of = module.Frame
    take = make_take(module)

    class FrameProtocol(slow):  # type: ignore[misc]
        extensions: Any

        def _parse_more_gen(self) -> Generator[Any, None, None]:
            self.extensions = [ext for ext in self.extensions if ext.enabled()]
            decoder = self._frame_decoder
            messages = self._message_decoder
            while True:
                if decoder.extensions:
                    frame = decoder.process_buffer()
                else:
                    frame = take(decoder, self.client)
                if frame is None:
                    yield None
                    continue
                opcode = frame.opcode
                if opcode >= opcodes.CLOSE:
                    if opcode is opcodes.CLOSE:
                        yield self._process_close(frame)
                        return
                    yield frame
                elif (
                    messages.opcode is None
                    and frame.frame_finished
                    and frame.message_finished
                    and opcode is not opcodes.CONTINUATION
                ):
                    if opcode is opcodes.TEXT:
                        try:
                            text = decode_utf8(frame.payload)
                        except UnicodeDecodeError:
                            text = None
                        if text is None:
                            frame = messages.process_frame(frame)  # raises
                        else:
                            frame = frame_of(opcode, text, True, True)
                    yield frame
                else:
                    yield messages.process_frame(frame)

        def received_frames(self) -> Any:
            if self._held is None:
                return iter(self._parse_more.__next__, None)
            return self._held_and_others()

        # What events() has taken, and cannot handle: a frame, or an exception.
        _held: Any = None

        def _held_and_others(self) -> Generator[Any, None, None]:
            held, self._held = self._held, None
            if isinstance(held, Exception):
                raise held
            yield held
            yield from super().received_frames()

        def _serialize_frame(
            self, opcode: Any, payload: Any = b"", fin: bool = True
        ) -> bytearray:
            kind = type(payload)
            if (
                self.extensions
                or (kind is not bytes and kind is not bytearray)
                or (opcode >= opcodes.CLOSE and (len(payload) > MAX_CONTROL or not fin))
            ):
                frame: bytearray = super()._serialize_frame(opcode, payload, fin)
                return frame
            return bytearray(build[bool(self.client)](opcode, payload, fin))

    copy_names(FrameProtocol, slow)
    return FrameProtocol


def make_take(host: Any) -> Callable[[Any, bool], Any]:
    """Return a function that takes a frame, or a part of it, out of a decoder's buffer.

    Args:
        host: The module ``wsproto.frame_protocol``.
    """
    frame_of = host.Frame
    # By the first byte: which frames are in order, whatever comes next.
    kinds = {int(opcode) | 0x80: opcode for opcode in host.Opcode}
    kinds.update(
        {int(opcode): opcode for opcode in host.Opcode if not opcode.iscontrol()}
    )
    continuation = host.Opcode.CONTINUATION
    no_mask = host.XorMaskerNull

    def take(decoder: Any, is_client: bool) -> Any:
        """Return the next frame, or ``None`` when more bytes are needed."""
        if decoder.header is not None:
            return take_part(decoder)
        buffer = decoder.buffer.buffer
        size = len(buffer)
        if size < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode = kinds.get(first)
        length = second & 0x7F
        if opcode is None or (second >= 0x80) is bool(is_client) or length == 127:
            return decoder.process_buffer()
        at = 2
        if length == 126:
            at = 4
            length = buffer[2] << 8 | buffer[3] if size >= 4 else 0
            if length <= MAX_CONTROL or opcode >= FIRST_CONTROL:
                return decoder.process_buffer()
        start = at if is_client else at + 4
        end = start + length
        if size < end:
            return take_part(decoder) if decoder.parse_header() else None
        payload = bytes(buffer[start:end])
        if not is_client:
            payload = apply_mask(payload, buffer[at:start])
        del buffer[:end]
        return frame_of(opcode, payload, True, first >= 0x80)

    def take_part(decoder: Any) -> Any:
        """Return what is there of the frame whose header was read."""
        header, masker = decoder.header, decoder.masker
        buffer = decoder.buffer.buffer
        left = header.payload_len - decoder.payload_consumed
        size = min(len(buffer), left)
        if size < decoder.payload_required or not size:
            return decoder.process_buffer()
        with memoryview(buffer) as whole, whole[:size] as view:
            if type(masker) is no_mask:
                payload = bytes(view)
            else:
                key = masker._masking_key
                payload = apply_mask(view, key)
                masker._masking_key = key[size % 4 :] + key[: size % 4]
        del buffer[:size]
        decoder.payload_consumed += size
        frame = frame_of(decoder.effective_opcode, payload, size == left, header.fin)
        if size == left:
            decoder.header = decoder.effective_opcode = decoder.masker = None
        else:
            decoder.effective_opcode = continuation
        return frame

    return take


def copy_names(made: Any, slow: Any) -> None:
    """Give a class that is made here the names that its host's has."""
    made.__module__ = slow.__module__
    made.__qualname__ = slow.__qualname__
    made.__doc__ = slow.__doc__
