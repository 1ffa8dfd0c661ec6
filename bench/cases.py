"""What can be measured: one `Case` is one row of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

KINDS = ("text", "binary", "cyrillic", "cjk", "emoji", "mixed", "json")
MODES = ("echo", "broadcast", "handshake", "idle")


@dataclass(frozen=True)
class Case:
    """One load on one kind of server.

    ``depth`` is the number of messages in flight on each connection; they are
    sent together, and the next batch follows when all have come back
    (``refill`` makes that point earlier). ``no_context`` has each message compressed
    alone (RFC 7692, 7.1.1). ``chunk`` limits the bytes of one
    send(2) of the load generator; 0 does not.
    """

    mode: str = "echo"
    connections: int = 1
    depth: int = 1
    size: int = 32
    kind: str = "text"
    fragments: int = 1
    refill: int = 0
    chunk: int = 0
    tls: bool = False
    deflate: bool = False
    no_context: bool = False
    loop: str = "uvloop"
    seconds: float = 1.5
    warmup: float = 0.3
    messages: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"unknown mode: {self.mode}, choose from {MODES}")
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind: {self.kind}, choose from {KINDS}")
        for name in ("connections", "depth", "fragments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")

    def load_arguments(self) -> list[str]:
        """Return the options of ws_load that make this load."""
        arguments = ["--mode", self.mode, "--kind", self.kind]
        for name in ("connections", "depth", "size", "fragments", "seconds", "warmup"):
            arguments += [f"--{name}", str(getattr(self, name))]
        for name in ("refill", "chunk", "messages"):
            if getattr(self, name):
                arguments += [f"--{name}", str(getattr(self, name))]
        arguments += [f"--{name}" for name in ("tls", "deflate") if getattr(self, name)]
        if self.no_context:
            arguments.append("--no-context")
        return arguments

    def with_(self, **changes: Any) -> Case:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    @property
    def title(self) -> str:
        """A short name for tables: only what differs from the usual."""
        things = [count(self.connections, "connection")]
        if self.mode == "echo":
            things.append(f"{self.depth} in flight")
        if self.mode in ("echo", "broadcast"):
            kind = "" if self.kind == "text" else f" {self.kind}"
            things.append(f"{size_name(self.size)}{kind}")
        if self.mode != "echo":
            things.insert(0, self.mode)
        if self.fragments > 1:
            things.append(f"{self.fragments} fragments")
        if self.chunk:
            things.append(f"{count(self.chunk, 'byte')} a send")
        if self.tls:
            things.append("TLS")
        if self.deflate:
            things.append("deflate without context" if self.no_context else "deflate")
        if self.mode == "idle" and self.messages:
            things.append("after a message")
        if self.loop != "uvloop":
            things.append(self.loop)
        return ", ".join(things)


def case_from(row: dict[str, Any]) -> Case:
    """Rebuild the case of a stored row."""
    return Case(**{f.name: row[f.name] for f in fields(Case) if f.name in row})


def case_fields(case: Case) -> dict[str, Any]:
    """Return the fields that a stored row carries."""
    return asdict(case)


def count(number: int, noun: str) -> str:
    """Return ``1 byte`` or ``1,000 bytes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_name(size: int) -> str:
    """Return a size in the largest unit that divides it: ``1 MiB``, ``125 B``."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def parse_size(text: str) -> int:
    """Parse ``512``, ``16k`` or ``1m``."""
    text = text.strip().lower().removesuffix("ib").removesuffix("b")
    units = {"k": 1 << 10, "m": 1 << 20}
    unit = units.get(text[-1:], 1)
    number = text[:-1] if unit > 1 else text
    if not number.strip().isdigit():
        raise ValueError(f"not a size: {text!r}, write 512, 16k or 1m")
    return int(number) * unit
