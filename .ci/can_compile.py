"""Exit with 0 where a C extension can be compiled; else print what is missing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROGRAM = "#include <Python.h>\nint main(void) { return PY_MAJOR_VERSION - 3; }\n"


def missing() -> str | None:
    """Return in plain words what keeps extensions from being compiled."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} runs the pure Python code"
    command = shlex.split(
        os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    )
    if shutil.which(command[0]) is None:
        return (
            f"no C compiler ({command[0]}) "
            "(on Debian and Ubuntu: apt install gcc libc6-dev python3-dev)"
        )
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "probe.c")
        source.write_text(PROGRAM)
        include = sysconfig.get_path("include")
        run = subprocess.run(
            [*command, f"-I{include}", "-c", source.name, "-o", "probe.o"],
            cwd=directory,
            capture_output=True,
            text=True,
        )
        if not run.returncode:
            return None
        if not Path(include, "Python.h").exists():
            return (
                f"the C headers of Python are not in {include} "
                "(on Debian and Ubuntu: apt install python3-dev)"
            )
        return f"the C compiler {command[0]} does not work: {run.stderr.strip()[-300:]}"


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        print(reason)
        sys.exit(1)
