"""The version, in one place: the package metadata is read from here."""

from __future__ import annotations

__all__ = ["__version__", "version"]

version = "0.1.0.dev0"

__version__ = version
