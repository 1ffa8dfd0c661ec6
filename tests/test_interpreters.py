"""What an import does in sub-interpreters, and to the lock of free-threaded Python."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest

from websock import BACKEND

#: Prints what ``import websock`` gives in a sub-interpreter that shares the lock of the
#: interpreter or, from Python 3.12 on, has one of its own.
CODE = """
import sys
import websock

code = "import websock, sys; print(websock.BACKEND, flush=True)"
own = sys.argv[1] == "own"
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    made = interpreters.create("isolated" if own else "legacy")
    failure = interpreters.exec(made, code)
    if failure is not None:
        print(failure.type.__name__, failure.msg)
else:
    import _xxsubinterpreters as interpreters
    made = interpreters.create(isolated=own)
    try:
        interpreters.run_string(made, code)
    except interpreters.RunFailedError as exc:
        print(exc)
interpreters.destroy(made)
print("goes on with", websock.BACKEND)
"""


def said(kind: str) -> list[str]:
    """Return what a new process prints that has a sub-interpreter of this kind."""
    done = subprocess.run(
        # Both look in the same places: not where they are started.
        [sys.executable, "-P", "-c", CODE, kind],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="PyPy has no sub-interpreters"
)
@pytest.mark.parametrize("kind", ["shared", "own"])
def test_import(kind: str) -> None:
    answer, goes_on = said(kind)
    if BACKEND == "c":
        # Compiled modules share types and state, so the first interpreter has them.
        assert "ImportError" in answer
        assert "interpreter" in answer
    else:
        assert answer == BACKEND
    assert goes_on == f"goes on with {BACKEND}"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="Python has its lock"
)
def test_import_keeps_the_lock_off() -> None:
    code = "import sys, websock; print(websock.BACKEND, sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        # With PYTHON_GIL=0 it would be off whatever is imported.
        env={k: v for k, v in os.environ.items() if k != "PYTHON_GIL"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [BACKEND, "False"]
