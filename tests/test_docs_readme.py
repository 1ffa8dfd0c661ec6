"""The examples of the README, and those of the pages about speed-ups."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT, Folder, blocks, free_port, is_listening

import websock
from websock.sync.client import connect

pytestmark = pytest.mark.source

TIMEOUT = 60


def python(page: str) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "python"]


def with_port(code: str, port: int) -> str:
    changed = code.replace("8765", str(port))
    assert changed != code
    return changed


def find(text: str, page: str = "README.md") -> str:
    """Return the only example with a text in it."""
    [found] = [code for code in python(page) if text in code]
    return found


def test_every_example_is_here() -> None:
    marks = ["asyncio.run(main())", "async def echo", "class Echo", "WebSocketServer",
             "ServerProtocol()"]  # fmt: skip
    found = python("README.md")
    for code in found:
        assert sum(mark in code for mark in marks) == 1, code
    assert len(found) == len(marks)


def test_client_and_server(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    server: dict[str, Any] = {"asyncio": asyncio, "websock": websock}
    exec(with_port(find("async def echo"), port), server)

    async def serve() -> None:
        task = asyncio.create_task(server["main"]())
        await asyncio.to_thread(done.wait, TIMEOUT)
        task.cancel()
        await asyncio.wait([task])

    done = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        while not is_listening(port):
            assert thread.is_alive()
            time.sleep(0.01)
        exec(with_port(find("asyncio.run(main())"), port), {})
        assert capsys.readouterr().out == "hello\n"
    finally:
        done.set()
        thread.join(TIMEOUT)


def test_listener() -> None:
    code = find("class Echo")
    # The last line is how it is used; a program awaits it.
    *lines, last = code.rstrip().splitlines()
    namespace: dict[str, Any] = {"websock": websock}
    exec("\n".join(lines), namespace)
    call, comment = last.split("  # also: ")
    assert call == 'websock.serve(Echo, "localhost", 8765)'
    assert comment == "connect(url, listener=Echo())"

    async def main() -> None:
        async with websock.serve(namespace["Echo"], "localhost", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with websock.connect(f"ws://localhost:{port}") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"

    asyncio.run(main())


def test_events(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    code = with_port(find("WebSocketServer"), port)
    server_part, client_part = code.split("\n\n\nws = ")
    namespace: dict[str, Any] = {}

    async def main() -> None:
        exec(server_part, namespace)
        await namespace["server"].listen()
        exec("ws = " + client_part, namespace)
        ws = namespace["ws"]
        got = asyncio.Event()
        ws.addEventListener("message", lambda event: got.set())
        async with asyncio.timeout(TIMEOUT):
            await got.wait()
            ws.close()
            await ws.closed
            await namespace["server"].shut_down()

    asyncio.run(main())
    assert capsys.readouterr().out == "hello\n"


def test_protocol() -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    namespace: dict[str, Any] = {"data": request}
    code = find("ServerProtocol()").replace(
        "protocol.events_received()", "events = protocol.events_received()"
    )
    exec(code, namespace)
    [event] = namespace["events"]
    assert event.path == "/"


def test_security() -> None:
    async def handler(ws: Any) -> None: ...

    where = {"websock": websock, "handler": handler, "host": "localhost", "port": 0}
    examples = python("SECURITY.md")
    assert len(examples) == 2
    for code in examples:
        assert isinstance(eval(code, where), websock.serve)


# -- speed-ups -----------------------------------------------------------------------

SPEEDUPS = sorted(path.name for path in (ROOT / "docs" / "speedups").glob("*.md"))


@pytest.mark.parametrize("name", SPEEDUPS)
def test_speedups(name: str, tmp_path: Path) -> None:
    """They are run in a program of their own, which they change for good."""
    folder = Folder(tmp_path)
    code = "".join(
        text
        for text in python(f"docs/speedups/{name}")
        # The one that runs a server is the command above it, written as a call.
        if 'uvicorn.run("' not in text and "UvicornWorker" not in text
    )
    assert "websock.speedups" in code
    if name == "wsaccel.md" and websock.BACKEND == "py":
        pytest.skip("with the pure backend nothing is installed")
    folder.write("program.py", f"{code}\nprint('done')\n")
    assert folder.run("-W", "error", "program.py") == "done\n"


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is for Unix")
def test_worker_of_gunicorn(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "docs/howto/fastapi.md")
    folder.write("worker.py", find("UvicornWorker", "docs/speedups/uvicorn.md"))
    command = (
        "-m",
        "gunicorn",
        "-k",
        "worker.Worker",
        "-b",
        f"127.0.0.1:{folder.port}",
    )
    with folder.running(*command, "app:app", stop=15):
        with connect(f"ws://127.0.0.1:{folder.port}/ws") as ws:
            ws.send("hello")
            assert ws.recv(TIMEOUT) == "hello"


def test_uvicorn_run(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "docs/howto/fastapi.md")
    call = find('uvicorn.run("', "docs/speedups/uvicorn.md").rstrip()
    call = re.sub(r"\)$", f", port={folder.port})", call)
    folder.write("program.py", f"import uvicorn\n{call}\n")
    with folder.running("program.py"):
        with connect(f"ws://127.0.0.1:{folder.port}/ws") as ws:
            ws.send("hello")
            assert ws.recv(TIMEOUT) == "hello"
