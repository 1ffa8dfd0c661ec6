"""Behind nginx as a reverse proxy: plain and TLS outside, plain inside."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from doc_pages import files
from interop.peers import HOST, MAX_SIZE, Security, Setup
from interop.test_interop import MESSAGES, port_of

import websock

pytestmark = pytest.mark.interop

Run = Callable[[Any], Any]

# The snippet is that of the documentation, which nginx includes here.
CONFIGURATION = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/websock.conf;
}}
"""
PAGE = "docs/howto/nginx.md"


def snippet(port: int, inner: int, security: Security | None) -> str:
    """Return the snippet of the documentation for these ports and certificates."""
    text = files(PAGE)["websock.conf"]
    changes = {"127.0.0.1:8765": f"{HOST}:{inner}"}
    if security is None:
        changes["listen 443 ssl"] = f"listen {HOST}:{port}"
        text = re.sub(r"^ +ssl_.*\n", "", text, flags=re.MULTILINE)
    else:
        changes["listen 443 ssl"] = f"listen {HOST}:{port} ssl"
        changes["/etc/ssl/example.com.pem"] = str(security.cert)
        changes["/etc/ssl/example.com.key"] = str(security.key)
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@pytest.fixture
def nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed")
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def proxied(
    nginx: str, directory: Path, inner: int, security: Security | None
) -> AsyncIterator[int]:
    """Run nginx in front of a server; give its port."""
    port = free_port()
    (directory / "websock.conf").write_text(snippet(port, inner, security))
    path = directory / "nginx.conf"
    path.write_text(CONFIGURATION.format(directory=directory))
    check = (nginx, "-t", "-e", str(directory / "error.log"), "-c", str(path))
    checked = await asyncio.create_subprocess_exec(*check, stderr=subprocess.PIPE)
    _, said = await checked.communicate()
    assert checked.returncode == 0, said.decode()
    assert b"warn" not in said, said.decode()
    process = await asyncio.create_subprocess_exec(
        *(nginx, "-e", str(directory / "error.log"), "-c", str(path)),
        stderr=subprocess.PIPE,
    )
    try:
        while True:
            assert process.returncode is None, (directory / "error.log").read_text()
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            await writer.wait_closed()
            break
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
def test_behind_nginx(
    nginx: str, security: Security, tmp_path: Path, run: Run, scheme: str, deflate: bool
) -> None:
    seen: dict[str, Any] = {}

    async def handler(ws: Any) -> None:
        seen["forwarded"] = ws.request.headers["X-Forwarded-For"]
        try:
            async for message in ws:
                if message == "close":
                    await ws.close(4005, "as asked")
                else:
                    await ws.send(message)
        finally:
            seen["code"] = ws.close_code

    async def main() -> None:
        setup = Setup(security if scheme == "wss" else None, deflate)
        compression = "deflate" if deflate else None
        async with (
            websock.serve(
                handler, HOST, 0, compression=compression, max_size=MAX_SIZE
            ) as server,
            proxied(nginx, tmp_path, port_of(server), setup.security) as port,
        ):
            options: dict[str, Any] = {
                "ssl": setup.client_ssl,
                "compression": compression,
                "max_size": MAX_SIZE,
                "proxy": None,
            }
            async with websock.connect(setup.url(port), **options) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                assert await (await ws.ping()) > 0
                await ws.send("close")
                with pytest.raises(websock.ConnectionClosedError):
                    await ws.recv()
                assert (ws.close_code, ws.close_reason) == (4005, "as asked")
            async with websock.connect(setup.url(port), **options) as ws:
                await ws.close(4006, "mine")
            assert seen["forwarded"] == HOST
            while seen.get("code") != 4006:  # noqa: ASYNC110
                await asyncio.sleep(0)

    run(main())


def test_server_behind_nginx_goes_away(nginx: str, tmp_path: Path, run: Run) -> None:
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async def main() -> None:
        server = await websock.serve(echo, HOST, 0)
        inner = port_of(server)
        async with proxied(nginx, tmp_path, inner, None) as port:
            url = f"ws://{HOST}:{port}"
            async with websock.connect(url, proxy=None) as ws:
                server.close()
                with pytest.raises(websock.ConnectionClosedOK):
                    await ws.recv()
                assert ws.close_code == 1001
            await server.wait_closed()
            with pytest.raises(websock.InvalidStatus) as caught:
                await websock.connect(url, proxy=None)
            assert caught.value.response.status_code == 502

    run(main())
