"""What uvicorn tells a client that breaks the protocol: the words of its own engine.

Close codes are the same anyway; with the same reasons, a client and an application
cannot tell which engine is in use.  websockets writes the reasons of uvicorn's default
engine.  Two of them cannot be had, because they show what is not kept here: a length
with its top bit set, and the place where the reason of a close frame is not UTF-8.
"""

from __future__ import annotations

from ..exceptions import InvalidText, PayloadTooBig, ProtocolError

__all__ = ["as_uvicorn_says"]

# How texts of websock begin, and what is said instead; the first that fits.
REASONS = (
    ("reserved bits are set", "reserved bits must be 0"),
    ("unknown opcode", "invalid opcode"),
    ("fragmented control frame", "fragmented control frame"),
    ("control frame is too long", "control frame too long"),
    ("unmasked frame", "incorrect masking"),
    ("expected a continuation frame", "expected a continuation frame"),
    ("unexpected continuation frame", "unexpected continuation frame"),
    ("close frame with a payload of 1 byte", "close frame too short"),
    ("invalid close code", "invalid status code"),
    ("decompression failed: RSV1", "RSV1 bit set in continuation frame"),
    ("decompression failed", "decompression failed"),
)


def as_uvicorn_says(exc: Exception) -> Exception:
    """Return an exception with the same close code, and the reason as its text.

    Args:
        exc: What was wrong with what the client sent.
    """
    if isinstance(exc, PayloadTooBig):
        size = "" if exc.size is None else f" with {exc.size} bytes"
        before = exc.current_size
        after = "" if before is None else f" after reading {before} bytes"
        text = f"frame{size}{after} exceeds limit of {exc.max_size} bytes"
        return ProtocolError(text, code=exc.code)
    text = str(exc)
    if isinstance(exc, InvalidText):
        return exc if "close reason" in text else InvalidText("")
    if isinstance(exc, ProtocolError):
        for beginning, reason in REASONS:
            if text.startswith(beginning):
                return ProtocolError(reason, code=exc.code)
    return exc
