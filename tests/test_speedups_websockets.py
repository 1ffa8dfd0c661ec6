"""The patch of websockets: its sans-IO protocol does what it does without."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from host_patches import (
    GENERATED,
    any_frames,
    frame,
    good_frames,
    logged,
    parts,
    patched,
    shown,
    unmasked,
)
from hypothesis import example, given
from hypothesis import strategies as st
from websockets import frames, protocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

import websock
from websock.speedups._websockets import LEGACY, PATCH, WebsocketsPatch

LOGGER = "tests.websockets"
SIZES: list[Any] = [2**20, None, 0, 10, 130, (None, 10), (20, 5), (100, 130)]


class Shout:
    """An extension that uses a bit, changes payloads, and fails when it is told to."""

    name = "shout"

    def encode(self, sent: Frame) -> Frame:
        if sent.data == b"encode":
            raise RuntimeError("told to")
        if sent.opcode in frames.CTRL_OPCODES:
            return sent
        return dataclasses.replace(sent, data=bytes(sent.data).upper(), rsv2=True)

    def decode(self, received: Frame, *, max_size: int | None = None) -> Frame:
        for trigger, exc in (
            (b"runtime", RuntimeError("told to")),
            (b"protocol", ProtocolError("told to")),
        ):
            if received.data == trigger:
                raise exc
        if max_size is not None and len(received.data) * 2 > max_size:
            raise PayloadTooBig(len(received.data) * 2, max_size)
        data = bytes(received.data) * 2
        return dataclasses.replace(received, data=data, rsv2=False)


def deflate() -> Any:
    return PerMessageDeflate(False, False, 15, 15)


EXTENSIONS: dict[str, Callable[[], list[Any]]] = {
    "none": list,
    "deflate": lambda: [deflate()],
    "shout": lambda: [Shout()],
    "both": lambda: [Shout(), deflate()],
}


def state_of(one: Protocol) -> Any:
    return (
        one.state, one.current_size, shown(one.close_rcvd), shown(one.close_sent),
        one.close_rcvd_then_sent, shown(one.parser_exc), one.eof_sent,
        one.close_expected(), one.reader.eof,
        one.close_code, one.close_reason,
        unmasked(b"".join(one.data_to_send())),
    )  # fmt: skip


def receive(
    side: Any, data: list[bytes], max_size: Any, extensions: str, ends: bool, level: int
) -> Any:
    """Return all that can be seen of a protocol that receives bytes."""
    with logged(LOGGER, level) as lines:
        logger = logging.getLogger(LOGGER)
        one = Protocol(side, max_size=max_size, logger=logger)
        one.id = uuid.UUID(int=0)
        one.extensions = EXTENSIONS[extensions]()
        seen = []
        for part in data:
            one.receive_data(part)
            seen.append((shown(fields(one.events_received())), state_of(one)))
        if ends:
            one.receive_eof()
            one.receive_eof()
            seen.append((shown(fields(one.events_received())), state_of(one)))
            seen.append(shown(one.close_exc))
        return seen, lines


def fields(events: list[Any]) -> Any:
    return [[type(e), e.opcode, e.data, e.fin, e.rsv1, e.rsv2, e.rsv3] for e in events]


def same(function: Callable[[], Any]) -> Any:
    """Return what a function returns, which is the same with and without the patch."""
    before = function()
    with patched(PATCH, ()):
        assert function() == before
    assert function() == before
    return before


@pytest.mark.parametrize("side", [SERVER, CLIENT])
@GENERATED
@given(data=st.data())
def test_any_input(side: Any, data: Any) -> None:
    streams = any_frames(side is SERVER)
    arguments = (
        data.draw(parts(streams)),
        data.draw(st.sampled_from(SIZES)),
        data.draw(st.sampled_from(["none", "none", "deflate", "shout"])),
        data.draw(st.booleans()),
        data.draw(st.sampled_from([logging.DEBUG, logging.INFO])),
    )
    same(lambda: receive(side, *arguments))


@pytest.mark.parametrize("side", [SERVER, CLIENT])
@GENERATED
@given(data=st.data())
def test_good_input(side: Any, data: Any) -> None:
    streams = good_frames(side is SERVER)
    received = data.draw(parts(streams))
    seen, _ = same(lambda: receive(side, received, None, "none", False, logging.INFO))
    assert all(state[5] == shown(None) for _, state in seen)  # no failure


@pytest.mark.parametrize("side", [SERVER, CLIENT])
@pytest.mark.parametrize("extensions", ["deflate", "both", "shout"])
@GENERATED
@given(
    messages=st.lists(
        st.tuples(
            st.sampled_from([b"", b"runtime", b"protocol", b"a" * 200, b"b" * 70000]),
            st.booleans(),
        ),
        max_size=4,
    ),
    max_size=st.sampled_from(SIZES),
    spoilt=st.booleans(),
)
@example(messages=[(b"b" * 70000, True)], max_size=100, spoilt=False)
def test_input_through_extensions(
    side: Any, extensions: str, messages: Any, max_size: Any, spoilt: bool
) -> None:
    compressor = zlib.compressobj(wbits=-15)
    stream = b""
    for payload, compressed in messages:
        first = 0x82
        if compressed and extensions != "shout":
            data = compressor.compress(payload)
            payload = (data + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            first |= 0x40
        if extensions != "deflate":
            first |= 0x20
        if spoilt:
            payload = payload[::-1]
        stream += frame(first, payload, b"mask" if side is SERVER else None)
    same(lambda: receive(side, [stream], max_size, extensions, True, logging.DEBUG))


def test_each_failure_is_one() -> None:
    """What hypothesis compares includes these failures."""
    texts = set()
    for stream in (
        frame(0x83, b"", b"mask"), frame(0x82, b"", None), frame(0xC2, b"", b"mask"),
        frame(0x80, b"", b"mask"), frame(0x09, b"", b"mask"),
        frame(0x89, bytes(126), b"mask"), frame(0x82, bytes(11), b"mask"),
        frame(0x88, b"\0", b"mask"), frame(0x88, b"\x03\xe8\xff", b"mask"),
        frame(0x01, b"", b"mask") * 2, frame(0x01, b"", b"mask") + frame(
            0x88, b"", b"mask"), b"\x82", b"",
    ):  # fmt: skip
        seen, _ = same(
            lambda stream=stream: receive(
                SERVER, [stream], 10, "none", True, logging.DEBUG
            )
        )
        texts.add(seen[-2][1][5][1])
    assert len(texts) == 13


def test_subclass_with_its_own_way_of_receiving() -> None:
    def run() -> list[Any]:
        taken = []

        class Own(Protocol):
            def recv_frame(self, received: Frame) -> None:
                taken.append((received.opcode, bytes(received.data)))
                super().recv_frame(received)

            def send_frame(self, sent: Frame) -> None:
                taken.append((sent.opcode, bytes(sent.data)))
                super().send_frame(sent)

        one = Own(SERVER)
        one.receive_data(frame(0x81, b"text", b"mask") + frame(0x89, b"p", b"mask"))
        one.send_text(b"answer")
        return taken

    assert same(run) == [
        (Opcode.TEXT, b"text"), (Opcode.PING, b"p"), (Opcode.PONG, b"p"),
        (Opcode.TEXT, b"answer"),
    ]  # fmt: skip


# -- sending ---------------------------------------------------------------------------

KINDS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "signed": lambda data: memoryview(data).cast("b"),
    "not in one piece": lambda data: memoryview(data + data)[::2],
    "words": lambda data: memoryview(data * 4).cast("I"),
    "text": lambda data: data.decode("latin-1"),
    "a number": lambda data: 5,
}
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["text", "binary", "continuation", "ping", "pong", "close"]),
        st.sampled_from(["encode", "0", "3", "125", "126", "65536"]),
        st.sampled_from(list(KINDS)),
        st.booleans(),
    ),
    max_size=6,
)


def send(side: Any, calls: Any, extensions: str, level: int) -> Any:
    """Return all that can be seen of a protocol that sends."""
    with logged(LOGGER, level) as lines:
        one = Protocol(side, logger=logging.getLogger(LOGGER))
        one.extensions = EXTENSIONS[extensions]()
        seen: list[Any] = []
        for name, data, kind, flag in calls:
            payload = bytes(int(data)) if data.isdigit() else data.encode()
            arguments: tuple[Any, ...] = (KINDS[kind](payload),)
            if name in ("text", "binary", "continuation"):
                arguments = (*arguments, flag)
            if name == "close":
                arguments = (1000, "bye") if flag else (None, "")
            try:
                getattr(one, f"send_{name}")(*arguments)
            except Exception as exc:
                seen.append(shown(exc))
            writes = one.data_to_send()
            seen.append([type(written) for written in writes])
            if side is SERVER:
                seen.append(writes)
            elif kind != "words":  # their length is not the number of bytes
                seen.append(unmasked(b"".join(writes)))
            seen.append((one.state, one.expect_continuation_frame))
        return seen, lines


@pytest.mark.parametrize("side", [SERVER, CLIENT])
@GENERATED
@given(
    calls=CALLS,
    extensions=st.sampled_from(list(EXTENSIONS)),
    level=st.sampled_from([logging.DEBUG, logging.INFO]),
)
def test_sending(side: Any, calls: Any, extensions: str, level: int) -> None:
    same(lambda: send(side, calls, extensions, level))


def test_masks() -> None:
    def run() -> Any:
        seen = []
        for data in (b"", b"abc", bytearray(b"abcdefghi"), memoryview(bytes(70000))):
            seen.append(frames.apply_mask(data, b"mask"))
        for data, mask in (
            (b"abc", b"four!"), ("abc", b"mask"), (5, b"mask"),
            (memoryview(b"abcdef")[::2], b"mask"), (b"abc", bytearray(b"mask")),
        ):  # fmt: skip
            try:
                seen.append(frames.apply_mask(data, mask))  # type: ignore[arg-type]
            except Exception as exc:
                seen.append(shown(exc))
        return seen

    same(run)


# -- putting it on and taking it off -----------------------------------------------------


def test_all_is_put_back() -> None:
    before = [
        vars(frames).get("apply_mask"), vars(Frame).get("serialize"),
        *map(vars(Protocol).get, ("parse", "send_text", "send_binary")),
    ]  # fmt: skip

    def now() -> list[Any]:
        return [
            vars(frames).get("apply_mask"), vars(Frame).get("serialize"),
            *map(vars(Protocol).get, ("parse", "send_text", "send_binary")),
        ]  # fmt: skip

    with patched(PATCH, ()):
        assert all(a is not b for a, b in zip(before, now(), strict=True))
    assert all(a is b for a, b in zip(before, now(), strict=True))


@pytest.mark.parametrize("first", [False, True])
def test_connections_live_through_it(first: bool) -> None:
    stream = frame(0x01, b"frag", b"mask") + frame(0x80, b"ment", b"mask")
    one = Protocol(SERVER)

    def half(at: int) -> None:
        one.receive_data(stream[:at])
        one.send_text(b"answer")
        one.receive_data(stream[at:])

    if first:
        half(3)
        with patched(PATCH, ()):
            half(9)
        half(12)
    else:
        with patched(PATCH, ()):
            one = Protocol(SERVER)
            half(9)
        half(5)
        with patched(PATCH, ()):
            half(3)
    found = [(event.opcode, bytes(event.data)) for event in one.events_received()]
    assert found == [(Opcode.TEXT, b"frag"), (Opcode.CONT, b"ment")] * 3
    assert one.data_to_send() == [b"\x81\x06answer"] * 3
    assert one.parser_exc is None


@pytest.mark.parametrize("owner", [frames.Frame, protocol.Protocol])
def test_self_test_sees_what_is_wrong(
    owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = WebsocketsPatch()
    patch.self_test()
    if owner is frames.Frame:
        monkeypatch.setattr(owner, "serialize", lambda self, **_: b"other")
    else:
        monkeypatch.setattr(owner, "recv_frame", lambda self, received: None)
        monkeypatch.setattr(
            "websock.speedups._websockets_frames.apply_mask", lambda a, b: bytes(a)
        )
    with pytest.raises(ValueError, match=r"differ|does not find"):
        patch.self_test()


def test_versions() -> None:
    patch = WebsocketsPatch()
    assert patch.knows("16.1.1") and patch.knows("17.4")
    assert not patch.knows("16.1") and not patch.knows("18.0")


PROGRAM = """
import sys
import websock.speedups as speedups
order, engine = sys.argv[1:]
options = {"engine": True} if engine == "engine" else {}
if order == "before":
    speedups.install("websockets", **options)
import websockets.sync.client
import websockets.protocol
assert not hasattr(websockets, "asyncio")  # the asyncio API comes later
if order == "between":
    speedups.install("websockets", **options)
import websockets.asyncio.client, websockets.asyncio.server
if order == "after":
    speedups.install("websockets", **options)
made = [
    websockets.protocol.Protocol.parse, websockets.frames.Frame.serialize,
    websockets.asyncio.connection.Connection.send,
    websockets.asyncio.messages.Assembler.get,
]
print(sum("speedups" in function.__code__.co_filename for function in made))
print(sum(getattr(kind, "__mro__", [0, int])[1].__module__.startswith("websock.") for kind in (
    websockets.connect, websockets.serve)))
[found] = [one for one in speedups.status() if one.name == "websockets"]
print(found.state)
speedups.uninstall("websockets")
made = [websockets.protocol.Protocol.parse, websockets.asyncio.messages.Assembler.get]
print(sum("speedups" in function.__code__.co_filename for function in made))
"""


@pytest.mark.parametrize("engine", ["engine", ""])
@pytest.mark.parametrize("order", ["before", "between", "after"])
def test_order_of_imports(order: str, engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, order, engine],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    if websock.BACKEND == "c":
        assert done.stdout.split() == ["4", "2" if engine else "0", "patched", "0"]
    else:
        assert done.stdout.split() == ["0", "0", "useless", "0"]


@pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated")
def test_masks_of_the_legacy_api() -> None:
    with patched(PATCH, (LEGACY,)):
        import websockets.legacy.framing as legacy

        assert "speedups" in legacy.apply_mask.__code__.co_filename  # type: ignore[attr-defined]
        assert legacy.apply_mask(b"abcde", b"abcd") == b"\0\0\0\0\x04"
    assert not hasattr(legacy.apply_mask, "__code__") or (
        "speedups" not in legacy.apply_mask.__code__.co_filename
    )
