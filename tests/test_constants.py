"""The numbers: against the RFC, and against those that the C code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from websock import constants, exceptions, frames
from websock.exceptions import Failure

HEADER = Path(__file__).resolve().parent.parent / "csrc" / "ws_err.h"


def test_opcodes() -> None:
    for opcode in frames.Opcode:
        assert getattr(constants, f"OP_{opcode.name}") == opcode
    assert [int(o) for o in frames.Opcode] == [0x0, 0x1, 0x2, 0x8, 0x9, 0xA]


def test_close_codes() -> None:
    assert constants.CLOSE_NORMAL == frames.CloseCode.NORMAL_CLOSURE == 1000
    assert constants.CLOSE_GOING_AWAY == frames.CloseCode.GOING_AWAY == 1001
    assert constants.CLOSE_PROTOCOL_ERROR == frames.CloseCode.PROTOCOL_ERROR == 1002
    assert constants.CLOSE_NO_STATUS == frames.CloseCode.NO_STATUS_RCVD == 1005
    assert constants.CLOSE_ABNORMAL == frames.CloseCode.ABNORMAL_CLOSURE == 1006
    assert constants.CLOSE_INVALID_DATA == frames.CloseCode.INVALID_DATA == 1007
    assert constants.CLOSE_POLICY_VIOLATION == frames.CloseCode.POLICY_VIOLATION == 1008
    assert constants.CLOSE_TOO_BIG == frames.CloseCode.MESSAGE_TOO_BIG == 1009
    assert constants.CLOSE_INTERNAL_ERROR == frames.CloseCode.INTERNAL_ERROR == 1011


def test_reserved_bits() -> None:
    assert (constants.RSV1, constants.RSV2, constants.RSV3) == (0x40, 0x20, 0x10)


def test_are_plain_and_listed() -> None:
    for name in constants.__all__:
        assert type(getattr(constants, name)) in (int, str)
    names = {name for name in vars(constants) if name.isupper()}
    assert names == set(constants.__all__)


def test_limits_of_the_handshake_fit_together() -> None:
    assert constants.MAX_LINE_LENGTH < constants.MAX_HEAD_SIZE
    # What Autobahn sends in one message, and what it must not be less than.
    assert constants.MAX_FRAGMENTS >= 65536


def test_failures_are_those_of_c() -> None:
    if not HEADER.exists():  # the tests of a wheel come without the C code
        pytest.skip("csrc is not here")
    found = re.findall(r"WS_(?:ERR_)?([A-Z0-9_]+) *= *([0-9]+)", HEADER.read_text())
    assert {name: int(number) for name, number in found} == {
        failure.name: int(failure) for failure in Failure
    }


def test_failures_are_listed() -> None:
    assert "Failure" in exceptions.__all__
    assert [int(failure) for failure in Failure] == list(range(len(Failure)))
