"""The asyncio connection: receiving, pings, what it tells about itself.

Both sides, against a peer on the wire; see ``test_connection_*`` for the rest.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterable, Coroutine
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
    close_payload,
    link_fixture,
    on_link,
    quiet_fixture,
    settle,
)
from scripted import tls_fixture

from websock.asyncio.connection import Connection
from websock.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
)
from websock.protocol import Protocol, Side, State

tls = tls_fixture()
link = link_fixture("socket")
any_link = link_fixture()
quiet = quiet_fixture()


async def collect(source: AsyncIterable[Any], received: list[Any]) -> None:
    async for item in source:
        received.append(item)


# -- receiving -----------------------------------------------------------------------


@on_link
async def test_recv(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        await peer.send(TEXT, "wörld 😀")
        await peer.send(BINARY, b"\0\xff")
        await peer.send(TEXT)
        await peer.send(BINARY)
        assert await ws.recv() == "wörld 😀"
        assert await ws.recv() == b"\0\xff"
        assert await ws.recv() == ""
        assert await ws.recv() == b""


@on_link
async def test_recv_waits(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        for number in range(3):
            task = asyncio.create_task(ws.recv())
            await settle()
            assert not task.done()
            await peer.send(TEXT, str(number))
            assert await task == str(number)


DECODE = [
    pytest.param(TEXT, None, "é", id="text"),
    pytest.param(TEXT, True, "é", id="text-str"),
    pytest.param(TEXT, False, b"\xc3\xa9", id="text-bytes"),
    pytest.param(BINARY, None, b"\xc3\xa9", id="binary"),
    pytest.param(BINARY, True, "é", id="binary-str"),
    pytest.param(BINARY, False, b"\xc3\xa9", id="binary-bytes"),
]


@pytest.mark.parametrize(("opcode", "decode", "expected"), DECODE)
@on_link
async def test_recv_decode(
    link: Link, opcode: int, decode: bool | None, expected: str | bytes
) -> None:
    async with link() as (ws, peer):
        await peer.send(opcode, b"\xc3\xa9")
        assert await ws.recv(decode) == expected
        # Cut into fragments, in the middle of a character, and it must wait.
        task = asyncio.create_task(ws.recv(decode=decode))
        await peer.send(opcode, b"\xc3", fin=False)
        await peer.send(CONT, b"", fin=False)
        await peer.send(CONT, b"\xa9")
        assert await task == expected


@on_link
async def test_recv_decode_waits_for_a_message(link: Link) -> None:
    async with link() as (ws, peer):
        task = asyncio.create_task(ws.recv(decode=True))
        await settle()
        await peer.send(BINARY, b"x")
        assert await task == "x"


@pytest.mark.parametrize("waits", [False, True])
@on_link
async def test_recv_decode_fails(link: Link, waits: bool) -> None:
    async with link() as (ws, peer):
        if waits:
            task = asyncio.create_task(ws.recv(decode=True))
            await settle()
        await peer.send(BINARY, b"ab\xff")
        if not waits:
            task = asyncio.create_task(ws.recv(decode=True))
        assert await peer.answer_close() == close_payload(
            1007, "invalid start byte at position 2"
        )
        with pytest.raises(ConnectionClosedError) as raised:
            await task
        assert raised.value.sent is not None
        assert raised.value.sent.code == 1007
        assert isinstance(raised.value.__cause__, UnicodeDecodeError)
        with pytest.raises(ConnectionClosedError):
            await ws.recv(decode=True)


@on_link
async def test_recv_fragments_and_control_frames(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one ", fin=False)
        await peer.send(PING, "between")
        await peer.send(CONT, "two ", fin=False)
        await peer.send(PONG, "unasked")
        await peer.send(CONT, "three")
        assert await ws.recv() == "one two three"
        assert await peer.recv() == (PONG, b"between", True)


@on_link
async def test_recv_what_came_before_the_end(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(
            b"".join(peer.frame(TEXT, str(number)) for number in range(10))
            + peer.frame(CLOSE, close_payload(1001, "enough"))
        )
        peer.half_close()
        await ws.wait_closed()
        assert [await ws.recv() for _ in range(10)] == [str(n) for n in range(10)]
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK, match=r"1001 \(going away\) enough"):
                await ws.recv()


@on_link
async def test_one_task_receives_at_a_time(link: Link) -> None:
    text = "cannot call recv while another coroutine is already running recv"
    async with link() as (ws, peer):
        task = asyncio.create_task(ws.recv())
        await settle()
        with pytest.raises(ConcurrencyError, match=text):
            await ws.recv()
        with pytest.raises(ConcurrencyError, match="cannot call recv_streaming while"):
            await anext(ws.recv_streaming())
        with pytest.raises(ConcurrencyError, match=text):
            async for _ in ws:
                pass
        await peer.send(TEXT, "message")
        assert await task == "message"
        # The refused ones left nothing behind.
        await peer.send(TEXT, "next")
        assert await ws.recv() == "next"


@on_link
async def test_recv_is_awaited_once(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one")
        awaitable = ws.recv()
        assert await awaitable == "one"
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await awaitable


@on_link
async def test_recv_that_is_not_awaited(link: Link) -> None:
    async with link() as (ws, peer):
        _ = ws.recv()
        ws.recv().close()
        await peer.send(TEXT, "message")
        assert await ws.recv() == "message"


@on_link
async def test_many_small_messages(any_link: Link) -> None:
    count = 3000
    async with any_link() as (ws, peer):
        data = b"".join(peer.frame(TEXT, str(number)) for number in range(count))
        sending = asyncio.create_task(peer.write(data))
        assert [await ws.recv() for _ in range(count)] == [
            str(number) for number in range(count)
        ]
        await sending


# -- iterating -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, None])
@on_link
async def test_iteration_ends(link: Link, code: int | None) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one")
        await peer.send(BINARY, b"two")
        await peer.send(CLOSE, b"" if code is None else close_payload(code))
        peer.half_close()
        assert [message async for message in ws] == ["one", b"two"]
        assert [message async for message in ws] == []
        assert ws.close_code == (code or 1005)


@on_link
async def test_iteration_raises(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one")
        await peer.close_frame(1011, "oops")
        peer.half_close()
        received: list[Any] = []
        with pytest.raises(
            ConnectionClosedError, match=r"1011 \(internal error\) oops"
        ):
            await collect(ws, received)
        assert received == ["one"]


@on_link
async def test_iteration_waits_and_may_be_left(link: Link) -> None:
    async with link() as (ws, peer):

        async def three() -> list[Any]:
            received: list[Any] = []
            async for message in ws:
                received.append(message)
                if len(received) == 3:
                    break
            return received

        task = asyncio.create_task(three())
        for text in "abcd":
            await settle()
            await peer.send(TEXT, text)
        assert await task == ["a", "b", "c"]
        assert await anext(aiter(ws)) == "d"
        await peer.close_frame()
        peer.half_close()
        assert await anext(aiter(ws), "default") == "default"
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(ws))


# -- streaming -----------------------------------------------------------------------


async def fragments(ws: Connection, decode: bool | None = None) -> list[Any]:
    return [piece async for piece in ws.recv_streaming(decode)]


@pytest.mark.parametrize("when", ["before", "after", "one by one"])
@on_link
async def test_recv_streaming(any_link: Link, when: str) -> None:
    async with any_link() as (ws, peer):
        task: asyncio.Task[list[Any]] | None = None
        if when != "after":
            task = asyncio.create_task(fragments(ws))
            await settle()
        parts = [(TEXT, "one"), (CONT, ""), (CONT, "two"), (CONT, "three")]
        for number, (opcode, payload) in enumerate(parts):
            await peer.send(opcode, payload, fin=number == 3)
            if when == "one by one":
                await settle()
        if when == "after":
            await settle()
            task = asyncio.create_task(fragments(ws))
        assert task is not None
        assert await task == ["one", "", "two", "three"]
        await peer.send(TEXT, "next")
        assert await ws.recv() == "next"


@on_link
async def test_recv_streaming_gives_fragments_as_they_arrive(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        stream = ws.recv_streaming()
        await peer.send(BINARY, b"one", fin=False)
        assert await anext(stream) == b"one"
        task = asyncio.ensure_future(anext(stream))
        await settle()
        assert not task.done()
        await peer.send(PING)
        assert (await peer.recv()).opcode == PONG
        assert not task.done()
        await peer.send(CONT, b"two", fin=False)
        await peer.send(CONT, b"three", fin=False)
        assert await task == b"two"
        assert await anext(stream) == b"three"
        await peer.send(CONT, b"")
        assert await anext(stream) == b""
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize(("opcode", "decode", "expected"), DECODE)
@on_link
async def test_recv_streaming_decode(
    link: Link, opcode: int, decode: bool | None, expected: str | bytes
) -> None:
    async with link() as (ws, peer):
        await peer.send(opcode, b"\xc3\xa9")
        assert await fragments(ws, decode) == [expected]
        for before in (True, False):
            if before:
                task = asyncio.create_task(fragments(ws, decode))
                await settle()
            await peer.send(opcode, b"a\xc3", fin=False)
            await peer.send(CONT, b"\xa9b", fin=False)
            await peer.send(CONT, b"c")
            if not before:
                await settle()
                task = asyncio.create_task(fragments(ws, decode))
            got = await task
            if isinstance(expected, str):
                # A character that is cut comes with the fragment that ends it.
                assert got == ["a", "éb", "c"]
            else:
                assert got == [b"a\xc3", b"\xa9b", b"c"]


@on_link
async def test_recv_streaming_whole_messages(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one")
        await peer.send(BINARY)
        await peer.send(TEXT)
        assert await fragments(ws) == ["one"]
        assert await fragments(ws) == [b""]
        assert await fragments(ws) == [""]


@on_link
async def test_recv_streaming_of_two_messages_in_one_read(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(
            peer.frame(TEXT, "a", fin=False)
            + peer.frame(CONT, "b")
            + peer.frame(BINARY, b"c", fin=False)
            + peer.frame(CONT, b"d")
            + peer.frame(TEXT, "e")
        )
        assert await fragments(ws) == ["a", "b"]
        assert await fragments(ws) == [b"c", b"d"]
        assert await ws.recv() == "e"


@on_link
async def test_recv_after_fragments_were_there(link: Link) -> None:
    """A message is received whole although its beginning could be streamed."""
    async with link() as (ws, peer):
        await peer.send(TEXT, "one ", fin=False)
        await settle()
        task = asyncio.create_task(ws.recv())
        await settle()
        await peer.send(CONT, "two")
        assert await task == "one two"


@on_link
async def test_recv_streaming_left_in_the_middle(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one", fin=False)
        async for piece in ws.recv_streaming():
            assert piece == "one"
            break
        await peer.send(CONT, "two")
        await settle()
        with pytest.raises(ConcurrencyError):
            await ws.recv()
        with pytest.raises(ConcurrencyError):
            await fragments(ws)
        # It can still be closed.
        await asyncio.gather(ws.close(), peer.answer_close())


@on_link
async def test_recv_streaming_one_at_a_time(link: Link) -> None:
    async with link() as (ws, peer):
        task = asyncio.create_task(fragments(ws))
        await settle()
        with pytest.raises(ConcurrencyError, match="cannot call recv while"):
            await ws.recv()
        with pytest.raises(ConcurrencyError, match="cannot call recv_streaming while"):
            await fragments(ws)
        await peer.send(TEXT, "one")
        assert await task == ["one"]


@on_link
async def test_recv_streaming_of_bytes_that_are_not_text(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(BINARY, b"abc\xc3", fin=False)
        stream = ws.recv_streaming(decode=True)
        assert await anext(stream) == "abc"
        task = asyncio.ensure_future(anext(stream))
        await peer.send(CONT, b"\xff", fin=False)
        assert await peer.answer_close() == close_payload(
            1007, "invalid continuation byte at position 3"
        )
        with pytest.raises(ConnectionClosedError) as raised:
            await task
        assert isinstance(raised.value.__cause__, UnicodeDecodeError)
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


@on_link
async def test_recv_streaming_cut_off(link: Link) -> None:
    """The fragments that came are delivered, then the end."""
    async with link() as (ws, peer):
        await peer.send(TEXT, "one", fin=False)
        await peer.send(CONT, "two", fin=False)
        await settle()
        peer.half_close()
        await ws.wait_closed()
        received: list[Any] = []
        with pytest.raises(ConnectionClosedError):
            await collect(ws.recv_streaming(), received)
        assert received == ["one", "two"]
        # Not a ConcurrencyError: there is nothing to be in the middle of.
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
        with pytest.raises(ConnectionClosedError):
            await fragments(ws)


@on_link
async def test_recv_streaming_invalid_text(link: Link) -> None:
    """What was valid is delivered before the failure."""
    async with link() as (ws, peer):
        stream = ws.recv_streaming()
        await peer.send(TEXT, "good", fin=False)
        assert await anext(stream) == "good"
        task = asyncio.ensure_future(anext(stream))
        await peer.send(CONT, b"bad\xff", fin=False)
        assert (await peer.answer_close())[:2] == close_payload(1007)
        with pytest.raises(ConnectionClosedError, match="invalid UTF-8 at byte 7"):
            await task


@on_link
async def test_recv_streaming_of_very_many_fragments(link: Link) -> None:
    """More than can be remembered apart still makes the same message."""
    count = 10_000
    async with link() as (ws, peer):
        await peer.write(peer.frame(BINARY, b"a", fin=False))
        frames = peer.frame(CONT, b"bc", fin=False) * count
        sending = asyncio.create_task(peer.write(frames + peer.frame(CONT, b"d")))
        pieces = await fragments(ws)
        assert b"".join(pieces) == b"a" + b"bc" * count + b"d"
        await sending


# -- pings ---------------------------------------------------------------------------


@on_link
async def test_ping(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        assert ws.latency == 0
        pong = await ws.ping()
        opcode, payload, _ = await peer.recv()
        assert opcode == PING
        assert len(payload) == 4
        await settle()
        assert not pong.done()  # type: ignore[attr-defined]
        await peer.send(PONG, payload)
        latency = await pong
        assert 0 < latency < 30
        assert ws.latency == latency


@pytest.mark.parametrize("data", ["é", b"\xc3\xa9", bytearray(b"\xc3\xa9"), b""])
@on_link
async def test_ping_payload(link: Link, data: Any) -> None:
    async with link() as (ws, peer):
        if isinstance(data, bytes):
            data = memoryview(data)
        pong = await ws.ping(data)
        received = await peer.recv()
        expected = data.encode() if isinstance(data, str) else bytes(data)
        assert received == (PING, expected, True)
        await peer.send(PONG, expected)
        await pong
        # It is answered, so it may be used again.
        await ws.ping(data)


@on_link
async def test_wrong_pings(link: Link) -> None:
    async with link() as (ws, peer):
        calls: list[Coroutine[Any, Any, Any]] = [
            ws.ping(3),  # type: ignore[arg-type]
            ws.pong(["x"]),  # type: ignore[arg-type]
            ws.pong(None),  # type: ignore[arg-type]
        ]
        for call in calls:
            with pytest.raises(TypeError, match="must be str or bytes-like, not"):
                await call
        text = "control frame is too long: 126 bytes, limit 125"
        with pytest.raises(ProtocolError, match=text):
            await ws.ping(b"x" * 126)
        with pytest.raises(ProtocolError, match=text):
            await ws.pong("é" * 63)
        await ws.ping(b"x" * 125)
        with pytest.raises(ConcurrencyError, match="already waiting for a pong"):
            await ws.ping("x" * 125)
        # None of it reached the peer, or harmed.
        assert await peer.recv() == (PING, b"x" * 125, True)
        assert ws.state is State.OPEN


@on_link
async def test_pong_answers_earlier_pings(link: Link) -> None:
    async with link() as (ws, peer):
        pongs = [await ws.ping(data) for data in ("a", "b", "c", "d")]
        cancelled = pongs[1]
        assert isinstance(cancelled, asyncio.Future)
        cancelled.cancel()
        await peer.send(PONG, b"c")
        latency = await pongs[2]
        assert await pongs[0] >= latency
        assert ws.latency == latency
        last = pongs[3]
        assert isinstance(last, asyncio.Future)
        assert not last.done()
        # Once more, out of order, or for nothing: ignored.
        for data in (b"c", b"a", b"never sent"):
            await peer.send(PONG, data)
        await settle()
        assert not last.done()
        await peer.send(PONG, b"d")
        await last


@on_link
async def test_pong(link: Link) -> None:
    async with link() as (ws, peer):
        await ws.pong()
        await ws.pong("é")
        assert await peer.recv() == (PONG, b"", True)
        assert await peer.recv() == (PONG, "é".encode(), True)


@on_link
async def test_pings_are_answered(link: Link) -> None:
    async with link() as (ws, peer):
        for payload in (b"", b"x", b"y" * 125):
            await peer.send(PING, payload)
            assert await peer.recv() == (PONG, payload, True)
        # Also while a task waits for a message, and with nobody there.
        task = asyncio.create_task(ws.recv())
        await peer.send(PING, b"z")
        assert (await peer.recv()).payload == b"z"
        await peer.send(TEXT, "message")
        assert await task == "message"


@on_link
async def test_unanswered_pings_when_the_connection_ends(link: Link) -> None:
    async with link() as (ws, peer):
        one, two, forgotten = [await ws.ping() for _ in range(3)]
        task = asyncio.ensure_future(one)
        await peer.close_frame(1001)
        peer.half_close()
        for pong in (task, two):
            with pytest.raises(ConnectionClosedOK):
                await pong
        del forgotten


@on_link
async def test_ping_and_pong_after_the_end(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.close_frame(1011)
        peer.half_close()
        await ws.wait_closed()
        with pytest.raises(ConnectionClosedError):
            await ws.ping()
        with pytest.raises(ConnectionClosedError):
            await ws.pong()


# -- what it tells -------------------------------------------------------------------


@on_link
async def test_addresses(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        local, remote = peer.sock.getpeername(), peer.sock.getsockname()
        for _ in range(2):
            assert ws.local_address == local
            assert ws.remote_address == remote
            assert ws.transport.get_extra_info("sockname") == local
            assert ws.transport.get_extra_info("peername") == remote
        await asyncio.gather(ws.close(), peer.answer_close())
        assert ws.local_address == local
        assert ws.remote_address == remote


@on_link
async def test_transport(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        transport = ws.transport
        assert ws.transport is transport
        sock = transport.get_extra_info("socket")
        assert sock.getpeername() == peer.sock.getsockname()
        assert transport.get_extra_info("unknown", 3) == 3
        assert (transport.get_extra_info("ssl_object") is None) is (
            "tls" not in any_link.kind
        )
        assert transport.is_closing() is False
        assert transport.get_write_buffer_size() >= 0
        transport.abort()
        await ws.wait_closed()
        assert ws.transport.is_closing() is True
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


@on_link
async def test_transport_of_a_socket(link: Link) -> None:
    async with link() as (ws, peer):
        transport = ws.transport
        assert transport.get_protocol() is ws
        assert transport.can_write_eof()
        transport.pause_reading()
        await peer.send(TEXT, "one")
        await settle()
        assert ws.queued == 0
        transport.resume_reading()
        assert await ws.recv() == "one"
        transport.write(peer.frame(TEXT, "raw"))
        transport.writelines([b"\x80", b"more"])
        transport.write_eof()
        assert await peer.ended() == peer.frame(TEXT, "raw") + b"\x80more"


@on_link
async def test_transport_close_sends_the_rest(any_link: Link) -> None:
    size = 500_000
    async with any_link(buffer_size=4096, write_limit=2**20) as (ws, peer):
        await ws.send(b"x" * size)
        # With TLS it may all be in the transport below.
        assert ws.buffered_amount > 0 or "tls" in any_link.kind
        ws.transport.close()
        assert ws.transport.is_closing()
        await settle()
        assert not ws.is_lost
        if any_link.kind == "socket":
            with pytest.raises(ConnectionClosed):
                ws.send_nowait("too late")
        received = await peer.recv()
        assert received.payload == b"x" * size
        assert await peer.ended() == b""
        await ws.wait_closed()


def told(ws: Connection) -> tuple[State, State, int | None, str | None]:
    return ws.state, ws.protocol.state, ws.close_code, ws.close_reason


@on_link
async def test_attributes_from_open_to_closed(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        assert told(ws) == (State.OPEN, State.OPEN, None, None)
        assert ws.subprotocol is None
        assert ws.listener is None
        assert repr(ws) == f"<Connection open {ws.remote_address}>"
        await peer.close_frame(4000, "because")
        peer.half_close()
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
        assert told(ws) == (State.CLOSED, State.CLOSED, 4000, "because")
        assert repr(ws) == f"<Connection closed {ws.remote_address}>"


@on_link
async def test_id_and_logger(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    async with link() as (ws, _):
        assert isinstance(ws.id, uuid.UUID)
        assert ws.id is ws.id
        assert ws.id == ws.protocol.id
        assert ws.logger is ws.logger
        ws.logger.warning("something")
        (record,) = caplog.records
        assert record.websocket is ws  # type: ignore[attr-defined]
        name = "server" if link.is_server else "client"
        assert record.name == f"websock.{name}"


@on_link
async def test_own_attributes_and_logger(link: Link) -> None:
    logger = logging.getLogger("mine")
    protocol = Protocol(link.side, logger=logger)
    ws = Connection(protocol)
    ws.mine = 3  # type: ignore[attr-defined]
    assert ws.mine == 3  # type: ignore[attr-defined]
    ws.logger.info("heard")
    assert ws.debug is False


@on_link
async def test_context_manager(link: Link) -> None:
    async with link() as (ws, peer):
        answer = asyncio.create_task(peer.answer_close())
        async with ws as same:
            assert same is ws
        assert await answer == close_payload(1000)
        assert ws.state is State.CLOSED


@on_link
async def test_context_manager_after_an_error(link: Link) -> None:
    async with link() as (ws, peer):
        answer = asyncio.create_task(peer.answer_close())
        with pytest.raises(ZeroDivisionError):
            async with ws:
                raise ZeroDivisionError
        assert await answer == close_payload(1011)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_queue": (2, 3)}, "marks of max_queue: high 2 is below low 3"),
        ({"max_queue": (2, -1)}, "low mark of max_queue must not be negative: -1"),
        ({"max_queue": -4}, "must not be negative"),
        ({"write_limit": (2, 3)}, "marks of write_limit: high 2, low 3"),
        ({"write_limit": -1}, "marks of write_limit"),
    ],
)
def test_wrong_marks(options: dict[str, Any], text: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=text):
            Connection(Protocol(Side.CLIENT), **options)

    asyncio.run(main())


def test_a_connection_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Connection(Protocol(Side.SERVER))


@on_link
async def test_unix_sockets_have_no_port(link: Link) -> None:
    import socket

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ws = Connection(Protocol(link.side), ping_interval=None)
    ws.start(ours)
    ws.handshake_done()
    assert ws.remote_address == ""
    assert ws.local_address == ""
    theirs.close()
    await ws.wait_closed()
    assert ws.remote_address == ""
