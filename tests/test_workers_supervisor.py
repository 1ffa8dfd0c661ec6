"""The supervisor of workers: those that die again and again, or hang; and threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from scripted import LOOPBACK, run_on
from supervised import TIMEOUT, supervised_fixture

from websock.asyncio.client import connect
from websock.asyncio.server import Server
from websock.exceptions import ConnectionClosed, WebSocketException
from websock.sync.client import connect as connect_sync
from websock.workers.listeners import Listeners
from websock.workers.plan import Plan, StartError
from websock.workers.process import ProcessWorker, pack
from websock.workers.supervisor import MAX_FAILURES, Pauses, Supervisor
from websock.workers.thread import ThreadWorker

serve = supervised_fixture()
posix = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no processes that inherit sockets"
)
SHORT = Pauses(first=0.01, longest=0.03)


async def handler(ws: Any) -> None:
    """Say which thread it is; close the server, or hang, when told to."""
    await ws.send(threading.current_thread().name)
    async for message in ws:
        if message == "close server":
            ws.server.close()
        else:
            HANGING[message].wait(TIMEOUT)


HANGING: dict[str, threading.Event] = {}


class Log(logging.Handler):
    """What the supervisor says; it says it in the loop of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._past = 0
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line, after those that were waited for before."""
        while True:
            while self._past < len(self.lines):
                found = re.search(pattern, self.lines[self._past])
                self._past += 1
                if found:
                    return found
            self._more.clear()
            await self._more.wait()


class Supervision:
    """A supervisor that runs."""

    def __init__(self, supervisor: Supervisor, log: Log, running: Any) -> None:
        self.supervisor = supervisor
        self.log = log
        self.running = running
        self.url = ""

    def connect(self) -> connect:
        return connect(self.url)


@contextlib.asynccontextmanager
async def supervise(
    make: Callable[[int, Sequence[socket]], Any] | Plan, count: int, **options: Any
) -> AsyncIterator[Supervision]:
    """Run a supervisor, by default of threads; it is stopped in the end."""
    if isinstance(make, Plan):
        plan = make

        def make(number: int, socks: Sequence[socket]) -> ThreadWorker:
            return ThreadWorker(number, plan, socks)

    def started(socks: Sequence[socket]) -> None:
        supervision.url = "ws://{}:{}".format(*socks[0].getsockname())

    options = {"drain": 0, "pauses": SHORT, "started": started, **options}
    supervisor = Supervisor(make, Listeners(LOOPBACK, 0), count, **options)
    log = Log()
    logger = logging.getLogger("websock.workers")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(log)
    running = asyncio.create_task(supervisor.run())
    supervision = Supervision(supervisor, log, running)
    try:
        yield supervision
        if not running.done():
            supervisor.stop(quick=True)
            await running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, StartError):
            await running
        logger.removeHandler(log)
        logger.setLevel(level)


async def close_server(ws: Any) -> None:
    await ws.recv()
    await ws.send("close server")
    with contextlib.suppress(ConnectionClosed):
        await ws.recv()


def test_pauses() -> None:
    """At once, then later and later, while lives are short."""

    async def main(pauses: Pauses, expected: list[str]) -> None:
        async with supervise(Plan(handler), 1, pauses=pauses) as it:
            for when in expected:
                await it.log.says(r"worker 1 \(thread\) is ready")
                async with it.connect() as ws:
                    await close_server(ws)
                said = await it.log.says(r"\(thread\) ended; another starts (.*)")
                assert said[1] == when
            await it.log.says("is ready")

    run_on(None, main(SHORT, ["now", "in 0.01 s", "in 0.02 s", "in 0.03 s"]))
    run_on(None, main(Pauses(5, 5, 0), ["now", "now"]))


def test_the_pause_ends_with_the_supervisor() -> None:
    async def main() -> None:
        async with supervise(Plan(handler), 1, pauses=Pauses(600, 600)) as it:
            for _ in range(2):
                await it.log.says("is ready")
                async with it.connect() as ws:
                    await close_server(ws)
            await it.log.says("another starts in 600 s")

    run_on(None, main())


@posix
def test_cancelling_ends_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plain.py").write_text("async def handler(ws): pass\n")
    made: list[ProcessWorker] = []

    def make(number: int, socks: Sequence[socket]) -> ProcessWorker:
        made.append(
            ProcessWorker(number, pack(Plan("plain:handler")), socks, None, None)
        )
        return made[-1]

    async def main() -> None:
        async with supervise(make, 1) as it:
            await it.log.says("is ready")
            it.running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await it.running
        assert made[0].ended.result() == "was killed by SIGKILL"

    run_on(None, main())


@posix
def test_giving_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that cannot start any more: not for ever."""
    (tmp_path / "frail.py").write_text(
        "import os, pathlib\n"
        f"file = pathlib.Path({str(tmp_path / 'file')!r})\n"
        "if file.exists(): os._exit(9)\n"
        "def die(ws, request): file.touch(); os._exit(8)\n"
        "async def handler(ws): pass\n"
        "import websock\n"
        "served = websock.serve(handler, port=0, process_request=die)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    packed = pack(Plan("frail:served"))

    def make(number: int, socks: Sequence[socket]) -> ProcessWorker:
        return ProcessWorker(number, packed, socks, None, None)

    async def main() -> None:
        async with supervise(make, 1) as it:
            await it.log.says("is ready")
            with pytest.raises((OSError, WebSocketException)):
                await it.connect()
            await it.log.says(r"ended with exit code 8; another starts now")
            for _ in range(MAX_FAILURES - 1):
                await it.log.says("cannot start: ended with exit code 9; another")
            with pytest.raises(StartError) as caught:
                await it.running
            assert str(caught.value).endswith("\n5 starts in a row have failed")

    run_on(None, main())


def test_what_the_system_refuses() -> None:
    """No process, or no thread, is to be had for a while."""
    refused: list[int] = []

    def make(number: int, socks: Sequence[socket]) -> ThreadWorker:
        if number == 2 and len(refused) < 3:
            refused.append(number)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return ThreadWorker(number, Plan(handler), socks)

    async def main() -> None:
        async with supervise(make, 2) as it:
            for when in ("now", "in 0.01 s", "in 0.02 s"):
                said = await it.log.says(
                    r"worker 2 cannot be started: .*unavailable; another starts (.*)"
                )
                assert said[1] == when
            await it.log.says(r"worker 2 \(thread\) is ready")

    run_on(None, main())


def test_one_that_hangs_is_left_behind() -> None:
    async def main() -> None:
        async with supervise(Plan(handler), 2, kill_after=0) as it:
            await it.log.says("worker 2.* is ready")
            ws = await it.connect()
            name = await ws.recv()
            HANGING["now"] = threading.Event()
            await ws.send("now")
            it.supervisor.stop(quick=True)
            await it.log.says(rf"{name} \(thread\) does not end: it is killed")
            await it.running
            # It ends later, and nobody is told.
            HANGING["now"].set()
            with contextlib.suppress(ConnectionClosed):
                await ws.recv()
            await ws.close()
            for thread in threading.enumerate():
                if thread.name == name:
                    await asyncio.to_thread(thread.join, TIMEOUT)

    run_on(None, main())


class Gate:
    """Has the second worker, and later ones, wait before they are ready."""

    def __init__(self) -> None:
        self.first = True
        self.waiting = threading.Event()
        self.opened = threading.Event()
        self.error: Exception | None = None

    @contextlib.asynccontextmanager
    async def __call__(self, server: Server) -> AsyncIterator[None]:
        if not self.first:
            self.waiting.set()
            await asyncio.to_thread(self.opened.wait, TIMEOUT)
            if self.error is not None:
                raise self.error
        self.first = False
        yield


@pytest.mark.parametrize("fails", [False, True])
def test_the_old_one_dies_while_its_successor_starts(fails: bool) -> None:
    gate = Gate()

    async def main() -> None:
        async with supervise(Plan(handler, lifespan=gate), 1) as it:
            await it.log.says("is ready")
            it.supervisor.reload()
            await asyncio.to_thread(gate.waiting.wait, TIMEOUT)
            it.supervisor.reload()
            await it.log.says("a reload is going on")
            async with it.connect() as ws:
                await close_server(ws)
            await it.log.says("ended; another is starting already")
            if fails:
                gate.error = ValueError("not now")
                gate.opened.set()
                await it.log.says(r"ValueError: not now; another starts now")
                gate.error = None
            gate.opened.set()
            await it.log.says("is ready")
            assert [*it.supervisor.workers] == [1]
            assert it.supervisor.workers[1] is not None
            async with it.connect() as ws:
                assert await ws.recv() == "worker 1"

    run_on(None, main())


def test_fewer_while_a_successor_starts() -> None:
    gate = Gate()

    async def main() -> None:
        async with supervise(Plan(handler, lifespan=gate), 1) as it:
            await it.log.says("is ready")
            gate.opened.set()
            it.supervisor.add()
            await it.log.says("worker 2.* is ready")
            gate.opened.clear()
            gate.waiting.clear()
            it.supervisor.reload()
            await asyncio.to_thread(gate.waiting.wait, TIMEOUT)
            gate.opened.set()
            await it.log.says("worker 1.* is ready")
            gate.opened.clear()
            it.supervisor.remove()
            assert [*it.supervisor.workers] == [1]
            gate.opened.set()
            for _ in range(3):  # the old first one, the second, and its successor
                await it.log.says("stopped")
            async with it.connect() as ws:
                assert await ws.recv() == "worker 1"

    run_on(None, main())


def test_stopping_while_it_starts() -> None:
    gate = Gate()
    gate.first = False

    async def main() -> None:
        async with supervise(Plan(handler, lifespan=gate), 2) as it:
            await asyncio.to_thread(gate.waiting.wait, TIMEOUT)
            for method in ("add", "remove", "reload"):
                getattr(it.supervisor, method)()
            it.supervisor.stop()
            gate.opened.set()
            await it.running
            assert it.log.lines[-1] == "worker 1 (thread) stopped"
            assert it.url == ""

    run_on(None, main())


# -- threads -------------------------------------------------------------------------


def test_a_thread_cannot_start() -> None:
    async def main(application: str, text: str) -> None:
        async with supervise(Plan(application), 2) as it:
            with pytest.raises(StartError, match=text):
                await it.running

    text = r"worker 1 \(thread\) cannot start: cannot import no_such_module_here"
    run_on(None, main("no_such_module_here:x", text))


def test_a_loop_that_dies_is_replaced() -> None:
    """Also when it was asked to end the process, which is not for a thread to do."""

    async def fatal(ws: Any) -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 5)
        await ws.recv()

    async def main() -> None:
        async with supervise(Plan(fatal), 1) as it:
            await it.log.says("is ready")
            async with it.connect() as ws:
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
            await it.log.says(r"worker 1 \(thread\) ended with SystemExit: 5")
            await it.log.says("is ready")

    run_on(None, main())


@pytest.mark.usefixtures("interruptible")
def test_threads_of_the_command_line(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\n"
        "async def handler(ws):\n"
        "    await ws.subscribe('news')\n"
        "    await ws.send(threading.current_thread().name)\n"
        "    async for message in ws:\n"
        "        ws.server.publish('news', message)\n"
    )
    server = serve("threaded:handler", "--threads", "2")
    url = server.says(r" at (ws\S+)\n")[1]
    server.says(r"worker 2 \(thread\) is ready")
    with contextlib.ExitStack() as stack:
        clients: dict[Any, Any] = {}
        while len(clients) < 2:
            client = stack.enter_context(connect_sync(url))
            clients.setdefault(client.recv(), client)
        clients["worker 1"].send("from one to the other")
        assert clients["worker 2"].recv(TIMEOUT) == "from one to the other"
    if sys.platform != "win32":
        server.send(signal.SIGHUP)
        server.says("threads cannot load the application anew")
        server.send(signal.SIGTTIN)
        server.says(r"worker 3 \(thread\) is ready")
        server.send(signal.SIGTTOU)
        server.says(r"worker 3 \(thread\) stopped")
    with connect_sync(url) as ws:
        ws.recv()
        server.send(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(TIMEOUT)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
    output = server.ends()
    assert "Traceback" not in output
    assert "Warning" not in output
