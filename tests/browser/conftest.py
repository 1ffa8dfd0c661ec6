"""A browser, driven by selenium; run with ``make browser``, and only then.

Needs ``chromium`` and ``chromedriver`` (Debian: ``chromium-driver``), and selenium from
PyPI.  Without them these tests fail: whoever asks for them wants to know.  Pytest does
not walk into this directory by itself (``norecursedirs``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Nothing but this machine is asked for anything.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def find(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.fail(f"{names[0]} is not installed (Debian: chromium, chromium-driver)")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a past."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        pytest.fail("selenium is not installed (pip install selenium)")
    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium", "chromium-browser", "google-chrome")
    options.accept_insecure_certs = True  # of an authority that lives for one run
    for argument in ARGUMENTS:
        options.add_argument(argument)
    profile = tmp_path_factory.mktemp("profile")
    options.add_argument(f"--user-data-dir={profile}")
    service = Service(find("chromedriver"))
    started = webdriver.Chrome(options=options, service=service)
    try:
        started.set_script_timeout(25)
        started.set_page_load_timeout(25)
        yield started
    finally:
        started.quit()
