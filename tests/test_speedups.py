"""The framework of the speed-ups: patches, when they are applied, and what is said."""

from __future__ import annotations

import importlib
import logging
import random
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import websock
from websock import speedups
from websock.speedups._patch import MISSING, Patch, parse_version
from websock.speedups._registry import Registry
from websock.speedups._watcher import Watcher

TIMEOUT = 60  # seconds

# A host, as a library would be: a package with a version, and a module that it imports
# only when it is asked to.
HOST_INIT = "__version__ = '1.5'\n"
HOST_FAST = """
from . import counts

counts.imports += 1

def mask(data):
    return b"slow " + data

class Parser:
    @staticmethod
    def parse(data):
        return [data]
"""
HOST_COUNTS = "imports = 0\n"

# Its patch, as a module of this package would be.
PATCH = """
from websock.speedups import Patch

class HostPatch(Patch):
    host = {name!r}
    modules = ({name!r} + ".core",)
    versions = ("1.0", "2.0")
    gain = "masks are fast"
    options = {{"word": "fast"}}
    made = []
    ways = {{"self_test": None, "apply": None}}

    def __init__(self, **options):
        super().__init__(**options)
        self.made.append(self)

    def self_test(self):
        if self.ways["self_test"] is not None:
            raise self.ways["self_test"]

    def apply(self):
        core = self.module({name!r} + ".core")
        word = self.chosen["word"].encode()
        self.replace(core, "mask", lambda data: word + b" " + data)
        if self.ways["apply"] is not None:
            raise self.ways["apply"]
        self.replace(core.Parser, "parse", staticmethod(lambda data: [data, word]))
        self.replace(core, "extra", word)

PATCH = HostPatch
"""


class Host:
    """A library that exists for one test, and the patch for it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.write("__init__.py", HOST_INIT)
        self.write("core.py", HOST_FAST)
        self.write("counts.py", HOST_COUNTS)
        (folder / f"{name}_patch.py").write_text(PATCH.format(name=name))

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)
        importlib.invalidate_caches()

    @property
    def entry(self) -> dict[str, str]:
        return {self.name: f"{self.name}_patch"}

    @property
    def patch(self) -> Any:
        return importlib.import_module(f"{self.name}_patch").PATCH

    def load(self) -> Any:
        return importlib.import_module(f"{self.name}.core")

    @property
    def is_patched(self) -> bool:
        core = self.load()
        found = {
            core.mask(b"x") != b"slow x",
            core.Parser.parse(b"x") != [b"x"],
            hasattr(core, "extra"),
        }
        assert len(found) == 1, "it is patched in part"
        return found.pop()


@pytest.fixture
def make_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield lambda name="speedhost": Host(tmp_path, name)
    for name in set(sys.modules) - before:
        if name.startswith("speedhost"):
            del sys.modules[name]


@pytest.fixture
def host(make_host: Any) -> Any:
    return make_host()


@pytest.fixture
def registry(host: Host) -> Iterator[Registry]:
    finders = list(sys.meta_path)
    made = Registry(host.entry, backend="c")
    yield made
    made.uninstall()
    assert sys.meta_path == finders, "the watcher is still there"


def state(registry: Registry) -> tuple[str, str]:
    [found] = registry.status()
    return found.state, found.reason


# -- patches ---------------------------------------------------------------------------


class Plain(Patch):
    host = "plain"
    modules = ("plain",)
    versions = ("1", "2")


def test_replaced_attributes_are_put_back() -> None:
    class Owner:
        kept = "original"

        @staticmethod
        def static(x: int) -> int:
            return x

    before = dict(vars(Owner))
    patch = Plain()
    assert patch.replace(Owner, "kept", "new") == "original"
    assert patch.replace(Owner, "added", 1) is MISSING
    original = patch.replace(Owner, "static", staticmethod(lambda x: -x))
    assert isinstance(original, staticmethod)
    assert (Owner.kept, Owner.added, Owner.static(2)) == ("new", 1, -2)  # type: ignore[attr-defined]
    patch.revert()
    assert dict(vars(Owner)) == before
    patch.revert()
    assert dict(vars(Owner)) == before
    assert repr(MISSING) == "MISSING"


@pytest.mark.parametrize("seed", range(20))
def test_patches_of_one_attribute_are_reverted_in_any_order(seed: int) -> None:
    owner = ModuleType("owner")
    owner.name = 0  # type: ignore[attr-defined]
    patches = [Plain() for _ in range(5)]
    for number, patch in enumerate(patches):
        patch.replace(owner, "name", number + 1)
    left = list(enumerate(patches, 1))
    rng = random.Random(seed)
    while left:
        _, patch = left.pop(rng.randrange(len(left)))
        patch.revert()
        assert owner.name == (left[-1][0] if left else 0)


def test_what_somebody_else_put_over_it_stays() -> None:
    owner = ModuleType("owner")
    owner.name = "original"  # type: ignore[attr-defined]
    patch = Plain()
    patch.replace(owner, "name", "ours")
    owner.name = "theirs"  # type: ignore[attr-defined]
    patch.revert()
    assert owner.name == "theirs"


def test_inherited_attributes_are_not_copied() -> None:
    class Base:
        name = "base"

    class Derived(Base):
        pass

    patch = Plain()
    patch.replace(Derived, "name", "ours")
    assert Derived.name == "ours"
    patch.revert()
    assert "name" not in vars(Derived)
    assert Derived.name == "base"


def test_versions() -> None:
    patch = Plain()
    for known in ("1", "1.0", "1.0.0", "1.9.9", "1.10rc1", "1.2.post1"):
        assert patch.knows(known)
    for unknown in ("0.9", "2", "2.0", "2.0.1", "10", "", "x", None):
        assert not patch.knows(unknown)
    assert parse_version("1.2.0") == parse_version("1.2")


# -- installing ------------------------------------------------------------------------


def test_host_that_is_imported(host: Host, registry: Registry) -> None:
    host.load()
    registry.install()
    assert host.is_patched
    [found] = registry.status()
    assert (found.name, found.version) == (host.name, "1.5")
    assert (found.state, found.reason) == ("patched", "masks are fast")
    registry.uninstall()
    assert not host.is_patched
    assert state(registry) == ("off", "not asked for: see websock.speedups.install()")


def test_host_that_is_imported_later(host: Host, registry: Registry) -> None:
    registry.install()
    assert state(registry) == ("waiting", f"patched when {host.name}.core is imported")
    assert host.name not in sys.modules
    importlib.import_module(host.name)
    assert state(registry)[0] == "waiting"
    core = host.load()
    assert state(registry)[0] == "patched"
    assert host.is_patched
    # It is an ordinary module, with its own loader.
    assert "exec_module" not in vars(core.__loader__)
    assert core.__spec__.origin == str(host.folder / "core.py")
    assert sys.modules[f"{host.name}.counts"].imports == 1
    assert not any(isinstance(finder, Watcher) for finder in sys.meta_path)


def test_looking_for_a_host_does_not_import_it(host: Host, registry: Registry) -> None:
    registry.install()
    assert find_spec(f"{host.name}.core") is not None
    assert f"{host.name}.core" not in sys.modules
    assert state(registry)[0] == "waiting"
    host.load()
    assert host.is_patched


def test_host_whose_import_fails_at_first(host: Host, registry: Registry) -> None:
    host.write("core.py", "raise LookupError('of the host')")
    registry.install()
    with pytest.raises(LookupError, match="of the host"):
        host.load()
    assert state(registry)[0] == "waiting"
    host.write("core.py", HOST_FAST)
    host.load()
    assert host.is_patched


def test_host_with_several_modules(host: Host, registry: Registry) -> None:
    host.write("second.py", "")
    host.patch.modules = (f"{host.name}.second", f"{host.name}.core")
    registry.install()
    host.load()
    assert not host.is_patched
    assert state(registry)[0] == "waiting"
    importlib.import_module(f"{host.name}.second")
    assert host.is_patched


PART = """
def apply_part(self, name):
    self.told.append(name)
    part = self.module(name)
    if part.value == "bad":
        raise RuntimeError("no such thing")
    self.replace(part, "value", "fast")
"""


@pytest.fixture
def parts(host: Host) -> list[str]:
    """Give the host two parts that its core does not import; return who was told."""
    for name in ("first", "second"):
        host.write(f"{name}.py", "value = 'slow'\n")
    names = (f"{host.name}.first", f"{host.name}.second")
    namespace: dict[str, Any] = {}
    exec(PART, namespace)
    host.patch.told = []
    host.patch.parts = names
    host.patch.apply_part = namespace["apply_part"]
    told: list[str] = host.patch.told
    return told


def load_part(host: Host, name: str) -> Any:
    return importlib.import_module(f"{host.name}.{name}")


@pytest.mark.parametrize("order", ["first core second", "core second first"])
@pytest.mark.parametrize("install_at", [0, 1, 2, 3])
def test_parts_are_patched_when_they_are_imported(
    host: Host, registry: Registry, parts: list[str], order: str, install_at: int
) -> None:
    seen = []
    for step, name in enumerate([*order.split(), ""]):
        if step == install_at:
            registry.install()
        if name:
            importlib.import_module(f"{host.name}.{name}")
            seen.append(name)
        is_on = install_at <= step and "core" in seen
        assert (state(registry)[0] == "patched") is is_on
        for part in ("first", "second"):
            if part in seen:
                assert load_part(host, part).value == ("fast" if is_on else "slow")
    assert sorted(parts) == sorted(host.patch.parts)
    registry.uninstall()
    assert load_part(host, "first").value == load_part(host, "second").value == "slow"


def test_parts_that_are_never_imported(
    host: Host, registry: Registry, parts: list[str]
) -> None:
    registry.install()
    host.load()
    assert load_part(host, "second").value == "fast"
    registry.uninstall()
    assert load_part(host, "first").value == "slow"
    registry.install()
    assert load_part(host, "first").value == "fast"
    assert sorted(parts) == sorted([*host.patch.parts, f"{host.name}.second"])


def test_part_that_cannot_be_patched(
    host: Host, registry: Registry, parts: list[str], warnings: Any
) -> None:
    host.write("second.py", "value = 'bad'\n")
    registry.install()
    assert load_part(host, "first").value == "slow"
    host.load()
    assert load_part(host, "first").value == "fast"
    assert load_part(host, "second").value == "bad"
    reason = f"cannot patch {host.name}.second: RuntimeError: no such thing"
    assert state(registry) == ("failed", reason)
    assert load_part(host, "first").value == "slow"
    assert not host.is_patched
    assert warnings() == [("WARNING", f"{host.name} is left alone: {reason}")]


def test_installing_twice(host: Host, registry: Registry) -> None:
    registry.install()
    registry.install(host.name)
    host.load()
    mask = host.load().mask
    registry.install()
    assert host.load().mask is mask
    registry.uninstall()
    registry.uninstall()
    assert not host.is_patched


def test_uninstalling_what_waits(host: Host, registry: Registry) -> None:
    registry.install()
    registry.uninstall(host.name)
    host.load()
    assert not host.is_patched


def test_options(host: Host, registry: Registry) -> None:
    host.load()
    registry.install(host.name, word="quick")
    assert host.load().mask(b"x") == b"quick x"
    registry.install(host.name, word="swift")
    assert host.load().mask(b"x") == b"swift x"
    registry.uninstall()
    assert not host.is_patched
    with pytest.raises(TypeError, match="has no option 'words'"):
        registry.install(host.name, words="x")
    with pytest.raises(TypeError, match="options need the name of a host"):
        registry.install(word="x")


def test_unknown_names(host: Host, registry: Registry) -> None:
    text = f"no speed-up for 'speedhots': there are {host.name}"
    for function in (registry.install, registry.uninstall, registry.modules):
        with pytest.raises(ValueError) as info:
            function("speedhots")
        assert str(info.value) == text
    assert registry.modules(host.name) == (f"{host.name}.core",)


def test_several_hosts_in_any_order(make_host: Any) -> None:
    hosts = [make_host(f"speedhost{number}") for number in range(4)]
    entries = {name: module for host in hosts for name, module in host.entry.items()}
    registry = Registry(entries, backend="c")
    registry.install()
    hosts[2].load()
    registry.uninstall(hosts[1].name)
    for host in hosts:
        host.load()
    assert [host.is_patched for host in hosts] == [True, False, True, True]
    registry.uninstall(hosts[3].name, hosts[0].name)
    assert [host.is_patched for host in hosts] == [False, False, True, False]
    assert [found.state for found in registry.status()] == [
        "off",
        "off",
        "patched",
        "off",
    ]
    registry.uninstall()
    assert not any(host.is_patched for host in hosts)


# -- what does not fit -----------------------------------------------------------------


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "websock.speedups")

    def texts() -> list[tuple[str, str]]:
        return [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if record.name == "websock.speedups"
        ]

    return texts


@pytest.mark.parametrize("version", ["0.9", "2.0", "2.1.dev1"])
def test_unknown_version(
    version: str, host: Host, registry: Registry, warnings: Any
) -> None:
    host.write("__init__.py", f"__version__ = {version!r}\n")
    registry.install()
    host.load()
    registry.install()
    assert not host.is_patched
    reason = f"version {version}, known are 1.0 to below 2.0"
    assert state(registry) == ("unknown version", reason)
    assert warnings() == [("WARNING", f"{host.name} is left alone: {reason}")]


def test_no_version(host: Host, registry: Registry) -> None:
    host.write("__init__.py", "")
    host.load()
    registry.install()
    assert not host.is_patched
    reason = "version unknown, known are 1.0 to below 2.0"
    assert state(registry) == ("unknown version", reason)


@pytest.mark.parametrize("when", ["now", "later"])
def test_failing_self_test(
    when: str, host: Host, registry: Registry, warnings: Any
) -> None:
    host.patch.ways["self_test"] = AssertionError("3 is not 4")
    if when == "now":
        host.load()
    registry.install()
    host.load()
    registry.install()
    assert not host.is_patched
    reason = "self-test failed: AssertionError: 3 is not 4"
    assert state(registry) == ("failed", reason)
    assert warnings() == [("WARNING", f"{host.name} is left alone: {reason}")]
    # Once it works, it is installed.
    host.patch.ways["self_test"] = None
    registry.install()
    assert host.is_patched


def test_patch_that_fails_half_way(
    host: Host, registry: Registry, warnings: Any
) -> None:
    host.patch.ways["apply"] = AttributeError("no Parser")
    registry.install()
    host.load()
    assert not host.is_patched
    reason = "cannot patch: AttributeError: no Parser"
    assert state(registry) == ("failed", reason)
    assert warnings() == [("WARNING", f"{host.name} is left alone: {reason}")]


def test_host_that_is_not_installed(host: Host, warnings: Any) -> None:
    host.patch.package = "speedhost_absent"
    registry = Registry(host.entry, backend="c")
    finders = list(sys.meta_path)
    registry.install()
    assert state(registry) == ("absent", "not installed")
    assert registry.status()[0].version is None
    assert sys.meta_path == finders
    assert warnings() == []


def test_pure_backend(host: Host, warnings: Any) -> None:
    registry = Registry(host.entry, backend="py")
    finders = list(sys.meta_path)
    host.load()
    registry.install()
    assert not host.is_patched
    text = "the pure backend is in use: there is nothing to gain"
    assert state(registry) == ("useless", text)
    assert warnings() == [("INFO", text)]
    assert sys.meta_path == finders
    registry.uninstall()
    assert state(registry)[0] == "off"
    with pytest.raises(ValueError):
        registry.install("speedhots")
    with pytest.raises(TypeError):
        registry.install(host.name, words="x")


# -- threads ---------------------------------------------------------------------------


def together(*functions: Any) -> None:
    """Call functions in threads that begin at the same time."""
    barrier = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def call(function: Any) -> None:
        try:
            barrier.wait(TIMEOUT)
            function()
        except BaseException as exc:
            errors.append(exc)

    threads = [
        threading.Thread(target=call, args=(function,), daemon=True)
        for function in functions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "a thread waits for ever"
    assert errors == []


@pytest.mark.parametrize("turn", range(5))
def test_threads_that_install_at_once(
    turn: int, host: Host, registry: Registry
) -> None:
    if turn % 2:
        host.load()
    together(*[registry.install] * 8)
    core = host.load()
    assert host.is_patched
    applied = [patch for patch in host.patch.made if core.mask.__closure__]
    assert applied
    registry.uninstall()
    # Had two been applied, one would be left.
    assert not host.is_patched


@pytest.mark.parametrize("turn", range(20))
def test_importing_while_it_is_installed(
    turn: int, host: Host, registry: Registry
) -> None:
    together(registry.install, host.load, registry.install)
    assert state(registry)[0] == "patched"
    assert host.is_patched
    assert sys.modules[f"{host.name}.counts"].imports == 1


def test_import_that_is_under_way(host: Host, registry: Registry) -> None:
    """Installed by another thread while the host's module is being executed."""
    gate = SimpleNamespace(begun=threading.Event(), go=threading.Event())
    sys.modules["speedhost_gate"] = gate  # type: ignore[assignment]
    host.write(
        "core.py",
        "import speedhost_gate as gate\n"
        "gate.begun.set()\n"
        f"assert gate.go.wait({TIMEOUT})\n" + HOST_FAST,
    )
    importer = threading.Thread(target=host.load, daemon=True)
    importer.start()
    assert gate.begun.wait(TIMEOUT)
    installer = threading.Thread(target=registry.install, daemon=True)
    installer.start()
    gate.go.set()
    importer.join(TIMEOUT)
    installer.join(TIMEOUT)
    assert not importer.is_alive()
    assert not installer.is_alive()
    assert host.is_patched


def test_installing_and_uninstalling_at_random(host: Host, registry: Registry) -> None:
    host.load()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            rng.choice([registry.install, registry.uninstall, registry.status])()

    together(*(lambda seed=seed: work(seed) for seed in range(4)))
    assert host.is_patched is (state(registry)[0] == "patched")
    registry.uninstall()
    assert not host.is_patched


# -- the watcher -----------------------------------------------------------------------


def test_other_finders_that_ask_all_finders(host: Host) -> None:
    seen: list[str] = []

    class Nosy:
        """Asks the others through the import system, as some import hooks do."""

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if name == f"{host.name}.core" and name not in seen:
                seen.append(name)
                return find_spec(name)
            return None

    first, second = Registry(host.entry, backend="c"), Registry(host.entry, "c")
    nosy: Any = Nosy()
    try:
        first.install()
        sys.meta_path.insert(0, nosy)
        second.install()
        host.load()
        assert seen == [f"{host.name}.core"]
        assert state(first)[0] == state(second)[0] == "patched"
        first.uninstall()
        assert host.is_patched
        second.uninstall()
        assert not host.is_patched
    finally:
        sys.meta_path.remove(nosy)
        first.uninstall()
        second.uninstall()


def test_names_that_are_not_watched_are_not_looked_for() -> None:
    told: list[str] = []
    watcher = Watcher(told.append)
    watcher.watch(["speedhost_absent", "speedhost_other"])
    try:
        assert watcher.find_spec("json") is None
        assert watcher.find_spec("speedhost_absent") is None
        assert sys.meta_path.count(watcher) == 1  # type: ignore[arg-type]
        watcher.watch(["speedhost_other"])
        assert sys.meta_path.count(watcher) == 1  # type: ignore[arg-type]
        watcher.forget(["speedhost_absent"])
        assert watcher in sys.meta_path
    finally:
        watcher.forget(["speedhost_absent", "speedhost_other"])
    assert watcher not in sys.meta_path
    watcher.forget(["never watched"])
    assert told == []


# -- the package's own hosts -----------------------------------------------------------


def test_public_functions() -> None:
    names = [found.name for found in speedups.status()]
    assert "uvicorn" in names
    assert len(names) == len(set(names))
    assert speedups.modules("uvicorn") == ("uvicorn.config",)
    with pytest.raises(ValueError, match="no speed-up for 'unicorn': there are "):
        speedups.install("unicorn")


def test_uvicorn_is_patched_and_put_back() -> None:
    import uvicorn.config

    init = uvicorn.config.Config.__init__
    speedups.install("uvicorn")
    try:
        [found] = [item for item in speedups.status() if item.name == "uvicorn"]
        if websock.BACKEND == "c":
            assert (found.state, found.version) == ("patched", uvicorn.__version__)
            assert uvicorn.Config("app:app").ws == (
                "websock.speedups.uvicorn:WebSocketProtocol"
            )
        else:
            assert found.state == "useless"
            assert uvicorn.Config("app:app").ws == "auto"
        # Who asks for another protocol gets it.
        assert uvicorn.Config("app:app", ws="wsproto").ws == "wsproto"
        assert uvicorn.Config("app:app", ws="none").ws == "none"
    finally:
        speedups.uninstall("uvicorn")
    assert uvicorn.config.Config.__init__ is init
    assert uvicorn.Config("app:app").ws == "auto"
