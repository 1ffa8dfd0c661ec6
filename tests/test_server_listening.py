"""Where a server listens, what serve() takes and refuses, and accepting."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import socket
import ssl
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import request
from raw import TEXT, raw
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture
from wire import MASK, frame

import websock
import websock.asyncio.listening
from websock.asyncio.server import ServerConnection, serve, unix_serve
from websock.listener import Listener

run = loop_fixture()
tls = tls_fixture()

unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets"
)


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


class Echo(Listener):
    def on_message(self, ws: Any, message: Any) -> None:
        ws.send_nowait(message)


async def check(address: Any, **kwargs: Any) -> None:
    async with raw(address, **kwargs) as client:
        await client.open()
        await client.echoed("x")


# -- addresses -----------------------------------------------------------------------


def test_several_hosts(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, (h for h in (LOOPBACK, "127.0.0.2")), 0) as server:  # type: ignore[arg-type]
            hosts = [sock.getsockname()[0] for sock in server.sockets]
            assert hosts == [LOOPBACK, "127.0.0.2"]
            for sock in server.sockets:
                await check(sock.getsockname())

    if sys.platform == "darwin":
        pytest.skip("there is one loopback address")
    run(main())


@pytest.mark.parametrize("host", [None, ""])
def test_all_addresses(run: Run, host: str | None) -> None:
    async def main() -> None:
        async with serve(echo, host, 0) as server:
            by_family = {sock.family: sock for sock in server.sockets}
            port = by_family[socket.AF_INET].getsockname()[1]
            await check((LOOPBACK, port))
            if socket.AF_INET6 in by_family:
                await check(("::1", by_family[socket.AF_INET6].getsockname()[1]))

    run(main())


def test_family(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, None, 0, family=socket.AF_INET) as server:
            assert [sock.family for sock in server.sockets] == [socket.AF_INET]

    run(main())


def test_port_without_host_and_host_without_port(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK) as server:
            assert server.sockets[0].getsockname()[1] > 0
            await check(server)

    run(main())


def ipv6_is_missing() -> str:
    """Return why, if it is."""
    if not socket.has_ipv6:
        return "Python was built without IPv6"
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError as exc:
            return f"cannot bind ::1: {exc.strerror}"
    return ""


def test_ipv6(run: Run) -> None:
    if reason := ipv6_is_missing():
        pytest.skip(reason)

    async def main() -> None:
        async with serve(echo, "::1", 0) as server:
            await check(server)
            host, port = server.sockets[0].getsockname()[:2]
            async with websock.connect(f"ws://[{host}]:{port}/", proxy=None) as ws:
                (connection,) = server.connections
                assert connection.remote_address == ws.local_address
                assert len(connection.remote_address) == 4

    run(main())


def test_address_in_use(run: Run) -> None:
    """Nothing is left open when one of several addresses cannot be had."""

    async def main() -> None:
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            text = f"cannot listen on {LOOPBACK}:{port}: Address already in use"
            for hosts in (LOOPBACK, ["127.0.0.2", LOOPBACK]):
                with pytest.raises(OSError, match=re.escape(text)) as caught:
                    await serve(echo, hosts, port)
                assert caught.value.errno == errno.EADDRINUSE
            with socket.create_server(("127.0.0.2", port)):
                pass  # the first of them is free again

    if sys.platform != "linux":
        pytest.skip("127.0.0.2 and the text are Linux's")
    run(main())


@pytest.mark.parametrize("host", ["192.0.2.1", "host.invalid"])
def test_address_of_somebody_else(run: Run, host: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError) as caught:
            await serve(echo, host, 0)
        if not isinstance(caught.value, socket.gaierror):
            assert "no address to listen on for '192.0.2.1'" in str(caught.value)

    run(main())


def test_reuse_port(run: Run) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("this system has no SO_REUSEPORT")

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, reuse_port=True) as one:
            port = one.sockets[0].getsockname()[1]
            async with serve(echo, LOOPBACK, port, reuse_port=True) as two:
                assert two.sockets[0].getsockname()[1] == port
                await check(two)
            with pytest.raises(OSError):
                await serve(echo, LOOPBACK, port)

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_keep_alive(run: Run, tls: TLS, secure: bool) -> None:
    options: dict[str, Any] = {"ssl": tls.server} if secure else {}
    client: dict[str, Any] = {"ssl": tls.client, "server_hostname": LOOPBACK}

    async def main() -> None:
        for keep_alive in (True, False):
            async with (
                serve(echo, LOOPBACK, 0, keep_alive=keep_alive, **options) as server,
                raw(server, **(client if secure else {})) as there,
            ):
                await there.open()
                (connection,) = server.connections
                sock = connection.transport.get_extra_info("socket")
                value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert bool(value) is keep_alive
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_own_socket(run: Run, tls: TLS, secure: bool) -> None:
    options: dict[str, Any] = {"ssl": tls.server} if secure else {}
    client: dict[str, Any] = {"ssl": tls.client, "server_hostname": LOOPBACK}

    async def main() -> None:
        sock = socket.create_server((LOOPBACK, 0))
        address = sock.getsockname()
        async with serve(echo, sock=sock, **options) as server:
            assert [s.getsockname() for s in server.sockets] == [address]
            await check(address, **(client if secure else {}))
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)

    run(main())
    # The loop closes it too, but not always at once.


def test_start_serving_later(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, start_serving=False) as server:
            address = server.sockets[0].getsockname()
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            await check(address)

    run(main())


# -- Unix sockets --------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A short path: they are limited to about 100 characters."""
    monkeypatch.chdir(tmp_path)
    return "socket"


@unix
@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
@pytest.mark.parametrize("secure", [False, True])
def test_unix_socket(
    run: Run, path: str, kind: Callable[[str], Any], tls: TLS, secure: bool
) -> None:
    options: dict[str, Any] = {"ssl": tls.server} if secure else {}
    client: dict[str, Any] = {"ssl": tls.client, "server_hostname": LOOPBACK}

    async def main() -> None:
        # What a server that was killed leaves behind.
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        async with unix_serve(echo, kind(path), **options) as server:
            async with raw(path, **(client if secure else {})) as there:
                await there.open()
                await there.echoed("x")
                (connection,) = server.connections
                assert not connection.remote_address
                assert os.fsdecode(connection.local_address) == path
        assert not Path(path).exists()  # noqa: ASYNC240

    run(main())


@unix
def test_unix_socket_is_taken_over(run: Run, path: str) -> None:
    """A server does not remove the file of another one."""

    async def main() -> None:
        async with unix_serve(echo, path):
            other = await unix_serve(echo, path)
        await check(path)
        other.close()
        await other.wait_closed()
        assert not Path(path).exists()  # noqa: ASYNC240

    run(main())


@unix
def test_unix_socket_does_not_remove_other_files(run: Run, path: str) -> None:
    async def main() -> None:
        Path(path).write_text("important")  # noqa: ASYNC240
        with pytest.raises(OSError, match="cannot listen on 'socket': ") as caught:
            await unix_serve(echo, path)
        assert caught.value.errno == errno.EADDRINUSE
        assert Path(path).read_text() == "important"  # noqa: ASYNC240
        with pytest.raises(OSError, match="cannot listen on 'no/socket': ") as caught:
            await unix_serve(echo, "no/socket")
        assert caught.value.errno == errno.ENOENT

    run(main())


@unix
def test_unix_socket_without_a_file(run: Run) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has abstract names")

    async def main() -> None:
        name = f"\0websock-{os.getpid()}"
        async with unix_serve(echo, name):
            # uvloop cannot connect to such a name by itself.
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(name)
            sock.setblocking(False)
            await check(None, sock=sock)

    run(main())


@unix
def test_own_unix_socket(run: Run, path: str) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        async with unix_serve(echo, sock=sock):
            await check(path)
        # It was not made here, so it is not removed here.
        assert stat.S_ISSOCK(os.stat(path).st_mode)

    run(main())


# -- accepting -----------------------------------------------------------------------


def test_no_file_descriptor_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are served meanwhile, and accepting goes on later."""
    resource = pytest.importorskip("resource", reason="there is no setrlimit()")
    monkeypatch.setattr(websock.asyncio.listening, "ACCEPT_RETRY_DELAY", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        hosts = [LOOPBACK, "127.0.0.2"] if sys.platform == "linux" else LOOPBACK
        async with serve(echo, hosts, 0) as server, raw(server) as open_before:
            await open_before.open()
            waiting = [
                socket.create_connection(s.getsockname()) for s in server.sockets
            ]
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                while len(caplog.records) < 2 * len(waiting):
                    await open_before.echoed("x")
                    await asyncio.sleep(0.001)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            texts = {record.getMessage() for record in caplog.records}
            assert texts == {"cannot accept: Too many open files; waiting"}
            assert all(record.exc_info is None for record in caplog.records)
            for sock in waiting:
                sock.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=sock)
                writer.write(request() + frame(TEXT, b"x", mask=MASK))
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(3) == frame(TEXT, b"x")
                writer.close()

    run(main())


def test_clients_that_are_gone_before_they_are_accepted(run: Run) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            address = server.sockets[0].getsockname()
            for n in range(100):
                with socket.create_connection(address) as sock:
                    if n % 2:
                        sock.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                        )
            await check(server)
            while server.all_connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

    run(main())


def test_many_at_once(run: Run) -> None:
    """More than are accepted in one go."""

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, backlog=200) as server,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(150):
                group.create_task(check(server))

    run(main())


def test_connection_that_cannot_be_made(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    fails = True

    def make() -> Listener:
        if fails:
            raise OSError("in a factory")
        return Echo()

    async def main() -> None:
        nonlocal fails
        async with serve(make, LOOPBACK, 0) as server:
            async with raw(server) as client:
                assert await client.ended() == b""
            fails = False
            await check(server)
            assert len(server.all_connections) <= 1

    run(main())
    (record,) = caplog.records
    assert record.getMessage() == "cannot make a connection"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "in a factory"


@pytest.mark.parametrize("secure", [False, True])
def test_own_connections(run: Run, tls: TLS, secure: bool) -> None:
    """With TLS, the time that it took is part of the time for opening."""
    seconds: list[float] = []

    class Mine(ServerConnection):
        def time_opening(self, left: float) -> None:
            seconds.append(left)
            super().time_opening(left)

    def make(*args: Any, **kwargs: Any) -> Mine:
        return Mine(*args, **kwargs)

    async def main() -> None:
        for create in (Mine, make):
            options: Any = {"create_connection": create, "open_timeout": 20}
            client: Any = {}
            if secure:
                options["ssl"] = tls.server
                client = {"ssl": tls.client, "server_hostname": LOOPBACK}
            async with serve(echo, LOOPBACK, 0, **options) as server:
                async with raw(server, **client) as there:
                    await there.open()
                    (connection,) = server.connections
                    assert type(connection) is Mine

    run(main())
    assert len(seconds) == 2
    for left in seconds:
        assert (0 < left < 20) if secure else (left == 20)


def test_tls_that_does_not_begin(run: Run, tls: TLS) -> None:
    """The deadline counts for it; others are served meanwhile."""

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, ssl=tls.server, open_timeout=0.3) as server:
            async with raw(server) as silent, raw(server) as wrong:
                await wrong.send(request())  # plain HTTP to a TLS port
                await check(server, ssl=tls.client, server_hostname=LOOPBACK)
                assert await silent.ended() == b""
                assert b"HTTP" not in await wrong.ended()

    run(main())


def test_tls_with_an_idle_client(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, ssl=tls.server, open_timeout=0.3) as server:
            client = {"ssl": tls.client, "server_hostname": LOOPBACK}
            async with raw(server, **client) as silent:
                answer = await silent.answer()
                assert answer.status == 408

    run(main())


# -- what serve() is called with -----------------------------------------------------


@pytest.mark.parametrize(
    "handler",
    [
        Echo,
        Echo(),
        lambda: Echo(),
        functools.partial(Echo),
        functools.partial(lambda kind: kind(), Echo),
    ],
)
def test_ways_to_name_a_listener(run: Run, handler: Any) -> None:
    async def main() -> None:
        async with serve(handler, LOOPBACK, 0) as server:
            await check(server)
            await check(server)

    run(main())


def test_listener_for_each_connection(run: Run) -> None:
    class Counting(Listener):
        def __init__(self, first: int = 1) -> None:
            self.n = first - 1

        def on_message(self, ws: Any, message: Any) -> None:
            self.n += 1
            ws.send_nowait(str(self.n))

    async def main() -> None:
        for handler, first in ((Counting, 1), (functools.partial(Counting, 5), 5)):
            async with serve(handler, LOOPBACK, 0) as server:
                async with raw(server) as one, raw(server) as two:
                    for client in (one, two):
                        await client.open()
                    for n in (first, first + 1):
                        for client in (one, two):
                            await client.message("x")
                            assert await client.frame() == (TEXT, str(n).encode())
                    assert server.handler_tasks == set()

    run(main())


@pytest.mark.parametrize(
    ("max_size", "sizes", "text"),
    [
        (10, [11], "message is too big: 11 bytes, limit 10"),
        (10, [5, 6], "message is too big: 11 bytes, limit 10"),
        ((None, 10), [10, 10, 11], "message is too big: 11 bytes, limit 10"),
        ((25, 10), [10, 10, 6], "message is too big: 26 bytes, limit 25"),
        (None, [70_000], None),
        (0, [0], None),
    ],
)
def test_max_size(run: Run, max_size: Any, sizes: list[int], text: str | None) -> None:
    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, max_size=max_size) as server,
            raw(server) as client,
        ):
            await client.open()
            for n, size in enumerate(sizes):
                fin = n == len(sizes) - 1
                await client.send(frame(0 if n else 2, b"x" * size, mask=MASK, fin=fin))
            if text is None:
                assert await client.frame() == (2, b"x" * sum(sizes))
            else:
                code, reason = await client.closing()
                assert code == 1009
                assert reason == text

    run(main())


class Coroutine(Listener):
    async def on_message(self, ws: Any, message: Any) -> None: ...  # type: ignore[override]


class NotQuite:
    def on_message(self, ws: Any, message: Any) -> None: ...


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
BOTH = {"host": LOOPBACK, "port": 0}


@pytest.mark.parametrize(
    ("kwargs", "kind", "text"),
    [
        ({"handler": 3}, TypeError, "handler must be a coroutine function"),
        ({"handler": None}, TypeError, "not NoneType"),
        ({"handler": Coroutine}, TypeError, "Coroutine.on_message is a coroutine"),
        ({"handler": Coroutine()}, TypeError, "Coroutine.on_message is a coroutine"),
        ({"nonsense": 1}, TypeError, "unexpected keyword argument 'nonsense'"),
        ({"origins": "https://a"}, TypeError, "origins must be a list"),
        ({"origins": [1]}, TypeError, "origins must be str"),
        ({"origins": [re.compile(b"x")]}, TypeError, "origins must be str"),
        ({"subprotocols": "chat"}, TypeError, ""),
        ({"subprotocols": ["a b"]}, ValueError, ""),
        ({"subprotocols": ["a\r\nb"]}, ValueError, ""),
        ({"select_subprotocol": "chat"}, TypeError, "select_subprotocol must be"),
        ({"compression": "brotli"}, ValueError, "unsupported compression: brotli"),
        ({"process_request": 1}, TypeError, "process_request must be callable"),
        ({"process_response": 1}, TypeError, "process_response must be callable"),
        ({"create_connection": 1}, TypeError, "create_connection must be callable"),
        ({"server_header": "a\r\nb"}, ValueError, ""),
        ({"server_header": 1}, TypeError, "server_header must be a str, not int"),
        ({"open_timeout": "1"}, TypeError, "open_timeout must be a number or None"),
        ({"open_timeout": -1}, ValueError, "open_timeout must not be negative: -1"),
        ({"close_timeout": float("nan")}, ValueError, "close_timeout must not"),
        ({"ping_interval": b""}, TypeError, "ping_interval must be a number"),
        ({"ping_timeout": -0.1}, ValueError, "ping_timeout must not be negative"),
        ({"max_size": "1"}, TypeError, "max_size must be an int, a pair or None"),
        ({"max_size": 1.5}, TypeError, "max_size must be"),
        ({"max_size": -1}, ValueError, "max_size must be between 0 and 2**63-1: -1"),
        ({"max_size": 2**63}, ValueError, "max_size must be between"),
        ({"max_size": (1, 2, 3)}, ValueError, "a tuple of 3"),
        ({"max_size": (1, -2)}, ValueError, "max_size must be between"),
        ({"max_queue": (1, 2)}, ValueError, ""),
        ({"max_queue": -1}, ValueError, ""),
        ({"max_queue": "1"}, TypeError, ""),
        ({"write_limit": (1, 2)}, ValueError, ""),
        ({"write_limit": -1}, ValueError, ""),
        ({"write_limit": None}, TypeError, ""),
        ({"host": None, "port": None}, ValueError, "nothing to listen on"),
        ({"port": 65536}, ValueError, "port must be between 0 and 65535: 65536"),
        ({"port": -1}, ValueError, "port must be between 0 and 65535: -1"),
        ({"port": 1.5}, TypeError, "port must be an int, not float"),
        ({"host": b"x"}, TypeError, "host must be a str, or several, not bytes"),
        ({"host": 3}, TypeError, "host must be a str, or several, not int"),
        ({"host": ["x", 3]}, TypeError, "host must be a str, or several, not 3"),
        ({"backlog": "5"}, TypeError, "backlog must be an int, not str"),
        ({"ssl": True}, TypeError, "ssl must be an SSLContext, not bool"),
        ({"ssl": "cert.pem"}, TypeError, "ssl must be an SSLContext, not str"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is for TLS"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is for TLS"),
        ({"path": "x"}, TypeError, "path is for unix_serve()"),
        ({"sock": 1}, TypeError, "sock must be a socket, not int"),
        ({"unix": True}, ValueError, "a Unix socket has no host and no port"),
    ],
)
def test_wrong_calls(kwargs: Any, kind: type[Exception], text: str) -> None:
    """They raise at the call, without a loop."""
    arguments = {"handler": echo, **BOTH, **kwargs}
    with pytest.raises(kind, match=re.escape(text) or "."):
        serve(**arguments)


def test_wrong_sockets() -> None:
    with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="sock and host or port"):
            serve(echo, LOOPBACK, 0, sock=sock)
        with pytest.raises(ValueError, match="sock must be a stream socket"):
            serve(echo, sock=datagrams)
        with pytest.raises(ValueError, match="either path or sock"):
            unix_serve(echo, "x", sock=sock)
    with pytest.raises(ValueError, match="either path or sock"):
        unix_serve(echo)


def test_arguments_that_are_right() -> None:
    for kwargs in (
        {"open_timeout": None, "close_timeout": None, "ping_interval": None},
        {"open_timeout": 0, "ping_timeout": float("inf"), "close_timeout": 0.5},
        {"max_size": None, "max_queue": None, "write_limit": (2, 1)},
        {"max_size": (None, None), "max_queue": (4, 1)},
        {"origins": [None, "https://a", re.compile("b")], "subprotocols": ["a", "b"]},
        {"ssl": CONTEXT, "ssl_handshake_timeout": 5},
        {"port": "8765", "backlog": 1, "reuse_address": True, "family": 0, "flags": 0},
    ):
        serve(echo, **{**BOTH, **kwargs})  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [echo, NotQuite(), Coroutine(), None])
def test_factory_that_makes_no_listener(
    run: Run, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serve(lambda: made, LOOPBACK, 0) as server, raw(server) as client:
            assert await client.ended() == b""

    run(main())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)
