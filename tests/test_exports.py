"""What the modules export, and that the names of websockets are found here too."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
from types import ModuleType

import pytest

import websock

# Modules whose documented names exist here under the same path.
SAME_PATHS = [
    "asyncio.client",
    "asyncio.router",
    "asyncio.server",
    "client",
    "datastructures",
    "exceptions",
    "extensions",
    "extensions.permessage_deflate",
    "frames",
    "headers",
    "http11",
    "protocol",
    "server",
    "typing",
    "uri",
]
TOP_LEVEL = {
    "BACKEND", "ClientProtocol", "ConnectionClosed", "ConnectionClosedError",
    "ConnectionClosedOK", "Listener", "ServerProtocol", "__version__", "broadcast",
    "connect", "serve", "unix_connect", "unix_serve",
}  # fmt: skip


def modules() -> list[str]:
    found = [
        info.name
        for info in pkgutil.walk_packages(websock.__path__, "websock.")
        if not info.name.endswith(("_c", "__main__"))
    ]
    return ["websock", *found]


def exported(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", []))


@pytest.mark.parametrize("name", modules())
def test_all_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    names = exported(module)
    assert len(names) == len(set(names))
    for item in names:
        assert hasattr(module, item), f"{name}.{item}"


@pytest.mark.parametrize(
    "name", [name for name in modules() if not name.rpartition(".")[2].startswith("_")]
)
def test_public_modules_say_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert exported(module), f"{name} has no __all__"
    assert module.__doc__ or name == "websock.asyncio"


def test_top_level() -> None:
    assert set(websock.__all__) >= TOP_LEVEL
    assert websock.BACKEND in ("c", "py")


def test_version_is_that_of_the_distribution() -> None:
    from websock.version import version

    assert websock.__version__ == version
    assert importlib.metadata.version("websock-fast") == version


@pytest.mark.parametrize("path", SAME_PATHS)
def test_names_of_websockets(path: str) -> None:
    theirs = importlib.import_module(f"websockets.{path}")
    ours = importlib.import_module(f"websock.{path}")
    names = exported(theirs)
    assert names
    missing = [name for name in names if not hasattr(ours, name)]
    assert not missing, f"websock.{path} lacks {', '.join(missing)}"


def parameters(function: object) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "name"),
    [("asyncio.client", "connect"), ("asyncio.server", "serve")],
)
def test_parameters_of_websockets(path: str, name: str) -> None:
    theirs = parameters(getattr(importlib.import_module(f"websockets.{path}"), name))
    ours = parameters(getattr(importlib.import_module(f"websock.{path}"), name))
    missing = set(theirs) - set(ours)
    assert not missing, f"{name}() lacks {', '.join(sorted(missing))}"
    for key in theirs.keys() & ours.keys():
        assert ours[key].kind == theirs[key].kind, key
        expected = theirs[key].default
        if isinstance(expected, (int, float, bool, tuple, type(None))):
            assert ours[key].default == expected, key


METHODS = {
    "__aiter__", "close", "close_code", "close_reason", "local_address", "ping", "pong",
    "recv", "recv_streaming", "remote_address", "send", "state", "subprotocol",
    "wait_closed",
}  # fmt: skip
OWN_METHODS = {"buffered_amount", "pause_reading", "resume_reading", "send_nowait"}


@pytest.mark.parametrize(
    ("path", "name", "more"),
    [
        ("asyncio.client", "ClientConnection", {"__aenter__", "__aexit__"}),
        ("asyncio.server", "ServerConnection", {"respond"}),
    ],
)
def test_methods_of_connections(path: str, name: str, more: set[str]) -> None:
    theirs = getattr(importlib.import_module(f"websockets.{path}"), name)
    ours = getattr(importlib.import_module(f"websock.{path}"), name)
    for item in sorted(METHODS | more):
        assert hasattr(theirs, item), f"websockets has no {name}.{item}"
        assert hasattr(ours, item), f"no {name}.{item}"
    for item in sorted(OWN_METHODS):
        assert hasattr(ours, item), f"no {name}.{item}"
    for item in ("send", "recv", "ping", "pong", "close"):
        expected = [
            (key, value.default)
            for key, value in parameters(getattr(theirs, item)).items()
        ]
        found = [
            (key, value.default)
            for key, value in parameters(getattr(ours, item)).items()
        ]
        assert found[: len(expected)] == expected, item
