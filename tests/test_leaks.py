"""The leak check in small: what connections leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from websock._compat import USE_EXT

SCRIPT = Path(__file__).parent / "leaks" / "run.py"


@pytest.mark.source
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_memory_stays_flat() -> None:
    environment = {**os.environ, "WEBSOCK_PURE": "" if USE_EXT else "1"}
    # The address sanitizer, where it runs, else keeps what was freed.
    asan = environment.get("ASAN_OPTIONS", "")
    environment["ASAN_OPTIONS"] = f"{asan}:quarantine_size_mb=1".lstrip(":")
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPT)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("flat") == 6
