"""Which backend runs, how it is chosen, and what an installation contains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

import websock
from websock._compat import env_flag

# What choosers choose, and what belongs to it.
TWINS = ["_kernels", "_codec", "_stream"]
EXTENSIONS = {
    "_kernels_c",
    "_codec_c",
    "_loop_c",
    "_channel_c",
    "_inbox_c",
    "_stream_c",
}
PROBE = "websock._kernels_c"

#: Makes the import of one module fail, from before the package is imported.
SABOTAGE = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise {error}

sys.meta_path.insert(0, Finder())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with these variables and no others of ours."""
    env = {key: value for key, value in os.environ.items() if key[:8] != "WEBSOCK_"}
    env |= environment | {"PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


def backend(code: str = "", **environment: str) -> str:
    """Return the backend that a new interpreter chooses, or the last line it said."""
    done = run(f"{code}\nimport websock; print(websock.BACKEND)", **environment)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return done.stdout.strip()


class TestThisProcess:
    def test_required_means_compiled(self) -> None:
        if env_flag("WEBSOCK_REQUIRE_EXT"):
            assert websock.BACKEND == "c"
        if env_flag("WEBSOCK_PURE"):
            assert websock.BACKEND == "py"

    @pytest.mark.parametrize("name", TWINS)
    def test_all_or_nothing(self, name: str) -> None:
        chooser = import_module(f"websock.{name}")
        twin = import_module(f"websock.{name}_{websock.BACKEND}")
        for item in chooser.__all__:
            assert getattr(chooser, item) is getattr(twin, item)

    @pytest.mark.ext
    @pytest.mark.parametrize("name", TWINS)
    def test_twins_have_the_same_names(self, name: str) -> None:
        chooser = import_module(f"websock.{name}")
        for tag in ("c", "py"):
            twin = import_module(f"websock.{name}_{tag}")
            assert set(chooser.__all__) <= set(dir(twin))


class TestChoice:
    def test_pure(self) -> None:
        assert backend(WEBSOCK_PURE="1") == "py"

    @pytest.mark.ext
    @pytest.mark.parametrize("value", ["", "0", "no", "False", " off "])
    def test_not_pure(self, value: str) -> None:
        assert backend(WEBSOCK_PURE=value) == "c"

    @pytest.mark.ext
    def test_required(self) -> None:
        assert backend(WEBSOCK_REQUIRE_EXT="1") == "c"

    def test_both_is_an_error(self) -> None:
        assert backend(WEBSOCK_PURE="1", WEBSOCK_REQUIRE_EXT="1") == (
            "ImportError: WEBSOCK_PURE and WEBSOCK_REQUIRE_EXT are both set"
        )

    def test_absent(self) -> None:
        error = f"ModuleNotFoundError('No module', name={PROBE!r})"
        absent = SABOTAGE.format(module=PROBE, error=error)
        assert backend(absent) == "py"
        assert "ModuleNotFoundError" in backend(absent, WEBSOCK_REQUIRE_EXT="1")

    @pytest.mark.parametrize(
        "error",
        [
            "ImportError('undefined symbol', name='websock._kernels_c')",
            "ModuleNotFoundError('No module', name='something_else')",
        ],
    )
    def test_broken_is_heard(self, error: str) -> None:
        broken = SABOTAGE.format(module=PROBE, error=error)
        assert error.partition("(")[0] in backend(broken)

    @pytest.mark.ext
    @pytest.mark.parametrize("name", sorted(EXTENSIONS - {"_kernels_c"}))
    def test_partly_absent_is_heard(self, name: str) -> None:
        module = f"websock.{name}"
        error = f"ModuleNotFoundError('No module', name={module!r})"
        assert "ModuleNotFoundError" in backend(
            SABOTAGE.format(module=module, error=error)
        )


class TestKernel:
    CODE = "from websock import _kernels; print(_kernels.KERNEL)"

    @pytest.mark.ext
    def test_every_kernel_by_name(self) -> None:
        from websock._kernels_c import kernels

        assert "scalar" in kernels()
        for name in kernels():
            done = run(self.CODE, WEBSOCK_KERNEL=name, WEBSOCK_REQUIRE_EXT="1")
            assert done.stdout.strip() == name, done.stderr

    def test_unknown_kernel(self) -> None:
        done = run(self.CODE, WEBSOCK_KERNEL="abacus")
        assert done.returncode
        assert "ValueError" in done.stderr
        assert "abacus" in done.stderr


class TestReport:
    def test_it_names_what_runs(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "websock"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        assert lines["websock"].startswith(websock.__version__)
        assert lines["backend"].split()[0] == websock.BACKEND
        assert {"kernel", "CPU", "Python", "loops"} <= set(lines)


def installed() -> Distribution | None:
    """Return the distribution, unless it is an editable installation."""
    try:
        found = distribution("websock-fast")
    except PackageNotFoundError:
        return None
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    return None if origin.get("dir_info", {}).get("editable") else found


@pytest.mark.skipif(installed() is None, reason="this is no installation from a wheel")
class TestInstallation:
    @pytest.fixture
    def files(self) -> set[str]:
        found = installed()
        assert found is not None
        return {file.as_posix() for file in found.files or ()}

    def test_it_is_what_was_imported(self) -> None:
        found = installed()
        assert found is not None
        expected = Path(str(found.locate_file("websock/__init__.py")))
        assert websock.__file__ is not None
        assert Path(websock.__file__).samefile(expected)

    def test_no_sources_of_the_extensions(self, files: set[str]) -> None:
        assert "websock/py.typed" in files
        wrong = (".c", ".h", ".pyx", ".pxd", ".html")
        assert [file for file in files if file.endswith(wrong)] == []

    def test_nothing_else_is_installed(self, files: set[str]) -> None:
        tops = {file.partition("/")[0] for file in files if not file.startswith("..")}
        assert {top for top in tops if not top.endswith(".dist-info")} == {"websock"}

    def test_extensions(self, files: set[str]) -> None:
        found = {
            file.partition("/")[2].partition(".")[0]
            for file in files
            if file.endswith((".so", ".pyd"))
        }
        assert found in (set(), EXTENSIONS)
        if websock.BACKEND == "c":
            assert found
