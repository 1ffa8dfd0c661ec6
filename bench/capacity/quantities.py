"""Numbers as people write them: ``1M``, ``1,000,000``, ``1/60``, ``16k``, ``30min``.

Nothing here says which numbers make sense; that is for whoever asked for them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping

_NUMBER = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d*)?|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|nan)"
    r"\s*(?P<unit>[a-z%]*)"
)


def quantity(units: Mapping[str, float], examples: str) -> Callable[[str], float]:
    """Return a parser for one kind of number, for argparse.

    Args:
        units: What may stand behind a number, in lower case, and its factor.
        examples: What may be written, for the error.
    """

    def single(text: str) -> float:
        sign = -1 if text.startswith("-") else 1
        found = _NUMBER.fullmatch(text.removeprefix("-").replace("_", "").lower())
        if found is None or (found["unit"] and found["unit"] not in units):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number: write {examples}"
            )
        number = float(found["number"].replace(",", ""))
        return sign * number * units.get(found["unit"], 1)

    def parse(text: str) -> float:
        above, slash, below = text.strip().partition("/")
        if not slash:
            return single(above)
        divisor = single(below)
        if not divisor:
            raise argparse.ArgumentTypeError(f"{text!r} is a division by zero")
        return single(above) / divisor

    return parse


count = quantity({"k": 1e3, "m": 1e6, "g": 1e9}, "1000000, 1,000,000, 1M or 1e6")
rate = quantity({"k": 1e3, "m": 1e6}, "1000, 1k, 0.1 or 1/60")
size = quantity(
    {
        "b": 1,
        **dict.fromkeys(("k", "kb", "kib"), 1 << 10),
        **dict.fromkeys(("m", "mb", "mib"), 1 << 20),
    },
    "512, 16k or 1m",
)
gibibytes = quantity(
    {
        **dict.fromkeys(("m", "mb", "mib"), 1 / 1024),
        **dict.fromkeys(("g", "gb", "gib"), 1),
        **dict.fromkeys(("t", "tb", "tib"), 1024),
    },
    "16, 16G or 512M",
)
gigabits = quantity(
    {
        **dict.fromkeys(("m", "mbit"), 1e-3),
        **dict.fromkeys(("g", "gbit"), 1),
    },
    "10, 10G or 500M",
)
seconds = quantity(
    {"ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400},
    "1800, 30min or 2h",
)
microseconds = quantity({"us": 1, "ms": 1e3, "s": 1e6}, "50, 50us or 2ms")
share = quantity({"%": 0.01}, "0.4 or 40%")
