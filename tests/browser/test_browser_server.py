"""``WebSocketServer`` and the ``WebSocket`` of a real browser."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from browser.site import HOST, PageError, Tab, echo, echo_server, noise, site
from scripted import Run, loop_fixture, tls_fixture

import websock
from websock.events import Cookie, WebSocketRequest, WebSocketServer
from websock.frames import Opcode

pytestmark = pytest.mark.browser
run = loop_fixture()
tls = tls_fixture()


def server_with(answer: Any, **options: Any) -> WebSocketServer:
    server = WebSocketServer(path="/ws", **options)
    server.on("request", answer)
    return server


# -- messages --------------------------------------------------------------------------


def test_text(run: Run, driver: Any) -> None:
    texts = ["", "hello", "é\u20ac\U0001f600", "\0\x7f", "line\nline", "x" * 70_000]

    async def main() -> None:
        async with site(driver, echo_server()) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                const got = [];
                for (const text of args[0]) { ws.send(text); got.push(await ws.next()); }
                ws.send("lone \\ud800");
                got.push(await ws.next());
                return got;
                """,
                texts,
            )
            assert got == [*texts, "lone \ufffd"]

    run(main())


def test_binary(run: Run, driver: Any) -> None:
    async def main() -> None:
        async with site(driver, echo_server()) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                const bytes = new Uint8Array([0, 1, 127, 128, 255]);
                const got = [];
                for (const data of [bytes.buffer, bytes, bytes.subarray(1, 3),
                                    new Blob([bytes]), new ArrayBuffer(0)]) {
                  ws.send(data);
                  got.push(numbers(await ws.next()));
                }
                ws.binaryType = "blob";
                ws.send(bytes);
                const blob = await ws.next();
                got.push([blob instanceof Blob, numbers(await blob.arrayBuffer())]);
                return got;
                """
            )
            every = [0, 1, 127, 128, 255]
            assert got == [every, every, [1, 127], every, [], [True, every]]

    run(main())


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_large_messages(run: Run, driver: Any, compression: Any) -> None:
    size = 3_000_000
    data = noise(size)
    received: list[Any] = []

    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()

        @connection.on("message")
        def on_message(message: Any) -> None:
            received.append(message)
            connection.send(message)

    async def main() -> None:
        server = server_with(answer, compression=compression, max_size=None)
        async with site(driver, server) as page:
            digest, text_is_same, amount = await page.run(
                """
                const ws = await connect().opened;
                ws.send(noise(args[0]));
                const back = await ws.next();
                const digest = await crypto.subtle.digest("SHA-256", back);
                const text = "\\u00e9\\u20ac".repeat(500_000);
                ws.send(text);
                const same = await ws.next() === text;
                return [numbers(digest), same, ws.bufferedAmount];
                """,
                size,
            )
            assert bytes(digest) == hashlib.sha256(data).digest()
            assert text_is_same
            assert amount == 0
            assert received == [data, "é€" * 500_000]

    run(main())


def test_a_message_of_several_frames_is_one_event(run: Run, driver: Any) -> None:
    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()

        @connection.on("message")
        async def on_message(message: str) -> None:
            await connection.ws.send([message[:1], "", message[1:3], message[3:]])

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                ws.send("h\\u00e9llo");
                return [await ws.next(), ws.events];
                """
            )
            assert got == ["héllo", ["open", "message"]]

    run(main())


def test_frames_of_a_browser(run: Run, driver: Any) -> None:
    frames: list[Any] = []

    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()

        @connection.on("frame")
        def on_frame(item: Any) -> None:
            frames.append(item)
            if item.fin:
                connection.send(str(len(frames)))

    async def main() -> None:
        server = server_with(answer, assemble_fragments=False)
        async with site(driver, server) as page:
            await page.run(
                """
                const ws = await connect().opened;
                ws.send("text"); await ws.next();
                ws.send(noise(200_000)); await ws.next();
                """
            )
            assert (frames[0].opcode, frames[0].data) == (Opcode.TEXT, b"text")
            rest = frames[1:]
            assert rest[0].opcode is Opcode.BINARY
            assert all(item.opcode is Opcode.CONT for item in rest[1:])
            assert b"".join(item.data for item in rest) == noise(200_000)

    run(main())


def test_broadcast_and_pings(run: Run, driver: Any) -> None:
    async def main() -> None:
        server = echo_server()
        async with site(driver, server) as page:
            await page.run(
                "window.all = await Promise.all([1, 2, 3].map(() => connect().opened))"
            )
            assert len(server.connections) == 3
            server.broadcast("to all")
            server.broadcast(b"\1")
            got = await page.run(
                """
                const got = [];
                for (const ws of all) {
                  got.push([await ws.next(), numbers(await ws.next())]);
                }
                return got;
                """
            )
            assert got == [["to all", [1]]] * 3
            (connection, *_) = server.connections
            ponged: asyncio.Queue[bytes] = asyncio.Queue()
            connection.on("pong", ponged.put_nowait)
            connection.ping(b"are you there?")
            assert await ponged.get() == b"are you there?"

    run(main())


def test_pause_and_resume(run: Run, driver: Any) -> None:
    """A server that does not read is noticed in the page, and goes on later."""
    size, count = 1_000_000, 40
    total = 0

    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()
        connection.pause()

        @connection.on("message")
        def on_message(message: bytes) -> None:
            nonlocal total
            total += len(message)
            if total == size * count:
                connection.send("all")

    async def main() -> None:
        server = server_with(answer, compression=None)
        async with site(driver, server) as page:
            amount = await page.run(
                """
                window.ws = await connect().opened;
                const data = noise(args[0]);
                for (let i = 0; i < args[1]; i++) ws.send(data);
                for (let i = 0; i < 50; i++) await turn();
                return ws.bufferedAmount;
                """,
                size,
                count,
            )
            assert amount > 0
            assert total == 0
            (connection,) = server.connections
            connection.resume()
            assert await page.run("return [await ws.next(), ws.bufferedAmount]") == [
                "all",
                0,
            ]

    run(main())


# -- the end ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 1005, ""),
        ([1000], 1000, ""),
        ([1000, "bye"], 1000, "bye"),
        ([3000, "é" * 61], 3000, "é" * 61),
        ([4999, "x" * 123], 4999, "x" * 123),
    ],
)
def test_the_page_closes(
    run: Run, driver: Any, arguments: Any, code: int, reason: str
) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()
        connection.on("close", lambda *args: told.put_nowait(args))

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                ws.close(...args[0]);
                return [await ws.closed, ws.events, ws.readyState];
                """,
                arguments,
            )
            assert got == [[code, reason, True], ["open", "close"], 3]
            assert await told.get() == (code, reason)

    run(main())


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "away"), (1011, "é"), (4321, "x" * 123)]
)
@pytest.mark.parametrize("how", ["close", "drop"])
def test_the_server_closes(
    run: Run, driver: Any, how: str, code: int, reason: str
) -> None:
    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()
        connection.on("message", lambda message: getattr(connection, how)(code, reason))

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                ws.send("end");
                return [await ws.closed, ws.events];
                """
            )
            assert got == [[code, reason, True], ["open", "close"]]

    run(main())


def test_the_server_vanishes(run: Run, driver: Any) -> None:
    def answer(request: WebSocketRequest) -> None:
        connection = request.accept()
        connection.on("message", lambda _: connection.drop(skip_close_frame=True))

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                ws.send("end");
                return (await ws.closed).concat(ws.events);
                """
            )
            assert got[:4] == [1006, "", False, "open"]
            assert got[-1] == "close"

    run(main())


def test_the_server_shuts_down(run: Run, driver: Any) -> None:
    async def main() -> None:
        server = echo_server()
        async with site(driver, server) as page:
            await page.run("window.ws = await connect().opened")
            await server.shut_down(1012, "restart")
            assert await page.run("return await ws.closed") == [1012, "restart", True]

    run(main())


def test_a_page_that_goes_away(run: Run, driver: Any) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    def answer(request: WebSocketRequest) -> None:
        request.accept().on("close", lambda *args: told.put_nowait(args))

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            await page.run("window.ws = await connect().opened")
            await page.visit(page.origin)
            assert await told.get() == (1001, "")

    run(main())


# -- opening ---------------------------------------------------------------------------


def test_subprotocols(run: Run, driver: Any) -> None:
    def answer(request: WebSocketRequest) -> None:
        if "b" in request.requested_protocols:
            connection = request.accept("b")
        else:
            connection = request.accept()
        connection.send(str(list(request.requested_protocols)))

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            got = await page.run(
                """
                const got = [];
                for (const offered of [["a", "b"], "b", []]) {
                  const ws = await connect(offered).opened;
                  got.push([ws.protocol, await ws.next()]);
                }
                return got;
                """
            )
            assert got == [["b", "['a', 'b']"], ["b", "['b']"], ["", "[]"]]

    run(main())


def test_cookies(run: Run, driver: Any) -> None:
    seen: list[dict[str, str]] = []

    def answer(request: WebSocketRequest) -> None:
        seen.append(request.cookies)
        request.accept(
            cookies=[
                Cookie("open", "2", path="/", same_site="Lax"),
                Cookie("hidden", "3", path="/", http_only=True),
            ]
        )

    async def main() -> None:
        async with site(driver, server_with(answer)) as page:
            shown = await page.run(
                """
                document.cookie = "page=1; path=/";
                await connect().opened;
                const shown = document.cookie;
                await connect().opened;
                return shown;
                """
            )
            assert sorted(shown.split("; ")) == ["open=2", "page=1"]
            assert seen == [{"page": "1"}, {"page": "1", "open": "2", "hidden": "3"}]
            await asyncio.to_thread(driver.delete_all_cookies)

    run(main())


@pytest.mark.parametrize("way", ["origins", "reject"])
def test_pages_of_other_origins(run: Run, driver: Any, way: str) -> None:
    seen: list[Any] = []
    allowed: list[Any] = []

    def answer(request: WebSocketRequest) -> None:
        seen.append(request.origin)
        if way == "reject" and request.origin not in allowed:
            request.reject(403, "origin is not allowed")
        else:
            request.accept(origin=request.origin)

    async def main() -> None:
        options = {"origins": allowed} if way == "origins" else {}
        async with site(driver, server_with(answer, **options)) as page:
            allowed.append(page.origin)
            script = """
                const ws = connect([], "/ws", args[0]);
                await Promise.race([ws.opened.catch(() => {}), ws.closed]);
                return ws.events.concat(ws.readyState);
            """
            address = f"{HOST}:{page.port}"
            assert await page.run(script, address) == ["open", 1]
            # The same page under another name is another origin.
            other = f"http://localhost:{page.port}"
            await Tab.visit(page, other)
            events = await page.run(script, address)
            assert events[0] == "error"
            assert events[-1] in (2, 3)
            expected = [page.origin] if way == "origins" else [page.origin, other]
            assert seen == expected

    run(main())


def test_a_server_that_listens_itself(run: Run, driver: Any) -> None:
    async def main() -> None:
        alone = WebSocketServer(HOST, 0, auto_accept=True, protocols=["b"])
        alone.on(
            "connect", lambda connection: connection.on("message", alone.broadcast)
        )
        async with site(driver, echo_server()) as page, alone:
            got = await page.run(
                """
                const all = await Promise.all([1, 2].map(
                  () => connect(["a", "b"], "/any", args[0]).opened));
                all[0].send("hello");
                const got = [];
                for (const ws of all) got.push([ws.protocol, await ws.next()]);
                return got;
                """,
                f"{HOST}:{alone.port}",
            )
            assert got == [["b", "hello"]] * 2
            assert {c.request.origin for c in alone.connections} == {page.origin}

    run(main())


def test_tls(run: Run, driver: Any, tls: Any) -> None:
    async def main() -> None:
        server = WebSocketServer(HOST, 0, ssl=tls.server)
        server.on("request", echo)
        async with site(driver, echo_server()) as page, server:
            got = await page.run(
                """
                const ws = await connect([], "/", args[0], "wss").opened;
                ws.send("x".repeat(100_000));
                const { length } = await ws.next();
                ws.close();
                return [length, ...await ws.closed];
                """,
                f"{HOST}:{server.port}",
            )
            assert got == [100_000, 1005, "", True]

    run(main())


def test_rejections(run: Run, driver: Any) -> None:
    async def main() -> None:
        server = server_with(lambda request: request.reject(401, "who are you?"))
        async with site(driver, server) as page:
            got = await page.run(
                "const ws = connect(); return [await ws.closed, ws.events]"
            )
            assert got == [[1006, "", False], ["error", "close"]]
            with pytest.raises(PageError, match="WebSocket error"):
                await page.run("await connect().opened")

    run(main())


def test_answers_that_come_later(run: Run, driver: Any) -> None:
    pending: asyncio.Queue[WebSocketRequest] = asyncio.Queue()

    async def main() -> None:
        async with site(driver, server_with(pending.put_nowait)) as page:
            await page.run("window.ws = connect()")
            request = await pending.get()
            assert await page.run("return ws.readyState") == 0
            request.accept().send("at last")
            assert await page.run("return await ws.next()") == "at last"

    run(main())


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_compression(run: Run, driver: Any, compression: Any) -> None:
    """What is repeated takes less on the wire, both ways, and arrives as it was."""
    text = "hello " * 100_000
    offered: list[Any] = []
    arrived: asyncio.Queue[Any] = asyncio.Queue()

    def answer(request: WebSocketRequest) -> None:
        offered.extend(name for name, _ in request.requested_extensions)
        connection = request.accept()
        names = ["permessage-deflate"] if compression else []
        assert connection.extensions == names

        @connection.on("message")
        def on_message(message: str) -> None:
            arrived.put_nowait(message)
            connection.send(message)

    async def main() -> None:
        server = server_with(answer, compression=compression)
        async with site(driver, server) as page, Relay(page.port) as relay:
            extensions, same = await page.run(
                """
                const ws = await connect([], "/ws", args[1]).opened;
                ws.send(args[0]);
                return [ws.extensions, await ws.next() === args[0]];
                """,
                text,
                f"{HOST}:{relay.port}",
            )
            assert same
            assert await arrived.get() == text
            assert offered == ["permessage-deflate"]
            if compression:
                assert extensions.startswith("permessage-deflate")
                assert max(relay.sizes) < 20_000
            else:
                assert extensions == ""
                assert min(relay.sizes) > len(text)

    run(main())


class Relay:
    """Passes bytes on, and counts them: those of the page, those of the server."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.sizes = [0, 0]

    async def __aenter__(self) -> Relay:
        self.server = await asyncio.start_server(self.connected, HOST, 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *args: Any) -> None:
        self.server.close()

    async def connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        back, there = await asyncio.open_connection(HOST, self.target)
        await asyncio.gather(
            self.pass_on(0, reader, there), self.pass_on(1, back, writer)
        )

    async def pass_on(
        self, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(65536):
                self.sizes[way] += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


def test_options_hold_for_browsers(run: Run, driver: Any) -> None:
    async def main() -> None:
        async with site(driver, echo_server(max_size=10)) as page:
            got = await page.run(
                """
                const ws = await connect().opened;
                ws.send("x".repeat(11));
                return (await ws.closed)[0];
                """
            )
            assert got == websock.frames.CloseCode.MESSAGE_TOO_BIG

    run(main())
