"""``hosts=``: requests for names that are not the server's (DNS rebinding)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from besieged import siege
from helpers import request

from websock import InvalidHost
from websock.asyncio.server import serve
from websock.datastructures import Headers
from websock.handshake import check_host
from websock.http11 import Request
from websock.sync.server import serve as serve_threads

__all__ = ["siege"]

HOSTS = [
    "localhost",
    "Good.example",
    "other.example:8443",
    "[::1]",
    re.compile(r"[a-z]+\.sub\.example"),
]
GOOD = [
    "localhost",
    "localhost:8765",
    "localhost:",
    "LOCALHOST:1",
    "good.EXAMPLE",
    "other.example:8443",
    "[::1]:8765",
    "a.sub.example:80",
    "A.sub.example",
]
BAD = [
    "evil.example",
    "evil.example:8765",
    "localhost.evil.example",
    "evil-localhost",
    "localhost.",
    "127.0.0.1",
    "other.example",
    "other.example:80",
    "a.sub.example.evil.example",
    "a.b.sub.example",
    "[::2]",
]


def asked(host: str, target: str = "/") -> Request:
    return Request(target, Headers(Host=host))


@pytest.mark.parametrize("host", GOOD)
def test_allowed(host: str) -> None:
    check_host(asked(host), HOSTS)
    check_host(asked("localhost", f"http://{host}/"), HOSTS)


@pytest.mark.parametrize("host", BAD)
def test_not_allowed(host: str) -> None:
    for made in (asked(host), asked("localhost", f"ws://{host}/a")):
        with pytest.raises(InvalidHost, match="invalid Host header") as info:
            check_host(made, HOSTS)
        assert info.value.value == host


def test_by_default_all_are_allowed() -> None:
    check_host(asked("evil.example"), None)
    with pytest.raises(InvalidHost):
        check_host(asked("localhost"), [])


def test_servers_refuse_other_hosts(siege: Any) -> None:
    site = siege(hosts=["localhost"])
    site.accepts(request("Host: LOCALHOST:99"))
    text = "host not allowed"
    site.refuses(request("Host: evil.example"), status=421, text=text)
    site.refuses(request("Host: localhost.evil.example"), status=421, text=text)
    # A proxy may have gone by either of the two names.
    data = request(target="http://evil.example/")
    site.refuses(data, status=421, text=text)
    data = request("Host: evil.example", target="http://localhost/")
    site.refuses(data, status=421, text=text)
    site.refuses(request(target="http://localhost@evil.example/"), status=421)
    site.accepts(request(target="http://localhost:1/"))
    # The page of a rebound name has that name for its origin, too: the host comes first.
    site.refuses(
        request("Host: evil.example", "Origin: http://evil.example"), status=421
    )


@pytest.mark.parametrize("start", [serve, serve_threads])
@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ("localhost", "hosts must be a list, not a str"),
        ([None], "hosts must be str, or expressions for str, not NoneType"),
        ([re.compile(b"a")], "hosts must be str, or expressions for str, not bytes"),
    ],
)
def test_wrong_hosts(start: Any, hosts: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        start(print, "127.0.0.1", 0, hosts=hosts)
