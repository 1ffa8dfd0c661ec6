"""The table of the closing handshake, and the protocol that carries it out."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websock.closing import Action, Phase, Step, Trigger, table_for
from websock.exceptions import InvalidState, ProtocolError
from websock.frames import OK_CLOSE_CODES
from websock.protocol import SEND_EOF, Protocol, Side, State

SIDES = ["client", "server"]

# What follows what, drawn by hand: a letter per phase, rows in the order of Phase and
# columns in the order of Trigger.
#          ACCEPT REFUSE CLOSE PEER_CLOSE FAIL ABORT PEER_EOF
NEXT = {
    "C": "O R C C R R X",
    "R": "R R R R R R X",
    "O": "O O S F F F X",
    "S": "S S S F F F X",
    "F": "F F F F F F X",
    "X": "X X X X X X X",
}
LETTERS = dict(zip("CROSFX", Phase, strict=True))

triggers = st.sampled_from(Trigger)


def table(side: str) -> tuple[tuple[Step, ...], ...]:
    return table_for(is_server=side == "server")


def run(side: str, *happened: Trigger, start: Phase = Phase.OPEN) -> list[Action]:
    actions: list[Action] = []
    phase = start
    for trigger in happened:
        phase, more = table(side)[phase][trigger]
        actions += more
    return actions


class TestTable:
    @pytest.mark.parametrize("side", SIDES)
    def test_next_phases(self, side: str) -> None:
        for letter, row in NEXT.items():
            steps = table(side)[LETTERS[letter]]
            assert [step.phase for step in steps] == [LETTERS[x] for x in row.split()]

    @pytest.mark.parametrize("side", SIDES)
    def test_no_action_without_a_change(self, side: str) -> None:
        for phase in Phase:
            for trigger in Trigger:
                step = table(side)[phase][trigger]
                assert step.phase is not phase or step.actions == ()

    def test_server_ends_its_stream_first(self) -> None:
        closing = [Trigger.CLOSE, Trigger.PEER_CLOSE]
        assert Action.SEND_EOF in run("server", *closing)
        assert Action.SEND_EOF not in run("client", *closing)
        assert run("client", *closing, Trigger.PEER_EOF)[-1] is Action.SEND_EOF

    def test_server_waits_for_the_answer(self) -> None:
        assert run("server", Trigger.CLOSE) == [Action.SEND_CLOSE]

    @pytest.mark.parametrize("side", SIDES)
    def test_answer_is_sent_once(self, side: str) -> None:
        both = run(side, Trigger.PEER_CLOSE, Trigger.PEER_CLOSE, Trigger.CLOSE)
        assert both.count(Action.SEND_CLOSE) == 1

    @pytest.mark.parametrize("side", SIDES)
    def test_abort_is_silent(self, side: str) -> None:
        assert Action.SEND_CLOSE not in run(side, Trigger.ABORT, Trigger.FAIL)

    @pytest.mark.parametrize("side", SIDES)
    @pytest.mark.parametrize(
        ("happened", "is_lost"),
        [
            ([], True),
            ([Trigger.CLOSE], True),
            ([Trigger.PEER_CLOSE], False),
            ([Trigger.CLOSE, Trigger.PEER_CLOSE], False),
            ([Trigger.FAIL], False),
            ([Trigger.ABORT], False),
        ],
    )
    def test_loss_is_noted(
        self, side: str, happened: list[Trigger], is_lost: bool
    ) -> None:
        actions = run(side, *happened, Trigger.PEER_EOF)
        assert (Action.NOTE_LOSS in actions) is is_lost


class TestAnyOrder:
    @given(st.sampled_from(SIDES), st.sampled_from(Phase), st.lists(triggers))
    def test_every_connection_ends(
        self, side: str, start: Phase, happened: list[Trigger]
    ) -> None:
        phase = start
        for trigger in [*happened, Trigger.PEER_EOF]:
            after = table(side)[phase][trigger].phase
            assert after >= phase  # no way back
            phase = after
        assert phase is Phase.CLOSED

    @given(st.sampled_from(SIDES), st.lists(triggers))
    def test_what_is_sent(self, side: str, happened: list[Trigger]) -> None:
        actions = run(side, *happened, Trigger.PEER_EOF, start=Phase.CONNECTING)
        assert actions.count(Action.SEND_EOF) == 1
        assert actions.count(Action.STOP_READING) == 1
        assert actions.count(Action.SEND_CLOSE) <= 1
        assert actions.count(Action.NOTE_LOSS) <= 1
        if Action.SEND_CLOSE in actions:
            assert actions.index(Action.SEND_CLOSE) < actions.index(Action.SEND_EOF)


# The protocol, with anything happening in any order.

payloads = st.sampled_from(
    [b"", b"\x03\xe8", b"\x03\xe9going away", b"\x0b\xb8\xe2\x82\xac"]
)
codes = st.sampled_from([None, 1000, 1001, 1011, 3000, 4999])
failures = st.sampled_from([1000, 1002, 1006, 1009, 1011, 4000])
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("close_received"), payloads),
        st.tuples(st.just("reader_failed"), st.just(ProtocolError("wrong"))),
        st.tuples(st.just("reader_failed"), st.just(ValueError("our mistake"))),
        st.tuples(st.just("send_close"), codes),
        st.tuples(st.just("fail"), failures),
        st.tuples(st.just("send_text"), st.just(b"text")),
        st.tuples(st.just("send_ping"), st.just(b"ping")),
        st.tuples(st.just("receive_eof")),
        st.tuples(st.just("receive_data"), st.binary(max_size=12)),
    ),
    max_size=12,
)


QUIET = logging.Logger("quiet", logging.CRITICAL)


def is_close(frame: bytes) -> bool:
    return frame[:1] == b"\x88"


class TestProtocol:
    @given(st.sampled_from(Side), happenings)
    def test_every_connection_ends(
        self, side: Side, happened: list[tuple[object, ...]]
    ) -> None:
        protocol = Protocol(side, logger=QUIET)
        for name, *args in happened:
            before = protocol.state
            try:
                getattr(protocol, str(name))(*args)
            except InvalidState:
                assert str(name).startswith("send_")
                assert before is not State.OPEN
            except EOFError:
                assert name == "receive_data"
            assert protocol.state >= before
            if protocol.state is State.CLOSING:
                assert protocol.close_expected()
        protocol.receive_eof()
        assert protocol.state is State.CLOSED
        assert not protocol.close_expected()

        writes = protocol.data_to_send()
        assert writes.count(SEND_EOF) == 1
        assert writes[-1] == SEND_EOF
        closes = [frame for frame in writes if is_close(frame)]
        assert len(closes) == (protocol.close_sent is not None)
        for frame in writes[writes.index(closes[0]) + 1 if closes else 0 :]:
            assert not closes or frame[:1] in (b"", b"\x89", b"\x8a")

        exc = protocol.close_exc
        assert exc.__cause__ is protocol.parser_exc
        assert exc.rcvd is protocol.close_rcvd
        assert exc.sent is protocol.close_sent
        clean = (
            exc.rcvd is not None
            and exc.sent is not None
            and {exc.rcvd.code, exc.sent.code} <= OK_CLOSE_CODES
        )
        assert type(exc).__name__ == (
            "ConnectionClosedOK" if clean else "ConnectionClosedError"
        )
        if exc.rcvd is None:
            assert protocol.close_code == 1006
            assert protocol.close_reason == ""
        else:
            assert protocol.close_code == exc.rcvd.code
            assert protocol.close_reason == exc.rcvd.reason
