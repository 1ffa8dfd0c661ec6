"""Messages and payloads that take more than one step: checks, and cutting."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, Self

from ..constants import MAX_CONTROL_SIZE, OP_BINARY, OP_TEXT
from ..exceptions import ProtocolError
from ..typing import BytesLike, DataLike

__all__ = [
    "AsAsync",
    "control_payload",
    "fragment_payload",
    "split_message",
    "utf8_decoder",
]

utf8_decoder = codecs.getincrementaldecoder("utf-8")


class AsAsync:
    """An iterator as an asynchronous one, which needs no closing."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[DataLike]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DataLike:
        for item in self._items:
            return item
        raise StopAsyncIteration


def split_message(item: Any) -> tuple[int, list[bytes]]:
    """Cut a message from the queue into the fragments that it came in."""
    ends: list[int] = []
    if isinstance(item, tuple):
        item, ends, _ = item
    opcode = OP_BINARY
    if isinstance(item, str):
        opcode = OP_TEXT
        item = item.encode()
    pieces = []
    start = 0
    for end in ends:
        pieces.append(item[start:end])
        start = end
    if start < len(item) or not pieces:
        pieces.append(item[start:])
    return opcode, pieces


def control_payload(data: DataLike) -> bytes:
    """Check the payload of a ping or a pong.

    Raises:
        TypeError: When it is neither ``str`` nor bytes-like.
        ProtocolError: When it is over 125 bytes.
    """
    if isinstance(data, str):
        data = data.encode()
    elif not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be str or bytes-like, not {type(data).__name__}")
    payload = bytes(data)
    if len(payload) > MAX_CONTROL_SIZE:
        raise ProtocolError(
            f"control frame is too long: {len(payload)} bytes, "
            f"limit {MAX_CONTROL_SIZE} (RFC 6455, 5.5)"
        )
    return payload


def fragment_payload(fragment: Any, text: bool | None) -> tuple[int, BytesLike]:
    """Return the opcode and the payload of the first fragment of a message.

    Raises:
        TypeError: When it is neither ``str`` nor bytes-like.
    """
    if isinstance(fragment, str):
        return (OP_BINARY if text is False else OP_TEXT), fragment.encode()
    if isinstance(fragment, (bytes, bytearray, memoryview)):
        return (OP_TEXT if text else OP_BINARY), fragment
    raise TypeError(
        f"fragment must be str or bytes-like, not {type(fragment).__name__}"
    )
