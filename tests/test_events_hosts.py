"""``WebSocketServer`` on the port of an HTTP server: aiohttp, and asyncio's streams."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from helpers import request as head
from raw import CLOSE, TEXT, Raw, raw
from scripted import LOOPBACK, Run, loop_fixture, tls_fixture
from wire import MASK, frame

import websock
from websock.events import (
    InvalidStateError,
    WebSocket,
    WebSocketRequest,
    WebSocketServer,
    is_upgrade,
)
from websock.http11 import Request

run = loop_fixture()
tls = tls_fixture()

PAGE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def echo(request: WebSocketRequest) -> None:
    connection = request.accept()
    connection.on("message", connection.send)


def make(**options: Any) -> WebSocketServer:
    server = WebSocketServer(**options)
    server.on("request", echo)
    return server


async def page_of(client: Raw, request: bytes = PAGE) -> bytes:
    """Ask for a page on a connection that stays; return status and body."""
    await client.send(request)
    lines = (await client.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    (length,) = (
        int(line.partition(b":")[2])
        for line in lines
        if line.lower().startswith(b"content-length:")
    )
    return lines[0].split()[1] + b" " + await client.reader.readexactly(length)


# -- aiohttp ---------------------------------------------------------------------------


async def page(request: web.BaseRequest) -> web.Response:
    return web.Response(text=f"page {request.path}")


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/{name:.*}", page)
    return app


@contextlib.asynccontextmanager
async def running(
    runner: web.BaseRunner, context: ssl.SSLContext | None = None
) -> AsyncIterator[Any]:
    """Run an HTTP server; gives its site."""
    await runner.setup()
    try:
        site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=context)
        await site.start()
        yield site
    finally:
        await runner.cleanup()


def address(site: Any) -> Any:
    return site._runner.addresses[0]


KINDS = ["application", "runner before", "runner", "site", "server", "server runner"]


@pytest.mark.parametrize("kind", KINDS)
def test_pages_and_websockets_on_one_port(run: Run, kind: str) -> None:
    async def main() -> None:
        server = make()
        runner: web.BaseRunner
        if kind.startswith("server"):
            low_level = web.Server(page)
            runner = web.ServerRunner(low_level)
            server.attach(low_level if kind == "server" else runner)
        else:
            app = make_app()
            runner = web.AppRunner(app)
            if kind == "application":
                server = make(http_server=app)
            elif kind == "runner before":
                server.attach(runner)
        async with server, running(runner) as site:
            if kind == "runner":
                server.attach(runner)
            elif kind == "site":
                server.attach(site)
            async with raw(address(site)) as client:
                assert await page_of(client) == b"200 page /"
                # The same connection, and messages behind the request.
                await client.open(rest=frame(TEXT, b"early", mask=MASK))
                assert await client.frame() == (TEXT, b"early")
                await client.echoed("x" * 60_000)
                assert len(server.connections) == 1
                async with raw(address(site)) as other:
                    assert await page_of(other) == b"200 page /"
                await client.send(frame(CLOSE, b"\x03\xe8", mask=MASK))
                assert await client.frame() == (CLOSE, b"\x03\xe8")
                assert await client.ended() == b""
            assert server.connections == set()

    run(main())


def test_messages_in_pieces_behind_the_request(run: Run) -> None:
    async def main() -> None:
        server = make(http_server=(app := make_app()))
        data = head() + frame(TEXT, b"early", mask=MASK)
        async with server, running(web.AppRunner(app)) as site:
            for at in range(len(data) - 20, len(data), 3):
                async with raw(address(site)) as client:
                    await client.send(data[:at])
                    await asyncio.sleep(0)
                    await client.send(data[at:])
                    await client.reader.readuntil(b"\r\n\r\n")
                    assert await client.frame() == (TEXT, b"early")

    run(main())


def test_only_one_path_of_an_application(run: Run) -> None:
    async def main() -> None:
        server = make(http_server=(app := make_app()), path="/ws")
        async with server, running(web.AppRunner(app)) as site:
            async with raw(address(site)) as client:
                assert await page_of(client, head(target="/x")) == b"200 page /x"
                await client.send(head(target="/ws?q"))
                await client.reader.readuntil(b"\r\n\r\n")
                await client.echoed("x")

    run(main())


def test_rejections_through_aiohttp(run: Run) -> None:
    async def main() -> None:
        server = WebSocketServer(http_server=(app := make_app()))

        @server.on("request")
        def on_request(request: WebSocketRequest) -> None:
            assert request.headers.get_all("X-A") == ["1", "é"]
            assert request.remote_address[0] == LOOPBACK
            request.reject(403, "no")

        async with server, running(web.AppRunner(app)) as site:
            async with raw(address(site)) as client:
                await client.send(head("X-A: 1", "X-A: é"))
                answer = await client.answer()
                assert (answer.status, answer.body) == (403, b"no\n")
            async with raw(address(site)) as client:
                await client.send(head("Sec-WebSocket-Version: 7"))
                assert (await client.answer()).status == 426

    run(main())


def test_middlewares_of_the_program_come_first(run: Run) -> None:
    @web.middleware
    async def gate(request: web.Request, handler: Any) -> web.StreamResponse:
        if "X-Key" not in request.headers:
            raise web.HTTPUnauthorized
        response: web.StreamResponse = await handler(request)
        return response

    async def main() -> None:
        app = web.Application(middlewares=[gate])
        server = make(http_server=app)
        async with server, running(web.AppRunner(app)) as site:
            async with raw(address(site)) as client:
                assert (await page_of(client, head()))[:4] == b"401 "
                await client.open("X-Key: 1")
                await client.echoed("x")

    run(main())


def test_answers_that_come_later_through_aiohttp(run: Run) -> None:
    async def main() -> None:
        pending: asyncio.Queue[WebSocketRequest] = asyncio.Queue()
        server = WebSocketServer(http_server=(app := make_app()))
        server.on("request", pending.put_nowait)
        async with server, running(web.AppRunner(app)) as site:
            async with raw(address(site)) as client:
                await client.send(head())
                request = await pending.get()
                await client.send(frame(TEXT, b"early", mask=MASK))
                assert request.is_pending
                echo(request)
                await client.reader.readuntil(b"\r\n\r\n")
                assert await client.frame() == (TEXT, b"early")

    run(main())


def test_answers_that_never_come_through_aiohttp(run: Run) -> None:
    async def main() -> None:
        pending: asyncio.Queue[WebSocketRequest] = asyncio.Queue()
        server = WebSocketServer(http_server=(app := make_app()), open_timeout=0.05)
        server.on("request", pending.put_nowait)
        async with server, running(web.AppRunner(app)) as site:
            async with raw(address(site)) as client:
                await client.send(head())
                assert (await client.answer()).status == 503
                assert not (await pending.get()).is_pending

    run(main())


def test_detaching_from_aiohttp(run: Run) -> None:
    async def main() -> None:
        server = make(http_server=(app := make_app()))
        low_level = web.Server(page)
        server.attach(low_level)
        async with running(web.AppRunner(app)) as site:
            async with running(web.ServerRunner(low_level)) as other:
                async with raw(address(site)) as client:
                    await client.open()
                    server.detach()
                    await client.echoed("connections go on")
                    for where in (site, other):
                        async with raw(address(where)) as late:
                            assert await page_of(late, head()) == b"200 page /"
                    ending = asyncio.create_task(server.shut_down())
                    assert await client.closing() == (1001, "")
                    await ending

    run(main())


def test_the_end_of_an_application(run: Run) -> None:
    async def main() -> None:
        server = make(http_server=(app := make_app()))
        runner = web.AppRunner(app)
        async with running(runner) as site:
            async with raw(address(site)) as client:
                await client.open()
                ending = asyncio.create_task(runner.cleanup())
                assert await client.closing() == (1001, "")
                await ending
        assert server.connections == set()
        with pytest.raises(InvalidStateError):
            await server.listen()

    run(main())


def test_clients_of_aiohttp_that_vanish(run: Run) -> None:
    async def main() -> None:
        server = make(http_server=(app := make_app()))
        ended: asyncio.Queue[Any] = asyncio.Queue()
        server.on("close", lambda *args: ended.put_nowait(args))
        async with server, running(web.AppRunner(app)) as site:
            for way in ("reset", "eof"):
                async with raw(address(site)) as client:
                    await client.open()
                    if way == "reset":
                        client.reset()
                    else:
                        client.writer.write_eof()
                    assert (await ended.get())[1:] == (1006, "")
            assert server.connections == set()

    run(main())


def test_what_cannot_be_attached_to(run: Run) -> None:
    async def main() -> None:
        server = make()
        with pytest.raises(TypeError, match=r"^cannot attach to int: expected someth"):
            server.attach(1)
        with pytest.raises(TypeError, match=r"^cannot attach to Response$"):
            server.attach(web.Response())
        app = make_app()
        async with running(web.AppRunner(app)):
            with pytest.raises(
                InvalidStateError, match=r"attach to its runner or site"
            ):
                server.attach(app)

    run(main())


def test_tls_of_aiohttp(run: Run, tls: Any) -> None:
    async def main() -> None:
        server = make(http_server=(app := make_app()))
        async with server, running(web.AppRunner(app), tls.server) as site:
            port = address(site)[1]
            ws = WebSocket(f"wss://{LOOPBACK}:{port}/", ssl=tls.client)
            got: asyncio.Queue[Any] = asyncio.Queue()
            ws.onmessage = lambda event: got.put_nowait(event.data)
            await ws.opened
            for data in ("x", bytes(500_000)):
                ws.send(data)
                assert await got.get() == data
            ws.close(1000)
            assert (await ws.closed).wasClean

    run(main())


@pytest.mark.parametrize("over_tls", [False, True])
def test_drain_on_a_transport(run: Run, tls: Any, over_tls: bool) -> None:
    async def main() -> None:
        server = WebSocketServer(http_server=(app := make_app()))
        drained = asyncio.Event()
        count = 0

        @server.on("request")
        def on_request(request: WebSocketRequest) -> None:
            nonlocal count
            connection = request.accept()
            connection.on("drain", drained.set)
            count = 1
            while connection.send(bytes(100_000)):
                count += 1
            assert connection.buffered_amount > 0

        contexts = (tls.server, tls.client) if over_tls else (None, None)
        async with server, running(web.AppRunner(app), contexts[0]) as site:
            async with raw(address(site), ssl=contexts[1]) as client:
                await client.open()
                assert not drained.is_set()
                for _ in range(count):
                    await client.frame()
                await drained.wait()
                (connection,) = server.connections
                assert connection.buffered_amount == 0

    run(main())


def test_it_listens_itself_too(run: Run) -> None:
    async def main() -> None:
        server = WebSocketServer(LOOPBACK, 0, http_server=(app := make_app()))
        server.on("request", echo)
        async with server, running(web.AppRunner(app)) as site:
            async with raw(server) as first, raw(address(site)) as second:
                await first.open()
                await second.open()
                assert len(server.connections) == 2
                server.broadcast("both")
                assert await first.frame() == (TEXT, b"both")
                assert await second.frame() == (TEXT, b"both")

    run(main())


# -- streams ---------------------------------------------------------------------------


class Host:
    """An HTTP server on streams, whose WebSockets go to another server."""

    def __init__(self, server: WebSocketServer, parsed: bool = False) -> None:
        self.server = server
        self.parsed = parsed
        self.handled = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            while True:
                data = await reader.readuntil(b"\r\n\r\n")
                if is_upgrade(data):
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            request: bytes | Request = data
            if self.parsed:
                line, *lines = data.decode("latin-1").split("\r\n")[:-2]
                headers = [tuple(line.split(": ", 1)) for line in lines]
                path = line.split()[1]
                request = Request(path, websock.Headers(headers))  # type: ignore[arg-type]
            await self.server.handle_upgrade(reader, writer, request)
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.handled += 1
            writer.close()


@contextlib.asynccontextmanager
async def hosted(host: Host, **options: Any) -> AsyncIterator[asyncio.Server]:
    http = await asyncio.start_server(host, LOOPBACK, 0, **options)
    async with host.server:
        yield http
    http.close()
    await asyncio.gather(*host.tasks, return_exceptions=True)


@pytest.mark.parametrize("parsed", [False, True])
def test_streams(run: Run, parsed: bool) -> None:
    async def main() -> None:
        server = make()
        host = Host(server, parsed)
        async with hosted(host) as http:
            async with raw(http) as client:
                assert await page_of(client) == b"200 page"
                # A page that is still to be written, and what comes after it.
                early = frame(TEXT, b"early", mask=MASK) * 3
                await client.send(PAGE + head() + early)
                page = await client.reader.readexactly(42)
                assert page.endswith(b"page")
                answer = await client.reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 101 ")
                for _ in range(3):
                    assert await client.frame() == (TEXT, b"early")
                await client.echoed("x" * 60_000)
                await client.send(frame(CLOSE, b"\x03\xe8", mask=MASK))
                assert await client.frame() == (CLOSE, b"\x03\xe8")
                assert await client.ended() == b""
            await asyncio.gather(*host.tasks)
            assert host.handled == 1
            assert server.connections == set()

    run(main())


def test_more_behind_the_request_than_the_reader_takes(run: Run) -> None:
    """The transport was paused, and has to read on."""

    async def main() -> None:
        server = make()
        async with hosted(Host(server), limit=1000) as http, raw(http) as client:
            message = bytes(range(97, 123)) * 1000
            sent = frame(TEXT, message, mask=MASK) * 5
            sending = asyncio.create_task(client.send(head() + sent))
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(5):
                assert await client.frame() == (TEXT, message)
            await sending
            await client.echoed("x")

    run(main())


def test_the_peer_has_ended_its_stream(run: Run) -> None:
    async def main() -> None:
        server = make()
        got: asyncio.Queue[Any] = asyncio.Queue()
        server.on("connect", lambda c: c.on("message", got.put_nowait))
        server.on("close", lambda *args: got.put_nowait(args[1:]))
        host = Host(server)

        class Reader(asyncio.StreamReader):
            def __init__(self) -> None:
                super().__init__()
                self.ended = asyncio.Event()

            def feed_eof(self) -> None:
                super().feed_eof()
                self.ended.set()

        async def handle(reader: Any, writer: asyncio.StreamWriter) -> None:
            await reader.ended.wait()
            await host(reader, writer)

        http = await asyncio.get_running_loop().create_server(
            lambda: asyncio.StreamReaderProtocol(Reader(), handle), LOOPBACK, 0
        )
        async with server, http, raw(http) as client:
            await client.send(head() + frame(TEXT, b"last", mask=MASK))
            client.writer.write_eof()
            assert await got.get() == "last"
            assert await got.get() == (1006, "")
            await asyncio.gather(*host.tasks)

    run(main())


@pytest.mark.parametrize("bad", [head("Sec-WebSocket-Version: 1"), PAGE, b"?\r\n\r\n"])
def test_bad_requests_on_streams_are_answered(run: Run, bad: bytes) -> None:
    async def main() -> None:
        server = make()

        async def handle(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await server.handle_upgrade(
                reader, writer, await reader.readuntil(b"\r\n\r\n")
            )

        http = await asyncio.start_server(handle, LOOPBACK, 0)
        async with server, http, raw(http) as client:
            await client.send(bad)
            assert (await client.answer()).status in (400, 426)
            client.writer.close()

    run(main())


def test_a_handler_that_is_cancelled(run: Run) -> None:
    async def main() -> None:
        server = make()
        cancelled = asyncio.Event()

        class Catching(Host):
            async def __call__(self, reader: Any, writer: Any) -> None:
                try:
                    await super().__call__(reader, writer)
                except asyncio.CancelledError:
                    cancelled.set()  # some asyncio takes it for an error

        host = Catching(server)
        async with hosted(host) as http, raw(http) as client:
            await client.open()
            (task,) = host.tasks
            task.cancel()
            assert await client.closing() == (1001, "")
            await cancelled.wait()

    run(main())


def test_a_transport_that_is_closed_already(run: Run) -> None:
    async def main() -> None:
        server = make()
        done = asyncio.Event()

        async def handle(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            data = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            assert server.take_over(writer.transport, data) is None
            await server.handle_upgrade(reader, writer, data)
            done.set()

        http = await asyncio.start_server(handle, LOOPBACK, 0)
        async with server, http, raw(http) as client:
            await client.send(head())
            assert await client.ended() == b""
            await done.wait()

    run(main())


def test_somebody_else_is_reading(run: Run) -> None:
    async def main() -> None:
        server = make()
        done = asyncio.Event()

        async def handle(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            data = await reader.readuntil(b"\r\n\r\n")
            reading = asyncio.create_task(reader.read(1))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                await server.handle_upgrade(reader, writer, data)
            reading.cancel()
            writer.close()
            done.set()

        http = await asyncio.start_server(handle, LOOPBACK, 0)
        async with server, http, raw(http) as client:
            await client.send(head())
            await done.wait()
            await client.ended()

    run(main())


def test_tls_on_streams(run: Run, tls: Any) -> None:
    async def main() -> None:
        server = make()
        async with hosted(Host(server), ssl=tls.server) as http:
            async with raw(http, ssl=tls.client) as client:
                await client.send(head() + frame(TEXT, b"early", mask=MASK))
                await client.reader.readuntil(b"\r\n\r\n")
                assert await client.frame() == (TEXT, b"early")
                await client.echoed("x" * 60_000)

    run(main())


def test_after_it_was_shut_down(run: Run) -> None:
    async def main() -> None:
        server = make()
        host = Host(server)
        http = await asyncio.start_server(host, LOOPBACK, 0)
        await server.shut_down()
        async with http, raw(http) as client:
            await client.send(head())
            assert (await client.answer()).status == 503
            client.writer.close()
            await asyncio.gather(*host.tasks)

    run(main())
