"""Floods of connections: how many at once, in all and from one address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from attack import LOOPBACK, Raw, echo, sync_echo
from helpers import request
from scripted import TLS, Run, loop_fixture, tls_fixture

import websock
from websock.admission import Admission, key_of
from websock.asyncio.server import serve, unix_serve
from websock.events import WebSocketServer
from websock.exceptions import InvalidStatus
from websock.sync.server import serve as sync_serve
from websock.sync.server import unix_serve as sync_unix_serve

run = loop_fixture()
tls = tls_fixture()

LIMITS = {"max_connections": 3, "max_connections_per_address": 2}


def raw(address: Any) -> Raw:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family)
    sock.connect(address)
    return Raw(sock, True)


def opened(address: Any) -> Raw:
    peer = raw(address)
    peer.send(request())
    assert peer.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    return peer


def refused(address: Any, data: bytes = b"") -> None:
    """See the answer to who finds no room; it comes without a request too."""
    peer = raw(address)
    if data:
        peer.send(data)
    head = peer.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 10\r\n" in head
    assert b"\r\nConnection: close\r\n" in head
    assert peer.until(b"\n") == b"Too many connections.\n"
    assert peer.gone() in ("FIN", "RST")
    peer.sock.close()


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def sync_serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()


# -- how it is counted -----------------------------------------------------------------


def test_counting() -> None:
    admission = Admission(2, None, logging.getLogger("websock.server"), True)
    first, second = admission.enter(("1.2.3.4", 1)), admission.enter(None)
    assert first is not None and second is not None
    assert admission.enter(("1.2.3.4", 2)) is None
    assert admission.refused == 1
    first.give_back()
    first.give_back()
    assert admission.enter("") is not None
    assert admission.enter("") is None


def test_counting_by_address() -> None:
    admission = Admission(None, 1, logging.getLogger("websock.server"), True)
    first = admission.enter(("2001:db8:1:2::1", 1, 0, 0))
    assert first is not None
    assert (
        admission.enter(("2001:db8:1:2:ffff::9", 1, 0, 0)) is None
    )  # the same network
    assert admission.enter(("2001:db8:1:3::1", 1, 0, 0)) is not None
    assert admission.enter(("192.0.2.1", 1)) is not None
    assert admission.enter(("::ffff:192.0.2.1", 1, 0, 0)) is None
    for _ in range(3):
        assert admission.enter("") is not None  # a Unix socket
    first.give_back()
    assert admission.enter(("2001:db8:1:2::2", 1, 0, 0)) is not None
    assert len(admission._counts) == 3


def test_keys() -> None:
    assert key_of(("127.0.0.1", 80)) == "127.0.0.1"
    assert key_of(("fe80::1%eth0", 80, 0, 2)) == key_of(("fe80::2", 80, 0, 2))
    assert key_of(("fe80::1%eth0", 80, 0, 2)) == b"\xfe\x80" + bytes(6)
    assert key_of(("no: address", 80)) == "no: address"
    assert key_of("") is key_of(None) is key_of(b"\0path") is key_of(()) is None


@pytest.mark.parametrize("name", LIMITS)
def test_wrong_limits(name: str) -> None:
    async def handler(ws: Any) -> None:
        pass

    for function in (serve, sync_serve):
        with pytest.raises(ValueError, match=f"{name} must be at least 1: 0"):
            function(handler, LOOPBACK, 0, **{name: 0})  # type: ignore[operator]
        with pytest.raises(TypeError, match=f"{name} must be an int or None, not str"):
            function(handler, LOOPBACK, 0, **{name: "1"})  # type: ignore[operator]


# -- servers ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limit"), [*LIMITS.items()])
def test_limits(
    run: Run, name: str, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At the limit, above it, and when there is room again; those half open count."""

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, **{name: limit}) as server:
            address = server.sockets[0].getsockname()
            peers = [await asyncio.to_thread(opened, address) for _ in range(limit - 1)]
            peers.append(await asyncio.to_thread(raw, address))  # has no request yet
            await until(lambda: len(server.all_connections) == limit)
            for data in (b"", request(), request()):
                await asyncio.to_thread(refused, address, data)
            assert len(server.all_connections) == limit
            with pytest.raises(InvalidStatus) as caught:
                await websock.connect(f"ws://{LOOPBACK}:{address[1]}/", proxy=None)
            assert caught.value.response.headers["Retry-After"] == "10"
            for peer in peers:
                if peer is not peers[-1]:
                    await asyncio.to_thread(peer.echoed)
            stats = server.stats()
            assert (stats.connections, stats.connections_refused) == (limit - 1, 4)
            assert "websock_connections_refused_total 4\n" in websock.stats.prometheus(
                stats
            )
            for peer in peers[1:]:
                peer.reset()
            await until(lambda: len(server.all_connections) == 1)
            again = await asyncio.to_thread(opened, address)
            again.sock.close()
            peers[0].sock.close()

    run(main())
    lines = [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]
    assert lines == [f"refused 1 connections: limit {name}={limit}"]  # and no more


def test_no_limits(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            assert server.admission is None
            assert server.stats().connections_refused == 0

    run(main())


def test_unix_sockets(run: Run, tmp_path: Any) -> None:
    """All are counted; they have no addresses to be counted by."""
    path = str(tmp_path / "socket")

    async def main() -> None:
        async with unix_serve(echo, path, **LIMITS):
            peers = [await asyncio.to_thread(opened, path) for _ in range(3)]
            await asyncio.to_thread(refused, path)
            for peer in peers:
                peer.sock.close()

    run(main())


@contextlib.asynccontextmanager
async def tls_serving(tls: TLS, **options: Any) -> AsyncIterator[Any]:
    async with serve(echo, LOOPBACK, 0, ssl=tls.server, **options) as server:
        yield server


@pytest.mark.parametrize("fast", [False, True], ids=["loop", "aiofastnet"])
def test_tls(run: Run, tls: TLS, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes of TLS count; who finds no room gets none."""
    if not fast:
        monkeypatch.setattr("websock.asyncio.tls.aiofastnet", None)
    else:
        pytest.importorskip("aiofastnet")

    async def main() -> None:
        async with tls_serving(tls, max_connections=2) as server:
            address = server.sockets[0].getsockname()
            uri = f"wss://{LOOPBACK}:{address[1]}/"
            silent = await asyncio.to_thread(raw, address)  # says no hello
            async with websock.connect(uri, ssl=tls.client, proxy=None) as ws:
                await ws.send("one")
                assert await ws.recv() == "one"
                third = await asyncio.to_thread(raw, address)
                assert await asyncio.to_thread(third.gone) == "FIN"
                third.sock.close()
                assert server.stats().connections_refused == 1
                with pytest.raises((OSError, websock.InvalidHandshake)):
                    await websock.connect(uri, ssl=tls.client, proxy=None)
                silent.reset()
                await until(lambda: server.admission._count == 1)
                async with websock.connect(uri, ssl=tls.client, proxy=None) as other:
                    await other.send("two")
                    assert await other.recv() == "two"
            await until(lambda: server.admission._count == 0)
            # Some say something else than TLS, and some are there at the end.
            for data in (b"GET / HTTP/1.1\r\n\r\n", b""):
                peer = await asyncio.to_thread(raw, address)
                peer.send(data)
                if data:
                    await asyncio.to_thread(peer.gone)
                    await until(lambda: server.admission._count == 0)
                else:
                    await until(lambda: server.admission._count == 1)
                    last = peer
                if data:
                    peer.sock.close()
        assert await asyncio.to_thread(last.gone) in ("FIN", "RST")
        last.sock.close()

    run(main())


def test_tls_handshakes_are_timed(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with tls_serving(tls, max_connections=1, open_timeout=0.2) as server:
            address = server.sockets[0].getsockname()
            silent = await asyncio.to_thread(raw, address)
            assert await asyncio.to_thread(silent.gone) in ("FIN", "RST")
            silent.sock.close()
            await until(lambda: server.admission._count == 0)
            assert not server.handler_tasks

    run(main())


def test_connections_that_somebody_else_accepts(run: Run) -> None:
    """An HTTP server that hands requests over: they are answered like any."""

    async def main() -> None:
        events = WebSocketServer(auto_accept=True, max_connections=1)

        async def handle(reader: Any, writer: Any) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            await events.handle_upgrade(reader, writer, head)

        listening = await asyncio.start_server(handle, LOOPBACK, 0)
        async with listening:
            address = listening.sockets[0].getsockname()
            first = await asyncio.to_thread(opened, address)
            await asyncio.to_thread(refused, address, request())
            first.sock.close()
            await until(lambda: not events.connections)
            (await asyncio.to_thread(opened, address)).sock.close()
            await until(lambda: not events.connections)
            await events.shut_down()

    run(main())


# -- threads ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limit"), [*LIMITS.items()])
def test_limits_of_threads(
    name: str, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    with sync_serving(sync_serve(sync_echo, LOOPBACK, 0, **{name: limit})) as server:
        address = server.socket.getsockname()
        peers = [opened(address) for _ in range(limit - 1)]
        peers.append(raw(address))
        while len(server.handler_threads) < limit:
            pass
        for data in (b"", request()):
            refused(address, data)
        for peer in peers[:-1]:
            peer.echoed()
        assert server.connections_refused == 2
        peers.pop().reset()
        while len(server.handler_threads) == limit:
            pass
        peers.append(opened(address))
        for peer in peers:
            peer.sock.close()
    lines = [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]
    assert lines == [f"refused 1 connections: limit {name}={limit}"]
    assert server.admission._count == 0


def test_unix_sockets_of_threads(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    with sync_serving(sync_unix_serve(sync_echo, path, **LIMITS)) as server:
        peers = [opened(path) for _ in range(3)]
        refused(path)
        for peer in peers:
            peer.sock.close()
    assert server.connections_refused == 1


def test_tls_of_threads(tls: TLS) -> None:
    options = {"ssl": tls.server, "max_connections": 1}
    with sync_serving(sync_serve(sync_echo, LOOPBACK, 0, **options)) as server:
        address = server.socket.getsockname()
        silent = raw(address)
        while not server.handler_threads:
            pass
        second = raw(address)
        assert second.gone() == "FIN"
        second.sock.close()
        silent.reset()
        while server.handler_threads:
            pass
        with raw(address).sock as sock:
            secure = tls.client.wrap_socket(sock, server_hostname=LOOPBACK)
            secure.sendall(request())
            assert secure.recv(12) == b"HTTP/1.1 101"
            with contextlib.suppress(ssl.SSLError, OSError):
                secure.close()
