"""Types that appear in the signatures of the public API."""

from __future__ import annotations

import http
import logging
import os
from collections.abc import Sequence
from typing import Any, NewType, TypeAlias

__all__ = [
    "BytesLike",
    "Data",
    "DataLike",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "StatusLike",
    "Subprotocol",
]

Data: TypeAlias = str | bytes
"""``str`` for a text message, ``bytes`` for a binary one."""

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What is accepted where bytes are wanted."""

DataLike: TypeAlias = str | bytes | bytearray | memoryview
"""What is accepted where a message is wanted."""

LoggerLike: TypeAlias = logging.Logger | logging.LoggerAdapter[Any]
"""What is accepted where a logger is wanted."""

PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""What is accepted where a path of the file system is wanted."""

StatusLike: TypeAlias = http.HTTPStatus | int
"""What is accepted where an HTTP status is wanted."""

Origin = NewType("Origin", str)
"""Value of an ``Origin`` header."""

Subprotocol = NewType("Subprotocol", str)
"""A subprotocol, as in ``Sec-WebSocket-Protocol``."""

ExtensionName = NewType("ExtensionName", str)
"""Name of an extension, as in ``Sec-WebSocket-Extensions``."""

ExtensionParameter: TypeAlias = tuple[str, str | None]
"""Name and value of an extension's parameter; ``None`` when it has no value."""

ExtensionHeader: TypeAlias = tuple[ExtensionName, Sequence[ExtensionParameter]]
"""One extension with its parameters, as in ``Sec-WebSocket-Extensions``."""

ConnectionOption = NewType("ConnectionOption", str)
"""One option of a ``Connection`` header."""

UpgradeProtocol = NewType("UpgradeProtocol", str)
"""One protocol of an ``Upgrade`` header."""
