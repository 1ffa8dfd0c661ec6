"""Packages that can be done without: missing, broken, or too old."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import websock
from websock._optional import find_fault, use_optional

TIMEOUT = 120

#: Talks, compressed and over TLS, and says what did the work.
TALK = """
import asyncio, ssl, sys
import trustme
from websock.asyncio import tls
from websock.asyncio.client import connect
from websock.asyncio.server import serve
from websock.extensions import deflate

authority = trustme.CA()
theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
ours = ssl.create_default_context()
authority.issue_cert("localhost").configure_cert(theirs)
authority.configure_trust(ours)

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with serve(echo, "localhost", 0, ssl=theirs) as server:
        port = server.sockets[0].getsockname()[1]
        uri = f"wss://localhost:{port}"
        async with connect(uri, ssl=ours, proxy=None) as ws:
            await ws.send(1000 * "hello ")
            assert await ws.recv() == 1000 * "hello "
            assert ws.protocol.extensions

asyncio.run(main())
print(deflate.zlib.__name__, tls.aiofastnet and tls.aiofastnet.__name__)
"""

FAULTS = {
    "raise ImportError('lib.so: undefined symbol: x')": (
        "ImportError: lib.so: undefined symbol: x"
    ),
    "import sys; sys.there_is_no_such_name": (
        "AttributeError: module 'sys' has no attribute 'there_is_no_such_name'"
    ),
    "import what_it_needs_itself": (
        "ModuleNotFoundError: No module named 'what_it_needs_itself'"
    ),
}


def run(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run an interpreter that finds packages in a directory first."""
    paths = [str(path), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def install(path: Path, code: str, *names: str) -> None:
    """Write packages, and modules in packages, that consist of this code."""
    for name in names:
        package = path.joinpath(*name.split("."))
        package.mkdir()
        (package / "__init__.py").write_text(code)


@pytest.mark.parametrize("code", FAULTS)
def test_broken(tmp_path: Path, code: str) -> None:
    install(tmp_path, code, "zlib_ng", "aiofastnet", "uvloop")
    done = run("-c", TALK, path=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["zlib", "None"])
    said = [line.partition("RuntimeWarning: ")[2] for line in done.stderr.splitlines()]
    assert sorted(filter(None, said)) == [
        f"{name} is installed and cannot be used, so it is left alone: {FAULTS[code]}"
        for name in ("aiofastnet", "zlib_ng.zlib_ng")
    ]


def test_too_old(tmp_path: Path) -> None:
    install(tmp_path, "", "zlib_ng")
    install(tmp_path, "compressobj = error = 1", "zlib_ng.zlib_ng")
    install(tmp_path, "create_connection = create_server = 1", "aiofastnet")
    done = run("-W", "ignore", "-c", TALK, path=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["zlib", "None"])
    assert done.stderr == ""
    done = run("-W", "error", "-c", "import websock.extensions.deflate", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "RuntimeWarning: zlib_ng.zlib_ng is installed and cannot be used, so it is left "
        "alone: it has no decompressobj, Z_SYNC_FLUSH, Z_FULL_FLUSH"
    )


def test_missing_is_silent(tmp_path: Path) -> None:
    absent = "import sys; sys.modules['zlib_ng'] = sys.modules['aiofastnet'] = None"
    done = run("-W", "error", "-c", f"{absent}\n{TALK}", path=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["zlib", "None"])
    assert done.stderr == ""


def test_doctor_says_what_is_broken(tmp_path: Path) -> None:
    code, fault = next(iter(FAULTS.items()))
    install(tmp_path, code, "zlib_ng", "aiofastnet", "uvloop", "python_socks")
    install(tmp_path, "", "werkzeug")
    done = run("-W", "ignore", "-m", "websock", "doctor", path=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = [
        line.split(None, 1) for line in done.stdout.partition("\n\n")[0].split("\n")
    ]
    assert [text for name, text in facts if name == "broken"] == [
        f"{name}: {fault}"
        for name in ("uvloop", "aiofastnet", "python_socks", "zlib_ng.zlib_ng")
    ]
    assert ["found", "werkzeug"] in facts
    assert "uvloop" not in dict(facts)["loops"]
    assert dict(facts)["backend"].startswith(f"{websock.BACKEND} (")


def test_faults_of_modules() -> None:
    assert find_fault("zlib", ("compressobj",)) == ""
    assert find_fault("zlib", ("no_such_name", "error", "nor_this")) == (
        "it has no no_such_name, nor_this"
    )
    assert find_fault("there_is_no_such_package.part") == ""
    assert find_fault("xml.there_is_no_such_part") == (
        "ModuleNotFoundError: No module named 'xml.there_is_no_such_part'"
    )


REFUSALS = [
    "module some_fast does not support loading in subinterpreters",
    "Interpreter change detected - this module can only be loaded into one "
    "interpreter per process.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusing_an_interpreter_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    install(tmp_path, f"raise ImportError({text!r})", "some_fast")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert use_optional("some_fast", ()) is None  # a warning would be an error


def test_a_warning_names_who_wanted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "raise OSError('libz-ng.so.2: cannot open')", "some_other")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(RuntimeWarning, match=r"OSError: libz-ng\.so\.2") as caught:
        assert use_optional("some_other", ()) is None
    assert len(caught) == 1
