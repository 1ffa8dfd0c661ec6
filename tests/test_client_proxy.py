"""Proxies of the asyncio client: settings, CONNECT, TLS, SOCKS. All on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import sys
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
    scripted,
    tls_fixture,
)

from websock.asyncio.client import connect
from websock.exceptions import (
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
)
from websock.http11 import USER_AGENT
from websock.proxy import Proxy, get_proxy, parse_proxy, prepare_connect_request
from websock.uri import parse_uri

run = loop_fixture()
tls = tls_fixture()

NAMES = ("http", "https", "socks", "all", "ws", "wss", "no")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)


# -- settings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy:8080", Proxy("http", "proxy", 8080)),
        ("http://PROXY/", Proxy("http", "proxy", 80)),
        ("https://proxy", Proxy("https", "proxy", 443)),
        ("socks5h://proxy:1080", Proxy("socks5h", "proxy", 1080)),
        ("socks5://proxy", Proxy("socks5", "proxy", 1080)),
        ("socks4://proxy", Proxy("socks4", "proxy", 1080)),
        ("socks4a://proxy", Proxy("socks4a", "proxy", 1080)),
        ("http://[::1]:8080", Proxy("http", "::1", 8080)),
        ("http://us%C3%A9r:p%40ss@proxy", Proxy("http", "proxy", 80, "usér", "p@ss")),
        ("http://höst", Proxy("http", "xn--hst-sna", 80)),
    ],
)
def test_parse_proxy(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


def test_user_info() -> None:
    assert Proxy("http", "proxy", 80, "user", "pass").user_info == ("user", "pass")
    assert Proxy("http", "proxy", 80).user_info is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ws://proxy", "scheme ws isn't supported, expected one of http, https"),
        ("proxy:8080", "scheme is missing, expected for example http://host:port"),
        ("http://", "hostname isn't provided"),
        ("http://:8080", "hostname isn't provided"),
        ("http://proxy/path", "path is meaningless"),
        ("http://proxy/?query", "query is meaningless"),
        ("http://proxy/#fragment", "fragment is meaningless"),
        ("http://proxy:port", "port"),
        ("http://proxy:65536", "[Pp]ort"),
        ("http://[::1", "IPv6"),
        ("http://user@proxy", "username is provided without password"),
        ("http://us%3Aer:pass@proxy", "colon"),
        ("http://us%ffer:pass@proxy", "UTF-8"),
        ("http://proxy\r\n", "control character at 12"),
        ("http://my proxy", "space at 9"),
        ("http://" + "ö" * 64, "isn't a valid domain name"),
    ],
)
def test_invalid_proxy(url: str, text: str) -> None:
    with pytest.raises(InvalidProxy, match=text):
        parse_proxy(url)


@pytest.mark.parametrize(
    ("environment", "plain", "secure"),
    [
        ({}, None, None),
        ({"http": "http://a"}, "http://a", None),
        ({"https": "http://a"}, "http://a", "http://a"),
        ({"http": "http://a", "https": "http://b"}, "http://b", "http://b"),
        ({"https": "http://a", "socks": "http://b"}, "socks5h://b", "socks5h://b"),
        ({"socks": "socks4://a"}, "socks4://a", "socks4://a"),
        ({"ws": "http://a", "socks": "socks5://b"}, "http://a", "socks5://b"),
        ({"wss": "http://a", "http": "http://b"}, "http://b", "http://a"),
        ({"http": "http://a", "https": "http://a", "no": "example.com"}, None, None),
        ({"https": "http://a", "no": ".com,other"}, None, None),
        ({"https": "http://a", "no": "other"}, "http://a", "http://a"),
        ({"https": "http://a", "no": "*"}, None, None),
        ({"https": ""}, None, None),
    ],
)
def test_get_proxy(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    plain: str | None,
    secure: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"{name}_proxy", value)
    assert get_proxy(parse_uri("ws://example.com/")) == plain
    assert get_proxy(parse_uri("wss://example.com/")) == secure


def test_connect_request() -> None:
    proxy = parse_proxy("http://user:pass@proxy")
    request = prepare_connect_request(proxy, parse_uri("wss://a:b@[::1]/secret"))
    assert request.decode().split("\r\n") == [
        "CONNECT [::1]:443 HTTP/1.1",
        "Host: [::1]:443",
        f"User-Agent: {USER_AGENT}",
        "Proxy-Authorization: Basic dXNlcjpwYXNz",
        "",
        "",
    ]
    request = prepare_connect_request(
        parse_proxy("http://proxy"), parse_uri("ws://example.com:81/"), None
    )
    assert request == (
        b"CONNECT example.com:81 HTTP/1.1\r\nHost: example.com:81\r\n\r\n"
    )


# -- proxies of the tests ------------------------------------------------------------


async def join(peer: Peer, host: str, port: int, answer: bytes) -> None:
    """Connect to the server, answer the client, and copy both ways."""
    reader, writer = await asyncio.open_connection(host, port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    await peer.send(answer)
    await asyncio.gather(copy(peer.reader, writer), copy(reader, peer.writer))
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def http_proxy(peer: Peer) -> None:
    """A proxy that makes tunnels."""
    method, target, protocol = (await peer.request()).split(" ")
    assert (method, protocol) == ("CONNECT", "HTTP/1.1")
    host, port = target.rsplit(":", 1)
    await join(peer, host, int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")


def answering(data: bytes, *, ends: bool = False) -> Script:
    """A proxy that answers a request with this, and that is all."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        if not ends:
            await peer.ended()

    return script


async def socks5_proxy(peer: Peer) -> None:
    """A proxy of RFC 1928, with the passwords of RFC 1929 if the client has one."""
    _, count = await peer.reader.readexactly(2)
    methods = await peer.reader.readexactly(count)
    if 2 in methods:
        await peer.send(b"\x05\x02")
        _, size = await peer.reader.readexactly(2)
        peer.headers.append(("user", (await peer.reader.readexactly(size)).decode()))
        (size,) = await peer.reader.readexactly(1)
        peer.headers.append(("pass", (await peer.reader.readexactly(size)).decode()))
        await peer.send(b"\x01\x00")
    else:
        await peer.send(b"\x05\x00")
    version, command, _, kind = await peer.reader.readexactly(4)
    assert (version, command) == (5, 1)
    if kind == 3:
        (size,) = await peer.reader.readexactly(1)
        host = (await peer.reader.readexactly(size)).decode()
    else:
        host = ".".join(str(byte) for byte in await peer.reader.readexactly(4))
    port = int.from_bytes(await peer.reader.readexactly(2), "big")
    peer.line = f"{kind} {host}:{port}"
    await join(peer, LOOPBACK, port, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")


# -- HTTP proxies --------------------------------------------------------------------


def proxied(scheme: str, port: int, user: str = "") -> str:
    return f"{scheme}://{user}{LOOPBACK}:{port}"


@pytest.mark.parametrize("secure_proxy", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_http_proxy(run: Run, tls: TLS, secure: bool, secure_proxy: bool) -> None:
    async def main() -> None:
        async with (
            scripted(echo, tls=tls.server if secure else None) as server,
            scripted(http_proxy, tls=tls.server if secure_proxy else None) as proxy,
        ):
            options: dict[str, Any] = {}
            if secure:
                options["ssl"] = tls.client
            if secure_proxy:
                options["proxy_ssl"] = tls.client
            scheme = "https" if secure_proxy else "http"
            async with connect(
                server.uri.replace("://", "://me:mine@"),
                proxy=proxied(scheme, proxy.port, "user:pass@"),
                compression=None,
                **options,
            ) as ws:
                for number in range(3):
                    await ws.send(f"hello {number}")
                    assert await ws.recv() == f"hello {number}"
                assert ws.remote_address == (LOOPBACK, proxy.port)
            assert ws.close_code == 1000

        asked, seen = proxy.peers[0], server.peers[0]
        assert asked.line == f"CONNECT {LOOPBACK}:{server.port} HTTP/1.1"
        assert asked.all("Proxy-Authorization") == ["Basic dXNlcjpwYXNz"]
        assert asked.all("Authorization") == []
        assert seen.all("Proxy-Authorization") == []
        assert seen.all("Authorization") == ["Basic bWU6bWluZQ=="]

    run(main())


def test_proxy_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with scripted(echo) as server, scripted(http_proxy) as proxy:
            monkeypatch.setenv("http_proxy", proxied("http", proxy.port))
            async with connect(server.uri):
                pass
            assert len(proxy.peers) == 1
            async with connect(server.uri, proxy=None):
                pass
            monkeypatch.setenv("no_proxy", LOOPBACK)
            async with connect(server.uri):
                pass
            assert len(proxy.peers) == 1
            monkeypatch.setenv("no_proxy", "")
            monkeypatch.setenv("http_proxy", "nonsense")
            with pytest.raises(InvalidProxy):
                await connect(server.uri)

    run(main())


def test_host_and_port_through_a_proxy(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server, scripted(http_proxy) as proxy:
            async with connect(
                "ws://example.com/",
                host=LOOPBACK,
                port=server.port,
                proxy=proxied("http", proxy.port),
            ):
                pass
            assert proxy.peers[0].line.startswith(f"CONNECT {LOOPBACK}:{server.port} ")
            assert server.peers[0].all("Host") == ["example.com"]

    run(main())


def test_redirect_through_a_proxy(run: Run) -> None:
    async def moved(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")
        await peer.ended()

    async def main() -> None:
        async with scripted(moved, echo) as server, scripted(http_proxy) as proxy:
            async with connect(server.uri, proxy=proxied("http", proxy.port)):
                pass
            assert len(proxy.peers) == 2

    run(main())


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (
            answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
            InvalidProxyStatus,
            "HTTP 407",
        ),
        (answering(b"HTTP/1.0 502 No\r\nContent-Length: 9\r\n\r\n"), InvalidProxyStatus,
         "HTTP 502"),
        (answering(b"nonsense\r\n\r\n"), InvalidProxyMessage, "valid HTTP response"),
        (answering(b"HTTP/1.1 200", ends=True), InvalidProxyMessage, "valid HTTP"),
        (answering(b"", ends=True), InvalidProxyMessage, "valid HTTP response"),
        (answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000), InvalidProxyMessage,
         "HTTP"),
        (
            answering(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching\r\n"),
            InvalidProxyMessage,
            "sent something after its response",
        ),
    ],
)  # fmt: skip
def test_proxy_fails(
    run: Run, tls: TLS, secure: bool, script: Script, kind: type[Exception], text: str
) -> None:
    async def main() -> None:
        async with scripted(script, tls=tls.server if secure else None) as proxy:
            options: dict[str, Any] = {"proxy_ssl": tls.client} if secure else {}
            url = proxied("https" if secure else "http", proxy.port)
            with pytest.raises(kind, match=text):
                await connect("ws://example.com/", proxy=url, **options)

    run(main())


def test_server_refuses_through_a_proxy(run: Run, tls: TLS) -> None:
    async def main() -> None:
        script = answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        for secure in (False, True):
            async with (
                scripted(script) as server,
                scripted(http_proxy, tls=tls.server if secure else None) as proxy,
            ):
                options: dict[str, Any] = {"proxy_ssl": tls.client} if secure else {}
                url = proxied("https" if secure else "http", proxy.port)
                with pytest.raises(InvalidStatus, match="HTTP 403"):
                    await connect(server.uri, proxy=url, **options)

    run(main())


@pytest.mark.parametrize("stage", ["connect", "proxy tls", "connect in tls", "tls"])
def test_waits_through_a_proxy_end(run: Run, tls: TLS, stage: str) -> None:
    async def main() -> None:
        there = asyncio.Event()

        async def silence(peer: Peer) -> None:
            there.set()
            await peer.ended()

        in_tls = tls.server if stage in ("connect in tls", "tls") else None
        scripts = http_proxy if stage == "tls" else silence
        async with (
            scripted(silence) as server,
            scripted(scripts, tls=in_tls) as proxy,
        ):
            uri = server.uri
            options: dict[str, Any] = {"proxy": proxied("http", proxy.port)}
            if stage != "connect":
                options = {
                    "proxy": proxied("https", proxy.port),
                    "proxy_ssl": tls.client,
                }
            if stage == "tls":
                uri, options["ssl"] = uri.replace("ws:", "wss:"), tls.client

            with pytest.raises(TimeoutError, match="opening handshake"):
                await connect(uri, open_timeout=0.2, **options)

            there.clear()
            connecting = connect(uri, **options)
            task = asyncio.create_task(connecting._connect())
            await there.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_proxy_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        async with scripted(Peer.ended) as proxy:
            pass
        with pytest.raises(ConnectionRefusedError):
            await connect("ws://example.com/", proxy=proxied("http", proxy.port))

    run(main())


def test_certificate_of_the_proxy_is_verified(run: Run, tls: TLS) -> None:
    async def main() -> None:
        async with scripted(Peer.ended, tls=tls.server) as proxy:
            url = proxied("https", proxy.port)
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                await connect("ws://example.com/", proxy=url)
            with pytest.raises(OSError, match="mismatch"):
                await connect(
                    "ws://example.com/",
                    proxy=url,
                    proxy_ssl=tls.client,
                    proxy_server_hostname="example.com",
                )

    run(main())


def test_tls_to_a_proxy_of_the_environment_is_not_switched_off(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "https://proxy")

    async def main() -> None:
        with pytest.raises(ValueError, match="proxy_ssl=None is not for a server"):
            await connect("ws://example.com/", proxy_ssl=None)

    run(main())


# -- SOCKS proxies -------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_socks_proxy(run: Run, tls: TLS, secure: bool) -> None:
    async def main() -> None:
        async with (
            scripted(echo, tls=tls.server if secure else None) as server,
            scripted(socks5_proxy) as proxy,
        ):
            options: dict[str, Any] = {"ssl": tls.client} if secure else {}
            uri = server.uri.replace(LOOPBACK, "localhost")
            url = proxied("socks5h", proxy.port, "user:pass@")
            async with connect(uri, proxy=url, compression=None, **options) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
        assert proxy.peers[0].line == f"3 localhost:{server.port}"
        assert proxy.peers[0].headers == [("user", "user"), ("pass", "pass")]

    run(main())


def test_socks_proxy_with_a_resolved_address(run: Run) -> None:
    async def main() -> None:
        async with scripted(echo) as server, scripted(socks5_proxy) as proxy:
            url = proxied("socks5", proxy.port)
            async with connect(server.uri, proxy=url):
                pass
            assert proxy.peers[0].line == f"1 {LOOPBACK}:{server.port}"

    run(main())


def test_socks_proxy_fails(run: Run) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.reader.readexactly(3)
        await peer.send(b"\x05\xff")
        await peer.ended()

    async def main() -> None:
        async with scripted(refusing) as proxy:
            url = proxied("socks5h", proxy.port)
            with pytest.raises(ProxyError, match="failed to connect through the SOCKS"):
                await connect("ws://example.com/", proxy=url)
        with pytest.raises(OSError, match="Could not connect"):
            await connect("ws://example.com/", proxy=url)

    run(main())


def test_socks_proxy_is_silent(run: Run) -> None:
    async def main() -> None:
        async with scripted(Peer.ended) as proxy:
            url = proxied("socks5h", proxy.port)
            with pytest.raises(TimeoutError, match="opening handshake"):
                await connect("ws://example.com/", proxy=url, open_timeout=0.1)

    run(main())


def test_without_python_socks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with pytest.raises(ImportError, match="needs python-socks: install it with"):
            await connect("ws://example.com/", proxy="socks5h://proxy")

    monkeypatch.setitem(sys.modules, "python_socks", None)
    run(main())
