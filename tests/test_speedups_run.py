"""``python -m websock run`` and ``doctor``, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import websock

TIMEOUT = 60  # seconds
RUN = ("-m", "websock", "run")

# Everything that a program can see of how it was started.
LOOK = """
import sys

import __main__

print(__name__, __file__, sys.argv, sys.path[0])
print(__main__.__dict__ is globals(), __spec__ and __spec__.name)
print(sys.excepthook is sys.__excepthook__ or "sys.excepthook")
"""


def python(*arguments: str, cwd: Path, **environment: str) -> Any:
    """Run an interpreter; the backend is that of this process."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )


def outcome(done: Any) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def same(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """Run a program with and without ``websock``; return what it did, both times."""
    ours = outcome(python(*RUN, *arguments, cwd=cwd, **environment))
    assert ours == outcome(python(*arguments, cwd=cwd, **environment))
    return ours


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script, a module and packages."""
    look = LOOK.replace('print(sys.excepthook is sys.__excepthook__ or "', 'print("')
    (tmp_path / "scripts").mkdir()
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "scripts" / "script.py").write_text(look)
    (tmp_path / "module.py").write_text(look)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(look)
    (tmp_path / "package" / "part.py").write_text(look)
    (tmp_path / "package" / "needy.py").write_text("import no_such_thing\n")
    (tmp_path / "package" / "inner" / "__init__.py").write_text("")
    with zipfile.ZipFile(tmp_path / "archive.pyz", "w") as archive:
        archive.writestr("__main__.py", look)
    return tmp_path


# -- run -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("scripts/script.py",),
        ("scripts/script.py", "one", "-m", "two", "--help", "--", "-x"),
        ("-m", "module"),
        ("-m", "module", "-m", "run", "--help", "--"),
        ("-m", "package", "x"),
        ("-m", "package.part"),
        ("package",),
        ("archive.pyz", "x"),
    ],
)
def test_programs_are_run_as_python_runs_them(
    arguments: tuple[str, ...], folder: Path
) -> None:
    status, out, err = same(*arguments, cwd=folder)
    assert (status, err) == (0, "")
    assert out.startswith("__main__ ")


def test_safe_path(folder: Path) -> None:
    status, _, err = same("scripts/script.py", cwd=folder, PYTHONSAFEPATH="1")
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('over')", 1),
        ("import os; os._exit(7)", 7),
        ("def f():\n    raise LookupError('of the program')\nf()", 1),
        ("try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError() from e", 1),
        ("this is no program", 1),
        ("import atexit; atexit.register(print, 'bye'); x = 1 / 0", 1),
        ("import asyncio\nasync def f():\n    1 / 0\nasyncio.run(f())", 1),
    ],
)
def test_ends_of_programs(code: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code)
    found = same("program.py", cwd=tmp_path)
    assert found[0] == status
    if status == 1 and "sys.exit" not in code:
        assert "Error" in found[2]
        assert str(Path(websock.__file__).parent) not in found[2]
    if "no program" not in code:
        # With -m, python itself shows frames of its own; here they are hidden, too.
        done = python(*RUN, "-m", "program", cwd=tmp_path)
        assert done.returncode == status
        assert "runpy" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such exit codes")
@pytest.mark.usefixtures("interruptible")
def test_program_that_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    )
    status, _, err = same("program.py", cwd=tmp_path)
    assert status == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")


def test_program_with_a_hook_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "sys.excepthook = lambda kind, exc, traceback: print('hook', exc)\n"
        "raise LookupError('told')\n"
    )
    assert same("program.py", cwd=tmp_path) == (1, "hook told\n", "")


def test_processes_that_a_program_spawns(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import multiprocessing\n"
        "def double(x):\n"
        "    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]))\n"
    )
    assert same("program.py", cwd=tmp_path) == (0, "[2, 4]\n", "")
    assert same("-m", "program", cwd=tmp_path) == (0, "[2, 4]\n", "")


CHILDREN = """
import multiprocessing
import sys

def tell(way, generations):
    import uvicorn
    print(uvicorn.Config("app:app").ws, flush=True)
    if generations:
        start(way, generations - 1)

def start(way, generations):
    context = multiprocessing.get_context(way)
    process = context.Process(target=tell, args=(way, generations))
    process.start()
    process.join()
    assert process.exitcode == 0

if __name__ == "__main__":
    start(sys.argv[1], 1)
"""


@pytest.mark.parametrize("early", [False, True], ids=["later", "imported already"])
@pytest.mark.parametrize("way", multiprocessing.get_all_start_methods())
def test_children_get_the_speed_ups(way: str, early: bool, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CHILDREN)
    arguments = [*RUN, "program.py", way]
    if early:
        code = "import multiprocessing.process, runpy, sys; sys.argv[1:1] = ['run']; "
        code += "runpy.run_module('websock', run_name='__main__')"
        arguments = ["-c", code, "program.py", way]
    done = python(*arguments, cwd=tmp_path)
    ws = "auto"
    if websock.BACKEND == "c":
        ws = "websock.speedups.uvicorn:WebSocketProtocol"
    assert outcome(done) == (0, f"{ws}\n{ws}\n", "")
    # Of itself, and without the speed-ups.
    done = python("program.py", way, cwd=tmp_path)
    assert outcome(done) == (0, "auto\nauto\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("scripts/scirpt.py",), 2, "no such file: scripts/scirpt.py"),
        (("empty",), 1, "no __main__.py in the directory empty"),
        (("-m", "modul"), 1, "no module named modul"),
        (("-m", "package.prat"), 1, "no module named package.prat"),
        (("-m", "pakcage.part"), 1, "no module named pakcage.part"),
        (("-m", "json.tool.x"), 1, "no module named json.tool.x"),
        (
            ("-m", "module.py"),
            1,
            "no module named module.py: a file is run without -m",
        ),
        (
            ("-m", "package.inner"),
            1,
            "package.inner is a package without a __main__ module",
        ),
        ((), 2, "which program? give a script, or -m and a module"),
        (("-m",), 2, "-m needs the name of a module"),
    ],
)
def test_typos(
    arguments: tuple[str, ...], status: int, text: str, folder: Path
) -> None:
    done = python(*RUN, *arguments, cwd=folder)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.endswith(f"python -m websock run: {text}\n") or (
        done.stderr.endswith(f"python -m websock run: error: {text}\n")
    )
    assert "Traceback" not in done.stderr
    if arguments and arguments != ("-m",):
        # The exit codes are python's.
        assert python(*arguments, cwd=folder).returncode == status


def test_something_that_a_module_needs_is_missing(folder: Path) -> None:
    done = python(*RUN, "-m", "package.needy", cwd=folder)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in done.stderr


def test_hosts_are_patched_for_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "import websock.speedups\n"
        "print('uvicorn' in sys.modules)\n"
        "import uvicorn\n"
        "print(uvicorn.Config('app:app').ws)\n"
        "print({s.name: s.state for s in websock.speedups.status()}['uvicorn'])\n"
    )
    done = python(*RUN, "program.py", cwd=tmp_path)
    ws, state = "websock.speedups.uvicorn:WebSocketProtocol", "patched"
    if websock.BACKEND != "c":
        ws, state = "auto", "useless"
    assert outcome(done) == (0, f"False\n{ws}\n{state}\n", "")


# -- the other commands ----------------------------------------------------------------


def doctor(cwd: Path, code: str = "") -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the facts, and the rows of the table of hosts."""
    if code:
        arguments = ["-c", f"{code}; import sys, runpy; sys.argv[1:] = ['doctor']; "]
        arguments[1] += "runpy.run_module('websock', run_name='__main__')"
    else:
        arguments = ["-m", "websock", "doctor"]
    done = python(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    above, _, below = done.stdout.partition("\n\n")
    facts = dict(line.split(None, 1) for line in above.splitlines())
    head, *rows = below.splitlines()
    assert head.split() == ["host", "version", "state"]
    return facts, {row.split()[0]: row.split(None, 3)[1:] for row in rows}


def test_doctor(tmp_path: Path) -> None:
    facts, hosts = doctor(tmp_path)
    assert facts["backend"].startswith(f"{websock.BACKEND} (")
    assert {"kernel", "CPU", "Python", "loops", "zlib"} <= set(facts)
    used = "zlib-ng" if find_spec("zlib_ng") else "zlib"
    assert facts["zlib"].split()[0] == used
    version, state, reason = hosts["uvicorn"]
    assert version == uvicorn.__version__
    if websock.BACKEND == "c":
        gain = "--ws auto is websock.speedups.uvicorn:WebSocketProtocol"
        assert (state, reason) == ("patched", gain)
    else:
        text = "the pure backend is in use: there is nothing to gain"
        assert (state, reason) == ("useless", text)


def test_doctor_says_which_zlib_is_used(tmp_path: Path) -> None:
    code = "import zlib; from websock.extensions import deflate; deflate.zlib = zlib"
    facts, _ = doctor(tmp_path, code)
    assert facts["zlib"].split(" (")[0] == f"zlib {zlib.ZLIB_RUNTIME_VERSION}"


def test_doctor_without_the_host(tmp_path: Path) -> None:
    _, hosts = doctor(tmp_path, "import sys; sys.modules['uvicorn'] = None")
    assert hosts["uvicorn"] == ["-", "absent", "not installed"]


def test_doctor_with_a_host_that_is_broken(tmp_path: Path) -> None:
    code = "import sys; sys.modules['uvicorn.config'] = None"
    _, hosts = doctor(tmp_path, code)
    _, state, reason = hosts["uvicorn"]
    if websock.BACKEND == "c":
        assert state == "failed"
        assert reason.startswith("cannot import uvicorn.config: ModuleNotFoundError: ")
    else:
        assert state == "useless"


def test_report(tmp_path: Path) -> None:
    done = python("-m", "websock", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["websock", "backend", "kernel", "CPU", "Python", "loops", "found"]


def test_command_line(tmp_path: Path) -> None:
    done = python("-m", "websock", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "run a program with all speed-ups that fit" in done.stdout
    done = python("-m", "websock", "dcotor", cwd=tmp_path)
    assert done.returncode == 2
    assert "invalid choice: 'dcotor'" in done.stderr
