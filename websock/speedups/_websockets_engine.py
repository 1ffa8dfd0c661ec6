"""Connections of :mod:`websock.asyncio` under the names of the library websockets."""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["replacements"]


def replacements(name: str, module: ModuleType) -> list[tuple[str, Any]]:
    """Return the names of a module of the host to replace, and with what."""
    return []
