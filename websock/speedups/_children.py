"""Speed-ups for the processes that a program starts with ``multiprocessing``.

A process that is spawned, or that a fork server forks, begins with nothing of what its
parent had patched; hypercorn runs its workers that way.  What is pickled for it is the
object of the process, with a dictionary that children inherit from their parents: an
:class:`Install` in there installs the speed-ups where it is unpickled, before the
process begins its work.  A process that is forked has the patches anyway.
"""

from __future__ import annotations

import sys
from typing import Any

from . import install
from ._watcher import Watcher

__all__ = ["Install", "follow_children"]

MODULE = "multiprocessing.process"
KEY = "websock.speedups"


class Install:
    """Installs all speed-ups where it is unpickled, and follows the children there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return installed, ()


def installed() -> Install:
    """Install all speed-ups; return what does the same in a child."""
    install()
    return Install()


def follow_children() -> None:
    """Have the children of this process get all speed-ups, too."""
    if MODULE in sys.modules:
        inherit()
    else:
        watcher = Watcher(lambda name: inherit(watcher))
        watcher.watch([MODULE])


def inherit(watcher: Watcher | None = None) -> None:
    """Put an :class:`Install` where children inherit it."""
    if watcher is not None:
        watcher.forget([MODULE])
    process = sys.modules[MODULE].current_process()
    config = getattr(process, "_config", None)
    if isinstance(config, dict):
        config[KEY] = Install()
