"""What holds for every connection that is used by threads; see ``test_invariants.py``.

A state machine has two ends send, receive in all ways, give up waiting, ping, close, fail
and lose each other in any order, from as many threads as there are calls.  What must hold
is said there: order, no gap, none twice, no loss without a reason, everybody woken, every
connection ended, and both ends agreed.  Besides, a ``send()`` that raises has not sent:
such a message is never received.

The choices are the same each time, how threads take turns is not.  The watcher comes
sooner than it does elsewhere, or it would hardly come at all.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from conversation import check_order, number_of
from dialogue import Call, Dialogue, Speaker, Terms
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from scripted import TLS, tls_fixture

from websock.exceptions import ConnectionClosed
from websock.protocol import State
from websock.sync import watcher

tls = tls_fixture()

# How many dialogues; more than the default are other ones each time.
EXAMPLES = os.environ.get("WEBSOCK_CONVERSATIONS")

SIZES = st.sampled_from((0, 1, 120, 130, 5000, 40_000))
ENDS = st.integers(0, 1)
GOES_ON = st.sampled_from((True,) * 7 + (False,))
# How long a call is watched before something else happens.
WATCHED = st.sampled_from((0.0, 0.001, 0.003))


# -- the invariants ------------------------------------------------------------------


def check_all_there(talk: Dialogue, sender: Speaker, receiver: Speaker) -> None:
    """Nothing is lost without a reason, and all that came was counted."""
    dropped = receiver.has_closed and receiver.limits_queue
    if talk.lost or receiver.failed or receiver.broken or dropped:
        return
    numbers = {number_of(message) for message in receiver.received}
    accepted = {n for n, sent in enumerate(sender.sent) if sent.accepted is not None}
    assert accepted <= numbers, f"lost: {accepted - numbers}"
    reader: Any = receiver.ws._reader
    assert reader.messages == len(numbers)


def check_end(talk: Dialogue, end: Speaker, other: Speaker) -> None:
    """The end is the end, and both ends agree."""
    ws = end.ws
    assert not end.calls, f"still waiting: {end.calls}"
    assert ws.is_lost
    assert not ws.is_open
    assert ws.state is State.CLOSED
    assert ws.fileno() == -1
    assert all(ping.is_set() for ping in end.pings), "a ping was forgotten"
    assert all(sent.certain or sent.accepted is None for sent in end.sent)
    rcvd, sent = ws.protocol.close_rcvd, ws.protocol.close_sent
    assert rcvd is None or rcvd == other.ws.protocol.close_sent
    assert ws.close_code == (1006 if rcvd is None else rcvd.code)
    if not (talk.lost or end.failed):
        assert rcvd is not None
        assert sent is not None or other.failed
    if not end.broken:
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=0)
    with pytest.raises(ConnectionClosed):
        ws.send("")
    with pytest.raises(ConnectionClosed):
        ws.ping()
    ws.close()
    assert ws.wait_closed(0)


# -- the machine ---------------------------------------------------------------------


def watch(call: Call | None, seconds: float) -> None:
    """Let a call have time to end, or to come to a gate; most need none."""
    if call is not None:
        call.stopped.wait(seconds)


def make_machine(contexts: TLS) -> Any:
    """Make the class of the machine."""

    # What rules may do must not depend on how far threads have come.
    class Machine(RuleBasedStateMachine):
        """Any interleaving of what two ends and the network between them can do."""

        talk: Dialogue | None = None
        lasts = 0  # steps before somebody may close

        @initialize(
            kind=st.sampled_from(("unix", "unix", "tcp", "tls")),
            compression=st.booleans(),
            max_queue=st.tuples(*2 * [st.sampled_from((1, 1, 16, (3, 2), None))]),
            buffer_size=st.sampled_from((None, 4096)),
            lasts=st.sampled_from((3, 8, 15, 20, 30, 45)),
        )
        def begin(self, lasts: int, **terms: Any) -> None:
            self.lasts = lasts
            self.talk = Dialogue(Terms(**terms), contexts)

        def end(self, number: int) -> Speaker:
            assert self.talk is not None
            self.lasts -= 1
            return self.talk.ends[number]

        @rule(
            number=ENDS,
            way=st.sampled_from(("plain", "plain", "broadcast", "fragments")),
            size=SIZES,
            is_text=st.booleans(),
            count=st.sampled_from((1, 1, 3)),
            watched=WATCHED,
        )
        def send(
            self,
            number: int,
            way: str,
            size: int,
            is_text: bool,
            count: int,
            watched: float,
        ) -> None:
            end = self.end(number)
            sizes = [size // 3, size // 3] if way == "fragments" else [size]
            for _ in range(count):
                watch(end.send(way, sizes, is_text), watched)

        @rule(number=ENDS, count=st.sampled_from((1, 2, 5, 20)))
        def send_small(self, number: int, count: int) -> None:
            for _ in range(count):
                watch(self.end(number).send("plain", [1], True), 0.003)

        @rule(
            number=ENDS,
            sizes=st.lists(SIZES, min_size=1, max_size=2),
            is_text=st.booleans(),
            watched=WATCHED,
        )
        def send_slowly(
            self, number: int, sizes: list[int], is_text: bool, watched: float
        ) -> None:
            watch(self.end(number).send("slowly", sizes, is_text), watched)

        # Meanwhile nothing else can be sent.
        @rule(goes_on=GOES_ON)
        def next_fragments(self, goes_on: bool) -> None:
            assert self.talk is not None
            for end in self.talk.ends:
                end.fragments.open(goes_on or self.lasts > 0)

        @rule(goes_on=GOES_ON)
        def all_fragments(self, goes_on: bool) -> None:
            for _ in range(3):
                self.next_fragments(goes_on)

        @rule(
            number=ENDS,
            way=st.sampled_from(("now", "in_time", "one", "iterating", "streaming")),
            watched=WATCHED,
        )
        def receive(self, number: int, way: str, watched: float) -> None:
            watch(self.end(number).receive(way), watched)

        @rule(number=ENDS, goes_on=GOES_ON)
        def next_piece(self, number: int, goes_on: bool) -> None:
            end = self.end(number)
            end.pieces.open(goes_on or self.lasts > 0)

        @rule(number=ENDS)
        def receive_twice(self, number: int) -> None:
            self.end(number).refuse_second()

        @rule(number=ENDS, watched=WATCHED)
        def ping(self, number: int, watched: float) -> None:
            watch(self.end(number).ping(), watched)

        @rule(number=ENDS, timeout=st.sampled_from((0.0, 0.002, None)))
        def wait(self, number: int, timeout: float | None) -> None:
            end = self.end(number)
            end.start(lambda call: end.ws.wait_closed(timeout))

        @rule(number=ENDS, watched=WATCHED)
        def pass_time(self, number: int, watched: float) -> None:
            end = self.end(number)
            if end.calls:
                watch(end.calls[0], watched)

        @precondition(lambda self: self.lasts <= 0)
        @rule(
            number=ENDS,
            way=st.sampled_from(("wait", "wait", "wait", "wait", "fail")),
            code=st.sampled_from((1000, 1001, 1011, 4000)),
            watched=WATCHED,
        )
        def close(self, number: int, way: str, code: int, watched: float) -> None:
            watch(self.end(number).close(way, code), watched)

        @precondition(lambda self: self.lasts <= 0)
        @rule(number=ENDS)
        def close_both(self, number: int) -> None:
            self.end(number).close("wait", 1000)
            self.end(1 - number).close("wait", 1001)

        @precondition(lambda self: self.lasts <= 0)
        @rule(
            number=ENDS,
            how=st.sampled_from((None, None, None, "both", "half", "reset")),
        )
        def lose(self, number: int, how: str | None) -> None:
            assert self.talk is not None
            if how is not None:
                self.talk.cut(how, number)

        @invariant()
        def nothing_wrong_yet(self) -> None:
            if self.talk is not None:
                self.talk.look()
                one, two = self.talk.ends
                check_order(one.sent, [*two.received])
                check_order(two.sent, [*one.received])

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
            except BaseException as exc:
                exc.add_note("\n".join(map(str, talk.ends)))
                raise
            finally:
                talk.close()
            assert talk.complaints == []

    return Machine


def test_dialogues(tls: TLS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "TICK", 0.002)
    run_state_machine_as_test(
        make_machine(tls),
        settings=settings(
            max_examples=int(EXAMPLES or 20),
            stateful_step_count=50,
            derandomize=EXAMPLES is None,
            database=None,
            deadline=None,
            # Fewer steps would not fail as surely: threads take turns as they like.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
