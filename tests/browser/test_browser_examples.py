"""The pages of the examples, used as a person uses them."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from browser.site import Tab
from scripted import Run, loop_fixture

pytestmark = [pytest.mark.browser, pytest.mark.source]
run = loop_fixture()

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

# Says something in the form of a page, and waits until the page shows a line.
SAY = """
  if (args[0] !== null) {
    document.getElementById("text").value = args[0];
    document.querySelector("#form button").click();
  }
"""
SEE = """
  const log = document.getElementById("log");
  if (!log.textContent.split("\\n").includes(args[0])) {
    await new Promise((resolve) => {
      new MutationObserver(() => {
        if (log.textContent.split("\\n").includes(args[0])) resolve();
      }).observe(log, { childList: true, characterData: true, subtree: true });
    });
  }
  return log.textContent;
"""


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_echo(run: Run, driver: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        server, http = await example("events_echo").start(0)
        async with server:
            port = http.sockets[0].getsockname()[1]
            page = Tab(driver)
            await page.visit(f"http://localhost:{port}/")
            await page.run(SEE, "connected, speaks echo-protocol")
            await page.run(SAY, "hello é")
            assert "> hello é\n" in await page.run(SEE, "< hello é")
            server.close_all_connections(4000, "enough")
            await page.run(SEE, "closed 4000 enough")
            http.close()

    run(main())
    assert "received text: hello é\n" in capsys.readouterr().out


def test_chat(run: Run, driver: Any) -> None:
    async def main() -> None:
        runner = web.AppRunner(example("events_chat").make_app())
        await runner.setup()
        try:
            await web.TCPSite(runner, "localhost", 0).start()
            port = runner.addresses[0][1]
            page = Tab(driver)
            await page.visit(f"http://localhost:{port}/#tea")
            await page.run(SEE, "somebody comes into tea")
            await page.run(SAY, "hello")
            await page.run(SEE, "somebody: hello")
            first = driver.current_window_handle
            await asyncio.to_thread(driver.switch_to.new_window, "tab")
            try:
                await page.visit(f"http://localhost:{port}/#tea")
                await page.run(SEE, "somebody comes into tea")
                await page.run(SAY, "me too")
            finally:
                await asyncio.to_thread(driver.close)
                await asyncio.to_thread(driver.switch_to.window, first)
            await page.run(SEE, "somebody: me too")
            await page.run(SEE, "somebody leaves")
        finally:
            await runner.cleanup()

    run(main())
