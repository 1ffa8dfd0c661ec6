"""Messages that are framed and compressed once, and sent many times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._kernels import apply_mask, build_header, random_mask
from .constants import OP_BINARY, OP_TEXT
from .extensions.deflate import DeflateTransform
from .protocol import CLIENT
from .typing import DataLike

if TYPE_CHECKING:
    from .protocol import Protocol

__all__ = ["PreparedMessage", "prepare"]


def prepare(
    message: DataLike, *, text: bool | None = None, compress: bool = True
) -> PreparedMessage:
    """Prepare a message that is sent to many connections, or many times.

    ::

        message = websock.prepare(json.dumps(state))
        for ws in connections:
            ws.send_nowait(message)

    What ``send()``, ``send_nowait()`` and ``broadcast()`` then do for each connection
    is to write the frame.  It is built once, and compressed once for each set of
    parameters of permessage-deflate without context takeover.  Connections whose
    compression refers to their earlier messages compress it each for itself, and
    clients mask it each time (RFC 6455, 5.3).

    Args:
        message: ``str`` goes out as text, bytes-like as binary; a copy is kept.
        text: ``True`` or ``False`` forces a text or a binary frame.
        compress: Whether it may be compressed: ``False`` is for what is compressed
            already.

    Raises:
        TypeError: When ``message`` is neither ``str`` nor bytes-like.
        UnicodeEncodeError: When it has lone surrogates.
    """
    if isinstance(message, str):
        opcode, payload = OP_BINARY if text is False else OP_TEXT, message.encode()
    elif isinstance(message, (bytes, bytearray, memoryview)):
        opcode, payload = OP_TEXT if text else OP_BINARY, bytes(message)
    else:
        raise TypeError(
            f"message must be str or bytes-like, not {type(message).__name__}"
        )
    return PreparedMessage(opcode, payload, compress)


class PreparedMessage:
    """What :func:`prepare` makes.

    Attributes:
        opcode: 1 for text, 2 for binary.
        payload: Payload before compression.
        compress: Whether it may be compressed.

    Memory: the payload; the frame; and a payload for each set of parameters of
    compression that it was sent with.
    """

    __slots__ = ("_compressed", "_frame", "compress", "opcode", "payload")

    def __init__(self, opcode: int, payload: bytes, compress: bool = True) -> None:
        self.opcode = opcode
        self.payload = payload
        self.compress = compress
        self._frame: bytes | None = None
        self._compressed: dict[Any, tuple[int, bytes]] = {}

    def __repr__(self) -> str:
        kind = "text" if self.opcode == OP_TEXT else "binary"
        return f"<PreparedMessage {kind}, {len(self.payload)} bytes>"

    def frame(self) -> bytes:
        """Return the frame that is neither masked nor compressed."""
        if self._frame is None:
            header = build_header(self.opcode, len(self.payload))
            self._frame = header + self.payload
        return self._frame

    def frame_for(self, protocol: Protocol) -> bytes:
        """Return the frame for a connection.

        Args:
            protocol: The protocol of the connection.
        """
        transform = protocol.transform
        rsv, payload = 0, self.payload
        if isinstance(transform, DeflateTransform):
            if self.compress:
                rsv, payload = self._deflate(transform)
        elif transform is not None:
            rsv, payload = transform.encode(self.opcode, True, payload)
        if protocol.side is CLIENT:
            mask = random_mask()
            header = build_header(self.opcode, len(payload), rsv=rsv, mask=mask)
            return header + apply_mask(payload, mask)
        if payload is self.payload:
            return self.frame()
        return build_header(self.opcode, len(payload), rsv=rsv) + payload

    def _deflate(self, transform: DeflateTransform) -> tuple[int, bytes]:
        parameters = transform.parameters
        if not parameters.local_no_context_takeover:
            return transform.encode(self.opcode, True, self.payload)
        key = (
            parameters.local_max_window_bits,
            parameters.compress_min_size,
            tuple(sorted(parameters.compress_settings.items())),
        )
        found = self._compressed.get(key)
        if found is None:
            found = transform.encode(self.opcode, True, self.payload)
            self._compressed[key] = found
        return found
