"""What fuzzing begins with: the cases of the RFCs and of conformance suites."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from helpers import BROWSER_REQUEST, request, response
from wire import MASK, frame

__all__ = ["SEEDS"]

HELLO = b"Hello"
KAPPA = "κόσμε 你好 😀".encode()


def packed(data: bytes, final: bool = False) -> bytes:
    """Compress a message (RFC 7692, 7.2.1), or end its last block (7.2.3.4)."""
    encoder = zlib.compressobj(wbits=-15)
    start = encoder.compress(data)
    if final:
        return start + encoder.flush() + b"\x00"
    return start + encoder.flush(zlib.Z_SYNC_FLUSH)[:-4]


def streams(mask: bytes | None) -> Iterator[bytes]:
    """Frames in order, and out of it."""
    yield frame(1, HELLO, mask=mask)
    yield frame(2, b"", mask=mask) + frame(1, KAPPA, mask=mask)
    yield frame(1, b"Hel", fin=False, mask=mask) + frame(0, b"lo", mask=mask)
    yield (
        frame(1, KAPPA[:1], fin=False, mask=mask)
        + frame(9, b"ping", mask=mask)
        + frame(0, b"", fin=False, mask=mask)
        + frame(0, KAPPA[1:], mask=mask)
    )
    for size in (125, 126, 127, 300):
        yield frame(2, b"a" * size, mask=mask)
    for length in (126, 65536, 2**32 + 1, 2**63 - 1, 2**63):
        yield frame(2, HELLO, length=length, mask=mask)
    for code in (b"", b"\x03", b"\x03\xe8", b"\x03\xedno", b"\x0f\xa0bye\xff"):
        yield frame(8, code, mask=mask) + frame(1, b"after", mask=mask)
    for rsv in (0x40, 0x20, 0x70):
        yield frame(1, packed(HELLO), rsv=rsv, mask=mask)
    yield frame(9, b"a" * 126, mask=mask)
    yield frame(9, b"a", fin=False, mask=mask)
    yield frame(0, b"a", mask=mask)
    yield frame(3, b"a", mask=mask)
    yield frame(1, b"a", fin=False, mask=mask) + frame(1, b"b", mask=mask)
    yield frame(1, b"\xed\xa0\x80", mask=mask)
    yield frame(1, b"\xf0\x9f", fin=False, mask=mask) + frame(0, b"\x92", mask=mask)
    both = packed(b"Hello, hello, hello")
    yield frame(1, both[:4], rsv=0x40, fin=False, mask=mask) + frame(
        0, both[4:], mask=mask
    )
    yield frame(2, packed(b"final", final=True), rsv=0x40, mask=mask)


def readings() -> Iterator[bytes]:
    for flags, mask in ((3, MASK), (1, b"\x00" * 4), (2, None), (0, None)):
        for stream in streams(mask):
            deflate = 1 if stream[0] & 0x40 else 0
            yield bytes((flags, deflate, 0, 0, 0, 3)) + stream
            yield bytes((flags, deflate, 3, 4, 2, 2)) + stream


def scripts(mask: bytes | None, head: bytes) -> Iterator[bytes]:
    """Actions of programs and peers, on an open connection and before."""
    for number, stream in enumerate(streams(mask)):
        data = stream[:255]
        flags = 8 | (number & 7)
        yield bytes((flags, 0, len(data))) + data + bytes((11, 5)) + HELLO
        yield bytes((flags, 7, 2)) + b"\x03\xe8" + bytes((0, len(data))) + data
        yield bytes((flags | 40, 0, len(data))) + data + bytes((3, 5)) + HELLO
    yield bytes((8, 3, 2)) + b"ab" + bytes((14, 2)) + b"cd" + bytes((23, 0))
    yield bytes((8, 15, 5)) + b"\x03\xeabad" + bytes((13, 1)) + b"p"
    half = len(head) // 2
    yield bytes((1, 0, half)) + head[:half] + bytes((0, len(head) - half)) + head[half:]
    yield bytes((1, 0, half)) + head[:half] + bytes((23, 0))


def heads() -> Iterator[bytes]:
    for lines in (
        (),
        ("Sec-WebSocket-Protocol: chat, superchat", "Origin: http://localhost"),
        ("Host:\tname \t", "X:"),
        ("X: a\n b",),
        ("X : a",),
        ("X: \0",),
        ("Content-Length: 5",),
        ("A: 1", "B: 2", "C: 3"),
    ):
        yield request(*lines)
        yield response(*lines)
    yield BROWSER_REQUEST
    yield b"GET / HTTP/1.0\r\n\r\nmore"
    yield b"GET / HTTP/1.1\nHost: x\n\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00"
    yield b"HTTP/1.1 101\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def responses() -> Iterator[bytes]:
    yield from (data for data in heads() if data.startswith(b"HTTP"))
    yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnonemore"
    yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 101\r\n\r\n"
    yield b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\nuntil the end"
    yield (
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
    )
    yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    yield b"HTTP/1.0 200 Connection established\r\n\r\nrest"


HEADER_VALUES = [
    b"keep-alive, Upgrade",
    b"websocket, h2c/1.0",
    b",, chat ,superchat,",
    b'permessage-deflate; client_max_window_bits; x="10", bar;q="a\\b"',
    b"permessage-deflate; server_max_window_bits=8; server_no_context_takeover",
    b"permessage-deflate; client_max_window_bits=15; client_no_context_takeover",
    b"permessage-deflate; server_max_window_bits=010",
    b"permessage-deflate; a; a",
    b"Basic aGVsbG86cGFzczp3b3Jk",
    b"Basic !!!",
    b'sid=0123; theme="dark"; empty=; =x; sid=2',
]
ADDRESSES = [
    b"ws://localhost/",
    b"wss://user:p%40ss@[::1%25eth0]:8443/path;x?a=b&c",
    b"ws://b\xc3\xbccher.example/\xe2\x82\xac?\xc3\xa9",
    b"ws://a:0000080/",
    b"ws://a:70000",
    b"wss:///no",
    b"ws://x/#fragment",
    b"http://0x7f.1:80/a/../b/./%2e%2E/c",
    b"https:\\\\EXAMPLE.com\\path",
    b"ws://a b/",
]


TEXTS = [
    b"plain text that is longer than one register of thirty-two bytes",
    KAPPA * 4,
    ("é" * 40 + "日本" * 20).encode(),
    b"a" * 31 + b"\xf4\x8f\xbf\xbf" + b"\xf4\x90\x80\x80",
    b"\xc0\xaf",
    b"\xe0\x80\x80" + b"a" * 20,
    b"\xed\xa0\x80\xed\xb0\x80",
    b"a" * 15 + b"\xe2\x82",
]


def behind(*prefixes: bytes, of: list[bytes]) -> list[bytes]:
    """Put each choice before each input."""
    return [prefix + data for data in of for prefix in prefixes]


SEEDS: dict[str, list[bytes]] = {
    "client": list(scripts(None, response())),
    "deflate": behind(
        b"\x00\x00\x03",
        b"\x03\x02\x01",
        of=[
            packed(HELLO),
            packed(b"a" * 90),
            packed(b"a" * 2000),
            packed(HELLO, final=True),
            packed(HELLO, final=True)[:-1] * 3,
            b"\x00",
            b"",
            b"\xff\xff",
            b"\x00\x00\x00\xff\xff" + packed(KAPPA),
        ],
    ),
    "frame-reader": list(readings()),
    "frame-writer": [
        b"\x00\x00\x31\x05Hello\x12\x03abc\x19\x01p",
        b"\x01\x01\x01\x03Hel\x10\x02lo\x11\xffa\x29\x00",
        b"\x00\x03\x31\x64" + b"a" * 100 + b"\x31\x64" + b"a" * 100,
        b"\x00\x00\x09\x01a\x19\x7e" + b"a" * 126 + b"\x22\x02\xc3\xa9\x22\x01\xff",
    ],
    "head": behind(
        b"\x02\x05", b"\x03\x05", b"\x00\x05", b"\x01\x00", of=list(heads())
    ),
    "header": behind(b"\x01", b"\x40", of=[s[:14] for s in streams(MASK)]),
    "header-values": HEADER_VALUES,
    "mask": [MASK + b"\x80\x00Hello", MASK + b"\x03\x21" + b"a" * 100, b"ab"],
    "negotiation": behind(bytes(6), b"\x0f\x01\x02\x01\x03\x04", of=HEADER_VALUES),
    "response": behind(b"\x00\x04", b"\x01\x00", of=list(responses())),
    "server": list(scripts(MASK, request())),
    "text": behind(b"\x01", b"\x10", of=TEXTS),
    "uri": ADDRESSES,
    "url": ADDRESSES,
}
"""For each target."""
