"""The examples of the documentation, run one after the other."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trustme
from doc_pages import blocks
from scripted import Run, loop_fixture

pytestmark = pytest.mark.source
run = loop_fixture()


def examples(page: str) -> list[tuple[str, str]]:
    """Return the examples of a page that are no files, each with what it prints."""
    found: list[tuple[str, str]] = []
    for block in blocks(page):
        if block.language == "python" and block.name is None:
            found.append((block.text, ""))
        elif block.language == "text" and found:
            code, before = found.pop()
            assert not before
            found.append((code, block.text))
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
    code = re.sub(r'("localhost"),(\s+)(8765|80\d\d)', r"\1,\g<2>0", code)
    code = re.sub(r"localhost:(8765|80\d\d)", "localhost:{port_of(globals())}", code)
    code = re.sub(r'(?<!f)"(\w+://[^"{]*localhost:\{)', r'f"\1', code)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for statement in ast.parse(code).body:
        module = ast.Module([statement], [])
        made = eval(compile(module, "example", "exec", flags), namespace)
        if inspect.isawaitable(made):
            await made


# Pages whose examples are typed in one after the other, and how many there are.
PAGES = {
    "docs/events.md": 6,
    "docs/flow.md": 5,
    "docs/howto/authentication.md": 5,
    "docs/howto/broadcasting.md": 6,
    "docs/howto/deployment.md": 1,
    "docs/howto/logging.md": 1,
    "docs/howto/nginx.md": 2,
    "docs/howto/reconnecting.md": 2,
    "docs/howto/tls.md": 4,
    "docs/migrating/picows.md": 1,
    "docs/migrating/websocket-client.md": 2,
    "docs/migrating/websockets.md": 1,
    "docs/resilient.md": 2,
    "docs/restart.md": 1,
    "docs/streams.md": 3,
    "docs/testing.md": 6,
    "docs/threads.md": 2,
    "docs/topics.md": 7,
}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page about TLS speaks of."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for kind, names in (("cert", ["localhost"]), ("client", [])):
        issued = authority.issue_cert(
            *(names or ["alice@example.com"]), common_name=None if names else "alice"
        )
        issued.cert_chain_pems[0].write_to_path(folder / f"{kind}.pem")
        key = folder / ("key.pem" if kind == "cert" else "client.key")
        issued.private_key_pem.write_to_path(key)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_page(
    page: str,
    run: Run,
    certificates: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if page.endswith("picows.md") and find_spec("picows") is None:
        pytest.skip("picows has no wheel for this Python")
    monkeypatch.chdir(certificates)
    found = examples(page)
    assert len(found) >= PAGES[page]

    async def main() -> None:
        namespace: dict[str, Any] = {"port_of": port_of}
        for code, expected in found:
            await execute(code, namespace)
            assert capsys.readouterr().out == expected, code
        for server in ("http", "server"):
            if hasattr(namespace.get(server), "wait_closed"):
                await namespace[server].wait_closed()

    run(main())
