"""Clients made of bytes, for servers: what a test writes is what goes out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from helpers import request
from wire import MASK, frame

__all__ = ["Answer", "Raw", "raw"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_answer(data: bytes) -> Answer:
    head, end, body = data.partition(b"\r\n\r\n")
    assert end, data
    line, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = line.split(" ", 2)
    assert version == "HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), lines
    return Answer(int(status), headers, body)


class Raw:
    """A client that sends what it is told to, right or wrong."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def open(self, *lines: str, rest: bytes = b"") -> Answer:
        """Do the opening handshake."""
        await self.send(request(*lines) + rest)
        answer = parse_answer(await self.reader.readuntil(b"\r\n\r\n"))
        assert answer.status == 101, answer
        return answer

    async def answer(self) -> Answer:
        """Receive an HTTP response, up to the end of the connection."""
        answer = parse_answer(await self.ended())
        if answer.body:  # there is none for HEAD
            assert answer.headers["Content-Length"] == str(len(answer.body))
        assert answer.headers["Connection"] == "close"
        return answer

    async def ended(self) -> bytes:
        """Receive until the end of the connection, clean or not."""
        data = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := await self.reader.read(65536):
                data += piece
        return data

    async def frame(self) -> tuple[int, bytes]:
        """Receive a frame, not compressed."""
        first, n = await self.reader.readexactly(2)
        if n == 126:
            n = int.from_bytes(await self.reader.readexactly(2), "big")
        elif n == 127:
            n = int.from_bytes(await self.reader.readexactly(8), "big")
        assert first & 0xF0 == 0x80, first
        return first & 0x0F, await self.reader.readexactly(n)

    async def message(self, text: str) -> None:
        """Send a text message."""
        await self.send(frame(TEXT, text.encode(), mask=MASK))

    async def echoed(self, text: str) -> None:
        """Send a text message, and see it come back."""
        await self.message(text)
        assert await self.frame() == (TEXT, text.encode())

    async def closing(self) -> tuple[int, str]:
        """Receive up to a close frame and the end; return its code and reason."""
        while (received := await self.frame())[0] != CLOSE:
            pass
        payload = received[1]
        await self.send(frame(CLOSE, payload, mask=MASK))
        assert await self.ended() == b""
        self.writer.close()
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def reset(self) -> None:
        """Drop the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw(server: Any, **kwargs: Any) -> AsyncIterator[Raw]:
    """Connect to a server, or to an address, or on a socket (``sock``)."""
    if hasattr(server, "sockets"):
        server = server.sockets[0].getsockname()
    if server is None:
        streams = await asyncio.open_connection(**kwargs)
    elif isinstance(server, str):
        streams = await asyncio.open_unix_connection(server, **kwargs)
    else:
        streams = await asyncio.open_connection(*server[:2], **kwargs)
    try:
        yield Raw(*streams)
    finally:
        streams[1].close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await streams[1].wait_closed()
