"""Frames as values: what they serialize to, what they check, what logs show."""

from __future__ import annotations

import pytest
from helpers import frame as build

from websock import frames
from websock.exceptions import (
    ConnectionClosedError,
    InvalidClose,
    InvalidText,
    ProtocolError,
)
from websock.extensions.base import Extension
from websock.frames import (
    BINARY,
    CLOSE,
    CONT,
    CTRL_OPCODES,
    DATA_OPCODES,
    OK_CLOSE_CODES,
    PING,
    PONG,
    TEXT,
    Close,
    CloseCode,
    Frame,
    FrameHeader,
    Opcode,
)

# RFC 6455, 7.4, and the registry: what a close frame may carry.
VALID = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


class TestClose:
    @pytest.mark.parametrize("code", VALID)
    def test_valid_codes(self, code: int) -> None:
        data = code.to_bytes(2, "big") + b"why"
        assert Close.parse(data) == Close(code, "why")
        assert Close(code, "why").serialize() == data

    @pytest.mark.parametrize("code", INVALID)
    def test_invalid_codes(self, code: int) -> None:
        with pytest.raises(ProtocolError, match=f"invalid close code: {code} ") as info:
            Close.parse(code.to_bytes(2, "big"))
        assert info.value.code == 1002
        with pytest.raises(ValueError, match=f"invalid close code: {code} "):
            Close(code, "").serialize()

    @pytest.mark.parametrize("code", [-1, 65536, 10**30])
    def test_codes_that_are_no_codes(self, code: int) -> None:
        with pytest.raises(InvalidClose):
            Close(code, "").check()

    def test_empty(self) -> None:
        assert Close.parse(b"") == Close(CloseCode.NO_STATUS_RCVD, "")

    def test_one_byte(self) -> None:
        with pytest.raises(ProtocolError, match="close frame with a payload of 1 byte"):
            Close.parse(b"\x03")

    @pytest.mark.parametrize("reason", [b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xc0\x80"])
    def test_reason_that_is_not_utf8(self, reason: bytes) -> None:
        with pytest.raises(InvalidText, match="invalid UTF-8 in close reason") as info:
            Close.parse(b"\x03\xe8" + reason)
        assert info.value.code == 1007

    def test_code_is_judged_before_reason(self) -> None:
        with pytest.raises(ProtocolError, match="invalid close code"):
            Close.parse(b"\x03\xed\xff")

    def test_length_of_reason(self) -> None:
        assert len(Close(1000, "é" * 61 + "e").serialize()) == 125
        with pytest.raises(ValueError, match="too long: 124 bytes, limit 123"):
            Close(1000, "é" * 62).serialize()

    def test_reason_that_cannot_be_encoded(self) -> None:
        with pytest.raises(ValueError, match="surrogate"):
            Close(1000, "\ud800").serialize()

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_types(self, kind: type) -> None:
        assert Close.parse(kind(b"\x03\xe8bye")) == Close(1000, "bye")

    @pytest.mark.parametrize(
        ("close", "text"),
        [
            (Close(1000, ""), "1000 (OK)"),
            (Close(CloseCode.GOING_AWAY, "bye"), "1001 (going away) bye"),
            (Close(1002, ""), "1002 (protocol error)"),
            (Close(1003, ""), "1003 (unsupported data)"),
            (Close(1005, ""), "1005 (no status received [internal])"),
            (Close(1006, ""), "1006 (abnormal closure [internal])"),
            (Close(1007, ""), "1007 (invalid frame payload data)"),
            (Close(1009, ""), "1009 (message too big)"),
            (Close(1014, ""), "1014 (bad gateway)"),
            (Close(1015, ""), "1015 (TLS handshake failure [internal])"),
            (Close(1016, ""), "1016 (unknown)"),
            (Close(2999, ""), "2999 (unknown)"),
            (Close(3000, ""), "3000 (registered)"),
            (Close(4999, ""), "4999 (private use)"),
            (Close(5000, ""), "5000 (unknown)"),
        ],
    )
    def test_text(self, close: Close, text: str) -> None:
        assert str(close) == text

    def test_ok(self) -> None:
        assert sorted(OK_CLOSE_CODES) == [1000, 1001, 1005]


class TestSerialize:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
    @pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY])
    def test_lengths(self, opcode: Opcode, size: int) -> None:
        data = bytes(size)
        for fin in (True, False):
            assert Frame(opcode, data, fin).serialize(mask=False) == build(
                opcode, data, fin=fin
            )

    @pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 65536])
    def test_masked(self, size: int) -> None:
        data = bytes(i % 251 for i in range(size))
        got = Frame(BINARY, data).serialize(mask=True)
        start = len(got) - size - 4
        assert got == build(BINARY, data, mask=got[start : start + 4])

    def test_masks_differ(self) -> None:
        masks = {Frame(PING, b"").serialize(mask=True)[2:] for _ in range(50)}
        assert len(masks) > 45

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_types(self, kind: type) -> None:
        assert Frame(TEXT, kind(b"abc")).serialize(mask=False) == b"\x81\x03abc"

    def test_extensions_in_order(self) -> None:
        class Append(Extension):
            def __init__(self, data: bytes) -> None:
                self.data = data

            def encode(self, frame: Frame) -> Frame:
                return Frame(
                    frame.opcode, bytes(frame.data) + self.data, frame.fin, rsv2=True
                )

        got = Frame(TEXT, b"a").serialize(
            mask=False, extensions=[Append(b"b"), Append(b"c")]
        )
        assert got == b"\xa1\x03abc"

    @pytest.mark.parametrize("mask", [True, False])
    def test_checks(self, mask: bool) -> None:
        with pytest.raises(ProtocolError):
            Frame(PING, bytes(126)).serialize(mask=mask)


class TestCheck:
    @pytest.mark.parametrize(
        ("bits", "shown"),
        [
            ((True, False, False), "0x40"),
            ((False, True, False), "0x20"),
            ((False, False, True), "0x10"),
            ((True, True, True), "0x70"),
        ],
    )
    def test_reserved_bits(self, bits: tuple[bool, bool, bool], shown: str) -> None:
        with pytest.raises(ProtocolError, match=f"reserved bits are set: {shown}"):
            Frame(TEXT, b"", True, *bits).check()

    @pytest.mark.parametrize("opcode", CTRL_OPCODES)
    def test_control(self, opcode: Opcode) -> None:
        Frame(opcode, bytes(125)).check()
        with pytest.raises(ProtocolError, match="is too long: 126 bytes, limit 125"):
            Frame(opcode, bytes(126)).check()
        with pytest.raises(ProtocolError, match="fragmented control frame"):
            Frame(opcode, b"", fin=False).check()

    @pytest.mark.parametrize("opcode", [3, 7, 11, 15, 16])
    def test_opcode(self, opcode: int) -> None:
        with pytest.raises(ProtocolError, match=f"unknown opcode: {opcode:#x}"):
            Frame(opcode, b"").check()  # type: ignore[arg-type]


class TestText:
    @pytest.mark.parametrize(
        ("frame", "text"),
        [
            (Frame(TEXT, b""), "TEXT '' [0 bytes]"),
            (Frame(TEXT, b"a"), "TEXT 'a' [1 byte]"),
            (Frame(TEXT, "café".encode()), "TEXT 'café' [5 bytes]"),
            (Frame(TEXT, b"caf\xc3", fin=False), "TEXT 'caf' [4 bytes, continued]"),
            (Frame(CONT, b"\xa9!"), "CONT '!' [text, 2 bytes]"),
            (Frame(TEXT, b"a\xff"), "TEXT 61 ff [binary, 2 bytes]"),
            (Frame(BINARY, b"a\x00"), "BINARY 61 00 [2 bytes]"),
            (Frame(BINARY, b'{"a": 1}'), "BINARY '{\"a\": 1}' [text, 8 bytes]"),
            (Frame(BINARY, b"a\\x41\n"), "BINARY 'a\\\\x41\\n' [text, 6 bytes]"),
            (
                Frame(BINARY, b"abc", fin=False),
                "BINARY 'abc' [text, 3 bytes, continued]",
            ),
            (Frame(CLOSE, b""), "CLOSE '' [0 bytes]"),
            (Frame(CLOSE, b"\x03\xe8"), "CLOSE 1000 (OK) [2 bytes]"),
            (Frame(CLOSE, b"\x03\xe9bye"), "CLOSE 1001 (going away) bye [5 bytes]"),
            (Frame(CLOSE, b"\x03"), "CLOSE 03 [binary, 1 byte]"),
            (Frame(CLOSE, b"\x03\xe8\xff"), "CLOSE 03 e8 ff [binary, 3 bytes]"),
            (Frame(PING, b""), "PING '' [0 bytes]"),
            (Frame(PING, b"ping"), "PING 'ping' [text, 4 bytes]"),
            (Frame(PONG, b"\xc3\xa9"), "PONG c3 a9 [2 bytes]"),
            (Frame(PONG, b"\x00\xff"), "PONG 00 ff [2 bytes]"),
        ],
    )
    def test_short(self, frame: Frame, text: str) -> None:
        assert str(frame) == text

    @pytest.mark.parametrize("data", [b"a" * 10**6, "é".encode() * 10**6])
    @pytest.mark.parametrize("opcode", DATA_OPCODES)
    def test_long_text(self, opcode: Opcode, data: bytes) -> None:
        for cut in range(3):
            text = str(Frame(opcode, data[cut : len(data) - cut]))
            assert len(text) < 130
            assert "..." in text

    @pytest.mark.parametrize("opcode", DATA_OPCODES)
    def test_long_binary(self, opcode: Opcode) -> None:
        text = str(Frame(opcode, bytes(10**6)))
        assert len(text) < 130
        assert "00 ... 00" in text

    def test_long_reason(self) -> None:
        text = str(Frame(CLOSE, b"\x03\xe8" + b"a" * 120))
        assert len(text) < 130

    @pytest.mark.parametrize("size", range(1, 120))
    def test_every_length(self, size: int) -> None:
        for byte in (b"a", b"\xff"):
            text = str(Frame(BINARY, byte * size))
            assert text.isprintable()
            assert len(text) < 130

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_types(self, kind: type) -> None:
        assert str(Frame(TEXT, kind(b"abc"))) == "TEXT 'abc' [3 bytes]"

    def test_size_can_be_changed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Frame, "MAX_LOG_SIZE", 30)
        assert len(str(Frame(TEXT, b"a" * 1000))) < 60

    def test_control_characters_do_not_reach_the_log(self) -> None:
        assert str(Frame(TEXT, b"\x1b[31m")) == "TEXT 1b 5b 33 31 6d [binary, 5 bytes]"
        close = Close(4000, "\x1b[2J\n\x9b\u2028\u202e ☺")
        shown = r"4000 (private use) \x1b[2J\n\x9b\u2028\u202e ☺"
        assert str(close) == shown
        assert str(Frame(CLOSE, close.serialize())).startswith(f"CLOSE {shown} [")
        assert close.reason.startswith("\x1b")
        assert shown in str(ConnectionClosedError(close, close, True))


class TestNames:
    def test_opcodes(self) -> None:
        assert DATA_OPCODES == (CONT, TEXT, BINARY)
        assert CTRL_OPCODES == (CLOSE, PING, PONG)
        assert Opcode(1) is TEXT

    def test_header(self) -> None:
        header = FrameHeader(True, 1, 0x40, 5, b"", 2)
        assert header.fin
        assert header == (True, 1, 0x40, 5, b"", 2)
        assert header._fields == ("fin", "opcode", "rsv", "length", "mask", "size")

    def test_listed(self) -> None:
        for name in frames.__all__:
            assert hasattr(frames, name)
        for name in ("Opcode", "CloseCode", "Frame", "Close"):
            assert name in frames.__all__
