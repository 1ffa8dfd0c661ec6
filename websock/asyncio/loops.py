"""What event loops can do."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["can_own_sockets"]


def can_own_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop tells when a socket is readable.

    Windows' proactor cannot; its selector could, but Windows' sockets are no files.
    """
    if sys.platform == "win32":
        return False
    method = getattr(type(loop), "add_reader", None)
    return method is not None and method is not asyncio.AbstractEventLoop.add_reader
