"""What connects extensions to the codec."""

from __future__ import annotations

from typing import Any

import pytest

from websock.exceptions import PayloadTooBig, ProtocolError
from websock.extensions.base import (
    ClientExtensionFactory,
    Extension,
    ServerExtensionFactory,
)
from websock.extensions.deflate import DeflateTransform
from websock.extensions.permessage_deflate import PerMessageDeflate
from websock.frames import BINARY, CONT, TEXT, Frame
from websock.transform import ExtensionChain, make_transform


class Wrap(Extension):
    """Puts letters around payloads, and marks frames with a bit."""

    def __init__(self, letter: bytes, bit: int = 0x20) -> None:
        self.name = f"x-{letter.decode()}"  # type: ignore[assignment]
        self.letter = letter
        self.rsv = bit
        self.seen: list[Frame] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.seen.append(frame)
        data = bytes(frame.data)
        assert data[:1] == data[-1:] == self.letter
        bits = [frame.rsv1, frame.rsv2, frame.rsv3]
        bits[(0x40, 0x20, 0x10).index(self.rsv)] = False
        return Frame(frame.opcode, data[1:-1], frame.fin, *bits)

    def encode(self, frame: Frame) -> Frame:
        self.seen.append(frame)
        data = memoryview(self.letter + bytes(frame.data) + self.letter)
        bits = [frame.rsv1, frame.rsv2, frame.rsv3]
        bits[(0x40, 0x20, 0x10).index(self.rsv)] = True
        return Frame(frame.opcode, data, frame.fin, *bits)


class TestMake:
    def test_nothing(self) -> None:
        assert make_transform([]) is None

    def test_deflate_alone_is_called_directly(self) -> None:
        extension = PerMessageDeflate(False, False, 15, 15)
        transform = make_transform([extension])
        assert type(transform) is DeflateTransform
        assert transform is extension.transform
        assert transform.allowed_rsv == 0x40

    def test_others_go_through_a_chain(self) -> None:
        transform = make_transform([Wrap(b"a")])
        assert type(transform) is ExtensionChain
        assert transform.allowed_rsv == 0x20
        assert not transform.passes_plain

    def test_deflate_and_others(self) -> None:
        deflate = PerMessageDeflate(False, False, 15, 15, compress_min_size=0)
        transform = make_transform([Wrap(b"a"), deflate])
        assert type(transform) is ExtensionChain
        assert transform.allowed_rsv == 0x60


class TestChain:
    def test_order(self) -> None:
        chain = ExtensionChain([Wrap(b"a", 0x20), Wrap(b"b", 0x10)])
        assert chain.allowed_rsv == 0x30
        assert chain.encode(1, True, b"x") == (0x30, b"baxab")
        assert chain.decode(1, True, 0x30, b"baxab", None) == b"x"

    def test_frames_are_whole(self) -> None:
        wrap = Wrap(b"a")
        chain = ExtensionChain([wrap])
        chain.encode(2, False, b"x")
        chain.decode(0, True, 0x20, b"axa", 10)
        assert wrap.seen == [
            Frame(BINARY, b"x", False),
            Frame(CONT, b"axa", True, rsv2=True),
        ]
        assert wrap.seen[0].opcode is BINARY

    def test_payloads_are_bytes(self) -> None:
        chain = ExtensionChain([Wrap(b"a")])
        assert type(chain.encode(1, True, b"x")[1]) is bytes
        assert type(chain.decode(1, True, 0x20, b"axa", None)) is bytes

    def test_with_deflate(self) -> None:
        def make() -> ExtensionChain:
            deflate = PerMessageDeflate(False, False, 15, 15, compress_min_size=0)
            return ExtensionChain([Wrap(b"a"), deflate])

        sender, receiver = make(), make()
        for _ in range(3):
            rsv, data = sender.encode(1, False, b"hello" * 9)
            assert rsv == 0x60
            assert receiver.decode(1, False, rsv, data, None) == b"hello" * 9
            rsv, data = sender.encode(0, True, b"!")
            assert rsv == 0x20
            assert receiver.decode(0, True, rsv, data, None) == b"!"

    def test_bit_that_nobody_clears(self) -> None:
        class Lazy(Wrap):
            def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
                return frame

        with pytest.raises(ProtocolError, match="reserved bits are set: 0x20"):
            ExtensionChain([Lazy(b"a")]).decode(1, True, 0x20, b"", None)

    def test_limit(self) -> None:
        class Grow(Wrap):
            limits: list[int | None] = []

            def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
                self.limits.append(max_size)
                return Frame(frame.opcode, bytes(10), frame.fin)

        chain = ExtensionChain([Grow(b"a")])
        assert chain.decode(1, True, 0, b"", 10) == bytes(10)
        assert chain.decode(1, True, 0, b"", None) == bytes(10)
        with pytest.raises(PayloadTooBig, match="10 bytes, limit 9"):
            chain.decode(1, True, 0, b"", 9)
        assert Grow.limits == [10, None, 9]

    @pytest.mark.parametrize("frame", [Frame(TEXT, b"", False), Frame(BINARY, b"")])
    def test_extension_that_changes_too_much(self, frame: Frame) -> None:
        class Bad(Extension):
            def decode(self, _: Frame, *, max_size: int | None = None) -> Frame:
                return frame

            def encode(self, _: Frame) -> Frame:
                return frame

        chain = ExtensionChain([Bad()])
        for call in (
            lambda: chain.decode(1, True, 0, b"", None),
            lambda: chain.encode(1, True, b""),
        ):
            with pytest.raises(ProtocolError, match="an extension changed") as info:
                call()
            assert info.value.code == 1011


class TestBase:
    def test_everything_is_to_be_written(self) -> None:
        frame = Frame(TEXT, b"")
        calls: list[Any] = [
            lambda: Extension().decode(frame),
            lambda: Extension().encode(frame),
            lambda: ClientExtensionFactory().get_request_params(),
            lambda: ClientExtensionFactory().process_response_params([], []),
            lambda: ServerExtensionFactory().process_request_params([], []),
        ]
        for call in calls:
            with pytest.raises(NotImplementedError):
                call()
