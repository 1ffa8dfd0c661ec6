"""Numbers of the protocol and the limits of this library, as plain integers.

Nothing is computed here and nothing is imported, so every layer may read it, the
compiled ones included. The limits are defaults that a caller can change where an
argument exists for it (``max_size`` and the like); the rest are part of the
documented behaviour.
"""

from __future__ import annotations

__all__ = [
    "CLOSE_ABNORMAL",
    "CLOSE_GOING_AWAY",
    "CLOSE_INTERNAL_ERROR",
    "CLOSE_INVALID_DATA",
    "CLOSE_NORMAL",
    "CLOSE_NO_STATUS",
    "CLOSE_POLICY_VIOLATION",
    "CLOSE_PROTOCOL_ERROR",
    "CLOSE_TOO_BIG",
    "DEFAULT_MAX_SIZE",
    "DEFLATE_MIN_SIZE",
    "INFLATED_AT_ONCE",
    "MAX_BODY_SIZE",
    "MAX_CONTROL_RATE",
    "MAX_CONTROL_SIZE",
    "MAX_FRAGMENTS",
    "MAX_HEAD_SIZE",
    "MAX_KEPT_ENDS",
    "MAX_LINE_LENGTH",
    "MAX_LOG_LINES",
    "MAX_NUM_HEADERS",
    "MAX_REDIRECTS",
    "MIN_QUEUED_SIZE",
    "OP_BINARY",
    "OP_CLOSE",
    "OP_CONT",
    "OP_PING",
    "OP_PONG",
    "OP_TEXT",
    "RSV1",
    "RSV2",
    "RSV3",
    "VERSION",
]

# RFC 6455, 5.2: opcodes, and the reserved bits of the first byte of a frame.
OP_CONT = 0x0
OP_TEXT = 0x1
OP_BINARY = 0x2
OP_CLOSE = 0x8
OP_PING = 0x9
OP_PONG = 0xA

RSV1 = 0x40
RSV2 = 0x20
RSV3 = 0x10

# RFC 6455, 7.4.1: the close codes that the library itself picks.
CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_NO_STATUS = 1005
CLOSE_ABNORMAL = 1006
CLOSE_INVALID_DATA = 1007
CLOSE_POLICY_VIOLATION = 1008
CLOSE_TOO_BIG = 1009
CLOSE_INTERNAL_ERROR = 1011

# RFC 6455, 4.1: the value of Sec-WebSocket-Version.
VERSION = "13"

# Opening handshake.
MAX_LINE_LENGTH = 8192
"""Bytes in a request line, status line or header line, without CRLF."""
MAX_NUM_HEADERS = 128
"""Header lines of a request or response."""
MAX_HEAD_SIZE = 65536
"""Bytes in the request or status line and all headers together."""
MAX_BODY_SIZE = 1048576
"""Bytes in the body of a response that refuses a connection."""
MAX_REDIRECTS = 10
"""Redirects that a client follows for one connection."""
MAX_LOG_LINES = 10
"""Lines that peers can have a server log in a second by being refused."""

# Frames and messages.
MAX_CONTROL_SIZE = 125
"""Bytes in the payload of a ping, pong or close frame (RFC 6455, 5.5)."""
MAX_FRAGMENTS = 131072
"""Frames in one message, empty ones included; ``max_fragments`` sets another limit."""
MAX_CONTROL_RATE = 10000
"""Pings and pongs from a peer in a second; ``max_control_rate`` sets another limit."""
MAX_KEPT_ENDS = 4096
"""Ends of fragments that are remembered with a message put together."""
DEFAULT_MAX_SIZE = 1048576
"""Bytes in one message, after decompression; ``max_size`` sets another limit."""

MIN_QUEUED_SIZE = 64
"""Bytes that each message in a queue counts at least, if only bytes are limited.

An object has a size of its own, and messages may be empty.
"""
INFLATED_AT_ONCE = 2097152
"""Bytes to decompress before other connections are served.

A few bytes of input may become a thousand times as many.
"""

DEFLATE_MIN_SIZE = 64
"""Messages with fewer bytes are sent uncompressed, whatever was negotiated.

They would shrink by a few bytes at the price of a run of zlib.
"""
