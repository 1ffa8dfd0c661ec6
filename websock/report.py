"""What is installed and what it runs on, for ``python -m websock``."""

from __future__ import annotations

import platform
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from . import _kernels
from ._compat import BACKEND
from ._optional import find_fault
from .asyncio.tls import AIOFASTNET_NAMES
from .extensions.deflate import ZLIB_NAMES
from .version import version

__all__ = ["report"]

# Modules that are used where they are, with names that they must have.
OPTIONAL = {
    "uvloop": ("Loop", "new_event_loop"),
    "aiofastnet": AIOFASTNET_NAMES,
    "python_socks": ("ProxyType",),
    "werkzeug": (),
}
ZLIB = "zlib_ng.zlib_ng"


def cpu_name() -> str:
    """Return the name of the processor, or of its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Model"):
                    return f"{value.strip()} ({platform.machine()})"
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def python_name() -> str:
    """Return the implementation, version and build of the interpreter."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        name += " (free-threaded)"
    return f"{name} on {platform.platform()}"


def loop_name() -> str:
    """Return the event loop that asyncio makes here, and whether uvloop is there."""
    default = "proactor" if sys.platform == "win32" else "selector"
    if "uvloop" not in found():
        return f"asyncio ({default})"
    return f"asyncio ({default}), uvloop"


def found() -> list[str]:
    """Return the optional modules that are installed and work."""
    installed = [name for name in OPTIONAL if find_spec(name)]
    return [name for name in installed if not find_fault(name, OPTIONAL[name])]


def faults() -> list[tuple[str, str]]:
    """Return the optional modules that are installed and do not work, with reasons."""
    modules = OPTIONAL | {ZLIB: ZLIB_NAMES}
    named = [(name, find_fault(name, needed)) for name, needed in modules.items()]
    return [("broken", f"{name}: {fault}") for name, fault in named if fault]


def report() -> list[tuple[str, str]]:
    """Return the facts, as pairs of a name and a value."""
    backend = "c (compiled)" if BACKEND == "c" else "py (pure Python)"
    kernels = ", ".join(_kernels.kernels())
    return [
        ("websock", f"{version} in {Path(__file__).parent}"),
        ("backend", backend),
        ("kernel", f"{_kernels.KERNEL} (usable here: {kernels})"),
        ("CPU", cpu_name()),
        ("Python", python_name()),
        ("loops", loop_name()),
        ("found", ", ".join(found()) or "no extra"),
        *faults(),
    ]
