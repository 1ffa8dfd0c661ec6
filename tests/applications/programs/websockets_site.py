"""What the two servers on websockets have in common: who is let in, and what to."""

from __future__ import annotations

import http
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from journal import talk as noted
from websockets.http11 import Request, Response

LIMIT = 100_000
PROTOCOLS = ("chat.v2", "chat.v1")
PATHS = {"chat", "echo", "protocols", "upload", "raise", "return", "close"}


def query_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.path).query))


def first_part(path: str) -> str:
    return urlsplit(path).path.split("/")[1]


def check(ws: Any, request: Request) -> Response | None:
    """Answer requests that are not let in."""
    respond: Callable[..., Response] = ws.respond
    part = first_part(request.path)
    if part == "deny":
        with noted(query_of(request)["talk"]):
            return respond(http.HTTPStatus.FORBIDDEN, "go away\n")
    if part == "raise-early":
        with noted(query_of(request)["talk"]):
            raise LookupError("before the handshake")
    if part not in PATHS:
        return respond(http.HTTPStatus.NOT_FOUND, "no such path\n")
    return None


def select_subprotocol(ws: Any, offered: Any) -> Any:
    return next((name for name in PROTOCOLS if name in offered), None)
