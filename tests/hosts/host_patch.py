"""Installs the speed-up of the host whose tests are run, before they are imported."""

from __future__ import annotations

import os
from importlib import import_module

import pytest

from websock import speedups


def pytest_configure() -> None:
    name = os.environ["WEBSOCK_HOST"]
    speedups.install(name)
    for module in speedups.modules(name):
        import_module(module)
    [found] = [status for status in speedups.status() if status.name == name]
    if found.state != "patched":
        raise pytest.UsageError(f"{name} is not patched: {found.state}, {found.reason}")
