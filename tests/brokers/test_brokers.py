"""Topics over real brokers: several servers, and brokers that die, pause and refuse."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from brokers.running import (
    KINDS,
    Broker,
    broker_fixture,
    go,
    in_thread,
    missing,
    prefix,
    running,
    several,
    topics_on,
    with_nats,
    with_redis,
)  # fmt: skip
from helpers import request
from scripted import LOOPBACK
from subscribers import Relay, handler, served, until

import websock
from websock.topics import BrokerError, Gap

broker = broker_fixture()


class Nowhere:
    """Stands for listening sockets: connections are handed over."""

    sockets = ()

    def is_serving(self) -> bool:
        return True

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


@pytest.fixture(params=KINDS)
def victim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own."""
    with running(request.param, tmp_path) as broker:
        yield broker


# -- while the broker is there ---------------------------------------------------------


def test_a_message_comes_once_and_in_order(broker: Broker) -> None:
    """Also with patterns that overlap, for the broker or for us."""

    async def main() -> None:
        async with several(broker, 3, clients=2) as servers:
            (_, a, a2), (_, b, _), (_, c, _) = servers
            for one, patterns in (
                (a, ("t.x", "t.*", "**")),
                (a2, ("t.x",)),
                (b, ("t.**", "t.*", "*.x")),
                (c, ("t.x", "t.y", "tx")),
            ):
                for pattern in patterns:
                    assert await one.ask(pattern) == "ok"
            count = 200
            for number in range(count):
                for name, (server, *_) in zip("abc", servers, strict=True):
                    server.publish("t.x", f"{name} {number}")
                if number % 20 == 0:
                    await asyncio.sleep(0.001)
            seen = [await one.get(3 * count) for one in (a, a2, b, c)]
            for messages in seen:
                for name in "abc":
                    mine = [m for m in messages if m[0] == name]
                    assert mine == [f"{name} {n}" for n in range(count)]
            if broker.kind == "redis":
                # One order for all.
                assert all(messages == seen[0] for messages in seen)
            for server, *_ in servers:
                server.publish("t.x", "end")
            assert await c.get(3) == ["end"] * 3

    go(main())


def test_subscribed_and_published_at_once(broker: Broker) -> None:
    """What a process publishes after it has subscribed comes, awaited or not."""

    async def main() -> None:
        async def eager(ws: Any) -> None:
            for number in range(30):
                ws.subscribe(f"t{number}.*")
                ws.server.publish(f"t{number}.x", str(number))
                ws.unsubscribe(f"t{number}.*")
                ws.subscribe(f"t{number}.*")
            await ws.wait_closed()

        topics = topics_on(broker.url, prefix=prefix())
        async with served(eager, topics=topics) as (_, a):
            assert await a.get(30) == [str(number) for number in range(30)]

    go(main())


def test_what_goes_with_a_message(broker: Broker) -> None:
    """Kinds, keys and compression arrive as they were given."""

    async def main() -> None:
        got: list[Any] = []
        async with several(broker) as ((one, a), (two, _)):
            await a.ask("t")
            deliver = one.topics._hub.deliver

            def spy(
                topic: str, message: Any, key: Any = None, place: Any = None
            ) -> Any:
                got.append((message.opcode, message.compress, key))
                return deliver(topic, message, key, place)

            one.topics._hub.deliver = spy
            two.publish("t", "text", key="a key\n=é")
            two.publish("t", b"", key="")
            two.publish("t", websock.prepare("x", compress=False))
            assert await a.get(3) == ["text", b"", "x"]
            assert got == [(1, True, "a key\n=é"), (2, True, ""), (1, False, None)]

    go(main())


def test_from_handlers_listeners_and_threads(broker: Broker) -> None:
    """Whoever publishes, the subscribers of all servers get it, in their order."""

    class Room(websock.Listener):
        def on_open(self, ws: Any) -> None:
            ws.subscribe("room")

        def on_message(self, ws: Any, message: Any) -> None:
            for number in range(100):
                ws.server.publish("room", f"listener {number}")

    async def room(ws: Any) -> None:
        await ws.subscribe("room")
        await ws.send("ready")
        async for _ in ws:
            for number in range(100):
                ws.server.publish("room", f"handler {number}")
                await asyncio.sleep(0)

    async def main() -> None:
        name = prefix()
        one, two = (topics_on(broker.url, prefix=name) for _ in range(2))
        async with (
            served(Room, topics=one) as (first, a),
            served(room, topics=two) as (second, b),
        ):
            assert await b.get() == "ready"
            await until(lambda: first.subscribers("room"))
            # It has subscribed when something comes.
            while not await in_time(a.ws.recv()):
                second.publish("room", "")
            second.publish("room", "begin")
            for client in (a, b):
                while await client.get() != "begin":
                    pass

            def publish(server: Any, thread: int) -> None:
                for number in range(100):
                    server.publish("room", f"thread{thread} {number}")

            threads = [
                asyncio.to_thread(publish, server, thread)
                for thread, server in enumerate((first, second, first))
            ]
            await asyncio.gather(a.ws.send("go"), b.ws.send("go"), *threads)
            names = ("listener", "handler", "thread0", "thread1", "thread2")
            for client in (a, b):
                got = [message.split() for message in await client.get(500)]
                for who in names:
                    mine = [int(number) for name, number in got if name == who]
                    assert mine == list(range(100)), who

    go(main())


async def in_time(waiting: Any) -> bool:
    """Whether something has come within a moment."""
    try:
        async with asyncio.timeout(0.05):
            await waiting
    except TimeoutError:
        return False
    return True


@pytest.mark.skipif(
    not hasattr(socket, "SOCK_SEQPACKET"),
    reason="this system has no Unix sockets that keep writes apart",
)
def test_what_comes_together_leaves_together(broker: Broker) -> None:
    """Messages that the broker sends at once are few writes for each connection."""

    async def main() -> None:
        async with several(broker, 1, clients=0) as ((server,),):
            topics = server.topics
            serving = websock.serve(
                handler, port=0, ping_interval=None, topics=topics, compression=None
            )
            other, factory = serving.make_server(Nowhere())
            loop = asyncio.get_running_loop()
            ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for sock in (ours, peer):
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
            connection = factory(other)
            connection.start(ours)
            other.add_connection(connection)
            await loop.sock_sendall(peer, request())
            assert (await loop.sock_recv(peer, 65536)).startswith(b"HTTP/1.1 101 ")
            await loop.sock_sendall(peer, b"\x81\x83\0\0\0\0t.*")
            assert await loop.sock_recv(peer, 65536) == b"\x81\x02ok"
            wanted = b""
            for number in range(200):
                text = b"message %d" % number
                wanted += bytes((0x81, len(text))) + text
                server.publish(f"t.{number % 7}", text.decode())
            writes = 0
            got = b""
            while len(got) < len(wanted):
                got += await loop.sock_recv(peer, 1 << 20)
                writes += 1
            assert got == wanted
            assert writes < 50
            peer.close()
            await until(lambda: not other.all_connections)

    go(main())


def test_a_slow_subscriber_holds_up_nobody(broker: Broker) -> None:
    """Neither those of its own process nor those of others."""

    async def main() -> None:
        slow = websock.SlowConsumer("drop_oldest", max_messages=3)
        options = {"compression": None, "write_limit": 10_000, "slow_consumer": slow}
        name = prefix()
        one, two = (topics_on(broker.url, prefix=name) for _ in range(2))
        async with (
            served(clients=2, topics=one, **options) as (first, a, b),
            served(topics=two, **options) as (_, c),
        ):
            for client in (a, b, c):
                await client.ask("t")
            (stuck,) = [
                ws for ws in first.connections
                if ws.remote_address == a.ws.local_address
            ]  # fmt: skip
            a.ws.pause_reading()
            message = "." * 50_000
            while stuck.stats().dropped < 5:
                first.publish("t", message)
                for client in (b, c):
                    assert await client.get() == message
            first.publish("t", "newest")
            assert await b.get() == await c.get() == "newest"
            a.ws.resume_reading()
            while await a.get() != "newest":
                pass
            assert first.stats().dropped == stuck.stats().dropped

    go(main())


@pytest.mark.parametrize("kind", KINDS)
def test_across_processes(kind: str, tmp_path: Path) -> None:
    """Two programs, as two machines would run them, on addresses of their own."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, sys, websock\n"
        "async def handler(ws):\n"
        "    await ws.subscribe('room.*')\n"
        "    await ws.send('ready')\n"
        "    async for message in ws:\n"
        "        ws.server.publish('room.tea', message)\n"
        "async def main(address, url):\n"
        "    async with websock.serve(handler, address, 0, topics=url) as server:\n"
        "        print(server.sockets[0].getsockname()[1], flush=True)\n"
        "        await server.serve_forever()\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    addresses = [LOOPBACK, "127.0.0.2" if sys.platform == "linux" else LOOPBACK]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    with running(kind, tmp_path / "broker") as broker:
        processes = [
            subprocess.Popen(
                (sys.executable, "-P", str(program), address, broker.url),
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for address in addresses
        ]
        try:
            ports = [int(p.stdout.readline()) for p in processes if p.stdout]

            async def main() -> None:
                urls = [
                    f"ws://{address}:{port}"
                    for address, port in zip(addresses, ports, strict=True)
                ]
                async with (
                    websock.connect(urls[0]) as a,
                    websock.connect(urls[1]) as b,
                ):
                    assert await a.recv() == await b.recv() == "ready"
                    for number in range(20):
                        await (a, b)[number % 2].send(f"message {number}")
                        assert await a.recv() == await b.recv() == f"message {number}"

            go(main())
        finally:
            for process in processes:
                process.kill()
                process.communicate()


# -- when it cannot be reached ---------------------------------------------------------


def test_no_answer(victim: Broker) -> None:
    async def main() -> None:
        victim.pause()
        topics = topics_on(victim.url, timeout=0.3)
        with pytest.raises(BrokerError, match=r"no answer within 0\.3 s|imeout"):
            await topics.start()
        victim.go_on()
        # It is as if nothing had been.
        async with served(topics=topics_on(victim.url)) as (server, a):
            await a.ask("t")
            server.publish("t", "x")
            assert await a.get() == "x"

    go(main())


@pytest.mark.parametrize("kind", KINDS)
def test_somebody_else_answers(kind: str, tmp_path: Path) -> None:
    """A port where another program listens is said as clearly as a closed one."""

    async def main() -> None:
        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            try:
                await reader.read()
            except ConnectionResetError:
                pass  # it has had enough
            finally:
                writer.close()

        async with await asyncio.start_server(answer, LOOPBACK, 0) as server:
            address = f"{kind}://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(BrokerError) as caught:
                await topics_on(address, timeout=5).start()
            text = str(caught.value)
            assert text.startswith(f"cannot reach the broker at {address}: "), text
            assert not text.endswith(": ")

    go(main())


@pytest.mark.parametrize("kind", KINDS)
def test_attempts_become_rare(kind: str, tmp_path: Path) -> None:
    """Somebody who refuses in place of the broker sees how often it is tried."""
    times: list[float] = []

    async def main(broker: Broker) -> None:
        topics = topics_on(broker.url, prefix=prefix(), timeout=5)
        async with served(topics=topics) as (server, a):
            await a.ask("t")
            await in_thread(broker.kill)
            loop = asyncio.get_running_loop()

            def refuse(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                times.append(loop.time())
                writer.transport.abort()

            refusing = await asyncio.start_server(
                refuse, LOOPBACK, broker.port, reuse_address=True
            )
            async with refusing:
                await until(lambda: len(times) >= 4)
                server.publish("t", "here")
                assert await a.get() == "here"
            await in_thread(broker.start)
            await until(lambda: topics.backend.is_connected)  # type: ignore[attr-defined]
            server.publish("t", "back")
            assert await a.get() == "back"

    with running(kind, tmp_path) as broker:
        go(main(broker))
    waits = [after - before for before, after in pairwise(times)]
    # The first may have met nobody at all, so it is one of the first two.
    for number, wait in enumerate(waits):
        assert wait >= 0.05 * 2**number * 0.5, waits


@with_redis
@pytest.mark.slow
def test_as_patient_as_asked(tmp_path: Path) -> None:
    """A broker may take its ``timeout``; the client library has a shorter one."""

    async def main(broker: Broker) -> None:
        async with several(broker, timeout=60) as ((one, a), (_, b)):
            for client in (a, b):
                await client.ask("t")
            broker.pause()
            one.publish("t", "x")
            await asyncio.sleep(6)  # more than the five seconds of redis-py
            broker.go_on()
            assert await a.get() == await b.get() == "x"
            backend = one.topics.backend
            assert (backend.is_connected, backend.unsent) == (True, 0)

    with running("redis", tmp_path) as broker:
        go(main(broker))


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_are_not_shown(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    password = "p%40ss-w0rd"  # in a URL; it is p@ss-w0rd
    arguments = ("--requirepass", "p@ss-w0rd")
    if kind == "nats":
        arguments = ("--user", "default", "--pass", "p@ss-w0rd")
    shown: list[str] = []

    async def main(broker: Broker) -> None:
        where = f"{LOOPBACK}:{broker.port}"
        for wrong in (f"{kind}://default:wr0ng-one@{where}", f"{kind}://{where}"):
            topics = topics_on(wrong)
            with pytest.raises(BrokerError) as caught:
                await topics.start()
            shown.append(f"{caught.value} {caught.value!r} {topics.backend!r}")
            assert f"{kind}://{where}" in str(caught.value)
        topics = topics_on(f"{kind}://default:{password}@{where}", timeout=1)
        async with served(topics=topics) as (server, a):
            await a.ask("t")
            server.publish("t", "x")
            assert await a.get() == "x"
            shown.append(repr(topics.backend))
            await in_thread(broker.kill)
            await until(lambda: not topics.backend.is_connected)  # type: ignore[attr-defined]
            shown.append(repr(topics.backend))
            await until(lambda: "still away" in caplog.text)
            await in_thread(broker.start)
            await until(lambda: topics.backend.is_connected)  # type: ignore[attr-defined]

    with running(kind, tmp_path, *arguments) as broker:
        go(main(broker))
    text = "\n".join([*shown, caplog.text])
    assert "is back after" in text
    for secret in ("p@ss-w0rd", password, "wr0ng-one"):
        assert secret not in text
    assert f"{kind}://{LOOPBACK}:{broker.port}, connected" in text


# -- when it goes away -----------------------------------------------------------------


def test_killed_and_restarted(victim: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with several(victim, timeout=2) as ((one, a), (two, b)):
            for client in (a, b):
                await client.ask("t.*")
            one.publish("t.x", "both")
            assert await a.get() == await b.get() == "both"
            await in_thread(victim.kill)
            backends = [server.topics.backend for server in (one, two)]
            await until(lambda: not any(each.is_connected for each in backends))
            # The local part goes on, at once.
            for number in range(5):
                one.publish("t.x", f"one {number}")
                two.publish("t.x", f"two {number}")
            assert await a.get(5) == [f"one {n}" for n in range(5)]
            assert await b.get(5) == [f"two {n}" for n in range(5)]
            assert await a.ask("late") == "ok"
            assert await a.ask("-t.*") == "True"
            assert [each.unsent for each in backends] == [5, 5]
            await in_thread(victim.start)
            await until(lambda: all(each.is_connected for each in backends))
            # What was subscribed to meanwhile is, and what was not any more is not.
            two.publish("t.x", "only b")
            two.publish("late", "only a")
            assert await b.get() == "only b"
            assert await a.get() == "only a"
            assert [each.unsent for each in backends] == [5, 5]

    go(main())
    for text in (
        "lost the broker at",
        "is back after",
        "5 messages reached this process only",
    ):
        assert len([r for r in caplog.records if text in r.getMessage()]) == 2, text


def test_what_is_under_way_is_not_lost_here(victim: Broker) -> None:
    """Killed in the middle of a stream: own subscribers get each message once."""

    async def main() -> None:
        async with several(victim, timeout=2) as ((one, a), (two, b)):
            for client in (a, b):
                await client.ask("t")
            sent = 0
            backend = one.topics.backend
            killing: Any = None
            while killing is None or backend.is_connected:
                for _ in range(20):
                    one.publish("t", str(sent))
                    sent += 1
                await asyncio.sleep(0)
                if sent == 2000:
                    killing = asyncio.ensure_future(in_thread(victim.kill))
            await killing
            got = [int(m) for m in await a.get(sent)]
            assert sorted(got) == list(range(sent))
            assert got == sorted(got)
            # Others have got the beginning, in order, at most once each.
            two.publish("t", "end")
            theirs: list[str] = []
            while not theirs or theirs[-1] != "end":
                theirs.append(await b.get())
            numbers = [int(m) for m in theirs[:-1]]
            assert numbers == list(range(len(numbers)))

    go(main())


def test_paused(victim: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with several(victim, timeout=0.4) as ((one, a), (two, b)):
            for client in (a, b):
                await client.ask("t")
            backend = one.topics.backend
            victim.pause()
            began = time.monotonic()
            one.publish("t", "in the dark")
            assert await a.get() == "in the dark"  # as soon as it is noticed
            assert time.monotonic() - began < 10
            assert not backend.is_connected
            one.publish("t", "at once")
            assert await a.get() == "at once"
            victim.go_on()
            await until(lambda: backend.is_connected)
            await until(lambda: two.topics.backend.is_connected)
            one.publish("t", "both")
            # It may have come through after all, when the broker went on.
            got = [await b.get()]
            while got[-1] != "both":
                got.append(await b.get())
            assert got in (["both"], ["in the dark", "both"])
            assert await a.get() == "both"

    go(main())
    assert "no answer within" in caplog.text or "imeout" in caplog.text


def test_too_much_waits(victim: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        options = {"timeout": 20, "max_pending": 50}
        async with several(victim, 1, **options) as ((one, a),):
            await a.ask("t")
            victim.pause()
            one.publish("t", "0")
            await asyncio.sleep(0)
            for number in range(1, 100):
                one.publish("t", str(number))
            got = await a.get(100)
            assert got == [str(number) for number in range(100)]
            assert not one.topics.backend.is_connected
            victim.go_on()
            await until(lambda: one.topics.backend.is_connected)

    go(main())
    assert re.search(
        "too much waits to be sent: 50 messages, [0-9]+ bytes", caplog.text
    )


def test_cut_off_alone(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The broker and the others go on: the numbers say what was missed."""
    gaps: list[Gap] = []

    async def main() -> None:
        name = prefix()
        async with Relay(broker.port) as line:
            url = f"{broker.kind}://{LOOPBACK}:{line.port}"
            far = topics_on(url, prefix=name, on_gap=gaps.append)
            near = topics_on(broker.url, prefix=name)
            async with (
                served(topics=far) as (one, a),
                served(topics=near) as (two, b),
            ):
                for client in (a, b):
                    await client.ask("t.*")
                two.publish("t.x", "before")
                two.publish("t.quiet", "before")
                assert await a.get(2) == await b.get(2) == ["before"] * 2
                line.cut()
                await until(lambda: not far.backend.is_connected)  # type: ignore[attr-defined]
                for number in range(7):
                    two.publish("t.x", str(number))
                assert await b.get(7) == [str(number) for number in range(7)]
                one.publish("t.x", "here")
                assert await a.get() == "here"
                line.mend()
                await until(lambda: far.backend.is_connected)  # type: ignore[attr-defined]
                two.publish("t.x", "after")
                assert await a.get() == await b.get() == "after"
                two.publish("t.quiet", "after")
                assert await a.get() == await b.get() == "after"
            (gap,) = gaps
            assert (gap.topic, gap.first, gap.last, gap.count) == ("t.x", 2, 8, 7)

    go(main())
    assert "messages did not arrive here: t.x: 2 to 8 of" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_too_slow_for_the_broker(kind: str, tmp_path: Path) -> None:
    """A process that takes too little is thrown out: it comes back, and says so."""
    gaps: list[Gap] = []
    arguments = ["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"]
    said = "overcoming of output buffer limits"
    if kind == "nats":
        config = tmp_path / "nats.conf"
        config.write_text('max_pending: 2000000\nwrite_deadline: "500ms"\n')
        arguments = ["-c", str(config)]
        said = "Slow Consumer"

    async def main(broker: Broker) -> None:
        name = prefix()
        async with Relay(broker.port) as line:
            url = f"{kind}://{LOOPBACK}:{line.port}"
            far = topics_on(url, prefix=name, on_gap=gaps.append, timeout=30)
            near = topics_on(broker.url, prefix=name, timeout=30)
            async with (
                served(topics=far) as (_, a),
                served(topics=near, client={"max_size": None}) as (two, b),
            ):
                for client in (a, b):
                    await client.ask("t")
                two.publish("t", "before")
                assert await a.get() == await b.get() == "before"
                line.hold()
                count = 0
                while said not in broker.log():
                    for _ in range(10):
                        two.publish("t", f"{count} " + "." * 300_000)
                        # Others get it, as fast as the broker has its slow one.
                        assert (await b.get()).startswith(f"{count} ")
                        count += 1
                    assert count < 1000
                line.flow()
                await until(lambda: not far.backend.is_connected)  # type: ignore[attr-defined]
                await until(lambda: far.backend.is_connected)  # type: ignore[attr-defined]
                two.publish("t", "after")
                assert await b.get() == "after"
                got = [await a.get()]
                while got[-1] != "after":
                    got.append(await a.get())
                begin = [int(message.split()[0]) for message in got[:-1]]
                assert begin == list(range(len(begin)))
                (gap,) = gaps
                # They are counted from 1, and one came before.
                assert (gap.first, gap.last) == (len(begin) + 2, count + 1)

    with running(kind, tmp_path, *arguments) as broker:
        go(main(broker))


def test_on_gap_that_fails(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def on_gap(gap: Gap) -> None:
            raise ValueError("oh")

        topics = topics_on(broker.url, prefix=prefix(), on_gap=on_gap)
        async with served(topics=topics) as (server, a):
            await a.ask("t")
            topics._hub.lost(Gap("t", "x", 1, 2))
            server.publish("t", "goes on")
            assert await a.get() == "goes on"

    go(main())
    assert "on_gap failed" in caplog.text


def test_stopping_sends_what_waits(broker: Broker) -> None:
    async def main() -> None:
        name = prefix()

        class Leaving(websock.Listener):
            def on_close(self, ws: Any, code: int, reason: str) -> None:
                for number in range(600):
                    ws.server.publish("t", str(number))

        async with served(topics=topics_on(broker.url, prefix=name)) as (_, a):
            await a.ask("t")
            async with served(Leaving, topics=topics_on(broker.url, prefix=name)):
                pass
            assert await a.get(600) == [str(number) for number in range(600)]

    go(main())


# -- Redis -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if missing("redis"):
        pytest.skip(missing("redis"))
    with running("redis", tmp_path_factory.mktemp("redis")) as broker:
        yield broker


def redis_client(broker: Broker) -> Any:
    import redis.asyncio

    return redis.asyncio.Redis(host=LOOPBACK, port=broker.port, protocol=2)


async def late(ws: Any) -> None:
    """Subscribe to what the client asks for, and see what was kept."""
    async for message in ws:
        pattern, last, since = [*message.split(" "), "", ""][:3]
        await ws.subscribe(
            pattern,
            numbered=True,
            last=int(last) if last else None,
            since=since or None,
        )
        await ws.send("ok")


def numbers_of(messages: list[str]) -> list[int]:
    return [int(m.split("\n")[0].rpartition(":")[2]) for m in messages]


def test_kept_on_redis(redis_server: Broker) -> None:
    """What one process has published is kept for clients of another one."""

    async def main() -> None:
        name = prefix()
        options = {"prefix": name, "history": 5}
        one = topics_on(redis_server.url, **options)
        two = topics_on(redis_server.url, **options)
        async with served(topics=one) as (first, a), served(late, 3, topics=two) as (
            second, b, c, d,
        ):  # fmt: skip
            await a.ask("**")
            for number in range(8):
                first.publish("t.x", f"x{number}")
            first.publish("t.y", b"y0")
            await a.get(9)
            await b.ws.send("t.x 3")
            got = await b.get(4)
            assert [m.split("\n")[-1] for m in got] == ["x5", "x6", "x7", "ok"]
            assert numbers_of(got[:3]) == [6, 7, 8]
            place = got[1].split("\n")[0].split(" ")[1]
            await c.ws.send("t.* 9")
            got = await c.get(7)
            assert got[5].endswith(b"\ny0")
            assert [m.split("\n")[-1] for m in got[:5]] == [
                f"x{n}" for n in range(3, 8)
            ]
            await d.ws.send(f"t.x  {place}")
            assert numbers_of((await d.get(2))[:1]) == [8]
            second.publish("t.x", "x8")
            assert numbers_of([await x.get() for x in (b, c, d)]) == [9, 9, 9]
            assert await a.get() == "x8"
            assert first.topics.history("**") == []  # that is Redis's
            # A count of another time.
            await d.ws.send("t.x  123:7")
            assert numbers_of((await d.get(6))[:5]) == [5, 6, 7, 8, 9]
            await d.ws.send("none.* 5")
            assert await d.get() == "ok"

    go(main())


def test_kept_and_live_on_redis(redis_server: Broker) -> None:
    """Whoever comes in the middle of a stream gets it from there on, once, in order."""

    async def main() -> None:
        name = prefix()
        options = {"prefix": name, "history": 50}
        one = topics_on(redis_server.url, **options)
        two = topics_on(redis_server.url, **options)
        async with (
            served(clients=0, topics=one) as (first,),
            served(late, 20, topics=two) as (_, *clients),
        ):

            async def stream() -> None:
                for number in range(1500):
                    first.publish("t", str(number))
                    if number % 10 == 0:
                        await asyncio.sleep(0.0005)

            streaming = asyncio.create_task(stream())
            for client in clients:
                await client.ws.send("t 10")
                await asyncio.sleep(0.01)
            await streaming
            first.publish("t", "end")
            for client in clients:
                seen = []
                while not seen or not seen[-1].endswith("\nend"):
                    message = await client.get()
                    if message != "ok":
                        seen.append(message)
                numbers = numbers_of(seen)
                assert numbers == list(range(numbers[0], 1502))

    go(main())


def test_subscribing_again_while_kept_messages_come(redis_server: Broker) -> None:
    """The last word counts: nothing comes for the first, and nothing twice."""

    async def main() -> None:
        async def handler(ws: Any) -> None:
            async for _ in ws:
                ws.subscribe("t.*", numbered=True, last=50)
                ws.server.publish("t.x", "between")
                await ws.subscribe("t.*", last=2)
                ws.unsubscribe("t.*")
                ws.subscribe("t.*", last=1)
                await ws.subscribe("t.*")
                ws.server.publish("t.x", "end")

        topics = topics_on(redis_server.url, prefix=prefix(), history=50)
        async with served(handler, topics=topics) as (server, a):
            for number in range(10):
                server.publish("t.x", str(number))
            await a.ws.send("go")
            got = [await a.get()]
            while got[-1] != "end":
                got.append(await a.get())
            # What was published in between may be live, or kept, but not both.
            assert got in (["9", "between", "end"], ["8", "9", "between", "end"])
            (group,) = topics._patterns.values()
            assert group.waiting == 0

    go(main())


def test_two_servers_start_at_once(redis_server: Broker) -> None:
    async def main() -> None:
        topics = topics_on(redis_server.url, prefix=prefix())
        serving = [websock.serve(handler, LOOPBACK, 0, topics=topics) for _ in range(2)]
        servers = await asyncio.gather(*serving)
        assert topics.backend.is_connected  # type: ignore[attr-defined]
        for server in servers:
            server.publish("t", "x")
            server.close()
        await asyncio.gather(*(server.wait_closed() for server in servers))
        assert not topics.backend.is_connected  # type: ignore[attr-defined]
        dead = topics_on(f"redis://{LOOPBACK}:1", prefix=prefix())
        serving = [websock.serve(handler, LOOPBACK, 0, topics=dead) for _ in range(2)]
        results = await asyncio.gather(*serving, return_exceptions=True)
        assert [type(result) for result in results] == [BrokerError, BrokerError]

    go(main())


def test_missed_messages_come_from_what_redis_keeps(redis_server: Broker) -> None:
    """At least once, as far as they are kept; the rest is told."""
    gaps: list[Gap] = []

    async def main() -> None:
        name = prefix()
        async with Relay(redis_server.port) as line:
            url = f"redis://{LOOPBACK}:{line.port}"
            options = {"prefix": name, "history": 10}
            far = topics_on(url, on_gap=gaps.append, **options)
            near = topics_on(redis_server.url, **options)
            async with (
                served(topics=far) as (_, a),
                served(topics=near) as (two, b),
            ):
                for client in (a, b):
                    await client.ask("t.*")
                for topic in ("t.few", "t.many"):
                    two.publish(topic, "before")
                await a.get(2)
                await b.get(2)
                line.cut()
                await until(lambda: not far.backend.is_connected)  # type: ignore[attr-defined]
                for number in range(5):
                    two.publish("t.few", f"few {number}")
                for number in range(25):
                    two.publish("t.many", f"many {number}")
                await b.get(30)
                line.mend()
                got = await a.get(15)
                assert [m for m in got if "few" in m] == [f"few {n}" for n in range(5)]
                assert [m for m in got if "many" in m] == [
                    f"many {n}" for n in range(15, 25)
                ]
                await until(lambda: far.backend.is_connected)  # type: ignore[attr-defined]
                two.publish("t.few", "after")
                assert await a.get() == await b.get() == "after"
            (gap,) = gaps
            assert (gap.topic, gap.first, gap.last) == ("t.many", 2, 16)

    go(main())


@with_redis
def test_redis_that_has_forgotten(tmp_path: Path) -> None:
    """After a restart without its data the counts begin anew, and that is told."""
    gaps: list[Gap] = []

    async def main(broker: Broker) -> None:
        topics = topics_on(broker.url, history=10, on_gap=gaps.append, timeout=2)
        async with served(late, topics=topics) as (server, a):
            await a.ws.send("t 5")
            assert await a.get() == "ok"
            for number in range(3):
                server.publish("t", str(number))
            before = await a.get(3)
            assert numbers_of(before) == [1, 2, 3]
            await in_thread(broker.kill)
            await until(lambda: not topics.backend.is_connected)  # type: ignore[attr-defined]
            await in_thread(broker.start)
            await until(lambda: topics.backend.is_connected)  # type: ignore[attr-defined]
            server.publish("t", "new")
            after = await a.get()
            while "\nnew" not in after:
                after = await a.get()
            epochs = {m.split(" ")[1].split(":")[0] for m in (before[0], after)}
            assert len(epochs) == 2

    with running("redis", tmp_path) as broker:
        go(main(broker))
    assert [(gap.topic, gap.first, gap.last) for gap in gaps] == [("t", 4, None)]


@with_redis
def test_redis_that_keeps_its_data(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        topics = topics_on(broker.url, history=10, timeout=2)
        async with served(late, topics=topics) as (server, a):
            await a.ws.send("t")
            assert await a.get() == "ok"
            server.publish("t", "1")
            assert numbers_of([await a.get()]) == [1]
            await in_thread(broker.kill)
            await until(lambda: not topics.backend.is_connected)  # type: ignore[attr-defined]
            await in_thread(broker.start)
            await until(lambda: topics.backend.is_connected)  # type: ignore[attr-defined]
            server.publish("t", "2")
            assert numbers_of([await a.get()]) == [2]  # no gap, the same count

    arguments = ("--appendonly", "yes", "--appendfsync", "always")
    with running("redis", tmp_path, *arguments) as broker:
        go(main(broker))


@with_redis
def test_redis_that_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It refuses: this process goes on, and says so; with room again, so do all."""

    async def main(broker: Broker) -> None:
        options = {"prefix": prefix(), "history": 1000}
        async with several(broker, **options) as ((one, a), (_, b)):
            for client in (a, b):
                await client.ask("t.**")
            sent = 0
            while not one.topics.backend.unsent:
                one.publish(f"t.{sent}", f"{sent} " + "." * 20_000)
                sent += 1
                await a.get()
                assert sent < 5000
            client = redis_client(broker)
            assert one.topics.backend.is_connected
            got = [int((await b.get()).split()[0]) for _ in range(sent - 1)]
            assert got == list(range(sent - 1))  # all but the one that was refused
            await client.flushall()
            await client.aclose()
            one.publish("t.x", "again")
            assert await a.get() == await b.get() == "again"

    arguments = ("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with running("redis", tmp_path, *arguments) as broker:
        go(main(broker))
    assert "refused a message of 2000" in caplog.text


@with_redis
def test_redis_that_evicts(tmp_path: Path) -> None:
    """It throws away what is old: nothing is refused, and that is told, too."""
    gaps: list[Gap] = []

    async def main(broker: Broker) -> None:
        name = prefix()
        topics = topics_on(broker.url, prefix=name, history=100, on_gap=gaps.append)
        client = redis_client(broker)
        async with served(late, topics=topics) as (server, a):
            await a.ws.send("t.**")
            assert await a.get() == "ok"
            server.publish("t.old", "1")
            first = await a.get()
            assert numbers_of([first]) == [1]
            sent = 0
            while await client.exists(f"{name}:n:t.old"):
                server.publish(f"t.{sent}", "." * 20_000)
                await a.get()
                sent += 1
                assert sent < 5000
            server.publish("t.old", "2")
            second = await a.get()
            # It is the first of another count.
            assert numbers_of([second]) == [1]
            assert first.split(":")[0] != second.split(":")[0]
            assert topics.backend.unsent == 0  # type: ignore[attr-defined]
        await client.aclose()

    arguments = ("--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru")
    with running("redis", tmp_path, *arguments) as broker:
        go(main(broker))
    assert [(gap.topic, gap.first, gap.last) for gap in gaps] == [("t.old", 2, None)]


def test_redis_forgets_what_nobody_needs(redis_server: Broker) -> None:
    async def main() -> None:
        name = prefix()
        options = {"prefix": name, "history": 3, "expire": 1}
        client = redis_client(redis_server)
        topics = topics_on(redis_server.url, **options)
        async with served(topics=topics) as (server, a):
            for pattern in ("t.x", "t.*", "t.**"):
                await a.ask(pattern)
            server.publish("t.x", "1")
            server.publish("t.x", "." * 100)
            await a.get(2)
            assert await client.exists(f"{name}:n:t.x", f"{name}:s:t.x") == 2
            channels = await client.pubsub_channels(f"{name}:*")
            assert f"{name}:c:t.x".encode() in channels
            globs = await client.pubsub_numpat()
            for pattern in ("t.x", "t.*", "t.**"):
                await a.ask(f"-{pattern}")
            await until(lambda: not topics.backend._changes)  # type: ignore[attr-defined]
            for _ in range(1000):
                if await client.pubsub_numpat() == globs - 2:
                    break
                await asyncio.sleep(0.01)
            assert await client.pubsub_numpat() == globs - 2
            channels = await client.pubsub_channels(f"{name}:c:*")
            assert channels == []
            await asyncio.sleep(1)  # the server's own clock decides
            for _ in range(1000):
                if not await client.exists(f"{name}:n:t.x", f"{name}:s:t.x"):
                    break
                await asyncio.sleep(0.01)
            assert await topics.backend.kept("**", 5, {}) == []
            assert await client.exists(f"{name}:topics:") == 0
        await client.aclose()

    go(main())


def test_messages_too_long_to_keep_on_redis(redis_server: Broker) -> None:
    async def main() -> None:
        options = {"prefix": prefix(), "history": 5, "history_bytes": 100}
        topics = topics_on(redis_server.url, **options)
        async with served(topics=topics) as (server, a):
            await a.ask("t")
            server.publish("t", "." * 101)
            server.publish("t", "." * 100)
            await a.get(2)
            kept = await topics.backend.kept("t", 5, {})
            assert [item.position.number for item in kept] == [2]

    go(main())


def test_others_on_the_channels_of_redis(
    redis_server: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        name = prefix()
        client = redis_client(redis_server)
        async with served(topics=topics_on(redis_server.url, prefix=name)) as (
            server,
            a,
        ):
            await a.ask("t")
            for wrong in (
                b"", b"hello", b"\n", b"1 2 3 4 5 6\n", b"1 x o 1 t -\nx",
                b"1 2 o 1 t -\n\xff", b"\xff 2 o 1 t -\nx",
            ):  # fmt: skip
                await client.publish(f"{name}:c:t", wrong)
            server.publish("t", "good")
            assert await a.get() == "good"
        await client.aclose()

    go(main())
    assert caplog.text.count("not a message of ours") == 7


def test_script_that_redis_has_forgotten(redis_server: Broker) -> None:
    async def main() -> None:
        client = redis_client(redis_server)
        async with several(redis_server, 1) as ((one, a),):
            await a.ask("t")
            await client.script_flush()
            one.publish("t", "1")
            assert await a.get() == "1"
            await until(lambda: one.topics.backend.is_connected)
            one.publish("t", "2")
            assert await a.get() == "2"
        await client.aclose()

    go(main())


# -- NATS ------------------------------------------------------------------------------


@with_nats
def test_message_that_nats_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("max_payload: 1000\n")

    async def main(broker: Broker) -> None:
        async with several(broker) as ((one, a), (_, b)):
            for client in (a, b):
                await client.ask("t")
            one.publish("t", "." * 2000)
            one.publish("t", "small")
            assert await a.get(2) == ["." * 2000, "small"]
            assert await b.get() == "small"
            assert one.topics.backend.unsent == 1
            assert one.topics.backend.is_connected

    with running("nats", tmp_path, "-c", str(config)) as broker:
        go(main(broker))
    assert "refused a message of 2000 bytes: MaxPayloadError" in caplog.text


@with_nats
def test_kept_on_nats_is_kept_here(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        topics = topics_on(broker.url, history=3)
        async with served(late, 2, topics=topics) as (server, a, b):
            await a.ws.send("t")
            assert await a.get() == "ok"
            for number in range(5):
                server.publish("t", str(number))
            assert numbers_of(await a.get(5)) == [1, 2, 3, 4, 5]
            await b.ws.send("t 2")
            assert numbers_of([m for m in await b.get(3) if m != "ok"]) == [4, 5]
            assert len(topics.history("t")) == 3

    with running("nats", tmp_path) as broker:
        go(main(broker))
