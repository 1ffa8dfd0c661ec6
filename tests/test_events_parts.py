"""The event API without connections: emitters, event targets, cookies, URLs."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from browser.urls import BAD_URLS, URLS

from websock.datastructures import Headers
from websock.events import (
    Cookie,
    DOMException,
    DOMSyntaxError,
    Event,
    EventEmitter,
    EventTarget,
    InvalidAccessError,
    InvalidStateError,
    MessageEvent,
    is_upgrade,
)
from websock.events.cookies import parse_cookies, set_cookie_values
from websock.events.opening import check_protocols, usv_string
from websock.events.target import handler_attribute
from websock.events.url import parse_url
from websock.http11 import Request


class Bell(EventEmitter):
    """An emitter to test."""

    events = frozenset(("ring", "break"))


class Button(EventTarget):
    """An event target to test."""

    onpush = handler_attribute("push")


# -- emitters --------------------------------------------------------------------------


def test_callbacks_in_order() -> None:
    bell, calls = Bell(), []
    bell.on("ring", lambda n: calls.append(("first", n)))

    @bell.on("ring")
    def second(n: int) -> None:
        calls.append(("second", n))

    assert bell.emit("ring", 1)
    assert not bell.emit("break")
    assert calls == [("first", 1), ("second", 1)]
    assert bell.listener_count("ring") == 2
    bell.off("ring", second)
    bell.off("ring", second)
    bell.emit("ring", 2)
    assert calls[2:] == [("first", 2)]


def test_once_and_off() -> None:
    bell, calls = Bell(), []

    @bell.once("ring")
    def ring() -> None:
        calls.append("ring")
        bell.emit("ring")  # it is gone already

    assert bell.emit("ring")
    assert not bell.emit("ring")
    assert calls == ["ring"]
    bell.once("ring", ring)
    bell.off("ring", ring)
    assert not bell.emit("ring")

    # One that is removed by the callback before it is not called.
    bell.on("ring", lambda: bell.off("ring", ring))
    bell.once("ring", ring)
    assert bell.emit("ring")
    assert calls == ["ring"]


def test_callbacks_added_and_removed_meanwhile() -> None:
    bell, calls = Bell(), []

    def later() -> None:
        calls.append("later")

    def first() -> None:
        calls.append("first")
        bell.on("ring", later)
        bell.off("ring", first)

    bell.on("ring", first)
    bell.emit("ring")
    bell.emit("ring")
    assert calls == ["first", "later"]


def test_wrong_events_and_callbacks() -> None:
    bell = Bell()
    with pytest.raises(ValueError, match=r"^Bell has no event 'rang', expected one of"):
        bell.on("rang", print)
    with pytest.raises(ValueError):
        bell.once("rang")
    with pytest.raises(TypeError, match=r"^callback must be callable, not int$"):
        bell.on("ring", 1)  # type: ignore[call-overload]


def test_exceptions_go_to_the_handler_of_the_loop() -> None:
    async def main() -> None:
        seen: list[dict[str, Any]] = []
        told = asyncio.Event()

        def handler(loop: Any, context: dict[str, Any]) -> None:
            seen.append(context)
            if len(seen) == 2:
                told.set()

        asyncio.get_running_loop().set_exception_handler(handler)
        bell, calls = Bell(), []

        async def fails_later() -> None:
            raise KeyError("later")

        bell.on("ring", lambda: 1 / 0)
        bell.on("ring", fails_later)
        bell.on("ring", lambda: calls.append(1))
        bell.emit("ring")
        assert calls == [1]
        await told.wait()
        assert [type(c["exception"]) for c in seen] == [ZeroDivisionError, KeyError]
        assert seen[0]["message"] == "exception in a callback for 'ring'"
        assert seen[0]["source"] is bell

    asyncio.run(main())


def test_exceptions_without_a_loop_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    bell = Bell()
    bell.on("ring", lambda: 1 / 0)
    bell.emit("ring")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("websock.events", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_what_ends_the_program_is_not_caught() -> None:
    bell = Bell()

    def leave() -> None:
        raise SystemExit

    bell.on("ring", leave)
    with pytest.raises(SystemExit):
        bell.emit("ring")


# -- event targets ---------------------------------------------------------------------


def test_the_place_of_an_on_attribute() -> None:
    button, calls = Button(), []

    def add(name: str) -> Any:
        return lambda event: calls.append(name)

    assert button.onpush is None
    button.addEventListener("push", add("a"))
    button.onpush = add("b")
    button.addEventListener("push", add("c"))
    button.onpush = handler = add("d")
    assert button.onpush is handler
    event = Event("push")
    assert button.dispatchEvent(event)
    assert calls == ["a", "d", "c"]
    assert event.target is event.currentTarget is button
    button.onpush = None
    button.onpush = add("e")
    calls.clear()
    button.dispatchEvent(Event("push"))
    assert calls == ["a", "c", "e"]


def test_listeners_are_added_once_and_removed() -> None:
    button, calls = Button(), []

    class Handler:
        def handleEvent(self, event: Event) -> None:
            calls.append(event.type)

    handler = Handler()
    for _ in range(2):
        button.addEventListener("push", handler)
        button.addEventListener("push", calls.append)
    button.addEventListener("push", None)
    button.dispatchEvent(Event("push"))
    assert calls[0] == "push"
    assert len(calls) == 2
    button.removeEventListener("push", handler)
    button.removeEventListener("push", calls.append)
    button.removeEventListener("pull", handler)
    calls.clear()
    button.dispatchEvent(Event("push"))
    assert calls == []


@pytest.mark.parametrize("way", ["keyword", "options"])
def test_listeners_for_one_event(way: str) -> None:
    button, calls = Button(), []

    def push(event: Event) -> None:
        calls.append(1)
        button.dispatchEvent(Event("push"))

    if way == "keyword":
        button.addEventListener("push", push, once=True)
    else:
        button.addEventListener("push", push, {"once": True})
    button.dispatchEvent(Event("push"))
    assert calls == [1]


def test_a_listener_removed_by_one_before_it() -> None:
    button, calls = Button(), []

    def second(event: Event) -> None:
        calls.append("second")

    button.addEventListener(
        "push", lambda event: button.removeEventListener("push", second)
    )
    button.addEventListener("push", second)
    button.dispatchEvent(Event("push"))
    assert calls == []


def test_wrong_listeners() -> None:
    button = Button()
    with pytest.raises(TypeError, match=r"handleEvent, not int$"):
        button.addEventListener("push", 1)
    with pytest.raises(TypeError, match=r"^onpush must be callable or None, not int$"):
        button.onpush = 1


def test_events_show_what_they_are() -> None:
    event = MessageEvent("message", "secret", "ws://x")
    assert repr(event) == "<MessageEvent message origin='ws://x'>"
    assert event.timeStamp > 0


# -- names of errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "code", "base"),
    [
        (DOMSyntaxError, "SyntaxError", 12, ValueError),
        (InvalidAccessError, "InvalidAccessError", 15, ValueError),
        (InvalidStateError, "InvalidStateError", 11, RuntimeError),
    ],
)
def test_errors(kind: Any, name: str, code: int, base: Any) -> None:
    exc = kind("no")
    assert (exc.name, exc.code, exc.message) == (name, code, "no")
    assert isinstance(exc, DOMException)
    assert isinstance(exc, base)


# -- cookies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {}),
        (["a=1; b=2"], {"a": "1", "b": "2"}),
        (['a="1"; b="'], {"a": "1", "b": '"'}),
        (["a=1", "a=2; c=x=y"], {"a": "1", "c": "x=y"}),
        (["a; =b; ; c= 1 "], {"c": "1"}),
        (["a=%20"], {"a": "%20"}),
    ],
)
def test_cookies_of_a_request(values: list[str], expected: dict[str, str]) -> None:
    headers = Headers()
    for value in values:
        headers["Cookie"] = value
    assert parse_cookies(headers) == expected


def test_cookies_to_set() -> None:
    when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    full = Cookie(
        "id", "x", "/", "example.com", when, 60, True, True, same_site="Strict"
    )
    naive = Cookie("n", "", expires=datetime(2030, 1, 2, 3, 4, 5))
    assert set_cookie_values([full, naive, {"name": "b", "value": "2"}]) == [
        "id=x; Path=/; Domain=example.com; Expires=Wed, 02 Jan 2030 02:04:05 GMT; "
        "Max-Age=60; Secure; HttpOnly; SameSite=Strict",
        "n=; Expires=Wed, 02 Jan 2030 03:04:05 GMT",
        "b=2",
    ]
    assert set_cookie_values({"a": "1"}) == ["a=1"]


@pytest.mark.parametrize(
    "cookie",
    [
        Cookie("a b", "x"),
        Cookie("a", "x;y"),
        Cookie("a", "x\r\nSet-Cookie: b=1"),
        Cookie("a", 'x"'),
        Cookie("a", "x", path="/;x"),
        Cookie("a", "x", domain="x\n"),
        Cookie("a", "x", same_site="no"),  # type: ignore[arg-type]
    ],
)
def test_cookies_that_cannot_be_set(cookie: Cookie) -> None:
    with pytest.raises(ValueError):
        set_cookie_values([cookie])


def test_wrong_cookies() -> None:
    with pytest.raises(ValueError, match=r"^cookie a is there twice$"):
        set_cookie_values([Cookie("a", "1"), Cookie("a", "2")])
    with pytest.raises(TypeError):
        set_cookie_values("a=1")  # type: ignore[arg-type]


# -- requests --------------------------------------------------------------------------

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (HEAD % b"Upgrade: websocket", True),
        (HEAD % b"UPGRADE:WebSocket", True),
        (HEAD % b"Upgrade: h2c", False),
        (HEAD % b"X-Upgrade: websocket", False),
        (b"POST / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (Request("/", Headers({"Upgrade": "WebSocket"})), True),
        (Request("/", Headers({"Upgrade": "websocket"}), "POST"), False),
        (Request("/", Headers()), False),
        ({"Upgrade": "websocket"}, True),
        ({}, False),
    ],
)
def test_is_upgrade(request_: Any, expected: bool) -> None:
    assert is_upgrade(request_) is expected


# -- URLs and subprotocols -------------------------------------------------------------


@pytest.mark.parametrize(("url", "expected"), URLS)
def test_urls(url: str, expected: str) -> None:
    parsed = parse_url(url)
    assert parsed.href == expected
    assert parse_url(parsed.href) == parsed
    assert parsed.uri.isascii()


# Relative ones are for pages; and the last is a host for Chromium, which errs there.
REFUSED = [
    *BAD_URLS, "", "/relative", "localhost", "//x/", "ws://a:1:2/", "ws://a%ff/",
    "ws://a.1/", "ws://1.0xg.2/", "ws://[1::2%25eth0]/", "ws://local host/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(DOMSyntaxError, match=r"^invalid URL"):
        parse_url(url)


def test_urls_that_browsers_disagree_on() -> None:
    # As the standard says; Chromium escapes the first, and others not the second.
    assert parse_url("ws://localhost/|^").href == "ws://localhost/|%5E"


def test_origins_and_user_names() -> None:
    assert parse_url("http://a@Host:81/x").origin == "ws://host:81"
    assert parse_url("wss://host:443/x").origin == "wss://host"
    assert parse_url("ws://[1:2:3:4:5:6:7:8]").origin == "ws://[1:2:3:4:5:6:7:8]"
    assert parse_url("ws://a@host/").uri == "ws://a:@host/"
    with pytest.raises(TypeError):
        parse_url(b"ws://x/")  # type: ignore[arg-type]


def test_subprotocols() -> None:
    assert check_protocols("chat") == ["chat"]
    assert check_protocols(["chat", "CHAT"]) == ["chat", "CHAT"]
    assert check_protocols(()) == []
    for wrong in (["a", "a"], [""], "", ["a b"], ["a,b"], ["é"]):
        with pytest.raises(DOMSyntaxError):
            check_protocols(wrong)
    with pytest.raises(TypeError):
        check_protocols([1])  # type: ignore[list-item]


def test_lone_surrogates() -> None:
    assert usv_string("a\ud800b\udc00\U0001f600") == "a\ufffdb\ufffd\U0001f600"
    assert usv_string("\ud83d\ude00") == "\U0001f600"


@pytest.mark.parametrize(
    "host",
    ["0x-f17", "0x_1", "1_0", "0o17", "0x0x1", "0x+1", "+1", "08", "-1", "1.0_7"],
)
def test_numbers_of_hosts_have_digits_only(host: str) -> None:
    """What Python takes for a number beside them is none, or below zero."""
    with pytest.raises(DOMSyntaxError, match="host is not an IPv4 address"):
        parse_url(f"ws://{host}.1/")
