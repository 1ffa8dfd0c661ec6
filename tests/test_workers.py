"""Worker processes: started, replaced, restarted, stopped; by signals, as people do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from scripted import LOOPBACK, run_on
from supervised import APP, TIMEOUT, Supervised, supervised_fixture

from websock.__main__ import parse
from websock.asyncio.client import connect as connect_async
from websock.asyncio.server import serve as serve_async
from websock.exceptions import ConnectionClosed
from websock.hub.address import Address
from websock.sync.client import connect, unix_connect
from websock.workers.loading import load, load_lifespan
from websock.workers.plan import Plan, StartError
from websock.workers.run import run

pytestmark = [
    pytest.mark.skipif(
        sys.platform == "win32", reason="Windows has no processes that inherit sockets"
    ),
    pytest.mark.usefixtures("interruptible"),
]

serve = supervised_fixture()
PID = r"worker (\d+) \(process (\d+)\) "


def started(server: Supervised, workers: int = 2) -> str:
    """Wait until all workers are ready; return the URL."""
    url = server.says(r" at (ws\S+|/\S+)\n")[1]
    if workers > 1:
        server.has(
            *(rf"worker {n} \(process \d+\) is ready" for n in range(2, workers + 1))
        )
    return url


def gone(server: Supervised, url: str) -> None:
    """Check that nobody listens, and that nobody complained."""
    host, _, port = url.removeprefix("ws://").rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), TIMEOUT)
    for word in ("Traceback", "Warning:", "was never"):
        assert word not in server.output, server.output


def close_code(ws: Any) -> int | None:
    """Receive until the end; return the code that came."""
    try:
        while True:
            ws.recv(TIMEOUT)
    except ConnectionClosed as exc:
        return None if exc.rcvd is None else int(exc.rcvd.code)


def test_one_that_is_killed_is_replaced(serve: Any) -> None:
    server = serve("app:handler", "--workers", "2")
    url = started(server)
    with connect(url) as ws:
        victim = int(ws.recv())
        os.kill(victim, signal.SIGKILL)
        said = server.says(PID + r"was killed by SIGKILL; another starts now")
        assert int(said[2]) == victim
        new = server.says(PID + r"is ready")
        assert new[1] == said[1]
        assert int(new[2]) != victim
    assert not Path(f"/proc/{victim}").exists()  # not even as a zombie
    # It ends by itself: the pause before the next is longer.
    os.kill(int(new[2]), signal.SIGTERM)
    server.says(PID + r"ended with exit code 0; another starts in 0.5 s")
    server.stop()
    gone(server, url)


def test_one_more_and_one_less(serve: Any) -> None:
    server = serve("app:handler", "--workers", "1", "--drain", "0")
    url = started(server, 1)
    server.send(signal.SIGTTOU)
    server.says("one worker is left: it stays")
    server.send(signal.SIGTTIN)
    server.says(r"a worker more: 2\n")
    second = server.says(PID + "is ready")
    assert second[1] == "2"
    clients = [connect(url)]
    # The kernel chooses.
    while clients[-1].recv() != second[2]:
        clients.append(connect(url))
    server.send(signal.SIGTTOU)
    server.says(r"a worker less: 1\n")
    assert close_code(clients[-1]) == 1012
    server.says(r"worker 2 \(process \d+\) stopped")
    for client in clients[:-1]:
        client.send("still here")
        assert client.recv() == "still here"
    for number, text in ((signal.SIGUSR1, "no log files"), (signal.SIGUSR2, "reloads")):
        server.send(number)
        server.says(text)
    with connect(url) as ws:
        assert ws.recv() != second[2]
    server.stop()
    for client in clients:
        client.close()
    gone(server, url)


def test_term_drains(serve: Any) -> None:
    server = serve(
        "app:handler", "--workers", "2", "--drain", "0.3", "--lifespan", "app:lifespan"
    )
    url = started(server)
    clients = [connect(url) for _ in range(6)]
    server.send(signal.SIGTERM)
    assert {close_code(client) for client in clients} == {1001}
    output = server.ends()
    for client in clients:
        client.close()
    assert output.count("handler ended") == 6
    assert output.count("begins 1\n") == output.count("ends\n") == 2
    assert len(re.findall(PID + "stopped", output)) == 2
    gone(server, url)


def test_ctrl_c_of_a_terminal_is_for_the_whole_group(serve: Any) -> None:
    server = serve("app:handler", "--workers", "2", start_new_session=True)
    url = started(server)
    with connect(url) as ws:
        before = server.output
        os.killpg(server.process.pid, signal.SIGINT)
        assert close_code(ws) == 1001
        output = server.ends()
    lines = output.removeprefix(before).splitlines()
    assert lines[0].endswith("SIGINT: closing")
    assert len(lines) == 4, lines  # and the handler, and each worker
    gone(server, url)


def test_ctrl_c_while_it_starts(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time; os.write(2, b'importing\\n'); time.sleep(600)"
    )
    server = serve("slow:handler", "--workers", "1", start_new_session=True)
    server.says("importing")
    for _ in range(2):  # the second time it waits for nobody
        os.killpg(server.process.pid, signal.SIGINT)
        server.says("SIGINT: closing")
    assert "Traceback" not in server.ends()


def test_workers_stop_without_their_supervisor(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        server = serve("app:handler", "--workers", "1")
        url = started(server, 1)
        assert os.listdir(folder)  # what carries topics
        with connect(url) as ws:
            server.process.kill()
            assert close_code(ws) == 1001
            server.all_end()
        gone(server, url)
        assert os.listdir(folder) == []


def test_reload_refuses_nobody(serve: Any, tmp_path: Path) -> None:
    """Clients come all the time: none is refused, none is reset."""
    server = serve("app:greet", "--workers", "2", "--drain", "0.2")
    url = started(server)
    app = tmp_path / "app.py"
    # Of another length: in the same second, Python would take what it compiled before.
    app.write_text(app.read_text().replace('"old"', '"new one"'))
    greetings: list[str] = []
    codes: set[int] = set()
    is_over = threading.Event()

    async def come_and_go() -> None:
        while not is_over.is_set():
            async with connect_async(url) as ws:
                try:
                    greetings.append(await ws.recv())
                    await ws.send("hello")
                    assert await ws.recv() == "hello"
                except ConnectionClosed as exc:
                    codes.add(0 if exc.rcvd is None else int(exc.rcvd.code))

    async def visit() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(come_and_go())

    with ThreadPoolExecutor() as executor, connect(url) as ws:
        visitors = executor.submit(run_on, None, visit())
        try:
            assert ws.recv().startswith("old ")
            server.send(signal.SIGHUP)
            server.has(
                *(
                    rf"worker {n} \(process \d+\) {what}"
                    for n in (1, 2)
                    for what in ("is ready", "stopped")
                ),
                "reloaded",
            )
            assert close_code(ws) == 1012
            count = len(greetings)
            while len(greetings) < count + 20 and not visitors.done():
                with connect(url) as other:
                    assert other.recv().startswith("new ")
        finally:
            is_over.set()
        visitors.result()
    assert codes <= {1012}
    assert all(text.startswith("new ") for text in greetings[-10:])
    server.stop()
    gone(server, url)


def test_reload_of_what_cannot_be_loaded(serve: Any, tmp_path: Path) -> None:
    server = serve("app:handler", "--workers", "1")
    url = started(server, 1)
    app = tmp_path / "app.py"
    before = app.read_text()
    app.write_text("raise ValueError('not now')")
    server.send(signal.SIGHUP)
    server.says(PID + "cannot start: Traceback ")
    server.says(r"\nValueError: not now\nreload given up: " + PID + "goes on")
    app.write_text(before)
    with connect(url) as ws:
        victim = ws.recv()
        ws.send("exit")
        said = server.says(PID + "ended with exit code 7; another starts now")
        assert said[2] == victim
    server.says(PID + "is ready")
    server.stop()


def test_what_cannot_be_served(serve: Any, tmp_path: Path) -> None:
    """It is said once, and not tried again and again."""
    (tmp_path / "broken.py").write_text("import no_such_module_at_all")
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])
        where = ("--host", LOOPBACK, "--port", port)
        two = ("--workers", "2")
        cases = [
            (("absent:handler", *two), 3, "cannot import absent: No module named"),
            (("broken:handler", *two), 3, "ModuleNotFoundError: No module named 'no_"),
            (("broken:handler",), 3, "ModuleNotFoundError: No module named 'no_"),
            (("app:handler", *two, *where), 1, "ddress already in use"),
        ]
        servers = [serve(*arguments) for arguments, _, _ in cases]
        for server, (arguments, status, text) in zip(servers, cases, strict=True):
            output = server.ends(status)
            assert output.count(text) == 1, (arguments, output)
            assert " at ws" not in output
            assert "another starts" not in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("app:", "--workers", "2"), "invalid choice: 'app:'"),
        (("echo", "--workers", "2"), "are for an application"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_command() -> None:
        parsed = parse(["serve", *arguments])
        parsed.run(parsed)

    with pytest.raises(SystemExit) as caught:
        run_command()
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_what_a_name_may_stand_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app_of_names.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in (
        ("app_of_names:no.thing", "app_of_names has no 'no.thing'"),
        ("app_of_names:number", "cannot serve app_of_names:number: "),
        ("app_of_names.absent:x", "cannot import app_of_names.absent: "),
    ):
        with pytest.raises(StartError, match=re.escape(text)):
            load(Plan(name))
    for name in ("handler", "Listener", "served"):
        assert isinstance(load(Plan(f"app_of_names:{name}")), serve_async)
    with pytest.raises(StartError, match=r"served comes from serve\(\), which has"):
        load(Plan("app_of_names:served", {"max_size": 5}))
    with pytest.raises(TypeError, match=r"serve\(\) has the options"):
        Plan(serve_async(handler, port=0), {"max_size": 5}).check()
    found = load_lifespan(Plan(handler, lifespan="app_of_names:lifespan"))
    assert found is sys.modules["app_of_names"].lifespan


def test_unix_socket(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = serve("app:Listener", "--workers", "1", "--unix", str(path))
    assert started(server, 1) == str(path)
    with unix_connect(str(path)) as ws:
        victim = int(ws.recv())
        os.kill(victim, signal.SIGKILL)
    server.says("was killed by SIGKILL")
    with unix_connect(str(path)) as ws:
        assert int(ws.recv()) != victim
    server.stop()
    assert not path.exists()


def test_tls(serve: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = serve(
        "app:handler", "--certificate", "certificate.pem", "--key", "key.pem"
    )
    port = started(server, 1).rpartition(":")[2]
    with connect(f"wss://localhost:{port}", ssl=context) as ws:
        assert int(ws.recv()) == server.process.pid  # without workers
        server.send(signal.SIGINT)
        assert close_code(ws) == 1001
    server.ends()


# -- websock.run() -------------------------------------------------------------------

SCRIPT = """
import logging
import websock

logging.basicConfig(level="INFO", format="%(processName)s %(message)s")

async def handler(ws):
    await ws.send(__name__)

"""


def test_run_of_a_script(serve: Any) -> None:
    server = serve(
        script=f'{SCRIPT}if __name__ == "__main__":\n'
        "    websock.run(handler, '127.0.0.1', 0, workers=2)"
    )
    url = server.says(r"listening on (ws\S+)\n")[1]
    server.has(PID + "is ready", r"worker 2 server listening on")
    with connect(url) as ws:
        assert ws.recv() == "__mp_main__"
    server.stop()


def test_run_without_a_guard(serve: Any) -> None:
    server = serve(script=f"{SCRIPT}websock.run(handler, '127.0.0.1', 0, workers=2)")
    output = server.ends(1)
    assert 'run() must be called under if __name__ == "__main__"' in output
    assert "is ready" not in output


def test_run_here(serve: Any) -> None:
    """Without workers anything can be served, and signals do the same."""
    server = serve(
        script=f"{SCRIPT}import app\n"
        "websock.run(lambda ws: app.handler(ws), '127.0.0.1', 0, drain=0,"
        " lifespan=app.lifespan, max_size=10)"
    )
    url = server.says(r"listening on (ws\S+)\n")[1]
    with connect(url) as ws:
        assert int(ws.recv()) == server.process.pid
        ws.send("x" * 11)
        assert close_code(ws) == 1009
    with connect(url) as ws:
        server.send(signal.SIGTERM)
        assert close_code(ws) == 1001
    assert "ends\n" in server.ends()
    gone(server, url)


def test_topics_reach_all_workers(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os\n"
        "async def handler(ws):\n"
        "    await ws.subscribe('news')\n"
        "    await ws.send(str(os.getpid()))\n"
        "    async for message in ws:\n"
        "        ws.server.publish('news', message)\n"
        "async def look(ws): await ws.send(os.environ['WEBSOCK_HUB'])\n"
        "def choose(ws): return (look if ws.request.path == '/hub' else handler)(ws)\n"
    )
    server = serve("app:choose", "--workers", "2")
    url = started(server)
    with connect(f"{url}/hub") as ws:
        hub = ws.recv()
    with contextlib.ExitStack() as stack:
        clients: dict[str, Any] = {}

        def come(number: int) -> None:
            """Have clients of so many workers."""
            while len(clients) < number:
                client = stack.enter_context(connect(url))
                clients.setdefault(client.recv(), client)

        come(2)
        victim, other = clients.values()
        victim.send("from one to the other")
        assert other.recv(TIMEOUT) == "from one to the other"
        os.kill(int(next(iter(clients))), signal.SIGKILL)
        server.says(PID + "is ready")
        come(3)  # with its successor
        other.send("to one that came later")
        assert [*clients.values()][-1].recv(TIMEOUT) == "to one that came later"
    path = Address.parse(hub).path
    assert path is not None
    assert os.path.exists(path)
    server.stop()
    assert hub not in server.output
    assert not os.path.exists(os.path.dirname(path))


async def handler(ws: Any) -> None:
    pass


def test_run_wrongly() -> None:
    for error, text, arguments in (
        (ValueError, "workers must be at least 1: 0", {"workers": 0}),
        (TypeError, "threads must be an int, not str", {"threads": "2"}),
        (ValueError, "cannot be given together", {"workers": 1, "threads": 1}),
        (ValueError, "drain must not be negative: -1", {"drain": -1}),
        (ValueError, "loop must be asyncio or uvloop: 'x'", {"loop": "x"}),
        (ValueError, "a key needs its certificate", {"key": "x"}),
        (ValueError, "expected 'module:name', got 'x'", {"lifespan": "x"}),
        (TypeError, "lifespan must be a function or", {"lifespan": 1}),
        (TypeError, "unexpected keyword argument 'speed'", {"speed": 1}),
        (ValueError, "max_size must be", {"max_size": -1}),
        (TypeError, "logger cannot be handed to worker processes", {"workers": 1}),
    ):
        options: dict[str, Any] = {"host": LOOPBACK, "port": 0, **arguments}
        if "logger" in text:
            options["logger"] = threading.Lock()
        with pytest.raises(error, match=re.escape(text)):
            run(handler, **options)
    with pytest.raises(ValueError, match="expected 'module:name', got 'module'"):
        run("module", LOOPBACK, 0)
    with pytest.raises(TypeError, match="the application cannot be handed to"):
        run(lambda ws: handler(ws), LOOPBACK, 0, workers=1)


def test_run_in_a_wrong_place() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="in a loop, use serve"):
            run(handler, LOOPBACK, 0)
        for name in ("workers", "threads"):
            with pytest.raises(TypeError, match=rf"{name} is for websock\.run\(\)"):
                await serve_async(handler, LOOPBACK, 0, **{name: 2})  # type: ignore[arg-type]

    run_on(None, main())
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            run(handler, LOOPBACK, 0)
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "run() is for the main thread" in str(caught[0])
