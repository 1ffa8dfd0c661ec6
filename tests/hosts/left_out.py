"""Leaves out the tests of a host that ``left_out.toml`` lists; a pytest plugin."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    with open(Path(__file__).with_suffix(".toml"), "rb") as file:
        left_out = tomllib.load(file).get(os.environ["WEBSOCK_HOST"], {})
    kept, dropped, used = [], [], set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        entry = next((end for end in left_out if name.endswith(end)), None)
        if entry is None:
            kept.append(item)
        else:
            used.add(entry)
            dropped.append(item)
    unknown = set(left_out) - used
    # With a part of the tests, those that are left out need not be among them.
    if unknown and not config.getoption("keyword"):
        raise pytest.UsageError(f"left out, but there is no such test: {unknown}")
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
