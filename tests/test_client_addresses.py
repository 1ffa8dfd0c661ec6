"""Where the asyncio client connects to: names, addresses, sockets, Unix sockets."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from scripted import LOOPBACK, TLS, Peer, Run, echo, loop_fixture, scripted, tls_fixture

from websock.asyncio.client import connect, unix_connect
from websock.asyncio.sockets import _interleave, connect_tcp

run = loop_fixture()
tls = tls_fixture()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect directly, whatever the environment says."""
    monkeypatch.setenv("no_proxy", "*")


# -- where to connect to -------------------------------------------------------------


def test_host_and_port(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            async with connect(
                "ws://example.com/", host=LOOPBACK, port=server.port
            ) as ws:
                assert ws.remote_address == (LOOPBACK, server.port)
            assert server.peers[0].all("Host") == ["example.com"]

    run(main())


def test_local_addr(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            async with connect(server.uri, local_addr=("127.0.0.2", 0)) as ws:
                assert ws.local_address[0] == "127.0.0.2"

    run(main())


def test_no_delay(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            async with connect(server.uri) as ws:
                sock = ws.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


def test_socket_of_the_caller(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server:
            sock = socket.create_connection((LOOPBACK, server.port))  # it blocks
            async with connect("ws://example.com/", sock=sock) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                assert ws.remote_address == (LOOPBACK, server.port)
            assert sock.fileno() == -1
            with pytest.raises(ValueError, match="sock is closed"):
                await connect("ws://example.com/", sock=sock)

    run(main())


def test_socket_that_is_not_connected(run: Run) -> None:
    async def main() -> None:
        sock = socket.socket()
        with pytest.raises(OSError, match="not connected"):
            await connect("ws://example.com/", sock=sock)
        assert sock.fileno() == -1

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
@pytest.mark.parametrize("secure", [False, True])
def test_unix(run: Run, tls: TLS, tmp_path: Path, secure: bool) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        options: dict[str, Any] = {"ssl": tls.client} if secure else {}
        server_tls = tls.server if secure else None
        async with scripted(echo, tls=server_tls, path=str(path)) as server:
            async with unix_connect(path, compression=None, **options) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            assert server.peers[0].all("Host") == ["localhost"]
            uri = f"{'wss' if secure else 'ws'}://localhost/chat"
            async with unix_connect(str(path), uri, **options):
                pass
            assert server.peers[1].line == "GET /chat HTTP/1.1"
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            async with unix_connect(sock=sock, compression=None, **options) as ws:
                await ws.send("again")
                assert await ws.recv() == "again"
        with pytest.raises(FileNotFoundError):
            await unix_connect(tmp_path / "nothing")

    run(main())


# -- addresses -----------------------------------------------------------------------


class Names:
    """A loop that resolves names its own way, and connects when it is told to."""

    def __init__(self, addresses: list[tuple[Any, ...]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.addresses = addresses
        self.silent: set[str] = set()
        self.together: set[str] = set()
        self.tried: list[str] = []
        self.sockets: list[socket.socket] = []
        self.all_tried = asyncio.Event()

    def create_task(self, coroutine: Any) -> Any:
        return self.loop.create_task(coroutine)

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> Any:
        if host == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in self.addresses
        ]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.tried.append(address[0])
        self.sockets.append(sock)
        if len(self.tried) == len(self.addresses):
            self.all_tried.set()
        if address[0] in self.silent:
            await asyncio.Event().wait()
        if address[0] == "broken":
            raise RuntimeError("mine")
        if address[0] in self.together:
            await self.all_tried.wait()
            return
        await self.loop.sock_connect(sock, address)


async def closed_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_refused(run: Run) -> None:
    async def main() -> None:
        port = await closed_port()
        with pytest.raises(ConnectionRefusedError, match=LOOPBACK):
            await connect(f"ws://{LOOPBACK}:{port}/")

    run(main())


def test_second_address(run: Run) -> None:
    async def main() -> None:
        async with scripted(Peer.ended) as server:
            port = await closed_port()
            loop: Any = Names([(LOOPBACK, port), (LOOPBACK, server.port)])
            sock, address = await connect_tcp(loop, "name", 1)
            assert address == (LOOPBACK, server.port)
            assert sock.getblocking() is False
            sock.close()

    run(main())


@pytest.mark.parametrize("delay", [None, 0])
def test_all_addresses_fail(run: Run, delay: float | None) -> None:
    async def main() -> None:
        ports = [await closed_port(), await closed_port()]
        loop: Any = Names([(LOOPBACK, port) for port in ports])
        with pytest.raises(ConnectionRefusedError) as caught:
            await connect_tcp(loop, "name", 1, happy_eyeballs_delay=delay)
        assert "cannot connect to name, 2 attempts failed" in str(caught.value)
        assert all(str(port) in str(caught.value) for port in ports)
        with pytest.raises(ExceptionGroup) as group:
            await connect_tcp(
                loop, "name", 1, happy_eyeballs_delay=delay, all_errors=True
            )
        assert [type(e) for e in group.value.exceptions] == [ConnectionRefusedError] * 2
        assert all(sock.fileno() == -1 for sock in loop.sockets)

    run(main())


def test_different_errors_become_one(run: Run) -> None:
    async def main() -> None:
        loop: Any = Names([(LOOPBACK, await closed_port()), ("255.255.255.255", 1)])
        with pytest.raises(OSError, match=r"2 attempts failed: .*Errno.*Errno"):
            await connect_tcp(loop, "name", 1)

    run(main())


def test_silent_address(run: Run) -> None:
    async def main() -> None:
        async with scripted(Peer.ended) as server:
            port = await closed_port()
            loop: Any = Names(
                [("127.0.0.3", port), ("127.0.0.2", port), (LOOPBACK, server.port)]
            )
            loop.silent = {"127.0.0.3"}
            sock, address = await connect_tcp(loop, "name", 1, happy_eyeballs_delay=0)
            assert address == (LOOPBACK, server.port)
            assert loop.tried == ["127.0.0.3", "127.0.0.2", LOOPBACK]
            assert [s.fileno() == -1 for s in loop.sockets] == [True, True, False]
            sock.close()

    run(main())


def test_two_addresses_at_once(run: Run) -> None:
    async def main() -> None:
        loop: Any = Names([("127.0.0.2", 1), ("127.0.0.3", 1)])
        loop.together = {"127.0.0.2", "127.0.0.3"}
        sock, _ = await connect_tcp(loop, "name", 1, happy_eyeballs_delay=0)
        await asyncio.sleep(0)
        sock.close()
        assert all(sock.fileno() == -1 for sock in loop.sockets)

    run(main())


def test_race_fails_unexpectedly(run: Run) -> None:
    async def main() -> None:
        loop: Any = Names([("127.0.0.2", 1), ("broken", 1)])
        loop.silent = {"127.0.0.2"}
        with pytest.raises(RuntimeError, match="mine"):
            await connect_tcp(loop, "name", 1, happy_eyeballs_delay=0)
        assert all(sock.fileno() == -1 for sock in loop.sockets)

    run(main())


@pytest.mark.parametrize(
    ("first", "order"), [(1, "a x b y c"), (2, "a b x c y"), (9, "a b c x y")]
)
def test_interleave(first: int, order: str) -> None:
    kind, v4, v6 = socket.SOCK_STREAM, socket.AF_INET, socket.AF_INET6
    infos: Any = [(v6, kind, 6, "", name) for name in "abc"]
    infos += [(v4, kind, 6, "", name) for name in "xy"]
    assert " ".join(info[4] for info in _interleave(infos, first)) == order


def test_race_is_cancelled(run: Run) -> None:
    async def main() -> None:
        loop: Any = Names([("127.0.0.2", 1), ("127.0.0.3", 1)])
        loop.silent = {"127.0.0.2", "127.0.0.3"}
        task = asyncio.create_task(connect_tcp(loop, "name", 1, happy_eyeballs_delay=0))
        await loop.all_tried.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(sock.fileno() == -1 for sock in loop.sockets)

    run(main())


def test_names(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror, match="host name cannot be resolved: aaa"):
            await connect("ws://" + "a" * 64 + "/")
        loop: Any = Names([])
        with pytest.raises(socket.gaierror, match="no such name: unknown"):
            await connect_tcp(loop, "unknown", 1)
        with pytest.raises(OSError, match="host has no address: name"):
            await connect_tcp(loop, "name", 1)

    run(main())


def test_local_address_that_is_not_here(run: Run) -> None:
    async def main() -> None:
        port = await closed_port()
        with pytest.raises(OSError, match=r"cannot bind to .'192\.0\.2\.1', 0"):
            await connect(f"ws://{LOOPBACK}:{port}/", local_addr=("192.0.2.1", 0))
        with pytest.raises(OSError, match="not of family AF_INET"):
            await connect(f"ws://{LOOPBACK}:{port}/", local_addr=("::1", 0))

    run(main())
