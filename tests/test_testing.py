"""Help for tests: connections in memory, a fake clock, recordings, the plugin."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from scripted import LOOPBACK, Run, loop_fixture

import websock
from websock.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websock.hub import Hub
from websock.testing import (
    Entry,
    FakeClockLoop,
    Faults,
    Recording,
    ReplayMismatch,
    memory_pair,
    memory_server,
    record,
    replay,
    run_with_fake_clock,
)

run = loop_fixture()


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


# -- connections in memory -----------------------------------------------------------


def test_pair(run: Run) -> None:
    async def main() -> None:
        async with memory_pair() as (client, server):
            for message in ("text ☺", b"bytes", "x" * 1_000_000, ""):
                await client.send(message)
                assert await server.recv() == message
                await server.send(message)
                assert await client.recv() == message
            assert await (await client.ping()) > 0
            assert [type(e).__name__ for e in client.protocol.extensions] == [
                "PerMessageDeflate"
            ]
        assert (client.close_code, server.close_code) == (1000, 1000)

    run(main())


def test_server_in_memory(run: Run) -> None:
    async def main() -> None:
        def refuse(ws: Any, request: Any) -> Any:
            return ws.respond(403, "no") if request.path == "/no" else None

        async with memory_server(
            echo, process_request=refuse, subprotocols=["chat"]
        ) as server:
            client, other = await server.connect(
                "ws://example.com/yes", subprotocols=["chat"]
            )
            assert client.subprotocol == "chat"
            assert other.request.headers["Host"] == "example.com"
            assert len(server.server.connections) == 1
            await client.send("hello")
            assert await client.recv() == "hello"
            await client.close()
            with pytest.raises(InvalidStatus):
                await server.connect("ws://example.com/no", subprotocols=["chat"])
            assert server.server.stats().connections_total == 1
            client, _ = await server.connect(subprotocols=["chat"])
            server.server.close()
            with pytest.raises(ConnectionClosedOK):
                await client.recv()
            with pytest.raises(ConnectionRefusedError):
                await server.connect()

    run(main())


async def room(ws: Any) -> None:
    await ws.subscribe("room")
    await ws.send("in")
    async for message in ws:
        ws.server.publish("room", message)


def test_topics_in_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a worker of a hub, of which a test is to know nothing."""

    async def main(**options: Any) -> None:
        async with (
            memory_server(room, **options) as server,
            memory_server(room) as other,
        ):
            (a, _), (b, _) = [await server.connect() for _ in range(2)]
            c, _ = await other.connect()
            for client in (a, b, c):
                assert await client.recv() == "in"
            await a.send("hello")
            assert [await client.recv() for client in (a, b)] == ["hello"] * 2
            other.server.publish("room", "elsewhere")
            assert await c.recv() == "elsewhere"
            for client in (a, b, c):
                await client.close()

    monkeypatch.setenv("WEBSOCK_HUB", "local:///nowhere/hub.sock")
    run(main())
    run(main(topics=websock.topics.Topics("memory://", history=1)))


def test_topics_of_a_hub_in_memory(run: Run) -> None:
    """What carries topics is real, if it is asked for."""

    async def main() -> None:
        async with Hub() as hub:
            options = {"topics": hub.address}
            async with (
                memory_server(room, **options) as server,
                memory_server(room, **options) as other,
            ):
                (a, _), (b, _) = await server.connect(), await other.connect()
                for client in (a, b):
                    assert await client.recv() == "in"
                await a.send("hello")
                assert await b.recv() == "hello"
                for client in (a, b):
                    await client.close()
        with pytest.raises(websock.topics.BrokerError, match="cannot reach the broker"):
            await memory_server(room, topics="local:///nowhere/x").__aenter__()

    run(main())


def test_back_pressure_in_memory(run: Run) -> None:
    async def main() -> None:
        async with memory_pair(compression=None, server_options={"max_queue": 2}) as (
            client,
            server,
        ):
            sent = 0

            async def flood() -> None:
                nonlocal sent
                for number in range(300):
                    await client.send(b"%06d" % number * 500)
                    sent += 1

            flooding = asyncio.create_task(flood())
            for _ in range(2000):
                await asyncio.sleep(0)
            assert sent < 100
            for number in range(300):
                assert await server.recv() == b"%06d" % number * 500
            await flooding

    run(main())


@pytest.mark.parametrize("split", [1, 2, 7])
def test_split(run: Run, split: int) -> None:
    async def main() -> None:
        async with memory_pair(
            to_server=Faults(split=split), to_client=Faults(split=split)
        ) as (client, server):
            for message in ("☺" * 50, bytes(range(256))):
                await client.send(message)
                assert await server.recv() == message
                await server.send(message)
                assert await client.recv() == message

    run(main())


def test_corrupt(run: Run) -> None:
    async def main() -> None:
        async with memory_pair(compression=None) as pair:
            client, server = pair
            pair.to_client.corrupt = lambda data: b"\x83" + data[1:]
            await server.send("hello")
            with pytest.raises(ConnectionClosedError) as caught:
                await client.recv()
            assert caught.value.sent is not None
            assert caught.value.sent.code == 1002
            pair.to_client.corrupt = None

    run(main())


def test_reset(run: Run) -> None:
    async def main() -> None:
        async with memory_pair() as pair:
            pair.reset()
            for end in pair:
                with pytest.raises(ConnectionClosedError) as caught:
                    await end.recv()
                assert isinstance(caught.value.__cause__, ConnectionResetError)
        async with memory_pair(compression=None) as pair:
            pair.to_server.reset_after = 100_000
            await pair.client.send(b"x" * 50)
            assert await pair.server.recv() == b"x" * 50
            pair.client.send_nowait(b"x" * 100_000)
            for end in pair:
                with pytest.raises(ConnectionClosedError):
                    await end.recv()

    run(main())


def test_abort(run: Run) -> None:
    async def main() -> None:
        async with memory_pair() as (client, server):
            client.transport.abort()
            with pytest.raises(ConnectionClosedError):
                await server.recv()
            assert client.transport.get_extra_info("peername") is None

    run(main())


# -- the clock -----------------------------------------------------------------------


def test_time_flies() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        order = []
        loop.call_later(20, order.append, 20)
        loop.call_later(10, order.append, 10)
        began = loop.time()
        await asyncio.sleep(3600)
        assert loop.time() - began == pytest.approx(3600)
        assert order == [10, 20]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1_000_000):
                await asyncio.Event().wait()
        assert isinstance(loop, FakeClockLoop)
        loop.advance(5)
        with pytest.raises(ValueError, match="put back: -1"):
            loop.advance(-1)

    run_with_fake_clock(main())


def test_keepalive_with_the_fake_clock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with memory_pair(ping_interval=20, ping_timeout=20) as pair:
            await asyncio.sleep(1000)
            assert pair.client.is_open
            pair.to_client.drop = True  # nobody is told
            began = loop.time()
            with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
                await pair.client.recv()
            assert 20 <= loop.time() - began <= 51

    run_with_fake_clock(main())


def test_delay_with_the_fake_clock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with memory_pair(to_server=Faults(delay=1.5)) as (client, server):
            began = loop.time()
            await client.send("slow")
            assert await server.recv() == "slow"
            assert loop.time() - began == pytest.approx(1.5)

    run_with_fake_clock(main())


def test_open_timeout_with_the_fake_clock() -> None:
    async def main() -> None:
        async with memory_server(echo, open_timeout=None) as server:
            with pytest.raises(TimeoutError):
                await server.connect(to_server=Faults(drop=True), open_timeout=60)

    run_with_fake_clock(main())


# -- recordings ----------------------------------------------------------------------


async def talk(uri: str) -> list[Any]:
    async with websock.connect(uri, proxy=None) as ws:
        await ws.send("hello ☺")
        await ws.send(b"\0\xff")
        answers: list[Any] = [await ws.recv(), await ws.recv()]
        await ws.close(4000, "done")
        return answers


def test_record_and_replay(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"

    async def main() -> None:
        async with websock.serve(echo, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with record(f"ws://{LOOPBACK}:{port}", proxy=None) as recorder:
                answers = await talk(recorder.url)
        recorder.recording.save(path)
        recording = Recording.load(path)
        assert recording == recorder.recording
        assert [e for e in recording.entries if e.sender == "client"] == [
            Entry("client", "hello ☺"),
            Entry("client", b"\0\xff"),
            Entry("client", None, 4000, "done"),
        ]
        assert all(entry.time >= 0 for entry in recording.entries)
        async with replay(recording) as replayed:
            assert await talk(replayed.url) == answers
            assert await talk(replayed.url) == answers

    run(main())


def test_replay_of_a_server_that_closes(run: Run) -> None:
    async def main() -> None:
        async with replay(
            [Entry("server", "bye"), Entry("server", None, 4001, "enough")]
        ) as replayed:
            async with websock.connect(replayed.url, proxy=None) as ws:
                assert await ws.recv() == "bye"
                with pytest.raises(ConnectionClosedError):
                    await ws.recv()
                assert (ws.close_code, ws.close_reason) == (4001, "enough")

    run(main())


def test_mismatches(run: Run) -> None:
    entries = [Entry("client", "x" * 200), Entry("client", None, 1000)]

    async def say(message: Any, code: int) -> None:
        async with replay(entries) as replayed:
            async with websock.connect(replayed.url, proxy=None) as ws:
                if message:
                    await ws.send(message)
                await ws.close(code)

    async def main() -> None:
        await say("x" * 200, 1000)
        for message, code, text in (
            ("y", 1000, r"entry 1: expected 'x+\.\.\. \(200\), got 'y'"),
            (None, 1000, r"entry 1: expected 'x+\.\.\. \(200\), got the end with 1000"),
            ("x" * 200, 1001, r"entry 2: expected the end with 1000 '', got the end"),
        ):
            with pytest.raises(ReplayMismatch, match=text):
                await say(message, code)

    run(main())


def test_broken_recordings(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    for line in ("{}", "[]", '{"sender": "me"}', "nonsense", '{"sender": "client"}'):
        path.write_text(f"\n{line}\n")
        with pytest.raises(ValueError):
            Recording.load(path)


def test_several_connections(run: Run) -> None:
    async def main() -> None:
        async with websock.serve(echo, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with record(f"ws://{LOOPBACK}:{port}", proxy=None) as recorder:
                with pytest.raises(ValueError, match="0 connections were recorded"):
                    recorder.recording  # noqa: B018
                await talk(recorder.url)
                await talk(recorder.url)
        assert len(recorder.recordings) == 2
        assert recorder.recordings[0] == recorder.recordings[1]

    run(main())


# -- the plugin ----------------------------------------------------------------------

TESTS = """
import asyncio
import pytest
import websock

async def talk(url, *messages):
    async with websock.connect(url, proxy=None) as ws:
        for message in messages:
            await ws.send(message)
        return [await ws.recv() for _ in messages]

def test_echo(ws_server):
    server = ws_server()
    assert asyncio.run(talk(server.url, "a", b"b")) == ["a", b"b"]
    assert server.received == ["a", b"b"]

def test_handler(ws_server):
    async def shout(ws):
        async for message in ws:
            await ws.send(message.upper())
    first, second = ws_server(shout), ws_server(shout, subprotocols=None)
    assert asyncio.run(talk(first.url, "a")) == ["A"]
    assert asyncio.run(talk(second.url, "b")) == ["B"]
    second.stop()
    with pytest.raises(OSError):
        asyncio.run(talk(second.url, "b"))

def test_wrong_options(ws_server):
    with pytest.raises(ValueError):
        ws_server(compression="none")

def test_pair(ws_pair):
    async def main():
        async with ws_pair() as (client, server):
            await client.send("hello")
            assert await server.recv() == "hello"
    asyncio.run(main())
"""


def test_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    done = subprocess.run(
        [
            sys.executable,
            *("-P", "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "websock.testing.plugin", str(tmp_path)),
        ],
        cwd=tmp_path,
        # Where it is installed it is loaded by itself, under another name.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
