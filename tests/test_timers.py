"""The timer wheel, on a loop whose time the test moves."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from linked import LOOPS, loop_factory

from websock.timers import Timer, TimerWheel


class FakeHandle:
    def __init__(self, when: float, callback: Callable[[], Any]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """A loop that has only time, which stands still until the test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.handles: list[FakeHandle] = []
        self.wakeups = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], Any]) -> FakeHandle:
        handle = FakeHandle(when, callback)
        self.handles.append(handle)
        return handle

    @property
    def pending(self) -> list[FakeHandle]:
        return [handle for handle in self.handles if not handle.cancelled]

    def move(self, seconds: float) -> None:
        """Let time pass, stopping wherever a handle is due."""
        end = self.now + seconds
        while True:
            due = [handle for handle in self.pending if handle.when <= end]
            if not due:
                break
            handle = min(due, key=lambda handle: handle.when)
            self.now = max(self.now, handle.when)
            self.handles.remove(handle)
            self.wakeups += 1
            handle.callback()
        self.now = end


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def wheel(loop: FakeLoop) -> TimerWheel:
    return TimerWheel(loop, tick=0.1)  # type: ignore[arg-type]


def test_fires_once_in_time(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[float] = []
    wheel.call_later(1, lambda: fired.append(loop.now))
    loop.move(0.99)
    assert fired == []
    loop.move(0.2)
    assert len(fired) == 1
    assert 1001 <= fired[0] <= 1001.1 + 1e-6
    loop.move(1000)
    assert len(fired) == 1
    assert loop.pending == []


@pytest.mark.parametrize("delay", [0, -1, 1e-9, 0.05, 0.1, 0.3, 7, 63.99, 64])
def test_never_early_and_at_most_a_tick_late(
    loop: FakeLoop, wheel: TimerWheel, delay: float
) -> None:
    fired: list[float] = []
    for offset in (0, 0.01, 0.03, 0.09):
        loop.move(offset)
        begun = loop.now
        fired.clear()
        wheel.call_later(delay, lambda: fired.append(loop.now))
        loop.move(max(delay, 0) + 0.3)
        (when,) = fired
        assert begun + delay - 1e-6 <= when <= begun + max(delay, 0) + 0.1 + 1e-6


@pytest.mark.parametrize(
    ("delay", "late"), [(65, 3.2), (4095, 3.2), (5000, 204.8), (1e6, 204.8)]
)
def test_long_delays_are_coarse(
    loop: FakeLoop, wheel: TimerWheel, delay: float, late: float
) -> None:
    fired: list[float] = []
    for _ in range(1000):
        wheel.call_later(delay, lambda: fired.append(loop.now)).cancel()
        loop.move(0.1)
    assert len(wheel._slots) <= 100 / late + 2
    begun = loop.now
    wheel.call_later(delay, lambda: fired.append(loop.now))
    loop.move(delay + late + 1)
    (when,) = fired
    assert begun + delay <= when <= begun + delay + late


def test_order(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[str] = []
    for name, delay in (("c", 3), ("a", 1), ("b", 2), ("a2", 1), ("d", 3.5)):
        wheel.call_later(delay, lambda name=name: fired.append(name))  # type: ignore[misc]
    loop.move(10)
    assert fired == ["a", "a2", "b", "c", "d"]


def test_one_timer_of_the_loop(loop: FakeLoop, wheel: TimerWheel) -> None:
    timers = [wheel.call_later(20, print) for _ in range(1000)]
    assert len(loop.pending) == 1
    wheel.call_later(10, lambda: None)
    assert len(loop.pending) == 1
    assert loop.pending[0].when == pytest.approx(1010)
    for timer in timers:
        timer.cancel()
    loop.move(10)
    assert loop.pending == []


def test_cancel(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[int] = []
    first = wheel.call_later(1, lambda: fired.append(1))
    second = wheel.call_later(1, lambda: fired.append(2))
    first.cancel()
    first.cancel()
    loop.move(2)
    assert fired == [2]
    second.cancel()


def test_cancel_while_firing(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[str] = []
    later: list[Timer] = []

    def first() -> None:
        fired.append("first")
        for timer in later:
            timer.cancel()

    wheel.call_later(1, first)
    later.append(wheel.call_later(1, lambda: fired.append("same slot")))
    later.append(wheel.call_later(2, lambda: fired.append("other slot")))
    loop.move(10)
    assert fired == ["first"]
    assert loop.pending == []


def test_set_again_while_firing(loop: FakeLoop, wheel: TimerWheel) -> None:
    """As keepalive does: no wake-up of the loop is for nothing."""
    fired: list[float] = []

    def again() -> None:
        fired.append(loop.now)
        wheel.call_later(1, again)

    wheel.call_later(1, again)
    loop.move(10.5)
    assert len(fired) == 10
    assert loop.wakeups == 10
    assert len(loop.pending) == 1


def test_set_for_now_while_firing(loop: FakeLoop, wheel: TimerWheel) -> None:
    """Others get their turn, though time stands still while callbacks run."""
    fired: list[str] = []

    def again() -> None:
        fired.append("again")
        wheel.call_later(0, again)

    wheel.call_later(0, again)
    wheel.call_later(0.3, lambda: fired.append("other"))
    loop.move(0.35)
    assert "other" in fired
    assert fired.count("again") <= 5


def test_errors(
    loop: FakeLoop, wheel: TimerWheel, caplog: pytest.LogCaptureFixture
) -> None:
    fired: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    wheel.call_later(1, fail)
    wheel.call_later(1, lambda: fired.append(1))
    wheel.call_later(2, lambda: fired.append(2))
    loop.move(3)
    assert fired == [1, 2]
    (record,) = caplog.records
    assert record.getMessage() == "timer callback failed"
    assert record.levelno == logging.ERROR


def test_the_way_out(loop: FakeLoop, wheel: TimerWheel) -> None:
    """What ends a loop does not end the timers: the loop may be run again."""
    fired: list[int] = []

    def leave() -> None:
        raise SystemExit

    wheel.call_later(1, leave)
    wheel.call_later(1, lambda: fired.append(1))
    wheel.call_later(2, lambda: fired.append(2))
    with pytest.raises(SystemExit):
        loop.move(3)
    loop.move(3)
    assert fired == [1, 2]


@pytest.mark.parametrize("delay", [float("inf"), 1e300, 1e9])
def test_infinite(loop: FakeLoop, wheel: TimerWheel, delay: float) -> None:
    fired: list[int] = []
    wheel.call_later(delay, lambda: fired.append(1)).cancel()
    timer = wheel.call_later(delay, lambda: fired.append(2))
    wheel.call_later(1, lambda: fired.append(3))
    loop.move(1e6)
    assert fired == [3]
    timer.cancel()


def test_at_random(loop: FakeLoop, wheel: TimerWheel) -> None:
    """Many timers, set and cancelled in any order: each fires in time, or never."""
    rng = random.Random(7)
    fired: dict[int, float] = {}
    due: dict[int, float] = {}
    timers: dict[int, Timer] = {}
    for number in range(2000):
        delay = rng.choice((0, 0.05, 1, 3, 20)) * rng.random()
        due[number] = loop.now + delay

        def fire(number: int = number) -> None:
            assert number not in fired
            fired[number] = loop.now

        timers[number] = wheel.call_later(delay, fire)
        if rng.random() < 0.4:
            victim = rng.choice(list(timers))
            timers.pop(victim).cancel()
            if victim not in fired:
                del due[victim]
        loop.move(rng.random() / 20)
        assert len(loop.pending) <= 1
    loop.move(30)
    assert fired.keys() == due.keys()
    for number, when in fired.items():
        assert due[number] - 1e-6 <= when <= due[number] + 0.1 + 1e-6
    assert not wheel._slots
    assert not wheel._heap


def test_callbacks_are_released(loop: FakeLoop, wheel: TimerWheel) -> None:
    class Thing:
        def call(self) -> None: ...

    one, two = Thing(), Thing()
    watched = [weakref.ref(one), weakref.ref(two)]
    timer = wheel.call_later(1, one.call)
    wheel.call_later(1, two.call)
    timer.cancel()
    del one, two, timer
    assert watched[0]() is None
    loop.move(2)
    assert watched[1]() is None


@pytest.mark.parametrize("name", LOOPS)
def test_on_a_loop(name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = TimerWheel(loop)
        fired: list[str] = []
        done = asyncio.Event()
        begun = loop.time()
        wheel.call_later(0.08, done.set)
        wheel.call_later(0.04, lambda: fired.append("a"))
        wheel.call_later(0, lambda: fired.append("0"))
        wheel.call_later(0.04, lambda: fired.append("cancelled")).cancel()
        wheel.call_later(3600, lambda: fired.append("never"))
        await done.wait()
        assert fired == ["0", "a"]
        assert loop.time() - begun >= 0.079

    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        runner.run(main())


def test_a_loop_that_is_gone() -> None:
    loop = FakeLoop()
    wheel = TimerWheel(loop)  # type: ignore[arg-type]
    wheel.call_later(1, print)
    (handle,) = loop.pending
    del loop
    gc.collect()
    handle.callback()
