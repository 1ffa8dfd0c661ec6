"""The examples of the documentation, run one after the other."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from scripted import Run, loop_fixture

pytestmark = pytest.mark.source
run = loop_fixture()

DOCS = Path(__file__).resolve().parent.parent / "docs"


def blocks(name: str) -> list[tuple[str, str]]:
    """Return the examples of a page, each with what it prints."""
    text = (DOCS / name).read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        if language == "python":
            found.append((block, ""))
        elif language == "text":
            code, before = found.pop()
            assert not before
            found.append((code, block))
    return found


def port_of(namespace: dict[str, Any]) -> int:
    """Return the port that the examples listen on by now."""
    if "runner" in namespace and namespace["runner"].addresses:
        return int(namespace["runner"].addresses[0][1])
    server = namespace["http" if "http" in namespace else "server"]
    sock = server.sockets[0] if hasattr(server, "sockets") else server.socket
    return int(sock.getsockname()[1])


async def execute(code: str, namespace: dict[str, Any]) -> None:
    """Run an example as ``python -m asyncio`` does, on ports that are free."""
    code = re.sub(r'("localhost"), 80?\d+', r"\1, 0", code)
    code = re.sub(r"localhost:\d+", "localhost:{port_of(globals())}", code)
    code = re.sub(r'(?<!f)"(\w+://localhost:\{)', r'f"\1', code)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for statement in ast.parse(code).body:
        module = ast.Module([statement], [])
        made = eval(compile(module, "example", "exec", flags), namespace)
        if inspect.isawaitable(made):
            await made


PAGES = {
    "events.md": 6,
    "flow.md": 5,
    "resilient.md": 2,
    "restart.md": 1,
    "streams.md": 3,
    "testing.md": 6,
    "threads.md": 2,
}


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    examples = blocks(name)
    assert len(examples) >= PAGES[name]

    async def main() -> None:
        namespace: dict[str, Any] = {"port_of": port_of}
        for code, expected in examples:
            await execute(code, namespace)
            assert capsys.readouterr().out == expected, code
        for server in ("http", "server"):
            if hasattr(namespace.get(server), "wait_closed"):
                await namespace[server].wait_closed()

    run(main())
