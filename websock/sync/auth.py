"""HTTP Basic Authentication for servers, as a ``process_request`` hook."""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..asyncio.auth import checker
from ..exceptions import InvalidHeader
from ..headers import build_www_authenticate_basic, parse_authorization_basic
from ..http11 import Request, Response

if TYPE_CHECKING:
    from .incoming import ServerConnection

__all__ = ["basic_auth"]

Credentials = tuple[str, str]


def basic_auth(
    realm: str = "",
    credentials: Credentials | Iterable[Credentials] | None = None,
    check_credentials: Callable[[str, str], bool] | None = None,
) -> Callable[[ServerConnection, Request], Response | None]:
    """Make a ``process_request`` hook that asks for a user name and a password.

    ::

        serve(handler, "localhost", 8765, process_request=basic_auth(
            realm="my server", credentials=("hello", "iloveyou"),
        ))

    A connection that passes has the user name in its ``username`` attribute; others
    are answered with 401.  Passwords travel in clear text: use it over TLS.

    Args:
        realm: What is protected; shown by browsers.
        credentials: A user name and its password, or several such pairs.
        check_credentials: Function that is called with a user name and a password,
            and tells whether they are right.

    Raises:
        TypeError: If ``credentials`` are not pairs of text.
        ValueError: If both ``credentials`` and ``check_credentials`` are given, or
            none, or ``realm`` cannot be in a header.
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    challenge = build_www_authenticate_basic(realm)
    check = check_credentials
    if check is None:
        check = checker(credentials)

    def refuse(connection: ServerConnection, text: str) -> Response:
        response = connection.respond(http.HTTPStatus.UNAUTHORIZED, text)
        response.headers["WWW-Authenticate"] = challenge
        return response

    def process_request(
        connection: ServerConnection, request: Request
    ) -> Response | None:
        values = request.headers.get_all("Authorization")
        if not values:
            return refuse(connection, "Missing credentials\n")
        try:
            if len(values) > 1:
                raise InvalidHeader("Authorization", "multiple values")
            username, password = parse_authorization_basic(values[0])
        except InvalidHeader:
            return refuse(connection, "Unsupported credentials\n")
        if not check(username, password):
            return refuse(connection, "Invalid credentials\n")
        connection.username = username
        return None

    return process_request
