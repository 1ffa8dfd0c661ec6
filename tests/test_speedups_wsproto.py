"""The patch of wsproto: events, bytes and errors are the same with and without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
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
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("wsproto", reason="wsproto is not installed")

from wsproto import connection, frame_protocol
from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from websock.speedups._wsproto import PATCH, WsprotoPatch

SIDES = [ConnectionType.SERVER, ConnectionType.CLIENT]


class Shout(Extension):
    """An extension that uses a bit, changes payloads, and fails when it is told to."""

    name = "shout"

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return True

    def frame_inbound_header(
        self, proto: Any, opcode: Any, rsv: Any, payload_length: int
    ) -> Any:
        if payload_length == 3:
            return CloseReason.POLICY_VIOLATION
        return RsvBits(False, True, False)

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> Any:
        if data == b"data":
            return CloseReason.MESSAGE_TOO_BIG
        return data + data

    def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
        return b"!" if fin else None

    def frame_outbound(
        self, proto: Any, opcode: Any, rsv: Any, data: bytes, fin: bool
    ) -> Any:
        if data == b"fail":
            raise RuntimeError("told to")
        return RsvBits(rsv.rsv1, True, rsv.rsv3), data.upper()


def deflate() -> Extension:
    extension = PerMessageDeflate()
    extension._enabled = True
    return extension


EXTENSIONS: dict[str, Callable[[], list[Extension]]] = {
    "none": list,
    "off": lambda: [PerMessageDeflate()],
    "deflate": lambda: [deflate()],
    "shout": lambda: [Shout()],
}


def same(function: Callable[[], Any]) -> Any:
    """Return what a function returns, which is the same with and without the patch."""
    before = function()
    with patched(PATCH):
        assert function() == before
    assert function() == before
    return before


def receive(side: Any, data: list[bytes], extensions: str, reads: str) -> Any:
    """Return all that can be seen of a connection that receives bytes."""
    one = Connection(side, EXTENSIONS[extensions]())
    seen: list[Any] = []
    for part in data:
        try:
            one.receive_data(part)
        except Exception as exc:
            seen.append(shown(exc))
        if reads == "first only":
            seen.append([shown_event(event) for event in islice(one.events(), 1)])
        elif reads == "all":
            for event in one.events():
                seen.append(shown_event(event))
                seen.append(one.state)
    try:
        for event in one.events():
            seen.append(shown_event(event))
    except Exception as exc:
        seen.append(shown(exc))
    seen.append(one.state)
    seen.append([shown_event(event) for event in one.events()])
    return seen


def shown_event(event: Any) -> Any:
    fields = [(name, shown(value)) for name, value in vars(event).items()]
    return type(event), fields, repr(event), event == event.__class__(**vars(event))


@pytest.mark.parametrize("side", SIDES)
@GENERATED
@given(data=st.data())
def test_any_input(side: Any, data: Any) -> None:
    received = data.draw(parts(any_frames(side is ConnectionType.SERVER)))
    extensions = data.draw(st.sampled_from(["none", "none", *EXTENSIONS]))
    reads = data.draw(st.sampled_from(["all", "all", "first only", "late"]))
    same(lambda: receive(side, received, extensions, reads))


@pytest.mark.parametrize("side", SIDES)
@GENERATED
@given(data=st.data())
def test_good_input(side: Any, data: Any) -> None:
    received = data.draw(parts(good_frames(side is ConnectionType.SERVER)))
    same(lambda: receive(side, received, "none", "all"))


@pytest.mark.parametrize("side", SIDES)
@GENERATED
@given(data=st.data())
def test_frames(side: Any, data: Any) -> None:
    """The frame protocol without the connection around it."""
    is_client = side is ConnectionType.CLIENT
    received = data.draw(parts(any_frames(not is_client)))

    def run() -> Any:
        one = frame_protocol.FrameProtocol(is_client, [])
        seen: list[Any] = []
        for part in received:
            one.receive_bytes(part)
            try:
                for found in one.received_frames():
                    seen.append((type(found), [shown(value) for value in found]))
            except frame_protocol.ParseFailed as exc:
                seen.append((shown(exc), exc.code, type(exc.code)))
        return seen

    same(run)


def test_each_failure_is_one() -> None:
    """What hypothesis compares includes these failures."""
    reasons = set()
    mask = b"mask"
    for stream in (
        frame(0x83, b"", mask), frame(0x82, b"", None), frame(0xC2, b"", mask),
        frame(0x80, b"", mask), frame(0x09, b"", mask), frame(0x89, bytes(126), mask),
        frame(0x88, b"\0", mask), frame(0x88, b"\x03\xe8\xff", mask),
        frame(0x88, b"\0\0", mask), frame(0x88, b"\x03\xed", mask),
        frame(0x88, b"\x07\xd0", mask), frame(0x01, b"", mask) * 2,
        frame(0x81, b"\xff", mask), frame(0x81, b"\xc3", mask),
        frame(0x82, b"", mask, 5, 3), frame(0x82, b"", mask, 5, 9),
        frame(0x82, b"", mask, 2**63, 9),
    ):  # fmt: skip
        seen = same(lambda stream=stream: receive(SIDES[0], [stream], "none", "all"))
        closes = [one for one in seen if isinstance(one, tuple)]
        assert closes[-1][0] is CloseConnection
        reasons.add(closes[-1][2])
    assert len(reasons) == 17


# -- sending ---------------------------------------------------------------------------

PAYLOADS: dict[str, Any] = {
    "nothing": b"", "bytes": b"abc", "125": bytes(125), "126": bytes(126),
    "64 KiB": bytes(65536), "fail": b"fail", "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abc"), "text": "aé€\U0001d11e", "ASCII": "abc",
    "not UTF-8": "\ud800", "long text": "é" * 40000, "number": 5,
}  # fmt: skip
EVENTS: dict[str, Callable[[Any, bool], Any]] = {
    "text": lambda data, fin: TextMessage(data=data, message_finished=fin),
    "bytes": lambda data, fin: BytesMessage(data=data, message_finished=fin),
    "ping": lambda data, fin: Ping(payload=data),
    "pong": lambda data, fin: Pong(payload=data),
    "close": lambda data, fin: CloseConnection(
        code=1000 if fin else 1005, reason=data if isinstance(data, str) else None
    ),
    "no event": lambda data, fin: data,
}
SENT = st.lists(
    st.tuples(
        st.sampled_from(["text", "bytes", *EVENTS]),
        st.sampled_from(list(PAYLOADS)),
        st.booleans(),
    ),
    max_size=6,
)


@pytest.mark.parametrize("side", SIDES)
@GENERATED
@given(calls=SENT, extensions=st.sampled_from(list(EXTENSIONS)))
def test_sending(side: Any, calls: Any, extensions: str) -> None:
    def run() -> Any:
        one = Connection(side, EXTENSIONS[extensions]())
        seen: list[Any] = []
        for kind, payload, fin in calls:
            try:
                data = one.send(EVENTS[kind](PAYLOADS[payload], fin))
            except Exception as exc:
                seen.append(shown(exc))
            else:
                seen.append((type(data), unmasked(data)))
                if side is ConnectionType.SERVER:
                    seen.append(data)
            seen.append(one.state)
        return seen

    same(run)


@pytest.mark.parametrize("is_client", [False, True])
def test_what_the_frame_protocol_returns(is_client: bool) -> None:
    def run() -> Any:
        one = frame_protocol.FrameProtocol(is_client, [])
        made = [
            one.send_data("text", fin=False), one.send_data("more"),
            one.send_data(b"bytes"), one.send_data(memoryview(b"bytes")),
            one.ping(), one.pong(b"payload"), one.close(1001, "é" * 100), one.close(),
        ]  # fmt: skip
        return [(type(data), unmasked(bytes(data))) for data in made]

    assert {kind for kind, _ in same(run)} == {bytearray}


@GENERATED
@given(
    mask=st.binary(min_size=4, max_size=4),
    pieces=st.lists(st.one_of(st.binary(max_size=9), st.just(bytes(5000))), max_size=5),
)
def test_masks(mask: bytes, pieces: list[bytes]) -> None:
    def run() -> Any:
        masker = frame_protocol.XorMaskerSimple(mask)
        return [shown(masker.process(bytearray(piece))) for piece in pieces]

    same(run)


# -- putting it on and taking it off -----------------------------------------------------


def names() -> list[Any]:
    return [
        frame_protocol.XorMaskerSimple, frame_protocol.FrameProtocol,
        connection.FrameProtocol, Connection.send, Connection.events,
    ]  # fmt: skip


def test_all_is_put_back() -> None:
    before = names()
    with patched(PATCH):
        assert all(a is not b for a, b in zip(before, names(), strict=True))
        assert issubclass(frame_protocol.FrameProtocol, before[1])
    assert all(a is b for a, b in zip(before, names(), strict=True))


@pytest.mark.parametrize("is_made_with_it", [False, True])
def test_connections_live_through_it(is_made_with_it: bool) -> None:
    mask = b"mask"
    stream = frame(0x01, b"frag", mask) + frame(0x80, b"ment", mask)
    found: list[Any] = []

    def half(one: Connection, at: int) -> None:
        for part in (stream[:at], stream[at:]):
            one.receive_data(part)
            found.extend((event.data, event.message_finished) for event in one.events())
            assert one.send(TextMessage(data="answer")) == b"\x81\x06answer"

    if not is_made_with_it:
        one = Connection(ConnectionType.SERVER)
        half(one, 3)
    with patched(PATCH):
        if is_made_with_it:
            one = Connection(ConnectionType.SERVER)
        half(one, 8)
    half(one, 12)
    assert "".join(data for data, _ in found) == "fragment" * (3 - is_made_with_it)
    assert [is_last for _, is_last in found].count(True) == 3 - is_made_with_it


def test_self_test_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = WsprotoPatch()
    patch.self_test()
    with monkeypatch.context() as wrong:
        wrong.setattr("websock.speedups._wsproto_frames.decode_utf8", lambda _: "x")
        with pytest.raises(ValueError, match="does not find"):
            patch.self_test()
    with monkeypatch.context() as wrong:
        wrong.setattr(
            frame_protocol.FrameProtocol, "ping", lambda self, payload: bytearray()
        )
        patch.self_test()  # both are without pings
        wrong.setattr(
            frame_protocol.XorMaskerSimple, "process", lambda self, data: data
        )
        with pytest.raises(ValueError, match="masks differ"):
            patch.self_test()


def test_versions() -> None:
    patch = WsprotoPatch()
    assert patch.knows("1.3.2") and patch.knows("1.3.9")
    assert not patch.knows("1.3.1") and not patch.knows("1.4")


def test_nothing_is_logged() -> None:
    with logged("wsproto", logging.DEBUG) as lines, patched(PATCH):
        assert Opcode.TEXT.name == "TEXT"
        receive(ConnectionType.SERVER, [frame(0x83, b"", b"mask")], "none", "all")
    assert lines == []
