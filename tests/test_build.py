"""The three build modes, on a copy of the project with almost empty extensions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = (
    "from setuptools import build_meta; import sys; "
    "print(build_meta.build_wheel(sys.argv[1]))"
)
EXTENSIONS = [
    "_kernels_c",
    "_codec_c",
    "_loop_c",
    "_channel_c",
    "_inbox_c",
    "_stream_c",
]

pytestmark = [
    pytest.mark.source,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("setuptools") is None or find_spec("Cython") is None,
        reason="setuptools and Cython are not installed",
    ),
]


class Project:
    """A copy of the project that builds in a second or two."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, path)
        ours = shutil.ignore_patterns(
            "*.so", "*.pyd", "*.pyx", "*.pxd", "*_c.c", "__pycache__"
        )
        shutil.copytree(ROOT / "websock", path / "websock", ignore=ours)
        for name in EXTENSIONS:
            (path / "websock" / f"{name}.pyx").write_text("answer = 42\n")
        (path / "csrc").mkdir()
        self.kernel = path / "csrc" / "ws_mask.c"
        self.kernel.write_text("int ws_answer(void) { return 42; }\n")

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if k[:8] != "WEBSOCK_"}
        return subprocess.run(
            [sys.executable, "-c", BUILD, str(self.path / "dist")],
            cwd=self.path,
            env=env | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def wheel(self, **environment: str) -> Path:
        done = self.build(**environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.path / "dist" / done.stdout.strip().splitlines()[-1]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def extensions(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {
            Path(name).name.partition(".")[0]
            for name in archive.namelist()
            if name.endswith((".so", ".pyd"))
        }


def check_pure(wheel: Path, directory: Path) -> None:
    """See that a wheel says that it is pure, is, and works."""
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == set()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    (metadata,) = directory.glob("*.dist-info/WHEEL")
    assert "Root-Is-Purelib: true" in metadata.read_text()
    env = {k: v for k, v in os.environ.items() if k[:8] != "WEBSOCK_"}
    code = "import websock; print(websock.BACKEND, websock.__file__)"
    output = subprocess.run(
        # Without site-packages, whose editable installation finds extensions.
        [sys.executable, "-S", "-c", code],
        env=env | {"PYTHONPATH": str(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert output.split(maxsplit=1)[0] == "py"
    assert str(directory) in output


@pytest.mark.ext
@pytest.mark.parametrize("required", ["", "1"])
def test_extensions_are_built(project: Project, required: str) -> None:
    wheel = project.wheel(WEBSOCK_REQUIRE_EXT=required)
    assert not wheel.name.endswith("-any.whl")
    assert extensions(wheel) == set(EXTENSIONS)


def test_pure(project: Project, tmp_path: Path) -> None:
    check_pure(project.wheel(WEBSOCK_PURE="1"), tmp_path / "installed")


def test_a_failing_compiler_gives_the_pure_wheel(
    project: Project, tmp_path: Path
) -> None:
    project.kernel.write_text("#error this does not compile\n")
    check_pure(project.wheel(), tmp_path / "installed")


def test_failing_cython_gives_the_pure_wheel(project: Project, tmp_path: Path) -> None:
    (project.path / "websock" / "_codec_c.pyx").write_text("cdef int x = nothing\n")
    check_pure(project.wheel(), tmp_path / "installed")


def test_required_and_failing_is_fatal(project: Project) -> None:
    project.kernel.write_text("#error this does not compile\n")
    done = project.build(WEBSOCK_REQUIRE_EXT="1")
    assert done.returncode
    assert not list(project.path.glob("dist/*.whl"))


def test_both_is_an_error(project: Project) -> None:
    done = project.build(WEBSOCK_REQUIRE_EXT="1", WEBSOCK_PURE="1")
    assert done.returncode
    assert "WEBSOCK_PURE and WEBSOCK_REQUIRE_EXT are both set" in done.stderr


def test_asked_for_by_name_is_fatal(project: Project) -> None:
    project.kernel.write_text("#error this does not compile\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=project.path,
        env={k: v for k, v in os.environ.items() if k[:8] != "WEBSOCK_"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode
