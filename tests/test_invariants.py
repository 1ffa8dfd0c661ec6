"""What holds for every connection, whatever both ends and the network do.

Two connections of ours talk to each other.  A state machine has them send, receive in
all ways, cancel, pause, ping, close, fail and lose each other in any order, and checks:

1. *Order.*  Messages are received in the order in which they were accepted, whole and
   unchanged.  A message is accepted when ``send()`` has its turn: at once, unless a
   message in fragments is being sent.
2. *No gap, none twice.*  What was received has no message left out that was accepted
   before one that was received.  A ``recv()`` that is cancelled, or times out, takes
   none.
3. *No loss.*  When the connection was not cut, and the receiver neither failed it, nor
   left a message in its middle, nor closed it first with a bounded queue, all messages
   that were accepted are received: also those that were sent right before a close, or
   before a failure.
4. *Everybody is woken.*  When a connection has ended, nothing waits for it: every call
   has returned, or raised :exc:`ConnectionClosed`, and not before the end.  Pings of
   connections that are open are answered.
5. *Every connection ends,* and without a timeout unless the network keeps silent or
   the program has stopped to receive.
6. *Both ends agree:* the close frame that one has received is the one that the other
   has sent; without failures and losses each has both.  Listeners are told the end
   once, and nothing after it.
7. *Counters agree* with what was sent and received, and with each other.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import pytest
from conversation import Conversation, End, Setup, check_order, number_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from websock.protocol import State

# How many conversations; more than the default are other ones each time.
EXAMPLES = os.environ.get("WEBSOCK_CONVERSATIONS")

SIZES = st.sampled_from((0, 1, 120, 130, 5000, 40_000))
ENDS = st.integers(0, 1)


# -- the invariants ------------------------------------------------------------------


def check_all_there(talk: Conversation, sender: End, receiver: End) -> None:
    """Nothing is lost without a reason (3)."""
    dropped = receiver.has_closed and receiver.limits_queue
    if talk.lost or receiver.failed or receiver.broken or dropped:
        return
    numbers = {number_of(message) for message in receiver.received}
    accepted = {n for n, sent in enumerate(sender.sent) if sent.accepted is not None}
    assert accepted <= numbers, f"lost: {accepted - numbers}"
    # What was counted on one side was counted on the other (7).
    ours, theirs = sender.ws.stats(), receiver.ws.stats()
    assert ours.messages_sent == theirs.messages_received == len(numbers)
    if not sender.failed:
        # Nor has the payload of a message that was broken off counted here.
        assert ours.payload_sent == theirs.payload_received
        assert ours.bytes_sent == theirs.bytes_received


def check_end(talk: Conversation, end: End, other: End) -> None:
    """The end is the end (4 to 7)."""
    ws = end.ws
    assert not end.tasks, f"still waiting: {end.tasks}"
    assert ws.is_lost
    assert not ws.is_open
    assert ws.state is State.CLOSED
    assert all(ping.done() for ping in end.pings), "a ping was forgotten"
    rcvd, sent = ws.protocol.close_rcvd, ws.protocol.close_sent
    assert rcvd is None or rcvd == other.ws.protocol.close_sent
    assert ws.close_code == (1006 if rcvd is None else rcvd.code)
    if not (talk.lost or end.failed or end.broken or other.broken):
        assert rcvd is not None
        assert sent is not None or other.failed
    if end.listener is not None:
        assert end.listener.closes == [(ws.close_code, ws.close_reason)]
    stats = ws.stats()
    certain = sum(sent.accepted is not None for sent in end.sent)
    perhaps = sum(sent.accepted is None and not sent.certain for sent in end.sent)
    # The beginning of a message is not counted, only what was sent whole.
    assert certain <= stats.messages_sent <= certain + perhaps
    assert stats.messages_received >= len(end.received) + stats.queued
    assert stats.buffered == 0
    if not end.broken:
        assert stats.queued == stats.queued_size == 0


# -- the machine ---------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Any interleaving of what two ends and the network between them can do."""

    talk: Conversation | None = None
    lasts = 0  # steps before somebody may close

    @initialize(
        kind=st.sampled_from(("socket", "memory")),
        compression=st.booleans(),
        listeners=st.tuples(st.booleans(), st.booleans()),
        max_queue=st.tuples(*2 * [st.sampled_from((0, 1, 16, (3, 2), None))]),
        write_limit=st.sampled_from((0, 1000, 32768)),
        buffer_size=st.sampled_from((None, 4096)),
        split=st.sampled_from((None, 1000, 7)),
        lasts=st.integers(0, 40),
    )
    def begin(self, lasts: int, **setup: Any) -> None:
        self.lasts = lasts
        self.talk = Conversation(Setup(**setup))

    def end(self, number: int) -> End:
        assert self.talk is not None
        self.lasts -= 1
        return self.talk.ends[number]

    @rule(
        number=ENDS,
        way=st.sampled_from(
            ("plain", "nowait", "prepared", "broadcast", "post", "fragments")
        ),
        size=SIZES,
        is_text=st.booleans(),
        count=st.sampled_from((1, 1, 3)),
    )
    def send(self, number: int, way: str, size: int, is_text: bool, count: int) -> None:
        end = self.end(number)
        for _ in range(count):
            end.send(way, size, is_text)

    @rule(
        number=ENDS,
        sizes=st.lists(SIZES, min_size=1, max_size=4),
        is_text=st.booleans(),
    )
    def send_slowly(self, number: int, sizes: list[int], is_text: bool) -> None:
        self.end(number).send_slowly(sizes, is_text)

    @precondition(lambda self: any(end.gates for end in self.talk.ends))
    @rule(goes_on=st.sampled_from((True, True, True, False)), turns=st.integers(0, 3))
    def next_fragment(self, goes_on: bool, turns: int) -> None:
        assert self.talk is not None
        for end in self.talk.ends:
            if end.gates:
                end.next_fragment(goes_on or self.lasts > 0)
                self.talk.turns(turns)

    @rule(
        number=ENDS,
        way=st.sampled_from(("one", "many", "in_time", "iterating", "streaming")),
        turns=st.integers(0, 5),
    )
    def receive(self, number: int, way: str, turns: int) -> None:
        end = self.end(number)
        if end.listener is None and end.receiver is None:
            end.receive(way)
        assert self.talk is not None
        self.talk.turns(turns)

    @rule(number=ENDS)
    def receive_twice(self, number: int) -> None:
        end = self.end(number)
        if end.receiver is not None and (end.ws.is_receiving or end.ws.streaming):
            end.refuse_second()

    @rule(number=ENDS, which=st.integers(0, 10))
    def cancel(self, number: int, which: int) -> None:
        end = self.end(number)
        tasks = [
            task
            for task, sent in end.tasks.items()
            # A message in fragments fails the connection.
            if self.lasts <= 0 or sent is None or sent.certain
        ]
        if tasks:
            tasks[which % len(tasks)].cancel()

    @rule(number=ENDS)
    def ping(self, number: int) -> None:
        end = self.end(number)
        end.start(end.ping())

    @rule(number=ENDS)
    def wait(self, number: int) -> None:
        end = self.end(number)
        end.start(end.ws.wait_closed())
        end.start(end.ws.drain())

    @rule(number=ENDS)
    def pause(self, number: int) -> None:
        end = self.end(number)
        if end.is_paused:
            end.resume()
        else:
            end.pause()

    @rule(count=st.integers(1, 20))
    def turn(self, count: int) -> None:
        assert self.talk is not None
        self.talk.turns(count)

    @rule()
    def pass_time(self) -> None:
        assert self.talk is not None
        self.talk.loop.advance(1)
        self.talk.turns(1)

    @precondition(lambda self: self.lasts <= 0)
    @rule(
        number=ENDS,
        way=st.sampled_from(("nowait", "wait", "fail")),
        code=st.sampled_from((1000, 1001, 1011, 4000)),
    )
    def close(self, number: int, way: str, code: int) -> None:
        self.end(number).close(way, code)

    @precondition(lambda self: self.lasts <= 0)
    @rule(number=ENDS, how=st.sampled_from(("abort", "close", "drop")))
    def lose(self, number: int, how: str) -> None:
        assert self.talk is not None
        self.talk.cut(how, self.end(number))

    @invariant()
    def nothing_wrong_yet(self) -> None:
        if self.talk is not None:
            one, two = self.talk.ends
            check_order(one.sent, two.received)
            check_order(two.sent, one.received)

    def teardown(self) -> None:
        talk = self.talk
        if talk is None:
            return
        try:
            talk.finish(self.lasts % 2)
            one, two = talk.ends
            for end, other in ((one, two), (two, one)):
                check_end(talk, end, other)
                check_order(end.sent, other.received)
                check_all_there(talk, end, other)
            if not (talk.lost or one.broken or two.broken):
                assert talk.took == 0, "only a timeout ended it"
                assert not (talk.was_open and talk.unanswered), "pings without answers"
        finally:
            talk.close()
        assert talk.complaints == []


@pytest.mark.skipif(platform.system() == "Windows", reason="no pairs of Unix sockets")
def test_conversations() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(EXAMPLES or 50),
            stateful_step_count=50,
            derandomize=EXAMPLES is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
