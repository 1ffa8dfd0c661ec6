"""The benchmark harness: its arithmetic, and that a wrong echo gets no figure.

Nothing here measures time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed websock comes first

from bench import __main__ as command  # noqa: E402
from bench import (  # noqa: E402
    goals,
    libraries,
    load,
    micro,
    process,
    report,
    stats,
    suites,
)
from bench.cases import Case, case_fields, case_from, parse_size, size_name  # noqa: E402

pytestmark = pytest.mark.source

needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the harness runs on Linux only"
)
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("make") is None,
    reason="no C compiler or make",
)


def row(library: str, number: int, cpu: float, **changes: Any) -> stats.Row:
    case = changes.pop("case", Case())
    facts = {"round": number, "cpu_us": cpu, "correct": True, "error": ""}
    return {"library": library, **case_fields(case), **facts, **changes}


class TestCases:
    def test_stored_row_gives_the_case_back(self) -> None:
        case = Case(connections=7, kind="cjk", tls=True, chunk=3)
        assert case_from(json.loads(json.dumps(row("a", 0, 1.0, case=case)))) == case

    def test_arguments_leave_out_what_is_off(self) -> None:
        arguments = Case(size=5).load_arguments()
        assert arguments[arguments.index("--size") + 1] == "5"
        assert "--tls" not in arguments and "--chunk" not in arguments
        assert "--deflate" in Case(deflate=True).load_arguments()
        assert "--no-context" not in Case(deflate=True).load_arguments()
        assert "--no-context" in Case(no_context=True).load_arguments()

    @pytest.mark.parametrize(
        ("text", "size"), [("0", 0), ("512", 512), ("16k", 16384), ("1MiB", 1 << 20)]
    )
    def test_sizes(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "k", "-1", "1.5k", "12q"])
    def test_bad_sizes(self, text: str) -> None:
        with pytest.raises(ValueError, match="not a size"):
            parse_size(text)

    def test_size_names(self) -> None:
        names = [size_name(size) for size in (0, 125, 1024, 1025, 1 << 20)]
        assert names == ["0 B", "125 B", "1 KiB", "1025 B", "1 MiB"]

    def test_titles(self) -> None:
        assert Case(connections=64).title == "64 connections, 1 in flight, 32 B"
        assert Case(mode="handshake").title == "handshake, 1 connection"

    def test_bad_cases(self) -> None:
        with pytest.raises(ValueError, match="unknown mode"):
            Case(mode="race")
        with pytest.raises(ValueError, match="depth is 0"):
            Case(depth=0)


class TestStatistics:
    def test_figure(self) -> None:
        figure = stats.figure([3.0, 1.0, 2.0])
        assert (figure.median, figure.low, figure.high) == (2.0, 1.0, 3.0)
        assert figure.spread == 1.0

    def test_summaries_keep_the_order_and_take_the_median(self) -> None:
        rows = [row("b", i, cpu) for i, cpu in enumerate((4.0, 2.0, 9.0))]
        rows += [row("a", 0, 1.0)]
        first, second = stats.summarise(rows)
        assert (first.library, first.rounds, first.median("cpu_us")) == ("b", 3, 4.0)
        assert second.library == "a"

    def test_one_wrong_round_takes_all_figures(self) -> None:
        rows = [row("a", 0, 1.0), row("a", 1, 1.0, correct=False, error="no")]
        (summary,) = stats.summarise(rows)
        assert not summary.correct
        assert summary.error == "no"
        assert summary.figures == {}

    def test_ratios_are_of_rounds_not_of_medians(self) -> None:
        # The machine slows down from round to round; the ratio stays at 2.
        rows = [row("a", i, 2.0 * (i + 1)) for i in range(3)]
        rows += [row("b", i, 1.0 * (i + 1)) for i in range(3)]
        ratio = stats.ratios(rows, Case(), "a", "b")
        assert ratio == stats.Figure(2.0, 2.0, 2.0)

    def test_no_ratio_without_both(self) -> None:
        rows = [row("a", 0, 2.0)]
        assert stats.ratios(rows, Case(), "a", "b") is None
        rows.append(row("b", 0, 1.0, correct=False))
        assert stats.ratios(rows, Case(), "a", "b") is None

    def test_other_cases_do_not_mix_in(self) -> None:
        rows = [row("a", 0, 2.0), row("b", 0, 1.0, case=Case(size=1))]
        assert stats.ratios(rows, Case(), "a", "b") is None

    def test_per_message(self) -> None:
        assert stats.per_message(2.0, 0.5, 1.5, 1000) == (2000.0, 500.0, 1500.0)
        assert stats.per_message(2.0, 0.5, 1.5, 0) == (0.0, 0.0, 0.0)

    def test_cpu_split_adds_up_to_the_exact_total(self) -> None:
        user, system = process.CpuTime(1.0, 0.3, 0.9).split()
        assert user == pytest.approx(0.25)
        assert user + system == pytest.approx(1.0)
        assert process.CpuTime(1.0, 0.0, 0.0).split() == (0.0, 1.0)


class TestGoals:
    def test_strict_and_not(self) -> None:
        goal = goals.Goal(Case(), "a", "b", 1.0)
        assert goal.is_met(1.0)
        assert not goals.Goal(Case(), "a", "b", 1.0, is_strict=True).is_met(1.0)

    def test_more_is_better_for_rates(self) -> None:
        goal = goals.Goal(Case(), "a", "b", 3.0, figure="rate")
        assert goal.is_met(3.5) and not goal.is_met(2.9)

    def test_judge(self) -> None:
        rows = [row("a", 0, 1.0), row("b", 0, 4.0)]
        wanted = goals.Goal(Case(), "a", "b", 0.5)
        missed = goals.Goal(Case(), "b", "a", 0.5)
        unknown = goals.Goal(Case(), "a", "c", 0.5)
        verdicts = goals.judge([wanted, missed, unknown], rows)
        assert [v.is_met for v in verdicts] == [True, False, False]
        text = report.goals_table(verdicts)
        assert "met" in text and "missed" in text and "not measured" in text

    def test_memory_limits(self) -> None:
        idle, unused, alone = goals.IDLE_CASES
        assert goals.memory_limit("websock", idle) == 5120
        assert goals.memory_limit("websock-listener", unused) == 2048
        assert goals.memory_limit("websock-listener", alone) == 8192
        assert goals.memory_limit("websock", alone.with_(no_context=False)) is None
        assert goals.memory_limit("picows", idle) is None

    def test_goals_name_known_libraries(self) -> None:
        clients = (*goals.CLIENT_SPEED, *goals.CLIENT_HOSTS)
        for goal in (*goals.FLOOR, *goals.SPEED, *goals.HOSTS, *clients):
            assert goal.library in libraries.LIBRARIES
            assert goal.peer in libraries.LIBRARIES
            assert not libraries.LIBRARIES[goal.peer].lack(goal.case)

    def test_suites_name_known_libraries(self) -> None:
        for suite in suites.SUITES.values():
            assert libraries.choose(suite.libraries)

    def test_every_script_exists(self) -> None:
        for library in libraries.LIBRARIES.values():
            if library.api != libraries.NATIVE and library.server:
                assert (libraries.SERVERS / f"{library.server}.py").exists()
            if library.client:
                assert (libraries.CLIENTS / f"{library.client}.py").exists()

    def test_choose(self) -> None:
        names = [library.name for library in libraries.choose("epoll, websock")]
        assert names == ["epoll", "websock"]
        with pytest.raises(ValueError, match="unknown library: nobody"):
            libraries.choose("nobody")


class TestReport:
    def test_numbers(self) -> None:
        values = [report.number(v) for v in (None, 0.123, 12.34, 123.4, 12345.6)]
        assert values == ["", "0.12", "12.3", "123", "12,346"]

    def test_wrong_libraries_show_no_number(self) -> None:
        rows = [row("a", 0, 5.0), row("b", 0, 1.0, correct=False, error="x\nboom")]
        text = report.case_table(Case(), stats.summarise(rows), rows)
        lines = [line for line in text.splitlines() if line.startswith("| b ")]
        assert len(lines) == 1
        assert "**no**" in lines[0]
        assert not any(c.isdigit() for c in lines[0])
        assert "- b: boom" in text

    def test_gain(self) -> None:
        rows = [row("websock", 0, 10.0), row("websockets", 0, 40.0)]
        text = report.gain(Case(), rows, "websock", "websockets")
        assert "4.00 times less CPU" in text
        assert "100,000 messages a second instead of 25,000" in text

    def test_write_and_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report, "RESULTS", tmp_path)
        rows = [row("a", 0, 5.0)]
        path = report.write("trial", {"cpu": "x"}, rows, "text\n")
        assert path.read_text() == "text\n"
        assert report.read(path.with_suffix(".jsonl")) == ({"cpu": "x"}, rows)


class TestMicro:
    """Benchmarks without sockets, as tables."""

    @staticmethod
    def line(group: str, name: str, ns: float) -> dict[str, Any]:
        return {"group": group, "name": name, "ns": ns, "iqr_ns": 1.0}

    def test_the_peer_comes_first_and_is_the_measure(self) -> None:
        group = "decode cjk 1000 B"
        rows = [
            self.line(group, "test_decode[c-cjk-1000]", 250.0),
            self.line(group, "test_decode_of_cpython[cjk-1000]", 1000.0),
            self.line(group, "test_decode[py-cjk-1000]", 2000.0),
        ]
        facts = {"command": "x", "cpu": "y", "cores": 2, "governor": "", "kernel": ""}
        facts |= {"python": "", "commit": "", "date": "", "busy": 0}
        table = micro.markdown("Kernels", facts, rows).splitlines()[-3:]
        assert table == [
            "| decode of cpython | 1,000 | 1.00 | 1.00 | 1.00 |",
            "| decode (c) | 250 | 1.00 | 4.00 | 0.25 |",
            "| decode (py) | 2,000 | 1.00 | 0.50 | 2.00 |",
        ]

    def test_speed_counts_all_messages_of_a_batch(self) -> None:
        rows = [self.line("read 64 x 100 B text", "test_read[py-text-100]", 6400.0)]
        facts = {"command": "x", "cpu": "y", "cores": 2, "governor": "", "kernel": ""}
        facts |= {"python": "", "commit": "", "date": "", "busy": 0}
        assert "| read (py) | 6,400 | 1.00 | 1.00 | 1.00 |" in micro.markdown(
            "Codec", facts, rows
        )


class TestOptions:
    def options(self, **given: Any) -> argparse.Namespace:
        return argparse.Namespace(**given)

    def test_without_options_the_suite_decides(self) -> None:
        cases = [Case(), Case(depth=2)]
        assert command.select_cases(cases, self.options()) == cases

    def test_lists_make_a_product(self) -> None:
        options = self.options(connections=[1, 2], size=[3, 4], seconds=0.5)
        cases = command.select_cases([Case(), Case(depth=2)], options)
        shapes = [(c.connections, c.size, c.depth, c.seconds) for c in cases]
        assert shapes == [
            (1, 3, 1, 0.5),
            (1, 4, 1, 0.5),
            (2, 3, 1, 0.5),
            (2, 4, 1, 0.5),
        ]

    def test_other_options_apply_to_every_case(self) -> None:
        options = self.options(loop=["asyncio"], tls=True)
        cases = command.select_cases([Case(), Case(depth=2)], options)
        assert [(c.depth, c.loop, c.tls) for c in cases] == [
            (1, "asyncio", True),
            (2, "asyncio", True),
        ]


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except OSError:
        return False


@needs_linux
class TestProcesses:
    def test_cpu_clock_of_this_process(self) -> None:
        mine = time.clock_gettime(process.cpu_clock(os.getpid()))
        assert mine == pytest.approx(time.process_time(), abs=0.1)

    def test_tree_holds_children_and_all_of_them_stop(self) -> None:
        code = (
            "import subprocess, time; subprocess.Popen(['sleep', '60']);"
            "print('x', flush=True); time.sleep(60)"
        )
        core = process.choose_cores()[0]
        with process.running([sys.executable, "-c", code], core=core) as parent:
            assert parent.read_line(20) == "x"
            tree = parent.tree()
            assert len(tree) == 2
            assert parent.cpu_time().total > 0
            assert parent.private_memory() > 0
        # A signal was sent to all of them; the kernel ends them when it comes to it.
        deadline = time.monotonic() + 30
        while any(map(is_alive, tree)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [pid for pid in tree if is_alive(pid)] == []

    def test_what_a_process_said_is_in_the_error(self) -> None:
        code = "import sys; sys.exit('bad luck')"
        core = process.choose_cores()[0]
        with (
            process.running([sys.executable, "-c", code], core=core) as child,
            pytest.raises(process.BenchError, match="bad luck"),
        ):
            child.read_line(20)

    def test_interrupt_becomes_an_exception(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            command._interrupt(signal.SIGTERM, None)


async def echo_badly(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: bool
) -> None:
    """Echo small messages; with ``spoil``, change the third one."""
    try:
        await echo_frames(reader, writer, spoil)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client is done
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def echo_frames(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: bool
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = head.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )
    count = 0
    while True:
        first, second = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        data = bytearray(await reader.readexactly(second & 0x7F))
        for i in range(len(data)):
            data[i] ^= mask[i % 4]
        count += 1
        if spoil and count == 3:
            data[-1] ^= 1
        writer.write(bytes((first, len(data))) + data)


@contextmanager
def serving(spoil: bool) -> Iterator[int]:
    """Run `echo_badly` in a thread; yield its port."""
    loop = asyncio.new_event_loop()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(
            lambda r, w: echo_badly(r, w, spoil), "127.0.0.1", 0
        )

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending))
        loop.close()


@needs_linux
@needs_compiler
class TestLoadGenerator:
    def load(self, port: int, *arguments: str) -> dict[str, Any]:
        command = [str(load.build("ws_load")), "--port", str(port), *arguments]
        core = process.choose_cores()[1]
        with process.running(command, core=core) as generator:
            result: dict[str, Any] = json.loads(generator.read_line(30))
            return result

    def test_right_echo(self) -> None:
        with serving(spoil=False) as port:
            result = self.load(port, "--messages", "10", "--size", "20")
        assert result["correct"] is True
        assert result["messages"] == 10

    def test_spoiled_echo(self) -> None:
        with serving(spoil=True) as port:
            result = self.load(port, "--messages", "10", "--size", "20")
        assert result["correct"] is False
        assert "wrong reply" in result["error"]

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--messages", "300", "--size", "0", "--depth", "7"),
            ("--messages", "50", "--size", "70000", "--kind", "cjk"),
            ("--messages", "200", "--fragments", "3", "--kind", "binary"),
            ("--messages", "20", "--chunk", "1", "--connections", "3"),
            ("--messages", "20", "--mode", "handshake", "--connections", "2"),
            ("--messages", "2", "--mode", "idle", "--connections", "20"),
        ],
    )
    def test_against_the_c_server(self, arguments: tuple[str, ...]) -> None:
        port = process.free_port()
        echo = [str(load.build("echo_epoll")), "--port", str(port)]
        core = process.choose_cores()[0]
        with process.running(echo, core=core) as server:
            process.wait_for_port(port, server)
            result = self.load(port, *arguments)
        assert result["correct"] is True, result
