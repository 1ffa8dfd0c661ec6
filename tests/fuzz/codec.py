"""The codec and the kernels: both twins, every kernel, and input cut in several ways."""

from __future__ import annotations

from typing import Any

from websock.extensions.permessage_deflate import PerMessageDeflate
from websock.transform import make_transform

from .inputs import Input, attempt, cuts, same, twins

__all__ = ["frame_reader", "frame_writer", "header", "mask", "text"]

LIMITS = [None, 0, 1, 10, 125, 5000, 70_000]
MAX_FRAGMENTS = [131_072, 1, 2, 5]


def transform_of(flags: int) -> Any:
    """Make what a connection with permessage-deflate has, or ``None``."""
    if not flags & 1:
        return None
    return make_transform([PerMessageDeflate(bool(flags & 2), bool(flags & 4), 15, 15)])


def frame_reader(data: bytes) -> None:
    """Input: role and assembly, extension, three limits, size of pieces; a stream."""
    source = Input(data)
    flags, deflate = source.byte(), source.byte()
    settings = {
        "expect_mask": bool(flags & 1),
        "assemble": bool(flags & 2),
        "max_message_size": source.choose(LIMITS),
        "max_fragment_size": source.choose(LIMITS),
        "max_fragments": source.choose(MAX_FRAGMENTS),
    }
    size = source.byte()
    stream = source.rest()

    def read(module: Any, pieces: list[bytes], taking: bool) -> Any:
        reader = module.FrameReader(**settings, transform=transform_of(deflate))
        events: list[Any] = []
        for piece in pieces:
            events.extend(reader.feed(piece))
            if taking:
                state = reader.has_fragments, reader.in_message, reader.message_opcode
                events.append((*state, reader.take_fragments()))
        error = reader.error
        code = getattr(error, "code", None)
        counted = reader.messages, reader.message_bytes
        types = [type(event[1]) for event in events]
        ending = type(error).__name__, str(error), code, reader.closed, counted
        return events, types, reader.in_message, ending

    modules = twins("codec")
    whole = [
        same({tag: read(module, pieces, False) for tag, module in modules.items()})
        for pieces in cuts(stream, size)
    ]
    # Nothing depends on how the bytes come.
    assert all(result == whole[0] for result in whole), whole
    for pieces in cuts(stream, size):
        same({tag: read(module, pieces, True) for tag, module in modules.items()})


def frame_writer(data: bytes) -> None:
    """Input: mask, extension; then frames: kind, and a length with that many bytes."""
    source = Input(data)
    masked, deflate = bool(source.byte() & 1), source.byte()
    modules = twins("codec")
    writers = {
        tag: module.FrameWriter(mask=masked, transform=transform_of(deflate))
        for tag, module in modules.items()
    }
    # What comes back; the other way round, the windows of both sides are 15.
    readers = {
        tag: module.FrameReader(
            expect_mask=masked, transform=transform_of(deflate), assemble=False
        )
        for tag, module in modules.items()
    }
    while source:
        kind, length = source.byte(), source.byte()
        payload: Any = source.take(length)
        if length > 250:
            payload *= 300  # lengths with two and eight bytes
        opcode, fin = kind & 15, bool(kind & 16)
        if kind & 32:
            payload = payload.decode("utf-8", "surrogateescape")

        def write(tag: str, whole: bool) -> Any:
            writer = writers[tag]
            if whole:
                return attempt(writer.message, payload, (None, True, False)[opcode % 3])  # noqa: B023
            return attempt(writer.frame, opcode, payload, fin)  # noqa: B023

        written = {tag: write(tag, isinstance(payload, str)) for tag in writers}
        if not masked:
            same(written)
        read = {}
        for tag, (frame, *rest) in written.items():
            if not isinstance(frame, bytes):
                read[tag] = [(frame, *rest)]
                continue
            for other, reader in readers.items():
                if tag == other or len(readers) == 1:
                    read[tag] = reader.feed(frame)
                    read[tag].append(str(reader.error))
        same(read)


def header(data: bytes) -> None:
    """Input: role and reserved bits; a header, parsed and built again."""
    source = Input(data)
    flags = source.byte()
    raw = source.rest()[:20]
    modules = twins("kernels")
    expect = {"expect_mask": bool(flags & 1), "allowed_rsv": flags & 0x70}
    for end in range(len(raw) + 1):
        head, *_ = same(
            {
                tag: attempt(module.parse_header, raw[:end], **expect)
                for tag, module in modules.items()
            }
        )
    if isinstance(head, tuple):
        fin, opcode, rsv, length, key, size = head
        assert size <= len(raw)
        built = {
            tag: module.build_header(opcode, length, fin=fin, rsv=rsv, mask=key or None)
            for tag, module in modules.items()
        }
        again = same({tag: bytes(value) for tag, value in built.items()})
        parsed = same(
            {
                tag: module.parse_header(again, **expect)
                for tag, module in modules.items()
            }
        )
        assert tuple(parsed)[:5] == tuple(head)[:5]


def mask(data: bytes) -> None:
    """Input: key (4), phase, offset, then what is masked."""
    source = Input(data)
    key, phase, offset = source.take(4), source.byte() - 128, source.byte() % 64
    payload = memoryview(source.rest())[offset:]
    modules = twins("kernels")
    results = {}
    for tag, module in modules.items():
        before = module.KERNEL
        try:
            for name in module.kernels():
                module.select_kernel(name)
                results[tag, name] = attempt(module.apply_mask, payload, key, phase)
                buffer = bytearray(payload)
                done, *_ = attempt(module.apply_mask_inplace, buffer, key, phase)
                if done is None:
                    assert results[tag, name][0] == buffer, (tag, name)
        finally:
            module.select_kernel(before)
    same({str(name): result for name, result in results.items()})


def text(data: bytes) -> None:
    """Input: size of pieces, then text; Python's own decoder judges."""
    source = Input(data)
    size = source.byte()
    raw = source.rest()
    expected = attempt(raw.decode)
    valid = expected[1] is str
    results = {}
    for tag, module in twins("kernels").items():
        before = module.KERNEL
        try:
            for name in module.kernels():
                module.select_kernel(name)
                assert attempt(module.decode_utf8, raw) == expected, (tag, name)
                for number, pieces in enumerate(cuts(raw, size)):
                    validator = module.Utf8Validator()
                    at = 0
                    wrong = -1
                    for piece in pieces:
                        wrong = validator.feed(piece)
                        if wrong >= 0:
                            wrong += at
                            break
                        at += len(piece)
                    judged = wrong, wrong < 0 and validator.is_complete
                    assert valid == (judged == (-1, True)), (tag, name, number)
                    results[f"{tag} {name} {number}"] = judged
        finally:
            module.select_kernel(before)
    same(results)
