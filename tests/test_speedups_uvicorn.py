"""uvicorn with websock's protocol, and that programs cannot tell it from its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import WebSocketRoute
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn_server import ENGINES, Recorder, Server, certificates, echo, run, serving
from websockets.asyncio.client import connect

import websock
from websock.speedups.uvicorn import WebSocketProtocol

HTTPS = ["h11", "httptools"]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    f"Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
).encode()

Talk = Callable[[str, list[Any]], Awaitable[None]]


def frame(opcode: int, payload: bytes, fin: int = 0x80) -> bytes:
    """Return a masked frame; the mask is zero."""
    assert len(payload) < 126
    return bytes([fin | opcode, 0x80 | len(payload)]) + bytes(4) + payload


class RawPeer:
    """A client on a plain socket, that sends and reads bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, data: bytes = REQUEST, limit: int = 2**16) -> Any:
        peer = cls(*await asyncio.open_connection("127.0.0.1", port, limit=limit))
        peer.writer.write(data)
        return peer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def frame(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        assert size < 126
        return first, await self.reader.readexactly(size)

    async def end(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop run until something is so; the test's time is limited."""
    while not condition():  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(0.001)


def both(
    function: Any, talk: Talk, http: str = "h11", **options: Any
) -> tuple[list[Any], list[Any]]:
    """Have the same conversation with both engines; return what was seen, once.

    That is what the client noted, and the events of the application.
    """

    async def once(engine: str) -> tuple[list[Any], list[Any]]:
        app = Recorder(function)
        notes: list[Any] = []
        async with serving(app, engine, http=http, **options) as server:
            await talk(f"ws://127.0.0.1:{server.port}", notes)
            await app.done.wait()
        return notes, app.events

    ours, theirs = run(once("websock")), run(once("websockets"))
    assert ours == theirs
    return ours


async def note_end(ws: Any, notes: list[Any]) -> None:
    """Read messages to the end of a connection, and note how it ended."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            notes.append(await ws.recv())
    await ws.wait_closed()
    notes.append((ws.close_code, ws.close_reason))


# -- messages --------------------------------------------------------------------------


@pytest.mark.parametrize("http", HTTPS)
def test_messages(http: str) -> None:
    messages: list[Any] = ["text", b"bytes", "", b"", "naïve ☃ 𝄞", "x" * 200_000]
    messages += [
        bytes(range(256)) * 1000,
        ["three ", "frag", "ments"],
        [b"a", b"", b"b"],
    ]

    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url) as ws:
            for message in messages:
                await ws.send(message)
                notes.append(await ws.recv())

    notes, events = both(echo, talk, http)
    whole = [m[0][:0].join(m) if isinstance(m, list) else m for m in messages]
    assert notes == whole
    assert [event["type"] for event in events] == [
        "websocket.connect",
        *["websocket.receive"] * len(messages),
        "websocket.disconnect",
    ]


def test_sends_in_tasks() -> None:
    """What ``send()`` returns is as good as a coroutine."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        text = {"type": "websocket.send", "text": "text"}
        await asyncio.create_task(send(text))
        await asyncio.gather(*(send(text) for _ in range(3)))
        await asyncio.wait_for(send({**text, "bytes": b"b", "text": None}), 10)
        with pytest.raises(TypeError):
            await asyncio.create_task(send({"type": "websocket.send", "text": b"b"}))
        await send({"type": "websocket.close"})

    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url) as ws:
            await note_end(ws, notes)

    async def once() -> list[Any]:
        notes: list[Any] = []
        async with serving(app, "websock") as server:
            await talk(f"ws://127.0.0.1:{server.port}", notes)
        return notes

    assert run(once()) == ["text"] * 4 + [b"b", (1000, "")]


@pytest.mark.parametrize(
    "loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("http", HTTPS)
def test_own_client(http: str, tls: bool, loop: Any, tmp_path: Any) -> None:
    options, context = certificates(tmp_path) if tls else ({}, None)

    async def main() -> None:
        app = Recorder(echo)
        async with serving(app, "websock", http=http, **options) as server:
            url = f"ws{'s' if tls else ''}://127.0.0.1:{server.port}/?q=1"
            async with websock.connect(url, ssl=context, compression=None) as ws:
                for size in (0, 1, 125, 126, 65536, 1_000_000):
                    message = bytes(size)
                    await ws.send(message)
                    assert await ws.recv() == message
                for number in range(500):
                    await ws.send(str(number))
                assert [await ws.recv() for _ in range(500)] == [
                    str(number) for number in range(500)
                ]
                assert isinstance(server.connection, WebSocketProtocol)
                # What is nothing but a socket is taken from its transport.
                assert (server.connection.io is None) is not tls
            await app.done.wait()
        assert app.scopes[0]["scheme"] == ("wss" if tls else "ws")
        assert app.events[-1] == {
            "type": "websocket.disconnect",
            "code": 1000,
            "reason": "",
        }

    run(main(), loop)


def test_transport_is_kept_without_a_file_to_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_many(*args: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        async with serving(Recorder(echo), "websock") as server:
            peer = await RawPeer.open(server.port)
            monkeypatch.setattr(socket, "fromfd", too_many)
            await peer.head()
            monkeypatch.undo()
            peer.writer.write(frame(1, b"hello"))
            assert await peer.frame() == (0x81, b"hello")
            assert server.connection.io is not None
            await peer.end()

    run(main())


@pytest.mark.parametrize("deflate", [True, False])
def test_compression(deflate: bool) -> None:
    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url) as ws:
            notes.append(ws.response.headers.get("Sec-WebSocket-Extensions"))
            for message in ("a" * 10_000, b"b" * 10_000, "short"):
                await ws.send(message)
                notes.append(await ws.recv())

    notes, _ = both(echo, talk, ws_per_message_deflate=deflate)
    assert (notes[0] is not None) is deflate


@pytest.mark.parametrize("http", HTTPS)
def test_data_that_comes_with_the_request(http: str) -> None:
    async def main() -> None:
        app = Recorder(echo)
        async with serving(app, "websock", http=http) as server:
            early = frame(1, b"one") + frame(2, b"two") + frame(1, b"thr")[:5]
            peer = await RawPeer.open(server.port, REQUEST + early)
            await peer.head()
            assert await peer.frame() == (0x81, b"one")
            assert await peer.frame() == (0x82, b"two")
            peer.writer.write(frame(1, b"thr")[5:])
            assert await peer.frame() == (0x81, b"thr")
            await peer.end()

    run(main())


def test_data_before_the_application_accepts() -> None:
    async def main() -> None:
        accept = asyncio.Event()

        async def late(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "websocket.connect"
            await accept.wait()
            await send({"type": "websocket.accept"})
            event = await receive()
            await send({"type": "websocket.send", "text": event["text"]})

        async with serving(Recorder(late), "websock") as server:
            peer = await RawPeer.open(server.port)
            await until(lambda: server.server_state.tasks)
            peer.writer.write(frame(1, b"early"))
            await peer.writer.drain()
            accept.set()
            await peer.head()
            assert await peer.frame() == (0x81, b"early")
            await peer.end()

    run(main())


# -- the opening handshake -------------------------------------------------------------


@pytest.mark.parametrize("http", HTTPS)
def test_scope(http: str) -> None:
    async def once(engine: str) -> Any:
        app = Recorder(echo)
        async with serving(app, engine, http=http, root_path="/base") as server:
            url = f"ws://127.0.0.1:{server.port}/a%2Fb/c?x=1&y=%20"
            protocols = ["one", "two"]
            headers = [("X-Name", "v\xe9"), ("X-Name", "two")]
            async with connect(
                url, subprotocols=protocols, additional_headers=headers
            ) as ws:
                host, port = ws.local_address
            await app.done.wait()
            [scope] = app.scopes
            assert scope.pop("server") == ("127.0.0.1", server.port)
            assert scope.pop("client") == (host, port)
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"host", b"sec-websocket-key")
        ]
        return scope

    scope = run(once("websock"))
    assert scope == run(once("websockets"))
    assert scope["path"] == "/base/a/b/c"
    assert scope["raw_path"] == b"/base/a%2Fb/c"
    assert scope["subprotocols"] == ["one", "two"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert (b"x-name", b"v\xe9") in scope["headers"]


def test_state_is_copied_for_each_connection() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["number"] = 1
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(dict(scope["state"]))
        scope["state"]["number"] = 2
        await echo(scope, receive, send)

    async def main() -> None:
        async with serving(app, "websock", lifespan="on") as server:
            for _ in range(2):
                async with connect(f"ws://127.0.0.1:{server.port}"):
                    pass

    run(main())
    assert seen == [{"number": 1}, {"number": 1}]


def test_accept_with_headers_and_subprotocol() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"X-One", b"1"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
        await send(
            {"type": "websocket.accept", "subprotocol": "two", "headers": headers}
        )
        await receive()

    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url, subprotocols=["one", "two"]) as ws:
            headers = ws.response.headers
            notes.append(ws.subprotocol)
            notes.append(headers.get_all("Set-Cookie"))
            notes.append((headers["X-One"], headers["Server"], "Date" in headers))

    notes, _ = both(app, talk)
    assert notes == ["two", ["a=1", "b=2"], ("1", "uvicorn", True)]


async def reject(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close"})
    await receive()


async def deny(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-type", b"application/json"), (b"x-why", b"rules")]
    start = {"type": "websocket.http.response.start", "status": 418, "headers": headers}
    await send(start)
    body = {"type": "websocket.http.response.body", "body": b"[1,", "more_body": True}
    await send(body)
    await send({"type": "websocket.http.response.body", "body": b"2]"})
    await receive()


async def deny_with_bad_status(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 700, "headers": []})


async def return_at_once(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def fail(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise LookupError("of the application")


async def send_too_early(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.send", "text": "too early"})


@pytest.mark.parametrize("http", HTTPS)
@pytest.mark.parametrize(
    ("function", "status"),
    [
        (reject, 403),
        (deny, 418),
        (deny_with_bad_status, 500),
        (return_at_once, 500),
        (fail, 500),
        (send_too_early, 500),
    ],
)
def test_refusals(function: Any, status: int, http: str) -> None:
    async def talk(url: str, notes: list[Any]) -> None:
        with pytest.raises(websockets.InvalidStatus) as info:
            await connect(url)
        response = info.value.response
        headers = [
            (name.lower(), value)
            for name, value in response.headers.raw_items()
            if name.lower() != "date"
        ]
        notes.append((response.status_code, sorted(headers), response.body))

    notes, _ = both(function, talk, http)
    assert notes[0][0] == status


def test_denial_that_is_not_finished_is_sent() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 404})
        await send({"type": "websocket.accept"})

    async def main() -> None:
        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            with pytest.raises(websockets.InvalidStatus) as info:
                await connect(f"ws://127.0.0.1:{server.port}")
            assert info.value.response.status_code == 404
            await recorder.done.wait()
        assert str(recorder.error) == (
            "Expected ASGI message 'websocket.http.response.body' "
            "but got 'websocket.accept'."
        )

    run(main())


@pytest.mark.parametrize("http", HTTPS)
@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (KEY.encode(), b"no key", 400),
        (b"Sec-WebSocket-Key", b"X-Key", 400),
        (b"Version: 13", b"Version: 12", 426),
        (b"GET", b"POST", 405),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Protocol: a b,,", 400),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Extensions: ;;=", 400),
        (b"Version: 13", b"Version: 13\r\nX-Long: " + b"a" * 20_000, 431),
    ],
    ids=["key", "no key", "version", "method", "subprotocol", "extension", "size"],
)
def test_bad_request(old: bytes, new: bytes, status: int, http: str) -> None:
    async def main() -> None:
        app = Recorder(echo)
        async with serving(app, "websock", http=http) as server:
            peer = await RawPeer.open(server.port, REQUEST.replace(old, new))
            assert (await peer.head()).startswith(b"HTTP/1.1 %d " % status)
            assert await peer.reader.read()
            await peer.end()
        assert not app.scopes

    run(main())


@pytest.mark.parametrize("http", HTTPS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
        (b"/chat", b"http://127.0.0.1/chat"),
        (b"Version: 13", b"Version: 13\r\nX-Name: \xff"),
    ],
    ids=["http 1.0", "letter case", "absolute form", "Latin-1"],
)
def test_unusual_requests(old: bytes, new: bytes, http: str) -> None:
    async def once(engine: str) -> Any:
        app = Recorder(echo)
        async with serving(app, engine, http=http) as server:
            peer = await RawPeer.open(server.port, REQUEST.replace(old, new))
            assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
            peer.writer.write(frame(1, b"hello"))
            assert await peer.frame() == (0x81, b"hello")
            await peer.end()
        [scope] = app.scopes
        return {**scope, "server": None, "client": None}

    assert run(once("websock")) == run(once("websockets"))


def test_peer_that_leaves_before_it_is_accepted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        await send({"type": "websocket.accept"})

    async def main() -> None:
        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            peer = await RawPeer.open(server.port)
            await until(lambda: recorder.events)
            await peer.end()
            await recorder.done.wait()
        assert recorder.events[1] == {"type": "websocket.disconnect", "code": 1006}
        assert isinstance(recorder.error, ClientDisconnected)

    run(main())


# -- closing ---------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), (1001,), (1000, "bye"), (4321, "☃")])
def test_client_closes(arguments: tuple[Any, ...]) -> None:
    async def talk(url: str, notes: list[Any]) -> None:
        ws = await connect(url)
        await ws.send("last")
        notes.append(await ws.recv())
        await ws.close(*arguments)
        await note_end(ws, notes)

    _, events = both(echo, talk)
    code, reason = (*(arguments or (1000,)), "")[:2]
    assert events[-1] == {
        "type": "websocket.disconnect",
        "code": code,
        "reason": reason,
    }


def test_client_closes_without_a_code() -> None:
    async def talk(url: str, notes: list[Any]) -> None:
        peer = await RawPeer.open(int(url.rpartition(":")[2]))
        await peer.head()
        peer.writer.write(frame(8, b""))
        notes.append(await peer.frame())
        notes.append(await peer.reader.read())
        await peer.end()

    notes, events = both(echo, talk)
    assert notes == [(0x88, b""), b""]
    assert events[-1]["code"] == 1005


@pytest.mark.parametrize("close", [{}, {"code": 1001}, {"code": 4000, "reason": "why"}])
def test_application_closes(close: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close", **close})
        await receive()
        with pytest.raises((RuntimeError, OSError)):
            await send({"type": "websocket.send", "text": "too late"})

    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url) as ws:
            await ws.send("go on")
            await note_end(ws, notes)

    notes, events = both(app, talk)
    code, reason = close.get("code", 1000), close.get("reason", "")
    assert notes == ["last", (code, reason)]
    assert events[-1] == {
        "type": "websocket.disconnect",
        "code": code,
        "reason": reason,
    }


async def accept_and_return(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "bytes": b"x" * 300_000})


async def accept_and_fail(scope: Any, receive: Any, send: Any) -> None:
    await accept_and_return(scope, receive, send)
    raise LookupError("of the application")


async def accept_twice(scope: Any, receive: Any, send: Any) -> None:
    await accept_and_return(scope, receive, send)
    await send({"type": "websocket.accept"})


@pytest.mark.parametrize("function", [accept_and_return, accept_and_fail, accept_twice])
def test_application_ends_without_closing(function: Any) -> None:
    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url) as ws:
            await note_end(ws, notes)

    notes, _ = both(function, talk)
    assert notes == [b"x" * 300_000, (1006, "")]


def test_client_is_lost() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "to nobody"})

    async def talk(url: str, notes: list[Any]) -> None:
        peer = await RawPeer.open(int(url.rpartition(":")[2]))
        await peer.head()
        peer.writer.write(frame(1, b"last"))
        notes.append(await peer.frame())
        peer.writer.transport.abort()
        await peer.end()

    _, events = both(app, talk)
    assert events[-1] == {"type": "websocket.disconnect", "code": 1005}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(1, b"\xff"), 1007),
        (frame(3, b""), 1002),
        (b"\x81\x05hello", 1002),
        (frame(9, b"", fin=0), 1002),
        (b"\x82\xff" + (2**20).to_bytes(8, "big") + bytes(4), 1009),
        (
            frame(1, b"one", fin=0)
            + b"\x80\xff"
            + (2**20).to_bytes(8, "big")
            + bytes(4),
            1009,
        ),
        (frame(0x41, b"rsv"), 1002),
        (frame(0, b"nothing"), 1002),
        (frame(1, b"a", fin=0) + frame(1, b"b"), 1002),
        (b"\x89\xfe\0\x7e" + bytes(4 + 126), 1002),
        (frame(8, b"\3"), 1002),
        (frame(8, b"\3\xec"), 1002),
    ],
    ids=[
        "utf-8",
        "opcode",
        "mask",
        "fragmented ping",
        "size",
        "size of fragments",
        "rsv",
        "continuation",
        "no continuation",
        "long ping",
        "short close",
        "close code",
    ],
)
def test_peer_breaks_the_protocol(data: bytes, code: int) -> None:
    async def talk(url: str, notes: list[Any]) -> None:
        peer = await RawPeer.open(int(url.rpartition(":")[2]))
        await peer.head()
        peer.writer.write(frame(1, b"good"))
        notes.append(await peer.frame())
        peer.writer.write(data)
        notes.append(await peer.frame())
        await peer.end()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        event = await receive()
        await send({"type": "websocket.send", "text": event["text"]})
        await receive()
        with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
            await send({"type": "websocket.send", "text": "too late"})

    notes, events = both(app, talk, ws_max_size=2**20 - 1)
    assert notes[1][0] == 0x88
    assert notes[1][1][:2] == code.to_bytes(2, "big")
    assert events[-1]["code"] == code


def test_messages_before_the_close_frame_are_received() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            while (await receive())["type"] != "websocket.disconnect":
                pass

        recorder = Recorder(app)
        async with serving(recorder, "websock", ws_max_queue=4) as server:
            async with connect(f"ws://127.0.0.1:{server.port}") as ws:
                for number in range(20):
                    await ws.send(str(number))
                go.set()
            await recorder.done.wait()
        texts = [event.get("text") for event in recorder.events[1:-1]]
        assert texts == [str(number) for number in range(20)]
        assert recorder.events[-1]["code"] == 1000

    run(main())


@pytest.mark.parametrize("engine", list(ENGINES))
def test_shutdown(engine: str) -> None:
    async def main() -> Any:
        app = Recorder(echo)
        async with serving(app, engine) as server:
            ws = await connect(f"ws://127.0.0.1:{server.port}")
            await ws.send("one")
            assert await ws.recv() == "one"
        await ws.wait_closed()
        assert ws.close_code == 1012
        return app.events

    assert run(main())[-1] == {"type": "websocket.disconnect", "code": 1012}


def test_shutdown_before_it_is_accepted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    async def main() -> None:
        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            peer = await RawPeer.open(server.port)
            await until(lambda: recorder.events)
        assert (await peer.head()).startswith(b"HTTP/1.1 500 ")
        await peer.end()
        assert recorder.events[-1] == {"type": "websocket.disconnect", "code": 1006}

    run(main())


class Impatient(WebSocketProtocol):
    """Waits a moment only for the answer to a close frame."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = 0.1


def test_peer_never_answers_the_close_frame() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def main() -> None:
        async with serving(Recorder(app), Impatient) as server:
            peer = await RawPeer.open(server.port)
            await peer.head()
            assert await peer.frame() == (0x88, b"\x03\xe8")
            with contextlib.suppress(ConnectionError):
                assert await peer.reader.read() == b""
            await peer.end()

    run(main())


def test_close_frame_is_read_behind_messages_nobody_received() -> None:
    async def main() -> None:
        full = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await full.wait()
            await send({"type": "websocket.close", "code": 4000})

        recorder = Recorder(app)
        async with serving(recorder, "websock", ws_max_queue=2) as server:
            peer = await RawPeer.open(server.port)
            await peer.head()
            connection = server.connection
            peer.writer.write(frame(1, b"unread") * 10)
            await until(lambda: connection.queued >= 3)
            peer.writer.write(frame(1, b"unread") * 10)
            await peer.writer.drain()
            full.set()
            assert await peer.frame() == (0x88, (4000).to_bytes(2, "big"))
            peer.writer.write(frame(8, (4000).to_bytes(2, "big")))
            assert await peer.reader.read() == b""
            await peer.end()
            await until(lambda: not server.server_state.connections)
            assert connection.protocol.close_rcvd.code == 4000

    run(main())


# -- receive() and send() --------------------------------------------------------------


def test_close_while_another_task_receives() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        receiver = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send({"type": "websocket.close", "code": 4000})
        event = await receiver
        assert event["code"] == 4000
        await answer.wait()

    answer = asyncio.Event()

    async def main() -> None:
        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            peer = await RawPeer.open(server.port)
            await peer.head()
            await peer.frame()
            # The event comes before the peer has answered.
            await until(lambda: len(recorder.events) >= 2)
            answer.set()
            peer.writer.write(frame(8, (4000).to_bytes(2, "big")))
            await peer.end()
            await recorder.done.wait()
        assert recorder.error is None

    run(main())


def test_receive_is_cancelled_and_called_again() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        first.cancel()
        # Before the other task has noticed.
        second = asyncio.create_task(receive())
        third = asyncio.create_task(receive())
        await send({"type": "websocket.send", "text": "ready"})
        texts = {(await second)["text"], (await third)["text"]}
        assert texts == {"one", "two"}
        assert first.cancelled()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.01)
        await send({"type": "websocket.send", "text": "ready"})
        assert (await receive())["text"] == "three"

    async def talk(url: str, notes: list[Any]) -> None:
        async with connect(url) as ws:
            notes.append(await ws.recv())
            await ws.send("one")
            await ws.send("two")
            notes.append(await ws.recv())
            await ws.send("three")
            await note_end(ws, notes)

    notes, _ = both(app, talk)
    assert notes == ["ready", "ready", (1006, "")]


def test_wrong_types_are_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with pytest.raises(TypeError):
            await send({"type": "websocket.send", "text": b"bytes"})
        with pytest.raises(UnicodeEncodeError):
            await send({"type": "websocket.send", "text": "\ud800"})
        with pytest.raises(RuntimeError, match="Expected ASGI message"):
            await send({"type": "websocket.what"})
        await send({"type": "websocket.send"})
        await send({"type": "websocket.send", "bytes": None, "text": "fine"})
        await receive()

    async def main() -> None:
        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            async with connect(f"ws://127.0.0.1:{server.port}") as ws:
                assert await ws.recv() == "fine"
            await recorder.done.wait()
        assert recorder.error is None

    run(main())


def test_sending_waits_for_a_peer_that_does_not_read() -> None:
    size, count = 65536, 1000
    unsent: list[int] = []

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            [connection] = server.server_state.connections
            for _ in range(count):
                await send({"type": "websocket.send", "bytes": bytes(size)})
                unsent.append(connection.buffered_amount)
            await send({"type": "websocket.close"})

        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            peer = await RawPeer.open(server.port, limit=2**10)
            await peer.head()
            connection = server.connection
            await until(lambda: connection.write_paused)
            # The system takes some MB, and never all of it.
            assert len(unsent) < count
            total = 0
            while total < count * (size + 10):
                total += len(await peer.reader.read(2**20))
            await peer.end()
            await recorder.done.wait()
        assert recorder.error is None

    run(main())
    assert len(unsent) == count
    assert max(unsent) < 2**16 + 2 * size


def test_peer_must_wait_for_an_application_that_does_not_receive() -> None:
    size, count = 65536, 300

    async def main() -> None:
        go = asyncio.Event()
        total = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal total
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            while (event := await receive())["type"] == "websocket.receive":
                total += len(event["bytes"])

        recorder = Recorder(app)
        async with serving(recorder, "websock", ws_max_queue=10_000) as server:
            ws = await websock.connect(
                f"ws://127.0.0.1:{server.port}", compression=None
            )
            connection = server.connection

            async def send_all() -> None:
                for _ in range(count):
                    await ws.send(bytes(size))

            sending = asyncio.create_task(send_all())
            await until(lambda: not connection.transport.is_reading())
            # 256 KiB, the read that went over it, and what came with that.
            queued = connection.queued
            assert 3 * size <= queued * size <= 2**18 + 4 * size
            assert not sending.done()
            go.set()
            await sending
            await ws.close()
            await recorder.done.wait()
        assert total == count * size

    run(main())


def test_peer_must_wait_when_the_queue_is_full() -> None:
    count = 100

    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            while (await receive())["type"] == "websocket.receive":
                pass

        recorder = Recorder(app)
        async with serving(recorder, "websock", ws_max_queue=4) as server:
            peer = await RawPeer.open(server.port)
            await peer.head()
            connection = server.connection
            for number in range(count):
                peer.writer.write(frame(1, b"%d" % number))
            await until(lambda: connection.queued > 4)
            peer.writer.write(frame(1, b"last"))
            await until(lambda: not connection.transport.is_reading())
            assert connection.queued == 5
            go.set()
            peer.writer.write(frame(8, b""))
            await peer.frame()
            await peer.end()
            await recorder.done.wait()
        texts = [event.get("text") for event in recorder.events[1:-1]]
        assert texts == [*map(str, range(count)), "last"]

    run(main())


def test_lost_peer_ends_a_send_that_waits() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": bytes(2**20)})

    async def main() -> None:
        recorder = Recorder(app)
        async with serving(recorder, "websock") as server:
            peer = await RawPeer.open(server.port, limit=2**10)
            await peer.head()
            connection = server.connection
            await until(lambda: connection.write_paused)
            peer.writer.transport.abort()
            await peer.end()
            await recorder.done.wait()
        assert isinstance(recorder.error, ClientDisconnected)

    run(main())


# -- keepalive -------------------------------------------------------------------------


def test_keepalive() -> None:
    async def main() -> None:
        app = Recorder(echo)
        options = {"ws_ping_interval": 0.05, "ws_ping_timeout": 30}
        async with serving(app, "websock", **options) as server:
            peer = await RawPeer.open(server.port)
            await peer.head()
            for _ in range(3):
                first, payload = await peer.frame()
                assert first == 0x89
                peer.writer.write(frame(10, payload))
            assert server.connection.ping_sent_at > 0
            await peer.end()

    run(main())


@pytest.mark.parametrize("engine", list(ENGINES))
def test_keepalive_without_an_answer(engine: str) -> None:
    async def main() -> Any:
        app = Recorder(echo)
        options = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
        async with serving(app, engine, **options) as server:
            peer = await RawPeer.open(server.port)
            await peer.head()
            assert (await peer.frame())[0] == 0x89
            close = (1011).to_bytes(2, "big") + b"keepalive ping timeout"
            assert await peer.frame() == (0x88, close)
            assert await peer.reader.read() == b""
            await peer.end()
            await app.done.wait()
        return app.events

    assert run(main())[-1] == {"type": "websocket.disconnect", "code": 1005}


@pytest.mark.parametrize("interval", [None, 0])
def test_no_keepalive(interval: float | None) -> None:
    async def main() -> None:
        async with serving(Recorder(echo), "websock", ws_ping_interval=interval) as s:
            async with connect(f"ws://127.0.0.1:{s.port}"):
                assert s.connection.ping_timer is None

    run(main())


def test_pings_are_answered() -> None:
    async def main() -> None:
        async with serving(Recorder(echo), "websock") as server:
            async with connect(f"ws://127.0.0.1:{server.port}") as ws:
                await (await ws.ping(b"payload"))

    run(main())


# -- the log, and applications ---------------------------------------------------------


def test_log(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/reject":
            await reject(scope, receive, send)
        elif path == "/deny":
            await deny(scope, receive, send)
        elif path == "/fail":
            await fail(scope, receive, send)
        elif path == "/return":
            await return_at_once(scope, receive, send)
        else:
            await echo(scope, receive, send)

    async def once(engine: str) -> list[Any]:
        caplog.clear()
        async with serving(app, engine) as server:
            for path in ("/accept%20it?q=1", "/reject", "/deny", "/fail", "/return"):
                with contextlib.suppress(websockets.InvalidStatus):
                    ws = await connect(f"ws://127.0.0.1:{server.port}{path}")
                    await ws.close()
        return [
            (record.levelname, re.sub(r":\d{4,5}", ":PORT", record.getMessage()))
            for record in caplog.records
            if record.name == "uvicorn.error"
            and not record.getMessage().startswith(("Started", "Finished"))
        ]

    with caplog.at_level(logging.INFO, "uvicorn.error"):
        ours, theirs = run(once("websock")), run(once("websockets"))
    # It says so after a response that is complete, too; here, and with wsproto, not.
    theirs.remove(("ERROR", "ASGI callable returned without completing handshake."))
    assert ours == theirs
    texts = [text for _, text in ours]
    assert '127.0.0.1:PORT - "WebSocket /accept%20it?q=1" [accepted]' in texts
    assert '127.0.0.1:PORT - "WebSocket /reject" 403' in texts
    assert '127.0.0.1:PORT - "WebSocket /deny" 418' in texts


@pytest.mark.parametrize("http", HTTPS)
def test_fastapi_chat(http: str) -> None:
    def chat() -> FastAPI:
        app = FastAPI()
        room: list[WebSocket] = []

        async def say(text: str) -> None:
            for member in list(room):
                await member.send_text(text)

        @app.websocket("/chat/{name}")
        async def member(socket: WebSocket, name: str) -> None:
            if name == "mallory":
                await socket.close(4003, "no")
                return
            await socket.accept(subprotocol="chat")
            room.append(socket)
            await say(f"{name} joins")
            try:
                while True:
                    data = await socket.receive_json()
                    if data == "quit":
                        room.remove(socket)
                        await socket.close(4001, "as you wish")
                        break
                    await say(f"{name}: {data['say']}")
            except WebSocketDisconnect as exc:
                room.remove(socket)
                await say(f"{name} leaves ({exc.code} {exc.reason})")

        return app

    async def once(engine: str) -> list[Any]:
        notes: list[Any] = []
        async with serving(chat(), engine, http=http) as server:
            url = f"ws://127.0.0.1:{server.port}/chat"
            alice = await connect(f"{url}/alice", subprotocols=["chat"])
            notes.append(await alice.recv())
            bob = await connect(f"{url}/bob", subprotocols=["chat"])
            notes += [await alice.recv(), await bob.recv(), bob.subprotocol]
            await bob.send('{"say": "h\\u00e9llo"}')
            notes += [await alice.recv(), await bob.recv()]
            await bob.close(1001, "tired")
            notes.append(await alice.recv())
            with pytest.raises(websockets.InvalidStatus) as info:
                await connect(f"{url}/mallory")
            notes.append(info.value.response.status_code)
            await alice.send('"quit"')
            await note_end(alice, notes)
        return notes

    ours = run(once("websock"))
    assert ours == run(once("websockets"))
    assert ours == [
        "alice joins",
        "bob joins",
        "bob joins",
        "chat",
        "bob: héllo",
        "bob: héllo",
        "bob leaves (1001 tired)",
        403,
        (4001, "as you wish"),
    ]


def test_starlette_endpoint() -> None:
    class Upper(WebSocketEndpoint):
        encoding = "text"

        async def on_receive(self, websocket: Any, data: Any) -> None:
            await websocket.send_text(data.upper())

        async def on_disconnect(self, websocket: Any, close_code: int) -> None:
            codes.append(close_code)

    codes: list[int] = []

    async def once(engine: str) -> list[Any]:
        notes: list[Any] = []
        app = Starlette(routes=[WebSocketRoute("/", Upper)])
        async with serving(app, engine) as server:
            async with connect(f"ws://127.0.0.1:{server.port}") as ws:
                await ws.send("one")
                notes.append(await ws.recv())
                # Not what it takes: Starlette closes with 1003 and raises.
                await ws.send(b"two")
                await note_end(ws, notes)
        return notes

    assert run(once("websock")) == run(once("websockets")) == ["ONE", (1003, "")]
    assert codes == [1011, 1011]  # it raises, and forgets the code


def test_many_connections() -> None:
    async def main() -> None:
        async with serving(Recorder(echo), "websock") as server:

            async def one(number: int) -> None:
                url = f"ws://127.0.0.1:{server.port}"
                async with websock.connect(url) as ws:
                    for turn in range(20):
                        await ws.send(f"{number} {turn}")
                        assert await ws.recv() == f"{number} {turn}"

            await asyncio.gather(*(one(number) for number in range(50)))
            await until(lambda: not server.server_state.connections)
            assert not server.server_state.tasks

    run(main())


def test_unix_socket(tmp_path: Any) -> None:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("the system has no Unix sockets")

    async def main() -> None:
        import uvicorn

        path = str(tmp_path / "s")
        app = Recorder(echo)
        config = uvicorn.Config(
            app, uds=path, ws=WebSocketProtocol, lifespan="off", log_config=None
        )
        server = Server(config)
        task = asyncio.create_task(server.serve())
        await server.is_up.wait()
        async with websock.unix_connect(path) as ws:
            await ws.send("over a file")
            assert await ws.recv() == "over a file"
        server.should_exit = True
        await task
        assert app.scopes[0]["client"] is None

    run(main())
