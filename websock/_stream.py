"""Choose the stream: compiled when the extensions are in use, else pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._compat import USE_EXT

if TYPE_CHECKING or not USE_EXT:
    from ._stream_py import Stream, loop_state
else:
    from ._stream_c import Stream, loop_state

__all__ = ["Stream", "loop_state"]
