"""The examples of the event API, run as they are."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from raw import raw
from scripted import LOOPBACK, Run, loop_fixture

import websock
from websock.events import WebSocket

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

pytestmark = pytest.mark.source
run = loop_fixture()


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_classic(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(example("events_classic").main(0))
    lines = capsys.readouterr().out.splitlines()
    # Which end is done first at the end is not decided.
    assert lines[:4] == [
        "server: accepted /",
        "client: connected, speaks echo",
        "server: got 6000 characters, sends them by 1000",
        "client: got 6000 characters in one message",
    ]
    assert sorted(lines[4:]) == [
        "client: closed 1000 thanks True",
        "server: closed 1000 thanks",
    ]


def test_classic_frames(run: Run) -> None:
    """The message of the classic example does go out as several frames."""
    module = example("events_classic")

    async def main() -> None:
        async with module.make_server(0) as server, raw(server) as client:
            await client.open("Sec-WebSocket-Protocol: echo")
            await client.message("x" * 2500)
            sizes, ends = [], []
            while not ends or not ends[-1]:
                first, n = await client.reader.readexactly(2)
                if n == 126:
                    n = int.from_bytes(await client.reader.readexactly(2), "big")
                await client.reader.readexactly(n)
                sizes.append(n)
                ends.append(bool(first & 0x80))
            assert sizes == [1000, 1000, 500, 0]
            assert ends == [False, False, False, True]

    run(main())


def test_echo(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        server, http = await example("events_echo").start(0)
        async with server:
            host, port = http.sockets[0].getsockname()[:2]
            where = f"[{host}]" if ":" in host else host
            async with raw((host, port)) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                page = await client.ended()
                assert page.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"new WebSocket(" in page
            url = f"ws://{where}:{port}/"
            with pytest.raises(websock.InvalidStatus):
                await websock.connect(url, subprotocols=["echo-protocol"])
            ws = WebSocket(
                url,
                "echo-protocol",
                origin=f"http://localhost:{port}",
            )
            got: asyncio.Queue[Any] = asyncio.Queue()
            ws.onmessage = lambda event: got.put_nowait(event.data)
            await ws.opened
            for data in ("text", b"binary"):
                ws.send(data)
                assert await got.get() == data
            ws.close(1000, "done")
            await ws.closed
            http.close()

    run(main())
    out = capsys.readouterr().out
    assert "rejected a connection from None\n" in out
    assert "received text: text\nreceived 6 bytes\n" in out
    assert "1000 done\n" in out


def test_chat(run: Run) -> None:
    async def main() -> None:
        runner = web.AppRunner(example("events_chat").make_app())
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0).start()
            host, port = runner.addresses[0][:2]
            base = f"{host}:{port}"

            def join(room: str, name: str) -> tuple[WebSocket, asyncio.Queue[Any]]:
                ws = WebSocket(
                    f"ws://{base}/rooms/{room}",
                    "chat",
                    origin=f"http://{base}",
                    additional_headers={"Cookie": f"name={name}"},
                )
                lines: asyncio.Queue[Any] = asyncio.Queue()
                ws.onmessage = lambda event: lines.put_nowait(event.data)
                return ws, lines

            ann, ann_sees = join("a", "ann")
            assert await ann_sees.get() == "ann comes into a"
            bob, bob_sees = join("a", "bob")
            eve, eve_sees = join("b", "eve")
            assert await bob_sees.get() == "bob comes into a"
            assert await eve_sees.get() == "eve comes into b"
            assert await ann_sees.get() == "bob comes into a"
            ann.send("hello")
            assert await bob_sees.get() == "ann: hello"
            bob.close()
            assert await ann_sees.get() == "ann: hello"
            assert await ann_sees.get() == "bob leaves"
            assert eve_sees.empty()
            time = WebSocket(f"ws://{base}/time")
            assert (await time.closed).code == 1000
            for ws in (ann, bob, eve):
                ws.close()
                await ws.closed
            other = WebSocket(f"ws://{base}/rooms/a", "chat", origin="http://x")
            with pytest.raises(websock.InvalidStatus):
                await other.opened
        finally:
            await runner.cleanup()

    run(main())


# -- as programs -----------------------------------------------------------------------


@asynccontextmanager
async def program(name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example on any free port, as a person would; Ctrl-C ends it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-X", "dev", str(EXAMPLES / f"{name}.py"), "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
        _, err = await process.communicate()
        # In development mode aiohttp logs requests there.
        assert b"Traceback" not in err and b"Warning" not in err, err.decode()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def address(process: asyncio.subprocess.Process) -> str:
    """Read where a program listens: a host and a port."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    found = re.search(r"http://(\S+:\d+)", line)
    assert found is not None, line
    return found[1]


def test_classic_as_a_program(run: Run) -> None:
    async def main() -> None:
        async with program("events_classic") as process:
            assert process.stdout is not None
            lines = (await process.stdout.read()).decode().splitlines()
            assert "client: got 6000 characters in one message" in lines

    run(main())


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("name", "path", "protocol", "answer"),
    [
        ("events_echo", "", "echo-protocol", "hello"),
        ("events_chat", "rooms/x", "chat", "somebody: hello"),
    ],
)
def test_servers_as_programs(
    run: Run, name: str, path: str, protocol: str, answer: str
) -> None:
    async def main() -> None:
        async with program(name) as process:
            where = await address(process)
            ws = WebSocket(f"ws://{where}/{path}", protocol, origin=f"http://{where}")
            await ws.opened
            got: asyncio.Queue[Any] = asyncio.Queue()
            ws.onmessage = lambda event: got.put_nowait(event.data)
            ws.send("hello")
            while await got.get() != answer:
                pass
            process.send_signal(signal.SIGINT)
            assert (await ws.closed).code == 1001

    run(main())
