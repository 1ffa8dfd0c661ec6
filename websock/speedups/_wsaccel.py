"""Has ``import wsaccel`` find :mod:`websock.speedups.wsaccel`, where none is installed.

Where the real one is installed it stays, and nothing is done.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ._patch import Patch
from .wsaccel import Utf8Validator, createXorMasker, make_modules

__all__ = ["PATCH"]


class WsaccelPatch(Patch):
    """Puts modules with wsaccel's names into ``sys.modules``."""

    host = "wsaccel"
    package = "websock"  # what stands for it; the host itself is to be absent
    modules = ()
    versions = ("0", "1")
    gain = "import wsaccel finds websock's, where no other is installed"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: dict[str, ModuleType] = {}

    def knows(self, version: str | None) -> bool:
        """Whether it can be installed: beside any version, and beside none."""
        return True

    def self_test(self) -> None:
        """Check the masks and the validator once."""
        masker = createXorMasker(b"\x01\x02\x03\x04")
        if masker.process(b"\x00") + masker.process(b"\x00\x00") != b"\x01\x02\x03":
            raise ValueError("masks are wrong")
        if Utf8Validator().validate(b"a\xff") != (False, False, 1, 1):
            raise ValueError("UTF-8 is not judged")

    def apply(self) -> None:
        """Put the modules in, unless there is a wsaccel."""
        if "wsaccel" in sys.modules or find_spec("wsaccel") is not None:
            return
        self._made = make_modules()
        sys.modules.update(self._made)

    def revert(self) -> None:
        """Take the modules out; who has imported them keeps them."""
        for name, module in self._made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        self._made = {}


PATCH = WsaccelPatch
