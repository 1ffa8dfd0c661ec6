"""The asyncio connection: back-pressure both ways, and messages of all sizes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from linked import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    Link,
    Linked,
    link_fixture,
    on_link,
    quiet_fixture,
    settle,
)
from scripted import tls_fixture

from websock.asyncio.connection import Connection
from websock.exceptions import ConnectionClosedError

tls = tls_fixture()
link = link_fixture("socket")
plain_link = link_fixture("socket", "transport")
any_link = link_fixture()
quiet = quiet_fixture()


# -- the queue -----------------------------------------------------------------------

# A tiny number of bytes that can be under way, so that a peer is stopped soon.
SMALL = 4096


class Flood:
    """A peer that sends numbered messages, as fast as it can."""

    def __init__(self, linked: Linked, count: int, size: int) -> None:
        self.peer = linked.peer
        self.count = count
        self.size = size
        self.sent = 0
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        for number in range(self.count):
            await self.peer.send(BINARY, self.message(number))
            self.sent += 1

    def message(self, number: int) -> bytes:
        return b"%06d" % number + b"." * (self.size - 6)

    async def stopped(self) -> int:
        """Wait until it cannot go on; return how many it has sent."""
        sent = -1
        while sent != self.sent:
            sent = self.sent
            await settle(50)
        return sent


@pytest.mark.parametrize(
    ("max_queue", "high"),
    [(16, 16), (0, 0), (1, 1), ((8, 2), 8), ((8, 8), 8), ((None, 1), 4)],
)
@on_link
async def test_peer_is_slowed_down(any_link: Link, max_queue: Any, high: int) -> None:
    async with any_link(buffer_size=SMALL, max_queue=max_queue) as linked:
        ws = linked.ws
        flood = Flood(linked, 400, 10_000)
        # The kernel may take a moment between segments, when buffers are this small.
        async with asyncio.timeout(30):
            while ws.queued <= high:
                await settle()
        sent = await flood.stopped()
        assert sent < 200, "the peer was not slowed down"
        assert ws.queued == high + 1
        for number in range(400):
            assert await ws.recv() == flood.message(number)
            assert ws.queued <= high + 1
        await flood.task


@on_link
async def test_no_queue_limit(link: Link) -> None:
    async with link(buffer_size=SMALL, max_queue=None) as linked:
        flood = Flood(linked, 300, 10_000)
        await flood.task
        await settle(200)
        ws = linked.ws
        assert ws.queued == 300
        assert [await ws.recv() for _ in range(300)] == [
            flood.message(number) for number in range(300)
        ]


@on_link
async def test_marks_of_the_queue(link: Link) -> None:
    """Reading stops above the high mark, and goes on at the low one."""
    async with link(max_queue=(4, 2)) as (ws, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(12)))
        await settle()
        assert ws.queued == 5
        for number, left in ((0, 4), (1, 3)):
            assert await ws.recv() == str(number)
            await settle()
            assert ws.queued == left
        assert await ws.recv() == "2"
        await settle()
        # What was read already is parsed at once, and is full again.
        assert ws.queued == 5
        rest = [await ws.recv() for _ in range(9)]
        assert rest == [str(number) for number in range(3, 12)]


@on_link
async def test_control_frames_wait_behind_a_full_queue(link: Link) -> None:
    async with link(max_queue=1) as (ws, peer):
        await peer.write(
            peer.frame(TEXT, "1")
            + peer.frame(TEXT, "2")
            + peer.frame(PING, "3")
            + peer.frame(TEXT, "4")
        )
        await settle()
        assert ws.queued == 2
        assert await ws.recv() == "1"
        assert await ws.recv() == "2"
        assert await peer.recv() == (PONG, b"3", True)
        assert await ws.recv() == "4"


@on_link
async def test_queue_full_in_the_middle_of_a_frame(link: Link) -> None:
    """Whatever was read with the message that filled the queue is kept, in order."""
    async with link(max_queue=0) as (ws, peer):
        data = b"".join(
            peer.frame(BINARY, b"%d" % number * (number % 300)) for number in range(500)
        )
        sending = asyncio.create_task(peer.write(data))
        for number in range(500):
            assert await ws.recv() == b"%d" % number * (number % 300)
            if number % 7 == 0:
                await settle(3)
        await sending


@on_link
async def test_slow_program_and_fast_peer(any_link: Link) -> None:
    async with any_link(buffer_size=SMALL, max_queue=2) as linked:
        flood = Flood(linked, 200, 5_000)
        number = 0
        async for message in linked.ws:
            assert message == flood.message(number)
            await asyncio.sleep(0)
            number += 1
            if number == 200:
                break
        await flood.task


# -- fragments of a message that is not complete -------------------------------------


@pytest.mark.parametrize("begun", [False, True])
@on_link
async def test_streams_are_slowed_down(any_link: Link, begun: bool) -> None:
    """A message of any length can be taken fragment by fragment, in little memory."""
    count, size = 400, 10_000
    async with any_link(buffer_size=SMALL, max_size=None) as (ws, peer):
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(count):
                opcode = CONT if number else BINARY
                await peer.send(opcode, b"%04d" % number * (size // 4), fin=False)
                sent += 1
            await peer.send(CONT)

        stream = ws.recv_streaming()
        task = asyncio.create_task(send())
        total = b""
        if begun:
            total += await anext(stream)  # type: ignore[operator]
        before = -1
        while before != sent:
            before = sent
            await settle(50)
        assert sent < 200, "the peer was not slowed down"
        pieces = [piece async for piece in stream]
        if begun:
            pieces.insert(0, total)
        assert b"".join(pieces) == b"".join(  # type: ignore[arg-type]
            b"%04d" % number * (size // 4) for number in range(count)
        )
        await task
        await peer.send(TEXT, "next")
        assert await ws.recv() == "next"


@on_link
async def test_fragments_of_a_whole_message_are_awaited(link: Link) -> None:
    """Fragments beyond any mark are no reason not to complete the message."""
    async with link(buffer_size=SMALL, max_size=None, max_queue=1) as (ws, peer):

        async def send() -> None:
            for number in range(100):
                await peer.send(CONT if number else BINARY, b"x" * 10_000, fin=False)
            await peer.send(CONT)

        task = asyncio.create_task(send())
        await settle(200)
        assert not task.done()
        message = await ws.recv()
        assert len(message) == 1_000_000
        await task


@on_link
async def test_close_with_fragments_waiting(link: Link) -> None:
    async with link(buffer_size=SMALL, max_size=None) as (ws, peer):

        async def send() -> None:
            for number in range(50):
                await peer.send(CONT if number else BINARY, b"x" * 10_000, fin=False)
            await peer.answer_close()

        task = asyncio.create_task(send())
        await settle(200)
        await ws.close()
        await task
        assert ws.close_code == 1000


# -- the write buffer ----------------------------------------------------------------


async def fill(ws: Connection) -> int:
    """Send until much more than what can be under way waits; tell how many times."""
    count = 0
    while ws.buffered_amount < 200_000:
        ws.send_nowait(b"%04d" % count * 2500)
        count += 1
        await settle(5)
    assert ws.write_paused
    return count


@pytest.mark.parametrize(
    ("write_limit", "low"),
    [(2**15, 2**13), (0, 0), (1, 0), (100_000, 25_000), ((100_000, 50_000), 50_000)],
)
@on_link
async def test_send_waits(plain_link: Link, write_limit: Any, low: int) -> None:
    async with plain_link(buffer_size=SMALL, write_limit=write_limit) as (ws, peer):
        count = await fill(ws)
        sending = asyncio.ensure_future(ws.send(b"last"))
        await settle()
        assert not sending.done()
        for number in range(count):
            assert not sending.done() or ws.buffered_amount <= low
            assert (await peer.recv()).payload == b"%04d" % number * 2500
        await sending
        assert not ws.write_paused
        assert (await peer.recv()).payload == b"last"
        # And it goes on as before.
        await ws.send("next")
        assert (await peer.recv()).payload == b"next"


@pytest.mark.parametrize("write_limit", [1000, 0])
@on_link
async def test_sending_is_slowed_down(any_link: Link, write_limit: int) -> None:
    async with any_link(buffer_size=SMALL, write_limit=write_limit) as (ws, peer):
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(400):
                await ws.send(b"%04d" % number * 2500)
                sent += 1

        task = asyncio.create_task(send())
        await settle(500)
        assert sent < 200, "sending was not slowed down"
        for number in range(400):
            assert (await peer.recv()).payload == b"%04d" % number * 2500
        await task


@on_link
async def test_many_senders_wait(link: Link) -> None:
    async with link(buffer_size=SMALL, write_limit=1000) as (ws, peer):
        count = await fill(ws)
        tasks = [asyncio.ensure_future(ws.send(str(n))) for n in range(20)]
        await settle()
        assert not any(task.done() for task in tasks)
        for _ in range(count):
            await peer.recv()
        await asyncio.gather(*tasks)
        # In the order of the calls.
        received = [await peer.recv() for _ in range(20)]
        assert [r.payload for r in received] == [b"%d" % n for n in range(20)]


@on_link
async def test_fragments_ping_and_pong_wait_too(link: Link) -> None:
    async with link(buffer_size=SMALL, write_limit=1000) as (ws, peer):
        count = await fill(ws)
        calls: list[Any] = [ws.ping("ping"), ws.pong("pong"), ws.send(["a", "b"])]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await settle()
        assert not any(task.done() for task in tasks)
        for _ in range(count):
            await peer.recv()
        assert [(await peer.recv()).opcode for _ in range(5)] == [
            PING,
            PONG,
            TEXT,
            CONT,
            CONT,
        ]
        await asyncio.gather(*tasks)


@on_link
async def test_fragments_are_slowed_down(any_link: Link) -> None:
    made = 0

    async def items() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(300):
            made += 1
            yield b"x" * 10_000

    async with any_link(buffer_size=SMALL, write_limit=1000) as (ws, peer):
        sending = asyncio.create_task(ws.send(items()))
        await settle(200)
        assert made < 200, "the iterable was not slowed down"
        for _ in range(301):
            await peer.recv()
        await sending


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
@on_link
async def test_waiting_sends_when_the_connection_ends(link: Link, how: str) -> None:
    options = {"buffer_size": SMALL, "write_limit": 1000, "close_timeout": 0.05}
    async with link(**options) as (ws, peer):
        await fill(ws)
        calls: list[Any] = [ws.send("x"), ws.ping(), ws.send(["a", "b"]), ws.send("y")]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await settle()
        if how == "close":
            await ws.close()
        elif how == "abort":
            ws.transport.abort()
        else:
            peer.reset()
        for task in tasks:
            with pytest.raises(ConnectionClosedError):
                await task


@on_link
async def test_pings_of_a_peer_that_does_not_read(link: Link) -> None:
    """Only the newest is answered once it reads: nothing piles up (RFC 6455, 5.5.3)."""
    async with link(buffer_size=SMALL, write_limit=1000) as (ws, peer):
        count = await fill(ws)
        before = ws.buffered_amount
        for number in range(200):
            await peer.send(PING, b"%0100d" % number)
        await peer.send(TEXT, "read")
        assert await ws.recv() == "read"
        assert ws.buffered_amount <= before
        for _ in range(count):
            await peer.recv()
        assert await peer.recv() == (PONG, b"%0100d" % 199, True)
        await peer.send(PING, "again")
        assert await peer.recv() == (PONG, b"again", True)


@on_link
async def test_buffered_amount(link: Link) -> None:
    async with link(buffer_size=SMALL, write_limit=2**24) as (ws, peer):
        assert ws.buffered_amount == 0
        await ws.send("x")
        assert ws.buffered_amount == 0
        await peer.recv()
        for _ in range(100):
            await ws.send(b"x" * 10_000)
        sock = ws.transport.get_extra_info("socket")
        assert isinstance(sock, socket.socket)
        amount = ws.buffered_amount
        assert 100_000 < amount <= 100 * (10_000 + 8)
        assert ws.transport.get_write_buffer_size() == amount
        for _ in range(100):
            await peer.recv()
        assert ws.buffered_amount == 0


@on_link
async def test_both_ways_at_once(any_link: Link) -> None:
    """Full buffers in one direction do not stop the other."""
    async with any_link(buffer_size=SMALL, write_limit=1000) as (ws, peer):
        sending = asyncio.create_task(ws.send(b"x" * 500_000))
        more = asyncio.create_task(ws.send(b"y" * 500_000))
        await settle()
        for number in range(100):
            await peer.send(TEXT, str(number))
            assert await ws.recv() == str(number)
        assert (await peer.recv()).payload == b"x" * 500_000
        assert (await peer.recv()).payload == b"y" * 500_000
        await asyncio.gather(sending, more)


# -- sizes ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
@on_link
async def test_big_messages(any_link: Link, text: bool) -> None:
    size = 16 * 2**20
    async with any_link(max_size=size) as (ws, peer):
        data = (
            bytes(range(256)) * (size // 256)
            if not text
            else b"\xc3\xa9 " * (size // 3)
        )
        opcode = TEXT if text else BINARY
        task = asyncio.create_task(peer.send(opcode, data))
        message = await ws.recv()
        await task
        assert (message.encode() if isinstance(message, str) else message) == data
        sending = asyncio.ensure_future(ws.send(message))
        received = await peer.recv()
        assert received.opcode == opcode
        assert received.payload == data
        await sending


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 13, 14, 15, 125])
@on_link
async def test_messages_in_little_pieces(link: Link, cut: int) -> None:
    """However the network cuts them."""
    messages: list[str | bytes] = ["a", "é" * 70, b"x" * 126, "", b"\0" * 65536, "end"]
    async with link() as (ws, peer):
        data = b""
        for message in messages:
            opcode = TEXT if isinstance(message, str) else BINARY
            data += peer.frame(opcode, message)
        head, tail = data[:400], data[400:]
        pieces = [head[i : i + cut] for i in range(0, len(head), cut)]
        for piece in (*pieces, tail[:-cut], tail[-cut:]):
            await peer.write(piece)
            await settle(3)
        assert [await ws.recv() for _ in messages] == messages


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 131072, 300_000])
@on_link
async def test_round_trips(any_link: Link, size: int) -> None:
    async with any_link() as (ws, peer):
        for number in range(4):
            payload = bytes([number]) * size
            task = asyncio.create_task(peer.send(BINARY, payload))
            message = await ws.recv()
            await task
            sending = asyncio.ensure_future(ws.send(message))
            assert (await peer.recv()).payload == payload
            await sending
