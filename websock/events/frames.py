"""Frames one by one, for programs that put messages together themselves.

The reader of a connection can leave fragments as they are; then the queue has their
payload and whether they end a message, and not whether it is text.  Opcodes are noted
where extensions look at frames, one for each item of the queue and in the same order.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..frames import Frame, Opcode
from ..transform import Transform

__all__ = ["FrameTap"]


class FrameTap:
    """Notes the opcodes of incoming frames; passes them on to the extensions.

    Attributes:
        inner: What extensions do, if there are any.
        opcodes: Opcodes of frames that were not taken yet.
    """

    __slots__ = ("inner", "opcodes")

    passes_plain: bool = False

    def __init__(self) -> None:
        self.inner: Transform | None = None
        self.opcodes: deque[int] = deque()

    @property
    def allowed_rsv(self) -> int:
        """Reserved bits that data frames from the peer may have."""
        return 0 if self.inner is None else self.inner.allowed_rsv

    def decode(
        self, opcode: int, fin: bool, rsv: int, data: bytes, max_size: int | None
    ) -> bytes:
        """Note the opcode and decode the payload."""
        if self.inner is not None:
            data = self.inner.decode(opcode, fin, rsv, data, max_size)
        self.opcodes.append(opcode)
        return data

    def encode(self, opcode: int, fin: bool, data: bytes) -> tuple[int, bytes]:
        """Encode the payload of a data frame."""
        return (0, data) if self.inner is None else self.inner.encode(opcode, fin, data)

    def take(self, item: Any) -> Frame:
        """Make a frame of the next item of the queue."""
        payload, fin, _ = item
        return Frame(Opcode(self.opcodes.popleft()), payload, bool(fin))
