"""The asyncio connection: how it ends, from both sides and by accident; keepalive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from linked import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Link,
    Peer,
    close_payload,
    link_fixture,
    on_link,
    quiet_fixture,
    settle,
    socket_pair,
)
from scripted import tls_fixture

from websock.asyncio.connection import Connection
from websock.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from websock.frames import CloseCode
from websock.protocol import Protocol, State

tls = tls_fixture()
link = link_fixture("socket")
any_link = link_fixture()
quiet = quiet_fixture()


# -- this side closes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "é" * 61), (4999, "x" * 123)]
)
@on_link
async def test_close(any_link: Link, code: int, reason: str) -> None:
    async with any_link() as (ws, peer):
        answer = asyncio.create_task(peer.answer_close())
        await ws.close(code, reason)
        assert await answer == close_payload(code, reason)
        assert ws.state is State.CLOSED
        assert ws.close_code == code
        assert ws.close_reason == reason
        # Again, and once it is closed: harmless.
        await ws.close()
        await ws.close(1011, "ignored")
        await ws.wait_closed()
        with pytest.raises(ConnectionClosed) as raised:
            await ws.recv()
        error = raised.value
        assert error.sent == error.rcvd
        assert error.sent is not None
        assert (error.sent.code, error.sent.reason) == (code, reason)
        assert error.rcvd_then_sent is False
        assert isinstance(error, ConnectionClosedOK) is (code < 1002)
        assert error.__cause__ is None


@on_link
async def test_server_ends_tcp_first(link: Link) -> None:
    async with link() as (ws, peer):
        closing = asyncio.create_task(ws.close())
        assert (await peer.recv()).opcode == CLOSE
        await peer.close_frame()
        if link.is_server:
            # Both close frames went by, so the server ends its half.
            assert await peer.ended() == b""
        await settle()
        assert not closing.done()
        peer.half_close()
        await closing
        assert await peer.ended() == b""


@on_link
async def test_close_frame_is_the_last_thing_sent(link: Link) -> None:
    async with link() as (ws, peer):
        await ws.send("one")
        await ws.send("two")
        closing = asyncio.create_task(ws.close())
        await settle()
        await peer.send(PING, "answered no more?")
        await peer.close_frame()
        frames = [await peer.recv() for _ in range(3)]
        assert [frame.payload for frame in frames] == [b"one", b"two", b"\x03\xe8"]
        peer.half_close()
        await closing


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1005, "", "invalid close code: 1005 (RFC 6455, 7.4)"),
        (1006, "", "invalid close code: 1006"),
        (1004, "", "invalid close code: 1004"),
        (1015, "", "invalid close code: 1015"),
        (999, "", "invalid close code: 999"),
        (2999, "", "invalid close code: 2999"),
        (5000, "", "invalid close code: 5000"),
        (0, "", "invalid close code: 0"),
        (-1, "", "invalid close code: -1"),
        (1000, "x" * 124, "close reason is too long: 124 bytes, limit 123"),
        (1000, "é" * 62, "close reason is too long: 124 bytes, limit 123"),
        (1000, "\ud800", "close reason contains a surrogate"),
    ],
)
@on_link
async def test_close_wrongly(link: Link, code: int, reason: str, text: str) -> None:
    async with link() as (ws, peer):
        for call in (ws.close, ws.close_nowait):
            with pytest.raises(ValueError) as raised:
                await call_either(call, code, reason)
            assert str(raised.value).startswith(text)
        # Nothing happened.
        await ws.send("fine")
        assert await peer.recv() == (TEXT, b"fine", True)


async def call_either(call: Callable[..., Any], *args: Any) -> None:
    """Call a function, whether a coroutine function or not."""
    if (result := call(*args)) is not None:
        await result


@pytest.mark.parametrize("args", [("1000",), (1000, 3), (None,), (1000.5,)])
@on_link
async def test_close_with_wrong_types(link: Link, args: Any) -> None:
    async with link() as (ws, _):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            await ws.close(*args)
        assert ws.state is State.OPEN


@on_link
async def test_close_nowait(link: Link) -> None:
    async with link() as (ws, peer):
        ws.close_nowait(CloseCode.GOING_AWAY, "soon")
        assert ws.state is State.CLOSING
        assert ws.close_code is None
        assert repr(ws).startswith("<Connection closing")
        ws.close_nowait()
        assert await peer.answer_close() == close_payload(1001, "soon")
        await ws.wait_closed()


@on_link
async def test_many_wait_for_the_end(link: Link) -> None:
    async with link() as (ws, peer):
        tasks = [
            asyncio.create_task(call)
            for call in (ws.close(), ws.wait_closed(), ws.close(1001), ws.wait_closed())
        ]
        await settle()
        assert await peer.answer_close() == close_payload(1000)
        await asyncio.gather(*tasks)


@on_link
async def test_messages_are_received_while_closing(link: Link) -> None:
    async with link() as (ws, peer):
        closing = asyncio.create_task(ws.close())
        await peer.recv()
        await peer.send(TEXT, "on its way")
        await peer.send(PING, "pinged")
        await peer.close_frame(1001)
        peer.half_close()
        await closing
        assert await ws.recv() == "on its way"
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


@on_link
async def test_close_when_the_queue_is_full(any_link: Link) -> None:
    """The answer is behind messages that nobody wants: it is found all the same."""
    async with any_link(max_queue=2) as (ws, peer):
        for number in range(10):
            await peer.send(TEXT, str(number))
        await settle()
        answer = asyncio.create_task(peer.answer_close())
        await ws.close()
        assert await answer == close_payload(1000)
        # Those that were received are still there.
        received = [message async for message in ws]
        assert received == [str(number) for number in range(3)]


@on_link
async def test_no_gap_when_closing(link: Link) -> None:
    """Messages that find no room are dropped, and all that follow."""
    async with link(max_queue=2) as (ws, peer):
        ws.close_nowait()
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(10)))
        await settle()
        assert await ws.recv() == "0"
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(10, 20)))
        await settle()
        await peer.answer_close()
        assert [message async for message in ws] == ["1", "2"]


@on_link
async def test_close_when_the_peer_does_not_read(link: Link) -> None:
    """What was sent before goes out first, when the peer reads again."""
    async with link(buffer_size=4096, write_limit=2**20) as (ws, peer):
        await ws.send(b"x" * 500_000)
        closing = asyncio.create_task(ws.close())
        await settle()
        assert (await peer.recv()).payload == b"x" * 500_000
        assert await peer.answer_close() == close_payload(1000)
        await closing


@on_link
async def test_close_timeout(any_link: Link) -> None:
    async with any_link(close_timeout=0.05) as (ws, peer):
        await ws.close(1001, "bye")
        assert ws.state is State.CLOSED
        assert ws.close_code == 1006
        with pytest.raises(ConnectionClosedError) as raised:
            await ws.recv()
        assert str(raised.value) == (
            "sent 1001 (going away) bye; no close frame received"
        )
        assert isinstance(raised.value.__cause__, TimeoutError)
        assert str(raised.value.__cause__) == "timed out while closing connection"
        assert (await peer.recv()).opcode == CLOSE


@on_link
async def test_close_timeout_of_a_peer_that_does_not_read(any_link: Link) -> None:
    options = {"buffer_size": 4096, "write_limit": 2**22, "close_timeout": 0.05}
    async with any_link(**options) as (ws, _):
        for _ in range(4):
            await ws.send(b"x" * 500_000)
        await ws.close()
        assert ws.close_code == 1006
        assert ws.buffered_amount == 0


@on_link
async def test_close_timeout_after_both_close_frames(link: Link) -> None:
    """The peer answers and then leaves the connection open."""
    async with link(close_timeout=0.05) as (ws, peer):
        closing = asyncio.create_task(ws.close())
        await peer.recv()
        await peer.close_frame()
        await closing
        assert ws.close_code == 1000
        with pytest.raises(ConnectionClosedOK) as raised:
            await ws.recv()
        assert isinstance(raised.value.__cause__, TimeoutError)


@on_link
async def test_no_close_timeout(link: Link) -> None:
    async with link(close_timeout=None) as (ws, peer):
        closing = asyncio.create_task(ws.close())
        await settle()
        assert not closing.done()
        await peer.answer_close()
        await closing


@on_link
async def test_close_before_it_is_open(link: Link) -> None:
    ws = Connection(Protocol(link.side, state=State.CONNECTING), close_timeout=0.05)
    ours, theirs = socket_pair()
    with theirs:
        ws.start(ours)
        await ws.close()
    assert ws.is_lost


# -- the peer closes -----------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
@on_link
async def test_peer_closes(any_link: Link, waits: bool) -> None:
    async with any_link() as (ws, peer):
        task = asyncio.create_task(ws.recv()) if waits else None
        await settle()
        await peer.close_frame(1001, "bye")
        assert (await peer.recv()).payload == close_payload(1001, "bye")
        peer.close()
        with pytest.raises(ConnectionClosedOK) as raised:
            await (task or ws.recv())
        error = raised.value
        assert str(error) == (
            "received 1001 (going away) bye; then sent 1001 (going away) bye"
        )
        assert error.rcvd_then_sent is True
        assert (ws.close_code, ws.close_reason) == (1001, "bye")


@on_link
async def test_peer_closes_without_a_code(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(CLOSE)
        assert await peer.recv() == (CLOSE, b"", True)
        peer.close()
        with pytest.raises(ConnectionClosedOK, match=r"received 1005 \(no status"):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (1005, "")


@on_link
async def test_nothing_is_received_after_a_close_frame(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(
            peer.frame(TEXT, "before")
            + peer.frame(CLOSE, close_payload(1000))
            + peer.frame(TEXT, "after")
            + b"\xff" * 1000
        )
        peer.half_close()
        assert [message async for message in ws] == ["before"]
        assert ws.close_code == 1000
        received = await peer.recv()
        assert received == (CLOSE, close_payload(1000), True)


@on_link
async def test_both_close_at_once(link: Link) -> None:
    async with link() as (ws, peer):
        ws.close_nowait(1001)
        await peer.close_frame(4000)
        peer.half_close()
        await ws.wait_closed()
        assert ws.close_code == 4000
        with pytest.raises(ConnectionClosedError) as raised:
            await ws.recv()
        assert raised.value.rcvd_then_sent is False


@on_link
async def test_peer_closes_while_the_program_answers(link: Link) -> None:
    """Messages that came before the close frame are handled while sending works."""
    async with link() as (ws, peer):

        async def echo() -> None:
            async for message in ws:
                await ws.send(message)

        task = asyncio.create_task(echo())
        await settle()
        await peer.write(
            peer.frame(TEXT, "1")
            + peer.frame(TEXT, "2")
            + peer.frame(CLOSE, close_payload(1000))
        )
        assert [(await peer.recv()).payload for _ in range(3)] == [
            b"1",
            b"2",
            close_payload(1000),
        ]
        peer.half_close()
        await task


# -- the peer breaks a rule ----------------------------------------------------------


def bad_mask(peer: Peer) -> bytes:
    data = bytearray(peer.frame(TEXT, "x"))
    data[1] ^= 0x80
    return bytes(data)


BAD: list[Any] = [
    pytest.param(
        bad_mask, 1002, r"(un)?masked frame from (client|server) \(RFC 6455, 5.1\)"
    ),
    pytest.param(
        lambda peer: peer.frame(TEXT, "x", rsv=0x40),
        1002,
        r"reserved bits are set: 0x40, no extension defines them",
    ),
    pytest.param(lambda peer: peer.frame(3), 1002, r"unknown opcode: 0x3 \(RFC 6455"),
    pytest.param(
        lambda peer: peer.frame(PING, fin=False),
        1002,
        r"fragmented control frame \(RFC 6455, 5.5\)",
    ),
    pytest.param(
        lambda peer: peer.frame(PING, b"x" * 126),
        1002,
        r"control frame is too long: more than 125 bytes",
    ),
    pytest.param(
        lambda peer: peer.frame(CONT, b"x"), 1002, r"unexpected continuation frame"
    ),
    pytest.param(
        lambda peer: peer.frame(TEXT, b"x", fin=False) + peer.frame(TEXT, b"y"),
        1002,
        r"expected a continuation frame, got opcode 0x1",
    ),
    pytest.param(
        lambda peer: peer.frame(CLOSE, b"x"), 1002, r"close frame with a payload of 1"
    ),
    pytest.param(
        lambda peer: peer.frame(CLOSE, close_payload(1005)),
        1002,
        r"invalid close code: 1005 \(RFC 6455, 7.4\)",
    ),
    pytest.param(
        lambda peer: peer.frame(CLOSE, close_payload(1000) + b"\xff"),
        1007,
        r"invalid UTF-8 in close reason",
    ),
    pytest.param(
        lambda peer: peer.frame(TEXT, b"abc\xff"),
        1007,
        r"invalid UTF-8 at byte 3 of the message \(RFC 6455, 8.1\)",
    ),
    pytest.param(
        lambda peer: peer.frame(TEXT, b"abc\xc3"),
        1007,
        r"truncated UTF-8 at the end of the message, after 4 bytes",
    ),
    pytest.param(
        lambda peer: peer.frame(BINARY, b"x" * 1001),
        1009,
        r"message is too big: 1001 bytes, limit 1000",
    ),
    pytest.param(
        lambda peer: (
            peer.frame(BINARY, b"x" * 600, fin=False) + peer.frame(CONT, b"x" * 500)
        ),
        1009,
        r"message is too big: 1100 bytes, limit 1000",
    ),
]


@pytest.mark.parametrize(("data", "code", "text"), BAD)
@pytest.mark.parametrize("waits", [False, True])
@on_link
async def test_broken_rules(
    link: Link, data: Any, code: int, text: str, waits: bool
) -> None:
    async with link(max_size=1000) as (ws, peer):
        task = asyncio.create_task(ws.recv()) if waits else None
        await settle()
        # Good messages in the same segment come first, and can be answered.
        await peer.write(peer.frame(TEXT, "good") + data(peer) + b"\xff" * 500)
        assert await (task or ws.recv()) == "good"
        received = await peer.recv()
        assert received.opcode == CLOSE
        assert received.payload[:2] == close_payload(code)
        peer.half_close()
        with pytest.raises(ConnectionClosedError, match=text) as raised:
            await ws.recv()
        error = raised.value
        assert error.rcvd is None
        assert error.sent is not None
        assert error.sent.code == code
        assert error.sent.reason == received.payload[2:].decode()
        cause = error.__cause__
        assert isinstance(cause, (ProtocolError, PayloadTooBig))
        assert str(cause).startswith(error.sent.reason[:20])
        assert ws.close_code == 1006
        assert ws.protocol.parser_exc is cause
        with pytest.raises(ConnectionClosedError, match=text):
            await ws.send("x")


@pytest.mark.parametrize("end", ["reset", "timeout"])
@on_link
async def test_broken_rule_is_the_cause_whatever_follows(link: Link, end: str) -> None:
    async with link(close_timeout=0.05) as (ws, peer):
        await peer.write(b"\xff" * 20)
        await settle()
        if end == "reset":
            peer.reset()
        with pytest.raises(ConnectionClosedError, match="reserved bits are") as raised:
            await ws.recv()
        assert isinstance(raised.value.__cause__, ProtocolError)


# -- accidents -----------------------------------------------------------------------


NO_CLOSE = "no close frame received or sent"


@on_link
async def test_peer_ends_without_a_close_frame(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        task = asyncio.create_task(ws.recv())
        await settle()
        peer.close()
        with pytest.raises(ConnectionClosedError) as raised:
            await task
        assert str(raised.value) == NO_CLOSE
        assert isinstance(raised.value.__cause__, EOFError)
        assert (ws.close_code, ws.close_reason) == (1006, "")


@on_link
async def test_peer_ends_in_the_middle_of_a_frame(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(peer.frame(TEXT, "whole") + peer.frame(TEXT, "cut")[:-1])
        peer.close()
        assert await ws.recv() == "whole"
        with pytest.raises(ConnectionClosedError, match=NO_CLOSE):
            await ws.recv()


@on_link
async def test_peer_resets(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        task = asyncio.create_task(ws.recv())
        await settle()
        peer.reset()
        with pytest.raises(ConnectionClosedError) as raised:
            await task
        assert str(raised.value) == NO_CLOSE
        cause = raised.value.__cause__
        assert isinstance(cause, (ConnectionResetError, EOFError))
        assert isinstance(cause, ConnectionResetError) or "tls" in any_link.kind
        with pytest.raises(ConnectionClosedError, match=NO_CLOSE):
            await ws.send("x")


@on_link
async def test_peer_resets_while_sending(any_link: Link) -> None:
    async with any_link(buffer_size=4096, write_limit=4096) as (ws, peer):
        sending = asyncio.create_task(flood(ws))
        await peer.recv()
        peer.reset()
        with pytest.raises(ConnectionClosedError) as raised:
            await sending
        assert str(raised.value) == NO_CLOSE
        assert isinstance(raised.value.__cause__, (ConnectionError, EOFError))


async def flood(ws: Connection) -> None:
    while True:
        await ws.send(b"x" * 100_000)


@on_link
async def test_sending_finds_out(link: Link) -> None:
    """Nobody reads, so that the failure of a write is what tells."""
    async with link(max_queue=0) as (ws, peer):
        await peer.send(TEXT, "unread")
        await peer.send(TEXT, "unread too")
        await settle()
        peer.reset()
        with pytest.raises(ConnectionClosedError) as raised:
            await flood(ws)
        assert str(raised.value) == NO_CLOSE
        assert isinstance(raised.value.__cause__, ConnectionError)
        # What was received is not lost.
        assert await ws.recv() == "unread"


@on_link
async def test_peer_ends_while_closing(link: Link) -> None:
    async with link() as (ws, peer):
        closing = asyncio.create_task(ws.close(1001))
        await peer.recv()
        peer.close()
        await closing
        with pytest.raises(ConnectionClosedError) as raised:
            await ws.recv()
        assert str(raised.value) == "sent 1001 (going away); no close frame received"
        assert ws.close_code == 1006


@on_link
async def test_peer_resets_while_closing(link: Link) -> None:
    async with link() as (ws, peer):
        closing = asyncio.create_task(ws.close(1001))
        await peer.recv()
        peer.reset()
        await closing
        with pytest.raises(ConnectionClosedError, match="no close frame received"):
            await ws.recv()


@on_link
async def test_half_close_after_the_close_frame(any_link: Link) -> None:
    """A peer that has said all gets all."""
    size = 500_000
    async with any_link(buffer_size=4096, write_limit=2**20) as (ws, peer):
        await ws.send(b"x" * size)
        await peer.close_frame(1000)
        if "tls" not in any_link.kind:
            peer.half_close()
        await settle()
        assert (await peer.recv()).payload == b"x" * size
        assert (await peer.recv()).opcode == CLOSE
        peer.close()
        await ws.wait_closed()
        assert ws.close_code == 1000


@on_link
async def test_half_close_without_a_close_frame(link: Link) -> None:
    size = 500_000
    async with link(buffer_size=4096, write_limit=2**20) as (ws, peer):
        await ws.send(b"x" * size)
        peer.half_close()
        await settle()
        with pytest.raises(ConnectionClosed):
            ws.send_nowait("too late")
        assert (await peer.recv()).payload == b"x" * size
        assert await peer.ended() == b""
        await ws.wait_closed()
        assert ws.close_code == 1006


@on_link
async def test_half_close_and_never_read(link: Link) -> None:
    options = {"buffer_size": 4096, "write_limit": 2**20, "close_timeout": 0.05}
    async with link(**options) as (ws, peer):
        await ws.send(b"x" * 500_000)
        peer.half_close()
        await ws.wait_closed()
        assert ws.close_code == 1006


@on_link
async def test_half_close_before_everything_is_received(any_link: Link) -> None:
    """What the peer sent before it ended is received, slowly as it may be."""
    async with any_link(max_queue=1) as (ws, peer):
        for number in range(100):
            await peer.send(TEXT, str(number))
        await peer.close_frame(1001)
        peer.close()
        received = []
        async for message in ws:
            received.append(message)
            await asyncio.sleep(0)
        assert received == [str(number) for number in range(100)]
        assert ws.close_code == 1001


@on_link
async def test_abort(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        receiving = asyncio.create_task(ws.recv())
        pong = await ws.ping()
        await settle()
        ws.transport.abort()
        for awaitable in (receiving, pong):
            with pytest.raises(ConnectionClosedError, match=NO_CLOSE):
                await awaitable
        await ws.wait_closed()
        await peer.ended()


# -- failing -------------------------------------------------------------------------


@on_link
async def test_fail(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "received")
        await settle()
        ws.fail(1008, "x" * 200)
        ws.fail(1011)
        received = await peer.recv()
        assert received == (CLOSE, close_payload(1008, "x" * 123), True)
        await peer.send(TEXT, "not received")
        peer.half_close()
        await ws.wait_closed()
        assert await ws.recv() == "received"
        with pytest.raises(ConnectionClosedError, match=r"sent 1008 \(policy viol"):
            await ws.recv()
        ws.fail(1011)


class Crashing(Connection):
    def ping_received(self, payload: bytes) -> None:
        raise ZeroDivisionError("a mistake of ours")


@on_link
async def test_our_own_mistakes(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    async with link(connection_class=Crashing) as (ws, peer):
        task = asyncio.create_task(ws.recv())
        await settle()
        await peer.send(PING)
        assert (await peer.recv()).payload == close_payload(1011)
        peer.half_close()
        with pytest.raises(ConnectionClosedError) as raised:
            await task
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        (record,) = caplog.records
        assert record.getMessage() == "connection failed"
        assert record.exc_info is not None
        caplog.clear()


@on_link
async def test_debug_log(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("websock.test")
    caplog.set_level(logging.DEBUG, "websock.test")
    ws = Connection(Protocol(link.side, logger=logger))
    assert ws.debug


# -- keepalive -----------------------------------------------------------------------


@on_link
async def test_keepalive(any_link: Link) -> None:
    async with any_link(ping_interval=0.01, ping_timeout=20) as (ws, peer):
        seen = set()
        for _ in range(3):
            opcode, payload, _ = await peer.recv()
            assert opcode == PING
            assert len(payload) == 4
            seen.add(payload)
            await settle()
            assert ws.latency == 0 or len(seen) > 1
            await peer.send(PONG, payload)
        assert len(seen) == 3
        await ws.send("x")
        while (await peer.recv()).opcode != TEXT:
            pass
        assert ws.latency > 0


@on_link
async def test_keepalive_timeout(any_link: Link) -> None:
    async with any_link(ping_interval=0.01, ping_timeout=0.01) as (ws, peer):
        task = asyncio.create_task(ws.recv())
        assert (await peer.recv()).opcode == PING
        received = await peer.recv()
        assert received == (CLOSE, close_payload(1011, "keepalive ping timeout"), True)
        peer.close()
        with pytest.raises(ConnectionClosedError) as raised:
            await task
        assert str(raised.value) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )


@on_link
async def test_keepalive_timeout_of_a_peer_that_does_not_read(link: Link) -> None:
    """A close frame could not be sent either."""
    options = {"buffer_size": 4096, "write_limit": 1000, "close_timeout": None}
    async with link(ping_interval=0.01, ping_timeout=0.01, **options) as (ws, _):
        with pytest.raises(ConnectionClosedError) as raised:
            await flood(ws)
        assert str(raised.value) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )
        cause = raised.value.__cause__
        assert isinstance(cause, TimeoutError)
        assert str(cause) == "keepalive ping timeout"


@pytest.mark.parametrize("how", ["pause_reading", "queue"])
@on_link
async def test_keepalive_while_the_program_does_not_read(
    any_link: Link, how: str
) -> None:
    """The pong is there and nobody looks: that is no reason to end the connection."""
    options: dict[str, Any] = {"close_timeout": 0.01}
    if how == "queue":
        options["max_queue"] = 0
    async with any_link(ping_interval=0.01, ping_timeout=0.01, **options) as (ws, peer):
        if how == "queue":
            await peer.write(peer.frame(TEXT, "1") + peer.frame(TEXT, "2"))
            while not ws.is_held:  # noqa: ASYNC110
                await asyncio.sleep(0)
        else:
            ws.pause_reading()
        received = await peer.recv()
        assert received.opcode == PING
        await peer.send(PONG, received.payload)
        await asyncio.sleep(0.2)  # several times ping_timeout
        assert ws.is_open
        if how == "queue":
            assert [await ws.recv(), await ws.recv()] == ["1", "2"]
        else:
            ws.resume_reading()
        # The answer counts now, and a peer that gives none is dropped again.
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
        assert ws.latency > 0


@on_link
async def test_keepalive_without_timeout(link: Link) -> None:
    async with link(ping_interval=0.01, ping_timeout=None) as (ws, peer):
        payloads = [(await peer.recv()).payload for _ in range(4)]
        assert len(set(payloads)) == 4
        assert ws.state is State.OPEN
        await peer.send(PONG, payloads[-1])
        await peer.send(PONG, payloads[0])
        await peer.send(TEXT, "x")
        assert await ws.recv() == "x"


@on_link
async def test_no_keepalive(link: Link) -> None:
    async with link(ping_interval=None, ping_timeout=0) as (ws, peer):
        await asyncio.sleep(0.05)
        await ws.send("first")
        assert await peer.recv() == (TEXT, b"first", True)


@on_link
async def test_later_ping_answers_the_keepalive(link: Link) -> None:
    """A pong answers all pings before its own."""
    async with link(ping_interval=0.01, ping_timeout=20) as (ws, peer):
        assert (await peer.recv()).opcode == PING
        pong = await ws.ping("mine")
        await peer.send(PONG, "mine")
        await pong
        # So another one is sent.
        while (await peer.recv()).payload == b"mine":
            pass


@on_link
async def test_keepalive_stops_at_the_end(link: Link) -> None:
    async with link(ping_interval=0.01, ping_timeout=0.01) as (ws, peer):
        closing = asyncio.create_task(ws.close())
        while (await peer.recv()).opcode != CLOSE:
            pass
        await asyncio.sleep(0.1)
        await peer.close_frame()
        peer.half_close()
        await closing
        assert ws.close_code == 1000
        assert await peer.ended() == b""


@on_link
async def test_infinite_times(link: Link) -> None:
    forever = float("inf")
    options = {"ping_timeout": forever, "close_timeout": forever}
    async with link(ping_interval=forever, **options) as (ws, peer):
        await asyncio.gather(ws.close(), peer.answer_close())
