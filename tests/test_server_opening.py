"""The server's end of the opening handshake: hooks, negotiation, what is in the log."""

from __future__ import annotations

import asyncio
import contextvars
import http
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import request
from raw import TEXT, raw
from scripted import LOOPBACK, Run, loop_fixture
from wire import MASK, frame

import websock
from websock.asyncio.server import ServerConnection, serve
from websock.datastructures import Headers
from websock.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websock.http11 import Request, Response

run = loop_fixture()

FAILED = (
    b"Failed to open a WebSocket connection.\nSee server log for more information.\n"
)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """A function that returns what was logged as errors; the rest must be none."""
    seen = 0

    def records() -> list[logging.LogRecord]:
        return [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]

    def take() -> list[str]:
        nonlocal seen
        taken = records()[seen:]
        seen += len(taken)
        for record in taken:
            assert isinstance(record.__dict__["websocket"], ServerConnection)
        return [
            f"{r.getMessage()}: {r.exc_info[1]!r}" if r.exc_info else r.getMessage()
            for r in taken
        ]

    yield take
    assert [r.getMessage() for r in records()[seen:]] == []


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def later(hook: Callable[..., Any], waits: bool) -> Callable[..., Any]:
    """Make a hook a coroutine function, if it is to wait."""
    if not waits:
        return hook

    async def hook_later(*args: Any) -> Any:
        await asyncio.sleep(0)
        return hook(*args)

    return hook_later


waiting = pytest.mark.parametrize("waits", [False, True], ids=["function", "coroutine"])


# -- hooks ---------------------------------------------------------------------------


@waiting
@pytest.mark.parametrize("name", ["process_request", "process_response"])
@pytest.mark.parametrize("result", [(200, [], b""), "fine", 200, True])
def test_hook_returns_something_else(
    run: Run, waits: bool, name: str, result: Any, errors: Callable[[], list[str]]
) -> None:
    async def main() -> None:
        hook: Any = {name: later(lambda *args: result, waits)}
        async with serve(echo, LOOPBACK, 0, **hook) as server, raw(server) as client:
            await client.send(request())
            answer = await client.answer()
            assert answer.status == 500
            assert answer.body == FAILED
            text = f"{name} must return a Response or None, not {type(result).__name__}"
            assert errors() == [f"{name} failed: TypeError({text!r})"]

    run(main())


@waiting
def test_hook_fails_for_one_only(
    run: Run, waits: bool, errors: Callable[[], list[str]]
) -> None:
    def hook(ws: ServerConnection, request: Request) -> None:
        if request.path == "/bad":
            raise LookupError("secret")

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, process_request=later(hook, waits)) as server,
            raw(server) as good,
            raw(server) as bad,
        ):
            await good.open()
            await bad.send(request(target="/bad"))
            answer = await bad.answer()
            assert (answer.status, answer.body) == (500, FAILED)
            assert errors() == ["process_request failed: LookupError('secret')"]
            await good.echoed("here")

    run(main())


@waiting
def test_response_that_cannot_be_sent(
    run: Run, waits: bool, errors: Callable[[], list[str]]
) -> None:
    def hook(ws: ServerConnection, request: Request) -> Response:
        return Response(200, "two\r\nlines: no", Headers(), b"")

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, process_request=later(hook, waits)) as server,
            raw(server) as client,
        ):
            await client.send(request())
            answer = await client.answer()
            assert (answer.status, answer.body) == (500, FAILED)
            (text,) = errors()
            assert text.startswith("cannot send the response: ValueError(")

    run(main())


@waiting
def test_response_with_its_own_headers(run: Run, waits: bool) -> None:
    def hook(ws: ServerConnection, request: Request) -> Response:
        headers = Headers({"Content-Type": "text/html", "X-Twice": "1"})
        headers["X-Twice"] = "2"
        return Response(200, "All right", headers, "<p>é</p>".encode())

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, process_request=later(hook, waits)) as server,
            raw(server) as client,
        ):
            await client.send(request())
            lines = (await client.ended()).split(b"\r\n")
            assert lines[0] == b"HTTP/1.1 200 All right"
            assert lines[1:4] == [
                b"Content-Type: text/html",
                *(b"X-Twice: %d" % n for n in (1, 2)),
            ]
            assert lines[4].startswith(b"Server: ")
            assert lines[5:] == [b"", "<p>é</p>".encode()]

    run(main())


@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1", "HEAD / HTTP/1.1", "GET / HTTP/1.0"]
)
def test_requests_that_are_not_websocket(run: Run, line: str) -> None:
    seen: list[str] = []

    def hook(ws: ServerConnection, request: Request) -> Response:
        seen.append(f"{request.method} {request.path} {request.protocol}")
        return ws.respond(http.HTTPStatus.OK, "a page")

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, process_request=hook) as server,
            raw(server) as client,
        ):
            await client.send(f"{line}\r\nHost: x\r\n\r\n".encode())
            data = await client.ended()
            assert data.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nContent-Length: 6\r\n" in data
            assert data.endswith(b"\r\n\r\n" + b"" if "HEAD" in line else b"a page")
            assert seen == [line]
            # The end of this stream and of theirs: nothing is left.
            client.writer.close()
            while server.all_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

    run(main())


@waiting
def test_early_frames_wait_for_the_hook(run: Run, waits: bool) -> None:
    """They are echoed after the response, however they came."""

    async def main() -> None:
        gate = asyncio.Event()

        async def slow(ws: Any, request: Any) -> None:
            await gate.wait()

        hook: Any = slow if waits else None
        async with (
            serve(echo, LOOPBACK, 0, process_request=hook) as server,
            raw(server) as client,
        ):
            early = [frame(TEXT, b"%d" % n, mask=MASK) for n in range(100)]
            await client.send(request() + early[0], *early[1:60])
            for _ in range(20):
                await asyncio.sleep(0)
            gate.set()
            await client.send(*early[60:])
            assert (await client.reader.readuntil(b"\r\n\r\n"))[9:12] == b"101"
            for n in range(100):
                assert await client.frame() == (TEXT, b"%d" % n)

    run(main())


@waiting
def test_client_that_ends_its_stream_is_answered(run: Run, waits: bool) -> None:
    async def main() -> None:
        hook = later(lambda ws, request: ws.respond(200, "fine"), waits)
        async with (
            serve(echo, LOOPBACK, 0, process_request=hook) as server,
            raw(server) as client,
        ):
            await client.send(request())
            client.writer.write_eof()
            assert (await client.answer()).body == b"fine"

    run(main())


def test_hook_that_never_ends(run: Run) -> None:
    """503 at the deadline; the hook is cancelled; reading goes on to the end."""

    async def main() -> None:
        cancelled = asyncio.Event()

        async def hook(ws: Any, request: Request) -> None:
            if request.path == "/slow":
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

        async with serve(
            echo,
            LOOPBACK,
            0,
            process_request=hook,
            open_timeout=0.1,
            close_timeout=None,
        ) as server:
            async with raw(server) as good, raw(server) as slow:
                await good.open()
                await slow.send(request(target="/slow"))
                answer = await slow.answer()
                assert answer.status == 503
                assert answer.body == b"Opening handshake took too long.\n"
                await cancelled.wait()
                assert len(server.all_connections) == 2
                await good.echoed("here")
            # There is no timeout for it, so the end of their stream has to be seen.
            while server.all_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

    run(main())


def test_hook_whose_client_goes_away(run: Run) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def hook(ws: ServerConnection, request: Request) -> None:
            entered.set()
            ws.transport.abort()
            await asyncio.Event().wait()

        async with (
            serve(echo, LOOPBACK, 0, process_request=hook) as server,
            raw(server) as client,
        ):
            await client.send(request())
            await entered.wait()
            assert await client.ended() == b""

    run(main())


def test_hook_that_is_cancelled_by_the_program(run: Run) -> None:
    async def main() -> None:
        async def hook(ws: Any, request: Any) -> None:
            raise asyncio.CancelledError

        async with (
            serve(echo, LOOPBACK, 0, process_request=hook, open_timeout=None) as server,
            raw(server) as client,
        ):
            await client.send(request())
            assert await client.ended() == b""
            while server.all_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

    run(main())


@waiting
def test_101_from_a_hook(run: Run, waits: bool) -> None:
    """A hook may answer by itself, as in the websockets library."""

    def hook(ws: ServerConnection, request: Request) -> Response:
        response = ws.protocol.accept(request)
        response.headers["X-By"] = "hook"
        return response

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, process_request=later(hook, waits)) as server,
            raw(server) as client,
        ):
            answer = await client.open()
            assert answer.headers["X-By"] == "hook"
            await client.echoed("here")

    run(main())


@waiting
def test_context_of_a_connection(run: Run, waits: bool) -> None:
    """What serve() saw is seen; what a hook sets is seen by the same handler only."""
    outer = contextvars.ContextVar("outer", default="unset")
    mine = contextvars.ContextVar("mine", default="unset")

    def hook(ws: ServerConnection, request: Request) -> None:
        assert mine.get() == "unset"
        mine.set(request.path)

    async def handler(ws: ServerConnection) -> None:
        await ws.send(f"{outer.get()} {mine.get()}")

    async def main() -> None:
        outer.set("set")
        async with serve(
            handler, LOOPBACK, 0, process_request=later(hook, waits)
        ) as server:
            outer.set("changed later")
            host, port = server.sockets[0].getsockname()
            for path in ("/a", "/b"):
                uri = f"ws://{host}:{port}{path}"
                async with websock.connect(uri, proxy=None) as ws:
                    assert await ws.recv() == f"set {path}"
        assert mine.get() == "unset"

    run(main())


def test_attributes_from_a_hook(run: Run) -> None:
    def hook(ws: ServerConnection, request: Request) -> None:
        ws.username = "me"
        ws.whatever = request.headers["X-What"]  # type: ignore[attr-defined]

    async def handler(ws: Any) -> None:
        await ws.send(f"{ws.username} {ws.whatever}")

    async def main() -> None:
        async with (
            serve(handler, LOOPBACK, 0, process_request=hook) as server,
            raw(server) as client,
        ):
            await client.open("X-What: that")
            assert await client.frame() == (TEXT, b"me that")

    run(main())


# -- negotiation ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, None, 101),
        (None, "https://anywhere", 101),
        (["https://a.example"], "https://a.example", 101),
        (["https://a.example"], "https://a.example:443", 403),
        (["https://a.example"], "https://A.example", 403),
        (["https://a.example"], "https://a.example.evil.example", 403),
        (["https://a.example"], None, 403),
        (["https://a.example", None], None, 101),
        ([None], "https://a.example", 403),
        ([], "https://a.example", 403),
        ([re.compile(r"https://\w+\.example")], "https://a.example", 101),
        ([re.compile(r"https://\w+\.example")], "https://a.example.evil", 403),
        ([re.compile(r"https://\w+\.example")], "evil https://a.example", 403),
        ([re.compile(r".*")], None, 403),
    ],
)
def test_origins(run: Run, origins: Any, origin: str | None, status: int) -> None:
    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, origins=origins) as server,
            raw(server) as client,
        ):
            lines = [] if origin is None else [f"Origin: {origin}"]
            await client.send(request(*lines))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)

    run(main())


def test_two_origins(run: Run) -> None:
    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, origins=["https://a"]) as server,
            raw(server) as client,
        ):
            await client.send(request("Origin: https://a", "Origin: https://b"))
            assert (await client.answer()).status == 400

    run(main())


@pytest.mark.parametrize(
    ("ours", "offer", "chosen"),
    [
        (None, "a, b", None),
        (["b", "a"], "a, b", "b"),
        (["a"], "b,a", "a"),
        (["a"], None, 400),
        (["a"], "b", 400),
        (["a"], "a,, b", "a"),
        (["a"], "a b", 400),
    ],
)
def test_subprotocols(run: Run, ours: Any, offer: str | None, chosen: Any) -> None:
    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, subprotocols=ours) as server,
            raw(server) as client,
        ):
            lines = [] if offer is None else [f"Sec-WebSocket-Protocol: {offer}"]
            if chosen == 400:
                await client.send(request(*lines))
                assert (await client.answer()).status == 400
            else:
                answer = await client.open(*lines)
                assert answer.headers.get("Sec-WebSocket-Protocol") == chosen

    run(main())


def test_select_subprotocol(run: Run, errors: Callable[[], list[str]]) -> None:
    def select(ws: ServerConnection, offered: Any) -> Any:
        assert isinstance(ws, ServerConnection)
        assert ws.request is not None
        match ws.request.path:
            case "/last":
                return offered[-1]
            case "/none":
                return None
            case "/refuse":
                raise websock.NegotiationError("not these")
            case "/split":
                return "a\r\nX-Injected: yes"
        raise ZeroDivisionError

    async def main() -> None:
        async with serve(
            echo, LOOPBACK, 0, select_subprotocol=select, subprotocols=["x"]
        ) as server:
            offer = "Sec-WebSocket-Protocol: a, b"
            for path, expected in (("/last", "b"), ("/none", None)):
                async with raw(server) as client:
                    await client.send(request(offer, target=path))
                    head = await client.reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 101 ")
                    line = f"\r\nSec-WebSocket-Protocol: {expected}\r\n".encode()
                    assert (line in head) is (expected is not None)
            for path, status in (("/refuse", 400), ("/bug", 500), ("/split", 500)):
                async with raw(server) as client:
                    await client.send(request(offer, target=path))
                    answer = await client.answer()
                    assert answer.status == status
                    assert "X-Injected" not in answer.headers
            bug, split = errors()
            assert bug == "opening handshake failed: ZeroDivisionError()"
            assert split.startswith("opening handshake failed: ")

    run(main())


@pytest.mark.parametrize(
    ("settings", "offer", "accepted"),
    [
        ({}, "permessage-deflate", True),
        ({}, "permessage-deflate; client_max_window_bits", True),
        ({}, "permessage-deflate; nonsense", False),
        ({}, "permessage-deflate; server_max_window_bits=16", False),
        ({}, "other, permessage-deflate", True),
        ({"compression": None}, "permessage-deflate", False),
        (
            {"extensions": [ServerPerMessageDeflateFactory(server_max_window_bits=9)]},
            "permessage-deflate",
            True,
        ),
    ],
)
def test_compression(run: Run, settings: Any, offer: str, accepted: bool) -> None:
    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, **settings) as server,
            raw(server) as client,
        ):
            answer = await client.open(f"Sec-WebSocket-Extensions: {offer}")
            value = answer.headers.get("Sec-WebSocket-Extensions", "")
            assert value.startswith("permessage-deflate") is accepted
            if "extensions" in settings:
                assert "server_max_window_bits=9" in value

    run(main())


@pytest.mark.parametrize("value", [None, "mine/1.0"])
def test_server_header(run: Run, value: str | None) -> None:
    async def main() -> None:
        async with (
            serve(
                echo,
                LOOPBACK,
                0,
                server_header=value,
                process_response=lambda ws, request, response: response.headers.update(
                    {"X-Extra": response.headers.get("Server", "none")}
                ),
            ) as server,
            raw(server) as client,
        ):
            answer = await client.open()
            assert answer.headers.get("Server") == value
            assert answer.headers["X-Extra"] == (value or "none")

    run(main())


# -- the log -------------------------------------------------------------------------


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_records_tell_the_connection(
    run: Run, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(level, "websock.server")

    async def handler(ws: Any) -> None:
        async for _ in ws:
            raise ZeroDivisionError

    async def main() -> None:
        async with serve(handler, LOOPBACK, 0) as server, raw(server) as client:
            await client.open()
            await client.message("x")
            assert await client.closing() == (1011, "")

    run(main())
    records = [r for r in caplog.get_records("call") if hasattr(r, "websocket")]
    others = [r.getMessage() for r in caplog.get_records("call") if r not in records]
    others = [text for text in others if text.startswith("server ")]
    (websocket,) = {record.__dict__["websocket"] for record in records}
    assert isinstance(websocket, ServerConnection)
    texts = [r.getMessage() for r in records if r.levelno >= logging.INFO]
    if level == logging.ERROR:
        assert texts == ["connection handler failed"]
        assert others == []
        return
    assert texts == [
        "connection open",
        "connection handler failed",
        "connection closed",
    ]
    assert others[0].startswith(f"server listening on {LOOPBACK}:")
    assert others[1:] == ["server closing", "server closed"]


def test_own_logger(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Adapter(logging.LoggerAdapter[logging.Logger]):
        def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
            ws = kwargs.get("extra", {}).get("websocket")
            return (msg if ws is None else f"{ws.request.path} {msg}"), kwargs

    logger = logging.getLogger("some.program")
    caplog.set_level(logging.INFO, "some.program")

    async def handler(ws: ServerConnection) -> None:
        ws.logger.warning("handled")

    async def main() -> None:
        adapter = Adapter(logger, {})
        async with (
            serve(handler, LOOPBACK, 0, logger=adapter) as server,
            raw(server) as client,
        ):
            await client.send(request(target="/path"))
            await client.reader.readuntil(b"\r\n\r\n")
            assert await client.closing() == (1000, "")

    run(main())
    texts = [r.getMessage() for r in caplog.get_records("call")]
    assert texts[1:4] == [
        "/path connection open",
        "/path handled",
        "/path connection closed",
    ]
    assert {r.name for r in caplog.get_records("call")} <= {"some.program", "asyncio"}
