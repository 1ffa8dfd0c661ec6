"""The hub of this machine: who is let in, what it carries, what it refuses, limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hub.running import SECRET, go
from linked import LOOPS
from scripted import LOOPBACK
from subscribers import Relay, handler, served, until

import websock
from websock.hub import Hub, HubClient
from websock.hub.address import Address
from websock.hub.wire import COUNT, MAX_CHANNEL, Kind, lines_of, pack, places_of, unpack
from websock.topics import BrokerError, Gap, Position, Topics

has_unix = pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
KINDS = [
    pytest.param(None, id="unix", marks=has_unix),
    pytest.param(f"local://{LOOPBACK}", id="tcp"),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """Where the hub listens: a unix socket, and TCP as where there are none."""
    return request.param


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="hub-") as name:
        yield Path(name).resolve()


@contextlib.asynccontextmanager
async def several(
    hub: Hub, count: int = 2, handler: Any = handler, clients: int = 1, **options: Any
) -> AsyncIterator[list[Any]]:
    """Run servers that stand for workers, each with a client."""
    options.setdefault("prefix", "t")  # in channels, as tests of the wire name them
    options.setdefault("timeout", 20)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                served(handler, clients, topics=Topics(hub.address, **options))
            )
            for _ in range(count)
        ]


# -- what it carries -------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_across_servers(kind: Any, loop: str) -> None:
    async def main() -> None:
        async with Hub(kind) as hub, several(hub, 3) as servers:
            (one, a), (two, b), (three, c) = servers
            assert len(hub.workers) == 3
            assert await a.ask("prices.eur") == "ok"
            assert await b.ask("prices.*") == "ok"
            assert await c.ask("**") == "ok"
            assert one.publish("prices.eur", "1.08") is None
            assert await a.get() == await b.get() == await c.get() == "1.08"
            three.publish("prices.usd", b"\x00\xff")
            assert await b.get() == await c.get() == b"\x00\xff"
            two.publish("prices", websock.prepare("x" * 300_000))
            assert await c.get() == "x" * 300_000
            assert await a.ask("-prices.eur") == "True"
            one.publish("prices.eur", "1.09")
            assert await b.get() == await c.get() == "1.09"
            assert await a.ask("prices.eur") == "ok"
            two.publish("prices.eur", "1.10")
            assert await a.get() == "1.10"

    go(main(), loop)


def test_what_goes_with_a_message(kind: Any) -> None:
    async def main() -> None:
        got: list[Any] = []
        async with Hub(kind) as hub, several(hub) as ((one, a), (two, _)):
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


def test_kept() -> None:
    """What one worker has published is kept for clients of another one."""

    async def main() -> None:
        async with Hub() as hub, several(hub, 2, late, 3, history=5) as servers:
            (one, a, *_), (two, b, c, d) = servers
            await a.ws.send("**")
            assert await a.get() == "ok"
            for number in range(8):
                one.publish("t.x", f"x{number}")
            one.publish("t.y", "y0")
            await a.get(9)
            await b.ws.send("t.x 3")
            got = await b.get(4)
            assert [m.split("\n")[-1] for m in got] == ["x5", "x6", "x7", "ok"]
            assert numbers_of(got[:3]) == [6, 7, 8]
            place = got[1].split("\n")[0].split(" ")[1]
            await c.ws.send("t.* 9")
            got = await c.get(7)
            assert [m.split("\n")[-1] for m in got[:6]] == [
                *(f"x{n}" for n in range(3, 8)),
                "y0",
            ]
            await d.ws.send(f"t.x  {place}")
            assert numbers_of((await d.get(2))[:1]) == [8]
            two.publish("t.x", "x8")
            assert numbers_of([await x.get() for x in (b, c, d)]) == [9, 9, 9]
            # A count of another time.
            await d.ws.send("t.x  123:7")
            assert numbers_of((await d.get(6))[:5]) == [5, 6, 7, 8, 9]
            await d.ws.send("none.* 5")
            assert await d.get() == "ok"

    go(main())


def test_kept_and_live() -> None:
    """Whoever comes in the middle of a stream gets it from there on, once, in order."""

    async def main() -> None:
        async with (
            Hub() as hub,
            several(hub, 1, clients=0, history=50) as ((one,),),
            several(hub, 1, late, 10, history=50) as ((_, *clients),),
        ):

            async def stream() -> None:
                for number in range(800):
                    one.publish("t", str(number))
                    if number % 10 == 0:
                        await asyncio.sleep(0)

            streaming = asyncio.create_task(stream())
            for client in clients:
                await client.ws.send("t 10")
                await asyncio.sleep(0)
            await streaming
            one.publish("t", "end")
            for client in clients:
                seen: list[str] = []
                while not seen or not seen[-1].endswith("\nend"):
                    message = await client.get()
                    if message != "ok":
                        seen.append(message)
                numbers = numbers_of(seen)
                assert numbers == list(range(numbers[0], 802))

    go(main())


def test_history_has_limits() -> None:
    async def main() -> None:
        async with (
            Hub(history_bytes=1500, max_topics=2) as hub,
            several(hub, 1, late, history=5, history_bytes=400) as ((server, a),),
        ):
            await a.ws.send("**")
            assert await a.get() == "ok"
            for number in range(4):
                server.publish("t.x", f"{number} ".ljust(300, "."))
            server.publish("t.x", "." * 401)  # the server keeps no such messages
            server.publish("t.y", "y" * 300)
            await a.get(6)
            await a.ws.send("t.* 9")
            assert numbers_of((await a.get(5))[:4]) == [2, 3, 4, 1]
            server.publish("t.z", "z")  # one topic too many: of x the count begins anew
            server.publish("t.x", "x")
            await a.get(2)
            await a.ws.send("t.* 9")
            assert numbers_of((await a.get(3))[:2]) == [1, 1]

    go(main())


def test_stopping_sends_what_waits() -> None:
    async def main() -> None:
        class Leaving(websock.Listener):
            def on_close(self, ws: Any, code: int, reason: str) -> None:
                for number in range(600):
                    ws.server.publish("t", str(number))

        async with Hub() as hub, several(hub, 1) as ((_, a),):
            await a.ask("t")
            async with several(hub, 1, Leaving):
                pass
            assert await a.get(600) == [str(number) for number in range(600)]
            await until(lambda: len(hub.workers) == 1)

    go(main())


# -- which hub, and whose topics -------------------------------------------------------


def test_programs_run_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hub in the environment it is the default; the n-th servers go together."""

    async def main() -> None:
        async with Hub() as hub, contextlib.AsyncExitStack() as stack:
            monkeypatch.setenv("WEBSOCK_HUB", hub.address)
            made = [await stack.enter_async_context(served()) for _ in range(2)]
            named = await stack.enter_async_context(served(topics=Topics(prefix="n")))
            same = await stack.enter_async_context(served(topics=Topics(prefix="n")))
            alone = await stack.enter_async_context(served(topics="memory://"))
            # Another process, which begins anew, is another loop here: in a thread.
            loop = asyncio.get_running_loop()
            ready: Any = loop.create_future()

            async def elsewhere() -> None:
                over = asyncio.Event()
                async with served(clients=0) as (first,), served(clients=0) as (two,):
                    here = asyncio.get_running_loop()
                    end = (here, over, first, two)
                    loop.call_soon_threadsafe(ready.set_result, end)
                    await over.wait()

            running = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
            there, over, first, second = await ready
            for _, client in (*made, named, same, alone):
                await client.ask("t")
            first.publish("t", "first")
            second.publish("t", "second")
            assert await made[0][1].get() == "first"
            assert await made[1][1].get() == "second"
            made[0][0].publish("t", "only the first")
            alone[0].publish("t", "alone")
            named[0].publish("t", "named")
            assert await named[1].get() == await same[1].get() == "named"
            assert await made[0][1].get() == "only the first"
            assert await alone[1].get() == "alone"
            assert type(alone[0].topics.backend).__name__ == "MemoryBackend"
            there.call_soon_threadsafe(over.set)
            await running

    go(main())


def test_without_a_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("WEBSOCK_HUB", raising=False)
    assert type(Topics(prefix="x", timeout=2).backend).__name__ == "MemoryBackend"
    with pytest.raises(TypeError, match="argument 'color': memory:// has no"):
        Topics(color=2)

    async def main() -> None:
        with pytest.raises(BrokerError, match="WEBSOCK_HUB is not set"):
            await Topics("local://").start()
        monkeypatch.setenv("WEBSOCK_HUB", f"redis://:{SECRET}@localhost")
        with pytest.raises(BrokerError, match="WEBSOCK_HUB is wrong: ") as wrong:
            await Topics("local://").start()
        assert SECRET not in str(wrong.value)
        topics = Topics(f"local://:{SECRET}@localhost{folder}/none.sock")
        with pytest.raises(BrokerError) as caught:
            await topics.start()
        text = str(caught.value)
        assert text.startswith("cannot reach the broker at local://: ")
        assert SECRET not in text
        assert str(folder) not in text

    go(main())


def test_wrong_urls_and_options() -> None:
    for url, text in (
        ("local://10.0.0.1:80", "its host must be a loopback"),
        (f"local://:{SECRET}@example.com/x", "its host must be a loopback"),
        ("local://localhost:port", "has a wrong port"),
        ("local://localhost:1/x", "a path or a port, not both"),
        ("local:///x?y", "neither a query nor a fragment"),
        ("local:///x%00y", "has a NUL"),
        ("http://localhost", "begins with local://"),
    ):
        with pytest.raises(ValueError, match=text) as caught:
            Hub(url)
        assert SECRET not in str(caught.value)
    for name in ("max_size", "max_pending", "max_topics", "max_subscriptions"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            Hub(**{name: 0})
    with pytest.raises(ValueError, match="history_bytes must be at least 0, not -1"):
        Hub(history_bytes=-1)
    with pytest.raises(ValueError, match="prefix must be letters"):
        Topics("local:///x", prefix="a.b")
    with pytest.raises(RuntimeError, match="it has no address"):
        _ = Hub().address


@pytest.mark.parametrize(
    "address",
    [
        Address("/a/b c/hub.sock", secret="s:@/% é"),
        Address(None, "127.0.0.1", 99, "secret"),
        Address(None, "::1", 99, "secret"),
    ],
    ids=["unix", "tcp", "IPv6"],
)
def test_addresses(address: Address) -> None:
    found = Address.parse(address.url)
    assert (found.path, found.secret) == (address.path, address.secret)
    assert (found.host, found.port) == (address.host, address.port)
    assert address.secret not in repr(address)


# -- who is let in ---------------------------------------------------------------------


@has_unix
def test_directory() -> None:
    async def main() -> None:
        async with Hub() as hub:
            path = Path(Address.parse(hub.address).path or "")
            assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
            assert stat.S_ISSOCK(os.stat(path).st_mode)
            with pytest.raises(RuntimeError, match="runs already"):
                await hub.start()
        assert not path.parent.exists()

    go(main())


@has_unix
def test_path_too_long(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    deep = folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    async def main() -> None:
        async with Hub() as hub, several(hub) as ((one, _), (_, b)):
            assert Address.parse(hub.address).path is None
            await b.ask("t")
            one.publish("t", "x")
            assert await b.get() == "x"

    go(main())
    assert list(deep.iterdir()) == []


def where(hub: Hub, secret: str | None) -> dict[str, Any]:
    """Return how a client of the test's own connects."""
    address = Address.parse(hub.address)
    user = "" if secret is None else f"hub:{secret}@"
    options: dict[str, Any] = {"uri": f"ws://{user}localhost/", "compression": None}
    if address.path is not None:
        return {**options, "unix": True, "path": address.path}
    return {**options, "host": address.host, "port": address.port}


def secret_of(hub: Hub) -> str:
    return Address.parse(hub.address).secret


def test_secret(kind: Any) -> None:
    async def main() -> None:
        async with Hub(kind) as hub:
            assert len(secret_of(hub)) >= 32
            for wrong in (None, "", "wrong", secret_of(hub)[:-1]):
                with pytest.raises(websock.InvalidStatus) as caught:
                    await websock.connect(**where(hub, wrong))
                assert caught.value.response.status_code == 401
            with pytest.raises(websock.InvalidStatus) as caught:
                await websock.connect(
                    **where(hub, secret_of(hub)), origin="http://localhost"
                )
            assert caught.value.response.status_code == 403
            assert not hub.workers
            address = Address.parse(hub.address)
            other = Address(address.path, address.host, address.port, "wrong")
            with pytest.raises(BrokerError, match="HTTP 401"):
                await Topics(other.url).start()

    go(main())


def test_nothing_secret_is_shown(
    kind: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    hidden: list[str] = []
    secret = "s:3@c/r%20é t"

    async def main() -> None:
        path = None if kind else f"{folder}/hub.sock"
        hub = Hub(Address(path, secret=secret).url)
        await hub.start()
        address = Address.parse(hub.address)
        hidden.extend([address.secret, quote(address.secret, safe="")])
        hidden.append(address.path or f"{address.host}:")
        if address.path is None:
            hidden.append(str(address.port))
        async with several(hub, 1, timeout=2) as ((server, a),):
            await a.ask("t")
            server.publish("t", "x")
            assert await a.get() == "x"
            backend = server.topics.backend
            shown.extend([repr(backend), repr(hub)])
            with pytest.raises(websock.InvalidStatus):
                await websock.connect(**where(hub, "wr0ng"), logger=quiet())
            again = Hub(address.url)
            await hub.stop()
            await until(lambda: not backend.is_connected)
            await until(lambda: "still away" in caplog.text)
            await again.start()
            await until(lambda: backend.is_connected)
            await again.stop()

    go(main())
    # Servers that clients connect to say where they listen; a hub does not.
    others = ("websock.server", "websock.client", "asyncio")
    lines = [record for record in caplog.records if record.name not in others]
    text = "\n".join([*shown, *(record.getMessage() for record in lines)])
    assert "lost the broker at local://" in text
    assert "is back after" in text
    for secret in hidden:
        assert secret not in text
    assert not any(text in caplog.text for text in hidden[:2])


def quiet() -> logging.Logger:
    logger = logging.getLogger("quiet")
    logger.setLevel(logging.CRITICAL)
    return logger


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("text", id="text"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02\xff\xff", id="cut short"),
        pytest.param(b"\xff\x00\x00", id="unknown kind"),
        pytest.param(pack(Kind.MESSAGE, b"t.x", b"e 1 x"), id="kind of the hub's"),
        pytest.param(pack(Kind.PUBLISH, b"t.x", b"\0\0\0"), id="publication cut short"),
        pytest.param(pack(Kind.PUBLISH, b"t.*", COUNT.pack(0)), id="pattern"),
        pytest.param(pack(Kind.PUBLISH, b"t", COUNT.pack(0)), id="no topic"),
        pytest.param(pack(Kind.PUBLISH, b"*.x", COUNT.pack(0)), id="no prefix"),
        pytest.param(pack(Kind.PUBLISH, b"t.\xff", COUNT.pack(0)), id="not UTF-8"),
        pytest.param(pack(Kind.SUBSCRIBE, b"**"), id="everything"),
        pytest.param(pack(Kind.SUBSCRIBE, b"t..x"), id="bad pattern"),
        pytest.param(pack(Kind.SYNC, b"", b"x" * 21), id="long token"),
        pytest.param(pack(Kind.SYNC, b"", b"\n"), id="bad token"),
        pytest.param(pack(Kind.READ, b"t.x", b"1 x"), id="bad number"),
        pytest.param(pack(Kind.READ, b"t.x", b"1 " + b"9" * 5000), id="long number"),
        pytest.param(pack(Kind.READ, b"t.x", b"1 -\nt.x"), id="no position"),
        pytest.param(pack(Kind.READ, b"t.x", b"1 -\nt.x e:-1"), id="bad position"),
        pytest.param(pack(Kind.READ, b"", b"1 -\n** e:1"), id="bad channel"),
        pytest.param(
            pack(Kind.PUBLISH, b"t.x", COUNT.pack(0), bytes(3000)), id="too big"
        ),
    ],
)
def test_junk(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Who says it is cut off, with a line that has nothing of it; others go on."""

    async def main() -> None:
        async with (
            Hub(max_size=1000) as hub,
            several(hub, 1) as ((server, a),),
            websock.connect(**where(hub, secret_of(hub))) as ws,
        ):
            kind, _, size = unpack(await ws.recv())
            assert (kind, size) == (Kind.HELLO, b"1000")
            await ws.send(said)
            with pytest.raises(websock.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1008
            assert caught.value.rcvd.reason == "not what a hub is told"
            await a.ask("t")
            server.publish("t", "goes on")
            assert await a.get() == "goes on"
            await until(lambda: len(hub.workers) == 1)

    go(main())
    lines = [r.getMessage() for r in caplog.records if r.name == "websock.hub"]
    assert lines == [
        "worker 2 of the hub said what no worker says: its connection is closed"
    ]


def test_too_much_at_once() -> None:
    """The limits of the library hold before anything is looked at."""

    async def main() -> None:
        async with Hub(max_size=1000) as hub:
            for junk in (b"x" * 2_000_000, b"GET / HTTP/1.1\r\n" + b"a" * 100_000):
                address = Address.parse(hub.address)
                if address.path is not None:
                    opened = asyncio.open_unix_connection(address.path)
                else:
                    opened = asyncio.open_connection(address.host, address.port)
                reader, writer = await opened
                with contextlib.suppress(ConnectionError):
                    writer.write(junk)
                    await writer.drain()
                with contextlib.suppress(ConnectionError):
                    while await reader.read(65536):
                        pass
                writer.close()
            async with websock.connect(**where(hub, secret_of(hub))) as ws:
                await ws.recv()
                ws.send_nowait(bytes(2_000_000))
                with pytest.raises(websock.ConnectionClosedError) as caught:
                    await ws.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1009
            await until(lambda: not hub.workers)

    go(main())


def test_too_many_subscriptions() -> None:
    async def main() -> None:
        async with (
            Hub(max_subscriptions=2) as hub,
            websock.connect(**where(hub, secret_of(hub))) as ws,
        ):
            await ws.recv()
            for name in (b"t.a", b"t.b", b"t.a"):
                await ws.send(pack(Kind.SUBSCRIBE, name))
            await ws.send(pack(Kind.SYNC, b"", b"1"))
            assert unpack(await ws.recv()) == (Kind.SYNC, b"", b"1")
            await ws.send(pack(Kind.LEAVE, b"t.a"))
            await ws.send(pack(Kind.LEAVE, b"t.none"))
            for name in (b"t.c", b"t.d"):
                await ws.send(pack(Kind.SUBSCRIBE, name))
            with pytest.raises(websock.ConnectionClosedError):
                await ws.recv()

    go(main())


# -- what it cannot carry --------------------------------------------------------------


def test_too_big_for_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    """Such messages are for the process's own subscribers; others go on."""

    async def main() -> None:
        async with (
            Hub(max_size=1000) as hub,
            several(hub, max_length=100_000) as ((one, a), (_, b)),
        ):
            for client in (a, b):
                await client.ask("**")
            name = "n" * MAX_CHANNEL
            await a.ask(name)
            one.publish("t", "x" * 1001)
            one.publish("t", "x" * 1000)
            one.publish(name, "long name")
            one.publish("t", "key", key="k" * 2000)
            one.publish("t", "end")
            got = await a.get(5)
            assert [len(m) for m in got] == [1001, 9, 3, 1000, 3]
            assert await b.get(2) == ["x" * 1000, "end"]
            assert one.topics.backend.is_connected
            assert one.topics.backend.unsent == 3
            assert await a.ask(f"-{name}") == "True"

    go(main())
    assert "message is too big: 1001 bytes, limit 1000" in caplog.text
    assert "its names are too long" in caplog.text


def test_slow_worker(caplog: pytest.LogCaptureFixture) -> None:
    """It misses what does not fit, is told, and gets of it what is kept, in order."""
    gaps: list[Gap] = []

    async def main() -> None:
        async with (
            Hub(max_pending=20_000) as hub,
            several(hub, 1, history=8, on_gap=gaps.append) as ((slow, a),),
            several(hub, 1, history=8) as ((quick, b),),
        ):
            for client in (a, b):
                await client.ask("+t.*")
            quick.publish("t.known", "0")
            await a.get()
            await b.get()
            connection: Any = slow.topics.backend._client._ws
            connection.pause_reading()
            slow.publish("t.known", "mine")  # it comes back, and waits
            await b.get()
            count = 0
            (worker,) = [w for w in hub.workers if w.number == 1]
            while not worker._missed_count:
                quick.publish("t.known", f"{count} ".ljust(2000, "."))
                await b.get()
                count += 1
            missed_own = "mine, missed"
            slow.publish("t.known", missed_own)
            quick.publish("t.new", "first")
            for number in range(count, count + 20):
                quick.publish("t.known", f"{number} ".ljust(2000, "."))
            await b.get(22)
            assert worker.ws.buffered_amount < 20_000 + 3000
            connection.resume_reading()
            await until(lambda: slow.topics.backend._holding is None and gaps)
            quick.publish("t.known", "end")
            got: list[str] = []
            while not got or not got[-1].endswith("\nend"):
                got.append(await a.get())
            known = [m for m in got if m.startswith("t.known")]
            texts = [m.split("\n")[1].split(" ")[0].rstrip(",") for m in known]
            # Its own messages come, whatever the hub could not wait with.
            assert texts[0] == "mine"
            assert texts.count("mine") == 2
            numbers = [int(text) for text in texts if text.isdecimal()]
            assert numbers == sorted(set(numbers))
            assert numbers[-8:] == list(range(count + 12, count + 20))
            assert sum(gap.count or 0 for gap in gaps) >= 1
            lost = [gap for gap in gaps if gap.topic == "t.known"]
            # All were published, and what is not there is known; one was its own.
            assert len(numbers) + sum(gap.count or 0 for gap in lost) == count + 21
            new = [m for m in got if m.startswith("t.new")]
            assert len(new) + len([g for g in gaps if g.topic == "t.new"]) == 1

    go(main())
    for text in ("does not read: ", "reads again, and has missed", "too slow for the"):
        assert text in caplog.text, text


def reached(hub: Hub, channel: str) -> int:
    place = hub._history.reached(channel)
    return 0 if place is None else place.number


def test_answers_wait_too() -> None:
    """Who asks and does not read the answers is not read any more."""

    async def main() -> None:
        async with (
            Hub(max_pending=20_000) as hub,
            several(hub, 1, clients=0, history=100) as ((server,),),
            websock.connect(**where(hub, secret_of(hub)), max_size=None) as ws,
        ):
            await ws.recv()
            (worker,) = [w for w in hub.workers if w.number == 2]
            for _ in range(50):
                server.publish("t", "." * 1000)
            await until(lambda: reached(hub, "t.t") == 50)
            ws.pause_reading()
            for number in range(400):
                ws.send_nowait(pack(Kind.READ, b"t.t", lines_of(f"{number} 50")))
            await until(lambda: worker.ws.write_paused)
            server.publish("t", "one more")
            await until(lambda: reached(hub, "t.t") == 51)
            assert worker.ws.buffered_amount < 20_000 * 3
            ws.resume_reading()
            ends = 0
            while ends < 400:
                kind, _, payload = unpack(await ws.recv())
                if kind == Kind.END:
                    assert payload == str(ends).encode()
                    ends += 1

    go(main())


def test_client_that_is_cut_off() -> None:
    """Whoever waits for an answer is told that none comes."""

    async def main() -> None:
        async with Hub(f"local://{LOOPBACK}") as hub:
            address = Address.parse(hub.address)
            async with Relay(address.port) as line:
                there = Address(None, LOOPBACK, line.port, address.secret)
                client = HubClient(there, lambda *_: None, lambda *_: None)
                with pytest.raises(ConnectionError, match="not connected"):
                    client.subscribe("t.x")
                await client.open()
                await client.sync()
                waiting = [
                    asyncio.ensure_future(client.sync()),
                    asyncio.ensure_future(client.read("t.x", 1, {})),
                ]
                await asyncio.sleep(0)
                line.cut()
                for result in await asyncio.gather(*waiting, return_exceptions=True):
                    assert isinstance(result, ConnectionError)
                await client.wait_closed()
                with pytest.raises(websock.ConnectionClosed):
                    client.publish("t.x", 0, b"")
                await client.close()

    go(main())


# -- the messages ----------------------------------------------------------------------


def test_wire() -> None:
    assert unpack(pack(Kind.PUBLISH, b"t.x", b"a", b"b")) == (2, b"t.x", b"ab")
    with pytest.raises(ValueError, match=r"too long: 65536 bytes, limit 65535"):
        pack(Kind.SUBSCRIBE, b"x" * 65_536)
    places = {"t.x": Position("e-1", 5), "t.é": Position("f", 0)}
    assert places_of(lines_of("7 more", places.items())) == ("7 more", places)
    assert places_of(lines_of("7")) == ("7", {})
