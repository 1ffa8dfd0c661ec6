"""Programs in processes of their own, and what they say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

PROGRAMS = Path(__file__).resolve().parent / "programs"
TIMEOUT = 60  # seconds, on a busy machine

# What differs from run to run in a note.
ACCEPT = re.compile(r"[A-Za-z0-9+/]{27}=")
PORT = re.compile(r"127\.0\.0\.1:\d+")
# What differs from run to run in a line of a log.
RANDOM = [
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"127\.0\.0\.1(:|', |\", )\d+"), r"127.0.0.1\1PORT"),
    (re.compile(r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?( ?[+-]\d{4})?\]?"), "TIME"),
    (re.compile(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d( [+-]\d{4})?"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d|\b\d{6} \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\b0x[0-9a-f]+"), "ADDRESS"),
    (re.compile(r"<Task .*? coro=<(\S+).*"), r"<Task \1"),
    (re.compile(r"(process|worker|Worker \w+|PID|pid|TIME)(\W+)\d+"), r"\1\2PID"),
    (re.compile(r"\b\d+(\.\d+)?(ms|s)\b"), "DURATION"),
]  # fmt: skip


def tidy(line: str) -> str:
    """Return a line without what is random in it."""
    for pattern, text in RANDOM:
        line = pattern.sub(text, line)
    return line.rstrip()


class Program:
    """A program that runs, and its notes (see ``programs/journal.py``).

    Args:
        command: Its command line, after that of the interpreter.
        environment: Variables that it gets beside those of this process.
        port: How the line begins that ends in the port it listens on.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], port: str = '{"port": '
    ) -> None:
        self.command = command
        self.notes: dict[str, list[Any]] = {}
        self.engines: dict[str, str] = {}
        self.states: dict[str, str] | None = None
        self.imported: bool | None = None
        self.log: list[str] = []
        self.port = 0
        self._port = re.compile(re.escape(port) + r"\D*?(?:127\.0\.0\.1:)?(\d+)")
        self._news = threading.Condition()
        self._ended = 0
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROGRAMS,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self._take(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended += 1
            self._news.notify_all()

    def _take(self, line: str) -> None:
        if not self.port and (found := self._port.search(line)):
            self.port = int(found[1])
        if not line.startswith('{"'):
            self.log.append(line)
            return
        line = ACCEPT.sub("ACCEPT", PORT.sub("127.0.0.1:PORT", line))
        facts = json.loads(line)
        if "talk" in facts:
            note = [facts["what"], *facts["values"]]
            self.notes.setdefault(facts["talk"], []).append(note)
        elif "engine" in facts:
            self.engines[facts["of"]] = facts["engine"]
        elif "speedups" in facts:
            self.states, self.imported = facts["speedups"], facts["imported"]

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until the program has said something."""
        end = time.monotonic() + TIMEOUT
        with self._news:
            while not condition():
                assert self._ended < 2, f"it has ended before {what}:\n{self.said()}"
                left = end - time.monotonic()
                assert left > 0, f"it never said {what}:\n{self.said()}"
                self._news.wait(left)

    def wait_for_port(self) -> int:
        self.wait(lambda: self.port, "which port it listens on")
        return self.port

    def has_noted(self, talk: str, *what: str) -> bool:
        """Tell whether a talk has a note of one of these kinds."""
        with self._news:
            return any(note[0] in what for note in self.notes.get(talk, ()))

    def wait_for_end_of(self, talk: str) -> list[Any]:
        """Wait until the program is through with a talk; return its notes."""
        found = self.notes
        self.wait(lambda: ["over"] in found.get(talk, ()), f"that {talk} is over")
        with self._news:
            notes = found[talk]
            return notes[: notes.index(["over"]) + 1]

    def said(self) -> str:
        notes = (f"{talk}: {note}" for talk in self.notes for note in self.notes[talk])
        return "\n".join([f"$ python {' '.join(self.command)}", *self.log, *notes])

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        status = self._process.wait(TIMEOUT)
        for reader in self._readers:
            reader.join(TIMEOUT)
        return status

    def kill(self) -> None:
        """End it and whatever it has started, if that still runs."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.wait_for_end()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
