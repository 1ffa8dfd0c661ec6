"""Tornado with and without its speed-up: nobody can tell them apart."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
from helpers import request
from host_patches import (
    DEFLATE,
    KEY,
    MESSAGES,
    outcome,
    patched,
    same,
    serving_a_client,
    split,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import TLS, tls_fixture
from tornado.websocket import WebSocketProtocol13, websocket_connect

import websock
from websock._kernels import apply_mask, build_header
from websock.speedups._tornado import PATCH

TIMEOUT = 60  # seconds
LIMIT = 100_000
contexts = tls_fixture()
COUNTS = (
    "_message_bytes_in",
    "_message_bytes_out",
    "_wire_bytes_in",
    "_wire_bytes_out",
)


class Handler(tornado.websocket.WebSocketHandler):
    """Echoes, and notes what it sees."""

    def initialize(self, notes: list[Any], over: asyncio.Event, deflate: bool) -> None:
        self.notes, self.over, self.deflate = notes, over, deflate

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self.deflate else None

    def log_exception(self, *exc_info: Any) -> None:
        self.notes.append(("logged", exc_info[0], str(exc_info[1])))

    def on_message(self, message: str | bytes) -> Any:
        self.protocol = self.ws_connection
        self.notes.append((type(message), message))
        if message == "raise":
            raise LookupError("a mistake of the program")
        if message == "close":
            self.close(3001, "bye ☃")
        elif message == "future":
            future: Any = asyncio.get_running_loop().create_future()
            future.set_result(None)
            return future
        elif message == "dict":
            self.write_message({"a": 1})
        elif message == b"":
            # Not awaited.
            for size in range(40):
                self.write_message(b"x" * size, binary=True)
        else:
            return self.answer(message)
        return None

    async def answer(self, message: str | bytes) -> None:
        if message == "slow":
            await asyncio.sleep(0)
        if message == "raise later":
            raise LookupError("a mistake of the program")
        try:
            await self.write_message(message, binary=isinstance(message, bytes))
        except tornado.websocket.WebSocketClosedError as exc:
            self.notes.append((type(exc), str(exc)))

    def on_ping(self, data: bytes) -> None:
        self.notes.append(("ping", data))

    def on_pong(self, data: bytes) -> None:
        self.notes.append(("pong", data))

    def on_close(self) -> None:
        self.notes.append(("end", self.close_code, self.close_reason))
        self.over.set()


@contextlib.asynccontextmanager
async def serving(notes: list[Any], deflate: bool = False, context: Any = None) -> Any:
    over = asyncio.Event()
    arguments = {"notes": notes, "over": over, "deflate": deflate}
    app = tornado.web.Application(
        [("/", Handler, arguments)],
        log_function=lambda handler: None,
        websocket_max_message_size=LIMIT,
    )
    server = tornado.httpserver.HTTPServer(app, ssl_options=context)
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1], over
    finally:
        server.stop()
        await server.close_all_connections()


def converse(
    pieces: list[bytes], deflate: bool = False, between: Callable[[], Any] | None = None
) -> Any:
    """Send bytes to a server; return what its handler saw, and what came back."""
    notes: list[Any] = []
    received = b""
    reset = False

    async def main() -> None:
        nonlocal received, reset
        async with asyncio.timeout(TIMEOUT), serving(notes, deflate) as (port, over):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(*([DEFLATE] if deflate else [])))
            await reader.readuntil(b"\r\n\r\n")
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                    if between is not None:
                        between()
                while data := await reader.read(65536):
                    received += data
            except ConnectionError:
                reset = True
            await over.wait()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    asyncio.run(main())
    return notes, received, reset


def client_frame(
    opcode: int,
    payload: bytes,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = KEY,
) -> bytes:
    header = build_header(opcode, len(payload), fin=fin, rsv=rsv, mask=mask)
    return header + (apply_mask(payload, mask) if mask else payload)


CLOSE = client_frame(8, b"\x03\xe8done")

payloads = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=12).map(str.encode),
    st.sampled_from(["raise", "close", "slow", "future", "dict", "raise later"]).map(
        str.encode
    ),
    st.sampled_from([125, 126, 127, 65535, 65536, LIMIT, LIMIT + 1]).map(bytes),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    opcode = draw(st.sampled_from([1, 1, 1, 2, 2, 0, 9, 10, 3, 11]))
    payload = draw(payloads)
    if opcode > 7 and draw(st.integers(0, 9)):
        payload = payload[:125]
    return client_frame(
        opcode,
        payload,
        fin=draw(st.integers(0, 3)) > 0,
        rsv=draw(st.sampled_from([0] * 9 + [0x40, 0x10])),
        mask=draw(st.sampled_from([KEY, KEY, None])),
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(frames(), max_size=5), st.lists(st.integers(0, 120), max_size=6))
def test_conversations(wires: list[bytes], places: list[int]) -> None:
    pieces = split(b"".join([*wires, CLOSE]), places)
    want = converse(pieces)
    with patched(PATCH):
        assert same(converse(pieces), want)


@settings(deadline=None, max_examples=40)
@given(st.lists(frames(), max_size=5), st.lists(st.integers(0, 120), max_size=6))
def test_a_patch_that_comes_and_goes(wires: list[bytes], places: list[int]) -> None:
    pieces = split(b"".join([*wires, CLOSE]), places)
    want = converse(pieces)
    with contextlib.ExitStack() as stack:
        inside = False

        def change() -> None:
            nonlocal inside
            if inside:
                stack.close()
            else:
                stack.enter_context(patched(PATCH))
            inside = not inside

        assert same(converse(pieces, between=change), want)


def test_compression() -> None:
    compressed = bytes.fromhex("f248cdc9c90700")  # RFC 7692, 7.2.3.1
    pieces = [
        client_frame(1, compressed, rsv=0x40),
        client_frame(1, compressed[:3], fin=False, rsv=0x40),
        client_frame(9, b"ping"),
        client_frame(0, compressed[3:]),
        client_frame(1, b"plain"),
        CLOSE,
    ]
    want = converse(pieces, deflate=True)
    assert (str, "Hello") in want[0]
    with patched(PATCH):
        assert same(converse(pieces, deflate=True), want)


@pytest.mark.parametrize("at", [1, 2, 5, 8])
def test_a_connection_that_is_cut(at: int) -> None:
    def cut() -> list[Any]:
        notes: list[Any] = []

        async def main() -> None:
            async with asyncio.timeout(TIMEOUT), serving(notes) as (port, over):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request() + client_frame(1, b"one"))
                await reader.readuntil(b"one")
                writer.write(client_frame(1, b"three")[:at])
                writer.close()
                await over.wait()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        asyncio.run(main())
        return notes

    want = cut()
    assert want[-1] == ("end", None, None)
    with patched(PATCH):
        assert cut() == want


MASKS: list[tuple[Any, Any]] = [
    (KEY, b"some payload"),
    (KEY, b""),
    (KEY, bytes(range(256)) * 300),
    (b"abc", b"abcd"),
    (KEY, "text"),
    (KEY, bytearray(b"abc")),
    (bytearray(KEY), b"abc"),
    (None, b"abc"),
]


@pytest.mark.parametrize("arguments", MASKS, ids=range(len(MASKS)))
def test_masks(arguments: tuple[Any, Any]) -> None:
    plain = tornado.websocket._websocket_mask
    want = outcome(plain, *arguments)
    with patched(PATCH):
        assert tornado.websocket._websocket_mask is not plain
        assert outcome(tornado.websocket._websocket_mask, *arguments) == want
    assert tornado.websocket._websocket_mask is plain


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_client(tls: bool, contexts: TLS) -> None:
    """Tornado's client against this library's server: messages, and how it ends."""

    async def once() -> list[Any]:
        notes: list[Any] = []
        async with serving_a_client(notes, contexts.server if tls else None) as url:
            trust = contexts.client if tls else None
            asked = tornado.httpclient.HTTPRequest(url, ssl_options=trust)
            client = await websocket_connect(asked)
            for message in MESSAGES:
                await client.write_message(message, binary=isinstance(message, bytes))
                notes.append(await client.read_message())
            protocol: Any = client.protocol
            await client.write_message("end")
            notes.append(await client.read_message())
            notes.append((client.close_code, client.close_reason))
            notes.append([getattr(protocol, name) for name in COUNTS])
            notes.append(await raised(client.write_message, "late"))
            client.close()
        return notes

    want = asyncio.run(once())
    assert want[-3] == (3002, "the end")
    with patched(PATCH):
        assert asyncio.run(once()) == want


async def raised(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return await function(*args)
    except Exception as exc:
        return type(exc), str(exc)


def test_masks_of_a_client_are_its_own() -> None:
    async def main() -> None:
        seen = set()
        wires: list[bytes] = []
        protocol: Any = WebSocketProtocol13.__new__(WebSocketProtocol13)
        protocol.mask_outgoing = True
        protocol._wire_bytes_out = 0
        protocol.stream = type("Stream", (), {"write": staticmethod(wires.append)})
        for _ in range(50):
            protocol._write_frame(True, 1, b"text")
        for wire in wires:
            assert re.fullmatch(rb"(?s)\x81\x84.{8}", wire)
            assert apply_mask(wire[6:], wire[2:6]) == b"text"
            seen.add(wire[2:6])
        assert len(seen) == 50

    with patched(PATCH):
        asyncio.run(main())


def test_frames_that_are_sent() -> None:
    def all_frames() -> list[Any]:
        results: list[Any] = []
        for opcode in (0, 1, 2, 3, 8, 9, 10):
            for data in (
                b"",
                b"bytes",
                bytes(125),
                bytes(126),
                bytes(65536),
                bytearray(b"a"),
            ):
                for fin in (True, False):
                    for flags in (0, 0x40, 0x10):
                        wires: list[Any] = []
                        protocol: Any = WebSocketProtocol13.__new__(WebSocketProtocol13)
                        protocol.mask_outgoing = False
                        protocol._wire_bytes_out = 0
                        protocol.stream = type(
                            "Stream", (), {"write": staticmethod(wires.append)}
                        )
                        found = outcome(protocol._write_frame, fin, opcode, data, flags)
                        results.append((found, wires, protocol._wire_bytes_out))
        return results

    want = all_frames()
    with patched(PATCH):
        assert all_frames() == want


def test_others_get_a_turn() -> None:
    """A handler that sends in a loop does not keep the loop to itself."""

    async def main() -> None:
        turns = 0

        class Sends(tornado.websocket.WebSocketHandler):
            async def open(self, *args: str, **kwargs: str) -> None:
                nonlocal turns
                loop = asyncio.get_running_loop()

                def count() -> None:
                    nonlocal turns
                    turns += 1
                    loop.call_soon(count)

                loop.call_soon(count)
                for _ in range(320):
                    await self.write_message("x")
                self.close()

        app = tornado.web.Application([("/", Sends)], log_function=lambda handler: None)
        server = tornado.httpserver.HTTPServer(app)
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        url = f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"
        async with asyncio.timeout(TIMEOUT), websock.connect(url) as ws:
            assert [message async for message in ws] == ["x"] * 320
        server.stop()
        await server.close_all_connections()
        assert turns >= 10

    with patched(PATCH):
        asyncio.run(main())


def test_all_is_put_back() -> None:
    owners = (tornado.websocket, WebSocketProtocol13)
    before = [dict(vars(owner)) for owner in owners]
    with patched(PATCH):
        assert [dict(vars(owner)) for owner in owners] != before
    assert [dict(vars(owner)) for owner in owners] == before
