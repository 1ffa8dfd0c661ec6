"""Cancelling at every await of a connection: nothing is lost, nothing is left behind.

However it is done: ``Task.cancel()``, ``asyncio.timeout()``, ``wait_for()``,
``TaskGroup``, ``gather()``, ``shield()``; and with messages that arrive in the very
turn of the loop in which it happens.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from collections.abc import Coroutine as CoroutineABC
from typing import Any

import pytest
from linked import (
    BINARY,
    CLOSE,
    CONT,
    LOOPS,
    PING,
    PONG,
    TEXT,
    Link,
    Linked,
    Peer,
    close_payload,
    link_fixture,
    loop_factory,
    on_link,
    quiet_fixture,
    settle,
    socket_pair,
)
from scripted import tls_fixture

from websock.asyncio.connection import Connection
from websock.exceptions import (
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
)
from websock.protocol import Protocol, Side, State

tls = tls_fixture()
link = link_fixture("socket")
any_link = link_fixture()
quiet = quiet_fixture()

SMALL = 4096
WAYS = ["cancel", "timeout", "wait_for", "group", "gather", "wait"]


async def cancelled(call: Callable[[], Coroutine[Any, Any, Any]], way: str) -> None:
    """Begin an operation that waits, and cancel it."""
    if way == "cancel":
        task = asyncio.create_task(call())
        await settle(3)
        assert not task.done()
        assert task.cancel("mine")
        with pytest.raises(asyncio.CancelledError, match="mine"):
            await task
        assert task.cancelled()
    elif way == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await call()
    elif way == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.001)
    elif way == "group":
        with pytest.raises(ExceptionGroup):
            await grouped(call)
    elif way == "gather":
        task = asyncio.ensure_future(gathered(call))
        await settle(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        task = asyncio.ensure_future(call())
        done, pending = await asyncio.wait({task}, timeout=0.001)
        assert not done
        assert pending == {task}
        task.cancel()
        done, pending = await asyncio.wait({task})
        assert done == {task}
        assert task.cancelled()


async def fails() -> None:
    raise ZeroDivisionError


async def grouped(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        await settle(3)
        group.create_task(fails())


async def gathered(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    await asyncio.gather(call(), asyncio.Event().wait())


# -- recv ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_recv(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        for number in range(3):
            await cancelled(ws.recv, way)
            assert not ws.is_receiving
            await peer.send(TEXT, str(number))
            assert await ws.recv() == str(number)


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_recv_in_the_middle_of_a_message(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        await peer.send(TEXT, "one ", fin=False)
        await cancelled(ws.recv, way)
        await peer.send(CONT, "two ", fin=False)
        await cancelled(ws.recv, way)
        await peer.send(CONT, "three")
        assert await ws.recv() == "one two three"


@pytest.mark.parametrize("turns", range(6))
@on_link
async def test_recv_and_a_message_in_the_same_turn(any_link: Link, turns: int) -> None:
    """The message goes to this call or to the next one; never to both or to none."""
    async with any_link() as (ws, peer):
        for number in range(20):
            task = asyncio.create_task(ws.recv())
            await settle(3)
            await peer.send(TEXT, str(number))
            await settle(turns)
            task.cancel()
            try:
                message = await task
            except asyncio.CancelledError:
                message = await ws.recv()
            assert message == str(number)
        assert ws.queued == 0


@on_link
async def test_recv_cancelled_before_it_is_woken(link: Link) -> None:
    """The message comes first, while another task runs; then the cancellation."""
    async with link() as (ws, _):
        task = asyncio.create_task(ws.recv())
        await settle()
        # As a read event does, but from within a task: so the receiver is not run.
        feed(ws, link, "message")
        assert ws.queued == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ws.recv() == "message"


@on_link
async def test_message_after_the_cancellation(link: Link) -> None:
    """The cancellation comes first; the message finds a receiver that leaves."""
    async with link() as (ws, _):
        task = asyncio.create_task(ws.recv())
        await settle()
        task.cancel()
        feed(ws, link, "one")
        feed(ws, link, "two")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [await ws.recv(), await ws.recv()] == ["one", "two"]


def feed(ws: Connection, link: Link, text: str) -> None:
    ws.data_received(Peer(link.is_server).frame(TEXT, text))


@on_link
async def test_recv_cancelled_while_it_is_running(link: Link) -> None:
    """A task that is woken inside the read event may cancel itself, or others."""
    async with link() as (ws, peer):
        seen: list[Any] = []

        async def first() -> None:
            seen.append(await ws.recv())
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                seen.append(await ws.recv())
            except asyncio.CancelledError:
                seen.append("cancelled")
                task.uncancel()
            seen.append(await ws.recv())

        task = asyncio.create_task(first())
        await settle()
        await peer.write(peer.frame(TEXT, "1"))
        await settle()
        await peer.write(peer.frame(TEXT, "2") + peer.frame(TEXT, "3"))
        await task
        assert seen == ["1", "cancelled", "2"]
        assert await ws.recv() == "3"


@on_link
async def test_recv_at_a_deadline(link: Link) -> None:
    """Messages come around the time when the waiting ends."""
    async with link() as (ws, peer):
        received: list[Any] = []
        count = 200

        async def send() -> None:
            for number in range(count):
                await peer.send(TEXT, str(number))
                await asyncio.sleep(number % 4 / 2000)

        task = asyncio.create_task(send())
        while len(received) < count:
            try:
                async with asyncio.timeout(0.001):
                    received.append(await ws.recv())
            except TimeoutError:
                pass
        await task
        assert received == [str(number) for number in range(count)]


@on_link
async def test_recv_by_wait_for_at_a_deadline(link: Link) -> None:
    async with link() as (ws, peer):
        received: list[Any] = []
        count = 100

        async def send() -> None:
            for number in range(count):
                await peer.send(TEXT, str(number))
                await asyncio.sleep(number % 4 / 2000)

        task = asyncio.create_task(send())
        while len(received) < count:
            try:
                received.append(await asyncio.wait_for(ws.recv(), 0.001))
            except TimeoutError:
                pass
        await task
        assert received == [str(number) for number in range(count)]


@on_link
async def test_cancelling_both_ends_of_a_race(link: Link) -> None:
    """``asyncio.wait()`` for a message or something else, as programs do."""
    async with link() as (ws, peer):
        stop = asyncio.Event()
        received = []
        for number in range(10):
            await peer.send(TEXT, str(number))
        await peer.send(TEXT, "stop")
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            receiving = asyncio.create_task(ws.recv())
            done, _ = await asyncio.wait(
                {receiving, stopping}, return_when=asyncio.FIRST_COMPLETED
            )
            if receiving in done:
                received.append(receiving.result())
                if received[-1] == "stop":
                    stop.set()
        await stopping
        assert received == [*map(str, range(10)), "stop"]


@on_link
async def test_shield(link: Link) -> None:
    """What is shielded goes on waiting, and gets the message."""
    async with link() as (ws, peer):
        inner = asyncio.ensure_future(ws.recv())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.001)
        assert ws.is_receiving
        with pytest.raises(ConcurrencyError):
            await ws.recv()
        await peer.send(TEXT, "message")
        assert await inner == "message"


@on_link
async def test_recv_that_fails_to_decode(link: Link) -> None:
    """It waits for the end of the connection, and may be cancelled there."""
    async with link() as (ws, peer):
        await peer.send(BINARY, b"\xff")
        await peer.send(TEXT, "next")
        task = asyncio.create_task(ws.recv(decode=True))
        assert (await peer.recv()).opcode == CLOSE
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        peer.half_close()
        with pytest.raises(ConnectionClosedError):
            await receive_all(ws)


async def receive_all(ws: Connection) -> None:
    while True:
        await ws.recv()


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_iteration(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        received: list[Any] = []

        async def iterate() -> None:
            async for message in ws:
                received.append(message)

        await cancelled(iterate, way)
        await peer.send(TEXT, "one")
        await settle()
        await cancelled(iterate, way)
        await peer.send(TEXT, "two")
        await peer.close_frame()
        peer.half_close()
        await iterate()
        assert received == ["one", "two"]


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_anext(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        iterator = aiter(ws)
        await cancelled(lambda: anext(iterator), way)  # type: ignore[arg-type]
        await peer.send(TEXT, "one")
        assert await asyncio.create_task(anext(iterator)) == "one"  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_recv_streaming(link: Link, way: str) -> None:
    """Before the first fragment it is safe, after it the rest cannot be received."""
    async with link() as (ws, peer):

        async def stream() -> list[Any]:
            return [piece async for piece in ws.recv_streaming()]

        await cancelled(stream, way)
        await peer.send(TEXT, "one", fin=False)
        await peer.send(CONT, "two")
        assert "".join(await stream()) == "onetwo"
        await cancelled(ws.recv, way)
        await peer.send(TEXT, "three", fin=False)
        await settle()
        await cancelled(stream, way)
        await peer.send(CONT, "four")
        await settle()
        with pytest.raises(ConcurrencyError):
            await ws.recv()
        with pytest.raises(ConcurrencyError):
            await stream()
        await asyncio.gather(ws.close(), peer.answer_close())


@pytest.mark.parametrize("turns", range(6))
@on_link
async def test_recv_streaming_and_a_fragment_in_the_same_turn(
    link: Link, turns: int
) -> None:
    async with link() as (ws, peer):

        async def stream() -> list[Any]:
            return [piece async for piece in ws.recv_streaming()]

        task = asyncio.create_task(stream())
        await settle(3)
        await peer.send(TEXT, "whole")
        await settle(turns)
        task.cancel()
        try:
            pieces = await task
        except asyncio.CancelledError:
            pieces = await stream()
        assert pieces == ["whole"]


# -- send ----------------------------------------------------------------------------


async def fill(linked: Linked) -> None:
    """Send until sending waits."""
    ws = linked.ws
    while ws.buffered_amount < 200_000:
        ws.send_nowait(b"fill" * 5000)
        await settle(5)


async def filling(linked: Linked) -> list[bytes]:
    """Receive what follows the filling, up to and without a message ``end``."""
    received = []
    while (payload := (await linked.peer.recv()).payload) != b"end":
        if not payload.startswith(b"fill"):
            received.append(payload)
    return received


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_send_above_the_mark(any_link: Link, way: str) -> None:
    """The message was accepted at the call: it is sent, once."""
    async with any_link(buffer_size=SMALL, write_limit=1000) as linked:
        ws = linked.ws
        if "tls" in any_link.kind:
            # There the marks are those of two transports.
            task = asyncio.create_task(flood(ws))
            await settle(200)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        await fill(linked)
        await cancelled(lambda: ws.send("one"), way)
        await cancelled(lambda: ws.send(b"two"), way)
        assert ws.state is State.OPEN
        sending = asyncio.ensure_future(ws.send("end"))
        assert await filling(linked) == [b"one", b"two"]
        await sending
        await ws.send("more")
        assert (await linked.peer.recv()).payload == b"more"


async def flood(ws: Connection) -> None:
    while True:
        await ws.send(b"x" * 100_000)


@on_link
async def test_cancelled_sends_do_not_pile_up(link: Link) -> None:
    async with link(buffer_size=SMALL, write_limit=1000) as linked:
        ws = linked.ws
        await fill(linked)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.drain(), 0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.wait_closed(), 0)
        waiters = [
            found
            for found in gc.get_objects()
            if isinstance(found, asyncio.Future)
            and not isinstance(found, asyncio.Task)
            and found.cancelled()
        ]
        assert len(waiters) < 10


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_send_that_waits_its_turn(link: Link, way: str) -> None:
    """It has not begun, so nothing is sent."""
    async with link() as (ws, peer):
        gate = asyncio.Event()
        sending = asyncio.create_task(ws.send(gated(gate)))
        await peer.recv()
        await cancelled(lambda: ws.send("never"), way)
        await cancelled(lambda: ws.send(["never"]), way)
        gate.set()
        await sending
        await ws.send("next")
        received = [(await peer.recv()).payload for _ in range(3)]
        assert received == [b"last", b"", b"next"]


async def gated(gate: asyncio.Event) -> AsyncIterator[str]:
    yield "first"
    await gate.wait()
    yield "last"


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_send_before_the_first_fragment(link: Link, way: str) -> None:
    async with link() as (ws, peer):

        async def never() -> AsyncIterator[str]:
            await asyncio.Event().wait()
            yield "never"

        await cancelled(lambda: ws.send(never()), way)
        await ws.send("next")
        assert await peer.recv() == (TEXT, b"next", True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["iterable", "drain"])
@on_link
async def test_send_between_fragments(link: Link, way: str, where: str) -> None:
    """The message cannot be ended and no other be begun: the connection fails."""
    async with link(buffer_size=SMALL, write_limit=1000) as linked:
        ws, peer = linked
        if where == "drain":
            await fill(linked)
            await cancelled(lambda: ws.send(["one", "two"]), way)
        else:
            await cancelled(lambda: ws.send(gated(asyncio.Event())), way)
        assert not ws.fragmenting
        while (received := await peer.recv()).opcode != CLOSE:
            pass
        assert received.payload == close_payload(1011, "error in fragmented message")
        peer.half_close()
        with pytest.raises(ConnectionClosedError):
            await ws.send("x")


class Hanging:
    """One fragment, and then nothing for ever."""

    begun = False

    def __aiter__(self) -> Hanging:
        return self

    async def __anext__(self) -> str:
        if self.begun:
            await asyncio.Event().wait()
        self.begun = True
        return "first"


@on_link
async def test_coroutine_that_sends_is_closed(link: Link) -> None:
    """As when a loop ends with the task still there."""
    async with link() as (ws, peer):
        coroutine = ws.send(Hanging())
        waiter = coroutine.send(None)
        assert asyncio.isfuture(waiter)
        coroutine.close()
        assert not ws.fragmenting
        assert (await peer.recv()).payload == b"first"
        assert (await peer.recv()).opcode == CLOSE


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_send_while_closing(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        ws.close_nowait()
        await cancelled(lambda: ws.send("x"), way)
        await cancelled(lambda: ws.send(["x"]), way)
        await cancelled(ws.ping, way)
        await cancelled(ws.pong, way)
        assert await peer.answer_close() == close_payload(1000)
        with pytest.raises(ConnectionClosedOK):
            await ws.send("x")


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_drain(link: Link, way: str) -> None:
    async with link(buffer_size=SMALL, write_limit=1000) as linked:
        ws, peer = linked
        await fill(linked)
        await cancelled(ws.drain, way)
        waiting = asyncio.create_task(ws.drain())
        reading = asyncio.create_task(peer.ended())
        await waiting
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


# -- pings ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_ping_above_the_mark(link: Link, way: str) -> None:
    async with link(buffer_size=SMALL, write_limit=1000) as linked:
        ws, peer = linked
        await fill(linked)
        await cancelled(lambda: ws.ping("one"), way)
        await cancelled(lambda: ws.pong("two"), way)
        sending = asyncio.ensure_future(ws.send("end"))
        assert await filling(linked) == [b"one", b"two"]
        await sending
        # It was sent, so its pong is a pong like any other.
        await peer.send(PONG, "one")
        await peer.send(TEXT, "x")
        assert await ws.recv() == "x"
        assert ws.latency > 0


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_waiting_for_a_pong(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        pong = await ws.ping("one")

        async def wait() -> None:
            await pong

        await cancelled(wait, way)
        other = await ws.ping("two")
        await peer.send(PONG, "one")
        await peer.send(PONG, "two")
        assert await other > 0
        # The payload is free again.
        await ws.ping("one")


@on_link
async def test_shielded_pong(link: Link) -> None:
    async with link() as (ws, peer):
        pong = asyncio.ensure_future(await ws.ping("one"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(pong), 0.001)
        await peer.send(PONG, "one")
        assert await pong > 0


# -- close ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_close(any_link: Link, way: str) -> None:
    """Closing goes on without the one who asked for it."""
    async with any_link() as (ws, peer):
        await cancelled(lambda: ws.close(1001, "bye"), way)
        assert ws.state is State.CLOSING
        await cancelled(ws.close, way)
        await cancelled(ws.wait_closed, way)
        assert await peer.answer_close() == close_payload(1001, "bye")
        await ws.wait_closed()
        assert ws.close_code == 1001


@on_link
async def test_close_timeout_without_anybody_waiting(link: Link) -> None:
    async with link(close_timeout=0.05) as (ws, peer):
        await cancelled(ws.close, "cancel")
        assert (await peer.recv()).opcode == CLOSE
        await ws.wait_closed()
        assert ws.close_code == 1006


@pytest.mark.parametrize("way", WAYS)
@on_link
async def test_wait_closed(link: Link, way: str) -> None:
    async with link() as (ws, peer):
        for _ in range(3):
            await cancelled(ws.wait_closed, way)
        assert ws.state is State.OPEN
        waiting = asyncio.create_task(ws.wait_closed())
        await cancelled(ws.wait_closed, way)
        await peer.close_frame()
        peer.half_close()
        await waiting


@on_link
async def test_context_manager(link: Link) -> None:
    """A program that is cancelled closes its connection with code 1011."""
    async with link() as (ws, peer):

        async def program() -> None:
            async with ws:
                await ws.recv()

        task = asyncio.create_task(program())
        await settle()
        task.cancel()
        assert await peer.answer_close() == close_payload(1011)
        with pytest.raises(asyncio.CancelledError):
            await task


# -- awaitables in all the places where coroutines go ---------------------------------


@on_link
async def test_awaitables_are_coroutines(link: Link) -> None:
    async with link() as (ws, peer):
        for awaitable in (ws.recv(), ws.send("x"), anext(aiter(ws)), ws.send(["x"])):
            assert isinstance(awaitable, CoroutineABC)
            assert asyncio.iscoroutine(awaitable)
            awaitable.close()
        assert await peer.recv() == (TEXT, b"x", True)


@on_link
async def test_everything_makes_tasks_of_them(link: Link) -> None:
    async with link() as (ws, peer):

        async def message(text: str) -> None:
            await settle(2)
            await peer.send(TEXT, text)

        for number in range(8):
            sending = asyncio.create_task(message(str(number)))
            got: Any
            if number == 0:
                got = await asyncio.create_task(ws.recv(), name="mine")
            elif number == 1:
                got = await asyncio.ensure_future(ws.recv())
            elif number == 2:
                (got,) = await asyncio.gather(ws.recv())
            elif number == 3:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(ws.recv())
                got = task.result()
            elif number == 4:
                got = await asyncio.wait_for(ws.recv(), 30)
            elif number == 5:
                got = await asyncio.shield(ws.recv())
            elif number == 6:
                (future,) = asyncio.as_completed([ws.recv()])
                got = await future
            else:
                done, _ = await asyncio.wait({asyncio.ensure_future(ws.recv())})
                got = done.pop().result()
            assert got == str(number)
            await sending
        await asyncio.gather(ws.send("a"), ws.send("b"), ws.send("c"))
        async with asyncio.TaskGroup() as group:
            group.create_task(ws.send("d"))
            group.create_task(ws.send("e"))
        await asyncio.wait_for(ws.send("f"), 30)
        received = [(await peer.recv()).payload for _ in range(6)]
        assert received == [b"a", b"b", b"c", b"d", b"e", b"f"]


@on_link
async def test_what_tasks_tell_about_them(link: Link) -> None:
    async with link() as (ws, _):
        task = asyncio.create_task(ws.recv())
        await settle()
        assert "pending" in repr(task)
        assert isinstance(task.get_stack(), list)
        assert task.get_coro() is not None
        task.print_stack()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@on_link
async def test_debug_mode(link: Link) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with link() as (ws, peer):
        for number in range(3):
            task = asyncio.create_task(ws.recv())
            await settle()
            await peer.send(TEXT, str(number))
            assert await task == str(number)
        await cancelled(ws.recv, "cancel")
        await cancelled(ws.recv, "wait_for")
        assert "pending" in repr(asyncio.ensure_future(ws.recv()))
        await ws.send("x")
        await peer.send(TEXT, "last")
        await peer.send(PING)
        await settle()
        await asyncio.gather(ws.close(), peer.answer_close())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
@on_link
async def test_eager_tasks(link: Link) -> None:
    def factory(loop: Any, coroutine: Any, *, context: Any = None, **_: Any) -> Any:
        options: Any = {"eager_start": True}
        return asyncio.Task(coroutine, loop=loop, context=context, **options)

    asyncio.get_running_loop().set_task_factory(factory)
    async with link() as (ws, peer):
        task = asyncio.create_task(ws.recv())
        assert not task.done()
        assert ws.is_receiving
        await peer.send(TEXT, "one")
        assert await task == "one"
        await peer.send(TEXT, "two")
        await settle()
        task = asyncio.create_task(ws.recv())
        assert task.done()
        assert task.result() == "two"
        assert asyncio.create_task(ws.send("three")).done()
        assert await peer.recv() == (TEXT, b"three", True)
        for way in WAYS:
            await cancelled(ws.recv, way)
        await peer.send(TEXT, "four")
        assert await ws.recv() == "four"


@on_link
async def test_without_a_task(link: Link) -> None:
    """Stepping through it by hand, as other frameworks may."""
    async with link() as (ws, peer):
        await peer.send(TEXT, "one")
        await settle()
        with pytest.raises(StopIteration) as stopped:
            ws.recv().send(None)
        assert stopped.value.value == "one"
        with pytest.raises(StopIteration):
            ws.send("x").send(None)
        waiting = ws.recv()
        future = waiting.send(None)
        assert asyncio.isfuture(future)
        assert future.get_loop() is asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            waiting.throw(ZeroDivisionError())
        with pytest.raises(RuntimeError, match="cannot reuse"):
            waiting.send(None)
        for args in ((ZeroDivisionError,), (ZeroDivisionError, "text")):
            with pytest.raises(ZeroDivisionError):
                ws.recv().throw(*args)
        with pytest.raises(ZeroDivisionError):
            ws.send("y").throw(ZeroDivisionError)
        assert not ws.is_receiving
        await peer.send(TEXT, "two")
        assert await ws.recv() == "two"


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="calls the C API of CPython"
)
@on_link
async def test_step_from_c(link: Link) -> None:
    """The interpreter's own step, which promises no result beside an error."""
    step = ctypes.pythonapi.PyIter_Send
    step.argtypes = [ctypes.py_object, ctypes.py_object, ctypes.c_void_p]
    async with link() as (ws, peer):
        await peer.send(TEXT, "one")
        await settle()
        receiving = ws.recv()
        result = ctypes.py_object()
        assert step(receiving, None, ctypes.byref(result)) == 0
        assert result.value == "one"
        unset = ctypes.c_void_p(-1)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            step(receiving, None, ctypes.byref(unset))
        assert unset.value is None


# -- nothing is left -----------------------------------------------------------------


class Marked(Connection):
    """A connection that can be watched."""


@pytest.mark.parametrize("end", ["close", "peer", "abort", "error"])
@on_link
async def test_connections_are_freed(any_link: Link, end: str) -> None:
    async with any_link(connection_class=Marked, ping_interval=60) as (ws, peer):
        for way in WAYS:
            await cancelled(ws.recv, way)
            await cancelled(ws.wait_closed, way)
        await ws.ping()
        await ws.send(["a", "b"])
        await peer.send(TEXT, "c", fin=False)
        assert ws.transport is not None
        assert ws.logger is not None
        receiving = asyncio.create_task(ws.recv())
        await settle()
        if end == "close":
            await asyncio.gather(ws.close(), peer.answer_close())
        elif end == "peer":
            peer.close()
        elif end == "abort":
            ws.transport.abort()
        else:
            await peer.write(b"\xff" * 10)
            await settle()
            peer.close()
        await asyncio.gather(receiving, return_exceptions=True)
        await ws.wait_closed()
        watched = weakref.ref(ws)
        any_link.forget()
        del ws, receiving
        await settle()
        gc.collect()
        assert watched() is None


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_are_freed(loop: str) -> None:
    """Also with connections that were never closed, and timers that wait."""
    watched: list[weakref.ref[Any]] = []
    socks: list[Any] = []

    async def main() -> None:
        for _ in range(3):
            ws = Marked(Protocol(Side.SERVER), ping_interval=1000)
            ours, theirs = socket_pair()
            socks.extend((ours, theirs))
            ws.start(ours)
            ws.handshake_done()
            watched.append(weakref.ref(ws))
        watched.append(weakref.ref(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())
    del runner
    for sock in socks:
        sock.close()
    gc.collect()
    assert [reference() for reference in watched] == [None] * 4
