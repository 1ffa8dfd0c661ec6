"""Redirects of the opening handshake: where they lead, and what goes along.

A server may send a client to another URI (RFC 6455, 4.1).  What was meant for the
first server, credentials above all, is not for the second one.
"""

from __future__ import annotations

import urllib.parse

from .datastructures import Headers, HeadersLike
from .exceptions import InvalidStatus, InvalidURI
from .uri import WebSocketURI

__all__ = ["find_location", "is_same_origin", "keep_for_others"]

_STATUSES = frozenset((300, 301, 302, 303, 307, 308))

_SCHEMES = {"http": "ws", "https": "wss"}

# What one server must not learn of another, and the name of the first server.
_PRIVATE = frozenset(("authorization", "cookie", "host", "proxy-authorization"))


def find_location(exc: Exception, uri: str) -> str | None:
    """Return the URI that a failed handshake redirects to.

    Args:
        exc: Why the handshake failed.
        uri: URI of that handshake.

    Returns:
        The new URI, not checked; ``None`` when it is not a redirect.

    Raises:
        InvalidURI: If it leads to something that cannot even be taken apart.
    """
    if not (isinstance(exc, InvalidStatus) and exc.response.status_code in _STATUSES):
        return None
    locations = exc.response.headers.get_all("Location")
    if len(locations) != 1:
        return None
    # urljoin() knows ws and wss. A fragment means nothing here.
    try:
        location, _ = urllib.parse.urldefrag(urllib.parse.urljoin(uri, locations[0]))
    except ValueError:
        # Such as a bracket that is not closed.
        raise InvalidURI(locations[0], "redirect to something malformed") from None
    scheme, colon, rest = location.partition(":")
    return _SCHEMES.get(scheme.lower(), scheme) + colon + rest


def is_same_origin(one: WebSocketURI, other: WebSocketURI) -> bool:
    """Tell whether two URIs have scheme, host and port in common (RFC 6454, 4)."""
    return (one.secure, one.host, one.port) == (other.secure, other.host, other.port)


def keep_for_others(headers: HeadersLike | None) -> Headers | None:
    """Return the headers that a server of another origin may see.

    Args:
        headers: Headers that the caller added to the request.
    """
    if headers is None:
        return None
    return Headers(
        (name, value)
        for name, value in Headers(headers).raw_items()
        if name.lower() not in _PRIVATE
    )
