"""What a broker's process spends on a message: figures that capacity is computed from.

A broker between workers takes each message once and gives it to every worker that has
a subscriber.  Here it is given messages over plain sockets, in the few lines of its
own protocol, so that nothing but the broker is metered: what each copy costs is the
slope of a straight line through the cases.  Then two workers with topics use it, one
publishes and the other has a subscriber: what they spend, and what a message costs the
broker, whose commands for it are more than one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import hub_words, libraries, report
from .process import (
    BenchError,
    Metered,
    choose_cores,
    free_port,
    running,
    wait_for_port,
)
from .stats import figure, line_through

SUBSCRIBERS = (1, 2, 4, 8, 16, 32)
SIZE = 100  # bytes of a message
AT_ONCE = 16  # messages that are published before their copies are awaited
BURST = 64  # messages that a worker publishes at once
TOPIC = b"prices.eur"
TIMEOUT = 60.0  # under callgrind all takes fifty times as long


@dataclass(frozen=True)
class Broker:
    """A broker, and the words of its protocol that this needs."""

    name: str
    program: str
    arguments: Callable[[int, str], list[str]]
    """Of a port and a directory that it may write to."""
    hello: bytes
    """What a connection begins with."""
    subscribe: bytes
    subscribed: bytes
    """What ends the answer to it, and to what came before."""
    publish: Callable[[bytes], bytes]
    copy: Callable[[bytes], bytes | re.Pattern[bytes]]
    """What a subscriber receives for a message."""
    reply: Callable[[int], bytes]
    """What the publisher receives for each message; of the number of copies."""
    ping: bytes = b"PING\r\n"
    pong: bytes = b"PONG\r\n"
    """What ends the answer to it."""
    url: str = "{name}://127.0.0.1:{port}"
    """Where workers find it."""
    package: str = ""
    """The package that it is a part of, whose version it has."""


def _redis_words(*words: bytes) -> bytes:
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%s" % (len(words), b"".join(parts))


REDIS = Broker(
    "redis",
    "redis-server",
    lambda port, directory: [
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", directory),
        *("--save", "", "--appendonly", "no"),
    ],
    b"",
    _redis_words(b"SUBSCRIBE", TOPIC),
    b":1\r\n",
    lambda payload: _redis_words(b"PUBLISH", TOPIC, payload),
    lambda payload: _redis_words(b"message", TOPIC, payload),
    lambda copies: b":%d\r\n" % copies,
)

NATS = Broker(
    "nats",
    "nats-server",
    lambda port, directory: ["--addr", "127.0.0.1", "--port", str(port)],
    b'CONNECT {"verbose":false,"pedantic":false}\r\n',
    b"SUB " + TOPIC + b" 1\r\nPING\r\n",
    b"PONG\r\n",
    lambda payload: b"PUB %s %d\r\n%s\r\n" % (TOPIC, len(payload), payload),
    lambda payload: b"MSG %s 1 %d\r\n%s\r\n" % (TOPIC, len(payload), payload),
    lambda copies: b"",
)

HUB = Broker(
    "hub",
    sys.executable,
    lambda port, directory: [str(libraries.SERVERS / "hub.py"), "--port", str(port)],
    hub_words.HELLO,
    hub_words.subscribe(),
    hub_words.SYNCED,
    hub_words.publish,
    hub_words.copy,
    lambda copies: b"",
    ping=hub_words.sync(),
    pong=hub_words.SYNCED,
    url=f"local://:{hub_words.SECRET}@127.0.0.1:{{port}}",
    package="websock-fast",
)

BROKERS = {broker.name: broker for broker in (REDIS, NATS, HUB)}


def choose(names: str) -> list[Broker]:
    """Return the brokers of a list of names.

    Raises:
        ValueError: When one is not known.
        BenchError: When the program of one is not installed.
    """
    chosen = []
    for name in names.split(","):
        broker = BROKERS.get(name)
        if broker is None:
            known = ", ".join(BROKERS)
            raise ValueError(f"unknown broker {name!r}; there are {known}")
        if shutil.which(broker.program) is None:
            raise BenchError(f"{broker.program} is not installed")
        chosen.append(broker)
    return chosen


@contextlib.contextmanager
def serving(broker: Broker, core: int) -> Iterator[tuple[Metered, int]]:
    """Run a broker on one core; give the process, and the port that it listens on."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [broker.program, *broker.arguments(port, directory)]
        library = libraries.LIBRARIES["websock"]
        environment = libraries.python_environment(library, sys.executable)
        with running(command, core=core, environment=environment) as process:
            wait_for_port(port, process)
            yield process, port


def measure(broker: Broker, subscribers: int, seconds: float) -> dict[str, Any]:
    """Publish for a time; return the row of what the broker spent.

    Args:
        broker: Which one; it gets a fresh process.
        subscribers: Connections that receive a copy of each message.
        seconds: For how long.

    Raises:
        BenchError: When a copy or a reply does not arrive, or is wrong.
    """
    payload = bytes(range(33, 33 + SIZE % 90)) * (SIZE // 90 + 1)
    payload = payload[:SIZE]
    batch = broker.publish(payload) * AT_ONCE
    copy = broker.copy(payload)
    replies = broker.reply(subscribers) * AT_ONCE
    with (
        serving(broker, choose_cores()[0]) as (process, port),
        contextlib.ExitStack() as open_,
    ):
        receivers = [open_.enter_context(_connect(port)) for _ in range(subscribers)]
        for sock in receivers:
            sock.sendall(broker.hello + broker.subscribe)
            _read_until(sock, broker.subscribed)
        publisher = open_.enter_context(_connect(port))
        publisher.sendall(broker.hello + broker.ping)
        _read_until(publisher, broker.pong)

        def wanted() -> list[tuple[socket.socket, _Wanted]]:
            found = [(sock, _Wanted(copy, AT_ONCE)) for sock in receivers]
            return [*found, (publisher, _Wanted(replies))] if replies else found

        done = 0
        started = time.monotonic()
        before = process.cpu_time()
        while not done or time.monotonic() - started < seconds:
            publisher.sendall(batch)
            _expect(wanted())
            done += AT_ONCE
        cpu = process.cpu_time() - before
        took = time.monotonic() - started
    return {
        "broker": broker.name,
        "version": version(broker),
        "subscribers": subscribers,
        "size": SIZE,
        "published": done,
        "seconds": took,
        "cpu_us": cpu.total * 1e6 / done,
    }


@dataclass(frozen=True)
class Pair:
    """Two workers with topics: one publishes, the other has a subscriber."""

    process: Metered
    workers: list[Metered]
    sockets: list[socket.socket]

    def publish(self, count: int) -> None:
        """Publish messages at once, and wait until all have arrived.

        Raises:
            BenchError: When one does not.
        """
        publisher, subscriber = self.sockets
        publisher.sendall(_masked(b"publish %d %d" % (count, SIZE)))
        _expect([(subscriber, _Wanted(_frame(2, bytes(SIZE)), count))])


@contextlib.contextmanager
def pair(broker: Broker, python: str, prefix: Sequence[str] = ()) -> Iterator[Pair]:
    """Run a broker on one core, and two workers on another.

    Args:
        broker: Which one.
        python: Interpreter of the workers.
        prefix: A command that runs them.
    """
    core, other = choose_cores()
    with serving(broker, other) as (process, port), contextlib.ExitStack() as stack:
        url = broker.url.format(name=broker.name, port=port)
        workers = [
            stack.enter_context(_worker(url, [*prefix, python], python, core))
            for _ in range(2)
        ]
        sockets = [stack.enter_context(_connect(port)) for _, port in workers]
        for sock in sockets:
            sock.sendall(UPGRADE)
            _read_until(sock, b"\r\n\r\n")
        sockets[1].sendall(_masked(b"subscribe"))
        _read_until(sockets[1], _frame(1, b"subscribed"))
        yield Pair(process, [worker for worker, _ in workers], sockets)


def measure_workers(broker: Broker, python: str, seconds: float) -> dict[str, Any]:
    """Publish from one worker to a subscriber of another; return the row of the costs.

    Args:
        broker: Which one.
        python: Interpreter of the workers.
        seconds: For how long.

    Raises:
        BenchError: When a message does not arrive.
    """
    with pair(broker, python) as both:
        done = 0
        started = time.monotonic()
        metered = [both.process, *both.workers]
        before = [item.cpu_time() for item in metered]
        while not done or time.monotonic() - started < seconds:
            both.publish(BURST)
            done += BURST
        spent = [
            (item.cpu_time() - then).total * 1e6 / done
            for item, then in zip(metered, before, strict=True)
        ]
    return {
        "broker": broker.name,
        "version": version(broker),
        "published": done,
        "broker_us": spent[0],
        "publish_us": spent[1],
        "receive_us": spent[2],
    }


@contextlib.contextmanager
def _worker(
    url: str, interpreter: Sequence[str], python: str, core: int
) -> Iterator[tuple[Metered, int]]:
    port = free_port()
    script = str(libraries.SERVERS / "topics_worker.py")
    command = [*interpreter, script, "--port", str(port), "--engine", url]
    environment = libraries.python_environment(libraries.LIBRARIES["websock"], python)
    with running(command, core=core, environment=environment) as worker:
        json.loads(worker.read_line(TIMEOUT))
        yield worker, port


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _frame(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, len(payload)]) + payload


def _masked(payload: bytes) -> bytes:
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _read_until(sock: socket.socket, end: bytes) -> None:
    data = b""
    while not data.endswith(end):
        more = sock.recv(65536)
        if not more:
            raise BenchError(f"the broker closed the connection after {data!r}")
        data += more


class _Wanted:
    """What a connection is to receive.

    Args:
        one: What it is, or what it looks like.
        count: How many times.
    """

    def __init__(self, one: bytes | re.Pattern[bytes], count: int = 1) -> None:
        self._pattern = re.compile(re.escape(one)) if isinstance(one, bytes) else one
        self._count = count
        self._data = b""

    def is_all(self, data: bytes) -> bool:
        """Take what came; return whether nothing is missing.

        Raises:
            BenchError: When it is something else.
        """
        data = self._data + data
        place = 0
        while self._count and (found := self._pattern.match(data, place)):
            place = found.end()
            self._count -= 1
        self._data = data[place:]
        if len(self._data) > (10 * SIZE if self._count else 0):
            raise BenchError(f"not what was published: {data[place:][:200]!r}")
        return not self._count


def _expect(wanted: Sequence[tuple[socket.socket, _Wanted]]) -> None:
    """Receive what is wanted from each socket, whichever comes first."""
    left = dict(wanted)
    while left:
        ready = select.select(list(left), [], [], TIMEOUT)[0]
        if not ready:
            raise BenchError(f"{len(left)} connections wait for what never comes")
        for sock in ready:
            data = sock.recv(65536)
            if not data:
                raise BenchError("the broker closed the connection")
            if left[sock].is_all(data):
                del left[sock]


def version(broker: Broker) -> str:
    """Return what the program says of its version."""
    if broker.package:
        return importlib.metadata.version(broker.package)
    done = subprocess.run(
        [broker.program, "--version"], capture_output=True, text=True, check=False
    )
    words = (done.stdout or done.stderr).replace("=", " ").split()
    return next((w for w in words if w.lstrip("v")[:1].isdigit()), "unknown")


def run(
    brokers: Sequence[Broker], python: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measure all cases in interleaved rounds; return the rows."""
    rows = []
    for number in range(rounds):
        for broker in brokers:
            for subscribers in SUBSCRIBERS:
                rows.append(measure(broker, subscribers, seconds))
            rows.append(measure_workers(broker, python, seconds))
            for row in rows[-len(SUBSCRIBERS) - 1 :]:
                row["round"] = number
    return rows


@dataclass(frozen=True)
class Costs:
    """Microseconds of CPU for a message."""

    copy: float
    """Each copy that the broker sends."""
    message: float
    """The rest of what the broker does, for workers with topics."""
    publish: float
    """The worker that publishes it."""
    receive: float
    """A worker that gets a copy and sends it to one subscriber."""


def costs(rows: Sequence[dict[str, Any]], broker: str) -> Costs:
    """Return what a broker and its workers spend.

    Raises:
        ValueError: When the rows have too few cases of it.
    """
    mine = [row for row in rows if row["broker"] == broker]
    copy = line_through(
        [(row["subscribers"], row["cpu_us"]) for row in mine if "subscribers" in row]
    )[1]
    workers = [row for row in mine if "receive_us" in row]
    if not workers:
        raise ValueError(f"no rows of workers with {broker}")
    spent, publish, receive = (
        figure([row[name] for row in workers]).median
        for name in ("broker_us", "publish_us", "receive_us")
    )
    return Costs(copy, spent - copy, publish, receive)


def markdown(facts: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return the report."""
    names = list(dict.fromkeys(row["broker"] for row in rows))
    versions = {row["broker"]: row["version"] for row in rows}
    parts = [
        "# What a broker spends",
        f"`{facts['command']}`",
        report.machine_lines(facts),
        "- " + ", ".join(f"{name} {versions[name]}" for name in names),
        f"Messages of {SIZE} bytes to one topic, {AT_ONCE} at once, each to all "
        "subscribers; every copy is compared. CPU is that of the broker's process, "
        "in microseconds for each message that is published; the median, in brackets "
        "the smallest and largest round.",
    ]
    plain = [row for row in rows if "subscribers" in row]
    lines = []
    for subscribers in dict.fromkeys(row["subscribers"] for row in plain):
        line = [f"{subscribers:,}"]
        for name in names:
            found = [
                row["cpu_us"]
                for row in plain
                if (row["broker"], row["subscribers"]) == (name, subscribers)
            ]
            line.append(report.spread(figure(found)))
        lines.append(line)
    parts.append(report.table(["subscribers", *names], lines))
    parts.append("## With workers")
    parts.append(
        f"A worker publishes {BURST} messages at once to a topic, another one has a "
        "subscriber. Microseconds of CPU for each message: of the broker, for each "
        "copy (the slope of the table above) and for all else; of the worker that "
        "publishes; and of the one that receives it and sends it on. One core of the "
        "broker is full at the rate in the last columns, with as many workers that all "
        "want every message."
    )
    lines = []
    for name in names:
        cost = costs(rows, name)
        full = [f"{1e6 / (cost.message + cost.copy * n):,.0f}/s" for n in (1, 10, 100)]
        spent = [cost.copy, cost.message, cost.publish, cost.receive]
        lines.append([name, *map(report.number, spent), *full])
    header = ["broker", "copy", "message", "publishing", "receiving"]
    header += ["1 worker", "10 workers", "100 workers"]
    parts.append(report.table(header, lines))
    return "\n\n".join(parts) + "\n"
