"""Topics of one process: who has subscribed to what, and what they get."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from typing import Any

import pytest
from helpers import request
from scripted import Run, loop_fixture, tls_fixture
from subscribers import Subscriber, handler, served, until

import websock
from websock.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websock.topics import Position, TopicLimitError, Topics

run = loop_fixture()
tls = tls_fixture()


# -- subscribing and publishing --------------------------------------------------------


def test_patterns_and_topics(run: Run) -> None:
    async def main() -> None:
        async with served(clients=3) as (server, a, b, c):
            assert await a.ask("prices.eur") == "ok"
            assert await b.ask("prices.*") == "ok"
            assert await c.ask("**") == "ok"
            server.publish("prices.eur", "1.08")
            server.publish("prices.usd", b"\x00\x01")
            server.publish("news", "late")
            assert await a.get() == "1.08"
            assert await b.get(2) == ["1.08", b"\x00\x01"]
            assert await c.get(3) == ["1.08", b"\x00\x01", "late"]
            assert await a.ask("-prices.eur") == "True"
            assert await a.ask("-prices.eur") == "False"
            server.publish("prices.eur", "1.09")
            assert await b.get() == "1.09"
            assert await a.ask("-x") == "False"  # and nothing came before

    run(main())


def test_a_message_comes_once(run: Run) -> None:
    async def main() -> None:
        async with served() as (server, a):
            for pattern in ("a.b", "a.*", "**", "a.b"):
                assert await a.ask(pattern) == "ok"
            server.publish("a.b", "one")
            server.publish("a.b", "two")
            assert await a.get(2) == ["one", "two"]
            for pattern in ("a.b", "a.*"):
                assert await a.ask(f"-{pattern}") == "True"
            server.publish("a.b", "three")
            assert await a.get() == "three"
            assert await a.ask("-**") == "True"
            assert server.subscribers("a.b") == set()

    run(main())


def test_presence(run: Run) -> None:
    async def main() -> None:
        async with served(clients=2) as (server, a, b):
            await a.ask("room.tea")
            await b.ask("room.*")
            await b.ask("+room.tea")
            assert len(server.subscribers("room.tea")) == 2
            assert len(server.subscribers("room.coffee")) == 1
            assert server.subscribers("else") == set()
            assert server.subscribers("room.tea") == server.connections
            with pytest.raises(ValueError, match="which is for patterns"):
                server.subscribers("room.*")

    run(main())


def test_the_end_of_a_connection_takes_it_out(run: Run) -> None:
    async def main() -> None:
        async with served(clients=2) as (server, a, b):
            await a.ask("a.b")
            await a.ask("a.*")
            await b.ask("a.b")
            topics = server.topics
            references = [weakref.ref(ws) for ws in server.connections]
            await a.ws.close()
            await until(lambda: len(server.all_connections) == 1)
            assert len(server.subscribers("a.b")) == 1
            assert list(topics._patterns) == []
            b.ws.transport.abort()
            await until(lambda: not server.all_connections)
            assert not topics._exact
            assert topics._tree.size == 0
            assert server.publish("a.b", "nobody").number == 1

            def are_gone() -> bool:
                gc.collect()
                return all(reference() is None for reference in references)

            await until(are_gone)

    run(main())


def test_from_a_listener(run: Run) -> None:
    class Room(websock.Listener):
        def on_open(self, ws: Any) -> None:
            ws.subscribe("room")

        def on_message(self, ws: Any, message: Any) -> None:
            if message == "leave":
                ws.unsubscribe("room")
            ws.server.publish("room", message)

        def on_close(self, ws: Any, code: int, reason: str) -> None:
            ws.server.publish("room", "somebody left")

    async def main() -> None:
        async with served(Room, clients=3) as (server, a, b, c):
            await until(lambda: len(server.subscribers("room")) == 3)
            await a.ws.send("hello")
            assert [await x.get() for x in (a, b, c)] == ["hello"] * 3
            await b.ws.send("leave")
            assert [await x.get() for x in (a, c)] == ["leave"] * 2
            await c.ws.close()
            assert await a.get() == "somebody left"

    run(main())


def test_order_with_what_is_sent(run: Run) -> None:
    """Published and sent in the same turn, messages keep their order."""

    async def handler(ws: Any) -> None:
        ws.subscribe("t")
        async for _ in ws:
            for number in range(0, 30, 3):
                ws.server.publish("t", str(number))
                await ws.send(str(number + 1))
                ws.send_nowait(str(number + 2))
            ws.server.publish("t", "bye")
            ws.close_nowait()

    async def main() -> None:
        async with served(handler) as (_, a):
            await a.ws.send("go")
            assert [m async for m in a.ws] == [*map(str, range(30)), "bye"]

    run(main())


def test_from_other_threads(run: Run) -> None:
    async def main() -> None:
        async with served() as (server, a):
            await a.ask("t.*")
            failures: list[BaseException] = []

            def publish(thread: int) -> None:
                try:
                    for number in range(200):
                        assert (
                            server.publish(f"t.{thread}", f"{thread} {number}") is None
                        )
                    with pytest.raises(ValueError, match="empty segment"):
                        server.publish("t.", "x")
                    with pytest.raises(TypeError, match="str or bytes-like"):
                        server.publish("t.x", 1)
                    with pytest.raises(RuntimeError, match="in another thread"):
                        server.topics.subscribe(next(iter(server.connections)), "x")
                    with pytest.raises(RuntimeError, match="in another thread"):
                        next(iter(server.connections)).unsubscribe("t.*")
                except BaseException as exc:
                    failures.append(exc)

            threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            got = [m.split() for m in await a.get(800)]
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert failures == []
            for number in range(4):
                mine = [int(n) for who, n in got if who == str(number)]
                assert mine == list(range(200))

    run(main())


def test_publishing_from_a_callback_of_a_connection(run: Run) -> None:
    """What ``on_drop`` publishes comes after the message that was dropped, for all."""

    async def main() -> None:
        def on_drop(ws: Any, count: int) -> None:
            if len(told) < 3:
                told.append(count)
                ws.server.publish("t", f"dropped {len(told)}")

        told: list[int] = []
        slow = websock.SlowConsumer("drop_newest", max_messages=1, on_drop=on_drop)
        async with served(
            clients=2, slow_consumer=slow, write_limit=1000, compression=None
        ) as (server, a, b):
            await b.ask("t")
            await a.ask("t")
            (stuck,) = [
                ws for ws in server.connections
                if ws.remote_address == a.ws.local_address
            ]  # fmt: skip
            a.ws.pause_reading()
            while not (stuck.write_paused and len(stuck.backlog)):
                server.publish("t", "." * 100_000)
                await asyncio.sleep(0)
            server.publish("t", "end")
            got = []
            while not got or got[-1] != "dropped 3":
                got.append(await b.get())
            rest = [m for m in got if len(m) < 100]
            assert rest == ["end", "dropped 1", "dropped 2", "dropped 3"]
            assert told == [1, 1, 1]
            a.ws.resume_reading()

    run(main())


# -- numbers ---------------------------------------------------------------------------


def test_numbered(run: Run) -> None:
    async def main() -> None:
        async with served(clients=2) as (server, a, b):
            await a.ask("+t.*")
            await b.ask("t.x")
            first = server.publish("t.x", "text")
            assert first == Position(first.epoch, 1)
            second = server.publish("t.x", b"bytes")
            other = server.publish("t.y", "")
            assert (second.number, other.number) == (2, 1)
            assert second.epoch == first.epoch != other.epoch
            assert await a.get(3) == [
                f"t.x {first}\ntext",
                f"t.x {second}\n".encode() + b"bytes",
                f"t.y {other}\n",
            ]
            assert await b.get(2) == ["text", b"bytes"]
            # Asked for with one pattern of several, they come.
            await b.ask("+**")
            third = server.publish("t.x", "3")
            assert await b.get() == f"t.x {third}\n3"

    run(main())


# -- one write for each connection -----------------------------------------------------


class Nowhere:
    """Stands for listening sockets: connections are handed over."""

    sockets = ()

    def is_serving(self) -> bool:
        return True

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


@pytest.mark.skipif(
    not hasattr(socket, "SOCK_SEQPACKET") or not hasattr(socket, "AF_UNIX"),
    reason="this system has no Unix sockets that keep writes apart",
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_turn_leaves_in_one_write(run: Run, inside: bool) -> None:
    """Sockets that keep records apart show what is one call of the system."""

    async def handler(ws: Any) -> None:
        ws.subscribe("a.*")
        async for _ in ws:
            publish(ws.server)

    def publish(server: Any) -> None:
        for number in range(50):
            server.publish(f"a.{number % 7}", f"message {number}")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        serving = websock.serve(handler, port=0, ping_interval=None)
        server, factory = serving.make_server(Nowhere())
        peers = []
        async with server:
            for _ in range(5):
                ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                for sock in (ours, peer):
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
                connection = factory(server)
                connection.start(ours)
                server.add_connection(connection)
                await loop.sock_sendall(peer, request())
                answer = await loop.sock_recv(peer, 65536)
                assert answer.startswith(b"HTTP/1.1 101 ")
                peers.append(peer)
            await until(lambda: len(server.subscribers("a.b")) == 5)
            expected = b"".join(
                bytes((0x81, len(text))) + text
                for text in (b"message %d" % number for number in range(50))
            )
            if inside:
                # In a handler, which runs while input is read: written with its end.
                await loop.sock_sendall(peers[0], b"\x81\x80\0\0\0\0")
            else:
                publish(server)
            for peer in peers:
                assert await loop.sock_recv(peer, 65536) == expected
            publish(server)
            for peer in peers:
                assert await loop.sock_recv(peer, 65536) == expected
            for peer in peers:
                peer.close()

    run(main())


def test_framed_and_compressed_once(run: Run) -> None:
    """For any number of subscribers, and of topics that the message goes to."""

    async def main() -> None:
        shared = ServerPerMessageDeflateFactory(
            server_no_context_takeover=True, server_max_window_bits=12
        )
        options = {"compression": None, "extensions": [shared]}
        async with served(clients=6, **options) as (server, *all_):
            port = server.sockets[0].getsockname()[1]
            async with (
                websock.connect(f"ws://127.0.0.1:{port}", compression=None) as one,
                websock.connect(f"ws://127.0.0.1:{port}", compression=None) as two,
            ):
                all_ += [Subscriber(one), Subscriber(two)]
                for each in all_:
                    await each.ask("t.*")
                message = websock.prepare("hello " * 100)
                server.publish("t.a", message)
                frame = message.frame()
                server.publish("t.b", message)
                for each in all_:
                    assert await each.get(2) == ["hello " * 100] * 2
                assert message.frame() is frame
                assert len(message._compressed) == 1
                sent = [ws.stats().bytes_sent for ws in server.connections]
                assert len(set(sent)) == 2  # and both kinds were there

    run(main())


@pytest.mark.parametrize("kind", ["plain", "deflate", "shared", "tls"])
def test_bursts_in_every_kind_of_connection(run: Run, kind: str, tls: Any) -> None:
    options: dict[str, Any] = {"compression": None}
    client: dict[str, Any] = {}
    if kind == "deflate":
        options = {}
    elif kind == "shared":
        shared = ServerPerMessageDeflateFactory(server_no_context_takeover=True)
        options["extensions"] = [shared]
    elif kind == "tls":
        options["ssl"] = tls.server
        client["ssl"] = tls.client

    async def main() -> None:
        async with served(clients=3, client=client, **options) as (server, *all_):
            for one in all_:
                await one.ask("a.*")
            sizes = [1, 100, 5000, 16_384, 70_000, 3]
            wanted = [f"{n}" * size for n, size in enumerate(sizes)]
            for _ in range(2):
                for number, message in enumerate(wanted):
                    server.publish(f"a.{number}", message)
                for one in all_:
                    assert await one.get(len(wanted)) == wanted

    run(main())


# -- slow subscribers ------------------------------------------------------------------


def test_a_slow_subscriber_holds_up_nobody(run: Run) -> None:
    async def main() -> None:
        slow = websock.SlowConsumer("drop_oldest", max_messages=3)
        options = {"compression": None, "write_limit": 10_000, "slow_consumer": slow}
        async with served(clients=3, **options) as (server, a, b, c):
            for one in (a, b, c):
                await one.ask("t")
            (stuck,) = [
                ws for ws in server.connections
                if ws.remote_address == a.ws.local_address
            ]  # fmt: skip
            a.ws.pause_reading()
            count = 0
            message = "." * 50_000
            while not stuck.stats().dropped >= 5:
                server.publish("t", message)
                count += 1
                for one in (b, c):
                    assert await one.get() == message
            assert stuck.buffered_amount < 2 * 60_000
            assert len(stuck.backlog) == 3
            server.publish("t", "newest")
            assert await b.get() == "newest"
            a.ws.resume_reading()
            got = 0
            while await a.get() != "newest":
                got += 1
            assert got == count - stuck.stats().dropped
            others = server.connections - {stuck}
            assert [ws.stats().dropped for ws in others] == [0, 0]

    run(main())


def test_latest_is_by_topic(run: Run) -> None:
    async def main() -> None:
        slow = websock.SlowConsumer("latest", max_messages=10)
        options = {"compression": None, "write_limit": 1000, "slow_consumer": slow}
        async with served(**options) as (server, a):
            await a.ask("t.*")
            (stuck,) = server.connections
            a.ws.pause_reading()
            while not (stuck.write_paused and len(stuck.backlog)):
                server.publish("t.fill", "." * 100_000)
                await asyncio.sleep(0)
            for number in range(5):
                server.publish("t.a", f"a{number}")
                server.publish("t.b", f"b{number}")
                server.publish("t.b", f"other {number}", key="key")
            a.ws.resume_reading()
            got = [m for m in await a.ws.recv_many() if len(m) < 100]
            while "other 4" not in got:
                got += [m for m in await a.ws.recv_many() if len(m) < 100]
            assert got == ["a4", "b4", "other 4"]

    run(main())


def test_a_burst_does_not_make_a_peer_slow(run: Run) -> None:
    """What one turn publishes is far above ``write_limit``: the socket takes it."""

    async def main() -> None:
        slow = websock.SlowConsumer("drop_oldest", max_messages=1)
        options = {"compression": None, "write_limit": 4096, "slow_consumer": slow}
        async with served(**options, client={"max_queue": None}) as (server, a):
            await a.ask("t")
            for number in range(200):
                server.publish("t", f"{number:100}")
            assert [int(m) for m in await a.get(200)] == list(range(200))
            assert server.stats().dropped == 0

    run(main())


# -- limits and mistakes ---------------------------------------------------------------


def test_limits(run: Run) -> None:
    async def main() -> None:
        topics = Topics(max_subscriptions=3, max_topics=4, max_patterns=2, max_length=9)

        async def handler(ws: Any) -> None:
            async for pattern in ws:
                try:
                    ws.subscribe(pattern)
                except (TopicLimitError, ValueError) as exc:
                    await ws.send(str(exc))
                else:
                    await ws.send("ok")

        async with served(handler, clients=3, topics=topics) as (server, a, b, c):
            for pattern in ("a", "b", "c", "a"):
                assert await a.ask(pattern) == "ok"
            assert await a.ask("d") == (
                "too many subscriptions: 4, limit 3 for a connection"
            )
            assert await b.ask("x.*") == "ok"
            assert await b.ask("d") == "ok"
            assert await b.ask("e") == "too many topics subscribed to: 5, limit 4"
            assert await c.ask("y.*") == "ok"
            assert await c.ask("z.*") == "too many patterns subscribed to: 3, limit 2"
            assert await c.ask("0123456789") == "pattern is too long: 10 bytes, limit 9"
            assert await c.ask("a") == "ok"  # somebody has subscribed to it already
            await b.ws.close()
            await until(lambda: len(server.all_connections) == 2)
            assert await c.ask("e") == "ok"

    run(main())


def test_who_can_subscribe(run: Run) -> None:
    async def main() -> None:
        seen: list[str] = []
        closed = asyncio.Event()

        def process_request(ws: Any, request: Any) -> None:
            with pytest.raises(RuntimeError, match="not open yet"):
                ws.subscribe("a")
            seen.append("early")

        async def handler(ws: Any) -> None:
            await ws.wait_closed()
            with pytest.raises(websock.ConnectionClosedOK):
                ws.subscribe("a")
            assert not ws.unsubscribe("a")
            seen.append("late")
            closed.set()

        async with served(handler, process_request=process_request) as (server, a):
            await a.ws.close()
            await closed.wait()
            assert not server.topics._exact
        assert seen == ["early", "late"]

    run(main())


def test_wrong_arguments(run: Run) -> None:
    for wrong, text in (
        ({"history": -1}, "history must be at least 0, not -1"),
        ({"max_subscriptions": 0}, "max_subscriptions must be at least 1, not 0"),
        ({"backend": "memory://x"}, "takes no address"),
        ({"backend": "ftp://user:secret@x"}, "no backend for scheme 'ftp': there are"),
    ):
        with pytest.raises(ValueError, match=text) as caught:
            Topics(**wrong)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="URL or a Backend, not int"):
        Topics(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword"):
        Topics(unknown=1)
    with pytest.raises(TypeError, match="topics must be a URL or Topics, not int"):
        websock.serve(handler, port=0, topics=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no backend"):
        websock.serve(handler, port=0, topics="nothing")
    topics = Topics()
    with pytest.raises(RuntimeError, match="no server has started"):
        topics.publish("a", "x")

    async def main() -> None:
        async with served() as (server, a):
            with pytest.raises(ValueError, match="empty segment"):
                server.publish("a.", "x")
            with pytest.raises(TypeError, match="str or bytes-like, not dict"):
                server.publish("a", {})
            with pytest.raises(TypeError, match="chosen in prepare"):
                server.publish("a", websock.prepare("x"), text=True)
            await a.ask("a")
            server.publish("a", "é", text=False)
            server.publish("a", b"x", text=True)
            server.publish("a", websock.prepare("p"))
            assert await a.get(3) == ["é".encode(), "x", "p"]

    run(main())


def test_topics_of_two_servers(run: Run) -> None:
    topics = Topics()

    async def main() -> None:
        async with served(topics=topics) as (one, a):
            async with served(topics=topics) as (two, b):
                await a.ask("t")
                await b.ask("t")
                two.publish("t", "to both")
                topics.publish("t", "again")
                for x in (a, b):
                    assert await x.get(2) == ["to both", "again"]
                assert len(one.subscribers("t")) == 2
            one.publish("t", "to one")
            assert await a.get() == "to one"
            assert len(one.subscribers("t")) == 1
            with pytest.raises(RuntimeError, match="in another event loop"):
                await asyncio.to_thread(asyncio.run, topics.start())

    run(main())
    run(main())  # in a new loop


def test_publishing_when_the_loop_is_closed(run: Run) -> None:
    servers: list[Any] = []

    async def main() -> None:
        async with served() as (server, _):
            servers.append(server)

    run(main())
    failures: list[str] = []

    def publish() -> None:
        try:
            servers[0].publish("t", "x")
        except RuntimeError as exc:
            failures.append(str(exc))

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()
    assert failures
    assert "closed" in failures[0]
