"""The asyncio connection through ``connect()`` and ``serve()``.

Our client and server with each other, and with those of the ``websockets`` library:
what one side does must be what the other side sees, whoever it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import websockets
from linked import LOOPS, freeze, loop_factory, quiet_fixture
from scripted import LOOPBACK, TLS, run_on, tls_fixture
from websockets.asyncio.client import connect as their_connect
from websockets.asyncio.server import serve as their_serve

import websock

tls = tls_fixture()
quiet = quiet_fixture()


class Pair(NamedTuple):
    """The two ends of a connection."""

    client: Any
    server: Any


class Failure(NamedTuple):
    """How a call failed, whichever library raised it."""

    name: str
    rcvd: tuple[int, str] | None
    sent: tuple[int, str] | None
    rcvd_then_sent: bool | None


async def failure(awaitable: Any) -> Failure:
    """Await what fails; tell how."""
    try:
        await awaitable
    except (websock.ConnectionClosed, websockets.ConnectionClosed) as exc:
        return Failure(
            type(exc).__name__,
            None if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason),
            None if exc.sent is None else (exc.sent.code, exc.sent.reason),
            exc.rcvd_then_sent,
        )
    raise AssertionError("it did not fail")


@dataclass
class Ends:
    """Makes connections between two libraries."""

    client: str
    server: str
    secure: TLS | None
    compression: str | None
    loop: str

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        freeze()
        return run_on(loop_factory(self.loop), coroutine)

    @contextlib.asynccontextmanager
    async def __call__(self, **options: Any) -> AsyncIterator[Pair]:
        """Connect; the server's end is given away by its handler."""
        connect: Any = websock.connect if self.client == "ours" else their_connect
        serve: Any = websock.serve if self.server == "ours" else their_serve
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def handler(ws: Any) -> None:
            found.set_result(ws)
            await ws.wait_closed()

        options.setdefault("compression", self.compression)
        server_options, client_options = dict(options), dict(options)
        scheme = "ws"
        if self.secure is not None:
            scheme = "wss"
            server_options["ssl"] = self.secure.server
            client_options["ssl"] = self.secure.client
        async with serve(handler, LOOPBACK, 0, **server_options) as server:
            port = server.sockets[0].getsockname()[1]
            uri = f"{scheme}://{LOOPBACK}:{port}"
            async with connect(uri, proxy=None, **client_options) as client:
                yield Pair(client, await found)


CASES = [
    pytest.param((loop, *ends), id="-".join((loop, *ends)))
    for loop in LOOPS
    for ends in (
        ("ours", "ours", "plain"),
        ("ours", "ours", "deflate"),
        ("ours", "ours", "tls"),
        ("ours", "theirs", "plain"),
        ("ours", "theirs", "deflate"),
        ("theirs", "ours", "plain"),
        ("theirs", "ours", "deflate"),
        ("theirs", "ours", "tls"),
    )
]


@pytest.fixture(params=CASES)
def ends(request: pytest.FixtureRequest) -> Ends:
    loop, client, server, kind = request.param
    loop_factory(loop)  # a test that is skipped later leaves its coroutine behind
    secure = request.getfixturevalue("tls") if kind == "tls" else None
    compression = "deflate" if kind == "deflate" else None
    return Ends(client, server, secure, compression, loop)


AsyncTest = Callable[[Ends], Coroutine[Any, Any, None]]


def both_ways(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function; from the client, then from the server."""

    def run(ends: Ends, reverse: bool) -> None:
        ends.run(test(ends, reverse))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return pytest.mark.parametrize(
        "reverse", [pytest.param(False, id="client"), pytest.param(True, id="server")]
    )(run)


def order(pair: Pair, reverse: bool) -> tuple[Any, Any]:
    """Return the end that acts, and the other."""
    return (pair.server, pair.client) if reverse else (pair.client, pair.server)


MESSAGES = [
    "text",
    b"bytes",
    "",
    b"",
    "héllo wörld 😀",
    "x" * 125,
    b"x" * 126,
    b"x" * 65536,
    "é" * 100_000,
]


@both_ways
async def test_messages(ends: Ends, reverse: bool) -> None:
    async with ends() as pair:
        one, two = order(pair, reverse)
        for message in MESSAGES:
            sending = asyncio.ensure_future(one.send(message))
            assert await two.recv() == message
            await sending
        for text in (True, False):
            await one.send("é", text=text)
            await one.send(b"\xc3\xa9", text=text)
            expected = "é" if text else b"\xc3\xa9"
            assert [await two.recv(), await two.recv()] == [expected] * 2
        await one.send("é")
        await one.send(b"\xc3\xa9")
        assert await two.recv(decode=False) == b"\xc3\xa9"
        assert await two.recv(decode=True) == "é"


@both_ways
async def test_fragments(ends: Ends, reverse: bool) -> None:
    async def later() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0)
        yield b"two"

    async with ends() as pair:
        one, two = order(pair, reverse)
        await one.send(["one", "", "zwölf"])
        await one.send(later())
        await one.send(["é" * 1000] * 20)
        await one.send(b"x")
        assert await two.recv() == "onezwölf"
        assert [piece async for piece in two.recv_streaming()] == [b"one", b"two", b""]
        pieces = [piece async for piece in two.recv_streaming()]
        assert pieces == ["é" * 1000] * 20 + [""]
        assert [piece async for piece in two.recv_streaming()] == [b"x"]


@both_ways
async def test_pings(ends: Ends, reverse: bool) -> None:
    async with ends() as pair:
        one, two = order(pair, reverse)
        assert 0 <= await (await one.ping()) < 30
        assert 0 <= await (await one.ping(b"x" * 125)) < 30
        first, second = await one.ping("1"), await one.ping("2")
        await second
        assert first.done()
        await two.pong("unasked")
        await two.send("x")
        assert await one.recv() == "x"


@both_ways
async def test_iteration(ends: Ends, reverse: bool) -> None:
    async with ends() as pair:
        one, two = order(pair, reverse)
        for number in range(100):
            await one.send(str(number))
        closing = asyncio.create_task(one.close(1001, "done"))
        assert [m async for m in two] == [str(number) for number in range(100)]
        await closing
        assert (two.close_code, two.close_reason) == (1001, "done")
        assert (one.close_code, one.close_reason) == (1001, "done")


@both_ways
async def test_close(ends: Ends, reverse: bool) -> None:
    async with ends() as pair:
        one, two = order(pair, reverse)
        await one.close(4001, "bye ✓")
        said = (4001, "bye ✓")
        expected = Failure("ConnectionClosedError", said, said, False)
        assert await failure(one.recv()) == expected
        assert await failure(one.send("x")) == expected
        assert await failure(one.ping()) == expected
        expected = expected._replace(rcvd_then_sent=True)
        assert await failure(two.recv()) == expected
        assert await failure(two.send("x")) == expected
        assert one.state == two.state == 3


@both_ways
async def test_context_ends_normally(ends: Ends, reverse: bool) -> None:
    async with ends() as pair:
        one, two = order(pair, reverse)
        task = asyncio.create_task(failure(two.recv()))
        await asyncio.sleep(0)
        async with one:
            pass
        expected = Failure("ConnectionClosedOK", (1000, ""), (1000, ""), True)
        assert await task == expected


@both_ways
async def test_too_big(ends: Ends, reverse: bool) -> None:
    async with ends(max_size=1000) as pair:
        one, two = order(pair, reverse)
        await one.send(b"x" * 1000)
        assert await two.recv() == b"x" * 1000
        await one.send(b"x" * 1001)
        with pytest.raises((websock.ConnectionClosed, websockets.ConnectionClosed)):
            await two.recv()
        with pytest.raises((websock.ConnectionClosed, websockets.ConnectionClosed)):
            await one.recv()
        assert one.close_code == 1009
        assert two.close_code in (1006, 1009)


@both_ways
async def test_slow_receiver(ends: Ends, reverse: bool) -> None:
    """A program that does not receive stops the one that sends."""
    async with ends(max_queue=2, write_limit=1000) as pair:
        one, two = order(pair, reverse)
        sent = 0
        # Random enough that it cannot be compressed away.
        part = random.Random(1).randbytes(50_000)

        async def send() -> None:
            nonlocal sent
            for _ in range(250):
                await one.send(part)
                sent += 1

        task = asyncio.create_task(send())
        before = -1
        while before != sent:
            before = sent
            for _ in range(100):
                await asyncio.sleep(0)
        assert sent < 250
        for _ in range(250):
            assert await two.recv() == part
        await task


@both_ways
async def test_echo_of_many(ends: Ends, reverse: bool) -> None:
    async with ends() as pair:
        one, two = order(pair, reverse)

        async def echo() -> None:
            async for message in two:
                await two.send(message)

        task = asyncio.create_task(echo())

        async def send() -> None:
            for number in range(1000):
                await one.send(f"message {number}")

        sending = asyncio.create_task(send())
        for number in range(1000):
            assert await one.recv() == f"message {number}"
        await sending
        await one.close()
        await task


@pytest.mark.parametrize("loop", LOOPS)
def test_many_connections(loop: str) -> None:
    async def handler(ws: websock.ServerConnection) -> None:
        async for message in ws:
            assert isinstance(message, str)
            await ws.send(message * 2)

    async def client(uri: str, number: int) -> None:
        async with websock.connect(uri, proxy=None) as ws:
            for turn in range(20):
                await ws.send(f"{number} {turn} ")
                assert await ws.recv() == f"{number} {turn} " * 2

    async def main() -> None:
        async with websock.serve(handler, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(client(f"ws://{LOOPBACK}:{port}", number))

    run_on(loop_factory(loop), main())
