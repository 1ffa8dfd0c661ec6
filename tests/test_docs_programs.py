"""The programs of the documentation: written to files as they are, and run."""

from __future__ import annotations

import asyncio
import json
import re
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
from doc_pages import Folder, blocks, commands, files, free_port, wait_for

import websock
from websock.__main__ import parse
from websock.sync.client import connect

pytestmark = [pytest.mark.source, pytest.mark.usefixtures("interruptible")]

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


def test_topics(tmp_path: Path) -> None:
    """Without arguments; tests/brokers has it on brokers."""
    folder = Folder(tmp_path, "docs/topics.md")
    url = f"ws://localhost:{folder.port}"
    with folder.running("server.py"), connect(url) as ann, connect(url) as bob:
        for ws in (ann, bob):
            assert ws.recv(TIMEOUT) == "welcome"
        ann.send("hello")
        for ws in (ann, bob):
            assert ws.recv(TIMEOUT) == "hello"


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


# -- how-to pages --------------------------------------------------------------------


async def say(url: str, text: str, **options: Any) -> Any:
    async with websock.connect(url, **options) as ws:
        await ws.send(text)
        return await ws.recv()


def command_of(page: str, word: str) -> list[str]:
    """Return the words of the first command of a page that has a word in it."""
    found = [
        command.split()
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block)
        if word in command.split()
    ]
    return found[0]


def test_fastapi(tmp_path: Path) -> None:
    page = "docs/howto/fastapi.md"
    folder = Folder(tmp_path, page)
    command = ["-m", *command_of(page, "uvicorn"), "--port", str(folder.port)]
    with folder.running(*command):
        url = f"localhost:{folder.port}"
        with urllib.request.urlopen(f"http://{url}/") as answer:
            assert json.load(answer) == {"hello": "world"}
        with connect(f"ws://{url}/ws") as ws:
            ws.send("hello")
            assert ws.recv(TIMEOUT) == "hello"
    assert command[-4:-2] == ["--ws", "websock.speedups.uvicorn:WebSocketProtocol"]


def test_fastapi_on_two_ports(tmp_path: Path) -> None:
    page = "docs/howto/fastapi.md"
    folder = Folder(tmp_path, page)
    http = free_port()
    command = " ".join(command_of(page, "two_ports:app"))
    command = command.replace("9000", str(http))
    with folder.running("-m", *command.split()) as program:
        wait_for(http, program)
        with connect(f"ws://localhost:{folder.port}") as ws:
            ws.send("to all")
            assert ws.recv(TIMEOUT) == "to all"
            request = urllib.request.Request(f"http://localhost:{http}/say/tea", b"")
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer) == {"clients": 1}
            assert ws.recv(TIMEOUT) == "tea"


def restarted(folder: Folder, program: Any) -> None:
    """Be a client of the server of the page about deployment, and see it end."""
    url = f"localhost:{folder.port}"
    with urllib.request.urlopen(f"http://{url}/health") as answer:
        assert answer.read() == b"fine\n"
    with connect(f"ws://{url}") as ws:
        ws.send("hello")
        assert ws.recv(TIMEOUT) == "hello"
        program.process.send_signal(signal.SIGTERM)
        with pytest.raises(websock.ConnectionClosedError):
            ws.recv(TIMEOUT)
        assert (ws.close_code, ws.close_reason) == (1012, "restart")
    assert program.process.wait(TIMEOUT) == 0


def test_deployment(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "docs/howto/deployment.md")
    with folder.running("server.py", stop=0) as program:
        restarted(folder, program)
    assert program.output.splitlines() == ["listening", "ended"]
    # What the container runs is what was run here.
    container = (tmp_path / "Dockerfile").read_text().splitlines()
    assert json.loads(container[-1].removeprefix("CMD ")) == ["python", "server.py"]
    assert "COPY server.py ." in container


def test_restart(tmp_path: Path) -> None:
    """Another process serves; whoever was connected is told, and connects again."""
    folder = Folder(tmp_path, "docs/restart.md")
    keeper = subprocess.Popen(
        (sys.executable, "keeper.py"),
        cwd=tmp_path,
        env=folder.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    url = f"ws://localhost:{folder.port}"
    try:
        for _ in range(2):
            assert keeper.stdout.readline() == "server: serving\n"
            with connect(url, open_timeout=TIMEOUT) as ws:
                ws.send("hello")
                assert ws.recv(TIMEOUT) == "hello"
                keeper.stdin.write("\n")
                keeper.stdin.flush()
                with pytest.raises(websock.ConnectionClosedError):
                    ws.recv(TIMEOUT)
                assert ws.close_code == 1012
        assert keeper.stdout.readline() == "server: serving\n"
        keeper.stdin.close()
        assert keeper.wait(TIMEOUT) == 0
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdin.close()
        keeper.stdout.close()


def test_socket_of_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate is not installed")
    page = "docs/howto/deployment.md"
    folder = Folder(tmp_path, page)
    command = command_of(page, "systemd-socket-activate")
    assert command[1:3] == ["-l", "8765"]
    assert command[3:] == ["python3", "server.py"]
    passed = [f"-E{name}={value}" for name, value in folder.environment.items()]
    with folder.running(
        command=(
            *(command[0], *passed, "-l", f"127.0.0.1:{folder.port}"),
            *(sys.executable, "server.py"),
        ),
        stop=0,
    ) as program:
        restarted(folder, program)
    assert program.output.splitlines()[-2:] == ["listening", "ended"]


def test_units_of_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = files("docs/howto/deployment.md")
    for name in ("websock.socket", "websock.service"):
        # The program must be there for the check.
        text = units[name].replace("/usr/bin/python3", sys.executable)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    said = [line for line in done.stderr.splitlines() if "websock" in line]
    assert done.returncode == 0, done.stderr
    assert said == []


def ask_both(folder: Folder) -> None:
    """Be clients of a server with workers, until it is ended."""
    with connect(f"ws://localhost:{folder.port}", max_size=2**17) as ws:
        ws.send("hello")
        assert ws.recv(TIMEOUT) == "hello"


def test_workers(tmp_path: Path) -> None:
    page = "docs/workers.md"
    folder = Folder(tmp_path, page)
    words = command_of(page, "app:handler")
    assert words[:2] == ["websock", "serve"]
    port = str(folder.port)
    with folder.running("-m", *words, "--port", port) as program:
        ask_both(folder)
        wait_for("worker 2 ", program)
        program.process.send_signal(signal.SIGHUP)
        wait_for("reloaded", program)
        ask_both(folder)
    with folder.running("main.py", stop=signal.SIGTERM):
        ask_both(folder)
        with connect(f"ws://localhost:{folder.port}") as ws:
            ws.send("x" * (2**16 + 1))
            with pytest.raises(websock.ConnectionClosedError):
                ws.recv(TIMEOUT)
            assert ws.close_code == 1009
    words = command_of(page, "with_lifespan:handler")
    with (
        folder.running("-m", *words, "--port", port),
        connect(f"ws://localhost:{port}") as ws,
    ):
        assert ws.recv(TIMEOUT) == "tick"


def test_service_and_container_of_workers(tmp_path: Path) -> None:
    """Their commands are those that can be given."""
    found = files("docs/workers.md")
    start = re.search(
        "ExecStart=/usr/bin/python3 -m websock (.*)", found["chat.service"]
    )
    assert start is not None
    container = found["Dockerfile"].splitlines()[-1].removeprefix("CMD ")
    words = json.loads(container)
    assert words[:3] == ["python", "-m", "websock"]
    for arguments in (start[1].split(), words[3:]):
        parsed = parse(arguments)
        assert (parsed.what, parsed.port) == ("app:handler", 8765)
        assert parsed.workers > 1
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "chat.service"
    path.write_text(found["chat.service"].replace("/usr/bin/python3", sys.executable))
    done = subprocess.run(
        ("systemd-analyze", "verify", "--man=no", path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    said = [line for line in done.stderr.splitlines() if "chat" in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_server_for_those_from_node(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "docs/migrating/node.md")
    with folder.running("server.py", str(folder.port)):
        run(see_rooms(folder.port))


async def see_rooms(port: int) -> None:
    """Be two clients of the servers of the page for those who come from Node."""
    url = f"ws://localhost:{port}"
    async with websock.connect(f"{url}/a") as one, websock.connect(f"{url}/b") as two:
        assert await one.recv() == "welcome to /a"
        assert await two.recv() == "welcome to /b"
        await one.send("text")
        await two.send(b"bytes")
        for ws in (one, two):
            assert {await ws.recv(), await ws.recv()} == {"text", b"bytes"}
