"""Compression of messages (RFC 7692, 7.2): what the codec calls.

zlib objects are made when the first message needs them, so a connection that has not
sent or received a compressible message yet holds none, and with "no context takeover"
none between messages: there, compressors are shared.

zlib-ng does the same work in about three quarters of the time and is used where it is
installed; with many connections and small messages the caches lose that again to its
larger state. The module is looked up as the global ``zlib`` each time: assign another
one with the same functions to use it for all connections.

What comes from a peer is inflated with a limit on the output, in pieces as the frames
come, and stops there. A message must end at the end of a block; see ``_PROBE``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._optional import use_optional
from ..constants import RSV1
from ..exceptions import Failure, PayloadTooBig, fail

#: What a module has to have to take the place of zlib.
ZLIB_NAMES = ("compressobj", "decompressobj", "error", "Z_SYNC_FLUSH", "Z_FULL_FLUSH")

if TYPE_CHECKING:
    import zlib
else:
    zlib = use_optional("zlib_ng.zlib_ng", ZLIB_NAMES)
    if zlib is None:
        import zlib

__all__ = ["DeflateParameters", "DeflateTransform"]

# RFC 7692, 7.2.1: the end of a flush, which is not sent.
_TAIL = b"\x00\x00\xff\xff"

# The tail that a message lacks, and then some empty blocks. At the end of a block they
# give no output and change nothing, not even the window. Inside a block they are read
# as something else, and as there are 84 bytes of it, that gives output or an error.
_PROBE = _TAIL + 16 * (b"\x00" + _TAIL)

# Encoders that connections without context share: as many as are in use at once, which
# is one for each thread that runs a loop.
_MAX_IDLE_ENCODERS = 8

# Blocks with BFINAL=1 that one frame may have. Each costs a new zlib object.
_MAX_FINAL_BLOCKS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class DeflateParameters:
    """What was negotiated; all connections that agreed on the same share one.

    ``remote_`` is about what the peer sends, ``local_`` about what this side sends.

    Attributes:
        idle_encoders: Compressors for whole messages without context. None belongs to a
            connection: a full flush leaves nothing behind that the next message, of
            whomever, could refer to.
    """

    remote_no_context_takeover: bool
    local_no_context_takeover: bool
    remote_max_window_bits: int
    local_max_window_bits: int
    compress_settings: Mapping[str, Any]
    compress_min_size: int
    idle_encoders: list[Any] = dataclasses.field(
        default_factory=list, compare=False, repr=False
    )


class DeflateTransform:
    """Compresses and decompresses the data frames of one connection.

    Args:
        parameters: What was negotiated.
    """

    __slots__ = ("decoder", "encoder", "is_deflating", "is_inflating", "parameters")

    allowed_rsv: int = RSV1
    passes_plain: bool = True

    def __init__(self, parameters: DeflateParameters) -> None:
        self.parameters = parameters
        self.decoder: Any = None
        self.encoder: Any = None
        # Whether a compressed message is in progress: its continuations have no bit.
        self.is_inflating = False
        self.is_deflating = False

    def _new_decoder(self) -> Any:
        # A window of 9 bits instead of 8 costs nothing, and old versions of zlib
        # send with 9 what they promise to send with 8.
        return zlib.decompressobj(wbits=-max(self.parameters.remote_max_window_bits, 9))

    def _new_encoder(self) -> Any:
        parameters = self.parameters
        return zlib.compressobj(
            wbits=-parameters.local_max_window_bits, **parameters.compress_settings
        )

    def decode(
        self, opcode: int, fin: bool, rsv: int, data: bytes, max_size: int | None
    ) -> bytes:
        """Decompress the payload of a data frame, if its message is compressed.

        Args:
            opcode: Opcode; 0 for a continuation.
            fin: Whether the frame ends its message.
            rsv: Reserved bits of the frame.
            data: Payload.
            max_size: Bytes that the payload may have; ``None`` for any number.

        Raises:
            PayloadTooBig: If there would be more than ``max_size``.
            ProtocolError: If the data is not what the RFC wants.
        """
        if opcode:
            self.is_inflating = rsv & RSV1 != 0 and not fin
            if not rsv & RSV1:
                return _passed(data, max_size)
            if fin and not data:
                # Should be a zero byte, but what it means is clear.
                return data
        elif rsv & RSV1:
            raise fail(Failure.DEFLATE, reason="RSV1 is set on a continuation frame")
        elif not self.is_inflating:
            return _passed(data, max_size)
        elif fin:
            self.is_inflating = False

        decoder = self.decoder
        if decoder is None:
            decoder = self.decoder = self._new_decoder()
        try:
            output: bytes = decoder.decompress(data, _most(max_size))
            if decoder.eof:
                output = self._decode_final(output, fin, max_size)
                decoder = self.decoder
            if max_size is not None and len(output) > max_size:
                self.decoder = None
                raise PayloadTooBig(None, max_size)
            if fin:
                if decoder.decompress(_PROBE, 1) or decoder.eof:
                    raise fail(Failure.DEFLATE, reason="message ends inside a block")
                if self.parameters.remote_no_context_takeover:
                    self.decoder = None
        except zlib.error as exc:
            self.decoder = None
            reason = str(exc).rpartition(": ")[2]
            raise fail(Failure.DEFLATE, reason=reason) from exc
        return output

    def _decode_final(self, output: bytes, fin: bool, max_size: int | None) -> bytes:
        """Go on after a block with BFINAL=1 (RFC 7692, 7.2.3.4).

        zlib takes it for the end of everything and would give nothing ever after.
        """
        outputs = [output]
        size = len(output)
        for _ in range(_MAX_FINAL_BLOCKS):
            data = self.decoder.unused_data
            decoder = self.decoder = self._new_decoder()
            if not data and fin:
                # The zero byte that should follow at the end is often forgotten.
                data = b"\x00"
            left = None if max_size is None else max(max_size - size, 0)
            output = decoder.decompress(data, _most(left))
            outputs.append(output)
            size += len(output)
            if not decoder.eof or (max_size is not None and size > max_size):
                return b"".join(outputs)
        raise fail(
            Failure.DEFLATE,
            reason=f"more than {_MAX_FINAL_BLOCKS} final blocks in a frame",
        )

    def encode(self, opcode: int, fin: bool, data: bytes) -> tuple[int, bytes]:
        """Compress the payload of a data frame, if it is worth it.

        Args:
            opcode: Opcode; 0 for a continuation.
            fin: Whether the frame ends its message.
            data: Payload.

        Returns:
            Reserved bits for the frame, and its payload.
        """
        if opcode:
            if fin:
                if len(data) < self.parameters.compress_min_size:
                    return 0, data
                if self.parameters.local_no_context_takeover:
                    return self._encode_alone(data)
            self.is_deflating = not fin
            rsv = RSV1
        elif self.is_deflating:
            if fin:
                self.is_deflating = False
            rsv = 0
        else:
            return 0, data
        encoder = self.encoder
        if encoder is None:
            encoder = self.encoder = self._new_encoder()
        output: bytes = encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH)
        if fin:
            output = output[:-4]
            if self.parameters.local_no_context_takeover:
                self.encoder = None
        return rsv, output

    def _encode_alone(self, data: bytes) -> tuple[int, bytes]:
        """Compress a whole message that has no context."""
        idle = self.parameters.idle_encoders
        try:
            encoder = idle.pop()
        except IndexError:
            encoder = self._new_encoder()
        output: bytes = encoder.compress(data) + encoder.flush(zlib.Z_FULL_FLUSH)
        if len(idle) < _MAX_IDLE_ENCODERS:
            idle.append(encoder)
        if len(output) - 4 >= len(data):
            # Nothing gained, and the peer needs no context: send it plain.
            return 0, data
        return RSV1, output[:-4]


def _most(max_size: int | None) -> int:
    """Return the limit for zlib: a byte more than allowed shows the excess; 0: none."""
    return 0 if max_size is None or max_size >= sys.maxsize else max_size + 1


def _passed(data: bytes, max_size: int | None) -> bytes:
    """Let an uncompressed payload through."""
    if max_size is not None and len(data) > max_size:
        raise PayloadTooBig(len(data), max_size)
    return data
