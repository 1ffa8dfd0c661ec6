"""The client that reconnects."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from scripted import LOOPBACK, Peer, Run, loop_fixture, read_frame, scripted

import websock
from websock import resilient
from websock.asyncio.client import ClientConnection
from websock.asyncio.resilient import MIN_UNCONFIRMED
from websock.exceptions import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidState,
    InvalidStatus,
)

run = loop_fixture()


def at_once() -> Iterator[float]:
    while True:
        yield 0.0


def follow(uri: str, **options: Any) -> websock.Resilient:
    options.setdefault("reconnect_delays", at_once)
    return resilient(uri, proxy=None, compression=None, **options)


class Service:
    """A server that can go away and come back at the same port."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.received: list[Any] = []
        self.arrived = asyncio.Condition()
        self.server: Any = None
        self.port = 0

    @property
    def uri(self) -> str:
        return f"ws://{LOOPBACK}:{self.port}"

    async def handler(self, ws: Any) -> None:
        async for message in ws:
            async with self.arrived:
                self.received.append(message)
                self.arrived.notify_all()
            await ws.send(message)

    async def has(self, *messages: Any) -> None:
        """Wait until these were received, and nothing else."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= len(messages))
        assert self.received == list(messages)

    async def start(self) -> None:
        self.server = await websock.serve(
            self.handler, LOOPBACK, self.port, **self.options
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self, code: int = 1012) -> None:
        self.server.close(code=code)
        await self.server.wait_closed()

    async def __aenter__(self) -> Service:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.stop()


async def gone(ws: websock.Resilient) -> None:
    while ws.is_connected:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def confirmed(ws: websock.Resilient) -> None:
    while ws._unconfirmed:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def back(ws: websock.Resilient, connections: int) -> None:
    while ws.connections < connections:  # noqa: ASYNC110
        await asyncio.sleep(0)


def test_it_comes_back(run: Run) -> None:
    async def main() -> None:
        why: list[Exception] = []
        subscribed: list[int] = []

        async def subscribe(ws: Any) -> None:
            subscribed.append(ws.connections if hasattr(ws, "connections") else 0)
            await ws.send("subscribe")

        async with Service() as service:
            async with follow(
                service.uri, on_connect=subscribe, on_disconnect=why.append
            ) as ws:
                assert ws.is_connected
                assert await ws.recv() == "subscribe"
                await ws.send("one")
                assert await ws.recv() == "one"
                for turn in range(2, 4):
                    await service.stop()
                    await gone(ws)
                    await service.start()
                    await back(ws, turn)
                    assert await ws.recv() == "subscribe"
                    await ws.send(f"turn {turn}")
                    assert await ws.recv() == f"turn {turn}"
                assert len(subscribed) == 3
                assert [exc.rcvd.code for exc in why] == [1012, 1012]  # type: ignore[attr-defined]
                assert ws.lost == 0
            assert not ws.is_connected
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()
            with pytest.raises(ConnectionClosedOK):
                await ws.send("late")

    run(main())


def test_messages_are_kept(run: Run) -> None:
    async def main() -> None:
        async with Service() as service, follow(service.uri) as ws:
            await service.stop()
            await gone(ws)
            for number in range(20):
                await ws.send(f"{number}")
            array = bytearray(b"copied")
            await ws.send(array)
            array[:] = b"......"
            assert ws.buffered == 21
            await service.start()
            await service.has(*map(str, range(20)), b"copied")
            assert ws.buffered == 0
            assert [await ws.recv() for _ in range(20)] == list(map(str, range(20)))

    run(main())


def test_full_buffer_makes_send_wait(run: Run) -> None:
    async def main() -> None:
        async with Service() as service, follow(service.uri, max_buffer=2) as ws:
            await service.stop()
            await gone(ws)
            await ws.send("1")
            await ws.send("2")
            waiting = asyncio.create_task(ws.send("3"))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await service.start()
            await waiting
            await service.has("1", "2", "3")
            await confirmed(ws)
            await service.stop()
            await gone(ws)
            await ws.send("4")
            await ws.send("5")
            waiting = asyncio.create_task(ws.send("6"))
            await asyncio.sleep(0)
            await ws.close()
            with pytest.raises(ConnectionClosedOK):
                await waiting
            assert ws.lost == 2
            await service.start()

    run(main())


def test_full_buffer_drops_the_oldest(run: Run) -> None:
    async def main() -> None:
        lost: list[Any] = []

        def on_lost(messages: Any, why: str) -> None:
            lost.append((messages, why))
            raise LookupError("of the program")  # is logged

        async with Service() as service:
            async with follow(
                service.uri, max_buffer=2, overflow="drop_oldest", on_lost=on_lost
            ) as ws:
                await service.stop()
                await gone(ws)
                for number in range(4):
                    await ws.send(str(number))
                assert lost == [(["0"], "buffer full"), (["1"], "buffer full")]
                await service.start()
                await service.has("2", "3")
                await confirmed(ws)
                await service.stop()
                await gone(ws)
                await ws.send("never")
            assert lost[2:] == [(["never"], "closed before they were sent")]
            assert ws.lost == 3
            await service.start()

    run(main())


def deaf(peer_count: list[int]) -> Any:
    """Make a script that reads nothing, and resets the connection when told."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(peer.accept())
        peer_count.append(1)
        await peer.reader.readexactly(2)  # the beginning of a message
        peer.reset()

    return script


@pytest.mark.parametrize("resend", [False, True])
def test_unconfirmed_messages(run: Run, resend: bool) -> None:
    async def main() -> None:
        lost: list[Any] = []
        seen: list[int] = []
        received = asyncio.Event()

        async def honest(peer: Peer) -> None:
            await peer.request()
            await peer.send(peer.accept())
            seen.append(2)
            if resend:
                assert (await read_frame(peer.reader)) == (1, b"perhaps")
            received.set()
            await peer.ended()

        async with scripted(deaf(seen), honest) as server:
            async with follow(
                server.uri,
                resend=resend,
                on_lost=lambda messages, why: lost.append((messages, why)),
                close_timeout=0.01,
            ) as ws:
                await ws.send("perhaps")
                await received.wait()
            assert seen == [1, 2]
        # Told when the first connection is lost; or at the end, when it was sent again
        # and that is not confirmed either.
        assert lost == [(["perhaps"], "not confirmed")]

    run(main())


def test_more_unconfirmed_messages_than_are_kept(run: Run) -> None:
    """A pong that comes late confirms nothing that was sent after its ping."""
    count = MIN_UNCONFIRMED + 6
    messages = [str(number) for number in range(count)]

    async def main() -> None:
        lost: list[Any] = []
        again = asyncio.Event()

        async def late(peer: Peer) -> None:
            await peer.request()
            await peer.send(peer.accept())
            frames = [await read_frame(peer.reader) for _ in range(count + 1)]
            [ping] = [payload for opcode, payload in frames if opcode == 9]
            await peer.send(bytes([0x8A, len(ping)]) + ping)
            # The next ping comes when the pong was taken.
            assert (await read_frame(peer.reader))[0] == 9

        async def honest(peer: Peer) -> None:
            await peer.request()
            await peer.send(peer.accept())
            again.set()
            await peer.ended()

        async with scripted(late, honest) as server:
            async with follow(
                server.uri,
                on_lost=lambda messages, why: lost.extend(messages),
                close_timeout=0.01,
            ) as ws:
                for message in messages:
                    await ws.send(message)
                await again.wait()
        assert lost == messages

    run(main())


def test_confirmed_messages_are_not_lost(run: Run) -> None:
    async def main() -> None:
        async with Service() as service, follow(service.uri) as ws:
            for number in range(100):
                await ws.send(str(number))
                assert await ws.recv() == str(number)
            await confirmed(ws)
            await service.stop()
            await gone(ws)
            assert ws.lost == 0
            await service.start()

    run(main())


def test_cancelled_send_does_not_end_confirmation(run: Run) -> None:
    async def main() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        class Waits(ClientConnection):
            """Waits to send a ping, as it does for a peer that does not read."""

            async def ping(self, data: Any = None) -> Any:
                asked.set()
                await go_on.wait()
                return await super().ping(data)

        async with (
            Service() as service,
            follow(service.uri, create_connection=Waits) as ws,
        ):
            sending = asyncio.create_task(ws.send("one"))
            await asked.wait()
            sending.cancel()
            await asyncio.wait([sending])
            go_on.set()
            await ws.send("two")
            await confirmed(ws)
        assert ws.lost == 0

    run(main())


def test_without_confirmation(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Service() as service, follow(service.uri, confirm=False) as ws:
            await ws.send("one")
            await service.has("one")
            assert not ws._unconfirmed
            await service.stop()
            await gone(ws)
            await ws.send("two")
            await service.start()
            await service.has("one", "two")

    with caplog.at_level(logging.WARNING):
        run(main())
    assert not caplog.records


def test_silence(run: Run) -> None:
    async def main() -> None:
        why: list[Exception] = []

        async def quiet(peer: Peer) -> None:
            await peer.request()
            await peer.send(peer.accept())
            await peer.ended()

        async def loud(peer: Peer) -> None:
            await peer.request()
            await peer.send(peer.accept(rest=b"\x81\x02hi"))
            await peer.ended()

        async with scripted(quiet, loud) as server:
            async with follow(
                server.uri,
                silence_timeout=0.05,
                on_disconnect=why.append,
                close_timeout=0.01,
            ) as ws:
                assert await ws.recv() == "hi"
        assert str(why[0]) == "nothing received for 0.05 seconds"

    run(main())


def test_nobody_there_at_first(run: Run) -> None:
    async def main() -> None:
        async with Service() as service:
            await service.stop()
            entering = asyncio.create_task(follow(service.uri).__aenter__())
            await asyncio.sleep(0.02)
            assert not entering.done()
            await service.start()
            ws = await entering
            await ws.send("hello")
            assert await ws.recv() == "hello"
            await ws.close()

    run(main())


def test_fatal_errors(run: Run) -> None:
    async def main() -> None:
        status = 403

        def refuse(ws: Any, request: Any) -> Any:
            return ws.respond(status, "") if status else None

        async with Service(process_request=refuse) as service:
            with pytest.raises(InvalidStatus):
                async with follow(service.uri):
                    pytest.fail("connected")
            status = 0
            async with follow(service.uri) as ws:
                await service.stop()
                status = 403
                await ws.send("kept")
                await service.start()
                with pytest.raises(InvalidStatus):
                    await ws.recv()
                with pytest.raises(InvalidStatus):
                    await ws.send("more")

    run(main())


def test_on_connect_that_fails(run: Run) -> None:
    async def main() -> None:
        turns = 0

        async def subscribe(ws: Any) -> None:
            nonlocal turns
            turns += 1
            if turns == 1:
                await ws.close()
                await ws.send("cannot be sent")

        async with (
            Service() as service,
            follow(service.uri, on_connect=subscribe) as ws,
        ):
            assert turns == 2
            await ws.send("hello")
            assert await ws.recv() == "hello"

        async def fail(ws: Any) -> None:
            raise LookupError("of the program")

        async with Service() as service:
            with pytest.raises(LookupError):
                async with follow(service.uri, on_connect=fail):
                    pytest.fail("connected")

    run(main())


def test_iteration_ends(run: Run) -> None:
    async def main() -> None:
        async with Service() as service, follow(service.uri) as ws:
            await ws.send("one")
            messages = []

            async def listen() -> None:
                async for message in ws:
                    messages.append(message)
                    if message == "two":
                        await ws.close()

            listening = asyncio.create_task(listen())
            await service.has("one")
            await service.stop()
            await gone(ws)
            await service.start()
            await ws.send("two")
            await listening
            assert messages == ["one", "two"]

    run(main())


def test_slow_receiver(run: Run) -> None:
    """What the program does not receive is not read."""

    async def main() -> None:
        sent = 0

        async def flood(ws: Any) -> None:
            nonlocal sent
            try:
                for number in range(5000):
                    await ws.send(b"%06d" % number * 200)
                    sent += 1
                await ws.wait_closed()
            except ConnectionClosed:
                pass

        async with websock.serve(flood, LOOPBACK, 0, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            async with follow(f"ws://{LOOPBACK}:{port}") as ws:
                for number in range(5000):
                    assert await ws.recv() == b"%06d" % number * 200
                    assert len(ws._received) <= 16

    run(main())


def test_cancelled_recv_loses_nothing(run: Run) -> None:
    async def main() -> None:
        async with Service() as service, follow(service.uri) as ws:
            for number in range(50):
                await ws.send(str(number))
                while True:
                    try:
                        async with asyncio.timeout(0.0005):
                            message = await ws.recv()
                    except TimeoutError:
                        continue
                    break
                assert message == str(number)

    run(main())


def test_wrong_use(run: Run) -> None:
    async def main() -> None:
        uri = f"ws://{LOOPBACK}:1"
        for arguments, text in (
            ({"max_buffer": -1}, "max_buffer must not be negative: -1"),
            ({"overflow": "drop"}, "overflow must be 'wait' or 'drop_oldest'"),
            ({"silence_timeout": 0}, "silence_timeout must be positive: 0"),
            ({"resend": True, "confirm": False}, "resend=True needs confirm=True"),
        ):
            with pytest.raises(ValueError, match=text):
                follow(uri, **arguments)
        with pytest.raises(websock.InvalidURI):
            follow("http://localhost")
        with pytest.raises(InvalidState):
            await follow(uri).send("x")
        with pytest.raises(InvalidState):
            await follow(uri).recv()
        async with Service() as service, follow(service.uri) as ws:
            with pytest.raises(TypeError):
                await ws.send(1)  # type: ignore[arg-type]
            with pytest.raises(InvalidState):
                await ws.__aenter__()

    run(main())


def test_cancelled_while_connecting(run: Run) -> None:
    async def main() -> None:
        with socket.create_server((LOOPBACK, 0)) as sock:
            port = sock.getsockname()[1]
            ws = follow(f"ws://{LOOPBACK}:{port}")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.__aenter__(), 0.02)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in tasks if "_run" in repr(task)]

    run(main())
