"""Runs the tests that other libraries ship, with websock's speed-up in them.

    python tests/hosts/run.py [HOST ...] [-- PYTEST OPTION ...]

For each host of ``hosts.toml`` it downloads the source distribution with pip, makes a
virtual environment with the host and this tree's ``websock``, and runs the host's tests
with the plugin that puts ``websock`` in.  Downloads and environments are kept in
``build/hosts``.  ``left_out.toml`` has every test that is left out, and why.

The exit code is 1 when a test fails, or when a test that is left out does not exist.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "hosts"


def read_table(name: str) -> dict[str, Any]:
    with open(HERE / name, "rb") as file:
        return tomllib.load(file)


def run(*command: str | Path, **kwargs: Any) -> int:
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), check=False, **kwargs).returncode


class Host:
    """One host: where its tests are, and how they are run."""

    def __init__(self, name: str, entry: dict[str, Any]) -> None:
        self.name = name
        self.version: str = entry["version"]
        self.install: list[str] = entry["install"]
        self.tests: list[str] = entry["tests"]
        self.plugin: str = entry["plugin"]
        self.options: list[str] = entry.get("options", [])
        self.environment: dict[str, str] = entry.get("environment", {})
        python = f"{sys.implementation.cache_tag}"
        self.sources = CACHE / f"{name}-{self.version}"
        self.venv = CACHE / f"venv-{name}-{self.version}-{python}"

    @property
    def python(self) -> Path:
        if os.name == "nt":
            return self.venv / "Scripts" / "python.exe"
        return self.venv / "bin" / "python"

    def prepare(self) -> None:
        """Download and install what is not there yet."""
        wanted = "\n".join([*self.install, ""])
        stamp = self.venv / "installed.txt"
        if not stamp.exists() or stamp.read_text() != wanted:
            venv.create(self.venv, clear=True, with_pip=True)
            self.pip("install", *self.install)
            self.link_websock()
            stamp.write_text(wanted)
        if not self.sources.exists():
            self.download()

    def pip(self, *arguments: str) -> None:
        options = ("--quiet", "--disable-pip-version-check")
        if run(self.python, "-m", "pip", *options, *arguments):
            raise SystemExit(f"{self.name}: pip failed")

    def link_websock(self) -> None:
        """Have the environment import this tree's package, and nothing else of it."""
        code = "import sysconfig; print(sysconfig.get_path('platlib'))"
        found = subprocess.run(
            [self.python, "-c", code], check=True, capture_output=True, text=True
        )
        (Path(found.stdout.strip()) / "websock").symlink_to(ROOT / "websock")

    def download(self) -> None:
        """Unpack the source distribution."""
        wheels = ("--no-binary", ":all:", "--no-deps", "--no-build-isolation")
        requirement = f"{self.name}=={self.version}"
        archives = CACHE / "archives"
        # pip builds the metadata of what it downloads, if it has what that takes.
        self.pip("install", "hatchling", "setuptools", "wheel", "Cython")
        self.pip("download", *wheels, "--dest", str(archives), requirement)
        name = requirement.replace("==", "-")
        [archive] = [
            path
            for path in archives.glob("*.tar.gz")
            if path.name.lower().replace("_", "-") == f"{name}.tar.gz"
        ]
        with tarfile.open(archive) as file:
            top = file.getnames()[0].partition("/")[0]
            file.extractall(CACHE / "unpacked", filter="data")
        os.replace(CACHE / "unpacked" / top, self.sources)

    def test(self, options: list[str]) -> int:
        """Run the tests; return the exit code of pytest."""
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            **self.environment,
            "PYTHONPATH": path.rstrip(os.pathsep),
            "WEBSOCK_HOST": self.name,
        }
        plugins = ("-p", "left_out", "-p", self.plugin)
        return run(
            *(self.python, "-m", "pytest", "-q", *plugins),
            *(*self.options, *self.tests, *options),
            cwd=self.sources,
            env=environment,
        )


def main() -> None:
    hosts = {
        name: Host(name, entry) for name, entry in read_table("hosts.toml").items()
    }
    arguments = sys.argv[1:]
    options: list[str] = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, options = arguments[:place], arguments[place + 1 :]
    parser = argparse.ArgumentParser(description="Runs the tests of other libraries.")
    parser.add_argument("host", nargs="*", help=f"by default: {', '.join(hosts)}")
    names = parser.parse_args(arguments).host or list(hosts)
    for name in names:
        if name not in hosts:
            parser.error(f"no host {name!r}: there are {', '.join(hosts)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in names:
        hosts[name].prepare()
        results[name] = hosts[name].test(options)
    left_out = read_table("left_out.toml")
    print()
    for name, code in results.items():
        outcome = "failed" if code else "passed"
        print(f"{name} {hosts[name].version}: {outcome}")
        for test, reason in left_out.get(name, {}).items():
            print(f"  left out: {test}: {' '.join(reason.split())}")
    sys.exit(any(results.values()))


if __name__ == "__main__":
    main()
