"""Clients made of bytes, that keep every byte they receive."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from wire import MASK, frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
TIMEOUT = 60  # seconds, on a busy machine
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}

# What is random in the head of a response.
DATE = re.compile(rb"(?i)(\r\ndate: )[^\r]*")


def request(
    target: str,
    *lines: str,
    method: str = "GET",
    changed: dict[str, str | None] | None = None,
) -> bytes:
    """Build a request for a WebSocket.

    Args:
        target: Its target.
        *lines: Further headers.
        method: Its method.
        changed: Headers that have another value, or are missing.
    """
    headers = {**UPGRADE, **(changed or {})}
    named = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    head = [f"{method} {target} HTTP/1.1", *named, *lines, "", ""]
    return "\r\n".join(head).encode()


def said(code: int, reason: bytes | str = b"") -> bytes:
    """Build the payload of a close frame."""
    reason = reason.encode() if isinstance(reason, str) else reason
    return code.to_bytes(2, "big") + reason


def shown(payload: bytes) -> str:
    """Show bytes so that any other bytes look otherwise."""
    if len(payload) <= 200:
        return repr(payload)
    digest = hashlib.sha256(payload).hexdigest()[:16]
    return f"{len(payload)} bytes, {payload[:20]!r}..., {digest}"


class Peer:
    """One end of a connection.

    Args:
        sock: A connected socket.

    Attributes:
        seen: What it has received, in order: every byte is in it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.seen: list[Any] = []
        self.is_open = True
        self._inflater = zlib.decompressobj(wbits=-15)
        self._buffer = b""
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # -- sending -----------------------------------------------------------------------

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def send_frame(
        self, opcode: int, payload: bytes | str = b"", **options: Any
    ) -> None:
        payload = payload.encode() if isinstance(payload, str) else payload
        self.send(frame(opcode, payload, **{"mask": MASK, **options}))

    def try_to_send(self, data: bytes) -> None:
        """Send to somebody who may have hung up meanwhile."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def hang_up(self) -> None:
        """Send a FIN, and go on reading."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Drop the connection with a RST."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        self.sock.close()

    # -- receiving ---------------------------------------------------------------------

    def _more(self) -> bool:
        """Receive something; tell whether there was anything."""
        if not self.is_open:
            return False
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            self._ends("nothing more")
            return False
        except ConnectionError:
            self._ends("reset")
            return False
        if not data:
            self._ends("EOF")
        self._buffer += data
        return bool(data)

    def _ends(self, how: str) -> None:
        self.is_open = False
        self.how = how

    def _take(self, count: int) -> bytes:
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _fill(self, count: int) -> bool:
        """Have so many bytes in the buffer; tell whether there were so many."""
        while len(self._buffer) < count:
            if not self._more():
                return False
        return True

    def head(self) -> bytes:
        """Receive the head of a message of HTTP."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                self._end()
                return b""
        head = self._take(self._buffer.index(b"\r\n\r\n") + 4)
        self.seen.append(("head", DATE.sub(rb"\1DATE", head).decode("latin-1")))
        return head

    def body(self, head: bytes) -> None:
        """Receive the rest of a response."""
        fields = head.decode("latin-1").lower()
        if found := re.search(r"\r\ncontent-length: *(\d+)", fields):
            if self._fill(int(found[1])):
                self.seen.append(("body", shown(self._take(int(found[1])))))
        elif re.search(r"\r\ntransfer-encoding: *chunked", fields):
            while b"0\r\n\r\n" not in self._buffer:
                if not self._more():
                    break
            body = self._take(self._buffer.find(b"0\r\n\r\n") + 5)
            self.seen.append(("body", shown(body)))
        else:
            self.end()

    def frame(self) -> tuple[int, bytes] | None:
        """Receive a frame: its first byte and its payload; None at the end."""
        if not self._fill(2):
            self._end()
            return None
        length, size = self._buffer[1] & 0x7F, 2
        if length > 125:
            size += 2 if length == 126 else 8
            if not self._fill(size):
                self._end()
                return None
            length = int.from_bytes(self._buffer[2:size], "big")
        has_mask = self._buffer[1] & 0x80
        size += 4 if has_mask else 0
        if not self._fill(size + length):
            self._end()
            return None
        head, payload = self._take(size), self._take(length)
        if has_mask:
            mask, head = head[-4:], head[:-4]
            payload = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
        self.seen.append(
            (head.hex(" "), shown(payload), *self._inflated(head[0], payload))
        )
        return head[0], payload

    def _inflated(self, first: int, payload: bytes) -> list[str]:
        """Return what a compressed message says; they all come in one frame."""
        if not first & 0x40 or first & 0x08:
            return []
        return [shown(self._inflater.decompress(payload + b"\0\0\xff\xff"))]

    def frames(self, count: int) -> None:
        for _ in range(count):
            if self.frame() is None:
                break

    def _end(self) -> None:
        """Note how it ended, and what was left over; once."""
        if self.seen and self.seen[-1][0] == "end":
            return
        if self._buffer:
            self.seen.append(("rest", shown(self._take(len(self._buffer)))))
        self.seen.append(("end", self.how))

    def end(self) -> None:
        """Receive frames until the end, and close."""
        while self.frame() is not None:
            pass
        self.close()

    def cut(self) -> None:
        """Receive frames until the end, of which it does not matter how it came.

        Who closes while something is still coming in resets the connection.  A close
        frame is answered, because some wait for that.
        """
        while (found := self.frame()) is not None:
            if found[0] == 0x88:
                self.try_to_send(frame(CLOSE, found[1], mask=MASK))
                self.hang_up()
        self.close()
        self.seen[-1] = ("end", "EOF or reset")

    def say_bye(self, code: int = 1000, reason: bytes | str = b"") -> None:
        """Send a close frame, and receive until the end."""
        self.send_frame(CLOSE, said(code, reason))
        self.end()


def connected(port: int) -> Peer:
    return Peer(socket.create_connection(("127.0.0.1", port), TIMEOUT))


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """Listen on a port that is free."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as sock:
        sock.settimeout(TIMEOUT)
        yield sock
