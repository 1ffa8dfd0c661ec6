"""Many messages at once, the newest only, byte limits, and peers that read slowly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from linked import BINARY, CLOSE, TEXT, Link, link_fixture, on_link, settle
from scripted import LOOPBACK, run_on, tls_fixture

import websock
from websock import SlowConsumer, prepare
from websock.asyncio.connection import Connection, broadcast
from websock.exceptions import ConnectionClosed, ConnectionClosedError
from websock.slow import Backlog

tls = tls_fixture()
link = link_fixture("socket")
plain_link = link_fixture("socket", "transport")
SMALL = 4096


# -- receiving several ---------------------------------------------------------------


@on_link
async def test_recv_many(plain_link: Link) -> None:
    async with plain_link() as (ws, peer):
        waiting = asyncio.ensure_future(ws.recv_many())
        await settle()
        assert not waiting.done()
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(10)))
        assert await waiting == [str(n) for n in range(10)]
        await peer.write(b"".join(peer.frame(BINARY, b"%d" % n) for n in range(10)))
        assert await ws.recv_many(3) == [b"0", b"1", b"2"]
        assert await ws.recv_many(1, decode=True) == ["3"]
        assert await ws.recv_many(100, decode=True) == [str(n) for n in range(4, 10)]
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                await ws.recv_many(wrong)


@on_link
async def test_recv_many_when_one_cannot_be_decoded(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(
            peer.frame(BINARY, b"good")
            + peer.frame(BINARY, b"\xff")
            + peer.frame(BINARY, b"late")
        )
        assert await ws.recv_many(decode=True) == ["good"]
        assert (await peer.answer_close())[:2] == (1007).to_bytes(2, "big")
        assert await ws.recv() == b"late"  # it was received before
        with pytest.raises(ConnectionClosedError):
            await ws.recv_many()


@on_link
async def test_recv_latest(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(5)))
        assert await ws.recv_latest() == "4"
        waiting = asyncio.ensure_future(ws.recv_latest(decode=False))
        await settle()
        await peer.send(TEXT, "5")
        assert await waiting == b"5"
        await peer.close_frame()
        await peer.answer_close()
        with pytest.raises(ConnectionClosed):
            await ws.recv_latest()


@on_link
async def test_recv_many_cancelled(link: Link) -> None:
    async with link() as (ws, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await ws.recv_many()
        await peer.send(TEXT, "kept")
        assert await ws.recv_many() == ["kept"]


# -- bytes in the queue --------------------------------------------------------------


@on_link
async def test_queue_is_limited_in_bytes(plain_link: Link) -> None:
    async with plain_link(
        buffer_size=SMALL, max_queue=None, max_queue_bytes=50_000
    ) as (ws, peer):
        message = b"." * 10_000

        async def flood() -> None:
            for _ in range(100):
                await peer.send(BINARY, message)

        flooding = asyncio.create_task(flood())
        sizes = set()
        for _ in range(100):
            await settle(30)
            sizes.add(ws.queued_size)
            assert ws.queued_size == 10_000 * ws.queued
            assert await ws.recv() == message
        # One message more than the limit, and no more.
        assert max(sizes) == 60_000
        await flooding
        assert ws.queued_size == 0


@on_link
async def test_one_message_above_the_limit(link: Link) -> None:
    async with link(max_queue_bytes=10) as (ws, peer):
        for number in range(3):
            await peer.send(TEXT, f"{number}" * 100)
            assert await ws.recv() == f"{number}" * 100


@on_link
async def test_queue_size_counts_every_kind(link: Link) -> None:
    async with link(max_queue_bytes=None) as (ws, peer):
        await peer.write(
            peer.frame(TEXT, "é☺")
            + peer.frame(BINARY, b"12345")
            + peer.frame(BINARY, b"67", fin=False)
            + peer.frame(0, b"8")
        )
        await settle()
        assert ws.queued_size == 2 + 5 + 3
        assert [await ws.recv() for _ in range(3)] == ["é☺", b"12345", b"678"]
        assert ws.queued_size == 0


# -- prepared messages ---------------------------------------------------------------


@on_link
async def test_prepared(plain_link: Link) -> None:
    async with plain_link() as (ws, peer):
        for message, text, opcode, payload in (
            ("text", None, TEXT, b"text"),
            ("☺", None, TEXT, "☺".encode()),
            ("text", False, BINARY, b"text"),
            (b"bytes", None, BINARY, b"bytes"),
            (bytearray(b"text"), True, TEXT, b"text"),
            (memoryview(b"x" * 70_000), None, BINARY, b"x" * 70_000),
        ):
            prepared = prepare(message, text=text)
            await ws.send(prepared)
            ws.send_nowait(prepared)
            broadcast([ws], prepared)
            assert ws.post(prepared)
            for _ in range(4):
                received = await peer.recv()
                assert (received.opcode, received.payload) == (opcode, payload)
        assert repr(prepare("a")) == "<PreparedMessage text, 1 bytes>"
        assert ws.stats().messages_sent == 24


@on_link
async def test_prepared_wrongly(link: Link) -> None:
    async with link() as (ws, _):
        for wrong in (None, 1, ["a"]):
            with pytest.raises(TypeError, match="str or bytes-like, not"):
                prepare(wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="str or bytes-like, not"):
                ws.send_nowait(wrong)
        for send in (
            lambda: ws.send_nowait(prepare("a"), text=True),
            lambda: broadcast([ws], prepare("a"), text=True),
        ):
            with pytest.raises(TypeError, match="chosen in prepare"):
                send()
        with pytest.raises(TypeError, match="chosen in prepare"):
            await ws.send(prepare("a"), text=False)


@pytest.mark.parametrize("no_context", [False, True])
def test_prepared_and_compressed(no_context: bool) -> None:
    from websock.extensions.permessage_deflate import (
        ClientPerMessageDeflateFactory,
        ServerPerMessageDeflateFactory,
    )

    message = "compressible " * 100
    offered = [
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(
            server_no_context_takeover=no_context, client_no_context_takeover=no_context
        ),
    ]

    async def main() -> None:
        async def handler(ws: Any) -> None:
            await ws.recv()
            for prepared in (prepare(message), prepare(message, compress=False)):
                for _ in range(3):
                    await ws.send(prepared)
                ws.server_sent = ws.stats()
            await ws.wait_closed()

        async with websock.serve(
            handler,
            LOOPBACK,
            0,
            compression=None,
            extensions=[
                ServerPerMessageDeflateFactory(
                    server_no_context_takeover=no_context,
                    client_no_context_takeover=no_context,
                )
            ],
        ) as server:
            port = server.sockets[0].getsockname()[1]
            async with websock.connect(
                f"ws://{LOOPBACK}:{port}",
                proxy=None,
                compression=None,
                extensions=offered[1:],
            ) as ws:
                await ws.send(prepare("go"))
                assert [await ws.recv() for _ in range(6)] == [message] * 6
                stats = ws.stats()
                assert stats.payload_received == 6 * len(message)
                # Three are compressed and three are not.
                assert 3 * len(message) < stats.bytes_received < 4 * len(message)

    run_on(None, main())


def test_compressed_once_for_many() -> None:
    from websock.extensions.deflate import DeflateParameters, DeflateTransform
    from websock.protocol import Protocol, Side

    compressed = 0

    class Transform(DeflateTransform):
        def encode(self, opcode: int, fin: bool, data: bytes) -> tuple[int, bytes]:
            nonlocal compressed
            compressed += 1
            return super().encode(opcode, fin, data)

    prepared = prepare("compressible " * 100)
    frames = set()
    for no_context, bits in ((True, 12), (True, 12), (True, 10), (False, 12)):
        protocol = Protocol(Side.SERVER)
        protocol._transform = Transform(
            DeflateParameters(no_context, no_context, bits, bits, {}, 0)
        )
        frames.add(prepared.frame_for(protocol))
    assert compressed == 3
    assert all(len(frame) < 100 and frame[0] == 0xC1 for frame in frames)


# -- peers that read slowly ----------------------------------------------------------


async def stop(ws: Connection) -> int:
    """Send until nothing more can be written; return how many messages that took."""
    count = 0
    while not ws.write_paused:
        assert ws.post(b"%04d" % count * 2500)
        count += 1
        await settle(5)
    return count


@on_link
async def test_backlog_in_order(plain_link: Link) -> None:
    slow = SlowConsumer(max_messages=1000)
    async with plain_link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        count = await stop(ws)
        for number in range(50):
            assert ws.post(f"{number}")
        assert len(ws.backlog) == 50
        for number in range(count):
            assert (await peer.recv()).payload == b"%04d" % number * 2500
        for number in range(50):
            assert (await peer.recv()).payload == b"%d" % number
        assert not ws.backlog
        assert ws.stats().dropped == 0
        assert ws.post("direct")
        assert (await peer.recv()).payload == b"direct"


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("drop_oldest", ["7", "8", "9"]), ("drop_newest", ["0", "1", "2"])],
)
@on_link
async def test_full_backlog(link: Link, policy: Any, kept: list[str]) -> None:
    told = []
    slow = SlowConsumer(
        policy, max_messages=3, on_drop=lambda ws, count: told.append((ws, count))
    )
    async with link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        count = await stop(ws)
        results = [ws.post(str(number)) for number in range(10)]
        assert results == [True] * 3 + [False] * 7
        assert told == [(ws, 1)] * 7
        assert ws.stats().dropped == 7
        for _ in range(count):
            await peer.recv()
        assert [(await peer.recv()).payload.decode() for _ in range(3)] == kept


@on_link
async def test_limit_in_bytes(link: Link) -> None:
    slow = SlowConsumer("drop_oldest", max_bytes=1000)
    async with link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        count = await stop(ws)
        for number in range(30):
            ws.post(b"%02d" % number * 50)
        assert ws.backlog.size == 1000
        assert ws.post(b"x" * 2000) is False  # more than the limit, and the newest
        assert (len(ws.backlog), ws.backlog.size) == (1, 2000)
        for _ in range(count):
            await peer.recv()
        assert (await peer.recv()).payload == b"x" * 2000


@on_link
async def test_latest_of_each_key(link: Link) -> None:
    slow = SlowConsumer("latest", max_messages=3)
    async with link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        count = await stop(ws)
        assert ws.post("a1", key="a")
        assert ws.post("b1", key="b")
        assert not ws.post("a2", key="a")  # in the place of a1
        assert ws.post("no key")
        assert not ws.post("c1", key="c")  # there are too many: b1 goes
        assert ws.stats().dropped == 2
        for _ in range(count):
            await peer.recv()
        assert [(await peer.recv()).payload for _ in range(3)] == [
            b"a2",
            b"no key",
            b"c1",
        ]


@on_link
async def test_closing_slow_peers(link: Link) -> None:
    slow = SlowConsumer("close", max_messages=2)
    async with link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        count = await stop(ws)
        assert [ws.post("a"), ws.post("b"), ws.post("c")] == [True, True, False]
        assert not ws.is_open
        with pytest.raises(ConnectionClosed):
            ws.post("d")
        for _ in range(count):
            await peer.recv()
        received = await peer.recv()
        assert received.opcode == CLOSE
        assert received.payload == (1013).to_bytes(2, "big") + b"too slow"
        assert ws.stats().dropped == 3


@on_link
async def test_backlog_of_a_connection_that_ends(link: Link) -> None:
    told: list[int] = []

    def on_drop(ws: Any, count: int) -> None:
        told.append(count)
        raise LookupError("of the program")  # is logged

    slow = SlowConsumer(on_drop=on_drop)
    async with link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        await stop(ws)
        ws.post("a")
        ws.post("b")
        peer.reset()
        await ws.wait_closed()
        assert told == [2]
        assert ws.stats().dropped == 2


@on_link
async def test_broadcast_to_slow_peers(link: Link) -> None:
    slow = SlowConsumer("latest", max_messages=2)
    async with link(buffer_size=SMALL, slow_consumer=slow) as (ws, peer):
        fast = await link.make()
        count = await stop(ws)
        for number in range(5):
            broadcast([ws, fast.ws], f"price {number}", key="price")
        for number in range(5):
            assert (await fast.peer.recv()).payload == b"price %d" % number
        assert ws.stats().dropped == 4
        for _ in range(count):
            await peer.recv()
        assert (await peer.recv()).payload == b"price 4"


@on_link
async def test_posting_during_a_fragmented_message(link: Link) -> None:
    go_on = asyncio.Event()

    async def parts() -> Any:
        yield "one"
        await go_on.wait()
        yield "two"

    async with link(slow_consumer=SlowConsumer()) as (ws, peer):
        sending = asyncio.create_task(ws.send(parts()))
        assert (await peer.recv()).payload == b"one"
        assert ws.post("after it")
        broadcast([ws], "and this")
        go_on.set()
        await sending
        payloads = [(await peer.recv()).payload for _ in range(4)]
        assert payloads == [b"two", b"", b"after it", b"and this"]


@on_link
async def test_post_without_a_policy(link: Link) -> None:
    async with link() as (ws, peer):
        assert ws.post("a")
        assert (await peer.recv()).payload == b"a"
        assert ws.backlog is None


def test_wrong_settings() -> None:
    for arguments, text in (
        ({"policy": "none"}, "unknown policy 'none': there are drop_oldest"),
        ({"max_messages": 0}, "at least 1, not 0"),
        ({"max_bytes": -1}, "must not be negative: -1"),
    ):
        with pytest.raises(ValueError, match=text):
            SlowConsumer(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="slow_consumer must be a SlowConsumer"):
        websock.connect("ws://localhost", slow_consumer="close")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_queue_bytes must not be negative: -1"):
        websock.connect("ws://localhost", max_queue_bytes=-1)
    with pytest.raises(ValueError, match="max_queue_bytes must not be negative: -1"):
        websock.serve(Connection.recv, max_queue_bytes=-1)  # type: ignore[arg-type]


def test_backlog_counts() -> None:
    backlog = Backlog(SlowConsumer("drop_oldest", max_messages=2))
    for number in range(4):
        backlog.add(prepare(str(number) * 10), None)
    assert (len(backlog), backlog.size, backlog.dropped) == (2, 20, 2)
    assert backlog.take().payload == b"2" * 10
    assert backlog.clear() == 1
    assert (len(backlog), backlog.size, backlog.dropped) == (0, 0, 3)
