"""wsaccel's names: what they do, and how programs come to them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import websock
from websock import speedups
from websock.speedups.wsaccel import (
    Utf8Validator,
    XorMaskerNull,
    XorMaskerSimple,
    createXorMasker,
)

PROGRAM = """
import sys
import websock, websock.speedups as speedups
speedups.install("wsaccel")
[found] = [s for s in speedups.status() if s.name == "wsaccel"]
print(found.state)
try:
    import wsaccel
    from wsaccel.utf8validator import Utf8Validator
    from wsaccel.xormask import XorMaskerSimple, createXorMasker
    import wsaccel.xormask
    print(XorMaskerSimple.__module__, wsaccel.xormask.createXorMasker is createXorMasker)
except ImportError as exc:
    print(exc)
speedups.uninstall("wsaccel")
print([name for name in sys.modules if name.startswith("wsaccel")])
try:
    import wsaccel
except ModuleNotFoundError as exc:
    print(exc)
"""


@given(
    st.binary(min_size=4, max_size=4),
    st.lists(st.binary(min_size=1, max_size=20), max_size=6),
)
def test_masks_go_on_where_they_were(mask: bytes, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    want = bytes(byte ^ mask[i & 3] for i, byte in enumerate(whole))
    for masker in (
        XorMaskerSimple(mask),
        createXorMasker(mask),
        createXorMasker(bytearray(mask), 9),
    ):
        for _ in range(2):
            assert b"".join(masker.process(piece) for piece in pieces) == want
            assert masker.pointer() == len(whole)
            masker.reset()
            assert masker.pointer() == 0


def test_no_mask() -> None:
    masker = XorMaskerNull(b"abcd")
    data = bytearray(b"abc")
    assert masker.process(data) is data
    assert masker.process(b"de") == b"de"
    assert masker.pointer() == 5
    masker.reset()
    assert masker.pointer() == 0


@pytest.mark.parametrize("mask", [b"", b"abc", b"abcde"])
def test_a_mask_has_four_bytes(mask: bytes) -> None:
    with pytest.raises(AssertionError, match="exactly 4 bytes"):
        XorMaskerSimple(mask)


def slow_validate(text: bytes) -> tuple[bool, bool, int]:
    """Judge a text byte by byte: is it valid, may it end, where is it wrong."""
    for size in range(1, len(text) + 1):
        if not any(is_text(text[:size] + end) for end in ENDS):
            return False, False, size - 1
    return True, is_text(text), len(text)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# One of these completes any character that can be completed.
ENDS = [
    b"",
    b"\x80",
    b"\xa0",
    b"\x90",
    b"\x80\x80",
    b"\xa0\x80",
    b"\x90\x80\x80",
    b"\x80\x80\x80",
]


@given(
    st.lists(
        st.sampled_from(
            [
                b"a",
                b"\xe2",
                b"\x98",
                b"\x83",
                b"\xf0",
                b"\x9f",
                b"\xed",
                b"\xa0",
                b"\xc0",
                b"\xf4\x8f",
                b"\xbf",
            ]
        ),
        max_size=7,
    ),
    st.integers(0, 9),
)
def test_texts_in_pieces(parts: list[bytes], place: int) -> None:
    text = b"".join(parts)
    first, second = text[:place], text[place:]
    validator = Utf8Validator()
    for _ in range(2):
        valid, ends, at = slow_validate(first)
        assert validator.validate(first) == (valid, ends, at, at)
        if valid:
            valid, ends, at = slow_validate(text)
            assert validator.validate(second) == (valid, ends, at - len(first), at)
        else:
            assert validator.validate(b"more") == (False, False, 0, at)
            assert validator.validate(b"") == (True, False, 0, at)
        validator.reset()


def test_import_wsaccel_finds_them() -> None:
    """In a process of its own: no wsaccel is installed with the tests."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    if websock.BACKEND == "c":
        want = [
            "patched",
            "websock.speedups.wsaccel True",
            "[]",
            "No module named 'wsaccel'",
        ]
    else:
        want = [
            "useless",
            "No module named 'wsaccel'",
            "[]",
            "No module named 'wsaccel'",
        ]
    assert done.stdout.splitlines() == want


def test_a_wsaccel_that_is_there_stays(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wsaccel.py").write_text("real = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    speedups.install("wsaccel")
    try:
        assert importlib.import_module("wsaccel").real
    finally:
        speedups.uninstall("wsaccel")
        assert sys.modules.pop("wsaccel").real
