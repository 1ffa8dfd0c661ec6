"""Where a hub is, and what a worker has to know to be let in: a URL of its own.

``local://:secret@localhost/directory/hub.sock`` for a unix socket,
``local://:secret@127.0.0.1:1234`` for TCP on this machine.  A URL can be handed on in a
variable of the environment.  It is a secret as a whole: neither is in a log.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

__all__ = ["USER", "Address"]

USER = "hub"
"""The name that goes with the secret (RFC 7617)."""


@dataclass(frozen=True, repr=False)
class Address:
    """Where a hub is.

    Attributes:
        path: Of the unix socket; ``None`` for TCP.
        host: Address of this machine, for TCP.
        port: Port, for TCP; 0 for any.
        secret: What a worker has to know; ``""`` when that is not decided.
    """

    path: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    secret: str = ""

    def __repr__(self) -> str:
        return "<Address of a hub>"

    @property
    def url(self) -> str:
        """The URL, with the secret."""
        secret = f":{quote(self.secret, safe='')}@" if self.secret else ""
        if self.path is not None:
            return f"local://{secret}localhost{quote(self.path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"local://{secret}{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; it is not shown when it is wrong.

        Raises:
            ValueError: When it is none of a hub, or of one on another machine.
        """
        parts = urlsplit(url)
        if parts.scheme != "local":
            raise ValueError("the address of a hub begins with local://")
        if parts.query or parts.fragment:
            raise ValueError("the address of a hub has neither a query nor a fragment")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("the address of the hub has a wrong port") from None
        host = parts.hostname or "localhost"
        if not _is_here(host):
            raise ValueError("a hub is for one machine: its host must be a loopback")
        secret = unquote(parts.password or "")
        path = unquote(parts.path)
        if path in ("", "/"):
            host = "127.0.0.1" if host == "localhost" else host
            return cls(None, host, port or 0, secret)
        if port is not None:
            raise ValueError("the address of a hub has a path or a port, not both")
        if "\0" in path:
            raise ValueError("the path of a hub has a NUL")
        return cls(path, secret=secret)


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
