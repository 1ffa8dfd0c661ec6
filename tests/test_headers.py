"""Values of headers: what is parsed, what is built, what is refused, how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from websock.exceptions import InvalidHeaderFormat, InvalidHeaderValue
from websock.headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    build_www_authenticate_basic,
    parse_authorization_basic,
    parse_connection,
    parse_extension,
    parse_subprotocol,
    parse_upgrade,
    validate_subprotocols,
)

TOKEN = "!#$%&'*+-.^_`|~09AZaz"


class TestHost:
    @pytest.mark.parametrize(
        ("args", "host"),
        [
            (("localhost", 80, False), "localhost"),
            (("localhost", 8000, False), "localhost:8000"),
            (("localhost", 443, True), "localhost"),
            (("localhost", 80, True), "localhost:80"),
            (("localhost", 443, False), "localhost:443"),
            (("127.0.0.1", 80, False), "127.0.0.1"),
            (("::1", 80, False), "[::1]"),
            (("::1", 8000, False), "[::1]:8000"),
            (("[::1]", 8000, False), "[::1]:8000"),
            (("fe80::1%eth0", 8000, True), "[fe80::1]:8000"),
        ],
    )
    def test_build(self, args: tuple[str, int, bool], host: str) -> None:
        assert build_host(*args) == host

    def test_with_port(self) -> None:
        assert build_host("a", 80, False, always_include_port=True) == "a:80"
        assert build_host("::1", 443, True, always_include_port=True) == "[::1]:443"


LISTS: dict[str, list[str]] = {
    "a": ["a"],
    "keep-alive, Upgrade": ["keep-alive", "Upgrade"],
    "a,b": ["a", "b"],
    "a ,b": ["a", "b"],
    "a\t,\t b": ["a", "b"],
    ", a": ["a"],
    ",,a,, ,b,": ["a", "b"],
    " a ": ["a"],
    "a,a": ["a", "a"],
    TOKEN: [TOKEN],
}

BAD_LISTS = {
    "": 0,
    " ": 1,
    ",": 1,
    ", ,": 3,
    "a b": 0,
    "a, b c": 2,
    "a;b": 0,
    "a,é": 2,
    '"a"': 0,
    "a\x00": 0,
    "a,\x0bb": 2,
    "a\x85": 0,
    "\xa0a": 0,
}

PARSERS: list[Callable[[str], Any]] = [
    parse_connection,
    parse_upgrade,
    parse_subprotocol,
]


class TestLists:
    @pytest.mark.parametrize("parse", PARSERS)
    @pytest.mark.parametrize("header", LISTS)
    def test_good(self, parse: Callable[[str], Any], header: str) -> None:
        assert parse(header) == LISTS[header]

    @pytest.mark.parametrize("parse", PARSERS)
    @pytest.mark.parametrize("header", BAD_LISTS)
    def test_bad(self, parse: Callable[[str], Any], header: str) -> None:
        with pytest.raises(InvalidHeaderFormat) as info:
            parse(header)
        assert f" at {BAD_LISTS[header]} in" in str(info.value)

    def test_names(self) -> None:
        for parse, name in zip(
            PARSERS, ("Connection", "Upgrade", "Sec-WebSocket-Protocol"), strict=True
        ):
            with pytest.raises(InvalidHeaderFormat) as info:
                parse("@")
            assert info.value.name == name

    def test_slash_is_for_upgrade(self) -> None:
        assert parse_upgrade("h2c, irc/6.9, websocket") == [
            "h2c",
            "irc/6.9",
            "websocket",
        ]
        for bad in ("a/", "/a", "a/b/c", "a / b"):
            with pytest.raises(InvalidHeaderFormat):
                parse_upgrade(bad)
        with pytest.raises(InvalidHeaderFormat):
            parse_connection("a/b")


EXTENSIONS: dict[str, Any] = {
    "foo": [("foo", [])],
    "foo, bar": [("foo", []), ("bar", [])],
    "foo; a; b=1": [("foo", [("a", None), ("b", "1")])],
    'foo;a="1"': [("foo", [("a", "1")])],
    'foo ; a = "1\\2" ': [("foo", [("a", "12")])],
    'foo; a="\\1"; b, ,bar;c=d,': [
        ("foo", [("a", "1"), ("b", None)]),
        ("bar", [("c", "d")]),
    ],
    ",, foo; a=1, foo": [("foo", [("a", "1")]), ("foo", [])],
    "permessage-deflate; client_max_window_bits": [
        ("permessage-deflate", [("client_max_window_bits", None)])
    ],
    "__proto__; constructor=hasOwnProperty": [
        ("__proto__", [("constructor", "hasOwnProperty")])
    ],
}

BAD_EXTENSIONS = {
    "": "expected a token at 0",
    ",": "expected a token at 1",
    "@": "expected a token at 0",
    "foo bar": "expected a comma or a semicolon at 4",
    "foo;": "expected a parameter at 3",
    "foo;;a": "expected a parameter at 3",
    "foo; a=1; ": "expected a parameter at 8",
    "foo; =1": "expected a parameter at 3",
    "foo; a=": "expected a comma or a semicolon at 6",
    "foo; a=1=2": "expected a comma or a semicolon at 8",
    'foo; a="': "expected a comma or a semicolon at 6",
    'foo; a="1': "expected a comma or a semicolon at 6",
    'foo; a=""': "expected a token in quotes at 7",
    'foo; a="1 2"': "expected a token in quotes at 7",
    'foo; a="1,2"': "expected a token in quotes at 7",
    'foo; a="1\\""': "expected a token in quotes at 7",
    'foo; a="1"2': "expected a comma or a semicolon at 10",
    "foo; é": "expected a parameter at 3",
    "foo\x0b; a": "expected a comma or a semicolon at 3",
}


class TestExtensions:
    @pytest.mark.parametrize("header", EXTENSIONS)
    def test_good(self, header: str) -> None:
        assert parse_extension(header) == EXTENSIONS[header]
        assert parse_extension(header) == EXTENSIONS[header]

    @pytest.mark.parametrize("header", BAD_EXTENSIONS)
    def test_bad(self, header: str) -> None:
        for _ in range(2):
            with pytest.raises(InvalidHeaderFormat) as info:
                parse_extension(header)
            assert BAD_EXTENSIONS[header] in str(info.value)
            assert info.value.name == "Sec-WebSocket-Extensions"

    def test_result_belongs_to_the_caller(self) -> None:
        first: Any = parse_extension("foo; a=1")
        first[0][1].append(("b", None))
        first.clear()
        assert parse_extension("foo; a=1") == [("foo", [("a", "1")])]

    def test_long_header(self) -> None:
        header = ", ".join(f"foo{n}; a={n}" for n in range(100))
        assert len(parse_extension(header)) == 100
        assert build_extension(parse_extension(header)) == header

    @pytest.mark.parametrize("header", EXTENSIONS)
    def test_build(self, header: str) -> None:
        built = build_extension(EXTENSIONS[header])
        assert parse_extension(built) == EXTENSIONS[header]

    def test_build_text(self) -> None:
        extensions: Any = [("foo", [("a", None), ("b", "1")]), ("bar", [])]
        assert build_extension(extensions) == "foo; a; b=1, bar"

    @pytest.mark.parametrize(
        "extension",
        [
            ("", []),
            ("a b", []),
            ("a\r\nX: y", []),
            ("a", [("", None)]),
            ("a", [("b\n", None)]),
            ("a", [("b", "")]),
            ("a", [("b", "c;d")]),
            ("a", [("b", "c\r\nX: y")]),
        ],
    )
    def test_build_refuses(self, extension: Any) -> None:
        with pytest.raises(ValueError, match="RFC 6455"):
            build_extension([extension])


class TestSubprotocols:
    def test_build(self) -> None:
        subprotocols: Any = ["chat", "superchat"]
        assert build_subprotocol(subprotocols) == "chat, superchat"

    def test_valid(self) -> None:
        validate_subprotocols([])
        validate_subprotocols(["chat", TOKEN])  # type: ignore[list-item]
        validate_subprotocols(("chat",))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "bad", ["", "a b", "a,b", "a\r\nX: y", "a\n", "é", "a;b", '"a"', "a/b", "\x00"]
    )
    def test_not_tokens(self, bad: str) -> None:
        with pytest.raises(ValueError, match="is not a token"):
            validate_subprotocols(["chat", bad])  # type: ignore[list-item]

    def test_twice(self) -> None:
        with pytest.raises(ValueError, match="one occurs twice"):
            validate_subprotocols(["a", "b", "a"])  # type: ignore[list-item]

    @pytest.mark.parametrize("bad", ["chat", {"chat"}, 3, None, iter([])])
    def test_not_a_list(self, bad: Any) -> None:
        with pytest.raises(TypeError, match="subprotocols must be a list, not "):
            validate_subprotocols(bad)

    def test_not_text(self) -> None:
        with pytest.raises(TypeError, match="subprotocol must be str, not bytes"):
            validate_subprotocols([b"chat"])  # type: ignore[list-item]


class TestBasicAuth:
    @pytest.mark.parametrize(
        ("user", "password", "header"),
        [
            ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("", "", "Basic Og=="),
            ("a", "b:c:", "Basic YTpiOmM6"),
            ("é", "Ж", "Basic w6k60JY="),
            ("\udcff", "", "Basic /zo="),
        ],
    )
    def test_both_ways(self, user: str, password: str, header: str) -> None:
        assert build_authorization_basic(user, password) == header
        assert parse_authorization_basic(header) == (user, password)

    def test_scheme_in_any_case(self) -> None:
        assert parse_authorization_basic("bAsIc YTpi") == ("a", "b")

    def test_colon_in_user(self) -> None:
        with pytest.raises(ValueError, match="username contains a colon"):
            build_authorization_basic("a:b", "c")

    @pytest.mark.parametrize(
        "header",
        ["", "Basic", "Basic ", "Basic\tYTpi", "Basic  YTpi", "Basic YTpi x", "@"],
    )
    def test_bad_format(self, header: str) -> None:
        with pytest.raises(InvalidHeaderFormat):
            parse_authorization_basic(header)

    @pytest.mark.parametrize(
        ("header", "text"),
        [
            ("Digest YTpi", "unsupported scheme"),
            ("Basic YTp", "not base64"),
            ("Basic ====", "not base64"),
            ("Basic Y-pi", "not base64"),
            ("Basic YWI=", "no colon"),
        ],
    )
    def test_bad_value(self, header: str, text: str) -> None:
        with pytest.raises((InvalidHeaderValue, InvalidHeaderFormat)) as info:
            parse_authorization_basic(header)
        if isinstance(info.value, InvalidHeaderValue):
            assert text in str(info.value)

    def test_passwords_stay_out_of_errors(self) -> None:
        for header in ("Basic c2VjcmV0 x", "Basic c2VjcmV0", "Bearer c2VjcmV0"):
            with pytest.raises((InvalidHeaderValue, InvalidHeaderFormat)) as info:
                parse_authorization_basic(header)
            assert "c2Vj" not in str(info.value)
            assert "secret" not in str(info.value)

    @pytest.mark.parametrize(
        ("realm", "header"),
        [
            ("test", 'Basic realm="test", charset="UTF-8"'),
            ('a"b\\c', 'Basic realm="a\\"b\\\\c", charset="UTF-8"'),
        ],
    )
    def test_www_authenticate(self, realm: str, header: str) -> None:
        assert build_www_authenticate_basic(realm) == header

    @pytest.mark.parametrize("realm", ["a\r\nb", "\x00", "Ж"])
    def test_bad_realm(self, realm: str) -> None:
        with pytest.raises(ValueError, match="invalid quoted string"):
            build_www_authenticate_basic(realm)


HOSTILE = [
    "a" * 8000,
    " " * 8000,
    "\t" * 8000 + "x y",
    "," * 8000,
    ", " * 4000,
    " ," * 4000,
    "a, " * 2600,
    "a" + " " * 8000 + "b",
    "a" + " " * 8000 + ",",
    "a;" * 4000,
    "a; b=" + '"' + "c" * 8000,
    "a; b=" + '"' + "\\" * 8000,
    "a; b=" + '"' + '\\"' * 4000,
    "a; b=" + '"' + "\\c" * 4000 + '"' + "x",
    "a; b" + " " * 8000 + "c",
    "a; b=" + " " * 8000,
    "a" + "; b=c" * 1600 + "@",
    "a" + ' ; b = "c"' * 800 + "@",
    "Basic " + "=" * 8000,
    "Basic " + "a" * 8000 + "@",
]


@pytest.mark.parametrize(
    "parse", [*PARSERS, parse_extension, parse_authorization_basic]
)
@pytest.mark.parametrize("header", HOSTILE, ids=range(len(HOSTILE)))
def test_time_is_linear(parse: Callable[[str], Any], header: str) -> None:
    began = time.perf_counter()
    try:
        parse(header)
    except (InvalidHeaderFormat, InvalidHeaderValue):
        pass
    assert time.perf_counter() - began < 0.25
