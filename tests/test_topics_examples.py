"""The examples with topics, run as programs."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted import run_on

import websock

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

pytestmark = [pytest.mark.source, pytest.mark.usefixtures("interruptible")]


@asynccontextmanager
async def program(name: str, *arguments: str) -> AsyncIterator[str]:
    """Run an example on any free port, as a person would; Ctrl-C ends it."""
    path = str(EXAMPLES / name / "server.py")
    # Importing the client library of a broker takes long, which debug mode would tell.
    options = () if arguments else ("-X", "dev")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", *options, path, "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"http://(localhost:\d+)/\n", line)
        assert found is not None, line
        yield found[1]
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert err == b"", err.decode()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def fetch(where: str) -> str:
    with urllib.request.urlopen(f"http://{where}/") as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        text: str = answer.read().decode()
        return text


async def said(ws: Any) -> tuple[str, Any]:
    """Receive what is said in a chat: its position, and what it is."""
    line, _, text = (await ws.recv()).partition("\n")
    return line.split(" ")[1], json.loads(text)


async def drained(ws: Any) -> None:
    """Receive until the end."""
    while True:
        await ws.recv()


def test_chat() -> None:
    async def main() -> None:
        async with program("chat") as where:
            assert "<title>Chat</title>" in await asyncio.to_thread(fetch, where)
            url = f"ws://{where}/ws?room=tea"
            async with websock.connect(f"{url}&name=ann") as ann:
                _, event = await said(ann)
                assert event == {"name": "ann", "event": "comes in", "here": 1}
                await ann.send("hello")
                place, event = await said(ann)
                assert event == {"name": "ann", "text": "hello"}
                async with websock.connect(f"ws://{where}/ws?room=x&name=eve"):
                    pass  # another room
                await ann.send("anybody?")
                assert (await said(ann))[1]["text"] == "anybody?"
            async with websock.connect(f"{url}&name=ann&since={place}") as ann:
                # From where it was: what it missed, and its own coming and going.
                got = [(await said(ann))[1] for _ in range(3)]
                assert got[0] == {"name": "ann", "text": "anybody?"}
                assert [e["event"] for e in got[1:]] == ["leaves", "comes in"]
            for wrong in ("room=*", "room=a..b", "room=tea&since=x"):
                async with websock.connect(f"ws://{where}/ws?{wrong}") as ws:
                    await ws.wait_closed()
                    assert (ws.close_code, ws.close_reason) == (1008, "no such room")
            with pytest.raises(websock.InvalidStatus):
                await websock.connect(url, origin="https://example.com")  # type: ignore[arg-type]

    run_on(None, main())


def test_ticker() -> None:
    async def main() -> None:
        async with program("ticker") as where:
            assert "<title>Ticker</title>" in await asyncio.to_thread(fetch, where)
            async with websock.connect(f"ws://{where}/ws") as ws:
                await ws.send("+metals.*")
                seen = {json.loads(await ws.recv())["name"] for _ in range(6)}
                assert seen == {"metals.gold", "metals.silver"}
                await ws.send("+oil.brent")
                while json.loads(await ws.recv())["name"] != "oil.brent":
                    pass
                await ws.send("-metals.*")
                names: list[str] = []
                while names[-3:] != ["oil.brent"] * 3:
                    names.append(json.loads(await ws.recv())["name"])
                await ws.send("+a..b")
                with pytest.raises(websock.ConnectionClosedError):
                    await drained(ws)
                assert ws.close_code == 1008

    run_on(None, main())
