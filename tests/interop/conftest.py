"""Certificates, loops, and the peers that are here."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trustme
from interop.peers import (
    HOST,
    AiohttpPeer,
    Peer,
    PicowsPeer,
    Security,
    TornadoPeer,
    WebsocketsPeer,
    WsPeer,
)

HERE = Path(__file__).resolve().parent
# What one test may take before it is taken to hang.
DEADLINE = 60


@pytest.fixture(scope="session")
def security(tmp_path_factory: pytest.TempPathFactory) -> Security:
    """A certificate authority, made for this run, and a certificate for this host."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST, "localhost")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    paths = {name: directory / f"{name}.pem" for name in ("cert", "key", "ca")}
    for path in paths.values():
        path.touch()
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(paths["cert"]), append=True)
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    authority.cert_pem.write_to_path(str(paths["ca"]))
    return Security(server, client, **paths)


def install_ws() -> str | None:
    """Install ws with npm; return in plain words why it cannot be."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        return "node and npm are not installed, so ws from npm is not tested"
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]["ws"]
    installed = HERE / "node_modules" / "ws" / "package.json"
    if installed.exists() and json.loads(installed.read_text())["version"] == wanted:
        return None
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return f"npm cannot install ws {wanted}: {lines[0] if lines else 'no reason'}"
    return None


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node, with ws installed."""
    if reason := install_ws():
        pytest.skip(reason)
    found = shutil.which("node")
    assert found is not None
    return found


PEERS = {
    "aiohttp": AiohttpPeer,
    "picows": PicowsPeer,
    "tornado": TornadoPeer,
    "websockets": WebsocketsPeer,
}


@pytest.fixture(params=[*PEERS, "ws"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """Another implementation."""
    if request.param == "ws":
        return WsPeer(request.getfixturevalue("node"))
    if request.param in ("picows", "tornado") and find_spec(request.param) is None:
        pytest.skip(f"{request.param} has no wheel for this Python")
    return PEERS[request.param]()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    """A function that runs a coroutine on a loop, not for ever."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if request.param == "uvloop":
        if sys.platform == "win32" or find_spec("uvloop") is None:
            pytest.skip("uvloop is not installed")
        import uvloop

        factory = uvloop.new_event_loop

    def runner(awaitable: Awaitable[Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(DEADLINE):
                return await awaitable

        with asyncio.Runner(loop_factory=factory) as loop:
            return loop.run(bounded())

    return runner
