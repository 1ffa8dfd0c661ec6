"""aiohttp's WebSockets with the ways that each message takes made shorter.

The host's reader and queue are compiled, and stay: replacing them was measured, and
gains nothing.  What a message costs is spent around them.
"""

from __future__ import annotations

from typing import Any

from .._kernels import apply_mask
from ._aiohttp_responses import make_receive, make_send
from ._aiohttp_writer import make_writer
from ._patch import Patch

__all__ = ["PATCH"]

RECEIVES = {"_close_wait", "_closed", "_closing", "_reader", "_waiting", "read"}
"""What ``receive()`` of the host works with."""


class AiohttpPatch(Patch):
    """Replaces the writer, and how connections receive and send messages."""

    host = "aiohttp"
    modules = ("aiohttp.client", "aiohttp.client_ws", "aiohttp.web_ws")
    versions = ("3.14.5", "3.15")
    gain = "messages take a shorter way, and answers leave together"

    def self_test(self) -> None:
        """Compare what is written with what the host writes."""
        host: Any = self.module("aiohttp.web_ws").WebSocketWriter
        writer = make_writer(host)
        for kind in self.kinds():
            if not set(kind.receive.__code__.co_names) >= RECEIVES:
                raise ValueError("receive() works differently")
        for is_client in (False, True):
            for size in (0, 1, 125, 126, 65535, 65536):
                for data in ("x" * size, bytes(size), "\u2603" * size):
                    theirs, ours = Written(), Written()
                    payload = data.encode() if isinstance(data, str) else data
                    opcode = 1 if isinstance(data, str) else 2
                    made = host(theirs, theirs, use_mask=is_client)
                    made._write_websocket_frame(payload, opcode, 0)
                    made = writer(ours, ours, use_mask=is_client)
                    ours.write(made._websock_message(data))
                    if theirs.plain(is_client) != ours.plain(is_client):
                        raise ValueError("a frame is not written as it was")

    def kinds(self) -> tuple[Any, Any]:
        """Return the classes of connections, that of clients first."""
        return (
            self.module("aiohttp.client_ws").ClientWebSocketResponse,
            self.module("aiohttp.web_ws").WebSocketResponse,
        )

    def apply(self) -> None:
        """Replace them."""
        web = self.module("aiohttp.web_ws")
        client = self.module("aiohttp.client")
        writer = make_writer(web.WebSocketWriter)
        self.replace(client, "WebSocketWriter", writer)
        self.replace(web, "WebSocketWriter", writer)
        for kind in self.kinds():
            module = self.module(kind.__module__)
            slow = kind.receive
            receive = make_receive(module, slow)
            following = make_receive(module, kind.__anext__, slow, kind)
            send_str = make_send(module, kind.send_str, writer, str)
            send_bytes = make_send(module, kind.send_bytes, writer, bytes)
            self.replace(kind, "receive", receive)
            self.replace(kind, "__anext__", following)
            self.replace(kind, "send_str", send_str)
            self.replace(kind, "send_bytes", send_bytes)


class Written:
    """A transport that keeps what is written to it."""

    data = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def is_closing(self) -> bool:
        """Whether it is closing."""
        return False

    def plain(self, is_masked: bool) -> bytes:
        """Return the frame that was written, without its mask.

        Args:
            is_masked: Whether it has one.
        """
        length = self.data[1] & 0x7F
        at = {126: 4, 127: 10}.get(length, 2)
        if not is_masked:
            return self.data
        key = self.data[at : at + 4]
        return self.data[:at] + apply_mask(self.data[at + 4 :], key)


PATCH = AiohttpPatch
