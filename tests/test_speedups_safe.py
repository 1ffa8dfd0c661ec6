"""Patches of all hosts together: they are safe to put in and to take out, in any order."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from host_patches import logged

from websock.speedups._patch import Patch, _slots
from websock.speedups._registry import HOSTS, NOTHING_TO_GAIN, Entry, Registry

TIMEOUT = 60  # seconds

KINDS: dict[str, type[Patch]] = {
    name: import_module(module).PATCH for name, module in HOSTS.items()
}
FOUND = [name for name, kind in KINDS.items() if Entry(name, kind).is_found]
# That of wsaccel replaces nothing, and stands beside any version.
WITH_MODULES = [name for name in FOUND if KINDS[name].modules]


def load(name: str) -> None:
    """Import all of a host that its patch is about."""
    with warnings.catch_warnings():
        # Some parts are deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in (*KINDS[name].modules, *KINDS[name].parts):
            import_module(module)


def attributes(name: str) -> dict[tuple[str, ...], Any]:
    """Return what a host's modules, and the classes in them, have."""
    found: dict[tuple[str, ...], Any] = {}
    for module_name in (*KINDS[name].modules, *KINDS[name].parts):
        module = sys.modules[module_name]
        for key, value in vars(module).items():
            found[module_name, key] = value
            if isinstance(value, type) and value.__module__ == module_name:
                found.update({(module_name, key, k): v for k, v in vars(value).items()})
    return {k: v for k, v in found.items() if k[-1][:2] != "__" or k[-1] == "__init__"}


def changed(before: dict[Any, Any], after: dict[Any, Any]) -> list[Any]:
    """Return the names of what is another object, is new or is gone."""
    missing = object()
    return [
        key
        for key in {**before, **after}
        if before.get(key, missing) is not after.get(key, missing)
    ]


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that patches on either backend, and the hosts as they were."""
    for name in FOUND:
        load(name)
    before = {name: attributes(name) for name in WITH_MODULES}
    finders, slots = list(sys.meta_path), dict(_slots)
    made = Registry(HOSTS, backend="c")
    yield made
    made.uninstall()
    for name, found in before.items():
        assert changed(found, attributes(name)) == []
    assert sys.meta_path == finders
    assert _slots == slots


def states(registry: Registry) -> dict[str, str]:
    return {found.name: found.state for found in registry.status()}


def test_there_are_hosts() -> None:
    assert {"uvicorn", "websockets", "wsproto"} <= set(WITH_MODULES)


@pytest.mark.parametrize("name", FOUND)
def test_installing_twice(name: str, registry: Registry) -> None:
    before = attributes(name)
    registry.install(name)
    assert states(registry)[name] == "patched"
    once = attributes(name)
    assert bool(changed(before, once)) is (name in WITH_MODULES)
    registry.install(name)
    registry.install()
    assert changed(once, attributes(name)) == []
    registry.uninstall(name)
    assert changed(before, attributes(name)) == []


@pytest.mark.parametrize("seed", range(10))
def test_uninstalling_in_any_order(seed: int, registry: Registry) -> None:
    rng = random.Random(seed)
    before = {name: attributes(name) for name in FOUND}
    registry.install(*rng.sample(FOUND, len(FOUND)))
    left = set(FOUND)
    for name in rng.sample(FOUND, len(FOUND)):
        registry.uninstall(name)
        left.remove(name)
        for other in WITH_MODULES:
            assert bool(changed(before[other], attributes(other))) is (other in left)
            assert states(registry)[other] == ("patched" if other in left else "off")


def test_threads_that_install_at_once(registry: Registry) -> None:
    barrier = threading.Barrier(6)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            barrier.wait(TIMEOUT)
            registry.install()
            for _ in range(20):
                rng.choice([registry.install, registry.uninstall])(rng.choice(FOUND))
            registry.install()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert errors == []
    registry.install()
    assert [name for name in FOUND if states(registry)[name] != "patched"] == []


@pytest.mark.parametrize("name", WITH_MODULES)
def test_self_test_that_fails(
    name: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def self_test(self: Patch) -> None:
        raise AssertionError("3 is not 4")

    monkeypatch.setattr(KINDS[name], "self_test", self_test)
    before = attributes(name)
    with logged("websock.speedups") as lines:
        registry.install(name)
        registry.install(name)
    assert changed(before, attributes(name)) == []
    reason = "self-test failed: AssertionError: 3 is not 4"
    assert lines == [("WARNING", f"{name} is left alone: {reason}")]
    assert states(registry)[name] == "failed"


@pytest.mark.parametrize("name", WITH_MODULES)
def test_version_that_is_not_known(
    name: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[name]
    monkeypatch.setattr(kind, "version", lambda self: "99.1")
    before = attributes(name)
    with logged("websock.speedups") as lines:
        registry.install(name)
        registry.install(name)
    assert changed(before, attributes(name)) == []
    first, end = kind.versions
    reason = f"version 99.1, known are {first} to below {end}"
    assert lines == [("WARNING", f"{name} is left alone: {reason}")]
    assert states(registry)[name] == "unknown version"


# Whether a host is patched as soon as it is there, and its parts as they come.
LATER = """
import importlib, sys
from websock.speedups._registry import HOSTS, Registry

name = sys.argv[1]
registry = Registry(HOSTS, backend="c")
kind = importlib.import_module(HOSTS[name]).PATCH

def state():
    return {found.name: found.state for found in registry.status()}[name]

registry.install()
assert not set(kind.modules) & set(sys.modules), "install() imports the host"
print(state())
for module in kind.modules:
    importlib.import_module(module)
print(state())
for module in kind.parts:
    importlib.import_module(module)
print(state(), registry._entries[name].patch.parts_left)
"""


def python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", WITH_MODULES)
def test_host_that_is_imported_later(name: str) -> None:
    assert python(LATER, name) == "waiting\npatched\npatched []\n"


PURE = """
import importlib, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import websock.speedups
from websock.speedups._patch import _slots
from websock.speedups._registry import HOSTS

finders = list(sys.meta_path)
websock.speedups.install()
for module in HOSTS.values():
    for name in importlib.import_module(module).PATCH.modules:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # it is not installed
assert websock.BACKEND == "py"
assert sys.meta_path == finders
assert "wsaccel" not in sys.modules
print(len(_slots), {found.state for found in websock.speedups.status()} - {"absent"})
"""


def test_pure_backend_has_nothing_to_gain() -> None:
    assert python(PURE, WEBSOCK_PURE="1", WEBSOCK_REQUIRE_EXT="") == (
        f"{NOTHING_TO_GAIN}\n0 {{'useless'}}\n"
    )
