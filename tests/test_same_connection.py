"""Connections: what programs rely on, with websockets and with websock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from library import Library, same
from scripted import Peer, read_frame, scripted, tls_fixture

tls = tls_fixture()


# -- messages ------------------------------------------------------------------------


@same
async def test_types(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        for sent, received in (
            ("text ☺", "text ☺"),
            ("", ""),
            (b"bytes", b"bytes"),
            (bytearray(b"array"), b"array"),
            (memoryview(b"view"), b"view"),
            (b"", b""),
        ):
            await ws.send(sent)
            message = await ws.recv()
            assert message == received
            assert type(message) is type(received)


@same
async def test_text_and_bytes_by_choice(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        await ws.send("☺")
        assert await ws.recv(decode=False) == "☺".encode()
        await ws.send("☺".encode())
        assert await ws.recv(decode=True) == "☺"
        await ws.send(b"bytes", text=True)
        assert await ws.recv() == "bytes"
        await ws.send("text", text=False)
        assert await ws.recv() == b"text"


@same
async def test_fragments(lib: Library) -> None:
    async def later() -> AsyncIterator[str]:
        for word in ("a", "b", "c"):
            await asyncio.sleep(0)
            yield word

    def now() -> Iterator[bytes]:
        yield b"x"
        yield b"y"

    async def handler(ws: Any) -> None:
        for _ in range(4):
            parts = [part async for part in ws.recv_streaming()]
            await ws.send(str(parts))

    async with lib.serve(handler) as server:
        async with lib.connect(server, compression=None) as ws:
            for sent, seen in (
                (["one", "two"], ["one", "two"]),
                (later(), ["a", "b", "c"]),
                (now(), [b"x", b"y"]),
                ("whole", ["whole"]),
            ):
                await ws.send(sent)
                parts = [part for part in eval(await ws.recv()) if part]
                assert parts == seen


@same
async def test_what_cannot_be_sent(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        for wrong in (None, 1, {"a": "dict"}, object()):
            with pytest.raises(TypeError):
                await ws.send(wrong)
        await ws.send("still open")
        assert await ws.recv() == "still open"


@same
async def test_message_that_cannot_be_ended(lib: Library) -> None:
    """Parts of two types cannot be one message: the connection is given up."""
    ended = asyncio.Event()

    async def handler(ws: Any) -> None:
        with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.rcvd.code == 1011
        ended.set()

    async with lib.serve(handler) as server:
        ws = await lib.connect(server)
        with pytest.raises((TypeError, lib.exceptions.ConnectionClosedError)):
            await ws.send(["text", b"bytes"])
        await ended.wait()
        await ws.close()


@same
async def test_iteration(lib: Library) -> None:
    async def handler(ws: Any) -> None:
        for number in range(5):
            await ws.send(str(number))

    async def handler_that_fails(ws: Any) -> None:
        await ws.send("0")
        raise LookupError

    async with lib.serve(handler) as server, lib.connect(server) as ws:
        assert [message async for message in ws] == list("01234")
    async with lib.serve(handler_that_fails) as server, lib.connect(server) as ws:
        heard = []

        async def listen() -> None:
            async for message in ws:
                heard.append(message)

        with pytest.raises(lib.exceptions.ConnectionClosedError):
            await listen()
        assert heard == ["0"]


@same
async def test_messages_are_there_after_the_end(lib: Library) -> None:
    async def handler(ws: Any) -> None:
        for number in range(3):
            await ws.send(str(number))

    async with lib.serve(handler) as server:
        ws = await lib.connect(server)
        await ws.wait_closed()
        assert [await ws.recv() for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(lib.exceptions.ConnectionClosedOK):
            await ws.recv()


@same
async def test_recv_may_be_cancelled(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        for number in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await ws.recv()
            await ws.send(str(number))
            assert await ws.recv() == str(number)


@same
async def test_two_receivers(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        first = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        with pytest.raises(lib.exceptions.ConcurrencyError) as caught:
            await ws.recv()
        assert isinstance(caught.value, RuntimeError)
        await ws.send("for the first")
        assert await first == "for the first"


@same
async def test_a_sender_waits_for_another(lib: Library) -> None:
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[str]:
        yield "one "
        await go_on.wait()
        yield "message"

    async with lib.serve() as server, lib.connect(server) as ws:
        first = asyncio.create_task(ws.send(slowly()))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(ws.send("the next"))
        await asyncio.sleep(0.01)
        assert not second.done()
        go_on.set()
        await first
        await second
        assert await ws.recv() == "one message"
        assert await ws.recv() == "the next"


# -- pings ---------------------------------------------------------------------------


@same
async def test_pings(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server, ping_interval=None) as ws:
        waiters = [await ws.ping(), await ws.ping("text"), await ws.ping(b"bytes")]
        assert all(latency > 0 for latency in [await w for w in waiters])
        with pytest.raises(TypeError):
            await ws.ping(1)
        with pytest.raises(lib.exceptions.ProtocolError):
            await ws.ping(b"x" * 126)
        await ws.pong()
        await ws.pong(b"unasked")


@same
async def test_pongs_answer_earlier_pings(lib: Library) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept())
        for _ in range(3):
            opcode, payload = await read_frame(peer.reader)
            assert opcode == 9
            if payload == b"2":
                await peer.send(b"\x8a\x01" + payload)
        await seen.wait()
        opcode, payload = await read_frame(peer.reader)
        await peer.send(bytes((0x80 | opcode, len(payload))) + payload)

    async with scripted(script) as server:
        async with lib.client.connect(
            server.uri, compression=None, ping_interval=None, proxy=None
        ) as ws:
            one, two, three = [await ws.ping(data) for data in ("1", "2", "3")]
            await one
            await two
            assert not three.done()
            with pytest.raises(lib.exceptions.ConcurrencyError):
                await ws.ping("3")
            seen.set()
        with pytest.raises(lib.exceptions.ConnectionClosed):
            await three


@same
async def test_keepalive_gives_up(lib: Library) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept())
        await peer.ended()

    async with scripted(script) as server:
        ws = await lib.client.connect(
            server.uri,
            compression=None,
            ping_interval=0.02,
            ping_timeout=0.02,
            close_timeout=0.02,
            proxy=None,
        )
        with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )
        assert caught.value.rcvd is None
        assert caught.value.sent.code == 1011
        assert ws.close_code == 1006


# -- the end -------------------------------------------------------------------------


@same
async def test_close(lib: Library) -> None:
    async with lib.serve() as server:
        for code, reason, close in (
            (1000, "", lambda ws: ws.close()),
            (1001, "bye", lambda ws: ws.close(1001, "bye")),
            (3000, "grüß", lambda ws: ws.close(code=3000, reason="grüß")),
        ):
            ws = await lib.connect(server)
            await close(ws)
            assert (ws.close_code, ws.close_reason) == (code, reason)
            await ws.wait_closed()
            await ws.close()
            is_ok = code in (1000, 1001)
            expected = (
                lib.exceptions.ConnectionClosedOK
                if is_ok
                else lib.exceptions.ConnectionClosedError
            )
            for action in (ws.recv, lambda ws=ws: ws.send("x"), ws.ping):
                with pytest.raises(expected) as caught:
                    await action()
                assert caught.value.sent == lib.module("frames").Close(code, reason)
                assert caught.value.rcvd_then_sent is False
            assert ws.protocol.close_exc.args == caught.value.args


@same
async def test_codes_that_cannot_be_sent(lib: Library) -> None:
    async with lib.serve() as server:
        for code, reason in ((1006, ""), (999, ""), (1000, "x" * 124)):
            ws = await lib.connect(server)
            with pytest.raises(lib.exceptions.ProtocolError):
                await ws.close(code, reason)
            await ws.close()


@same
async def test_peer_that_vanishes(lib: Library) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept())
        peer.reset()

    async with scripted(script) as server:
        ws = await lib.client.connect(server.uri, compression=None, proxy=None)
        with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == "no close frame received or sent"
        assert (caught.value.rcvd, caught.value.sent) == (None, None)
        assert (ws.close_code, ws.close_reason) == (1006, "")


@same
async def test_peer_that_errs(lib: Library) -> None:
    for data, code in (
        (b"\x81\x01\xff", 1007),
        (b"\x83\x00", 1002),
        (b"\x81\x81\0\0\0\0a", 1002),
        (b"\x82\x7f" + (2**40).to_bytes(8, "big"), 1009),
    ):

        async def script(peer: Peer, data: bytes = data, code: int = code) -> None:
            await peer.request()
            await peer.send(peer.accept(rest=data))
            opcode, payload = await read_frame(peer.reader)
            assert (opcode, payload[:2]) == (8, code.to_bytes(2, "big"))

        async with scripted(script) as server:
            ws = await lib.client.connect(server.uri, compression=None, proxy=None)
            with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.sent.code == code
            assert caught.value.rcvd is None
            assert ws.close_code == 1006


@same
async def test_size_limit(lib: Library) -> None:
    async with lib.serve(max_size=100) as server:
        async with lib.connect(server) as ws:
            await ws.send("x" * 100)
            assert await ws.recv() == "x" * 100
            await ws.send("x" * 101)
            with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.rcvd.code == 1009
    async with lib.serve(max_size=None) as server:
        async with lib.connect(server, max_size=2**22) as ws:
            await ws.send(bytes(2**21))
            assert await ws.recv() == bytes(2**21)


@same
async def test_exceptions_of_one_family(lib: Library) -> None:
    exceptions = lib.exceptions
    for name in [
        "ConnectionClosed",
        "InvalidHandshake",
        "InvalidURI",
        "ProtocolError",
        "InvalidState",
        "ConcurrencyError",
        "SecurityError",
        "InvalidStatus",
        "InvalidUpgrade",
        "InvalidOrigin",
        "NegotiationError",
        "DuplicateParameter",
        "PayloadTooBig",
        "InvalidProxy",
        "ProxyError",
    ]:
        assert issubclass(getattr(exceptions, name), exceptions.WebSocketException)
    for name in ("InvalidStatus", "InvalidHeader", "InvalidUpgrade", "InvalidOrigin"):
        assert issubclass(getattr(exceptions, name), exceptions.InvalidHandshake)
    for name in ("ConnectionClosedOK", "ConnectionClosedError"):
        assert issubclass(getattr(exceptions, name), exceptions.ConnectionClosed)
    assert lib.root.ConnectionClosed is exceptions.ConnectionClosed
