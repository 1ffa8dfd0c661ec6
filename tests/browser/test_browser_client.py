"""``websock.events.WebSocket`` and the browser's, asked the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from browser.site import PageError, Site, echo_server, site
from browser.urls import BAD_URLS, URLS
from scripted import LOOPBACK, Run, loop_fixture

from websock.events import DOMException, WebSocket, WebSocketServer

pytestmark = pytest.mark.browser
run = loop_fixture()


async def both(page: Site, server: WebSocketServer) -> WebSocket:
    """Open a WebSocket here, and one in the page, as ``ws``."""
    await page.run("window.ws = await connect().opened")
    ws = WebSocket(f"ws://{LOOPBACK}:{page.port}/ws")
    await ws.opened
    return ws


def test_urls(run: Run, driver: Any) -> None:
    async def main() -> None:
        async with site(driver, echo_server()) as page:
            got = await page.run(
                """
                return args[0].map((url) => {
                  try {
                    const ws = new WebSocket(url);
                    ws.close();
                    return ws.url;
                  } catch (error) {
                    return error.name;
                  }
                });
                """,
                [url for url, _ in URLS] + BAD_URLS,
            )
            assert got == [url for _, url in URLS] + ["SyntaxError"] * len(BAD_URLS)
            # And here the same.
            here = []
            for url, _ in URLS:
                ws = WebSocket(url)
                ws.close()
                here.append(ws.url)
                await ws.closed
            for url in BAD_URLS:
                with pytest.raises(DOMException) as info:
                    WebSocket(url)
                here.append(info.value.name)
            assert here == got

    run(main())


PROTOCOLS: list[Any] = ["", "a b", ["a", "a"], ["a,b"], ["é"], ["a", "A"], [], "a"]


def test_subprotocols_that_are_refused(run: Run, driver: Any) -> None:
    async def main() -> None:
        async with site(driver, echo_server()) as page:
            got = await page.run(
                """
                return args[1].map((protocols) => {
                  try {
                    new WebSocket(args[0], protocols).close();
                    return "";
                  } catch (error) {
                    return error.name;
                  }
                });
                """,
                f"ws://{LOOPBACK}:{page.port}/ws",
                PROTOCOLS,
            )
            here = []
            for protocols in PROTOCOLS:
                try:
                    ws = WebSocket(f"ws://{LOOPBACK}:{page.port}/ws", protocols)
                except DOMException as exc:
                    here.append(exc.name)
                else:
                    ws.close()
                    await ws.closed
                    here.append("")
            assert here == got

    run(main())


CLOSINGS: list[Any] = [
    [999],
    [1001],
    [1005],
    [2999],
    [5000],
    [0],
    [1000, "x" * 124],
    [1000, "é" * 62],
    [3000, "é" * 61],
    [1],  # it is closing by now, and checked all the same
]


def test_arguments_of_close(run: Run, driver: Any) -> None:
    async def main() -> None:
        server = echo_server()
        async with site(driver, server) as page:
            ws = await both(page, server)
            got = await page.run(
                """
                return args[0].map((closing) => {
                  try {
                    ws.close(...closing);
                    return "";
                  } catch (error) {
                    return error.name;
                  }
                });
                """,
                CLOSINGS,
            )
            here = []
            for closing in CLOSINGS:
                try:
                    ws.close(*closing)
                    here.append("")
                except DOMException as exc:
                    here.append(exc.name)
            assert here == got
            assert "" in here
            event = await ws.closed
            told = await page.run("return await ws.closed")
            assert told == [event.code, event.reason, event.wasClean]

    run(main())


def test_states_and_amounts(run: Run, driver: Any) -> None:
    """What attributes tell, step by step."""

    async def main() -> None:
        server = echo_server()
        async with site(driver, server) as page:
            got = await page.run(
                """
                const ws = connect();
                const got = [[WebSocket.CONNECTING, WebSocket.OPEN,
                              WebSocket.CLOSING, WebSocket.CLOSED]];
                const note = () => got.push([ws.readyState, ws.bufferedAmount,
                                             ws.protocol]);
                note();
                try { ws.send("early"); } catch (error) { got.push(error.name); }
                await ws.opened;
                note();
                ws.send("\\u00e9"); ws.send(new Uint8Array(3));
                note();
                await ws.next(); await ws.next();
                note();
                ws.close(3000);
                note();
                ws.send("late");
                note();
                await ws.closed;
                note();
                ws.send("later");
                note();
                return [got, ws.events];
                """
            )
            ws = WebSocket(f"ws://{LOOPBACK}:{page.port}/ws")
            events: list[str] = []
            messages: asyncio.Queue[Any] = asyncio.Queue()
            for type in ("open", "message", "error", "close"):
                ws.addEventListener(type, lambda event: events.append(event.type))
            ws.onmessage = lambda event: messages.put_nowait(event.data)
            here: list[Any] = [[ws.CONNECTING, ws.OPEN, ws.CLOSING, ws.CLOSED]]

            def note() -> None:
                here.append([ws.readyState, ws.bufferedAmount, ws.protocol])

            note()
            with pytest.raises(DOMException) as info:
                ws.send("early")
            here.append(info.value.name)
            await ws.opened
            note()
            ws.send("é")
            ws.send(bytes(3))
            note()
            for _ in range(2):
                await messages.get()
            note()
            ws.close(3000)
            note()
            ws.send("late")
            note()
            await ws.closed
            note()
            ws.send("later")
            note()
            assert [here, events] == got

    run(main())


def test_closing_while_it_connects(run: Run, driver: Any) -> None:
    async def main() -> None:
        pending: asyncio.Queue[Any] = asyncio.Queue()
        server = WebSocketServer(path="/ws")
        server.on("request", pending.put_nowait)
        async with site(driver, server) as page:
            got = await page.run(
                """
                const ws = connect();
                ws.close(1000, "never mind");
                const state = ws.readyState;
                return [state, await ws.closed, ws.events];
                """
            )
            ws = WebSocket(f"ws://{LOOPBACK}:{page.port}/ws")
            events: list[str] = []
            for type in ("open", "error", "close"):
                ws.addEventListener(type, lambda event: events.append(event.type))
            ws.close(1000, "never mind")
            state = ws.readyState
            event = await ws.closed
            here = [state, [event.code, event.reason, event.wasClean], events]
            assert here == got

    run(main())


def test_the_tests_notice_errors_of_the_page(run: Run, driver: Any) -> None:
    async def main() -> None:
        async with site(driver, echo_server()) as page:
            with pytest.raises(PageError, match=r"^TypeError: "):
                await page.run("null.x")

    run(main())
