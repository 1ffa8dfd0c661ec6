"""What wsaccel offers, under its names, on the kernels in use.

Some programs and libraries look for ``wsaccel``: a masker that remembers how far it is
in a frame, and a validator of UTF-8 that takes a text in pieces.

    from websock.speedups.wsaccel import Utf8Validator, createXorMasker

``websock.speedups.install("wsaccel")`` has ``import wsaccel`` find them, where no
wsaccel is installed.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .. import _kernels
from .._kernels import apply_mask

__all__ = [
    "Utf8Validator",
    "XorMaskerNull",
    "XorMaskerSimple",
    "createXorMasker",
    "make_modules",
]


class XorMaskerNull:
    """Counts bytes, and leaves them as they are.

    Args:
        mask: Not used.
    """

    __slots__ = ("_at",)

    def __init__(self, mask: Any = None) -> None:
        self._at = 0

    def pointer(self) -> int:
        """Return how many bytes have come."""
        return self._at

    def reset(self) -> None:
        """Begin another frame."""
        self._at = 0

    def process(self, data: Any) -> Any:
        """Return the bytes."""
        self._at += len(data)
        return data


class XorMaskerSimple:
    """Masks the payload of a frame, piece by piece (RFC 6455, 5.3).

    Args:
        mask: The masking key, 4 bytes.

    Raises:
        AssertionError: When it is not.
    """

    __slots__ = ("_at", "_key")

    def __init__(self, mask: Any) -> None:
        if len(mask) != 4:
            raise AssertionError("Mask must be exactly 4 bytes")
        self._key = bytes(mask)
        self._at = 0

    def pointer(self) -> int:
        """Return how many bytes have come."""
        return self._at

    def reset(self) -> None:
        """Begin another frame with the same key."""
        self._at = 0

    def process(self, data: Any) -> bytes:
        """Return the next bytes, masked.

        Args:
            data: Bytes of the payload.
        """
        masked = apply_mask(data, self._key, self._at)
        self._at += len(masked)
        return masked


def createXorMasker(mask: Any, len: Any = None) -> XorMaskerSimple:
    """Return a masker.

    Args:
        mask: The masking key, 4 bytes.
        len: Not used: one masker serves for all sizes.
    """
    return XorMaskerSimple(mask)


class Utf8Validator:
    """Checks a text piece by piece, and tells where it is wrong."""

    __slots__ = ("_bad", "_index", "_utf8")

    def __init__(self) -> None:
        self._utf8 = _kernels.Utf8Validator()
        self._index = 0
        self._bad = False

    def reset(self) -> None:
        """Begin another text."""
        self._utf8.reset()
        self._index = 0
        self._bad = False

    def validate(self, ba: Any) -> tuple[bool, bool, int, int]:
        """Take the next piece.

        Returns:
            Whether the text can still become valid; whether it may end here; and the
            place, in this piece and in the text: behind the piece, or of the first
            wrong byte. After a wrong byte every other one is wrong.
        """
        if self._bad:
            return not len(ba), False, 0, self._index
        place = self._utf8.feed(ba)
        if place < 0:
            size = len(ba)
            self._index += size
            return True, self._utf8.is_complete, size, self._index
        self._bad = True
        self._index += place
        return False, False, place, self._index


def make_modules() -> dict[str, ModuleType]:
    """Return modules as wsaccel has them, by name."""
    package = ModuleType("wsaccel", "Names of wsaccel, from websock.")
    masks = ModuleType("wsaccel.xormask", "Masks, from websock.")
    texts = ModuleType("wsaccel.utf8validator", "UTF-8, from websock.")
    package.__path__ = []
    for name in ("XorMaskerNull", "XorMaskerSimple", "createXorMasker"):
        setattr(masks, name, globals()[name])
    texts.Utf8Validator = Utf8Validator  # type: ignore[attr-defined]
    package.xormask = masks  # type: ignore[attr-defined]
    package.utf8validator = texts  # type: ignore[attr-defined]
    return {module.__name__: module for module in (package, masks, texts)}
