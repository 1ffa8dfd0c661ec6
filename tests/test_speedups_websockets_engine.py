"""Connections of this library under the names of websockets, ``engine=True``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
import websockets.asyncio.client as host_client
import websockets.asyncio.server as host_server
import websockets.exceptions as host_exceptions
from host_patches import patched
from websockets.asyncio.client import connect as connect_before
from websockets.asyncio.router import route
from websockets.asyncio.server import basic_auth
from websockets.asyncio.server import serve as serve_before
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.http11 import USER_AGENT, Headers, Response
from werkzeug.routing import Map, Rule

import websock
from websock import exceptions
from websock.frames import Close
from websock.speedups._websockets import PATCH

TIMEOUT = 60  # seconds, for a whole test on a busy machine


@pytest.fixture
def engine() -> Iterator[None]:
    with patched(PATCH, PATCH.parts[:2] + PATCH.parts[3:], engine=True):
        yield


def run(main: Any) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT):
            await main

    asyncio.run(limited())


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


@contextlib.asynccontextmanager
async def serving(
    serve: Any, handler: Any = echo, **options: Any
) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def is_ours(ws: Any) -> bool:
    return isinstance(ws, websock.asyncio.connection.Connection)


NAMES: list[Callable[[], tuple[Any, Any]]] = [
    lambda: (websockets.serve, websockets.connect),
    lambda: (host_server.serve, host_client.connect),
]


@pytest.mark.parametrize("names", NAMES)
def test_both_ends(engine: None, names: Callable[[], tuple[Any, Any]]) -> None:
    kinds = []

    async def handler(ws: Any) -> None:
        kinds.append(is_ours(ws))
        assert ws.request.headers["User-Agent"] == USER_AGENT
        await echo(ws)

    async def main() -> None:
        serve, connect = names()
        async with serving(serve, handler) as uri:
            async with connect(uri) as ws:
                kinds.append(is_ours(ws))
                await ws.send("text")
                assert await ws.recv() == "text"
                assert ws.response.headers["Server"].endswith(
                    f"websockets/{websockets.__version__}"
                )
            ws = await connect(uri)
            await ws.send(b"bytes")
            assert await ws.recv() == b"bytes"
            await ws.close()
            async for ws in connect(uri):
                await ws.send("again")
                assert await ws.recv() == "again"
                break

    run(main())
    assert kinds == [True] * 4


def test_unix_sockets(engine: None, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with (
            websockets.unix_serve(echo, path),
            websockets.unix_connect(path) as ws,
        ):
            assert is_ours(ws)
            await ws.send("text")
            assert await ws.recv() == "text"

    run(main())


def test_it_is_taken_off() -> None:
    def names() -> list[Any]:
        return [
            host_client.connect, host_client.unix_connect, host_server.serve,
            host_server.unix_serve, host_server.broadcast, websockets.broadcast,
        ]  # fmt: skip

    before = names()
    with patched(PATCH, PATCH.parts[:2] + PATCH.parts[3:], engine=True):
        assert not set(map(id, before)) & set(map(id, names()))
    assert all(a is b for a, b in zip(before, names(), strict=True))


def test_without_the_option_connections_are_the_hosts() -> None:
    with patched(PATCH, PATCH.parts[:2] + PATCH.parts[3:]):
        assert host_client.connect is connect_before
        assert host_server.serve is serve_before


def test_connections_live_through_it() -> None:
    async def main() -> None:
        async with serving(serve_before) as uri:
            with patched(PATCH, PATCH.parts[:2] + PATCH.parts[3:], engine=True):
                one = await websockets.connect(uri)
            assert is_ours(one)
            other = await websockets.connect(uri)
            assert not is_ours(other)
            for ws in (one, other):
                await ws.send("text")
                assert await ws.recv() == "text"
                await ws.close()
                with pytest.raises(ConnectionClosedOK):
                    await ws.recv()

    run(main())


# -- exceptions ------------------------------------------------------------------------


def test_exceptions_are_caught_by_names_of_before(engine: None) -> None:
    async def main() -> None:
        async def close(ws: Any) -> None:
            try:
                await ws.recv()
            except ConnectionClosed as exc:
                caught.append((exc.rcvd.code, exc.rcvd.reason, exc.rcvd_then_sent))
                raise

        caught: list[Any] = []
        async with serving(websockets.serve, close) as uri:
            async with websockets.connect(uri) as ws:
                await ws.close(4000, "bye")
                try:
                    await ws.send("after")
                except ConnectionClosed as exc:
                    caught.append((exc.sent.code, exc.reason, str(exc)[:21]))
        async with serving(websockets.serve, origins=["http://b"]) as uri:
            with pytest.raises(host_exceptions.InvalidStatus) as found:
                await websockets.connect(uri)
            assert found.value.response.status_code == 403
        assert sorted(caught, key=str) == [
            (4000, "bye", "sent 4000 (private use"[:21]),
            (4000, "bye", True),
        ]

    run(main())


def test_exceptions_are_as_before(engine: None) -> None:
    names = [
        name
        for name in host_exceptions.__all__
        if isinstance(getattr(exceptions, name, None), type)
    ]
    assert len(names) > 25
    for name in names:
        assert issubclass(getattr(exceptions, name), getattr(host_exceptions, name))
    closed = exceptions.ConnectionClosedOK(Close(1000, "a"), Close(1000, "b"), True)
    assert str(closed) == "received 1000 (OK) a; then sent 1000 (OK) b"
    header = exceptions.InvalidHeaderFormat("name", "error", "value", 3)
    assert header.args == ("name", "error", "value", 3)
    assert (header.name, header.value) == ("name", "error at 3 in value")
    assert str(exceptions.InvalidMessage("plain text")) == "plain text"
    assert exceptions.ProtocolError("text", code=1003).code == 1003
    assert isinstance(exceptions.InvalidState("text"), AssertionError)
    assert isinstance(exceptions.UnsafeHeader("name", "value"), ValueError)
    big = exceptions.PayloadTooBig(5, 3)
    big.set_current_size(2)
    assert str(big) == "message is too big: 7 bytes, limit 5"
    # The host's own are not ours.
    assert not issubclass(host_exceptions.ConnectionClosed, exceptions.ConnectionClosed)


# -- what only the host can do ---------------------------------------------------------


class OwnClient(host_client.ClientConnection):
    """A program's class of connections, made for the host."""


class OwnServer(host_server.ServerConnection):
    """The same for servers."""


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ({"create_connection": OwnClient}, {"create_connection": OwnServer}),
        (
            {"extensions": [ClientPerMessageDeflateFactory()]},
            {"extensions": [ServerPerMessageDeflateFactory()]},
        ),
    ],
)
def test_what_is_made_for_the_host_gets_the_host(
    engine: None, client: Any, server: Any
) -> None:
    kinds = []

    async def handler(ws: Any) -> None:
        kinds.append(is_ours(ws))
        await echo(ws)

    async def main() -> None:
        async with serving(websockets.serve, handler, **server) as uri:
            async with websockets.connect(uri, **client) as ws:
                kinds.append(is_ours(ws))
                await ws.send("text")
                assert await ws.recv() == "text"
            async with websockets.connect(uri) as ws:
                kinds.append(is_ours(ws))

    run(main())
    # The server's are the host's, and of the client's the one that asks for it.
    assert sorted(kinds) == [False, False, False, True]


@pytest.mark.parametrize("is_async", [False, True])
def test_responses_of_the_host(engine: None, is_async: bool) -> None:
    def process_request(ws: Any, request: Any) -> Any:
        if request.path == "/":
            return None
        return Response(418, "I'm a teapot", Headers([("X-Tea", "green")]), b"tea\n")

    async def later(ws: Any, request: Any) -> Any:
        return process_request(ws, request)

    async def main() -> None:
        process = later if is_async else process_request
        async with serving(websockets.serve, process_request=process) as uri:
            async with websockets.connect(uri) as ws:
                assert is_ours(ws)
            with pytest.raises(host_exceptions.InvalidStatus) as found:
                await websockets.connect(uri + "/tea")
            response = found.value.response
            assert (response.status_code, response.reason_phrase) == (
                418,
                "I'm a teapot",
            )
            assert (response.headers["X-Tea"], response.body) == ("green", b"tea\n")

    run(main())


def test_basic_auth_of_the_host(engine: None) -> None:
    async def handler(ws: Any) -> None:
        await ws.send(ws.username)

    async def main() -> None:
        auth = basic_auth(realm="tests", credentials=("me", "secret"))
        async with serving(websockets.serve, handler, process_request=auth) as uri:
            async with websockets.connect(uri.replace("//", "//me:secret@")) as ws:
                assert is_ours(ws)
                assert await ws.recv() == "me"
            with pytest.raises(host_exceptions.InvalidStatus) as found:
                await websockets.connect(uri)
            assert found.value.response.status_code == 401

    run(main())


def test_routes_of_the_host(engine: None) -> None:
    async def handler(ws: Any, name: str) -> None:
        assert is_ours(ws)
        await ws.send(name)

    async def main() -> None:
        rules = Map([Rule("/names/<name>", endpoint=handler)])
        async with route(rules, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with websockets.connect(f"ws://127.0.0.1:{port}/names/me") as ws:
                assert await ws.recv() == "me"
            with pytest.raises(host_exceptions.InvalidStatus) as found:
                await websockets.connect(f"ws://127.0.0.1:{port}/other")
            assert found.value.response.status_code == 404

    run(main())


def test_broadcast_to_both_kinds(engine: None) -> None:
    async def main() -> None:
        everyone: set[Any] = set()
        joined = asyncio.Condition()

        async def handler(ws: Any) -> None:
            async with joined:
                everyone.add(ws)
                joined.notify_all()
            await ws.wait_closed()

        async with (
            serving(websockets.serve, handler) as ours,
            serving(serve_before, handler) as theirs,
            websockets.connect(ours) as one,
            websockets.connect(theirs) as other,
        ):
            async with joined:
                await joined.wait_for(lambda: len(everyone) == 2)
            assert sorted(map(is_ours, everyone)) == [False, True]
            for send in (websockets.broadcast, host_server.broadcast):
                send(everyone, "text")
                send(iter(everyone), b"bytes", raise_exceptions=True)
                for ws in (one, other):
                    assert [await ws.recv(), await ws.recv()] == ["text", b"bytes"]
            for ws in everyone:  # in the middle of fragments
                task = asyncio.create_task(ws.send(never(ws)))
                tasks.append(task)
            await asyncio.sleep(0)
            with pytest.raises(ExceptionGroup) as found:
                websockets.broadcast(everyone, "text", raise_exceptions=True)
            assert len(found.value.exceptions) == 2
            for exc in found.value.exceptions:
                cause: Any = exc.__cause__ or exc
                assert "fragmented message" in str(cause)
            for some in ([], everyone):
                with pytest.raises(TypeError):
                    websockets.broadcast(some, 5)  # type: ignore[arg-type]
            end.set()
            await asyncio.gather(*tasks)

    tasks: list[Any] = []
    end = asyncio.Event()

    async def never(ws: Any) -> AsyncIterator[str]:
        yield "begins"
        await end.wait()

    run(main())
