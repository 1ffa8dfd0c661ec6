"""The soak, for seconds: real processes, real restarts, every message accounted for."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import soak  # noqa: E402
from bench.soak.judge import judge  # noqa: E402

pytestmark = [
    pytest.mark.source,
    pytest.mark.skipif(platform.system() != "Linux", reason="it reads /proc"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl"),
]


def test_nothing_is_lost_in_restarts() -> None:
    plan = soak.Plan(minutes=0.08, restart_every=1.5, drain=0.5, interval=0.05, seed=1)
    with soak.soaking(plan) as run:
        run.run()
    # The address sanitizer, where it runs, keeps what was freed, and adds to it.
    is_sanitized = "libasan" in os.environ.get("LD_PRELOAD", "")
    faults = [text for text in run.faults if not is_sanitized or "KiB" not in text]
    assert faults == [], f"seed {plan.seed}"
    last = run.rows[-1]
    assert last["restarts"] >= 1
    totals = last["totals"]
    assert set(totals) == {
        "coroutine",
        "listener",
        "resilient",
        "slow reader",
        "subscriber",
        "threads",
    }
    for kind, sums in totals.items():
        assert sums["answered"] > 0, kind
    assert totals["resilient"]["ends"]["restart"] >= 1


MB = 1 << 20


def _served(name: str, life: float, **figures: tuple[int, int]) -> dict[str, Any]:
    """A row of a server process: figures after its warm-up and in the end."""
    growth = {"memory": (50 * MB, 50 * MB), "in_use": (40 * MB, 40 * MB)}
    idle, settled = figures.pop("settled", (30 * MB, 31 * MB))
    return {
        "process": name,
        "role": "server.py",
        "started": 0.0,
        "ended": life,
        "growth": {**growth, "blocks": (100_000, 100_500), **figures},
        "idle": {"memory": idle, "free": 0},
        "settled": {"memory": settled + 9 * MB, "free": 9 * MB},
    }


STEADY = _served("steady", 3600, memory=(53 * MB, 55 * MB))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (_served("rolling", 300), None),
        # Holes: more is resident, no more is in use.
        (_served("rolling", 300, memory=(43 * MB, 52 * MB)), None),
        (_served("rolling", 300, memory=(43 * MB, 61 * MB)), "level off at 56320"),
        (_served("long", 3600, memory=(43 * MB, 52 * MB)), "grew from 44032 to 53248"),
        # Under load, what is in flight goes up and down.
        (_served("rolling", 300, in_use=(35 * MB, 40 * MB)), None),
        (_served("long", 1200, in_use=(35 * MB, 39 * MB)), None),
        (_served("long", 1200, in_use=(35 * MB, 40 * MB)), "to 40960 KiB in use"),
        (_served("rolling", 300, settled=(30 * MB, 33 * MB)), None),
        (_served("rolling", 300, blocks=(100_000, 105_001)), "to 105001 blocks"),
        (_served("rolling", 20, blocks=(100_000, 105_001)), None),
        (_served("rolling", 20, settled=(30 * MB, 34 * MB)), "after its last"),
    ],
)
def test_what_is_a_leak(row: dict[str, Any], fault: str | None) -> None:
    faults = judge([STEADY, row])
    assert len(faults) == (fault is not None)
    assert fault is None or (fault in faults[0] and row["process"] in faults[0])
