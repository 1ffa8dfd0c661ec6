"""The pages for those who add a kernel variant or a host library, done step by step."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from doc_pages import ROOT, Folder, blocks, files

pytestmark = pytest.mark.source

TIMEOUT = 300
KERNEL = "docs/contributing/kernel.md"
HOST = "docs/contributing/host.md"

SHOUT = """
__version__ = "1.2.3"


def mask(key, data):
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
"""


def snippets(page: str, language: str) -> list[str]:
    """Return the examples that are parts of files."""
    found = [b for b in blocks(page) if b.language == language and b.name is None]
    return [block.text for block in found]


def insert_below(path: Path, line: str, more: str) -> None:
    """Put text below a line of a file, which has it once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(line) == 1, line
    path.write_text(text.replace(line, line + more), encoding="utf-8")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """The C sources, with the variant of the page in them."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    csrc = tmp_path / "csrc"
    shutil.copytree(ROOT / "csrc", csrc, ignore=shutil.ignore_patterns("build"))
    [(name, text)] = files(KERNEL).items()
    assert name == "csrc/ws_wide.c"
    (tmp_path / name).write_text(text, encoding="utf-8")
    declared, table = snippets(KERNEL, "c")
    for path, snippet in (("ws_variants.h", declared), ("ws_kernel.c", table)):
        first, second = snippet.splitlines(keepends=True)
        insert_below(csrc / path, first, second)
    insert_below(
        csrc / "Makefile", "SOURCES = ws_cpu.c ws_kernel.c ws_mask.c", " ws_wide.c"
    )
    counts = csrc / "test" / "test_kernel.c"
    more = re.sub(
        r"count == (\d)",
        lambda found: f"count == {int(found[1]) + 1}",
        counts.read_text(encoding="utf-8"),
    )
    counts.write_text(more, encoding="utf-8")
    return csrc


def test_format_of_a_kernel_variant(kernel: Path) -> None:
    """What "make check" does with the file of the page."""
    program = shutil.which("clang-format", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("clang-format is not installed in this environment")
    shutil.copy(ROOT / ".clang-format", kernel.parent)
    done = subprocess.run(
        (program, "--dry-run", "--Werror", "ws_wide.c", "ws_kernel.c", "ws_variants.h"),
        cwd=kernel,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr


def test_a_kernel_variant(kernel: Path) -> None:
    """It is found by the tests; and it is, when it is wrong."""

    def sh(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            script,
            shell=True,
            cwd=kernel,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    # As the Makefile does, with each source compiled once and without optimisation.
    makefile = (kernel / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    sources = re.search(r"^SOURCES = (.*)$", makefile, re.MULTILINE)
    assert sources is not None
    done = sh(f"cc -std=c11 -Wall -Wextra -Werror -c {sources[1]}")
    assert done.returncode == 0, done.stderr
    done = sh("cc -std=c11 -o test_kernel test/test_kernel.c *.o && ./test_kernel")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_kernel: wide\n" in done.stdout

    path = kernel / "ws_wide.c"
    text = path.read_text(encoding="utf-8")
    assert "(i + phase) & 3" in text
    path.write_text(text.replace("(i + phase) & 3", "i & 3"), encoding="utf-8")
    done = sh(
        "cc -std=c11 -c ws_wide.c"
        " && cc -std=c11 -o test_mask test/test_mask.c *.o && ./test_mask"
    )
    assert done.returncode != 0
    assert "wide" in done.stdout + done.stderr


def test_a_host_library(tmp_path: Path) -> None:
    package = tmp_path / "websock"
    shutil.copytree(
        ROOT / "websock", package, ignore=shutil.ignore_patterns("__pycache__", "*.c")
    )
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "host_patches.py", tmp_path / "tests")
    (tmp_path / "shout.py").write_text(SHOUT, encoding="utf-8")
    for name, text in files(HOST).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    [line] = snippets(HOST, "python")
    insert_below(package / "speedups" / "_registry.py", "HOSTS = {\n", line)

    environment = {
        **Folder(tmp_path).environment,
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(tmp_path / "tests"))),
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, "-P", "-m", *arguments),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    printed = run(
        *("pytest", "-q", "-p", "no:cacheprovider", "tests/test_speedups_shout.py")
    )
    assert "2 passed" in printed
    # The commands know it, too; on the pure backend there is nothing to gain.
    assert re.search(
        r"^shout .*(patched|useless)", run("websock", "doctor"), re.MULTILINE
    )
