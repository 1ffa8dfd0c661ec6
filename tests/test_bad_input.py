"""Peers that do it wrong, on a real server: the answer on the wire, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from scripted import LOOPBACK, Run, loop_fixture
from wire import MASK, frame

import websock
from websock.exceptions import ConnectionClosed, ConnectionClosedError

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
run = loop_fixture()

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(
    headers: dict[str, str | None] | None = None,
    *more: str,
    line: str = "GET /chat HTTP/1.1",
    end: str = "\r\n\r\n",
) -> bytes:
    """A handshake request; ``None`` leaves a header out, ``more`` are more lines."""
    fields = {**GOOD, **(headers or {})}
    lines = [f"{k}: {v}" for k, v in fields.items() if v is not None]
    return ("\r\n".join([line, *lines, *more]) + end).encode("latin-1")


BAD = {
    "post": (request(line="POST / HTTP/1.1"), 405),
    "http 1.0": (request(line="GET / HTTP/1.0"), 505),
    "http 2": (request(line="GET / HTTP/2.0"), 505),
    "no version": (request(line="GET /"), 400),
    "rubbish": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no host": (request({"Host": None}), 400),
    "two hosts": (request({}, "Host: other"), 400),
    "no upgrade": (request({"Upgrade": None}), 426),
    "other upgrade": (request({"Upgrade": "h2c"}), 426),
    "no connection": (request({"Connection": None}), 426),
    "not upgrade": (request({"Connection": "notupgrade"}), 426),
    "no key": (request({"Sec-WebSocket-Key": None}), 400),
    "bad key": (request({"Sec-WebSocket-Key": "short"}), 400),
    "two keys": (request({}, f"Sec-WebSocket-Key: {KEY}"), 400),
    "no version header": (request({"Sec-WebSocket-Version": None}), 426),
    "old version": (request({"Sec-WebSocket-Version": "8"}), 426),
    "two versions": (request({}, "Sec-WebSocket-Version: 13"), 400),
    "body": (request({}, "Content-Length: 3") + b"abc", 400),
    "chunked": (request({}, "Transfer-Encoding: chunked"), 400),
    "fold": (request({}, "X-Folded: a", " b"), 400),
    "bare lf": (request(end="\n\n"), 400),
    "nul": (request({"X-Nul": "a\0b"}), 400),
    "bare cr": (request({"X-Cr": "a\rb"}), 400),
    "space in name": (request({}, "X Space: a"), 400),
    "space before colon": (request({}, "X-Space : a"), 400),
    "long line": (request(line=f"GET /{'a' * 9000} HTTP/1.1"), 414),
    "long header": (request({"X-Long": "a" * 9000}), 431),
    "many headers": (request({f"X-{n}": "a" for n in range(129)}), 431),
    "bad extensions": (request({"Sec-WebSocket-Extensions": '; x="'}), 400),
}


class Site:
    """A running echo server, and what its handlers ended with."""

    def __init__(self) -> None:
        self.port = 0
        self.ends: asyncio.Queue[ConnectionClosed] = asyncio.Queue()

    async def echo(self, ws: Any) -> None:
        try:
            while True:
                await ws.send(await ws.recv())
        except ConnectionClosed as exc:
            self.ends.put_nowait(exc)

    async def send(
        self, data: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        writer.write(data)
        return reader, writer

    @property
    def url(self) -> str:
        return f"ws://{LOOPBACK}:{self.port}/"


@contextlib.asynccontextmanager
async def serving(**kwargs: Any) -> AsyncIterator[Site]:
    site = Site()
    async with websock.serve(site.echo, LOOPBACK, 0, **kwargs) as server:
        site.port = server.sockets[0].getsockname()[1]
        yield site


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """What a peer did wrong is no error of the program, and has no traceback."""
    for record in caplog.records:
        assert record.levelno < logging.ERROR, record
        assert record.exc_info is None or record.levelno <= logging.DEBUG, record


@pytest.mark.parametrize("name", BAD)
def test_bad_handshake(run: Run, name: str, caplog: pytest.LogCaptureFixture) -> None:
    data, status = BAD[name]

    async def main() -> None:
        async with serving() as site, websock.connect(site.url, proxy=None) as good:
            # What follows a refusal is not parsed.
            follow = frame(TEXT, b"x", mask=MASK)
            reader, writer = await site.send(data + follow)
            answer = await reader.read()
            writer.close()
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.split(b" ")[:2] == [b"HTTP/1.1", str(status).encode()]
            fields = head.lower()
            assert b"connection: close" in fields
            assert f"content-length: {len(body)}".encode() in fields
            if status == 426:
                assert b"sec-websocket-version: 13" in fields
                assert b"upgrade: websocket" in fields
            if status == 405:
                assert b"allow: get" in fields
            assert len(body) < 200
            for piece in (b"short", b"aaaa", b"notupgrade", KEY.encode()):
                assert piece not in body
            # Others go on.
            await good.send("still here")
            assert await good.recv() == "still here"

    run(main())
    check_log(caplog)


def test_request_byte_by_byte(run: Run) -> None:
    async def main() -> None:
        async with serving() as site:
            reader, writer = await site.send(b"")
            for byte in request():
                writer.write(bytes([byte]))
                await writer.drain()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(frame(TEXT, b"hello", mask=MASK))
            assert await reader.readexactly(7) == frame(TEXT, b"hello")
            writer.close()

    run(main())


def test_frames_in_the_same_segment_are_kept(run: Run) -> None:
    async def main() -> None:
        async with serving() as site:
            early = frame(TEXT, b"early", mask=MASK)
            reader, writer = await site.send(request() + early)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(7) == frame(TEXT, b"early")
            writer.close()

    run(main())


def test_handshake_that_never_ends(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(open_timeout=0.2) as site:
            halves = [await site.send(request()[:-2]) for _ in range(20)]
            nothing = await site.send(b"")
            async with websock.connect(site.url, proxy=None) as good:
                for reader, writer in [*halves, nothing]:
                    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
                    writer.close()
                await good.send("x")
                assert await good.recv() == "x"

    run(main())
    check_log(caplog)


VIOLATIONS = {
    "reserved bit": (
        frame(TEXT, b"x", rsv=0x20, mask=MASK),
        1002,
        "reserved bits are set: 0x20, no extension defines them (RFC 6455, 5.2)",
    ),
    "opcode": (frame(3, b"", mask=MASK), 1002, "unknown opcode: 0x3 (RFC 6455, 5.2)"),
    "unmasked": (frame(TEXT, b"x"), 1002, "unmasked frame from client (RFC 6455, 5.1)"),
    "control": (
        frame(PING, b"", fin=False, mask=MASK),
        1002,
        "fragmented control frame (RFC 6455, 5.5)",
    ),
    "continuation": (
        frame(0, b"", mask=MASK),
        1002,
        "unexpected continuation frame (RFC 6455, 5.4)",
    ),
    "text": (
        frame(TEXT, b"ab\xff", mask=MASK),
        1007,
        "invalid UTF-8 at byte 2 of the message (RFC 6455, 8.1)",
    ),
    "size": (
        frame(BINARY, b"", length=1 << 40, mask=MASK),
        1009,
        f"message is too big: {1 << 40} bytes, limit 1000",
    ),
    "top bit": (
        frame(BINARY, b"", length=1 << 63, mask=MASK),
        1002,
        "payload length has its top bit set (RFC 6455, 5.2)",
    ),
    "close code": (
        frame(CLOSE, (1005).to_bytes(2, "big"), mask=MASK),
        1002,
        "invalid close code: 1005 (RFC 6455, 7.4)",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation(run: Run, name: str, caplog: pytest.LogCaptureFixture) -> None:
    data, code, text = VIOLATIONS[name]

    async def main() -> None:
        async with serving(max_size=1000) as site:
            reader, writer = await site.send(request())
            await reader.readuntil(b"\r\n\r\n")
            # Good messages in the same segment are answered first.
            good = [frame(TEXT, str(n).encode(), mask=MASK) for n in range(40)]
            writer.write(b"".join(good) + data + frame(TEXT, b"late", mask=MASK))
            answer = await reader.read()
            writer.close()
            echoes = b"".join(frame(TEXT, str(n).encode()) for n in range(40))
            reason = text.encode()
            assert answer == echoes + frame(CLOSE, code.to_bytes(2, "big") + reason)
            exc = await site.ends.get()
            assert isinstance(exc, ConnectionClosedError)
            assert exc.sent is not None
            assert (exc.sent.code, exc.rcvd) == (code, None)
            assert str(exc.__cause__) == text

    run(main())
    check_log(caplog)


def test_flood_of_pings_that_nobody_reads_the_answers_of(run: Run) -> None:
    async def main() -> None:
        connections: list[Any] = []

        async def handler(ws: Any) -> None:
            connections.append(ws)
            await ws.wait_closed()

        async with websock.serve(
            handler, LOOPBACK, 0, write_limit=1000, close_timeout=0.2
        ) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=1024)
            writer.write(request())
            await reader.readuntil(b"\r\n\r\n")
            ping = frame(PING, bytes(125), mask=MASK) * 500
            for _ in range(200):  # 13 MB of pings, 12 MB of pongs
                writer.write(ping)
                await writer.drain()
            (ws,) = connections
            assert ws.buffered_amount < 100_000
            writer.close()

    run(main())


@pytest.mark.parametrize("when", ["request", "message", "open"])
def test_reset_in_the_middle(
    run: Run, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving() as site:
            data = {
                "request": request()[:-5],
                "message": request() + frame(TEXT, b"x" * 1000, mask=MASK)[:-1],
                "open": request(),
            }[when]
            reader, writer = await site.send(data)
            if when != "request":
                await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            if when != "request":
                exc = await site.ends.get()
                assert exc.rcvd is None
            async with websock.connect(site.url, proxy=None) as good:
                await good.send("x")
                assert await good.recv() == "x"

    run(main())
    check_log(caplog)
