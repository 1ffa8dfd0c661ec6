"""The harness's arithmetic: rows of rounds to medians, spreads and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .cases import Case, case_from

Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A median, and the smallest and largest of the rounds."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How far the rounds lie apart, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Summary:
    """All rounds of one library in one case. No figures if any was wrong."""

    library: str
    case: Case
    rounds: int
    correct: bool
    error: str
    figures: dict[str, Figure]

    def median(self, name: str) -> float | None:
        """Return a median, or None when there is no right figure."""
        figure = self.figures.get(name)
        return figure.median if figure else None


FIGURES = (
    "cpu_us",
    "user_us",
    "system_us",
    "rate",
    "p50_us",
    "p99_us",
    "server_busy",
    "load_busy",
    "memory",
)


def figure(values: Sequence[float]) -> Figure:
    """Return the median and the range of some values."""
    return Figure(statistics.median(values), min(values), max(values))


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Group rows by case and library, in the order they first appear."""
    groups: dict[tuple[Case, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((case_from(row), row["library"]), []).append(row)
    return [_summary(key[0], key[1], group) for key, group in groups.items()]


def _summary(case: Case, library: str, rows: list[Row]) -> Summary:
    correct = all(row["correct"] for row in rows)
    error = next((row["error"] for row in rows if row["error"]), "")
    figures = {}
    if correct:
        for name in FIGURES:
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                figures[name] = figure(values)
    return Summary(library, case, len(rows), correct, error, figures)


def ratios(
    rows: Iterable[Row], case: Case, library: str, peer: str, name: str = "cpu_us"
) -> Figure | None:
    """Compare a library with a peer, round by round.

    Rounds are interleaved, so both halves of a pair met the machine in the
    same minute; the median of the pairs' ratios drifts less than the ratio of
    two medians. None when a round is wrong or missing.
    """
    values: dict[str, dict[int, Row]] = {library: {}, peer: {}}
    for row in rows:
        if row["library"] in values and case_from(row) == case:
            values[row["library"]][row["round"]] = row
    pairs = []
    for number, row in values[library].items():
        other = values[peer].get(number)
        if other is None or not (row["correct"] and other["correct"]):
            return None
        if row.get(name) is None or not other.get(name):
            return None
        pairs.append(row[name] / other[name])
    return figure(pairs) if pairs else None


def per_message(
    seconds: float, user: float, system: float, messages: int
) -> tuple[float, float, float]:
    """Return microseconds per message: all, user, system."""
    if messages <= 0:
        return 0.0, 0.0, 0.0
    scale = 1e6 / messages
    return seconds * scale, user * scale, system * scale


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return where the straight line through some points begins, and how it rises.

    The least sum of squares of relative distances: a small case weighs as much as
    a large one.

    Raises:
        ValueError: When all points have the same place.
    """
    weights = [1 / (y * y) for _, y in points]
    total = sum(weights)
    if len({x for x, _ in points}) < 2:
        raise ValueError(f"{len(points)} points at one place make no line")
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    pairs = list(zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in pairs) / sum(
        w * (x - mean_x) ** 2 for w, (x, _) in pairs
    )
    return mean_y - slope * mean_x, slope
