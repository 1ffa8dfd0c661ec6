"""What a hub and its workers say to each other: binary messages, one thing each.

A message is its kind (one byte), the length of the channel's name (two bytes, in
network order), the name in UTF-8, and the payload, bytes or a few lines of text:

=============  ==========  =======================================================
kind           from        payload
=============  ==========  =======================================================
``HELLO``      the hub     bytes that the payload of a publication may have
``PUBLISH``    a worker    messages to keep (four bytes), then what is published
``SUBSCRIBE``  a worker    nothing; the channel is a pattern
``LEAVE``      a worker    nothing; the channel is a pattern
``MESSAGE``    the hub     epoch and number, each with a space; what was published
``SYNC``       both        text that comes back behind all that was said before
``LOST``       the hub     how many; for each channel the first that is missing
``READ``       a worker    text that comes back, how many; positions reached
``KEPT``       the hub     the text; what follows is the answer to ``READ``
``END``        the hub     the text, the end of it; the last positions of channels
=============  ==========  =======================================================

Nothing here knows connections.  What a peer has written is checked, and ``ValueError``
is all that it can raise.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from ..topics.history import Position

__all__ = ["Kind", "lines_of", "pack", "places_of", "unpack"]

HEAD = Struct(">BH")
COUNT = Struct(">I")
MAX_CHANNEL = 65_535
"""Bytes of a channel's name."""
MAX_HEAD = 1024
"""Bytes that a hub and its workers may add to what is published, besides the name."""


class Kind:
    """The kinds of messages."""

    HELLO: Final = 1
    PUBLISH: Final = 2
    SUBSCRIBE: Final = 3
    LEAVE: Final = 4
    MESSAGE: Final = 5
    SYNC: Final = 6
    LOST: Final = 7
    READ: Final = 8
    KEPT: Final = 9
    END: Final = 10


def pack(kind: int, channel: bytes = b"", *payload: bytes) -> bytes:
    """Return a message.

    Raises:
        ValueError: When the channel's name is too long.
    """
    if len(channel) > MAX_CHANNEL:
        raise ValueError(
            f"name of a channel is too long: {len(channel)} bytes, limit {MAX_CHANNEL}"
        )
    return b"".join((HEAD.pack(kind, len(channel)), channel, *payload))


def unpack(message: bytes) -> tuple[int, bytes, bytes]:
    """Return kind, channel and payload of a message.

    Raises:
        ValueError: When it is cut short.
    """
    if len(message) < HEAD.size:
        raise ValueError(f"message is too short: {len(message)} bytes")
    kind, length = HEAD.unpack_from(message)
    end = HEAD.size + length
    if len(message) < end:
        raise ValueError(
            f"name of a channel is cut short: {len(message) - HEAD.size} bytes "
            f"of {length}"
        )
    return kind, message[HEAD.size : end], message[end:]


def lines_of(first: str, places: Iterable[tuple[str, Position]] = ()) -> bytes:
    """Return a line, and one for each channel with its position."""
    return "\n".join(
        [first, *(f"{channel} {place}" for channel, place in places)]
    ).encode()


def places_of(payload: bytes) -> tuple[str, dict[str, Position]]:
    """Read what ``lines_of()`` has written.

    Raises:
        ValueError: When it is something else.
    """
    first, *lines = payload.decode().split("\n")
    places = {}
    for line in lines:
        channel, space, place = line.rpartition(" ")
        if not space:
            raise ValueError("line has no channel")
        places[channel] = Position.parse(place)
    return first, places
