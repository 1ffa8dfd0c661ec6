"""The program of the page about topics, and the examples, on real brokers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from brokers.running import KINDS, go, running
from doc_pages import Folder
from test_topics_examples import program, said

import websock
from websock.sync.client import connect

TIMEOUT = 60
pytestmark = pytest.mark.usefixtures("interruptible")


@pytest.mark.parametrize("kind", KINDS)
def test_program(kind: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with running(kind, tmp_path / "broker") as broker:
        folders = []
        for path in (one, two):
            path.mkdir()
            folders.append(Folder(path, "docs/topics.md"))
        with (
            folders[0].running("server.py", broker.url, said="listening"),
            folders[1].running("server.py", broker.url, said="listening"),
            connect(f"ws://localhost:{folders[0].port}") as ann,
            connect(f"ws://localhost:{folders[1].port}") as bob,
        ):
            for ws in (ann, bob):
                assert ws.recv(TIMEOUT) == "welcome"
            ann.send("hello")
            for ws in (ann, bob):
                assert ws.recv(TIMEOUT) == "hello"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_chat(kind: str, tmp_path: Path) -> None:
    """Two of them are one chat, and whoever comes back to another one goes on."""

    async def main(url: str) -> None:
        async with program("chat", url) as one, program("chat", url) as two:
            path = "/ws?room=tea&name"
            async with websock.connect(f"ws://{two}{path}=bob") as bob:
                assert (await said(bob))[1]["event"] == "comes in"
                async with websock.connect(f"ws://{one}{path}=ann") as ann:
                    while (await said(bob))[1] != {
                        "name": "ann", "event": "comes in", "here": 1,
                    }:  # fmt: skip
                        pass
                    await bob.send("hello")
                    place, event = await said(ann)
                    while "text" not in event:
                        place, event = await said(ann)
                    assert event == {"name": "bob", "text": "hello"}
                while (await said(bob))[1].get("event") != "leaves":
                    pass
                await bob.send("anybody?")
                while (await said(bob))[1].get("text") != "anybody?":
                    pass
                back = f"ws://{two}{path}=ann&since={place}"
                async with websock.connect(back) as ann:
                    got = [(await said(ann))[1]]
                    while got[-1].get("text") != "anybody?":
                        got.append((await said(ann))[1])
                    # Redis counts for all; with NATS it is another count, from its
                    # beginning.
                    said_before = {"name": "bob", "text": "hello"} in got
                    assert said_before is (kind == "nats")

    with running(kind, tmp_path) as broker:
        go(main(broker.url))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ticker(kind: str, tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with (
            program("ticker", url) as where,
            websock.connect(f"ws://{where}/ws") as ws,
        ):
            await ws.send("+metals.*")
            seen = {json.loads(await ws.recv())["name"] for _ in range(6)}
            assert seen == {"metals.gold", "metals.silver"}

    with running(kind, tmp_path) as broker:
        go(main(broker.url))
