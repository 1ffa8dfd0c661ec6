"""Runs the tests of real applications, in an environment of their own.

    python tests/applications/run.py [PYTEST OPTION ...]

The programs need more libraries than the other tests do: they are in
``requirements.txt``, and are installed into ``build/applications`` together with this
tree's ``websock``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = ROOT / "build" / "applications" / f"venv-{sys.implementation.cache_tag}"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare() -> None:
    """Install what is not there yet."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = ENVIRONMENT / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"applications: installing what they run on into {ENVIRONMENT}", flush=True)
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip = (PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "install", "-r", HERE / "requirements.txt"], check=True)
    # This tree's package, and nothing else of the tree.
    code = "import sysconfig; print(sysconfig.get_path('platlib'))"
    found = subprocess.run(
        [PYTHON, "-c", code], check=True, capture_output=True, text=True
    )
    (Path(found.stdout.strip()) / "websock").symlink_to(ROOT / "websock")
    stamp.write_text(wanted)


def main() -> None:
    prepare()
    options = sys.argv[1:]
    command = [PYTHON, "-P", "-m", "pytest", HERE, "-q", "-p", "no:cacheprovider"]
    sys.exit(subprocess.run([*command, *options], cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
