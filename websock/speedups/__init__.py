"""Speed for programs that use another library: its slow parts are replaced.

    import websock.speedups

    websock.speedups.install()                # all that fits
    websock.speedups.install("uvicorn")       # or by name

Each patch is for versions of its host that it is known to work with, and is tested
before it is installed; else the host is left alone, and a warning is logged once, to
``websock.speedups``.  A host that is not imported yet is patched when it is.  Every
patch can be taken back.

``python -m websock run`` installs all that fits and runs a program; ``python -m websock
doctor`` says what fits.
"""

from __future__ import annotations

from typing import Any

from ._patch import Patch
from ._registry import HOSTS, Registry, Status

__all__ = ["Patch", "Status", "install", "modules", "status", "uninstall"]

_registry = Registry(HOSTS)


def install(*names: str, **options: Any) -> None:
    """Install patches, now or when their hosts are imported.

    With the pure backend there is nothing to gain: that is logged, and nothing is done.
    Installing again is harmless; with other options it replaces what was installed.

    Args:
        *names: Names of hosts; by default all that there are patches for.
        **options: Options of the patch; they need a name.

    Raises:
        TypeError: When a patch does not have an option.
        ValueError: When there is no patch for a name.
    """
    _registry.install(*names, **options)


def uninstall(*names: str) -> None:
    """Take patches back, in any order; connections that are open keep them.

    Args:
        *names: Names of hosts; by default all.

    Raises:
        ValueError: When there is no patch for a name.
    """
    _registry.uninstall(*names)


def status() -> list[Status]:
    """Return what has become of each host, in a fixed order."""
    return _registry.status()


def modules(name: str) -> tuple[str, ...]:
    """Return the modules of a host that its patch waits for.

    Args:
        name: Name of the host.

    Raises:
        ValueError: When there is no patch for it.
    """
    return _registry.modules(name)
