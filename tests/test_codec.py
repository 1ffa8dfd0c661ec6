"""The codec, both twins: sections of RFC 6455, and other people's bugs."""

from __future__ import annotations

import re
import zlib
from array import array
from typing import Any

import pytest
from conftest import Impl
from wire import MASK, feed, feed_every_way, frame

from websock.extensions.permessage_deflate import PerMessageDeflate
from websock.transform import make_transform

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@pytest.fixture(params=[True, False], ids=["server", "client"])
def masked(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Codec:
    """The reader and writer of one twin, for one role."""

    def __init__(self, impl: Impl, masked: bool) -> None:
        self.module = impl.module("codec")
        self.masked = masked

    def frame(self, *args: Any, **kwargs: Any) -> bytes:
        kwargs.setdefault("mask", MASK if self.masked else None)
        return frame(*args, **kwargs)

    def reader(self, **kwargs: Any) -> Any:
        return self.module.FrameReader(expect_mask=self.masked, **kwargs)

    def check(
        self, data: bytes, events: list[Any], error: str | None = None, **kw: Any
    ) -> None:
        got = feed_every_way(lambda: self.reader(**kw), data)
        assert got == (events, error)


@pytest.fixture
def codec(impl: Impl, masked: bool) -> Codec:
    return Codec(impl, masked)


class TestFraming:
    """5.2: base framing."""

    @pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 125, 126, 127, 128, 300, 1000])
    def test_binary_lengths(self, codec: Codec, n: int) -> None:
        payload = bytes(i & 255 for i in range(n))
        codec.check(codec.frame(BINARY, payload), [(BINARY, payload, None)])

    @pytest.mark.parametrize("n", [65535, 65536, 200_000])
    def test_long_binary(self, codec: Codec, n: int) -> None:
        payload = bytes(i * 7 & 255 for i in range(n))
        data = codec.frame(BINARY, payload) + codec.frame(TEXT, b"after")
        expected = [(BINARY, payload, None), (TEXT, "after", None)]
        for size in (1000, 4096, 65536, 131072, len(data)):
            pieces = [data[i : i + size] for i in range(0, len(data), size)]
            assert feed(codec.reader(), pieces) == (expected, None)

    @pytest.mark.parametrize(
        "text", ["", "a", "Hello", "é", "κόσμε", "漢字", "😀", "a😀é漢" * 30]
    )
    def test_text(self, codec: Codec, text: str) -> None:
        codec.check(codec.frame(TEXT, text.encode()), [(TEXT, text, None)])

    def test_several_in_one_read(self, codec: Codec) -> None:
        data = b"".join(codec.frame(TEXT, str(i).encode()) for i in range(20))
        codec.check(data, [(TEXT, str(i), None) for i in range(20)])

    @pytest.mark.parametrize("rsv", [0x10, 0x20, 0x40, 0x70])
    def test_reserved_bits(self, codec: Codec, rsv: int) -> None:
        codec.check(
            codec.frame(TEXT, b"good") + codec.frame(TEXT, b"x", rsv=rsv),
            [(TEXT, "good", None)],
            f"ProtocolError: reserved bits are set: 0x{rsv:02x}, "
            "no extension defines them (RFC 6455, 5.2)",
        )

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    def test_reserved_opcodes(self, codec: Codec, opcode: int) -> None:
        codec.check(
            codec.frame(opcode, b""),
            [],
            f"ProtocolError: unknown opcode: 0x{opcode:x} (RFC 6455, 5.2)",
        )

    def test_wrong_masking(self, codec: Codec) -> None:
        wrong = frame(TEXT, b"x", mask=None if codec.masked else MASK)
        rule = (
            "unmasked frame from client" if codec.masked else "masked frame from server"
        )
        codec.check(wrong, [], f"ProtocolError: {rule} (RFC 6455, 5.1)")

    @pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, (1 << 63) + 5])
    def test_top_bit_of_the_length(self, codec: Codec, length: int) -> None:
        codec.check(
            codec.frame(BINARY, b"", length=length),
            [],
            "ProtocolError: payload length has its top bit set (RFC 6455, 5.2)",
        )

    def test_mask_phase(self, impl: Impl) -> None:
        codec = Codec(impl, True)
        for n in range(12):
            payload = bytes(range(n))
            codec.check(codec.frame(BINARY, payload), [(BINARY, payload, None)])

    def test_nothing_is_read_behind_an_error(self, codec: Codec) -> None:
        reader = codec.reader()
        assert reader.feed(codec.frame(3)) == []
        error = reader.error
        assert reader.feed(codec.frame(TEXT, b"x")) == []
        assert reader.error is error

    def test_input_is_copied(self, codec: Codec) -> None:
        data = bytearray(codec.frame(BINARY, b"abcdef"))
        reader = codec.reader()
        (event,) = reader.feed(data)
        data[:] = bytes(len(data))
        assert event == (BINARY, b"abcdef", None)
        with pytest.raises(TypeError):
            reader.feed("text")


class TestLimits:
    @pytest.mark.parametrize(
        "length",
        [
            101,
            126,
            127,
            65535,
            65536,
            (1 << 32) - 1,
            1 << 32,
            (1 << 32) + 1,
            (1 << 63) - 1,
        ],
    )
    def test_claimed_length(self, codec: Codec, length: int) -> None:
        codec.check(
            codec.frame(BINARY, b"", length=length),
            [],
            f"PayloadTooBig: message is too big: {length} bytes, limit 100",
            max_message_size=100,
        )

    def test_at_the_limit(self, codec: Codec) -> None:
        codec.check(
            codec.frame(BINARY, bytes(100)),
            [(BINARY, bytes(100), None)],
            max_message_size=100,
        )

    def test_over_fragments(self, codec: Codec) -> None:
        codec.check(
            codec.frame(BINARY, bytes(60), fin=False) + codec.frame(CONT, bytes(41)),
            [],
            "PayloadTooBig: message is too big: 101 bytes, limit 100",
            max_message_size=100,
        )

    def test_overflow_with_fragments(self, codec: Codec) -> None:
        codec.check(
            codec.frame(BINARY, b"x", fin=False)
            + codec.frame(CONT, b"", length=(1 << 63) - 1),
            [],
            f"PayloadTooBig: message is too big: {1 << 63} bytes, limit 100",
            max_message_size=100,
        )

    def test_limit_of_a_fragment(self, codec: Codec) -> None:
        codec.check(
            codec.frame(BINARY, bytes(10), fin=False) + codec.frame(CONT, bytes(11)),
            [],
            "PayloadTooBig: message is too big: 11 bytes, limit 10",
            max_fragment_size=10,
            max_message_size=1000,
        )

    def test_no_limit_takes_no_memory_for_a_claim(self, codec: Codec) -> None:
        reader = codec.reader()
        assert reader.feed(codec.frame(BINARY, b"abc", length=(1 << 62))) == []
        assert reader.error is None

    def test_too_many_fragments(self, codec: Codec) -> None:
        data = codec.frame(TEXT, fin=False) + codec.frame(CONT, fin=False) * 3
        codec.check(
            data,
            [],
            "TooManyFragments: too many fragments: limit 3 in a message",
            max_fragments=3,
        )

    def test_as_many_fragments_as_allowed(self, codec: Codec) -> None:
        data = codec.frame(TEXT, b"a", fin=False) + codec.frame(CONT, b"b", fin=False)
        data += codec.frame(CONT, b"c")
        codec.check(data, [(TEXT, "abc", [1, 2, 3])], max_fragments=3)

    def test_many_tiny_fragments(self, codec: Codec) -> None:
        data = codec.frame(BINARY, b"", fin=False)
        data += codec.frame(CONT, b"x", fin=False) * 20_000 + codec.frame(CONT, b"y")
        reader = codec.reader(max_message_size=20_001)
        ((opcode, payload, ends),) = reader.feed(data)
        assert (opcode, payload) == (BINARY, b"x" * 20_000 + b"y")
        assert len(ends) == 4096


class TestFragmentation:
    """5.4."""

    def test_text(self, codec: Codec) -> None:
        data = codec.frame(TEXT, b"Hel", fin=False) + codec.frame(CONT, b"lo")
        codec.check(data, [(TEXT, "Hello", [3, 5])])

    def test_control_frames_between(self, codec: Codec) -> None:
        data = codec.frame(BINARY, b"a", fin=False) + codec.frame(PING, b"p")
        data += codec.frame(CONT, b"", fin=False) + codec.frame(PONG, b"q")
        data += codec.frame(CONT, b"b") + codec.frame(TEXT, b"next")
        codec.check(
            data,
            [
                (PING, b"p", True),
                (PONG, b"q", True),
                (BINARY, b"ab", [1, 1, 2]),
                (TEXT, "next", None),
            ],
        )

    def test_unexpected_continuation(self, codec: Codec) -> None:
        codec.check(
            codec.frame(CONT, b"x"),
            [],
            "ProtocolError: unexpected continuation frame (RFC 6455, 5.4)",
        )

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_expected_continuation(self, codec: Codec, opcode: int) -> None:
        codec.check(
            codec.frame(TEXT, b"x", fin=False) + codec.frame(opcode, b"y"),
            [],
            f"ProtocolError: expected a continuation frame, got opcode 0x{opcode:x} "
            "(RFC 6455, 5.4)",
        )

    def test_character_cut_by_fragments(self, codec: Codec) -> None:
        raw = "漢😀".encode()
        data = codec.frame(TEXT, raw[:1], fin=False)
        for byte in raw[1:-1]:
            data += codec.frame(CONT, bytes([byte]), fin=False)
        data += codec.frame(CONT, raw[-1:])
        codec.check(data, [(TEXT, "漢😀", list(range(1, 8)))])

    def test_unassembled(self, codec: Codec) -> None:
        data = codec.frame(TEXT, b"a", fin=False) + codec.frame(PING, b"p")
        data += codec.frame(CONT, b"b") + codec.frame(BINARY, b"c")
        codec.check(
            data,
            [
                (TEXT, b"a", False),
                (PING, b"p", True),
                (CONT, b"b", True),
                (BINARY, b"c", True),
            ],
            assemble=False,
        )

    def test_taking_fragments(self, codec: Codec) -> None:
        reader = codec.reader(max_message_size=10)
        assert reader.take_fragments() == []
        assert reader.feed(codec.frame(TEXT, "é".encode()[:1], fin=False)) == []
        assert reader.in_message
        assert reader.message_opcode == TEXT
        assert reader.has_fragments
        assert reader.feed(codec.frame(CONT, "é".encode()[1:], fin=False)) == []
        last = codec.frame(CONT, b"end")
        assert reader.feed(last[:-1]) == []
        assert reader.take_fragments() == ["é".encode()[:1], "é".encode()[1:]]
        assert not reader.has_fragments
        assert reader.take_fragments() == []
        assert reader.feed(last[-1:]) == [(CONT, b"end", [3])]
        assert not reader.in_message
        assert reader.feed(codec.frame(TEXT, b"new")) == [(TEXT, "new", None)]

    def test_taken_fragments_count(self, codec: Codec) -> None:
        reader = codec.reader(max_message_size=10)
        reader.feed(codec.frame(BINARY, bytes(6), fin=False))
        assert reader.take_fragments() == [bytes(6)]
        reader.feed(codec.frame(CONT, bytes(5)))
        assert str(reader.error) == "message is too big: 11 bytes, limit 10"


class TestControl:
    """5.5."""

    @pytest.mark.parametrize("opcode", [PING, PONG])
    @pytest.mark.parametrize("n", [0, 1, 125])
    def test_payload(self, codec: Codec, opcode: int, n: int) -> None:
        codec.check(codec.frame(opcode, bytes(n)), [(opcode, bytes(n), True)])

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_fragmented(self, codec: Codec, opcode: int) -> None:
        codec.check(
            codec.frame(opcode, fin=False),
            [],
            "ProtocolError: fragmented control frame (RFC 6455, 5.5)",
        )

    @pytest.mark.parametrize("n", [126, 65536])
    def test_too_long(self, codec: Codec, n: int) -> None:
        events, error = feed_every_way(codec.reader, codec.frame(PING, b"", length=n))
        assert events == []
        assert error.startswith("ProtocolError: control frame is too long: ")

    @pytest.mark.parametrize(
        "code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999]
    )
    def test_close(self, codec: Codec, code: int) -> None:
        payload = code.to_bytes(2, "big") + "rèason".encode()
        reader = codec.reader()
        data = codec.frame(CLOSE, payload)
        assert reader.feed(data + b"rubbish") == [(CLOSE, payload, True)]
        assert reader.closed
        assert reader.feed(data) == []
        assert reader.error is None

    def test_close_without_code(self, codec: Codec) -> None:
        codec.check(codec.frame(CLOSE), [(CLOSE, b"", True)])

    def test_close_of_one_byte(self, codec: Codec) -> None:
        codec.check(
            codec.frame(CLOSE, b"\x03"),
            [],
            "ProtocolError: close frame with a payload of 1 byte (RFC 6455, 5.5.1)",
        )

    @pytest.mark.parametrize(
        "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
    )
    def test_bad_close_code(self, codec: Codec, code: int) -> None:
        codec.check(
            codec.frame(CLOSE, code.to_bytes(2, "big")),
            [],
            f"ProtocolError: invalid close code: {code} (RFC 6455, 7.4)",
        )

    @pytest.mark.parametrize("reason", [b"\xff", b"abc\xc3", b"\xed\xa0\x80"])
    def test_bad_close_reason(self, codec: Codec, reason: bytes) -> None:
        codec.check(
            codec.frame(CLOSE, b"\x03\xe8" + reason),
            [],
            "InvalidText: invalid UTF-8 in close reason (RFC 6455, 5.5.1)",
        )


class TestText:
    """8.1: text is UTF-8, and fails as soon as it cannot be."""

    BAD = [
        (b"\xff", 0),
        (b"ab\xc0\xaf", 2),
        (b"\xe0\x80\x80", 1),
        (b"\xed\xa0\x80", 1),
        (b"\xf4\x90\x80\x80", 1),
        (b"\xf0\x80\x80\x80", 1),
        (b"\xf5", 0),
        (b"\xc3a", 1),
        (b"\xe6\xbc\xe6", 2),
        (b"\x80", 0),
        (b"k\xce\xba" * 20 + b"\xce\xce", 61),
    ]

    @pytest.mark.parametrize(("raw", "position"), BAD)
    def test_invalid(self, codec: Codec, raw: bytes, position: int) -> None:
        error = f"InvalidText: invalid UTF-8 at byte {position} of the message (RFC 6455, 8.1)"
        codec.check(codec.frame(TEXT, raw), [], error)
        codec.check(codec.frame(TEXT, raw, fin=False), [], error)
        codec.check(codec.frame(TEXT, raw), [], error, assemble=False)

    @pytest.mark.parametrize(("raw", "position"), BAD)
    def test_fails_before_the_end(
        self, codec: Codec, raw: bytes, position: int
    ) -> None:
        reader = codec.reader()
        data = codec.frame(TEXT, raw + bytes(1000))
        head = len(data) - 1000 - len(raw)
        reader.feed(data[: head + position])
        assert reader.error is None
        reader.feed(data[head + position : head + position + 1])
        assert reader.error is not None

    @pytest.mark.parametrize("raw", [b"\xc3", b"abc\xe6\xbc", b"\xf0\x9f\x98"])
    def test_truncated(self, codec: Codec, raw: bytes) -> None:
        error = (
            "InvalidText: truncated UTF-8 at the end of the message, "
            f"after {len(raw)} bytes (RFC 6455, 8.1)"
        )
        codec.check(codec.frame(TEXT, raw), [], error)
        codec.check(
            codec.frame(TEXT, raw[:1], fin=False) + codec.frame(CONT, raw[1:]),
            [],
            error,
        )

    def test_state_does_not_outlive_a_message(self, codec: Codec) -> None:
        data = codec.frame(TEXT, "é".encode()[:1], fin=False)
        data += codec.frame(CONT, "é".encode()[1:]) + codec.frame(TEXT, b"a")
        codec.check(data, [(TEXT, "é", [1, 2]), (TEXT, "a", None)])


class TestCompression:
    """RFC 7692."""

    def compress(self, data: bytes) -> bytes:
        out = zlib.compressobj(wbits=-15)
        return (out.compress(data) + out.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def transform(self) -> Any:
        return make_transform([PerMessageDeflate(True, True, 15, 15)])

    def check(
        self,
        codec: Codec,
        data: bytes,
        events: list[Any],
        error: str | None = None,
        **kw: Any,
    ) -> None:
        got = feed_every_way(
            lambda: codec.reader(transform=self.transform(), **kw), data
        )
        assert got == (events, error)

    @pytest.mark.parametrize("text", ["", "Hello", "漢字" * 50, "a" * 1000])
    def test_text(self, codec: Codec, text: str) -> None:
        data = codec.frame(TEXT, self.compress(text.encode()), rsv=0x40)
        self.check(codec, data + data, [(TEXT, text, None)] * 2)

    def test_fragments(self, codec: Codec) -> None:
        raw = self.compress(b"Hello, hello, hello")
        data = codec.frame(BINARY, raw[:4], fin=False, rsv=0x40)
        data += codec.frame(PING, b"") + codec.frame(CONT, raw[4:])
        events, error = feed_every_way(
            lambda: codec.reader(transform=self.transform()), data
        )
        assert error is None
        assert events[0] == (PING, b"", True)
        assert events[1][:2] == (BINARY, b"Hello, hello, hello")

    def test_uncompressed(self, codec: Codec) -> None:
        data = codec.frame(TEXT, b"plain") + codec.frame(BINARY, b"x", fin=False)
        data += codec.frame(CONT, b"y")
        self.check(codec, data, [(TEXT, "plain", None), (BINARY, b"xy", [1, 2])])

    def test_bomb(self, codec: Codec) -> None:
        data = codec.frame(BINARY, self.compress(bytes(1_000_000)), rsv=0x40)
        events, error = feed_every_way(
            lambda: codec.reader(transform=self.transform(), max_message_size=10_000),
            data,
        )
        assert events == []
        assert error.startswith("PayloadTooBig: message is too big: ")
        assert "10000" in error

    def test_invalid_text(self, codec: Codec) -> None:
        data = codec.frame(TEXT, self.compress(b"abc\xff"), rsv=0x40)
        self.check(
            codec,
            data,
            [],
            "InvalidText: invalid UTF-8 at byte 3 of the message (RFC 6455, 8.1)",
        )

    def test_marked_continuation(self, codec: Codec) -> None:
        raw = self.compress(b"Hello")
        data = codec.frame(TEXT, raw[:2], fin=False, rsv=0x40)
        data += codec.frame(CONT, raw[2:], rsv=0x40)
        events, error = feed_every_way(
            lambda: codec.reader(transform=self.transform()), data
        )
        assert events == []
        assert error.startswith("ProtocolError: ")

    def test_marked_control_frame(self, codec: Codec) -> None:
        events, error = feed_every_way(
            lambda: codec.reader(transform=self.transform()),
            codec.frame(PING, b"", rsv=0x40),
        )
        assert events == []
        assert error.startswith("ProtocolError: ")


class TestWriter:
    @pytest.fixture
    def writer(self, codec: Codec) -> Any:
        return codec.module.FrameWriter(mask=codec.masked)

    def read_back(self, codec: Codec, data: bytes) -> list[Any]:
        events, error = feed(codec.reader(), [data])
        assert error is None
        return events

    @pytest.mark.parametrize(
        "message", ["", "text", "é漢😀", b"", b"bytes", b"x" * 70_000, "é" * 40_000]
    )
    def test_message(self, codec: Codec, writer: Any, message: str | bytes) -> None:
        opcode = TEXT if isinstance(message, str) else BINARY
        assert self.read_back(codec, writer.message(message)) == [
            (opcode, message, None)
        ]

    def test_forced_kind(self, codec: Codec, writer: Any) -> None:
        assert self.read_back(codec, writer.message("é", False)) == [
            (BINARY, "é".encode(), None)
        ]
        assert self.read_back(codec, writer.message(b"a", True)) == [(TEXT, "a", None)]

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_bytes_like(self, codec: Codec, writer: Any, kind: Any) -> None:
        assert self.read_back(codec, writer.message(kind(b"abc"))) == [
            (BINARY, b"abc", None)
        ]

    def test_strided_memoryview(self, codec: Codec, writer: Any) -> None:
        view = memoryview(b"a-b-c-")[::2]
        assert self.read_back(codec, writer.message(view)) == [(BINARY, b"abc", None)]

    @pytest.mark.parametrize("message", [3, None, ["a"], 1.5])
    def test_wrong_type(self, writer: Any, message: Any) -> None:
        with pytest.raises(
            TypeError, match=r"^message must be str or bytes-like, not "
        ):
            writer.message(message)

    def test_lone_surrogate(self, writer: Any) -> None:
        with pytest.raises(UnicodeEncodeError):
            writer.message("a\ud800")

    def test_fragments(self, codec: Codec, writer: Any) -> None:
        data = writer.frame(TEXT, b"a", False) + writer.frame(CONT, b"b", True)
        assert self.read_back(codec, data) == [(TEXT, "ab", [1, 2])]

    def test_control(self, codec: Codec, writer: Any) -> None:
        assert self.read_back(codec, writer.frame(PING, b"x")) == [(PING, b"x", True)]
        with pytest.raises(
            Exception, match=r"^control frame is too long: 126 bytes, limit 125"
        ):
            writer.frame(PING, bytes(126))
        with pytest.raises(Exception, match=r"^fragmented control frame"):
            writer.frame(PING, b"", False)

    def test_masks_differ(self, impl: Impl) -> None:
        writer = impl.module("codec").FrameWriter(mask=True)
        masks = {writer.message(b"")[2:6] for _ in range(2000)}
        assert len(masks) > 1990

    @pytest.mark.parametrize("message", ["Hello " * 40, b"Hello " * 40])
    def test_compressed(self, codec: Codec, message: str | bytes) -> None:
        def transform() -> Any:
            return make_transform([PerMessageDeflate(False, False, 12, 12)])

        writer = codec.module.FrameWriter(mask=codec.masked, transform=transform())
        reader = codec.reader(transform=transform())
        opcode = TEXT if isinstance(message, str) else BINARY
        for _ in range(3):
            data = writer.message(message)
            assert len(data) < len(message)
            assert reader.feed(data) == [(opcode, message, None)]


@pytest.mark.parametrize("cut", [None, 4])
def test_opcode_of_a_message_that_is_no_text(impl: Impl, cut: int | None) -> None:
    """It stays, like that of any message that an error cuts short."""
    reader = impl.module("codec").FrameReader(expect_mask=False)
    data = frame(TEXT, b"\xed\xa0\x80")
    for piece in [data] if cut is None else [data[:cut], data[cut:]]:
        reader.feed(piece)
    assert reader.error is not None
    assert reader.message_opcode == TEXT


class Loose:
    """An extension of a program that gives what is like bytes, or is not."""

    allowed_rsv = 0
    passes_plain = False

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def decode(self, opcode: int, fin: bool, rsv: int, data: bytes, limit: Any) -> Any:
        return self.kind(data)

    def encode(self, opcode: int, fin: bool, data: bytes) -> Any:
        return 0, self.kind(data)


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: array("B", data)])
def test_what_extensions_return_is_copied(impl: Impl, kind: Any) -> None:
    """Its memory is its own: of a wrong type, other memory would be read and sent."""
    codec = impl.module("codec")
    writer = codec.FrameWriter(mask=False, transform=Loose(kind))
    assert writer.message(b"payload" * 30) == b"\x82\x7e\x00\xd2" + b"payload" * 30
    reader = codec.FrameReader(expect_mask=False, transform=Loose(kind))
    assert reader.feed(b"\x82\x07payload") == [(2, b"payload", None)]


@pytest.mark.parametrize("kind", [lambda data: data.decode(), len, lambda _: None])
def test_what_extensions_must_return(impl: Impl, kind: Any) -> None:
    codec = impl.module("codec")
    writer = codec.FrameWriter(mask=False, transform=Loose(kind))
    with pytest.raises(TypeError) as own:  # PyPy has other words for it
        memoryview(kind(b"payload"))
    text = str(own.value)
    assert "a bytes-like object is required, not '" in text
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        writer.message(b"payload")
    reader = codec.FrameReader(expect_mask=False, transform=Loose(kind))
    assert reader.feed(b"\x82\x07payload") == []
    assert type(reader.error) is TypeError
    assert str(reader.error) == text
