"""The codec without sockets: bytes to messages and back, both twins.

    pytest bench/test_codec.py --benchmark-group-by=group

Each call reads or writes `BATCH` messages. Peers are measured on the same
bytes where they have a sans-IO layer.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.conftest import Impl, payload, text_of

BATCH = 64
TEXT, BINARY = 1, 2
SHAPES = [("text", 32), ("text", 1024), ("binary", 125), ("binary", 16384)]


def messages(kind: str, size: int) -> list[Any]:
    """Return a batch of messages of one kind."""
    if kind == "binary":
        return [payload(size) for _ in range(BATCH)]
    return [text_of("ascii", size).decode()] * BATCH


def frames(impl: Impl, batch: list[Any]) -> bytes:
    """Return the masked frames of a batch, as a client sends them."""
    writer = impl.module("codec").FrameWriter(mask=True)
    return b"".join(writer.message(message) for message in batch)


@pytest.mark.parametrize(("kind", "size"), SHAPES)
def test_read(benchmark: Any, impl: Impl, kind: str, size: int) -> None:
    benchmark.group = f"read {BATCH} x {size} B {kind}"
    batch = messages(kind, size)
    reader = impl.module("codec").FrameReader(expect_mask=True)
    events = benchmark(reader.feed, frames(impl, batch))
    assert [event[1] for event in events] == batch
    assert reader.error is None


@pytest.mark.parametrize(("kind", "size"), SHAPES)
def test_read_of_websockets(benchmark: Any, kind: str, size: int) -> None:
    benchmark.group = f"read {BATCH} x {size} B {kind}"
    protocol = pytest.importorskip("websockets.server").ServerProtocol()
    protocol.state = pytest.importorskip("websockets.protocol").OPEN
    data = frames(Impl("py"), messages(kind, size))
    # Leaves the handshake out: the parser starts with it.
    protocol.parser = protocol.parse()
    protocol.reader.__init__()
    next(protocol.parser)
    batch = messages(kind, size)

    def read() -> list[Any]:
        protocol.receive_data(data)
        events: list[Any] = protocol.events_received()
        return [bytes(event.data) for event in events]

    assert len(benchmark(read)) == len(batch)


@pytest.mark.parametrize(("kind", "size"), SHAPES)
def test_read_of_wsproto(benchmark: Any, kind: str, size: int) -> None:
    benchmark.group = f"read {BATCH} x {size} B {kind}"
    wsproto = pytest.importorskip("wsproto.connection")
    connection = wsproto.Connection(wsproto.ConnectionType.SERVER)
    data = frames(Impl("py"), messages(kind, size))

    def read() -> int:
        connection.receive_data(data)
        return sum(1 for _ in connection.events())

    assert benchmark(read) == BATCH


@pytest.mark.parametrize("is_client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize(("kind", "size"), SHAPES)
def test_write(
    benchmark: Any, impl: Impl, kind: str, size: int, is_client: bool
) -> None:
    role = "client" if is_client else "server"
    benchmark.group = f"write {BATCH} x {size} B {kind}, {role}"
    writer = impl.module("codec").FrameWriter(mask=is_client)
    batch = messages(kind, size)

    def write() -> list[bytes]:
        return [writer.message(message) for message in batch]

    written = benchmark(write)
    reader = impl.module("codec").FrameReader(expect_mask=is_client)
    assert [event[1] for event in reader.feed(b"".join(written))] == batch


@pytest.mark.parametrize("fragments", [1, 16, 1024])
def test_fragments(benchmark: Any, impl: Impl, fragments: int) -> None:
    """The cost of a message must grow with its bytes, not with its fragments."""
    benchmark.group = f"read 16384 B in {fragments} fragments"
    data = payload(16384)
    writer = impl.module("codec").FrameWriter(mask=True)
    size = len(data) // fragments
    wire = b"".join(
        writer.frame(
            BINARY if i == 0 else 0,
            data[i * size : (i + 1) * size],
            i == fragments - 1,
        )
        for i in range(fragments)
    )
    reader = impl.module("codec").FrameReader(expect_mask=True)
    events = benchmark(reader.feed, wire)
    assert [event[:2] for event in events] == [(BINARY, data)]


def test_byte_by_byte(benchmark: Any, impl: Impl) -> None:
    benchmark.group = "read 1024 B byte by byte"
    wire = frames(impl, [payload(1024)])
    reader = impl.module("codec").FrameReader(expect_mask=True)

    def feed() -> int:
        return sum(len(reader.feed(wire[i : i + 1])) for i in range(len(wire)))

    assert benchmark(feed) == 1
