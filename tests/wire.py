"""Frames written by hand, without the library that is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MASK = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    length: int | None = None,
) -> bytes:
    """Build a frame; ``length`` claims another length than the payload has."""
    n = len(payload) if length is None else length
    second = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    if n < 126:
        head += bytes([second | n])
    elif n < 65536:
        head += bytes([second | 126]) + n.to_bytes(2, "big")
    else:
        head += bytes([second | 127]) + n.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Cut input in every way that has found mistakes before."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    points = range(1, len(data))
    if len(data) > 400:
        points = range(1, len(data), len(data) // 200)
    for point in points:
        yield [data[:point], data[point:]]
    yield [data[i : i + 3] for i in range(0, len(data), 3)]


def feed(reader: Any, pieces: list[bytes]) -> tuple[list[Any], str | None]:
    """Feed pieces; return the events and the error, as text."""
    events = []
    for piece in pieces:
        events.extend(reader.feed(piece))
    error = reader.error
    return events, None if error is None else f"{type(error).__name__}: {error}"


def feed_every_way(make: Callable[[], Any], data: bytes) -> tuple[list[Any], Any]:
    """Feed input in every way; all must give the same."""
    expected = feed(make(), [data])
    for pieces in splits(data):
        got = feed(make(), pieces)
        assert got == expected, pieces
    return expected
