"""Both ends of a connection, and a network between them that fails at random.

:mod:`faulty` hands on what two programs (:mod:`talkers`) send, in pieces and late, stands
still for a while, and ends connections at any byte.  Whatever it does:

1. what an end receives are the first messages that the other one sent, in order, none
   twice, none changed; without a loss they are all; when the stream is ended and not
   reset, they are exactly those that got through whole;
2. both ends are told the end, by the right exception and close code: 1006 when no close
   frame came; that of the close frame, whatever happens to the connection after it;
3. nothing waits for ever, although there are no timeouts, and nothing is left: tasks,
   threads, files, errors that nobody has seen, lines in the log above INFO.

A failure tells its seed.  ``WEBSOCK_CHAOS_SEEDS=2000`` tries more of them, and
``WEBSOCK_CHAOS_SEEDS=17-17`` one again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
from chaos import some_fault, some_loop, try_seeds
from faulty import Faulty, Frame, Passage, Way, frames_of
from linked import freeze
from scripted import LOOPBACK, TLS, run_on, tls_fixture
from talkers import CLIENTS, SERVERS, Account, Message, Part, serving, start_client

tls = tls_fixture()

LAYERS = ("plain", "deflate", "tls")
PAIRS = [p for p in itertools.product(CLIENTS, SERVERS) if p != ("websockets",) * 2]
OK = (1000, 1001)


# -- what happens, by chance -----------------------------------------------------------


def some_messages(chance: random.Random, name: str) -> list[Message]:
    """Make messages that tell who sent them, and when."""
    sizes = (0, 1, 100, 130, 1000) * 4 + (5000, 30_000, 70_000)
    found: list[Message] = []
    for number in range(chance.choice((0, 1, 5, 20, 40))):
        text = f"{name} {number} " + chance.choice("xyé漢") * chance.choice(sizes)
        found.append(text if chance.random() < 0.5 else text.encode())
    return found


def size_of(messages: list[Message], masks: bool) -> int:
    """Return about how many bytes messages are on the network."""
    sizes = [len(m.encode() if isinstance(m, str) else m) for m in messages]
    heads = [2 + 2 * (n > 125) + 6 * (n > 65535) + 4 * masks for n in sizes]
    return sum(sizes) + sum(heads)


# -- what must hold --------------------------------------------------------------------


def check_messages(
    sender: Account, receiver: Account, way: Way, is_whole: bool
) -> None:
    """See what came (1).

    Args:
        way: The direction, if what got through can be read.
        is_whole: Whether nothing was lost on it.
    """
    count = len(receiver.received)
    assert receiver.received == sender.part.messages[:count]
    assert count <= sender.begun
    if receiver.ws is None or receiver.closed_early:
        return
    if is_whole:
        assert count >= sender.accepted, f"{count} of {sender.accepted} came"


def check_passed(receiver: Account, frames: list[Frame]) -> None:
    """What got through whole before the end of the stream was received (1, 2)."""
    whole = [f for f in frames if f.opcode < 8 and f.fin]
    assert len(receiver.received) == len(whole) or receiver.closed_early
    closes = [f for f in frames if f.opcode == 8]
    assert bool(closes) is (receiver.ws.protocol.close_rcvd is not None)


def check_end(account: Account, other: Account) -> None:
    """See what an end was told (2)."""
    protocol = account.ws.protocol
    rcvd, sent = protocol.close_rcvd, protocol.close_sent
    assert account.ws.state.name == "CLOSED"
    said = other.ws.protocol.close_sent
    assert rcvd is None or (rcvd.code, rcvd.reason) == (said.code, said.reason)
    assert account.ws.close_code == (1006 if rcvd is None else rcvd.code)
    is_clean = bool(rcvd and sent and rcvd.code in OK and sent.code in OK)
    name = "ConnectionClosedOK" if is_clean else "ConnectionClosedError"
    names = {name}
    if account.told:
        # What does not wait does not know yet how the connection will end.
        names.add("ConnectionClosed")
    failures = [*account.failures, *filter(None, [account.ending])]
    for failure in failures:
        assert type(failure).__name__ in names, repr(failure)
        assert failure.rcvd == rcvd  # type: ignore[attr-defined]
        assert failure.sent == sent  # type: ignore[attr-defined]
    if account.told:
        assert account.told == [(account.ws.close_code, account.ws.close_reason)]
    else:
        assert account.ending is not None


def check(
    passage: Passage, client: Account, server: Account | None, layer: str
) -> None:
    """See how a connection went."""
    is_cut = passage.is_cut or passage.was_reset
    if client.ws is None:
        assert is_cut, client.failures
        (failure,) = client.failures
        names = {kind.__name__ for kind in type(failure).__mro__}
        assert names & {"OSError", "InvalidHandshake"}, repr(failure)
    if server is None:
        assert client.ws is None or is_cut
    for end, other, way in (
        (client, server, passage.to_client),
        (server, client, passage.to_server),
    ):
        if end is None or end.ws is None:
            continue
        if other is None or other.ws is None:
            assert end.received == []
            assert end.ws.close_code == 1006
            continue
        check_messages(other, end, way, not is_cut)
        check_end(end, other)
        protocol = end.ws.protocol
        if not is_cut:
            assert protocol.close_rcvd is not None
            assert protocol.close_sent is not None
        was_reset = passage.was_reset or passage.fault.kind == "rst"
        if layer != "tls" and not was_reset and way.is_exact:
            check_passed(end, frames_of(bytes(way.passed)))


# -- two ends --------------------------------------------------------------------------


def two_ends(
    kinds: tuple[str, str], layer: str, contexts: TLS | None, seed: str
) -> None:
    """Have two ends talk, as a seed wants it."""
    chance = random.Random(seed)
    to_server = some_messages(chance, "client")
    to_client = some_messages(chance, "server")
    closes = chance.choice(
        [
            ("sent", "never"),
            ("never", "sent"),
            ("sent", "sent"),
            ("received", "never"),
            ("never", "received"),
            ("received", "received"),
        ]
    )
    code = chance.choice((1000, 1000, 1001, 1011, 4000))
    client_part = Part(to_server, len(to_client), closes[0], code, f"client of {seed}")
    server_part = Part(to_client, len(to_server), closes[1], 1000, f"server of {seed}")
    sizes = size_of(to_server, True), size_of(to_client, False)
    fault = some_fault(chance, sizes, layer == "tls")
    options: dict[str, Any] = {
        "compression": "deflate" if layer == "deflate" else None,
        "ping_interval": chance.choice((None, None, 0.003)),
        "ping_timeout": None,
        "max_queue": chance.choice((1, 16, 16)),
    }

    async def main() -> None:
        taken: list[Account] = []

        def take() -> Account:
            taken.append(Account(server_part))
            return taken[-1]

        async with (
            serving(kinds[1], take, contexts, **options) as address,
            Faulty(address, seed, fault) as proxy,
        ):
            client = Account(client_part)
            more: dict[str, Any] = {}
            if contexts is not None:
                more["ssl"] = contexts.client
            scheme = "ws" if contexts is None else "wss"
            uri = f"{scheme}://{LOOPBACK}:{proxy.port}/"
            start_client(kinds[0], uri, client, **options, **more)
            waiting = asyncio.create_task(client.done.wait())
            await proxy.begun.wait()
            (passage,) = proxy.passages
            stalled = asyncio.create_task(passage.stalled.wait())
            await asyncio.wait((waiting, stalled), return_when="FIRST_COMPLETED")
            await asyncio.sleep(chance.choice((0, 0.002, 0.01)))
            passage.release()
            await waiting
            stalled.cancel()
            await passage.ended.wait()
            if client.ws is not None:
                for account in taken:
                    await account.done.wait()
        for account in taken:
            await account.done.wait()
        check(passage, client, taken[0] if taken else None, layer)

    freeze()
    run_on(some_loop(chance), main())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_two_ends(kinds: tuple[str, str], layer: str, tls: TLS) -> None:
    contexts = tls if layer == "tls" else None
    try_seeds(lambda seed: two_ends(kinds, layer, contexts, seed), *kinds, layer)
