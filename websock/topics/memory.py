"""Topics within one process: what is published is delivered at once."""

from __future__ import annotations

from ..prepared import PreparedMessage
from .backend import Backend, Hub
from .history import Position

__all__ = ["MemoryBackend", "make"]


class MemoryBackend(Backend):
    """Carries nothing anywhere."""

    def __init__(self) -> None:
        self._hub: Hub | None = None

    async def start(self, hub: Hub) -> None:
        """Begin; see :class:`Backend`."""
        self.begin(hub)

    def begin(self, hub: Hub) -> None:
        """Begin, with nothing to wait for."""
        self._hub = hub

    def publish(
        self, topic: str, message: PreparedMessage, key: str | None
    ) -> Position | None:
        """Deliver a message."""
        assert self._hub is not None
        return self._hub.deliver(topic, message, key)


def make(url: str) -> MemoryBackend:
    """Make the backend of ``memory://``.

    Raises:
        ValueError: When the URL says more.
    """
    if url != "memory://":
        raise ValueError(f"memory:// takes no address: {url!r}")
    return MemoryBackend()
