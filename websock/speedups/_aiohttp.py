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

WEB = "aiohttp.web_ws"  # clients do without it

RECEIVES = {"_close_wait", "_closed", "_closing", "_reader", "_waiting", "read"}
"""What ``receive()`` of the host works with."""


class AiohttpPatch(Patch):
    """Replaces the writer, and how connections receive and send messages."""

    host = "aiohttp"
    modules = ("aiohttp.client", "aiohttp.client_ws")
    parts = (WEB,)
    versions = ("3.14.5", "3.15")
    gain = "messages take a shorter way, and answers leave together"

    def self_test(self) -> None:
        """Compare what is written with what the host writes."""
        host: Any = self.module("aiohttp.client").WebSocketWriter
        writer = make_writer(host)
        check(self.module("aiohttp.client_ws").ClientWebSocketResponse)
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

    def apply(self) -> None:
        """Replace what clients have."""
        client = self.module("aiohttp.client")
        self.writer = make_writer(client.WebSocketWriter)
        self.replace(client, "WebSocketWriter", self.writer)
        self.shorten(self.module("aiohttp.client_ws").ClientWebSocketResponse)

    def apply_part(self, name: str) -> None:
        """Replace what servers have."""
        web = self.module(name)
        check(web.WebSocketResponse)
        self.replace(web, "WebSocketWriter", self.writer)
        self.shorten(web.WebSocketResponse)

    def shorten(self, kind: Any) -> None:
        """Replace the methods of a class of connections."""
        module = self.module(kind.__module__)
        slow = kind.receive
        receive = make_receive(module, slow)
        following = make_receive(module, kind.__anext__, slow, kind)
        send_str = make_send(module, kind.send_str, self.writer, str)
        send_bytes = make_send(module, kind.send_bytes, self.writer, bytes)
        self.replace(kind, "receive", receive)
        self.replace(kind, "__anext__", following)
        self.replace(kind, "send_str", send_str)
        self.replace(kind, "send_bytes", send_bytes)


def check(kind: Any) -> None:
    """See that a class of connections works as it is expected to."""
    if not set(kind.receive.__code__.co_names) >= RECEIVES:
        raise ValueError("receive() works differently")


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
