"""Messages as streams, connections as streams of bytes, and WebSocketStream."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from linked import BINARY, CONT, TEXT, Link, link_fixture, on_link, settle
from scripted import LOOPBACK, Run, loop_fixture, tls_fixture

import websock
from websock import WebSocketStream, open_stream
from websock.exceptions import (
    ConnectionClosedError,
    InvalidState,
    InvalidStatus,
)

run = loop_fixture()
tls = tls_fixture()
link = link_fixture("socket")
any_link = link_fixture()


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def url_of(server: websock.Server) -> str:
    return f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"


# -- sending a message in parts ------------------------------------------------------


@on_link
async def test_send_stream(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        for parts, text, opcode in (
            ([b"a", bytearray(b"b"), memoryview(b"c")], None, BINARY),
            (["a", "☺"], None, TEXT),
            ([b"a"], True, TEXT),
            (["a"], False, BINARY),
            ([], None, BINARY),
            ([], True, TEXT),
        ):
            async with ws.send_stream(text=text) as writer:
                for part in parts:
                    await writer.write(part)
            expected = [p.encode() if isinstance(p, str) else bytes(p) for p in parts]
            frames = [await peer.recv() for _ in range(len(parts) + 1)]
            assert [frame.payload for frame in frames] == [*expected, b""]
            opcodes = [opcode] + [CONT] * len(parts)
            assert [frame.opcode for frame in frames] == opcodes
            assert [frame.fin for frame in frames] == [False] * len(parts) + [True]
        assert ws.stats().messages_sent == 6


@on_link
async def test_others_wait_for_a_message_in_parts(link: Link) -> None:
    async with link() as (ws, peer):
        async with ws.send_stream() as writer:
            await writer.write("one ")
            waiting = asyncio.create_task(ws.send("two"))
            second = asyncio.create_task(ws.send(["th", "ree"]))
            await settle()
            assert not waiting.done()
            await writer.write("message")
        await waiting
        await second
        payloads = [(await peer.recv()).payload for _ in range(7)]
        assert payloads == [b"one ", b"message", b"", b"two", b"th", b"ree", b""]


@on_link
async def test_message_that_fails_in_the_middle(link: Link) -> None:
    async with link() as (ws, peer):

        async def fail() -> None:
            async with ws.send_stream() as writer:
                await writer.write("one")
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert (await peer.recv()).payload == b"one"
        assert (await peer.answer_close())[:2] == (1011).to_bytes(2, "big")
        with pytest.raises(ConnectionClosedError):
            await ws.send("two")


@on_link
async def test_wrong_use_of_send_stream(link: Link) -> None:
    async with link() as (ws, peer):
        writer = ws.send_stream()
        with pytest.raises(InvalidState):
            await writer.write("too early")
        async with writer:
            pass
        with pytest.raises(InvalidState):
            await writer.write("too late")
        with pytest.raises(InvalidState):
            await writer.__aenter__()

        async def mix() -> None:
            async with ws.send_stream() as mixed:
                await mixed.write("text")
                await mixed.write(b"bytes")

        with pytest.raises(TypeError, match="all str or all bytes-like"):
            await mix()
        await peer.answer_close()


# -- receiving a message in parts ----------------------------------------------------


@on_link
async def test_recv_stream(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        await peer.send(BINARY, b"ab", fin=False)
        async with ws.recv_stream() as reader:
            assert await anext(reader) == b"ab"
            waiting = asyncio.ensure_future(anext(reader))
            await settle()
            assert not waiting.done()
            await peer.send(CONT, b"cd", fin=False)
            assert await waiting == b"cd"
            await peer.send(CONT, b"ef")
            assert [part async for part in reader if part] == [b"ef"]
        await peer.send(TEXT, "next")
        assert await ws.recv() == "next"


@on_link
async def test_reading_by_size(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(
            peer.frame(TEXT, "abcdef", fin=False)
            + peer.frame(CONT, "", fin=False)
            + peer.frame(CONT, "ghi")
            + peer.frame(TEXT, "")
        )
        async with ws.recv_stream() as reader:
            assert await reader.read(4) == "abcd"
            assert await reader.read(4) == "ef"
            assert await reader.read() == "ghi"
            assert await reader.read() == b""
            assert await reader.read(1) == b""
        async with ws.recv_stream(decode=False) as reader:
            assert await reader.read() == b""


@on_link
async def test_rest_of_a_message_is_dropped(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.write(
            peer.frame(BINARY, b"wanted", fin=False)
            + peer.frame(CONT, b"unwanted" * 1000)
            + peer.frame(TEXT, "next")
        )
        async with ws.recv_stream() as reader:
            assert await reader.read(6) == b"wanted"
        assert await ws.recv() == "next"


@on_link
async def test_reader_that_fails(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(BINARY, b"begun", fin=False)

        async def fail() -> None:
            async with ws.recv_stream() as reader:
                await anext(reader)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert (await peer.answer_close())[:2] == (1011).to_bytes(2, "big")


@on_link
async def test_end_in_the_middle_of_a_message(link: Link) -> None:
    async with link() as (ws, peer):
        await peer.send(BINARY, b"begun", fin=False)

        async def read() -> None:
            async with ws.recv_stream() as reader:
                assert await anext(reader) == b"begun"
                peer.reset()
                await reader.read()

        with pytest.raises(ConnectionClosedError):
            await read()


# -- bytes through a connection ------------------------------------------------------


@on_link
async def test_streams_of_bytes(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        reader, writer = open_stream(ws)
        await peer.write(
            peer.frame(BINARY, b"line 1\nli") + peer.frame(BINARY, b"ne 2\n")
        )
        assert await reader.readline() == b"line 1\n"
        assert await reader.readline() == b"line 2\n"
        writer.write(b"answer")
        writer.writelines([b"a", bytearray(b"b")])
        await writer.drain()
        assert (await peer.recv()).payload == b"answer"
        assert (await peer.recv()).payload == b"ab"
        assert writer.get_extra_info("websocket") is ws
        assert writer.get_extra_info("peername") == ws.remote_address
        assert not writer.can_write_eof()
        waiting = asyncio.ensure_future(reader.read())
        await peer.close_frame()
        await peer.answer_close()
        assert await waiting == b""
        assert writer.is_closing()
        await writer.wait_closed()


@on_link
async def test_back_pressure_of_streams(link: Link) -> None:
    async with link(buffer_size=4096, max_queue_bytes=10_000) as (ws, peer):
        reader, writer = open_stream(ws, limit=5_000)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for number in range(300):
                await peer.send(BINARY, b"%04d" % number * 250)
                sent += 1

        flooding = asyncio.create_task(flood())
        before = -1
        while before != sent:
            before = sent
            await settle(50)
        assert sent < 200
        data = await reader.readexactly(300_000)
        assert data == b"".join(b"%04d" % number * 250 for number in range(300))
        await flooding

        async def write() -> None:
            for number in range(300):
                writer.write(b"%04d" % number * 250)
                await writer.drain()

        writing = asyncio.create_task(write())
        await settle(200)
        assert not writing.done()
        for number in range(300):
            assert (await peer.recv()).payload == b"%04d" % number * 250
        await writing


@on_link
async def test_text_among_bytes(link: Link) -> None:
    async with link() as (ws, peer):
        reader, writer = open_stream(ws)
        await peer.send(TEXT, "text")
        waiting = asyncio.ensure_future(reader.read())
        payload = await peer.answer_close()
        assert payload == (1003).to_bytes(2, "big") + b"text in a stream of bytes"
        with pytest.raises(ConnectionResetError, match="text in a stream of bytes"):
            await waiting
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


@on_link
async def test_streams_that_are_closed_or_lost(link: Link) -> None:
    async with link() as (ws, peer):
        reader, writer = open_stream(ws)
        writer.write(b"last")
        writer.close()
        assert (await peer.recv()).payload == b"last"
        assert await peer.answer_close() == (1000).to_bytes(2, "big")
        await writer.wait_closed()
        assert await reader.read() == b""
        writer.write(b"too late")  # as for any closed transport, nothing happens
    async with link() as (ws, peer):
        reader, writer = open_stream(ws)
        peer.reset()
        with pytest.raises(ConnectionResetError) as caught:
            await reader.read()
        assert isinstance(caught.value.__cause__, ConnectionClosedError)
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


@on_link
async def test_streams_that_nobody_waits_for(link: Link) -> None:
    """No cycle keeps them: collected in a bad order, asyncio would complain."""
    async with link() as (ws, peer):
        reader, writer = open_stream(ws)
        kept = weakref.ref(writer.transport)
        gc.disable()
        try:
            peer.reset()
            await ws.wait_closed()
            await settle()
            del reader, writer
            assert kept() is None
        finally:
            gc.enable()


def test_tunnel(run: Run) -> None:
    """A TCP service behind a WebSocket server, as its documentation has it."""

    async def pump(reader: Any, writer: Any) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def service(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async def tunnel(ws: Any) -> None:
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, port)
            reader, writer = open_stream(ws)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(pump(reader, inner_writer))
                    group.create_task(pump(inner_reader, writer))
            finally:
                inner_writer.close()
                await inner_writer.wait_closed()

        listening = await asyncio.start_server(service, LOOPBACK, 0)
        port = listening.sockets[0].getsockname()[1]
        async with listening, websock.serve(tunnel, LOOPBACK, 0) as server:
            async with websock.connect(url_of(server), proxy=None) as ws:
                reader, writer = open_stream(ws)
                for number in range(100):
                    writer.write(b"line %d\n" % number * 100)
                    await writer.drain()
                    for _ in range(100):
                        assert await reader.readline() == b"LINE %d\n" % number
                writer.close()
                await writer.wait_closed()

    run(main())


# -- WebSocketStream -----------------------------------------------------------------


def test_web_socket_stream(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(echo, LOOPBACK, 0, subprotocols=["chat"]) as server:
            stream = WebSocketStream(url_of(server), protocols=["chat"], proxy=None)
            opened = await stream.opened
            assert opened.protocol == "chat"
            assert "permessage-deflate" in opened.extensions
            await opened.writable.write("text")
            await opened.writable.write(b"bytes")
            assert await anext(opened.readable) == "text"
            assert await anext(opened.readable) == b"bytes"
            await stream.close(close_code=3001, reason="done")
            closed = await stream.closed
            assert (closed.close_code, closed.reason) == (3001, "done")
            await stream.close()

            async with WebSocketStream(
                url_of(server), protocols=["chat"], proxy=None
            ) as stream:
                server.close()
                opened = await stream.opened
                assert [message async for message in opened.readable] == []
                assert (await stream.closed).close_code == 1001

    run(main())


def test_web_socket_stream_that_cannot_be_opened(run: Run) -> None:
    async def main() -> None:
        def refuse(ws: Any, request: Any) -> Any:
            return ws.respond(403, "no")

        async with websock.serve(echo, LOOPBACK, 0, process_request=refuse) as server:
            stream = WebSocketStream(url_of(server), proxy=None)
            for waiting in (stream.opened, stream.closed):
                with pytest.raises(InvalidStatus):
                    await waiting
            await stream.close()
            stream = WebSocketStream(url_of(server), proxy=None)
            for code in (999, 1001, 5000):
                with pytest.raises(ValueError, match=f"3000 to 4999, not {code}"):
                    await stream.close(close_code=code)
            await stream.close()
            with pytest.raises(asyncio.CancelledError):
                await stream.opened

    run(main())


def test_web_socket_stream_that_is_lost(run: Run) -> None:
    async def main() -> None:
        async def drop(ws: Any) -> None:
            ws.transport.abort()

        async with websock.serve(drop, LOOPBACK, 0) as server:
            stream = WebSocketStream(url_of(server), proxy=None)
            with pytest.raises(ConnectionClosedError):
                await stream.closed
            opened = await stream.opened
            with pytest.raises(ConnectionClosedError):
                await opened.writable.write("x")
            await opened.writable.abort()
            await opened.writable.close()

    run(main())
