"""Rules about the files of the project, as tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.source

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "websock"
CSRC = ROOT / "csrc"
BUILT = {"build", "dist", "node_modules", "__pycache__", "reports", "corpus"}
TEXT = {
    ".c", ".cfg", ".h", ".html", ".in", ".js", ".json", ".md", ".mjs", ".pxd", ".py",
    ".pyx", ".sh", ".toml", ".yml",
}  # fmt: skip


def is_ours(path: Path) -> bool:
    """Tell whether a file is source, and not built, installed or cached."""
    parts = path.relative_to(ROOT).parts
    hidden = any(
        part.startswith(".") and part not in (".ci", ".github", ".gitignore")
        for part in parts
    )
    generated = path.parent == PACKAGE and path.name.endswith(("_c.c", ".html"))
    return not (hidden or generated or BUILT & {*parts})


def text_files() -> list[Path]:
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and is_ours(path)
        and (path.suffix in TEXT or path.name in ("Makefile", "run", "bootstrap"))
    ]


def named(paths: list[Path]) -> dict[str, Path]:
    return {path.relative_to(ROOT).as_posix(): path for path in paths}


TEXT_FILES = named(text_files())
PYTHON_FILES = {name: path for name, path in TEXT_FILES.items() if path.suffix == ".py"}
C_FILES = named(sorted([*CSRC.rglob("*.c"), *CSRC.rglob("*.h")]))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_there_are_files() -> None:
    assert {"setup.py", "Makefile", "websock/_compat.py"} <= set(TEXT_FILES)
    assert {"csrc/ws_mask.h", "csrc/ws_frame.h", "csrc/ws_utf8.h"} <= set(C_FILES)


def offenders(files: dict[str, Path], pattern: str) -> list[str]:
    """Return where a pattern is found, as lines that an editor can open."""
    found = []
    for name, path in files.items():
        for number, line in enumerate(read(path).split("\n"), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


def test_csrc_knows_nothing_of_python() -> None:
    names = r"#\s*include\s*[<\"]Python\.h|\bPy(Object|Bytes|Unicode|Mem|Err)_?\w*"
    assert offenders(C_FILES, names) == []


def test_csrc_takes_no_random_numbers() -> None:
    # Masks come from the operating system's generator, through Python.
    tests = ("csrc/test/", "csrc/fuzz/")
    files = {name: path for name, path in C_FILES.items() if not name.startswith(tests)}
    assert offenders(files, r"\b(s?rand|random|drand48)\s*\(") == []


def test_c_is_reached_through_one_file() -> None:
    for path in [*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")]:
        if path.name != "_csrc.pxd":
            found = re.findall(r"cdef extern from \"(ws_\w+\.h)\"", read(path))
            assert not found, f"{path.name} declares {', '.join(found)} itself"


def test_no_paths_of_a_machine() -> None:
    paths = r"(?<![\w.])/(?:home|root|work|Users)/\w"
    assert offenders(TEXT_FILES, paths) == []


def test_whitespace() -> None:
    assert offenders(TEXT_FILES, r"[ \t\r]$") == []
    files = {name: path for name, path in TEXT_FILES.items() if path.name != "Makefile"}
    assert offenders(files, r"\t") == []
    assert [
        n for n, path in TEXT_FILES.items() if not f"\n{read(path)}".endswith("\n")
    ] == []


def test_annotations_are_not_evaluated() -> None:
    wanted = "from __future__ import annotations\n"
    for name, path in PYTHON_FILES.items():
        text = read(path)
        if "def " in text and name != "setup.py":
            assert wanted in text, name


def test_one_file_reads_the_environment() -> None:
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]:
        if path.name != "_compat.py":
            # What the operating system defines for everybody is not ours: proxies.
            found = re.findall(r"\bos\.(?:environ|getenv)\b", read(path))
            assert not found, f"{path.name} reads the environment"
            assert "WEBSOCK_KERNEL" not in read(path) or path.name.startswith(
                "_kernels"
            )


def test_tests_are_no_package() -> None:
    # With it pytest puts the root on sys.path, and the tree hides the wheel.
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_setup_stays_small() -> None:
    assert len(read(ROOT / "setup.py").splitlines()) < 100
