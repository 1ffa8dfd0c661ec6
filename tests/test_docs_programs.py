"""The programs of the documentation: written to files as they are, and run."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from doc_pages import Folder, blocks, commands

import websock
from websock.sync.client import connect

pytestmark = pytest.mark.source

TUTORIAL = "docs/tutorial/"
TIMEOUT = 60


def run(main: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT):
            await main

    asyncio.run(limited())


def output_of(page: str, command: str) -> list[str]:
    """Return the lines that a page shows under a command."""
    for block in blocks(page):
        lines = block.text.splitlines()
        if block.language == "console" and f"$ {command}" in lines:
            rest = lines[lines.index(f"$ {command}") + 1 :]
            return [line for line in rest if not line.startswith("$")]
    raise AssertionError(f"{page} has no {command}")


def test_first_server_and_client(tmp_path: Path) -> None:
    folder = Folder(tmp_path, f"{TUTORIAL}first-server.md", f"{TUTORIAL}client.md")
    with folder.running("server.py") as server:
        shown = output_of(f"{TUTORIAL}client.md", "python client.py")
        assert folder.run("client.py").splitlines() == shown == ["ONE", "TWO", "THREE"]
        url = f"ws://localhost:{folder.port}"
        typed = folder.run(
            "-m", "websock", "connect", url, "--send", "hello", "--count", "1"
        )
        assert typed == "HELLO\n"
        patient = subprocess.Popen(
            (sys.executable, "patient.py"),
            cwd=tmp_path,
            env=folder.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert patient.stdout is not None
        first = patient.stdout.readline()
    rest, _ = patient.communicate(timeout=TIMEOUT)
    # It may have said more than one line when the server went away.
    found = [first.strip(), rest.splitlines()[-1]]
    assert found == output_of(f"{TUTORIAL}client.md", "python patient.py")
    assert server.output.splitlines() == ["listening", "bye"]
    assert (
        "ConnectionRefusedError"
        in subprocess.run(
            (sys.executable, "client.py"),
            cwd=tmp_path,
            env=folder.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        ).stderr
    )


def test_page(tmp_path: Path) -> None:
    folder = Folder(tmp_path, f"{TUTORIAL}page.md")
    with folder.running("page_server.py") as server:
        url = f"http://localhost:{folder.port}"
        with urllib.request.urlopen(f"{url}/") as answer:
            assert answer.headers.get_all("Content-Type") == [
                "text/html; charset=utf-8"
            ]
            assert answer.read() == (tmp_path / "page.html").read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(f"{url}/else")
        caught.value.close()
        with connect(f"ws://localhost:{folder.port}/ws") as ws:
            ws.send("hello")
            assert ws.recv(TIMEOUT) == "HELLO"
    assert server.output.splitlines()[0] == f"{url}/"


def test_chat(tmp_path: Path) -> None:
    folder = Folder(tmp_path, f"{TUTORIAL}chat.md", f"{TUTORIAL}test.md")
    with folder.running("chat.py"):
        url = f"ws://localhost:{folder.port}/ws"
        with connect(url) as ann:
            ann.send("Ann")
            assert json.loads(ann.recv(TIMEOUT))["event"] == "comes in"
            ann.send("hello")
            assert json.loads(ann.recv(TIMEOUT)) == {"name": "Ann", "text": "hello"}
            ann.send("x" * 10_001)
            with pytest.raises(websock.ConnectionClosedError):
                ann.recv(TIMEOUT)
            assert ann.close_code == 1009


def test_test_of_chat(tmp_path: Path) -> None:
    folder = Folder(tmp_path, f"{TUTORIAL}chat.md", f"{TUTORIAL}test.md")
    assert commands(blocks(f"{TUTORIAL}test.md")[-1])[-1] == "pytest test_chat.py"
    printed = folder.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_chat.py")
    assert "3 passed" in printed


def test_deploy(tmp_path: Path) -> None:
    page = f"{TUTORIAL}deploy.md"
    folder = Folder(tmp_path, f"{TUTORIAL}chat.md", page)
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        commands(blocks(page)[0])[0].split(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    # A certificate that signs itself is not what the strict rules want.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)

    async def main(program: Any) -> None:
        url = f"wss://localhost:{folder.port}/ws"
        origin: Any = f"https://localhost:{folder.port}"
        with pytest.raises(websock.InvalidStatus) as caught:
            await websock.connect(url, ssl=context, origin="https://example.com")  # type: ignore[arg-type]
        assert caught.value.response.status_code == 403
        async with websock.connect(url, ssl=context, origin=origin) as ws:
            await ws.send("Ann")
            assert json.loads(await ws.recv())["name"] == "Ann"
            program.process.send_signal(signal.SIGTERM)
            with pytest.raises(websock.ConnectionClosedError):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1012, "restart")

    with folder.running("live.py", stop=0, said="https://") as program:
        with urllib.request.urlopen(
            f"https://localhost:{folder.port}/", context=context
        ) as answer:
            assert b"<title>Chat</title>" in answer.read()
        run(main(program))
        assert program.process.wait(TIMEOUT) == 0
    assert program.output.splitlines() == [f"https://localhost:{folder.port}/", "bye"]
