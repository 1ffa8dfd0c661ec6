"""Fixtures of the micro-benchmarks: ``pytest bench``."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))

TEXTS = {
    "ascii": "The quick brown fox jumps over the lazy dog. ",
    "latin": "Ça coûte déjà très cher à Zürich, évidemment. ",
    "cyrillic": "Съешь же ещё этих мягких французских булок. ",
    "cjk": "視野無限廣窗外有藍天吾輩は猫である名前はまだ無い",
    "emoji": "😀😃😄😁😆🚀🎉🐍",
    "mixed": "price: 12.50 €, naïve, Привет, 世界, 👍; ",
}
SIZES = (8, 32, 125, 1024, 16384, 1 << 20)


@dataclass(frozen=True)
class Impl:
    """One twin; the name of its modules ends in the tag."""

    tag: str

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"websock._{name}_{self.tag}")


@pytest.fixture(scope="session", params=["c", "py"])
def impl(request: pytest.FixtureRequest) -> Impl:
    """Each twin in turn; a missing extension is an error."""
    return Impl(request.param)


@pytest.fixture(scope="session")
def mask() -> bytes:
    return b"\x12\x9a\x00\xff"


def payload(size: int) -> bytes:
    """Return bytes that compress badly and repeat never."""
    return os.urandom(size)


def text_of(kind: str, size: int) -> bytes:
    """Return about ``size`` bytes of valid UTF-8, filled up with ASCII."""
    unit = TEXTS[kind].encode()
    data = (unit * (size // len(unit) + 1))[:size]
    data = data.decode(errors="ignore").encode()
    return data + b"." * (size - len(data))
