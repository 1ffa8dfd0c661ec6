"""How a connection ends, as a table (RFC 6455, section 7). No I/O and no bytes.

A connection is in one :class:`Phase`. Something happens, a :class:`Trigger`, and the
table of its side gives the next phase and what to do, a few :class:`Action`. Every
pair has an entry; one that changes nothing means that it comes too late to matter.
:mod:`websock.protocol` carries the actions out and knows the frames.

Three rules explain most of the table:

* One close frame goes out at most, and none once the connection failed in a way that
  the peer cannot hear.
* The server ends its half of TCP first (RFC 6455, 7.1.1), as soon as both close
  frames went by or the connection failed; the client when it has seen that.
* Nothing is read after a close frame or a failure (RFC 6455, 1.4 and 7.1.7).
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["Action", "Phase", "Step", "Trigger", "table_for"]


class Phase(enum.IntEnum):
    """Where a connection is between its opening and its end."""

    CONNECTING = 0
    """The opening handshake is going on."""

    REFUSED = 1
    """The opening handshake failed; the end of the peer's stream is awaited."""

    OPEN = 2
    """Messages go both ways."""

    CLOSE_SENT = 3
    """A close frame went out; messages, and the answer, may still come in."""

    FINISHING = 4
    """Nothing is read any more; the end of the peer's stream is awaited."""

    CLOSED = 5
    """The peer's stream has ended."""


class Trigger(enum.IntEnum):
    """What can happen to a connection."""

    ACCEPT = 0
    """The opening handshake succeeded."""

    REFUSE = 1
    """The opening handshake failed."""

    CLOSE = 2
    """This side wants to close."""

    PEER_CLOSE = 3
    """A close frame came in."""

    FAIL = 4
    """The connection must end, and a close frame can still tell the peer why."""

    ABORT = 5
    """The connection must end, and there is no telling the peer."""

    PEER_EOF = 6
    """The peer's stream ended, or the connection broke."""


class Action(enum.Enum):
    """What a step asks for."""

    SEND_CLOSE = enum.auto()
    """Send a close frame: the one asked for, or the echo of the peer's."""

    SEND_EOF = enum.auto()
    """End this side's stream."""

    STOP_READING = enum.auto()
    """Ignore what comes in from now on."""

    NOTE_LOSS = enum.auto()
    """Remember that the stream ended without a closing handshake."""


class Step(NamedTuple):
    """One entry of the table."""

    phase: Phase
    actions: tuple[Action, ...]


_Actions = tuple[tuple[Action, tuple[bool, ...]], ...]

# Actions, each with the sides that take it: False for clients, True for servers.
_BOTH, _CLIENT, _SERVER = (False, True), (False,), (True,)

_SAY: _Actions = ((Action.SEND_CLOSE, _BOTH),)
_LEAVE: _Actions = ((Action.STOP_READING, _BOTH), (Action.SEND_EOF, _BOTH))
_YIELD: _Actions = ((Action.STOP_READING, _BOTH), (Action.SEND_EOF, _SERVER))
_LOSE: _Actions = ((Action.NOTE_LOSS, _BOTH), *_LEAVE)
_FOLLOW: _Actions = ((Action.SEND_EOF, _CLIENT),)

_RULES: dict[tuple[Phase, Trigger], tuple[Phase, _Actions]] = {
    (Phase.CONNECTING, Trigger.ACCEPT): (Phase.OPEN, ()),
    (Phase.CONNECTING, Trigger.REFUSE): (Phase.REFUSED, _LEAVE),
    (Phase.CONNECTING, Trigger.FAIL): (Phase.REFUSED, _LEAVE),
    (Phase.CONNECTING, Trigger.ABORT): (Phase.REFUSED, _LEAVE),
    (Phase.CONNECTING, Trigger.PEER_EOF): (Phase.CLOSED, _LOSE),
    (Phase.REFUSED, Trigger.PEER_EOF): (Phase.CLOSED, ()),
    (Phase.OPEN, Trigger.CLOSE): (Phase.CLOSE_SENT, _SAY),
    (Phase.OPEN, Trigger.PEER_CLOSE): (Phase.FINISHING, _SAY + _YIELD),
    (Phase.OPEN, Trigger.FAIL): (Phase.FINISHING, _SAY + _YIELD),
    (Phase.OPEN, Trigger.ABORT): (Phase.FINISHING, _YIELD),
    (Phase.OPEN, Trigger.PEER_EOF): (Phase.CLOSED, _LOSE),
    (Phase.CLOSE_SENT, Trigger.PEER_CLOSE): (Phase.FINISHING, _YIELD),
    (Phase.CLOSE_SENT, Trigger.FAIL): (Phase.FINISHING, _YIELD),
    (Phase.CLOSE_SENT, Trigger.ABORT): (Phase.FINISHING, _YIELD),
    (Phase.CLOSE_SENT, Trigger.PEER_EOF): (Phase.CLOSED, _LOSE),
    (Phase.FINISHING, Trigger.PEER_EOF): (Phase.CLOSED, _FOLLOW),
}

Table = tuple[tuple[Step, ...], ...]


def _build(is_server: bool) -> Table:
    def step(phase: Phase, trigger: Trigger) -> Step:
        after, actions = _RULES.get((phase, trigger), (phase, ()))
        return Step(
            after, tuple(action for action, sides in actions if is_server in sides)
        )

    return tuple(tuple(step(phase, trigger) for trigger in Trigger) for phase in Phase)


_CLIENT_TABLE = _build(False)
_SERVER_TABLE = _build(True)


def table_for(*, is_server: bool) -> Table:
    """Return the table of one side; ``table[phase][trigger]`` is a :class:`Step`.

    Args:
        is_server: Whether it is the server's side.
    """
    return _SERVER_TABLE if is_server else _CLIENT_TABLE
