"""Servers and peers for the tests of the API for threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from helpers import request, response
from wire import MASK, frame

from websock.sync.client import connect
from websock.sync.server import Server, serve

LOOPBACK = "127.0.0.1"
PATIENCE = 30.0  # seconds for what takes milliseconds on a machine with time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def echo(ws: Any) -> None:
    """Send back what comes."""
    for message in ws:
        ws.send(message)


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Have a server serve in a thread, and end it."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextlib.contextmanager
def serving(handler: Callable[[Any], None] = echo, **kwargs: Any) -> Iterator[Server]:
    """Run a server on a free port."""
    with running(serve(handler, LOOPBACK, 0, **kwargs)) as server:
        yield server


def uri_of(server: Any, path: str = "/", scheme: str = "ws") -> str:
    return f"{scheme}://{LOOPBACK}:{server.socket.getsockname()[1]}{path}"


@contextlib.contextmanager
def pair(
    server_options: dict[str, Any] | None = None, **kwargs: Any
) -> Iterator[tuple[Any, Any]]:
    """Connect two ends; yield the client's and the server's."""
    found: list[Any] = []
    arrived, done = threading.Event(), threading.Event()

    def handler(ws: Any) -> None:
        found.append(ws)
        arrived.set()
        done.wait(PATIENCE)

    with serving(handler, **(server_options or {})) as server:
        try:
            with connect(uri_of(server), proxy=None, **kwargs) as client:
                assert arrived.wait(PATIENCE)
                yield client, found[0]
        finally:
            done.set()


class Peer:
    """An end made of bytes: what a test writes is what goes out."""

    def __init__(self, sock: socket.socket, mask: bytes | None) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.mask = mask

    def send(self, opcode: int, payload: bytes = b"", **kwargs: Any) -> None:
        self.sock.sendall(frame(opcode, payload, mask=self.mask, **kwargs))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            assert piece, "the connection has ended"
            data += piece
        return data

    def frame(self) -> tuple[int, bytes]:
        """Receive a frame, not compressed."""
        first, second = self.exactly(2)
        size = second & 127
        if size == 126:
            size = int.from_bytes(self.exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self.exactly(8), "big")
        mask = self.exactly(4) if second & 128 else bytes(4)
        payload = self.exactly(size)
        return first & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def rest(self) -> bytes:
        """Receive until the end of the connection, clean or not."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := self.sock.recv(65536):
                data += piece
        return data

    def head(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += self.exactly(1)
        return data


@contextlib.contextmanager
def raw_client(server: Any, *lines: str, opens: bool = True) -> Iterator[Peer]:
    """Connect to a server with a client made of bytes."""
    with socket.create_connection(server.socket.getsockname(), PATIENCE) as sock:
        peer = Peer(sock, MASK)
        if opens:
            sock.sendall(request(*lines))
            assert peer.head().startswith(b"HTTP/1.1 101 ")
        yield peer


def accept_key(head: bytes) -> str:
    import base64
    import hashlib

    line = next(x for x in head.split(b"\r\n") if x.startswith(b"Sec-WebSocket-Key"))
    key = line.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key).digest()).decode()


@contextlib.contextmanager
def accepting(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections in a thread, one after the other; yield the port.

    Args:
        serve: Called with each connection, which is closed when it returns.
    """
    listening = socket.create_server((LOOPBACK, 0))

    def run() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock:
                serve(sock)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        # Closing alone does not wake a thread in accept().
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(PATIENCE)
    assert not thread.is_alive()


@contextlib.contextmanager
def raw_server(
    script: Callable[[Peer, bytes], None], opens: bool = True
) -> Iterator[str]:
    """Run a server made of bytes; every connection runs the script.

    Args:
        script: Called with the peer and the head of its request.
        opens: Whether the handshake is answered before.
    """
    failures: list[BaseException] = []

    def serve(sock: socket.socket) -> None:
        peer = Peer(sock, None)
        try:
            head = peer.head()
            if opens:
                sock.sendall(response(f"Sec-WebSocket-Accept: {accept_key(head)}"))
            script(peer, head)
        except BaseException as exc:
            failures.append(exc)

    with accepting(serve) as port:
        yield f"ws://{LOOPBACK}:{port}/"
    if failures:
        raise failures[0]


class Thread(threading.Thread):
    """A thread that hands back what its function returned or raised."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__()
        self.function, self.args = function, args
        self.value: Any = None
        self.exc: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.function(*self.args)
        except BaseException as exc:
            self.exc = exc

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread still waits"
        if self.exc is not None:
            raise self.exc
        return self.value
