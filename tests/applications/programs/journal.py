"""What the programs of this directory see, as lines of JSON on their output.

A talk is what happens between a program and one peer; its name is in the query of the
request.  Two runs of a program are alike if each talk gave the same notes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

# The one line that a program needs, for those that are asked to have it.
if names := os.environ.get("SPEEDUPS"):
    import websock.speedups

    websock.speedups.install(*names.split())


def write(**facts: Any) -> None:
    """Write a line; what is not JSON is an error of the program."""
    # In one call, so that no other thread writes into the line.
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def shown(value: Any) -> Any:
    """Show a value, so that another type or another content is seen."""
    if isinstance(value, BaseException):
        kind = type(value)
        found: dict[str, Any] = {"error": f"{kind.__module__}.{kind.__qualname__}"}
        # A number is a number, whichever enumeration it is of.
        found["text"] = re.sub(r"<\w+\.\w+: (\d+)>", r"\1", str(value))
        # What exceptions of closed connections have in different libraries.
        for name in ("code", "reason", "rcvd", "sent", "status_code", "headers"):
            if (fact := getattr(value, name, None)) is not None:
                found[name] = int(fact) if isinstance(fact, int) else repr(fact)
        if isinstance(value, BaseExceptionGroup):
            found["of"] = [shown(one) for one in value.exceptions]
        return found
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        data = (
            value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        )
        head = value if isinstance(value, str) else bytes(value).hex()
        digest = hashlib.sha256(data).hexdigest()[:16]
        return [type(value).__name__, len(value), head[:40], digest]
    return value if value is None else [type(value).__name__, repr(value)]


def where() -> None:
    """Say which speed-ups are on, once what they are for was imported."""
    speedups = sys.modules.get("websock.speedups")
    states = {}
    if speedups is not None:
        states = {found.name: found.state for found in speedups.status()}
    write(speedups=states, imported="websock" in sys.modules)


class Notes:
    """Notes on one talk.

    Args:
        talk: Its name.
    """

    said_where = False

    def __init__(self, talk: str) -> None:
        self.talk = talk
        if not Notes.said_where:
            Notes.said_where = True
            where()

    def __call__(self, what: str, *values: Any) -> None:
        write(talk=self.talk, what=what, values=[shown(value) for value in values])


@contextlib.contextmanager
def talk(name: str) -> Iterator[Notes]:
    """Take notes on a talk until its end, and on what ends it."""
    notes = Notes(name)
    try:
        yield notes
    except BaseException as exc:
        notes("raised", exc)
        raise
    finally:
        notes("over")
