"""The twins of the codec, given the same, do the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import feed, frame

from websock.extensions.permessage_deflate import PerMessageDeflate
from websock.transform import make_transform

pytestmark = pytest.mark.ext


def twins() -> tuple[Any, Any]:
    from websock import _codec_c, _codec_py

    return _codec_c, _codec_py


texts = st.text(max_size=200).map(str.encode)
payloads = st.one_of(
    st.binary(max_size=40),
    texts,
    st.integers(0, 70_000).map(lambda n: b"a" * n),
    st.sampled_from([b"\x03\xe8", b"\x03\xe8bye", b"\xff\xff", b"\x03"]),
)
masks = st.one_of(st.none(), st.binary(min_size=4, max_size=4))
usual_mask = st.binary(min_size=4, max_size=4)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame, more often right than wrong."""
    right = draw(st.integers(0, 9)) > 0
    opcode = draw(
        st.sampled_from([0, 0, 0, 1, 1, 2, 2, 8, 9, 10] if right else range(16))
    )
    payload = draw(payloads)
    if right and opcode >= 8:
        payload = payload[:125]
    return frame(
        opcode,
        payload,
        fin=True if right and opcode >= 8 else draw(st.booleans()),
        rsv=0 if right else draw(st.sampled_from([0, 0x40, 0x20, 0x70])),
        mask=draw(usual_mask if right else masks),
        length=None if right else draw(st.sampled_from([None, 0, 126, 65536, 1 << 63])),
    )


streams = st.one_of(
    st.lists(frames(), max_size=8).map(b"".join), st.binary(max_size=200)
)
cuts = st.lists(st.integers(1, 5000), max_size=10)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    result = []
    for size in sizes:
        result.append(data[:size])
        data = data[size:]
    return [*result, data]


limits = st.sampled_from([None, 0, 10, 100, 5000])


@settings(max_examples=400, deadline=None)
@given(
    streams,
    cuts,
    limits,
    limits,
    st.sampled_from([2, 131072]),
    st.booleans(),
    st.booleans(),
)
def test_reading(
    data: bytes,
    sizes: list[int],
    max_message: int | None,
    max_fragment: int | None,
    max_fragments: int,
    assemble: bool,
    compressed: bool,
) -> None:
    results = []
    for module in twins():
        transform = None
        if compressed:
            transform = make_transform([PerMessageDeflate(True, True, 15, 15)])
        reader = module.FrameReader(
            expect_mask=True,
            max_message_size=max_message,
            max_fragment_size=max_fragment,
            max_fragments=max_fragments,
            transform=transform,
            assemble=assemble,
        )
        outcome = feed(reader, pieces(data, sizes))
        code = getattr(reader.error, "code", None)
        results.append(
            (
                outcome,
                code,
                reader.closed,
                reader.in_message,
                reader.take_fragments(),
                (reader.messages, reader.message_bytes),
            )
        )
    assert results[0] == results[1]


messages = st.one_of(st.text(max_size=300), st.binary(max_size=300))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(messages, max_size=5), st.booleans(), st.sampled_from([None, True, False])
)
def test_writing(items: list[str | bytes], compressed: bool, text: bool | None) -> None:
    results = []
    for module in twins():
        transform = None
        if compressed:
            transform = make_transform([PerMessageDeflate(False, False, 15, 15)])
        writer = module.FrameWriter(mask=False, transform=transform)
        results.append([writer.message(item, text) for item in items])
    assert results[0] == results[1]


def test_signatures() -> None:
    import inspect

    c, py = twins()
    for name in ("FrameReader", "FrameWriter"):
        for method, function in vars(getattr(py, name)).items():
            if method.startswith("_") or not callable(function):
                continue
            if method in {"begin", "next", "rest"}:
                continue  # the compiled stream calls these in C
            ours = list(inspect.signature(function).parameters)
            theirs = list(
                inspect.signature(getattr(getattr(c, name), method)).parameters
            )
            assert ours == theirs, (name, method)
