"""The ``request`` event of ``WebSocketServer``: accepting, rejecting, routing."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest
from helpers import request as head
from raw import CLOSE, TEXT, raw
from scripted import LOOPBACK, Run, loop_fixture
from wire import MASK, frame

import websock
from websock.events import (
    Cookie,
    InvalidStateError,
    WebSocketRequest,
    WebSocketRouter,
    WebSocketServer,
)

run = loop_fixture()

NOWHERE = b"There is no WebSocket here.\n"


def make(**options: Any) -> WebSocketServer:
    return WebSocketServer(LOOPBACK, 0, **options)


def echo(request: WebSocketRequest) -> None:
    connection = request.accept()
    connection.on("message", connection.send)


async def status_of(server: WebSocketServer, *lines: str, target: str = "/") -> int:
    """Ask for a connection that is not opened; return why."""
    async with raw(server) as client:
        await client.send(head(*lines, target=target))
        return (await client.answer()).status


# -- accepting -------------------------------------------------------------------------


def test_what_a_request_tells(run: Run) -> None:
    seen: list[WebSocketRequest] = []

    async def main() -> None:
        async with make() as server:

            @server.on("request")
            def on_request(request: WebSocketRequest) -> None:
                seen.append(request)
                assert request.is_pending
                request.accept()
                assert not request.is_pending

            async with raw(server) as client:
                await client.send(
                    head(
                        "Origin: http://example.com",
                        "Sec-WebSocket-Protocol: chat, superchat",
                        "Sec-WebSocket-Protocol: other",
                        "Sec-WebSocket-Extensions: x-a; b=1, permessage-deflate; "
                        "client_max_window_bits",
                        'Cookie: a=1; b="2"',
                        "X-Own: x",
                        target="/a%20b?c=1&c=2&d",
                    )
                )
                await client.reader.readuntil(b"\r\n\r\n")
                (request,) = seen
                assert request.origin == "http://example.com"
                assert request.resource == "/a%20b?c=1&c=2&d"
                assert request.path == "/a b"
                assert request.query == {"c": ["1", "2"], "d": [""]}
                assert request.requested_protocols == ["chat", "superchat", "other"]
                assert request.requested_extensions == [
                    ("x-a", [("b", "1")]),
                    ("permessage-deflate", [("client_max_window_bits", None)]),
                ]
                assert request.cookies == {"a": "1", "b": "2"}
                assert request.headers["x-own"] == "x"
                address = client.writer.get_extra_info("sockname")
                assert request.remote_address[:2] == address[:2]
                shown = f"<WebSocketRequest '/a%20b?c=1&c=2&d' {address}>"
                assert repr(request) == shown

    run(main())


def test_requests_without_anything(run: Run) -> None:
    async def main() -> None:
        async with make() as server:

            @server.on("request")
            def on_request(request: WebSocketRequest) -> None:
                assert request.origin is None
                assert request.requested_protocols == []
                assert request.requested_extensions == []
                assert request.cookies == {}
                assert request.query == {}
                connection = request.accept(None, None)
                assert connection.protocol is None
                assert connection.extensions == []
                connection.close()

            async with raw(server) as client:
                answer = await client.open()
                assert "Sec-WebSocket-Protocol" not in answer.headers
                assert "Sec-WebSocket-Extensions" not in answer.headers
                assert await client.closing() == (1000, "")

    run(main())


def test_accept_with_everything(run: Run) -> None:
    async def main() -> None:
        async with make() as server:
            told: list[Any] = []

            @server.on("connect")
            def on_connect(connection: Any) -> None:
                told.append(connection)

            @server.on("request")
            def on_request(request: WebSocketRequest) -> None:
                connection = request.accept(
                    "b",
                    "http://x",
                    {"id": "7"},
                    headers={"X-Own": "y"},
                )
                assert told == [connection]
                assert connection.connected
                assert connection.protocol == "b"
                assert connection.extensions == ["permessage-deflate"]
                assert connection.request is request
                assert connection.remote_address == request.remote_address
                assert server.connections == {connection}
                connection.send("hello")

            async with websock.connect(
                f"ws://{LOOPBACK}:{server.port}/",
                subprotocols=["a", "b"],
                origin="http://x",
            ) as ws:
                assert await ws.recv() == "hello"
                assert ws.subprotocol == "b"
                assert ws.response.headers["Set-Cookie"] == "id=7"
                assert ws.response.headers["X-Own"] == "y"

    run(main())


def test_several_cookies(run: Run) -> None:
    async def main() -> None:
        async with make() as server:

            @server.on("request")
            def on_request(request: WebSocketRequest) -> None:
                request.accept(
                    cookies=[
                        Cookie("a", "1", http_only=True),
                        {"name": "b", "value": "2", "path": "/"},
                    ]
                )

            async with websock.connect(f"ws://{LOOPBACK}:{server.port}/") as ws:
                assert ws.response.headers.get_all("Set-Cookie") == [
                    "a=1; HttpOnly",
                    "b=2; Path=/",
                ]

    run(main())


def test_accepting_what_was_not_asked_for(run: Run) -> None:
    async def main() -> None:
        async with make() as server:
            done = asyncio.Event()

            @server.on("request")
            def on_request(request: WebSocketRequest) -> None:
                with pytest.raises(ValueError, match=r"not requested, expected one of"):
                    request.accept("other")
                with pytest.raises(
                    ValueError, match=r"^origin to accept is 'http://y'"
                ):
                    request.accept("chat", "http://y")
                with pytest.raises(ValueError, match=r"cookie name is not a token"):
                    request.accept("chat", "http://x", {"a b": ""})
                with pytest.raises(ValueError, match=r"^status is 200, expected 300"):
                    request.reject(200)
                for answer in (request.accept, request.reject):
                    with pytest.raises(ValueError):
                        answer(headers={"X-A": "a\r\nX-B: b"})
                assert request.is_pending
                assert server.connections == set()
                request.accept("chat", "http://x")
                for answer in (request.accept, request.reject):
                    with pytest.raises(InvalidStateError, match=r"answered already$"):
                        answer()
                done.set()

            async with raw(server) as client:
                await client.open("Origin: http://x", "Sec-WebSocket-Protocol: chat")
                await done.wait()

    run(main())


def test_messages_that_come_with_the_request(run: Run) -> None:
    async def main() -> None:
        async with make() as server:
            server.on("request", echo)
            async with raw(server) as client:
                await client.open(rest=frame(TEXT, b"early", mask=MASK))
                assert await client.frame() == (TEXT, b"early")

    run(main())


# -- rejecting -------------------------------------------------------------------------


def test_reject(run: Run) -> None:
    async def main() -> None:
        async with make() as server:

            @server.on("request")
            def on_request(request: WebSocketRequest) -> None:
                if request.path == "/plain":
                    request.reject()
                else:
                    request.reject(
                        401,
                        "who are you?",
                        {
                            "WWW-Authenticate": "Basic",
                            "Content-Type": "text/html",
                        },
                    )
                assert not request.is_pending
                with pytest.raises(InvalidStateError, match=r"answered already$"):
                    request.accept()

            async with raw(server) as client:
                await client.send(head())
                answer = await client.answer()
                assert (answer.status, answer.body) == (401, b"who are you?\n")
                assert answer.headers["WWW-Authenticate"] == "Basic"
                assert answer.headers["Content-Type"] == "text/html"
            async with raw(server) as client:
                await client.send(head(target="/plain"))
                answer = await client.answer()
                assert (answer.status, answer.body) == (403, b"Forbidden\n")
            assert server.connections == set()

    run(main())


def test_requests_that_nobody_wants(run: Run) -> None:
    async def main() -> None:
        async with make() as server, raw(server) as client:
            await client.send(head())
            answer = await client.answer()
            assert (answer.status, answer.body) == (404, NOWHERE)

    run(main())


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_bad_requests_are_not_told(run: Run, compression: Any) -> None:
    async def main() -> None:
        async with make(compression=compression) as server:
            server.on("request", lambda request: pytest.fail("told"))
            assert await status_of(server, "-Sec-WebSocket-Key") == 400
            assert await status_of(server, "Sec-WebSocket-Version: 12") == 426
            assert await status_of(server, "-Upgrade") == 426
            assert await status_of(server, "Origin: a", "Origin: b") == 400
            assert await status_of(server, "Sec-WebSocket-Extensions: a; =") == 400
            assert await status_of(server, "Sec-WebSocket-Protocol: a b") == 400

    run(main())


def test_origins_are_checked_before(run: Run) -> None:
    async def main() -> None:
        origins = ["http://good", re.compile(r"https://.*\.good")]
        async with make(origins=origins) as server:
            server.on("request", echo)
            assert await status_of(server, "Origin: http://bad") == 403
            assert await status_of(server) == 403
            for origin in ("http://good", "https://very.good"):
                async with raw(server) as client:
                    await client.open(f"Origin: {origin}")
                    await client.echoed("x")

    run(main())


def test_a_hook_of_serve_comes_before(run: Run) -> None:
    async def main() -> None:
        hook = websock.asyncio.server.basic_auth(credentials=("me", "secret"))
        async with make(process_request=hook) as server:
            server.on("request", echo)
            assert await status_of(server) == 401
            async with websock.connect(
                f"ws://me:secret@{LOOPBACK}:{server.port}/"
            ) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"

    run(main())


# -- answering later -------------------------------------------------------------------


@pytest.mark.parametrize("way", ["coroutine", "elsewhere"])
def test_answers_that_come_later(run: Run, way: str) -> None:
    async def main() -> None:
        pending: asyncio.Queue[WebSocketRequest] = asyncio.Queue()
        go = asyncio.Event()

        async def on_request(request: WebSocketRequest) -> None:
            pending.put_nowait(request)
            await go.wait()
            if request.path == "/no":
                request.reject(410, "too late")
            else:
                echo(request)

        async with make() as server:
            if way == "coroutine":
                server.on("request", on_request)
            else:
                server.on("request", pending.put_nowait)
            async with raw(server) as first, raw(server) as second:
                await first.send(head() + frame(TEXT, b"early", mask=MASK))
                await second.send(head(target="/no"))
                requests = [await pending.get() for _ in range(2)]
                assert all(request.is_pending for request in requests)
                if way == "coroutine":
                    go.set()
                else:
                    for request in requests:
                        if request.path == "/no":
                            request.reject(410, "too late")
                        else:
                            echo(request)
                answer = await first.reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 101 ")
                assert await first.frame() == (TEXT, b"early")
                await first.echoed("again")
                assert (await second.answer()).status == 410

    run(main())


def test_answers_that_never_come(run: Run) -> None:
    async def main() -> None:
        pending: asyncio.Queue[WebSocketRequest] = asyncio.Queue()
        async with make(open_timeout=0.5) as server:
            server.on("request", pending.put_nowait)
            async with raw(server) as client:
                await client.send(head())
                request = await pending.get()
                assert (await client.answer()).status == 503
                assert not request.is_pending
                with pytest.raises(InvalidStateError):
                    request.accept()
                assert server.connections == set()

    run(main())


def test_a_hook_that_takes_too_long(run: Run) -> None:
    """The program is not asked then."""

    async def main() -> None:
        asked: list[WebSocketRequest] = []
        go = asyncio.Event()
        over = asyncio.Event()

        async def hook(connection: Any, request: Any) -> None:
            try:
                await go.wait()
            finally:
                over.set()

        async with make(open_timeout=0.3, process_request=hook) as server:
            server.on("request", asked.append)
            async with raw(server) as client:
                await client.send(head())
                assert b" 101 " not in await client.ended()
            go.set()
            await over.wait()
        assert asked == []

    run(main())


def test_clients_that_give_up(run: Run) -> None:
    async def main() -> None:
        pending: asyncio.Queue[WebSocketRequest] = asyncio.Queue()
        async with make() as server:
            server.on("request", pending.put_nowait)
            async with raw(server) as client:
                await client.send(head())
                request = await pending.get()
                client.reset()
            # Nothing is read meanwhile: the end may be noticed only by the answer.
            with contextlib.suppress(InvalidStateError):
                request.reject()
            with pytest.raises(InvalidStateError):
                request.reject()
            await request.ws.wait_closed()
            with pytest.raises(InvalidStateError):
                request.accept()
            assert server.connections == set()

    run(main())


# -- callbacks that fail ---------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
def test_callbacks_that_fail(run: Run, waits: bool) -> None:
    async def main() -> None:
        seen: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(context))

        def fail(request: WebSocketRequest) -> None:
            if request.path == "/open":
                request.accept().send("open")
            raise KeyError("no")

        async def fail_later(request: WebSocketRequest) -> None:
            await asyncio.sleep(0)
            fail(request)

        async with make() as server:
            server.on("request", fail_later if waits else fail)
            assert await status_of(server) == 500
            async with websock.connect(f"ws://{LOOPBACK}:{server.port}/open") as ws:
                assert await ws.recv() == "open"
                await (await ws.ping())  # it goes on
        assert [type(context["exception"]) for context in seen] == [KeyError, KeyError]
        assert all(context["source"] is server for context in seen)

    run(main())


# -- accepting everything --------------------------------------------------------------


def test_auto_accept(run: Run) -> None:
    async def main() -> None:
        async with make(auto_accept=True) as server:
            server.on("connect", lambda connection: connection.send("hello"))
            server.on("request", lambda request: pytest.fail("told"))
            async with raw(server) as client:
                answer = await client.open(
                    "Origin: http://x", "Sec-WebSocket-Protocol: a, b"
                )
                assert answer.headers["Sec-WebSocket-Protocol"] == "a"
                assert await client.frame() == (TEXT, b"hello")
            async with raw(server) as client:
                answer = await client.open()
                assert "Sec-WebSocket-Protocol" not in answer.headers

    run(main())


def test_auto_accept_of_some_subprotocols(run: Run) -> None:
    async def main() -> None:
        async with make(auto_accept=True, protocols=["b", "c"]) as server:
            async with raw(server) as client:
                answer = await client.open("Sec-WebSocket-Protocol: a, b, c")
                assert answer.headers["Sec-WebSocket-Protocol"] == "b"
            async with raw(server) as client:
                await client.open()
            assert await status_of(server, "Sec-WebSocket-Protocol: a") == 400

    run(main())


def test_one_path_only(run: Run) -> None:
    async def main() -> None:
        async with make(path="/ws") as server:
            server.on("request", echo)
            assert await status_of(server) == 404
            assert await status_of(server, target="/ws/x") == 404
            async with raw(server) as client:
                await client.send(head(target="/ws?x"))
                await client.reader.readuntil(b"\r\n\r\n")
                await client.echoed("x")

    run(main())


# -- routing ---------------------------------------------------------------------------


async def routed(server: WebSocketServer, target: str, *protocols: str) -> str:
    """Return what the callback that gets a request says, or the status."""
    lines = [f"Sec-WebSocket-Protocol: {', '.join(protocols)}"] if protocols else []
    async with raw(server) as client:
        await client.send(head(*lines, target=target))
        line = await client.reader.readline()
        if not line.startswith(b"HTTP/1.1 101 "):
            await client.ended()
            return line.split()[1].decode()
        await client.reader.readuntil(b"\r\n\r\n")
        opcode, data = await client.frame()
        assert opcode == TEXT
        await client.send(frame(CLOSE, mask=MASK))
        await client.ended()
        return data.decode()


def test_routes(run: Run) -> None:
    def say(text: str, protocol: str | None = None) -> Any:
        return lambda request: request.accept(protocol).send(text)

    async def main() -> None:
        async with make() as server:
            router = WebSocketRouter(server)

            @router.mount("/chat", "chat")
            def chat(request: WebSocketRequest) -> None:
                assert request.accept("chat").protocol == "chat"
                next(iter(server.connections)).send("chat")

            router.mount("/chat", None, say("none"))
            router.mount("/chat", "*", say("any"))
            router.mount("/rooms/*/x", "*", say("star"))
            router.mount(re.compile(r"/[0-9]+"), "*", say("number"))

            @router.mount("/later")
            async def later(request: WebSocketRequest) -> None:
                await asyncio.sleep(0)
                request.accept().send("later")

            assert await routed(server, "/chat", "other", "chat") == "chat"
            assert await routed(server, "/chat") == "none"
            assert await routed(server, "/chat", "other") == "any"
            assert await routed(server, "/rooms/a/b/x") == "star"
            assert await routed(server, "/rooms/x") == "404"
            assert await routed(server, "/123?q") == "number"
            assert await routed(server, "/123x") == "404"
            assert await routed(server, "/later") == "later"
            assert await routed(server, "/.chat") == "404"
            router.unmount("/chat", "chat")
            assert await routed(server, "/chat", "chat") == "any"
            with pytest.raises(LookupError):
                router.unmount("/chat", "chat")
            router.detach(server)
            assert await routed(server, "/123") == "404"

    run(main())


def test_one_router_for_two_servers(run: Run) -> None:
    async def main() -> None:
        router = WebSocketRouter()
        router.mount("/", "*", lambda request: request.accept().send("x"))
        async with make() as first, make() as second:
            router.attach(first)
            router.attach(second)
            assert await routed(first, "/") == "x"
            assert await routed(second, "/") == "x"

    run(main())


def test_wrong_mounts() -> None:
    router = WebSocketRouter()
    router.mount("/", "*", print)
    with pytest.raises(ValueError, match=r"^there is a callback for '/' and '\*'$"):
        router.mount("/", "*", print)
    with pytest.raises(TypeError, match=r"^path must be str or an expression, not int"):
        router.mount(1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"^callback must be callable, not int$"):
        router.mount("/x", None, 1)  # type: ignore[call-overload]


def test_a_route_that_fails(run: Run) -> None:
    async def main() -> None:
        seen: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        async with make() as server:
            router = WebSocketRouter(server)
            router.mount("/", "*", lambda request: 1 / 0)
            assert await routed(server, "/") == "500"
        assert [type(c["exception"]) for c in seen] == [ZeroDivisionError]

    run(main())
