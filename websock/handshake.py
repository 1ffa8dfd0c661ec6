"""The opening handshake (RFC 6455, 4): checks and negotiation, as pure functions.

``protocol.py`` calls these with requests and responses that were parsed, and sends what
they return; nothing here reads, writes or keeps anything. The checks of the server and
of the client stand side by side, and :func:`rejection` is the one table that says which
HTTP answer a failure gets.
"""

from __future__ import annotations

import binascii
import hashlib
import http
import os
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from .constants import VERSION
from .datastructures import Headers
from .exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidHost,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    InvalidVersion,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
    UnsafeHeader,
)
from .extensions.base import (
    ClientExtensionFactory,
    Extension,
    ServerExtensionFactory,
)
from .headers import (
    build_extension,
    parse_connection,
    parse_extension,
    parse_extension_cached,
    parse_subprotocol,
    parse_upgrade,
)
from .http11 import Request, Response, check_no_body
from .typing import ExtensionHeader, Origin, Subprotocol

__all__ = [
    "accept_extensions",
    "accept_key",
    "accept_subprotocol",
    "check_host",
    "check_origin",
    "check_request",
    "check_response",
    "generate_key",
    "get_host",
    "get_origin",
    "get_subprotocols",
    "negotiate_extensions",
    "rejection",
    "select_subprotocol",
]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# 16 bytes in base64, the last digit as lenient as other servers are.
_is_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch

# RFC 3986, 3.2.2 and 3.2.3, as far as a Host header needs it.
_is_host = re.compile(
    r"(?:[-._~!$&'()*+,;=%0-9A-Za-z]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
).fullmatch

# RFC 9112, 3.2.2, and RFC 6455, 4.1: what is sent to a proxy, with its authority.
_is_absolute = re.compile(r"(?:https?|wss?)://([^/?#]*)[^#]*", re.IGNORECASE).fullmatch
_cut_port = re.compile(r":[0-9]*\Z").sub


def generate_key() -> str:
    """Return a random value for ``Sec-WebSocket-Key``."""
    return binascii.b2a_base64(os.urandom(16), newline=False).decode()


def accept_key(key: str) -> str:
    """Return the value of ``Sec-WebSocket-Accept`` that answers a key.

    Args:
        key: Value of ``Sec-WebSocket-Key``.
    """
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


_Index: TypeAlias = Mapping[str, str | list[str]]


def _get_one(index: _Index, name: str) -> str | None:
    value = index.get(name.lower())
    if value.__class__ is list:
        raise InvalidHeader(name, "multiple values")
    return cast("str | None", value)


def _check_upgrade(index: _Index) -> None:
    """Check ``Connection`` and ``Upgrade``, the same on both sides."""
    if index.get("connection") != "Upgrade":
        values = _get_all(index, "connection")
        options = [item for value in values for item in parse_connection(value)]
        if not any(item.lower() == "upgrade" for item in options):
            raise InvalidUpgrade("Connection", ", ".join(options) if options else None)
    if index.get("upgrade") != "websocket":
        values = _get_all(index, "upgrade")
        items = [item for value in values for item in parse_upgrade(value)]
        if not (len(items) == 1 and items[0].lower() == "websocket"):
            raise InvalidUpgrade("Upgrade", ", ".join(items) if items else None)


def _get_all(index: _Index, name: str) -> list[str]:
    value = index.get(name)
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


# -- server ------------------------------------------------------------------------


def check_request(request: Request) -> str:
    """Check that a request asks for a WebSocket (RFC 6455, 4.2.1).

    Args:
        request: The request.

    Returns:
        The value of ``Sec-WebSocket-Key``.

    Raises:
        InvalidMethod: If the method is not GET.
        InvalidProtocol: If the protocol is not HTTP/1.1.
        InvalidMessage: If the target is none for GET, or the request announces a body.
        InvalidUpgrade: If ``Connection`` or ``Upgrade`` do not ask for it.
        InvalidVersion: If the version of the protocol is not 13.
        InvalidHeader: If ``Host`` or the key are missing, doubled or invalid.
    """
    if request.method != "GET":
        raise InvalidMethod(request.method)
    if request.protocol != "HTTP/1.1":
        raise InvalidProtocol(request.protocol)
    if request.path[:1] != "/" and not _is_absolute(request.path):
        raise InvalidMessage(
            "request target is neither a path nor an absolute URI (RFC 9112, 3.2)"
        )
    index = request.headers.index()
    if "content-length" in index or "transfer-encoding" in index:
        check_no_body(request.headers)
    if index.get("connection") != "Upgrade" or index.get("upgrade") != "websocket":
        _check_upgrade(index)

    get_host(request.headers)

    key = index.get("sec-websocket-key")
    if not key or key.__class__ is list:
        raise InvalidHeader("Sec-WebSocket-Key", _get_one(index, "Sec-WebSocket-Key"))
    if not _is_key(key):  # type: ignore[arg-type]
        raise InvalidHeaderValue("Sec-WebSocket-Key", key)  # type: ignore[arg-type]

    if index.get("sec-websocket-version") != VERSION:
        raise InvalidVersion(_get_one(index, "Sec-WebSocket-Version"))
    return key  # type: ignore[return-value]


def get_host(headers: Headers) -> str:
    """Return the ``Host`` of a request.

    Args:
        headers: Headers of the request.

    Raises:
        InvalidHeader: If it is missing, doubled or invalid.
    """
    index = headers.index()
    host = index.get("host")
    if not host or host.__class__ is list:
        raise InvalidHeader("Host", _get_one(index, "Host"))
    if not _is_host(host):  # type: ignore[arg-type]
        raise InvalidHeaderValue("Host", host)  # type: ignore[arg-type]
    return host  # type: ignore[return-value]


def check_host(request: Request, hosts: Sequence[re.Pattern[str] | str] | None) -> None:
    """Check that a request is for one of a server's own names.

    A target that is a whole URI names the server a second time, and a proxy may have
    gone by that name (RFC 9112, 3.2.2): then both must be allowed.

    Args:
        request: The request.
        hosts: What is allowed: names, which stand for any port, names with a port,
            expressions to match in full what comes before the port. ``None`` instead
            of a list allows everything.

    Raises:
        InvalidHeader: If ``Host`` is missing, doubled or invalid.
        InvalidHost: If it is not allowed.
    """
    if hosts is None:
        return
    named = [get_host(request.headers)]
    absolute = _is_absolute(request.path)
    if absolute is not None:
        named.append(absolute[1])
    for host in named:
        if not _is_allowed(host.lower(), hosts):
            raise InvalidHost(host)


def _is_allowed(host: str, hosts: Sequence[re.Pattern[str] | str]) -> bool:
    name = _cut_port("", host)
    for allowed in hosts:
        if isinstance(allowed, re.Pattern):
            if allowed.fullmatch(name) is not None:
                return True
        elif allowed.lower() in (name, host):
            return True
    return False


def get_origin(headers: Headers) -> Origin | None:
    """Return the ``Origin`` of a request.

    Args:
        headers: Headers of the request.

    Raises:
        InvalidHeader: If there is more than one.
    """
    index = headers.index()
    if "origin" not in index:
        return None
    origin = _get_one(index, "Origin")
    return None if origin is None else Origin(origin)


def check_origin(
    origin: Origin | None,
    origins: Sequence[Origin | re.Pattern[str] | None] | None,
) -> None:
    """Check the origin of a request against those that are allowed.

    Args:
        origin: The origin, ``None`` when the request has none.
        origins: What is allowed: text to be equal to, expressions to match in full,
            ``None`` for a request without origin. ``None`` instead of a list allows
            everything.

    Raises:
        InvalidOrigin: If it is not allowed.
    """
    if origins is None:
        return
    for allowed in origins:
        if isinstance(allowed, re.Pattern):
            if origin is not None and allowed.fullmatch(origin) is not None:
                return
        elif allowed == origin:
            return
    raise InvalidOrigin(origin)


def negotiate_extensions(
    headers: Headers,
    factories: Sequence[ServerExtensionFactory] | None,
) -> tuple[str | None, list[Extension]]:
    """Choose among the extensions that a client offers (RFC 6455, 9.1).

    Offers are tried in the client's order, and for each one the factories in ours;
    the first factory that takes an offer gets it.

    Args:
        headers: Headers of the request.
        factories: What the server supports.

    Returns:
        The value of ``Sec-WebSocket-Extensions`` for the response, ``None`` when
        there is none, and the extensions.

    Raises:
        InvalidHeaderFormat: If the header does not match its grammar.
    """
    chosen: list[ExtensionHeader] = []
    extensions: list[Extension] = []
    index = headers.index()
    if not factories or "sec-websocket-extensions" not in index:
        return None, extensions
    for value in _get_all(index, "sec-websocket-extensions"):
        for name, params in parse_extension_cached(value):
            for factory in factories:
                if factory.name != name:
                    continue
                try:
                    answer, extension = factory.process_request_params(
                        params, extensions
                    )
                except NegotiationError:
                    continue
                chosen.append((name, answer))
                extensions.append(extension)
                break
    return (build_extension(chosen) if chosen else None), extensions


def get_subprotocols(headers: Headers) -> list[Subprotocol]:
    """Return the subprotocols of a request or response, in order.

    Args:
        headers: Headers of the request or response.

    Raises:
        InvalidHeaderFormat: If the header does not match its grammar.
    """
    index = headers.index()
    if "sec-websocket-protocol" not in index:
        return []
    values = _get_all(index, "sec-websocket-protocol")
    return [item for value in values for item in parse_subprotocol(value)]


def select_subprotocol(
    offered: Sequence[Subprotocol],
    supported: Sequence[Subprotocol] | None,
) -> Subprotocol | None:
    """Choose a subprotocol: the first of the server's that the client offers.

    Args:
        offered: What the client offers.
        supported: What the server supports, in order of preference.

    Returns:
        The subprotocol; ``None`` when the server supports none at all.

    Raises:
        NegotiationError: If the server supports some and none is offered.
    """
    if not supported:
        return None
    for subprotocol in supported:
        if subprotocol in offered:
            return subprotocol
    raise NegotiationError(
        ("no common subprotocol" if offered else "missing subprotocol")
        + f", expected one of {', '.join(supported)}"
    )


_INTRO = "Failed to open a WebSocket connection"


def rejection(
    exc: BaseException,
) -> tuple[http.HTTPStatus, str, list[tuple[str, str]]]:
    """Say how a server answers a failure of the opening handshake.

    The text never quotes what the peer sent.

    Args:
        exc: The failure.

    Returns:
        The status, the text for the body, and headers to add.
    """
    status = http.HTTPStatus.BAD_REQUEST
    headers: list[tuple[str, str]] = []
    hint = ""
    # Order matters: subclasses come before their bases.
    match exc:
        case UnsafeHeader():  # a mistake of the program, not of the peer
            return _internal_error()
        case InvalidOrigin():
            status = http.HTTPStatus.FORBIDDEN
            reason = "origin not allowed" if exc.value else "missing Origin header"
        case InvalidHost():
            # RFC 9110, 15.5.20: the request came to a server that it is not for.
            status = http.HTTPStatus.MISDIRECTED_REQUEST
            reason = "host not allowed"
        case InvalidMethod():
            status = http.HTTPStatus.METHOD_NOT_ALLOWED
            reason = "unsupported HTTP method, expected GET"
            headers = [("Allow", "GET")]
        case InvalidProtocol():
            reason = "unsupported HTTP version, expected HTTP/1.1"
        case InvalidUpgrade():
            status = http.HTTPStatus.UPGRADE_REQUIRED
            reason = _header_reason(exc)
            headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)]
            hint = (
                "\nThis is a WebSocket server. A browser cannot open it as a page;"
                "\nuse a WebSocket client.\n"
            )
        case InvalidVersion():
            status = http.HTTPStatus.UPGRADE_REQUIRED
            reason = f"{_header_reason(exc)}, expected {VERSION}"
            headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)]
        case InvalidHeader():
            reason = _header_reason(exc)
        case RequestLineTooLong():
            status = http.HTTPStatus.REQUEST_URI_TOO_LONG
            reason = str(exc)
        case HeaderLineTooLong() | TooManyHeaders():
            status = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            reason = str(exc)
        case TimeoutError():
            status = http.HTTPStatus.REQUEST_TIMEOUT
            reason = "the request didn't arrive in time"
        case InvalidMessage():
            reason = str(exc)
        case NegotiationError() if type(exc) is NegotiationError:
            reason = str(exc)
        case InvalidHandshake():
            reason = "invalid request"
        case _:
            return _internal_error()
    return status, f"{_INTRO}: {reason}.\n{hint}", headers


def _header_reason(exc: InvalidHeader) -> str:
    if exc.value is None:
        return f"missing {exc.name} header"
    return f"{'invalid' if exc.value else 'empty'} {exc.name} header"


def _internal_error() -> tuple[http.HTTPStatus, str, list[tuple[str, str]]]:
    return (
        http.HTTPStatus.INTERNAL_SERVER_ERROR,
        f"{_INTRO}.\nSee server log for more information.\n",
        [],
    )


# -- client ------------------------------------------------------------------------


def check_response(response: Response, key: str) -> None:
    """Check that a response accepts the connection (RFC 6455, 4.1).

    Args:
        response: The response.
        key: Value of ``Sec-WebSocket-Key`` of the request.

    Raises:
        InvalidStatus: If the status is not 101.
        InvalidUpgrade: If ``Connection`` or ``Upgrade`` are missing or wrong.
        InvalidHeader: If ``Sec-WebSocket-Accept`` does not answer the key.
    """
    if response.status_code != 101:
        raise InvalidStatus(response)
    headers = response.headers
    index = headers.index()
    _check_upgrade(index)
    accept = _get_one(index, "Sec-WebSocket-Accept")
    if accept is None:
        raise InvalidHeader("Sec-WebSocket-Accept")
    if accept != accept_key(key):
        raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)


def accept_extensions(
    headers: Headers,
    factories: Sequence[ClientExtensionFactory] | None,
) -> list[Extension]:
    """Check the extensions that a server accepted (RFC 6455, 9.1).

    Args:
        headers: Headers of the response.
        factories: Extensions that were offered.

    Returns:
        The extensions of the connection.

    Raises:
        NegotiationError: If the server accepted what was not offered.
        InvalidHeaderFormat: If the header does not match its grammar.
    """
    extensions: list[Extension] = []
    for value in headers.get_all("sec-websocket-extensions"):
        if not factories:
            raise NegotiationError("no extensions were offered")
        for name, params in parse_extension(value):
            reason: NegotiationError | None = None
            for factory in factories:
                if factory.name != name:
                    continue
                try:
                    extensions.append(
                        factory.process_response_params(params, extensions)
                    )
                except NegotiationError as exc:
                    reason = exc
                    continue
                break
            else:
                shown = build_extension([(name, params)])[:120]
                raise NegotiationError(
                    f"extension wasn't offered like this: {shown}"
                ) from reason
    return extensions


def accept_subprotocol(
    headers: Headers,
    subprotocols: Sequence[Subprotocol] | None,
) -> Subprotocol | None:
    """Check the subprotocol that a server chose (RFC 6455, 4.1).

    Args:
        headers: Headers of the response.
        subprotocols: Subprotocols that were offered.

    Returns:
        The subprotocol of the connection, if any.

    Raises:
        NegotiationError: If the server chose one that was not offered.
        InvalidHeader: If it chose several.
        InvalidHeaderFormat: If the header does not match its grammar.
    """
    chosen = get_subprotocols(headers)
    if not chosen:
        return None
    if len(chosen) > 1:
        raise InvalidHeader("Sec-WebSocket-Protocol", "multiple values")
    if not subprotocols:
        raise NegotiationError("no subprotocols were offered")
    if chosen[0] not in subprotocols:
        raise NegotiationError(f"subprotocol wasn't offered: {chosen[0][:120]}")
    return chosen[0]
