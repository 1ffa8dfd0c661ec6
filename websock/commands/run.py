"""``python -m websock run``: a program with all speed-ups that fit.

The program finds what it would find under ``python``: ``sys.argv``, ``sys.path``,
``__main__``, and its exit code is passed on.  Processes that it starts with
``multiprocessing`` get the speed-ups, too; others do not.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import runpy
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import find_spec, module_from_spec
from io import open_code
from types import CodeType, ModuleType, TracebackType
from typing import Any

from .. import speedups
from ..speedups._children import follow_children

__all__ = ["add_command", "run_module", "run_script"]

# Files whose frames are above those of the program.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ABOVE = frozenset(
    (
        "<frozen runpy>",
        runpy.__file__,
        __file__,
        os.path.join(_PACKAGE, "__main__.py"),
    )
)


def run_script(path: str, arguments: list[str]) -> None:
    """Run a script, or a directory or archive with a ``__main__`` module.

    Args:
        path: Its path.
        arguments: Its command line.
    """
    sys.argv = [path, *arguments]
    place = os.path.abspath(path)
    main = ModuleType("__main__")
    if is_plain_script(place):
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(path))
        main.__file__ = place
        main.__loader__ = SourceFileLoader("__main__", place)
        code = read_script(place)
    else:
        # As python does: instead of the folder of a script.
        if sys.flags.safe_path:
            sys.path.insert(0, place)
        else:
            sys.path[0] = place
        spec = PathFinder.find_spec("__main__", [place])
        loader: Any = None if spec is None else spec.loader
        if spec is None or loader is None:
            raise ImportError(f"no __main__ module in {path}")
        main = module_from_spec(spec)
        code = loader.get_code("__main__")
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def read_script(path: str) -> CodeType:
    """Return the code of a script, which may have been compiled."""
    with open_code(path) as file:
        code: CodeType | None = pkgutil.read_code(file)
    if code is None:
        with open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    return code


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module, or the ``__main__`` module of a package.

    Args:
        name: Its name.
        arguments: Its command line.
    """
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def split(arguments: list[str]) -> tuple[list[str] | None, list[str]]:
    """Split a command line: a module and its arguments, or a script and its."""
    # argparse would take a "--" out of the program's arguments.
    if arguments[:1] == ["--"]:
        return None, arguments[1:]
    if arguments and arguments[0].startswith("-m"):
        joined = arguments[0][2:]
        return [joined, *arguments[1:]] if joined else arguments[1:], []
    return None, arguments


def is_plain_script(path: str) -> bool:
    """Whether a path is a file with code, and neither a directory nor an archive."""
    return os.path.isfile(path) and not zipfile.is_zipfile(path)


def why_no_script(path: str) -> tuple[str, int] | None:
    """Return why a script cannot be run, if that is plain to see, and the exit code."""
    if not os.path.exists(path):
        return f"no such file: {path}", 2
    if os.path.isdir(path) and not os.path.isfile(os.path.join(path, "__main__.py")):
        return f"no __main__.py in the directory {path}", 1
    if not os.access(path, os.R_OK):
        return f"cannot read {path}", 2
    return None


def why_no_module(name: str) -> tuple[str, int] | None:
    """Return why a module cannot be run, if that is plain to see, and the exit code."""
    if name.endswith(".py"):
        return f"no module named {name}: a file is run without -m", 1
    try:
        spec = find_spec(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise  # of the program: something it needs is not there
        spec = None
    except ValueError:
        return None
    if spec is None:
        return f"no module named {name}", 1
    if (
        spec.submodule_search_locations is not None
        and find_spec(f"{name}.__main__") is None
    ):
        return f"{name} is a package without a __main__ module", 1
    return None


def hide_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the program's first frame on."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename in _ABOVE:
        traceback = traceback.tb_next
    return traceback


def hide_frames_in(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return an exception hook that shows the program's frames only."""

    def excepthook(
        kind: type[BaseException],
        exc: BaseException,
        traceback: TracebackType | None,
    ) -> None:
        rest = hide_frames(traceback)
        hook(kind, exc.with_traceback(rest), rest)

    return excepthook


def run(arguments: argparse.Namespace) -> None:
    """Install all speed-ups that fit, and run the program."""
    parser: argparse.ArgumentParser = arguments.parser
    module, program = split(sys.argv[2:])
    if module is not None:
        if not module:
            parser.error("-m needs the name of a module")
        if sys.path[:1] == [""]:
            sys.path[0] = os.getcwd()
        problem = why_no_module(module[0])
    else:
        if not program:
            parser.error("which program? give a script, or -m and a module")
        problem = why_no_script(program[0])
    if problem is not None:
        # The exit codes are those of python itself.
        text, status = problem
        parser.exit(status, f"{parser.prog}: {text}\n")
    speedups.install()
    follow_children()
    sys.excepthook = hide_frames_in(sys.excepthook)
    if module is not None:
        run_module(module[0], module[1:])
    else:
        run_script(program[0], program[1:])


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "run",
        usage="python -m websock run (SCRIPT | -m MODULE) [ARGUMENT ...]",
        help="run a program with all speed-ups that fit",
        description="Installs all speed-ups that fit and runs a program, as python "
        "would. Libraries that the program imports later are sped up then.",
    )
    parser.add_argument(
        "-m",
        dest="module",
        metavar="MODULE",
        nargs=argparse.REMAINDER,
        help="a module, and its arguments",
    )
    parser.add_argument(
        "program",
        metavar="SCRIPT",
        nargs=argparse.REMAINDER,
        help="a script, and its arguments",
    )
    parser.set_defaults(run=run, parser=parser)
