"""That nothing in the documentation is left out of the tests, and no link leads nowhere."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import shlex
import tomllib

import pytest
from doc_pages import DOCS, ROOT, Block, blocks, commands, files, pages
from test_docs import PAGES as SESSIONS

import websock
from websock import commands as websock_commands

pytestmark = pytest.mark.source

#: Pages whose files are run by test_docs_programs.py, tests/interop and tests/brokers, and which.
PROGRAMS = {
    "docs/contributing/host.md": {
        "tests/test_speedups_shout.py", "websock/speedups/_shout.py",
    },
    "docs/contributing/kernel.md": {"csrc/ws_wide.c"},
    "docs/howto/deployment.md": {
        "Dockerfile", "server.py", "websock.service", "websock.socket",
    },
    "docs/howto/fastapi.md": {"app.py", "two_ports.py"},
    "docs/howto/nginx.md": {"websock.conf"},
    "docs/migrating/node.md": {"server.mjs", "server.py"},
    "docs/restart.md": {"keeper.py", "server.py"},
    "docs/topics.md": {"server.py"},
    "docs/workers.md": {
        "Dockerfile", "app.py", "chat.service", "main.py", "with_lifespan.py",
    },
    "docs/tutorial/chat.md": {"chat.html", "chat.py"},
    "docs/tutorial/client.md": {"client.py", "patient.py"},
    "docs/tutorial/deploy.md": {"live.py"},
    "docs/tutorial/first-server.md": {"server.py"},
    "docs/tutorial/page.md": {"page.html", "page_server.py"},
    "docs/tutorial/test.md": {"test_chat.py"},
}  # fmt: skip
#: Pages with examples that have tests of their own.
OTHERS = {
    "README.md": "test_docs_readme.py",
    "SECURITY.md": "test_docs_readme.py",
    "docs/contributing/kernel.md": "test_docs_contributing.py",
    "docs/contributing/host.md": "test_docs_contributing.py",
    "docs/speedups/aiohttp.md": "test_docs_readme.py",
    "docs/speedups/autobahn.md": "test_docs_readme.py",
    "docs/speedups/overview.md": "test_docs_readme.py",
    "docs/speedups/tornado.md": "test_docs_readme.py",
    "docs/speedups/uvicorn.md": "test_docs_readme.py",
    "docs/speedups/websocket-client.md": "test_docs_readme.py",
    "docs/speedups/websockets.md": "test_docs_readme.py",
    "docs/speedups/wsaccel.md": "test_docs_readme.py",
    "docs/speedups/wsproto.md": "test_docs_readme.py",
}
#: Directives of Sphinx, and what is no program.
SILENT = {"text", "console", "{toctree}", "{eval-rst}"}

PAGES = pages()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M))


def test_there_are_pages() -> None:
    assert {"README.md", "docs/index.md", "docs/events.md"} <= set(PAGES)
    for page in (*SESSIONS, *PROGRAMS, *OTHERS):
        assert page in PAGES
    for name in OTHERS.values():
        assert (ROOT / "tests" / name).exists()


@pytest.mark.parametrize("page", PAGES)
def test_every_example_is_run(page: str) -> None:
    assert set(files(page)) == PROGRAMS.get(page, set())
    for block in blocks(page):
        if block.name is None and block.language not in SILENT:
            assert page in OTHERS or (
                page in SESSIONS and block.language == "python"
            ), f"{page} has an example that nothing runs:\n{block.text}"


# -- commands ------------------------------------------------------------------------

CONSOLE = [
    block for page in PAGES for block in blocks(page) if block.language == "console"
]
#: Programs of others, whose arguments are run elsewhere or are up to them.
FOREIGN = {
    ".", "cd", "docker", "git", "nginx", "node", "npm", "openssl", "printf", "pytest",
    "systemctl", "systemd-socket-activate", "uvicorn", "gunicorn",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(exit_on_error=False)
    subparsers = made.add_subparsers()
    for name in websock_commands.NAMES:
        module = importlib.import_module(f"websock.commands.{name}")
        module.add_command(subparsers)
    return made


@pytest.mark.parametrize("block", CONSOLE, ids=lambda b: f"{b.page}:{b.text[:20]!r}")
def test_commands_exist(block: Block) -> None:
    for command in commands(block):
        for part in re.split(r" \| | && ", command):
            check(shlex.split(re.sub(r" [<>] \S+", "", part), comments=True))


def check(words: list[str]) -> None:
    """Check that a command could be given."""
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words = words[1:]  # variables
    first, *rest = words
    if first in ("python", "python3") and rest[:2] == ["-m", "websock"]:
        first, rest = "websock", rest[2:]
    if first == "websock":
        if rest and rest[0] != "run":
            parser().parse_args(rest)
        assert not rest or rest[0] in websock_commands.NAMES
    elif first in ("python", "python3"):
        while rest[:1] in (["-X"], ["-W"]):
            rest = rest[2:]
        if rest[:1] == ["-m"]:
            top = rest[1].partition(".")[0]
            # Those of the checkout, of Python, and of what the tests install.
            assert top in ("bench", "venv", "asyncio", "pdb", "build", "cProfile"), rest
        else:
            assert rest[0].endswith(".py"), rest
    elif first == "make":
        for word in rest[2:] if rest[:2] == ["-C", "csrc"] else rest:
            assert "=" in word or word in TARGETS, word
    elif first == "pip":
        assert rest[0] == "install"
        for word in rest[1:]:
            found = re.fullmatch(r"websock-fast\[(\w+)\]", word)
            assert found is None or found[1] in EXTRAS, word
    else:
        assert first in FOREIGN, words


# -- links ---------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    text = PAGES[page].read_text(encoding="utf-8")
    titles = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M
    )
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
    }


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    path = PAGES[page]
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        place, _, anchor = target.partition("#")
        found = (path.parent / place).resolve() if place else path
        if "bench/results" in target and not (ROOT / "bench" / "results").exists():
            continue  # the sdist has no results
        assert found.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(found.relative_to(ROOT).as_posix()), target


def test_every_public_module_has_a_place_in_the_reference() -> None:
    text = "".join(
        path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md")
    )
    found = re.findall(r"websock(?:\.[a-z]\w*)+", text)
    documented = {".".join(name.split(".")[:2]) for name in found}
    # Parts of what is documented, or of the machinery.
    parts = {
        "websock.admission",
        "websock.closing", "websock.commands", "websock.handshake", "websock.headers",
        "websock.log_limit", "websock.proxy", "websock.redirect", "websock.report", "websock.routing",
        "websock.timers", "websock.transform", "websock.version",
        "websock.extensions.deflate",
    }  # fmt: skip
    for info in pkgutil.iter_modules(websock.__path__, "websock."):
        name = info.name
        if name.rpartition(".")[2].startswith("_") or name in parts:
            assert name not in documented, name
            continue
        assert name in documented, f"{name} is in no page of docs/reference"
