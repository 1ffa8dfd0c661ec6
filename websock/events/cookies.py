"""Cookies: what a request has, and what the answer to it sets (RFC 6265)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal, TypeAlias

from ..datastructures import Headers

__all__ = ["Cookie", "CookiesLike", "parse_cookies", "set_cookie_values"]

_is_token = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(r"[!#-+\--:<-\[\]-~]*").fullmatch
_is_attribute = re.compile(r"[ -:<-~]*").fullmatch

_SAME_SITE = ("Strict", "Lax", "None")


@dataclasses.dataclass(frozen=True)
class Cookie:
    """A cookie to set, with its attributes (RFC 6265, 4.1).

    Attributes:
        name: Name.
        value: Value; quoting or encoding it is up to the program.
        path: Path that it is for.
        domain: Domain that it is for.
        expires: When it ends; a time without a zone is in UTC.
        max_age: Seconds until it ends.
        secure: Whether it is sent over TLS only.
        http_only: Whether it is hidden from scripts.
        same_site: Whether it is sent with requests of other sites.
    """

    name: str
    value: str
    path: str | None = None
    domain: str | None = None
    expires: datetime | None = None
    max_age: int | None = None
    secure: bool = False
    http_only: bool = False
    same_site: Literal["Strict", "Lax", "None"] | None = None

    def __str__(self) -> str:
        """Build the value of a ``Set-Cookie`` header.

        Raises:
            ValueError: When something in it cannot stand there.
        """
        if not _is_token(self.name):
            raise ValueError(f"cookie name is not a token: {self.name!a}")
        if not _is_value(self.value):
            raise ValueError(
                f"value of cookie {self.name} has a character that is not allowed "
                "(RFC 6265, 4.1.1)"
            )
        parts = [f"{self.name}={self.value}"]
        for title, text in (("Path", self.path), ("Domain", self.domain)):
            if text is not None:
                if not _is_attribute(text):
                    raise ValueError(
                        f"{title} of cookie {self.name} has a character that is not "
                        "allowed (RFC 6265, 4.1.1)"
                    )
                parts.append(f"{title}={text}")
        if self.expires is not None:
            moment = self.expires
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            text = format_datetime(moment.astimezone(UTC), usegmt=True)
            parts.append(f"Expires={text}")
        if self.max_age is not None:
            parts.append(f"Max-Age={self.max_age:d}")
        if self.secure:
            parts.append("Secure")
        if self.http_only:
            parts.append("HttpOnly")
        if self.same_site is not None:
            if self.same_site not in _SAME_SITE:
                raise ValueError(
                    f"same_site of cookie {self.name} is {self.same_site!a}, "
                    f"expected one of {', '.join(_SAME_SITE)}"
                )
            parts.append(f"SameSite={self.same_site}")
        return "; ".join(parts)


CookiesLike: TypeAlias = Mapping[str, str] | Iterable[Cookie | Mapping[str, Any]]
"""Cookies to set: names and values, or a list of cookies or of their attributes."""


def set_cookie_values(cookies: CookiesLike) -> list[str]:
    """Build the values of ``Set-Cookie`` headers.

    Args:
        cookies: Names and values, or cookies, or their attributes.

    Raises:
        TypeError: When it is something else.
        ValueError: When a cookie is wrong, or there twice.
    """
    given: Any = cookies
    if isinstance(given, (str, bytes)):
        raise TypeError(
            f"cookies must be a mapping or a list, not {type(given).__name__}"
        )
    found: list[Cookie]
    if isinstance(cookies, Mapping):
        found = [Cookie(name, value) for name, value in cookies.items()]
    else:
        found = [
            item if isinstance(item, Cookie) else Cookie(**item) for item in cookies
        ]
    seen: set[str] = set()
    for cookie in found:
        if cookie.name in seen:
            raise ValueError(f"cookie {cookie.name} is there twice")
        seen.add(cookie.name)
    return [str(cookie) for cookie in found]


def parse_cookies(headers: Headers) -> dict[str, str]:
    """Return the cookies of a request: names and values, as they were sent.

    Of several with the same name the first counts: browsers send the most specific
    one first (RFC 6265, 5.4).
    """
    cookies: dict[str, str] = {}
    for header in headers.get_all("Cookie"):
        for pair in header.split(";"):
            name, equals, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if not equals or not name:
                continue
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            cookies.setdefault(name, value)
    return cookies
