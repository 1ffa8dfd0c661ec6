"""What a worker says to the hub, and hears, as bytes on a plain socket.

They are frames of WebSocket (RFC 6455): of a client with a mask, here of zeros.
"""

from __future__ import annotations

import base64
import re
import struct

__all__ = ["HELLO", "SYNCED", "copy", "publish", "subscribe", "sync"]

SECRET = "bench"
CHANNEL = b"bench.prices.eur"
PUBLISH, SUBSCRIBE, MESSAGE, SYNC = 2, 3, 5, 6

HELLO = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Authorization: Basic " + base64.b64encode(f"hub:{SECRET}".encode()) + b"\r\n\r\n"
)


def _said(kind: int, channel: bytes, payload: bytes = b"") -> bytes:
    message = struct.pack(">BH", kind, len(channel)) + channel + payload
    size = len(message)
    if size < 126:
        head = bytes([0x82, 0x80 | size])
    else:
        head = struct.pack(">BBH", 0x82, 0x80 | 126, size)
    return head + bytes(4) + message


def subscribe() -> bytes:
    """Return what subscribes, and asks for an answer."""
    return _said(SUBSCRIBE, CHANNEL) + sync()


def sync() -> bytes:
    """Return what asks for an answer."""
    return _said(SYNC, b"", b"1")


#: The answer.
SYNCED = bytes([0x82, 4, SYNC, 0, 0]) + b"1"


def publish(payload: bytes) -> bytes:
    """Return what publishes a message, which is not kept."""
    return _said(PUBLISH, CHANNEL, bytes(4) + payload)


def copy(payload: bytes) -> re.Pattern[bytes]:
    """Return what subscribers receive: its position is another each time."""
    message = struct.pack(">BH", MESSAGE, len(CHANNEL)) + CHANNEL
    return re.compile(
        rb"\x82(?:[^\x7e\x7f]|\x7e..)"
        + re.escape(message)
        + rb"[0-9a-f-]+ [0-9]+ "
        + re.escape(payload),
        re.DOTALL,
    )
