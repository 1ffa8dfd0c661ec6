"""Proxies: which one to use, and how to ask an HTTP proxy for a tunnel."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from importlib import import_module
from typing import Any

from .datastructures import Headers
from .exceptions import InvalidProxy
from .headers import build_authorization_basic, build_host
from .http11 import USER_AGENT, Request
from .uri import WebSocketURI

__all__ = [
    "Proxy",
    "get_proxy",
    "make_socks",
    "parse_proxy",
    "prepare_connect_request",
]

_DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}

_find_control = re.compile(r"[\x00-\x20\x7f-\x9f]").search


@dataclasses.dataclass
class Proxy:
    """The address of a proxy.

    Attributes:
        scheme: ``http``, ``https``, ``socks4``, ``socks4a``, ``socks5`` or
            ``socks5h``; with the last two of a kind, the proxy resolves names.
        host: Host name in lower case, or an address without brackets.
        port: Port, also when the URL does not name it.
        username: User name, decoded; ``None`` when there is none.
        password: Password, decoded; ``None`` when there is none.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password, or ``None``."""
        if self.username is None or self.password is None:
            return None
        return (self.username, self.password)


def parse_proxy(proxy: str) -> Proxy:
    """Parse and check the URL of a proxy.

    Args:
        proxy: The URL.

    Raises:
        InvalidProxy: If it cannot be used; the text says why.
        TypeError: If it is not text.
    """
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be str, not {type(proxy).__name__}")
    control = _find_control(proxy)
    if control:
        what = "space" if control[0] == " " else "control character"
        raise InvalidProxy(proxy, f"{what} at {control.start()}")
    try:
        parts = urllib.parse.urlsplit(proxy)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise InvalidProxy(proxy, str(exc)) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidProxy(
            proxy,
            f"scheme {parts.scheme} isn't supported, expected one of "
            + ", ".join(_DEFAULT_PORTS)
            if parts.netloc
            else "scheme is missing, expected for example http://host:port",
        )
    if not host:
        raise InvalidProxy(proxy, "hostname isn't provided")
    if parts.path not in ("", "/"):
        raise InvalidProxy(proxy, "path is meaningless")
    if parts.query:
        raise InvalidProxy(proxy, "query is meaningless")
    if parts.fragment:
        raise InvalidProxy(proxy, "fragment is meaningless")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise InvalidProxy(proxy, "host isn't a valid domain name") from None
    username, password = _parse_user_info(proxy, parts)
    return Proxy(
        parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], username, password
    )


def _parse_user_info(
    proxy: str, parts: urllib.parse.SplitResult
) -> tuple[str | None, str | None]:
    if parts.username is None:
        return None, None
    if parts.password is None:
        raise InvalidProxy(proxy, "username is provided without password")
    try:
        username = urllib.parse.unquote(parts.username, errors="strict")
        password = urllib.parse.unquote(parts.password, errors="strict")
    except UnicodeDecodeError:
        raise InvalidProxy(proxy, "username or password isn't valid UTF-8") from None
    if ":" in username and parts.scheme.startswith("http"):
        raise InvalidProxy(proxy, "username contains a colon (RFC 7617, 2)")
    return username, password


def get_proxy(uri: WebSocketURI) -> str | None:
    """Look up the proxy for a URI in the settings of the system.

    These are environment variables, such as ``https_proxy`` and ``no_proxy``, and on
    Windows and macOS the settings of the system. A proxy named for ``ws`` or ``wss``
    comes first, then SOCKS, then one for ``https``, even without TLS, since it surely
    makes tunnels (RFC 6455, 4.1), then one for ``http``.

    Args:
        uri: URI of the server.

    Returns:
        The URL of the proxy; ``None`` to connect directly.
    """
    import urllib.request  # takes long to import, and not every program connects

    if urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        return None
    proxies = urllib.request.getproxies()
    names = ("wss", "socks", "https")
    for name in names if uri.secure else ("ws", *names[1:], "http"):
        proxy = proxies.get(name)
        if proxy:
            if name == "socks" and proxy.startswith("http://"):
                # That is how getproxies() reports the settings of macOS.
                proxy = "socks5h" + proxy.removeprefix("http")
            return proxy
    return None


def prepare_connect_request(
    proxy: Proxy, ws_uri: WebSocketURI, user_agent_header: str | None = USER_AGENT
) -> bytes:
    """Build the request that asks an HTTP proxy for a tunnel (RFC 9110, 9.3.6).

    Args:
        proxy: The proxy; its user name and password go into the request.
        ws_uri: Where the tunnel shall end.
        user_agent_header: Value of ``User-Agent``; ``None`` for no such header.

    Raises:
        ValueError: If ``user_agent_header``, or the host of ``ws_uri``, cannot be sent.
    """
    target = build_host(
        ws_uri.host, ws_uri.port, ws_uri.secure, always_include_port=True
    )
    headers = Headers(Host=target)
    if user_agent_header is not None:
        headers["User-Agent"] = user_agent_header
    if proxy.user_info is not None:
        headers["Proxy-Authorization"] = build_authorization_basic(*proxy.user_info)
    return Request(target, headers, "CONNECT").serialize()


def make_socks(proxy: Proxy, module: str, forward: Any = None) -> Any:
    """Make the object of python-socks that connects through a SOCKS proxy.

    Args:
        proxy: The proxy.
        module: Module of python-socks for the kind of input and output.
        forward: What makes the connection to the proxy: to python-socks it is a proxy
            on the way to this one.

    Raises:
        ImportError: If python-socks is not installed.
    """
    try:
        kinds: Any = import_module("python_socks").ProxyType
        connecting: Any = import_module(module).Proxy
    except ImportError as exc:
        raise ImportError(
            "connecting through a SOCKS proxy needs python-socks: "
            "install it with pip install 'websock-fast[socks]'"
        ) from exc
    kind, remote_names = {
        "socks4": (kinds.SOCKS4, False),
        "socks4a": (kinds.SOCKS4, True),
        "socks5": (kinds.SOCKS5, False),
        "socks5h": (kinds.SOCKS5, True),
    }[proxy.scheme]
    return connecting(
        kind,
        proxy.host,
        proxy.port,
        proxy.username,
        proxy.password,
        remote_names,
        forward,
    )
