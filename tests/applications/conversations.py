"""What clients do to a server, right and wrong, byte by byte.

Every server of ``programs/`` has the same paths, so all of them have these conversations.
What they answer is theirs, and differs: it is compared with what the same server answers
without a speed-up.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from typing import Any

from applications.peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Peer,
    connected,
    request,
    said,
)
from applications.process import Program
from wire import MASK, frame

LIMIT = 100_000
"""Bytes of the largest message that the servers take, where they have a limit."""

Conversation = Callable[["Talk"], None]
CONVERSATIONS: dict[str, Conversation] = {}
MORE: dict[str, Conversation] = {}
"""Those for which a program needs more paths than others have."""
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


class Talk:
    """A conversation with a program that is a server.

    Args:
        program: The program.
        name: Name of the conversation.
    """

    def __init__(self, program: Program, name: str) -> None:
        self.program = program
        self.name = name
        self.peers: list[Peer] = []
        self.names: list[str] = []

    def connect(self, data: bytes) -> Peer:
        """Connect, and send the beginning."""
        peer = connected(self.program.wait_for_port())
        self.peers.append(peer)
        peer.send(data)
        return peer

    def target(self, path: str, query: str = "") -> str:
        """Return the target of a request that the program takes notes on."""
        name = f"{self.name}.{len(self.peers)}"
        return f"{path}?talk={name}{query and '&' + query}"

    def open(self, path: str, *headers: str, query: str = "") -> Peer:
        """Open a connection; the program has to accept it."""
        self.names.append(f"{self.name}.{len(self.peers)}")
        peer = self.connect(request(self.target(path, query), *headers))
        head = peer.head()
        assert head.startswith(b"HTTP/1.1 101 "), (head, self.program.said())
        return peer

    def refused(
        self, path: str, *headers: str, query: str = "", is_noted: bool = True
    ) -> None:
        """Ask for a connection, and be refused."""
        if is_noted:
            self.names.append(f"{self.name}.{len(self.peers)}")
        self.answered(request(self.target(path, query), *headers))

    def answered(self, data: bytes) -> None:
        """Send a request that may be no good, and receive the answer."""
        peer = self.connect(data)
        head = peer.head()
        if head.startswith(b"HTTP/1.1 101 "):
            self.names.append(f"{self.name}.{len(self.peers) - 1}")
            peer.say_bye()
            return
        if head:
            peer.body(head)
        peer.close()

    def result(self) -> dict[str, Any]:
        """Return what everybody saw."""
        found: dict[str, Any] = {"program": {}, "peers": {}}
        for number, peer in enumerate(self.peers):
            found["peers"][f"{self.name}.{number}"] = peer.seen
            peer.close()
        for name in self.names:
            found["program"][name] = self.program.wait_for_end_of(name)
        return found


def have(program: Program, name: str) -> dict[str, Any]:
    """Have a conversation with a program; return what everybody saw."""
    talk = Talk(program, name)
    try:
        {**CONVERSATIONS, **MORE}[name](talk)
        return talk.result()
    except BaseException:
        print(program.said())
        for peer in talk.peers:
            print(*peer.seen, sep="\n")
        raise
    finally:
        for peer in talk.peers:
            peer.close()


def conversation(function: Conversation) -> Conversation:
    CONVERSATIONS[function.__name__] = function
    return function


def more(function: Conversation) -> Conversation:
    MORE[function.__name__] = function
    return function


def text(payload: bytes | str, **options: Any) -> bytes:
    """Build a text frame of a client."""
    payload = payload.encode() if isinstance(payload, str) else payload
    return frame(TEXT, payload, **{"mask": MASK, **options})


def answered(peer: Peer) -> None:
    """Take what comes next, and close."""
    found = peer.frame()
    if found is not None:
        peer.try_to_send(frame(CLOSE, said(1000), mask=MASK))
        if found[0] == 0x88:
            peer.hang_up()
    peer.cut()


# -- messages --------------------------------------------------------------------------


@conversation
def chat(talk: Talk) -> None:
    ada = talk.open("/chat/tea", query="name=ada")
    ada.frame()
    bob = talk.open("/chat/tea", query="name=bob")
    ada.frame(), bob.frame()
    eve = talk.open("/chat/ale", query="name=eve")
    eve.frame()
    for peer, words in (
        (ada, "hello"),
        (bob, "naïve ☃ 𝄞"),
        (ada, ""),
        (bob, "x" * 5000),
    ):
        peer.send_frame(TEXT, words)
        ada.frame(), bob.frame()
    eve.send_frame(TEXT, "anybody?")
    eve.frame()
    bob.say_bye(1000, "bye")
    ada.frame()
    ada.send_frame(TEXT, "alone")
    ada.frame()
    ada.send_frame(CLOSE)
    ada.end()
    eve.say_bye(1001)


@conversation
def echo(talk: Talk) -> None:
    peer = talk.open("/echo")
    for payload in (
        b"t",
        b"text",
        "é€𝄞".encode(),
        b"x" * 125,
        b"x" * 126,
        b"y" * 65536,
    ):
        for opcode in (TEXT, BINARY):
            peer.send_frame(opcode, payload)
            peer.frame()
    peer.send_frame(BINARY, bytes(range(256)))
    peer.frame()
    peer.say_bye(1000, "done")


@conversation
def empty_messages(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send(text(""), frame(BINARY, mask=MASK), text("after"))
    while (found := peer.frame()) is not None and found[1] != b"after":
        pass
    peer.say_bye()


@conversation
def many_at_once(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send(b"".join(text(f"message {i}") for i in range(100)))
    peer.frames(100)
    peer.say_bye()


@conversation
def byte_by_byte(talk: Talk) -> None:
    peer = talk.open("/echo")
    for data in (
        text("slow"),
        frame(PING, b"p", mask=MASK),
        frame(BINARY, b"z" * 130, mask=MASK),
    ):
        peer.send(*(data[i : i + 1] for i in range(len(data))))
        peer.frame()
    peer.say_bye()


@conversation
def fragments(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send_frame(TEXT, "one ", fin=False)
    peer.send_frame(0, "né".encode()[:2], fin=False)
    peer.send_frame(PING, "between")
    peer.frame()
    peer.send_frame(0, "né".encode()[2:], fin=False)
    peer.send_frame(0, b"")
    peer.frame()
    peer.send_frame(BINARY, bytes(1000), fin=False)
    peer.send_frame(0, bytes(2000))
    peer.frame()
    peer.say_bye()


@conversation
def upload(talk: Talk) -> None:
    peer = talk.open("/upload")
    for size in (1, 1000, 60_000, LIMIT - 256):
        peer.send_frame(BINARY, bytes(range(256)) * (size // 256) + b"!")
    peer.send_frame(BINARY, b"begun", fin=False)
    peer.send_frame(0, b"ended")
    peer.send_frame(TEXT, "that is all")
    peer.frames(2)
    peer.send_frame(CLOSE, said(1000))
    peer.end()


@conversation
def subprotocols(talk: Talk) -> None:
    for offered in ("chat.v1", "chat.v1, chat.v2", "chat.v3", "chat.v3, chat.v1"):
        line = f"Sec-WebSocket-Protocol: {offered}"
        talk.answered(request(talk.target("/protocols"), line))


@conversation
def pings(talk: Talk) -> None:
    peer = talk.open("/echo")
    for payload in (b"", b"ping", b"x" * 125):
        peer.send_frame(PING, payload)
        peer.frame()
    peer.send_frame(PONG, b"nobody asked")
    peer.send_frame(TEXT, "after")
    peer.frame()
    peer.say_bye()


# -- endings ---------------------------------------------------------------------------


@conversation
def client_closes(talk: Talk) -> None:
    for payload in (
        b"",
        said(1000),
        said(1000, "bye"),
        said(1001, "é" * 61),
        said(3000),
        said(4999, "own code"),
        said(1012),
        said(1014, "bad gateway"),
    ):
        peer = talk.open("/echo")
        peer.send_frame(CLOSE, payload)
        peer.end()


@conversation
def client_closes_with_bad_text(talk: Talk) -> None:
    for reason in (b"\xff", b"caf\xc3"):
        peer = talk.open("/echo")
        peer.send_frame(CLOSE, said(1000, reason))
        peer.end()


@conversation
def client_closes_badly(talk: Talk) -> None:
    for payload in (
        b"\3",
        said(0),
        said(999),
        said(1004),
        said(1005),
        said(1006),
        said(1015),
        said(1016),
        said(2999),
        said(5000),
        said(65535),
    ):
        peer = talk.open("/echo")
        peer.send_frame(CLOSE, payload)
        peer.end()


@conversation
def what_follows_a_close_frame(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send(text("before"))
    peer.frame()
    peer.send(frame(CLOSE, said(1000), mask=MASK) + text("after"))
    peer.cut()


@conversation
def program_closes(talk: Talk) -> None:
    for query in (
        "code=1000",
        "code=1000&reason=bye",
        "code=1001",
        "code=1011&reason=sorry",
        "code=3000",
        "code=4999&reason=own",
    ):
        peer = talk.open("/close", query=query)
        peer.send_frame(TEXT, "close")
        found = peer.frame()
        if found is not None:
            peer.send_frame(CLOSE, found[1])
        peer.end()


@conversation
def program_closes_and_client_hangs_up(talk: Talk) -> None:
    peer = talk.open("/close", query="code=4000")
    peer.send_frame(TEXT, "close")
    peer.frame()
    peer.hang_up()
    peer.end()


@conversation
def program_closes_badly(talk: Talk) -> None:
    for query in (
        "code=999",
        "code=1005",
        "code=1006",
        "code=70000",
        f"code=1000&reason={'x' * 130}",
    ):
        peer = talk.open("/close", query=query)
        peer.send_frame(TEXT, "close")
        peer.frame()
        peer.hang_up()
        peer.cut()


@conversation
def program_raises(talk: Talk) -> None:
    peer = talk.open("/raise")
    peer.send_frame(TEXT, "of the program")
    found = peer.frame()
    if found is not None:
        with contextlib.suppress(ConnectionError):
            peer.send_frame(CLOSE, found[1])
    peer.end()


@conversation
def program_returns(talk: Talk) -> None:
    peer = talk.open("/return")
    found = peer.frame()
    if found is not None:
        with contextlib.suppress(ConnectionError):
            peer.send_frame(CLOSE, found[1])
    peer.end()


@conversation
def client_hangs_up(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send_frame(TEXT, "hello")
    peer.frame()
    peer.hang_up()
    peer.end()


@conversation
def client_hangs_up_in_a_frame(talk: Talk) -> None:
    for part in (
        text("hello")[:1],
        text("hello")[:4],
        text("hello")[:-1],
        text("a", fin=False),
    ):
        peer = talk.open("/echo")
        peer.send(text("hello"))
        peer.frame()
        peer.send(part)
        peer.hang_up()
        peer.end()


@conversation
def client_disappears(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send_frame(TEXT, "hello")
    peer.frame()
    peer.reset()


@conversation
def member_disappears(talk: Talk) -> None:
    ada = talk.open("/chat/late", query="name=ada")
    ada.frame()
    bob = talk.open("/chat/late", query="name=bob")
    ada.frame(), bob.frame()
    bob.reset()
    ada.frame()
    ada.send_frame(TEXT, "hello?")
    ada.frame()
    ada.say_bye()


# -- what is wrong ---------------------------------------------------------------------


@conversation
def bad_frames(talk: Talk) -> None:
    mask = MASK
    for data in (
        frame(3, b"reserved", mask=mask),
        frame(7, mask=mask),
        frame(11, mask=mask),
        frame(TEXT, b"rsv1", rsv=0x40, mask=mask),
        frame(TEXT, b"rsv2", rsv=0x20, mask=mask),
        frame(BINARY, b"rsv3", rsv=0x10, mask=mask),
        frame(TEXT, b"no mask"),
        frame(PING, b"no mask"),
        frame(CLOSE, said(1000)),
        frame(PING, b"in parts", fin=False, mask=mask),
        frame(PING, b"x" * 126, mask=mask),
        frame(CLOSE, said(1000) + b"x" * 124, mask=mask),
        frame(0, b"of nothing", mask=mask),
        text("a", fin=False) + text("b"),
        text("a", fin=False) + frame(BINARY, b"b", mask=mask),
        b"\x81\xfe\0\x05" + text("hello")[2:],
        b"\x81\xff" + (5).to_bytes(8, "big") + text("hello")[2:],
    ):
        peer = talk.open("/echo")
        peer.send(text("good"))
        peer.frame()
        peer.send(data)
        # Some let frames without a mask pass, and lengths with too many bytes.
        answered(peer)


@conversation
def length_with_its_top_bit_set(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send(b"\x81\xff" + (2**63).to_bytes(8, "big") + MASK)
    answered(peer)


@conversation
def bad_frame_behind_good_ones(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send(
        text("one")
        + frame(BINARY, b"two", mask=MASK)
        + frame(3, mask=MASK)
        + text("no")
    )
    peer.cut()


@conversation
def bad_text(talk: Talk) -> None:
    for pieces in (
        [text(b"\xff")],
        [text(b"abc\xed\xa0\x80")],
        [text(b"cut \xe2\x82")],
        [text(b"\xf4\x90\x80\x80")],
        [text(b"fine ", fin=False), frame(0, b"\xfe", mask=MASK)],
        [text(b"fine \xe2", fin=False), frame(0, b"\x28\xa1", mask=MASK)],
        [text(b"cut \xc3", fin=False), frame(0, b"", mask=MASK)],
    ):
        peer = talk.open("/echo")
        peer.send(b"".join(pieces))
        answered(peer)


@conversation
def too_big(talk: Talk) -> None:
    for opcode in (TEXT, BINARY):
        peer = talk.open("/echo")
        peer.send_frame(opcode, b"x" * LIMIT)
        peer.frame()
        peer.try_to_send(frame(opcode, b"x" * (LIMIT + 1), mask=MASK))
        answered(peer)


@conversation
def too_big_in_fragments(talk: Talk) -> None:
    peer = talk.open("/echo")
    half = b"x" * (LIMIT // 2)
    peer.send(text(half, fin=False))
    peer.send(frame(0, half, fin=False, mask=MASK))
    peer.try_to_send(frame(0, b"!", mask=MASK))
    answered(peer)


@conversation
def far_too_big(talk: Talk) -> None:
    peer = talk.open("/echo")
    peer.send(b"\x82\xff" + (2**40).to_bytes(8, "big") + MASK + b"it begins")
    answered(peer)


# -- compression -----------------------------------------------------------------------


def squeezed(payload: bytes) -> bytes:
    """Compress a message (RFC 7692, 7.2.1)."""
    deflater = zlib.compressobj(wbits=-12)
    data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\0\0\xff\xff")


def has_deflate(peer: Peer) -> bool:
    return "permessage-deflate" in peer.seen[0][1]


@conversation
def compression(talk: Talk) -> None:
    for offer in (
        DEFLATE,
        f"{DEFLATE}; client_max_window_bits",
        f"{DEFLATE}; client_no_context_takeover; server_no_context_takeover",
        f"{DEFLATE}; server_max_window_bits=10; client_max_window_bits=12",
    ):
        peer = talk.open("/echo", offer)
        if has_deflate(peer):
            deflater = zlib.compressobj(wbits=-12)
            for payload in (b"again " * 100, b"again " * 100, b"", b"x" * 50_000):
                if "no_context_takeover" in offer:
                    deflater = zlib.compressobj(wbits=-12)
                data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
                peer.send(text(data[:-4], rsv=0x40))
                peer.frame()
        peer.send(text("not compressed"))
        peer.frame()
        peer.say_bye()


@conversation
def compressed_fragments(talk: Talk) -> None:
    peer = talk.open("/echo", DEFLATE)
    if has_deflate(peer):
        data = squeezed(b"in parts, " * 300)
        peer.send(text(data[:7], fin=False, rsv=0x40))
        peer.send_frame(PING, "between")
        peer.frame()
        peer.send(
            frame(0, data[7:20], fin=False, mask=MASK) + frame(0, data[20:], mask=MASK)
        )
        peer.frame()
    peer.say_bye()


@conversation
def bad_compression(talk: Talk) -> None:
    for data in (
        text(b"\xff\xff\xff\xff", rsv=0x40),
        text(squeezed(b"x" * (LIMIT + 1)), rsv=0x40),
        frame(BINARY, squeezed(bytes(2**24)), rsv=0x40, mask=MASK),
        frame(PING, b"x", rsv=0x40, mask=MASK),
        text(squeezed(b"one"), fin=False, rsv=0x40)
        + frame(0, b"", rsv=0x40, mask=MASK),
    ):
        peer = talk.open("/echo", DEFLATE)
        if has_deflate(peer):
            peer.send(data)
            answered(peer)
        else:
            peer.say_bye()


@conversation
def bad_compressed_text(talk: Talk) -> None:
    peer = talk.open("/echo", DEFLATE)
    if has_deflate(peer):
        peer.send(text(squeezed(b"\xff\xfe"), rsv=0x40))
        answered(peer)
    else:
        peer.say_bye()


# -- handshakes ------------------------------------------------------------------------


@conversation
def refusals(talk: Talk) -> None:
    talk.refused("/deny")
    talk.refused("/raise-early")


@conversation
def no_such_path(talk: Talk) -> None:
    talk.refused("/nowhere", is_noted=False)


@conversation
def data_with_the_request(talk: Talk) -> None:
    early = text("one") + frame(BINARY, b"two", mask=MASK) + text("three")[:5]
    peer = talk.connect(request(talk.target("/echo")) + early)
    head = peer.head()
    if not head.startswith(b"HTTP/1.1 101 "):
        peer.body(head)
        return
    talk.names.append(f"{talk.name}.0")
    peer.try_to_send(text("three")[5:])
    peer.frames(3)
    peer.try_to_send(frame(CLOSE, said(1000), mask=MASK))
    peer.cut()


@conversation
def bad_requests(talk: Talk) -> None:
    changes: tuple[dict[str, str | None], ...] = (
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "no base64 at all"},
        {"Upgrade": None},
        {"Upgrade": "telnet"},
        {"Connection": "close"},
    )
    for changed in changes:
        talk.answered(request(talk.target("/echo"), changed=changed))


@conversation
def bad_versions(talk: Talk) -> None:
    for version in (None, "12", "thirteen"):
        changed = {"Sec-WebSocket-Version": version}
        talk.answered(request(talk.target("/echo"), changed=changed))


@conversation
def bad_request_headers(talk: Talk) -> None:
    for line in (
        "Sec-WebSocket-Extensions: ;;=",
        "Sec-WebSocket-Protocol: a b,,",
    ):
        talk.answered(request(talk.target("/protocols"), line))


@more
def denials(talk: Talk) -> None:
    talk.refused("/deny-with-page")
    talk.refused("/deny-by-exception")


@more
def policies(talk: Talk) -> None:
    peer = talk.open("/policy")
    peer.send_frame(TEXT, "welcome")
    answered(peer)
