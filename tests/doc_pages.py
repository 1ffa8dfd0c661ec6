"""The examples in the pages of the documentation, and programs run from them.

An example whose first line is a comment with a name, such as ``# server.py``, is a file;
others are parts of a session.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TIMEOUT = 60  # seconds, for a busy machine

_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?:#|//|<!--) ?([\w./-]+\.\w+|Dockerfile)(?: -->)?\n")


@dataclass(frozen=True)
class Block:
    """An example."""

    page: str
    language: str
    text: str

    @property
    def name(self) -> str | None:
        """Name of the file that it is, if it is one."""
        found = _NAME.match(self.text)
        return found[1] if found else None


def pages() -> dict[str, Path]:
    """Return all pages by their place in the project."""
    paths = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("bench/*.md")]
    paths += ROOT.glob("examples/*.md")
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(paths)}


def blocks(page: str) -> list[Block]:
    """Return the examples of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, *found) for found in _BLOCK.findall(text)]


def files(page: str) -> dict[str, str]:
    """Return the examples of a page that are files."""
    return {block.name: block.text for block in blocks(page) if block.name}


def commands(block: Block) -> list[str]:
    """Return the commands of a console example.

    What follows a prompt is one; without any prompt every line is.  A backslash at the
    end of a line continues it.
    """
    text = re.sub(r"\\\n\s*", "", block.text)
    lines = [line for line in text.splitlines() if line.strip()]
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    return [re.sub(r"\s{2,}#.*", "", line).strip() for line in prompted or lines]


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Folder:
    """A folder with the files of some pages, in which their programs are run.

    The port that the pages agree on is replaced by a free one.
    """

    def __init__(self, path: Path, *names: str, **more: str) -> None:
        self.path = path
        self.port = free_port()
        for page in names:
            for name, text in files(page).items():
                self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        """Write a file, with the port that is free."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"\b(8765|8000|8080)\b", str(self.port), text)
        path.write_text(text, encoding="utf-8")
        return path

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which the library that is tested is found."""
        import websock

        place = str(Path(websock.__file__).resolve().parent.parent)
        return {**os.environ, "PYTHONPATH": place, "PYTHONUNBUFFERED": "1"}

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run Python to its end; return what it printed."""
        done = subprocess.run(
            (sys.executable, *arguments),
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(
        self,
        *arguments: str,
        command: tuple[str, ...] = (),
        stop: int = signal.SIGINT,
        status: int = 0,
        said: str | None = None,
    ) -> Iterator[Program]:
        """Run Python, or a command, until the block ends; it listens in the block.

        Args:
            arguments: Command line of Python.
            command: Command line of something else, instead.
            stop: Signal that ends it.
            status: Its exit status.
            said: What it prints when it listens; by default it is connected to.
        """
        log = self.path / "output.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                command or (sys.executable, *arguments),
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        program = Program(process, log)
        try:
            wait_for(said or self.port, program)
            yield program
            process.send_signal(stop)
            assert process.wait(TIMEOUT) == status, program.output
        finally:
            process.kill()
            process.wait()


@dataclass
class Program:
    """A program that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8")


def wait_for(sign: int | str, program: Program) -> None:
    """Wait until a program listens on a port, or has said something."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        assert program.process.poll() is None, program.output
        assert time.monotonic() < deadline, program.output
        if isinstance(sign, str):
            if sign in program.output:
                return
        elif is_listening(sign):
            return
        time.sleep(0.01)


def is_listening(port: int) -> bool:
    """Tell whether something listens on a port of this machine."""
    try:
        socket.create_connection(("localhost", port), 1).close()
    except OSError:
        return False
    return True
