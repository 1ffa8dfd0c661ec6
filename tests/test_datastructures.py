"""Headers: a mapping with several values, checked, lazy and small."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest

from websock.datastructures import Headers, MultipleValuesError
from websock.exceptions import InvalidHeaderValue, UnsafeHeader

BLOCK = b"Host: a\r\nX-Two: 1\r\nx-two: 2\r\nEmpty: \r\nLatin: \xe9: x\r\n"
ITEMS = [
    ("Host", "a"),
    ("X-Two", "1"),
    ("x-two", "2"),
    ("Empty", ""),
    ("Latin", "\xe9: x"),
]


def from_program() -> Headers:
    headers = Headers()
    for name, value in ITEMS:
        headers[name] = value
    return headers


def packed() -> Headers:
    headers = from_program()
    headers.index()
    headers.pack()
    return headers


def unpacked() -> Headers:
    headers = Headers.from_block(BLOCK)
    headers.index()
    list(headers.raw_items())
    return headers


@pytest.fixture(
    params=[
        from_program,
        packed,
        unpacked,
        lambda: Headers(ITEMS),
        lambda: Headers.from_block(BLOCK),
        lambda: Headers.from_items(ITEMS.copy()),
        lambda: Headers.from_block(BLOCK).copy(),
    ],
    ids=["program", "packed", "unpacked", "pairs", "block", "items", "copy"],
)
def headers(request: pytest.FixtureRequest) -> Headers:
    """The same headers in every form they can be in."""
    make: Callable[[], Headers] = request.param
    return make()


class TestReading:
    def test_getitem(self, headers: Headers) -> None:
        assert headers["Host"] == headers["host"] == headers["HOST"] == "a"
        assert headers["empty"] == ""
        assert headers["latin"] == "\xe9: x"

    def test_missing(self, headers: Headers) -> None:
        with pytest.raises(KeyError):
            headers["none"]
        assert headers.get("none") is None
        assert headers.get("none", "b") == "b"
        assert headers.get("none", default=3) == 3
        assert headers.get_all("none") == []

    def test_several(self, headers: Headers) -> None:
        for action in (headers.__getitem__, headers.get):
            with pytest.raises(MultipleValuesError) as info:
                action("X-TWO")
            assert str(info.value) == "'X-TWO'"
        assert headers.get_all("X-TWO") == ["1", "2"]
        assert isinstance(info.value, LookupError)

    def test_get_all_gives_a_list_of_its_own(self, headers: Headers) -> None:
        headers.get_all("X-Two").append("3")
        headers.get_all("Host").append("3")
        assert headers.get_all("X-Two") == ["1", "2"]
        assert headers.get_all("Host") == ["a"]

    def test_contains(self, headers: Headers) -> None:
        assert "HOST" in headers
        assert "none" not in headers
        assert 3 not in headers

    def test_iteration(self, headers: Headers) -> None:
        assert list(headers) == ["host", "x-two", "empty", "latin"]
        assert list(headers.keys()) == list(headers)
        assert len(headers) == 4

    def test_raw_items(self, headers: Headers) -> None:
        assert list(headers.raw_items()) == ITEMS

    def test_text(self, headers: Headers) -> None:
        assert headers.serialize() == BLOCK + b"\r\n"
        assert str(headers) == (BLOCK + b"\r\n").decode("latin-1")
        assert repr(headers) == f"Headers({ITEMS!r})"

    def test_equality(self, headers: Headers) -> None:
        assert headers == Headers(ITEMS)
        assert headers == Headers([(name.upper(), value) for name, value in ITEMS])
        assert headers != Headers(ITEMS[1:])
        assert headers != dict(ITEMS)
        assert (headers == 3) is False

    def test_is_not_hashable(self, headers: Headers) -> None:
        with pytest.raises(TypeError):
            hash(headers)

    def test_copies(self, headers: Headers) -> None:
        for other in (headers.copy(), copy.copy(headers), copy.deepcopy(headers)):
            assert type(other) is Headers
            assert other == headers
        other = headers.copy()
        other["More"] = "b"
        assert "More" not in headers
        assert list(headers.raw_items()) == ITEMS


class TestChanging:
    def test_set_adds(self, headers: Headers) -> None:
        for value in ("b", "c"):
            headers["Host"] = value
        assert headers.get_all("host") == ["a", "b", "c"]
        assert headers.serialize() == BLOCK + b"Host: b\r\nHost: c\r\n\r\n"

    def test_set_after_looking(self, headers: Headers) -> None:
        assert "new" not in headers
        headers["New"] = "b"
        assert headers["new"] == "b"
        headers["New"] = "c"
        assert headers.get_all("new") == ["b", "c"]
        assert list(headers.raw_items())[-2:] == [("New", "b"), ("New", "c")]

    def test_delete(self, headers: Headers) -> None:
        del headers["x-TWO"]
        assert "X-Two" not in headers
        assert len(headers) == 3
        assert b"wo: " not in headers.serialize()
        with pytest.raises(KeyError):
            del headers["x-two"]

    def test_replace(self, headers: Headers) -> None:
        del headers["Host"]
        headers["Host"] = "b"
        assert headers["host"] == "b"

    def test_clear(self, headers: Headers) -> None:
        headers.clear()
        assert not headers
        assert headers.serialize() == b"\r\n"

    def test_update(self, headers: Headers) -> None:
        headers.update({"Host": "b"}, new="c")
        headers.update(Headers([("D", "1"), ("d", "2")]))
        headers.update([("e", "3")])
        assert headers.get_all("host") == ["a", "b"]
        assert headers["new"] == "c"
        assert headers.get_all("d") == ["1", "2"]
        assert headers["E"] == "3"

    def test_setdefault_and_pop(self, headers: Headers) -> None:
        assert headers.setdefault("Host", "b") == "a"
        assert headers.setdefault("New", "b") == "b"
        assert headers.pop("new") == "b"
        assert "new" not in headers

    def test_pack_changes_nothing(self, headers: Headers) -> None:
        headers["New"] = "b"
        before = list(headers.raw_items())
        headers.pack()
        assert list(headers.raw_items()) == before
        assert headers["new"] == "b"


class TestMaking:
    @pytest.mark.parametrize(
        "args",
        [
            ([("A", "b")],),
            ({"A": "b"},),
            (Headers(A="b"),),
            (iter([("A", "b")]),),
        ],
    )
    def test_arguments(self, args: Any) -> None:
        assert Headers(*args) == Headers(A="b")
        assert Headers(*args, C="d").get("c") == "d"

    def test_empty(self) -> None:
        assert len(Headers()) == 0
        assert Headers.from_block(b"") == Headers()
        assert list(Headers.from_block(b"").raw_items()) == []
        assert repr(Headers()) == "Headers([])"

    def test_too_many_arguments(self) -> None:
        with pytest.raises(TypeError):
            Headers({}, {})

    def test_subclass(self) -> None:
        class Mine(Headers):
            pass

        assert type(Mine(a="b").copy()) is Mine
        assert repr(Mine()) == "Mine([])"


class TestSafety:
    """Response splitting and its relatives: refused when the caller does it."""

    @pytest.mark.parametrize(
        "value",
        [
            "a\r\nX: y",
            "a\nb",
            "a\rb",
            "a\x00",
            "\x7f",
            "a\x1b",
            "\x85\x00",
            "Ж",
            "€",
            "\ud800",
        ],
    )
    def test_values(self, value: str, headers: Headers) -> None:
        before = headers.serialize()
        with pytest.raises(ValueError, match="invalid header 'A': character"):
            headers["A"] = value
        with pytest.raises(InvalidHeaderValue):
            Headers({"A": value})
        assert headers.serialize() == before

    @pytest.mark.parametrize("value", ["", "a", "a\tb", " ~", "\x80\xff", "a: b"])
    def test_good_values(self, value: str, headers: Headers) -> None:
        headers["A"] = value
        assert headers["a"] == value
        assert headers.serialize().endswith(f"A: {value}\r\n\r\n".encode("latin-1"))

    @pytest.mark.parametrize(
        "name", ["", "A B", "A:", "A\r\nX", "A\n", "é", "A\x00", "(", "A\t"]
    )
    def test_names(self, name: str, headers: Headers) -> None:
        with pytest.raises(ValueError, match="the name is not a token"):
            headers[name] = "b"

    @pytest.mark.parametrize("value", [None, b"a", 1.5, ["a"], True, object()])
    def test_types_of_values(self, value: Any) -> None:
        with pytest.raises(TypeError, match="value of header 'A' must be str, not "):
            Headers()["A"] = value

    def test_types_of_names(self) -> None:
        with pytest.raises(TypeError, match="header name must be str, not bytes"):
            Headers()[b"A"] = "b"  # type: ignore[index]

    def test_numbers_are_welcome(self) -> None:
        headers = Headers()
        headers["A"] = 3  # type: ignore[assignment]
        assert headers["a"] == "3"

    def test_error_says_where(self) -> None:
        with pytest.raises(UnsafeHeader) as info:
            Headers()["Set-Cookie"] = "a\r\nb"
        assert str(info.value) == (
            "invalid header 'Set-Cookie': character '\\r' at 1 of the value"
            " (RFC 9110, 5.5)"
        )

    def test_set_insecure_is_not_checked(self, headers: Headers) -> None:
        headers.set_insecure("A", "b\r\nc")
        assert headers["a"] == "b\r\nc"
        headers.pack()
        assert headers["a"] == "b\r\nc"

    def test_set_insecure_with_other_characters(self, headers: Headers) -> None:
        headers.set_insecure("A", "Ж")
        headers.pack()
        assert headers["a"] == "Ж"


class TestSize:
    def test_packed_headers_are_small(self) -> None:
        headers = Headers.from_block(BLOCK * 4)
        headers.index()
        list(headers.raw_items())
        headers.pack()
        kept = [getattr(headers, name) for name in Headers.__slots__]
        assert [value for value in kept if value is not None] == [BLOCK * 4]
        assert sys.getsizeof(headers) <= 80

    def test_no_dictionary(self) -> None:
        assert not hasattr(Headers(), "__dict__")
