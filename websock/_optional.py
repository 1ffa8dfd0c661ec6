"""Packages that are used where they are installed, and what is wrong with them.

One that is missing is passed over silently: nobody asked for it. One that is installed
and cannot be used was asked for, so it is passed over with a warning, once, and
``python -m websock doctor`` shows the reason.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

__all__ = ["find_fault", "use_optional"]

# What extensions that are for one interpreter of a process only say, in the words of
# CPython and of Cython. They are not broken, and nobody could do anything about it.
_REFUSALS = ("subinterpreter", "one interpreter")


def _load(name: str, needed: tuple[str, ...]) -> tuple[Any, str]:
    """Return a module, or ``None`` and what is wrong with it, if it is installed."""
    package = name.partition(".")[0]
    try:
        import_module(package)
        module = import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name == package:  # else a part of it is missing, or what it needs
            return None, ""
        return None, f"{type(exc).__name__}: {exc}"
    except Exception as exc:
        return None, f"{type(exc).__name__}: {exc}"
    missing = [attribute for attribute in needed if not hasattr(module, attribute)]
    if missing:
        return None, f"it has no {', '.join(missing)}"
    return module, ""


def find_fault(name: str, needed: tuple[str, ...] = ()) -> str:
    """Return what is wrong with an installed module; nothing if it works, or is absent.

    Args:
        name: The module, which is imported.
        needed: Attributes that it must have.
    """
    return _load(name, needed)[1]


def use_optional(name: str, needed: tuple[str, ...]) -> Any:
    """Import a module that can be done without.

    Args:
        name: The module.
        needed: Attributes that it must have.

    Returns:
        The module, or ``None`` if it is not installed or cannot be used.
    """
    module, fault = _load(name, needed)
    if fault and not any(text in fault for text in _REFUSALS):
        warnings.warn(
            f"{name} is installed and cannot be used, so it is left alone: {fault}",
            RuntimeWarning,
            stacklevel=3,
        )
    return module
