"""Charts of the results: one panel a case, one bar a library, SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

from .report import number
from .stats import Row, Summary, summarise

OURS, YARDSTICK, PEER = "#d1495b", "#8d99ae", "#2e6f95"
PANEL_ROW = 0.32
PANELS = 6
COLUMNS = 2


def colour(library: str) -> str:
    """Ours, the native yardsticks, and the others each have a colour."""
    if library.startswith("websock-") or library == "websock":
        return OURS
    if library in ("epoll", "uws", "node-ws"):
        return YARDSTICK
    return PEER


def quantity(items: Sequence[Summary]) -> tuple[str, str]:
    """Return the figure that a panel shows, and its axis label."""
    if items[0].case.mode == "idle":
        return "memory", "bytes per connection (shorter is better)"
    noun = {"handshake": "handshake", "broadcast": "delivery"}
    what = noun.get(items[0].case.mode, "message")
    return "cpu_us", f"CPU microseconds per {what} (shorter is better)"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the first cases of the rows that have right figures."""
    panels = []
    summaries = [s for s in summarise(rows) if s.correct]
    for case in list(dict.fromkeys(s.case for s in summaries))[:PANELS]:
        items = [s for s in summaries if s.case == case]
        name, label = quantity(items)
        items.sort(key=lambda s: s.median(name) or 0.0, reverse=True)
        panels.append((case.title, items, name, label))
    if not panels:
        return
    columns = min(len(panels), COLUMNS)
    bars = [len(items) for _, items, _, _ in panels]
    heights = [max(bars[i : i + columns]) for i in range(0, len(bars), columns)]
    plt.rcParams["svg.hashsalt"] = "websock"
    figure, axes = plt.subplots(
        len(heights),
        columns,
        squeeze=False,
        figsize=(7 * columns, sum(heights) * PANEL_ROW + 1.1 * len(heights)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, items, name, label) in zip(axes.flat, panels, strict=False):
        figures = [item.figures[name] for item in items]
        medians = [figure.median for figure in figures]
        low = [f.median - f.low for f in figures]
        high = [f.high - f.median for f in figures]
        drawn = axis.barh(
            [item.library for item in items],
            medians,
            xerr=(low, high),
            color=[colour(item.library) for item in items],
            error_kw={"ecolor": "#444444", "elinewidth": 0.8},
        )
        axis.bar_label(drawn, [number(value) for value in medians], padding=6)
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axis.set_xlabel(label, fontsize=8)
        axis.margins(x=0.12)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
