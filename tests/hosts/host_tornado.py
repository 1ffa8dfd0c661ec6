"""Tornado with its speed-up, set up as its own test runner does it."""

from __future__ import annotations

import logging

import host_patch


def pytest_configure() -> None:
    # The tests take every line that is logged for a mistake.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    host_patch.pytest_configure()
