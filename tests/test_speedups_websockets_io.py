"""The patch of websockets under its APIs, over sockets: the conversations are the same."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
import websockets.sync.client
import websockets.sync.server
from host_patches import frame, logged, patched, shown, unmasked
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from websock.speedups._websockets import CONNECTION, MESSAGES, PATCH

PARTS = (CONNECTION, MESSAGES)
TIMEOUT = 60  # seconds, for a whole test on a busy machine
LOOPS: dict[str, Any] = {"asyncio": None, "uvloop": uvloop.new_event_loop}

Scenario = Callable[[Any, list[Any]], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, dict[str, Any]]] = {}


def scenario(**options: Any) -> Callable[[Scenario], Scenario]:
    """Note what a client does, and the options of both sides."""

    def note(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = function, options
        return function

    return note


async def outcome(awaitable: Awaitable[Any]) -> Any:
    try:
        return shown(await awaitable)
    except ConnectionClosed as exc:
        return shown(exc), shown(exc.rcvd), shown(exc.sent), exc.rcvd_then_sent
    except Exception as exc:
        return shown(exc)


MESSAGES_SENT: list[Any] = [
    "", "text", "é€\U0001d11e" * 100, b"", b"bytes", b"x" * 125, b"x" * 126,
    b"y" * 65536, "z" * 300_000, bytearray(b"array"), memoryview(b"view"),
]  # fmt: skip


@scenario()
async def echoes(ws: Any, seen: list[Any]) -> None:
    for message in MESSAGES_SENT:
        await ws.send(message)
        seen.append(shown(await ws.recv()))
    await ws.send("as bytes", text=False)
    await ws.send(b"as text", text=True)
    seen.append([shown(await ws.recv()), shown(await ws.recv(decode=False))])
    await ws.send(b"decoded")
    await ws.send("not decoded")
    seen.append([await ws.recv(decode=True), await ws.recv(decode=False)])


@scenario()
async def many_at_once(ws: Any, seen: list[Any]) -> None:
    async def send() -> None:
        for i in range(500):
            await ws.send(f"message {i}" if i % 2 else b"message %d" % i)

    sending = asyncio.create_task(send())
    for _ in range(500):
        seen.append(await ws.recv())
    await sending


@scenario()
async def fragments(ws: Any, seen: list[Any]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece

    await ws.send(["a", "é", "b"])
    await ws.send(pieces())
    await ws.send(["one"])
    await ws.send([])
    await ws.send("whole")
    seen.extend([await ws.recv() for _ in range(2)])
    seen.append([piece async for piece in ws.recv_streaming()])
    seen.append([piece async for piece in ws.recv_streaming(decode=False)])


@scenario(behaviour="fragments")
async def fragments_received(ws: Any, seen: list[Any]) -> None:
    waiting = asyncio.create_task(ws.recv())
    await ws.ping()  # what was sent before its pong has come
    await (await ws.ping())
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    seen.append(waiting.cancelled())
    await ws.send("go on")
    seen.append(await ws.recv())
    seen.append([piece async for piece in ws.recv_streaming()])


@scenario()
async def wrong_arguments(ws: Any, seen: list[Any]) -> None:
    for wrong in ({"a": "b"}, 5, None, [1], ["a", b"b"]):
        seen.append(await outcome(ws.send(wrong)))


@scenario()
async def two_that_receive(ws: Any, seen: list[Any]) -> None:
    first = asyncio.create_task(ws.recv())
    await asyncio.sleep(0)
    seen.append(await outcome(ws.recv()))
    await ws.send("for the first")
    seen.append(await first)


@scenario()
async def surrogates(ws: Any, seen: list[Any]) -> None:
    seen.append(await outcome(ws.send("\ud800")))
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.send("closed")))


@scenario()
async def bytes_that_are_no_text(ws: Any, seen: list[Any]) -> None:
    await ws.send(b"good", text=True)
    await ws.send(b"\xff\xfe", text=True)
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.recv()))


@scenario(max_size=1000)
async def too_big(ws: Any, seen: list[Any]) -> None:
    await ws.send(bytes(1000))
    await ws.send(bytes(1001))
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.send("closed")))


@scenario()
async def closing(ws: Any, seen: list[Any]) -> None:
    await ws.send("before")
    await ws.close(4321, "é")
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.send("after")))
    seen.append((ws.close_code, ws.close_reason))


@scenario(behaviour="close")
async def being_closed(ws: Any, seen: list[Any]) -> None:
    seen.extend([message async for message in ws])
    seen.append(await outcome(ws.recv()))
    seen.append(await outcome(ws.send(b"after")))
    seen.append((ws.close_code, ws.close_reason))


@scenario(behaviour="abort")
async def being_cut(ws: Any, seen: list[Any]) -> None:
    await ws.send("now")
    seen.append((await outcome(ws.recv()))[0][0])
    seen.append((await outcome(ws.send("after")))[0][0])
    seen.append((ws.close_code, ws.close_reason))


@scenario(behaviour="late", write_limit=1000, compression=None)
async def slow_peer(ws: Any, seen: list[Any]) -> None:
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(200):
            await ws.send(bytes(100_000))
            sent += 1

    sending = asyncio.create_task(send())
    while not ws.drain_waiters:  # noqa: ASYNC110
        await asyncio.sleep(0)
    seen.append(0 < sent < 200)
    ws.gate.set()
    await sending
    seen.append(await ws.recv())


@scenario()
async def pings(ws: Any, seen: list[Any]) -> None:
    pong = await ws.ping(b"payload")
    seen.append(await pong >= 0)
    await ws.pong(b"unsolicited")
    await ws.send("between")
    seen.append(await ws.recv())


class Broken:
    """A transport that cannot write any more."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        raise OSError("broken")


@scenario()
async def failing_writes(ws: Any, seen: list[Any]) -> None:
    ws.transport = Broken(ws.transport)
    seen.append(await outcome(ws.send("lost")))
    seen.append(await outcome(ws.send("closed")))
    seen.append("send_data" in vars(ws))


class Own(ClientConnection):
    """A class of connections that sees what its base class does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: list[str] = []

    def process_event(self, event: Any) -> None:
        self.calls.append(type(event).__name__)
        super().process_event(event)

    def send_data(self) -> None:
        self.calls.append("send_data")
        super().send_data()

    async def drain(self) -> None:
        self.calls.append("drain")
        await super().drain()


@scenario(create_connection=Own)
async def subclass(ws: Any, seen: list[Any]) -> None:
    await ws.send("text")
    seen.append(await ws.recv())
    seen.append([call for call in ws.calls if call != "send_data"])
    seen.append("send_data" in ws.calls)


async def behave(ws: ServerConnection, behaviour: str, gate: asyncio.Event) -> None:
    """Be the server of a scenario."""
    if behaviour == "fragments":

        async def pieces() -> AsyncIterator[str]:
            yield "first "
            await ws.recv()
            yield "second"

        await ws.send(pieces())
        await ws.send(["é", "ü"])
    if behaviour == "close":
        await ws.send("one")
        await ws.close(1001, "gone")
    if behaviour == "abort":
        await ws.recv()
        ws.transport.abort()
    if behaviour == "late":
        ws.transport.pause_reading()
        await gate.wait()
        ws.transport.resume_reading()
        total = 0
        for _ in range(200):
            total += len(await ws.recv())
        await ws.send(str(total))
    async for message in ws:
        await ws.send(message)


async def converse(name: str) -> Any:
    """Return what client and server see and log in a scenario."""
    act, options = SCENARIOS[name]
    options = dict(options)
    behaviour = options.pop("behaviour", "echo")
    own = {"create_connection": options.pop("create_connection", None)}
    ends: list[Any] = []
    seen: list[Any] = []
    gate = asyncio.Event()
    over = asyncio.Event()

    async def handler(ws: ServerConnection) -> None:
        try:
            await behave(ws, behaviour, gate)
        except ConnectionClosed as exc:
            ends.append(shown(exc)[:2] if behaviour != "abort" else type(exc))
        finally:
            over.set()

    with logged("websockets.client") as client, logged("websockets.server") as server:
        async with (
            asyncio.timeout(TIMEOUT),
            serve(handler, "127.0.0.1", 0, ping_interval=None, **options) as listening,
        ):
            port = listening.sockets[0].getsockname()[1]
            async with connect(
                f"ws://127.0.0.1:{port}", ping_interval=None, **own, **options
            ) as ws:
                ws.gate = gate  # type: ignore[attr-defined]
                await act(ws, seen)
            await over.wait()
    lines = [[line for line in log if is_compared(line[1])] for log in (client, server)]
    if name in ("being_cut", "slow_peer", "many_at_once", "fragments_received"):
        lines = []  # how they are cut into reads differs from run to run
    return seen, ends, lines


def is_compared(line: str) -> bool:
    """Whether a line of a log is about frames; those of handshakes are random."""
    begins = ("< TEXT", "< BIN", "< C", "< P", "> TEXT", "> BIN", "> C", "> P", "= ")
    return line.startswith((*begins, "! ", "unexpected", "connection h", "parser"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_asyncio(name: str, loop: str) -> None:
    def run() -> Any:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            return runner.run(converse(name))

    before = run()
    with patched(PATCH, PARTS):
        assert run() == before
    assert before[0]


@pytest.mark.parametrize("name", ["echoes", "closing", "bytes_that_are_no_text"])
def test_asyncio_without_compression(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, options = SCENARIOS[name]
    options = {**options, "compression": None}
    monkeypatch.setitem(SCENARIOS, name, (act, options))
    before = asyncio.run(converse(name))
    with patched(PATCH, PARTS):
        assert asyncio.run(converse(name)) == before


def test_bytes_on_the_wire() -> None:
    """A server writes the same bytes in the same order."""
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    frames = (
        frame(0x81, b"text", b"mask") + frame(0x89, b"ping", b"mask")
        + frame(0x02, b"frag", b"abcd") + frame(0x80, b"ment", b"abcd")
        + frame(0x82, bytes(70000), b"efgh") + frame(0x83, b"", b"mask")
    )  # fmt: skip

    async def run() -> Any:
        async def echo(ws: ServerConnection) -> None:
            async for message in ws:
                await ws.send(message)

        async with asyncio.timeout(TIMEOUT), serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frames)
            found = await reader.read()
            writer.close()
            return found

    before = sorted(unmasked(asyncio.run(run())))
    assert [first for first, _ in before] == [0x88, 0x8A] or len(before) > 2
    with patched(PATCH, PARTS):
        assert sorted(unmasked(asyncio.run(run()))) == before


def test_connections_live_through_it() -> None:
    async def run() -> None:
        async def echo(ws: ServerConnection) -> None:
            async for message in ws:
                await ws.send(message)

        async def turn(*connections: Any) -> None:
            for ws in connections:
                waiting = asyncio.create_task(ws.recv())
                await asyncio.sleep(0)
                await ws.send("text é")
                assert await waiting == "text é"
                await ws.send([b"frag", b"ments"])
                assert await ws.recv() == b"fragments"

        async with asyncio.timeout(TIMEOUT), serve(echo, "127.0.0.1", 0) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with connect(uri) as first:
                await turn(first)
                with patched(PATCH, PARTS):
                    async with connect(uri) as second:
                        await turn(first, second)
                    third = await connect(uri)
                    waiting = asyncio.create_task(third.recv())
                    await asyncio.sleep(0)
                await third.send("while it was taken off")
                assert await waiting == "while it was taken off"
                await turn(first, third)
                await third.close()

    asyncio.run(run())


# -- threads ----------------------------------------------------------------------------


def talk_in_threads() -> Any:
    seen: list[Any] = []

    def echo(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    server = websockets.sync.server.serve(echo, "127.0.0.1", 0, max_size=400_000)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with websockets.sync.client.connect(uri) as ws:
            for message in MESSAGES_SENT:
                ws.send(message)
                seen.append(shown(ws.recv(timeout=TIMEOUT)))
            ws.send(["frag", "ments"])
            seen.append(list(ws.recv_streaming()))
            ws.send(bytes(400_001))
            try:
                ws.recv(timeout=TIMEOUT)
            except ConnectionClosed as exc:
                seen.append((shown(exc), shown(exc.rcvd), shown(exc.sent)))
    finally:
        server.shutdown()
        thread.join()
    return seen


def test_threads() -> None:
    before = talk_in_threads()
    with patched(PATCH, ()):
        assert talk_in_threads() == before
    assert len(before) == len(MESSAGES_SENT) + 2


# -- trio -------------------------------------------------------------------------------


def talk_in_trio() -> Any:
    import trio
    from websockets.trio.client import connect
    from websockets.trio.server import serve

    seen: list[Any] = []

    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async def main() -> None:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                server = await nursery.start(lambda task_status: serve(
                    echo, 0, host="127.0.0.1", max_size=400_000,
                    task_status=task_status))  # fmt: skip
                port = server.listeners[0].socket.getsockname()[1]
                async with connect(f"ws://127.0.0.1:{port}") as ws:
                    for message in MESSAGES_SENT:
                        await ws.send(message)
                        seen.append(shown(await ws.recv()))
                    await ws.send(bytes(400_001))
                    try:
                        await ws.recv()
                    except ConnectionClosed as exc:
                        seen.append((shown(exc), shown(exc.rcvd), shown(exc.sent)))
                nursery.cancel_scope.cancel()

    trio.run(main)
    return seen


def test_trio() -> None:
    pytest.importorskip("trio", reason="trio is not installed")
    before = talk_in_trio()
    with patched(PATCH, ()):
        assert talk_in_trio() == before
    assert len(before) == len(MESSAGES_SENT) + 1


# -- uvicorn's default ------------------------------------------------------------------


def test_uvicorn() -> None:
    from uvicorn_server import echo, run, serving

    async def talk() -> Any:
        seen = []
        async with (
            serving(echo, "websockets-sansio", ws_max_size=400_000) as server,
            connect(f"ws://127.0.0.1:{server.port}") as ws,
        ):
            for message in MESSAGES_SENT:
                await ws.send(message)
                seen.append(shown(await ws.recv()))
            await ws.send(bytes(400_001))
            seen.append(await outcome(ws.recv()))
        return seen

    before = run(talk())
    with patched(PATCH, PARTS):
        assert run(talk()) == before
    assert len(before) == len(MESSAGES_SENT) + 1
