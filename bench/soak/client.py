"""The clients of the soak: coroutines, listeners and threads that keep the accounts.

They stop when standard input is closed: each ends its connection in good order, and one
JSON line tells the sums.  On each ``SIGUSR1`` a line tells what they hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import signal
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import memory
from accounts import Ledger, Totals, make_message

import websock
import websock.sync.client
from websock.asyncio.client import ClientConnection

RESTARTING = 1012

# Seconds in which an answer must come; never reached unless something hangs.
PATIENCE = 60.0


class Load:
    """What all clients share.

    Args:
        options: From the command line.
        addresses: Ports of the services by name: ``steady``, ``rolling``; each has one
            for each kind of server.
    """

    def __init__(
        self, options: argparse.Namespace, addresses: dict[str, list[int]]
    ) -> None:
        self.options = options
        self.addresses = addresses
        self.totals: dict[str, Totals] = {}
        self.stopping = threading.Event()
        self.ending = asyncio.Event()  # the same, for coroutines
        self.context = ssl.create_default_context(cafile=options.cert)
        self.context.check_hostname = False  # the certificate is its own authority
        self.lock = threading.Lock()

    def account(self, name: str) -> Totals:
        """Return the sums of one kind of client."""
        with self.lock:
            return self.totals.setdefault(name, Totals())

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ending.wait()

    def choose(self, random: Random, server: str) -> tuple[str, str, dict[str, Any]]:
        """Choose a service, with or without TLS and compression.

        Returns:
            The name of the service, the URL without a path, and arguments of
            ``connect()``.
        """
        service = random.choice(list(self.addresses))
        secure = random.random() < 0.3
        port = self.addresses[service][2 * (server == "listener") + secure]
        arguments: dict[str, Any] = {
            "compression": random.choice(("deflate", None)),
            "max_size": 4 << 20,
        }
        if secure:
            arguments["ssl"] = self.context
        return service, f"{'wss' if secure else 'ws'}://localhost:{port}", arguments


def check_end(totals: Totals, service: str, ws: Any, allowed: str) -> str:
    """Say how a connection ended, and complain if it may not end so."""
    code = ws.close_code
    if code == 1000:
        return allowed
    if code == RESTARTING and service == "rolling":
        return "restart"
    totals.fail(f"{service}: closed with {code} {ws.close_reason!r}")
    return f"code {code}"


# -- coroutines ---------------------------------------------------------------------


async def pieces(random: Random, message: str | bytes) -> AsyncIterator[str | bytes]:
    """Cut a message into fragments."""
    start = 0
    while start < len(message):
        end = start + random.randint(1, 1 + len(message) // 3)
        yield message[start:end]
        start = end


async def send_one(ws: ClientConnection, random: Random, message: str | bytes) -> None:
    """Send a message in one of the ways there are."""
    way = random.random()
    if message and way < 0.1:
        await ws.send(pieces(random, message))
    elif way < 0.2:
        await ws.send(websock.prepare(message))
    else:
        await ws.send(message)


async def receive_all(ws: ClientConnection, ledger: Ledger) -> None:
    """Receive until the end, in all the ways there are."""
    random = ledger.random
    try:
        while True:
            way = random.random()
            if way < 0.1:
                for message in await ws.recv_many(10):
                    ledger.received(message)
            elif way < 0.2:
                parts = [part async for part in ws.recv_streaming()]
                empty: Any = b"" if isinstance(parts[0], bytes) else ""
                ledger.received(empty.join(parts))
            else:
                ledger.received(await ws.recv())
            if random.random() < 0.02:
                await asyncio.sleep(random.random())  # slow for a while
    except websock.ConnectionClosed:
        pass


async def echo_client(load: Load, random: Random, interval: float) -> None:
    """Open a connection, have messages sent back, and end it somehow."""
    service, url, arguments = load.choose(
        random, random.choice(("coroutine", "listener"))
    )
    path = "/slow" if random.random() < 0.05 else "/"
    totals = load.account("coroutine")
    ledger = Ledger(totals, random)
    aborting = random.random() < 0.05
    hasty = random.random() < 0.1
    end = "finished"
    async with websock.connect(url + path, **arguments) as ws:
        receiving = asyncio.create_task(receive_all(ws, ledger))
        try:
            left = random.randint(0, 100)
            while left > 0 and not load.stopping.is_set():
                burst = min(left, 20 if random.random() < 0.03 else 1)
                left -= burst
                for _ in range(burst):
                    await send_one(ws, random, ledger.next_message())
                await load.pause(random.expovariate(1 / interval) * burst)
            if not (aborting or hasty):
                async with asyncio.timeout(PATIENCE):
                    while ledger.waiting and ws.is_open:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            if aborting:
                ws.transport.abort()
            else:
                await ws.close()
        except websock.ConnectionClosed:
            pass
        await receiving
    if aborting and ws.close_code == 1006:
        end = "aborted"
    else:
        end = check_end(totals, service, ws, "left early" if hasty else "finished")
    ledger.closed(end)


async def flood_client(load: Load, random: Random, interval: float) -> None:
    """Receive more than fits anywhere, slowly."""
    service, url, arguments = load.choose(random, "coroutine")
    totals = load.account("slow reader")
    count, size = random.randint(1, 200), random.choice((10, 1000, 50_000))
    url += f"/flood?count={count}&size={size}"
    async with websock.connect(url, **arguments) as ws:
        number = 0
        try:
            async for message in ws:
                if message == "end":
                    break
                assert isinstance(message, str)
                if not message.startswith(f"{number}:") or len(message) < size:
                    totals.fail(f"flood: expected {number}, got {message[:12]!r}")
                number += 1
                totals.bytes += len(message)
                await asyncio.sleep(interval / 20)
            await ws.close()
        except websock.ConnectionClosed:
            pass
    totals.connections += 1
    totals.sent += count
    totals.answered += number
    end = check_end(totals, service, ws, "finished")
    totals.ends[end] += 1
    if number != count:
        totals.unanswered[end] += count - number
        if end == "finished":
            totals.fail(f"flood: {number} of {count} came, no reason given")


async def feed_client(load: Load, random: Random, interval: float) -> None:
    """Subscribe to a broadcast for a while: no number may be left out."""
    service, url, arguments = load.choose(
        random, random.choice(("coroutine", "listener"))
    )
    totals = load.account("subscriber")
    wanted = random.randint(1, 200)
    async with websock.connect(url + "/feed", **arguments) as ws:
        last: int | None = None
        try:
            async for message in ws:
                assert isinstance(message, str)
                number = int(message.partition(":")[0])
                if last is not None and number != last + 1:
                    totals.fail(f"feed: {number} after {last}")
                last = number
                totals.sent += 1
                totals.answered += 1
                totals.bytes += len(message)
                wanted -= 1
                if not wanted or load.stopping.is_set():
                    break
            await ws.close()
        except websock.ConnectionClosed:
            pass
    totals.connections += 1
    totals.ends[check_end(totals, service, ws, "finished")] += 1


async def resilient_client(load: Load, random: Random, interval: float) -> None:
    """Go on through restarts: what is not answered was told, or a close told it."""
    totals = load.account("resilient")
    port = load.addresses["rolling"][0]
    told: list[Any] = []
    drops: list[Exception] = []
    sent, last = 0, -1
    wanted = random.randint(50, 300)

    async with websock.resilient(
        f"ws://localhost:{port}",
        on_lost=lambda messages, why: told.extend(messages),
        on_disconnect=drops.append,
    ) as ws:

        async def receive() -> None:
            nonlocal last
            async for message in ws:
                number = int(str(message))
                if number <= last:
                    totals.fail(f"resilient: {number} after {last}")
                last = number
                totals.answered += 1
                totals.bytes += len(message)

        receiving = asyncio.create_task(receive())
        while sent < wanted and not load.stopping.is_set():
            await ws.send(str(sent))
            sent += 1
            await load.pause(random.expovariate(1 / interval))
        # A last message, to be answered however often it takes.
        async with asyncio.timeout(PATIENCE):
            while last < sent - 1:
                await ws.send(str(sent))
                sent += 1
                await asyncio.sleep(0.2)
    await receiving
    totals.sent += sent
    totals.connections += ws.connections
    totals.ends["finished"] += 1
    totals.ends["restart"] += len(drops)
    for exc in drops:
        if not (isinstance(exc, websock.ConnectionClosed) and exc.rcvd):
            totals.fail(f"resilient: {exc!r}")
    if told:
        totals.unanswered["told to on_lost"] += len(told)


class Answers(websock.Listener):
    """Compares answers in callbacks."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.closed = asyncio.Event()

    def on_message(self, ws: ClientConnection, message: str | bytes) -> None:
        self.ledger.received(message)

    def on_close(self, ws: ClientConnection, code: int, reason: str) -> None:
        self.closed.set()


async def listener_client(load: Load, random: Random, interval: float) -> None:
    """Like ``echo_client``, with the callback API."""
    service, url, arguments = load.choose(
        random, random.choice(("coroutine", "listener"))
    )
    totals = load.account("listener")
    ledger = Ledger(totals, random)
    answers = Answers(ledger)
    ws = await websock.connect(url, listener=answers, **arguments)
    try:
        for _ in range(random.randint(0, 100)):
            if load.stopping.is_set():
                break
            ws.send_nowait(ledger.next_message())
            await load.pause(random.expovariate(1 / interval))
        async with asyncio.timeout(PATIENCE):
            while ledger.waiting and not answers.closed.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except websock.ConnectionClosed:
        pass
    ws.close_nowait()
    async with asyncio.timeout(PATIENCE):
        await answers.closed.wait()
    ledger.closed(check_end(totals, service, ws, "finished"))


# -- threads ------------------------------------------------------------------------


def thread_client(load: Load, random: Random, interval: float) -> None:
    """Like ``echo_client``, with the threading API."""
    service, url, arguments = load.choose(
        random, random.choice(("coroutine", "listener"))
    )
    totals = load.account("threads")
    ledger = Ledger(totals, random)
    with websock.sync.client.connect(url, **arguments) as ws:
        try:
            left = random.randint(0, 60)
            while left > 0 and not load.stopping.is_set():
                burst = min(left, random.choice((1, 1, 1, 4)))
                left -= burst
                messages = [make_small(random, ledger) for _ in range(burst)]
                for message in messages:
                    ws.send(message)
                for _ in messages:
                    ledger.received(ws.recv(timeout=PATIENCE))
                load.stopping.wait(random.expovariate(1 / interval) * burst)
        except websock.ConnectionClosed:
            pass
    ledger.closed(check_end(totals, service, ws, "finished"))


def make_small(random: Random, ledger: Ledger) -> str | bytes:
    """Make a message that fits into the network's buffers with a few others.

    A thread sends a burst before it receives: with larger messages both sides could
    wait for each other, as with any blocking API.
    """
    message = make_message(random, ledger.sent)[: 64 << 10]
    ledger.sent += 1
    ledger.waiting.append(message)
    return message


# -- running ------------------------------------------------------------------------

KINDS: dict[str, Callable[[Load, Random, float], Awaitable[None]]] = {
    "coroutine": echo_client,
    "listener": listener_client,
    "slow reader": flood_client,
    "subscriber": feed_client,
    "resilient": resilient_client,
}

# How many of each are there at any time.
NUMBERS = {
    "coroutine": 24,
    "listener": 12,
    "slow reader": 4,
    "subscriber": 16,
    "resilient": 2,
    "threads": 6,
}


async def again(load: Load, kind: str, number: int) -> None:
    """Be one client after the other, until the end."""
    random = Random(f"{load.options.seed} {kind} {number}")
    interval = load.options.interval
    while not load.stopping.is_set():
        try:
            await KINDS[kind](load, random, interval)
        except Exception as exc:
            load.account(kind).fail(f"{type(exc).__name__}: {exc}")
        # A pause, so that a failure does not become a flood of them.
        await load.pause(random.random() * interval)


def thread_again(load: Load, number: int) -> None:
    """The same in a thread."""
    random = Random(f"{load.options.seed} threads {number}")
    interval = load.options.interval
    while not load.stopping.is_set():
        try:
            thread_client(load, random, interval)
        except Exception as exc:
            load.account("threads").fail(f"{type(exc).__name__}: {exc}")
        load.stopping.wait(random.random() * interval)


def tell_memory() -> None:
    """Print what this process holds now."""
    print(json.dumps(memory.measure()), flush=True)


async def main(options: argparse.Namespace) -> None:
    """Run all clients until standard input is closed."""
    load = Load(options, json.loads(options.ports))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, tell_memory)
    threads = [
        threading.Thread(target=thread_again, args=(load, number))
        for number in range(NUMBERS["threads"])
    ]
    tasks = [
        asyncio.create_task(again(load, kind, number))
        for kind in KINDS
        for number in range(NUMBERS[kind])
    ]
    for thread in threads:
        thread.start()
    print(json.dumps({"backend": websock.BACKEND}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    load.stopping.set()
    load.ending.set()
    await asyncio.wait(tasks)
    for thread in threads:
        await loop.run_in_executor(None, thread.join)
    for _ in range(10):
        await asyncio.sleep(0.01)
    gc.collect()
    left = sum(isinstance(item, ClientConnection) for item in gc.get_objects())
    rows = {kind: totals.as_row() for kind, totals in load.totals.items()}
    print(json.dumps({"totals": rows, "left_over": left}), flush=True)


def run() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", help="JSON: the ports of each service")
    parser.add_argument("--cert")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--interval", type=float, default=0.5)
    asyncio.run(main(parser.parse_args()))


if __name__ == "__main__":
    run()
