"""Topics beside what other libraries have for it: in one process, and in two on Redis.

Subscribers are dealt out over the workers in turn. One of them publishes, with one
message under way: the next follows when everybody has got it, and every copy is
compared. With many topics a message goes to each of them, so that every subscriber
gets it once, and all cases count alike: CPU for each delivery, of all workers together,
and of the broker apart.

The clients are the same load generator for all; of Socket.IO it knows the few packets
that a connection needs. ``epoll`` is a broadcast in C, without any library: what the
system takes for each delivery, which grows with the connections too.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import brokers, cases, libraries, load, report
from .process import (
    BenchError,
    CpuTime,
    Metered,
    choose_cores,
    free_port,
    running,
    wait_for_port,
)
from .run import say
from .stats import Figure, Row, figure

PER_TOPIC = 10
SIZE = 100  # bytes of a message
SETTLE = 0.5  # seconds in which the last subscription has to arrive
LIMIT = 0.5  # of what the cheapest peer spends
FLAT = 1.25  # of what a delivery costs with the fewest subscribers
MANY = 10_000  # subscribers, with whom some take half a minute to begin


@dataclass(frozen=True)
class Contender:
    """One library's rooms.

    ``workers`` are the numbers of processes that it is measured with. What ``is_slow``
    to open thousands of connections does so once. ``peers`` are those whose cheapest it
    must undercut.
    """

    name: str
    script: str
    needs: str
    arguments: tuple[str, ...] = ()
    has_broker: bool = False
    workers: tuple[int, ...] = (1,)
    is_slow: bool = False
    path: str = "/"
    kind: str = "text"
    peers: tuple[str, ...] = ()


_ON_REDIS = ("channels-redis", "channels-pubsub", "socketio-redis")


def _peer(
    name: str, script: str, needs: str, *arguments: str, has_broker: bool = False
) -> Contender:
    extra: dict[str, Any] = {}
    if needs == "socketio":
        extra = {"path": "/socket.io/?EIO=4&transport=websocket", "kind": "socketio"}
    workers = (2,) if has_broker else (1,)
    return Contender(
        name, script, needs, arguments, has_broker, workers, is_slow=True, **extra
    )


CONTENDERS: dict[str, Contender] = {
    item.name: item
    for item in (
        Contender("epoll", "", ""),
        Contender(
            "websock",
            "websock_topics",
            "websock",
            peers=("websockets", "channels", "socketio"),
        ),
        Contender("websockets", "websockets_rooms", "websockets"),
        _peer("channels", "channels_rooms", "channels"),
        _peer("socketio", "socketio_rooms", "socketio"),
        Contender(
            "websock-redis",
            "websock_topics",
            "websock",
            has_broker=True,
            workers=(1, 2),
            peers=_ON_REDIS,
        ),
        _peer(
            *("channels-redis", "channels_rooms", "channels_redis"),
            *("--engine", "core"),
            has_broker=True,
        ),
        _peer(
            *("channels-pubsub", "channels_rooms", "channels_redis"),
            *("--engine", "pubsub"),
            has_broker=True,
        ),
        _peer("socketio-redis", "socketio_rooms", "socketio", has_broker=True),
    )
}
DEFAULT = "epoll,websock,websockets,websock-redis," + ",".join(_ON_REDIS)


@dataclass(frozen=True)
class Shape:
    """How many processes, subscribers and topics."""

    workers: int
    subscribers: int
    topics: int = 1

    @property
    def title(self) -> str:
        """A short name, without the workers."""
        if self.topics == 1:
            return f"{self.subscribers:,} subscribers"
        return f"{self.topics:,} topics x {self.subscribers // self.topics}"

    @property
    def per_topic(self) -> int:
        """Subscribers of a topic in each process; 0 with one topic."""
        if self.topics == 1:
            return 0
        return self.subscribers // self.topics // self.workers


def shapes(
    workers: Sequence[int], subscribers: Sequence[int], topics: Sequence[int]
) -> list[Shape]:
    """Return the cases: one topic for all, and many with ten subscribers each."""
    found: list[Shape] = []
    for count in workers:
        found += [Shape(count, number) for number in subscribers]
        found += [Shape(count, number * PER_TOPIC, number) for number in topics]
    for shape in found:
        if shape.subscribers % shape.workers or PER_TOPIC % shape.workers:
            raise ValueError(
                f"{shape.workers} workers cannot share {shape.title} evenly"
            )
    return found


def choose(names: str) -> list[Contender]:
    """Return the contenders of a list of names.

    Raises:
        ValueError: When one is not known.
    """
    chosen = []
    for name in names.split(","):
        if name not in CONTENDERS:
            known = ", ".join(CONTENDERS)
            raise ValueError(f"unknown library: {name}, choose from {known}")
        chosen.append(CONTENDERS[name])
    return chosen


@dataclass(frozen=True)
class Plan:
    """What is run: who, how often, and for how long each.

    ``all_workers`` has everybody with a broker run with each number of workers.
    """

    chosen: Sequence[Contender]
    shapes: Sequence[Shape]
    python: str
    rounds: int
    seconds: float
    all_workers: bool = False

    def has(self, contender: Contender, shape: Shape, number: int) -> bool:
        """Whether somebody is measured in a case, in a round."""
        is_asked = self.all_workers and contender.has_broker
        if shape.workers not in contender.workers and not is_asked:
            return False
        if not contender.script and shape.topics > 1:
            return False  # it knows one crowd
        return number == 0 or not (contender.is_slow and shape.subscribers >= MANY)


def run(plan: Plan) -> list[Row]:
    """Run all cases, the rounds interleaved; return a row for each run."""
    usable = []
    for contender in plan.chosen:
        if not contender.needs or libraries.find_module(plan.python, contender.needs):
            usable.append(contender)
        else:
            say(f"skipped: {contender.name}: python -m bench setup installs it")
    todo = [
        (number, shape, contender)
        for shape in plan.shapes
        for number in range(plan.rounds)
        for contender in usable
        if plan.has(contender, shape, number)
    ]
    rows: list[Row] = []
    for number, shape, contender in todo:
        row = {
            "library": contender.name,
            **asdict(shape),
            "size": SIZE,
            "round": number,
            "correct": False,
            "error": "",
        }
        try:
            row.update(_measure(contender, shape, plan))
        except BenchError as exc:
            row["error"] = str(exc)
        rows.append(row)
        say(f"[{len(rows)}/{len(todo)}] {_line(row, shape)}")
    return rows


def _line(row: Row, shape: Shape) -> str:
    name = f"{row['library']} x {shape.workers}: {shape.title}"
    if not row["correct"]:
        return f"{name}: WRONG: {row['error']}"
    return f"{name}: {row['cpu_us']:.2f} us CPU, {row['rate']:,.0f}/s"


def _measure(contender: Contender, shape: Shape, plan: Plan) -> Row:
    core, other = choose_cores()
    with contextlib.ExitStack() as stack:
        arguments = [*contender.arguments, "--per-topic", str(shape.per_topic)]
        metered: list[Metered] = []
        if contender.has_broker:
            broker, port = stack.enter_context(brokers.serving(brokers.REDIS, other))
            metered.append(broker)
            arguments += ["--broker", f"redis://127.0.0.1:{port}"]
        ports = [free_port() for _ in range(shape.workers)]
        workers = [
            stack.enter_context(_worker(contender, port, arguments, plan.python, core))
            for port in ports
        ]
        facts: Row = {}
        for worker, port in zip(workers, ports, strict=True):
            wait_for_port(port, worker)
            if contender.script:
                facts = json.loads(worker.read_line(20))
        metered = [*workers, *metered]
        command = [str(load.build("ws_load")), "--gate", "--mode", "broadcast"]
        command += ["--port", ",".join(map(str, ports)), "--path", contender.path]
        command += ["--connections", str(shape.subscribers), "--size", str(SIZE)]
        command += ["--kind", contender.kind, "--settle", str(SETTLE)]
        command += ["--seconds", str(plan.seconds), "--warmup", str(plan.seconds / 3)]
        result, spent = _drive(command, metered, other)
    kept = ("versions", "backend", "kernel")
    row = {name: facts[name] for name in kept if name in facts}
    return {**row, **_figures(result, spent, len(workers))}


def _worker(
    contender: Contender, port: int, arguments: list[str], python: str, core: int
) -> contextlib.AbstractContextManager[Metered]:
    if not contender.script:
        echo = [str(load.build("echo_epoll")), "--port", str(port), "--broadcast", "1"]
        return running(echo, core=core)
    script = str(libraries.SERVERS / f"{contender.script}.py")
    environment: dict[str, str] = {}
    if contender.needs == "websock":
        library = libraries.LIBRARIES["websock"]
        environment = libraries.python_environment(library, python)
    command = [python, script, "--port", str(port), "--mode", "broadcast", *arguments]
    return running(command, core=core, environment=environment)


def _drive(
    command: list[str], metered: Sequence[Metered], core: int
) -> tuple[dict[str, Any], list[CpuTime]]:
    """Put the load on the workers; return what it found, and what each spent."""
    with running(command, core=core) as generator:
        spent = [CpuTime(0, 0, 0)] * len(metered)
        while True:
            answer: dict[str, Any] = json.loads(generator.read_line(120))
            if "phase" not in answer:
                return answer, spent
            # What they do after the last copy belongs to it.
            time.sleep(load.SETTLE)
            now = [each.cpu_time() for each in metered]
            if answer["phase"] == "done":
                now = [new - old for new, old in zip(now, spent, strict=True)]
            spent = now
            generator.write_line()


def _figures(result: dict[str, Any], spent: Sequence[CpuTime], workers: int) -> Row:
    done = result["messages"]
    row = {
        "correct": result["correct"] and done > 0,
        "error": result["error"] or ("" if done else "nothing was delivered"),
        "delivered": done,
        "duration": result["seconds"],
        "rate": result["rate"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
    }
    if done:
        each = 1e6 / done
        row["cpu_us"] = sum(item.total for item in spent[:workers]) * each
        if len(spent) > workers:
            row["broker_us"] = spent[workers].total * each
    return row


# -- what it shows ---------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """A ratio, and what it has to be at most; without a limit it is only shown."""

    case: str
    what: str
    ratio: Figure | None
    limit: float | None

    @property
    def is_met(self) -> bool:
        if self.limit is None:
            return True
        return self.ratio is not None and self.ratio.median <= self.limit


def _shape(row: Row) -> Shape:
    return Shape(row["workers"], row["subscribers"], row["topics"])


def _of(rows: Iterable[Row], library: str, shape: Shape) -> dict[int, Row] | None:
    """Return the rounds of a library in a case, if it has any and all are right."""
    mine = [r for r in rows if r["library"] == library and _shape(r) == shape]
    if not mine or not all(row["correct"] for row in mine):
        return None
    return {row["round"]: row for row in mine}


def _median(rounds: dict[int, Row] | None, name: str = "cpu_us") -> float | None:
    values = [row[name] for row in (rounds or {}).values() if name in row]
    return figure(values).median if values else None


def _ratio(
    mine: dict[int, Row] | None, other: dict[int, Row] | None, name: str = "cpu_us"
) -> Figure | None:
    """Compare two within each round that both have."""
    if not mine or not other:
        return None
    both = sorted(mine.keys() & other.keys())
    pairs = [mine[n][name] / other[n][name] for n in both if other[n][name]]
    return figure(pairs) if pairs else None


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Hold the goals against the rows: half of the cheapest peer, and flat."""
    found = []
    all_shapes = list(dict.fromkeys(map(_shape, rows)))
    for shape in all_shapes:
        for contender in CONTENDERS.values():
            mine = _of(rows, contender.name, shape)
            peers = {
                name: cost
                for name in contender.peers
                if (cost := _median(_of(rows, name, shape))) is not None
            }
            if mine is None or not peers:
                continue
            cheapest = min(peers, key=lambda name: peers[name])
            ratio = _ratio(mine, _of(rows, cheapest, shape))
            what = f"{contender.name} / {cheapest}"
            found.append(Verdict(_title(shape), what, ratio, LIMIT))
    for name in CONTENDERS:
        if name == "epoll" or CONTENDERS[name].peers:
            for workers in dict.fromkeys(shape.workers for shape in all_shapes):
                found += _flatness(rows, name, workers)
    return found


def _flatness(rows: Sequence[Row], name: str, workers: int) -> list[Verdict]:
    """Compare the most subscribers of one topic with the fewest."""
    mine = {row["subscribers"] for row in rows if row["library"] == name
            and row["workers"] == workers and row["topics"] == 1}  # fmt: skip
    if len(mine) < 2:
        return []
    few, many = Shape(workers, min(mine)), Shape(workers, max(mine))
    ratio = _ratio(_of(rows, name, many), _of(rows, name, few))
    case = f"{_workers(workers)}: {many.title} / {min(mine):,}"
    return [Verdict(case, name, ratio, FLAT if CONTENDERS[name].peers else None)]


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _title(shape: Shape) -> str:
    return f"{_workers(shape.workers)}: {shape.title}"


def markdown(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return the report."""
    rounds = max((row["round"] for row in rows), default=0) + 1
    parts = [
        "# Topics and rooms",
        f"`{facts['command']}`",
        f"{report.machine_lines(facts)}\n- {report.versions_line(rows)}",
        f"Messages of {SIZE} bytes; the first subscriber publishes one, and the next "
        "when everybody has got it; every copy is compared. With many topics it is "
        f"published to each of them. Median of {cases.count(rounds, 'round')}, "
        "interleaved; in brackets the smallest and largest; Channels and Socket.IO "
        f"with {MANY:,} subscribers run once. CPU is that of all workers, user and "
        "system, in microseconds for each delivery; the workers share one core, load "
        "and broker another. *-redis* and *-pubsub* have a Redis between the workers, "
        "the others need none. *epoll* is C without any library: the system's share.",
        "## The goals",
        _goals_table(judge(rows)),
    ]
    for workers in dict.fromkeys(row["workers"] for row in rows):
        mine = [row for row in rows if row["workers"] == workers]
        parts.append(f"## {_workers(workers).capitalize()}: CPU us/delivery")
        parts.append(_table(mine, "cpu_us"))
        if any("broker_us" in row for row in mine):
            parts += ["Of Redis, for each delivery:", _table(mine, "broker_us")]
        parts += ["Deliveries/s:", _table(mine, "rate")]
    wrong = [row for row in rows if not row["correct"]]
    if wrong:
        parts += ["## Not correct", "\n".join(map(_complaint, wrong))]
    return "\n\n".join(parts) + "\n"


def _complaint(row: Row) -> str:
    text = (row["error"].strip().splitlines() or ["unknown"])[-1].strip()
    return f"- {row['library']}, {_title(_shape(row))}: {text}"


def _goals_table(verdicts: Sequence[Verdict]) -> str:
    lines = []
    for item in verdicts:
        limit = "" if item.limit is None else f"at most {item.limit:g}"
        met = "" if item.limit is None else "met" if item.is_met else "**missed**"
        measured = report.spread(item.ratio) or "not measured"
        lines.append([item.case, item.what, limit, measured, met])
    return report.table(["case", "ratio", "goal", "measured (range)", "verdict"], lines)


def _table(rows: Sequence[Row], name: str) -> str:
    """Return medians by library and case; the cheapest of the first case on top."""
    shapes = list(dict.fromkeys(map(_shape, rows)))
    found: dict[str, list[Figure | None]] = {}
    for library in dict.fromkeys(row["library"] for row in rows):
        values = [_of(rows, library, shape) or {} for shape in shapes]
        taken = [[r[name] for r in each.values() if name in r] for each in values]
        if any(taken):
            found[library] = [figure(each) if each else None for each in taken]
    names = sorted(found, key=lambda n: found[n][0].median if found[n][0] else 1e9)
    show = report.spread if name == "cpu_us" else _middle
    lines = [[library, *map(show, found[library])] for library in names]
    return report.table(["library", *(shape.title for shape in shapes)], lines)


def _middle(figure: Figure | None) -> str:
    return report.number(figure.median if figure else None)
