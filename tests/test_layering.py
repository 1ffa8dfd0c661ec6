"""Imports go downward only, and twins import only their own kind."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.source

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "websock"

# Every module of the package and its layer.  A new module is entered here, so that
# its place is decided and not found.
LAYERS: dict[str, int] = {
    # L0: leaves.
    "_compat": 0,
    "_optional": 0,
    "constants": 0,
    "datastructures": 0,
    "exceptions": 0,
    "frames": 0,
    "typing": 0,
    "version": 0,
    # L1: pure functions on bytes.
    "_kernels": 1,
    "_kernels_py": 1,
    "_kernels_c": 1,
    "_csrc": 1,
    # L2: the sans-IO protocol.
    "_codec": 2,
    "_codec_py": 2,
    "_codec_c": 2,
    "client": 2,
    "closing": 2,
    "extensions": 2,
    "extensions.base": 2,
    "extensions.deflate": 2,
    "extensions.permessage_deflate": 2,
    "handshake": 2,
    "headers": 2,
    "http11": 2,
    "protocol": 2,
    "proxy": 2,
    "redirect": 2,
    "server": 2,
    "transform": 2,
    "uri": 2,
    # L3: the base of a connection.
    "_slots": 1,
    "_loop_py": 3,
    "_loop_c": 3,
    "_channel_py": 3,
    "_channel_c": 3,
    "_inbox_py": 3,
    "_inbox_c": 3,
    "_stream": 3,
    "_stream_py": 3,
    "_stream_c": 3,
    "admission": 3,
    "timers": 3,
    "log_limit": 3,
    # L4: what people see.
    "prepared": 3,
    "slow": 3,
    "stats": 3,
    "routing": 4,
    "listener": 4,
    "asyncio": 4,
    "events": 4,
    "hub": 4,
    "sync": 4,
    "topics": 4,
    "workers": 4,
    "__init__": 5,
    # L5: other libraries, and commands.
    "testing": 5,
    "speedups": 5,
    "report": 5,
    "commands": 5,
    "__main__": 6,
}
#: What the sans-IO layers must do without; frameworks of input and output, and time.
NOT_SANS_IO = {
    "asyncio", "concurrent", "multiprocessing", "select", "selectors", "signal",
    "socket", "ssl", "subprocess", "threading", "time",
}  # fmt: skip


def name_of(path: Path) -> str:
    """Return ``"asyncio.server"`` for ``websock/asyncio/server.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def layer_of(name: str) -> int:
    """Return the layer of a module, or of the package that it is in."""
    while name not in LAYERS:
        name, _, last = name.rpartition(".")
        assert last, "the empty name has no layer"
        assert name, f"{last} has no layer: enter it in LAYERS"
    return LAYERS[name]


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
COMPILED = {
    path: name_of(path)
    for ending in ("*.pyx", "*.pxd")
    for path in sorted(PACKAGE.rglob(ending))
}


class Imports(ast.NodeVisitor):
    """The modules that a file imports, without those for type checkers only."""

    def __init__(self, name: str, is_package: bool) -> None:
        self.package = name.split(".") if is_package else name.split(".")[:-1]
        if name == "__init__":
            self.package = []
        self.own: set[str] = set()
        self.foreign: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        # A chooser's "TYPE_CHECKING or not USE_EXT" has both branches run.
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add_absolute(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            self.add_absolute(node.module or "")
            return
        base = self.package[: len(self.package) + 1 - node.level]
        if node.module:
            self.own.add(".".join([*base, node.module]))
        else:
            self.own.update(".".join([*base, alias.name]) for alias in node.names)

    def add_absolute(self, module: str) -> None:
        top, _, rest = module.partition(".")
        if top == "websock":
            self.own.add(rest or "__init__")
        elif top:
            self.foreign.add(top)


def imports(name: str, path: Path) -> Imports:
    found = Imports(name, path.name == "__init__.py")
    found.visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def imports_of_cython(path: Path) -> set[str]:
    """The package's modules that a .pyx or .pxd imports or cimports."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"^\s*from\s+\.(\w+)\s+c?import", text, re.MULTILINE))
    for module in re.findall(r"^\s*from\s+\.\s+c?import\s+(\w+)", text, re.MULTILINE):
        found.add(module)
    for module in re.findall(r"^\s*from\s+websock\.(\w+)", text, re.MULTILINE):
        found.add(module)
    return found


def contributors_map() -> dict[str, int]:
    """Return the modules and packages that the map in CONTRIBUTING.md names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = text.split("\nwebsock/\n")[1].split("\ntests/")[0]
    found: dict[str, int] = {}
    layer = -1
    for line in drawing.splitlines():
        if line.startswith(" " * 8):
            continue  # the description of the line above goes on
        if layered := re.match(r" +L(\d)", line):
            layer = int(layered[1])
            line = line[layered.end() :]
        for name in re.split(r" {2,}", line.strip())[0].split():
            found[name.rstrip("/")] = layer
    return found


def test_map_of_contributors() -> None:
    """It names every module of the package at its layer, and nothing else."""
    expected = {}
    for name in [*MODULES, *COMPILED.values()]:
        first = name.partition(".")[0]
        if not first.startswith("__"):
            expected[re.sub("_(py|c)$", "", first)] = layer_of(first)
    assert contributors_map() == expected


def test_every_module_has_a_layer() -> None:
    for name in [*MODULES, *COMPILED.values()]:
        layer_of(name)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name: str) -> None:
    layer = layer_of(name)
    for target in imports(name, MODULES[name]).own:
        assert layer_of(target) <= layer, f"{name} (L{layer}) imports {target}"
        if layer == 0:
            assert target == "version" or layer_of(target) == 0


@pytest.mark.parametrize("name", MODULES)
def test_sans_io_layers_do_no_io(name: str) -> None:
    if layer_of(name) > 2:
        return
    forbidden = set(NOT_SANS_IO)
    if name not in ("protocol", "typing"):
        forbidden.add("logging")  # the protocol logs, and loggers have a type
    found = imports(name, MODULES[name]).foreign & forbidden
    assert not found, f"{name} imports {', '.join(sorted(found))}"


@pytest.mark.parametrize("name", [n for n in MODULES if n.endswith("_py")])
def test_pure_twins_import_pure_twins(name: str) -> None:
    for target in imports(name, MODULES[name]).own:
        assert not target.endswith("_c"), f"{name} imports {target}"
        assert f"{target}_py" not in MODULES, f"{name} imports the chooser {target}"


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_compiled_twins_import_compiled_twins(path: Path) -> None:
    name = COMPILED[path]
    for target in imports_of_cython(path):
        assert layer_of(target) <= layer_of(name), f"{path.name} imports {target}"
        assert not target.endswith("_py"), f"{path.name} imports {target}"
        assert f"{target}_py" not in MODULES, f"{path.name} imports chooser {target}"


@pytest.mark.parametrize("name", [n for n in MODULES if f"{n}_py" in MODULES])
def test_choosers_only_choose(name: str) -> None:
    found = imports(name, MODULES[name])
    assert found.own <= {"_compat", f"{name}_py", f"{name}_c"}
    body = ast.parse(MODULES[name].read_text(encoding="utf-8")).body
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.If, ast.Assign)
    assert all(isinstance(node, allowed) for node in body)


def test_only_choosers_name_both_twins() -> None:
    twins = {n for n in MODULES if n.endswith(("_py", "_c"))}
    twins |= {f"{n[:-3]}_c" for n in twins if n.endswith("_py")}
    for name, path in MODULES.items():
        if name in twins or f"{name}_py" in twins:
            continue
        found = imports(name, path).own & twins
        assert not found, f"{name} imports {', '.join(sorted(found))} past its chooser"
