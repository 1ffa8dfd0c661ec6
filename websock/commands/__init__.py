"""The commands of ``python -m websock``: one module for each."""

__all__ = ["NAMES"]

NAMES = ("connect", "serve", "bench", "run", "doctor")
"""Modules with a function ``add_command()``, in the order of the help."""
