"""Emitters: objects with named events, as Node has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

from .callbacks import call, report

__all__ = ["EventEmitter"]

C = TypeVar("C", bound=Callable[..., Any])


class Once:
    """A callback that is called for the first event only."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[..., Any]) -> None:
        self.callback = callback


class EventEmitter:
    """An object that calls back when something happens.

    Names of events that it does not have are refused: an event that never comes is
    hard to find.
    """

    __slots__ = ("__weakref__", "_callbacks")

    events: frozenset[str] = frozenset()
    """Names of the events that there are."""

    def __init__(self) -> None:
        # Tuples: they are replaced, and so can be walked through meanwhile.
        self._callbacks: dict[str, tuple[Any, ...]] = {}

    @overload
    def on(self, event: str) -> Callable[[C], C]: ...

    @overload
    def on(self, event: str, callback: C) -> C: ...

    def on(self, event: str, callback: Any = None) -> Any:
        """Call a function whenever something happens; also a decorator.

        Args:
            event: Name of the event.
            callback: Function or coroutine function.

        Returns:
            The callback.

        Raises:
            TypeError: When it cannot be called.
            ValueError: When there is no such event.
        """
        self._check_event(event)
        if callback is None:
            return partial(self.on, event)
        self._add(event, callback, callback)
        return callback

    @overload
    def once(self, event: str) -> Callable[[C], C]: ...

    @overload
    def once(self, event: str, callback: C) -> C: ...

    def once(self, event: str, callback: Any = None) -> Any:
        """Call a function when something happens for the first time; see ``on()``."""
        self._check_event(event)
        if callback is None:
            return partial(self.once, event)
        self._add(event, callback, Once(callback))
        return callback

    def off(self, event: str, callback: Callable[..., Any]) -> None:
        """Undo one ``on()`` or ``once()``; harmless when there was none."""
        self._check_event(event)
        kept = list(self._callbacks.get(event, ()))
        for entry in reversed(kept):
            if entry == callback or (
                isinstance(entry, Once) and entry.callback == callback
            ):
                kept.remove(entry)
                break
        self._callbacks[event] = tuple(kept)

    def listener_count(self, event: str) -> int:
        """Return how many callbacks an event has."""
        self._check_event(event)
        return len(self._callbacks.get(event, ()))

    def emit(self, event: str, *args: Any) -> bool:
        """Call the callbacks of an event, in the order they were added.

        Returns:
            Whether there was one.
        """
        entries = self._callbacks.get(event)
        if not entries:
            return False
        for entry in entries:
            if type(entry) is Once:
                if not self._take(event, entry):
                    continue
                entry = entry.callback
            call(entry, args, self, event)
        return True

    def _take(self, event: str, entry: Once) -> bool:
        """Remove a callback for one event; return whether it was still there."""
        before = self._callbacks[event]
        self._callbacks[event] = tuple(x for x in before if x is not entry)
        return len(self._callbacks[event]) < len(before)

    def callback_failed(
        self, event: str, exc: Exception, args: tuple[Any, ...]
    ) -> None:
        """Say that a callback raised ``exc``."""
        report(event, exc, self)

    def _check_event(self, event: str) -> None:
        if event not in self.events:
            raise ValueError(
                f"{type(self).__name__} has no event {event!r}, "
                f"expected one of {', '.join(sorted(self.events))}"
            )

    def _add(self, event: str, callback: Any, entry: Any) -> None:
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        self._callbacks[event] = (*self._callbacks.get(event, ()), entry)
