"""uvicorn as people start it: its commands, with workers, reloading, and gunicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from uvicorn_server import run
from websockets.asyncio.client import connect

import websock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]

WS = "websock.speedups.uvicorn:WebSocketProtocol"

# It says who serves it, and then repeats what it hears.
APP = """
import os

VERSION = 1

async def app(scope, receive, send):
    assert scope["type"] == "websocket", scope["type"]
    await receive()
    await send({"type": "websocket.accept"})
    engine = type(getattr(send, "__self__", None)).__name__
    text = f"{engine} {os.getpid()} {VERSION}"
    await send({"type": "websocket.send", "text": text})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})
"""
ENGINES = {"WebSocketProtocol", "WebSocketsSansIOProtocol"}

WHERE = re.compile(r"(?:Uvicorn running on|Listening at:) http://127\.0\.0\.1:(\d+)")


class Program:
    """A server in a process of its own, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def listen(self) -> None:
        """Keep what it says, so that it never waits for somebody to read it."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said.append(line.decode())
            found = WHERE.search(self.said[-1])
            if found and not self.port.done():
                self.port.set_result(int(found[1]))
        if not self.port.done():
            self.port.set_exception(RuntimeError("it has ended"))

    async def connect(self) -> Any:
        """Connect, once it is up."""
        url = f"ws://127.0.0.1:{await self.port}"
        while True:
            try:
                return await connect(url)
            except OSError:
                await asyncio.sleep(0.02)  # its workers have yet to listen

    async def who(self) -> tuple[str, int, int]:
        """Return which engine serves, in which process, and the program's version."""
        async with await self.connect() as ws:
            engine, pid, version = (await ws.recv()).split()
            await ws.send("hello")
            assert await ws.recv() == "hello"
        assert engine in ENGINES
        return engine, int(pid), int(version)


@contextlib.asynccontextmanager
async def started(folder: Path, *arguments: str) -> AsyncIterator[Program]:
    """Run ``python`` with arguments, and end it and all that it has started."""
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    program = Program(process)
    listening = asyncio.create_task(program.listen())
    try:
        yield program
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        assert "Traceback" not in "".join(program.said)
    except BaseException:
        print("".join(program.said))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await listening
        program.port.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(APP)
    return tmp_path


UVICORN = ("-m", "uvicorn", "program:app", "--port", "0")
INSTALLED = (
    "WebSocketProtocol" if websock.BACKEND == "c" else "WebSocketsSansIOProtocol"
)


@pytest.mark.parametrize(
    ("arguments", "engine"),
    [
        ((*UVICORN, "--ws", WS), "WebSocketProtocol"),
        (UVICORN, "WebSocketsSansIOProtocol"),
        (("-m", "websock", "run", *UVICORN), INSTALLED),
        (
            ("-m", "websock", "run", *UVICORN, "--ws", "websockets-sansio"),
            "WebSocketsSansIOProtocol",
        ),
    ],
)
def test_command(arguments: tuple[str, ...], engine: str, folder: Path) -> None:
    async def main() -> None:
        async with started(folder, *arguments) as program:
            assert (await program.who())[0] == engine
            ws = await program.connect()
            await ws.recv()
            program.process.send_signal(signal.SIGTERM)
            await ws.wait_closed()
            assert ws.close_code == 1012
            await program.process.wait()
            assert '"WebSocket /" [accepted]' in "".join(program.said)

    run(main())


@pytest.mark.parametrize("way", ["flag", "run"])
def test_workers(way: str, folder: Path) -> None:
    flag = (*UVICORN, "--ws", WS, "--workers", "2")
    arguments = flag if way == "flag" else ("-m", "websock", "run", *UVICORN)
    if way == "run":
        arguments += ("--workers", "2")

    async def main() -> None:
        async with started(folder, *arguments) as program:
            engine, pid, _ = await program.who()
            assert engine == ("WebSocketProtocol" if way == "flag" else INSTALLED)
            assert pid != program.process.pid

    run(main())


def test_reload(folder: Path) -> None:
    async def main() -> None:
        flags = ("--ws", WS, "--reload", "--reload-delay", "0.1")
        async with started(folder, *UVICORN, *flags) as program:
            assert (await program.who())[::2] == ("WebSocketProtocol", 1)
            (folder / "program.py").write_text(
                APP.replace("VERSION = 1", "VERSION = 2")
            )
            while (await program.who())[2] != 2:
                # Its file may be as old as before, for clocks that are coarse.
                os.utime(folder / "program.py")
                await asyncio.sleep(0.1)
            assert (await program.who())[0] == "WebSocketProtocol"

    run(main())


def test_gunicorn(folder: Path) -> None:
    (folder / "worker.py").write_text(
        "from uvicorn_worker import UvicornWorker\n"
        "class Worker(UvicornWorker):\n"
        f"    CONFIG_KWARGS = {{**UvicornWorker.CONFIG_KWARGS, 'ws': {WS!r}}}\n"
    )

    async def main() -> None:
        arguments = ("--bind", "127.0.0.1:0", "--worker-class", "worker.Worker")
        async with started(
            folder, "-m", "gunicorn", "program:app", *arguments, "--workers", "2"
        ) as program:
            engine, pid, _ = await program.who()
            assert engine == "WebSocketProtocol"
            assert pid != program.process.pid

    run(main())
