"""Autobahn|Python with and without its speed-up: nobody can tell them apart."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
from collections.abc import Callable
from typing import Any

import autobahn.asyncio.websocket as asyncio_autobahn
import pytest
from autobahn.websocket import protocol as host
from helpers import request
from host_patches import KEY, outcome, patched, split
from hypothesis import given, settings
from hypothesis import strategies as st

import websock
from websock._kernels import apply_mask, build_header
from websock.handshake import accept_key
from websock.speedups._autobahn import PATCH

TIMEOUT = 60  # seconds
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: "
)
SERVER_OPTIONS = ("requireMaskedClientFrames", "maskServerFrames")

PLAIN = host.create_xor_masker


class Transport:
    """The edge of what is tested: notes what is written."""

    def __init__(self, notes: list[Any]) -> None:
        self.notes = notes

    def write(self, data: bytes) -> None:
        self.notes.append(("wrote", type(data), data))

    def close(self) -> None:
        self.notes.append("close")

    def abort(self) -> None:
        self.notes.append("abort")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 80) if name == "peername" else default


class Sees:
    """Notes what a protocol is told."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.notes.append(("message", type(payload), payload, isBinary, state(self)))
        if payload == b"drop":
            self.dropConnection(abort=True)
        elif payload == b"close":
            self.sendClose(3000, "bye")
        elif payload == b"raise":
            raise LookupError("a mistake of the program")
        elif payload == b"coroutine":
            return self.later()
        elif payload == b"fragments":
            self.sendMessage(payload * 3, isBinary, fragmentSize=10)
        else:
            self.sendMessage(payload, isBinary)
            self.sendMessage(payload, isBinary, sync=payload == b"sync")
        return None

    async def later(self) -> None:
        self.notes.append("later")

    def onPing(self, payload: bytes) -> None:
        self.notes.append(("ping", payload))
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self.notes.append(("pong", payload))

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
        self.notes.append(("end", wasClean, code, reason))


class Server(Sees, asyncio_autobahn.WebSocketServerProtocol):
    pass


class Client(Sees, asyncio_autobahn.WebSocketClientProtocol):
    pass


class Streaming(Server):
    """Looks at what comes before a message is complete."""

    def onMessageFrameData(self, payload: bytes) -> None:
        self.notes.append(("data", payload))
        super().onMessageFrameData(payload)


class Listening(Server):
    """Has somebody listen to its messages."""

    def onOpen(self) -> None:
        self.on(
            "message",
            lambda payload, is_binary: self.notes.append(("fired", payload, is_binary)),
        )


class Shadowing(Server):
    """Has a method of its own in the object."""

    def onOpen(self) -> None:
        self.onMessageBegin = self.begins

    def begins(self, is_binary: bool) -> None:
        self.notes.append("begins")
        type(self).onMessageBegin(self, is_binary)


KINDS: list[Any] = [Server, Client, Streaming, Listening, Shadowing]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"failByDrop": False},
    {"utf8validateIncoming": False},
    {"maxMessagePayloadSize": 10},
    {"maxFramePayloadSize": 10, "failByDrop": False},
    {"applyMask": False},
    {"logFrames": True, "logOctets": True},
    {"autoFragmentSize": 3},
    {"requireMaskedClientFrames": False, "maskServerFrames": True},
]


def state(protocol: Any) -> Any:
    """Return what a protocol has noted about its connection."""
    names = (
        *(
            "state",
            "data",
            "inside_message",
            "message_data",
            "frame_data",
            "frame_length",
        ),
        *(
            "message_is_binary",
            "message_data_total_length",
            "utf8validateLast",
            "failedByMe",
        ),
        *("utf8validateIncomingCurrentMessage", "wasMaxMessagePayloadSizeExceeded"),
    )
    values = [getattr(protocol, name, None) for name in names]
    frame = protocol.current_frame
    stats = {
        k: v
        for k, v in protocol.trafficStats.__json__().items()
        if "Octets" in k or "WebSocket" in k
    }
    return values, frame and vars(frame), stats


async def opened(kind: Any, options: dict[str, Any], notes: list[Any]) -> Any:
    """Return a protocol that has its opening handshake behind it."""
    factory: Any
    if kind is not Client:
        factory = asyncio_autobahn.WebSocketServerFactory()
    else:
        factory = asyncio_autobahn.WebSocketClientFactory("ws://localhost/")
        options = {k: v for k, v in options.items() if k not in SERVER_OPTIONS}
    factory.protocol = kind
    factory.logFrames = factory.logOctets = "logFrames" in options
    known = {k: v for k, v in options.items() if not k.startswith("log")}
    factory.setProtocolOptions(**known)
    protocol = factory()
    protocol.notes = notes
    head: list[Any] = []
    protocol.connection_made(Transport(head))
    if kind is not Client:
        protocol._dataReceived(request())
    else:
        while not head:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
        [key] = re.findall(rb"Sec-WebSocket-Key: (\S+)", head[0][2])
        accept = accept_key(key.decode()).encode()
        protocol._dataReceived(RESPONSE + accept + b"\r\n\r\n")
    while protocol.state != host.WebSocketProtocol.STATE_OPEN:  # noqa: ASYNC110  # the same
        await asyncio.sleep(0)
    protocol.transport = Transport(notes)
    return protocol


def talk(
    kind: Any,
    options: dict[str, Any],
    pieces: list[bytes],
    between: Callable[[], Any] | None = None,
) -> list[Any]:
    """Give a protocol what a peer sends; return all that was seen."""
    notes: list[Any] = []

    async def main() -> None:
        protocol = await opened(kind, options, notes)
        random.seed(7)
        for piece in pieces:
            notes.append(outcome(protocol._dataReceived, piece))
            await asyncio.sleep(0)
            notes.append(state(protocol))
            if between is not None:
                between()
        while protocol.send_queue:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        notes.append(state(protocol))

    asyncio.run(main())
    return notes


payloads = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=12).map(str.encode),
    st.sampled_from([b"drop", b"close", b"raise", b"coroutine", b"fragments", b"sync"]),
    st.sampled_from([b"\x03\xe8", b"\x03\xe8bye", b"\x03\xe8\xff", b"\x03"]),
    st.sampled_from([125, 126, 127, 65535, 65536]).map(bytes),
)


@st.composite
def frames(draw: st.DrawFn, mask: bytes | None) -> bytes:
    payload = draw(payloads)
    if draw(st.integers(0, 19)) == 0:
        mask = KEY if mask is None else None
    header = build_header(
        draw(st.sampled_from([1, 1, 1, 2, 2, 0, 8, 9, 10, 3, 11])),
        len(payload),
        fin=draw(st.integers(0, 3)) > 0,
        rsv=draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0x40, 0x10])),
        mask=mask,
    )
    if draw(st.integers(0, 19)) == 0:
        # A length that is longer than it has to be.
        header = (
            header[:1]
            + bytes([header[1] | 127])
            + len(payload).to_bytes(8, "big")
            + (mask or b"")
        )
    return header + (apply_mask(payload, mask) if mask else payload)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Any, dict[str, Any], list[bytes]]:
    kind = draw(st.sampled_from(KINDS))
    mask = None if kind is Client else KEY
    wires = draw(st.lists(frames(mask), min_size=1, max_size=6))
    places = draw(st.lists(st.integers(0, 150), max_size=8))
    return kind, draw(st.sampled_from(OPTIONS)), split(b"".join(wires), places)


@settings(deadline=None)
@given(scenes())
def test_conversations(scene: tuple[Any, dict[str, Any], list[bytes]]) -> None:
    want = talk(*scene)
    with patched(PATCH):
        assert talk(*scene) == want


@settings(deadline=None)
@given(scenes())
def test_a_patch_that_comes_and_goes_between_reads(
    scene: tuple[Any, dict[str, Any], list[bytes]],
) -> None:
    want = talk(*scene)
    with contextlib.ExitStack() as stack:
        inside = False

        def change() -> None:
            nonlocal inside
            if inside:
                stack.close()
            else:
                stack.enter_context(patched(PATCH))
            inside = not inside

        assert talk(*scene, change) == want


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8), max_size=6))
def test_utf8(pieces: list[bytes]) -> None:
    def judge() -> list[Any]:
        validator = host.Utf8Validator()
        found = [validator.validate(piece) for piece in pieces]
        validator.reset()
        return [*found, *(validator.validate(piece) for piece in reversed(pieces))]

    want = judge()
    with patched(PATCH):
        assert judge() == want


@settings(deadline=None)
@given(
    st.binary(min_size=4, max_size=4),
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
)
def test_masks(mask: bytes, pieces: list[bytes]) -> None:
    def process() -> list[Any]:
        masker = host.create_xor_masker(mask, sum(map(len, pieces)))
        found = [(masker.process(piece), masker.pointer()) for piece in pieces]
        masker.reset()
        return [*found, masker.pointer(), *(masker.process(piece) for piece in pieces)]

    want = process()
    with patched(PATCH):
        assert host.create_xor_masker is not PLAIN
        assert process() == want
        assert outcome(host.create_xor_masker, b"abc")[:2] == ("raised", AssertionError)
    assert outcome(host.create_xor_masker, b"abc")[:2] == ("raised", AssertionError)
    assert host.create_xor_masker is PLAIN


FRAMES: list[dict[str, Any]] = [
    {"opcode": opcode, "payload": payload, "fin": fin, "rsv": rsv, "mask": mask}
    for opcode in (0, 1, 2, 8, 9, 10, 15, 127)
    for payload in (b"", b"bytes", bytes(126), bytes(65536))
    for fin in (True, False)
    for rsv in (0, 4, 1, 9)
    for mask in (None, KEY)
] + [
    {"opcode": 1, "payload": b"ab", "payload_len": 5},
    {"opcode": 1, "payload": b"abcdef", "chopsize": 3},
    {"opcode": 1, "payload": b"abcdef", "sync": True},
    {"opcode": 1, "payload": bytearray(b"abc")},
    {"opcode": 1, "payload": "abc"},
]


@pytest.mark.parametrize("kind", [Server, Client])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_frames_that_are_sent(kind: Any, options: dict[str, Any]) -> None:
    def send_all() -> list[Any]:
        notes: list[Any] = []

        async def main() -> None:
            protocol = await opened(kind, options, notes)
            random.seed(7)
            for arguments in FRAMES:
                send = functools.partial(protocol.sendFrame, **arguments)
                notes.append(outcome(send)[:2])
            notes.append(outcome(protocol.beginMessage))
            notes.append(outcome(protocol.beginMessageFrame, 4))
            notes.append(outcome(protocol.sendMessageFrameData, b"ab"))
            notes.append(outcome(protocol.sendMessageFrameData, b"cd"))
            notes.append(outcome(protocol.endMessage))
            prepared = protocol.factory.prepareMessage(b"prepared")
            notes.append(outcome(protocol.sendPreparedMessage, prepared))
            while protocol.send_queue:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0)
            notes.append(state(protocol))
            protocol.connection_lost(None)

        asyncio.run(main())
        return notes

    want = send_all()
    with patched(PATCH):
        assert send_all() == want


# -- sockets ---------------------------------------------------------------------------


def test_a_server_and_a_client_over_sockets() -> None:
    """Autobahn on both sides; both see what they saw without the patch."""
    messages = [
        (b"naive", False),
        ("naïve ☃".encode(), False),
        (bytes(100_000), True),
        (b"", True),
    ]
    messages += [(b"\xff", False)]

    async def once() -> list[Any]:
        served: list[Any] = []
        received: list[Any] = []
        over = [asyncio.Event(), asyncio.Event()]

        class Echo(asyncio_autobahn.WebSocketServerProtocol):
            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                served.append((payload, isBinary))
                self.sendMessage(payload, isBinary)

            def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
                served.append((wasClean, code, reason))
                over[0].set()

        class Asks(asyncio_autobahn.WebSocketClientProtocol):
            def onOpen(self) -> None:
                self.left = list(messages)
                self.ask()

            def ask(self) -> None:
                if self.left:
                    self.sendMessage(*self.left.pop(0))
                else:
                    self.sendClose(3000, "done")

            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                received.append((payload, isBinary))
                self.ask()

            def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
                received.append((wasClean, code, reason))
                over[1].set()

        loop = asyncio.get_running_loop()
        factory: Any = asyncio_autobahn.WebSocketServerFactory()
        factory.protocol = Echo
        factory.setProtocolOptions(failByDrop=False)
        server = await loop.create_server(factory, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client: Any = asyncio_autobahn.WebSocketClientFactory(f"ws://127.0.0.1:{port}")
        client.protocol = Asks
        await loop.create_connection(client, "127.0.0.1", port)
        async with asyncio.timeout(TIMEOUT):
            await over[0].wait()
            await over[1].wait()
        server.close()
        await server.wait_closed()
        return [served, received]

    want = asyncio.run(once())
    assert want[1][-1][1] == 1007
    with patched(PATCH):
        assert asyncio.run(once()) == want


def test_a_connection_that_lives_through_it() -> None:
    async def main() -> None:
        factory: Any = asyncio_autobahn.WebSocketServerFactory()

        class Echo(asyncio_autobahn.WebSocketServerProtocol):
            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                self.sendMessage(payload, isBinary)

        factory.protocol = Echo
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            asyncio.timeout(TIMEOUT),
            websock.connect(f"ws://127.0.0.1:{port}") as ws,
        ):
            for _ in range(3):
                await ws.send("before ☃")
                assert await ws.recv() == "before ☃"
                with patched(PATCH):
                    await ws.send("inside ☃")
                    assert await ws.recv() == "inside ☃"
                    await ws.send(["frag", "ments"])
                    assert await ws.recv() == "fragments"
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_all_is_put_back() -> None:
    owners = (host, host.WebSocketProtocol)
    before = [dict(vars(owner)) for owner in owners]
    with patched(PATCH):
        assert [dict(vars(owner)) for owner in owners] != before
    assert [dict(vars(owner)) for owner in owners] == before
