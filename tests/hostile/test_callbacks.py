"""Programs that act in the middle of things, while peers set the pace.

What is borrowed, or counted, when a callback of the program is called must hold
whatever the callback does.  Where that is about memory, the test runs in a process of
its own, with the guards of Python's allocator around each block.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from helpers import request

import websock
from websock.asyncio.server import serve

# A client fills its socket, and sends more when it is told so: the memory in which
# small messages are joined has just been given to the system, and has room again, but
# not for what the callback sends and the message that is under way.
SENDS_WHEN_TOLD = """
import asyncio
import gc
import socket
import sys

import websock
from websock.asyncio.server import serve

NUMBER = EXTRA = 0


class Client(websock.Listener):
    said = 0

    def on_message(self, ws, message):
        for number in range(NUMBER):
            ws.send_nowait(b"%08d" % number + b"x" * 2000)

    def on_pause_writing(self, ws):
        if not self.said:
            self.said = 1
            for number in range(EXTRA):
                ws.send_nowait(b"p" * 2000)


async def main():
    received = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await ws.send("go")
        messages = [await ws.recv() for _ in range(NUMBER + EXTRA)]
        received.set_result(messages)

    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        uri = f"ws://127.0.0.1:{port}/"
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.connect(("127.0.0.1", port))
        options = {"listener": Client, "compression": None, "write_limit": 1000}
        ws = await websock.connect(uri, sock=sock, **options)
        messages = await asyncio.wait_for(received, 60)
        await ws.close()
    numbers = [int(message[:8]) for message in messages if message[:1] != b"p"]
    assert numbers == list(range(NUMBER)), numbers[:10]
    assert messages.count(b"p" * 2000) == EXTRA


for argument in sys.argv[1:]:
    print(argument)
    NUMBER, EXTRA = map(int, argument.split())
    asyncio.run(main())
    gc.collect()  # the guards are looked at when memory is freed
print("done")
"""


# A callback ends the connection whose input is being read, in one of several ways, with
# more input behind it: whole and cut messages, text, fragments and control frames.
ENDS = """
import asyncio
import gc
import logging
import sys

import websock
from websock.asyncio.server import serve

WHERE = HOW = ""
tasks = []


def act(ws, where):
    if where != WHERE or ws.seen:
        return
    ws.seen = True
    if HOW == "abort":
        ws.transport.abort()
    elif HOW == "close":
        tasks.append(asyncio.ensure_future(ws.close()))
    elif HOW == "drop":
        ws.transport.abort()
        del ws
        gc.collect()
    elif HOW == "error":
        raise ValueError("asked for")
    elif HOW == "pause":
        ws.pause_reading()
        asyncio.get_running_loop().call_soon(ws.resume_reading)


class Server(websock.Listener):
    def on_open(self, ws):
        ws.seen = False

    def on_message(self, ws, message):
        ws.send_nowait(message)
        if message != "still there?":
            act(ws, "message")

    def on_ping(self, ws, data):
        act(ws, "ping")

    def on_pong(self, ws, data):
        act(ws, "pong")


def frame(first, payload):
    head = bytes([first, 0x80 | min(len(payload), 126)])
    if len(payload) >= 126:
        head += len(payload).to_bytes(2, "big")
    return head + bytes(4) + payload


BATCH = b"".join(
    [
        frame(0x81, b"text"),
        frame(0x89, b"ping"),
        frame(0x8A, b"pong"),
        frame(0x01, b"frag"),
        frame(0x89, b"ping"),
        frame(0x80, b"ment"),
        frame(0x82, bytes(30000)),
        frame(0x81, "\u00e9".encode() * 500),
        frame(0x82, bytes(20000))[:5000],
    ]
)


async def main():
    options = {"compression": None, "max_control_rate": None}
    async with serve(Server, "127.0.0.1", 0, **options) as server:
        host, port = server.sockets[0].getsockname()
        good = await websock.connect(f"ws://{host}:{port}/", compression=None)
        for _ in range(TIMES):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST + BATCH)
            writer.write_eof()
            try:
                while await reader.read(65536):
                    pass
            except ConnectionError:
                pass
            writer.close()
            await good.send("still there?")
            assert await good.recv() == "still there?"
        await good.close()
        await asyncio.gather(*tasks)
        tasks.clear()


for argument in sys.argv[1:]:
    print(argument)
    WHERE, HOW = argument.split()
    logging.disable(logging.CRITICAL if HOW == "error" else logging.NOTSET)
    asyncio.run(main())
    gc.collect()
print("done")
"""


def guarded(program: str, *arguments: str) -> None:
    """Run a program with guards around each block of memory.

    It does the same once for each argument, and says so: a new process costs more.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        env={**os.environ, "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines() == [*arguments, "done"]


def alone_or_together(cases: list[str]) -> Any:
    """Give a test all cases for one process, and each alone with --every-api."""
    alone = [pytest.param([case], marks=pytest.mark.every_api) for case in cases]
    return pytest.mark.parametrize(
        "cases",
        [cases, *alone],
        ids=["together", *(c.replace(" ", "-") for c in cases)],
    )


@alone_or_together(["25 1", "25 32", "500 1", "500 32"])
def test_sending_when_told_to_pause(cases: list[str]) -> None:
    """Nothing is lost, and nothing is written where it does not belong.

    Few messages are given to the system when the callback that sends them is over; of
    many, some before.
    """
    guarded(SENDS_WHEN_TOLD, *cases)


@alone_or_together(
    [
        f"{where} {how}"
        for where in ("message", "ping", "pong")
        for how in ("abort", "close", "drop", "error", "pause")
    ]
)
def test_ending_what_is_being_read(cases: list[str], full: bool) -> None:
    """Nothing is used that is gone, and others are served."""
    program = ENDS.replace("REQUEST", repr(request()), 1)
    guarded(program.replace("TIMES", "20" if full else "8", 1), *cases)


@pytest.mark.parametrize("kind", [set, list])
def test_slow_peer_that_is_taken_out_during_a_broadcast(kind: Any) -> None:
    """One that stops reading does not keep the message from the others."""
    peers: Any = kind()
    slow: list[Any] = []

    class Chat(websock.Listener):
        def on_open(self, ws: Any) -> None:
            peers.add(ws) if kind is set else peers.append(ws)

        def on_pause_writing(self, ws: Any) -> None:
            peers.remove(ws)
            slow.append(ws)
            ws.transport.abort()

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            server = serve(Chat, "127.0.0.1", 0, compression=None)
            server = await stack.enter_async_context(server)
            address = server.sockets[0].getsockname()
            uri = f"ws://127.0.0.1:{address[1]}/"
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(address)
                sock.sendall(request())
                await asyncio.to_thread(sock.recv, 1)
                good = [
                    await stack.enter_async_context(
                        websock.connect(uri, max_size=None, proxy=None)
                    )
                    for _ in range(5)
                ]
                while len(peers) < 6:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                number = 0
                while not slow:
                    number += 1
                    websock.broadcast(peers, bytes(500_000))
                    for ws in good:
                        assert await ws.recv() == bytes(500_000)
        assert 1 <= number < 100

    asyncio.run(asyncio.wait_for(main(), 60))
