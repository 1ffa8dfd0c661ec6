"""HTTP Basic Authentication for servers, as a ``process_request`` hook."""

from __future__ import annotations

import hmac
import http
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..exceptions import InvalidHeader
from ..headers import build_www_authenticate_basic, parse_authorization_basic
from ..http11 import Request, Response

if TYPE_CHECKING:
    from .server import ServerConnection

__all__ = ["basic_auth"]

Credentials = tuple[str, str]
Check = Callable[[str, str], bool | Awaitable[bool]]


def basic_auth(
    realm: str = "",
    credentials: Credentials | Iterable[Credentials] | None = None,
    check_credentials: Check | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """Make a ``process_request`` hook that asks for a user name and a password.

    ::

        websock.serve(handler, "localhost", 8765, process_request=basic_auth(
            realm="my server", credentials=("hello", "iloveyou"),
        ))

    A connection that passes has the user name in its ``username`` attribute; others
    are answered with 401.  Passwords travel in clear text: use it over TLS.

    Args:
        realm: What is protected; shown by browsers.
        credentials: A user name and its password, or several such pairs.
        check_credentials: Function or coroutine function, called with a user name and
            a password, that tells whether they are right.

    Raises:
        TypeError: If ``credentials`` are not pairs of text.
        ValueError: If both ``credentials`` and ``check_credentials`` are given, or
            none, or ``realm`` cannot be in a header.
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    challenge = build_www_authenticate_basic(realm)
    check: Check
    if credentials is not None:
        check = checker(credentials)
    else:
        assert check_credentials is not None
        check = check_credentials

    def refuse(connection: ServerConnection, text: str) -> Response:
        response = connection.respond(http.HTTPStatus.UNAUTHORIZED, text)
        response.headers["WWW-Authenticate"] = challenge
        return response

    async def process_request(
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
        result = check(username, password)
        if isinstance(result, Awaitable):
            result = await result
        if not result:
            return refuse(connection, "Invalid credentials\n")
        connection.username = username
        return None

    return process_request


def checker(credentials: Any) -> Callable[[str, str], bool]:
    """Return a function that compares with fixed credentials, in constant time.

    Raises:
        TypeError: If they are not pairs of text.
    """
    pairs = [credentials] if is_pair(credentials) else list(credentials)
    for pair in pairs:
        if not is_pair(pair):
            raise TypeError("credentials must be a pair of str, or several such pairs")
    passwords = {user: encode(password) for user, password in pairs}

    def check(username: str, password: str) -> bool:
        # An unknown user takes as long as a wrong password.
        expected = passwords.get(username)
        given = encode(password)
        same = hmac.compare_digest(given if expected is None else expected, given)
        return same and expected is not None

    return check


def is_pair(item: Any) -> bool:
    """Tell whether something is a user name and a password."""
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and all(isinstance(part, str) for part in item)
    )


def encode(text: str) -> bytes:
    """Return the bytes of a text, whatever it is; headers need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")
