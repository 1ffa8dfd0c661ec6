"""Windows and macOS, as far as they can be simulated: see ``worlds/sitecustomize.py``."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import websock
from websock.sync.client import connect
from websock.sync.selector import PartsSelector

HERE = Path(__file__).parent
TIMEOUT = 120

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the worlds are made of what Linux has"
)

SPOKEN = [
    "coroutine False",
    "coroutine True",
    "listener",
    "loss",
    "events",
    "threads False",
    "threads True",
]
LACKS = {
    "windows": [
        "unix_connect: this system has no Unix sockets",
        "unix_serve: this system has no Unix sockets",
        "sync unix_connect: this system has no Unix sockets",
        "reuse_port: this system has no SO_REUSEPORT for reuse_port",
        "sync reuse_port: this system has no SO_REUSEPORT for reuse_port",
    ],
    "macos": [],
}


def start(
    world: str, *arguments: str, folder: Path | None = None
) -> subprocess.Popen[str]:
    """Start Python in a world, with the library that is tested here, and a folder."""
    package = Path(websock.__file__).parents[1]
    folders = [HERE / "worlds", package, *([] if folder is None else [folder])]
    path = os.pathsep.join(map(str, folders))
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "error", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "*",
            "WEBSOCK_WORLD": world,
        },
    )


@pytest.fixture(scope="module")
def conversations() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Both worlds at once, since they wait for most of their time."""
    started = {world: start(world, str(HERE / "worlds/converse.py")) for world in LACKS}
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("world", LACKS)
def test_conversations(
    world: str, conversations: dict[str, subprocess.Popen[str]]
) -> None:
    out, errors = conversations[world].communicate(timeout=TIMEOUT)
    assert errors == ""
    assert out.splitlines() == [
        f"{websock.BACKEND} {world}",
        f"own sockets: {world == 'macos'}",
        *SPOKEN,
        *LACKS[world],
    ]


def test_more_sockets_than_select_takes() -> None:
    selector = PartsSelector(part=3)
    pairs = [socket.socketpair() for _ in range(8)]
    try:
        for number, (ours, _) in enumerate(pairs):
            selector.register(ours, selectors.EVENT_READ, number)
        assert selector.select(0) == []
        assert selector.select(0.03) == []
        for number in (0, 4, 7):
            pairs[number][1].send(b"x")
        ready = {(key.data, events) for key, events in selector.select()}
        assert ready == {(number, selectors.EVENT_READ) for number in (0, 4, 7)}
        selector.modify(pairs[1][0], selectors.EVENT_WRITE, 1)
        selector.unregister(pairs[0][0])
        ready = {(key.data, events) for key, events in selector.select(10)}
        assert ready == {(1, selectors.EVENT_WRITE), (4, 1), (7, 1)}
    finally:
        selector.close()
        for pair in pairs:
            for sock in pair:
                sock.close()


@pytest.mark.usefixtures("interruptible")
def test_commands_and_interrupts_without_signal_handlers_of_the_loop() -> None:
    server = start("windows", "-m", "websock", "serve", "echo", "--port", "0")
    assert server.stdout is not None
    try:
        what, _, uri = server.stdout.readline().strip().rpartition(" at ")
        # The other lines are for the other addresses of "localhost".
        assert what == "echo"
        client = start(
            "windows",
            "-m",
            "websock",
            "connect",
            uri,
            "--send",
            "hello",
            "--count",
            "1",
        )
        out, errors = client.communicate(timeout=TIMEOUT)
        assert (out, errors, client.returncode) == ("hello\n", "", 0)
        server.send_signal(signal.SIGINT)
        out, errors = server.communicate(timeout=TIMEOUT)
        assert out.splitlines()[-1] == "closing"
        assert (errors, server.returncode) == ("", 0)
    finally:
        server.kill()
        server.communicate()


def test_workers_of_windows_are_threads(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(
        "async def handler(ws): await ws.send(ws.request.path)\n"
    )
    name = ("-m", "websock", "serve", "served:handler", "--port", "0")
    server = start("windows", *name, "--threads", "2", folder=tmp_path)
    assert server.stdout is not None
    try:
        uri = server.stdout.readline().strip().rpartition(" at ")[2]
        with connect(f"{uri}/path") as ws:
            assert ws.recv(TIMEOUT) == "/path"
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=TIMEOUT)
        assert server.returncode == 0, errors
        assert "worker 2 (thread) stopped" in errors
        refused = start("windows", *name, "--workers", "2", folder=tmp_path)
        _, errors = refused.communicate(timeout=TIMEOUT)
        assert refused.returncode == 1
        assert errors.startswith("websock: worker processes inherit sockets, which")
    finally:
        server.kill()
        server.communicate()
