"""What the documentation says, held against what is installed and what was measured."""

from __future__ import annotations

import inspect
import re
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from doc_pages import DOCS, ROOT

import websock

pytestmark = pytest.mark.source

COLUMNS = [
    "websock", "websockets", "aiohttp", "picows", "tornado", "websocket-client",
    "wsproto",
]  # fmt: skip
MODULES = {"websocket-client": "websocket"}
MIB = 2**20


def table() -> dict[str, dict[str, str]]:
    """Return the rows of the table by their names."""
    text = (DOCS / "explanation" / "features.md").read_text(encoding="utf-8")
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == len(COLUMNS) + 1:
            rows[cells[0]] = dict(zip(COLUMNS, cells[1:], strict=True))
    assert list(rows.pop("").values()) == COLUMNS
    return rows


ROWS = table()


# What the columns of the tables in docs/speedups/ are ratios of.
GAINS = {
    "aiohttp": ["aiohttp-fast / aiohttp"],
    "autobahn": ["autobahn-fast / autobahn"],
    "tornado": ["tornado-fast / tornado"],
    "uvicorn": ["uvicorn-websock / uvicorn-websockets-sansio"],
    "websocket-client": ["websocket-client-fast / websocket-client"],
    "websockets": ["websockets-fast / websockets", "websockets-engine / websockets"],
    "wsproto": ["wsproto-fast / wsproto"],
}


def cells(path: Path, heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading."""
    text = path.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = text.partition("\n## ")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ][2:]


@pytest.mark.parametrize("host", GAINS)
def test_gains(host: str) -> None:
    """A page has the figures that were published for its library, all of them."""
    measured = {
        (case, ratio): figure.partition(" ")[0]
        for case, ratio, _, figure, _ in cells(
            ROOT / "bench" / "results" / "hosts.md", "What is gained"
        )
    }
    said = {
        (case, ratio): figure
        for case, *figures in cells(DOCS / "speedups" / f"{host}.md", "What it gains")
        for ratio, figure in zip(GAINS[host], figures, strict=False)
    }
    assert said == {key: measured[key] for key in measured if key[1] in GAINS[host]}


def row(name: str, library: str) -> str:
    if find_spec(MODULES.get(library, library)) is None:
        pytest.skip(f"{library} has no wheel for this Python")
    return ROWS[name][library]


def defaults(path: str) -> dict[str, Any]:
    """Return the defaults of a function, or of a class."""
    module, _, name = path.partition(":")
    made = import_module(module)
    for part in name.split("."):
        made = getattr(made, part)
    return {
        key: item.default for key, item in inspect.signature(made).parameters.items()
    }


@pytest.mark.parametrize(
    ("library", "path", "argument", "unit"),
    [
        ("websock", "websock.asyncio.client:connect", "max_size", ""),
        ("websockets", "websockets.asyncio.client:connect", "max_size", ""),
        ("aiohttp", "aiohttp.web:WebSocketResponse", "max_msg_size", ""),
        ("picows", "picows:ws_create_server", "max_frame_size", " (frames)"),
        ("tornado", "tornado.websocket:websocket_connect", "max_message_size", ""),
    ],
)
def test_limits_on_messages(library: str, path: str, argument: str, unit: str) -> None:
    said = row("limit on messages, by default", library)
    assert said == f"{defaults(path)[argument] // MIB} MiB{unit}"


@pytest.mark.parametrize(
    ("library", "path", "argument"),
    [
        ("websock", "websock.asyncio.client:connect", "ping_interval"),
        ("websockets", "websockets.asyncio.client:connect", "ping_interval"),
        ("aiohttp", "aiohttp.web:WebSocketResponse", "heartbeat"),
        ("picows", "picows:ws_connect", "enable_auto_ping"),
        ("tornado", "tornado.websocket:websocket_connect", "ping_interval"),
        ("websocket-client", "websocket:WebSocketApp.run_forever", "ping_interval"),
    ],
)
def test_keepalive(library: str, path: str, argument: str) -> None:
    said = row("keepalive pings by default", library)
    assert said == ("yes" if defaults(path)[argument] else "no")


@pytest.mark.parametrize(
    ("name", "library", "module"),
    [
        ("trio", "websock", "websock.trio"),
        ("trio", "websockets", "websockets.trio"),
        ("threads", "websock", "websock.sync"),
        ("threads", "websockets", "websockets.sync"),
        ("protocol without I/O", "websock", "websock.protocol"),
        ("protocol without I/O", "websockets", "websockets.protocol"),
        ("asyncio, coroutines", "picows", "picows.websockets"),
        ("topics, and brokers behind them", "websock", "websock.topics"),
        ("topics, and brokers behind them", "websockets", "websockets.topics"),
    ],
)
def test_modules(name: str, library: str, module: str) -> None:
    said = row(name, library)
    assert (said != "no") == (find_spec(module) is not None)


@pytest.mark.parametrize("library", COLUMNS[1:])
def test_dependencies_and_python(library: str) -> None:
    said = row("dependencies", library)
    numbers = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    needed = [
        item
        for item in metadata.requires(library) or []
        if "extra ==" not in item and "python_version <" not in item
    ]
    assert said == numbers[len(needed)], needed
    version = metadata.metadata(library)["Requires-Python"]
    assert row("Python, at least", library) == re.sub(r"[>= ]", "", version)


def test_what_is_said_of_the_versions() -> None:
    text = (DOCS / "explanation" / "features.md").read_text(encoding="utf-8")
    for library in COLUMNS[1:]:
        if find_spec(MODULES.get(library, library)) is None:
            continue
        first = ".".join(metadata.version(library).split(".")[:2])
        assert f"{library} {first}." in text.replace("\n", " ") or (
            f"{library} {first}" in text.replace("\n", " ")
        ), library


def test_limits_in_pages() -> None:
    """Defaults that several pages name."""
    options = defaults("websock.asyncio.client:connect")
    from websock import constants
    from websock.asyncio.base import MAX_QUEUE_BYTES

    assert options["max_size"] == MIB
    assert (options["max_queue"], MAX_QUEUE_BYTES) == (16, 4 * MIB)
    assert options["write_limit"] == 32 * 1024
    assert (options["ping_interval"], options["ping_timeout"]) == (20, 20)
    assert (options["open_timeout"], options["close_timeout"]) == (10, 10)
    assert constants.MAX_FRAGMENTS == 131072
    assert constants.DEFLATE_MIN_SIZE == 64
    assert websock.BACKEND in ("c", "py")
