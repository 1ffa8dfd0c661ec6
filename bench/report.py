"""Rows to JSON lines, Markdown tables and sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import machine
from .cases import Case, count, size_name
from .goals import Verdict, memory_limit
from .stats import Figure, Row, Summary, ratios, summarise

RESULTS = Path(__file__).resolve().parent / "results"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: first column left, the others right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    body = [header, rule, *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in body)


def number(value: float | None) -> str:
    """Return a figure with three digits that mean something."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def spread(figure: Figure | None) -> str:
    """Return a median with the range of its rounds: ``7.71 (7.6-7.9)``."""
    if figure is None:
        return ""
    low, high = number(figure.low), number(figure.high)
    return f"{number(figure.median)} ({low}-{high})"


def share(value: float | None) -> str:
    """Return a share as a percentage."""
    return "" if value is None else f"{value * 100:.0f} %"


def case_table(case: Case, summaries: Sequence[Summary], rows: Sequence[Row]) -> str:
    """Return the table of one case, the cheapest library first."""
    if case.mode == "idle":
        return _memory_table(case, summaries)
    right = [s for s in summaries if s.correct]
    wrong = [s for s in summaries if not s.correct]
    right.sort(key=lambda s: s.median("cpu_us") or 0.0)
    base = right[0].library if right else ""
    noun = {"handshake": "handshake", "broadcast": "delivery"}.get(case.mode, "message")
    header = [
        "library",
        f"CPU us/{noun} (range)",
        f"x {base}",
        "user",
        "system",
        f"{_plural(noun)}/s",
        "p50 us",
        "p99 us",
        "its core",
        "load's core",
        "correct",
    ]
    lines = []
    for item in right:
        ratio = ratios(rows, case, item.library, base)
        lines.append(
            [
                item.library,
                spread(item.figures.get("cpu_us")),
                number(ratio.median if ratio else None),
                number(item.median("user_us")),
                number(item.median("system_us")),
                number(item.median("rate")),
                number(item.median("p50_us")),
                number(item.median("p99_us")),
                share(item.median("server_busy")),
                share(item.median("load_busy")),
                "yes",
            ]
        )
    lines += [[s.library, *[""] * (len(header) - 2), "**no**"] for s in wrong]
    return table(header, lines) + _complaints(wrong)


def _memory_table(case: Case, summaries: Sequence[Summary]) -> str:
    right = [s for s in summaries if s.correct]
    wrong = [s for s in summaries if not s.correct]
    right.sort(key=lambda s: s.median("memory") or 0.0)
    lines = []
    for item in right:
        figure = item.figures["memory"]
        scaled = Figure(*(v / 1024 for v in (figure.median, figure.low, figure.high)))
        lines.append([item.library, spread(scaled), "yes"])
    lines += [[item.library, "", "**no**"] for item in wrong]
    return table(["library", "KiB/connection (range)", "correct"], lines) + _complaints(
        wrong
    )


def _complaints(wrong: Sequence[Summary]) -> str:
    lines = []
    for item in wrong:
        # The last line of a traceback says what it is.
        text = (item.error.strip().splitlines() or ["unknown"])[-1].strip()
        lines.append(f"\n- {item.library}: {text}")
    return "\n" + "".join(lines) if lines else ""


def _plural(noun: str) -> str:
    return "deliveries" if noun == "delivery" else f"{noun}s"


def versions_line(rows: Sequence[Row]) -> str:
    """Return the versions of everything that was measured."""
    versions: dict[str, str] = {}
    for row in rows:
        versions.update(row.get("versions", {}))
        if "kernel" in row and row.get("backend") == "c":
            versions["websock kernel"] = row["kernel"]
    return ", ".join(f"{name} {versions[name]}" for name in sorted(versions))


def machine_lines(facts: dict[str, Any]) -> str:
    """Return what was measured on."""
    return "\n".join(f"- {line}" for line in machine.summary(facts))


def markdown(title: str, facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return the whole report of some rows."""
    summaries = summarise(rows)
    rounds = max((s.rounds for s in summaries), default=0)
    parts = [
        f"# {title}",
        f"`{facts['command']}`",
        machine_lines(facts),
        f"- {versions_line(rows)}",
        f"Median of {count(rounds, 'round')}, libraries interleaved; in brackets the "
        "smallest and largest round. CPU is that of the measured process and its "
        "children, user and system. `x` is the median of the ratios within each "
        "round. No figure without a correct answer to every message.",
    ]
    if overview := _overview(summaries):
        parts += ["## CPU microseconds, all cases", overview]
    for case in dict.fromkeys(s.case for s in summaries):
        parts.append(f"## {case.title[0].upper()}{case.title[1:]}")
        mine = [s for s in summaries if s.case == case]
        parts.append(case_table(case, mine, rows))
    return "\n\n".join(parts) + "\n"


def _overview(summaries: Sequence[Summary]) -> str:
    """Return one table of the medians of CPU time; empty for a single case."""
    right = [s for s in summaries if s.correct and s.median("cpu_us") is not None]
    cases = list(dict.fromkeys(s.case for s in right))
    if len(cases) < 2:
        return ""
    found = {(s.library, s.case): s.median("cpu_us") for s in right}
    names = sorted(
        dict.fromkeys(s.library for s in right),
        key=lambda name: found.get((name, cases[0])) or float("inf"),
    )
    lines = [
        [name, *(number(found.get((name, case))) for case in cases)] for name in names
    ]
    return table(["library", *(case.title for case in cases)], lines)


def goals_table(verdicts: Sequence[Verdict]) -> str:
    """Return what was promised, what was measured, and whether it is met."""
    lines = []
    for verdict in verdicts:
        goal = verdict.goal
        name = "" if goal.figure == "cpu_us" else f" ({goal.figure})"
        lines.append(
            [
                goal.case.title,
                f"{goal.library} / {goal.peer}{name}",
                goal.wanted,
                spread(verdict.ratio) or "not measured",
                "met" if verdict.is_met else "**missed**",
            ]
        )
    return table(["case", "ratio", "goal", "measured (range)", "verdict"], lines)


def memory_goals(summaries: Sequence[Summary]) -> str:
    """Return the memory promises against what was measured."""
    lines = []
    for item in summaries:
        memory = item.median("memory")
        limit = memory_limit(item.library, item.case)
        if memory is not None and limit is not None:
            met = "met" if memory <= limit else "**missed**"
            wanted, found = size_name(limit), f"{memory / 1024:.2f} KiB"
            lines.append(
                [item.case.title, item.library, f"at most {wanted}", found, met]
            )
    if not lines:
        return ""
    return table(["case", "library", "goal", "measured", "verdict"], lines)


def gain(case: Case, rows: Sequence[Row], library: str, peer: str) -> str:
    """Return one sentence: what a user of the peer would gain."""
    mine, theirs = (
        next((s for s in summarise(rows) if (s.library, s.case) == (name, case)), None)
        for name in (library, peer)
    )
    ratio = ratios(rows, case, library, peer)
    if ratio is None or mine is None or theirs is None:
        return f"{library} and {peer} could not be compared: see the table."
    cpu, other = mine.median("cpu_us") or 0.0, theirs.median("cpu_us") or 0.0
    better = "less" if ratio.median <= 1 else "more"
    factor = 1 / ratio.median if ratio.median <= 1 else ratio.median
    return (
        f"With {case.title}, {library} needs {number(factor)} times {better} CPU per "
        f"message than {peer}: {number(cpu)} instead of {number(other)} us, so one "
        f"core carries about {1e6 / cpu:,.0f} messages a second instead of "
        f"{1e6 / other:,.0f}."
    )


def write(
    name: str, facts: dict[str, Any], rows: Sequence[dict[str, Any]], text: str
) -> Path:
    """Store rows (JSON lines, the machine first) and the report beside them."""
    RESULTS.mkdir(exist_ok=True)
    lines = [json.dumps({"machine": facts}), *(json.dumps(row) for row in rows)]
    (RESULTS / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    path = RESULTS / f"{name}.md"
    path.write_text(text)
    return path


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Read what `write` stored."""
    first, *rest = path.read_text().splitlines()
    return json.loads(first)["machine"], [json.loads(line) for line in rest]
