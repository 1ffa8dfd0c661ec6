"""Tells when a module has been imported, without importing it.

A finder in front of the others on ``sys.meta_path`` sees the names of modules that are
about to be imported.  For a name that is watched it lets the others find the module,
and has its loader tell when the module's code has run.  It is there only while names
are watched, and other imports cost one look into a dictionary.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Watcher"]


class Watcher:
    """Calls a function after modules of some names were imported.

    Args:
        imported: Called with the name, by the thread that imports.  It must not raise.
    """

    def __init__(self, imported: Callable[[str], None]) -> None:
        self._imported = imported
        self._lock = threading.Lock()
        self._names: dict[str, None] = {}
        self._finding: set[tuple[int, str]] = set()

    def watch(self, names: Sequence[str]) -> None:
        """Watch for these names, too."""
        with self._lock:
            for name in names:
                self._names[name] = None
            if self._names and self not in sys.meta_path:
                sys.meta_path.insert(0, self)

    def forget(self, names: Sequence[str]) -> None:
        """Watch no more for these names; step aside when none is left."""
        with self._lock:
            for name in names:
                self._names.pop(name, None)
            if not self._names and self in sys.meta_path:
                sys.meta_path.remove(self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find a module that is watched for; the import system's finder."""
        if fullname not in self._names:
            return None
        # Other finders that ask the others, too, would ask this one again.
        search = (threading.get_ident(), fullname)
        if search in self._finding:
            return None
        self._finding.add(search)
        try:
            spec = self._ask_others(fullname, path, target)
        finally:
            self._finding.discard(search)
        if spec is not None:
            self._listen(spec)
        return spec

    def _ask_others(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None,
    ) -> ModuleSpec | None:
        """Have the other finders find a module."""
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                return spec
        return None

    def _listen(self, spec: ModuleSpec) -> None:
        """Have the loader of a module tell when the module's code has run."""
        loader: Any = spec.loader
        run = getattr(loader, "exec_module", None)
        if run is None:
            return

        def exec_module(module: ModuleType) -> None:
            # A loader may load several modules; that of a file loads this one.
            if module.__name__ != spec.name:
                run(module)
                return
            try:
                del loader.exec_module
            except AttributeError:
                pass
            run(module)
            self._imported(spec.name)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            pass  # a loader that cannot be told so: the host stays as it is
