"""What several test modules share: feeding parsers in every way, frames, requests.

Nothing here uses the library that is tested, so that it cannot agree with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from wire import MASK, frame

__all__ = [
    "BROWSER_REQUEST",
    "MASK",
    "cuts",
    "feed_every_way",
    "frame",
    "outcome",
    "request",
    "response",
]


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Cut input whole, byte by byte, and in two at every point.

    Long input is cut at some points only, the first and last ones included.
    """
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    step = 1 if len(data) < 2000 else len(data) // 40
    points = {*range(1, len(data), step), *range(max(1, len(data) - 8), len(data))}
    for point in sorted(points):
        yield [data[:point], data[point:]]


def outcome(reader: Any, pieces: list[bytes]) -> tuple[Any, bytes | None, str | None]:
    """Feed pieces until there is a result or an error.

    Returns the result, everything that was not part of it, and the error as text.
    """
    for number, piece in enumerate(pieces):
        try:
            result = reader.feed(piece)
        except Exception as exc:
            return None, None, f"{type(exc).__name__}: {exc}"
        if result is not None:
            rest = b"".join(pieces[number + 1 :])
            return result, bytes(reader.leftover) + rest, None
    return None, None, None


def feed_every_way(
    make: Callable[[], Any],
    data: bytes,
    trailing: tuple[bytes, ...] = (
        b"",
        b"\x81",
        b"\x81\x85\x37\xfa\x21\x3d\x7f\r\n\r\n",
    ),
) -> tuple[Any, str | None]:
    """Feed input in every way, also with bytes after it, and twice in a row.

    All ways must have the same outcome, and hand back exactly what comes after.

    Returns the result and the error as text.
    """
    result, leftover, error = outcome(make(), [data])
    for extra in trailing:
        expected = None if leftover is None else leftover + extra
        for pieces in cuts(data + extra):
            got = outcome(make(), pieces)
            assert got == (result, expected, error), pieces
    # Reading must not depend on what another reader, or this one, read before.
    assert outcome(make(), [data]) == (result, leftover, error)
    return result, error


def request(*lines: str, target: str = "/", key: str | None = None) -> bytes:
    """Build a handshake request, with more header lines or without the usual ones.

    A line replaces the usual header of its name; ``-Name`` leaves the header out.
    """
    usual = {
        "Host": "localhost:8765",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key or "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    more = []
    for line in lines:
        if line.startswith("-"):
            del usual[line[1:]]
            continue
        name = line.partition(":")[0]
        if name in usual and line not in (f"{name}: {usual[name]}",):
            del usual[name]
        more.append(line)
    head = [f"GET {target} HTTP/1.1", *(f"{k}: {v}" for k, v in usual.items()), *more]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


def response(*lines: str, status: str = "101 Switching Protocols") -> bytes:
    """Build a handshake response that answers the key of :func:`request`."""
    usual = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }
    more = []
    for line in lines:
        if line.startswith("-"):
            del usual[line[1:]]
            continue
        usual.pop(line.partition(":")[0], None)
        more.append(line)
    head = [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in usual.items()), *more]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


BROWSER_REQUEST = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: localhost:8765\r\n"
    b"Connection: Upgrade\r\n"
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like"
    b" Gecko) Chrome/131.0.0.0 Safari/537.36\r\n"
    b"Upgrade: websocket\r\n"
    b"Origin: http://localhost:8000\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n"
    b"Cookie: sid=0123456789abcdef; theme=dark\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-GPC: 1\r\n"
    b"\r\n"
)
