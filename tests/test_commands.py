"""The command line: in pipes, with files, and in a terminal as a person uses it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import TLS, tls_fixture

from websock.commands.bench import percentile
from websock.commands.connect import pretty, show_bytes
from websock.commands.terminal import printable
from websock.sync.client import connect
from websock.testing.plugin import ThreadedServer

tls = tls_fixture()
TIMEOUT = 60


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_PROXY": "*", **more}


def websock(
    *arguments: str, input: str | bytes = b"", **more: str
) -> subprocess.CompletedProcess[bytes]:
    data = input.encode() if isinstance(input, str) else input
    return subprocess.run(
        [sys.executable, "-P", "-m", "websock", *arguments],
        input=data,
        capture_output=True,
        env=environment(**more),
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def start() -> Iterator[Any]:
    """Start servers that are stopped at the end."""
    servers: list[ThreadedServer] = []

    def begin(handler: Any = None, **options: Any) -> ThreadedServer:
        servers.append(ThreadedServer(handler, options))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


# -- connect: pipes ------------------------------------------------------------------


def test_lines(start: Any) -> None:
    server = start()
    done = websock("connect", server.url, input="one\ntwo ☺\r\nthree")
    assert done.stdout.decode() == "one\ntwo ☺\nthree\n"
    assert (done.returncode, done.stderr) == (0, b"")
    assert server.received == ["one", "two ☺", "three"]


def test_binary(start: Any) -> None:
    data = bytes(range(256)) * 1000
    done = websock("connect", start().url, "--binary", input=data)
    assert done.stdout == data
    done = websock("connect", start().url, "--binary", "--hex", input=b"\x00\xff")
    assert done.stdout == b"00ff\n"


def test_send_count_and_output(start: Any, tmp_path: Path) -> None:
    server = start()
    path = tmp_path / "out"
    done = websock(
        *("connect", server.url, "--send", "one", "--send", "two", "--count", "2"),
        *("--output", str(path)),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert path.read_text() == "one\ntwo\n"
    done = websock("connect", server.url, "--send", "one", "--count", "1", "--output=-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\n", b"")
    done = websock("connect", server.url, "--output", str(tmp_path / "no" / "file"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"argument --output: cannot open '" in done.stderr
    assert b"No such file or directory" in done.stderr


def test_json(start: Any) -> None:
    done = websock("connect", start().url, "--json", input='{"a": [1, "☺"]}\nno {\n')
    assert done.stdout.decode() == '{\n  "a": [\n    1,\n    "☺"\n  ]\n}\nno {\n'


def test_headers_and_more(start: Any) -> None:
    async def handler(ws: Any) -> None:
        headers = ws.request.headers
        await ws.send(f"{headers['X-One']} {headers['Origin']} {ws.subprotocol}")
        await ws.send(str("Sec-WebSocket-Extensions" in headers))

    server = start(handler, subprotocols=["chat"])
    done = websock(
        *("connect", server.url, "-H", "X-One: 1", "--origin", "https://example.com"),
        *("--subprotocol", "chat", "--no-compression", "--no-proxy", "--linger", "30"),
    )
    assert done.stdout == b"1 https://example.com chat\nFalse\n"
    assert done.returncode == 0


def test_how_it_ends(start: Any) -> None:
    async def refuse(ws: Any) -> None:
        await ws.close(4003, "go away\x1b[31m")

    async def drop(ws: Any) -> None:
        ws.transport.abort()

    done = websock("connect", start(refuse).url, "--linger", "30")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr == b"websock: closed by the server: 4003 go away\\x1b[31m\n"
    done = websock("connect", start(drop).url, "--linger", "30")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr == b"websock: connection lost: no close frame received or sent\n"


def test_max_size(start: Any) -> None:
    """A server cannot fill the memory of who only looks."""

    async def send(ws: Any) -> None:
        await ws.send(bytes(int(ws.request.path[1:])))
        await ws.wait_closed()

    def ends(size: int, *arguments: str) -> tuple[int, int, bytes]:
        url = f"{server.url.rstrip('/')}/{size}"
        done = websock("connect", url, "--count", "1", "--linger", "60", *arguments)
        return done.returncode, len(done.stdout), done.stderr

    server = start(send, compression=None)
    mib = 2**20
    text = b"message is too big: %d bytes, limit %d"
    for size, arguments, limit in (
        (64 * mib, (), None),
        (64 * mib + 1, (), 64 * mib),
        (64 * mib + 1, ("--max-size", "0"), None),
        (101, ("--max-size", "100"), 100),
    ):
        status, length, error = ends(size, *arguments)
        if limit is None:
            assert (status, error) == (0, b"")
            assert length >= size
        else:
            assert (status, length) == (3, 0)
            assert text % (size, limit) in error


def test_what_cannot_be_reached(start: Any) -> None:
    def refuse(ws: Any, request: Any) -> Any:
        return ws.respond(403, "for members only\n")

    server = start()
    server.stop()
    for arguments, status, text in (
        ((server.url,), 1, "Connect call failed"),
        ((start(process_request=refuse).url,), 1, "HTTP 403\nfor members only"),
        (("http://localhost",), 1, "isn't a valid URI"),
        (("ws://localhost:99999",), 1, "isn't a valid URI"),
        ((server.url, "-H", "nonsense"), 2, "expected 'Name: value', got 'nonsense'"),
        ((), 2, "the following arguments are required: URL"),
        ((server.url, "--ca-file", "/no/such/file"), 1, "No such file"),
    ):
        done = websock("connect", *arguments)
        assert (done.returncode, done.stdout) == (status, b""), done
        assert text in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


def test_tls(start: Any, tls: TLS, tmp_path: Path) -> None:
    server = start(ssl=tls.server)
    done = websock("connect", server.url, "--send", "x", "--count", "1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"CERTIFICATE" in done.stderr.upper()
    done = websock("connect", server.url, "--insecure", "--send", "x", "--count", "1")
    assert (done.returncode, done.stdout) == (0, b"x\n")


def test_closed_output(start: Any) -> None:
    """As in ``websock connect URL | head -n 1``."""

    async def flood(ws: Any) -> None:
        while ws.is_open:
            await ws.send("x" * 1000)

    command = [sys.executable, "-P", "-m", "websock", "connect", start(flood).url]
    with subprocess.Popen(
        [*command, "--linger", "60"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"x" * 1000 + b"\n"
        process.stdout.close()
        process.wait(TIMEOUT)
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_interrupt_closes_with_1000(start: Any) -> None:
    codes: list[Any] = []
    arrived, ended = threading.Event(), threading.Event()

    async def handler(ws: Any) -> None:
        await ws.recv()
        arrived.set()
        await ws.wait_closed()
        codes.append(ws.close_code)
        ended.set()

    command = [sys.executable, "-P", "-m", "websock", "connect", start(handler).url]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"here\n")
        process.stdin.flush()
        assert arrived.wait(TIMEOUT)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        assert ended.wait(TIMEOUT)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert codes == [1000]


# -- connect: a terminal -------------------------------------------------------------


class Person:
    """Somebody at a terminal."""

    def __init__(self, *arguments: str, **more: str) -> None:
        import pty

        self.screen = ""
        self.has_left = False
        self.changed = threading.Condition()
        pid, self.fd = pty.fork()
        if not pid:  # pragma: no cover (the other process)
            os.execve(
                sys.executable,
                [sys.executable, "-P", "-m", "websock", *arguments],
                environment(TERM="xterm", **more),
            )
        self.pid = pid
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            with self.changed:
                self.screen += data.decode(errors="replace")
                self.has_left = not data
                self.changed.notify_all()
                if not data:
                    return

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def sees(self, pattern: str) -> None:
        """Wait until something is on the screen; what came before it is past."""
        with self.changed:
            found = None

            def is_there() -> bool:
                nonlocal found
                found = re.search(pattern, self.screen, re.DOTALL)
                return found is not None

            assert self.changed.wait_for(is_there, TIMEOUT), self.screen
            assert found is not None
            self.screen = self.screen[found.end() :]

    def leaves(self, key: str = "") -> int:
        """Wait for the end of the program, and return its status.

        A key is pressed again when nothing has come of it: the system forgets a Ctrl-D
        that comes before readline has the terminal.
        """
        with self.changed:
            for _ in range(TIMEOUT):
                if key:
                    with contextlib.suppress(OSError):  # it has just ended
                        self.type(key)
                if self.changed.wait_for(lambda: self.has_left, 1):
                    break
            else:
                os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def person(tmp_path: Path) -> Any:
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals")
    return lambda *arguments: Person(*arguments, XDG_STATE_HOME=str(tmp_path))


def test_terminal(start: Any, person: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\x00\x01file\xff")
    server = start()
    user = person("connect", server.url)
    user.sees(r"connected to ws://.* /help tells what there is")
    user.sees("> ")
    user.type("hello ☺\n")
    user.sees("< hello ☺")
    user.type('{"a": [1]}\n')
    user.sees(r'< \{\s+"a": \[\s+1\s+\]\s+\}')
    user.type("/ping\n")
    user.sees(r"pong after [0-9.]+ ms")
    user.type("/hex 00 41 ff\n")
    user.sees(r"< binary, 3 bytes\s+000000  00 41 ff +\.A\.")
    user.type(f"/file {file}\n")
    user.sees(r"< binary, 7 bytes\s+000000  00 01 66 69 6c 65 ff +\.\.file\.")
    user.type("//slash\n")
    user.sees("< /slash")
    for line, answer in (
        ("/hex zz", "/hex: non-hexadecimal"),
        ("/file /no/such/file", "/file: .*No such file"),
        ("/close 99", "/close: "),
        ("/nonsense", "no command /nonsense; /help tells"),
        ("/help", r"/ping \[TEXT\].*Ctrl-D or Ctrl-C +close with code 1000"),
    ):
        user.type(line + "\n")
        user.sees(answer)
    assert user.leaves("\x04") == 0
    assert server.received[0] == "hello ☺"
    history = tmp_path / "websock" / "history"
    if history.exists():  # there is readline
        assert "hello ☺" in history.read_text()
        assert history.stat().st_mode & 0o077 == 0
        again = person("connect", server.url)
        again.sees("> ")
        again.type("\x1b[A")  # the line before
        again.sees("/help")
        again.type("\x15last\n")
        again.sees("< last")
        again.type("/close 1001 bye\n")
        assert again.leaves() == 0


def test_messages_while_typing(start: Any, person: Any) -> None:
    go_on = threading.Event()

    async def handler(ws: Any) -> None:
        import asyncio

        await ws.send("\x1b[2Jfirst")  # a terminal would be cleared by it
        await asyncio.to_thread(go_on.wait, TIMEOUT)
        await ws.send("second")
        await ws.send(f"got {await ws.recv()}")
        await ws.close(1011, "enough")

    user = person("connect", start(handler).url)
    user.sees(r"< \\x1b\[2Jfirst")
    user.sees("> ")
    user.type("half")
    user.sees("half")
    go_on.set()
    user.sees("< second")
    user.type(" a line\n")
    user.sees("< got half a line")
    user.sees("closed by the server: 1011 enough")
    assert user.leaves() == 3


def test_interrupt_at_the_terminal(start: Any, person: Any) -> None:
    codes: list[Any] = []
    ended = threading.Event()

    async def handler(ws: Any) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)
        ended.set()

    user = person("connect", start(handler).url)
    user.sees("> ")
    user.type("\x03")
    assert user.leaves() == 130
    assert ended.wait(TIMEOUT)
    assert codes == [1000]


# -- serve ---------------------------------------------------------------------------


class Served:
    """A server of the command line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "websock", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = line.rpartition(" at ")[2].strip()
        self.first = line

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0
        return out, err


ADDRESS = ("--host", "127.0.0.1", "--port", "0")


def test_serve_echo() -> None:
    server = Served("echo", *ADDRESS)
    assert re.fullmatch(r"echo at ws://127\.0\.0\.1:\d+\n", server.first)
    done = websock("connect", f"{server.url}/path", input="a\nb\n")
    assert done.stdout == b"a\nb\n"
    assert re.fullmatch(r"127\.0\.0\.1:\d+ opened /path", server.line())
    assert re.fullmatch(
        r"127\.0\.0\.1:\d+ closed 1000 \(2 messages in, 2 out\)", server.line()
    )
    assert server.stop() == ("closing\n", "")


def test_serve_broadcast_and_relay() -> None:
    inner = Served("broadcast", *ADDRESS, "--quiet")
    outer = Served("relay", inner.url, *ADDRESS, "--quiet")
    listener = subprocess.Popen(
        [sys.executable, "-P", "-m", "websock", "connect", outer.url, "--count", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    deadline = time.monotonic() + TIMEOUT
    # It may not be connected yet: say it until it was heard.
    while listener.poll() is None:
        assert time.monotonic() < deadline
        done = websock("connect", inner.url, "--send", "to all")
        assert done.returncode == 0
    assert listener.communicate()[0] == b"to all\nto all\n"
    assert listener.returncode == 0
    inner.stop()
    done = websock("connect", outer.url, "--linger", "30")
    assert done.returncode == 3
    assert b"1014 cannot connect" in done.stderr
    outer.stop()


def test_serve_unix(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = Served("echo", "--unix", path)
    assert server.url == path
    server.stop()


def test_serve_wrongly() -> None:
    taken = Served("echo", *ADDRESS)
    port = taken.url.rpartition(":")[2]
    for arguments, status, text in (
        (("echo", "--host", "127.0.0.1", "--port", port), 1, "address already in use"),
        (("echo", "--port", "99999"), 1, "99999"),
        (("relay",), 2, "relay needs the URL"),
        (("echo", "ws://localhost"), 2, "echo takes no URL"),
        (("nonsense",), 2, "invalid choice: 'nonsense'"),
        (("echo", "--certificate", "/no/such/file"), 1, "No such file"),
    ):
        done = websock("serve", *arguments)
        assert done.returncode == status, done
        assert text in done.stderr.decode().replace("Address", "address")
        assert "Traceback" not in done.stderr.decode()
    taken.stop()


def test_what_peers_say_is_shown_on_one_line() -> None:
    """A reason can neither command the terminal nor look like another line."""
    server = Served("echo", *ADDRESS)
    with connect(server.url, proxy=None) as ws:
        ws.close(4000, "\x1b[2J\n127.0.0.1:1 opened /\u202e")
    assert re.fullmatch(r"127\.0\.0\.1:\d+ opened /", server.line())
    assert re.fullmatch(
        r"127\.0\.0\.1:\d+ closed 4000 \\x1b\[2J\\n127\.0\.0\.1:1 opened /\\u202e "
        r"\(0 messages in, 0 out\)",
        server.line(),
    )
    assert server.stop() == ("closing\n", "")


# -- bench, and the rest -------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_bench(start: Any, binary: bool) -> None:
    options = ["--connections", "3", "--depth", "2", "--size", "100"]
    if binary:
        options += ["--binary", "--compression"]
    done = websock("bench", start().url, "--seconds", "0.2", *options)
    assert done.returncode == 0, done
    first, second, third = done.stdout.decode().splitlines()
    kind = "binary" if binary else "text"
    assert first.startswith(
        f"3 connections, 2 messages in flight on each, 100 bytes of {kind}, "
    )
    assert re.match(r"messages  \d+, [\d,]+/s, [\d.]+ MB/s", second)
    assert re.match(r"answer in 50 % [\d.]+ ms  90 % .* 99 % .* max ", third)


def test_bench_of_no_echo_server(start: Any) -> None:
    async def shout(ws: Any) -> None:
        async for message in ws:
            await ws.send(message.upper())

    done = websock("bench", start(shout).url, "--seconds", "0.1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"is this an echo server?" in done.stderr
    done = websock("bench", "ws://localhost", "--depth", "0")
    assert done.returncode == 2


def test_percentile() -> None:
    values = [float(n) for n in range(1, 101)]
    for part, value in ((0, 1), (0.5, 50), (0.9, 90), (0.99, 99), (1, 100)):
        assert percentile(values, part) == value
    assert percentile([7.0], 0.5) == 7.0


def test_help() -> None:
    done = websock("--help")
    assert done.returncode == 0
    for command in ("connect", "serve", "bench", "run", "doctor"):
        assert command.encode() in done.stdout
        done_ = websock(command, "--help", PYTHONWARNINGS="error")
        assert (done_.returncode, done_.stderr) == (0, b"")
        assert b"usage:" in done_.stdout
    assert websock("nonsense").returncode == 2


def test_shown() -> None:
    assert show_bytes(b"") == "binary, 0 bytes"
    assert show_bytes(bytes(5000)).endswith("  ... 904 bytes more")
    assert pretty("{") == "{"
    assert pretty("[1]") == "[\n  1\n]"
    assert pretty("plain") == "plain"
    assert printable("a\x00\t\n☺\u202e", "\n\t") == "a\\x00\t\n☺\\u202e"
    assert printable("a\n\x9b☺") == "a\\n\\x9b☺"


def test_json_that_would_grow_or_is_too_deep() -> None:
    """Each of the numbers would get 1,000 spaces in front."""
    for text in ("[" * 500 + "1," * 100_000 + "1" + "]" * 500, "[" * 100_000):
        assert pretty(text) == text
        assert pretty('{"a":' + text) == '{"a":' + text
    wide = "[" + "1," * 100_000 + "1]"
    assert pretty(wide).count("\n") == 100_002
