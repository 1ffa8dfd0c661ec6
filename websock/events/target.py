"""Event targets: ``addEventListener()`` and the ``on...`` attributes of the web."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .callbacks import call, report
from .event import Event

__all__ = ["EventTarget"]

Handler: TypeAlias = Callable[[Any], Any] | None


class Entry:
    """A callback in the list of an event target."""

    __slots__ = ("callback", "is_handler", "once", "removed")

    def __init__(self, callback: Any, once: bool, is_handler: bool = False) -> None:
        self.callback = callback
        self.once = once
        self.is_handler = is_handler  # of an ``on...`` attribute
        self.removed = False


class EventTarget:
    """An object with events in the manner of the DOM standard, without a tree."""

    __slots__ = ("__weakref__", "_entries")

    def __init__(self) -> None:
        # Tuples: they are replaced, and so can be walked through meanwhile.
        self._entries: dict[str, tuple[Entry, ...]] = {}

    def addEventListener(
        self,
        type: str,
        callback: Any,
        options: bool | Mapping[str, Any] | None = None,
        *,
        once: bool = False,
    ) -> None:
        """Call a function for each event of a type.

        A callback that is there already is not added again.

        Args:
            type: Type of the events.
            callback: Function, coroutine function, or object with ``handleEvent()``;
                ``None`` does nothing.
            options: As in browsers: ``{"once": True}``.  What is about a tree of
                targets, as ``capture``, means nothing here.
            once: Call it for the first event only.

        Raises:
            TypeError: When the callback cannot be called.
        """
        if callback is None:
            return
        _check_callback(callback)
        if isinstance(options, Mapping):
            once = once or bool(options.get("once"))
        entries = self._entries.get(type, ())
        for entry in entries:
            if entry.callback == callback and not entry.is_handler:
                return
        self._entries[type] = (*entries, Entry(callback, once))

    def removeEventListener(
        self, type: str, callback: Any, options: Any = None
    ) -> None:
        """Undo ``addEventListener()``; harmless when there is no such callback."""
        for entry in self._entries.get(type, ()):
            if entry.callback == callback and not entry.is_handler:
                self._remove(type, entry)
                return

    def dispatchEvent(self, event: Event) -> bool:
        """Call the callbacks for an event, in the order they were added.

        Returns:
            ``True``, since no event here can be cancelled.
        """
        event.target = self
        entries = self._entries.get(event.type)
        if entries is not None:
            for entry in entries:
                if entry.removed:
                    continue
                if entry.once:
                    self._remove(event.type, entry)
                callback = entry.callback
                if not callable(callback):
                    callback = callback.handleEvent
                call(callback, (event,), self, event.type)
        return True

    def callback_failed(
        self, event: str, exc: Exception, args: tuple[Any, ...]
    ) -> None:
        """Say that a callback raised ``exc``."""
        report(event, exc, self)

    def _remove(self, type: str, entry: Entry) -> None:
        entry.removed = True
        self._entries[type] = tuple(
            other for other in self._entries[type] if other is not entry
        )

    # -- on... attributes ------------------------------------------------------------

    def _get_handler(self, type: str) -> Handler:
        for entry in self._entries.get(type, ()):
            if entry.is_handler:
                handler: Handler = entry.callback
                return handler
        return None

    def _set_handler(self, type: str, callback: Handler) -> None:
        """Set an ``on...`` attribute: it keeps the place that it got first."""
        if callback is not None and not callable(callback):
            raise TypeError(
                f"on{type} must be callable or None, not {callback.__class__.__name__}"
            )
        for entry in self._entries.get(type, ()):
            if entry.is_handler:
                if callback is None:
                    self._remove(type, entry)
                else:
                    entry.callback = callback
                return
        if callback is not None:
            entries = self._entries.get(type, ())
            self._entries[type] = (*entries, Entry(callback, False, True))


def _check_callback(callback: Any) -> None:
    if not callable(callback) and not hasattr(callback, "handleEvent"):
        raise TypeError(
            "callback must be callable or have a method handleEvent, "
            f"not {callback.__class__.__name__}"
        )


def handler_attribute(type: str) -> Any:
    """Make the ``on...`` attribute of a type of events."""

    def fget(self: EventTarget) -> Handler:
        return self._get_handler(type)

    def fset(self: EventTarget, callback: Handler) -> None:
        self._set_handler(type, callback)

    return property(fget, fset, doc=f"Called for each ``{type}`` event; or ``None``.")
