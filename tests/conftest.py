"""What all tests share: the two backends, and the options that choose them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

# Before anything is frozen by linked.freeze(): it asks the collector who refers to what.
import hypothesis  # noqa: F401
import pytest


@dataclass(frozen=True)
class Impl:
    """One backend, by the ending of its modules: ``c`` or ``py``."""

    tag: str

    def module(self, name: str) -> ModuleType:
        """Import a twin by its own name: a missing one is an error, never a skip."""
        return import_module(f"websock._{name}_{self.tag}")


IMPLS = [
    pytest.param(Impl("c"), marks=pytest.mark.ext, id="c"),
    pytest.param(Impl("py"), id="py"),
]


@pytest.fixture(scope="session", params=IMPLS)
def impl(request: pytest.FixtureRequest) -> Impl:
    """Each backend in turn."""
    backend: Impl = request.param
    return backend


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether attacks have their full size; otherwise a part shows the same."""
    return bool(request.config.getoption("--every-api"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children can be interrupted, also when this process ignores SIGINT.

    A shell without job control starts what runs in the background so, and children
    inherit it; a handler they do not inherit.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-ext",
        action="store_true",
        help="leave out the tests of the compiled modules",
    )
    parser.addoption(
        "--every-api",
        action="store_true",
        help="attack every API, not only the three that the others are made of",
    )


def pytest_report_header(config: pytest.Config) -> str:
    from websock._compat import BACKEND
    from websock.version import version

    return f"websock: {version}, backend {BACKEND}"


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    for item in items:
        if "impl" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.twins)
    names = []
    if config.getoption("--no-ext"):
        names.append("ext")
    if not config.getoption("--every-api"):
        names.append("every_api")
    kept, left_out = [], []
    for item in items:
        marked = any(item.get_closest_marker(name) for name in names)
        (left_out if marked else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
