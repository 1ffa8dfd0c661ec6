"""Conversations that are recorded once and replayed in tests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..asyncio.client import ClientConnection, connect
from ..asyncio.server import Server, ServerConnection, serve
from ..exceptions import ConnectionClosed
from ..frames import CloseCode
from ..typing import Data

__all__ = ["Entry", "Recording", "ReplayMismatch", "record", "replay"]

HOST = "127.0.0.1"


class ReplayMismatch(AssertionError):
    """A client did not say what was recorded."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was said.

    Attributes:
        sender: ``"client"`` or ``"server"``.
        message: A message; ``None`` for the end of the connection.
        code: Close code of the end.
        reason: Close reason of the end.
        time: Seconds since the connection was opened.
    """

    sender: Literal["client", "server"]
    message: Data | None = None
    code: int = 1000
    reason: str = ""
    time: float = field(default=0.0, compare=False)

    def to_json(self) -> str:
        """Return it as a line of JSON."""
        value: dict[str, Any] = {"sender": self.sender, "time": round(self.time, 6)}
        if isinstance(self.message, str):
            value["text"] = self.message
        elif self.message is not None:
            value["base64"] = base64.b64encode(self.message).decode()
        else:
            value.update(code=self.code, reason=self.reason)
        return json.dumps(value, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Entry:
        """Return the entry that a line of JSON says.

        Raises:
            ValueError: When it is no such line.
        """
        try:
            value = json.loads(line)
            sender, time = value["sender"], value.get("time", 0.0)
            if sender not in ("client", "server"):
                raise ValueError(f"sender must be client or server, not {sender!r}")
            if "text" in value:
                return cls(sender, value["text"], time=time)
            if "base64" in value:
                return cls(sender, base64.b64decode(value["base64"]), time=time)
            return cls(sender, None, value["code"], value.get("reason", ""), time)
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a line of a recording: {line.strip()[:80]}") from exc


@dataclass
class Recording:
    """What was said on one connection.

    Attributes:
        entries: What was said, in order.
    """

    entries: list[Entry] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, one line of JSON for each entry.

        Raises:
            OSError: When the file cannot be written.
        """
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(entry.to_json() + "\n" for entry in self.entries)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read it from a file.

        Raises:
            OSError: When the file cannot be read.
            ValueError: When it is no recording.
        """
        with open(path, encoding="utf-8") as file:
            return cls([Entry.from_json(line) for line in file if line.strip()])


@dataclass
class Recorder:
    """A relay that records; :func:`record` makes it.

    Attributes:
        url: Where clients are to connect instead.
        recordings: One for each connection, in the order they were opened.
    """

    url: str
    recordings: list[Recording] = field(default_factory=list)

    @property
    def recording(self) -> Recording:
        """The recording of the only connection.

        Raises:
            ValueError: When there was none, or there were several.
        """
        if len(self.recordings) != 1:
            raise ValueError(f"{len(self.recordings)} connections were recorded, not 1")
        return self.recordings[0]


def _url(server: Server) -> str:
    return f"ws://{HOST}:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def record(uri: str, **kwargs: Any) -> AsyncIterator[Recorder]:
    """Run a relay in front of a server that records what is said.

    ::

        async with record("wss://example.com/feed") as recorder:
            await my_client(recorder.url)
        recorder.recording.save("feed.jsonl")

    Args:
        uri: URI of the server; clients connect to ``recorder.url`` instead.
        **kwargs: As for :func:`~websock.connect`, for connections to the server.
    """
    recorder = Recorder("")
    loop = asyncio.get_running_loop()

    async def handler(client: ServerConnection) -> None:
        recording = Recording()
        recorder.recordings.append(recording)
        began = loop.time()

        async def copy(
            sender: Literal["client", "server"],
            source: ClientConnection | ServerConnection,
            target: ClientConnection | ServerConnection,
        ) -> None:
            try:
                while True:
                    message = await source.recv()
                    now = loop.time() - began
                    recording.entries.append(Entry(sender, message, time=now))
                    await target.send(message)
            except ConnectionClosed as exc:
                code, reason = 1006, ""
                if exc.rcvd is not None:
                    code, reason = exc.rcvd.code, exc.rcvd.reason
                    if exc.rcvd_then_sent:
                        now = loop.time() - began
                        entry = Entry(sender, None, code, reason, now)
                        recording.entries.append(entry)
                if code in (1005, 1006, 1015):
                    code = CloseCode.NORMAL_CLOSURE
                await target.close(code, reason)

        async with connect(uri, **kwargs) as server:
            await asyncio.gather(
                copy("client", client, server), copy("server", server, client)
            )

    async with serve(handler, HOST, 0) as server:
        recorder.url = _url(server)
        yield recorder


@dataclass
class Replay:
    """A server that says what was recorded; :func:`replay` makes it.

    Attributes:
        url: Where clients are to connect.
        mismatches: What clients said that was not recorded.
    """

    url: str
    mismatches: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def replay(recording: Recording | Iterable[Entry]) -> AsyncIterator[Replay]:
    """Run a server that says what was recorded, to each client that connects.

    ::

        async with replay(Recording.load("feed.jsonl")) as server:
            await my_client(server.url)

    What the client has to say next is awaited before the server goes on.  A client
    that says something else is closed with code 1008.

    Args:
        recording: What was recorded.

    Raises:
        ReplayMismatch: At the end, when a client said something else.
    """
    entries = recording.entries if isinstance(recording, Recording) else list(recording)
    state = Replay("")

    async def handler(ws: ServerConnection) -> None:
        for number, entry in enumerate(entries, 1):
            if entry.sender == "server":
                if entry.message is None:
                    await ws.close(entry.code, entry.reason)
                    return
                await ws.send(entry.message)
                continue
            said = await _next(ws)
            if said != entry:
                text = f"entry {number}: expected {_show(entry)}, got {_show(said)}"
                state.mismatches.append(text)
                await ws.close(CloseCode.POLICY_VIOLATION, f"entry {number} differs")
                return
        await ws.wait_closed()

    async with serve(handler, HOST, 0, max_size=None) as server:
        state.url = _url(server)
        yield state
    if state.mismatches:
        raise ReplayMismatch("\n".join(state.mismatches))


async def _next(ws: ServerConnection) -> Entry:
    try:
        return Entry("client", await ws.recv())
    except ConnectionClosed as exc:
        if exc.rcvd is None:
            return Entry("client", None, 1006, "")
        return Entry("client", None, exc.rcvd.code, exc.rcvd.reason)


def _show(entry: Entry) -> str:
    if entry.message is None:
        return f"the end with {entry.code} {entry.reason!r}"
    shown = repr(entry.message)
    return shown if len(shown) <= 80 else f"{shown[:77]}... ({len(entry.message)})"
