"""Streams, both twins: from bytes to messages and back, with fakes at the edges."""

from __future__ import annotations

import asyncio
import contextvars
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import pytest
from conftest import Impl
from linked import LOOPS, freeze, loop_factory, settle, socket_pair
from scripted import run_on
from wire import MASK, frame

from websock.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from websock.frames import Close

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

OK = Close(1000, "")


class FakeTransport:
    """A transport that writes down what it is told."""

    def __init__(self, can_end: bool = True) -> None:
        self.calls: list[Any] = []
        self.written = b""
        self.buffered = 0
        self.can_end = can_end

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.calls.append(("limits", high, low))

    def write(self, data: bytes) -> None:
        assert data
        self.calls.append("write")
        self.written += data

    def writelines(self, list_of_data: list[bytes]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & {c for c in self.calls if isinstance(c, str)})

    def can_write_eof(self) -> bool:
        return self.can_end

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)


class Made(Protocol):
    """Makes a stream of the twin that is tested."""

    def __call__(
        self,
        *,
        server: bool = True,
        on_message: Callable[[Any, Any], Any] | None = None,
        queue: tuple[int | None, int | None] = (16, 4),
        writes: tuple[int, int] = (32768, 8192),
        opened: bool = True,
    ) -> Any: ...


@pytest.fixture
def make(impl: Impl) -> Made:
    module, codec = impl.module("stream"), impl.module("codec")

    class Probe(module.Stream, asyncio.BufferedProtocol):  # type: ignore[misc,name-defined]
        """A stream that decides nothing, and writes down what it is asked."""

        def __init__(self) -> None:
            self.calls: list[Any] = []
            self.rest = b""
            self.error: BaseException | None = None
            self.drained: asyncio.Future[None] | None = None

        def handshake_received(self, data: bytes) -> bytes:
            self.calls.append(("handshake", data))
            rest = data.partition(b"!")[2]
            self.open()
            return rest

        def open(self) -> None:
            reader = codec.FrameReader(expect_mask=self.server)
            self.open_stream(reader, codec.FrameWriter(mask=not self.server))

        def ping_received(self, payload: bytes) -> None:
            self.calls.append(("ping", payload))
            self.answer_ping(payload)

        def pong_received(self, payload: bytes) -> None:
            self.calls.append(("pong", payload))

        def close_received(self, payload: bytes) -> None:
            self.calls.append(("close", payload))
            self.set_closing()

        def reader_failed(self, exc: Exception) -> None:
            self.calls.append(("failed", str(exc)))

        def decoding_failed(self, exc: UnicodeDecodeError) -> None:
            self.calls.append(("decoding", exc.start))
            self.ignore_input()

        def callback_failed(self, exc: Exception) -> None:
            self.calls.append(("callback", repr(exc)))

        def crashed(self, exc: Exception) -> None:
            self.calls.append(("crashed", repr(exc)))

        def peer_ended(self) -> None:
            self.calls.append("ended")
            self.close_stream()

        def connection_lost(self, exc: BaseException | None) -> None:
            self.error = exc
            self.mark_lost()
            self.calls.append("lost")
            if self.drained is not None:
                self.drained.set_result(None)

        def closed_error(self) -> Exception:
            return ConnectionClosedOK(OK, OK, True)

        def pause_writing(self) -> None:
            self.calls.append("pause")
            if self.io is not None:
                self.transport_paused(True)

        def resume_writing(self) -> None:
            self.calls.append("resume")
            if self.io is not None:
                self.transport_paused(False)
            if self.drained is not None:
                self.drained.set_result(None)
                self.drained = None

        async def drain(self) -> None:
            while self.write_paused and not self.is_lost:
                if self.drained is None:
                    self.drained = self.loop.create_future()
                await self.drained

        async def send_otherwise(self, message: Any, text: bool | None) -> None:
            raise ConnectionClosed(None, None, None)

        @property
        def names(self) -> list[str]:
            return [c if isinstance(c, str) else c[0] for c in self.calls]

    def made(
        *,
        server: bool = True,
        on_message: Any = None,
        queue: Any = (16, 4),
        writes: Any = (32768, 8192),
        opened: bool = True,
    ) -> Any:
        stream = Probe()
        stream.server = server
        stream.init_stream(asyncio.get_running_loop(), on_message, queue, writes)
        if opened:
            stream.open()
        return stream

    return made


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    freeze()
    factory = loop_factory(request.param)
    return lambda coroutine: run_on(factory, coroutine)


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def masked(opcode: int, payload: bytes = b"", **kwargs: Any) -> bytes:
    return frame(opcode, payload, mask=MASK, **kwargs)


def echo(stream: Any, message: Any) -> None:
    stream.send_nowait(message)


class Ends:
    """A stream on a socket, and the other end of it."""

    def __init__(self, stream: Any, ours: socket.socket, theirs: socket.socket) -> None:
        self.stream = stream
        self.theirs = theirs
        theirs.setblocking(False)
        ours.setblocking(False)
        stream.attach_socket(ours)

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *args: object) -> None:
        self.theirs.close()
        stream = self.stream
        if not stream.is_lost:
            stream.abort_stream()
            stream.lost(None)

    def now(self) -> bytes | None:
        """Receive what is there without letting the loop run; ``None``: nothing."""
        try:
            return self.theirs.recv(1 << 20)
        except BlockingIOError:
            return None


def packets(stream: Any) -> Ends:
    """Put a stream on a socket that keeps the pieces apart in which it was written."""
    if not hasattr(socket, "SOCK_SEQPACKET") or not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no packets here")
    try:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        pytest.skip("there are no packets here")
    return Ends(stream, *pair)


def bytes_only(stream: Any, buffer_size: int | None = None) -> Ends:
    return Ends(stream, *socket_pair(buffer_size))


# -- when bytes leave ----------------------------------------------------------------


def test_one_write_per_read_event(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make(on_message=echo)) as ends:
            count = 30
            ends.theirs.send(
                b"".join(masked(TEXT, b"%d" % n) for n in range(count)) + masked(PING)
            )
            await settle()
            expected = b"".join(frame(TEXT, b"%d" % n) for n in range(count))
            assert ends.now() == expected + frame(PONG)
            assert ends.now() is None

    run(main())


def test_the_cork_has_an_end(make: Made, run: Run) -> None:
    """What is joined takes bounded memory; order is kept."""

    async def main() -> None:
        def answer(stream: Any, message: Any) -> None:
            for number in range(40):
                stream.send_nowait(b"%02d" % number * 1000)
            assert stream.buffered_amount < 100_000

        with packets(make(on_message=answer, writes=(2**24, 2**23))) as ends:
            ends.theirs.send(masked(TEXT))
            await settle()
            data = b""
            while len(data) < 40 * 2004:
                packet = ends.now()
                assert packet is not None
                assert len(packet) <= 65536 + 2004
                data += packet
                await settle()
            assert data == b"".join(
                frame(BINARY, b"%02d" % number * 1000) for number in range(40)
            )

    run(main())


@pytest.mark.parametrize("size", [16384, 70_000, 200_000])
def test_large_answers_follow_small_ones(make: Made, run: Run, size: int) -> None:
    async def main() -> None:
        def answer(stream: Any, message: Any) -> None:
            stream.send_nowait("before")
            stream.send_nowait(b"x" * size)
            stream.send_nowait("after")

        with bytes_only(make(on_message=answer)) as ends:
            ends.theirs.send(masked(TEXT))
            await settle()
            expected = frame(TEXT, b"before") + frame(BINARY, b"x" * size)
            expected += frame(TEXT, b"after")
            assert await receive(ends, len(expected)) == expected

    run(main())


async def receive(ends: Ends, size: int) -> bytes:
    """Receive so many bytes, and see that there are no more."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(ends.theirs, 1 << 20)
        if not piece:
            break
        data += piece
    await settle()
    assert len(data) == size
    return bytes(data)


def test_first_write_of_a_turn_goes_at_once(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make()) as ends:
            for _ in range(3):
                ends.stream.send_nowait("1")
                assert ends.now() == frame(TEXT, b"1")
                ends.stream.send_nowait("2")
                ends.stream.send_nowait("3")
                assert ends.now() is None
                await settle(3)
                assert ends.now() == frame(TEXT, b"2") + frame(TEXT, b"3")
                assert ends.now() is None

    run(main())


def test_streams_do_not_mix(make: Made, run: Run) -> None:
    """While one stream's input is handled, others' output is not in its cork."""

    async def main() -> None:
        other = make()

        def relay(stream: Any, message: Any) -> None:
            other.send_nowait(message)
            stream.send_nowait(message)

        with packets(make(on_message=relay)) as one, packets(other) as two:
            one.theirs.send(masked(TEXT, b"1") + masked(TEXT, b"2"))
            await settle()
            both = frame(TEXT, b"1") + frame(TEXT, b"2")
            assert one.now() == both
            assert two.now() == frame(TEXT, b"1")
            assert two.now() == frame(TEXT, b"2")

    run(main())


def test_masked_output(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make(server=False)) as ends:
            ends.stream.send_nowait("1")
            packet = ends.now()
            assert packet is not None
            assert packet[:2] == b"\x81\x81"
            assert packet[2] ^ packet[6] == ord("1")

    run(main())


@pytest.mark.parametrize("server", [False, True])
def test_order_when_the_socket_is_full(make: Made, run: Run, server: bool) -> None:
    """Partial writes, owned and copied pieces, corked and not: one stream of bytes."""
    rng = random.Random(3)
    sizes = [
        rng.choice((0, 5, 125, 126, 5000, 16383, 16384, 90_000)) for _ in range(120)
    ]
    messages: list[Any] = []
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        messages.append("é" * (size // 2) if number % 5 == 0 else data)

    async def main() -> None:
        received: list[Any] = []
        stream = make(server=server, writes=(2**24, 2**23))
        with bytes_only(stream, 4096) as ends:
            other = make(server=not server, on_message=lambda _, m: received.append(m))
            other.pings = 0

            async def read() -> None:
                loop = asyncio.get_running_loop()
                while len(received) < len(messages):
                    size = rng.choice((1, 100, 3000, 50_000))
                    other.data_received(await loop.sock_recv(ends.theirs, size))

            for number, message in enumerate(messages):
                if number % 7 == 3:
                    # From within a read event, so that it is corked.
                    stream.set_on_message(lambda s, m, x=message: s.send_nowait(x))
                    mask = MASK if server else None
                    stream.data_received(frame(TEXT, b"", mask=mask))
                else:
                    stream.send_nowait(message)
                if number % 11 == 0:
                    stream.send_control(PING, b"p")
                if number % 13 == 0:
                    await asyncio.sleep(0)
            assert stream.buffered_amount > 100_000
            await read()
            assert received == messages
            assert other.names.count("ping") == len(range(0, len(messages), 11))
            assert stream.buffered_amount == 0

    run(main())


def test_marks_of_writing(make: Made, run: Run) -> None:
    async def main() -> None:
        with bytes_only(make(writes=(50_000, 10_000)), 4096) as ends:
            stream = ends.stream
            while stream.buffered_amount < 200_000:
                stream.send_nowait(b"x" * 10_000)
                await settle(3)
            assert stream.names == ["pause"]
            assert stream.write_paused
            waiting = asyncio.ensure_future(stream.send("last"))
            await settle()
            assert not waiting.done()
            while not waiting.done():
                await asyncio.get_running_loop().sock_recv(ends.theirs, 5000)
            assert stream.names == ["pause", "resume"]
            assert stream.buffered_amount <= 10_000

    run(main())


def test_end_of_output_waits_for_output(make: Made, run: Run) -> None:
    async def main() -> None:
        with bytes_only(make(writes=(2**24, 2**23)), 4096) as ends:
            ends.stream.send_nowait(b"x" * 300_000)
            ends.stream.send_nowait(b"y")
            ends.stream.end_writing()
            expected = frame(BINARY, b"x" * 300_000) + frame(BINARY, b"y")
            assert await receive(ends, len(expected)) == expected
            assert ends.now() == b""
            # The other direction is still open.
            ends.theirs.send(masked(TEXT, b"still"))
            assert await ends.stream.recv() == "still"

    run(main())


def test_close_waits_for_output(make: Made, run: Run) -> None:
    async def main() -> None:
        with bytes_only(make(writes=(2**24, 2**23)), 4096) as ends:
            ends.stream.send_nowait(b"x" * 300_000)
            ends.stream.close_stream()
            ends.stream.close_stream()
            await settle()
            assert not ends.stream.is_lost
            assert not ends.stream.is_open
            expected = frame(BINARY, b"x" * 300_000)
            assert await receive(ends, len(expected)) == expected
            await settle()
            assert ends.stream.names[-1] == "lost"
            assert ends.stream.is_lost

    run(main())


def test_joined_output_of_a_stream_that_is_closed(make: Made, run: Run) -> None:
    async def main() -> None:
        for end in ("close_stream", "end_writing", "abort_stream"):
            with packets(make()) as ends:
                ends.stream.send_nowait("1")
                ends.stream.send_nowait("2")
                getattr(ends.stream, end)()
                assert ends.now() == frame(TEXT, b"1")
                if end != "abort_stream":
                    assert ends.now() == frame(TEXT, b"2")
                await settle()
                assert ends.now() == b""

    run(main())


# -- when messages are delivered -----------------------------------------------------


def test_wake_inside_the_event(make: Made, run: Run) -> None:
    """A task that waits goes on before the read event is over, and is corked."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with packets(make()) as ends:
            stream = ends.stream
            seen: list[Any] = []

            async def echo_all() -> None:
                while True:
                    message = await stream.recv()
                    seen.append(message)
                    await stream.send(message)

            task = asyncio.create_task(echo_all())
            await settle()
            after: asyncio.Future[list[Any]] = loop.create_future()

            def event() -> None:
                stream.data_received(masked(TEXT, b"1") + masked(TEXT, b"2"))
                after.set_result(list(seen))

            loop.call_soon(event)
            assert await after == ["1", "2"]
            assert ends.now() == frame(TEXT, b"1") + frame(TEXT, b"2")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_no_wake_inside_another_task(make: Made, run: Run) -> None:
    """Tasks do not run inside each other."""

    async def main() -> None:
        with packets(make()) as ends:
            stream = ends.stream
            task = asyncio.create_task(stream.recv())
            await settle()
            stream.data_received(masked(TEXT, b"1"))
            assert not task.done()
            await settle(3)
            assert task.result() == "1"

    run(main())


def test_wake_has_the_context_of_the_task(make: Made, run: Run) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with packets(make()) as ends:
            stream = ends.stream
            seen: list[str] = []

            async def receive_two() -> None:
                variable.set("task")
                for _ in range(2):
                    await stream.recv()
                    seen.append(variable.get())

            task = asyncio.create_task(receive_two())
            await settle()
            variable.set("main")
            ends.theirs.send(masked(TEXT))
            await settle()
            assert seen == ["task"]
            assert variable.get() == "main"
            loop.call_soon(stream.data_received, masked(TEXT))
            await task
            assert seen == ["task", "task"]

    run(main())


def test_wake_when_the_context_is_in_use(make: Made, run: Run) -> None:
    """A context cannot be entered twice, so the wake-up waits its turn."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with packets(make()) as ends:
            stream = ends.stream
            context = contextvars.copy_context()
            task = loop.create_task(stream.recv(), context=context)
            await settle()
            loop.call_soon(stream.data_received, masked(TEXT, b"1"), context=context)
            assert await task == "1"
            assert "crashed" not in stream.names

    run(main())


def test_a_task_that_fails_when_it_is_woken(make: Made, run: Run) -> None:
    """Its error is its own; the stream goes on with what came along."""

    async def main() -> None:
        with packets(make()) as ends:
            stream = ends.stream

            async def fail() -> None:
                await stream.recv()
                raise ZeroDivisionError

            task = asyncio.create_task(fail())
            await settle()
            ends.theirs.send(masked(TEXT, b"1") + masked(TEXT, b"2"))
            with pytest.raises(ZeroDivisionError):
                await task
            assert await stream.recv() == "2"
            assert stream.calls == []

    run(main())


def test_messages_before_a_close_frame_are_handled_first(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make()) as ends:
            stream = ends.stream

            async def answer() -> None:
                await stream.send(await stream.recv())
                stream.calls.append("answered")

            task = asyncio.create_task(answer())
            await settle()
            data = masked(TEXT, b"1") + masked(CLOSE, b"\x03\xe8") + masked(TEXT, b"2")
            ends.theirs.send(data)
            await task
            assert stream.calls == ["answered", ("close", b"\x03\xe8")]
            assert stream.queued == 0

    run(main())


def test_queue_full_in_the_middle_of_a_read(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make(queue=(2, 0))) as ends:
            stream = ends.stream
            data = b"".join(masked(TEXT, b"%d" % n) for n in range(10))
            ends.theirs.send(data + masked(PING) + masked(TEXT, b"10")[:-1])
            ends.theirs.send(masked(TEXT, b"10")[-1:] + masked(TEXT, b"11"))
            await settle()
            assert stream.queued == 3
            assert stream.calls == []
            for number in range(12):
                assert await stream.recv() == str(number)
                assert stream.queued <= 3
            assert stream.calls == [("ping", b"")]

    run(main())


def test_pausing_in_the_middle_of_a_read(make: Made, run: Run) -> None:
    async def main() -> None:
        seen: list[Any] = []

        def one_at_a_time(stream: Any, message: Any) -> None:
            seen.append(message)
            stream.hold_reading()

        with packets(make(on_message=one_at_a_time)) as ends:
            for half in (0, 1):
                data = b"".join(masked(TEXT, b"%d" % (half * 5 + n)) for n in range(5))
                ends.theirs.send(data)
            for number in range(10):
                await settle()
                assert seen == [str(n) for n in range(number + 1)]
                ends.stream.release_reading()

    run(main())


def test_reasons_to_pause(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make()) as ends:
            stream = ends.stream
            stream.hold_reading()
            stream.hold_reading(8)
            stream.hold_reading(8)
            ends.theirs.send(masked(TEXT, b"1"))
            await settle()
            stream.release_reading()
            await settle()
            assert stream.queued == 0
            stream.release_reading(4)
            await settle()
            assert stream.queued == 0
            stream.release_reading(8)
            assert await stream.recv() == "1"

    run(main())


def test_callback_that_fails(make: Made, run: Run) -> None:
    async def main() -> None:
        seen: list[int] = []

        def work(stream: Any, message: Any) -> None:
            seen.append(int(message))

        with packets(make(on_message=work)) as ends:
            ends.theirs.send(
                masked(TEXT, b"1") + masked(TEXT, b"x") + masked(TEXT, b"2")
            )
            await settle()
            assert seen == [1, 2]
            assert ends.stream.names == ["callback"]

    run(main())


def test_our_own_mistakes(make: Made, run: Run) -> None:
    async def main() -> None:
        stream = make()
        stream.answer_ping = None
        with packets(stream) as ends:
            ends.theirs.send(masked(PING))
            await settle()
            assert stream.names == ["ping", "crashed"]
            stream.data_received(masked(PING))
            assert stream.names == ["ping", "crashed"] * 2

    run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_bad_input_after_good(make: Made, run: Run, waits: bool) -> None:
    async def main() -> None:
        with packets(make()) as ends:
            stream = ends.stream
            task = asyncio.create_task(stream.recv()) if waits else None
            await settle()
            ends.theirs.send(masked(TEXT, b"good") + b"\xff" * 30)
            ends.theirs.send(masked(TEXT, b"ignored"))
            await settle()
            assert await (task or stream.recv()) == "good"
            assert stream.queued == 0
            assert stream.names == ["failed"]

    run(main())


# -- the end -------------------------------------------------------------------------


def test_end_after_messages(make: Made, run: Run) -> None:
    async def main() -> None:
        with bytes_only(make(queue=(1, 0))) as ends:
            stream = ends.stream
            ends.theirs.send(b"".join(masked(TEXT, b"%d" % n) for n in range(6)))
            ends.theirs.close()
            await settle()
            assert stream.calls == []
            for number in range(6):
                assert await stream.recv() == str(number)
            with pytest.raises(ConnectionClosedOK):
                await stream.recv()
            assert stream.calls == ["ended", "lost"]
            assert stream.error is None

    run(main())


def test_error_with_messages_unread(make: Made, run: Run) -> None:
    """What was received is not lost with the connection."""

    async def main() -> None:
        with bytes_only(make(queue=(1, 0))) as ends:
            stream = ends.stream
            ends.theirs.send(b"".join(masked(TEXT, b"%d" % n) for n in range(6)))
            await settle()
            assert stream.queued == 2
            linger = b"\1\0\0\0\0\0\0\0"
            ends.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            ends.theirs.close()
            stream.send_nowait("finds out")
            await settle()
            assert stream.is_lost
            assert isinstance(stream.error, ConnectionError)
            assert stream.error.errno
            assert stream.error.strerror
            assert [await stream.recv() for _ in range(6)] == list("012345")
            with pytest.raises(ConnectionClosedOK):
                await stream.recv()

    run(main())


def test_reading_fails(make: Made, run: Run) -> None:
    async def main() -> None:
        with bytes_only(make()) as ends:
            stream = ends.stream
            task = asyncio.create_task(stream.recv())
            await settle()
            linger = b"\1\0\0\0\0\0\0\0"
            ends.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            ends.theirs.close()
            with pytest.raises(ConnectionClosedOK):
                await task
            assert isinstance(stream.error, ConnectionResetError)
            assert stream.calls == ["lost"]
            assert stream.sock.fileno() == -1

    run(main())


def test_abort_with_an_error(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make()) as ends:
            stream = ends.stream
            error = TimeoutError("mine")
            stream.send_nowait("1")
            stream.send_nowait("dropped")
            stream.abort_stream(error)
            stream.abort_stream(None)
            assert stream.is_closing
            assert not stream.is_open
            with pytest.raises(ConnectionClosedOK):
                stream.send_nowait("x")
            await settle()
            assert stream.error is error
            assert stream.calls == ["lost"]
            assert stream.buffered_amount == 0
            stream.lost(None)
            assert stream.calls == ["lost"]

    run(main())


def test_ending_inside_the_event(make: Made, run: Run) -> None:
    for end in ("abort_stream", "close_stream"):

        async def main(end: str = end) -> None:
            def leave(stream: Any, message: Any) -> None:
                stream.send_nowait("answer")
                getattr(stream, end)()

            with packets(make(on_message=leave)) as ends:
                ends.theirs.send(masked(TEXT, b"1") + masked(TEXT, b"2"))
                await settle()
                expected = b"" if end == "abort_stream" else frame(TEXT, b"answer")
                assert (ends.now() or b"") == expected
                assert ends.stream.names[-1] == "lost"
                assert ends.stream.names.count("lost") == 1

        run(main())


# -- the opening handshake -----------------------------------------------------------


def test_handshake(make: Made, run: Run) -> None:
    async def main() -> None:
        with packets(make(opened=False)) as ends:
            stream = ends.stream
            ends.theirs.send(b"head!" + masked(TEXT, b"early") + masked(TEXT, b"er"))
            assert await stream.recv() == "early"
            assert await stream.recv() == "er"
            assert stream.names == ["handshake"]

    run(main())


# -- transports ----------------------------------------------------------------------


def on_transport(make: Made, **options: Any) -> tuple[Any, Any]:
    can_end = options.pop("can_end", True)
    stream, transport = make(**options), FakeTransport(can_end)
    stream.attach_transport(transport)
    return stream, transport


def fill(stream: Any, data: bytes) -> None:
    """Do what a loop does with a ``BufferedProtocol``."""
    while data:
        buffer = memoryview(stream.get_buffer(-1))
        n = min(len(buffer), len(data))
        assert n
        buffer[:n] = data[:n]
        del buffer
        stream.buffer_updated(n)
        data = data[n:]


@pytest.mark.parametrize("how", ["buffer", "data", "memoryview"])
def test_transport_reading(make: Made, run: Run, how: str) -> None:
    async def main() -> None:
        stream, transport = on_transport(make, writes=(1000, 100))
        assert transport.calls == [("limits", 1000, 100)]
        data = masked(TEXT, "é".encode()) + masked(BINARY, b"x" * 300_000)
        if how == "buffer":
            fill(stream, data)
        else:
            stream.data_received(memoryview(data) if how == "memoryview" else data)
        assert await stream.recv() == "é"
        assert await stream.recv() == b"x" * 300_000
        assert stream.eof_received() is True
        assert stream.calls == ["ended"]
        assert transport.calls[-1] == "close"
        stream.connection_lost(None)
        assert stream.is_lost

    run(main())


def test_transport_that_cannot_be_half_closed(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, transport = on_transport(make, can_end=False)
        stream.end_writing()
        assert transport.calls[-1] == "close"
        assert stream.eof_received() is False
        stream.connection_lost(None)

        stream, transport = on_transport(make)
        stream.end_writing()
        assert transport.calls[-1] == "write_eof"
        stream.abort_stream(None)
        assert transport.calls[-1] == "abort"
        stream.connection_lost(OSError("x"))
        stream.abort_stream(None)
        stream.close_stream()
        assert transport.calls[-1] == "abort"

    run(main())


def test_transport_back_pressure(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, transport = on_transport(make, queue=(1, 0))
        messages = [masked(TEXT, b"%d" % n) for n in range(8)]
        fill(stream, b"".join(messages[:4]))
        assert "pause_reading" not in transport.calls
        # Only when more comes that must be kept.
        fill(stream, b"".join(messages[4:6]))
        assert transport.calls[-1] == "pause_reading"
        fill(stream, b"".join(messages[6:]))
        assert transport.calls.count("pause_reading") == 1
        for number in range(8):
            assert await stream.recv() == str(number)
            await settle(2)
        assert transport.calls[-1] == "resume_reading"
        assert transport.calls.count("resume_reading") == 1
        stream.connection_lost(None)

    run(main())


def test_transport_ends_with_messages_unread(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, _ = on_transport(make, queue=(1, 0))
        fill(stream, b"".join(masked(TEXT, b"%d" % n) for n in range(5)))
        stream.eof_received()
        assert stream.calls == []
        assert [await stream.recv() for _ in range(5)] == list("01234")
        await settle()
        assert stream.calls == ["ended"]
        stream.connection_lost(None)

        # And when it is lost before they are taken.
        stream, _ = on_transport(make, queue=(1, 0))
        fill(stream, b"".join(masked(TEXT, b"%d" % n) for n in range(5)))
        stream.connection_lost(ConnectionResetError("x"))
        assert [await stream.recv() for _ in range(5)] == list("01234")
        with pytest.raises(ConnectionClosedOK):
            await stream.recv()

    run(main())


def test_transport_lost_inside_a_pause(make: Made, run: Run) -> None:
    """A callback that pauses at each message gets all of them in the end."""

    async def main() -> None:
        seen: list[Any] = []

        def one(stream: Any, message: Any) -> None:
            seen.append(message)
            stream.hold_reading()

        stream, _ = on_transport(make, on_message=one)
        fill(stream, b"".join(masked(TEXT, b"%d" % n) for n in range(5)))
        assert seen == ["0"]
        stream.connection_lost(None)
        assert seen == list("01234")

    run(main())


def test_our_own_mistakes_at_the_end(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, _ = on_transport(make, queue=(0, 0))
        stream.answer_ping = None
        fill(stream, masked(TEXT, b"1") + masked(PING) * 3 + masked(TEXT, b"2"))
        stream.connection_lost(None)
        assert stream.names == ["ping", "crashed", "lost"]
        assert await stream.recv() == "1"

    run(main())


def test_transport_writing(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, transport = on_transport(make, on_message=echo)
        fill(stream, masked(TEXT, b"1") + masked(TEXT, b"2"))
        assert transport.calls[1:] == ["write"]
        assert transport.written == frame(TEXT, b"1") + frame(TEXT, b"2")
        transport.written = b""
        stream.send_nowait("3")
        assert transport.written == frame(TEXT, b"3")
        stream.send_nowait("4")
        stream.send_nowait(b"x" * 100_000)
        stream.send_nowait("5")
        await settle(3)
        expected = frame(TEXT, b"3") + frame(TEXT, b"4")
        expected += frame(BINARY, b"x" * 100_000) + frame(TEXT, b"5")
        assert transport.written == expected
        transport.buffered = 77
        assert stream.buffered_amount == 77
        stream.connection_lost(None)
        assert stream.buffered_amount == 0

    run(main())


def test_transport_that_somebody_closed(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, transport = on_transport(make)
        transport.close()
        stream.send_nowait("nowhere")
        assert not stream.is_open
        with pytest.raises(ConnectionClosedOK):
            stream.send_nowait("nowhere")
        assert transport.written == b""
        stream.connection_lost(None)

    run(main())


def test_marks_for_a_transport(make: Made, run: Run) -> None:
    """A mark of 0 would have asyncio's TLS pause for ever."""

    async def main() -> None:
        _, transport = on_transport(make, writes=(0, 0))
        assert transport.calls == [("limits", 1, 0)]

    run(main())


def test_transport_flow_control(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, transport = on_transport(make)
        stream.pause_writing()
        waiting = asyncio.ensure_future(stream.send("1"))
        fill(stream, masked(PING, b"old") + masked(PING, b"new"))
        await settle()
        assert not waiting.done()
        assert transport.written == frame(TEXT, b"1")
        stream.resume_writing()
        await waiting
        await settle(3)
        assert transport.written == frame(TEXT, b"1") + frame(PONG, b"new")
        stream.connection_lost(None)

    run(main())


def test_answers_that_are_not_read(make: Made, run: Run) -> None:
    """Input is held while answers cannot be written; other output does not matter."""

    async def main() -> None:
        stream, transport = on_transport(make, on_message=echo)
        stream.pause_writing()
        fill(stream, masked(TEXT, b"1") + masked(TEXT, b"2"))
        assert transport.written == frame(TEXT, b"1")
        stream.resume_writing()
        stream.release_reading(2)
        await settle()
        assert transport.written == frame(TEXT, b"1") + frame(TEXT, b"2")

        seen: list[Any] = []
        stream, transport = on_transport(make, on_message=lambda _, m: seen.append(m))
        stream.send_nowait("own")
        stream.pause_writing()
        stream.send_nowait("own")
        fill(stream, masked(TEXT, b"1") + masked(TEXT, b"2"))
        assert seen == ["1", "2"]

    run(main())


def test_memory_is_not_lent_twice(make: Made, run: Run) -> None:
    """Input that arrives while other input is handled, as in a loop inside a loop."""

    async def main() -> None:
        seen: list[Any] = []
        inner, _ = on_transport(make, on_message=lambda _, m: seen.append(m))

        def nest(stream: Any, message: Any) -> None:
            seen.append(message)
            fill(inner, masked(TEXT, b"inner" * 30))

        outer, _ = on_transport(make, on_message=nest)
        fill(outer, b"".join(masked(TEXT, b"outer %d" % n) for n in range(3)))
        assert seen == [item for n in range(3) for item in (f"outer {n}", "inner" * 30)]

    run(main())


def test_concurrent_receivers(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, _ = on_transport(make)
        task = asyncio.create_task(stream.recv())
        await settle()
        assert stream.is_receiving
        with pytest.raises(ConcurrencyError):
            await stream.recv()
        with pytest.raises(ConcurrencyError):
            await stream.recv_pieces()
        stream.data_received(masked(TEXT, b"1"))
        assert await task == "1"
        assert not stream.is_receiving
        stream.set_on_message(echo)
        with pytest.raises(ConcurrencyError, match="the listener gets messages"):
            await stream.recv()

    run(main())


def test_pieces(make: Made, run: Run) -> None:
    async def main() -> None:
        stream, _ = on_transport(make)
        stream.data_received(masked(TEXT, b"whole"))
        assert await stream.recv_pieces() == ["whole"]
        stream.data_received(masked(TEXT, b"a", fin=False) + masked(CONT, b"b"))
        assert await stream.recv_pieces() == [("ab", [1, 2], False)]
        stream.data_received(masked(TEXT, b"a", fin=False))
        assert await stream.recv_pieces() == (TEXT, [b"a"])
        task = asyncio.create_task(stream.recv_pieces())
        await settle()
        stream.data_received(masked(PING))
        await settle()
        assert not task.done()
        stream.data_received(masked(CONT, b"bc", fin=False)[:-1])
        await settle()
        assert not task.done()
        stream.data_received(masked(CONT, b"bc", fin=False)[-1:])
        assert await task == (TEXT, [b"bc"])
        stream.data_received(masked(CONT, b"d", fin=False) + masked(CONT, b"e"))
        assert await stream.recv_pieces() == [(b"de", [1, 2], True)]

    run(main())


@pytest.mark.ext
def test_twins_have_the_same_methods() -> None:
    public: list[set[str]] = []
    for tag in ("c", "py"):
        stream = Impl(tag).module("stream").Stream
        public.append({name for name in dir(stream) if not name.startswith("_")})
    missing = public[1] - public[0]
    # These are the connection's; the compiled twin calls them without having them.
    decided = {
        "callback_failed",
        "close_received",
        "closed_error",
        "connection_lost",
        "crashed",
        "decoding_failed",
        "drain",
        "handshake_received",
        "pause_writing",
        "peer_ended",
        "ping_received",
        "pong_received",
        "publishing_failed",
        "reader_failed",
        "resume_writing",
        "send_otherwise",
        "send_prepared",
        "send_published",
    }
    assert missing == decided
    assert public[0] <= public[1]


def test_input_in_the_middle_of_input(make: Made, run: Run) -> None:
    """A transport that delivers while a callback runs: it comes after what is there."""

    async def main() -> None:
        seen: list[Any] = []

        def more(stream: Any, message: Any) -> None:
            seen.append(message)
            if message == "0":
                stream.data_received(masked(TEXT, b"late") + masked(TEXT, b"cut")[:4])
                fill(stream, masked(TEXT, b"cut")[4:])

        stream, _ = on_transport(make, on_message=more)
        fill(stream, b"".join(masked(TEXT, b"%d" % n) for n in range(3)))
        await settle()
        assert seen == ["0", "1", "2", "late", "cut"]

    run(main())
