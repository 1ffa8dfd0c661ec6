"""The pages of the chat and of the ticker on two processes, with a broker between them.

The broker is killed and started again while the pages are open.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers.running import in_thread, running, with_redis
from browser.site import Tab
from browser.test_browser_examples import SAY, SEE
from scripted import run_on

pytestmark = [pytest.mark.browser, pytest.mark.source, with_redis]

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
TIMEOUT = 30  # seconds, for a busy machine
# What it has is there again after a restart.
KEEPS = ("--appendonly", "yes", "--appendfsync", "always")


class Worker:
    """A process of an example."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def says(self, text: str) -> None:
        """Wait for a line of its log."""
        assert self.process.stderr is not None
        async with asyncio.timeout(TIMEOUT):
            while text not in (line := (await self.process.stderr.readline()).decode()):
                assert line, f"it ended before it said {text!r}"

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@asynccontextmanager
async def worker(name: str, *arguments: str) -> AsyncIterator[Worker]:
    """Run an example on any free port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(EXAMPLES / name / "server.py"), "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            url = (await process.stdout.readline()).decode().strip()
        assert url.startswith("http://localhost:")
        made = Worker(process, url)
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Page(Tab):
    """A tab of its own in the browser, which is shown while it is used."""

    def __init__(self, driver: Any, handle: str) -> None:
        super().__init__(driver)
        self.handle = handle

    async def visit(self, url: str) -> None:
        await asyncio.to_thread(self.driver.switch_to.window, self.handle)
        await super().visit(url)

    async def run(self, script: str, *args: Any) -> Any:
        await asyncio.to_thread(self.driver.switch_to.window, self.handle)
        return await super().run(script, *args)


@asynccontextmanager
async def tabs(driver: Any) -> AsyncIterator[Callable[[str], Any]]:
    """Give what opens a tab; all are closed at the end."""
    first = driver.current_window_handle

    async def tab(url: str) -> Page:
        await asyncio.to_thread(driver.switch_to.new_window, "tab")
        page = Page(driver, driver.current_window_handle)
        await page.visit(url)
        return page

    try:
        yield tab
    finally:
        for handle in driver.window_handles:
            if handle != first:
                await asyncio.to_thread(driver.switch_to.window, handle)
                await asyncio.to_thread(driver.close)
        await asyncio.to_thread(driver.switch_to.window, first)


def test_chat(driver: Any, tmp_path: Path) -> None:
    async def main() -> None:
        with running("redis", tmp_path / "redis", *KEEPS) as broker:
            async with (
                worker("chat", broker.url) as one,
                worker("chat", broker.url) as two,
                tabs(driver) as tab,
            ):
                ann = await tab(f"{one.url}?name=ann#tea")
                await ann.run(SEE, "ann comes in")
                bob = await tab(f"{two.url}?name=bob#tea")
                for page in (ann, bob):
                    await page.run(SEE, "bob comes in")
                await ann.run(SAY, "hello é")
                await bob.run(SEE, "ann: hello é")
                await bob.run(SAY, "hi")
                for page in (ann, bob):
                    await page.run(SEE, "bob: hi")
                # Who comes late, to the other process, sees what was said.
                eve = await tab(f"{two.url}?name=eve#tea")
                seen = await eve.run(SEE, "eve comes in")
                assert seen.splitlines()[-4:] == [
                    "bob comes in", "ann: hello é", "bob: hi", "eve comes in",
                ]  # fmt: skip
                for page in (ann, bob):
                    await page.run(SEE, "eve comes in")
                # Without the broker each process goes on by itself.
                await in_thread(broker.kill)
                for process in (one, two):
                    await process.says("lost the broker")
                await bob.run(SAY, "only here")
                await eve.run(SEE, "bob: only here")
                await in_thread(broker.start)
                for process in (one, two):
                    await process.says("is back")
                await ann.run(SAY, "all again")
                # Nothing is missing of what went over the broker, nor doubled.
                seen = await ann.run(SEE, "ann: all again")
                assert seen.splitlines()[-2:] == ["eve comes in", "ann: all again"]
                for page in (bob, eve):
                    seen = await page.run(SEE, "ann: all again")
                    assert seen.splitlines()[-5:] == [
                        "eve comes in", "(the chat began anew)", "bob: only here",
                        "(back with the others)", "ann: all again",
                    ]  # fmt: skip

    run_on(None, main())


# Ticks a box, and waits until all that it stands for has a price.
CHOOSE = """
  document.querySelector(`#choice input[value="${args[0]}"]`).click();
  const table = document.getElementById("prices");
  while (table.rows.length < args[1]) await new Promise((go) => setTimeout(go, 20));
"""
CONNECTED = """
  const state = document.getElementById("state");
  while (state.textContent !== "connected") await new Promise((go) => setTimeout(go, 20));
"""
# Notes each price of gold that comes, from now on.
WATCH = """
  const row = [...document.getElementById("prices").rows]
    .find((row) => row.cells[0].textContent === "metals.gold");
  window.seen = [];
  new MutationObserver(() => window.seen.push(row.cells[1].textContent))
    .observe(row.cells[1], { childList: true });
"""
SEEN = """
  while (window.seen.length < args[0]) await new Promise((go) => setTimeout(go, 20));
  return window.seen;
"""
PRICES = """
  return [...document.getElementById("prices").rows]
    .map((row) => row.textContent).sort();
"""


async def ticking(tab: Any, url: str, pattern: str, count: int) -> Page:
    page: Page = await tab(url)
    await page.run(CONNECTED)
    await page.run(CHOOSE, pattern, count)
    return page


def test_ticker(driver: Any, tmp_path: Path) -> None:
    async def main() -> None:
        with running("redis", tmp_path / "redis", *KEEPS) as broker:
            async with (
                worker("ticker", broker.url) as one,
                worker("ticker", broker.url, "quiet") as two,
                tabs(driver) as tab,
            ):
                here = await ticking(tab, one.url, "metals.*", 2)
                there = await ticking(tab, two.url, "metals.*", 2)
                for again in (False, True):
                    if again:
                        await in_thread(broker.kill)
                        for process in (one, two):
                            await process.says("lost the broker")
                        await in_thread(broker.start)
                        for process in (one, two):
                            await process.says("is back")
                    for page in (here, there):
                        await page.run(WATCH)
                    first = await there.run(SEEN, 5)
                    # The same prices, in the same order, on both.
                    own = await here.run(SEEN, len(first) + 5)
                    assert first[0] in own
                    start = own.index(first[0])
                    assert own[start : start + 5] == first[:5]
                # Nobody makes prices any more; who comes late gets the last ones.
                await one.end()
                late = await ticking(tab, two.url, "metals.*", 2)
                assert await late.run(PRICES) == await there.run(PRICES)

    run_on(None, main())
