"""A client that reconnects through a network that fails at random.

The first connections meet the faults of :mod:`faulty`, and servers that close; later ones
do not.  Whatever happens:

1. what a connection brings, in either direction, is in order, and nothing comes twice;
2. every message is accounted for: with ``confirm``, what the server never saw was told as
   lost, once, and with ``resend`` too it came, unless there was no room for it; what was
   told as dropped before it was sent never came;
3. on a connection that nothing was done to, all came;
4. it does not hang, and nothing is left: see ``test_chaos.py``, also for seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from chaos import nothing_left, some_fault, some_loop, try_seeds
from faulty import Faulty, Passage
from linked import freeze
from scripted import LOOPBACK, TLS, run_on, tls_fixture
from talkers import serving_threads

import websock
from websock.exceptions import ConnectionClosed

tls = tls_fixture()

Message = str | bytes

# Why messages are lost that were sent by no connection, unless they are sent again.
NEVER_SENT = ("buffer full", "closed before they were sent")


def number_of(message: Message) -> int:
    """Return the number with which a message begins."""
    return int(message[:20].split(b" " if isinstance(message, bytes) else " ")[0])  # type: ignore[arg-type]


class Answers:
    """What a server has done on a connection: it answers each message.

    Attributes:
        received: Numbers of the messages that came.
        sent: Answers that it began to send.
        accepted: Of how many of them ``send()`` has said that they were sent.
    """

    def __init__(self, ws: Any, number: int, closes_after: int) -> None:
        self.ws = ws
        address = ws.remote_address  # none if it was reset already
        self.port = address and address[1]
        self.number = number
        self.received: list[int] = []
        self.sent: list[str] = []
        self.accepted = 0
        self.closes_after = closes_after

    def answer(self, message: Message) -> str:
        """Note a message; return the answer."""
        self.received.append(number_of(message))
        tail = "x" * (len(message) // 2)
        self.sent.append(f"{self.number} {len(self.sent)} {self.received[-1]} {tail}")
        return self.sent[-1]

    def closes(self) -> bool:
        """Whether it is time to close."""
        return len(self.received) == self.closes_after

    @property
    def is_closing(self) -> bool:
        return len(self.received) >= self.closes_after


async def answer(conn: Answers) -> None:
    """Answer with coroutines."""
    closing = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await conn.ws.recv()
            text = conn.answer(message)
            if conn.closes():
                closing.append(asyncio.create_task(conn.ws.close(1012)))
            if not conn.is_closing:
                with contextlib.suppress(ConnectionClosed):
                    await conn.ws.send(text)
                    conn.accepted += 1
    await asyncio.gather(*closing)


class AnswersNow(websock.Listener):
    """Answers with callbacks."""

    def __init__(self, take: Callable[[Any], Answers]) -> None:
        self.take = take

    def on_open(self, ws: Any) -> None:
        self.conn = self.take(ws)

    def on_message(self, ws: Any, message: Message) -> None:
        text = self.conn.answer(message)
        if self.conn.closes():
            ws.close_nowait(1012)
        if not self.conn.is_closing:
            with contextlib.suppress(ConnectionClosed):
                ws.send_nowait(text)
                self.conn.accepted += 1


def answer_in_thread(conn: Answers) -> None:
    """Answer in a thread."""
    closing = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            text = conn.answer(conn.ws.recv())
            if conn.closes():
                closing.append(threading.Thread(target=conn.ws.close, args=(1012,)))
                closing[0].start()
            if not conn.is_closing:
                with contextlib.suppress(ConnectionClosed):
                    conn.ws.send(text)
                    conn.accepted += 1
    for thread in closing:
        thread.join()


@contextlib.asynccontextmanager
async def serving(
    kind: str, take: Callable[[Any], Answers], **options: Any
) -> AsyncIterator[Any]:
    """Run a server that answers; yield its address."""
    if kind == "sync":

        def in_thread(ws: Any) -> None:
            answer_in_thread(take(ws))

        async with serving_threads(in_thread, **options) as address:
            yield address
        return

    async def handler(ws: Any) -> None:
        await answer(take(ws))

    served = (lambda: AnswersNow(take)) if kind == "listener" else handler
    async with websock.serve(served, LOOPBACK, 0, **options) as server:
        yield server.sockets[0].getsockname()


# -- the client ------------------------------------------------------------------------


class Client:
    """A program that sends messages on a resilient connection, and its account.

    Attributes:
        sent: Numbers of the messages whose ``send()`` has returned.
        given_up: Those whose ``send()`` was cancelled: nobody knows.
        told: Why messages were lost, by their numbers.
        received: Answers that came.
    """

    def __init__(self, seed: str, **options: Any) -> None:
        self.chance = random.Random(seed)
        self.sent: list[int] = []
        self.given_up: list[int] = []
        self.told: dict[int, str] = {}
        self.received: list[str] = []
        self.greetings = 0
        self.ends: list[Exception] = []
        self.changed = asyncio.Event()
        self.numbers = itertools.count()
        self.options = options

    def on_lost(self, messages: list[Any], why: str) -> None:
        for message in messages:
            number = number_of(message)
            assert number not in self.told, "told twice"
            self.told[number] = why
        self.changed.set()

    def on_disconnect(self, exc: Exception) -> None:
        self.ends.append(exc)
        self.changed.set()

    async def on_connect(self, ws: Any) -> None:
        if self.chance.random() < 0.5:
            await ws.send("-1 greeting")
        self.greetings += 1

    def next_message(self) -> Message:
        sizes = (0, 1, 100, 130, 1000) * 4 + (5000, 70_000)
        text = f"{next(self.numbers)} " + "x" * self.chance.choice(sizes)
        return text if self.chance.random() < 0.5 else text.encode()

    async def run(self, uri: str, count: int) -> None:
        """Send messages, and then some more until one is answered."""
        async with websock.resilient(
            uri,
            on_connect=self.on_connect,
            on_disconnect=self.on_disconnect,
            on_lost=self.on_lost,
            proxy=None,
            **self.options,
        ) as ws:
            receiving = asyncio.create_task(self._receive(ws))
            for _ in range(count):
                await self._send(ws)
                if self.chance.random() < 0.3:
                    await asyncio.sleep(0)
            while True:
                number, ends = await self._send(ws), len(self.ends)
                while not (
                    self._is_answered(number)
                    or number in (*self.told, *self.given_up)
                    or len(self.ends) > ends
                ):
                    self.changed.clear()
                    await self.changed.wait()
                if self._is_answered(number):
                    break
        await receiving
        assert not ws.is_connected
        assert ws.lost == len(self.told)
        assert ws.connections <= self.greetings

    async def _send(self, ws: websock.Resilient) -> int:
        message = self.next_message()
        number = number_of(message)
        try:
            async with asyncio.timeout(0.0005 if self.chance.random() < 0.1 else None):
                await ws.send(message)
        except TimeoutError:
            self.given_up.append(number)
        else:
            self.sent.append(number)
        return number

    def _is_answered(self, number: int) -> bool:
        return any(int(text.split()[2]) == number for text in self.received[-50:])

    async def _receive(self, ws: websock.Resilient) -> None:
        async for message in ws:  # until it is closed in good order
            self.received.append(message)  # type: ignore[arg-type]
            self.changed.set()


# -- what must hold --------------------------------------------------------------------


def is_increasing(numbers: list[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


def check_sent(client: Client, conns: list[Answers]) -> None:
    """See what became of the messages of the client (1, 2)."""
    came: list[int] = []
    for conn in conns:
        numbers = [n for n in conn.received if n >= 0]
        assert is_increasing(numbers), numbers
        assert conn.received[1:].count(-1) == 0, "a greeting that was not the first"
        came += numbers
    if not client.options["resend"]:
        assert len({*came}) == len(came), "came twice"
        never = {n for n, why in client.told.items() if why in NEVER_SENT}
        assert not never.intersection(came), "came, and was told as never sent"
    assert {*came} <= {*client.sent, *client.given_up}
    missing = {*client.sent} - {*came}
    if client.options["confirm"]:
        assert missing <= {*client.told}, f"nothing is known of {missing}"
    if client.options["resend"]:
        whys = {client.told[n] for n in missing}
        assert whys <= {"buffer full"}


def check_received(
    client: Client, conns: list[Answers], passages: dict[int, Passage]
) -> None:
    """See which answers came (1, 3)."""
    by_conn: dict[int, list[str]] = {}
    for text in client.received:
        by_conn.setdefault(int(text.split()[0]), []).append(text)
    for number, texts in by_conn.items():
        assert texts == conns[number].sent[: len(texts)]
    for conn in conns[:-1]:  # the last one is closed by the client
        passage = passages.get(conn.port)
        if passage and not (passage.is_cut or passage.was_reset):
            assert len(by_conn.get(conn.number, [])) >= conn.accepted


def survive(kind: str, contexts: TLS | None, seed: str) -> None:
    """Have a client survive, as a seed wants it."""
    chance = random.Random(seed)
    count = chance.choice((1, 10, 50, 100))
    faults = [
        some_fault(chance, (20 * count, 20 * count), contexts is not None)
        for _ in range(chance.randint(1, 4))
    ]
    confirm = chance.random() < 0.8
    client_options: dict[str, Any] = {
        "confirm": confirm,
        "resend": confirm and chance.random() < 0.4,
        "max_buffer": chance.choice((0, 1, 5, 1000)),
        "overflow": chance.choice(("wait", "drop_oldest")),
        "reconnect_delays": functools.partial(
            itertools.repeat, chance.choice((0.0, 0.003))
        ),
    }
    options: dict[str, Any] = {
        "compression": chance.choice((None, "deflate")),
        "ping_interval": chance.choice((None, 0.003)),
        "ping_timeout": None,
        "open_timeout": None,
        "close_timeout": None,
    }
    # Of what comes while it closes, a server takes no more than its queue.
    closes = [chance.choice((1, 5, 20, 10**6)) for _ in faults]

    async def main() -> None:
        conns: list[Answers] = []
        lock = threading.Lock()

        def take(ws: Any) -> Answers:
            with lock:
                number = len(conns)
                after = closes[number] if number < len(closes) else 10**6
                conns.append(Answers(ws, number, after))
                return conns[-1]

        client = Client(seed, **client_options, **options)
        more: dict[str, Any] = {}
        if contexts is not None:
            more["ssl"] = contexts.server
            client.options["ssl"] = contexts.client
        scheme = "ws" if contexts is None else "wss"
        async with (
            serving(kind, take, max_queue=None, **options, **more) as address,
            Faulty(address, seed, *faults) as proxy,
        ):
            running = asyncio.create_task(
                client.run(f"{scheme}://{LOOPBACK}:{proxy.port}/", count)
            )
            releasing = asyncio.create_task(release(proxy))
            await running
            releasing.cancel()
            await asyncio.wait([releasing])
            for passage in proxy.passages:
                passage.release()
                await passage.ended.wait()
        passages = {passage.port: passage for passage in proxy.passages}
        check_sent(client, conns)
        check_received(client, conns, passages)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    freeze()
    run_on(some_loop(chance), main())


async def release(proxy: Faulty) -> None:
    """Let connections that stand still go on, after a while."""
    for number in itertools.count():
        while len(proxy.passages) <= number:
            proxy.begun.clear()
            await proxy.begun.wait()
        passage = proxy.passages[number]
        waits = [
            asyncio.create_task(event.wait())
            for event in (passage.stalled, passage.ended)
        ]
        try:
            await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        finally:
            for task in waits:
                task.cancel()
        await asyncio.sleep(0.002)
        passage.release()


@pytest.mark.parametrize("layer", ["plain", "tls"])
@pytest.mark.parametrize("kind", ["coroutine", "listener", "sync"])
def test_resilient(kind: str, layer: str, tls: TLS) -> None:
    contexts = tls if layer == "tls" else None
    try_seeds(lambda seed: survive(kind, contexts, seed), "resilient", kind, layer)


# -- that the tests would see it -------------------------------------------------------


def test_errors_that_nobody_has_seen_are_seen() -> None:
    async def fail() -> None:
        raise ValueError("of a task")

    async def main() -> None:
        tasks = [asyncio.create_task(fail())]
        await asyncio.wait(tasks)

    with (
        pytest.raises(AssertionError, match="Task exception was never retrieved"),
        nothing_left(),
    ):
        asyncio.run(main())


def test_open_sockets_are_seen() -> None:
    sockets: list[Any] = []
    with pytest.raises(AssertionError, match="socket"), nothing_left():
        sockets += socket.socketpair()
    for sock in sockets:
        sock.close()
