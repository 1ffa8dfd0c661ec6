"""What the bytes of a fuzzer stand for: choices first, then what is parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from websock._compat import USE_EXT

__all__ = ["Input", "attempt", "cut_in_turn", "cuts", "same", "twins"]

T = TypeVar("T")


class Input:
    """Takes numbers, choices and bytes from the front; there is always one more 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.take(1)[0] if self else 0

    def choose(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def take(self, n: int) -> bytes:
        taken = self._data[self._at : self._at + n]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))


@cache
def twins(name: str) -> dict[str, ModuleType]:
    """Return the twins of a module by their endings; both, unless there is no other."""
    tags = ("py", "c") if USE_EXT else ("py",)
    return {tag: import_module(f"websock._{name}_{tag}") for tag in tags}


_in_turn = False


def cut_in_turn() -> None:
    """Have ``cuts()`` give one way beside the whole, by the size: for fuzzers.

    They change the size often enough to see all ways, and run thrice as many inputs.
    """
    global _in_turn
    _in_turn = True


def cuts(data: bytes, size: int) -> Iterator[list[bytes]]:
    """Cut input whole, byte by byte, into pieces of a size, and in two."""
    yield [data]
    way = size % 3 if _in_turn else None
    if way in (None, 0) and len(data) <= 400:
        yield [data[i : i + 1] for i in range(len(data))]
    size = size or 1
    if way in (None, 1) and len(data) // size <= 400:
        yield [data[i : i + size] for i in range(0, len(data), size)]
    if way in (None, 2):
        yield [data[:size], data[size:]]


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a call gives: its result and type, or its error and text."""
    try:
        result = function(*args, **kwargs)
    except Exception as exc:
        return type(exc).__name__, str(exc), getattr(exc, "code", None)
    return result, type(result)


def same(results: dict[str, Any]) -> Any:
    """Fail unless all have the same result; return it."""
    (first, expected), *others = results.items()
    for name, result in others:
        assert result == expected, f"{first}: {expected!r}\n{name}: {result!r}"
    return expected
