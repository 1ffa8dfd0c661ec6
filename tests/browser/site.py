"""A site for the browser: a page and WebSockets on one port, and a tab that shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from websock.events import WebSocketRequest, WebSocketServer

PAGE = Path(__file__).with_name("page.html")
HOST = "127.0.0.1"

# A script is the body of an async function; what it throws comes back as text.
WRAPPED = """
const [done, args] = [arguments[arguments.length - 1], [...arguments].slice(0, -1)];
(async (...args) => {%s})(...args).then(
  (value) => done({ value }),
  (error) => done({ error: `${error.name}: ${error.message}` }),
);
"""


class PageError(Exception):
    """A script failed in the page."""


class Tab:
    """The page that the browser shows, for coroutines."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    async def visit(self, url: str) -> None:
        await asyncio.to_thread(self.driver.get, url)

    async def run(self, script: str, *args: Any) -> Any:
        """Run a script; return what it returns.

        Raises:
            PageError: When it throws something.
        """
        result = await asyncio.to_thread(
            self.driver.execute_async_script, WRAPPED % script, *args
        )
        if "error" in result:
            raise PageError(result["error"])
        return result["value"]


class Site(Tab):
    """The page of a site, and its address."""

    def __init__(self, driver: Any, port: int) -> None:
        super().__init__(driver)
        self.port = port

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"


async def page(request: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE)


@contextlib.asynccontextmanager
async def site(driver: Any, server: WebSocketServer) -> AsyncIterator[Site]:
    """Serve the page on the port of a server's WebSockets, and show it."""
    app = web.Application()
    app.router.add_get("/", page)
    server.attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        shown = Site(driver, runner.addresses[0][1])
        await shown.visit(shown.origin)
        yield shown
    finally:
        await runner.cleanup()


def echo(request: WebSocketRequest) -> None:
    """Accept a request, and send every message back."""
    connection = request.accept()
    connection.on("message", connection.send)


def echo_server(**options: Any) -> WebSocketServer:
    server = WebSocketServer(path="/ws", **options)
    server.on("request", echo)
    return server


def noise(size: int) -> bytes:
    """Make bytes that are no pattern, the same as in the page."""
    x = 1
    made = bytearray()
    for _ in range(size):
        x = x * 16807 % 2147483647
        made.append(x % 256)
    return bytes(made)
