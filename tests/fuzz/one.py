"""Fuzz one target with atheris: ``one.py TARGET [libFuzzer's arguments]``."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["websock"], enable_loader_override=False):
    from fuzz.inputs import cut_in_turn
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    cut_in_turn()
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
