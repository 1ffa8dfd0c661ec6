"""What servers do to a client, right and wrong, byte by byte.

Every client of ``programs/`` is a bot that obeys (see ``programs/bot.py``), so all of
them have these conversations.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

from applications.peer import BINARY, CLOSE, PING, PONG, TEXT, TIMEOUT, Peer, said
from applications.process import Program
from wire import frame

LIMIT = 100_000
"""Bytes of the largest message that the clients take, where they have a limit."""

ENDINGS = ("closed", "raised", "ended")
"""Notes of a client that knows that its connection has ended."""

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Answer = Callable[["Server"], None]
ANSWERS: dict[str, tuple[int, Answer]] = {}
"""Names of conversations, with how many connections each takes."""

# What is random in the head of a request.
KEY = re.compile(rb"(?i)(\r\nsec-websocket-key: )([^\r]*)")
HOST = re.compile(rb"(127\.0\.0\.1:)\d+")


class Server(Peer):
    """The end of a connection that a client has made.

    Args:
        sock: A connected socket.
        turn: How many connections of the conversation came before.
        program: The client.
        talk: Name of the talk.
    """

    def __init__(
        self, sock: socket.socket, turn: int, program: Program, talk: str
    ) -> None:
        super().__init__(sock)
        self.turn = turn
        self.program = program
        self.talk = talk

    def request(self) -> bytes:
        """Receive the request; return its key."""
        head = self.head()
        self.seen[-1] = (
            "head",
            HOST.sub(rb"\1PORT", KEY.sub(rb"\1KEY", head)).decode("latin-1"),
        )
        found = KEY.search(head)
        assert found is not None, head
        return found[2]

    def response(self, *lines: str) -> bytes:
        """Receive the request; return the response that accepts it."""
        return self.accepting(self.request(), *lines)

    @staticmethod
    def accepting(key: bytes, *lines: str) -> bytes:
        """Return the response that accepts a key."""
        digest = hashlib.sha1(key + GUID.encode()).digest()
        accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}"
        first = "HTTP/1.1 101 Switching Protocols"
        return "\r\n".join(
            (first, "Upgrade: websocket", "Connection: Upgrade", accept, *lines, "", "")
        ).encode()

    def send(self, *pieces: bytes) -> None:
        """Send to a client that may have gone; it says why in its notes."""
        for piece in pieces:
            self.try_to_send(piece)

    def accept(self, *lines: str) -> None:
        self.send(self.response(*lines))

    def send_frame(
        self, opcode: int, payload: bytes | str = b"", **options: object
    ) -> None:
        super().send_frame(opcode, payload, **{"mask": None, **options})

    def ask(self, words: str) -> None:
        """Send a text, and receive what comes of it."""
        self.send_frame(TEXT, words)
        self.frame()

    def finish(self) -> None:
        """Close as a server should: send the frame, receive it, end the connection."""
        self.send_frame(CLOSE, said(1000, "bye"))
        self.answered()

    def be_judged(self) -> None:
        """See what a client makes of something wrong, and end the connection."""
        found = self.next()
        if found is None or found[0] == 0x88:
            self.leave()
        else:
            self.finish()

    def answered(self) -> None:
        """Receive up to the close frame of the client, and hang up.

        Some clients send none, and wait for the server to end the connection.
        """
        while (found := self.next()) is not None and found[0] != 0x88:
            pass
        self.leave()

    def next(self) -> tuple[int, bytes] | None:
        """Receive a frame; None when the client knows that the connection has ended."""
        self.sock.settimeout(0.05)
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            try:
                return self.frame()
            except TimeoutError:
                if self.program.has_noted(self.talk, *ENDINGS):
                    return None
        raise TimeoutError(f"{self.talk}: the client neither answers nor ends")

    def leave(self) -> None:
        """Hang up, and receive what the client has sent until its talk is over.

        Some clients never close a connection that has failed.
        """
        self.hang_up()
        self.program.wait_for_end_of(self.talk)
        self.sock.setblocking(False)
        while self.frame() is not None:
            pass
        # Whether it had closed already is a matter of luck.
        self.seen[-1] = ("end", "left")
        self.close()


def answer(count: int = 1) -> Callable[[Answer], Answer]:
    """Note a conversation of so many connections."""

    def note(function: Answer) -> Answer:
        ANSWERS[function.__name__] = count, function
        return function

    return note


# -- messages --------------------------------------------------------------------------


@answer()
def obeyed(server: Server) -> None:
    server.accept()
    for words in ("hello", "naïve ☃ 𝄞", "x" * 125, "x" * 126, "y" * 70_000):
        server.ask(words)
    for size in (0, 125, 1000, 65_536):
        server.ask(f"bytes {size}")
    for size in (1, 126, 70_000):
        server.send_frame(BINARY, b"z" * size)
        server.frame()
    server.finish()


@answer()
def empty_messages(server: Server) -> None:
    server.accept()
    server.send_frame(TEXT, "")
    server.frame()
    server.send_frame(BINARY, b"")
    server.frame()
    server.finish()


@answer()
def many_at_once(server: Server) -> None:
    server.accept()
    server.send(b"".join(frame(TEXT, f"message {i}".encode()) for i in range(100)))
    server.frames(100)
    server.finish()


@answer()
def byte_by_byte(server: Server) -> None:
    server.accept()
    for data in (frame(TEXT, b"slow"), frame(PING, b"p"), frame(BINARY, b"z" * 130)):
        server.send(*(data[i : i + 1] for i in range(len(data))))
        server.frame()
    server.finish()


@answer()
def data_with_the_response(server: Server) -> None:
    early = frame(TEXT, b"one") + frame(BINARY, b"two") + frame(TEXT, b"three")[:4]
    server.send(server.response() + early)
    server.frames(2)
    server.send(frame(TEXT, b"three")[4:])
    server.frame()
    server.finish()


@answer()
def fragments(server: Server) -> None:
    server.accept()
    server.send_frame(TEXT, b"n\xc3", fin=False)
    server.send_frame(PING, "between")
    server.frame()
    server.send_frame(0, b"\xa9", fin=False)
    server.send_frame(0, b"")
    server.frame()
    server.send_frame(BINARY, bytes(1000), fin=False)
    server.send_frame(0, bytes(2000))
    server.frame()
    server.finish()


@answer()
def pings(server: Server) -> None:
    server.accept()
    for payload in (b"", b"ping", b"x" * 125):
        server.send_frame(PING, payload)
        server.frame()
    server.send_frame(PONG, b"nobody asked")
    server.ask("after")
    server.finish()


@answer(2)
def compression(server: Server) -> None:
    key = server.request()
    offer = "permessage-deflate" in server.seen[0][1].lower()
    lines = ["Sec-WebSocket-Extensions: permessage-deflate"] if offer else []
    if offer and server.turn:
        lines[0] += "; server_no_context_takeover; client_no_context_takeover"
    server.send(server.accepting(key, *lines))
    if offer:
        deflater = zlib.compressobj(wbits=-12)
        for payload in (b"again " * 100, b"again " * 100, b"x" * 50_000):
            if server.turn:
                deflater = zlib.compressobj(wbits=-12)
            data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
            server.send_frame(TEXT, data[:-4], rsv=0x40)
            server.frame()
    server.ask("not compressed")
    server.finish()


@answer(2)
def bad_compression(server: Server) -> None:
    key = server.request()
    offer = "permessage-deflate" in server.seen[0][1].lower()
    lines = ["Sec-WebSocket-Extensions: permessage-deflate"] if offer else []
    server.send(server.accepting(key, *lines))
    if not offer:
        server.finish()
        return
    deflater = zlib.compressobj(wbits=-12)
    data = deflater.compress(bytes(2**22)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    payload = (b"\xff\xff\xff\xff", data[:-4])[server.turn]
    server.send_frame(BINARY, payload, rsv=0x40)
    server.be_judged()


# -- endings ---------------------------------------------------------------------------

CLOSINGS = (
    b"", said(1000), said(1001, "é" * 61), said(1011, "sorry"), said(3000), said(4999, "own"),
    said(1012),
)  # fmt: skip
BAD_CLOSINGS = (
    b"\3", said(0), said(999), said(1004), said(1005), said(1006), said(1014), said(1015),
    said(2999), said(5000), said(1000, b"\xff"), said(1000, b"caf\xc3"),
)  # fmt: skip
ORDERS = (
    "close 1000", "close 1000 bye", "close 1001 é", "close 3000", "close 4999 own",
    "close 1011 sorry",
)  # fmt: skip
BAD_ORDERS = ("close 999", "close 1005", "close 70000", "close 1000 " + "x" * 130)


@answer(len(CLOSINGS))
def server_closes(server: Server) -> None:
    server.accept()
    server.send_frame(CLOSE, CLOSINGS[server.turn])
    server.answered()


@answer(len(BAD_CLOSINGS))
def server_closes_badly(server: Server) -> None:
    server.accept()
    server.send_frame(CLOSE, BAD_CLOSINGS[server.turn])
    server.answered()


@answer(len(ORDERS))
def client_closes(server: Server) -> None:
    server.accept()
    server.ask(ORDERS[server.turn])
    server.send_frame(CLOSE, said(1000))
    server.leave()


@answer(len(BAD_ORDERS))
def client_closes_badly(server: Server) -> None:
    server.accept()
    server.send_frame(TEXT, BAD_ORDERS[server.turn])
    server.answered()


@answer()
def server_hangs_up(server: Server) -> None:
    server.accept()
    server.ask("hello")
    server.leave()


@answer(3)
def server_hangs_up_in_a_frame(server: Server) -> None:
    server.accept()
    server.ask("hello")
    server.send((b"\x81", b"\x81\x05he", b"\x01\x02he")[server.turn])
    server.leave()


@answer()
def server_disappears(server: Server) -> None:
    server.accept()
    server.ask("hello")
    server.reset()


# -- what is wrong ---------------------------------------------------------------------

BAD = (
    frame(3, b"reserved"),
    frame(11),
    frame(TEXT, b"rsv1", rsv=0x40),
    frame(BINARY, b"rsv3", rsv=0x10),
    frame(TEXT, b"masked", mask=b"mask"),
    frame(PING, b"in parts", fin=False),
    frame(PING, b"x" * 126),
    frame(CLOSE, said(1000) + b"x" * 124),
    frame(0, b"of nothing"),
    frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    b"\x81\x7e\0\x05hello",
)
BAD_TEXT = (
    [frame(TEXT, b"\xff")],
    [frame(TEXT, b"abc\xed\xa0\x80")],
    [frame(TEXT, b"cut \xe2\x82")],
    [frame(TEXT, b"fine ", fin=False), frame(0, b"\xfe")],
    [frame(TEXT, b"cut \xc3", fin=False), frame(0, b"")],
)


@answer(len(BAD))
def bad_frames(server: Server) -> None:
    server.accept()
    server.ask("good")
    server.send(BAD[server.turn])
    server.be_judged()


@answer(len(BAD_TEXT))
def bad_text(server: Server) -> None:
    server.accept()
    server.send(b"".join(BAD_TEXT[server.turn]))
    server.be_judged()


@answer(2)
def too_big(server: Server) -> None:
    server.accept()
    if server.turn:
        half = b"x" * (LIMIT // 2)
        data = frame(TEXT, half, fin=False) + frame(0, half, fin=False) + frame(0, b"!")
    else:
        data = frame(BINARY, b"x" * (LIMIT + 1))
    server.send(data)
    server.be_judged()


# -- handshakes ------------------------------------------------------------------------


@answer(4)
def subprotocols(server: Server) -> None:
    lines = ([], ["chat.v1"], ["chat.v2"], ["chat.v3"])[server.turn]
    server.accept(*(f"Sec-WebSocket-Protocol: {name}" for name in lines))
    if server.turn == 3:
        server.leave()
    else:
        server.ask("hello")
        server.finish()


REFUSALS = (
    "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 8\r\nX-Why: rules\r\n\r\ngo away\n",
    "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 5\r\n\r\nsorry",
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK",
    "no HTTP at all\r\n\r\n",
)


@answer(len(REFUSALS))
def refusals(server: Server) -> None:
    server.request()
    server.send(REFUSALS[server.turn].encode())
    server.leave()


@answer(4)
def bad_responses(server: Server) -> None:
    data = server.response()
    if server.turn == 0:
        data = re.sub(rb"(Accept: )[^\r]*", rb"\1dGhlIHNhbXBsZSBub25jZQ==", data)
    elif server.turn == 1:
        data = data.replace(b"Upgrade: websocket\r\n", b"")
    elif server.turn == 2:
        data = data.replace(b"Connection: Upgrade", b"Connection: close")
    else:
        data = (
            data.removesuffix(b"\r\n") + b"Sec-WebSocket-Extensions: x-unknown\r\n\r\n"
        )
    server.send(data)
    server.leave()


# -- playing ---------------------------------------------------------------------------


def play(listening: socket.socket, name: str, program: Program, way: str = "") -> Any:
    """Have a conversation with a client; return what both saw.

    Args:
        listening: The socket that the client connects to.
        name: Name of the conversation.
        program: The client.
        way: How the client goes about it, when it has several ways.
    """
    count, function = ANSWERS[name]
    found = {}
    for turn in range(count):
        talk = f"{name}.{turn}{way}"
        sock, _ = listening.accept()
        server = Server(sock, turn, program, talk)
        try:
            function(server)
        except BaseException:
            print(program.said(), *server.seen, sep="\n")
            raise
        finally:
            server.close()
        found[talk] = server.seen, program.wait_for_end_of(talk)
    return found


def talks(way: str = "") -> list[str]:
    """Return the names of all talks, for the command line of a client."""
    return [
        f"{name}.{turn}{way}"
        for name, (count, _) in ANSWERS.items()
        for turn in range(count)
    ]
