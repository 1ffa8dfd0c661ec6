"""Counters of connections and servers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from linked import BINARY, CONT, PING, TEXT, Link, link_fixture, on_link, settle
from scripted import LOOPBACK, Run, loop_fixture, tls_fixture

import websock
from websock import prepare
from websock.asyncio.connection import broadcast
from websock.stats import prometheus

run = loop_fixture()
tls = tls_fixture()
any_link = link_fixture()


@on_link
async def test_received(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        frames = [
            peer.frame(TEXT, "é☺"),
            peer.frame(BINARY, b"x" * 70_000),
            peer.frame(BINARY, b"abc", fin=False),
            peer.frame(CONT, b"de", fin=True),
            peer.frame(PING, b"not counted as a message"),
        ]
        for frame in frames:
            await peer.write(frame)
        for _ in range(3):
            await ws.recv()
        while ws.stats().bytes_received < sum(map(len, frames)):
            await settle()
        stats = ws.stats()
        assert stats.messages_received == 3
        assert stats.payload_received == 5 + 70_000 + 5
        assert stats.bytes_received == sum(map(len, frames))


@on_link
async def test_sent(any_link: Link) -> None:
    async with any_link() as (ws, peer):
        await ws.send("é☺")
        await ws.send("ascii")
        await ws.send(b"x" * 70_000)
        await ws.send(["a", "b"])
        ws.send_nowait(prepare(b"prepared"))
        broadcast([ws], "to all")
        for _ in range(5 + 3):
            await peer.recv()
        stats = ws.stats()
        assert stats.messages_sent == 6
        assert stats.payload_sent == 5 + 5 + 70_000 + 2 + 8 + 6
        headers = (2 * 7 + 10) if link_is_server(ws) else (2 * 7 + 10 + 4 * 8)
        assert stats.bytes_sent == stats.payload_sent + headers
        assert stats.buffered == 0


def link_is_server(ws: Any) -> bool:
    return bool(ws.protocol.side.name == "SERVER")


@on_link
async def test_what_waits(any_link: Link) -> None:
    async with any_link(buffer_size=4096) as (ws, peer):
        stats = ws.stats()
        assert (stats.messages_received, stats.messages_sent) == (0, 0)
        assert (stats.queued, stats.queued_size, stats.dropped) == (0, 0, 0)
        await peer.write(peer.frame(TEXT, "abc") + peer.frame(TEXT, "de"))
        while ws.queued < 2:
            await settle()
        stats = ws.stats()
        assert (stats.queued, stats.queued_size) == (2, 5)
        for _ in range(50):
            ws.send_nowait(b"x" * 100_000)
        stats = ws.stats()
        assert stats.buffered > 0
        assert stats.messages_sent == 50
        assert stats.bytes_sent + stats.buffered >= 50 * 100_000


def test_server(run: Run) -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async with websock.serve(handler, LOOPBACK, 0, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            uri = f"ws://{LOOPBACK}:{port}"
            sent = received = 0
            for number in range(3):
                async with websock.connect(uri, compression=None, proxy=None) as ws:
                    await ws.send("x" * 10)
                    await ws.recv()
                    stats = server.stats()
                    assert stats.connections == 1
                    assert stats.connections_total == number + 1
                    assert stats.messages_received == number + 1
                sent += ws.stats().bytes_sent
                received += ws.stats().bytes_received
                while server.all_connections:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
            writer.close()
            await writer.wait_closed()
            while not server.stats().handshakes_failed:  # noqa: ASYNC110
                await asyncio.sleep(0)
            stats = server.stats()
            assert (stats.connections, stats.connections_total) == (0, 3)
            assert (stats.messages_received, stats.messages_sent) == (3, 3)
            assert (stats.payload_received, stats.payload_sent) == (30, 30)
            assert stats.bytes_received == sent + 27
            assert stats.bytes_sent > received
            assert stats.latency == 0

    run(main())


def test_latency(run: Run) -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            await (await ws.ping())
            await ws.wait_closed()

        async with websock.serve(handler, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with websock.connect(f"ws://{LOOPBACK}:{port}", proxy=None):
                while not server.stats().latency:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                stats = server.stats()
                assert 0 < stats.latency <= stats.latency_max

    run(main())


def test_compression_ratio(run: Run) -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async with websock.serve(handler, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with websock.connect(f"ws://{LOOPBACK}:{port}", proxy=None) as ws:
                assert ws.stats().ratio_sent == 0
                for _ in range(20):
                    await ws.send("compressible " * 100)
                    await ws.recv()
                stats = ws.stats()
                assert 0 < stats.ratio_sent < 0.1
                assert 0 < stats.ratio_received < 0.1
                assert stats.payload_sent == stats.payload_received == 20 * 1300

    run(main())


LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.e-]+')


@pytest.mark.parametrize("labels", [None, {"app": "shop", "zone": 'a"b\\c'}])
def test_prometheus(run: Run, labels: Any) -> None:
    async def main() -> None:
        async with websock.serve(lambda ws: ws.wait_closed(), LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with websock.connect(f"ws://{LOOPBACK}:{port}", proxy=None) as ws:
                text = prometheus(server.stats(), labels=labels)
                own = prometheus(ws.stats(), prefix="mine")
        assert text.endswith("\n")
        lines = text.splitlines()
        assert "# TYPE websock_connections gauge" in lines
        assert "# TYPE websock_messages_sent_total counter" in lines
        assert "# TYPE websock_latency_max_seconds gauge" in lines
        for declared, line in zip(lines[::2], lines[1::2], strict=True):
            name = declared.split()[2]
            assert line.startswith((f"{name} ", f"{name}{{"))
            if labels is None:
                assert LINE.fullmatch(line), line
        if labels:
            assert 'websock_connections{app="shop",zone="a\\"b\\\\c"} 1' in lines
        assert "\nmine_bytes_received_total " in own

    run(main())
