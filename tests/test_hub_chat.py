"""The chat among the examples, as two workers."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from supervised import TIMEOUT, supervised_fixture

from websock.sync.client import ClientConnection, connect

pytestmark = [
    pytest.mark.skipif(
        sys.platform == "win32", reason="Windows has no processes that inherit sockets"
    ),
    pytest.mark.usefixtures("interruptible"),
]

CHAT = Path(__file__).resolve().parent.parent / "examples" / "chat"
serve = supervised_fixture()


def test_chat_with_two_workers(serve: Any, tmp_path: Path) -> None:
    """The example: two talk, and who comes back to either worker misses nothing."""
    for name in ("server.py", "page.html"):
        (tmp_path / name).write_bytes((CHAT / name).read_bytes())
    server = serve("server:application", "--workers", "2", "--drain", "0")
    url = server.says(r" at (ws\S+)\n")[1]
    server.has(r"worker 2 \(process \d+\) is ready")

    def said(ws: ClientConnection) -> tuple[str, Any]:
        line, _, text = str(ws.recv(TIMEOUT)).partition("\n")
        return line.split(" ")[1], json.loads(text)

    def until(ws: ClientConnection, **wanted: Any) -> tuple[str, Any]:
        while True:
            place, event = said(ws)
            if wanted.items() <= event.items():
                return place, event

    def join(name: str, since: str = "") -> ClientConnection:
        query = f"room=tea&name={name}" + (since and f"&since={since}")
        return connect(f"{url}/ws?{query}")

    with contextlib.ExitStack() as stack:
        guests: dict[str, ClientConnection] = {}
        here = 0
        while here == len(guests):  # all of them are with one worker
            name = f"guest{len(guests)}"
            guests[name] = stack.enter_context(join(name))
            here = until(guests[name], event="comes in", name=name)[1]["here"]
        for name, ws in guests.items():
            ws.send(f"I am {name}")
            places = {until(each, text=f"I am {name}")[0] for each in guests.values()}
            assert len(places) == 1
            (place,) = places
        # Whoever comes back, to whichever worker, goes on where it was.
        guests["guest0"].send("anybody?")
        for name in ("ann", "bob", "eve"):
            with join(name, place) as ws:
                assert said(ws)[1] == {"name": "guest0", "text": "anybody?"}
                until(ws, event="comes in", name=name)
    server.stop()
