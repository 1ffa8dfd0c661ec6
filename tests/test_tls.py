"""TLS with the transports of the loop and with those of aiofastnet."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture

import websock
from websock.asyncio import tls as tls_module
from websock.asyncio.client import unix_connect
from websock.asyncio.server import unix_serve

run = loop_fixture()
tls = tls_fixture()


@pytest.fixture(autouse=True, params=["loop", "aiofastnet"])
def transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What makes the transports, in turn."""
    fast = None
    if request.param == "aiofastnet":
        fast = pytest.importorskip("aiofastnet")
    monkeypatch.setattr(tls_module, "aiofastnet", fast)
    return fast


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def port_of(server: websock.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def test_which_transport(run: Run, tls: TLS, transports: Any) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def look(ws: Any) -> None:
            seen.append(ws)
            await ws.wait_closed()

        async with websock.serve(look, LOOPBACK, 0, ssl=tls.server) as server:
            uri = f"wss://{LOOPBACK}:{port_of(server)}/"
            async with websock.connect(uri, ssl=tls.client, proxy=None) as ws:
                for end in (ws, seen[0]):
                    kind = type(end.transport).__module__.partition(".")[0]
                    assert (kind == "aiofastnet") is (transports is not None)
                    sslobj = end.transport.get_extra_info("ssl_object")
                    assert sslobj.version() == "TLSv1.3"
                assert ws.local_address == seen[0].remote_address
            # Also once it is closed.
            assert ws.local_address == seen[0].remote_address
            assert ws.buffered_amount == 0

    run(main())


@pytest.mark.parametrize("size", [0, 1, 125, 16383, 16384, 65536, 1 << 20])
def test_sizes(run: Run, tls: TLS, size: int) -> None:
    async def main() -> None:
        async with websock.serve(
            echo, LOOPBACK, 0, ssl=tls.server, max_size=1 << 20
        ) as server:
            uri = f"wss://{LOOPBACK}:{port_of(server)}/"
            async with websock.connect(
                uri, ssl=tls.client, proxy=None, compression=None
            ) as ws:
                for message in ("x" * size, bytes(range(256)) * (size // 256), "é"):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert (ws.close_code, ws.close_reason) == (1000, "")

    run(main())


def test_order_of_large_and_small(run: Run, tls: TLS) -> None:
    """Some are copied on their way and some are not."""

    async def main() -> None:
        sizes = [1, 20000, 2, 16384, 16383, 3, 300000, 4]
        messages = [bytes([number]) * size for number, size in enumerate(sizes)]

        async def talk(ws: Any) -> None:
            for message in messages:
                await ws.send(message)
            await ws.send(["a" * 20000, "b", "c" * 40000])

        async with websock.serve(talk, LOOPBACK, 0, ssl=tls.server) as server:
            uri = f"wss://{LOOPBACK}:{port_of(server)}/"
            async with websock.connect(uri, ssl=tls.client, proxy=None) as ws:
                got = [message async for message in ws]
        assert got == [*messages, "a" * 20000 + "b" + "c" * 40000]

    run(main())


def test_slow_reader_gets_all(run: Run, tls: TLS) -> None:
    """What the transport holds when reading is paused, and nothing comes after it."""
    large = bytes(200_000)

    async def main() -> None:
        go = asyncio.Event()

        async def send_all(ws: Any) -> None:
            for _ in range(3):
                ws.send_nowait(b"small")
            await go.wait()
            ws.send_nowait(large)
            await ws.wait_closed()

        # A ping, or an answer to one, would come after it.
        settings: Any = {"compression": None, "ping_interval": None}
        async with websock.serve(
            send_all, LOOPBACK, 0, ssl=tls.server, **settings
        ) as server:
            port = port_of(server)
            sock = socket.socket()
            # All of it arrives in one read, which is more than a read buffer.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.connect((LOOPBACK, port))
            async with websock.connect(
                f"wss://{LOOPBACK}:{port}/",
                sock=sock,
                ssl=tls.client,
                max_queue=1,
                **settings,
            ) as ws:
                while ws.queued < 2:  # noqa: ASYNC110  # it is full then
                    await asyncio.sleep(0.001)
                go.set()
                while ws.transport.is_reading():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                async with asyncio.timeout(30):
                    assert [await ws.recv() for _ in range(3)] == [b"small"] * 3
                    assert await ws.recv() == large

    run(main())


def test_untrusted_certificate(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with websock.serve(echo, LOOPBACK, 0, ssl=tls.server) as server:
            uri = f"wss://{LOOPBACK}:{port_of(server)}/"
            with pytest.raises(ssl.SSLCertVerificationError):
                await websock.connect(uri, proxy=None)
            # Others go on.
            async with websock.connect(uri, ssl=tls.client, proxy=None) as ws:
                await ws.send("still there")
                assert await ws.recv() == "still there"

    run(main())


def test_plain_client_at_a_tls_server(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with websock.serve(echo, LOOPBACK, 0, ssl=tls.server) as server:
            uri = f"ws://{LOOPBACK}:{port_of(server)}/"
            with pytest.raises((websock.InvalidHandshake, OSError)):
                await websock.connect(uri, proxy=None)

    run(main())


def test_unix_socket(run: Run, tls: TLS, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        async with unix_serve(echo, path, ssl=tls.server):
            async with unix_connect(path, uri="wss://localhost/", ssl=tls.client) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"

    run(main())


def test_client_that_says_nothing(run: Run, tls: TLS) -> None:
    """The opening timeout counts from the connection, TLS included."""

    async def main() -> None:
        async with websock.serve(
            echo, LOOPBACK, 0, ssl=tls.server, open_timeout=0.2
        ) as server:
            reader, writer = await asyncio.open_connection(LOOPBACK, port_of(server))
            assert await reader.read() == b""
            writer.close()

    run(main())


def test_reset_behind_input(run: Run, tls: TLS) -> None:
    """It is noticed by a ping at the latest."""

    async def main() -> None:
        gone = asyncio.Event()

        async def wait(ws: Any) -> None:
            await ws.wait_closed()
            gone.set()

        async with websock.serve(
            wait, LOOPBACK, 0, ssl=tls.server, ping_interval=0.1, ping_timeout=0.1
        ) as server:
            uri = f"wss://{LOOPBACK}:{port_of(server)}/"
            ws = await websock.connect(
                uri, ssl=tls.client, proxy=None, compression=None
            )
            await ws.send(["x" * 100_000, "not ended"])
            ws.transport.abort()
            await gone.wait()

    run(main())
