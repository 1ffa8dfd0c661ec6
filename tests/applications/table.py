"""The programs, how they are started, and the speed-ups that are for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websock.speedups._registry import HOSTS

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Way:
    """A way to run a program with a speed-up.

    Attributes:
        name: Its name.
        before: What comes before the command, after the interpreter.
        after: What comes after the command.
        environment: Variables that the program gets.
        patched: Names of the hosts that are patched then; none with a flag.
        engine: The class that serves, for programs that tell.
        differs: Conversations that are not the same, with why, and what is compared
            nevertheless.
    """

    name: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    patched: tuple[str, ...] = ()
    engine: str = ""
    differs: dict[str, tuple[str, Reader]] = field(default_factory=dict)


PLAIN = Way("plain")


def run(*patched: str, **options: Any) -> Way:
    """Return ``python -m websock run``."""
    return Way("run", before=("-m", "websock", "run"), patched=patched, **options)


def install(*patched: str, **options: Any) -> Way:
    """Return ``websock.speedups.install()`` in the program, at its beginning."""
    environment = {"SPEEDUPS": " ".join(patched)}
    return Way("install", environment=environment, patched=patched, **options)


@dataclass(frozen=True)
class Program:
    """A program and the ways to run it.

    Attributes:
        name: Its name.
        command: Its command line, after the interpreter.
        ways: Ways to run it with a speed-up.
        port: How the line begins that ends in the port, for a server.
        engine: The class that serves without a speed-up, for programs that tell.
        more: Further conversations.
        left_out: Conversations that cannot be had, and why.
        logs: Whether its log is the same each time.
        way: How a client goes about it, when it has several ways.
    """

    name: str
    command: tuple[str, ...]
    ways: tuple[Way, ...]
    port: str = '{"port": '
    engine: str = ""
    more: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    logs: bool = True
    way: str = ""


# -- what is compared of conversations that are not the same ----------------------------


def nothing(result: Any) -> None:
    """Compare nothing."""


def wire(result: Any) -> Any:
    """Compare what went over the wire."""
    return result["peers"]


def codes(result: Any) -> Any:
    """Compare all but the reasons of close frames, and what comes of them."""

    def entry(seen: Any) -> Any:
        if seen[0].startswith("88 "):
            code = re.match(r"b'(\\x..|.)(\\x..|.)", seen[1])
            return ("88", code and code[0])
        return seen

    def note(seen: Any) -> Any:
        return [
            value.get("code") if isinstance(value, dict) else value for value in seen
        ]

    return shaped(result, entry, note)


def inflated(result: Any) -> Any:
    """Compare what compressed messages say, and not how they were compressed."""

    def entry(seen: Any) -> Any:
        if not re.match(r"[8c][12] ", seen[0]):
            return seen
        return (seen[0][1], seen[-1])

    return shaped(result, entry, lambda seen: seen)


def statuses(result: Any) -> Any:
    """Compare the status lines of responses."""
    return [seen[0][1].partition("\r\n")[0] for seen in result["peers"].values()]


def shaped(result: Any, entry: Reader, note: Reader) -> Any:
    """Return a result with each entry and each note as a function returns it."""
    return {
        "peers": {
            name: [entry(one) for one in seen] for name, seen in result["peers"].items()
        },
        "program": {
            name: [note(one) for one in seen]
            for name, seen in result["program"].items()
        },
    }


# uvicorn's protocol is the only speed-up that puts another implementation in the place
# of the host's; the others are the host's own protocol with faster parts.
DATA_KEPT = "what came with the request or before a mistake is not lost"
ENGINE = {
    "client_closes_with_bad_text": ("the place of the mistake is not told", codes),
    "length_with_its_top_bit_set": ("1002: it is no length, and not too long", nothing),
    "program_closes_badly": ("the exception is one of websock", wire),
    "bad_frame_behind_good_ones": (DATA_KEPT, nothing),
    "data_with_the_request": (DATA_KEPT, nothing),
    "compression": ("short messages are not compressed", inflated),
    "compressed_fragments": ("zlib has another window", inflated),
    "bad_requests": ("a response does not repeat what a client sent", statuses),
    "bad_versions": ("426 tells which version is wanted (RFC 6455, 4.4)", nothing),
    "bad_request_headers": ("a response does not repeat what a client sent", statuses),
}
OURS = "websock.speedups.uvicorn.WebSocketProtocol"
THEIRS = "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol"
WSPROTO = {"far_too_big": "what a frame announces is not looked at, and is waited for"}
UVICORN = (
    "-m",
    "uvicorn",
    "fastapi_chat:application",
    "--port",
    "0",
    "--ws-max-size",
    "100000",
)
FLAG = ("--ws", "websock.speedups.uvicorn:WebSocketProtocol")
HYPERCORN = ("-m", "hypercorn", "-c", "file:hypercorn_config.py", "starlette_chat:app")
DAPHNE = (
    *("-m", "daphne", "-b", "127.0.0.1", "-p", "0"),
    *("--websocket-max-message-size", "100000", "channels_chat:application"),
)

SERVERS = [
    Program(
        "fastapi on uvicorn",
        UVICORN,
        (
            Way("flag", after=FLAG, engine=OURS, differs=ENGINE),
            run("uvicorn", engine=OURS, differs=ENGINE),
            install("websockets", engine=THEIRS),
        ),
        port="Uvicorn running on http://",
        engine=THEIRS,
        more=("denials", "policies"),
    ),
    Program(
        "starlette on hypercorn",
        HYPERCORN,
        (run("wsproto"), install("wsproto")),
        port="Running on http://",
        left_out=WSPROTO,
    ),
    Program(
        "sanic",
        ("sanic_chat.py",),
        (run("websockets"), install("websockets")),
        left_out={
            "bad_text": "Sanic's task fails, and the client is left waiting",
            "bad_compressed_text": "the same",
            "bad_frame_behind_good_ones": "whether they are answered, is a matter of luck",
        },
        logs=False,
    ),
    Program("aiohttp server", ("aiohttp_server.py",), (run("aiohttp"),)),
    Program(
        "tornado handler", ("tornado_server.py",), (run("tornado"), install("tornado"))
    ),
    Program(
        "channels on daphne",
        DAPHNE,
        (run("autobahn"), install("autobahn")),
        port="Listening on TCP address ",
    ),
    Program("trio server", ("trio_server.py",), (run("wsproto"),), left_out=WSPROTO),
    Program("websockets server", ("websockets_server.py",), (run("websockets"),)),
    Program(
        "websockets threads server",
        ("websockets_sync_server.py",),
        (run("websockets"),),
    ),
]

CLIENTS = [
    Program("aiohttp client", ("aiohttp_client.py",), (run("aiohttp"),)),
    Program(
        "websocket-client script",
        ("websocket_client_script.py",),
        (run("websocket-client"), install("websocket-client")),
    ),
    Program(
        "websocket-client callbacks",
        ("websocket_client_script.py",),
        (run("websocket-client"),),
        way=".callbacks",
    ),
    Program("httpx-ws client", ("httpx_ws_client.py",), (run("wsproto"),)),
    Program("trio client", ("trio_client.py",), (run("wsproto"),)),
    Program("tornado client", ("tornado_client.py",), (run("tornado"),)),
    Program("websockets client", ("websockets_client.py",), (run("websockets"),)),
    Program(
        "websockets threads client",
        ("websockets_sync_client.py",),
        (run("websockets"),),
    ),
]


def ways(program: Program) -> tuple[Way, ...]:
    """Return the ways for which there are speed-ups."""
    return tuple(way for way in program.ways if set(way.patched) <= set(HOSTS))
