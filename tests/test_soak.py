"""The soak, for seconds: real processes, real restarts, every message accounted for."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import soak  # noqa: E402

pytestmark = [
    pytest.mark.source,
    pytest.mark.skipif(platform.system() != "Linux", reason="it reads /proc"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl"),
]


def test_nothing_is_lost_in_restarts() -> None:
    plan = soak.Plan(minutes=0.08, restart_every=1.5, drain=0.5, interval=0.05, seed=1)
    with soak.soaking(plan) as run:
        run.run()
    assert run.faults == [], f"seed {plan.seed}"
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
