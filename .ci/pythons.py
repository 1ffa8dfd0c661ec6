"""The Pythons of this machine, for builds and tests on more than our own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["find_pythons", "tag_of"]

# CPython 3.12 is cpython-312, without its lock 3.13 is cpython-313t, PyPy is pypy311.
CODE = (
    "import sys; assert sys.version_info >= (3, 11);"
    "print(sys.implementation.cache_tag + getattr(sys, 'abiflags', ''))"
)


def tag_of(python: Path | str) -> str:
    """Return a name for what an interpreter runs; empty if it is too old, or none."""
    try:
        asked = subprocess.run([python, "-c", CODE], capture_output=True, text=True)
    except OSError:
        return ""
    return "" if asked.returncode else asked.stdout.strip()


def candidates() -> list[Path]:
    """Return what may be an interpreter, on the path and among those of pyenv."""
    names = [f"python3.{minor}{kind}" for minor in range(11, 20) for kind in ("", "t")]
    found = [shutil.which(name) for name in [*names, "pypy3"]]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(root.glob("versions/*3.*/bin/python"), reverse=True)
    return [*map(Path, filter(None, found)), *installed]


def find_pythons() -> dict[str, Path]:
    """Return one interpreter for each tag; those on the path come first."""
    pythons: dict[str, Path] = {}
    for python in candidates():
        if tag := tag_of(python):
            pythons.setdefault(tag, python)
    return pythons
