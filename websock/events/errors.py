"""The exceptions of the event API, named as browsers name them."""

from __future__ import annotations

__all__ = [
    "DOMException",
    "DOMSyntaxError",
    "InvalidAccessError",
    "InvalidStateError",
]


class DOMException(Exception):
    """Base class of what the standards of the web call a DOMException.

    Attributes:
        name: Name in the standard, such as ``"SyntaxError"``.
        code: Number that the standard gives the name.
        message: What is wrong.
    """

    name: str = "Error"
    code: int = 0

    @property
    def message(self) -> str:
        """What is wrong."""
        return str(self)


class DOMSyntaxError(DOMException, ValueError):
    """A URL, a subprotocol or a close reason cannot be used: ``SyntaxError``."""

    name = "SyntaxError"
    code = 12


class InvalidAccessError(DOMException, ValueError):
    """A close code is not one that programs may send."""

    name = "InvalidAccessError"
    code = 15


class InvalidStateError(DOMException, RuntimeError):
    """Something is done too early, too late, or twice."""

    name = "InvalidStateError"
    code = 11
