"""Two connections of ours that talk to each other, and the account of what they said.

The connections are real, on a pair of sockets or in memory; time passes only when a
test wants it to, or when nothing else is left to happen.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from websock.asyncio.connection import Connection, broadcast
from websock.exceptions import ConcurrencyError, ConnectionClosed
from websock.extensions.permessage_deflate import PerMessageDeflate
from websock.listener import Listener
from websock.prepared import prepare
from websock.protocol import Protocol, Side
from websock.testing import FakeClockLoop, Faults
from websock.testing.memory import MemoryTransport

__all__ = [
    "BrokenOff",
    "Complaints",
    "Conversation",
    "End",
    "Message",
    "Sent",
    "Setup",
    "check_order",
    "number_of",
]

Message = str | bytes

# Seconds of the loop's own time, which costs none: far more than any timeout.
LONG = 100_000.0


class BrokenOff(Exception):
    """What the source of a message in fragments raises in the middle of it."""


@dataclass
class Sent:
    """A message, and when it was accepted.

    Attributes:
        begun: Moment at which it was handed over.
        accepted: Moment from which it was in its place; ``None``: not known to be.
        certain: Whether it is known if it was accepted at all.
    """

    message: Message
    begun: int
    accepted: int | None = None
    certain: bool = True


def number_of(message: Message) -> int:
    """Return the number that a message tells."""
    text = message if isinstance(message, str) else message[:20].split(b":")[0].decode()
    return int(text.partition(":")[0])


def check_order(all_sent: list[Sent], received: list[Message]) -> None:
    """Nothing changed, doubled, out of order, or left out in between.

    Threads may go on meanwhile: what they note is never too early.
    """
    numbers = [number_of(message) for message in received]
    assert len(set(numbers)) == len(numbers), f"received twice: {numbers}"
    newest = -1
    for number, message in zip(numbers, received, strict=True):
        sent = all_sent[number]
        assert message == sent.message, f"{number} is another message"
        assert not sent.certain or sent.accepted is not None, "received, never accepted"
        assert sent.accepted is None or sent.accepted > newest, f"order: {numbers}"
        newest = max(newest, sent.begun)
    missing = {*range(len(all_sent))}.difference(numbers)
    for number in missing:
        sent = all_sent[number]
        assert sent.accepted is None or sent.accepted > newest, (
            f"no {number}: {numbers}"
        )


@dataclass(frozen=True)
class Setup:
    """What a conversation takes place on."""

    kind: str = "socket"  # or "memory"
    compression: bool = False
    listeners: tuple[bool, bool] = (False, False)
    max_queue: tuple[Any, Any] = (16, 16)
    write_limit: int = 2**15
    buffer_size: int | None = None
    split: int | None = None


class Hears(Listener):
    """The callback API of an end."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.closes: list[tuple[int, str]] = []

    def on_message(self, ws: Connection, message: Message) -> None:
        assert not self.closes, "a message after the end"
        self.end.received.append(message)

    def on_close(self, ws: Connection, code: int, reason: str) -> None:
        self.closes.append((code, reason))


class End:
    """One end: what it sent, what it received, and who waits for something."""

    def __init__(self, talk: Conversation, side: Side, number: int) -> None:
        setup = talk.setup
        self.talk = talk
        self.sent: list[Sent] = []
        self.received: list[Message] = []
        self.tasks: dict[asyncio.Task[Any], Sent | None] = {}
        self.pings: list[asyncio.Future[float]] = []
        self.receiver: asyncio.Task[Any] | None = None
        self.gates: list[asyncio.Future[bool]] = []
        self.is_paused = False
        self.failed = False  # this end gave up reading, on purpose
        self.has_closed = False  # this end began to close while it was open
        self.broken = False  # a message was left in its middle: no other can follow
        self.listener = Hears(self) if setup.listeners[number] else None
        self.limits_queue = setup.max_queue[number] is not None
        self.ws = Connection(
            Protocol(side, max_size=None),
            max_queue=setup.max_queue[number],
            max_queue_bytes=2**15 if self.limits_queue else None,
            write_limit=setup.write_limit,
            listener=self.listener,
            # Beyond what a test lets pass before the end.
            ping_interval=5_000,
            ping_timeout=5_000,
            close_timeout=5_000,
        )
        if setup.compression:
            extension = PerMessageDeflate(False, False, 15, 15, compress_min_size=0)
            self.ws.protocol.extensions = [extension]

    # -- what a program does -----------------------------------------------------------

    def start(self, call: Coroutine[Any, Any, Any], sent: Sent | None = None) -> Any:
        """Have a task do something, and let it begin."""
        task = self.talk.loop.create_task(call)
        self.tasks[task] = sent
        self.talk.turns(1)
        return task

    def next_message(self, size: int, is_text: bool) -> Sent:
        """Make a message that tells its number."""
        number = f"{len(self.sent)}:"
        filler = "aé漢😀"[len(self.sent) % 4] if is_text else "x"
        text = number + filler * size
        sent = Sent(text if is_text else text.encode(), self.talk.moment())
        self.sent.append(sent)
        return sent

    def send(self, way: str, size: int, is_text: bool) -> None:
        """Send a message in one piece, or in several that are there already."""
        ws = self.ws
        sent = self.next_message(size, is_text)
        message = sent.message
        has_turn = ws.is_open and not ws.fragmenting
        # Which of several that wait for their turn is first need not be known.
        is_alone = all(s is None or s.accepted for s in self.tasks.values())
        count = ws.stats().messages_sent
        if way in ("nowait", "post", "broadcast"):
            try:
                if way == "nowait":
                    ws.send_nowait(message)
                elif way == "post":
                    ws.post(prepare(message))
                else:
                    broadcast([ws], message)
            except ConnectionClosed:
                assert not ws.is_open
            except ConcurrencyError:
                assert ws.fragmenting
            if has_turn:
                sent.accepted = self.talk.moment()
            return
        if way == "fragments":
            third = len(message) // 3
            pieces = [message[:third], message[third : 2 * third], message[2 * third :]]
            self.start(ws.send(pieces), sent)
            sent.certain = False  # until the task says so
        else:
            self.start(
                ws.send(prepare(message) if way == "prepared" else message), sent
            )
            sent.certain = is_alone and (has_turn or not ws.is_open)
            # It may be told of the end before it begins.
            if has_turn and is_alone and ws.stats().messages_sent > count:
                sent.accepted = self.talk.moment()

    def send_slowly(self, sizes: list[int], is_text: bool) -> None:
        """Begin a message whose fragments come when ``next_fragment()`` is called."""
        sent = self.next_message(sum(sizes), is_text)
        sent.certain = False
        self.start(self.ws.send(self._pieces(sent.message, sizes)), sent)

    async def _pieces(
        self, message: Message, sizes: list[int]
    ) -> AsyncIterator[Message]:
        rest = message
        for size in sizes:
            piece, rest = rest[:size], rest[size:]
            yield piece
            gate = self.talk.loop.create_future()
            self.gates.append(gate)
            if not await gate:
                raise BrokenOff
        yield rest

    def next_fragment(self, goes_on: bool) -> None:
        """Let a message in fragments go on, or break off."""
        gate = self.gates.pop(0)
        if not gate.done():
            gate.set_result(goes_on)
            if not goes_on and self.ws.is_open:
                self.failed = True

    def receive(self, way: str) -> None:
        """Have a task wait for messages."""
        assert self.receiver is None
        self.receiver = self.start(getattr(self, f"_receive_{way}")())

    async def _receive_one(self) -> None:
        self.received.append(await self.ws.recv())

    async def _receive_many(self) -> None:
        self.received += await self.ws.recv_many(3)

    async def _receive_in_time(self) -> None:
        async with asyncio.timeout(1.5):
            self.received.append(await self.ws.recv())

    async def _receive_iterating(self) -> None:
        count = 0
        async for message in self.ws:
            self.received.append(message)
            count += 1
            if count == 3:
                return

    async def _receive_streaming(self) -> None:
        pieces: list[Any] = []
        done = False
        try:
            async for piece in self.ws.recv_streaming():
                pieces.append(piece)
                await asyncio.sleep(0)  # where it may be cancelled
            done = True
        finally:
            # Nothing that follows can be received.
            self.broken |= bool(pieces) and not done
        self.received.append(type(pieces[0])().join(pieces))

    async def receive_all(self) -> None:
        """Receive until the end."""
        if self.receiver is not None:
            await asyncio.wait([self.receiver])
        while not self.broken:
            self.received.append(await self.ws.recv())

    def refuse_second(self) -> None:
        """A second receiver is refused, and takes nothing from the first."""
        task = self.talk.loop.create_task(self.ws.recv_many())
        self.talk.turns(1)
        assert isinstance(task.exception(), ConcurrencyError)

    async def ping(self) -> None:
        """Send a ping; its pong is waited for at the end."""
        self.pings.append(await self.ws.ping())  # type: ignore[arg-type]

    def close(self, way: str, code: int) -> None:
        """Close, or fail, the connection from this end."""
        ws = self.ws
        if ws.is_open:
            if way == "fail" or ws.fragmenting:
                self.failed = True
            self.has_closed = True
        if way == "fail":
            ws.fail(code, "on purpose")
            self.failed = True
        elif way == "nowait":
            ws.close_nowait(code, way)
        else:
            self.start(ws.close(code, way))

    def pause(self) -> None:
        """Read nothing for a while."""
        self.is_paused = True
        self.ws.pause_reading()

    def resume(self) -> None:
        self.is_paused = False
        self.ws.resume_reading()

    # -- how it went -------------------------------------------------------------------

    def look(self) -> None:
        """Take in which tasks are done, and whether they ended as they may."""
        for task, sent in list(self.tasks.items()):
            if not task.done():
                continue
            del self.tasks[task]
            if task is self.receiver:
                self.receiver = None
            if task.cancelled():
                # A message in fragments cannot be taken back.
                self.failed |= sent is not None and not sent.certain
                continue
            exc = task.exception()
            if exc is None:
                if sent is not None and sent.accepted is None:
                    sent.accepted = self.talk.moment()
                    sent.certain = True
            elif isinstance(exc, ConnectionClosed):
                assert self.ws.is_lost, "told of the end before the end"
            elif isinstance(exc, ConcurrencyError):
                assert self.broken, exc
            else:
                assert isinstance(exc, (TimeoutError, BrokenOff)), exc


class Conversation:
    """A client's and a server's end, joined.

    Attributes:
        lost: Whether the connection was cut, so that what was on its way is lost.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.lost = False
        self.loop = FakeClockLoop()
        self.complaints: list[Any] = []
        self.loop.set_exception_handler(
            lambda loop, context: self.complaints.append(context)
        )
        self._moment = 0
        self._log = Complaints(self.complaints)
        logging.getLogger("websock").addHandler(self._log)
        self.faults = Faults(split=setup.split), Faults(split=setup.split)
        self.run(self._begin())

    async def _begin(self) -> None:
        sides = Side.CLIENT, Side.SERVER
        self.ends = tuple(End(self, side, n) for n, side in enumerate(sides))
        if self.setup.kind == "socket":
            for end, sock in zip(self.ends, socket.socketpair(), strict=True):
                sock.setblocking(False)
                if self.setup.buffer_size is not None:
                    size = self.setup.buffer_size
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
                end.ws.start(sock)
        else:
            transports = [MemoryTransport(self.loop, f) for f in self.faults]
            for one, other in (transports, transports[::-1]):
                one.outgoing.reader = other
                one.incoming = other.outgoing
            for end, transport in zip(self.ends, transports, strict=True):
                transport.protocol = end.ws
                end.ws.connection_made(transport)
        for end in self.ends:
            end.ws.handshake_done()

    # -- time ----------------------------------------------------------------------------

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(call)

    def turns(self, count: int) -> None:
        """Let the loop turn; no time passes."""

        async def wait() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.run(wait())
        self.look()

    def moment(self) -> int:
        """Return a number that is larger than all before it."""
        self._moment += 1
        return self._moment

    def look(self) -> None:
        for end in getattr(self, "ends", ()):
            end.look()

    def cut(self, how: str, end: End) -> None:
        """Lose the connection."""
        self.lost = True
        if how == "drop" and self.setup.kind == "memory":
            for faults in self.faults:
                faults.drop = True
        elif how == "close":
            end.ws.transport.close()
        else:
            end.ws.transport.abort()

    # -- the end -------------------------------------------------------------------------

    def finish(self, closer: int) -> None:
        """Let everything go on to its end; the connection is closed if it is open."""
        for end in self.ends:
            end.resume()
            while end.gates:
                end.next_fragment(True)
                self.turns(2)
            if end.listener is None:
                end.start(end.receive_all())
            end.start(end.ws.wait_closed())
        # Nothing hurries what is in fragments: each waits until nothing else happens.
        while True:
            self.wait(lambda end: [t for t, sent in end.tasks.items() if sent], 1.0)
            if not any(end.gates for end in self.ends):
                break
            for end in self.ends:
                while end.gates:
                    end.next_fragment(True)
        # Time passes when nothing else can happen: all that can has happened then.
        self.run(asyncio.sleep(0.5))
        self.look()
        self.was_open = all(end.ws.is_open for end in self.ends)
        self.unanswered = [p for end in self.ends for p in end.pings if not p.done()]
        before = self.loop.time()
        self.ends[closer].close("wait", 1000)
        self.wait(lambda end: [*end.tasks], LONG)
        self.took = self.loop.time() - before

    def wait(self, which: Callable[[End], list[Any]], seconds: float) -> None:
        tasks = [task for end in self.ends for task in which(end)]
        if tasks:
            self.run(asyncio.wait(tasks, timeout=seconds))
        self.look()

    def close(self) -> None:
        """Clean up, whatever happened."""
        logging.getLogger("websock").removeHandler(self._log)
        for end in self.ends:
            if not end.ws.is_lost:
                end.ws.transport.abort()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()

        async def gather() -> None:
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.sleep(0)

        self.run(gather())
        self.loop.close()


class Complaints(logging.Handler):
    """Collects what the library logs as an error: nothing must be."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__(logging.ERROR)
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())
