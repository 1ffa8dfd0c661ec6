"""Redirects that the asyncio client follows, and those that it must not follow."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest
from scripted import (
    LOOPBACK,
    TLS,
    Peer,
    Run,
    Script,
    echo,
    loop_fixture,
    refuse,
    scripted,
    tls_fixture,
)

from websock.asyncio.client import connect, unix_connect
from websock.datastructures import Headers
from websock.exceptions import InvalidStatus, InvalidURI, SecurityError
from websock.http11 import Response
from websock.redirect import find_location, is_same_origin, keep_for_others
from websock.uri import parse_uri

run = loop_fixture()
tls = tls_fixture()

SECRETS = {
    "Authorization": "Bearer token",
    "Cookie": "session=1",
    "Proxy-Authorization": "Basic xyz",
    "Host": "first.example",
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect directly, whatever the environment says."""
    monkeypatch.setenv("no_proxy", "*")


def to(location: str, status: str = "302 Found") -> Script:
    return refuse(status, f"Location: {location}")


# -- the pure part -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("ws://other/", "ws://other/"),
        ("wss://other", "wss://other"),
        ("http://other/x?y", "ws://other/x?y"),
        ("HTTPS://other/", "wss://other/"),
        ("//other/x", "ws://other/x"),
        ("/x", "ws://user:pass@host:81/x"),
        ("x?y", "ws://user:pass@host:81/a/x?y"),
        ("?y", "ws://user:pass@host:81/a/b?y"),
        ("/x#fragment", "ws://user:pass@host:81/x"),
        ("ftp://other/", "ftp://other/"),
    ],
)
def test_find_location(location: str, target: str) -> None:
    for status in (300, 301, 302, 303, 307, 308):
        response = Response(status, "", Headers(Location=location))
        found = find_location(InvalidStatus(response), "ws://user:pass@host:81/a/b")
        assert found == target


@pytest.mark.parametrize(
    "response",
    [
        Response(200, "", Headers(Location="/")),
        Response(304, "", Headers(Location="/")),
        Response(302, "", Headers()),
        Response(302, "", Headers([("Location", "/a"), ("Location", "/b")])),
    ],
)
def test_not_a_redirect(response: Response) -> None:
    assert find_location(InvalidStatus(response), "ws://host/") is None
    assert find_location(OSError(), "ws://host/") is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("ws://host/", True),
        ("ws://HOST:80/path", True),
        ("ws://user:pass@host/", True),
        ("wss://host/", False),
        ("ws://host:443/", False),
        ("ws://sub.host/", False),
    ],
)
def test_is_same_origin(other: str, same: bool) -> None:
    assert is_same_origin(parse_uri("ws://host"), parse_uri(other)) is same


def test_keep_for_others() -> None:
    kept = keep_for_others({**SECRETS, "X": "1", "cookie": "2"})
    assert kept == Headers(X="1")
    assert keep_for_others(None) is None


# -- redirects that are followed -----------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_same_origin(run: Run, status: int) -> None:
    async def main() -> None:
        async with scripted(to("/other?x#y", f"{status} Moved"), echo) as server:
            uri = server.uri.replace("ws://", "ws://user:pass@")
            headers = {"Cookie": "session=1", "X": "1"}
            async with connect(uri, additional_headers=headers, compression=None) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                assert ws.request is not None
                assert ws.request.path == "/other?x"
            first, second = server.peers
            assert second.line == "GET /other?x HTTP/1.1"
            for name in ("Authorization", "Cookie", "X", "Host"):
                assert second.all(name) == first.all(name)
            assert first.all("Sec-WebSocket-Key") != second.all("Sec-WebSocket-Key")

    run(main())


def test_absolute_to_the_same_origin_keeps_the_user(run: Run) -> None:
    async def main() -> None:
        scripts: list[Script] = []
        async with scripted(lambda peer: scripts[0](peer), echo) as server:
            scripts.append(to(f"http://{LOOPBACK}:{server.port}/x"))
            async with connect(server.uri.replace("ws://", "ws://user:pass@")):
                pass
            assert server.peers[1].all("Authorization") == ["Basic dXNlcjpwYXNz"]

    run(main())


def test_cross_origin_drops_secrets(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as second:
            async with scripted(to(second.uri)) as first:
                async with connect(
                    first.uri.replace("ws://", "ws://user:pass@"),
                    additional_headers={**SECRETS, "X": "1"},
                ):
                    pass
            for name, value in SECRETS.items():
                assert first.peers[0].all(name) == [value]
            assert second.peers[0].all("Host") == [f"{LOOPBACK}:{second.port}"]
            assert second.peers[0].all("X") == ["1"]
            for name in ("Authorization", "Cookie", "Proxy-Authorization"):
                assert second.peers[0].all(name) == []

    run(main())


def test_secrets_do_not_come_back(run: Run) -> None:
    async def main() -> None:
        scripts: list[Script] = []
        async with scripted(lambda peer: scripts[0](peer), echo) as first:
            async with scripted(to(first.uri)) as second:
                scripts.append(to(second.uri))
                connecting = connect(first.uri, additional_headers=SECRETS)
                async with connecting:
                    pass
                assert first.peers[1].all("Cookie") == []
                # But another attempt begins at the beginning.
                async with connecting:
                    pass
                assert first.peers[2].all("Cookie") == ["session=1"]

    run(main())


def test_to_tls(run: Run, tls: TLS, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with scripted(Peer.ended, tls=tls.server) as second:
            async with scripted(to(second.uri)) as first:
                with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                    await connect(first.uri)

    run(main())


def test_server_hostname_is_for_the_first_origin(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(echo, tls=tls.server) as second:
            async with scripted(to(second.uri), tls=tls.server) as first:
                uri = f"wss://{LOOPBACK}:{first.port}/"
                async with connect(uri, ssl=tls.client, server_hostname="localhost"):
                    pass
            assert len(second.peers) == 1

    run(main())


def test_reconnecting_begins_at_the_first_uri(run: Run) -> None:
    async def main() -> None:
        async with scripted(to("/x"), echo, to("/y"), echo) as server:
            connecting = connect(server.uri)
            for path in ("/x", "/y"):
                async with connecting as ws:
                    assert ws.request is not None
                    assert ws.request.path == path
            assert [peer.line.split()[1] for peer in server.peers] == [
                "/", "/x", "/", "/y",
            ]  # fmt: skip

    run(main())


def test_process_redirect_can_follow_none(run: Run) -> None:
    class Unmoved(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    async def main() -> None:
        async with scripted(to("/x")) as server:
            with pytest.raises(InvalidStatus, match="HTTP 302"):
                await Unmoved(server.uri)

    run(main())


# -- redirects that are not ----------------------------------------------------------


def test_too_many(run: Run) -> None:
    async def main() -> None:
        async with scripted(*[to("/x")] * 10, echo) as server:
            async with connect(server.uri):
                pass
        async with scripted(to("/x")) as server:
            with pytest.raises(SecurityError, match="too many redirects: more than 10"):
                await connect(server.uri)
            assert len(server.peers) == 11

    run(main())


def test_endless_chain_takes_no_longer_than_allowed(run: Run) -> None:
    async def main() -> None:
        async def silence(peer: Peer) -> None:
            await peer.ended()

        async with scripted(to("/x"), silence) as server:
            with pytest.raises(TimeoutError, match="opening handshake"):
                await connect(server.uri, open_timeout=0.1)

    run(main())


def test_from_tls_to_plain(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(to("ws://other/"), tls=tls.server) as server:
            with pytest.raises(SecurityError, match="it leads from wss to ws"):
                await connect(server.uri, ssl=tls.client)
        async with scripted(to("http://other/"), tls=tls.server) as server:
            with pytest.raises(SecurityError, match="it leads from wss to ws"):
                await connect(server.uri, ssl=tls.client)

    run(main())


@pytest.mark.parametrize("location", ["ftp://other/", "ws://:1/", "ws://x:99999/"])
def test_to_nowhere(run: Run, location: str) -> None:
    async def main() -> None:
        async with scripted(to(location)) as server:
            with pytest.raises(InvalidURI) as caught:
                await connect(server.uri)
            assert isinstance(caught.value.__context__, InvalidStatus)

    run(main())


def test_with_a_socket(run: Run) -> None:
    async def main() -> None:
        async with scripted(to("/x")) as server:
            sock = socket.create_connection((LOOPBACK, server.port))
            with pytest.raises(
                ValueError, match="socket given serves for one"
            ) as caught:
                await connect(server.uri, sock=sock)
            assert isinstance(caught.value.__cause__, InvalidStatus)

    run(main())


@pytest.mark.parametrize("name", ["host", "port"])
def test_with_host_or_port(run: Run, name: str) -> None:
    async def main() -> None:
        async with scripted(to("ws://other/"), to("/x"), echo) as server:
            uri = parse_uri(server.uri)
            options: dict[str, Any] = {name: getattr(uri, name)}
            with pytest.raises(ValueError, match=f"which the {name} given is not for"):
                await connect(server.uri, **options)
            async with connect(server.uri, **options):
                pass

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
def test_unix(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with scripted(to("ws://other/"), to("/x"), echo, path=path) as server:
            with pytest.raises(ValueError, match="which the Unix socket given is not"):
                await unix_connect(path)
            async with unix_connect(path) as ws:
                assert ws.request is not None
                assert ws.request.path == "/x"
            assert server.peers[2].line == "GET /x HTTP/1.1"

    run(main())


def test_parts_of_uris_are_compared() -> None:
    uri = parse_uri("ws://host/")
    assert is_same_origin(uri, dataclasses.replace(uri, path="/x"))
