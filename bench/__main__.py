"""``python -m bench``: the commands. ``--help`` lists them."""

from __future__ import annotations

import argparse
import difflib
import itertools
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from . import (
    brokers,
    crowd,
    goals,
    instructions,
    kernel,
    libraries,
    load,
    machine,
    micro,
    report,
    rooms,
    soak,
    workers,
)
from .capacity import command as capacity
from .cases import KINDS, Case, parse_size
from .process import BenchError, choose_cores
from .run import Bench
from .stats import summarise
from .suites import SUITES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    if platform.system() != "Linux":
        print("the harness needs Linux: it uses epoll and /proc", file=sys.stderr)
        return 2
    # A terminated harness stops its servers as an interrupted one does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status: int = options.run(options)
    except (BenchError, ValueError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted, all servers are stopped", file=sys.stderr)
        return 130
    return status


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are a line, and which knows what was meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bench: {message}\nall options: {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(option, self._option_string_actions, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            self.error(f"there is no option {option}{meant}")
        return found, unknown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, suite in SUITES.items():
        command = commands.add_parser(name, help=suite.title)
        _common(command)
        _load(command)
        command.add_argument("--libs", default=suite.libraries)
        command.set_defaults(run=_run_suite, suite=name)
    command = commands.add_parser("floor", help="is the speed floor held?")
    _common(command)
    command.add_argument("--seconds", type=float)
    command.set_defaults(run=_run_floor)
    command = commands.add_parser("goals", help="every speed goal, met or missed")
    _common(command)
    command.add_argument("--seconds", type=float)
    command.set_defaults(run=_run_goals)
    command = commands.add_parser("hosts", help="what other libraries gain")
    _common(command)
    command.add_argument("--seconds", type=float)
    command.set_defaults(run=_run_hosts)
    for name in micro.FILES:
        command = commands.add_parser(name, help=f"{name}, without sockets")
        command.add_argument("--seconds", type=float, default=0.2)
        command.add_argument("--python", help="interpreter, with pytest-benchmark")
        command.set_defaults(run=_run_micro, suite=name)
    command = commands.add_parser("compare", help="what would I gain?")
    _common(command)
    _load(command)
    command.add_argument("--with", dest="peer", required=True, metavar="LIBRARY")
    command.set_defaults(run=_run_compare)
    command = commands.add_parser("url", help="load on a server of your own")
    _load(command)
    command.add_argument("url", help="ws://127.0.0.1:PORT/PATH")
    command.add_argument("--pid", type=int, help="its process: meter its CPU time")
    command.add_argument("--rounds", type=int, default=3)
    command.set_defaults(run=_run_url)
    command = commands.add_parser("soak", help="does it hold for hours?")
    command.add_argument("--minutes", type=float, default=5.0)
    command.add_argument("--restart-every", type=float, metavar="SECONDS")
    command.add_argument("--interval", type=float, help="between a client's messages")
    command.add_argument("--seed", type=int)
    command.add_argument("--output", default="soak")
    command.set_defaults(run=_run_soak)
    command = commands.add_parser("brokers", help="what a broker spends on a message")
    command.add_argument("--brokers", default="redis,nats,hub", metavar="NAME,...")
    command.add_argument("--python", help="interpreter of the workers")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--seconds", type=float, default=0.7)
    command.add_argument("--output", default="brokers")
    command.set_defaults(run=_run_brokers)
    command = commands.add_parser("instructions", help="of a message through a broker")
    command.add_argument("--brokers", default="redis,nats,hub", metavar="NAME,...")
    command.add_argument("--python", help="interpreter of the workers")
    command.set_defaults(run=_run_instructions)
    command = commands.add_parser("rooms", help="topics beside others, with a broker")
    command.add_argument("--libs", default=rooms.DEFAULT)
    command.add_argument("--workers", type=_numbers, metavar="N,...")
    command.add_argument(
        "--subscribers", type=_numbers, default=[10, 100, 1000, 10_000]
    )
    command.add_argument("--topics", type=_numbers, default=[1000], help="10 in each")
    command.add_argument("--python", help="interpreter of the workers")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--seconds", type=float, default=0.5)
    command.add_argument("--output", default="rooms")
    command.set_defaults(run=_run_rooms)
    command = commands.add_parser("workers", help="what do more processes bring?")
    command.add_argument("--workers", type=_numbers, default=[1, 2], metavar="N,...")
    command.add_argument("--python", help="interpreter of the workers")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--seconds", type=float, default=1.5)
    command.add_argument("--output", default="workers")
    command.set_defaults(run=_run_workers)
    command = commands.add_parser("kernel", help="the kernel's share of a connection")
    command.add_argument("--connections", type=int, default=kernel.CONNECTIONS)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--output", default="kernel")
    command.set_defaults(run=_run_kernel)
    command = commands.add_parser("capacity", help="how many machines does it take?")
    capacity.add_options(command)
    command.set_defaults(run=capacity.run)
    command = commands.add_parser("load", help="are 10,000 connections held?")
    command.add_argument("--connections", type=int, default=10_000)
    command.add_argument("--seconds", type=float, default=20.0, help="of each row")
    command.add_argument("--loop", type=_words, default=["uvloop", "asyncio"])
    command.add_argument("--python", help="interpreter of the servers and clients")
    command.add_argument("--output", default="load")
    command.set_defaults(run=_run_load)
    command = commands.add_parser("setup", help="install all peers into bench/.venv")
    command.set_defaults(run=_setup)
    command = commands.add_parser("list", help="libraries, and which are installed")
    command.add_argument("--python")
    command.set_defaults(run=_list)
    command = commands.add_parser("report", help="write tables and charts again")
    command.add_argument("file", type=Path, help="a .jsonl of bench/results")
    command.set_defaults(run=_report)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, help="interleaved rounds")
    parser.add_argument("--python", help="interpreter of the Python servers")
    parser.add_argument("--output", help="name of the files in bench/results")
    parser.add_argument("--no-chart", action="store_true")


def _load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "load", "each list makes its own cases; without any, the suite's are used"
    )
    group.add_argument("--connections", type=_numbers, metavar="N,...")
    group.add_argument("--depth", type=_numbers, metavar="N,...", help="in flight")
    group.add_argument("--size", type=_sizes, metavar="BYTES,...", help="16k, 1m")
    group.add_argument("--kind", type=_words, metavar=",".join(KINDS))
    group.add_argument("--loop", type=_words, metavar="uvloop,asyncio")
    group.add_argument("--fragments", type=_numbers, metavar="N,...")
    group.add_argument("--chunk", type=_numbers, metavar="BYTES,...")
    group.add_argument("--refill", type=_numbers, metavar="N,...")
    group.add_argument("--tls", action="store_true", default=None)
    group.add_argument("--deflate", action="store_true", default=None)
    group.add_argument("--seconds", type=float, help="measured, in each round")
    group.add_argument("--warmup", type=float)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _sizes(text: str) -> list[int]:
    return [parse_size(part) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


LISTS = ("connections", "depth", "size", "kind", "loop", "fragments", "chunk", "refill")


def select_cases(cases: Sequence[Case], options: argparse.Namespace) -> list[Case]:
    """Apply the load options to a suite's cases.

    A list that is given replaces what the suite says about it; the product of
    all lists is taken, and a case that comes out twice is measured once.
    """
    given = {n: getattr(options, n, None) for n in LISTS}
    names = [name for name, values in given.items() if values]
    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("tls", "deflate", "seconds", "warmup")
        if getattr(options, name, None) is not None
    }
    shapes = {"connections", "depth", "size"} & set(names)
    bases = [cases[0]] if shapes else list(cases)
    selected = []
    for base in bases:
        for values in itertools.product(*(given[name] or () for name in names)):
            picked = dict(zip(names, values, strict=True))
            selected.append(base.with_(**picked, **changes))
    return list(dict.fromkeys(selected))


def _bench(options: argparse.Namespace, rounds: int) -> Bench:
    for program in ("ws_load", "echo_epoll", "echo_uws"):
        load.build(program)
    python = getattr(options, "python", None) or libraries.default_python()
    return Bench(python, getattr(options, "rounds", None) or rounds)


def _finish(
    options: argparse.Namespace,
    name: str,
    title: str,
    facts: dict[str, Any],
    bench: Bench,
    extra: str = "",
) -> int:
    text = report.markdown(title, facts, bench.rows)
    if extra:
        text = f"{text}\n{extra}\n"
    path = report.write(options.output or name, facts, bench.rows, text)
    print(text)
    if not options.no_chart:
        _chart(path)
    print(f"written: {path} and {path.with_suffix('.jsonl').name}", file=sys.stderr)
    return 0 if all(row["correct"] for row in bench.rows) else 1


def _publish(
    name: str, facts: dict[str, Any], rows: Sequence[dict[str, Any]], text: str
) -> None:
    """Write rows and their report, print it, and say where it is."""
    path = report.write(name, facts, rows, text)
    print(text)
    print(f"written: {path} and {path.with_suffix('.jsonl').name}", file=sys.stderr)


def _chart(path: Path) -> None:
    try:
        from .charts import draw
    except ImportError:
        print("no chart: matplotlib is not installed", file=sys.stderr)
        return
    _, rows = report.read(path.with_suffix(".jsonl"))
    draw(rows, path.with_suffix(".svg"))


def _run_suite(options: argparse.Namespace) -> int:
    suite = SUITES[options.suite]
    bench = _bench(options, suite.rounds)
    facts = machine.describe(bench.python)
    cases = select_cases(suite.cases, options)
    chosen = libraries.choose(options.libs)
    measure = bench.run_clients if suite.is_client else bench.run
    measure(options.suite, cases, chosen)
    return _finish(options, options.suite, suite.title, facts, bench)


def _run_soak(options: argparse.Namespace) -> int:
    # A share of a short run, so that it has restarts too.
    every = options.restart_every or min(300.0, options.minutes * 60 / 4)
    plan = soak.Plan(
        options.minutes,
        restart_every=every,
        drain=min(10.0, every / 2),
        interval=options.interval or 0.5,
        seed=soak.choose_seed() if options.seed is None else options.seed,
    )
    print(f"seed {plan.seed}", file=sys.stderr)
    facts = machine.describe(plan.python)
    with soak.soaking(plan) as run:
        run.run()
    text = soak.markdown(plan, facts, run.rows, run.faults)
    _publish(options.output, facts, run.rows, text)
    return 1 if run.faults else 0


def _run_brokers(options: argparse.Namespace) -> int:
    chosen = brokers.choose(options.brokers)
    python = options.python or libraries.default_python()
    facts = machine.describe(python)
    rows = brokers.run(chosen, python, options.rounds, options.seconds)
    text = brokers.markdown(facts, rows)
    _publish(options.output, facts, rows, text)
    return 0


def _run_instructions(options: argparse.Namespace) -> int:
    python = options.python or libraries.default_python()
    chosen = brokers.choose(options.brokers)
    rows = [row for broker in chosen for row in instructions.measure(broker, python)]
    print(instructions.table(rows))
    return 0


def _run_rooms(options: argparse.Namespace) -> int:
    shapes = rooms.shapes(
        options.workers or [1, 2], options.subscribers, options.topics
    )
    plan = rooms.Plan(
        rooms.choose(options.libs),
        shapes,
        options.python or libraries.default_python(),
        options.rounds,
        options.seconds,
        all_workers=options.workers is not None,
    )
    facts = machine.describe(plan.python)
    rows = rooms.run(plan)
    _publish(options.output, facts, rows, rooms.markdown(facts, rows))
    is_met = all(verdict.is_met for verdict in rooms.judge(rows))
    return 0 if is_met and all(row["correct"] for row in rows) else 1


def _run_workers(options: argparse.Namespace) -> int:
    load.build("ws_load")
    python = options.python or libraries.default_python()
    facts = machine.describe(python)
    rows = workers.run(options.workers, python, options.rounds, options.seconds)
    text = workers.markdown(facts, rows)
    _publish(options.output, facts, rows, text)
    return 0


def _run_kernel(options: argparse.Namespace) -> int:
    facts = machine.describe(sys.executable)
    rows = kernel.run(options.connections, options.rounds)
    text = kernel.markdown(facts, rows)
    _publish(options.output, facts, rows, text)
    return 0


def _run_load(options: argparse.Namespace) -> int:
    python = options.python or libraries.default_python()
    facts = machine.describe(python)
    chosen = crowd.crowds(options.connections, options.seconds, options.loop)
    rows = crowd.run(chosen, python)
    text = crowd.markdown(facts, rows)
    _publish(options.output, facts, rows, text)
    return 0 if all(map(crowd.is_right, rows)) else 1


def _run_micro(options: argparse.Namespace) -> int:
    python = options.python or libraries.default_python()
    facts = machine.describe(python)
    rows = micro.run(options.suite, python, options.seconds)
    title = f"{options.suite.capitalize()}, without sockets"
    text = micro.markdown(title, facts, rows)
    _publish(options.suite, facts, rows, text)
    return 0


def _run_goal_cases(
    bench: Bench,
    wanted: Sequence[goals.Goal],
    seconds: float | None,
    name: str,
    *,
    is_client: bool = False,
) -> list[goals.Verdict]:
    if seconds:
        wanted = [
            goals.Goal(
                goal.case.with_(seconds=seconds),
                goal.library,
                goal.peer,
                goal.limit,
                goal.is_strict,
                goal.figure,
            )
            for goal in wanted
        ]
    for case in goals.cases_of(wanted):
        names = ",".join(goals.libraries_of(wanted, case))
        chosen = libraries.choose(names)
        run = bench.run_clients if is_client else bench.run
        run(name, [case], chosen)
    return goals.judge(wanted, bench.rows)


def _run_floor(options: argparse.Namespace) -> int:
    bench = _bench(options, 5)
    facts = machine.describe(bench.python)
    verdicts = _run_goal_cases(bench, goals.FLOOR, options.seconds, "floor")
    table = "## The floor\n\n" + report.goals_table(verdicts)
    status = _finish(options, "floor", "Speed floor", facts, bench, table)
    return status or (0 if all(v.is_met for v in verdicts) else 1)


def _run_goals(options: argparse.Namespace) -> int:
    bench = _bench(options, 5)
    facts = machine.describe(bench.python)
    seconds = options.seconds
    verdicts = _run_goal_cases(bench, goals.SPEED, seconds, "goals")
    verdicts += _run_goal_cases(
        bench, goals.CLIENT_SPEED, seconds, "goals", is_client=True
    )
    rounds, bench.rounds = bench.rounds, 1
    bench.run("goals", goals.IDLE_CASES, libraries.choose(",".join(goals.MEMORY)))
    bench.rounds = rounds
    memory = report.memory_goals(summarise(bench.rows))
    table = f"## The goals\n\n{report.goals_table(verdicts)}\n\n{memory}"
    status = _finish(options, "goals", "Speed goals", facts, bench, table)
    return status or (0 if all(v.is_met for v in verdicts) else 1)


def _run_hosts(options: argparse.Namespace) -> int:
    bench = _bench(options, 3)
    facts = machine.describe(bench.python)
    seconds = options.seconds
    verdicts = _run_goal_cases(bench, goals.HOSTS, seconds, "hosts")
    verdicts += _run_goal_cases(
        bench, goals.CLIENT_HOSTS, seconds, "hosts", is_client=True
    )
    table = "## What is gained\n\n" + report.goals_table(verdicts)
    status = _finish(
        options, "hosts", "Speed-ups of other libraries", facts, bench, table
    )
    return status or (0 if all(v.is_met for v in verdicts) else 1)


def _run_compare(options: argparse.Namespace) -> int:
    bench = _bench(options, 3)
    facts = machine.describe(bench.python)
    cases = select_cases([Case()], options)
    mine = ("websock", "websock-listener")
    bench.run("compare", cases, libraries.choose(",".join((*mine, options.peer))))
    sentences = [
        report.gain(case, bench.rows, library, options.peer)
        for case in cases
        for library in mine
    ]
    title = f"websock and {options.peer}"
    name = f"compare-{options.peer}"
    return _finish(options, name, title, facts, bench, "\n\n".join(sentences))


def _run_url(options: argparse.Namespace) -> int:
    parts = urlsplit(options.url)
    if parts.scheme not in ("ws", "wss") or parts.hostname not in (
        "127.0.0.1",
        "localhost",
    ):
        raise ValueError("the URL must be ws:// or wss:// on 127.0.0.1")
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    for case in select_cases([Case(tls=parts.scheme == "wss")], options):
        for _ in range(options.rounds):
            core = choose_cores()[1]
            print(load.drive_url(case, port, path, options.pid, core=core))
    return 0


def _setup(options: argparse.Namespace) -> int:
    environment = libraries.BENCH / ".venv"
    python = environment / "bin" / "python"
    root = libraries.BENCH.parent
    commands = [
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "-r", "bench/requirements.txt"],
        [str(python), "-m", "pip", "install", "."],
    ]
    for command in commands:
        subprocess.run(command, check=True, cwd=root)
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
            check=True,
            cwd=libraries.BENCH,
        )
    except (OSError, subprocess.CalledProcessError):
        print("npm is not there: node-ws will be left out", file=sys.stderr)
    return 0


def _list(options: argparse.Namespace) -> int:
    python = options.python or libraries.default_python()
    print(f"interpreter: {python}")
    for library in libraries.LIBRARIES.values():
        roles = [r for r in ("server", "client") if getattr(library, r)]
        state = libraries.missing(library, python) or "ready"
        print(f"{library.name:28}{library.api:12}{'+'.join(roles):15}{state}")
    return 0


def _report(options: argparse.Namespace) -> int:
    facts, rows = report.read(options.file)
    text = report.markdown(options.file.stem.capitalize(), facts, rows)
    path = report.write(options.file.stem, facts, rows, text)
    _chart(path)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
