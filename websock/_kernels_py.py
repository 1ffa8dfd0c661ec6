"""Kernels in pure Python: masking, frame headers, UTF-8.

Pure functions on bytes, which know nothing of messages or connections.  They are
what an installation without a C compiler runs, and the specification of
``_kernels_c``: results, errors and texts are the same.

``data`` is any contiguous bytes-like object.  It is borrowed for the length of the
call, and never kept.
"""

from __future__ import annotations

import codecs
import os

from .exceptions import Failure, fail
from .frames import FrameHeader
from .typing import BytesLike

__all__ = [
    "KERNEL",
    "Utf8Validator",
    "apply_mask",
    "apply_mask_inplace",
    "build_header",
    "decode_utf8",
    "kernels",
    "parse_header",
    "random_mask",
    "select_kernel",
]

#: Name of the variant in use.
KERNEL = "python"

POOL_SIZE = 4096
MAX_HEADER_SIZE = 14


def kernels() -> tuple[str, ...]:
    """Return the names of the variants that can run here, slowest first."""
    return ("python",)


def select_kernel(name: str) -> None:
    """Use another variant of the kernels, for tests and benchmarks.

    Users set ``WEBSOCK_KERNEL`` instead: what was imported before keeps the variant
    that it found.

    Raises:
        ValueError: When no variant of this name can run here.
    """
    if name not in kernels():
        raise ValueError(
            f"unknown kernel: {name!r}, usable here: {', '.join(kernels())}"
        )


def apply_mask(data: BytesLike, mask: BytesLike, phase: int = 0) -> bytes:
    """Return ``data`` masked; masking twice gives it back (RFC 6455, 5.3).

    Args:
        data: Bytes of a payload.
        mask: The masking key, 4 bytes.
        phase: How many bytes of the payload came before ``data``; only the
            remainder of a division by 4 matters.

    Raises:
        ValueError: When ``mask`` is not 4 bytes long.
    """
    key = _turned(mask, phase)
    with _view(data) as view:
        n = len(view)
        number = int.from_bytes(view, "little")
    keys = key * (n // 4) + key[: n % 4]
    # Big integers XOR many bytes in one step.
    return (number ^ int.from_bytes(keys, "little")).to_bytes(n, "little")


def apply_mask_inplace(
    data: bytearray | memoryview, mask: BytesLike, phase: int = 0
) -> None:
    """Mask ``data`` where it is; see :func:`apply_mask`.

    Raises:
        BufferError: When ``data`` is read-only.
        ValueError: When ``mask`` is not 4 bytes long.
    """
    masked = apply_mask(data, mask, phase)
    with memoryview(data) as view:
        if view.readonly:
            raise BufferError("Object is not writable.")
    if masked:
        with _view(data) as view:
            view[:] = masked


def _view(data: BytesLike) -> memoryview:
    """Return the bytes of ``data``, for a ``with`` statement.

    It is released there and not with the frame, which debuggers and profilers may
    keep, or when PyPy collects garbage: until then a bytearray could not be resized.
    """
    with memoryview(data) as view:
        if not view.c_contiguous:
            raise BufferError("memoryview: underlying buffer is not C-contiguous")
        return view.cast("B") if view.nbytes else memoryview(b"")


def _turned(mask: BytesLike, phase: int) -> bytes:
    with _view(mask) as view:
        key = bytes(view)
    if len(key) != 4:
        raise ValueError(f"mask is {len(key)} bytes long, not 4 (RFC 6455, 5.3)")
    return key[phase & 3 :] + key[: phase & 3]


_masks: list[bytes] = []  # pop() and extend() are atomic, so threads may share it


def random_mask() -> bytes:
    """Return 4 bytes from the operating system's random source.

    They are taken from a pool, because asking for 4 bytes at a time costs more than
    sending a small frame.  No bytes are given twice, to threads or after ``fork()``.
    """
    while True:
        try:
            return _masks.pop()
        except IndexError:
            pool = os.urandom(POOL_SIZE)
            _masks.extend(pool[i : i + 4] for i in range(0, POOL_SIZE, 4))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_masks.clear)


def parse_header(
    data: BytesLike, *, expect_mask: bool, allowed_rsv: int = 0
) -> FrameHeader | None:
    """Read the header of a frame (RFC 6455, 5.2).

    Args:
        data: What has been received from the start of the frame on.
        expect_mask: Whether the peer must mask, as clients must, or must not.
        allowed_rsv: The reserved bits of byte 0 that extensions define.  In a
            control frame, none is allowed.

    Returns:
        The header, or ``None`` when more bytes are needed to complete it.

    Raises:
        ProtocolError: As soon as the first byte that is not allowed is there.
    """
    with _view(data) as view, view[:MAX_HEADER_SIZE] as start:
        head = bytes(start)
    n = len(head)
    if n == 0:
        return None
    opcode = head[0] & 0x0F
    rsv = head[0] & 0x70
    if rsv & ~(0 if opcode & 8 else allowed_rsv):
        raise fail(Failure.RSV, rsv=rsv)
    if opcode & 7 > 2:
        raise fail(Failure.OPCODE, opcode=opcode)
    fin = head[0] >= 0x80
    if opcode & 8 and not fin:
        raise fail(Failure.CONTROL_FRAGMENTED)
    if n == 1:
        return None
    masked = head[1] >= 0x80
    length = head[1] & 0x7F
    if masked != bool(expect_mask):
        raise fail(Failure.NOT_MASKED if expect_mask else Failure.MASKED)
    if opcode & 8 and length > 125:
        raise fail(Failure.CONTROL_TOO_LONG, size=None)
    size = 2
    if length > 125:
        size = 4 if length == 126 else 10
        if length == 127 and n > 2 and head[2] & 0x80:
            raise fail(Failure.LENGTH)
        length = int.from_bytes(head[2:size], "big")
    mask_end = size + 4 if masked else size
    if n < mask_end:
        return None
    return FrameHeader(fin, opcode, rsv, length, head[size:mask_end], mask_end)


def build_header(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: BytesLike | None = None,
) -> bytes:
    """Write the header of a frame (RFC 6455, 5.2).

    Args:
        opcode: What kind of frame, 0 to 15.
        length: Size of the payload.
        fin: Whether it ends a message.
        rsv: Reserved bits, where byte 0 has them: 0x40, 0x20, 0x10.
        mask: The masking key, 4 bytes, when the payload is masked.

    Raises:
        ValueError: When an argument does not fit into its field.
    """
    if not 0 <= opcode <= 15:
        raise ValueError(f"opcode is out of range: {opcode}, limits 0 and 15")
    if rsv & ~0x70:
        raise ValueError(f"reserved bits are not within 0x70: {rsv:#x}")
    if not 0 <= length <= 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"length is out of range: {length}, limits 0 and 2**63 - 1")
    key = b"" if mask is None else _turned(mask, 0)
    first = (0x80 if fin else 0) | rsv | opcode
    second = 0x80 if key else 0
    if length < 126:
        return bytes((first, second | length)) + key
    if length < 65536:
        return bytes((first, second | 126)) + length.to_bytes(2, "big") + key
    return bytes((first, second | 127)) + length.to_bytes(8, "big") + key


def _next_range(state: tuple[int, int, int], byte: int) -> tuple[int, int, int] | None:
    """Advance by one byte of UTF-8 (RFC 3629, 4); ``None`` when it cannot be.

    A state is how many bytes the current character still needs, and the least and
    the greatest that the next one may be.
    """
    need, low, high = state
    if need:
        return (need - 1, 0x80, 0xBF) if low <= byte <= high else None
    if byte < 0x80:
        return _BOUNDARY
    if not 0xC2 <= byte <= 0xF4:
        return None
    need = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
    return need, _LOWEST.get(byte, 0x80), _HIGHEST.get(byte, 0xBF)


_BOUNDARY = (0, 0x80, 0xBF)
_LOWEST = {0xE0: 0xA0, 0xF0: 0x90}  # below: a shorter form exists
_HIGHEST = {0xED: 0x9F, 0xF4: 0x8F}  # above: surrogates, or beyond U+10FFFF


class Utf8Validator:
    """Check a text piece by piece (RFC 3629).

    Pieces may be cut anywhere, also inside a character.  What can no longer become
    valid is found in the piece that brings it.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""  # the start of a character, at most 3 bytes

    def feed(self, data: BytesLike) -> int:
        """Take the next piece.

        Returns:
            -1 while the text can become valid; else the index in ``data`` of the
            first byte that cannot be.  After that only :meth:`reset` is of use.
        """
        before = len(self._pending)
        with _view(data) as view:
            text = self._pending + bytes(view)
        try:
            _, used = codecs.utf_8_decode(text, "strict", False)
        except UnicodeDecodeError as exc:
            used = exc.start
        # The decoder does not tell which byte is wrong, and it waits for the third
        # byte of a surrogate.
        state = _BOUNDARY
        for at in range(used, len(text)):
            after = _next_range(state, text[at])
            if after is None:
                return at - before
            state = after
        self._pending = text[used:]
        return -1

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return not self._pending

    def reset(self) -> None:
        """Begin another text."""
        self._pending = b""


def decode_utf8(data: BytesLike) -> str:
    """Return the text of UTF-8 bytes.

    Raises:
        UnicodeDecodeError: As ``bytes.decode()`` does, when they are not valid.
    """
    # Not str(view, "utf-8"): that of PyPy lets surrogates pass.
    with _view(data) as view:
        return codecs.utf_8_decode(view, "strict", True)[0]
