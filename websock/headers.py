"""Values of the headers of the opening handshake: parse, build, validate.

The grammars are those of RFC 9110 (lists, tokens, quoted strings) and RFC 6455, 9.1.
All of it takes time linear in the length of the value: values are split at commas, or
walked with expressions whose repetitions are possessive and cannot backtrack.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Sequence

from .exceptions import InvalidHeaderFormat, InvalidHeaderValue
from .typing import (
    ConnectionOption,
    ExtensionHeader,
    ExtensionName,
    ExtensionParameter,
    Subprotocol,
    UpgradeProtocol,
)

__all__ = [
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_subprotocols",
]

_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]++"
_QUOTED = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'

_is_token = re.compile(_TOKEN).fullmatch
_is_protocol = re.compile(f"{_TOKEN}(?:/{_TOKEN})?").fullmatch
_match_name = re.compile(rf"({_TOKEN})[ \t]*+").match
_match_parameter = re.compile(
    rf";[ \t]*+({_TOKEN})[ \t]*+(?:=[ \t]*+(?:({_TOKEN})|({_QUOTED}))[ \t]*+)?"
).match
_match_commas = re.compile(r"[ \t,]*+").match
_unquote = re.compile(r"\\(.)").sub
_is_quotable = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_needs_backslash = re.compile(r'(["\\])').sub
_match_basic = re.compile(r"basic ([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE).fullmatch


def build_host(
    host: str,
    port: int,
    secure: bool,
    *,
    always_include_port: bool = False,
) -> str:
    """Build a ``Host`` header.

    Args:
        host: Host name or address.
        port: Port.
        secure: Whether the connection uses TLS.
        always_include_port: Name the port even when it is the default one.
    """
    if ":" in host and not host.startswith("["):
        # RFC 6874, 3: the zone of an address means nothing to the other side.
        host = f"[{host.partition('%')[0]}]"
    if always_include_port or port != (443 if secure else 80):
        host = f"{host}:{port}"
    return host


# -- lists of tokens ---------------------------------------------------------------


def _split(header: str, header_name: str, what: str, slash: bool = False) -> list[str]:
    """Split a list at its commas; empty items are allowed and ignored."""
    valid = _is_protocol if slash else _is_token
    if valid(header):  # nearly always
        return [header]
    items = []
    start = 0
    for part in header.split(","):
        item = part.strip(" \t")
        if item:
            if not valid(item):
                raise InvalidHeaderFormat(
                    header_name, f"expected {what}", header, start
                )
            items.append(item)
        start += len(part) + 1
    if not items:
        raise InvalidHeaderFormat(header_name, f"expected {what}", header, len(header))
    return items


def parse_connection(header: str) -> list[ConnectionOption]:
    """Parse a ``Connection`` header.

    Args:
        header: Its value.

    Returns:
        The options, in the case they came in.

    Raises:
        InvalidHeaderFormat: If it is not a list of tokens.
    """
    return [ConnectionOption(s) for s in _split(header, "Connection", "a token")]


def parse_upgrade(header: str) -> list[UpgradeProtocol]:
    """Parse an ``Upgrade`` header.

    Args:
        header: Its value.

    Returns:
        The protocols, in the case they came in.

    Raises:
        InvalidHeaderFormat: If it is not a list of protocols.
    """
    items = _split(header, "Upgrade", "a protocol", slash=True)
    return [UpgradeProtocol(s) for s in items]


def parse_subprotocol(header: str) -> list[Subprotocol]:
    """Parse a ``Sec-WebSocket-Protocol`` header.

    Args:
        header: Its value.

    Returns:
        The subprotocols, in order of preference.

    Raises:
        InvalidHeaderFormat: If it is not a list of tokens.
    """
    items = _split(header, "Sec-WebSocket-Protocol", "a token")
    return [Subprotocol(s) for s in items]


def build_subprotocol(subprotocols: Sequence[Subprotocol]) -> str:
    """Build a ``Sec-WebSocket-Protocol`` header.

    Args:
        subprotocols: The subprotocols, in order of preference.
    """
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: Sequence[Subprotocol]) -> None:
    """Check a caller's list of subprotocols.

    Args:
        subprotocols: The list.

    Raises:
        TypeError: If it is not a list of text.
        ValueError: If one of them is not a token, or occurs twice.
    """
    if isinstance(subprotocols, str) or not isinstance(subprotocols, Sequence):
        raise TypeError(
            f"subprotocols must be a list, not {type(subprotocols).__name__}"
        )
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str):
            raise TypeError(
                f"subprotocol must be str, not {type(subprotocol).__name__}"
            )
        if not _is_token(subprotocol):
            raise ValueError(
                f"invalid subprotocol: {subprotocol!a} is not a token (RFC 6455, 4.1)"
            )
    if len(set(subprotocols)) != len(subprotocols):
        raise ValueError("invalid subprotocols: one occurs twice (RFC 6455, 4.1)")


# -- extensions --------------------------------------------------------------------


def parse_extension(header: str) -> list[ExtensionHeader]:
    """Parse a ``Sec-WebSocket-Extensions`` header.

    Args:
        header: Its value.

    Returns:
        For each extension its name and its parameters, pairs of a name and a value
        that is ``None`` when there is none.

    Raises:
        InvalidHeaderFormat: If it does not match the grammar.
    """
    return [(name, list(params)) for name, params in parse_extension_cached(header)]


def parse_extension_cached(header: str) -> tuple[ExtensionHeader, ...]:
    """Do the same as :func:`parse_extension`, with tuples in place of lists.

    Nearly every client is one of a few browsers and libraries and sends the same text
    as the one before.
    """
    # What is long is not worth keeping.
    if len(header) <= 128:
        return _parse_extension_cached(header)
    return _parse_extension(header)


def _parse_extension(header: str) -> tuple[ExtensionHeader, ...]:
    header_name = "Sec-WebSocket-Extensions"
    items: list[ExtensionHeader] = []
    end = len(header)
    pos = _skip_commas(header, 0)
    while True:
        match = _match_name(header, pos)
        if match is None:
            raise InvalidHeaderFormat(header_name, "expected a token", header, pos)
        name = ExtensionName(match[1])
        pos = match.end()
        parameters: list[ExtensionParameter] = []
        while pos < end and header[pos] == ";":
            match = _match_parameter(header, pos)
            if match is None:
                raise InvalidHeaderFormat(
                    header_name, "expected a parameter", header, pos
                )
            value: str | None = match[2]
            if match[3] is not None:
                # RFC 6455, 9.1: what the quotes contain must be a token.
                value = _unquote(r"\1", match[3][1:-1])
                if not _is_token(value):
                    raise InvalidHeaderFormat(
                        header_name,
                        "expected a token in quotes",
                        header,
                        match.start(3),
                    )
            parameters.append((match[1], value))
            pos = match.end()
        items.append((name, tuple(parameters)))
        if pos < end and header[pos] != ",":
            raise InvalidHeaderFormat(
                header_name, "expected a comma or a semicolon", header, pos
            )
        pos = _skip_commas(header, pos)
        if pos == end:
            return tuple(items)


_parse_extension_cached = functools.lru_cache(maxsize=32)(_parse_extension)


def _skip_commas(header: str, pos: int) -> int:
    match = _match_commas(header, pos)
    assert match is not None  # it matches nothing at all, too
    return match.end()


def build_extension(extensions: Sequence[ExtensionHeader]) -> str:
    """Build a ``Sec-WebSocket-Extensions`` header.

    Args:
        extensions: Names and parameters, as :func:`parse_extension` returns them.

    Raises:
        ValueError: If a name or a value is not a token.
    """
    return ", ".join(
        [_build_extension(name, tuple(params)) for name, params in extensions]
    )


@functools.lru_cache(maxsize=32)
def _build_extension(name: str, parameters: tuple[ExtensionParameter, ...]) -> str:
    if not _is_token(name):
        raise ValueError(f"invalid extension: {name!a} is not a token (RFC 6455, 9.1)")
    parts = [name]
    for key, value in parameters:
        part = key if value is None else f"{key}={value}"
        if not _is_token(key) or not (value is None or _is_token(value)):
            raise ValueError(
                f"invalid extension parameter: {part!a} is not made of tokens"
                " (RFC 6455, 9.1)"
            )
        parts.append(part)
    return "; ".join(parts)


# -- HTTP Basic Auth (RFC 7617) ----------------------------------------------------


def _quote(value: str) -> str:
    if not _is_quotable(value):
        raise ValueError(
            f"invalid quoted string: {value!a} contains a character that HTTP cannot"
            " carry (RFC 9110, 5.6.4)"
        )
    return '"' + _needs_backslash(r"\\\1", value) + '"'


def build_www_authenticate_basic(realm: str) -> str:
    """Build a ``WWW-Authenticate`` header for HTTP Basic Auth.

    Args:
        realm: Name of what is protected.

    Raises:
        ValueError: If the realm contains a control character.
    """
    return f'Basic realm={_quote(realm)}, charset="UTF-8"'


def parse_authorization_basic(header: str) -> tuple[str, str]:
    """Parse an ``Authorization`` header for HTTP Basic Auth.

    Args:
        header: Its value.

    Returns:
        User name and password. Bytes that are not UTF-8 become surrogates.

    Raises:
        InvalidHeaderFormat: If it does not match the grammar.
        InvalidHeaderValue: If the scheme is another one, or the credentials are not
            a user name and a password in base64.
    """
    match = _match_basic(header)
    if match is None:
        scheme = _match_name(header, 0)
        if scheme is None:
            raise InvalidHeaderFormat("Authorization", "expected a token", header, 0)
        if scheme[1].lower() != "basic":
            raise InvalidHeaderValue("Authorization", "unsupported scheme")
        # The header itself stays out of the text: it may be a password.
        raise InvalidHeaderFormat(
            "Authorization", "expected credentials", "(hidden)", scheme.end()
        )
    try:
        credentials = binascii.a2b_base64(match[1], strict_mode=True)
    except binascii.Error:
        raise InvalidHeaderValue(
            "Authorization", "credentials are not base64"
        ) from None
    username, colon, password = credentials.decode(errors="surrogateescape").partition(
        ":"
    )
    if not colon:
        raise InvalidHeaderValue("Authorization", "credentials have no colon")
    return username, password


def build_authorization_basic(username: str, password: str) -> str:
    """Build an ``Authorization`` header for HTTP Basic Auth.

    Args:
        username: User name; it cannot contain a colon.
        password: Password.

    Raises:
        ValueError: If the user name contains a colon.
    """
    if ":" in username:
        raise ValueError("username contains a colon (RFC 7617, 2)")
    credentials = f"{username}:{password}".encode(errors="surrogateescape")
    return "Basic " + binascii.b2a_base64(credentials, newline=False).decode()
