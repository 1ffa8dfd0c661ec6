"""basic_auth(), with a real server and client."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

import websock
from websock.asyncio.server import basic_auth


async def whoami(ws: Any) -> None:
    await ws.send(ws.username)


async def ask(hook: Any, *headers: str) -> str | tuple[int, str, str | None]:
    """Return the user name that the server saw, or its refusal."""
    async with websock.serve(whoami, "127.0.0.1", 0, process_request=hook) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        fields = [("Authorization", value) for value in headers]
        try:
            async with websock.connect(
                url, additional_headers=fields, proxy=None
            ) as ws:
                return str(await ws.recv())
        except websock.InvalidStatus as exc:
            response = exc.response
            return (
                response.status_code,
                response.body.decode(),
                response.headers.get("WWW-Authenticate"),
            )


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


CHALLENGE = 'Basic realm="a place", charset="UTF-8"'


def hook(**kwargs: Any) -> Any:
    return basic_auth("a place", **kwargs)


@pytest.mark.parametrize(
    "credentials",
    [("hello", "iloveyou"), [("goodbye", "x"), ("hello", "iloveyou")]],
)
def test_right_credentials(credentials: Any) -> None:
    got = asyncio.run(ask(hook(credentials=credentials), basic("hello", "iloveyou")))
    assert got == "hello"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([], "Missing credentials\n"),
        ([basic("hello", "wrong")], "Invalid credentials\n"),
        ([basic("nobody", "iloveyou")], "Invalid credentials\n"),
        ([basic("hello", "iloveyou")] * 2, "Unsupported credentials\n"),
        (["Bearer token"], "Unsupported credentials\n"),
        (["Basic !!!"], "Unsupported credentials\n"),
        (["Basic aGVsbG8="], "Unsupported credentials\n"),
    ],
)
def test_wrong_credentials(headers: list[str], text: str) -> None:
    got = asyncio.run(ask(hook(credentials=("hello", "iloveyou")), *headers))
    assert got == (401, text, CHALLENGE)


def test_user_of_the_url() -> None:
    async def main() -> str:
        async with websock.serve(
            whoami, "127.0.0.1", 0, process_request=hook(credentials=("é", "p:w"))
        ) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://%C3%A9:p%3Aw@127.0.0.1:{port}/"
            async with websock.connect(url, proxy=None) as ws:
                return str(await ws.recv())

    assert asyncio.run(main()) == "é"


def test_checking_functions() -> None:
    async def later(user: str, password: str) -> bool:
        await asyncio.sleep(0)
        return user == password

    for check in (later, lambda user, password: user == password):
        run = hook(check_credentials=check)
        assert asyncio.run(ask(run, basic("same", "same"))) == "same"
        run = hook(check_credentials=check)
        got = asyncio.run(ask(run, basic("same", "other")))
        assert got == (401, "Invalid credentials\n", CHALLENGE)


@pytest.mark.parametrize(
    ("kwargs", "kind"),
    [
        ({}, ValueError),
        ({"credentials": ("a", "b"), "check_credentials": print}, ValueError),
        ({"credentials": ("a", 1)}, TypeError),
        ({"credentials": [("a", "b", "c")]}, TypeError),
        ({"credentials": 3}, TypeError),
        ({"realm": "a\r\nb", "credentials": ("a", "b")}, ValueError),
    ],
)
def test_wrong_calls(kwargs: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        basic_auth(**kwargs)
