"""The leak check in small: what connections leave behind, and that it would be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from websock._compat import USE_EXT

DIRECTORY = Path(__file__).parent / "leaks"

pytestmark = [
    pytest.mark.source,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc"),
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WEBSOCK_PURE": "" if USE_EXT else "1"}
    # The address sanitizer, where it runs, else keeps what was freed.
    asan = environment.get("ASAN_OPTIONS", "")
    environment["ASAN_OPTIONS"] = f"{asan}:quarantine_size_mb=1".lstrip(":")
    environment.pop("PYTHONMALLOC", None)  # without its own, Python counts no blocks
    return subprocess.run(
        [sys.executable, "-P", *command],
        env=environment,
        cwd=DIRECTORY,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_memory_stays_flat() -> None:
    done = run("run.py")
    if done.returncode:
        # A busy machine may add a few once; a leak is there each time.
        done = run("run.py")
    assert done.returncode == 0, done.stdout + done.stderr
    _, *lines = done.stdout.splitlines()
    assert len(lines) == 14
    assert all(line.endswith("flat") for line in lines)


LEAKS = """
import sys
sys.path.append(".")
import run

class Held: ...

kept = []

def make(keep):
    async def once(places):
        if keep is not None:
            kept.append(keep())
    return once

run.set_aside()
for keep in (None, Held, lambda: bytes(100), lambda: Held):
    print(run.judge("leak", make(keep), 30, None))
"""


@pytest.mark.skipif(
    not hasattr(sys, "getrefcount"), reason="this interpreter counts no references"
)
def test_leaks_are_seen() -> None:
    done = run("-c", LEAKS)
    assert done.returncode == 0, done.stderr
    texts = done.stdout.splitlines()
    assert texts[1::2] == ["True", "False", "False", "False"]
    assert texts[0].endswith("flat")
    for text, told in zip(
        texts[2::2], ("'Held': 90", "'blocks': ", "'references': "), strict=True
    ):
        assert told in text
