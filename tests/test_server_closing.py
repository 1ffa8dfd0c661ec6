"""How a server's connections and the server itself end: handlers, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import request
from raw import TEXT, Raw, raw
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture
from wire import MASK, frame

import websock
from websock.asyncio.server import Server, ServerConnection, serve
from websock.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
)

run = loop_fixture()
tls = tls_fixture()


class Log:
    """Errors that were logged: each one has to be taken by the test."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.seen = 0

    def errors(self) -> list[logging.LogRecord]:
        errors = [
            r for r in self.caplog.get_records("call") if r.levelno >= logging.ERROR
        ]
        new, self.seen = errors[self.seen :], len(errors)
        return new

    def error(self) -> str:
        """Take one error: its message and exception."""
        (record,) = self.errors()
        assert record.exc_info
        assert isinstance(record.__dict__["websocket"], ServerConnection)
        return f"{record.getMessage()}: {record.exc_info[1]!r}"


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    log = Log(caplog)
    yield log
    assert [record.getMessage() for record in log.errors()] == []


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def empty(server: Server) -> None:
    """Wait until no connection is left."""
    while server.all_connections or server.handler_tasks:  # noqa: ASYNC110
        await asyncio.sleep(0)


# -- handlers ------------------------------------------------------------------------


def test_handler_that_fails(run: Run, log: Log) -> None:
    async def handler(ws: Any) -> None:
        await ws.send("before")
        raise LookupError("secret")

    async def main() -> None:
        async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            assert await client.frame() == (TEXT, b"before")
            assert await client.closing() == (1011, "")
        assert log.error() == "connection handler failed: LookupError('secret')"

    run(main())


@pytest.mark.parametrize("how", ["function", "wrong arguments", "raises"])
def test_handler_that_is_no_coroutine_function(run: Run, how: str, log: Log) -> None:
    def function(ws: Any) -> None: ...

    def wrong(ws: Any, path: str) -> None: ...

    def raises(ws: Any) -> None:
        raise LookupError

    handlers = {"function": function, "wrong arguments": wrong, "raises": raises}

    async def main() -> None:
        handler: Any = handlers[how]
        async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            assert await client.closing() == (1011, "")
        text = log.error()
        assert text.startswith("connection handler failed: ")
        if how == "function":
            assert "must be a coroutine function, it returned NoneType" in text

    run(main())


def test_other_kinds_of_handlers(run: Run) -> None:
    """What can be called with a connection, and awaited."""

    class Method:
        async def __call__(self, *args: Any) -> None:
            await echo(*args)

        async def handle(self, ws: Any) -> None:
            await echo(ws)

    def undocumented(*args: Any, **kwargs: Any) -> Any:
        return echo(*args, **kwargs)

    def future(ws: Any) -> asyncio.Future[None]:
        return asyncio.ensure_future(echo(ws))

    async def main() -> None:
        handlers: list[Any] = [Method(), Method().handle, undocumented, future]
        for handler in handlers:
            async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
                await client.open()
                await client.echoed("x")

    run(main())


@pytest.mark.parametrize("how", ["reset", "eof", "close", "violation"])
@pytest.mark.parametrize("grouped", [False, True])
def test_clients_that_go_away_are_no_error(run: Run, how: str, grouped: bool) -> None:
    """A handler may let ConnectionClosed pass, also out of a group of tasks."""
    ends: list[BaseException] = []

    async def handler(ws: Any) -> None:
        try:
            if grouped:
                async with asyncio.TaskGroup() as group:
                    group.create_task(ws.recv())
                    group.create_task(asyncio.sleep(1000))
            else:
                await ws.recv()
        except (ConnectionClosed, ExceptionGroup) as exc:
            ends.append(exc)
            raise

    async def main() -> None:
        async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            if how == "reset":
                client.reset()
            elif how == "eof":
                client.writer.write_eof()
            elif how == "close":
                await client.send(frame(8, b"\x0f\xa0bye", mask=MASK))
            else:
                await client.send(frame(TEXT, b"\xff", mask=MASK))
                assert await client.closing() == (
                    1007,
                    "invalid UTF-8 at byte 0 of the message (RFC 6455, 8.1)",
                )
            client.writer.close()
            await empty(server)
            assert len(ends) == 1

    run(main())


def test_end_of_another_connection_is_an_error(run: Run, log: Log) -> None:
    """Such as that of a server behind this one."""

    async def behind(ws: Any) -> None:
        await ws.close(4000, "behind")

    async def main() -> None:
        async with serve(behind, LOOPBACK, 0) as inner:
            host, port = inner.sockets[0].getsockname()

            async def handler(ws: Any) -> None:
                async with websock.connect(f"ws://{host}:{port}", proxy=None) as there:
                    await there.recv()

            async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
                await client.open()
                assert await client.closing() == (1011, "")
            assert "ConnectionClosedError" in log.error()

    run(main())


def test_handler_that_is_cancelled(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            await client.echoed("x")
            (task,) = server.handler_tasks
            task.cancel()
            assert await client.closing() == (1001, "")

    run(main())


def test_handler_goes_on_after_the_end(run: Run) -> None:
    """wait_closed() waits for handlers, too."""

    async def main() -> None:
        gate = asyncio.Event()
        ended = asyncio.Event()

        async def handler(ws: Any) -> None:
            await ws.wait_closed()
            ended.set()
            await gate.wait()

        server = await serve(handler, LOOPBACK, 0)
        async with raw(server) as client:
            await client.open()
            server.close()
            assert await client.closing() == (1001, "")
            await ended.wait()
            closed = asyncio.create_task(server.wait_closed())
            while server.all_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert not closed.done()
            gate.set()
            await closed

    run(main())


def test_connection_is_freed(run: Run) -> None:
    """Once it is closed, nothing refers to it, not even in circles."""

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            gc.collect()
            gc.disable()
            try:
                async with raw(server) as client:
                    await client.open()
                    await client.echoed("x")
                    (connection,) = server.connections
                    ref = weakref.ref(connection)
                    del connection
                    await client.send(frame(8, b"\x03\xe8", mask=MASK))
                    assert await client.ended() == frame(8, b"\x03\xe8")
                await empty(server)
                for _ in range(5):
                    await asyncio.sleep(0)
                assert ref() is None
            finally:
                gc.enable()

    run(main())


# -- shutdown ------------------------------------------------------------------------


async def connected(server: Server, stack: contextlib.AsyncExitStack) -> Raw:
    """Connect, and wait until the server has accepted."""
    before = len(server.all_connections)
    client = await stack.enter_async_context(raw(server))
    while len(server.all_connections) == before:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return client


def test_shutdown_with_connections_in_every_state(run: Run) -> None:
    async def main() -> None:
        entered = asyncio.Event()
        gate = asyncio.Event()
        ends: dict[str, BaseException | None] = {}

        async def hook(ws: Any, request: Any) -> Any:
            if request.path == "/hook":
                entered.set()
                await gate.wait()
            if request.path == "/refused":
                return ws.respond(404, "no")
            return None

        async def handler(ws: Any) -> None:
            path = ws.request.path
            if path == "/closing":
                await ws.close(4000)
                ends[path] = None
                return
            try:
                while True:
                    await ws.send(await ws.recv())
            except ConnectionClosed as exc:
                ends[path] = exc
                raise

        async with contextlib.AsyncExitStack() as stack:
            server = await serve(handler, LOOPBACK, 0, process_request=hook)
            silent = await connected(server, stack)
            half = await connected(server, stack)
            await half.send(request()[:30])
            hooked = await connected(server, stack)
            await hooked.send(request(target="/hook"))
            await entered.wait()
            refused = await connected(server, stack)
            await refused.send(request(target="/refused"))
            assert (await refused.answer()).status == 404
            closing = await connected(server, stack)
            await closing.send(request(target="/closing"))
            await closing.reader.readuntil(b"\r\n\r\n")
            assert await closing.frame() == (8, b"\x0f\xa0")
            opened = await connected(server, stack)
            await opened.open()
            await opened.echoed("x")
            assert {c.request.path for c in server.connections if c.request} == {"/"}

            server.close(code=1012, reason="restart")
            for client in (silent, half):
                answer = await client.answer()
                assert (answer.status, answer.body) == (
                    503,
                    b"Server is shutting down.\n",
                )
            assert await opened.closing() == (1012, "restart")
            assert not server.is_serving()
            assert server.connections == set()
            with pytest.raises(OSError):
                await asyncio.open_connection(*silent.writer.get_extra_info("peername"))
            gate.set()
            assert (await hooked.answer()).status == 503
            await closing.send(frame(8, b"\x0f\xa0", mask=MASK))
            assert await closing.ended() == b""
            for client in (silent, half, hooked, refused, closing):
                client.writer.close()
            await server.wait_closed()

        assert ends.pop("/closing") is None
        exc = ends.pop("/")
        assert isinstance(exc, ConnectionClosedError)
        assert str(exc) == (
            "sent 1012 (service restart) restart; "
            "then received 1012 (service restart) restart"
        )
        assert ends == {}

    run(main())


def test_shutdown_is_ok_for_handlers(run: Run) -> None:
    async def main() -> None:
        seen: list[ConnectionClosed] = []

        async def handler(ws: Any) -> None:
            with pytest.raises(ConnectionClosedOK) as caught:
                await ws.recv()
            seen.append(caught.value)

        async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            while not server.handler_tasks:  # noqa: ASYNC110
                await asyncio.sleep(0)
            server.close()
            assert await client.closing() == (1001, "")
        assert str(seen[0]) == "sent 1001 (going away); then received 1001 (going away)"

    run(main())


def test_shutdown_does_not_wait_for_ever(run: Run) -> None:
    """Not for clients that answer nothing, nor for those that read nothing."""

    async def main() -> None:
        async def pour(ws: Any) -> None:
            while True:
                await ws.send(b"x" * 10_000)

        async with contextlib.AsyncExitStack() as stack:
            server = await serve(pour, LOOPBACK, 0, close_timeout=0.1)
            mute = await stack.enter_async_context(raw(server, limit=1024))
            await mute.open()
            (connection,) = server.connections
            while not connection.write_paused:  # noqa: ASYNC110
                await asyncio.sleep(0)
            server.close()
            await server.wait_closed()

    run(main())


@pytest.mark.parametrize("close_connections", [True, False])
def test_close_again(run: Run, close_connections: bool) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            server.close(close_connections)
            server.close(not close_connections, 4000, "later")
            await asyncio.sleep(0)
            assert not server.is_serving()
            if close_connections:
                assert await client.closing() == (1001, "")
            else:
                await client.echoed("x")
                await client.send(frame(8, b"", mask=MASK))

    run(main())


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1005, ""), (1006, ""), (999, ""), (5000, ""), (1000, "x" * 124)],
)
def test_wrong_codes(run: Run, code: int, reason: str) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            with pytest.raises(ProtocolError) as caught:
                server.close(code=code, reason=reason)
            assert isinstance(caught.value, ValueError)
            assert server.is_serving()

    run(main())


def test_after_the_end(run: Run) -> None:
    async def main() -> None:
        server = await serve(echo, LOOPBACK, 0, start_serving=False)
        server.close()
        await server.wait_closed()
        with pytest.raises(RuntimeError, match="the server is closed"):
            await server.start_serving()
        await server.serve_forever()

    run(main())


def test_error_inside_the_context(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with serve(echo, LOOPBACK, 0) as server:
                raise ZeroDivisionError
        assert not server.is_serving()

    run(main())


def test_await_in_a_context(run: Run) -> None:
    """As a server can be used in the websockets library."""

    async def main() -> None:
        async with await serve(echo, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            await client.echoed("x")
        assert not server.is_serving()

    run(main())


def test_cancelled_wait(run: Run) -> None:
    """Cancelling wait_closed() does not cancel the end."""

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            server.close()
            task = asyncio.create_task(server.wait_closed())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.closing() == (1001, "")
            await server.wait_closed()

    run(main())


def test_tls_shutdown(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, ssl=tls.server) as server:
            async with (
                raw(server, ssl=tls.client, server_hostname=LOOPBACK) as silent,
                raw(server, ssl=tls.client, server_hostname=LOOPBACK) as opened,
            ):
                await opened.open()
                await opened.echoed("x")
                server.close()
                assert (await silent.answer()).status == 503
                assert await opened.closing() == (1001, "")
        assert server.sockets == ()

    run(main())
