"""Patches wsproto before its own tests import it."""

from __future__ import annotations

import importlib

import pytest

from websock import speedups

speedups.install("wsproto")


def pytest_collection_finish() -> None:
    importlib.import_module("wsproto")
    [status] = [one for one in speedups.status() if one.name == "wsproto"]
    if status.state != "patched":
        raise pytest.UsageError(f"wsproto is not patched: {status.reason}")
