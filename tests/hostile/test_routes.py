"""Requests that a router cannot make sense of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from helpers import request
from raw import raw
from scripted import LOOPBACK, Run, loop_fixture
from threads import raw_client, running
from werkzeug.routing import Map, Rule

from websock.asyncio.router import route
from websock.sync.router import route as route_threads

run = loop_fixture()


async def handler(ws: Any, **arguments: Any) -> None:
    async for message in ws:
        await ws.send(message)


def handler_of_threads(ws: Any, **arguments: Any) -> None:
    for message in ws:
        ws.send(message)


def rules(endpoint: Any) -> Map:
    return Map(
        [Rule("/<int:number>", endpoint=endpoint), Rule("/a/", endpoint=endpoint)]
    )


# Lines, target, status.
REQUESTS: dict[str, tuple[tuple[str, ...], str, int]] = {
    "no host": (("-Host",), "/1", 400),
    "two hosts": (("-Host", "Host: a", "Host: b"), "/1", 400),
    "host with tags": (("Host: <script>",), "/a", 400),
    "host not ascii": (("Host: \xe9",), "/1", 400),
    "long host": (("Host: " + "a" * 300,), "/1", 400),
    "empty labels": (("Host: a..b",), "/1", 400),
    "several ports": (("Host: a:1:2",), "/a", 400),
    "many digits": ((), "/" + "9" * 5000, 404),
    "no path": ((), "/evil", 404),
    "absolute": ((), "http://evil.example/evil", 404),
    "two slashes": ((), "//evil.example/a", 404),
    "encoded line ends": ((), "/%0d%0aX-Evil:1", 404),
    "encoded nul": ((), "/%00", 404),
    "encoded junk": ((), "/%ff%fe%", 404),
}


def test_router(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with route(rules(handler), LOOPBACK, 0) as server, raw(server) as good:
            await good.send(request(target="/1"))
            assert b" 101 " in await good.reader.readuntil(b"\r\n\r\n")
            for name, (lines, target, status) in REQUESTS.items():
                async with raw(server) as client:
                    await client.send(request(*lines, target=target))
                    answer = await asyncio.wait_for(client.answer(), 30)
                    assert answer.status == status, name
                await good.echoed("x")

    run(main())
    assert not [r for r in caplog.records if r.exc_info or r.levelname == "ERROR"]


def test_router_for_threads(caplog: pytest.LogCaptureFixture) -> None:
    with running(route_threads(rules(handler_of_threads), LOOPBACK, 0)) as server:
        for name, (lines, target, status) in REQUESTS.items():
            with raw_client(server, opens=False) as peer:
                peer.sock.sendall(request(*lines, target=target))
                answer = peer.rest()
                assert answer.startswith(f"HTTP/1.1 {status} ".encode()), name
    assert not [r for r in caplog.records if r.exc_info or r.levelname == "ERROR"]


def test_redirects_stay_here(run: Run) -> None:
    """A redirect names the host that was asked for, and nothing of the path."""

    async def main() -> None:
        async with route(rules(handler), LOOPBACK, 0) as server:
            for target in ("/a", "/a?x=%0d%0aX-Evil:1", "//a", "/a?//evil.example"):
                async with raw(server) as client:
                    await client.send(request("Host: good.example", target=target))
                    answer = await client.answer()
                if "Location" in answer.headers:
                    location = answer.headers["Location"]
                    assert location.startswith("ws://good.example/a/")
                    assert "X-Evil" not in answer.headers
                else:
                    assert answer.status == 404

    run(main())
