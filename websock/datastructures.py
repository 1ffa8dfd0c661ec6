"""HTTP headers: case-insensitive, multi-valued, in the order of the wire.

A :class:`Headers` may live as long as its connection, so it is built to be small and
lazy. It holds up to three forms of the same thing and makes each when it is asked for::

    _block   bytes: b"Name: value\\r\\n..."; always one space, no white space at the end
    _items   [(name, value), ...]
    _index   {lower-case name: value, or list of values when there are several}

What comes from the wire begins as ``_block``, what the program makes as ``_items``.
:meth:`Headers.pack` goes back to ``_block`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Protocol, TypeAlias, TypeVar, overload

from .exceptions import UnsafeHeader

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]

# RFC 9110, 5.1 and 5.5, without obsolete line folding. ISO-8859-1 is not what the
# RFC wants but what peers send; it is kept as it is and never interpreted.
_is_token = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_bad_in_value = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search

_T = TypeVar("_T")


class MultipleValuesError(LookupError):
    """A header was asked for as one value and has several."""

    def __str__(self) -> str:
        return repr(self.args[0]) if len(self.args) == 1 else super().__str__()


class Headers(MutableMapping[str, str]):
    """HTTP headers, as a mapping from names to values.

    Names are found in any case and iterated in lower case. A header may occur several
    times, so some operations differ from those of a :class:`dict`:

    * ``headers[name]`` and ``get(name)`` raise :exc:`MultipleValuesError` when there
      is more than one value;
    * ``headers[name] = value`` adds a value and keeps those that are there;
    * ``del headers[name]`` removes all values.

    Values are text in ISO-8859-1, which can hold any bytes: for a header that is
    really UTF-8, say ``headers[name].encode("latin-1").decode()``.

    Args:
        *args: Headers, a mapping, or pairs of names and values.
        **kwargs: More headers.

    Raises:
        UnsafeHeader: If a name is not a token, or a value contains a control
            character or one outside ISO-8859-1. It is a :exc:`ValueError`.
        TypeError: If a name or a value is not text.
    """

    __slots__ = ("_block", "_index", "_items")

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._block: bytes | None = None
        self._items: list[tuple[str, str]] | None = []
        self._index: dict[str, str | list[str]] | None = None
        if args or kwargs:
            self.update(*args, **kwargs)

    @classmethod
    def from_block(cls, block: bytes) -> Headers:
        """Make headers from header lines that were checked.

        Nothing is checked or even split here: :mod:`websock.http11` has done the one
        and lookups do the other.

        Args:
            block: Lines, each a name, a colon, a space, a value and CRLF.
        """
        self = cls.__new__(cls)
        self._block = block
        self._items = None
        self._index = None
        return self

    @classmethod
    def from_items(cls, items: list[tuple[str, str]]) -> Headers:
        """Make headers from names and values that were checked.

        Args:
            items: The names and values; the list is kept.
        """
        self = cls.__new__(cls)
        self._block = None
        self._items = items
        self._index = None
        return self

    def pack(self) -> None:
        """Go back to the smallest form, for headers that are kept and seldom read."""
        if self._block is None:
            assert self._items is not None
            try:
                block = self.serialize()[:-2]
            except UnicodeEncodeError:
                return  # set_insecure() can do that
            if block.count(b"\n") != len(self._items):
                return  # and that
            self._block = block
        self._items = None
        self._index = None

    def _load(self) -> list[tuple[str, str]]:
        items = self._items
        if items is None:
            items = []
            for line in self._lines():
                name, _, value = line.partition(": ")
                items.append((name, value))
            self._items = items
        return items

    def _lines(self) -> list[str]:
        assert self._block is not None
        lines = self._block.decode("latin-1").split("\r\n")
        lines.pop()  # what follows the last CRLF: nothing
        return lines

    def index(self) -> Mapping[str, str | list[str]]:
        """Return all headers in one dictionary, for many lookups at once.

        Names are in lower case. A value is a list when there are several.

        Memory: the dictionary belongs to the headers and changes with them.
        """
        index = self._index
        if index is None:
            index = {}
            if self._items is None:
                lines = self._lines()
                for line in lines:
                    name, _, value = line.partition(": ")
                    index[name.lower()] = value
                size = len(lines)
            else:
                for name, value in self._items:
                    index[name.lower()] = value
                size = len(self._items)
            if len(index) != size:
                index.clear()
                for name, value in self._load():
                    _add(index, name.lower(), value)
            self._index = index
        return index

    def _own(self) -> list[tuple[str, str]]:
        """Return the items for changing them."""
        items = self._load()
        self._block = None
        return items

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._load()!r})"

    def __str__(self) -> str:
        if self._block is not None:
            return self._block.decode("latin-1") + "\r\n"
        lines = [f"{name}: {value}\r\n" for name, value in self._load()]
        lines.append("\r\n")
        return "".join(lines)

    def copy(self) -> Headers:
        """Return a copy that can be changed on its own."""
        copy = self.__class__.__new__(self.__class__)
        copy._block = self._block
        copy._items = None if self._items is None else self._items.copy()
        copy._index = None
        return copy

    def serialize(self) -> bytes:
        """Return the header lines and the empty line that ends them."""
        if self._block is not None:
            return self._block + b"\r\n"
        return str(self).encode("latin-1")

    # Reading.

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self.index()

    def __iter__(self) -> Iterator[str]:
        return iter(self.index())

    def __len__(self) -> int:
        return len(self.index())

    def __getitem__(self, name: str) -> str:
        value = self.index()[name.lower()]
        if isinstance(value, str):
            return value
        raise MultipleValuesError(name)

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...

    @overload
    def get(self, name: str, default: _T) -> str | _T: ...

    def get(self, name: str, default: _T | None = None) -> str | _T | None:
        """Return the value of a header, or a default when it is missing.

        Args:
            name: Name of the header.
            default: What to return when it is missing.

        Raises:
            MultipleValuesError: If there is more than one value.
        """
        value = self.index().get(name.lower())
        if value is None:
            return default
        if isinstance(value, str):
            return value
        raise MultipleValuesError(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self.index() == other.index()

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header; an empty list when it is missing.

        Args:
            name: Name of the header.
        """
        value = self.index().get(name.lower())
        if value is None:
            return []
        return [value] if isinstance(value, str) else value.copy()

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over names and values as they came, in order."""
        return iter(self._load())

    # Changing.

    def __setitem__(self, name: str, value: str) -> None:
        value = _check_types(name, value)
        if _is_token(name) is None:
            raise UnsafeHeader(name, "the name is not a token (RFC 9110, 5.1)")
        if _is_value(value) is None:
            bad = _bad_in_value(value)
            assert bad is not None
            raise UnsafeHeader(
                name,
                f"character {bad.group()!a} at {bad.start()} of the value"
                " (RFC 9110, 5.5)",
            )
        if self._block is None or self._items is not None:
            self._own().append((name, value))
        else:
            self._block += f"{name}: {value}\r\n".encode("latin-1")
        if self._index is not None:
            _add(self._index, name.lower(), value)

    def set_insecure(self, name: str, value: str) -> None:
        """Add a value without checking it, for names and values that were checked."""
        self._own().append((name, value))
        if self._index is not None:
            _add(self._index, name.lower(), value)

    def __delitem__(self, name: str) -> None:
        name = name.lower()
        if name not in self.index():
            raise KeyError(name)
        self._items = [item for item in self._own() if item[0].lower() != name]
        self._index = None

    def clear(self) -> None:
        """Remove all headers."""
        self._block = None
        self._items = []
        self._index = None

    def update(self, *args: HeadersLike, **kwargs: str) -> None:
        """Add headers, keeping those that are there.

        Args:
            *args: Headers, a mapping, or pairs of names and values.
            **kwargs: More headers.
        """
        super().update(
            *(
                list(arg.raw_items()) if isinstance(arg, Headers) else arg
                for arg in args
            ),
            **kwargs,
        )


def _check_types(name: object, value: object) -> str:
    """Return the value as text; numbers are welcome, other types are mistakes."""
    if not isinstance(name, str):
        raise TypeError(f"header name must be str, not {type(name).__name__}")
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"value of header {name!a} must be str, not {type(value).__name__}")


def _add(index: dict[str, str | list[str]], name: str, value: str) -> None:
    known = index.get(name)
    if known is None:
        index[name] = value
    elif isinstance(known, str):
        index[name] = [known, value]
    else:
        known.append(value)


class SupportsKeysAndGetItem(Protocol):
    """A mapping in the widest sense."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, key: str) -> str: ...


HeadersLike: TypeAlias = (
    Headers | Mapping[str, str] | Iterable[tuple[str, str]] | SupportsKeysAndGetItem
)
"""What is accepted where headers are wanted."""
