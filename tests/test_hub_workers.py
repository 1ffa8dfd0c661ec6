"""Topics of programs that run as workers: ``websock serve --workers``, ``--threads``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from supervised import TIMEOUT, Supervised, supervised_fixture

from websock.sync.client import ClientConnection, connect

pytestmark = [
    pytest.mark.skipif(
        sys.platform == "win32", reason="Windows has no processes that inherit sockets"
    ),
    pytest.mark.usefixtures("interruptible"),
]

CHAT = Path(__file__).resolve().parent.parent / "examples" / "chat"
APP = """
import os, threading

async def handler(ws):
    await ws.subscribe("room.*")
    await ws.send(f"{os.getpid()} {threading.get_ident()}")
    async for message in ws:
        ws.server.publish("room.tea", message)
"""

serve = supervised_fixture()


@contextlib.contextmanager
def clients_of_both(url: str) -> Any:
    """Connect until there is a client of each of two workers: the kernel chooses."""
    with contextlib.ExitStack() as stack:
        found: dict[str, ClientConnection] = {}
        while len(found) < 2:
            ws = stack.enter_context(connect(url))
            found.setdefault(str(ws.recv(TIMEOUT)), ws)
        yield found


def published_to(sender: ClientConnection, *others: ClientConnection) -> None:
    text = f"hello from {sender.local_address}"
    sender.send(text)
    for ws in (sender, *others):
        assert ws.recv(TIMEOUT) == text


def started(server: Supervised, kind: str) -> str:
    url = server.says(r" at (ws\S+)\n")[1]
    server.has(rf"worker 2 \({kind}.*\) is ready")
    return url


def test_across_workers(serve: Any, tmp_path: Path) -> None:
    """Also after one was killed, and another has taken its place."""
    (tmp_path / "rooms.py").write_text(APP)
    server = serve("rooms:handler", "--workers", "2", "--drain", "0")
    url = started(server, "process")
    with clients_of_both(url) as found:
        (one, a), (_, b) = found.items()
        published_to(a, b)
        published_to(b, a)
        os.kill(int(one.split()[0]), signal.SIGKILL)
        server.says(r"was killed by SIGKILL; another starts now")
        server.says(r"\(process (\d+)\) is ready")
        published_to(b)
    with clients_of_both(url) as found:
        assert one not in found
        a, b = found.values()
        published_to(a, b)
        published_to(b, a)
    output = server.stop()
    for word in ("Traceback", "local://", "hub.sock", "lost the broker"):
        assert word not in output, output


def test_across_threads(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "rooms.py").write_text(APP)
    server = serve("rooms:handler", "--threads", "2", "--drain", "0")
    with clients_of_both(started(server, "thread")) as found:
        a, b = found.values()
        published_to(a, b)
        published_to(b, a)
    assert "Traceback" not in server.stop()


def test_chat_with_two_workers(serve: Any, tmp_path: Path) -> None:
    """The example: two talk, and who comes back to either worker misses nothing."""
    for name in ("server.py", "page.html"):
        (tmp_path / name).write_bytes((CHAT / name).read_bytes())
    server = serve("server:application", "--workers", "2", "--drain", "0")
    url = started(server, "process").replace("127.0.0.1", "localhost")

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
