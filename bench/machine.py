"""Facts about the machine that stand beside every figure."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any


def describe(python: str) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a figure."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "python -m bench " + shlex.join(sys.argv[1:]),
        "commit": _output("git", "describe", "--always", "--dirty", "--exclude=*"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "governor": _governor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": _python_name(python),
        "busy": round(os.getloadavg()[0], 2),
    }


def summary(facts: dict[str, Any]) -> list[str]:
    """Return the facts as lines of text for a report."""
    return [
        f"{facts['cpu']}, {facts['cores']} cores, governor {facts['governor']}, "
        f"{facts['kernel']}",
        f"{facts['python']}, commit {facts['commit'] or 'unknown'}, {facts['date']}, "
        f"load average at the start {facts['busy']}",
    ]


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.machine()


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def _python_name(python: str) -> str:
    code = (
        "import platform, sysconfig as s;"
        "print(platform.python_implementation(), platform.python_version(),"
        "'free-threaded' if s.get_config_var('Py_GIL_DISABLED') else '')"
    )
    if python == sys.executable:
        threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
        name = f"{platform.python_implementation()} {platform.python_version()}"
        return name + (" free-threaded" if threaded else "")
    return _output(python, "-c", code) or "unknown Python"
