"""What is published, and what is sent otherwise, in one turn of the loop.

What is published waits for the end of the turn: nobody may see that from the order of
messages, or lose one.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
from helpers import request
from scripted import TLS, Run, loop_fixture, tls_fixture
from subscribers import served, until

import websock
from websock.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websock.topics import Topics

run = loop_fixture()
tls = tls_fixture()

TOPICS = ("a.x", "a.y", "b")
PATTERNS = (*TOPICS, "a.*", "**")


class Turn:
    """What is done in one turn, and what each connection is to get for it."""

    def __init__(self, rng: random.Random, server: Any) -> None:
        self.rng = rng
        self.server = server
        self.connections = sorted(server.connections, key=lambda ws: ws.remote_address)
        self.expected: dict[Any, list[str]] = {ws: [] for ws in self.connections}
        self.number = 0

    def text(self) -> str:
        """Return another message; a few are not joined by copying."""
        self.number += 1
        return f"{self.number} ".ljust(self.rng.choice((0, 0, 0, 0, 200, 20_000)), ".")

    def do_something(self) -> None:
        """Publish, mostly."""
        actions: list[Callable[[], object]] = [self._send, self._post, self._broadcast]
        actions += [self._prepared, self._look, self._ping]
        actions += [self._publish] * (2 * len(actions))
        self.rng.choice(actions)()

    def _publish(self) -> None:
        topic = self.rng.choice(TOPICS)
        text = self.text()
        self.server.publish(topic, text)
        for ws in self.server.subscribers(topic):
            self.expected[ws].append(text)

    def _one(self) -> tuple[Any, str]:
        ws, text = self.rng.choice(self.connections), self.text()
        self.expected[ws].append(text)
        return ws, text

    def _send(self) -> None:
        ws, text = self._one()
        ws.send_nowait(text)

    def _prepared(self) -> None:
        ws, text = self._one()
        ws.send_nowait(websock.prepare(text))

    def _post(self) -> None:
        ws, text = self._one()
        assert ws.post(text)

    def _broadcast(self) -> None:
        text = self.text()
        websock.broadcast(self.connections, text)
        for got in self.expected.values():
            got.append(text)

    def _look(self) -> None:
        ws = self.rng.choice(self.connections)
        stats = ws.stats()
        assert stats.messages_sent == len(self.expected[ws]) + 1  # the one at the start
        assert stats.buffered == ws.buffered_amount

    def _ping(self) -> None:
        self.rng.choice(self.connections).send_control(9, b"?")


@pytest.mark.parametrize("kind", ["plain", "deflate", "shared deflate", "tls"])
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_any_order(run: Run, tls: TLS, kind: str, inside: bool) -> None:
    """Publishing keeps its place among all that is sent, on each connection."""
    options: dict[str, Any] = {"compression": "deflate" if kind == "deflate" else None}
    if kind == "shared deflate":
        options = {
            "extensions": [
                ServerPerMessageDeflateFactory(server_no_context_takeover=True)
            ]
        }
    client: dict[str, Any] = {"max_queue": None}
    if kind == "tls":
        options["ssl"], client["ssl"] = tls.server, tls.client
        client["server_hostname"] = "localhost"

    class Handler(websock.Listener):
        """Does a turn while its input is read, when it is told to."""

        def on_open(self, ws: Any) -> None:
            for pattern in rng.sample(PATTERNS, rng.randrange(3)):
                ws.subscribe(pattern)
            ws.send_nowait("subscribed")

        def on_message(self, ws: Any, message: Any) -> None:
            take_turn(ws.server)

    def take_turn(server: Any) -> None:
        turn = Turn(rng, server)
        for _ in range(rng.randrange(1, 40)):
            turn.do_something()
        turns.append(turn)

    async def main() -> None:
        async with served(Handler, clients=4, client=client, **options) as (
            server,
            *clients,
        ):
            for each in clients:
                assert await each.get() == "subscribed"
            if inside:
                await clients[0].ws.send("go")
                await until(lambda: turns)
            else:
                take_turn(server)
            (turn,) = turns
            for ws, expected in turn.expected.items():
                (peer,) = [
                    each for each in clients
                    if each.ws.local_address[:2] == ws.remote_address[:2]
                ]  # fmt: skip
                assert [await peer.get() for _ in expected] == expected
                stats = ws.stats()
                assert stats.messages_sent == len(expected) + 1
                assert stats.payload_sent == sum(map(len, expected)) + len("subscribed")

    for seed in range(8):
        rng = random.Random(f"{kind} {inside} {seed}")
        turns: list[Turn] = []
        run(main())


def test_fragments_come_behind(run: Run) -> None:
    """A message in fragments that begins after it was published comes after it."""

    async def handler(ws: Any) -> None:
        ws.subscribe("t")
        async for _ in ws:
            ws.server.publish("t", "before")
            async with ws.send_stream() as stream:
                await stream.write("one, ")
                await stream.write("two")
            ws.server.publish("t", "then")
            await ws.send(["three, ", "four"])
            ws.server.publish("t", "last")
            await ws.send(websock.prepare("end"))

    async def main() -> None:
        async with served(handler) as (_, a):
            await a.ws.send("go")
            got = await a.get(6)
            assert got == ["before", "one, two", "then", "three, four", "last", "end"]

    run(main())


@pytest.mark.parametrize("end", ["close_nowait", "return"])
def test_before_the_end(run: Run, end: str) -> None:
    """What was published before a connection closes is not lost."""

    async def handler(ws: Any) -> None:
        ws.subscribe("t")
        await ws.recv()
        for number in range(3):
            ws.server.publish("t", str(number))
        if end == "close_nowait":
            ws.close_nowait()
            await ws.wait_closed()

    async def main() -> None:
        async with served(handler) as (_, a):
            await a.ws.send("go")
            assert [m async for m in a.ws] == ["0", "1", "2"]

    run(main())


def test_what_is_much_is_sent_at_once(run: Run) -> None:
    """Above 64 KiB it does not wait for the end of the turn: memory has a limit."""

    async def handler(ws: Any) -> None:
        ws.subscribe("t")
        await ws.wait_closed()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with websock.serve(
            handler, "127.0.0.1", 0, write_limit=1 << 20
        ) as server:
            with socket.socket() as peer:
                peer.connect(server.sockets[0].getsockname())
                peer.setblocking(False)
                await loop.sock_sendall(peer, request())
                head = await loop.sock_recv(peer, 65536)
                assert head.startswith(b"HTTP/1.1 101 ")
                await until(lambda: server.subscribers("t"))
                for _ in range(10):
                    server.publish("t", "." * 5000)
                with pytest.raises(BlockingIOError):
                    peer.recv(65536)
                for _ in range(4):
                    server.publish("t", "." * 5000)
                # The loop had no turn, and still they are here.
                peer.settimeout(60)
                got = 0
                while got < 14 * 5004:
                    got += len(peer.recv(65536))
                peer.setblocking(False)
                server.publish("t", "end")
                assert await loop.sock_recv(peer, 100) == b"\x81\x03end"

    run(main())


@pytest.mark.parametrize("way", ["publish", "broadcast", "post"])
def test_a_burst_is_not_slowness(run: Run, way: str) -> None:
    """More than write_limit in one turn is no sign of a peer that does not read."""

    async def handler(ws: Any) -> None:
        ws.subscribe("t")
        ws.subscribe(f"u.{len(ws.server.connections)}")
        await ws.send("ok")
        await ws.wait_closed()

    async def main() -> None:
        slow = websock.SlowConsumer("close", max_messages=1)
        async with served(
            handler, clients=2, slow_consumer=slow, write_limit=1000, compression=None
        ) as (server, a, b):
            for each in (a, b):
                assert await each.get() == "ok"
            connections = server.connections
            for number in range(100):
                text = f"t {number} ".ljust(100)
                if way == "publish":
                    server.publish("t", text)
                elif way == "broadcast":
                    websock.broadcast(connections, text)
                else:
                    assert all(ws.post(text) for ws in connections)
                server.publish(f"u.{1 + number % 2}", f"u {number} ".ljust(100))
            for each in (a, b):
                got = [message.split() for message in await each.get(150)]
                assert [int(n) for k, n in got if k == "t"] == list(range(100))

    run(main())


def test_a_callback_fills_one_that_gets_more(run: Run) -> None:
    """It gets what was joined for it, though what is published next has to wait."""

    async def handler(ws: Any) -> None:
        for topic in ws.request.path[1:].split(","):
            ws.subscribe(topic)
        await ws.send("ok")
        await ws.wait_closed()

    async def main() -> None:
        def on_drop(ws: Any, count: int) -> None:
            if not told:
                told.append(count)
                (other,) = server.subscribers("one")
                other.send_nowait("large".ljust(50_000, "."))

        told: list[int] = []
        slow = websock.SlowConsumer("drop_newest", max_messages=1, on_drop=on_drop)
        async with websock.serve(
            handler,
            "127.0.0.1",
            0,
            slow_consumer=slow,
            write_limit=1000,
            compression=None,
            ping_interval=None,  # a ping would take along what is left behind
        ) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with (
                websock.connect(f"{url}/fill,two", ping_interval=None) as a,
                websock.connect(f"{url}/one,three", ping_interval=None) as b,
            ):
                assert [await ws.recv() for ws in (a, b)] == ["ok", "ok"]
                (stuck,) = server.subscribers("fill")
                a.pause_reading()
                while not (stuck.write_paused and len(stuck.backlog)):
                    server.publish("fill", "." * 100_000)
                    await asyncio.sleep(0)
                for topic in ("one", "two", "three"):
                    server.publish(topic, topic)
                got = [(await b.recv())[:5] for _ in range(3)]
                assert got == ["one", "large", "three"]
                assert told == [1]
                a.resume_reading()

    run(main())


def test_an_interrupt_in_a_callback(run: Run) -> None:
    """What a callback lets through does not keep a message from the others."""

    class Stop(BaseException):
        pass

    def on_drop(ws: Any, count: int) -> None:
        if not stopped:
            stopped.append(ws)
            raise Stop

    stopped: list[Any] = []

    async def handler(ws: Any) -> None:
        for topic in TOPICS:
            ws.subscribe(topic)
        await ws.send("ok")
        await ws.wait_closed()

    async def main() -> None:
        slow = websock.SlowConsumer("drop_newest", max_messages=1, on_drop=on_drop)
        async with served(
            handler, clients=3, slow_consumer=slow, write_limit=1000, compression=None
        ) as (server, a, b, c):
            for each in (a, b, c):
                assert await each.get() == "ok"
            (stuck,) = [
                ws for ws in server.connections
                if ws.remote_address == b.ws.local_address
            ]  # fmt: skip
            b.ws.pause_reading()
            while not stuck.write_paused:
                server.publish("b", "." * 100_000)
                await asyncio.sleep(0)
            server.publish("b", "in the backlog")

            def burst() -> None:
                for number in range(20):
                    server.publish(TOPICS[number % 2], f"{number} ".ljust(10_000, "."))

            with pytest.raises(Stop):
                burst()
            for each in (a, c):
                got: list[str] = []
                while len(got) < 7:
                    message = await each.get()
                    if message[0] not in ".i":
                        got.append(message.split()[0])
                assert got == [str(number) for number in range(7)]
            b.ws.resume_reading()

    run(main())


def test_only_connections_subscribe(run: Run) -> None:
    async def main() -> None:
        topics = Topics()
        async with served(topics=topics), websock.serve(print, port=0) as other:
            with pytest.raises(TypeError, match="not a connection: Server"):
                topics.subscribe(other, "t")  # type: ignore[arg-type]

    run(main())
