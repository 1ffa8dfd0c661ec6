"""Many connections at once, in small: all are held, echo, and end; losses are seen."""

from __future__ import annotations

import itertools
import json
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from websock.sync.server import ServerConnection, serve

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import crowd  # noqa: E402

SCRIPT = ROOT / "bench" / "clients" / "websock_crowd.py"

pytestmark = [
    pytest.mark.source,
    pytest.mark.skipif(platform.system() != "Linux", reason="it reads /proc"),
    pytest.mark.skipif(
        shutil.which("cc") is None or shutil.which("make") is None,
        reason="no C compiler or make",
    ),
]

RIGHT = {
    "side": "server",
    "library": "websock",
    "loop": "asyncio",
    "tls": False,
    "connections": 200,
    "opened": 200,
    "fewest": 3,
    "waiting": 0,
    "left": 0,
    "correct": True,
    "error": "",
    "answered": 1000,
    "duration": 1.0,
    "memory": 2048.0,
    "cpu_us": 5.0,
    "rate": 1000.0,
    "busy": 0.5,
    "versions": {},
}


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("library", ["websock", "websock-listener"])
def test_200_are_held_and_echo(side: str, library: str) -> None:
    wanted = crowd.Crowd(side, library, 200, 0.3, loop="asyncio")
    [row] = crowd.run([wanted], sys.executable)
    assert crowd.is_right(row), row
    assert row["opened"] == 200
    assert row["answered"] >= 200 * row["fewest"] > 0


@pytest.mark.parametrize(
    "change",
    [
        {"opened": 199},
        {"fewest": 0},
        {"waiting": 1},
        {"left": 1},
        {"correct": False, "error": "connection closed by the server"},
    ],
)
def test_losses_are_told(change: dict[str, Any]) -> None:
    facts = dict.fromkeys(("cpu", "cores", "governor", "kernel", "python"), "a")
    facts |= {"command": "c", "commit": "d", "date": "e", "busy": "0"}
    assert crowd.is_right(RIGHT)
    assert "**none lost**" in crowd.markdown(facts, [RIGHT])
    row = {**RIGHT, **change}
    assert not crowd.is_right(row)
    text = crowd.markdown(facts, [RIGHT, row])
    assert "**lost**" in text
    assert change.get("error", "see the table") in text


@pytest.mark.parametrize("arguments", [(), ("--listener",)])
def test_a_client_that_is_dropped_is_told(arguments: tuple[str, ...]) -> None:
    dropped = itertools.count()

    def drop_the_third(ws: ServerConnection) -> None:
        is_third = next(dropped) == 2
        for message in ws:
            if is_third:
                ws.close(1011)
            else:
                ws.send(message)

    with serve(drop_the_third, "127.0.0.1", 0) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            port = server.socket.getsockname()[1]
            command = [sys.executable, str(SCRIPT), "--port", str(port)]
            command += ["--loop", "asyncio", "--connections", "5", "--seconds", "0.2"]
            done = subprocess.run(
                [*command, *arguments],
                input="go\n" * 3,
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            server.shutdown()
            serving.join()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["opened"], found["closed"], found["waiting"]) == (5, 4, 1)
    assert not found["correct"] and "1011" in found["error"]


def test_too_few_files() -> None:
    command = f"ulimit -n 250 && exec {sys.executable} -m bench load --connections 200"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "need 300 open files in one process, the hard limit is 250" in done.stderr
