"""permessage-deflate (RFC 7692): the transform, its limits, the negotiation."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from websock.exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from websock.extensions import deflate as deflate_module
from websock.extensions.base import Extension
from websock.extensions.deflate import DeflateTransform
from websock.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
    enable_client_permessage_deflate,
    enable_server_permessage_deflate,
)
from websock.frames import BINARY, CONT, PING, TEXT, Frame

CONT_, TEXT_, BINARY_ = 0, 1, 2
RSV1 = 0x40
TAIL = b"\x00\x00\xff\xff"


@pytest.fixture(autouse=True, params=["zlib", "zlib_ng.zlib_ng"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module that can do the work, in turn; the other side is always zlib."""
    if find_spec(request.param.partition(".")[0]) is None:
        pytest.skip("zlib-ng is not installed")
    monkeypatch.setattr(deflate_module, "zlib", import_module(request.param))


@contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    """Fail when Python's memory grows by as much as a limit; PyPy does not trace it."""
    if sys.implementation.name == "pypy":
        yield
        return
    tracemalloc = import_module("tracemalloc")
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def make(**changes: Any) -> DeflateTransform:
    """Make a transform that compresses everything, unless told otherwise."""
    options: dict[str, Any] = {
        "remote_no_context_takeover": False,
        "local_no_context_takeover": False,
        "remote_max_window_bits": 15,
        "local_max_window_bits": 15,
        "compress_min_size": 0,
    }
    options.update(changes)
    return PerMessageDeflate(**options).transform


class Peer:
    """The other side, written with zlib alone."""

    def __init__(self, bits: int = 15) -> None:
        self.encoder = zlib.compressobj(wbits=-bits)
        self.decoder = zlib.decompressobj(wbits=-bits)

    def encode(self, data: bytes) -> bytes:
        data = self.encoder.compress(data) + self.encoder.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL)
        return data[:-4]

    def decode(self, data: bytes) -> bytes:
        return self.decoder.decompress(data + TAIL)


# RFC 7692, 7.2.3.
EXAMPLES: dict[str, tuple[bytes, bytes]] = {
    "7.2.3.1": (b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"Hello"),
    "7.2.3.3, no compression": (b"\x00\x05\x00\xfa\xffHello\x00", b"Hello"),
    "7.2.3.4, BFINAL": (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
    "7.2.3.5, two blocks": (
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        b"Hello",
    ),
    "7.2.3.6, empty": (b"\x00", b""),
    "empty, fixed block": (b"\x02\x00", b""),
}


class TestExamples:
    @pytest.mark.parametrize("name", EXAMPLES)
    def test_whole(self, name: str) -> None:
        data, message = EXAMPLES[name]
        transform = make()
        for _ in range(3):
            assert transform.decode(TEXT_, True, RSV1, data, None) == message
            assert transform.decode(TEXT_, True, RSV1, data, len(message)) == message

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_at_every_split(self, name: str) -> None:
        data, message = EXAMPLES[name]
        transform = make()
        for cut in range(len(data) + 1):
            got = transform.decode(BINARY_, False, RSV1, data[:cut], None)
            got += transform.decode(CONT_, True, 0, data[cut:], None)
            assert got == message

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_byte_by_byte(self, name: str) -> None:
        data, message = EXAMPLES[name]
        transform = make()
        for _ in range(2):
            got = transform.decode(BINARY_, False, RSV1, b"", 5)
            for i in range(len(data)):
                got += transform.decode(CONT_, False, 0, data[i : i + 1], 5 - len(got))
            got += transform.decode(CONT_, True, 0, b"", 5 - len(got))
            assert got == message

    def test_context_takeover(self) -> None:
        transform = make()
        assert (
            transform.decode(1, True, RSV1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5)
            == b"Hello"
        )
        assert transform.decode(1, True, RSV1, b"\xf2\x00\x11\x00\x00", 5) == b"Hello"

    def test_no_context_takeover(self) -> None:
        transform = make(remote_no_context_takeover=True)
        assert (
            transform.decode(1, True, RSV1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5)
            == b"Hello"
        )
        with pytest.raises(ProtocolError, match="distance too far back"):
            transform.decode(1, True, RSV1, b"\xf2\x00\x11\x00\x00", 5)

    def test_encode(self) -> None:
        transform = make()
        assert transform.encode(1, True, b"Hello") == (
            RSV1,
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
        )
        assert transform.encode(1, True, b"Hello") == (RSV1, b"\xf2\x00\x11\x00\x00")

    def test_encode_nothing(self) -> None:
        transform = make()
        for _ in range(3):
            rsv, data = transform.encode(2, True, b"")
            assert (rsv, len(data)) in ((RSV1, 1), (RSV1, 2))
            assert Peer().decode(data) == b""


def messages() -> list[bytes]:
    numbers = random.Random(5)
    text = b'{"type": "update", "items": [1, 2, 3], "name": "caf\xc3\xa9"}'
    return [
        b"",
        b"a",
        text,
        text * 20,
        text,
        numbers.randbytes(100),
        numbers.randbytes(70_000),
        bytes(100_000),
        text * 3000,
    ]


class TestBothWays:
    @pytest.mark.parametrize("bits", range(9, 16))
    @pytest.mark.parametrize("alone", [True, False])
    def test_windows(self, bits: int, alone: bool) -> None:
        sender = make(local_max_window_bits=bits, local_no_context_takeover=alone)
        receiver = make(remote_max_window_bits=bits, remote_no_context_takeover=alone)
        for message in messages() * 2:
            rsv, data = sender.encode(BINARY_, True, message)
            assert receiver.decode(BINARY_, True, rsv, data, len(message)) == message

    def test_with_zlib(self) -> None:
        transform, peer = make(), Peer()
        for message in messages() * 2:
            rsv, data = transform.encode(TEXT_, True, message)
            assert rsv == RSV1
            assert peer.decode(data) == message
            data = peer.encode(message)
            assert transform.decode(TEXT_, True, RSV1, data, None) == message

    def test_window_of_8_bits(self) -> None:
        # Old versions of zlib send with 9 bits what they promise to send with 8.
        transform, peer = make(remote_max_window_bits=8), Peer(9)
        for message in messages():
            data = peer.encode(message)
            assert transform.decode(TEXT_, True, RSV1, data, None) == message

    @pytest.mark.parametrize("alone", [True, False])
    def test_fragments(self, alone: bool) -> None:
        sender = make(local_no_context_takeover=alone)
        receiver = make(remote_no_context_takeover=alone)
        for message in messages() * 2:
            size = max(1, len(message) // 5)
            pieces = [message[i : i + size] for i in range(0, len(message), size)] or [
                b""
            ]
            got = []
            for number, piece in enumerate(pieces):
                opcode, fin = (CONT_ if number else TEXT_), number == len(pieces) - 1
                rsv, data = sender.encode(opcode, fin, piece)
                # A message alone that does not shrink is sent as it is.
                assert rsv == (0 if number else RSV1) or (alone and data == message)
                got.append(receiver.decode(opcode, fin, rsv, data, None))
                # What was sent can be read at once.
                assert got[-1] == piece

    def test_settings(self) -> None:
        transform = make(compress_settings={"level": 1, "memLevel": 1})
        _, data = transform.encode(1, True, b"a" * 1000)
        assert len(data) < 100
        assert Peer().decode(data) == b"a" * 1000

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.one_of(
                    st.binary(max_size=300),
                    st.text("ab ", max_size=3000).map(str.encode),
                ),
                st.lists(st.integers(0, 400), max_size=4),
            ),
            max_size=8,
        ),
        st.booleans(),
        st.integers(9, 15),
        st.sampled_from([0, 64, 10**9]),
    )
    def test_anything(
        self, texts: list[tuple[bytes, list[int]]], alone: bool, bits: int, least: int
    ) -> None:
        sender = make(
            local_no_context_takeover=alone,
            local_max_window_bits=bits,
            compress_min_size=least,
        )
        receiver = make(remote_no_context_takeover=alone, remote_max_window_bits=bits)
        for message, points in texts:
            rsv, data = sender.encode(2, True, message)
            points = sorted(min(point, len(data)) for point in points)
            edges = [0, *points, len(data)]
            got = b""
            for number, (start, end) in enumerate(itertools.pairwise(edges)):
                got += receiver.decode(
                    CONT_ if number else BINARY_,
                    number == len(points),
                    0 if number else rsv,
                    data[start:end],
                    len(message) - len(got),
                )
            assert got == message


class TestSmallMessages:
    def test_are_sent_as_they_are(self) -> None:
        transform = make(compress_min_size=64)
        assert transform.encode(1, True, b"a" * 63) == (0, b"a" * 63)
        assert transform.encoder is None
        rsv, data = transform.encode(1, True, b"a" * 64)
        assert rsv == RSV1
        assert len(data) < 20

    def test_default(self) -> None:
        assert PerMessageDeflate(False, False, 15, 15).compress_min_size == 64

    def test_fragmented_messages_are_compressed(self) -> None:
        # Nobody knows how long they get.
        transform = make(compress_min_size=64)
        assert transform.encode(1, False, b"a")[0] == RSV1
        assert transform.encode(0, True, b"a")[0] == 0

    def test_between_compressed_ones(self) -> None:
        sender, receiver = make(compress_min_size=64), make()
        for message in (b"a" * 100, b"b", b"a" * 100, b"", b"a" * 100):
            rsv, data = sender.encode(2, True, message)
            assert receiver.decode(2, True, rsv, data, 100) == message

    def test_incompressible_ones_are_sent_as_they_are(self) -> None:
        # Only where the peer does not need them for the messages after.
        noise = random.Random(5).randbytes(1000)
        assert make(local_no_context_takeover=True).encode(2, True, noise) == (0, noise)
        assert make().encode(2, True, noise)[0] == RSV1


class TestReservedBits:
    """RFC 7692, 6.1 and 6.2."""

    def test_plain_messages(self) -> None:
        transform = make()
        assert transform.decode(1, True, 0, b"Hello", 5) == b"Hello"
        assert transform.decode(1, False, 0, b"Hel", 5) == b"Hel"
        assert transform.decode(0, True, 0, b"lo", 2) == b"lo"
        assert transform.decoder is None

    def test_plain_messages_have_a_limit(self) -> None:
        with pytest.raises(PayloadTooBig, match="6 bytes, limit 5"):
            make().decode(1, True, 0, b"Hello!", 5)
        transform = make()
        transform.decode(1, False, 0, b"Hel", 5)
        with pytest.raises(PayloadTooBig, match="3 bytes, limit 2"):
            transform.decode(0, True, 0, b"lo!", 2)

    @pytest.mark.parametrize("first", [0, RSV1])
    def test_bit_on_a_continuation(self, first: int) -> None:
        transform = make()
        transform.decode(1, False, first, b"\xf2\x48\xcd", None)
        with pytest.raises(
            ProtocolError, match="RSV1 is set on a continuation"
        ) as info:
            transform.decode(0, True, RSV1, b"\xc9\xc9\x07\x00", None)
        assert info.value.code == 1002

    def test_plain_continuations_are_sent_as_they_are(self) -> None:
        # Sequence is the codec's business.
        assert make().encode(0, True, b"Hello") == (0, b"Hello")

    def test_plain_between_compressed(self) -> None:
        transform, peer = make(), Peer()
        for _ in range(3):
            assert transform.decode(1, True, RSV1, peer.encode(b"Hello"), 5) == b"Hello"
            assert transform.decode(1, True, 0, b"Hello", 5) == b"Hello"

    def test_allowed(self) -> None:
        assert make().allowed_rsv == RSV1


BOMB_SIZE = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def bomb() -> bytes:
    encoder = zlib.compressobj(9, wbits=-15)
    data = encoder.compress(bytes(BOMB_SIZE)) + encoder.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 100_000
    return data[:-4]


class TestBombs:
    """The limit holds while inflating, and what is above it is never made."""

    @pytest.mark.parametrize("limit", [0, 1, 1000, 1024 * 1024])
    def test_memory(self, bomb: bytes, limit: int) -> None:
        transform = make()
        with (
            bounded_memory(2 * limit + 1024 * 1024),
            pytest.raises(PayloadTooBig) as info,
        ):
            transform.decode(1, True, RSV1, bomb, limit)
        assert str(info.value) == f"message is too big: more than {limit} bytes"
        assert info.value.code == 1009
        assert transform.decoder is None

    def test_in_pieces(self, bomb: bytes) -> None:
        transform = make()
        limit = 1024 * 1024
        got = len(transform.decode(1, False, RSV1, bomb[:100], limit))
        assert 0 < got < limit
        room = limit - got
        for i in range(100, len(bomb), 100):
            try:
                room -= len(transform.decode(0, False, 0, bomb[i : i + 100], room))
            except PayloadTooBig:
                break
        else:
            pytest.fail("the limit was passed")
        assert room >= 0

    def test_at_the_limit(self) -> None:
        peer = Peer()
        for size in (0, 1, 5, 1000, 100_000):
            data = peer.encode(bytes(size))
            assert make().decode(1, True, RSV1, data, size) == bytes(size)
            peer = Peer()
            if size:
                with pytest.raises(PayloadTooBig):
                    make().decode(1, True, RSV1, data, size - 1)

    def test_every_limit(self) -> None:
        message = b"abc" * 100 + bytes(range(256))
        data = Peer().encode(message)
        for limit in range(len(message) + 10):
            if limit >= len(message):
                assert make().decode(1, True, RSV1, data, limit) == message
            else:
                with pytest.raises(PayloadTooBig):
                    make().decode(1, True, RSV1, data, limit)

    def test_without_limit(self, bomb: bytes) -> None:
        assert len(make().decode(1, True, RSV1, bomb, None)) == BOMB_SIZE

    def test_bytes_that_give_nothing(self) -> None:
        # Empty blocks, without end.
        transform = make()
        empty = (b"\x00" + TAIL) * 20_000
        assert transform.decode(1, False, RSV1, empty, 0) == b""
        assert transform.decode(0, True, 0, b"\x00", 0) == b""


def finished(data: bytes) -> bytes:
    """Compress like an implementation that ends each message with BFINAL=1."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush(zlib.Z_FINISH)


class TestFinalBlocks:
    """A block with BFINAL=1 ends a stream of zlib, not a message, not a connection."""

    @pytest.mark.parametrize("alone", [True, False])
    @pytest.mark.parametrize("ending", [b"\x00", b""])
    def test_message_after_message(self, alone: bool, ending: bytes) -> None:
        transform = make(remote_no_context_takeover=alone)
        for message in messages():
            data = finished(message) + ending
            assert transform.decode(1, True, RSV1, data, len(message)) == message

    def test_then_ordinary_ones(self) -> None:
        transform, peer = make(), Peer()
        for message in messages():
            data = finished(message) + b"\x00"
            assert transform.decode(1, True, RSV1, data, None) == message
        for message in messages():
            data = peer.encode(message)
            assert transform.decode(1, True, RSV1, data, None) == message

    def test_two_in_a_message(self) -> None:
        data = finished(b"Hello, ") + finished(b"world") + b"\x00"
        assert make().decode(1, True, RSV1, data, 12) == b"Hello, world"
        with pytest.raises(PayloadTooBig):
            make().decode(1, True, RSV1, data, 11)
        with pytest.raises(PayloadTooBig):
            make().decode(1, True, RSV1, data, 6)

    def test_limit_at_the_final_block(self) -> None:
        data = finished(b"Hello") + b"\x00"
        assert make().decode(1, True, RSV1, data, 5) == b"Hello"
        data = finished(b"Hello") + Peer().encode(b"!")
        with pytest.raises(PayloadTooBig):
            make().decode(1, True, RSV1, data, 5)

    def test_at_every_split(self) -> None:
        data = finished(b"Hello, ") + finished(b"world") + b"\x00"
        for cut in range(len(data)):
            transform = make()
            got = transform.decode(1, False, RSV1, data[:cut], 12)
            got += transform.decode(0, True, 0, data[cut:], 12 - len(got))
            assert got == b"Hello, world"

    def test_too_many(self) -> None:
        # Each costs an object; a frame could bring half a million of them.
        began = time.perf_counter()
        with pytest.raises(ProtocolError, match="more than 8 final blocks in a frame"):
            make().decode(1, True, RSV1, b"\x03\x00" * 500_000, None)
        assert time.perf_counter() - began < 1

    def test_bomb_behind_one(self) -> None:
        data = finished(b"Hello") + Peer().encode(bytes(10_000_000))
        with bounded_memory(1_000_000), pytest.raises(PayloadTooBig):
            make().decode(1, True, RSV1, data, 1000)


class TestBadData:
    @pytest.mark.parametrize("alone", [True, False])
    def test_message_cut_anywhere(self, alone: bool) -> None:
        for message in (
            b"Hello",
            b'{"a": 1, "b": [2, 3]}' * 9,
            bytes(500),
            bytes(range(256)),
        ):
            data = Peer().encode(message)
            # The first byte of a stored block is an empty message.
            for cut in range(1 + (data[0] == 0), len(data)):
                transform = make(remote_no_context_takeover=alone)
                with pytest.raises(ProtocolError) as info:
                    transform.decode(1, True, RSV1, data[:cut], None)
                assert info.value.code == 1002
                assert str(info.value).startswith("decompression failed: ")

    def test_stored_block_cut_anywhere(self) -> None:
        data = EXAMPLES["7.2.3.3, no compression"][0]
        for cut in range(2, len(data)):
            with pytest.raises(ProtocolError):
                make().decode(1, True, RSV1, data[:cut], None)

    def test_cut_in_fragments(self) -> None:
        data = Peer().encode(b"Hello")
        transform = make()
        transform.decode(1, False, RSV1, data[:3], None)
        with pytest.raises(ProtocolError, match="message ends inside a block"):
            transform.decode(0, True, 0, b"", None)

    @pytest.mark.parametrize(
        "data",
        [b"\xff", b"\x07", b"\x06", b"\x01\x00\x00\x00\x00", b"\xf2\x48\xcd\xff\xff"],
    )
    def test_nonsense(self, data: bytes) -> None:
        with pytest.raises(ProtocolError, match="decompression failed") as info:
            make().decode(1, True, RSV1, data, None)
        assert info.value.code == 1002

    def test_text_names_the_reason_and_no_data(self) -> None:
        with pytest.raises(ProtocolError) as info:
            make().decode(1, True, RSV1, b"\x07", None)
        assert (
            str(info.value)
            == "decompression failed: invalid block type (RFC 7692, 7.2)"
        )

    def test_empty_payload_is_an_empty_message(self) -> None:
        transform, peer = make(), Peer()
        for _ in range(2):
            assert transform.decode(1, True, RSV1, b"", 0) == b""
            assert transform.decode(1, True, RSV1, peer.encode(b"Hello"), 5) == b"Hello"

    def test_with_the_tail(self) -> None:
        # The tail should have been taken off; it does no harm.
        data = Peer().encode(b"Hello") + TAIL + b"\x00"
        assert make().decode(1, True, RSV1, data, 5) == b"Hello"

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0, 1, 2]),
                st.booleans(),
                st.sampled_from([0, RSV1]),
                st.binary(max_size=40),
                st.one_of(st.none(), st.integers(0, 100)),
            ),
            max_size=6,
        )
    )
    def test_anything_gives_bytes_or_a_documented_exception(self, frames: Any) -> None:
        transform = make()
        for frame in frames:
            try:
                got = transform.decode(*frame)
            except (ProtocolError, PayloadTooBig):
                break
            assert type(got) is bytes
            assert frame[4] is None or len(got) <= frame[4]


class TestMemory:
    """Idle connections are many."""

    def test_nothing_is_made_before_it_is_used(self) -> None:
        transform = make()
        assert transform.encoder is None
        assert transform.decoder is None
        transform.decode(1, True, 0, b"a", None)
        assert transform.decoder is None
        transform.encode(1, True, b"a")
        assert transform.encoder is not None
        assert transform.decoder is None

    def test_nothing_is_kept_without_context(self) -> None:
        transform = make(
            remote_no_context_takeover=True, local_no_context_takeover=True
        )
        transform.encode(1, True, b"a" * 100)
        assert transform.encoder is None
        transform.encode(1, False, b"a" * 100)
        assert transform.encoder is not None
        transform.encode(0, True, b"")
        assert transform.encoder is None
        data = Peer().encode(b"a")
        assert transform.decode(1, False, RSV1, data, 1) == b"a"
        assert transform.decoder is not None
        assert transform.decode(0, True, 0, b"", 0) == b""
        assert transform.decoder is None

    def test_compressors_without_context_are_shared(self) -> None:
        """And one message tells nothing about another, of whichever connection."""
        secret, text = random.randbytes(600), random.randbytes(600)
        parameters = make(local_no_context_takeover=True).parameters
        one, other = DeflateTransform(parameters), DeflateTransform(parameters)
        alone = make(local_no_context_takeover=True).encode(1, True, text * 2)
        for transform in (one, other, one):
            assert transform.encode(1, True, secret * 2)[0] == RSV1
            assert len(parameters.idle_encoders) == 1
            assert transform.encode(1, True, text * 2) == alone
            # Each message can be read by somebody who saw none before.
            data = transform.encode(1, True, secret * 2)[1]
            assert zlib.decompressobj(-15).decompress(data + TAIL) == secret * 2

    def test_a_compressor_that_failed_is_not_used_again(self) -> None:
        transform = make(local_no_context_takeover=True)
        transform.encode(1, True, b"a" * 100)
        broken: Any = "not bytes"
        with pytest.raises(TypeError):
            transform.encode(1, True, broken)
        assert transform.parameters.idle_encoders == []
        rsv, data = transform.encode(1, True, b"a" * 100)
        assert make().decode(1, True, rsv, data, 100) == b"a" * 100

    def test_idle_compressors_are_bounded(self) -> None:
        transform = make(local_no_context_takeover=True)
        idle = transform.parameters.idle_encoders
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: transform.encode(1, True, b"a" * n), range(1000)))
        assert 1 <= len(idle) <= 8 + 16

    def test_is_small(self) -> None:
        extension = PerMessageDeflate(False, False, 12, 12)
        assert not hasattr(extension, "__dict__")
        assert not hasattr(extension.transform, "__dict__")

    def test_connections_share_what_they_agreed_on(self) -> None:
        factory = ServerPerMessageDeflateFactory()
        made = [factory.process_request_params([], [])[1] for _ in range(2)]
        assert made[0].transform.parameters is made[1].transform.parameters
        assert made[0].transform is not made[1].transform

    def test_offers_that_are_remembered_are_bounded(self) -> None:
        factory = ServerPerMessageDeflateFactory()
        flags = ["server_no_context_takeover", "client_no_context_takeover"]
        for s, c in itertools.product(range(9, 16), range(9, 16)):
            for n in range(3):
                params: Any = [(flag, None) for flag in flags[:n]]
                params.append(("server_max_window_bits", str(s)))
                params.append(("client_max_window_bits", str(c)))
                answer, _ = factory.process_request_params(params, [])
                assert ("server_max_window_bits", str(s)) in answer
        assert len(factory._known) <= 32


class TestBackend:
    def test_the_faster_one_is_taken(self) -> None:
        code = "import websock.extensions.deflate as d; print(d.zlib.__name__)"
        name = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        expected = "zlib_ng.zlib_ng" if find_spec("zlib_ng") else "zlib"
        assert name.stdout.strip() == expected

    def test_zlib_can_be_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Counting:
            calls: list[str] = []
            error = zlib.error
            Z_SYNC_FLUSH = zlib.Z_SYNC_FLUSH

            def compressobj(self, **kwargs: Any) -> Any:
                self.calls.append("compress")
                return zlib.compressobj(**kwargs)

            def decompressobj(self, **kwargs: Any) -> Any:
                self.calls.append("decompress")
                return zlib.decompressobj(**kwargs)

        monkeypatch.setattr(deflate_module, "zlib", Counting())
        transform = make()
        rsv, data = transform.encode(1, True, b"Hello")
        assert transform.decode(1, True, rsv, data, 5) == b"Hello"
        assert Counting.calls == ["compress", "decompress"]


class TestExtension:
    """The same on frames."""

    def test_both_ways(self) -> None:
        sender = PerMessageDeflate(False, False, 15, 15, compress_min_size=0)
        receiver = PerMessageDeflate(False, False, 15, 15)
        for opcode in (TEXT, BINARY):
            frame = Frame(opcode, b"Hello" * 9, rsv2=True)
            encoded = sender.encode(frame)
            assert encoded.rsv1
            assert encoded.opcode is opcode
            assert len(encoded.data) < 45
            assert receiver.decode(encoded, max_size=45) == frame
        first = sender.encode(Frame(TEXT, b"Hel", False))
        last = sender.encode(Frame(CONT, bytearray(b"lo")))
        assert (first.rsv1, last.rsv1) == (True, False)
        assert receiver.decode(first) == Frame(TEXT, b"Hel", False)
        assert receiver.decode(last) == Frame(CONT, b"lo")

    def test_control_frames_pass(self) -> None:
        extension = PerMessageDeflate(False, False, 15, 15)
        frame = Frame(PING, b"Hello")
        assert extension.encode(frame) is frame
        assert extension.decode(frame) is frame

    def test_limit(self) -> None:
        extension = PerMessageDeflate(False, False, 15, 15)
        with pytest.raises(PayloadTooBig):
            extension.decode(
                Frame(TEXT, Peer().encode(b"Hello"), rsv1=True), max_size=4
            )

    def test_attributes(self) -> None:
        extension = PerMessageDeflate(
            True, False, 8, 9, {"level": 1}, compress_min_size=5
        )
        assert extension.name == "permessage-deflate"
        assert extension.remote_no_context_takeover is True
        assert extension.local_no_context_takeover is False
        assert extension.remote_max_window_bits == 8
        assert extension.local_max_window_bits == 9
        assert extension.compress_settings == {"level": 1}
        assert extension.compress_min_size == 5

    def test_repr(self) -> None:
        assert repr(PerMessageDeflate(True, False, 8, 9)) == (
            "PerMessageDeflate(remote_no_context_takeover=True,"
            " local_no_context_takeover=False, remote_max_window_bits=8,"
            " local_max_window_bits=9)"
        )

    def test_equality(self) -> None:
        args = (False, False, 15, 15)
        assert PerMessageDeflate(*args) == PerMessageDeflate(*args)
        assert PerMessageDeflate(*args) == PerMessageDeflate(*args, {})
        assert PerMessageDeflate(*args) != PerMessageDeflate(False, False, 15, 14)
        assert PerMessageDeflate(*args) != PerMessageDeflate(*args, {"level": 1})
        assert PerMessageDeflate(*args) != args

    @pytest.mark.parametrize(
        ("remote", "local"), [(7, 15), (16, 15), (15, 8), (15, 16), (1000, 15), (0, 0)]
    )
    def test_windows(self, remote: int, local: int) -> None:
        with pytest.raises(ValueError, match="window_bits"):
            PerMessageDeflate(False, False, remote, local)

    def test_settings(self) -> None:
        with pytest.raises(ValueError, match="must not contain wbits"):
            PerMessageDeflate(False, False, 15, 15, {"wbits": 15})


# -- negotiation ---------------------------------------------------------------------

S_NO, C_NO = "server_no_context_takeover", "client_no_context_takeover"
S_BITS, C_BITS = "server_max_window_bits", "client_max_window_bits"


def deflate(*args: Any) -> PerMessageDeflate:
    return PerMessageDeflate(*args)


class TestClient:
    @pytest.mark.parametrize(
        ("config", "params"),
        [
            ({}, [(C_BITS, None)]),
            ({C_BITS: None}, []),
            ({C_BITS: 10}, [(C_BITS, "10")]),
            ({S_NO: True}, [(S_NO, None), (C_BITS, None)]),
            (
                {S_NO: True, C_NO: True, S_BITS: 8, C_BITS: 9},
                [(S_NO, None), (C_NO, None), (S_BITS, "8"), (C_BITS, "9")],
            ),
        ],
    )
    def test_offer(self, config: dict[str, Any], params: Any) -> None:
        assert ClientPerMessageDeflateFactory(**config).get_request_params() == params

    @pytest.mark.parametrize(
        ("config", "params", "result"),
        [
            ({}, [], (False, False, 15, 15)),
            ({}, [(S_NO, None)], (True, False, 15, 15)),
            ({}, [(C_NO, None)], (False, True, 15, 15)),
            ({}, [(S_BITS, "8")], (False, False, 8, 15)),
            ({}, [(S_BITS, "10"), (C_BITS, "9")], (False, False, 10, 9)),
            ({S_NO: True}, [(S_NO, None)], (True, False, 15, 15)),
            ({C_NO: True}, [], (False, True, 15, 15)),
            ({S_BITS: 10}, [(S_BITS, "10")], (False, False, 10, 15)),
            ({S_BITS: 10}, [(S_BITS, "9")], (False, False, 9, 15)),
            ({C_BITS: 10}, [], (False, False, 15, 10)),
            ({C_BITS: 10}, [(C_BITS, "9")], (False, False, 15, 9)),
            ({C_BITS: None}, [], (False, False, 15, 15)),
        ],
    )
    def test_answer(self, config: dict[str, Any], params: Any, result: Any) -> None:
        factory = ClientPerMessageDeflateFactory(**config)
        assert factory.process_response_params(params, []) == deflate(*result)

    @pytest.mark.parametrize(
        ("config", "params", "kind"),
        [
            ({S_NO: True}, [], NegotiationError),
            ({S_BITS: 10}, [], NegotiationError),
            ({S_BITS: 10}, [(S_BITS, "11")], NegotiationError),
            ({C_BITS: None}, [(C_BITS, "10")], NegotiationError),
            ({C_BITS: 10}, [(C_BITS, "11")], NegotiationError),
            ({}, [(C_BITS, "8")], NegotiationError),
            ({}, [(C_BITS, None)], InvalidParameterValue),
            ({}, [(S_BITS, None)], InvalidParameterValue),
            ({}, [("foo", None)], InvalidParameterName),
            ({}, [(S_NO, None), (S_NO, None)], DuplicateParameter),
        ],
    )
    def test_refused(self, config: dict[str, Any], params: Any, kind: type) -> None:
        factory = ClientPerMessageDeflateFactory(**config)
        with pytest.raises(NegotiationError) as info:
            factory.process_response_params(params, [])
        assert type(info.value) is kind

    def test_twice(self) -> None:
        factory = ClientPerMessageDeflateFactory()
        with pytest.raises(NegotiationError, match="accepted twice"):
            factory.process_response_params([], [deflate(False, False, 15, 15)])

    def test_settings_are_handed_on(self) -> None:
        factory = ClientPerMessageDeflateFactory(
            compress_settings={"memLevel": 4}, compress_min_size=7
        )
        extension = factory.process_response_params([], [])
        assert extension.compress_settings == {"memLevel": 4}
        assert extension.compress_min_size == 7


class TestServer:
    @pytest.mark.parametrize(
        ("config", "params", "answer", "result"),
        [
            ({}, [], [], (False, False, 15, 15)),
            ({}, [(C_BITS, None)], [], (False, False, 15, 15)),
            ({}, [(S_NO, None)], [(S_NO, None)], (False, True, 15, 15)),
            ({}, [(C_NO, None)], [(C_NO, None)], (True, False, 15, 15)),
            ({}, [(S_BITS, "10")], [(S_BITS, "10")], (False, False, 15, 10)),
            ({}, [(C_BITS, "8")], [(C_BITS, "8")], (False, False, 8, 15)),
            ({S_NO: True}, [], [(S_NO, None)], (False, True, 15, 15)),
            ({C_NO: True}, [], [(C_NO, None)], (True, False, 15, 15)),
            ({S_BITS: 12}, [], [(S_BITS, "12")], (False, False, 15, 12)),
            ({S_BITS: 12}, [(S_BITS, "15")], [(S_BITS, "12")], (False, False, 15, 12)),
            ({S_BITS: 12}, [(S_BITS, "9")], [(S_BITS, "9")], (False, False, 15, 9)),
            ({C_BITS: 12}, [], [], (False, False, 15, 15)),
            ({C_BITS: 12}, [(C_BITS, None)], [(C_BITS, "12")], (False, False, 12, 15)),
            ({C_BITS: 12}, [(C_BITS, "15")], [(C_BITS, "12")], (False, False, 12, 15)),
            ({C_BITS: 12}, [(C_BITS, "9")], [(C_BITS, "9")], (False, False, 9, 15)),
        ],
    )
    def test_accepted(
        self, config: dict[str, Any], params: Any, answer: Any, result: Any
    ) -> None:
        factory = ServerPerMessageDeflateFactory(**config)
        for _ in range(2):  # the second time from memory
            got, extension = factory.process_request_params(params, [])
            assert got == answer
            assert extension == deflate(*result)
            got.append(("changed", None))

    @pytest.mark.parametrize(
        ("config", "params", "kind"),
        [
            ({}, [(S_BITS, "8")], NegotiationError),
            (
                {C_BITS: 12, "require_client_max_window_bits": True},
                [],
                NegotiationError,
            ),
            ({}, [(S_BITS, None)], InvalidParameterValue),
            ({}, [(S_BITS, "7")], InvalidParameterValue),
            ({}, [(S_BITS, "16")], InvalidParameterValue),
            ({}, [(S_BITS, "1000")], InvalidParameterValue),
            ({}, [(S_BITS, "09")], InvalidParameterValue),
            ({}, [(S_BITS, "+9")], InvalidParameterValue),
            ({}, [(S_BITS, "9.0")], InvalidParameterValue),
            ({}, [(C_BITS, "")], InvalidParameterValue),
            ({}, [(C_BITS, "7")], InvalidParameterValue),
            ({}, [(C_BITS, "16")], InvalidParameterValue),
            ({}, [(S_NO, "true")], InvalidParameterValue),
            ({}, [(C_NO, "")], InvalidParameterValue),
            ({}, [("foo", "bar")], InvalidParameterName),
            ({}, [("__class__", None)], InvalidParameterName),
            ({}, [(S_NO.upper(), None)], InvalidParameterName),
            ({}, [(C_NO, None), (C_NO, None)], DuplicateParameter),
            ({}, [(S_BITS, "9"), (S_BITS, "9")], DuplicateParameter),
            ({}, [(C_BITS, None), (C_BITS, "9")], DuplicateParameter),
        ],
    )
    def test_declined(self, config: dict[str, Any], params: Any, kind: type) -> None:
        factory = ServerPerMessageDeflateFactory(**config)
        for _ in range(2):
            with pytest.raises(NegotiationError) as info:
                factory.process_request_params(params, [])
            assert type(info.value) is kind

    def test_required_window(self) -> None:
        factory = ServerPerMessageDeflateFactory(
            client_max_window_bits=12, require_client_max_window_bits=True
        )
        _, extension = factory.process_request_params([(C_BITS, None)], [])
        assert extension.remote_max_window_bits == 12

    def test_twice(self) -> None:
        factory = ServerPerMessageDeflateFactory()
        with pytest.raises(NegotiationError, match="accepted already"):
            factory.process_request_params([], [deflate(False, False, 15, 15)])

    def test_beside_others(self) -> None:
        class Other(Extension):
            name = "x-other"  # type: ignore[assignment]

        factory = ServerPerMessageDeflateFactory()
        _, extension = factory.process_request_params([], [Other()])
        assert extension == deflate(False, False, 15, 15)

    def test_settings_are_handed_on(self) -> None:
        factory = ServerPerMessageDeflateFactory(
            compress_settings={"memLevel": 4}, compress_min_size=7
        )
        _, extension = factory.process_request_params([], [])
        assert extension.compress_settings == {"memLevel": 4}
        assert extension.compress_min_size == 7


class TestFactories:
    @pytest.mark.parametrize("bits", [-1, 0, 7, 16, 1000])
    @pytest.mark.parametrize("name", [S_BITS, C_BITS])
    def test_windows(self, name: str, bits: int) -> None:
        for factory in (ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory):
            with pytest.raises(ValueError, match=f"invalid {name}: {bits}, expected"):
                factory(**{name: bits})

    def test_window_that_zlib_cannot_compress_with(self) -> None:
        with pytest.raises(ValueError, match="expected 9 to 15"):
            ClientPerMessageDeflateFactory(client_max_window_bits=8)
        with pytest.raises(ValueError, match="expected 9 to 15"):
            ServerPerMessageDeflateFactory(server_max_window_bits=8)

    @pytest.mark.parametrize(
        ("name", "own"),
        [
            (ClientPerMessageDeflateFactory, C_BITS),
            (ServerPerMessageDeflateFactory, S_BITS),
        ],
    )
    def test_settings(self, name: Any, own: str) -> None:
        with pytest.raises(ValueError, match=f"must not contain wbits, set {own}"):
            name(compress_settings={"wbits": 12})
        with pytest.raises(ValueError, match="invalid compress_settings"):
            name(compress_settings={"level": 99})
        with pytest.raises(TypeError):
            name(compress_settings={"levle": 9})

    def test_requirement_without_window(self) -> None:
        with pytest.raises(ValueError, match="needs a client_max_window_bits"):
            ServerPerMessageDeflateFactory(require_client_max_window_bits=True)

    def test_client_default(self) -> None:
        for given_ in (None, []):
            (factory,) = enable_client_permessage_deflate(given_)
            assert factory.get_request_params() == [(C_BITS, None)]
            extension: Any = factory.process_response_params([], [])
            assert extension.compress_settings == {"memLevel": 5, "level": 3}

    def test_server_default(self) -> None:
        for given_ in (None, []):
            (factory,) = enable_server_permessage_deflate(given_)
            answer, extension = factory.process_request_params([(C_BITS, None)], [])
            assert answer == [(S_BITS, "12"), (C_BITS, "12")]
            settings = {"memLevel": 5, "level": 3}
            assert extension == deflate(False, False, 12, 12, settings)

    def test_what_is_there_stays(self) -> None:
        client = [ClientPerMessageDeflateFactory()]
        assert enable_client_permessage_deflate(client) is client
        server = [ServerPerMessageDeflateFactory()]
        assert enable_server_permessage_deflate(server) is server

    def test_others_stay(self) -> None:
        class Other(ClientPerMessageDeflateFactory):
            name = "x-other"  # type: ignore[assignment]

        other = Other()
        factories = enable_client_permessage_deflate([other])
        assert factories[0] is other
        assert factories[1].name == "permessage-deflate"


@pytest.mark.interop
class TestAgainstWebsockets:
    """Every configuration against every offer: the same answer, or the same refusal."""

    BITS = (None, 9, 12, 15)

    def test_server(self) -> None:
        from websockets.exceptions import NegotiationError as TheirError
        from websockets.extensions.permessage_deflate import (
            ServerPerMessageDeflateFactory as Theirs,
        )

        offers: list[Any] = [
            [p for p in params if p is not None]
            for params in itertools.product(
                (None, (S_NO, None)),
                (None, (C_NO, None)),
                (None, *((S_BITS, b) for b in ("8", "9", "12", "15", None))),
                (None, *((C_BITS, b) for b in ("8", "9", "12", "15", None))),
            )
        ]
        for s_no, c_no, s_bits, c_bits, required in itertools.product(
            (False, True), (False, True), self.BITS, self.BITS, (False, True)
        ):
            if required and c_bits is None:
                continue
            config = (s_no, c_no, s_bits, c_bits, None, required)
            ours = ServerPerMessageDeflateFactory(*config)
            theirs = Theirs(*config)
            for params in offers:
                try:
                    answer, extension = theirs.process_request_params(params, [])
                except TheirError:
                    with pytest.raises(NegotiationError):
                        ours.process_request_params(params, [])
                else:
                    got = ours.process_request_params(params, [])
                    assert got[0] == answer
                    assert repr(got[1]) == repr(extension)

    def test_client(self) -> None:
        from websockets.exceptions import NegotiationError as TheirError
        from websockets.extensions.permessage_deflate import (
            ClientPerMessageDeflateFactory as Theirs,
        )

        answers: list[Any] = [
            [p for p in params if p is not None]
            for params in itertools.product(
                (None, (S_NO, None)),
                (None, (C_NO, None)),
                (None, *((S_BITS, b) for b in ("8", "9", "12", "15"))),
                (None, *((C_BITS, b) for b in ("8", "9", "12", "15", None))),
            )
        ]
        for config in itertools.product(
            (False, True), (False, True), (*self.BITS, 8), (*self.BITS, True)
        ):
            ours = ClientPerMessageDeflateFactory(*config)
            theirs = Theirs(*config)
            assert ours.get_request_params() == theirs.get_request_params()
            for params in answers:
                try:
                    extension = theirs.process_response_params(params, [])
                except TheirError:
                    with pytest.raises(NegotiationError):
                        ours.process_response_params(params, [])
                else:
                    got = ours.process_response_params(params, [])
                    assert repr(got) == repr(extension)
