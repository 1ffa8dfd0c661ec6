"""The pages of the chat and of the ticker, used as a person uses them."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from browser.site import Tab
from browser.test_browser_examples import SAY, SEE
from scripted import Run, loop_fixture

pytestmark = [pytest.mark.browser, pytest.mark.source]
run = loop_fixture()

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def main_of(name: str) -> Callable[..., Coroutine[Any, Any, None]]:
    path = EXAMPLES / name / "server.py"
    spec = importlib.util.spec_from_file_location(f"{name}_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Coroutine[Any, Any, None]] = module.main
    return found


async def address(capsys: pytest.CaptureFixture[str]) -> str:
    """Wait until an example says where it listens."""
    for _ in range(1000):
        if line := capsys.readouterr().out.strip():
            return line
        await asyncio.sleep(0.01)
    raise AssertionError("it does not listen")


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_chat(run: Run, driver: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        start = main_of("chat")
        serving = asyncio.create_task(start(0))
        url = await address(capsys)
        port = int(url.rstrip("/").rpartition(":")[2])
        page = Tab(driver)
        await page.visit(f"{url}?name=ann#tea")
        await page.run(SEE, "ann comes in")
        await page.run(SAY, "hello é")
        await page.run(SEE, "ann: hello é")
        # A restart: the page connects again by itself, and says that it is another chat.
        await end(serving)
        serving = asyncio.create_task(start(port))
        assert await address(capsys) == url
        await page.run(SEE, "(the chat began anew)")
        await page.run(SAY, "still here")
        await page.run(SEE, "ann: still here")
        await end(serving)

    run(main())


PRICES = """
  const box = document.querySelector(`#choice input[value="${args[0]}"]`);
  box.click();
  const table = document.getElementById("prices");
  const names = () => [...table.rows].map((row) => row.cells[0].textContent);
  while (names().length < args[1]) await new Promise((go) => setTimeout(go, 20));
  const text = () => [...table.rows].map((row) => row.cells[1].textContent).join();
  const before = text();
  while (text() === before) await new Promise((go) => setTimeout(go, 20));
  return names().sort().join();
"""


def test_ticker(run: Run, driver: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        serving = asyncio.create_task(main_of("ticker")(0))
        page = Tab(driver)
        await page.visit(await address(capsys))
        await page.run(
            "const state = document.getElementById('state');"
            "while (state.textContent !== 'connected')"
            " await new Promise((go) => setTimeout(go, 20));"
        )
        assert await page.run(PRICES, "metals.*", 2) == "metals.gold,metals.silver"
        assert await page.run(PRICES, "oil.brent", 3) == (
            "metals.gold,metals.silver,oil.brent"
        )
        await end(serving)

    run(main())
