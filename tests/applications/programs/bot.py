"""What the clients have in common: they obey what a server says, and repeat the rest."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from journal import Notes, talk

LIMIT = 100_000
PROTOCOLS = ["chat.v2", "chat.v1"]


class Order(NamedTuple):
    """What a message asks for: to ``say`` something or to ``close``."""

    verb: str
    data: str | bytes = ""
    code: int = 0


def understood(message: str | bytes) -> Order:
    """Understand a message.

    ``bytes N`` asks for so many bytes, ``close CODE REASON`` to close.  Anything else
    is to be repeated.
    """
    if isinstance(message, str):
        verb, _, rest = message.partition(" ")
        if verb == "bytes":
            return Order("say", bytes(range(256)) * (int(rest) // 256 + 1))
        if verb == "close":
            code, _, reason = rest.partition(" ")
            return Order("close", reason, int(code))
        return Order("say", message)
    return Order("say", bytes(message))


def urls() -> Iterator[tuple[str, str]]:
    """Return what to connect to, and the names of the talks: from the command line."""
    port, *names = sys.argv[1:]
    for name in names:
        yield name, f"ws://127.0.0.1:{port}/{name.partition('.')[0]}?talk={name}"


def have_talks(obey: Callable[[str, Notes], Any]) -> None:
    """Have one talk after the other, as the command line says.

    Args:
        obey: Connects to a URL, does as it is told, and takes notes.
    """
    for name, url in urls():
        # What ends a talk is among its notes.
        with contextlib.suppress(Exception), talk(name) as note:
            obey(url, note)
