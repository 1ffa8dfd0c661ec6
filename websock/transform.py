"""What the codec calls when extensions were negotiated.

One object, on plain integers and bytes, for data frames only: control frames never
reach an extension. permessage-deflate alone, the usual case, is called directly; other
extensions, or several, go through :class:`ExtensionChain`, which wraps every frame in a
:class:`~websock.frames.Frame`.

An extension that wants to be called directly has an attribute ``transform``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from .constants import CLOSE_INTERNAL_ERROR, RSV1, RSV2, RSV3
from .exceptions import PayloadTooBig, ProtocolError
from .extensions.base import Extension
from .frames import Frame, Opcode

__all__ = ["ExtensionChain", "Transform", "make_transform"]


class Transform(Protocol):
    """What the codec needs to know of extensions."""

    @property
    def allowed_rsv(self) -> int:
        """Reserved bits that data frames from the peer may have."""

    @property
    def passes_plain(self) -> bool:
        """Whether messages without reserved bits need no decoding.

        If so, ``decode()`` is not called for them, and the codec can handle their
        payload while it arrives.
        """

    def decode(
        self, opcode: int, fin: bool, rsv: int, data: bytes, max_size: int | None
    ) -> bytes:
        """Decode the payload of a data frame.

        Called for each data frame in order.

        Args:
            opcode: Opcode; 0 for a continuation.
            fin: Whether the frame ends its message.
            rsv: Reserved bits of the frame, where byte 0 has them.
            data: Payload.
            max_size: Bytes that are still allowed for this message.

        Raises:
            PayloadTooBig: If there would be more than ``max_size``.
            ProtocolError: If the payload cannot be decoded.
        """

    def encode(self, opcode: int, fin: bool, data: bytes) -> tuple[int, bytes]:
        """Encode the payload of a data frame.

        Args:
            opcode: Opcode; 0 for a continuation.
            fin: Whether the frame ends its message.
            data: Payload.

        Returns:
            Reserved bits for the frame, and its payload.
        """


def make_transform(extensions: Sequence[Extension]) -> Transform | None:
    """Make the transform of a connection.

    Args:
        extensions: The extensions of the connection, in the order they were accepted.

    Returns:
        The transform; ``None`` without extensions.
    """
    if not extensions:
        return None
    if len(extensions) == 1:
        transform = getattr(extensions[0], "transform", None)
        if transform is not None:
            return cast(Transform, transform)
    return ExtensionChain(extensions)


class ExtensionChain:
    """Calls extensions on frames.

    Frames for the peer go through them in order, frames from the peer in reverse.

    Args:
        extensions: The extensions.
    """

    __slots__ = ("_extensions", "allowed_rsv")

    passes_plain: bool = False

    def __init__(self, extensions: Sequence[Extension]) -> None:
        self._extensions = tuple(extensions)
        self.allowed_rsv = 0
        for extension in extensions:
            self.allowed_rsv |= extension.rsv

    def decode(
        self, opcode: int, fin: bool, rsv: int, data: bytes, max_size: int | None
    ) -> bytes:
        """Decode the payload of a data frame; see :meth:`Transform.decode`."""
        frame = Frame(
            Opcode(opcode),
            data,
            fin,
            rsv & RSV1 != 0,
            rsv & RSV2 != 0,
            rsv & RSV3 != 0,
        )
        for extension in reversed(self._extensions):
            frame = extension.decode(frame, max_size=max_size)
        _check_same(frame, opcode, fin)
        frame.check()
        if max_size is not None and len(frame.data) > max_size:
            raise PayloadTooBig(len(frame.data), max_size)
        return bytes(frame.data)

    def encode(self, opcode: int, fin: bool, data: bytes) -> tuple[int, bytes]:
        """Encode the payload of a data frame; see :meth:`Transform.encode`."""
        frame = Frame(Opcode(opcode), data, fin)
        for extension in self._extensions:
            frame = extension.encode(frame)
        _check_same(frame, opcode, fin)
        rsv = (
            (RSV1 if frame.rsv1 else 0)
            | (RSV2 if frame.rsv2 else 0)
            | (RSV3 if frame.rsv3 else 0)
        )
        return rsv, bytes(frame.data)


def _check_same(frame: Frame, opcode: int, fin: bool) -> None:
    if frame.opcode != opcode or frame.fin != fin:
        raise ProtocolError(
            "an extension changed the opcode or the end of a message",
            code=CLOSE_INTERNAL_ERROR,
        )
