"""The benchmark of worker processes, tried briefly; no time is measured."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import workers  # noqa: E402
from bench.cases import Case  # noqa: E402

pytestmark = [
    pytest.mark.source,
    pytest.mark.skipif(platform.system() != "Linux", reason="the harness needs Linux"),
]


def test_a_row_and_its_report() -> None:
    if shutil.which("cc") is None:
        pytest.skip("the load generator needs a C compiler")
    case = Case(connections=8, loop="asyncio", seconds=0.05, warmup=0.01)
    rows = [workers.measure(case, 2, sys.executable)]
    assert rows[0]["answered"] > 0
    assert rows[0]["cpu_us"] > 0
    rows += [{**rows[0], "rate": rows[0]["rate"] * 2, "workers": 4}]
    facts = {"command": "x", "cpu": "y", "cores": 2, "governor": "", "kernel": ""}
    facts |= {"python": "", "commit": "", "date": "", "busy": 0}
    text = workers.markdown(facts, rows)
    assert f"## {case.title}" in text
    assert "| 4 | " in text
    assert "| 2.00 |" in text
