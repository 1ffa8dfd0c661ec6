"""Programs that talk on a connection, in each API, and keep account of it.

Each does its :class:`Part`: it sends its messages, receives, and closes when its part
says so. What became of that is in its :class:`Account`. Connections have no timeouts:
what does not end by itself hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import websockets
import websockets.asyncio.client
import websockets.asyncio.server
from scripted import LOOPBACK, TLS

import websock
import websock.sync.client
import websock.sync.server
from websock.listener import Listener

__all__ = [
    "CLIENTS",
    "SERVERS",
    "Account",
    "Part",
    "serving",
    "serving_threads",
    "start_client",
]

CLIENTS = ("coroutine", "listener", "sync", "websockets")
SERVERS = ("coroutine", "listener", "sync", "websockets")

Message = str | bytes

# The one that is no part of what is tested logs what peers do wrong as errors.
QUIET = logging.Logger("quiet")
QUIET.disabled = True


@dataclass(frozen=True)
class Part:
    """What a program does.

    Attributes:
        messages: What it sends.
        expects: How many messages it may receive.
        closes: When it closes the connection: ``"sent"``, ``"received"`` for after
            both, ``"never"``.
        code: Code with which it closes.
        seed: What its chance begins with.
    """

    messages: list[Message]
    expects: int
    closes: str
    code: int
    seed: str


class Account:
    """What a program has done, and seen.

    Attributes:
        begun: Messages that it began to send.
        accepted: Messages of which ``send()`` has said that they were sent.
        received: Messages that came.
        ws: The connection, once it is open.
        closed_early: Whether it closed before all that it expects had come.
        ending: The exception that ended receiving.
        failures: Those that ended anything else.
        told: What a listener was told of the end.
        done: Set when the program has ended.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.chance = random.Random(part.seed)
        self.begun = self.accepted = 0
        self.received: list[Message] = []
        self.ws: Any = None
        self.closed_early = False
        self.ending: BaseException | None = None
        self.failures: list[BaseException] = []
        self.told: list[tuple[int, str]] = []
        self.done = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def finish(self) -> None:
        """The program has ended; from any thread."""
        self._loop.call_soon_threadsafe(self.done.set)

    def outgoing(self) -> Iterator[Any]:
        """Yield what ``send()`` takes: messages, some of them in fragments."""
        for message in self.part.messages:
            self.begun += 1
            if self.chance.random() < 0.15:
                third = len(message) // 3
                yield [message[:third], message[third:]]
            else:
                yield message
            self.accepted += 1

    def is_complete(self) -> bool:
        return len(self.received) >= self.part.expects

    def closing(self) -> tuple[int, str]:
        """Note that the program closes; return code and reason."""
        self.closed_early = not self.is_complete()
        return self.part.code, f"closed by {self.part.seed}"[:100]

    def dawdles(self) -> bool:
        return self.chance.random() < 0.2


# -- programs --------------------------------------------------------------------------


async def talk(ws: Any, account: Account) -> None:
    """Talk with coroutines, ours or those of websockets."""
    account.ws = ws
    complete = asyncio.Event()
    part = account.part

    async def send() -> None:
        try:
            for message in account.outgoing():
                await ws.send(message)
                if account.dawdles():
                    await asyncio.sleep(0)
            if part.closes == "received":
                await complete.wait()
            if part.closes != "never" and account.ending is None:
                await ws.close(*account.closing())
        except Exception as exc:
            account.failures.append(exc)

    sending = asyncio.create_task(send())
    try:
        while True:
            if account.is_complete():
                complete.set()
            if account.dawdles():
                # A recv() that is cancelled takes nothing.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.0005):
                        account.received.append(await ws.recv())
            else:
                account.received.append(await ws.recv())
    except Exception as exc:
        account.ending = exc
    complete.set()
    await sending
    account.finish()


class Talks(Listener):
    """Talks with callbacks."""

    def __init__(self, take: Callable[[], Account]) -> None:
        self.take = take
        self.account: Account
        self.complete = asyncio.Event()
        self.sending: asyncio.Task[None]

    def on_open(self, ws: Any) -> None:
        self.account = self.take()
        self.account.ws = ws
        self.sending = asyncio.create_task(self._send(ws))
        self.sending.add_done_callback(self._sent)

    def on_message(self, ws: Any, message: Message) -> None:
        self.account.received.append(message)
        if self.account.is_complete():
            self.complete.set()

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.account.told.append((code, reason))
        self.complete.set()
        if self.sending.done():
            self.account.finish()

    def _sent(self, task: asyncio.Task[None]) -> None:
        if self.account.told:
            self.account.finish()

    async def _send(self, ws: Any) -> None:
        account = self.account
        try:
            for message in account.outgoing():
                if isinstance(message, list):
                    await ws.send(message)
                    continue
                ws.send_nowait(message)
                if account.dawdles():
                    await ws.drain()
            if account.part.closes == "received" and not account.is_complete():
                await self.complete.wait()
            if account.part.closes != "never" and not account.told:
                ws.close_nowait(*account.closing())
        except Exception as exc:
            account.failures.append(exc)


def talk_in_threads(ws: Any, account: Account) -> None:
    """Talk with two threads."""
    account.ws = ws
    complete = threading.Event()
    part = account.part

    def send() -> None:
        try:
            for message in account.outgoing():
                ws.send(message)
            if part.closes == "received":
                complete.wait()
            if part.closes != "never" and account.ending is None:
                ws.close(*account.closing())
        except Exception as exc:
            account.failures.append(exc)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    try:
        while True:
            if account.is_complete():
                complete.set()
            if account.dawdles():
                with contextlib.suppress(TimeoutError):
                    account.received.append(ws.recv(timeout=0.0005))
            else:
                account.received.append(ws.recv())
    except Exception as exc:
        account.ending = exc
    complete.set()
    sending.join()


# -- clients ---------------------------------------------------------------------------


def start_client(kind: str, uri: str, account: Account, **options: Any) -> None:
    """Start a client's program; how it ends is in its account.

    Args:
        kind: Which API, of :data:`CLIENTS`.
        uri: Where to connect to.
        account: What it is to do.
        **options: For ``connect()``.
    """
    options.setdefault("close_timeout", None)
    options |= {"open_timeout": None, "proxy": None}
    if kind == "sync":
        # If it hangs, the test is not to hang with it.
        threading.Thread(
            target=_sync_client, args=(uri, account, options), daemon=True
        ).start()
        return
    account.program = asyncio.create_task(  # type: ignore[attr-defined]
        _client(kind, uri, account, options)
    )


async def _client(
    kind: str, uri: str, account: Account, options: dict[str, Any]
) -> None:
    try:
        if kind == "websockets":
            connecting = websockets.asyncio.client.connect(uri, logger=QUIET, **options)
            async with connecting as theirs:
                await talk(theirs, account)
        elif kind == "listener":
            listener = Talks(lambda: account)
            async with websock.connect(uri, listener=listener, **options) as ws:
                await ws.wait_closed()
                await account.done.wait()
        else:
            async with websock.connect(uri, **options) as ws:
                await talk(ws, account)
    except Exception as exc:
        account.failures.append(exc)
        account.finish()


def _sync_client(uri: str, account: Account, options: dict[str, Any]) -> None:
    try:
        with websock.sync.client.connect(uri, **options) as ws:
            talk_in_threads(ws, account)
    except Exception as exc:
        account.failures.append(exc)
    account.finish()


# -- servers ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(
    kind: str, take: Callable[[], Account], tls: TLS | None, **options: Any
) -> AsyncIterator[Any]:
    """Run a server; yield its address.

    Args:
        kind: Which API, of :data:`SERVERS`.
        take: Makes the account of a connection that was opened.
        tls: Contexts of both sides, to speak TLS.
        **options: For ``serve()``.
    """
    options.setdefault("close_timeout", None)
    if tls is not None:
        options["ssl"] = tls.server
    if kind == "sync":
        async with serving_threads(_in_thread(take), **options) as address:
            yield address
        return

    async def handler(ws: Any) -> None:
        await talk(ws, take())

    if kind == "websockets":
        server: Any = websockets.asyncio.server.serve(
            handler, LOOPBACK, 0, logger=QUIET, **options
        )
    elif kind == "listener":
        server = websock.serve(lambda: Talks(take), LOOPBACK, 0, **options)
    else:
        server = websock.serve(handler, LOOPBACK, 0, **options)
    async with server as listening:
        yield listening.sockets[0].getsockname()


def _in_thread(take: Callable[[], Account]) -> Callable[[Any], None]:
    """Return a handler for servers that use threads."""
    loop = asyncio.get_running_loop()

    async def call() -> Account:
        return take()

    def handler(ws: Any) -> None:
        # Accounts are of the loop's thread.
        account = asyncio.run_coroutine_threadsafe(call(), loop).result()
        talk_in_threads(ws, account)
        account.finish()

    return handler


@contextlib.asynccontextmanager
async def serving_threads(
    handler: Callable[[Any], None], **options: Any
) -> AsyncIterator[Any]:
    """Run a server that uses threads; yield its address."""
    server = websock.sync.server.serve(handler, LOOPBACK, 0, **options)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()
    finally:
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join)
