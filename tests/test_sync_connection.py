"""Connections used by threads: messages, closing, limits, several threads."""

from __future__ import annotations

import hashlib
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scripted import TLS, tls_fixture
from threads import (
    BINARY,
    CLOSE,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Thread,
    pair,
    raw_client,
    raw_server,
    serving,
    uri_of,
)
from wire import frame

from websock.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
)
from websock.protocol import State
from websock.sync.client import connect
from websock.sync.server import broadcast

tls = tls_fixture()

MESSAGES = ["", "a", "é" * 200, "\U0001f600" * 40000, b"", b"\0" * 70000, b"x" * 126]


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_echo(tls: TLS, secure: bool, compression: str | None) -> None:
    context = tls.server if secure else None
    with serving(ssl=context, compression=compression) as server:
        uri = uri_of(server, scheme="wss" if secure else "ws")
        options: dict[str, Any] = {"ssl": tls.client} if secure else {}
        with connect(uri, proxy=None, compression=compression, **options) as ws:
            assert bool(ws.protocol.extensions) is (compression is not None)
            for message in MESSAGES:
                ws.send(message)
                assert ws.recv() == message
            for message in MESSAGES:
                ws.send(message)
            assert [ws.recv(timeout=PATIENCE) for _ in MESSAGES] == MESSAGES
            if secure:
                assert ws.socket.version() == "TLSv1.3"
        assert (ws.close_code, ws.close_reason) == (1000, "")
        assert ws.state is State.CLOSED


def test_kinds_and_fragments() -> None:
    with pair() as (client, server):
        client.send("é", text=False)
        assert server.recv() == "é".encode()
        client.send(b"abc", text=True)
        assert server.recv() == "abc"
        client.send(bytearray(b"ab"))
        client.send(memoryview(b"cd"))
        assert [server.recv(), server.recv()] == [b"ab", b"cd"]
        client.send(iter(["a", "b", "c"]))
        assert server.recv() == "abc"
        client.send([b"a", b"b"])
        assert server.recv(decode=True) == "ab"
        client.send("text")
        assert server.recv(decode=False) == b"text"
        client.send([])  # nothing
        client.send("next")
        assert server.recv() == "next"
        for bad in ({"a": 1}, 5, None, [1]):
            with pytest.raises(TypeError):
                client.send(bad)
        client.send("still open")
        assert server.recv() == "still open"


def test_mixed_fragments_fail_the_connection() -> None:
    with pair() as (client, server):
        with pytest.raises(TypeError, match="all str or all bytes-like"):
            client.send(["a", b"b"])
        with pytest.raises(ConnectionClosedError) as caught:
            server.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011


def test_iteration_ends_with_the_connection() -> None:
    with pair() as (client, server):
        client.send("a")
        client.send("b")
        thread = Thread(client.close)
        assert list(server) == ["a", "b"]
        thread.result()
        with pytest.raises(ConnectionClosedOK):
            server.recv()
        with pytest.raises(ConnectionClosedOK):
            server.send("late")
        with pytest.raises(ConnectionClosedOK):
            server.ping()


def test_iteration_raises_after_an_error() -> None:
    with pair() as (client, server):
        thread = Thread(client.close, 1011, "oops")
        with pytest.raises(ConnectionClosedError, match="oops"):
            list(server)
        thread.result()
        assert (server.close_code, server.close_reason) == (1011, "oops")


def test_close_twice_and_bad_codes() -> None:
    with pair() as (client, server):
        with pytest.raises(ValueError):
            client.close(1006)
        with pytest.raises(ValueError):
            client.close(1000, "x" * 124)
        client.close(4000, "bye")
        client.close()
        assert client.close_code == 4000
        assert server.wait_closed(PATIENCE)
        assert server.close_reason == "bye"


def test_leaving_with_an_exception_says_1011() -> None:
    with serving(lambda ws: ws.wait_closed()) as server:
        with pytest.raises(LookupError), connect(uri_of(server), proxy=None) as ws:
            raise LookupError
        assert ws.close_code == 1011


# -- waiting ---------------------------------------------------------------------------


def test_timeouts_lose_nothing() -> None:
    with pair() as (client, server):
        for timeout in (-1, 0, 0.01):
            with pytest.raises(TimeoutError):
                client.recv(timeout=timeout)
        done = threading.Event()

        def flood() -> None:
            for number in range(2000):
                server.send(str(number))
            done.set()

        thread = Thread(flood)
        seen: list[str] = []
        while len(seen) < 2000:
            try:
                seen.append(client.recv(timeout=random.choice((0, 0.0001, 0.001))))
            except TimeoutError:
                pass
        assert seen == [str(number) for number in range(2000)]
        thread.result()


def test_a_message_cut_by_timeouts_is_whole() -> None:
    with serving() as server, raw_client(server) as peer:
        data = frame(TEXT, b"x" * 300, mask=b"abcd")
        for cut in range(0, len(data), 50):
            peer.sock.sendall(data[cut : cut + 50])
        assert peer.frame() == (TEXT, b"x" * 300)

    go_on = threading.Event()

    def script(peer: Any, head: bytes) -> None:
        data = frame(TEXT, b"y" * 300)
        peer.sock.sendall(data[:100])
        assert go_on.wait(PATIENCE)
        peer.sock.sendall(data[100:])
        assert peer.frame()[0] == CLOSE
        peer.send(CLOSE, b"\x03\xe8")

    with raw_server(script) as uri, connect(uri, proxy=None) as ws:
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.05)
        go_on.set()
        assert ws.recv(timeout=PATIENCE) == "y" * 300


def test_one_receiver_at_a_time() -> None:
    with pair() as (client, server):
        thread = Thread(client.recv)
        while not client._receiver.locked():
            time.sleep(0.001)
        with pytest.raises(ConcurrencyError, match="cannot call recv while"):
            client.recv()
        with pytest.raises(ConcurrencyError, match="cannot call recv_streaming"):
            next(client.recv_streaming())
        server.send("x")
        assert thread.result() == "x"


def test_close_wakes_who_receives() -> None:
    with pair() as (client, server):
        thread = Thread(client.recv)
        client.close()
        with pytest.raises(ConnectionClosedOK):
            thread.result()
        assert server.wait_closed(PATIENCE)


def test_one_fragmented_message_at_a_time() -> None:
    with pair() as (client, server):
        begun, go_on = threading.Event(), threading.Event()

        def pieces() -> Any:
            yield "a"
            begun.set()
            assert go_on.wait(PATIENCE)
            yield "b"

        thread = Thread(client.send, pieces())
        assert begun.wait(PATIENCE)
        for message in ("x", ["x"]):
            with pytest.raises(ConcurrencyError, match="fragmented"):
                client.send(message)
        assert client.ping().wait(PATIENCE)
        go_on.set()
        thread.result()
        assert server.recv() == "ab"


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_threads_hammer_one_connection(tls: TLS, secure: bool) -> None:
    """Four threads send, one receives, one pings; all arrives, in each one's order."""
    count, senders = 200, 4
    options: dict[str, Any] = {"ssl": tls.client} if secure else {}
    with serving(ssl=tls.server if secure else None) as server:
        uri = uri_of(server, scheme="wss" if secure else "ws")
        with connect(uri, proxy=None, **options) as ws:

            def send(name: int) -> None:
                for number in range(count):
                    ws.send(f"{name} {number} " + "x" * (number * 37 % 3000))

            def ping() -> None:
                for _ in range(50):
                    assert ws.ping().wait(PATIENCE)

            threads = [Thread(send, name) for name in range(senders)] + [Thread(ping)]
            seen: dict[str, list[int]] = {}
            for _ in range(count * senders):
                name, number, rest = ws.recv(timeout=PATIENCE).split(" ")
                assert len(rest) == int(number) * 37 % 3000
                seen.setdefault(name, []).append(int(number))
            for thread in threads:
                thread.result()
            assert sorted(seen) == [str(name) for name in range(senders)]
            assert all(numbers == list(range(count)) for numbers in seen.values())


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_both_ways_at_once(tls: TLS, secure: bool) -> None:
    """Both ends send more than buffers take before either has received all."""
    messages = [bytes([n]) * 300_000 for n in range(30)]
    total = hashlib.sha256(b"".join(messages)).digest()

    def receive(ws: Any) -> bytes:
        return hashlib.sha256(b"".join(ws.recv() for _ in messages)).digest()

    found: list[Any] = []

    def handler(ws: Any) -> None:
        thread = Thread(receive, ws)
        for message in messages:
            ws.send(message)
        found.append(thread.result())
        ws.wait_closed()

    options: dict[str, Any] = {"ssl": tls.client} if secure else {}
    with serving(handler, ssl=tls.server if secure else None) as server:
        uri = uri_of(server, scheme="wss" if secure else "ws")
        with connect(uri, proxy=None, compression=None, **options) as ws:
            thread = Thread(receive, ws)
            for message in messages:
                ws.send(message)
            assert thread.result() == total
    assert found == [total]


# -- streaming -------------------------------------------------------------------------


def test_streaming() -> None:
    go_on = threading.Event()

    def script(peer: Any, head: bytes) -> None:
        peer.send(TEXT, b"a\xc3", fin=False)
        assert go_on.wait(PATIENCE)
        peer.send(PING, b"between")
        peer.send(0, b"\xa9b", fin=False)
        peer.send(0, b"")
        peer.send(BINARY, b"whole")
        assert peer.frame() == (PONG, b"between")
        assert peer.frame()[0] == CLOSE
        peer.send(CLOSE, b"\x03\xe8")

    with raw_server(script) as uri, connect(uri, proxy=None) as ws:
        stream = ws.recv_streaming()
        assert next(stream) == "a"
        go_on.set()
        assert "".join(stream) == "éb"
        assert list(ws.recv_streaming()) == [b"whole"]


def test_streaming_left_in_the_middle() -> None:
    with pair() as (client, server):
        server.send(["a", "b", "c"])
        stream = client.recv_streaming()
        next(stream)
        with pytest.raises(ConcurrencyError):
            client.recv()
        assert "".join(stream) == "bc"
        server.send("x")
        assert client.recv() == "x"


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_nothing_comes_between_fragments(eager: None) -> None:
    begin = threading.Barrier(3)
    # Large ones, so that threads wait for each other, and for the peer.
    messages = [[f"{n} {m} {'x' * 30_000}" for m in range(150)] for n in range(3)]

    def send(ws: Any, number: int) -> None:
        begin.wait(PATIENCE)
        rest = messages[number][::-1]
        while rest:
            message = rest[-1]
            try:
                if number:
                    ws.send([message[:5], message[5:9000], message[9000:]])
                else:
                    broadcast([ws], message, raise_exceptions=True)
            except* ConcurrencyError:
                time.sleep(0)  # another one has its turn
            else:
                rest.pop()

    with pair(compression=None) as (client, server):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        receiving = Thread(list, server)
        sending = [Thread(send, client, number) for number in range(3)]
        for thread in sending:
            thread.result()
        client.close()
        received = receiving.result()
    for number in range(3):
        mine = [text for text in received if text.startswith(f"{number} ")]
        assert mine == messages[number]


# -- pings and keepalive ---------------------------------------------------------------


def test_ping_without_anybody_receiving() -> None:
    with pair() as (client, server):
        assert client.latency == 0
        waiter = client.ping(b"data")
        with pytest.raises(ConcurrencyError, match="same data"):
            client.ping(b"data")
        assert waiter.wait(PATIENCE)
        assert 0 < client.latency < PATIENCE
        client.pong(b"unasked")
        server.send("x")
        assert client.recv() == "x"


def test_pings_are_answered_while_idle_and_while_receiving() -> None:
    with serving(lambda ws: time.sleep(0) or list(ws)) as server:
        with raw_client(server) as peer:
            for number in range(20):
                peer.send(PING, b"%d" % number)
                assert peer.frame() == (PONG, b"%d" % number)
    held = threading.Event()
    with serving(lambda ws: held.wait(PATIENCE)) as server:
        with raw_client(server) as peer:
            for number in range(5):
                peer.send(PING, b"%d" % number)
                assert peer.frame() == (PONG, b"%d" % number)
            held.set()


def test_ack_on_close() -> None:
    def script(peer: Any, head: bytes) -> None:
        while peer.frame()[0] != CLOSE:
            pass
        peer.send(CLOSE, b"\x03\xe8")

    with raw_server(script) as uri, connect(uri, proxy=None) as ws:
        first, second = ws.ping(), ws.ping(ack_on_close=True)
        ws.close()
        assert second.is_set()
        assert not first.is_set()


@pytest.mark.parametrize("receives", [False, True])
def test_keepalive_measures_and_fails(receives: bool) -> None:
    silent = threading.Event()

    def script(peer: Any, head: bytes) -> None:
        opcode, payload = peer.frame()
        assert opcode == PING
        peer.send(PONG, payload)
        assert peer.frame()[0] == PING  # and no pong
        opcode, payload = peer.frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xf3")
        silent.set()

    with raw_server(script) as uri:
        with connect(uri, proxy=None, ping_interval=0.05, ping_timeout=0.2) as ws:
            if not receives:
                assert silent.wait(PATIENCE)
            with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
                ws.recv()
            assert ws.latency > 0


def test_keepalive_of_a_pair_that_only_waits() -> None:
    options = {"ping_interval": 0.02, "ping_timeout": PATIENCE}
    with pair(options, **options) as (client, server):
        for end in (client, server):
            while not end.latency:
                time.sleep(0.005)
        client.send("x")
        assert server.recv() == "x"


# -- limits ----------------------------------------------------------------------------


def test_max_size() -> None:
    with pair({"max_size": 1000}) as (client, server):
        client.send(b"x" * 1000)
        assert len(server.recv()) == 1000
        client.send(b"x" * 1001)
        with pytest.raises(ConnectionClosedError):
            server.recv()
        with pytest.raises(ConnectionClosedError):
            client.recv()
        assert client.close_code == 1009


def test_bad_frames_after_good_ones() -> None:
    failures: list[Any] = []

    def handler(ws: Any) -> None:
        try:
            while True:
                failures.append(ws.recv())
        except ConnectionClosed as exc:
            failures.append(exc)

    with serving(handler) as server, raw_client(server) as peer:
        peer.sock.sendall(frame(TEXT, b"good", mask=b"abcd") + frame(TEXT, b"bare"))
        opcode, payload = peer.frame()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xea")
        assert peer.rest() == b""
    assert failures[0] == "good"
    assert isinstance(failures[1], ConnectionClosedError)


def test_not_utf8_when_text_was_asked_for() -> None:
    with pair() as (client, server):
        client.send(b"ab\xff")
        with pytest.raises(ConnectionClosedError) as caught:
            server.recv(decode=True)
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        with pytest.raises(ConnectionClosedError):
            client.recv()
        assert client.close_code == 1007


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_a_peer_is_paused_while_nobody_receives(tls: TLS, secure: bool) -> None:
    """What is not received piles up at the sender, up to its socket's buffers."""
    go_on, sent = threading.Event(), threading.Event()
    sizes: list[int] = []
    progress = [0]

    def handler(ws: Any) -> None:
        assert go_on.wait(PATIENCE)
        sizes.append(len(ws._queue))
        for message in ws:
            assert len(message) == 100_000

    options: dict[str, Any] = {"ssl": tls.client} if secure else {}
    context = tls.server if secure else None
    with serving(handler, ssl=context, max_queue=4, compression=None) as server:
        uri = uri_of(server, scheme="wss" if secure else "ws")
        with connect(uri, proxy=None, compression=None, **options) as ws:

            def send() -> None:
                for _ in range(300):
                    ws.send(bytes(100_000))
                    progress[0] += 1
                sent.set()

            thread = Thread(send)
            seen = -1
            while progress[0] != seen or not progress[0]:
                seen = progress[0]
                sent.wait(0.3)
            assert not sent.is_set()
            go_on.set()
            thread.result()
    assert sizes[0] <= 5


def test_close_while_the_queue_is_full() -> None:
    """A program that has stopped to receive can still close in good order."""
    with pair({"max_queue": 2}, compression=None) as (client, server):
        for _ in range(50):
            client.send(b"x" * 1000)
        thread = Thread(server.close)
        thread.result()
        assert client.wait_closed(PATIENCE)
        assert client.close_code == server.close_code == 1000


@pytest.mark.parametrize("count", [1, 2, 20])
def test_close_frame_behind_messages_that_are_dropped(count: int) -> None:
    answer = frame(TEXT, b"x" * 10) * count + frame(PING, b"asked")
    answer += frame(CLOSE, b"\x0f\xa1bye")

    def script(peer: Any, head: bytes) -> None:
        assert peer.frame()[0] == CLOSE
        peer.sock.sendall(answer)
        assert peer.frame() == (PONG, b"asked")

    with raw_server(script) as uri, connect(uri, proxy=None, max_queue=1) as ws:
        ws.close()
        assert (ws.close_code, ws.close_reason) == (4001, "bye")
        # As many were kept as the queue takes.
        assert ws.recv() == "x" * 10
        with pytest.raises(ConnectionClosedError, match="4001"):
            ws.recv()


def test_close_timeout() -> None:
    done = threading.Event()

    def script(peer: Any, head: bytes) -> None:
        assert done.wait(PATIENCE)

    with raw_server(script) as uri:
        ws = connect(uri, proxy=None, close_timeout=0.1)
        ws.close()
        assert ws.state is State.CLOSED
        assert ws.close_code == 1006
        with pytest.raises(ConnectionClosedError) as caught:
            ws.recv()
        assert isinstance(caught.value.__cause__, TimeoutError)
        done.set()


def test_close_behind_a_send_that_is_stuck() -> None:
    done = threading.Event()

    def script(peer: Any, head: bytes) -> None:
        assert done.wait(PATIENCE)

    with raw_server(script) as uri:
        ws = connect(uri, proxy=None, close_timeout=0.2, compression=None)
        thread = Thread(ws.send, bytes(50_000_000))
        while not ws._sending.locked():
            time.sleep(0.001)
        ws.close()
        with pytest.raises(ConnectionClosedError):
            thread.result()
        done.set()


def test_the_peer_vanishes() -> None:
    with raw_server(lambda peer, head: None) as uri:
        with connect(uri, proxy=None) as ws:
            with pytest.raises(ConnectionClosedError, match="no close frame"):
                ws.recv()
            assert ws.close_code == 1006


def test_idle_connections_see_the_close() -> None:
    """Also when no thread of the program is in a call."""
    with serving(lambda ws: None) as server:
        ws = connect(uri_of(server), proxy=None)
        while ws.state is not State.CLOSED:
            time.sleep(0.005)
        assert ws.close_code == 1000
        assert ws.fileno() == -1


def test_broadcast() -> None:
    with pair() as (one, a), pair(compression=None) as (two, b):
        broadcast([a, b], "hello")
        broadcast([a, b], b"bytes")
        for end in (one, two):
            assert [end.recv(), end.recv()] == ["hello", b"bytes"]
        with pytest.raises(TypeError):
            broadcast([a], ["x"])


def test_what_a_connection_tells() -> None:
    with pair({"subprotocols": ["a"]}, subprotocols=["b", "a"]) as (client, server):
        assert client.subprotocol == server.subprotocol == "a"
        assert client.local_address == server.remote_address
        assert client.remote_address == server.local_address
        assert client.request.path == server.request.path == "/"
        assert client.response.status_code == server.response.status_code == 101
        assert client.id != server.id
        assert client.close_code is client.close_reason is None
        assert client.state is State.OPEN
        address = client.local_address
    assert client.local_address == address
