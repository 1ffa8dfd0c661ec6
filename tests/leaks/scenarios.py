"""What the leak check plays, round after round: everything a connection can meet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import Awaitable
from typing import Any

from places import LOOPBACK, SOON, Places, Round, count_to, fail_at
from wire import MASK, frame

import websock
import websock.sync.client

MESSAGES = 500
"""How many one round of ``messages`` sends."""


# -- messages -----------------------------------------------------------------------


async def echo(places: Places) -> None:
    async with websock.connect(places.url()) as ws:
        for size in (0, 5, 200, 70_000):
            for data in ("é" * size, b"a" * size):
                await ws.send(data)
                assert await ws.recv() == data
        for number in range(200):
            await ws.send(str(number))
            await ws.recv()
        await ws.send(["in ", "fragments"])
        assert [part async for part in ws.recv_streaming()]
        await (await ws.ping())


async def messages(places: Places) -> None:
    """Many on each connection, small, some at a time."""
    async with websock.connect(places.url(), compression=None) as ws:
        for number in range(0, MESSAGES, 50):
            texts = [f"message {number + i}" for i in range(50)]
            for text in texts:
                await ws.send(text)
            assert [await ws.recv() for _ in texts] == texts


async def streams(places: Places) -> None:
    """Messages in fragments, whole, left in between, and broken."""
    async with websock.connect(places.url(), close_timeout=1) as ws:
        await ws.send(count_to(5))
        assert "".join([part async for part in ws.recv_streaming()]) == "0 1 2 3 4 "
        await ws.send("stream")
        async with ws.recv_stream() as reader:
            assert await anext(aiter(reader))
    async with websock.connect(places.url(), close_timeout=1) as ws:
        await raises(ws.send(fail_at(2)), RuntimeError)
    async with websock.connect(places.url(), close_timeout=1) as ws:
        await ws.send("half")
        with contextlib.suppress(websock.ConnectionClosed):
            async for _ in ws.recv_streaming():
                pass


async def broadcast(places: Places) -> None:
    [server, *_] = places.servers
    async with contextlib.AsyncExitStack() as stack:
        crowd = [
            await stack.enter_async_context(websock.connect(places.url()))
            for _ in range(4)
        ]
        for number in range(5):
            websock.broadcast(server.connections, f"to all {number}")
            websock.broadcast(server.connections, websock.prepare(b"to all"))
        crowd[0].transport.abort()
        websock.broadcast(server.connections, "to the others")
        for ws in crowd[1:]:
            assert len([await ws.recv() for _ in range(11)]) == 11


# -- opening and ending -------------------------------------------------------------


async def plain(places: Places) -> None:
    async with websock.connect(places.url(), compression=None) as ws:
        await ws.send("a")
        await ws.recv()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.001)
    with contextlib.suppress(websock.ConnectionClosed):
        await ws.send("too late")


async def dropped(places: Places) -> None:
    """Connections that end without a closing handshake, from either side."""
    for url, extra in _urls(places):
        ws = await websock.connect(url, **extra)
        await ws.send("hello")
        ws.transport.abort()
        await ws.wait_closed()
        ws = await websock.connect(url, **extra)
        await ws.send("abort")
        await raises(ws.recv(), websock.ConnectionClosed)
        await ws.wait_closed()


async def secure(places: Places) -> None:
    """Whole connections over TLS, and TLS handshakes that fail."""
    for url, extra in _urls(places)[1:]:
        async with websock.connect(url, **extra) as ws:
            await ws.send("a" * 20_000)
            assert await ws.recv() == "a" * 20_000
        # No TLS where there should be, and no trust in the certificate.
        bare = url.replace("wss", "ws")
        await raises(websock.connect(bare), websock.InvalidMessage, OSError)
        await raises(websock.connect(url), OSError)


def _urls(places: Places) -> list[tuple[str, dict[str, Any]]]:
    urls: list[tuple[str, dict[str, Any]]] = [(places.url(), {})]
    if places.context is not None:
        urls.append((f"wss://{LOOPBACK}:{places.tls}", {"ssl": places.context}))
    return urls


async def cancelled(places: Places) -> None:
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await websock.connect(places.url())


async def timeouts(places: Places) -> None:
    """Opening handshakes that do not end, on both sides, both APIs."""
    for port in (places.hasty, places.hasty_sync):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(REQUEST[:-2])
        await reader.read()
        writer.close()
        await writer.wait_closed()
    silent = f"ws://{LOOPBACK}:{places.silent}"
    await raises(websock.connect(silent, open_timeout=SOON), TimeoutError)

    def wait() -> None:
        with contextlib.suppress(TimeoutError):
            websock.sync.client.connect(silent, open_timeout=SOON)

    await asyncio.to_thread(wait)


REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def raw(places: Places) -> None:
    """Bad frames, bad requests, and connections that are reset."""
    for port in (places.port, places.listener, places.sync):
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"junk\r\n",
            REQUEST + frame(3, b"", mask=MASK),
            REQUEST + frame(1, b"\xff", mask=MASK),
            REQUEST + frame(2, b"", mask=MASK, length=2**62),
            REQUEST
            + frame(1, b"a", fin=False, mask=MASK)
            + frame(8, b"\x03", mask=MASK),
        ):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(data)
            await reader.read()
            writer.close()
            await writer.wait_closed()
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(REQUEST + frame(1, b"half", mask=MASK)[:-1])
        await reader.readuntil(b"\r\n\r\n")
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# -- callbacks, threads -------------------------------------------------------------


class Failing(websock.Listener):
    """A client whose callbacks raise, each at its time."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.closed = asyncio.Event()

    def on_open(self, ws: Any) -> None:
        self.fail("on_open")

    def on_message(self, ws: Any, message: Any) -> None:
        self.fail("on_message")

    def on_pong(self, ws: Any, data: bytes) -> None:
        self.fail("on_pong")

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.closed.set()
        self.fail("on_close")

    def fail(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(where)


async def callbacks(places: Places) -> None:
    """Listeners of both sides, and all of their callbacks that raise."""
    url = f"ws://{LOOPBACK}:{places.listener}"
    async with websock.connect(url) as ws:
        await ws.send("a")
        assert await ws.recv() == "a"
        await (await ws.ping(b"a"))
        await ws.send("raise")
        await raises(ws.recv(), websock.ConnectionClosedError)
    async with websock.connect(url + "/open") as ws:
        await raises(ws.recv(), websock.ConnectionClosedError)
    async with websock.connect(url) as ws:
        await raises(await ws.ping(b"raise"), websock.ConnectionClosedError, done=True)
        await raises(ws.recv(), websock.ConnectionClosedError)
    async with websock.connect(url) as ws:
        await ws.close(1000, "raise")
    for where in ("", "on_open", "on_message", "on_pong", "on_close"):
        listener = Failing(where)
        ws = await websock.connect(url, listener=listener)
        if ws.is_open:
            ws.send_nowait("a")
            with contextlib.suppress(websock.ConnectionClosed):
                await (await ws.ping())
            ws.close_nowait()
        await listener.closed.wait()


async def threads(places: Places) -> None:
    """The threading API: client and server, against each other and asyncio."""

    def run() -> None:
        for port in (places.port, places.sync):
            url = f"ws://{LOOPBACK}:{port}"
            with websock.sync.client.connect(url) as ws:
                ws.send("a")
                assert ws.recv() == "a"
                ws.send(["in ", "fragments"])
                assert "".join(ws.recv_streaming()) == "in fragments"
                ws.ping().wait(10)
                with contextlib.suppress(TimeoutError):
                    ws.recv(timeout=0.001)
                ws.send("raise")
                with contextlib.suppress(websock.ConnectionClosed):
                    ws.recv()
            with contextlib.suppress(websock.ConnectionClosed):
                ws.send("too late")
            dropped = websock.sync.client.connect(url)
            dropped.socket.close()
            dropped.close()

    await asyncio.to_thread(run)
    async with websock.connect(f"ws://{LOOPBACK}:{places.sync}") as ws:
        await ws.send(b"a" * 70_000)
        assert len(await ws.recv()) == 70_000


# -- exceptions ---------------------------------------------------------------------


async def raises(
    awaitable: Awaitable[Any], *kinds: type[BaseException], done: bool = False
) -> None:
    """Await what must raise; with ``done``, it may also have been too quick for it."""
    try:
        await awaitable
    except kinds:
        return
    assert done, f"expected one of {kinds}"


async def fails(places: Places) -> None:
    async with websock.connect(places.url()) as ws:
        await ws.send("raise")
        with contextlib.suppress(websock.ConnectionClosed):
            await ws.recv()


async def exceptions(places: Places) -> None:
    """What a client's calls raise, before, while and after it is connected."""
    for url, kind in (
        (places.url("/refuse"), websock.InvalidHandshake),
        (places.url("/raise"), websock.InvalidHandshake),
        (f"ws://{LOOPBACK}:1", OSError),
    ):
        await raises(websock.connect(url), kind)
    with contextlib.suppress(websock.InvalidURI):
        websock.connect("http://localhost")
    closed = websock.ConnectionClosed
    async with websock.connect(places.url(), max_size=1000, close_timeout=1) as ws:
        await raises(ws.send(1), TypeError)  # type: ignore[arg-type]
        await raises(ws.send(["a", b"b"]), TypeError)
        ws.transport.abort()
    async with websock.connect(places.url(), max_size=1000, close_timeout=1) as ws:
        await raises(ws.ping(b"a" * 126), websock.ProtocolError)
        await raises(ws.close(99), websock.ProtocolError)
        receiving = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        await raises(ws.recv(), websock.ConcurrencyError)
        receiving.cancel()
        await raises(receiving, asyncio.CancelledError)
        await ws.send("large")
        await raises(ws.recv(), closed)
        await raises(ws.send("a"), closed)
        await raises(ws.ping(), closed)
    async with websock.connect(places.url(), close_timeout=1) as ws:
        await ws.send("text")
        await raises(ws.recv(), closed)
    for answer in ANSWERS:
        await raises(_talk_to(answer), websock.InvalidHandshake, closed, OSError)


GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

OPEN = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n"
)

ANSWERS = (
    b"",
    b"junk\r\n\r\n",
    b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
    OPEN % b"wrong" + b"\r\n",
    OPEN + b"Sec-WebSocket-Protocol: unasked\r\n\r\n",
    OPEN + b"Sec-WebSocket-Extensions: unasked\r\n\r\n",
    OPEN
    + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    # A compressed message that is no deflate stream.
    + frame(1, b"\xff\xff\xff", rsv=4),
    OPEN + b"\r\n" + frame(1, b"\xff"),
    OPEN + b"\r\n" + frame(1, b"masked", mask=MASK),
    OPEN + b"\r\n" + frame(0, b"of nothing"),
    OPEN + b"\r\n" + frame(9, b"", fin=False),
    OPEN + b"\r\n" + frame(8, b"\x03"),
    OPEN + b"\r\n" + frame(8, b"\x03\xe8bye"),
)


async def _talk_to(answer: bytes) -> None:
    """Connect to a server that answers so, and wait for the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = head.partition("Sec-WebSocket-Key: ")[2].split("\r\n")[0]
        digest = hashlib.sha1(f"{key}{GUID}".encode()).digest()
        writer.write(answer.replace(b"%s", base64.b64encode(digest)))
        with contextlib.suppress(OSError):
            writer.write_eof()
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://{LOOPBACK}:{port}"
        async with websock.connect(url, close_timeout=1) as ws:
            while True:
                await ws.recv()


SCENARIOS: dict[str, tuple[Round, int]] = {
    "echo": (echo, 3),
    "messages": (messages, 5),
    "streams": (streams, 5),
    "broadcast": (broadcast, 5),
    "plain": (plain, 10),
    "dropped": (dropped, 10),
    "secure": (secure, 2),
    "cancelled": (cancelled, 10),
    "timeouts": (timeouts, 2),
    "raw": (raw, 3),
    "callbacks": (callbacks, 3),
    "threads": (threads, 5),
    "fails": (fails, 10),
    "exceptions": (exceptions, 2),
}
"""Each with how often it is played in a batch, before the scale."""
