"""WebSocket URIs (RFC 6455, 3), and IRIs that can be written as one."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]

# RFC 3986, appendix B, with the authority taken apart.
_match_uri = re.compile(
    r"""
    (?:(?P<scheme>[^:/?\#]+):)?
    (?P<authority>//
        (?:(?P<userinfo>[^/?\#]*)@)?
        (?P<host>\[[^]/?\#]*\]|[^:/?\#]*)
        (?::(?P<port>[^/?\#]*))?
    )?
    (?P<path>(?(authority)(?:/[^?\#]*)?|[^?\#]*))
    (?:\?(?P<query>[^\#]*))?
    (?P<fragment>\#.*)?
    """,
    re.VERBOSE | re.DOTALL,
).fullmatch

_find_control = re.compile(r"[\x00-\x20\x7f-\x9f]").search
_is_name = re.compile(r"[-._~!$&'()*+,;=0-9A-Za-z]+").fullmatch
# Not the whole grammar: what is wrong inside the brackets, connecting will tell.
_is_ipv6 = re.compile(
    r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%25[-._~0-9A-Za-z]+)?"
).fullmatch

# The delimiters of RFC 3987, and what percent-encoding itself needs.
_SAFE = ":/?#[]@!$&'()*+,;=%"


@dataclasses.dataclass
class WebSocketURI:
    """A WebSocket URI, taken apart.

    Attributes:
        secure: Whether it is a ``wss`` URI.
        host: Host name in lower case, or an address without brackets.
        port: Port, also when the URI does not name it.
        path: Path; may be empty.
        query: What follows the question mark; empty when there is none.
        username: User name, decoded; ``None`` when there is none.
        password: Password, decoded; ``None`` when there is none.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    @property
    def resource_name(self) -> str:
        """Path and query, as the request line has them (RFC 6455, 3)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password, or ``None``."""
        if self.username is None or self.password is None:
            return None
        return (self.username, self.password)


def parse_uri(uri: str) -> WebSocketURI:
    """Parse and check a WebSocket URI.

    An IRI is accepted: its host is written in Punycode and the rest percent-encoded.

    Args:
        uri: The URI, ``ws://`` or ``wss://``.

    Raises:
        InvalidURI: If it cannot be connected to; the text says why.
        TypeError: If it is not text.
    """
    if not isinstance(uri, str):
        raise TypeError(f"uri must be str, not {type(uri).__name__}")
    control = _find_control(uri)
    if control:
        what = "space" if control[0] == " " else "control character"
        raise InvalidURI(uri, f"{what} at {control.start()}")
    match = _match_uri(uri)
    assert match is not None  # every text without controls matches

    scheme = match["scheme"]
    if scheme is None:
        raise InvalidURI(uri, "scheme is missing, expected ws or wss")
    if scheme.lower() not in ("ws", "wss"):
        raise InvalidURI(uri, f"scheme is {scheme}, expected ws or wss")
    secure = scheme.lower() == "wss"
    if match["fragment"] is not None:
        raise InvalidURI(uri, "fragment isn't allowed (RFC 6455, 3)")
    if not match["host"]:
        raise InvalidURI(uri, "hostname isn't provided")

    username, password = _parse_userinfo(uri, match["userinfo"])
    return WebSocketURI(
        secure,
        _parse_host(uri, match["host"]),
        _parse_port(uri, match["port"]) or (443 if secure else 80),
        _encode(uri, match["path"]),
        _encode(uri, match["query"] or ""),
        username,
        password,
    )


def _parse_host(uri: str, host: str) -> str:
    if host[0] == "[":
        if not _is_ipv6(host[1:-1]):
            raise InvalidURI(uri, "host isn't a valid IPv6 address")
        return host[1:-1].lower().replace("%25", "%")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as exc:
            raise InvalidURI(uri, "host isn't a valid domain name") from exc
    if not _is_name(host):
        raise InvalidURI(uri, "host contains a character that isn't allowed")
    return host.lower()


def _parse_port(uri: str, port: str | None) -> int | None:
    if not port:
        return None
    if not (port.isascii() and port.isdigit()):
        raise InvalidURI(uri, "port isn't a number")
    # Without its zeros first: int() takes no more than some thousand digits.
    digits = port.lstrip("0") or "0"
    if len(digits) > 5 or not 1 <= int(digits) <= 65535:
        raise InvalidURI(uri, "port is out of range, expected 1 to 65535")
    return int(digits)


def _parse_userinfo(uri: str, userinfo: str | None) -> tuple[str | None, str | None]:
    if userinfo is None:
        return None, None
    username, colon, password = userinfo.partition(":")
    if not colon:
        raise InvalidURI(uri, "username is provided without password")
    try:
        username = urllib.parse.unquote(username, errors="strict")
        password = urllib.parse.unquote(password, errors="strict")
    except UnicodeDecodeError as exc:
        raise InvalidURI(uri, "username or password isn't valid UTF-8") from exc
    if ":" in username:
        raise InvalidURI(uri, "username contains a colon (RFC 7617, 2)")
    return username, password


def _encode(uri: str, text: str) -> str:
    if text.isascii():
        return text
    try:
        return urllib.parse.quote(text, safe=_SAFE)
    except UnicodeEncodeError as exc:
        raise InvalidURI(uri, "path or query contains a surrogate") from exc
