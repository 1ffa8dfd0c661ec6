"""What peers can have a server log: little, without secrets, and nothing to obey."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

import pytest
from besieged import siege
from helpers import request

from websock.client import ClientProtocol
from websock.constants import MAX_LOG_LINES
from websock.http11 import show_header
from websock.log_limit import LogLimit
from websock.uri import parse_uri

__all__ = ["siege"]

NOT_LOGGED = re.compile(
    r"(\d+) more lines about refused handshakes in \d+\.\d s were not logged"
)


def test_flood_of_refusals(siege: Any) -> None:
    """Some lines a second are logged, and then how many were not."""
    number = 40
    site = siege()
    for _ in range(number):
        with site.connect().sock as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while sock.recv(4096):
                pass
    site.server_of_sockets.log_limit.tell()
    site.goes_on()
    logged = site.log.lines()
    rejected = [text for text in logged if text.startswith("connection rejected (400")]
    counts = [int(m[1]) for text in logged if (m := NOT_LOGGED.fullmatch(text))]
    assert len(rejected) + len(counts) == len(logged)
    assert len(rejected) + sum(counts) == number
    assert len(rejected) >= MAX_LOG_LINES
    # How long it takes is up to the machine.
    assert counts or len(rejected) == number


def test_hooks_that_peers_have_fail(siege: Any) -> None:
    """The traceback of a program's mistake is for the log, but not without limit."""

    def hook(connection: Any, asked: Any) -> None:
        if "X-Evil" in asked.headers:
            raise ZeroDivisionError

    site = siege(process_request=hook, fails=True)
    site.server_of_sockets.log_limit.per_second = 1
    for _ in range(40):
        with site.connect().sock as sock:
            sock.sendall(request("X-Evil: 1"))
            assert sock.recv(4096).startswith(b"HTTP/1.1 500 ")
    errors = [r for r in site.log.records if r.levelno == logging.ERROR]
    assert {r.getMessage() for r in errors} == {"process_request failed"}
    limit = site.server_of_sockets.log_limit
    assert len(errors) < 40
    assert limit.left_out > 0 or any(map(NOT_LOGGED.match, site.log.lines()))


def test_who_says_nothing_is_not_logged(siege: Any) -> None:
    """Such as what asks whether the port is open."""
    site = siege()
    for data in (b"", b"G", request()[:-1]):
        with site.connect().sock as sock:
            sock.sendall(data)
            sock.shutdown(1)
            assert sock.recv(4096) == b""
    site.goes_on()
    assert site.log.lines() == []


def test_reasons_to_close(siege: Any) -> None:
    """What a peer gives as its reason is text for people: nothing to obey, one line."""
    site = siege()
    peer = site.open()
    with peer.sock:
        peer.send(8, b"\x0f\xa0" + "\x1b[2J\nserver closed\u2028\x9b\u202e".encode())
        opcode, payload = peer.frame()
        assert (opcode, payload[:2]) == (8, b"\x0f\xa0")
        assert peer.rest() == b""
    site.goes_on()
    shown = r"4000 (private use) \x1b[2J\nserver closed\u2028\x9b\u202e"
    assert [text for text in site.log.lines(logging.DEBUG) if shown in text]


def test_secrets_are_hidden(siege: Any) -> None:
    site = siege()
    secrets = ("Authorization: Basic c2VjcmV0", "Cookie: s=c2VjcmV0")
    site.open(*secrets, "Proxy-Authorization: c2VjcmV0").sock.close()
    texts = site.log.lines(logging.DEBUG)
    assert "< Authorization: (hidden)" in texts
    assert not [text for text in texts if "c2VjcmV0" in text]


def test_secrets_of_clients_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "websock")
    protocol = ClientProtocol(parse_uri("ws://user:secret@localhost/"))
    made = protocol.connect()
    made.headers["Cookie"] = "s=secret"
    protocol.send_request(made)
    protocol.receive_data(
        b"HTTP/1.1 403 \x9b31m\x85\r\nSet-Cookie: s=secret\r\nX: \x1b".replace(
            b"\x1b", b"\x9bJ"
        )
        + b"\r\nContent-Length: 0\r\n\r\n"
    )
    assert "> Authorization: (hidden)" in caplog.messages
    assert "< Set-Cookie: (hidden)" in caplog.messages
    assert r"< HTTP/1.1 403 \x9b31m\x85" in caplog.messages
    assert r"< X: \x9bJ" in caplog.messages
    everything = "\n".join(caplog.messages)
    assert "secret" not in everything
    assert "dXNlcjpz" not in everything  # base64 of "user:s"


def test_show_header() -> None:
    assert show_header("X", "J\xfcrgen") == "J\xfcrgen"
    assert show_header("X", "a\tb\x85c\x9bd\xa0") == r"a\tb\x85c\x9bd\xa0"
    for name in ("authorization", "Cookie", "SET-COOKIE", "Proxy-Authorization"):
        assert show_header(name, "secret") == "(hidden)"


# -- the limit -----------------------------------------------------------------------


def limit(monkeypatch: pytest.MonkeyPatch, per_second: int | None) -> Any:
    """Make a limit whose clock is set by the test: ``limit.now[0]``."""
    now = [100.0]
    monkeypatch.setattr("websock.log_limit.monotonic", lambda: now[0])
    return LogLimit(logging.getLogger("websock.test"), per_second), now


def test_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "websock")
    limited, now = limit(monkeypatch, 3)
    assert [limited.allows() for _ in range(5)] == [True] * 3 + [False] * 2
    now[0] += 0.5
    assert not limited.allows()
    assert (limited.left_out, caplog.messages) == (3, [])
    now[0] += 0.5
    assert [limited.allows() for _ in range(4)] == [True] * 3 + [False]
    assert caplog.messages == [
        "3 more lines about refused handshakes in 1.0 s were not logged"
    ]
    now[0] += 60
    limited.tell()
    limited.tell()
    assert caplog.messages[1:] == [
        "1 more lines about refused handshakes in 60.0 s were not logged"
    ]
    assert limited.left_out == 0


def test_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limited, _ = limit(monkeypatch, None)
    assert all(limited.allows() for _ in range(1000))


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is counted twice, and none is forgotten."""
    limited, _ = limit(monkeypatch, 10)
    allowed: list[bool] = []

    def ask() -> None:
        for _ in range(1000):
            allowed.append(limited.allows())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 10
    assert limited.left_out == 3990
