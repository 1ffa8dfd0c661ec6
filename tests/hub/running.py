"""A hub and workers, each in a process of its own, which tests kill and pause."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from linked import freeze, loop_factory
from scripted import LOOPBACK, run_on

import websock

PROGRAMS = Path(__file__).with_name("programs.py")
SECRET = "the-s3cret"


def go(coroutine: Any, loop: str = "asyncio") -> None:
    freeze()
    run_on(loop_factory(loop), coroutine)


class Process:
    """A program of ``programs.py``, which says that it is ready by a line of JSON."""

    def __init__(self, *arguments: Any, hub: str | None = None) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        # The address sanitizer, where it runs, else keeps what was freed.
        asan = environment.get("ASAN_OPTIONS", "")
        environment["ASAN_OPTIONS"] = f"{asan}:quarantine_size_mb=1".lstrip(":")
        if hub is not None:
            environment["WEBSOCK_HUB"] = hub
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAMS), *map(str, arguments)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.said: Any = None

    def ready(self) -> Any:
        """Wait for the line."""
        if self.said is None:
            assert self.process.stdout is not None
            self.said = json.loads(self.process.stdout.readline())
        return self.said

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def memory(self) -> int:
        """Return the bytes that it has in memory, on Linux."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGESIZE")


class Cluster:
    """A hub, and workers on it."""

    def __init__(self, address: str, count: int = 3, *hub_options: Any) -> None:
        self.address = address
        self.hub_options = hub_options
        self.hub = self._start_hub()
        self.hub.ready()
        self.workers = [self.start_worker() for _ in range(count)]

    def _start_hub(self) -> Process:
        return Process("hub", self.address, *self.hub_options)

    def restart_hub(self) -> None:
        self.hub = self._start_hub()
        self.hub.ready()

    def start_worker(self) -> Process:
        return Process("worker", hub=self.address)

    def replace(self, number: int) -> None:
        """Start a worker in place of one that was killed."""
        self.workers[number] = self.start_worker()

    def stop(self) -> None:
        for process in (*self.workers, self.hub):
            process.kill()

    @asynccontextmanager
    async def clients(self, *numbers: int) -> AsyncIterator[list[Client]]:
        """Connect to workers."""
        async with AsyncExitStack() as stack:
            found = []
            for number in numbers or range(len(self.workers)):
                worker = self.workers[number]
                port = (await asyncio.to_thread(worker.ready))["port"]
                ws = await stack.enter_async_context(
                    websock.connect(
                        f"ws://{LOOPBACK}:{port}", ping_interval=None, max_queue=None
                    )
                )
                found.append(Client(ws))
            yield found


class Client:
    """A client of a worker, which does what it is asked for."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self._messages: deque[Message] = deque()  # that came before an answer

    async def ask(self, order: str, **arguments: Any) -> Any:
        """Give an order, and wait until it is done."""
        await self.ws.send(json.dumps({"order": order, **arguments}))
        while isinstance(answer := await self.ws.recv(), str):
            self._messages.append(Message(answer))
        return json.loads(answer)

    async def get(self) -> Message:
        """Receive a message that was published."""
        if self._messages:
            return self._messages.popleft()
        item = await self.ws.recv()
        assert isinstance(item, str)
        return Message(item)

    async def get_until(self, text: str) -> list[Message]:
        """Receive messages until one of this text, which is left out."""
        found: list[Message] = []
        while (message := await self.get()).text != text:
            found.append(message)
        return found


class Message:
    """A message that was published, with its position."""

    def __init__(self, item: str) -> None:
        head, self.text = item.split("\n")
        self.topic, self.place = head.split(" ")
        self.epoch, _, number = self.place.rpartition(":")
        self.number = int(number)

    def __repr__(self) -> str:
        return f"<{self.topic} {self.place} {self.text[:20]}>"


def numbers_of(messages: list[Message]) -> list[int]:
    return [message.number for message in messages]


def numbers_in(texts: list[Message]) -> list[int]:
    """Return the numbers that a flood counts."""
    return [int(message.text.split(" ")[0]) for message in texts]
