"""Run the Autobahn test suite over every combination, strictly.

    make conformance                     every case; an hour or more
    make conformance ARGS=--fast         all but groups 9, 12 and 13; minutes
    make conformance ARGS='--backend c --role server --cases 6.4.*'

A combination is a role (server, client), a backend (c, pure), a loop (asyncio,
uvloop) and an interface (coroutine, listener).  Its outcome must be the one in
expected.json, case by case; there NON-STRICT and UNIMPLEMENTED do not occur.

The suite itself runs on Python 2.7.  Its installer and runner are looked for in
../shared/autobahn (or where AUTOBAHN says) and it is installed into .autobahn (or
where AUTOBAHN_SUITE says).  Exit status: 0 all as expected, 1 not, 3 cannot be run
here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RUNNER = Path(os.environ.get("AUTOBAHN") or ROOT / ".." / "shared" / "autobahn")
SUITE = Path(os.environ.get("AUTOBAHN_SUITE") or ROOT / ".autobahn")
SLOW = ("9.*", "12.*", "13.*")
CANNOT_RUN = 3


class Combination(NamedTuple):
    role: str
    backend: str
    loop: str
    api: str

    @property
    def name(self) -> str:
        return "-".join(self)


def cannot_run(text: str) -> NoReturn:
    print(f"conformance: {text}", file=sys.stderr)
    sys.exit(CANNOT_RUN)


def prepare() -> None:
    """See to it that the suite is installed, or say what is missing."""
    if not (RUNNER / "run").exists():
        cannot_run(
            f"no runner of the Autobahn test suite in {os.path.relpath(RUNNER)}: "
            "name its directory in AUTOBAHN"
        )
    if (SUITE / "bin" / "wstest").exists():
        return
    if subprocess.run([RUNNER / "install", SUITE]).returncode:
        cannot_run(
            "the Autobahn test suite could not be installed (it needs Python 2.7)"
        )


def environment(backend: str) -> dict[str, str]:
    env = dict(os.environ)
    env.pop("WEBSOCK_PURE", None)
    env.pop("WEBSOCK_REQUIRE_EXT", None)
    env["WEBSOCK_PURE" if backend == "pure" else "WEBSOCK_REQUIRE_EXT"] = "1"
    env["PYTHONUNBUFFERED"] = "1"
    return env


def command(combination: Combination, args: argparse.Namespace) -> list[str]:
    """Return the command for the suite's runner."""
    server = combination.role == "server"
    options = ["--loop", combination.loop]
    if combination.api == "listener":
        options.append("--listener")
    program = [sys.executable, str(args.server if server else args.client), *options]
    line = shlex.join(program) + (" --port {port}" if server else " {url} {agent}")
    result = [str(RUNNER / "run"), "--suite", str(SUITE), "--strict", "--require-all"]
    result += ["--agent", combination.name, "--timeout", str(args.timeout)]
    result += ["--server-cmd" if server else "--client-cmd", line]
    if args.cases:
        result += ["--cases", *args.cases]
    if args.fast or combination.api == "listener":
        result += ["--exclude", *SLOW]
    return result


def outcomes(outdir: Path) -> dict[str, str]:
    """Return the verdict on each case; the worse of behaviour and closing."""
    index = outdir / "index.json"
    if not index.exists():
        return {}
    merged: dict[str, Any] = {}
    for results in json.loads(index.read_text()).values():
        merged.update(results)
    found = {}
    for case, result in merged.items():
        verdict, closing = result["behavior"], result["behaviorClose"]
        if verdict == "OK" and closing not in ("OK", "INFORMATIONAL"):
            verdict = closing
        found[case] = verdict
    return found


def expected_outcomes() -> dict[str, str]:
    table = json.loads((HERE / "expected.json").read_text())
    return {
        case: verdict
        for group in table["groups"].values()
        for verdict, cases in group.items()
        for case in cases
    }


def is_wanted(case: str, args: argparse.Namespace, fast: bool) -> bool:
    """Tell whether a case is run; the suite matches patterns from the start only."""
    wanted = not args.cases or any(fnmatchcase(case, f"{p}*") for p in args.cases)
    return wanted and not (fast and any(fnmatchcase(case, p) for p in SLOW))


def run(combination: Combination, args: argparse.Namespace) -> bool:
    """Run one combination; tell whether the outcome is the expected one."""
    print(f"\n== {combination.name}", flush=True)
    outdir = args.reports / combination.name
    shutil.rmtree(outdir, ignore_errors=True)
    line = [*command(combination, args), "--outdir", str(outdir)]
    status = subprocess.run(line, env=environment(combination.backend)).returncode
    found = outcomes(outdir)
    fast = args.fast or combination.api == "listener"
    expected = {
        case: verdict
        for case, verdict in expected_outcomes().items()
        if is_wanted(case, args, fast)
    }
    same = found == expected
    for case in sorted(found.keys() | expected.keys(), key=case_key):
        want, got = expected.get(case, "not in the table"), found.get(case, "MISSING")
        if want != got:
            print(f"{combination.name}: case {case} is {got}, expected {want}")
    if status and same:
        print(f"{combination.name}: the runner ended with status {status}")
    return same and not status


def case_key(case: str) -> tuple[int, ...]:
    return tuple(int(part) for part in case.split("."))


def combinations(args: argparse.Namespace) -> list[Combination]:
    found = itertools.product(args.role, args.backend, args.loop, args.api)
    return [Combination(*parts) for parts in found]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, choices in {
        "role": ["server", "client"],
        "backend": ["c", "pure"],
        "loop": ["asyncio", "uvloop"],
        "api": ["coroutine", "listener"],
    }.items():
        parser.add_argument(
            f"--{option}", nargs="+", choices=choices, default=choices, metavar="NAME"
        )
    parser.add_argument("--cases", nargs="+", metavar="PATTERN")
    parser.add_argument(
        "--fast", action="store_true", help="leave out groups 9, 12 and 13"
    )
    parser.add_argument("--reports", type=Path, default=HERE / "reports", metavar="DIR")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS")
    parser.add_argument("--server", type=Path, default=HERE / "echo_server.py")
    parser.add_argument("--client", type=Path, default=HERE / "client.py")
    return parser.parse_args()


def main() -> int:
    args = parse()
    prepare()
    if "uvloop" in args.loop and find_spec("uvloop") is None:
        print("conformance: uvloop is not installed, it is left out", file=sys.stderr)
        args.loop = [loop for loop in args.loop if loop != "uvloop"]
    began = time.monotonic()
    results = {
        combination.name: run(combination, args) for combination in combinations(args)
    }
    print(f"\n== {len(results)} combinations in {time.monotonic() - began:.0f} s")
    for name, passed in results.items():
        print(f"{'as expected' if passed else 'NOT AS EXPECTED':<16} {name}")
    return 0 if results and all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
