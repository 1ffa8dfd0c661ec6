"""The program of the page about topics, on real brokers."""

from __future__ import annotations

from pathlib import Path

import pytest
from brokers.running import KINDS, running
from doc_pages import Folder

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
            folders[0].running("server.py", broker.url),
            folders[1].running("server.py", broker.url),
            connect(f"ws://localhost:{folders[0].port}") as ann,
            connect(f"ws://localhost:{folders[1].port}") as bob,
        ):
            for ws in (ann, bob):
                assert ws.recv(TIMEOUT) == "welcome"
            ann.send("hello")
            for ws in (ann, bob):
                assert ws.recv(TIMEOUT) == "hello"
