"""Clients that break the protocol, flood, stall or vanish: each answer, each bound."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from helpers import request
from raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, raw
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture
from wire import MASK, frame

from websock.asyncio.server import Server, ServerConnection, serve
from websock.exceptions import ConnectionClosed, ConnectionClosedError, PayloadTooBig
from websock.listener import Listener

run = loop_fixture()
tls = tls_fixture()

CONT = 0
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.fixture(autouse=True)
def loops_own_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiofastnet is told of a reset behind input late by libuv: see test_tls.py."""
    monkeypatch.setattr("websock.asyncio.tls.aiofastnet", None)


kinds = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a peer does is no error, and has no traceback, at any level."""
    caplog.set_level(logging.DEBUG, "websock")
    yield
    for record in caplog.get_records("call"):
        assert record.levelno <= logging.INFO, record
        assert record.exc_info is None, record


def masked(opcode: int, payload: bytes = b"", **kwargs: Any) -> bytes:
    return frame(opcode, payload, mask=MASK, **kwargs)


class Site:
    """A server that echoes, and how its handlers ended."""

    def __init__(self, tls: TLS | None) -> None:
        self.server: Server
        self.ends: asyncio.Queue[ConnectionClosed] = asyncio.Queue()
        self.client: dict[str, Any] = {}
        if tls is not None:
            self.client = {"ssl": tls.client, "server_hostname": LOOPBACK}

    async def echo(self, ws: Any) -> None:
        try:
            while True:
                await ws.send(await ws.recv())
        except ConnectionClosed as exc:
            self.ends.put_nowait(exc)
            raise

    def raw(self, **kwargs: Any) -> contextlib.AbstractAsyncContextManager[Raw]:
        return raw(self.server, **self.client, **kwargs)

    async def small(self) -> contextlib.AbstractAsyncContextManager[Raw]:
        """A client with small buffers, so that little is under way when it stops."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        address = self.server.sockets[0].getsockname()
        await asyncio.get_running_loop().sock_connect(sock, address)
        return raw(None, sock=sock, limit=1024, **self.client)

    async def empty(self, left: int = 0) -> None:
        while len(self.server.all_connections) > left:  # noqa: ASYNC110
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serving(
    tls: TLS | None = None, handler: Any = None, **kwargs: Any
) -> AsyncIterator[Site]:
    site = Site(tls)
    if tls is not None:
        kwargs["ssl"] = tls.server
    async with serve(handler or site.echo, LOOPBACK, 0, **kwargs) as server:
        site.server = server
        yield site


class Echo(Listener):
    def on_message(self, ws: Any, message: Any) -> None:
        ws.send_nowait(message)


# -- violations ----------------------------------------------------------------------

LIMIT = 1000

# Frames, close code, reason; and how many of the bytes already say it.
VIOLATIONS: dict[str, tuple[bytes, int, str]] = {
    "rsv1": (
        masked(TEXT, b"x", rsv=0x40),
        1002,
        "reserved bits are set: 0x40, no extension defines them (RFC 6455, 5.2)",
    ),
    "rsv of a ping": (
        masked(PING, rsv=0x70),
        1002,
        "reserved bits are set: 0x70, no extension defines them (RFC 6455, 5.2)",
    ),
    "opcode": (masked(0xB), 1002, "unknown opcode: 0xb (RFC 6455, 5.2)"),
    "fragmented close": (
        masked(CLOSE, fin=False),
        1002,
        "fragmented control frame (RFC 6455, 5.5)",
    ),
    "long ping": (
        masked(PING, bytes(126)),
        1002,
        "control frame is too long: more than 125 bytes, limit 125 (RFC 6455, 5.5)",
    ),
    "unmasked": (frame(PING), 1002, "unmasked frame from client (RFC 6455, 5.1)"),
    "2^63": (
        masked(BINARY, length=2**63),
        1002,
        "payload length has its top bit set (RFC 6455, 5.2)",
    ),
    "2^63 - 1": (
        masked(BINARY, length=2**63 - 1),
        1009,
        f"message is too big: {2**63 - 1} bytes, limit {LIMIT}",
    ),
    "one too many": (
        masked(TEXT, length=LIMIT + 1),
        1009,
        f"message is too big: {LIMIT + 1} bytes, limit {LIMIT}",
    ),
    "fragments": (
        masked(TEXT, b"x" * LIMIT, fin=False) + masked(CONT, length=2**62),
        1009,
        f"message is too big: {LIMIT + 2**62} bytes, limit {LIMIT}",
    ),
    "no continuation": (
        masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"),
        1002,
        "expected a continuation frame, got opcode 0x1 (RFC 6455, 5.4)",
    ),
    "continuation": (
        masked(CONT, b"y"),
        1002,
        "unexpected continuation frame (RFC 6455, 5.4)",
    ),
    "text": (
        masked(TEXT, b"ab\xc0\x80"),
        1007,
        "invalid UTF-8 at byte 2 of the message (RFC 6455, 8.1)",
    ),
    "surrogate": (
        masked(TEXT, b"\xed\xa0\x80"),
        1007,
        "invalid UTF-8 at byte 1 of the message (RFC 6455, 8.1)",
    ),
    "text in fragments": (
        masked(TEXT, "é".encode()[:1], fin=False) + masked(CONT, b"\xff", fin=False),
        1007,
        "invalid UTF-8 at byte 1 of the message (RFC 6455, 8.1)",
    ),
    "cut text": (
        masked(TEXT, "a€".encode()[:-1]),
        1007,
        "truncated UTF-8 at the end of the message, after 3 bytes (RFC 6455, 8.1)",
    ),
    "close of one byte": (
        masked(CLOSE, b"\3"),
        1002,
        "close frame with a payload of 1 byte (RFC 6455, 5.5.1)",
    ),
    "close reason": (
        masked(CLOSE, b"\x03\xe8\xff"),
        1007,
        "invalid UTF-8 in close reason (RFC 6455, 5.5.1)",
    ),
}
for _code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
    VIOLATIONS[f"close code {_code}"] = (
        masked(CLOSE, _code.to_bytes(2, "big")),
        1002,
        f"invalid close code: {_code} (RFC 6455, 7.4)",
    )


@pytest.mark.parametrize("cut", ["whole", "bytes"])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation(run: Run, name: str, cut: str) -> None:
    data, code, reason = VIOLATIONS[name]

    async def main() -> None:
        async with serving(max_size=LIMIT) as site, site.raw() as other:
            await other.open()
            async with site.raw() as client:
                await client.open()
                good = [masked(TEXT, b"%d" % n) for n in range(5)]
                late = masked(TEXT, b"late") + masked(CLOSE, b"\x03\xe8")
                if cut == "whole":
                    await client.send(b"".join(good) + data + late)
                else:
                    for byte in b"".join(good) + data:
                        await client.send(bytes([byte]))
                        await asyncio.sleep(0)
                    await client.send(late)
                for n in range(5):
                    assert await client.frame() == (TEXT, b"%d" % n)
                assert await client.closing() == (code, reason)
            exc = await site.ends.get()
            assert type(exc) is ConnectionClosedError
            assert str(exc) == f"sent {exc.sent}; no close frame received"
            assert exc.sent is not None
            assert (exc.sent.code, exc.sent.reason) == (code, reason)
            cause = exc.__cause__
            assert str(cause) == reason
            if code == 1009:
                assert isinstance(cause, PayloadTooBig)
                assert cause.max_size == LIMIT
            await other.echoed("x")

    run(main())


@kinds
def test_flood_after_a_violation(run: Run, tls: TLS, secure: bool) -> None:
    """It is thrown away, and the client gets the close frame all the same."""

    async def main() -> None:
        async with (
            serving(tls if secure else None) as site,
            site.raw() as client,
        ):
            await client.open()
            await client.send(frame(TEXT, b"x"))
            if not secure:
                await client.send(*[masked(BINARY, bytes(100_000))] * 50)
            assert await client.closing() == (
                1002,
                "unmasked frame from client (RFC 6455, 5.1)",
            )
            await site.empty()
            assert (await site.ends.get()).rcvd is None

    run(main())


def test_flood_of_fragments(run: Run) -> None:
    """Empty ones cost nothing, and are counted."""

    async def main() -> None:
        async with serving() as site, site.raw() as client:
            await client.open()
            await client.send(masked(TEXT, fin=False))
            await client.send(masked(CONT, fin=False) * 131_072)
            assert await client.closing() == (
                1009,
                "too many fragments: limit 131072 in a message",
            )

    run(main())


@kinds
def test_decompression_bomb(run: Run, tls: TLS, secure: bool) -> None:
    deflate = zlib.compressobj(wbits=-15)
    bomb = deflate.compress(bytes(50_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 100_000

    async def main() -> None:
        async with (
            serving(tls if secure else None) as site,
            site.raw() as client,
        ):
            await client.open(DEFLATE)
            await client.send(masked(BINARY, bomb[:-4], rsv=0x40))
            code, reason = await client.closing()
            assert (code, reason) == (
                1009,
                "message is too big: more than 1048576 bytes",
            )

    run(main())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(TEXT, b"\xff\xff\xff", rsv=0x40), 1002),  # no deflate stream
        (masked(TEXT, b"\x62", rsv=0x40), 1002),  # ends inside a block
        (masked(TEXT, b"", fin=False, rsv=0x40) + masked(CONT, b"", rsv=0x40), 1002),
        (masked(TEXT, b"", rsv=0x20), 1002),
        (masked(PING, b"", rsv=0x40), 1002),
    ],
)
def test_bad_compression(run: Run, data: bytes, code: int) -> None:
    async def main() -> None:
        async with serving() as site, site.raw() as client:
            await client.open(DEFLATE)
            await client.send(data)
            assert (await client.closing())[0] == code

    run(main())


# -- clients that do not read --------------------------------------------------------


@kinds
@pytest.mark.parametrize("listens", [False, True], ids=["handler", "listener"])
def test_flood_of_pings(run: Run, tls: TLS, secure: bool, listens: bool) -> None:
    """While nobody reads the pongs, only the newest is kept (RFC 6455, 5.5.3)."""
    rounds, each = 100, 200

    async def main() -> None:
        handler: Any = Listener if listens else None
        options: dict[str, Any] = {"write_limit": 1000, "max_control_rate": None}
        async with (
            serving(tls if secure else None, handler, **options) as site,
            await site.small() as client,
        ):
            await client.open()
            (ws,) = site.server.connections
            most = 0
            for n in range(rounds):
                pings = (masked(PING, b"%06d" % (n * each + m)) for m in range(each))
                await client.send(b"".join(pings))
                most = max(most, ws.buffered_amount)
                await asyncio.sleep(0)
            assert most < 300_000
            await client.send(masked(PING, b"last"))
            pongs = 0
            while (received := await client.frame()) != (PONG, b"last"):
                assert received[0] == PONG
                pongs += 1
            assert pongs <= rounds * each
            assert ws.buffered_amount == 0

    run(main())


@kinds
@pytest.mark.parametrize("listens", [False, True], ids=["handler", "listener"])
def test_client_that_never_reads(
    run: Run, tls: TLS, secure: bool, listens: bool
) -> None:
    """What it sends stays with it, once there is no room for the answers."""

    async def main() -> None:
        handler: Any = Echo if listens else None
        async with (
            serving(tls if secure else None, handler, close_timeout=0.2) as site,
            site.raw() as good,
            await site.small() as client,
        ):
            await client.open()
            (ws,) = site.server.connections
            await good.open()

            async def pour() -> None:
                data = masked(BINARY, bytes(10_000)) * 10
                while True:
                    await client.send(data)

            pouring = asyncio.create_task(pour())
            still = 0
            before = -1
            while still < 50:
                # The others go on.
                await good.echoed("x")
                held = (
                    ws.buffered_amount + client.writer.transport.get_write_buffer_size()
                )
                still = still + 1 if held == before and ws.write_paused else 0
                before = held
            assert ws.buffered_amount < 1_500_000
            assert not pouring.done()
            pouring.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await pouring
            client.reset()

    run(main())


@kinds
def test_client_that_is_dead(run: Run, tls: TLS, secure: bool) -> None:
    """The keepalive deadline holds when the ping itself cannot be written."""

    async def main() -> None:
        ended: asyncio.Future[ConnectionClosed] = asyncio.Future()

        async def pour(ws: ServerConnection) -> None:
            try:
                while True:
                    await ws.send(bytes(10_000))
            except ConnectionClosed as exc:
                ended.set_result(exc)
                raise

        async with (
            serving(
                tls if secure else None,
                pour,
                ping_interval=0.1,
                ping_timeout=0.1,
                close_timeout=None,
            ) as site,
            await site.small() as client,
        ):
            await client.open()
            exc = await ended
            assert isinstance(exc, ConnectionClosedError)
            assert str(exc) == (
                "sent 1011 (internal error) keepalive ping timeout; "
                "no close frame received"
            )

    run(main())


@kinds
def test_client_that_answers_no_ping(run: Run, tls: TLS, secure: bool) -> None:
    async def main() -> None:
        async with (
            serving(
                tls if secure else None, ping_interval=0.05, ping_timeout=0.05
            ) as site,
            site.raw() as client,
        ):
            await client.open()
            assert (await client.frame())[0] == PING
            assert await client.closing() == (1011, "keepalive ping timeout")
            exc = await site.ends.get()
            assert exc.sent is not None
            assert exc.sent.reason == "keepalive ping timeout"

    run(main())


# -- clients that do not end ---------------------------------------------------------


@kinds
@pytest.mark.parametrize("talks", [False, True], ids=["silent", "talking"])
def test_client_that_does_not_answer_the_close_frame(
    run: Run, tls: TLS, secure: bool, talks: bool
) -> None:
    async def close(ws: ServerConnection) -> None:
        await ws.close(4000, "go")
        # What came meanwhile is no more than a queue holds.
        assert ws.queued <= 17

    async def main() -> None:
        async with (
            serving(tls if secure else None, close, close_timeout=0.2) as site,
            site.raw() as client,
        ):
            await client.open()
            assert await client.frame() == (CLOSE, b"\x0f\xa0go")
            with contextlib.suppress(ConnectionError):
                while talks and site.server.all_connections:
                    await client.send(masked(TEXT, b"and another thing") * 100)
                    await asyncio.sleep(0)
            await site.empty()

    run(main())


@kinds
def test_client_that_does_not_hang_up(run: Run, tls: TLS, secure: bool) -> None:
    async def main() -> None:
        async with (
            serving(tls if secure else None, close_timeout=0.2) as site,
            site.raw() as client,
        ):
            await client.open()
            await client.send(masked(CLOSE, b"\x03\xe8"))
            # The server ends its side at once, before the timeout.
            assert await client.frame() == (CLOSE, b"\x03\xe8")
            await site.empty()
            exc = await site.ends.get()
            assert exc.rcvd is not None
            assert exc.rcvd.code == 1000

    run(main())


def test_refused_client_that_does_not_hang_up(run: Run) -> None:
    async def main() -> None:
        async with serving(close_timeout=0.2) as site, site.raw() as client:
            await client.send(request("-Host"))
            assert (await client.answer()).status == 400
            assert len(site.server.all_connections) == 1
            await site.empty()

    run(main())


# -- clients that vanish -------------------------------------------------------------


@kinds
@pytest.mark.parametrize("how", ["reset", "eof"])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        masked(TEXT, b"x" * 1000)[:1],
        masked(TEXT, b"x" * 1000)[:-1],
        masked(TEXT, b"x" * 100_000)[:-1],
        masked(TEXT, b"x", fin=False),
        masked(CLOSE, b"\x03\xe8")[:-1],
    ],
    ids=["open", "header", "payload", "long payload", "fragment", "close"],
)
def test_vanishing(run: Run, tls: TLS, secure: bool, how: str, sent: bytes) -> None:
    async def main() -> None:
        async with serving(tls if secure else None) as site, site.raw() as good:
            await good.open()
            async with site.raw() as client:
                await client.open()
                await client.echoed("first")
                await client.send(sent)
                if how == "reset":
                    client.reset()
                elif secure:
                    client.writer.close()
                else:
                    client.writer.write_eof()
                    assert await client.ended() == b""
                exc = await site.ends.get()
            assert str(exc) == "no close frame received or sent"
            assert isinstance(exc.__cause__, EOFError | OSError)
            await site.empty(1)
            await good.echoed("x")

    run(main())


@pytest.mark.parametrize("stalls", [False, True], ids=["reading", "full queue"])
def test_reset_behind_messages(run: Run, stalls: bool) -> None:
    """It is noticed, although loops may tell of it while there is input before it."""

    async def main() -> None:
        gate = asyncio.Event()
        ended: asyncio.Future[ConnectionClosed] = asyncio.Future()

        async def take(ws: ServerConnection) -> None:
            if stalls:
                await gate.wait()
            try:
                while True:
                    await ws.recv()
            except ConnectionClosed as exc:
                ended.set_result(exc)

        async with (
            serving(None, take, max_queue=1, ping_interval=None) as site,
            site.raw() as client,
        ):
            await client.open()
            # Nothing runs between these: the server sees both at once.
            client.writer.write(masked(TEXT, b"x" * 40_000) * 5)
            client.reset()
            for _ in range(10):
                await asyncio.sleep(0)
            gate.set()
            assert (await ended).rcvd is None

    run(main())


@kinds
@pytest.mark.parametrize("listens", [False, True], ids=["handler", "listener"])
def test_vanishing_while_answers_wait(
    run: Run, tls: TLS, secure: bool, listens: bool
) -> None:
    async def main() -> None:
        handler: Any = Echo if listens else None
        async with serving(tls if secure else None, handler) as site:
            async with await site.small() as client:
                await client.open()
                (ws,) = site.server.connections
                data = masked(BINARY, bytes(10_000))
                while not ws.write_paused:
                    client.writer.write(data)
                    await asyncio.sleep(0)
                client.reset()
                await site.empty()

    run(main())


@kinds
def test_vanishing_during_the_closing_handshake(
    run: Run, tls: TLS, secure: bool
) -> None:
    async def close(ws: ServerConnection) -> None:
        await ws.close()
        assert ws.close_code == 1006

    async def main() -> None:
        async with serving(tls if secure else None, close) as site:
            async with site.raw() as client:
                await client.open()
                assert await client.frame() == (CLOSE, b"\x03\xe8")
                client.reset()
                await site.empty()

    run(main())


def test_early_frames_stay_outside(run: Run) -> None:
    """A hook that waits does not make the server buffer what a client sends."""

    async def main() -> None:
        gate = asyncio.Event()

        async def hook(ws: Any, request: Any) -> None:
            await gate.wait()

        async with serving(process_request=hook) as site, await site.small() as client:
            message = masked(BINARY, bytes(100_000))
            client.writer.write(request() + message * 100)
            transport = client.writer.transport
            before = -1
            while before != (now := transport.get_write_buffer_size()):
                before = now
                await asyncio.sleep(0.02)
            assert now > 1_000_000
            gate.set()
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(100):
                assert await client.frame() == (BINARY, bytes(100_000))

    run(main())
