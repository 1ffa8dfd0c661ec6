"""Restarts: a server drains while another goes on with its address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from helpers import request
from raw import raw
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture

from websock.asyncio.client import connect
from websock.asyncio.server import Server, serve, unix_serve
from websock.exceptions import ConnectionClosed

run = loop_fixture()
tls = tls_fixture()


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def accepted(server: Server, number: int) -> None:
    """Wait until a server has so many connections, in whatever state."""
    while len(server.all_connections) < number:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def stopped(server: Server) -> None:
    """Wait until a server accepts no more."""
    while server.is_serving():  # noqa: ASYNC110
        await asyncio.sleep(0)


def uri(server: Server, scheme: str = "ws") -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"{scheme}://{host}:{port}"


def test_another_server_goes_on(run: Run) -> None:
    """None is refused, whether it comes before, during or after the handover."""

    async def main() -> None:
        old = await serve(echo, LOOPBACK, 0)
        address = uri(old)
        async with connect(address) as early, raw(old) as slow:
            await accepted(old, 2)
            await slow.send(request()[:30])
            inherited = old.sockets[0].dup()
            draining = asyncio.create_task(old.drain())
            await stopped(old)
            assert old.sockets == ()
            # Nobody accepts now: it waits in the socket for whoever comes.
            late = asyncio.create_task(connect(address).__aenter__())
            async with serve(echo, sock=inherited) as new:
                client = await late
                assert len(new.connections) == 1
                await client.send("to the new one")
                assert await client.recv() == "to the new one"
                await client.close()
                # The old one finishes what it has begun.
                await slow.send(request()[30:])
                await slow.reader.readuntil(b"\r\n\r\n")
                await slow.echoed("opened while draining")
                await early.send("still here")
                assert await early.recv() == "still here"
                assert not draining.done()
                slow.reset()
                await early.close()
                await draining
                assert old.all_connections == set()

    run(main())


def test_what_the_kernel_has_queued_is_served(run: Run) -> None:
    """Closing the only socket would reset what nobody has accepted."""

    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0)
        with contextlib.ExitStack() as stack:
            # The loop does not run in between, so the server has seen none of them.
            socks = [
                stack.enter_context(
                    socket.create_connection(server.sockets[0].getsockname())
                )
                for _ in range(70)
            ]
            assert server.all_connections == set()
            draining = asyncio.create_task(server.drain())
            for sock in socks:
                sock.setblocking(False)
                async with raw(None, sock=sock) as client:
                    await client.open()
                    await client.echoed("served")
            await draining

    run(main())


def test_connections_are_closed_a_few_at_a_time(run: Run) -> None:
    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0)
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(uri(server))) for _ in range(20)
            ]
            draining = asyncio.create_task(server.drain(600, reason="restart"))
            ends = [asyncio.create_task(c.wait_closed()) for c in clients]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            assert 0 < len(server.connections) < 20
            server.close(code=1001)  # there is no more time
            await draining
            await asyncio.wait(ends)
            codes = [(client.close_code, client.close_reason) for client in clients]
            assert set(codes) == {(1012, "restart"), (1001, "")}

    run(main())


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_all_are_closed_in_the_end(run: Run, tls: TLS, seconds: float) -> None:
    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0, ssl=tls.server)
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    connect(
                        uri(server, "wss"), ssl=tls.client, server_hostname="localhost"
                    )
                )
                for _ in range(5)
            ]
            forever = asyncio.create_task(server.serve_forever())
            await server.drain(seconds)
            await forever
            for client in clients:
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert client.close_code == 1012

    run(main())


def test_handshakes_are_finished_after_the_time(run: Run) -> None:
    """They have a time of their own; then they are told to go elsewhere."""

    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0)
        async with raw(server) as client:
            await accepted(server, 1)
            draining = asyncio.create_task(server.drain(0))
            await stopped(server)
            await client.open()
            assert await client.closing() == (1012, "")
            await draining

    run(main())


def test_handshakes_without_a_time_end_with_it(run: Run) -> None:
    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0, open_timeout=None)
        async with raw(server) as client:
            await accepted(server, 1)
            draining = asyncio.create_task(server.drain(0))
            assert (await client.answer()).status == 503
            client.writer.close()
            await draining

    run(main())


def test_cancelled_and_again(run: Run) -> None:
    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0)
        async with connect(uri(server)) as client:
            draining = asyncio.create_task(server.drain())
            await stopped(server)
            draining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await draining
            await client.send("as before")
            assert await client.recv() == "as before"
            with pytest.raises(RuntimeError, match="server is closed"):
                await server.start_serving()
            await server.drain(0)
            assert client.close_code == 1012
        await server.drain()  # it is over: harmless

    run(main())


def test_file_of_a_unix_socket_is_left_to_the_next_server(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        old = await unix_serve(echo, path)
        inherited = old.sockets[0].dup()
        await old.drain(0)
        async with serve(echo, sock=inherited), raw(path) as client:
            await client.open()
            await client.echoed("x")

    run(main())


def test_arguments(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            for seconds in (-1, float("nan")):
                with pytest.raises(ValueError, match="must not be negative"):
                    await server.drain(seconds)
            with pytest.raises(ValueError, match="999"):
                await server.drain(0, code=999)
            assert server.is_serving()

    run(main())
