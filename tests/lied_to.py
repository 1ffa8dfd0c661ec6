"""Clients of both APIs that are lied to, and a good one beside them.

Clients log nothing of what servers do: they raise it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from besieged import Log, LoopThread, besieged, ending
from threads import LOOPBACK, PATIENCE, Peer, accept_key, accepting

from websock.asyncio.client import connect
from websock.sync.client import connect as connect_threads

__all__ = ["Clients", "answering", "clients", "tls_server"]


class Clients:
    """Connects clients of an API, and has a good one."""

    def __init__(self, kind: str, uri: str, log: Log) -> None:
        self.kind = kind
        self.log = log
        self.thread = LoopThread() if kind == "asyncio" else None
        self.good = self.connect(uri)

    def connect(self, uri: str, **options: Any) -> Any:
        """Connect; raise what connecting raises."""
        options = {"proxy": None, **options}
        if self.thread is None:
            return connect_threads(uri, **options)

        async def run() -> Any:
            return await connect(uri, **options)

        return self.thread.call(run)

    def do(self, ws: Any, method: str, *args: Any) -> Any:
        """Call a method of a connection."""
        if self.thread is None:
            return getattr(ws, method)(*args)
        return self.thread.call(getattr(ws, method), *args)

    def goes_on(self) -> None:
        """The good client is served."""
        self.do(self.good, "send", "x")
        assert self.do(self.good, "recv") == "x"

    def fails(self, uri: str, kind: type[Exception], **options: Any) -> Exception:
        """Connect, which must fail; return the exception."""
        with pytest.raises(kind) as info:
            self.connect(uri, **options)
        # One line for the program's log, whatever the server has put into it.
        text = str(info.value)
        assert text.isprintable()
        assert len(text) < 400
        self.goes_on()
        return info.value

    def close(self) -> None:
        self.goes_on()
        self.do(self.good, "close")
        if self.thread is not None:
            self.thread.close()


@pytest.fixture(params=["asyncio", "threads"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    with besieged("coroutine") as site:
        uri = f"ws://{LOOPBACK}:{site.address[1]}/"
        made = Clients(request.param, uri, site.log)
        yield made
        made.close()


Script = Callable[[Peer, bytes], None]


def answering(*pieces: bytes) -> Script:
    """Answer with bytes, and see the client leave."""

    def script(peer: Peer, head: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                peer.sock.sendall(piece.replace(b"KEY", accept_key(head).encode()))
            peer.sock.shutdown(socket.SHUT_WR)
        assert ending(peer) == b""

    return script


@contextlib.contextmanager
def tls_server(
    context: ssl.SSLContext, answer: bytes = b""
) -> Iterator[tuple[str, Any]]:
    """Run a server that speaks TLS; yield its URI, and the heads that it receives."""
    heads: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            with context.wrap_socket(sock, server_side=True) as secure:
                peer = Peer(secure, None)
                heads.append(peer.head())
                secure.sendall(answer)
                ending(peer)

    with accepting(serve) as port:
        yield f"wss://{LOOPBACK}:{port}/", heads
