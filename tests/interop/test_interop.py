"""Against other implementations, in both directions.

Every peer over ws and wss, with and without compression, on both loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from interop.peers import MAX_SIZE, Message, Peer, Security, Setup, asked_to_close

import websock
from websock.asyncio.server import ServerConnection

pytestmark = pytest.mark.interop

Run = Callable[[Any], Any]

TEXT = "grüß dich, мир, 世界, 🌍 "
# Sizes on both sides of where the length of a frame takes more bytes.
MESSAGES: list[Message] = [
    "",
    "hello",
    TEXT,
    b"",
    bytes(range(256)),
    "x" * 125,
    b"y" * 126,
    b"z" * 65535,
    "w" * 65536,
    TEXT * 20_000,
    bytes(range(256)) * 2_000,
]


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(params=[False, True], ids=["plain", "deflate"])
def setup(request: pytest.FixtureRequest, scheme: str, security: Security) -> Setup:
    return Setup(security if scheme == "wss" else None, request.param)


def client_options(setup: Setup) -> dict[str, Any]:
    return {
        "ssl": setup.client_ssl,
        "compression": "deflate" if setup.deflate else None,
        "subprotocols": ["chat"],
        "max_size": MAX_SIZE,
        "proxy": None,
    }


def server_options(setup: Setup) -> dict[str, Any]:
    return {
        "ssl": setup.server_ssl,
        "compression": "deflate" if setup.deflate else None,
        "subprotocols": ["chat"],
        "max_size": MAX_SIZE,
    }


def port_of(server: Any) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


def extensions_of(ws: Any) -> str:
    assert ws.response is not None
    value: str = ws.response.headers.get("Sec-WebSocket-Extensions", "")
    return value


class TestClient:
    """Our client, their server."""

    def test_echo(self, peer: Peer, setup: Setup, run: Run) -> None:
        async def main() -> None:
            async with peer.serve(setup) as port:
                async with websock.connect(
                    setup.url(port), **client_options(setup)
                ) as ws:
                    assert ws.subprotocol == "chat"
                    assert ("permessage-deflate" in extensions_of(ws)) == setup.deflate
                    for message in MESSAGES:
                        await ws.send(message)
                        assert await ws.recv() == message
                    latency = await (await ws.ping())
                    assert latency >= 0
                assert ws.close_code == 1000

        run(main())

    def test_many_in_flight(self, peer: Peer, setup: Setup, run: Run) -> None:
        async def main() -> None:
            messages = [f"{number} " * (number % 50) for number in range(500)]
            async with (
                peer.serve(setup) as port,
                websock.connect(setup.url(port), **client_options(setup)) as ws,
            ):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.send_all(ws, messages))
                    found = [await ws.recv() for _ in messages]
                assert found == messages

        run(main())

    @staticmethod
    async def send_all(ws: Any, messages: list[str]) -> None:
        for message in messages:
            await ws.send(message)

    def test_fragments(self, peer: Peer, setup: Setup, run: Run) -> None:
        async def main() -> None:
            async with (
                peer.serve(setup) as port,
                websock.connect(setup.url(port), **client_options(setup)) as ws,
            ):
                await ws.send(["one ", "", TEXT, "three"])
                assert await ws.recv() == f"one {TEXT}three"
                await ws.send([b"one ", b"two" * 30_000])
                assert await ws.recv() == b"one " + b"two" * 30_000

        run(main())

    def test_server_closes(self, peer: Peer, setup: Setup, run: Run) -> None:
        async def main() -> None:
            async with (
                peer.serve(setup) as port,
                websock.connect(setup.url(port), **client_options(setup)) as ws,
            ):
                await ws.send("close 4001 enough")
                with pytest.raises(websock.ConnectionClosedError) as info:
                    await ws.recv()
                assert info.value.rcvd is not None
                assert info.value.rcvd.code == 4001
                assert info.value.rcvd.reason == "enough"
                assert info.value.rcvd_then_sent

        run(main())

    def test_listener(self, peer: Peer, setup: Setup, run: Run) -> None:
        class Collect(websock.Listener):
            def __init__(self) -> None:
                self.messages: list[Message] = []
                self.closed: asyncio.Future[tuple[int, str]]
                self.closed = asyncio.get_running_loop().create_future()

            def on_open(self, ws: Any) -> None:
                ws.send_nowait(MESSAGES[0])

            def on_message(self, ws: Any, message: Message) -> None:
                self.messages.append(message)
                if len(self.messages) < len(MESSAGES):
                    ws.send_nowait(MESSAGES[len(self.messages)])
                else:
                    ws.send_nowait("close 4002 done")

            def on_close(self, ws: Any, code: int, reason: str) -> None:
                self.closed.set_result((code, reason))

        async def main() -> None:
            listener = Collect()
            async with (
                peer.serve(setup) as port,
                websock.connect(
                    setup.url(port), listener=listener, **client_options(setup)
                ),
            ):
                assert await listener.closed == (4002, "done")
            assert listener.messages == MESSAGES

        run(main())


class TestServer:
    """Our server, their client."""

    def test_echo(self, peer: Peer, setup: Setup, run: Run) -> None:
        closed: asyncio.Future[tuple[int | None, str | None]]

        async def echo(ws: ServerConnection) -> None:
            async for message in ws:
                await ws.send(message)
            closed.set_result((ws.close_code, ws.close_reason))

        async def main() -> None:
            nonlocal closed
            closed = asyncio.get_running_loop().create_future()
            async with websock.serve(
                echo, "127.0.0.1", 0, **server_options(setup)
            ) as server:
                talk = await peer.talk(
                    setup.url(port_of(server)), setup, MESSAGES, (1000, "thanks")
                )
                assert await closed == (1000, "thanks")
            assert talk.messages == MESSAGES
            assert talk.subprotocol == "chat"
            assert talk.ponged
            assert ("permessage-deflate" in talk.extensions) == setup.deflate
            assert talk.code == 1000

        run(main())

    def test_server_closes(self, peer: Peer, setup: Setup, run: Run) -> None:
        async def handler(ws: ServerConnection) -> None:
            async for message in ws:
                if close := asked_to_close(message):
                    await ws.close(*close)

        async def main() -> None:
            async with websock.serve(
                handler, "127.0.0.1", 0, **server_options(setup)
            ) as server:
                url = setup.url(port_of(server))
                talk = await peer.talk(url, setup, ["close 4003 that is all"], None)
            assert (talk.code, talk.reason) == (4003, "that is all")

        run(main())

    def test_listener(self, peer: Peer, setup: Setup, run: Run) -> None:
        class Echo(websock.Listener):
            def on_message(self, ws: Any, message: Message) -> None:
                ws.send_nowait(message)

        async def main() -> None:
            async with websock.serve(
                Echo, "127.0.0.1", 0, **server_options(setup)
            ) as server:
                url = setup.url(port_of(server))
                talk = await peer.talk(url, setup, MESSAGES, (1001, ""))
            assert talk.messages == MESSAGES
            assert talk.ponged

        run(main())
