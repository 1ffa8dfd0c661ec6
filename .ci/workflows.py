"""Check the workflows: their schema, their security, and which wheels they build.

    python .ci/workflows.py

Everything is done without the network.  The wheels are those that cibuildwheel names
for the processors in ``wheels.yml`` and the settings in ``pyproject.toml``; they are
held against the list below, in both directions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from itertools import product
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
PYTHONS = ("cp311", "cp312", "cp313", "cp314", "cp314t")
LINUX = ("x86_64", "aarch64", "armv7l", "ppc64le", "s390x", "riscv64", "i686")
SYSTEMS = (
    *(f"{libc}linux_{arch}" for libc, arch in product(("many", "musl"), LINUX)),
    "macosx_x86_64",
    "macosx_arm64",
    "win_amd64",
    "win_arm64",
    "win32",
)
PLATFORMS = {"ubuntu": "linux", "macos": "macos", "windows": "windows"}


def run(program: str, *arguments: str | Path) -> str:
    """Run a program of this environment, and return what it prints; end if it fails."""
    path = shutil.which(program, path=sysconfig.get_path("scripts"))
    if path is None:
        sys.exit(f'websock: {program} is not installed: pip install -e ".[dev]"')
    done = subprocess.run(
        [path, *map(str, arguments)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("CIBW_")},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}websock: {program} found something")
    return done.stdout


def machines() -> set[tuple[str, str]]:
    """Return what the jobs of wheels.yml build for, as platforms and processors."""
    jobs = YAML(typ="safe").load(GITHUB / "workflows" / "wheels.yml")["jobs"]
    found = {
        (PLATFORMS[row["os"].partition("-")[0]], arch)
        for row in jobs["binary"]["strategy"]["matrix"]["include"]
        for arch in row["archs"].split()
    }
    emulated = jobs["emulated"]["strategy"]["matrix"]["arch"]
    return found | {("linux", arch) for arch in emulated}


def wheels() -> set[str]:
    """Return the identifiers of all wheels that the workflow builds."""
    built = machines()
    return {
        identifier
        for platform in sorted({platform for platform, _ in built})
        for identifier in run(
            "cibuildwheel",
            "--print-build-identifiers",
            "--platform",
            platform,
            "--archs",
            ",".join(sorted(arch for where, arch in built if where == platform)),
            ROOT,
        ).split()
    }


def check_wheels() -> int:
    """Return how many wheels are built; end if they are not those of the list."""
    wanted = {f"{python}-{system}" for python, system in product(PYTHONS, SYSTEMS)}
    found = wheels()
    if found != wanted:
        sys.exit(
            f"websock: wheels.yml lacks {' '.join(sorted(wanted - found)) or 'none'}, "
            f"and has besides {' '.join(sorted(found - wanted)) or 'none'}"
        )
    return len(found)


def main() -> None:
    workflows = sorted((GITHUB / "workflows").glob("*.yml"))
    schema = ("check-jsonschema", "--builtin-schema")
    run(*schema, "vendor.github-workflows", *workflows)
    dependabot = GITHUB / "dependabot.yml"
    if dependabot.exists():
        run(*schema, "vendor.dependabot", dependabot)
    run("zizmor", "--offline", "--strict-collection", "--no-progress", GITHUB)
    print(f"websock: {len(workflows)} workflows, {check_wheels()} wheels: all right")


if __name__ == "__main__":
    main()
