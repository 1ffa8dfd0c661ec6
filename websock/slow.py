"""What becomes of messages for a peer that reads more slowly than they come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Literal, get_args

from .prepared import PreparedMessage

if TYPE_CHECKING:
    pass

__all__ = ["Backlog", "Policy", "SlowConsumer"]

Policy = Literal["drop_oldest", "drop_newest", "latest", "close"]
"""``latest`` keeps the newest message of each key; ``close`` ends it with 1013."""


class SlowConsumer:
    """How ``post()`` and ``broadcast()`` treat a peer that does not keep up.

    ::

        slow = websock.SlowConsumer("drop_oldest", max_messages=100)
        async with websock.serve(handler, port=8765, slow_consumer=slow):
            ...

    A peer does not keep up when more than ``write_limit`` bytes wait to be sent to it.
    From then on messages go to a backlog; they are sent as soon as the peer has read
    enough, in order.

    Args:
        policy: What happens when the backlog is full: ``"drop_oldest"``,
            ``"drop_newest"``, ``"close"`` (with code 1013, "too slow"); or
            ``"latest"``: of the messages with the same key only the newest is kept,
            and the oldest key is dropped when there are too many.
        max_messages: Messages in a backlog.
        max_bytes: Bytes of payload in a backlog; ``None`` for no limit.
        on_drop: Called with the connection and the number of messages that were just
            dropped.

    Raises:
        ValueError: When an argument has a wrong value.
    """

    __slots__ = ("max_bytes", "max_messages", "on_drop", "policy")

    def __init__(
        self,
        policy: Policy = "drop_oldest",
        *,
        max_messages: int = 100,
        max_bytes: int | None = None,
        on_drop: Callable[[Any, int], None] | None = None,
    ) -> None:
        if policy not in get_args(Policy):
            known = ", ".join(get_args(Policy))
            raise ValueError(f"unknown policy {policy!r}: there are {known}")
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages}")
        if max_bytes is not None and max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative: {max_bytes}")
        self.policy = policy
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.on_drop = on_drop


class Backlog:
    """The messages that wait for one slow peer.

    Args:
        settings: What to do when it is full.

    Attributes:
        size: Bytes of payload in it.
        dropped: Messages that were dropped since the connection was opened.
    """

    __slots__ = ("_messages", "_number", "dropped", "settings", "size")

    def __init__(self, settings: SlowConsumer) -> None:
        self.settings = settings
        self._messages: OrderedDict[Hashable, PreparedMessage] = OrderedDict()
        self._number = 0
        self.size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: PreparedMessage, key: Hashable) -> tuple[int, bool]:
        """Add a message.

        Args:
            message: The message.
            key: What it is about, for the policy ``latest``.

        Returns:
            How many messages were dropped for it, itself included; and whether the
            connection is to be closed.
        """
        settings = self.settings
        dropped = 0
        if settings.policy != "latest" or key is None:
            self._number += 1
            key = (self._number,)
        else:
            key = ("key", key)
            old = self._messages.pop(key, None)
            if old is not None:
                self.size -= len(old.payload)
                dropped += 1
        if settings.policy in ("drop_newest", "close") and self._is_full(message):
            return self._count(dropped + 1), settings.policy == "close"
        self._messages[key] = message
        self.size += len(message.payload)
        while len(self._messages) > 1 and self._is_full():
            self.take()
            dropped += 1
        return self._count(dropped), False

    def take(self) -> PreparedMessage:
        """Take the oldest message out."""
        _, message = self._messages.popitem(last=False)
        self.size -= len(message.payload)
        return message

    def clear(self) -> int:
        """Drop all; return how many there were."""
        count = len(self._messages)
        self._messages.clear()
        self.size = 0
        return self._count(count)

    def _count(self, dropped: int) -> int:
        self.dropped += dropped
        return dropped

    def _is_full(self, more: PreparedMessage | None = None) -> bool:
        settings = self.settings
        count, size = len(self._messages), self.size
        if more is not None:
            count, size = count + 1, size + len(more.payload)
        if count > settings.max_messages:
            return True
        return settings.max_bytes is not None and size > settings.max_bytes
