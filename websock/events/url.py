"""URLs as browsers read them: the part of the URL standard that ``ws`` needs.

``parse_uri()`` is strict, as RFC 6455 is.  Browsers mend what they are given, and tell
the result as ``WebSocket.url``.  International host names go through Python's ``idna``
codec, which is older than what browsers use: they differ in a few letters.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from .errors import DOMSyntaxError

__all__ = ["WebSocketURL", "parse_url"]

_SCHEMES = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_HTTP = {"http": "ws", "https": "wss"}

_strip = "".join(map(chr, range(0x21)))
_drop = str.maketrans("", "", "\t\n\r")
_match_scheme = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[/\\]*").match
_forbidden_in_host = re.compile(r"[\x00-\x20\x7f\"#%/:<>?@\[\\\]^`{|}]").search
_is_ipv6 = re.compile(r"\[([0-9A-Fa-f:.]+)\]").fullmatch

# Everything that stays as it is, for quote(), which escapes all but these.
_ALWAYS = "!$%&'()*+,-./:;=@[\\]_|~"
_PATH_SAFE = _ALWAYS
_QUERY_SAFE = _ALWAYS.replace("'", "") + "?^`{}"
_USER_SAFE = "!$%&'()*+,-._~"

_ONE_DOT = (".", "%2e")
_TWO_DOTS = ("..", ".%2e", "%2e.", "%2e%2e")


class WebSocketURL(NamedTuple):
    """A URL, normalised."""

    href: str
    """The URL as ``WebSocket.url`` tells it."""

    origin: str
    """Scheme, host and port."""

    uri: str
    """The URL to connect to."""


def parse_url(text: str) -> WebSocketURL:
    """Parse the URL of a WebSocket.

    Args:
        text: An absolute URL: ``ws``, ``wss``, or ``http`` and ``https`` for these.

    Raises:
        DOMSyntaxError: When it cannot be used; the text says why.
        TypeError: When it is not text.
    """
    if not isinstance(text, str):
        raise TypeError(f"url must be str, not {type(text).__name__}")
    url = text.strip(_strip).translate(_drop)
    match = _match_scheme(url)
    if match is None:
        raise _bad(text, "it is not absolute, expected ws:// or wss://")
    scheme = match[1].lower()
    if scheme not in _SCHEMES:
        raise _bad(text, f"scheme is {scheme}, expected ws, wss, http or https")
    default_port = _SCHEMES[scheme]
    scheme = _HTTP.get(scheme, scheme)

    rest, hash_sign, _ = url[match.end() :].partition("#")
    if hash_sign:
        raise _bad(text, "it has a fragment")
    rest, question_mark, query = rest.partition("?")
    authority, *segments = re.split(r"[/\\]", rest)
    userinfo, _, host_port = authority.rpartition("@")
    username, _, password = userinfo.partition(":")
    split = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", host_port)
    assert split is not None  # anything matches
    host = _parse_host(text, split[1])
    port = _parse_port(text, split[2])

    origin = f"{scheme}://{host}"
    if port is not None and port != default_port:
        origin += f":{port}"
    path = _parse_path(segments)
    if question_mark:
        # An empty query is part of the URL, and changes nothing in a request.
        path += "?" + _escape(query, _QUERY_SAFE)
    where = origin[len(scheme) + 3 :]
    username, password = _escape(username, _USER_SAFE), _escape(password, _USER_SAFE)
    if not username and not password:
        return WebSocketURL(origin + path, origin, origin + path)
    shown = f"{username}:{password}" if password else username
    return WebSocketURL(
        f"{scheme}://{shown}@{where}{path}",
        origin,
        f"{scheme}://{username}:{password}@{where}{path}",
    )


def _bad(url: str, why: str) -> DOMSyntaxError:
    shown = url if len(url) <= 128 else url[:125] + "..."
    return DOMSyntaxError(f"invalid URL {shown!r}: {why}")


def _escape(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="replace")


def _parse_host(url: str, host: str) -> str:
    if not host:
        raise _bad(url, "it has no host")
    if host[0] == "[":
        match = _is_ipv6(host)
        try:
            if match is None:
                raise ValueError(host)
            return f"[{_compress(ipaddress.IPv6Address(match[1]))}]"
        except ValueError:
            raise _bad(url, "host is not an IPv6 address") from None
    try:
        name = unquote_to_bytes(host).decode()
        if not name.isascii():
            name = name.encode("idna").decode()
    except UnicodeError:
        raise _bad(url, "host is not a domain name") from None
    name = name.lower()
    if not name or _forbidden_in_host(name):
        raise _bad(url, "host contains a character that is not allowed")
    labels = name.removesuffix(".").split(".")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        return _parse_ipv4(url, labels)
    return name


def _compress(address: ipaddress.IPv6Address) -> str:
    # Addresses that hold an IPv4 one are written in hexadecimal too.
    packed = address.packed
    groups = [f"{packed[i] << 8 | packed[i + 1]:x}" for i in range(0, 16, 2)]
    runs = re.finditer(r"(?:(?<=:)|^)0(?::0)+(?=:|$)", ":".join(groups))
    longest = max(runs, key=lambda run: len(run[0]), default=None)
    if longest is None:
        return ":".join(groups)
    before, after = (
        ":".join(groups)[: longest.start()],
        ":".join(groups)[longest.end() :],
    )
    return f"{before.removesuffix(':')}::{after.removeprefix(':')}"


_NUMBER = re.compile(r"0x([0-9a-f]*)|(0[0-7]+)|(0|[1-9][0-9]*)")


def _parse_ipv4(url: str, labels: list[str]) -> str:
    """Read the old ways to write an address: few numbers, octal, hexadecimal."""
    if len(labels) > 4:
        raise _bad(url, "host is not an IPv4 address")
    numbers = []
    for label in labels:
        # int() alone takes signs, underscores and prefixes of its own.
        match = _NUMBER.fullmatch(label)
        if match is None:
            raise _bad(url, "host is not an IPv4 address")
        hexadecimal, octal, decimal = match.groups()
        try:
            if hexadecimal is not None:
                numbers.append(int(hexadecimal or "0", 16))
            elif octal is not None:
                numbers.append(int(octal, 8))
            else:
                numbers.append(int(decimal))
        except ValueError:  # it has thousands of digits
            raise _bad(url, "host is not an IPv4 address") from None
    *first, last = numbers
    if any(n > 255 for n in first) or last >= 256 ** (4 - len(first)):
        raise _bad(url, "host is not an IPv4 address")
    value = last
    for place, number in enumerate(first):
        value += number << (8 * (3 - place))
    return str(ipaddress.IPv4Address(value))


def _parse_port(url: str, port: str | None) -> int | None:
    if not port:
        return None
    if not (port.isascii() and port.isdigit()):
        raise _bad(url, "port is not a number")
    # Without its zeros first: int() takes no more than some thousand digits.
    digits = port.lstrip("0") or "0"
    if len(digits) > 5 or int(digits) > 65535:
        raise _bad(url, "port is out of range, expected at most 65535")
    return int(digits)


def _parse_path(segments: list[str]) -> str:
    path: list[str] = []
    for number, segment in enumerate(segments, 1):
        is_last = number == len(segments)
        if segment.lower() in _TWO_DOTS:
            if path:
                path.pop()
            if is_last:
                path.append("")
        elif segment.lower() in _ONE_DOT:
            if is_last:
                path.append("")
        else:
            path.append(_escape(segment, _PATH_SAFE))
    return "/" + "/".join(path)
