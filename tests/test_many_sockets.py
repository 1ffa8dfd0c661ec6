"""Many sockets on one loop: who is served, in which context, and what goes wrong.

A loop with one connection watches its socket itself; with more, the compiled backend
asks for all that are ready at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from typing import Any

from scripted import LOOPBACK, Run, loop_fixture
from wire import MASK, frame

import websock

run = loop_fixture()

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")


def url_of(server: websock.Server) -> str:
    return f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/"


async def connect_many(server: websock.Server, count: int) -> list[Any]:
    return [await websock.connect(url_of(server), proxy=None) for _ in range(count)]


async def close_all(clients: list[Any]) -> None:
    await asyncio.gather(*(ws.close() for ws in clients))


def test_all_that_are_ready_at_once_are_served(run: Run) -> None:
    """More than are asked for in one turn of the loop."""

    async def main() -> None:
        class Echo(websock.Listener):
            def on_message(self, ws: Any, message: Any) -> None:
                ws.send_nowait(message)

        async with websock.serve(Echo, LOOPBACK, 0, backlog=400) as server:
            clients = await connect_many(server, 300)
            for turn in range(3):
                # Without a pause: the server sees all of them together.
                for number, ws in enumerate(clients):
                    await ws.send(f"{turn} {number}")
                for number, ws in enumerate(clients):
                    assert await ws.recv() == f"{turn} {number}"
            await close_all(clients)

    run(main())


def test_one_may_close_another(run: Run) -> None:
    """What is ready for a connection that was closed meanwhile is passed over."""

    async def main() -> None:
        peers: list[Any] = []
        got: list[str] = []

        class Rude(websock.Listener):
            def on_open(self, ws: Any) -> None:
                peers.append(ws)

            def on_message(self, ws: Any, message: Any) -> None:
                got.append(message)
                for peer in peers:
                    if peer is not ws:
                        peer.transport.abort()

        async with websock.serve(Rude, LOOPBACK, 0) as server:
            clients = await connect_many(server, 5)
            for number, ws in enumerate(clients):
                await ws.send(str(number))
            while not got:  # noqa: ASYNC110  # nothing tells, any may be first
                await asyncio.sleep(0)
            survivor = clients.pop(int(got[0]))
            await asyncio.gather(*(ws.wait_closed() for ws in clients))
            assert len(got) == 1
            assert survivor.state is websock.State.OPEN
            await survivor.close()

    run(main())


def test_from_one_to_many_and_back(run: Run) -> None:
    async def main() -> None:
        async def echo(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async with websock.serve(echo, LOOPBACK, 0) as server:
            for count in (1, 3, 1, 2):
                clients = await connect_many(server, count)
                while clients:
                    for ws in clients:
                        await ws.send("é")
                        assert await ws.recv() == "é"
                    await clients.pop(0).close()

    run(main())


def test_callbacks_run_in_the_context_of_the_server(run: Run) -> None:
    async def main() -> None:
        seen: list[tuple[str, str]] = []
        done = asyncio.Event()

        class Look(websock.Listener):
            def on_message(self, ws: Any, message: Any) -> None:
                seen.append((message, NAME.get()))
                NAME.set(message)
                if len(seen) == 4:
                    done.set()

        NAME.set("server")
        async with websock.serve(Look, LOOPBACK, 0) as server:
            NAME.set("client")
            clients = await connect_many(server, 2)
            for message in ("a", "b"):
                for number, ws in enumerate(clients):
                    await ws.send(f"{message}{number}")
            await done.wait()
            await close_all(clients)
        # What one connection's callback sets is for itself alone.
        assert sorted(seen) == [
            ("a0", "server"),
            ("a1", "server"),
            ("b0", "a0"),
            ("b1", "a1"),
        ]

    run(main())


def test_handlers_run_in_the_context_of_the_server(run: Run) -> None:
    async def main() -> None:
        async def tell(ws: Any) -> None:
            await ws.send(NAME.get())
            NAME.set("handler")

        NAME.set("server")
        async with websock.serve(tell, LOOPBACK, 0) as server:
            NAME.set("client")
            clients = await connect_many(server, 3)
            assert [await ws.recv() for ws in clients] == ["server"] * 3
            await close_all(clients)
            assert NAME.get() == "client"

    run(main())


def test_resets_while_others_are_busy(run: Run) -> None:
    async def main() -> None:
        async def echo(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async with websock.serve(echo, LOOPBACK, 0) as server:
            good = await websock.connect(url_of(server), proxy=None)
            address = server.sockets[0].getsockname()[:2]
            for _ in range(20):
                sock = socket.create_connection(address)
                sock.sendall(
                    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                    + frame(1, b"x" * 100, mask=MASK)
                )
                await good.send("still there")
                assert await good.recv() == "still there"
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + 7 * [0])
                )
                sock.close()  # a reset, whatever was on its way
            await good.send("and at the end")
            assert await good.recv() == "and at the end"
            while len(server.all_connections) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await good.close()

    run(main())
