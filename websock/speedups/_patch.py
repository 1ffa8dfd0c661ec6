"""What a patch of another library is: attributes replaced, and put back.

A host is a library that others have imported and use; a :class:`Patch` says which
version of it is known to work, tests itself against it, and replaces attributes of its
modules and classes.  One patch per module of this package; ``_registry`` lists them.

Rules for a patch:

* It imports the host neither when its module is imported nor in a method: the modules
  it names in ``modules`` are there, and :meth:`Patch.module` returns them.  An import
  under the lock of the registry could wait for a thread that waits for the lock.
* It changes the host with :meth:`Patch.replace` alone, which remembers what was there.
* ``self_test()`` runs before anything is replaced, on objects of its own.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from importlib import metadata
from types import ModuleType
from typing import Any, ClassVar

__all__ = ["MISSING", "Patch", "parse_version"]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""Stands for an attribute that was not there."""


@dataclass
class Slot:
    """An attribute of a host, and what patches have made of it."""

    owner: Any
    name: str
    original: Any
    layers: list[tuple[Patch, Any]] = field(default_factory=list)

    @property
    def value(self) -> Any:
        """What the attribute should be."""
        return self.layers[-1][1] if self.layers else self.original


# By identity of the owner and name.  Two patches may replace the same attribute, and
# the one that was there first may go first.
_slots: dict[tuple[int, str], Slot] = {}


def current(owner: Any, name: str) -> Any:
    """Return an attribute as it is stored, so that a static method stays one."""
    return vars(owner).get(name, MISSING)


class Patch:
    """Replaces attributes of one host.

    Attributes:
        host: Name that users know the host by.
        distribution: Name of its distribution; by default ``host``.
        package: Its top-level module; by default ``host``.
        modules: Modules that must be imported before the patch can be applied.
        parts: Modules that programs may do without; each is patched when it is there,
            by ``apply_part()``.
        versions: The first version that is known to work, and the first one that is
            not known to.
        gain: What users get, in a few words, for ``doctor``.
        options: Options of ``install()`` and their defaults.
    """

    host: ClassVar[str]
    distribution: ClassVar[str] = ""
    package: ClassVar[str] = ""
    modules: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]] = ()
    versions: ClassVar[tuple[str, str]]
    gain: ClassVar[str] = ""
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, **options: Any) -> None:
        for name in options:
            if name not in self.options:
                raise TypeError(f"install({self.host!r}) has no option {name!r}")
        self.chosen = {**self.options, **options}
        self.parts_left = list(self.parts)

    # -- what a patch says -----------------------------------------------------------

    def self_test(self) -> None:
        """Raise if what is about to be installed does not do what the host does."""
        raise NotImplementedError

    def apply(self) -> None:
        """Replace what there is to replace, with :meth:`replace`."""
        raise NotImplementedError

    def apply_part(self, name: str) -> None:
        """Replace what there is to replace in one of ``parts``, after ``apply()``.

        Args:
            name: Name of the module, which is imported.
        """

    # -- what a patch uses -----------------------------------------------------------

    def module(self, name: str) -> ModuleType:
        """Return one of ``modules`` or ``parts``."""
        return sys.modules[name]

    def replace(self, owner: Any, name: str, value: Any) -> Any:
        """Replace an attribute of a module or class; return what was there.

        Args:
            owner: Module or class.
            name: Name of the attribute.
            value: Its new value.
        """
        key = (id(owner), name)
        slot = _slots.get(key)
        if slot is None:
            slot = _slots[key] = Slot(owner, name, current(owner, name))
        before = slot.value
        slot.layers.append((self, value))
        setattr(owner, name, value)
        return before

    def revert(self) -> None:
        """Put back what was replaced; harmless when nothing was."""
        for key, slot in reversed(list(_slots.items())):
            if all(patch is not self for patch, _ in slot.layers):
                continue
            before = slot.value
            slot.layers = [layer for layer in slot.layers if layer[0] is not self]
            # What somebody else has put over it since is theirs.
            if current(slot.owner, slot.name) is before:
                if slot.value is MISSING:
                    delattr(slot.owner, slot.name)
                else:
                    setattr(slot.owner, slot.name, slot.value)
            if not slot.layers:
                del _slots[key]

    def version(self) -> str | None:
        """Return the version of the host that is installed, if one is found."""
        try:
            return metadata.version(self.distribution or self.host)
        except metadata.PackageNotFoundError:
            module = sys.modules.get(self.package or self.host)
            version = getattr(module, "__version__", None)
            return None if version is None else str(version)

    def knows(self, version: str | None) -> bool:
        """Whether the patch is known to work with a version."""
        if version is None:
            return False
        first, end = self.versions
        return parse_version(first) <= parse_version(version) < parse_version(end)


def parse_version(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without what makes it a pre-release."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    if match is None:
        return ()
    numbers = [int(number) for number in match[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()  # 1.2.0 is 1.2
    return tuple(numbers)
