"""Choose the codec: compiled when the extensions are in use, else pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._compat import USE_EXT

if TYPE_CHECKING or not USE_EXT:
    from ._codec_py import FrameReader, FrameWriter
else:
    from ._codec_c import FrameReader, FrameWriter

__all__ = ["FrameReader", "FrameWriter"]
