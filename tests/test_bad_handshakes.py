"""Requests at and over the edge of what is allowed, on a real server, in every cut."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import request
from raw import TEXT, raw
from scripted import LOOPBACK, TLS, Run, loop_fixture, tls_fixture
from wire import MASK, frame

from websock.asyncio.server import serve

run = loop_fixture()
tls = tls_fixture()

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HINT = "This is a WebSocket server."


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a peer does wrong is no error, and has no traceback, at any level."""
    caplog.set_level(logging.DEBUG, "websock")
    yield
    for record in caplog.get_records("call"):
        assert record.levelno <= logging.INFO, record
        assert record.exc_info is None, record


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def line(text: str) -> bytes:
    """A good request with another first line."""
    _, end, rest = request().partition(b"\r\n")
    return text.encode("latin-1") + end + rest


GOOD = {
    "absolute form": line("GET http://localhost:8765/chat HTTP/1.1"),
    "query": line("GET /?a=b&c=%20 HTTP/1.1"),
    "content length": request("Content-Length: 0"),
    "case": request("Connection: UPGRADE", "Upgrade: WebSocket"),
    "connection list": request("Connection: keep-alive ,, Upgrade,"),
    "two connections": request("-Connection", "Connection: a", "Connection: upgrade"),
    "names": request().replace(b"Sec-WebSocket", b"sEC-wEBsOCKET"),
    "spaces": request("Sec-WebSocket-Version:    13\t "),
    "no space": request("Sec-WebSocket-Version:13"),
    "latin-1": request("X-Name: J\xfcrgen"),
    "utf-8": request("X-Name: " + "Jürgen".encode().decode("latin-1")),
    "empty value": request("X-Empty:"),
    "tab": request("X-Tab: a\tb"),
    "host with port": request("Host: [::1]:80"),
    "long line": line(f"GET /{'a' * (8192 - len('GET / HTTP/1.1'))} HTTP/1.1"),
    "long header": request(f"X-Long: {'a' * (8192 - len('X-Long: '))}"),
    "128 headers": request(*(f"X-{n}: a" for n in range(123))),
    "64 KiB": request(*(f"X-{n}: {'a' * 8000}" for n in range(8))),
    "unknown extensions": request("Sec-WebSocket-Extensions: a; b=c, d; e"),
}

BAD = {
    "post": (line("POST / HTTP/1.1"), 405, "unsupported HTTP method"),
    "lower case method": (line("get / HTTP/1.1"), 405, "unsupported HTTP method"),
    "options": (line("OPTIONS * HTTP/1.1"), 405, "unsupported HTTP method"),
    "connect": (line("CONNECT a:80 HTTP/1.1"), 405, "unsupported HTTP method"),
    "head": (line("HEAD / HTTP/1.1"), 405, ""),
    "http/0.9": (line("GET /"), 400, "not made of three parts"),
    "lower case http": (line("GET / http/1.1"), 400, "protocol is not an HTTP version"),
    "long version": (line("GET / HTTP/1.10"), 400, "protocol is not an HTTP version"),
    "http/1.0": (line("GET / HTTP/1.0"), 400, "unsupported HTTP version"),
    "http/2": (line("GET / HTTP/2.0"), 400, "unsupported HTTP version"),
    "two spaces": (line("GET  / HTTP/1.1"), 400, ""),
    "space in target": (line("GET /a b HTTP/1.1"), 400, "not made of three parts"),
    "space at the end": (line("GET / HTTP/1.1 "), 400, "not made of three parts"),
    "tabs": (line("GET\t/\tHTTP/1.1"), 400, "not made of three parts"),
    "target not ascii": (line("GET /\xe9 HTTP/1.1"), 400, "request target is"),
    "nul in target": (line("GET /\0 HTTP/1.1"), 400, "contains NUL"),
    "nul in name": (request("X\0: a"), 400, "contains NUL"),
    "nul in value": (request("X-A: a\0"), 400, "contains NUL"),
    "cr in value": (request("X-A: a\rX-B: b"), 400, "contains CR without LF"),
    "lf in value": (request("X-A: a\nX-B: b"), 400, "ends in LF without CR"),
    "lf only": (request().replace(b"\r\n", b"\n"), 400, "ends in LF without CR"),
    "lf at the end": (request()[:-4] + b"\n\n", 400, "ends in LF without CR"),
    "control": (request("X-A: a\x01"), 400, ""),
    "delete": (request("X-A: a\x7f"), 400, ""),
    "vertical tab": (request("X-A: a\x0bX-B: b"), 400, ""),
    "fold": (request("X-A: a\r\n b"), 400, ""),
    "fold with tab": (request("X-A: a\r\n\tb"), 400, ""),
    "fold first": (line("GET / HTTP/1.1\r\n X-A: a"), 400, ""),
    "no colon": (request("X-A"), 400, ""),
    "no name": (request(": a"), 400, ""),
    "space before colon": (request("X-A : a"), 400, ""),
    "name not ascii": (request("X-\xe9: a"), 400, ""),
    "empty line first": (b"\r\n" + request(), 400, "not HTTP"),
    "tls": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400, "a TLS handshake"),
    "binary": (b"\x00\x01\x02", 400, "not HTTP"),
    "two hosts": (request("-Host", "Host: a", "Host: a"), 400, "invalid Host"),
    "two hosts in one": (request("Host: a, b"), 400, "invalid Host"),
    "bad host": (request("Host: a/b"), 400, "invalid Host"),
    "empty host": (request("Host:"), 400, "empty Host"),
    "no host": (request("-Host"), 400, "missing Host"),
    "two keys": (request(KEY, "-Sec-WebSocket-Key", KEY), 400, "Sec-WebSocket-Key"),
    "short key": (request(key="dGhlIHNhbXBsZSBub25j"), 400, "Sec-WebSocket-Key"),
    "key with spaces": (request(key="dGhlIHNhbXBs ZSBub25jZQ="), 400, "WebSocket-Key"),
    "no key": (request("-Sec-WebSocket-Key"), 400, "missing Sec-WebSocket-Key"),
    "two versions": (
        request("-Sec-WebSocket-Version", *["Sec-WebSocket-Version: 13"] * 2),
        400,
        "invalid Sec-WebSocket-Version",
    ),
    "versions": (request("Sec-WebSocket-Version: 13, 8"), 426, "expected 13"),
    "version 013": (request("Sec-WebSocket-Version: 013"), 426, "expected 13"),
    "version 14": (request("Sec-WebSocket-Version: 14"), 426, "expected 13"),
    "no version": (request("-Sec-WebSocket-Version"), 426, "missing Sec-WebSocket-V"),
    "two upgrades": (
        request("-Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
        426,
        "invalid Upgrade header",
    ),
    "no upgrade": (request("-Upgrade"), 426, HINT),
    "no connection": (request("-Connection"), 426, HINT),
    "not upgrade": (request("Connection: notupgrade, upgrade2"), 426, HINT),
    "bad connection": (request("Connection: @"), 400, "invalid Connection header"),
    "bad upgrade": (request("Upgrade: @"), 400, "invalid Upgrade header"),
    "body": (request("Content-Length: 1") + b"x", 400, "has a Content-Length"),
    "plus": (request("Content-Length: +0"), 400, "has a Content-Length"),
    "minus": (request("Content-Length: -0"), 400, "has a Content-Length"),
    "zeros": (request("Content-Length: 00"), 400, "has a Content-Length"),
    "list": (request("Content-Length: 0, 0"), 400, "has a Content-Length"),
    "two": (request(*["Content-Length: 0"] * 2), 400, "has a Content-Length"),
    "chunked": (request("Transfer-Encoding: chunked"), 400, "has a Transfer-Encoding"),
    "identity": (request("Transfer-Encoding: identity"), 400, "a Transfer-Encoding"),
    "long target": (
        line(f"GET /{'a' * (8193 - len('GET / HTTP/1.1'))} HTTP/1.1"),
        414,
        "request line is too long: more than 8192 bytes",
    ),
    "endless line": (b"GET /" + b"a" * 8190, 414, "more than 8192 bytes"),
    "long header": (
        request(f"X-Long: {'a' * (8193 - len('X-Long: '))}"),
        431,
        "header line is too long: more than 8192 bytes",
    ),
    "endless header": (request()[:-2] + b"X-A: " + b"a" * 8190, 431, "more than 8192"),
    "129 headers": (
        request(*(f"X-{n}: a" for n in range(124))),
        431,
        "too many headers: more than 128",
    ),
    "64 KiB": (
        request(*(f"X-{n}: {'a' * 8000}" for n in range(9))),
        431,
        "headers are too long: more than 65536 bytes",
    ),
    "extensions": (request("Sec-WebSocket-Extensions: a;;"), 400, "WebSocket-Ext"),
    "extension quoted": (
        request('Sec-WebSocket-Extensions: a; b="' + "\\" * 8000),
        400,
        "invalid Sec-WebSocket-Extensions header",
    ),
    "protocols": (
        request("Sec-WebSocket-Protocol: a" + " " * 8000 + "b"),
        400,
        "invalid Sec-WebSocket-Protocol header",
    ),
    "protocol not ascii": (
        request("Sec-WebSocket-Protocol: \xe9"),
        400,
        "invalid Sec-WebSocket-Protocol header",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_requests(run: Run, name: str) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server:
            async with raw(server) as client:
                await client.send(GOOD[name])
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
                await client.echoed("x")

    run(main())


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(run: Run, name: str) -> None:
    data, status, text = BAD[name]

    async def main() -> None:
        async with (
            # Only asked for what a peer offers if it has something to choose from.
            serve(
                echo, LOOPBACK, 0, subprotocols=["a"] if "prot" in name else None
            ) as server,
            raw(server) as good,
        ):
            offer = ["Sec-WebSocket-Protocol: a"] if "prot" in name else []
            await good.open(*offer)
            async with raw(server) as client:
                # Nothing of what follows is looked at: no second answer.
                await client.send(data, frame(TEXT, b"x", mask=MASK), request())
                answer = await client.answer()
            assert answer.status == status
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            body = answer.body.decode()
            if name != "head":
                assert body.startswith("Failed to open a WebSocket connection: ")
            assert text in body
            assert len(body) < 220
            assert "aaaa" not in body
            if status == 426:
                assert answer.headers["Upgrade"] == "websocket"
                assert answer.headers["Sec-WebSocket-Version"] == "13"
            if status == 405:
                assert answer.headers["Allow"] == "GET"
            # The others go on.
            await good.echoed("x")

            # The same in small pieces.  There may be an answer before the last one.
            async with raw(server) as client:
                size = 1 if len(data) < 1000 else 777
                for start in range(0, len(data), size):
                    try:
                        await client.send(data[start : start + size])
                    except ConnectionError:
                        break
                    await asyncio.sleep(0)
                again = await client.answer()
                for each in (answer, again):
                    del each.headers["Date"]
                assert again == answer

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_big_body_after_a_refusal(run: Run, tls: TLS, secure: bool) -> None:
    """The answer arrives although the client is still busy sending."""
    options: dict[str, Any] = {"ssl": tls.server} if secure else {}
    kwargs: dict[str, Any] = {"ssl": tls.client, "server_hostname": LOOPBACK}

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, **options) as server:
            async with raw(server, **(kwargs if secure else {})) as client:
                await client.send(request("Content-Length: 5000000"))
                if not secure:  # TLS has no end of one direction only
                    await client.send(*[bytes(100_000)] * 50)
                assert (await client.answer()).status == 400

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_half_open(run: Run, tls: TLS, secure: bool) -> None:
    """Slow ones are answered at the deadline, and hold nobody up."""
    options: dict[str, Any] = {"ssl": tls.server} if secure else {}
    kwargs: dict[str, Any] = {"ssl": tls.client, "server_hostname": LOOPBACK}
    if not secure:
        kwargs.clear()

    async def main() -> None:
        async with serve(echo, LOOPBACK, 0, open_timeout=0.4, **options) as server:
            async with asyncio.TaskGroup() as group:
                for n in range(0, len(request()), 10):
                    group.create_task(slow(server, n))
                for _ in range(10):
                    async with raw(server, **kwargs) as good:
                        await good.open()
                        await good.echoed("x")

    async def slow(server: Any, n: int) -> None:
        async with raw(server, **kwargs) as client:
            await client.send(request()[:n])
            answer = await client.answer()
            assert answer.status == 408
            assert answer.body == b"Opening handshake took too long.\n"

    run(main())


def test_drip(run: Run) -> None:
    """The deadline is for all of it, not from one byte to the next."""

    async def main() -> None:
        async with (
            serve(echo, LOOPBACK, 0, open_timeout=0.2) as server,
            raw(server) as client,
        ):
            answered = asyncio.create_task(client.answer())
            while not answered.done():
                try:
                    await client.send(b"G")
                except ConnectionError:
                    break
                await asyncio.sleep(0.01)
            assert (await answered).status == 408

    run(main())


@pytest.mark.parametrize("n", [0, 1, 30, len(request()) - 1])
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_clients_that_give_up(run: Run, n: int, how: str) -> None:
    async def main() -> None:
        async with serve(echo, LOOPBACK, 0) as server, raw(server) as good:
            await good.open()
            async with raw(server) as client:
                await client.send(request()[:n])
                while len(server.all_connections) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                if how == "reset":
                    client.reset()
                else:
                    client.writer.write_eof()
                    assert await client.ended() == b""
            while len(server.all_connections) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await good.echoed("x")

    run(main())
