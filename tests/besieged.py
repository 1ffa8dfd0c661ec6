"""A server with a good client beside it, and attackers made of bytes.

Servers of every API run in a thread, so that one test, of a few lines, is for all of
them. What each test wants to know is here: what the attacker got, what was logged, and
that the good client was served before, meanwhile and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import request
from raw import Answer, parse_answer
from threads import LOOPBACK, PATIENCE, Peer, running
from wire import MASK, frame

import websock
from websock.asyncio.server import serve
from websock.events import WebSocketServer
from websock.sync.server import serve as serve_threads

__all__ = [
    "KINDS",
    "Log",
    "LoopThread",
    "Site",
    "besieged",
    "bounded_memory",
    "ending",
    "siege",
    "siege_of_two",
]

KINDS = ("coroutine", "listener", "threads", "events")

TEXT, CLOSE = 1, 8


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine function, or what makes an awaitable, to its end."""

        async def run() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@contextlib.contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    """Fail when Python's memory grows by more than a limit, at any moment."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < limit, f"{peak - before} bytes, limit {limit}"


class Log(logging.Handler):
    """What the library logs, at any level."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Log:
        logger = logging.getLogger("websock")
        self._level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("websock")
        logger.removeHandler(self)
        logger.setLevel(self._level)

    def lines(self, level: int = logging.INFO) -> list[str]:
        """Return the lines from a level on that are not about good connections."""
        return [
            record.getMessage()
            for record in self.records
            if record.levelno >= level
            and not record.getMessage().startswith("server ")
            and record.getMessage() not in ("connection open", "connection closed")
        ]

    def check(self) -> None:
        """What peers do is no error, has no traceback, and is one line each time."""
        for record in self.records:
            assert record.levelno <= logging.INFO, record
            assert record.exc_info is None, record
            text = record.getMessage()
            assert len(text.splitlines()) <= 1, text
            assert text.isprintable(), text
        texts = [record.getMessage() for record in self.records]
        # Of those that never opened, nobody says that they are closed.
        assert texts.count("connection closed") == texts.count("connection open")


class Site:
    """A server that runs, and a good client that is connected to it.

    Args:
        address: Host and port of the server.
        server: The server itself.
        log: What it logs.
        served: What its own code was given: a list that grows.
        tls: The clients' context, if the server speaks TLS.
    """

    def __init__(
        self,
        address: Any,
        server: Any,
        log: Log,
        served: list[Any],
        tls: ssl.SSLContext | None,
        good_lines: tuple[str, ...],
    ) -> None:
        self.address = address
        self.server = server
        self.log = log
        self.served = served
        self.tls = tls
        self.good_lines = good_lines
        self.good = self.open()
        self.turns = 0

    def connect(self, secure: bool = True) -> Peer:
        """Connect an attacker, in TLS if the server speaks it."""
        sock = socket.create_connection(self.address, PATIENCE)
        if secure and self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_hostname=LOOPBACK)
        return Peer(sock, MASK)

    def open(self, *header_lines: str, rest: bytes = b"") -> Peer:
        """Connect, and do an opening handshake as it should be."""
        peer = self.connect()
        peer.sock.sendall(request(*self.good_lines, *header_lines) + rest)
        head = peer.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer

    @property
    def server_of_sockets(self) -> Any:
        """The server, or the one that it is made on."""
        return getattr(self.server, "_listening", self.server)

    def accepts(self, data: bytes) -> None:
        """Have the server accept a request."""
        peer = self.connect()
        with peer.sock:
            peer.sock.sendall(data)
            assert peer.head().startswith(b"HTTP/1.1 101 ")
            peer.send(CLOSE)
            assert peer.frame() == (CLOSE, b"")

    def goes_on(self) -> None:
        """The good client is served, and so is another one that comes now."""
        self.turns += 1
        text = f"good {self.turns}".encode()
        another = self.open()
        with another.sock:
            for peer in (self.good, another):
                peer.send(TEXT, text)
                assert peer.frame() == (TEXT, text)
            another.send(CLOSE, b"\x03\xe8")
            assert another.frame() == (CLOSE, b"\x03\xe8")
            assert another.rest() == b""

    def refuses(
        self, *pieces: bytes, status: int, text: str = "", more: bool = True
    ) -> Answer:
        """Have the server refuse bytes; check all that a refusal is.

        There is one answer and then the end of the connection; nothing that follows
        is taken for frames or for a request; there is one line in the log; the others
        are served.

        Args:
            *pieces: The bytes.
            status: Status of the answer.
            text: Part of its body.
            more: Whether frames and a good request follow.
        """
        logged, served = len(self.log.lines()), len(self.served)
        peer = self.connect()
        with peer.sock:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    peer.sock.sendall(piece)
                if more:
                    evil = frame(TEXT, b"evil", mask=MASK)
                    peer.sock.sendall(evil + request(*self.good_lines) + evil)
            answer = parse_answer(ending(peer))
        assert answer.status == status, answer
        assert answer.headers["Connection"] == "close"
        if answer.body:  # there is none for HEAD
            assert answer.headers["Content-Length"] == str(len(answer.body))
        assert len(answer.body) < 300
        assert text in answer.body.decode()
        (line,) = self.log.lines()[logged:]
        phrase = http.HTTPStatus(status).phrase
        assert line == f"connection rejected ({status} {phrase})"
        assert len(self.served) == served
        self.goes_on()
        return answer


def ending(peer: Peer) -> bytes:
    """Receive up to the end of the connection, clean or not."""
    data = bytearray()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := peer.sock.recv(65536):
            data += piece
    return bytes(data)


class Echo(websock.Listener):
    """Sends back what comes, and notes it."""

    def __init__(self, served: list[Any]) -> None:
        self.served = served

    def on_message(self, ws: Any, message: Any) -> None:
        self.served.append(message)
        ws.send_nowait(message)


@contextlib.contextmanager
def running_on_a_loop(
    kind: str, served: list[Any], **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Run a server of one of the APIs on asyncio."""

    async def handler(ws: Any) -> None:
        async for message in ws:
            served.append(message)
            await ws.send(message)

    def on_request(asked: Any) -> None:
        protocols = asked.requested_protocols
        connection = asked.accept(protocols[0] if protocols else None)

        def on_message(message: Any) -> None:
            served.append(message)
            connection.send(message)

        connection.on("message", on_message)

    async def start() -> Any:
        if kind == "events":
            options.pop("subprotocols", None)
            events = WebSocketServer(LOOPBACK, 0, **options)
            events.on("request", on_request)
            await events.listen()
            return events
        handles = handler if kind == "coroutine" else lambda: Echo(served)
        return await serve(handles, LOOPBACK, 0, **options)

    async def stop(server: Any) -> None:
        if kind == "events":
            await server.shut_down()
        else:
            server.close()
            await server.wait_closed()

    thread = LoopThread()
    try:
        server = thread.call(start)
        try:
            yield server, server.sockets[0].getsockname()
        finally:
            thread.call(stop, server)
    finally:
        thread.close()


@contextlib.contextmanager
def besieged(
    kind: str,
    *,
    tls: Any = None,
    good_lines: tuple[str, ...] = (),
    fails: bool = False,
    **options: Any,
) -> Iterator[Site]:
    """Run a server, with a good client.

    Args:
        kind: Which API, of :data:`KINDS`.
        tls: Contexts of both sides, for a server that speaks TLS.
        good_lines: Header lines that good clients send.
        fails: Whether errors of the server's own code are expected in the log.
        **options: Options of ``serve()``.
    """
    log = Log()
    served: list[Any] = []
    # Clients made of bytes answer no pings, on a machine that is slow.
    options.setdefault("ping_interval", None)
    if tls is not None:
        options["ssl"] = tls.server
    with contextlib.ExitStack() as stack:
        stack.enter_context(log)
        if kind == "threads":

            def handler(ws: Any) -> None:
                for message in ws:
                    served.append(message)
                    ws.send(message)

            server = serve_threads(handler, LOOPBACK, 0, **options)
            address = server.socket.getsockname()
            stack.enter_context(running(server))
        else:
            server, address = stack.enter_context(
                running_on_a_loop(kind, served, **options)
            )
        client = None if tls is None else tls.client
        site = Site(address, server, log, served, client, good_lines)
        with site.good.sock:
            yield site
            site.goes_on()
    if not fails:
        log.check()


def siege_fixture(*kinds: str) -> Any:
    """Make a fixture: it starts a server of each API in turn.

    The fixture is a function; call it with the options of ``serve()``.
    """

    @pytest.fixture(params=kinds)
    def siege(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
        with contextlib.ExitStack() as stack:
            yield lambda **options: stack.enter_context(
                besieged(request.param, **options)
            )

    return siege


siege = siege_fixture(*KINDS)
# For what takes time: the others of asyncio differ from the first one later only.
siege_of_two = siege_fixture("coroutine", "threads")
