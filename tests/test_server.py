"""serve(), its server and its connections, with real clients."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from typing import Any

import pytest
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture
from websockets.asyncio.client import connect as their_connect

import websock
from websock.asyncio.server import Server, ServerConnection, serve
from websock.exceptions import ConnectionClosedOK, InvalidStatus
from websock.http11 import Response

run = loop_fixture()
tls = tls_fixture()


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def url_of(server: Server, path: str = "/", scheme: str = "ws") -> str:
    return f"{scheme}://{LOOPBACK}:{server.sockets[0].getsockname()[1]}{path}"


def connect(server: Server, path: str = "/", **kwargs: Any) -> Any:
    return websock.connect(url_of(server, path), proxy=None, **kwargs)


async def check_echo(server: Server, **kwargs: Any) -> None:
    async with connect(server, **kwargs) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"


async def refusal(server: Server, path: str = "/", **kwargs: Any) -> Response:
    with pytest.raises(InvalidStatus) as caught:
        await connect(server, path, **kwargs)
    return caught.value.response


# -- the server ----------------------------------------------------------------------


def test_ways_to_serve(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            assert server.is_serving()
            assert server.get_loop() is asyncio.get_running_loop()
            await check_echo(server)
        assert not server.is_serving()
        assert server.sockets == ()

        server = await serve(echo, LOOPBACK, 0, start_serving=False)
        assert not server.is_serving()
        await server.start_serving()
        await check_echo(server)
        server.close()
        server.close()
        await server.wait_closed()
        await server.wait_closed()

    run(main())


def test_serve_forever(run: Run) -> None:
    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0, start_serving=False)
        task = asyncio.create_task(server.serve_forever())
        while not server.is_serving():  # noqa: ASYNC110
            await asyncio.sleep(0)
        ws = await connect(server)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionClosedOK) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "received 1001 (going away); then sent 1001 (going away)"
        )
        server = await serve(echo, LOOPBACK, 0)
        task = asyncio.create_task(server.serve_forever())
        server.close()
        await task

    run(main())


def test_connections(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            assert server.connections == set()
            async with connect(server) as ws:
                await ws.send("x")
                await ws.recv()
                (connection,) = server.connections
                assert connection.remote_address == ws.local_address
                assert connection.local_address == ws.remote_address
                assert connection.server is server
                assert connection.request.path == "/"
                assert connection.response.status_code == 101
            await connection.wait_closed()
            assert server.connections == set()

    run(main())


def test_close_with_a_code(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            ws = await connect(server)
            server.close(code=1012, reason="restart")
            with pytest.raises(websock.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1012, "restart")

    run(main())


def test_close_without_closing_connections(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            ws = await connect(server)
            server.close(close_connections=False)
            closed = asyncio.create_task(server.wait_closed())
            await ws.send("still")
            assert await ws.recv() == "still"
            assert not closed.done()
            with pytest.raises(OSError):
                await asyncio.open_connection(LOOPBACK, ws.remote_address[1])
            await ws.close()
            await closed

    run(main())


def test_close_during_handshakes(run: Run) -> None:
    """503 for those who are still opening, at once or when their hook is done."""

    async def main() -> None:
        entered, gate = asyncio.Event(), asyncio.Event()

        async def hook(ws: Any, request: Any) -> None:
            entered.set()
            await gate.wait()

        async with serve(echo, LOOPBACK, 0, process_request=hook) as server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            while not server.all_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)
            slow = asyncio.create_task(refusal(server))
            await entered.wait()
            server.close()
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
            gate.set()
            assert (await slow).status_code == 503
            await server.wait_closed()

    run(main())


def test_tls(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, ssl=tls.server) as server:
            for connect_to in (websock.connect, their_connect):
                async with connect_to(  # type: ignore[operator]
                    url_of(server, scheme="wss"), ssl=tls.client, proxy=None
                ) as ws:
                    await ws.send("x" * 100_000)
                    assert await ws.recv() == "x" * 100_000
            # One deadline, the handshake of TLS included.
            async with serve(
                echo, LOOPBACK, 0, ssl=tls.server, open_timeout=0.2
            ) as other:
                reader, writer = await asyncio.open_connection(
                    *other.sockets[0].getsockname()
                )
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()

    run(main())


# -- the opening handshake -----------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
def test_plain_http_on_the_same_port(run: Run, waits: bool) -> None:
    def answer(ws: ServerConnection, request: Any) -> Response | None:
        if request.path == "/health":
            return ws.respond(http.HTTPStatus.OK, "fine\n")
        return None

    async def answer_later(ws: ServerConnection, request: Any) -> Response | None:
        await asyncio.sleep(0)
        return answer(ws, request)

    async def main() -> None:
        hook = answer_later if waits else answer
        async with serve(echo, LOOPBACK, 0, process_request=hook) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            got = await reader.read()
            writer.close()
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            assert got.endswith(b"\r\n\r\nfine\n")
            await check_echo(server)

    run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_process_response(run: Run, waits: bool) -> None:
    def change(ws: Any, request: Any, response: Response) -> Response | None:
        response.headers["X-Extra"] = "yes"
        if request.path == "/teapot":
            return ws.respond(http.HTTPStatus.IM_A_TEAPOT, "short and stout\n")
        return None

    async def change_later(ws: Any, request: Any, response: Response) -> Any:
        await asyncio.sleep(0)
        return change(ws, request, response)

    async def main() -> None:
        hook = change_later if waits else change
        async with serve(echo, LOOPBACK, 0, process_response=hook) as server:
            async with connect(server) as ws:
                assert ws.response.headers["X-Extra"] == "yes"
            assert (await refusal(server, "/teapot")).status_code == 418

    run(main())


@pytest.mark.parametrize("name", ["process_request", "process_response"])
@pytest.mark.parametrize("waits", [False, True])
def test_hook_that_fails(
    run: Run, name: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> Any:
        raise ZeroDivisionError("in a hook")

    async def fail_later(*args: Any) -> Any:
        fail()

    async def main() -> None:
        hooks: Any = {name: fail_later if waits else fail}
        async with serve(echo, LOOPBACK, 0, **hooks) as server:
            response = await refusal(server)
            assert response.status_code == 500
            assert b"ZeroDivisionError" not in response.body

    run(main())
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == f"{name} failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


# -- handlers ------------------------------------------------------------------------


def test_handler_that_returns(run: Run) -> None:
    async def handler(ws: Any) -> None:
        await ws.send("bye")

    async def main() -> None:
        async with serve(handler, LOOPBACK, 0) as server, connect(server) as ws:
            assert [message async for message in ws] == ["bye"]
            assert ws.close_code == 1000

    run(main())
