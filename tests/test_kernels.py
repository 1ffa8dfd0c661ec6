"""The kernels, both twins and every variant: masking, headers, UTF-8, masks."""

from __future__ import annotations

import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from conftest import Impl

from websock.exceptions import ProtocolError
from websock.frames import FrameHeader

KEY = b"\x37\xfa\x21\x3d"


@pytest.fixture
def kernels(impl: Impl) -> ModuleType:
    return impl.module("kernels")


def variants(kernels: Any) -> Iterator[str]:
    """Select each variant that can run here, then what was selected before."""
    before = kernels.KERNEL
    try:
        for name in kernels.kernels():
            kernels.select_kernel(name)
            yield name
    finally:
        kernels.select_kernel(before)


def slow_mask(data: bytes, key: bytes, phase: int = 0) -> bytes:
    return bytes(b ^ key[(i + phase) % 4] for i, b in enumerate(data))


class TestMasking:
    """5.3: client-to-server masking."""

    def test_rfc_example(self, kernels: Any) -> None:
        masked = bytes.fromhex("7f9f4d5158")  # 5.7: a masked "Hello"
        for name in variants(kernels):
            assert kernels.apply_mask(b"Hello", KEY) == masked, name
            assert kernels.apply_mask(masked, KEY) == b"Hello", name

    def test_lengths_and_phases(self, kernels: Any) -> None:
        data = bytes(i * 7 & 255 for i in range(700))
        for name in variants(kernels):
            for n in [*range(140), 255, 256, 257, 511, 512, 513, 700]:
                for phase in range(4):
                    expected = slow_mask(data[:n], KEY, phase)
                    what = (name, n, phase)
                    assert kernels.apply_mask(data[:n], KEY, phase) == expected, what
                    buffer = bytearray(data[:n])
                    assert kernels.apply_mask_inplace(buffer, KEY, phase) is None
                    assert buffer == expected, what

    def test_offsets(self, kernels: Any) -> None:
        data = bytes(range(256)) * 4
        for name in variants(kernels):
            for offset in range(40):
                view = memoryview(data)[offset : offset + 600]
                expected = slow_mask(bytes(view), KEY)
                assert kernels.apply_mask(view, KEY) == expected, (name, offset)
                buffer = bytearray(data)
                kernels.apply_mask_inplace(memoryview(buffer)[offset:700], KEY)
                assert buffer[offset:700] == slow_mask(data[offset:700], KEY)
                assert buffer[:offset] == data[:offset]
                assert buffer[700:] == data[700:]

    def test_pieces(self, kernels: Any) -> None:
        data = bytes(range(100))
        whole = kernels.apply_mask(data, KEY)
        for cut in range(101):
            first = kernels.apply_mask(data[:cut], KEY)
            assert first + kernels.apply_mask(data[cut:], KEY, cut) == whole

    @pytest.mark.parametrize("phase", [4, 7, -1, -4, 2**31, 2**62 + 3])
    def test_phase_counts_modulo_4(self, kernels: Any, phase: int) -> None:
        expected = slow_mask(b"abcdefghij", KEY, phase % 4)
        assert kernels.apply_mask(b"abcdefghij", KEY, phase) == expected

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_buffers(self, kernels: Any, kind: Any) -> None:
        result = kernels.apply_mask(kind(b"abcde"), kind(KEY))
        assert result == slow_mask(b"abcde", KEY)
        assert type(result) is bytes

    def test_items_of_other_sizes(self, kernels: Any) -> None:
        numbers = array("I", [1, 2, 3])
        result = kernels.apply_mask(numbers, KEY)
        assert result == slow_mask(numbers.tobytes(), KEY)
        kernels.apply_mask_inplace(numbers, KEY)
        assert numbers.tobytes() == result

    @pytest.mark.parametrize("size", [0, 3, 5])
    def test_mask_is_4_bytes(self, kernels: Any, size: int) -> None:
        text = rf"^mask is {size} bytes long, not 4 \(RFC 6455, 5\.3\)$"
        for data in (b"", b"abc"):
            for mask in (bytes(size), bytearray(size)):
                with pytest.raises(ValueError, match=text):
                    kernels.apply_mask(data, mask)
                with pytest.raises(ValueError, match=text):
                    kernels.apply_mask_inplace(bytearray(data), mask)

    @pytest.mark.parametrize("wrong", ["abcd", 3, None, [1, 2, 3, 4]])
    def test_not_bytes(self, kernels: Any, wrong: Any) -> None:
        with pytest.raises(TypeError):
            kernels.apply_mask(wrong, KEY)
        with pytest.raises(TypeError):
            kernels.apply_mask(b"abcd", wrong)
        with pytest.raises(TypeError):
            kernels.apply_mask_inplace(wrong, KEY)

    def test_read_only(self, kernels: Any) -> None:
        for data in (b"abc", memoryview(b"abc"), b""):
            with pytest.raises(BufferError):
                kernels.apply_mask_inplace(data, KEY)

    def test_not_contiguous(self, kernels: Any) -> None:
        buffer = bytearray(b"abcdef")
        with pytest.raises(BufferError):
            kernels.apply_mask(memoryview(buffer)[::2], KEY)
        with pytest.raises(BufferError):
            kernels.apply_mask_inplace(memoryview(buffer)[::2], KEY)
        assert buffer == b"abcdef"


MASK = b"\x01\x82\x03\xf4"


class TestParseHeader:
    """5.2: base framing protocol."""

    @pytest.mark.parametrize(
        ("data", "header"),
        [
            ("8105", FrameHeader(True, 1, 0, 5, b"", 2)),
            ("0103", FrameHeader(False, 1, 0, 3, b"", 2)),
            ("8002", FrameHeader(True, 0, 0, 2, b"", 2)),
            ("8900", FrameHeader(True, 9, 0, 0, b"", 2)),
            ("817d", FrameHeader(True, 1, 0, 125, b"", 2)),
            ("827e0100", FrameHeader(True, 2, 0, 256, b"", 4)),
            ("827effff", FrameHeader(True, 2, 0, 65535, b"", 4)),
            ("827f0000000000010000", FrameHeader(True, 2, 0, 65536, b"", 10)),
            ("827f7fffffffffffffff", FrameHeader(True, 2, 0, 2**63 - 1, b"", 10)),
            ("827f00000001ffffffff", FrameHeader(True, 2, 0, 2**33 - 1, b"", 10)),
            # Longer than it need be: tolerated, as everywhere.
            ("827e0005", FrameHeader(True, 2, 0, 5, b"", 4)),
            ("c105", FrameHeader(True, 1, 0x40, 5, b"", 2)),
            ("8185018203f4", FrameHeader(True, 1, 0, 5, MASK, 6)),
            ("82fe0080018203f4", FrameHeader(True, 2, 0, 128, MASK, 8)),
            ("82ff0000000000010000018203f4", FrameHeader(True, 2, 0, 65536, MASK, 14)),
        ],
    )
    def test_valid(self, kernels: Any, data: str, header: FrameHeader) -> None:
        raw = bytes.fromhex(data)

        def parse(piece: Any) -> Any:
            return kernels.parse_header(
                piece, expect_mask=bool(header.mask), allowed_rsv=0x40
            )

        for end in range(len(raw)):
            assert parse(raw[:end]) is None
        for more in (b"", b"payload"):
            for kind in (bytes, bytearray, memoryview):
                got = parse(kind(raw + more))
                assert got == header
                assert type(got) is FrameHeader
                assert [type(item) for item in got] == [type(item) for item in header]

    @pytest.mark.parametrize(
        ("data", "expect_mask", "code", "text"),
        [
            # By byte 0.
            ("91", True, 1002, "reserved bits are set: 0x10, no extension defines them"),
            ("f1", True, 1002, "reserved bits are set: 0x70, no extension defines them"),
            ("83", True, 1002, "unknown opcode: 0x3"),
            ("87", False, 1002, "unknown opcode: 0x7"),
            ("8f", True, 1002, "unknown opcode: 0xf"),
            ("08", True, 1002, "fragmented control frame"),
            ("09", False, 1002, "fragmented control frame"),
            # By byte 1.
            ("8105", True, 1002, "unmasked frame from client"),
            ("8185", False, 1002, "masked frame from server"),
            ("89fe", True, 1002, "control frame is too long: more than 125 bytes, limit 125"),
            ("887f", False, 1002, "control frame is too long: more than 125 bytes, limit 125"),
            # By the first byte of the length.
            ("827f80", False, 1002, "payload length has its top bit set"),
            ("82ffff", True, 1002, "payload length has its top bit set"),
            # The first of several.
            ("93", True, 1002, "reserved bits are set: 0x10, no extension defines them"),
            ("0b", True, 1002, "unknown opcode: 0xb"),
            ("09", True, 1002, "fragmented control frame"),
            ("897e", True, 1002, "unmasked frame from client"),
            # RSV1 is for messages, also where it is defined.
            ("c8", True, 1002, "reserved bits are set: 0x40, no extension defines them"),
            ("c9", False, 1002, "reserved bits are set: 0x40, no extension defines them"),
        ],
    )  # fmt: skip
    def test_invalid(
        self, kernels: Any, data: str, expect_mask: bool, code: int, text: str
    ) -> None:
        raw = bytes.fromhex(data)

        def parse(piece: bytes) -> Any:
            return kernels.parse_header(
                piece, expect_mask=expect_mask, allowed_rsv=0x40
            )

        # At once when the byte is there, not before, and not otherwise later.
        for end in range(len(raw)):
            assert parse(raw[:end]) is None
        for more in (b"", b"\x00", b"\xff" * 20):
            with pytest.raises(ProtocolError) as caught:
                parse(raw + more)
            assert str(caught.value).startswith(text + " (RFC 6455, 5.")
            assert caught.value.code == code

    def test_rsv_not_allowed(self, kernels: Any) -> None:
        for bits in (0x40, 0x20, 0x10, 0x70):
            with pytest.raises(ProtocolError, match=f"0x{bits:02x}"):
                kernels.parse_header(bytes([0x81 | bits]), expect_mask=True)

    def test_arguments(self, kernels: Any) -> None:
        with pytest.raises(TypeError):
            kernels.parse_header("text", expect_mask=True)
        with pytest.raises(TypeError):
            kernels.parse_header(b"\x81\x00", True)
        with pytest.raises(TypeError):
            kernels.parse_header(b"\x81\x00")


class TestBuildHeader:
    @pytest.mark.parametrize(
        ("length", "rest"),
        [
            (0, "00"),
            (1, "01"),
            (125, "7d"),
            (126, "7e007e"),
            (127, "7e007f"),
            (65535, "7effff"),
            (65536, "7f0000000000010000"),
            (2**32, "7f0000000100000000"),
            (2**63 - 1, "7f7fffffffffffffff"),
        ],
    )
    def test_lengths(self, kernels: Any, length: int, rest: str) -> None:
        plain = bytes.fromhex("82" + rest)
        assert kernels.build_header(2, length) == plain
        masked = plain[:1] + bytes([plain[1] | 0x80]) + plain[2:] + MASK
        for kind in (bytes, bytearray, memoryview):
            assert kernels.build_header(2, length, mask=kind(MASK)) == masked

    def test_byte_0(self, kernels: Any) -> None:
        for opcode in range(16):
            for fin in (True, False):
                for rsv in range(0, 0x80, 0x10):
                    header = kernels.build_header(opcode, 0, fin=fin, rsv=rsv)
                    assert header == bytes([fin << 7 | rsv | opcode, 0])

    @pytest.mark.parametrize(
        ("args", "kwargs", "text"),
        [
            ((16, 0), {}, "opcode is out of range: 16, limits 0 and 15"),
            ((-1, 0), {}, "opcode is out of range: -1, limits 0 and 15"),
            ((1, -1), {}, "length is out of range: -1, limits 0 and 2**63 - 1"),
            ((1, 2**63), {}, f"length is out of range: {2**63}, limits 0 and 2**63 - 1"),
            ((1, 2**64), {}, f"length is out of range: {2**64}, limits 0 and 2**63 - 1"),
            ((1, 0), {"rsv": 0x80}, "reserved bits are not within 0x70: 0x80"),
            ((1, 0), {"rsv": 1}, "reserved bits are not within 0x70: 0x1"),
            ((1, 0), {"mask": b"abc"}, "mask is 3 bytes long, not 4 (RFC 6455, 5.3)"),
        ],
    )  # fmt: skip
    def test_out_of_range(
        self, kernels: Any, args: Any, kwargs: Any, text: str
    ) -> None:
        with pytest.raises(ValueError) as caught:
            kernels.build_header(*args, **kwargs)
        assert str(caught.value) == text

    def test_wrong_types(self, kernels: Any) -> None:
        with pytest.raises(TypeError):
            kernels.build_header("1", 0)
        with pytest.raises(TypeError):
            kernels.build_header(1, "0")
        with pytest.raises(TypeError):
            kernels.build_header(1, 0, mask="abcd")


# Text as hexadecimal digits, and the index of the first byte that cannot be.
WRONG = {
    "stray continuation": ("80", 0),
    "stray, last": ("bf", 0),
    "two strays": ("61 80 80", 1),
    "lead without anything, then ASCII": ("c3 41", 1),
    "lead, then lead": ("d0 d0 b0", 1),
    "3-byte lead, then ASCII": ("e2 28 a1", 1),
    "3 bytes, last is ASCII": ("e2 82 28", 2),
    "4 bytes, second is ASCII": ("f0 28 8c bc", 1),
    "4 bytes, third is ASCII": ("f0 90 28 bc", 2),
    "4 bytes, last is ASCII": ("f0 9f 98 28", 3),
    "one continuation too many": ("c3 a9 a9", 2),
    "three too many": ("e2 82 ac 80", 3),
    "five bytes": ("f0 9f 98 80 80", 4),
    "C0": ("c0 80", 0),
    "C1": ("c1 bf", 0),
    "overlong 3": ("e0 80 80", 1),
    "overlong 3, last": ("e0 9f bf", 1),
    "overlong 4": ("f0 80 80 80", 1),
    "overlong 4, last": ("f0 8f bf bf", 1),
    "first surrogate": ("ed a0 80", 1),
    "last surrogate": ("ed bf bf", 1),
    "surrogate pair": ("ed a0 bd ed b8 80", 1),
    "U+110000": ("f4 90 80 80", 1),
    "F5": ("f5 80 80 80", 0),
    "F8": ("f8 88 80 80 80", 0),
    "FC": ("fc 84 80 80 80 80", 0),
    "FE": ("fe", 0),
    "FF": ("ff", 0),
    # Autobahn 6.4: the text can be judged before its end.
    "fail fast": ("ce ba e1 bd b9 cf 83 ce bc ce b5 f4 90 80 80 65", 12),
}
EDGES = [0, 0x7F, 0x80, 0xFF, 0x100, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000]
EDGES += [0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x3FFFF, 0x40000]
EDGES += [0xFFFFF, 0x100000, 0x10FFFF]
TEXTS = [
    "",
    "a",
    "ÿ",
    "€",
    "😀",
    "κόσμε",
    "The quick brown fox jumps over the lazy dog. " * 4,
    "L'été dernier, le garçon a mangé des crêpes. " * 5,
    "Съешь же ещё этих мягких французских булок — да выпей чаю. " * 3,
    "敏捷的棕色狐狸跳过了懒狗天地玄黃宇宙洪荒" * 6,
    "日本語 and ASCII, 混ぜた text. " * 5,
    "😀😁😂🤣😃😄😅😆😉😊" * 4,
    "naïve ≤ 日本 😀! " * 12,
    "".join(map(chr, EDGES)) * 3,
]


def feed(validator: Any, pieces: list[bytes]) -> int:
    """Return the index of the first wrong byte in all, or -1."""
    before = 0
    for piece in pieces:
        wrong = validator.feed(piece)
        if wrong >= 0:
            return before + int(wrong)
        before += len(piece)
    return -1


class TestUtf8Validator:
    """8.1: handling errors in UTF-8-encoded data, as it arrives."""

    @pytest.mark.parametrize("name", WRONG)
    @pytest.mark.parametrize("prefix", [0, 1, 13, 29, 61, 64, 67])
    def test_wrong(self, kernels: Any, name: str, prefix: int) -> None:
        digits, position = WRONG[name]
        for filler in ("x", "д", "語"):
            before = (filler * 70).encode()[: prefix * len(filler.encode())]
            data = before + bytes.fromhex(digits)
            expected = len(before) + position
            for _ in variants(kernels):
                for after in (b"", b"x" * 70):
                    text = data + after
                    pieces = [text[i : i + 1] for i in range(len(text))]
                    assert feed(kernels.Utf8Validator(), pieces) == expected
                    step = 1 if len(text) < 100 else 7
                    for cut in range(0, len(text) + 1, step):
                        pieces = [text[:cut], text[cut:]]
                        assert feed(kernels.Utf8Validator(), pieces) == expected

    @pytest.mark.parametrize("text", TEXTS)
    def test_valid(self, kernels: Any, text: str) -> None:
        data = text.encode()
        boundaries = {len(text[:i].encode()) for i in range(len(text) + 1)}
        for _ in variants(kernels):
            for cut in range(len(data) + 1):
                validator = kernels.Utf8Validator()
                assert validator.feed(data[:cut]) == -1
                assert validator.is_complete is (cut in boundaries)
                assert validator.feed(data[cut:]) == -1
                assert validator.is_complete is True

    def test_empty(self, kernels: Any) -> None:
        validator = kernels.Utf8Validator()
        assert validator.is_complete is True
        assert validator.feed(b"") == -1
        assert validator.feed(b"\xe2\x82") == -1
        assert validator.feed(b"") == -1
        assert validator.is_complete is False

    def test_reset(self, kernels: Any) -> None:
        validator = kernels.Utf8Validator()
        assert validator.feed(b"\xf0\x9f") == -1
        validator.reset()
        assert validator.is_complete is True
        assert validator.feed(b"\x98") == 0
        validator.reset()
        assert validator.feed(b"ok") == -1

    def test_buffers(self, kernels: Any) -> None:
        validator = kernels.Utf8Validator()
        for kind in (bytes, bytearray, memoryview):
            assert validator.feed(kind("é".encode())) == -1
        with pytest.raises(TypeError):
            validator.feed("text")


class TestDecodeUtf8:
    @pytest.mark.parametrize("text", TEXTS)
    def test_valid(self, kernels: Any, text: str) -> None:
        # Every end of the text, so that each length and tail is seen.
        for name in variants(kernels):
            for end in range(len(text) + 1):
                part = text[:end]
                got = kernels.decode_utf8(part.encode())
                assert got == part, (name, end)
                assert type(got) is str

    def test_every_code_point(self, kernels: Any) -> None:
        everything = "".join(
            chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000
        )
        data = everything.encode()
        below = everything[:0xF800].encode()  # the basic plane
        for _ in variants(kernels):
            assert kernels.decode_utf8(data) == everything
            assert kernels.decode_utf8(below) == everything[:0xF800]
            for c in EDGES:
                assert kernels.decode_utf8(chr(c).encode()) == chr(c)

    def test_same_storage_as_python(self, kernels: Any) -> None:
        # A str that is wider than it need be breaks comparison and hashing.
        for text in TEXTS:
            for _ in variants(kernels):
                got = kernels.decode_utf8(text.encode())
                if sys.implementation.name == "cpython":  # PyPy knows no sizes
                    # Twice the text: Python shares strings of one character, and
                    # their size has what others had them encode.
                    expected = sys.getsizeof(text.encode().decode() * 2)
                    assert sys.getsizeof(got * 2) == expected
                assert hash(got) == hash(text)
                assert {text: 1}[got] == 1

    @pytest.mark.parametrize("name", WRONG)
    @pytest.mark.parametrize("prefix", ["", "ab", "д" * 40, "x" * 100])
    def test_wrong(self, kernels: Any, name: str, prefix: str) -> None:
        data = prefix.encode() + bytes.fromhex(WRONG[name][0]) + b"tail"
        with pytest.raises(UnicodeDecodeError) as expected:
            data.decode()
        for _ in variants(kernels):
            with pytest.raises(UnicodeDecodeError) as caught:
                kernels.decode_utf8(data)
            assert str(caught.value) == str(expected.value)
            assert caught.value.start == expected.value.start
            assert caught.value.end == expected.value.end

    @pytest.mark.parametrize("text", ["é", "€", "😀", "x" * 63 + "€", "д" * 50 + "😀"])
    def test_truncated(self, kernels: Any, text: str) -> None:
        data = text.encode()[:-1]
        for _ in variants(kernels):
            with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
                kernels.decode_utf8(data)

    def test_buffers(self, kernels: Any) -> None:
        for kind in (bytes, bytearray, memoryview):
            assert kernels.decode_utf8(kind("naïve".encode())) == "naïve"
        with pytest.raises(TypeError):
            kernels.decode_utf8("text")


#: What borrows data and a mask; the data is a header, and text.
BORROWERS: dict[str, Callable[[Any, Any, Any], object]] = {
    "apply_mask": lambda k, data, mask: k.apply_mask(data, mask),
    "apply_mask_inplace": lambda k, data, mask: k.apply_mask_inplace(data, mask),
    "parse_header": lambda k, data, mask: k.parse_header(data, expect_mask=False),
    "build_header": lambda k, data, mask: k.build_header(2, len(data), mask=mask),
    "Utf8Validator": lambda k, data, mask: k.Utf8Validator().feed(data),
    "decode_utf8": lambda k, data, mask: k.decode_utf8(data),
}


class TestNothingIsHeld:
    """What is borrowed can be resized when the call is over."""

    @pytest.mark.parametrize("name", BORROWERS)
    @pytest.mark.parametrize("kind", ["bytearray", "memoryview"])
    def test_after(self, kernels: Any, name: str, kind: str) -> None:
        # Debuggers and profilers keep frames, and with them what is in variables;
        # PyPy keeps what nobody refers to until it collects garbage.
        frames: list[Any] = []
        buffer, mask = bytearray(b"\x02\x03abcdefg"), bytearray(KEY)
        with memoryview(buffer) as view:
            data = view if kind == "memoryview" else buffer
            sys.setprofile(lambda frame, *_: frames.append(frame))
            try:
                BORROWERS[name](kernels, data, mask)
            finally:
                sys.setprofile(None)
        assert frames
        del buffer[:], mask[:]  # a BufferError if there still is a view


class TestRandomMask:
    """5.3: the masking key must be unpredictable."""

    def test_shape(self, kernels: Any) -> None:
        masks = [kernels.random_mask() for _ in range(3000)]
        assert all(type(mask) is bytes and len(mask) == 4 for mask in masks)
        # That one comes twice by chance is rare; that a pool does is not.
        assert len(set(masks)) >= len(masks) - 3
        for position in range(4):
            assert len({mask[position] for mask in masks}) > 200

    def test_threads_share_no_mask(self, kernels: Any) -> None:
        masks: list[list[bytes]] = [[] for _ in range(8)]
        start = threading.Barrier(len(masks))

        def draw(mine: list[bytes]) -> None:
            start.wait()
            mine.extend(kernels.random_mask() for _ in range(4000))

        threads = [threading.Thread(target=draw, args=(mine,)) for mine in masks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        drawn = [mask for mine in masks for mask in mine]
        assert len(drawn) == 32_000
        assert len(set(drawn)) >= len(drawn) - 5

    def test_fork(self, kernels: Any) -> None:
        code = f"""
import os, sys
from {kernels.__name__} import random_mask
if not hasattr(os, "fork"):
    print("no fork")
    raise SystemExit
random_mask()  # the pool is filled
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, b"".join(random_mask() for _ in range(4)))
    os._exit(0)
os.wait()
ours = b"".join(random_mask() for _ in range(4))
print("same" if os.read(reader, 16) == ours else "different")
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        assert done.stdout.strip() in ("different", "no fork")


class TestVariants:
    def test_names(self, kernels: Any, impl: Impl) -> None:
        names = kernels.kernels()
        assert type(names) is tuple
        assert kernels.KERNEL in names
        assert names[0] == ("python" if impl.tag == "py" else "scalar")
        assert len(set(names)) == len(names)

    def test_select(self, kernels: Any) -> None:
        for name in variants(kernels):
            assert name == kernels.KERNEL

    @pytest.mark.parametrize("name", ["", "mmx", "AVX2", "scalar\0", "é"])
    def test_unknown(self, kernels: Any, name: str) -> None:
        before = kernels.KERNEL
        usable = ", ".join(kernels.kernels())
        with pytest.raises(ValueError) as caught:
            kernels.select_kernel(name)
        assert str(caught.value) == f"unknown kernel: {name!r}, usable here: {usable}"
        assert before == kernels.KERNEL
