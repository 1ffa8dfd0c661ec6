"""Which hosts there are patches for, and what has become of each.

All changes are made under one lock, by whichever thread asks for them or imports a
host.  Nothing of a host is imported under it; see :mod:`websock.speedups._patch`.

What goes wrong with a host is logged, as a warning to ``websock.speedups``, once for
each reason; it is never raised, because it would come out of an import or of a program
that runs well without.  Wrong names and options are raised.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .._compat import BACKEND
from ._patch import Patch
from ._watcher import Watcher

__all__ = ["HOSTS", "Registry", "Status"]

HOSTS = {
    "aiohttp": "websock.speedups._aiohttp",
    "autobahn": "websock.speedups._autobahn",
    "tornado": "websock.speedups._tornado",
    "uvicorn": "websock.speedups._uvicorn",
    "websocket-client": "websock.speedups._websocket_client",
    "websockets": "websock.speedups._websockets",
    "wsaccel": "websock.speedups._wsaccel",
    "wsproto": "websock.speedups._wsproto",
}
"""Names of hosts, and the modules whose ``PATCH`` is the class of their patch."""

NOTHING_TO_GAIN = "the pure backend is in use: there is nothing to gain"

logger = logging.getLogger("websock.speedups")


@dataclass(frozen=True, slots=True)
class Status:
    """What has become of a host.

    Attributes:
        name: Name of the host.
        version: Version that is installed, if it is.
        state: ``"patched"``; ``"waiting"`` to be imported; ``"off"`` when nobody has
            asked for it; ``"absent"`` when it is not installed; ``"unknown version"``;
            ``"failed"``; or ``"useless"`` with the pure backend.
        reason: Why, or what it does.
    """

    name: str
    version: str | None
    state: str
    reason: str


class Entry:
    """One host, as far as it is known."""

    def __init__(self, name: str, kind: type[Patch]) -> None:
        self.name = name
        self.kind = kind
        self.patch: Patch | None = None  # asked for
        self.state = "off"
        self.reason = ""
        self.warned: set[str] = set()

    def set(self, state: str, reason: str) -> None:
        """Note what has become of it; warn once when that is nothing good."""
        self.state, self.reason = state, reason
        if state in ("unknown version", "failed") and reason not in self.warned:
            self.warned.add(reason)
            logger.warning("%s is left alone: %s", self.name, reason)

    @property
    def is_found(self) -> bool:
        """Whether the host is installed."""
        package = self.kind.package or self.kind.host
        if sys.modules.get(package) is not None:
            return True
        try:
            return find_spec(package) is not None
        except (ImportError, ValueError):
            return False


class Registry:
    """Installs patches and removes them.

    Args:
        hosts: Names of hosts, and the modules that have their patches.
        backend: Backend of this library that is in use.
    """

    def __init__(self, hosts: Mapping[str, str], backend: str = BACKEND) -> None:
        self._hosts = hosts
        self._backend = backend
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._watcher = Watcher(self._imported)

    def install(self, *names: str, **options: Any) -> None:
        """Install patches; see :func:`websock.speedups.install`."""
        if options and not names:
            raise TypeError(
                "options need the name of a host: install(name, option=...)"
            )
        entries = self._find(names)
        patches = [entry.kind(**options) for entry in entries]
        if self._backend != "c":
            logger.info("%s", NOTHING_TO_GAIN)
            with self._lock:
                for entry in entries:
                    entry.set("useless", NOTHING_TO_GAIN)
            return
        for entry, patch in zip(entries, patches, strict=True):
            names = (*patch.modules, *patch.parts)
            settle(names)
            with self._lock:
                self._install(entry, patch)
            # An import that began before its name was watched for is not told.
            settle(names)
            with self._lock:
                if entry.patch is patch and entry.state == "waiting":
                    self._apply_if_imported(entry, patch)
                if entry.patch is patch and entry.state == "patched":
                    self._apply_parts(entry, patch)

    def uninstall(self, *names: str) -> None:
        """Remove patches; see :func:`websock.speedups.uninstall`."""
        entries = self._find(names)
        with self._lock:
            for entry in entries:
                self._uninstall(entry)

    def status(self) -> list[Status]:
        """Say what has become of each host."""
        found = []
        for entry in self._find(()):
            with self._lock:
                state, reason = entry.state, entry.reason
            version = (entry.patch or entry.kind()).version()
            if not entry.is_found:
                state, reason, version = "absent", "not installed", None
            elif state == "off":
                reason = "not asked for: see websock.speedups.install()"
            found.append(Status(entry.name, version, state, reason))
        return found

    def modules(self, name: str) -> tuple[str, ...]:
        """Return the modules of a host that its patch waits for."""
        return self._find((name,))[0].kind.modules

    def _find(self, names: Iterable[str]) -> list[Entry]:
        entries = []
        for name in names or self._hosts:
            module = self._hosts.get(name)
            if module is None:
                known = ", ".join(sorted(self._hosts))
                raise ValueError(f"no speed-up for {name!r}: there are {known}")
            # Not under the lock, because it is an import.
            kind = import_module(module).PATCH
            with self._lock:
                entry = self._entries.get(name)
                if entry is None:
                    entry = self._entries[name] = Entry(name, kind)
            entries.append(entry)
        return entries

    def _install(self, entry: Entry, patch: Patch) -> None:
        if entry.patch is not None and entry.state in ("patched", "waiting"):
            if entry.patch.chosen == patch.chosen:
                return
            self._uninstall(entry)
        if not entry.is_found:
            entry.set("absent", "not installed")
            return
        entry.patch = patch
        # A program may have imported only a part of the host, and import the rest.
        missing = [name for name in patch.modules if not is_imported(name)]
        if missing:
            entry.set("waiting", f"patched when {missing[0]} is imported")
            # Parts, too: one may begin to be imported before the last of these ends.
            parts = [name for name in patch.parts if not is_imported(name)]
            self._watcher.watch([*missing, *parts])
        else:
            self._apply(entry, patch)

    def _uninstall(self, entry: Entry) -> None:
        patch, entry.patch = entry.patch, None
        if patch is not None:
            patch.revert()
            self._stop_watching(patch, (*patch.modules, *patch.parts))
        entry.set("off", "")

    def _stop_watching(self, patch: Patch, names: Iterable[str]) -> None:
        others: set[str] = set()
        for entry in self._entries.values():
            if entry.patch is None or entry.patch is patch:
                continue
            if entry.state == "waiting":
                others.update(entry.patch.modules)
            if entry.state in ("waiting", "patched"):
                others.update(entry.patch.parts_left)
        self._watcher.forget([name for name in names if name not in others])

    def _imported(self, name: str) -> None:
        """A module that is watched for was imported."""
        with self._lock:
            self._watcher.forget([name])
            for entry in self._entries.values():
                patch = entry.patch
                if patch is None:
                    continue
                if entry.state == "waiting" and name in patch.modules:
                    self._apply_if_imported(entry, patch, name)
                if entry.state == "patched" and name in patch.parts:
                    self._apply_parts(entry, patch, name)

    def _apply_if_imported(self, entry: Entry, patch: Patch, last: str = "") -> None:
        if all(name == last or is_imported(name) for name in patch.modules):
            self._stop_watching(patch, patch.modules)
            self._apply(entry, patch, last)

    def _apply(self, entry: Entry, patch: Patch, last: str = "") -> None:
        """Test a patch and apply it, or leave the host alone."""
        version = patch.version()
        if not patch.knows(version):
            first, end = patch.versions
            entry.set(
                "unknown version",
                f"version {version or 'unknown'}, known are {first} to below {end}",
            )
            return
        try:
            patch.self_test()
        except Exception as exc:
            entry.set("failed", f"self-test failed: {type(exc).__name__}: {exc}")
            return
        try:
            patch.apply()
        except Exception as exc:
            patch.revert()
            entry.set("failed", f"cannot patch: {type(exc).__name__}: {exc}")
            return
        entry.set("patched", patch.gain)
        self._apply_parts(entry, patch, last)

    def _apply_parts(self, entry: Entry, patch: Patch, last: str = "") -> None:
        """Patch the parts of a host that are imported, and watch for the others."""
        for name in list(patch.parts_left):
            if name != last and not is_imported(name):
                self._watcher.watch([name])
                continue
            patch.parts_left.remove(name)
            try:
                patch.apply_part(name)
            except Exception as exc:
                patch.revert()
                self._stop_watching(patch, patch.parts)
                reason = f"cannot patch {name}: {type(exc).__name__}: {exc}"
                entry.set("failed", reason)
                return


def is_imported(name: str) -> bool:
    """Whether a module was imported to its end."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


def settle(names: Iterable[str]) -> None:
    """Wait until no other thread is in the middle of importing one of the modules.

    An import that has found its module and not begun to run it is seen nowhere; it
    holds the lock of the module's name.
    """
    wait: Any = getattr(importlib._bootstrap, "_lock_unlock_module", None)
    if wait is not None:
        for name in names:
            wait(name)
