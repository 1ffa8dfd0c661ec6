"""Programs run with and without a patch of the library they use, and compared.

The patches are applied without their registry, which does nothing on the pure backend:
what they do is the same there, and only slower.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import websock
from websock.speedups._patch import Patch

# On a busy machine an example may take any time.
GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEY = b"\x01\xf2\x83\x74"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

# What hosts' clients send, and get back.
MESSAGES: list[Any] = ["naïve ☃", b"bytes", "", bytes(70_000), "x" * 70_000]

BYTES = (bytes, bytearray, memoryview)


@contextlib.contextmanager
def patched(
    kind: type[Patch], parts: Sequence[str] | None = None, **options: Any
) -> Any:
    """Have a host patched for a while.

    Args:
        kind: Class of the patch.
        parts: Those of the host's parts that are patched, too; by default all.
        **options: Options of the patch.
    """
    parts = kind.parts if parts is None else parts
    for name in (*kind.modules, *parts):
        importlib.import_module(name)
    patch = kind(**options)
    assert patch.knows(patch.version())
    patch.self_test()
    try:
        patch.apply()
        for name in parts:
            patch.apply_part(name)
        yield patch
    finally:
        patch.revert()


def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """Return what a call returns or raises, with its type."""
    try:
        result = function(*args)
    except Exception as exc:
        return ("raised", type(exc), str(exc))
    return ("returned", type(result), result)


def split(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes in pieces."""
    cuts = sorted({place for place in places if 0 < place < len(data)})
    edges = zip([0, *cuts], [*cuts, len(data)], strict=True)
    return [data[begin:end] for begin, end in edges]


def same(ours: Any, theirs: Any) -> bool:
    """Whether two conversations were the same; a reset may lose what was on its way.

    Args:
        ours: What a server saw, what came back from it, and whether it was reset.
        theirs: What the other one gave.
    """
    if ours[0] != theirs[0]:
        return False
    if ours[2] or theirs[2]:
        return ours[1].startswith(theirs[1]) or theirs[1].startswith(ours[1])
    return bool(ours[1] == theirs[1])


@contextlib.asynccontextmanager
async def serving_a_client(notes: list[Any], context: Any = None) -> Any:
    """Serve a host's client for a while; give the URL.

    Each message is noted, and follows a ping back; ``end`` ends the connection.
    """

    async def handler(ws: Any) -> None:
        async for message in ws:
            notes.append(message)
            if message == "end":
                await ws.close(3002, "the end")
            else:
                await ws.ping()
                await ws.send(message)

    async with (
        asyncio.timeout(60),
        websock.serve(handler, "127.0.0.1", 0, ssl=context) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        yield f"{'wss' if context else 'ws'}://127.0.0.1:{port}/"


class Lines(logging.Handler):
    """Keeps what is logged, as texts."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


@contextlib.contextmanager
def logged(name: str, level: int = logging.DEBUG) -> Iterator[list[tuple[str, str]]]:
    """Keep what goes to a logger, and to it alone."""
    logger = logging.getLogger(name)
    handler = Lines()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        logger.manager._clear_cache()  # type: ignore[attr-defined]


def shown(value: Any) -> Any:
    """Return a value so that another one which differs in its types differs, too."""
    if isinstance(value, BYTES):
        return (type(value).__name__, bytes(value))
    if isinstance(value, BaseException):
        causes = (shown(value.__cause__), shown(value.__context__))
        return (type(value), str(value), repr(value.args), *causes)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [shown(one) for one in value]
    return (type(value), repr(value))


def xor(data: bytes, mask: bytes) -> bytes:
    """Mask a payload."""
    keys = (mask * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")
    return number.to_bytes(len(data), "big")


def frame(
    first: int,
    payload: bytes,
    mask: bytes | None,
    length: int | None = None,
    width: int = 0,
) -> bytes:
    """Return a frame, which may be wrong.

    Args:
        first: Its first byte.
        payload: Its payload.
        mask: Its mask, if it has one.
        length: The length it tells, by default that of the payload.
        width: How many bytes tell it, by default as few as will do.
    """
    length = len(payload) if length is None else length
    width = width or (1 if length < 126 else 3 if length < 65536 else 9)
    bit = 0 if mask is None else 0x80
    head = {
        1: bytes([bit | (length & 0x7F)]),
        3: bytes([bit | 126]) + (length & 0xFFFF).to_bytes(2, "big"),
        9: bytes([bit | 127]) + length.to_bytes(8, "big"),
    }[width]
    if mask is not None:
        payload = xor(payload, mask)
        head += mask
    return bytes([first]) + head + payload


def unmasked(stream: bytes) -> list[tuple[int, bytes]]:
    """Return first byte and payload of each frame of a well-formed stream."""
    found = []
    while stream:
        length, at = stream[1] & 0x7F, 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(stream[2:at], "big")
        if stream[1] & 0x80:
            mask, at = stream[at : at + 4], at + 4
            payload = xor(stream[at : at + length], mask)
        else:
            payload = stream[at : at + length]
        found.append((stream[0], payload))
        stream = stream[at + length :]
    return found


TEXTS = st.text("a\0é€\U0001d11e", max_size=40).map(str.encode)
PAYLOADS = st.one_of(
    TEXTS,
    st.binary(max_size=20),
    st.integers(120, 130).map(bytes),
    st.sampled_from([5000, 65535, 65536]).map(lambda n: b"text\xc3\xa9" * (n // 6)),
    st.sampled_from([b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]),
)
CLOSES = st.one_of(
    st.just(b""),
    st.binary(max_size=4),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason[:123],
        st.one_of(st.sampled_from([1000, 1001, 1005, 1015, 3000, 4999]),
                  st.integers(0, 6000)),
        TEXTS,
    ),
)  # fmt: skip
MASKS = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))


@st.composite
def good_frames(draw: Any, is_masked: bool) -> bytes:
    """Messages, whole and in fragments, and control frames between them."""
    stream = b""
    for _ in range(draw(st.integers(1, 5))):
        count = draw(st.sampled_from([1, 1, 1, 2, 3]))
        for i in range(count):
            first = draw(st.sampled_from([1, 2])) if i == 0 else 0
            mask = draw(MASKS) if is_masked else None
            last = 0x80 if i == count - 1 else 0
            stream += frame(first | last, draw(PAYLOADS), mask)
            if draw(st.booleans()):
                first = draw(st.sampled_from([0x89, 0x8A]))
                stream += frame(first, draw(st.binary(max_size=125)), mask)
    return stream


@st.composite
def any_frames(draw: Any, is_masked: bool) -> bytes:
    """A good beginning, then frames of which some are wrong, and perhaps a close."""
    stream = draw(good_frames(is_masked)) if draw(st.booleans()) else b""
    for _ in range(draw(st.integers(0, 3))):
        has_mask = draw(st.sampled_from([is_masked] * 7 + [not is_masked]))
        mask = draw(MASKS) if has_mask else None
        payload = draw(PAYLOADS)
        first = draw(st.one_of(st.integers(0, 255), st.sampled_from(
            [0x81, 0x82, 0x80, 0x01, 0x02, 0x00, 0x89, 0x8A, 0x88])))  # fmt: skip
        length, width = None, 0
        if draw(st.integers(0, 5)) == 0:
            width = draw(st.sampled_from([1, 3, 9]))
            length = draw(st.sampled_from([None, 0, 1, 125, 126, 65536, 2**63]))
        stream += frame(first, payload, mask, length, width)
    if draw(st.booleans()):
        mask = draw(MASKS) if is_masked else None
        stream += frame(0x88, draw(CLOSES), mask)
        stream += draw(st.binary(max_size=3))
    return stream


@st.composite
def parts(draw: Any, streams: Any) -> list[bytes]:
    """A stream in parts: all at once, each byte by itself, or anything between."""
    stream = draw(streams)
    way = draw(st.sampled_from(["whole", "bytes", "cuts"]))
    if way == "whole":
        return [stream]
    if way == "bytes" and len(stream) < 500:
        return [stream[i : i + 1] for i in range(len(stream))]
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=8))
    at = [0, *sorted(cuts), len(stream)]
    return [stream[at[i] : at[i + 1]] for i in range(len(at) - 1)]
