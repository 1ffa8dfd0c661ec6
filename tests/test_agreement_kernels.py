"""The twins of the kernels, given the same, do the same."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytestmark = pytest.mark.ext


def twins() -> tuple[Any, Any]:
    from websock import _kernels_c, _kernels_py

    return _kernels_c, _kernels_py


def variants(compiled: Any) -> Iterator[str]:
    """Select each variant that can run here, then what was selected before."""
    before = compiled.KERNEL
    try:
        for name in compiled.kernels():
            compiled.select_kernel(name)
            yield name
    finally:
        compiled.select_kernel(before)


def outcome(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what a call gives: its result and types, or its error and text."""
    try:
        result = function(*args, **kwargs)
    except Exception as exc:
        return type(exc), str(exc), getattr(exc, "code", None)
    parts = tuple(map(type, result)) if isinstance(result, tuple) else ()
    return result, type(result), parts


# Runs of characters of one width, and changes between them, are what the fast
# paths are about.
alphabets = [
    st.characters(max_codepoint=0x7F, codec="utf-8"),
    st.characters(min_codepoint=0x80, max_codepoint=0xFF, codec="utf-8"),
    st.characters(min_codepoint=0x80, max_codepoint=0x7FF, codec="utf-8"),
    st.characters(min_codepoint=0x800, max_codepoint=0xFFFF, codec="utf-8"),
    st.characters(min_codepoint=0x10000, codec="utf-8"),
]
runs = st.one_of([st.text(alphabet, max_size=80) for alphabet in alphabets])
texts = st.lists(runs, max_size=5).map(lambda pieces: "".join(pieces).encode())


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    """A text in which some bytes are changed, put in or taken out."""
    data = bytearray(draw(texts))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


anything = st.one_of(texts, broken_texts(), st.binary(max_size=200))
masks = st.binary(min_size=4, max_size=4)


@given(st.binary(max_size=400), masks, st.integers(-10, 10), st.integers(0, 40))
def test_apply_mask(data: bytes, mask: bytes, phase: int, offset: int) -> None:
    compiled, pure = twins()
    view = memoryview(data)[offset:]
    expected = pure.apply_mask(view, mask, phase)
    for name in variants(compiled):
        assert compiled.apply_mask(view, mask, phase) == expected, name
        buffer = bytearray(view)
        compiled.apply_mask_inplace(buffer, mask, phase)
        assert buffer == expected, name
    buffer = bytearray(view)
    pure.apply_mask_inplace(buffer, mask, phase)
    assert buffer == expected


@given(st.binary(max_size=16), st.booleans(), st.sampled_from([0, 0x40, 0x20, 0x70]))
@example(b"\x82\x7f\x80", False, 0)
@example(b"\xc9\x05", False, 0x40)
def test_parse_header(data: bytes, expect_mask: bool, allowed_rsv: int) -> None:
    compiled, pure = twins()
    for end in range(len(data) + 1):
        kwargs = {"expect_mask": expect_mask, "allowed_rsv": allowed_rsv}
        expected = outcome(pure.parse_header, data[:end], **kwargs)
        assert outcome(compiled.parse_header, data[:end], **kwargs) == expected


lengths = st.one_of(
    st.integers(0, 130),
    st.integers(65530, 65540),
    st.integers(-2, 2**64 + 2),
    st.sampled_from([2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64]),
)


@given(
    st.integers(-1, 17),
    lengths,
    st.booleans(),
    st.sampled_from([0, 0x10, 0x40, 0x70, 0x80, 1, -1]),
    st.one_of(st.none(), st.binary(min_size=3, max_size=5)),
)
def test_build_header(
    opcode: int, length: int, fin: bool, rsv: int, mask: bytes | None
) -> None:
    compiled, pure = twins()
    kwargs = {"fin": fin, "rsv": rsv, "mask": mask}
    expected = outcome(pure.build_header, opcode, length, **kwargs)
    assert outcome(compiled.build_header, opcode, length, **kwargs) == expected


@given(masks, st.integers(0, 15), st.integers(0, 2**63 - 1), st.booleans())
def test_header_round_trip(mask: bytes, opcode: int, length: int, fin: bool) -> None:
    for kernels in twins():
        data = kernels.build_header(opcode, length, fin=fin, mask=mask)
        head = outcome(kernels.parse_header, data, expect_mask=True)[0]
        if isinstance(head, tuple):
            assert head == (fin, opcode, 0, length, mask, len(data))


@given(anything)
def test_decode_utf8(data: bytes) -> None:
    compiled, pure = twins()
    expected = outcome(pure.decode_utf8, data)
    assert expected == outcome(bytes.decode, data)
    for name in variants(compiled):
        assert outcome(compiled.decode_utf8, data) == expected, name


@given(anything, st.lists(st.integers(1, 100), max_size=10))
def test_utf8_validator(data: bytes, sizes: list[int]) -> None:
    compiled, pure = twins()
    pieces = []
    at = 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])

    def feed(validator: Any) -> list[tuple[int, bool]]:
        seen = []
        for piece in pieces:
            wrong = validator.feed(piece)
            if wrong >= 0:
                return [*seen, (wrong, False)]
            seen.append((wrong, validator.is_complete))
        return seen

    expected = feed(pure.Utf8Validator())
    for name in variants(compiled):
        assert feed(compiled.Utf8Validator()) == expected, name
    # The judgement is that of the decoder, though its place is more exact.
    valid = outcome(bytes.decode, data)[1] is str
    assert valid == (expected[-1] == (-1, True))


def test_signatures() -> None:
    compiled, pure = twins()

    def parameters(function: Any) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(function)
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    for name in pure.__all__:
        item = getattr(pure, name)
        if inspect.isfunction(item):
            assert parameters(getattr(compiled, name)) == parameters(item), name
    for name in ("feed", "reset"):
        assert parameters(getattr(compiled.Utf8Validator, name)) == parameters(
            getattr(pure.Utf8Validator, name)
        )
