"""A patch of ``websock.speedups`` put in for a while, on either backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any


@contextlib.contextmanager
def patched(name: str) -> Iterator[Any]:
    """Apply the patch of a module of ``websock.speedups``, then take it back.

    ``install()`` would do nothing with the pure backend; the patch works with both.
    """
    patch = import_module(f"websock.speedups.{name}").PATCH()
    for module in (*patch.modules, *patch.parts):
        import_module(module)
    assert patch.knows(patch.version())
    patch.self_test()
    try:
        patch.apply()
        for part in patch.parts:
            patch.apply_part(part)
        yield patch
    finally:
        patch.revert()


def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """Return what a call returns or raises, with its type."""
    try:
        result = function(*args)
    except Exception as exc:
        return ("raised", type(exc), str(exc))
    return ("returned", type(result), result)


def split(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes in pieces."""
    cuts = sorted({place for place in places if 0 < place < len(data)})
    edges = zip([0, *cuts], [*cuts, len(data)], strict=True)
    return [data[begin:end] for begin, end in edges]
