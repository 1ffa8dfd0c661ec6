"""The callback API in detail: both sides, against a peer on the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from linked import (
    BINARY,
    CLOSE,
    LOOPS,
    PING,
    PONG,
    TEXT,
    Link,
    close_payload,
    freeze,
    link_fixture,
    loop_factory,
    on_link,
    quiet_fixture,
    settle,
)
from scripted import LOOPBACK, run_on, tls_fixture

import websock
from websock.exceptions import ConcurrencyError, ConnectionClosed
from websock.listener import Listener, check_listener

tls = tls_fixture()
link = link_fixture("socket")
plain_link = link_fixture("socket", "transport")
any_link = link_fixture()
quiet = quiet_fixture()

SMALL = 4096

Reaction = Callable[..., Any]


class Recorder(Listener):
    """Writes down what happens; ``reactions`` are done by name, with the connection."""

    def __init__(self, **reactions: Reaction) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.reactions = reactions
        self.closed = asyncio.Event()

    def note(self, name: str, ws: Any, *args: Any) -> None:
        self.calls.append((name, *args))
        if name in self.reactions:
            self.reactions[name](ws, *args)

    def on_open(self, ws: Any) -> None:
        self.note("open", ws)

    def on_message(self, ws: Any, message: Any) -> None:
        self.note("message", ws, message)

    def on_ping(self, ws: Any, data: bytes) -> None:
        self.note("ping", ws, data)

    def on_pong(self, ws: Any, data: bytes) -> None:
        self.note("pong", ws, data)

    def on_pause_writing(self, ws: Any) -> None:
        self.note("pause", ws)

    def on_resume_writing(self, ws: Any) -> None:
        self.note("resume", ws)

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.closed.set()
        self.note("close", ws, code, reason)

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]

    @property
    def messages(self) -> list[Any]:
        return [args[0] for name, *args in self.calls if name == "message"]


def echo(ws: Any, message: Any) -> None:
    ws.send_nowait(message)


# -- calls ---------------------------------------------------------------------------


@on_link
async def test_calls_in_order(any_link: Link) -> None:
    listener = Recorder(message=echo)
    async with any_link(listener=listener) as (ws, peer):
        assert listener.calls == [("open",)]
        assert ws.listener is listener
        await peer.write(
            peer.frame(TEXT, "é")
            + peer.frame(PING, "p")
            + peer.frame(BINARY, b"b")
            + peer.frame(PONG, "q")
            + peer.frame(TEXT, "a", fin=False)
            + peer.frame(0, "b")
            + peer.frame(CLOSE, close_payload(3000, "bye"))
        )
        peer.half_close()
        received = [await peer.recv() for _ in range(5)]
        assert [r[:2] for r in received] == [
            (TEXT, "é".encode()),
            (PONG, b"p"),
            (BINARY, b"b"),
            (TEXT, b"ab"),
            (CLOSE, close_payload(3000, "bye")),
        ]
        peer.close()
        await listener.closed.wait()
        assert listener.calls == [
            ("open",),
            ("message", "é"),
            ("ping", b"p"),
            ("message", b"b"),
            ("pong", b"q"),
            ("message", "ab"),
            ("close", 3000, "bye"),
        ]
        await settle()
        assert listener.names.count("close") == 1


@on_link
async def test_sending_in_on_open(any_link: Link) -> None:
    listener = Recorder(open=lambda ws: echo(ws, "welcome"))
    async with any_link(listener=listener) as (_, peer):
        assert await peer.recv() == (TEXT, b"welcome", True)


@on_link
async def test_closing_in_on_open(link: Link) -> None:
    listener = Recorder(open=lambda ws: ws.close_nowait(1013, "full"))
    async with link(listener=listener) as (_, peer):
        assert await peer.answer_close() == close_payload(1013, "full")
        await listener.closed.wait()
        assert listener.calls == [("open",), ("close", 1013, "full")]


@on_link
async def test_closing_in_on_message(link: Link) -> None:
    listener = Recorder(message=lambda ws, message: ws.close_nowait(4000))
    async with link(listener=listener) as (ws, peer):
        await peer.write(peer.frame(TEXT, "1") + peer.frame(TEXT, "2"))
        assert await peer.answer_close() == close_payload(4000)
        await listener.closed.wait()
        # What came before the answer is delivered, as recv() would.
        assert listener.messages == ["1", "2"]
        with pytest.raises(ConnectionClosed):
            ws.send_nowait("late")


@pytest.mark.parametrize("how", ["fail", "abort"])
@on_link
async def test_ending_in_on_message(any_link: Link, how: str) -> None:
    def end(ws: Any, message: Any) -> None:
        if how == "fail":
            ws.fail(1008, "enough")
        else:
            ws.transport.abort()

    listener = Recorder(message=end)
    async with any_link(listener=listener) as (ws, peer):
        await peer.write(peer.frame(TEXT, "1") + peer.frame(TEXT, "2") * 100)
        if how == "fail":
            assert await peer.answer_close() == close_payload(1008, "enough")
        await listener.closed.wait()
        if how == "fail":
            assert listener.messages == ["1"]
        assert listener.calls[-1] == ("close", 1006, "")
        assert ws.is_lost


@pytest.mark.parametrize(
    ("end", "code"), [("none", 1005), ("eof", 1006), ("reset", 1006), ("bad", 1006)]
)
@on_link
async def test_close_codes(link: Link, end: str, code: int) -> None:
    listener = Recorder()
    async with link(listener=listener) as (ws, peer):
        if end == "none":
            await peer.send(CLOSE)
        elif end == "bad":
            await peer.write(b"\xff" * 10)
        await settle()
        if end == "reset":
            peer.reset()
        else:
            peer.close()
        await listener.closed.wait()
        assert listener.calls == [("open",), ("close", code, "")]
        assert type(listener.calls[-1][1]) is int
        assert ws.is_lost


@on_link
async def test_good_messages_before_a_bad_one(link: Link) -> None:
    listener = Recorder(message=echo)
    async with link(listener=listener) as (_, peer):
        await peer.write(peer.frame(TEXT, "good") + peer.frame(TEXT, b"\xff"))
        assert await peer.recv() == (TEXT, b"good", True)
        assert (await peer.recv()).payload[:2] == close_payload(1007)
        peer.close()
        await listener.closed.wait()
        assert listener.messages == ["good"]


@on_link
async def test_answers_leave_together(link: Link) -> None:
    """What is sent while one read is handled takes one write."""
    listener = Recorder(message=echo)
    async with link(listener=listener) as (_, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(50)))
        data = await peer.read()
        assert len(data) == len(b"".join(str(n).encode() for n in range(50))) + 50 * (
            2 if link.is_server else 6
        )


@on_link
async def test_recv_is_refused(link: Link) -> None:
    listener = Recorder()
    async with link(listener=listener) as (ws, peer):
        text = "cannot call recv: the listener gets messages"
        with pytest.raises(ConcurrencyError, match=text):
            await ws.recv()
        with pytest.raises(ConcurrencyError, match=text):
            async for _ in ws:
                pass
        with pytest.raises(ConcurrencyError, match=text):
            async for _ in ws.recv_streaming():
                pass
        await peer.send(TEXT, "one")
        await settle()
        assert listener.messages == ["one"]


@on_link
async def test_coroutines_beside_the_listener(link: Link) -> None:
    """Everything but receiving can be used from tasks."""
    listener = Recorder()
    async with link(listener=listener) as (ws, peer):
        await ws.send(["a", "b"])
        pong = await ws.ping("p")
        received = [(await peer.recv()).payload for _ in range(4)]
        assert received == [b"a", b"b", b"", b"p"]
        await peer.send(PONG, "p")
        assert await pong > 0
        assert listener.calls == [("open",), ("pong", b"p")]
        await asyncio.gather(ws.close(), peer.answer_close())
        assert listener.closed.is_set()


@on_link
async def test_fragments_of_any_size(link: Link) -> None:
    """There is nobody to wait for, so fragments are never held back."""
    listener = Recorder()
    async with link(listener=listener, max_size=None, buffer_size=SMALL) as (_, peer):
        for number in range(50):
            await peer.send(0 if number else BINARY, b"x" * 10_000, fin=False)
        await peer.send(0)
        await peer.send(PING)
        await peer.recv()
        assert [len(message) for message in listener.messages] == [500_000]


# -- pausing -------------------------------------------------------------------------


def pause_at(*messages: str) -> Reaction:
    def react(ws: Any, message: Any) -> None:
        if message in messages:
            ws.pause_reading()

    return react


@on_link
async def test_pausing_in_the_middle_of_a_read(any_link: Link) -> None:
    listener = Recorder(message=pause_at("2", "5"))
    async with any_link(listener=listener) as (ws, peer):
        numbers = [str(number) for number in range(8)]
        await peer.write(b"".join(peer.frame(TEXT, number) for number in numbers))
        await settle()
        assert listener.messages == numbers[:3]
        ws.resume_reading()
        ws.resume_reading()
        await settle()
        assert listener.messages == numbers[:6]
        await peer.send(TEXT, "more")
        await settle()
        assert listener.messages == numbers[:6]
        ws.resume_reading()
        await settle()
        assert listener.messages == [*numbers, "more"]


@on_link
async def test_pausing_really_stops_the_peer(any_link: Link) -> None:
    listener = Recorder(open=lambda ws: ws.pause_reading())
    async with any_link(listener=listener, buffer_size=SMALL) as (ws, peer):
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(400):
                await peer.send(BINARY, b"%04d" % number * 2500)
                sent += 1

        task = asyncio.create_task(send())
        before = -1
        while before != sent:
            before = sent
            await settle(50)
        assert sent < 200
        assert listener.messages == []
        ws.resume_reading()
        await task
        await peer.send(PING)
        await peer.recv()
        assert listener.messages == [b"%04d" % n * 2500 for n in range(400)]


@on_link
async def test_pausing_and_resuming_at_once(link: Link) -> None:
    def react(ws: Any, message: Any) -> None:
        ws.pause_reading()
        if message != "2":
            ws.resume_reading()

    listener = Recorder(message=react)
    async with link(listener=listener) as (ws, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(5)))
        await settle()
        assert listener.messages == ["0", "1", "2"]
        # Resumed, and paused again before anything happened.
        ws.resume_reading()
        ws.pause_reading()
        await settle()
        assert listener.messages == ["0", "1", "2"]
        ws.resume_reading()
        await settle()
        assert listener.messages == ["0", "1", "2", "3", "4"]


@on_link
async def test_one_message_at_a_time(link: Link) -> None:
    """A program that works through messages in tasks of its own."""
    tasks: set[asyncio.Task[None]] = set()
    order: list[str] = []

    async def work(ws: Any, message: Any) -> None:
        order.append(f"begin {message}")
        await asyncio.sleep(0)
        order.append(f"end {message}")
        ws.send_nowait(message)
        ws.resume_reading()

    def react(ws: Any, message: Any) -> None:
        ws.pause_reading()
        task = asyncio.ensure_future(work(ws, message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with link(listener=Recorder(message=react)) as (_, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(20)))
        for number in range(20):
            assert (await peer.recv()).payload == str(number).encode()
    expected = [f"{what} {n}" for n in range(20) for what in ("begin", "end")]
    assert order == expected


@pytest.mark.parametrize("end", ["close", "eof", "bad"])
@on_link
async def test_the_end_waits_while_paused(link: Link, end: str) -> None:
    """What was sent before the end is delivered before it."""
    listener = Recorder(message=pause_at("0"))
    async with link(listener=listener) as (ws, peer):
        data = b"".join(peer.frame(TEXT, str(number)) for number in range(3))
        if end == "close":
            data += peer.frame(CLOSE, close_payload(1001))
        elif end == "bad":
            data += b"\xff" * 10
        await peer.write(data)
        peer.half_close()
        await settle()
        assert listener.calls == [("open",), ("message", "0")]
        assert not ws.is_lost
        ws.resume_reading()
        await listener.closed.wait()
        assert listener.messages == ["0", "1", "2"]
        code = 1001 if end == "close" else 1006
        assert listener.calls[-1] == ("close", code, "")


@on_link
async def test_messages_that_waited_when_the_connection_broke(link: Link) -> None:
    """They were received, so they are delivered, paused or not; then on_close()."""
    listener = Recorder(message=pause_at("0"))
    async with link(listener=listener) as (ws, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(3)))
        await settle()
        ws.transport.abort()
        await listener.closed.wait()
        assert listener.messages == ["0", "1", "2"]
        assert listener.names[-1] == "close"


@pytest.mark.parametrize("how", ["fail", "fail and pause"])
@on_link
async def test_failing_while_paused(any_link: Link, how: str) -> None:
    """Nothing more is delivered, so the end is awaited, paused or not."""
    listener = Recorder(open=lambda ws: ws.pause_reading())
    async with any_link(listener=listener, close_timeout=None) as (ws, peer):
        await peer.send(TEXT, "waits")
        await settle()
        ws.fail(1011, "no more")
        if how == "fail and pause":
            ws.pause_reading()
        assert await peer.answer_close() == close_payload(1011, "no more")
        await listener.closed.wait()
        assert listener.calls == [("open",), ("close", 1006, "")]


@on_link
async def test_sending_to_a_connection_that_broke(link: Link) -> None:
    """Messages delivered at the end are too late to be answered."""
    errors: list[Exception] = []

    def react(ws: Any, message: Any) -> None:
        try:
            ws.send_nowait(message)
        except ConnectionClosed as exc:
            errors.append(exc)
        ws.pause_reading()

    listener = Recorder(message=react)
    async with link(listener=listener) as (ws, peer):
        await peer.write(b"".join(peer.frame(TEXT, str(n)) for n in range(3)))
        await settle()
        ws.transport.abort()
        await listener.closed.wait()
        assert listener.messages == ["0", "1", "2"]
        assert len(errors) == 2


# -- writing -------------------------------------------------------------------------


@on_link
async def test_write_marks(plain_link: Link) -> None:
    listener = Recorder()
    options = {"buffer_size": SMALL, "write_limit": (50_000, 10_000)}
    async with plain_link(listener=listener, **options) as (ws, peer):
        count = 0
        while ws.buffered_amount < 300_000:
            ws.send_nowait(b"x" * 10_000)
            count += 1
            await settle(5)
        assert listener.calls == [("open",), ("pause",)]
        for _ in range(count):
            await peer.recv()
        await settle()
        assert listener.calls == [("open",), ("pause",), ("resume",)]
        assert ws.buffered_amount == 0
        # What was sent for other reasons than an answer does not stop reading.
        await peer.send(TEXT, "still read")
        await settle()
        assert listener.messages == ["still read"]


@on_link
async def test_own_sends_do_not_stop_reading(plain_link: Link) -> None:
    listener = Recorder()
    async with plain_link(listener=listener, buffer_size=SMALL, write_limit=1000) as (
        ws,
        peer,
    ):
        while ws.buffered_amount < 300_000:
            ws.send_nowait(b"x" * 10_000)
            await settle(5)
        assert "pause" in listener.names
        await peer.send(TEXT, "read")
        await settle()
        assert listener.messages == ["read"]


@on_link
async def test_answers_stop_reading(plain_link: Link) -> None:
    listener = Recorder(message=echo)
    async with plain_link(listener=listener, buffer_size=SMALL, write_limit=1000) as (
        ws,
        peer,
    ):
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(300):
                await peer.send(BINARY, b"%04d" % number * 2500)
                sent += 1

        task = asyncio.create_task(send())
        before = -1
        while before != sent:
            before = sent
            await settle(100)
        assert sent < 200
        assert ws.buffered_amount < 500_000
        for number in range(300):
            assert (await peer.recv()).payload == b"%04d" % number * 2500
        await task


@on_link
async def test_reading_that_is_paused_for_two_reasons(link: Link) -> None:
    """The end of one is not the end of the other."""
    listener = Recorder(message=echo)
    async with link(listener=listener, buffer_size=SMALL, write_limit=1000) as (
        ws,
        peer,
    ):
        task = asyncio.create_task(peer.write(peer.frame(BINARY, b"x" * 10_000) * 40))
        while "pause" not in listener.names:
            await settle()
        ws.pause_reading()
        # All answers are received: writing resumes, reading does not.
        received = 0
        while "resume" not in listener.names:
            await peer.recv()
            received += 1
            await settle()
        before = len(listener.messages)
        await settle(50)
        assert len(listener.messages) == before < 40
        ws.resume_reading()
        for _ in range(40 - received):
            await peer.recv()
        await task


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", [1_000, 100_000])
def test_two_listeners_send_without_end(loop: str, size: int) -> None:
    """Both send much at once, and one echoes: none waits for the other for ever."""
    count = 20_000_000 // size
    echoed = 0

    class Echo(Listener):
        def on_message(self, ws: Any, message: Any) -> None:
            ws.send_nowait(message)

    class Sender(Listener):
        def __init__(self) -> None:
            self.done = asyncio.Event()

        def on_open(self, ws: Any) -> None:
            for _ in range(count):
                ws.send_nowait(b"x" * size)

        def on_message(self, ws: Any, message: Any) -> None:
            nonlocal echoed
            echoed += 1
            if echoed == count:
                self.done.set()

    async def main() -> None:
        async with websock.serve(Echo, LOOPBACK, 0, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            listener = Sender()
            async with websock.connect(
                f"ws://{LOOPBACK}:{port}",
                listener=listener,
                proxy=None,
                compression=None,
            ):
                await listener.done.wait()

    freeze()
    run_on(loop_factory(loop), main())


# -- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["open", "message", "ping", "pong", "pause", "resume", "close"]
)
@on_link
async def test_errors(link: Link, name: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError(name)

    listener = Recorder(**{name: fail})
    async with link(listener=listener, buffer_size=SMALL, write_limit=1000) as (
        ws,
        peer,
    ):
        if name in ("pause", "resume"):
            ws.send_nowait(b"x" * 1_000_000)
            await settle()
            assert (await peer.recv()).opcode == BINARY
        else:
            await peer.send(TEXT, "m")
            await peer.send(PING)
            await peer.send(PONG)
            if name == "close":
                await peer.close_frame(1001)
        while (received := await peer.recv()).opcode != CLOSE:
            pass
        code = 1001 if name == "close" else 1011
        assert received.payload == close_payload(code)
        peer.close()
        await listener.closed.wait()
        await ws.wait_closed()
        (record,) = caplog.records
        text = "listener failed in on_close" if name == "close" else "listener failed"
        assert record.getMessage() == text
        assert record.websocket is ws  # type: ignore[attr-defined]
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == name
        caplog.clear()


class Careful(Recorder):
    def on_error(self, ws: Any, exc: Exception) -> None:
        self.note("error", ws, type(exc).__name__)


@on_link
async def test_on_error(link: Link) -> None:
    def fail(ws: Any, message: Any) -> None:
        if message == "bad":
            raise ZeroDivisionError

    listener = Careful(message=fail)
    async with link(listener=listener) as (ws, peer):
        await peer.write(peer.frame(TEXT, "bad") + peer.frame(TEXT, "good"))
        await settle()
        assert listener.calls[1:] == [
            ("message", "bad"),
            ("error", "ZeroDivisionError"),
            ("message", "good"),
        ]
        assert ws.is_open


@on_link
async def test_on_error_that_fails(
    link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    listener = Careful(message=fail, error=fail)
    async with link(listener=listener) as (_, peer):
        await peer.send(TEXT, "x")
        assert await peer.answer_close() == close_payload(1011)
        await listener.closed.wait()
        (record,) = caplog.records
        assert record.getMessage() == "listener failed in on_error"
        assert record.levelno == logging.ERROR
        caplog.clear()


@on_link
async def test_what_is_no_exception_ends_the_loop(link: Link) -> None:
    """``SystemExit`` and the like are the program's way out, not an error."""

    def leave(ws: Any, message: Any) -> None:
        raise SystemExit(3)

    listener = Recorder(message=leave)
    async with link(listener=listener) as (ws, peer):
        with pytest.raises(SystemExit):
            ws.data_received(peer.frame(TEXT, "x") + peer.frame(TEXT, "y"))
        # The connection is not harmed, whatever the program does next.
        listener.reactions.clear()
        await settle()
        assert listener.messages == ["x", "y"]
        await peer.send(TEXT, "z")
        await settle()
        assert listener.messages == ["x", "y", "z"]


# -- listeners -----------------------------------------------------------------------


def coroutine_of(name: str) -> type[Listener]:
    async def method(self: Any, *args: Any) -> None: ...

    return type("Later", (Listener,), {name: method})


@pytest.mark.parametrize(
    "name",
    [name for name in dir(Listener) if name.startswith("on_")],
)
def test_coroutines_are_refused(name: str) -> None:
    kind = coroutine_of(name)
    text = f"Later.{name} is a coroutine function: listeners are called, not awaited"
    for listener in (kind, kind()):
        with pytest.raises(TypeError, match=text):
            check_listener(listener)
        with pytest.raises(TypeError, match=text):
            websock.serve(listener, LOOPBACK, 0)
        with pytest.raises(TypeError, match=text):
            websock.connect("ws://localhost", listener=listener)


def test_a_listener_of_any_class() -> None:
    """Only the methods count."""

    class Alike:
        def __getattr__(self, name: str) -> Any:
            return lambda *args: None

    check_listener(Alike())
    with pytest.raises(TypeError, match="listener has no method on_open"):
        check_listener(object())


def test_the_default_does_nothing() -> None:
    async def main() -> None:
        async with websock.serve(Listener, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with websock.connect(f"ws://{LOOPBACK}:{port}", proxy=None) as ws:
                await ws.send("x")
                assert await (await ws.ping()) > 0

    run_on(None, main())


@on_link
async def test_answering_too_late_is_no_error(link: Link) -> None:
    """Messages may come in after this side began to close; an echo need not know."""
    listener = Recorder(message=echo)
    async with link(listener=listener) as (ws, peer):
        ws.close_nowait()
        await peer.write(peer.frame(TEXT, "late") * 3)
        assert await peer.answer_close() == close_payload(1000)
        await listener.closed.wait()
        assert listener.messages == ["late"] * 3
        assert listener.calls[-1] == ("close", 1000, "")


@on_link
async def test_errors_of_another_connection_are_errors(
    link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    async with link() as (other, _):
        other.transport.abort()
        await other.wait_closed()
        listener = Recorder(message=lambda ws, message: other.send_nowait(message))
        _, peer = await link.make(listener=listener)
        await peer.send(TEXT, "x")
        assert await peer.answer_close() == close_payload(1011)
        await listener.closed.wait()
        assert [record.getMessage() for record in caplog.records] == ["listener failed"]
        caplog.clear()
